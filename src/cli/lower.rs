//! `porter lower`: a model as HLO, for compilers that take it.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, Outcome, overwrite, screen, sizes::Sizes};
use crate::graph::freeze;
use crate::lower::{self, Weights, hlo};
use crate::onnx;

/// Lower a model to HLO: an HloModuleProto, and StableHLO text
///
/// The model is lowered whole and as it is; `porter prepare --target neuron` first cuts off what the target does not take.
#[derive(clap::Args)]
pub struct Args {
    /// The model (.onnx; a stripped one is fine)
    model: PathBuf,
    /// Where to write the HloModuleProto
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where to write the StableHLO text
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Leave large constants out of the text, so that it can be read
    #[arg(long, requires = "text")]
    elide: bool,
    /// Whether weights are constants of the module, or parameters of it that stand in a safetensors file beside it
    #[arg(long, value_name = "WHERE", default_value = "constants", value_parser = ["constants", "separate"])]
    weights: String,
    /// Compute in float64 throughout
    #[arg(long)]
    f64: bool,
    #[command(flatten)]
    sizes: Sizes,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

/// More findings for Neuron's compiler than this are counted only.
const TOLD: usize = 5;

/// Runs the command.
pub fn run(args: Args) -> Outcome {
    let weights = if args.weights == "separate" { Weights::Separate } else { Weights::Constants };
    let beside = args.output.as_ref().or(args.text.as_ref());
    if weights == Weights::Separate && beside.is_none() {
        return Err(Failure::input(
            "--weights separate writes a safetensors file beside the module: say where with --output",
        ));
    }
    let files = args.output.iter().chain(&args.text).cloned();
    let weighed = beside.filter(|_| weights == Weights::Separate).map(|path| path.with_extension("safetensors"));
    files.chain(weighed).try_for_each(|path| overwrite::refuse(&path, [args.model.as_path()]))?;
    let mut model = crate::load(&args.model)?;
    let told = |error: &dyn std::fmt::Display| Failure::input(format!("{}: {error}", args.model.display()));
    freeze::freeze(&mut model, &args.sizes.freeze()).map_err(|error| told(&error))?;
    lower::prepare(&mut model).map_err(|error| told(&error))?;
    if args.f64 {
        lower::widen(&mut model);
    }
    let lowered = lower::lower_prepared(&model, weights).map_err(|error| told(&error))?;
    let mut wrote = Vec::new();
    let module = hlo::to_proto(&lowered.module);
    // A module is for any compiler that reads HLO, so what Neuron's would refuse is told, not an error.
    let refused = lower::neuron::check(&module);
    if let Some(path) = &args.output {
        onnx::write_message(path, &module)?;
        wrote.push(path.clone());
    }
    if let Some(path) = &args.text {
        let constants = if args.elide { hlo::text::Constants::Elided } else { hlo::text::Constants::Written };
        onnx::write_with(path, |out| hlo::text::write(&lowered.module, constants, out))?;
        wrote.push(path.clone());
    }
    if let (Some(beside), false) = (beside, lowered.weights.is_empty()) {
        let path = beside.with_extension("safetensors");
        lower::write_weights(&path, &lowered.weights)?;
        wrote.push(path);
    }
    let count = lowered.module.entry.instructions.len();
    if args.json {
        let side = |list: &[(String, hlo::Shape)]| -> Vec<serde_json::Value> {
            list.iter()
                .map(|(name, shape)| serde_json::json!({ "name": name, "dtype": shape.dtype, "shape": shape.dims }))
                .collect()
        };
        screen::json(&serde_json::json!({
            "model": args.model.display().to_string(),
            "instructions": count,
            "inputs": side(&lowered.inputs),
            "outputs": side(&lowered.outputs),
            "weights": lowered.weights.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "neuron": refused.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "files": wrote.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        }));
        return Ok(ExitCode::SUCCESS);
    }
    screen::println(&format!("{}: {count} instructions", args.model.display()));
    for path in wrote {
        let size = std::fs::metadata(&path).map(|meta| meta.len() as usize).unwrap_or_default();
        screen::println(&format!("  wrote {} ({})", path.display(), screen::bytes(size)));
    }
    refused.iter().take(TOLD).for_each(|finding| screen::note(&format!("warning: for neuron: {finding}")));
    if let Some(more) = refused.len().checked_sub(TOLD + 1) {
        screen::note(&format!("warning: for neuron: and {} more", more + 1));
    }
    Ok(ExitCode::SUCCESS)
}
