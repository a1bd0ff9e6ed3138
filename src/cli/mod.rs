//! The command line: reads arguments, calls the layers below, prints. The only place that prints.
//!
//! Exit codes, for every command:
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | fine |
//! | 1 | the check failed: something is not what it should be |
//! | 2 | bad input: arguments, a model, a rule or a target file |
//! | 3 | the environment lacks something: an engine, a library, a disk with room |
//! | 4 | inconclusive: a limit was reached before an answer |

mod bench;
mod bisect;
mod doctor;
mod failure;
mod hydrate;
mod inspect;
mod limits;
mod lower;
mod prepare;
mod progress;
mod rules;
mod run;
mod runtime;
mod screen;
mod sizes;
mod strip;
mod sweep;
mod targets;
mod verify;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use failure::Failure;

/// What a command ends with: its exit code, or a failure that `main` shows.
pub type Outcome = Result<ExitCode, Failure>;

/// Moves ONNX models to accelerators, with proof that nothing else changed.
#[derive(Parser)]
#[command(name = "porter", version, arg_required_else_help = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 fine, 1 a check failed or a fault was found, 2 bad input, 3 the environment lacks something, 4 inconclusive."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Prepare(Box<prepare::Args>),
    Run(Box<run::Args>),
    Bench(Box<bench::Args>),
    #[command(hide = true)]
    BenchCase(Box<bench::CaseArgs>),
    Inspect(inspect::Args),
    Strip(strip::Args),
    Hydrate(hydrate::Args),
    Lower(lower::Args),
    Rules(rules::Args),
    Targets(targets::Args),
    Runtime(runtime::Args),
    Doctor(doctor::Args),
    Worker(worker::Args),
    Verify(Box<verify::Args>),
    Bisect(Box<bisect::Args>),
    Sweep(sweep::Args),
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    crate::reach::this_is_the_command();
    let outcome = match Cli::parse().command {
        Command::Prepare(args) => prepare::run(*args),
        Command::Run(args) => run::run(*args),
        Command::Bench(args) => bench::run(*args),
        Command::BenchCase(args) => bench::run_case(*args),
        Command::Inspect(args) => inspect::run(args),
        Command::Strip(args) => strip::run(args),
        Command::Hydrate(args) => hydrate::run(args),
        Command::Lower(args) => lower::run(args),
        Command::Rules(args) => rules::run(args),
        Command::Targets(args) => targets::run(args),
        Command::Runtime(args) => runtime::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Worker(args) => worker::run(args),
        Command::Verify(args) => verify::run(*args),
        Command::Bisect(args) => bisect::run(*args),
        Command::Sweep(args) => sweep::run(args),
    };
    outcome.unwrap_or_else(|failure| failure.show())
}
