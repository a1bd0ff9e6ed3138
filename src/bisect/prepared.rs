//! What `prepare` made, in place of the model: the target's parts, each fed with what the parts before it compute.

use std::path::Path;

use super::report::{Report, Verdict};
use super::{BisectError, Options, Proof, Suspect, bisect};
use crate::bundle::{self, Manifest};
use crate::engine::{Engine, Tensors, samples};
use crate::graph::Model;
use crate::graph::freeze::Freeze;
use crate::onnx::DType;

/// The parts of a prepared model.
pub struct Parts {
    /// What they were made from.
    pub manifest: Manifest,
    /// A model for each part of the manifest, in its order, all of them in float32.
    pub models: Vec<Model>,
}

/// Why parts cannot be had from a bundle.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum PartsError {
    #[error(transparent)]
    Bundle(#[from] bundle::BundleError),
    #[error(transparent)]
    Onnx(#[from] crate::onnx::OnnxError),
    #[error(
        "part {part} of the bundle computes in {dtype}, whose own rounding hides small faults; bisect the model with --prepared, which tests the parts in float32"
    )]
    Narrow { part: String, dtype: DType },
}

impl Parts {
    /// The parts of a bundle.
    ///
    /// # Errors
    /// A file that is not there or broken, or a part in a 16-bit type.
    pub fn open(folder: &Path) -> Result<Self, PartsError> {
        let manifest = bundle::read(folder)?;
        if let Some(part) = manifest.parts.iter().find(|part| part.dtype != DType::Float && part.device != "cpu") {
            return Err(PartsError::Narrow { part: part.file.clone(), dtype: part.dtype });
        }
        let models = manifest.parts.iter().map(|part| crate::load(&folder.join(&part.file)));
        let models = models.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { manifest, models })
    }
}

/// Searches every part that runs on the target; one report for all of them.
///
/// # Errors
/// As [`bisect`].
pub fn bisect_parts(
    parts: &Parts,
    file: &str,
    reference: &dyn Engine,
    suspect: &Suspect,
    options: &Options,
    step: &dyn Fn(&str),
) -> Result<(Report, Vec<Proof>), BisectError> {
    let mut known = match (options.inputs.is_empty(), parts.models.first()) {
        (true, Some(first)) => (0..options.samples.max(1) as u64).map(|seed| samples::for_model(first, seed)).collect(),
        _ => options.inputs.clone(),
    };
    let mut whole: Option<(Report, Vec<Proof>)> = None;
    for (part, model) in parts.manifest.parts.iter().zip(&parts.models) {
        if part.device != "cpu" {
            let wanted = |known: &Tensors| -> Tensors {
                let names = model.graph.inputs.iter().map(|&id| model.graph.value(id).name.clone());
                names.filter_map(|name| Some((name.clone(), known.get(&name)?.clone()))).collect()
            };
            let inputs = known.iter().map(wanted).collect();
            // The inputs have the sizes that prepare was given.
            let sizes = Freeze { batch: None, ..options.sizes.clone() };
            let own = Options { inputs, sizes, ..options.clone() };
            let (report, proofs) = bisect(model, file, reference, suspect, &own, step)?;
            match &mut whole {
                None => whole = Some((report, proofs)),
                Some((all, shown)) => join(all, shown, report, proofs),
            }
        }
        step(&format!("what {} hands on", part.file));
        let mut session = reference.compile(model)?;
        for tensors in &mut known {
            let made = session.run(tensors)?;
            tensors.extend(made);
        }
    }
    match whole {
        Some((mut report, proofs)) => {
            report.notes.push("what prepare made was tested, and not the model's own nodes".into());
            Ok((report, proofs))
        }
        None => {
            // Nothing of it runs on the target, so nothing can be wrong there.
            let nothing = Options { inputs: known, max_probes: Some(0), ..options.clone() };
            let first = parts.models.first().cloned().unwrap_or_default();
            let (mut report, proofs) = bisect(&first, file, reference, suspect, &nothing, step)?;
            report.notes.push("every part runs on the CPU: nothing was tested on the target".into());
            Ok((report, proofs))
        }
    }
}

/// Adds what was found in another part.
fn join(all: &mut Report, shown: &mut Vec<Proof>, other: Report, proofs: Vec<Proof>) {
    let before = all.faults.len();
    shown.extend(proofs.into_iter().map(|proof| Proof { fault: proof.fault + before, ..proof }));
    all.faults.extend(other.faults);
    all.layers.extend(other.layers);
    all.nodes += other.nodes;
    all.not_tested.extend(other.not_tested);
    all.notes.extend(other.notes);
    all.stopped = all.stopped.take().or(other.stopped);
    all.probes.compiles += other.probes.compiles;
    all.probes.runs += other.probes.runs;
    all.probes.cached += other.probes.cached;
    all.probes.reference_compiles += other.probes.reference_compiles;
    all.probes.seconds += other.probes.seconds;
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Faulty => 3,
        Verdict::Nondeterministic => 2,
        Verdict::Inconclusive => 1,
        Verdict::Healthy => 0,
    };
    if rank(&other.verdict) > rank(&all.verdict) {
        all.verdict = other.verdict;
    }
}
