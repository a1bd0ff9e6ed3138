//! `porter strip`: a model without its weights, to show to others.

use std::process::ExitCode;

use super::convert::Files;
use super::{Failure, Outcome, screen};
use crate::onnx;

/// Take the weights out of a model, so that a failing model can be shown without showing them
///
/// Tensors of up to 512 elements, biases and wide integers stay. Every other weight is replaced by a recipe with its mean
/// and standard deviation, which `porter hydrate` (and every porter command that reads a model) fills the same way
/// everywhere.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    files: Files,
}

/// Runs the command.
pub fn run(Args { files }: Args) -> Outcome {
    // The weights that are taken out are nowhere else.
    if let (Ok(from), Ok(to)) = (files.model.canonicalize(), files.output.canonicalize())
        && from == to
    {
        let place = files.model.display();
        return Err(Failure::input(format!("{place}: would be overwritten by its stripped form"))
            .help("name another file with -o")
            .at(place));
    }
    let mut model = crate::load_messages(&files.model)?;
    let done = onnx::strip::strip(&mut model)
        .map_err(|(name, problem)| onnx::Problem::Tensor { name, problem }.in_file(&files.model))?;
    let said = format!("stripped {} tensors ({})", done.tensors, screen::bytes(done.bytes));
    files.write(&model, &said, serde_json::json!({ "stripped": done.tensors, "bytes_removed": done.bytes }))?;
    Ok(ExitCode::SUCCESS)
}
