//! `porter strip`: a model without its weights, to show to others.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, Outcome, screen};
use crate::onnx;

/// Take the weights out of a model, so that a failing model can be shown without showing them
///
/// Tensors of up to 512 elements, biases and integers stay. Every other weight is replaced by a recipe with its mean
/// and standard deviation, which `porter hydrate` (and every porter command that reads a model) fills the same way
/// everywhere.
#[derive(clap::Args)]
pub struct Args {
    /// The model
    model: PathBuf,
    /// Where to write the stripped model
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Outcome {
    // The weights that are taken out are nowhere else.
    if let (Ok(from), Ok(to)) = (args.model.canonicalize(), args.output.canonicalize())
        && from == to
    {
        return Err(Failure::input(format!("{}: would be overwritten by its stripped form", args.model.display()))
            .help("name another file with -o"));
    }
    let mut model = crate::load_messages(&args.model)?;
    let done = onnx::strip::strip(&mut model)
        .map_err(|(name, problem)| Failure::input(onnx::Problem::Tensor { name, problem }.in_file(&args.model)))?;
    onnx::write(&args.output, &model)?;
    if args.json {
        let output = args.output.display().to_string();
        screen::json(&serde_json::json!({ "output": output, "stripped": done.tensors, "bytes_removed": done.bytes }));
    } else {
        let size = std::fs::metadata(&args.output).map(|m| m.len() as usize).unwrap_or_default();
        screen::println(&format!(
            "stripped {} tensors ({}) -> {} ({})",
            done.tensors,
            screen::bytes(done.bytes),
            args.output.display(),
            screen::bytes(size)
        ));
    }
    Ok(ExitCode::SUCCESS)
}
