//! `porter hydrate`: a stripped model with values in its weights again.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Outcome, screen};
use crate::onnx;

/// Fill the weights of a stripped model with the values that its recipes say
///
/// porter takes stripped models everywhere; hydrate them for other tools.
#[derive(clap::Args)]
pub struct Args {
    /// The stripped model
    model: PathBuf,
    /// Where to write the filled model
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Outcome {
    let model = crate::load_messages(&args.model)?;
    let filled = onnx::fill::count(&model);
    onnx::write(&args.output, &model)?; // recipes are drawn while they are written
    if args.json {
        screen::json(&serde_json::json!({ "output": args.output.display().to_string(), "filled": filled }));
    } else {
        let size = std::fs::metadata(&args.output).map(|m| m.len() as usize).unwrap_or_default();
        screen::println(&format!("filled {filled} tensors -> {} ({})", args.output.display(), screen::bytes(size)));
    }
    Ok(ExitCode::SUCCESS)
}
