//! The logs of workers: kept where something went wrong, the newest of them, and gone otherwise.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The log's name in a worker's scratch folder.
pub(super) const NAME: &str = "worker.log";
/// The most of a log that is kept, in bytes: its end.
const MOST: u64 = 1 << 20;
/// So many logs are kept.
const KEPT: usize = 50;

/// A log that was kept.
pub(super) struct Kept {
    pub path: PathBuf,
    /// Its last lines, on one line.
    pub end: String,
}

/// A log's length now.
pub(super) fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

/// Keeps what a log holds from `start` on, if that is anything.
pub(super) fn keep(path: &Path, start: u64, folder: &Path) -> Option<Kept> {
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(start.max(length.saturating_sub(MOST)))).ok()?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let end = end_of(&text)?;
    std::fs::create_dir_all(folder).ok()?;
    prune(folder);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_millis());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("worker-{time}-{}-{count:04}.log", std::process::id()));
    std::fs::write(&path, &bytes).ok()?;
    Some(Kept { path, end })
}

/// The last lines that say something, 300 characters at most.
fn end_of(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let end = lines[lines.len().saturating_sub(3)..].join(" | ");
    let skipped = end.chars().count().saturating_sub(300);
    Some(end.chars().skip(skipped).collect::<String>()).filter(|end| !end.is_empty())
}

/// Makes room for one more.
fn prune(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("worker-") && name.ends_with(".log")
    };
    let mut logs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(ours).collect();
    logs.sort(); // the time comes first in their names
    for old in logs.iter().take((logs.len() + 1).saturating_sub(KEPT)) {
        let _ = std::fs::remove_file(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_empty_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (log, logs) = (folder.path().join("log"), folder.path().join("logs"));
        std::fs::write(&log, "\n \n").unwrap();
        assert!(keep(&log, 0, &logs).is_none() && !logs.exists());
        std::fs::write(&log, "first\nsecond\nthird\n\nlast\n").unwrap();
        assert_eq!(keep(&log, 0, &logs).unwrap().end, "second | third | last");
        assert_eq!(keep(&log, 19, &logs).unwrap().end, "last");
        for _ in 0..60 {
            keep(&log, 0, &logs).unwrap();
        }
        assert_eq!(std::fs::read_dir(&logs).unwrap().count(), KEPT);
    }
}
