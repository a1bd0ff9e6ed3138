//! What the operating system does for workers: process groups, limits, and an end that leaves nothing behind.
//!
//! A worker is the leader of a process group of its own, so that whatever it starts can be ended with it. On Linux it is
//! also told to die with the thread that started it; that thread is one that lives as long as porter, since a thread of
//! a thread pool ends earlier. When porter itself is interrupted, groups are ended and scratch folders removed before
//! it dies of the signal: the terminal's Ctrl-C does not reach other process groups.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};

/// Running workers, by process id, with what is to be removed after them.
static RUNNING: Mutex<Option<HashMap<u32, PathBuf>>> = Mutex::new(None);

/// Starts a worker as the leader of its own group and remembers it.
pub(super) fn start(command: Command, memory: Option<u64>, scratch: &Path) -> io::Result<Child> {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    crate::interrupt::before_death(end_all);
    let child = platform::spawn(command, memory)?;
    running.get_or_insert_default().insert(child.id(), scratch.to_path_buf());
    Ok(child)
}

/// Ends a worker and all of its group, and waits for it. Does nothing the second time: the number may be another's then.
pub(super) fn end(child: &mut Child) {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if running.get_or_insert_default().remove(&child.id()).is_some() {
        platform::kill_group(child);
    }
    drop(running);
    let _ = child.wait();
}

/// Whether a worker has come to its end; it is left as it is, so that its number is not given to another process before
/// [`end`] has ended its group.
pub(super) fn has_exited(child: &mut Child) -> bool {
    platform::has_exited(child)
}

/// Ends every worker at once; the caller is about to die.
fn end_all() {
    // Never unlocked: nothing is started from here on.
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    for (&id, scratch) in running.iter().flatten() {
        platform::kill(id);
        let _ = std::fs::remove_dir_all(scratch);
    }
    std::mem::forget(running);
}

#[cfg(unix)]
mod platform {
    use std::io;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};
    use std::sync::mpsc::{Sender, channel};
    use std::sync::{Mutex, OnceLock, PoisonError};

    type Job = (Command, Sender<io::Result<Child>>);

    /// Spawns on a thread that never ends.
    pub(super) fn spawn(mut command: Command, memory: Option<u64>) -> io::Result<Child> {
        static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
        command.process_group(0);
        let parent = std::process::id();
        // SAFETY: between fork and exec only system calls that may be made there: prctl, getppid, setrlimit, _exit.
        unsafe { command.pre_exec(move || before_exec(parent, memory)) };
        let spawner = SPAWNER.get_or_init(|| {
            let (sender, jobs) = channel::<Job>();
            std::thread::spawn(move || {
                for (mut command, answer) in jobs {
                    let _ = answer.send(command.spawn());
                }
            });
            Mutex::new(sender)
        });
        let (answer, child) = channel();
        let gone = |_| io::Error::other("the thread that starts workers is gone");
        spawner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .send((command, answer))
            .map_err(|_| io::Error::other("the thread that starts workers is gone"))?;
        child.recv().map_err(gone)?
    }

    fn before_exec(parent: u32, memory: Option<u64>) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        // SAFETY: plain system calls.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() as u32 != parent {
                libc::_exit(0); // porter died in between
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = parent;
        if let Some(bytes) = memory {
            let limit = libc::rlimit { rlim_cur: bytes as libc::rlim_t, rlim_max: bytes as libc::rlim_t };
            // SAFETY: a plain system call with a value that lives through it.
            if unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    pub(super) fn kill(id: u32) {
        // SAFETY: a plain system call. The id is a group's, since its leader has not been waited for.
        unsafe { libc::kill(-(id as libc::pid_t), libc::SIGKILL) };
    }

    pub(super) fn kill_group(child: &mut Child) {
        kill(child.id());
    }

    pub(super) fn has_exited(child: &mut Child) -> bool {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: waitid fills in what it is given; without a change of state it leaves zeros.
        unsafe {
            let told = libc::waitid(libc::P_PID, child.id() as libc::id_t, info.as_mut_ptr(), flags);
            told != 0 || info.assume_init().si_pid() != 0
        }
    }
}

#[cfg(not(unix))]
mod platform {
    use std::io;
    use std::process::{Child, Command};

    pub(super) fn spawn(mut command: Command, _memory: Option<u64>) -> io::Result<Child> {
        command.spawn()
    }

    pub(super) fn kill_group(child: &mut Child) {
        let _ = child.kill();
    }

    pub(super) fn kill(_id: u32) {}

    pub(super) fn has_exited(child: &mut Child) -> bool {
        !matches!(child.try_wait(), Ok(None))
    }
}
