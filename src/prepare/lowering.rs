//! Parts as HLO, for targets whose compiler takes that: what has no lowering goes to the CPU, the rest is lowered, held
//! against what the compiler refuses, and written beside the part's ONNX.

use std::collections::HashMap;
use std::path::Path;

use super::{PrepareError, Prepared};
use crate::bundle::manifest::{LoweredFile, Part};
use crate::bundle::{BundleError, Draft};
use crate::graph::{Model, NodeId};
use crate::lower::{self, Lowered, Weights, hlo, neuron};
use crate::onnx;
use crate::target::{Reach, Setting, Target};

/// The worker of targets that are held against the Neuron compiler's refusals.
const NEURON: &str = "neuron";

/// Whether a target's compiler takes HLO.
pub(super) fn takes_hlo(target: &Target) -> bool {
    matches!(&target.reach, Reach::Lowering { format, .. } if format == "hlo")
}

fn is_neuron(target: &Target) -> bool {
    matches!(&target.reach, Reach::Lowering { run, .. } if run == NEURON)
}

/// Adds the nodes that have no lowering, or whose lowering would not compile or is known to be computed wrongly, to those
/// that the target refuses.
pub(super) fn refuse(model: &Model, target: &Target, setting: &Setting, refusals: &mut HashMap<NodeId, String>) {
    if !takes_hlo(target) {
        return;
    }
    let neuron = is_neuron(target);
    for id in model.graph.node_ids() {
        if refusals.contains_key(&id) {
            continue;
        }
        match lower::lower_alone(model, id) {
            Ok(Some(module)) if neuron => {
                let module = hlo::to_proto(&module);
                let silent = neuron::silent(&module).into_iter().filter(|found| strikes(&found.code, target, setting));
                if let Some(finding) = neuron::check(&module).into_iter().chain(silent).next() {
                    refusals.insert(id, format!("{} ({})", finding.problem, finding.code));
                }
            }
            Ok(_) => {}
            Err(problem) => {
                refusals.insert(id, format!("porter does not lower it: {problem}"));
            }
        }
    }
}

/// Whether a known fault strikes the device and the version at hand.
fn strikes(id: &str, target: &Target, setting: &Setting) -> bool {
    target.quirks.iter().any(|quirk| quirk.id == id && quirk.strikes(setting))
}

/// Lowers a part.
///
/// # Errors
/// A node that has no lowering after all, or a module that would not compile.
pub(super) fn lower_part(
    piece: &Model,
    name: &str,
    target: &Target,
    weights: Weights,
) -> Result<(Lowered, Vec<LoweredFile>), PrepareError> {
    let lowered = lower::lower_prepared(piece, weights)?;
    if is_neuron(target)
        && let Some(finding) = neuron::check(&hlo::to_proto(&lowered.module)).into_iter().next()
    {
        return Err(PrepareError::WouldNotCompile { part: name.into(), finding: Box::new(finding) });
    }
    let file = |ending: &str, format: &str| LoweredFile {
        file: format!("{name}.{ending}"),
        format: format.into(),
        weights: Vec::new(),
    };
    let mut files = vec![file("hlo_module.pb", "hlo"), file("mlir", "stablehlo")];
    if !lowered.weights.is_empty() {
        let names = lowered.weights.iter().map(|(name, _)| name.clone()).collect();
        files.push(LoweredFile { weights: names, ..file("safetensors", "safetensors") });
    }
    Ok((lowered, files))
}

/// Writes a part into a draft: its ONNX, and its other forms.
///
/// # Errors
/// A file cannot be written.
pub fn write_part(draft: &Draft, prepared: &Prepared, index: usize) -> Result<(), BundleError> {
    let part = &prepared.manifest.parts[index];
    let model = &prepared.parts[index];
    match &prepared.lowered[index] {
        None => draft.write_part(part, model),
        Some(lowered) => {
            write_models(draft, part, model, lowered)?;
            write_rest(draft, part, lowered)
        }
    }
}

/// The part's ONNX and its module, which hold the same weights.
fn write_models(draft: &Draft, part: &Part, model: &Model, lowered: &Lowered) -> Result<(), BundleError> {
    let module = hlo::to_proto(&lowered.module);
    let path = part.lowered.iter().find(|form| form.format == "hlo").map(|form| draft.path(&form.file));
    let others: Vec<(&Path, &dyn onnx::TakeApart)> = path.iter().map(|path| (path.as_path(), &module as _)).collect();
    Ok(onnx::write_together(&draft.path(&part.file), &model.to_proto(), &others)?)
}

/// What else a part is written as: text, and weights by themselves.
fn write_rest(draft: &Draft, part: &Part, lowered: &Lowered) -> Result<(), BundleError> {
    for form in &part.lowered {
        let path = draft.path(&form.file);
        match form.format.as_str() {
            "hlo" => {}
            "stablehlo" => {
                onnx::write_with(&path, |out| hlo::text::write(&lowered.module, hlo::text::Constants::Elided, out))?;
            }
            _ => lower::write_weights(&path, &lowered.weights)?,
        }
    }
    Ok(())
}
