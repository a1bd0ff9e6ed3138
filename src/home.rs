//! Where porter keeps what outlives a command: installed runtimes, and the logs of workers that failed.

use std::path::PathBuf;

/// porter's own folder: `PORTER_HOME` where it is set, else `porter` in the platform's folder for data. It need not exist.
pub fn home() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(home) = set("PORTER_HOME") {
        return home;
    }
    let data = if cfg!(windows) {
        set("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        set("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")))
    };
    data.unwrap_or_else(std::env::temp_dir).join("porter")
}

/// The folder with the logs of workers that failed; the newest are kept.
pub fn logs() -> PathBuf {
    home().join("logs")
}

/// The folder of an installed runtime (`ort`, `openvino`), where it is or would be.
pub fn runtime(name: &str) -> PathBuf {
    home().join("runtimes").join(name)
}
