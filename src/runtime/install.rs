//! Installs a runtime: pip fetches into a folder beside the final one, which takes its name when it is whole.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Runtime;
use crate::home;

/// The file that says what a runtime's folder holds.
const RECORD: &str = "installed.json";

/// What cannot be installed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum RuntimeError {
    #[error(
        "there is no Python with pip on the path ({problem}). Install Python 3.11 or newer, or name one with --python"
    )]
    Python { problem: String },
    #[error("pip did not install {runtime}:\n{problem}")]
    Pip { runtime: String, problem: String },
    #[error("{path}: {problem}")]
    Folder { path: PathBuf, problem: String },
}

/// What was done, as the record of the folder has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The runtime.
    pub runtime: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The Python whose pip was asked, and that runs what needs Python.
    pub python: PathBuf,
    /// The packages that were installed, with their versions.
    pub packages: Vec<String>,
    /// The digest of the list of versions and hashes.
    pub pins: String,
    /// Whether it was there already, with the same versions for the same Python.
    #[serde(default)]
    pub already: bool,
}

/// Gets a runtime; does nothing where it is there.
///
/// # Errors
/// There is no Python with pip, pip failed (its own words are in the message), or the folder cannot be written.
pub fn install(runtime: &Runtime, python: Option<&Path>) -> Result<Done, RuntimeError> {
    let python = find_python(python)?;
    let folder = home::runtime(runtime.name);
    let pins: String = Sha256::digest(runtime.requirements).iter().map(|byte| format!("{byte:02x}")).collect();
    if let Some(done) = installed(runtime.name).filter(|done| done.pins == pins && done.python == python) {
        return Ok(Done { already: true, ..done });
    }
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |error: std::io::Error| RuntimeError::Folder { path, problem: error.to_string() }
    };
    let parent = folder.parent().unwrap_or(Path::new(".")).to_path_buf();
    std::fs::create_dir_all(&parent).map_err(at(&parent))?;
    let prefix = format!(".{}-", runtime.name);
    remove_leftovers(&parent, &prefix);
    let draft = tempfile::Builder::new().prefix(&prefix).tempdir_in(&parent).map_err(at(&parent))?;
    let (target, list) = (draft.path().join("packages"), draft.path().join("requirements.txt"));
    std::fs::write(&list, runtime.requirements).map_err(at(&list))?;
    let output = Command::new(&python)
        .args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-deps", "--no-compile"])
        .args(["--only-binary", ":all:", "--require-hashes", "--target"])
        .arg(&target)
        .arg("--requirement")
        .arg(&list)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| RuntimeError::Python { problem: error.to_string() })?;
    if !output.status.success() {
        return Err(RuntimeError::Pip { runtime: runtime.name.into(), problem: end_of(&output.stderr) });
    }
    let packages = packages_in(&target);
    if packages.is_empty() {
        let problem = "there are no packages of it for this platform".to_string();
        return Err(RuntimeError::Pip { runtime: runtime.name.into(), problem });
    }
    let done = Done { runtime: runtime.name.into(), folder: folder.clone(), python, packages, pins, already: false };
    write_python(&target, &done).map_err(at(&target))?;
    let record = serde_json::to_string_pretty(&done).unwrap_or_default();
    std::fs::write(target.join(RECORD), record).map_err(at(&target))?;
    // The old one goes into the draft's folder, and away with it.
    if folder.exists() {
        std::fs::rename(&folder, draft.path().join("old")).map_err(at(&folder))?;
    }
    std::fs::rename(&target, &folder).map_err(at(&folder))?;
    Ok(done)
}

/// `bin/python` in the runtime's folder: the Python that it was installed with, which finds its packages.
#[cfg(unix)]
fn write_python(target: &Path, done: &Done) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    let (folder, python) = (quoted(&done.folder), quoted(&done.python));
    let script = format!("#!/bin/sh\nPYTHONPATH={folder} PYTHONDONTWRITEBYTECODE=1 exec {python} \"$@\"\n");
    let path = target.join("bin/python");
    std::fs::create_dir_all(target.join("bin"))?;
    std::fs::write(&path, script)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn write_python(_: &Path, _: &Done) -> std::io::Result<()> {
    Ok(())
}

/// What is installed of a runtime.
fn installed(name: &str) -> Option<Done> {
    serde_json::from_str(&std::fs::read_to_string(home::runtime(name).join(RECORD)).ok()?).ok()
}

/// Drafts of installations that were interrupted.
fn remove_leftovers(parent: &Path, prefix: &str) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let old = |path: &Path| {
        let age = std::fs::metadata(path).and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
        age.is_some_and(|age| age.as_secs() > 3600)
    };
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)) {
        if old(&entry.path()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The Python to ask: the one named, or the first on the path that has pip.
fn find_python(named: Option<&Path>) -> Result<PathBuf, RuntimeError> {
    let candidates = match named {
        Some(python) => vec![python.to_path_buf()],
        None => vec!["python3".into(), "python".into()],
    };
    let mut problem = String::new();
    for python in candidates {
        let code = "import pip, sys; assert sys.version_info >= (3, 11), sys.version; print(sys.executable)";
        match Command::new(&python).args(["-c", code]).stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => {
                return Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
            }
            Ok(output) => problem = format!("{}: {}", python.display(), last_line(&output.stderr)),
            Err(error) if problem.is_empty() => problem = format!("{}: {error}", python.display()),
            Err(_) => {}
        }
    }
    Err(RuntimeError::Python { problem })
}

/// `name version` of what a folder of packages holds, by the folders that pip leaves for it.
fn packages_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = |name: String| Some(name.strip_suffix(".dist-info")?.replacen('-', " ", 1));
    let mut packages: Vec<String> =
        entries.filter_map(|entry| named(entry.file_name().to_string_lossy().into_owned())).collect();
    packages.sort();
    packages
}

fn last_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().lines().last().unwrap_or_default().to_string()
}

/// The last lines of what pip said.
fn end_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
