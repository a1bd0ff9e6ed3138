//! Runs the original model and the parts made from it on the same inputs and judges every output.
//!
//! What difference is allowed is measured, not set: [`noise::measure`] runs the *original* with errors of the size that
//! the element type makes, and the parts may be about as far away as that (see [`Expectation`]). Parts in a 16-bit type
//! are emulated, since no CPU engine computes in them.

use std::collections::HashSet;

use serde::Serialize;

use super::{PrepareError, Prepared};
use crate::bundle::manifest::Manifest;
use crate::compare::{Agreement, Finding, Verdict};
use crate::engine::emulate::Emulated;
use crate::engine::noise::{self, Noise};
use crate::engine::ort::Ort;
use crate::engine::tract::Tract;
use crate::engine::{Engine, Tensors, samples};
use crate::graph::{Model, Node, flops, freeze};
use crate::onnx::DType;

/// Models below this many operations are checked on more samples.
const SMALL: f64 = 2e10;

/// What the check showed.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// Whether nothing was found. Also true where nothing could be run, see `status`.
    pub passed: bool,
    /// `same`, `unclear` (rounding alone makes so much of a difference that nothing can be said), `differs`, `not-run`.
    pub status: String,
    /// What ran both sides.
    pub engine: String,
    /// How many inputs were tried.
    pub samples: usize,
    /// What was found, output by output, for the worst sample.
    pub outputs: Vec<Finding>,
    /// The outcome in a sentence.
    pub story: String,
    /// The outcome for the screen, a line an output.
    #[serde(skip)]
    pub lines: Vec<String>,
}

/// Compares the original with `parts`, which are the manifest's, read back from where they were written.
///
/// # Errors
/// The original runs and a part does not.
pub fn check(prepared: &Prepared, parts: &[Model]) -> Result<Checked, PrepareError> {
    let manifest = &prepared.manifest;
    let Some(original) = with_outputs(&prepared.original, manifest) else {
        return Ok(not_run("the original has no tensors of the outputs' names".into()));
    };
    let (kept, cpu): (HashSet<&str>, HashSet<&str>) = (
        manifest.float32_nodes.iter().map(|one| one.node.as_str()).collect(),
        manifest.cpu_reasons.iter().map(|one| one.node.as_str()).collect(),
    );
    let keep = |node: &Node| kept.contains(node.name.as_str()) || cpu.contains(node.name.as_str());
    let noise = Noise { dtype: manifest.dtype, keep: &keep, draws: 2, seed: 0 };
    // Free sizes get numbers that the model can run at; the parts keep theirs free and must run at them too.
    let mut original = original;
    let (sizes, _) = freeze::assumed(&original);
    freeze::freeze(&mut original, &sizes)?;
    let mut problems = Vec::new();
    let first = samples::for_model(&original, 0);
    for engine in engines(&mut problems) {
        // What runs the original once runs it again; whoever cannot is not asked for more.
        let expectation = match noise::measure(&*engine, &original, &first, &noise) {
            Ok(expectation) => expectation,
            Err(error) => {
                problems.push(error.to_string());
                continue;
            }
        };
        let mut worst = expectation.judge(&run_parts(&*engine, manifest, parts, first)?).findings;
        let count = if flops::total(&original) < SMALL { 2 } else { 1 };
        for seed in 1..count {
            let inputs = samples::for_model(&original, seed);
            let expectation = noise::measure(&*engine, &original, &inputs, &noise)?;
            let findings = expectation.judge(&run_parts(&*engine, manifest, parts, inputs)?).findings;
            if badness(&findings) > badness(&worst) {
                worst = findings;
            }
        }
        return Ok(conclude(worst, engine.name(), count as usize, manifest.dtype));
    }
    Ok(not_run(problems.join("; ")))
}

/// How bad findings are, to pick the worst.
fn badness(findings: &[Finding]) -> (Option<Verdict>, f64) {
    (findings.iter().map(|f| f.verdict).max(), findings.iter().map(|f| f.strain).fold(0.0, f64::max))
}

