//! The most memory that a process, or one that it started, has held so far.

use std::fs;

/// The largest resident size in bytes among a process and those it started; none where the system does not say.
pub(super) fn peak(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let own = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
    Some(children(process).into_iter().filter_map(peak).fold(own, u64::max))
}

fn children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn this_process_holds_something() {
        assert!(super::peak(std::process::id()).unwrap() > 1 << 20);
    }
}
