//! `porter worker`: answers the worker protocol with one of porter's own engines. porter starts itself so.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, Outcome};
use crate::engine::worker::serve;
use crate::reach::{self, Local};
use crate::target::TargetSet;

/// Answer the worker protocol on standard input and output
#[derive(clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// The target to run on
    #[arg(long, required_unless_present = "engine")]
    target: Option<String>,
    /// Folder or file with targets or overlays, over those that porter ships
    #[arg(long, value_name = "PATH")]
    targets: Option<PathBuf>,
    /// The engine, as porter says it to itself
    #[arg(long, value_name = "JSON", conflicts_with = "target")]
    engine: Option<String>,
}

/// Runs the command.
pub fn run(args: Args) -> Outcome {
    let output = own_output().map_err(|error| Failure::environment(format!("standard output: {error}")))?;
    let engine = match (&args.engine, &args.target) {
        (Some(text), _) => {
            let local: Local =
                serde_json::from_str(text).map_err(|error| Failure::input(format!("--engine: {error}")))?;
            local.here()
        }
        (None, target) => {
            let targets = match &args.targets {
                Some(path) => TargetSet::load(path).map_err(Failure::diagnostic)?,
                None => TargetSet::shipped(),
            };
            let options = reach::Options { isolate: false, ..reach::Options::default() };
            match reach::open(target.as_deref().unwrap_or_default(), &targets, &options) {
                Ok(reached) => Ok(reached.engine),
                Err(reach::ReachError::Engine(error)) => Err(error),
                Err(error) => return Err(Failure::input(error)),
            }
        }
    };
    serve(engine, std::io::stdin().lock(), output).map_err(Failure::environment)?;
    Ok(ExitCode::SUCCESS)
}

/// Standard output for the protocol alone: what a native library prints goes to standard error instead.
#[cfg(unix)]
pub(super) fn own_output() -> std::io::Result<std::fs::File> {
    use std::os::fd::{AsFd, AsRawFd};
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    let own = stdout.as_fd().try_clone_to_owned()?;
    // SAFETY: both are open, and nothing of this process has written to standard output yet.
    if unsafe { libc::dup2(stderr.as_raw_fd(), stdout.as_raw_fd()) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(own.into())
}

#[cfg(not(unix))]
pub(super) fn own_output() -> std::io::Result<std::io::Stdout> {
    Ok(std::io::stdout())
}
