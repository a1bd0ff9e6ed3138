//! `porter hydrate`: a stripped model with values in its weights again.

use std::process::ExitCode;

use super::Outcome;
use super::convert::Files;
use crate::onnx;

/// Fill the weights of a stripped model with the values that its recipes say
///
/// porter takes stripped models everywhere; hydrate them for other tools.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
}

/// Runs the command.
pub fn run(Args { files }: Args) -> Outcome {
    let model = crate::load_messages(&files.model)?;
    let filled = onnx::fill::count(&model);
    // Recipes are drawn while they are written.
    files.write(&model, &format!("filled {filled} tensors"), serde_json::json!({ "filled": filled }))?;
    Ok(ExitCode::SUCCESS)
}