/// The original, giving what the bundle gives: its own outputs, or tensors inside of it where the head was left out.
fn with_outputs(original: &Model, manifest: &Manifest) -> Option<Model> {
    let mut model = original.clone();
    model.graph.outputs =
        manifest.outputs.iter().map(|output| model.graph.value_named(&output.name)).collect::<Option<Vec<_>>>()?;
    model.graph.prune();
    Some(model)
}

/// The engines to try, in order: tract, then an ONNX Runtime that is installed.
fn engines(problems: &mut Vec<String>) -> Vec<Box<dyn Engine>> {
    let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(Tract)];
    match Ort::reference() {
        Ok(ort) => engines.push(Box::new(ort)),
        Err(error) => problems.push(error.to_string()),
    }
    engines
}

fn run_parts(
    engine: &dyn Engine,
    manifest: &Manifest,
    parts: &[Model],
    inputs: Tensors,
) -> Result<Tensors, PrepareError> {
    let mut known = inputs;
    for (entry, part) in manifest.parts.iter().zip(parts) {
        let outputs = match entry.dtype {
            DType::Float => engine.run_once(part, &known)?,
            _ => Emulated(engine).run_once(part, &known)?,
        };
        known.extend(outputs);
    }
    Ok(known)
}

fn not_run(why: String) -> Checked {
    Checked {
        passed: true,
        status: "not-run".into(),
        engine: "none".into(),
        samples: 0,
        outputs: Vec::new(),
        story: format!("no engine here runs the original: {why}"),
        lines: vec![format!("not run: {why}")],
    }
}

fn conclude(outputs: Vec<Finding>, engine: String, samples: usize, dtype: DType) -> Checked {
    let verdict = outputs.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Same);
    let status = match verdict {
        Verdict::Same => "same",
        Verdict::Unclear => "unclear",
        Verdict::Differs => "differs",
    };
    let lines: Vec<String> = outputs.iter().map(|finding| line(finding, dtype)).collect();
    let story = match outputs.iter().find(|finding| finding.verdict == Verdict::Differs) {
        Some(finding) => {
            format!("the bundle does not compute what the model computes: output {}: {}", finding.name, finding.reason)
        }
        None => format!("every output agrees on {samples} samples ({engine})"),
    };
    Checked { passed: verdict != Verdict::Differs, status: status.into(), engine, samples, outputs, story, lines }
}

/// `output0: 300 of 300 detections agree; worst box 0.4 px, bfloat16 explains 0.6`.
fn line(finding: &Finding, dtype: DType) -> String {
    let dtype = dtype.spelled();
    let name = &finding.name;
    let equal = finding.metrics.as_ref().is_some_and(|metrics| metrics.equal);
    let said = if equal {
        "equal, bit for bit".to_string()
    } else if let Some(all) = sum(&finding.detections) {
        let expected = sum(&finding.expected_detections).map_or(0.0, |expected| expected.worst_box);
        format!(
            "{} of {} detections agree; worst box {:.2} px, {dtype} explains {expected:.2}",
            all.agree, all.count, all.worst_box
        )
    } else if let Some(metrics) = &finding.metrics {
        format!(
            "largest difference {:.1e}, {dtype} explains {:.1e}; cosine {:.7}",
            metrics.max_abs, finding.expected, metrics.cosine
        )
    } else {
        String::new()
    };
    match finding.verdict {
        Verdict::Same => format!("{name}: {said}"),
        Verdict::Unclear => format!("{name}: {said}; unclear: {}", finding.reason),
        Verdict::Differs => format!("{name}: differs: {}; {said}", finding.reason),
    }
}

/// The agreement over every batch element.
fn sum(elements: &[Agreement]) -> Option<Agreement> {
    let mut all = elements.first()?.clone();
    for one in &elements[1..] {
        all.count += one.count;
        all.agree += one.agree;
        all.worst_box = all.worst_box.max(one.worst_box);
    }
    Some(all)
}
