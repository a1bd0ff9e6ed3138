//! Scratch folders of a porter that was killed outright: nobody was left to remove them, so the next one does.
//!
//! Whoever uses a folder holds a lock on a file in it, which the system lets go of with the process. The file gets its
//! name once it is locked, so a folder with that file and without a holder belongs to nobody.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What the names of scratch folders begin with.
pub(super) const PREFIX: &str = "porter-worker-";
const LOCK: &str = "in-use";

/// Marks a folder as used for as long as the file is open.
pub(super) fn claim(folder: &Path) -> io::Result<File> {
    let early = folder.join("in-use-soon");
    let file = File::create(&early)?;
    file.lock()?;
    std::fs::rename(&early, folder.join(LOCK))?;
    Ok(file)
}

/// Removes what others left among the scratch folders in `parent`; once for each process and parent.
pub(super) fn sweep(parent: &Path) {
    static SWEPT: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if swept.get_or_insert_default().insert(parent.to_path_buf()) {
        sweep_now(parent);
    }
}

fn sweep_now(parent: &Path) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        // A folder that is somebody else's cannot be opened here, and is left alone.
        let Ok(lock) = File::options().write(true).open(entry.path().join(LOCK)) else { continue };
        if lock.try_lock().is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_goes_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let folder = parent.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            let lock = claim(&folder).unwrap();
            (folder, lock)
        };
        let (left, lock) = make("porter-worker-left");
        drop(lock);
        let (used, _lock) = make("porter-worker-used");
        let (other, lock) = make("another-program");
        drop(lock);
        let begun = parent.path().join("porter-worker-begun");
        std::fs::create_dir(&begun).unwrap();
        sweep_now(parent.path());
        assert_eq!([left, used, other, begun].map(|folder| folder.exists()), [false, true, true, true]);
    }
}
