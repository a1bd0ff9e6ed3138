//! Unfinished files and folders, in the folder where they are to stand: named `.porter-PID-...`, and gone when porter is.
//!
//! What is written whole or not at all is written under such a name first and renamed at the end. Three things take it
//! away again where there is no end:
//!
//! - an error: whoever holds it drops it;
//! - a signal (Ctrl-C, a polite kill): it is on a list that is removed before porter dies;
//! - a death without warning: the next porter that writes into the same folder sweeps it. It knows what is dead by the
//!   process's number in the name, and by a lock that the operating system takes off when its holder ends: another
//!   machine or container that shares the folder has other numbers, and the lock is what keeps its files.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::interrupt;

/// What every name starts with.
const PREFIX: &str = ".porter-";

/// What this process has not finished.
static UNFINISHED: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);

/// A folder that is removed when it is dropped.
#[derive(Debug)]
pub struct ScratchFolder {
    folder: tempfile::TempDir,
    _lock: Option<File>,
    _noted: Noted,
}

/// A file that is removed when it is dropped, unless it is given a name.
#[derive(Debug)]
pub struct ScratchFile {
    file: tempfile::NamedTempFile,
    _noted: Noted,
}

/// A place on the list of what is not finished; dropped, it is off the list.
#[derive(Debug)]
struct Noted(PathBuf);

impl ScratchFolder {
    /// A new folder in `parent`; what dead processes left there is swept.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new_in(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        let folder = tempfile::Builder::new().prefix(&prefix()).tempdir_in(parent)?;
        let noted = Noted::new(folder.path());
        // A folder cannot be opened everywhere; then the process's number alone says who holds it.
        let lock = File::open(folder.path()).ok().filter(|file| file.try_lock().is_ok());
        Ok(Self { folder, _lock: lock, _noted: noted })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Removes it now.
    ///
    /// # Errors
    /// Something in it cannot be removed.
    pub fn close(self) -> io::Result<()> {
        self.folder.close()
    }
}

impl ScratchFile {
    /// A new file in `folder`, as readable as any file the user makes; what dead processes left there is swept.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new_in(folder: &Path) -> io::Result<Self> {
        sweep(folder);
        let prefix = prefix();
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o666)); // open(2) applies the umask
        }
        let file = builder.tempfile_in(folder)?;
        let noted = Noted::new(file.path());
        let _ = file.as_file().try_lock(); // not every file system has locks
        Ok(Self { file, _noted: noted })
    }

    /// The file, to write to.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Gives it its name, in place of a file that has it.
    ///
    /// # Errors
    /// It cannot be renamed; it is removed then.
    pub fn persist(self, path: &Path) -> io::Result<()> {
        undisturbed(|| self.file.persist(path)).map(|_| ()).map_err(|error| error.error)
    }
}

impl Noted {
    fn new(path: &Path) -> Self {
        interrupt::before_death(remove_unfinished);
        // By its whole name: the working folder may be another one by then.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().insert(path.clone());
        Self(path)
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().remove(&self.0);
    }
}

/// Holds back a signal's cleaning until `work` is done: steps that must not be torn apart.
pub fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    let _held = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// Exchanges two folders of one file system in a single step.
///
/// # Errors
/// The system, or the file system, cannot do that.
#[cfg(target_os = "linux")]
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let name = |path: &Path| std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let (one, other) = (name(one)?, name(other)?);
    let here = libc::AT_FDCWD;
    // SAFETY: a plain system call on two strings that live through it.
    let told =
        unsafe { libc::syscall(libc::SYS_renameat2, here, one.as_ptr(), here, other.as_ptr(), libc::RENAME_EXCHANGE) };
    if told == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Exchanges two folders of one file system in a single step.
///
/// # Errors
/// It is only known how on Linux.
#[cfg(not(target_os = "linux"))]
pub fn exchange(_one: &Path, _other: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// Removes all that is not finished; the caller is about to die.
fn remove_unfinished() {
    // Never unlocked: nothing is begun from here on.
    let unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    unfinished.iter().flatten().for_each(|path| remove(path));
    std::mem::forget(unfinished);
}

/// Removes a file or folder that other threads may still be writing into.
fn remove(path: &Path) {
    for _ in 0..10 {
        let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match gone {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {}
            _ => return,
        }
    }
}

/// Removes what dead processes left in a folder.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok());
        if owner.is_some_and(|id| id != std::process::id() && !is_running(id)) && !is_locked(&entry.path()) {
            remove(&entry.path());
        }
    }
}

/// Whether somebody holds the lock of a file or folder.
fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

#[cfg(unix)]
fn is_running(id: u32) -> bool {
    let Ok(id) = libc::pid_t::try_from(id) else { return true };
    // SAFETY: a plain system call; signal 0 only asks.
    let asked = unsafe { libc::kill(id, 0) };
    asked == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

#[cfg(not(unix))]
fn is_running(_id: u32) -> bool {
    true // it cannot be told: nothing is swept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn what_the_dead_left_is_swept_and_the_rest_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (left, locked) = (at(&format!(".porter-{}-aa", dead.id())), at(&format!(".porter-{}-bb", dead.id())));
        let (living, other) = (at(&format!(".porter-{}-cc", std::os::unix::process::parent_id())), at(".porter-notes"));
        fs::create_dir_all(left.join("bundle")).unwrap();
        fs::create_dir(&locked).unwrap();
        fs::write(&living, "").unwrap();
        fs::write(&other, "").unwrap();
        let lock = File::open(&locked).unwrap();
        lock.try_lock().unwrap();
        let scratch = ScratchFolder::new_in(folder.path()).unwrap();
        assert!(!left.exists() && locked.exists() && living.exists() && other.exists());
        let own = scratch.path().to_path_buf();
        drop(lock);
        drop(scratch);
        ScratchFile::new_in(folder.path()).unwrap();
        assert!(!own.exists() && !locked.exists() && living.exists());
    }

    #[test]
    fn a_file_with_a_name_stays() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let mut scratch = ScratchFile::new_in(folder.path()).unwrap();
        scratch.file().write_all(b"whole").unwrap();
        scratch.persist(&folder.path().join("file")).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
