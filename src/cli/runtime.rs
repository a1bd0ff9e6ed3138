//! `porter runtime`: gets the libraries that targets run on.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, Outcome, screen};
use crate::runtime::{Runtime, RuntimeError, install};

/// Get the libraries that targets run on: ONNX Runtime, OpenVINO, QNN, XLA
///
/// pip fetches them, with pinned versions and hashes, into PORTER_HOME or the platform's folder for data. Nothing else on
/// the machine is changed.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON document and nothing else on standard output
    #[arg(long, global = true)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Install a runtime, or do nothing where it is there
    Install {
        /// Which: ort, openvino, qnn or xla
        name: String,
        /// The Python whose pip is asked; the first on the path if left out
        #[arg(long, value_name = "PATH")]
        python: Option<PathBuf>,
    },
    /// The runtimes, and what they are made of
    List,
}

/// Runs the command.
pub fn run(args: Args) -> Outcome {
    match args.command {
        Command::Install { name, python } => {
            let runtime = Runtime::named(&name).ok_or_else(|| {
                let known: Vec<&str> = Runtime::all().map(|runtime| runtime.name).collect();
                Failure::input(format!("there is no runtime '{name}'; expected one of {}", known.join(", ")))
            })?;
            let done = install(&runtime, python.as_deref()).map_err(|error| match error {
                RuntimeError::Pip { .. } => Failure::environment(error).help(
                    "pip's own settings (an index, a proxy, a certificate) are used; check them with `pip config list`",
                ),
                other => Failure::environment(other),
            })?;
            if args.json {
                screen::json(&done);
            } else {
                let what = if done.already { "is there already" } else { "installed" };
                screen::println(&format!("{} {what}: {}", done.runtime, done.packages.join(", ")));
                screen::println(&format!("  in      {}", done.folder.display()));
                screen::println(&format!("  with    {} -m pip, each wheel by its hash", done.python.display()));
            }
        }
        Command::List if args.json => {
            let list: Vec<_> = Runtime::all()
                .map(|runtime| serde_json::json!({ "runtime": runtime.name, "what": runtime.what, "packages": runtime.packages() }))
                .collect();
            screen::json(&list);
        }
        Command::List => {
            for runtime in Runtime::all() {
                screen::println(&format!("{:<9} {}: {}", runtime.name, runtime.what, runtime.packages().join(", ")));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
