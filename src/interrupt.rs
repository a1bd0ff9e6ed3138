//! What is done before porter dies of a signal: Ctrl-C, a shell that goes away, a polite kill.
//!
//! Whoever holds something that must not stay behind (worker processes, unfinished files) gives [`before_death`] a
//! function. The functions run on a thread of their own, not in the signal's handler, so that they may lock, end processes
//! and remove files; then porter ends as the signal would have ended it. A signal that somebody else handles, or that is
//! ignored (`nohup`), is left alone.

use std::sync::{Mutex, PoisonError};

/// What is to be done, in the order it was asked for.
static DUTIES: Mutex<Vec<fn()>> = Mutex::new(Vec::new());

/// Has a function called before porter dies of SIGINT, SIGTERM or SIGHUP. Asking twice for the same one is asking once.
pub fn before_death(duty: fn()) {
    let mut duties = DUTIES.lock().unwrap_or_else(PoisonError::into_inner);
    #[cfg(unix)]
    if duties.is_empty() {
        unix::watch_signals();
    }
    if !duties.iter().any(|&known| std::ptr::fn_addr_eq(known, duty)) {
        duties.push(duty);
    }
}

#[cfg(unix)]
mod unix {
    use std::io;
    use std::sync::PoisonError;
    use std::sync::atomic::{AtomicI32, Ordering};

    static PIPE: AtomicI32 = AtomicI32::new(-1);

    extern "C" fn note(signal: libc::c_int) {
        let byte = signal as u8;
        // SAFETY: write may be called in a signal handler.
        unsafe { libc::write(PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
    }

    pub(super) fn watch_signals() {
        let mut ends = [0; 2];
        // SAFETY: pipe fills in two descriptors.
        if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
            return;
        }
        for end in ends {
            // SAFETY: a plain system call; programs that porter starts must not inherit the pipe.
            unsafe { libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        PIPE.store(ends[1], Ordering::Relaxed);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: asks for the present action, then sets one made of zeros and a handler of the right type.
            unsafe {
                if libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) != 0 {
                    continue;
                }
                let mut action = action.assume_init();
                if action.sa_sigaction != libc::SIG_DFL {
                    continue;
                }
                action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
                action.sa_flags = libc::SA_RESTART;
                libc::sigaction(signal, &action, std::ptr::null_mut());
            }
        }
        std::thread::spawn(move || {
            let mut signal = 0u8;
            // SAFETY: reads one byte into one byte; then ends the process as the signal would have.
            unsafe {
                while libc::read(ends[0], (&raw mut signal).cast(), 1) != 1 {
                    if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                        return;
                    }
                }
                let duties = super::DUTIES.lock().unwrap_or_else(PoisonError::into_inner).clone();
                duties.iter().for_each(|duty| duty());
                libc::signal(signal.into(), libc::SIG_DFL);
                libc::raise(signal.into());
                libc::_exit(128 + libc::c_int::from(signal));
            }
        });
    }
}
