//! The command line: reads arguments, calls the layers below, prints. The only place that prints.
//!
//! Exit codes, for every command:
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | fine |
//! | 1 | the check failed: something is not what it should be |
//! | 2 | bad input: arguments, a model, a rule or a target file |
//! | 3 | the environment lacks something: an engine, a library, a disk with room, the right to write |
//! | 4 | inconclusive: a limit was reached before an answer |
//!
//! With `--json` there is one document on standard output however a command ends: its result, or
//! `{"error": {"message", "place", "help", "code"}}`.

mod bench;
mod bisect;
mod convert;
mod doctor;
mod failure;
mod given;
mod hydrate;
mod inspect;
mod limits;
mod lower;
mod overwrite;
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
    let as_json = asks_for_json();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => return show_arguments(&told, as_json),
    };
    let code = dispatch(cli.command).unwrap_or_else(|failure| failure.show(as_json));
    closed(code)
}

fn dispatch(command: Command) -> Outcome {
    if runs_models(&command) {
        warn_of_misnamed_runtime();
    }
    match command {
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
    }
}

/// Whether a command runs models on an engine of porter's choice.
fn runs_models(command: &Command) -> bool {
    use Command::{Bench, Bisect, Prepare, Run, Sweep, Verify};
    matches!(command, Prepare(_) | Run(_) | Bench(_) | Verify(_) | Bisect(_) | Sweep(_))
}

/// Says that a variable names a library which is not there: what falls back to another engine would not.
fn warn_of_misnamed_runtime() {
    let named =
        ["PORTER_ORT", "ORT_DYLIB_PATH"].iter().any(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()));
    if let Some(error) = named.then(crate::engine::ort::locate).and_then(Result::err) {
        screen::note(&format!("warning: {error}"));
    }
}

/// Whether the arguments have `--json` in them, right or wrong as they may be otherwise.
fn asks_for_json() -> bool {
    std::env::args_os().skip(1).take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

/// Help and version where they are asked for, else what is wrong with the arguments.
fn show_arguments(told: &clap::Error, as_json: bool) -> ExitCode {
    if as_json && told.use_stderr() {
        let text = told.to_string();
        let message = text.split("\n\n").next().unwrap_or(&text).trim_start_matches("error: ").trim();
        screen::json(&serde_json::json!({ "error": { "message": message, "place": null, "help": null, "code": 2 } }));
    }
    match told.print() {
        Err(error) if !told.use_stderr() && error.kind() != std::io::ErrorKind::BrokenPipe => {
            Failure::environment(format!("standard output: {error}")).show(false)
        }
        _ => closed(ExitCode::from(told.exit_code().try_into().unwrap_or(2))),
    }
}

/// The exit code, unless what was printed did not arrive.
fn closed(code: ExitCode) -> ExitCode {
    match screen::close() {
        Some(error) => Failure::environment(format!("standard output: {error}")).show(false),
        None => code,
    }
}
