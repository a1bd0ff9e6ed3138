//! Runs the original model and the parts made from it on the same inputs and judges every output.
//!
//! What difference is allowed is measured, not set: [`noise::measure`] runs the *original* with errors of the size that
//! the element type makes, and the parts may be about as far away as that (see [`Expectation`]). Parts in a 16-bit type
//! are emulated, since no CPU engine computes in them.

use std::collections::HashSet;

use serde::Serialize;

use super::trial::Ran;
use super::{PrepareError, Prepared};
use crate::bundle::manifest::Manifest;
use crate::compare::{Agreement, Expectation, Finding, Verdict};
use crate::engine::emulate::Emulated;
use crate::engine::noise::{self, Noise};
use crate::engine::ort::{Optimisation, Ort};
use crate::engine::tract::Tract;
use crate::engine::{Engine, EngineError, Tensors, samples};
use crate::graph::{Model, Node, flops, freeze, shapes};
use crate::onnx::{DType, Tensor};
use crate::reach::{self, Local};

/// Models below this many operations are checked on more samples.
const SMALL: f64 = 2e10;

/// Further draws of a 16-bit type's noise before a difference is called one.
const MORE: usize = 6;

/// What the check showed.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// Whether nothing was found. Also true where nothing could be run, see `status`.
    pub passed: bool,
    /// `same`, `unclear` (rounding alone makes so much of a difference that nothing can be said), `differs`, `not-run`.
    pub status: String,
    /// What ran both sides.
    pub engine: String,
    /// Engines that were asked before it and did not run both sides, with what they said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// How many inputs were tried.
    pub samples: usize,
    /// What was found, output by output, for the worst sample.
    pub outputs: Vec<Finding>,
    /// The outcome in a sentence.
    pub story: String,
    /// What the target's own engine gave, where the bundle was run there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub itself: Option<Itself>,
    /// The outcome for the screen, a line an output.
    #[serde(skip)]
    pub lines: Vec<String>,
}

/// How the target's own engine did.
#[derive(Clone, Debug, Serialize)]
pub struct Itself {
    /// The engine.
    pub engine: String,
    /// `same`, `unclear` or `differs`.
    pub status: String,
    /// What was found, output by output.
    pub outputs: Vec<Finding>,
}

/// Compares the original with `parts`, which are the manifest's, read back from where they were written.
///
/// # Errors
/// The original runs and a part does not, though no engine lacks an operator for it.
pub fn check(prepared: &Prepared, parts: &[Model]) -> Result<Checked, PrepareError> {
    let manifest = &prepared.manifest;
    let Some(original) = with_outputs(&prepared.original, manifest) else {
        return Ok(not_run("the original has no tensors of the outputs' names".into()));
    };
    // Free sizes get numbers that the model can run at, in the inputs alone: model and parts keep theirs free.
    let mut sized = original.clone();
    let (sizes, _) = freeze::assumed(&original);
    freeze::freeze(&mut sized, &sizes)?;
    shapes::infer(&mut sized)?; // what the model's work is counted by
    if let Some(why) = samples::too_large(&sized) {
        return Ok(Checked { story: why.clone(), ..not_run(why) });
    }
    if let Some(weight) = wrong_weight(prepared, parts) {
        return Ok(refused(format!("weight {weight} of the bundle is not the model's, rounded")));
    }
    let mut problems = Vec::new();
    let mut broken = None;
    for engine in engines(&mut problems) {
        let mut judged =
            Judged { engine: &*engine, prepared, parts, original: &original, sized: &sized, part_failed: false };
        match judged.findings() {
            Ok((findings, count)) => {
                let noise = if is_lowered(prepared) { manifest.dtype } else { DType::Float };
                // What is not installed refused nothing.
                let refused = problems.iter().filter(|error| !error.is_absence()).map(ToString::to_string);
                let itself = judged.itself();
                let mut checked = conclude(findings, engine.name(), refused.collect(), count, noise, &manifest.target);
                if let Some(itself) = &itself {
                    let own = itself.outputs.iter().map(|finding| line(finding, DType::Float));
                    checked.lines.extend(own.map(|said| format!("{said} (run by {} itself, 1 sample)", itself.engine)));
                }
                return Ok(Checked { itself, ..checked });
            }
            Err(error) => {
                problems.push(error.clone());
                let lacks = matches!(error, EngineError::Unsupported { .. } | EngineError::Absent { .. });
                if judged.part_failed && !lacks {
                    broken.get_or_insert(error);
                }
            }
        }
    }
    match broken {
        Some(error) => Err(error.into()),
        None => Ok(not_run(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))),
    }
}

/// Whether some part computes in less than the model does.
fn is_lowered(prepared: &Prepared) -> bool {
    let mut parts = prepared.manifest.parts.iter();
    !prepared.float32_parts.is_empty() && parts.any(|part| part.device != "cpu")
}

/// The first weight of a part that is not what the weight of that name was before types were lowered. In a 16-bit type a
/// wrong weight hides in the noise of what it computes, so the numbers themselves are compared.
fn wrong_weight(prepared: &Prepared, parts: &[Model]) -> Option<String> {
    let wrong = |before: &Model, after: &Model| {
        after.graph.initializers().find_map(|(id, tensor)| {
            let name = &after.graph.value(id).name;
            let weight = before.graph.initializer(before.graph.value_named(name)?)?;
            (weight.dtype() == DType::Float && !is_rounded(weight, tensor)).then(|| name.clone())
        })
    };
    prepared.float32_parts.iter().zip(parts).find_map(|(before, after)| wrong(before, after))
}

/// Whether a tensor holds another one's values in its own type, numbers beyond float16's largest brought back to it.
fn is_rounded(weight: &Tensor, tensor: &Tensor) -> bool {
    if weight.dims() != tensor.dims() || !tensor.dtype().is_float() {
        return false;
    }
    let bytes = |tensor: Option<Tensor>| tensor.and_then(|tensor| tensor.to_bytes().ok());
    let (wanted, found) = (bytes(weight.convert(tensor.dtype())), bytes(Some(tensor.clone())));
    if wanted.is_some() && wanted == found {
        return true;
    }
    let (Ok(wanted), Ok(found)) = (weight.to_f64s(), tensor.to_f64s()) else { return false };
    let near = |(&a, &b): (&f64, &f64)| {
        a == b || (a - b).abs() <= a.abs() / 256.0 || (a.abs() > 65504.0 && b.abs() == 65504.0)
    };
    // Numbers this near zero are nothing in float16.
    wanted.iter().zip(&found).all(|pair| near(pair) || pair.0.abs().max(pair.1.abs()) < 1e-7)
}

fn refused(why: String) -> Checked {
    Checked {
        passed: false,
        status: "differs".into(),
        engine: "none".into(),
        refused: Vec::new(),
        samples: 0,
        outputs: Vec::new(),
        itself: None,
        lines: vec![why.clone()],
        story: why,
    }
}

/// The check on one engine.
struct Judged<'a> {
    engine: &'a dyn Engine,
    prepared: &'a Prepared,
    parts: &'a [Model],
    /// With the outputs that are compared.
    original: &'a Model,
    /// The same with all sizes known: what inputs are made for.
    sized: &'a Model,
    /// The original ran, and a part did not.
    part_failed: bool,
}

impl<'a> Judged<'a> {
    /// What is found on the worst sample, and how many were tried.
    fn findings(&mut self) -> Result<(Vec<Finding>, usize), EngineError> {
        let manifest = &self.prepared.manifest;
        let (kept, cpu): (HashSet<&str>, HashSet<&str>) = (
            manifest.float32_nodes.iter().map(|one| one.node.as_str()).collect(),
            manifest.cpu_reasons.iter().map(|one| one.node.as_str()).collect(),
        );
        let rewritten = self.kept_under_other_names();
        let keep = |node: &Node| {
            let name = node.name.as_str();
            kept.contains(name) || cpu.contains(name) || rewritten.contains(name)
        };
        let large = flops::total(self.sized) >= SMALL;
        let (count, draws) = if large { (1, 2) } else { (2, 2) };
        let count = if self.prepared.samples.is_empty() { count } else { self.prepared.samples.len() as u64 };
        // Where every node ended up on the CPU, nothing computes in the type that the policy chose.
        let dtype = if is_lowered(self.prepared) { manifest.dtype } else { DType::Float };
        let noise = Noise { dtype, keep: &keep, draws, seed: 0, approximated: &[] };
        let mut worst: Option<Vec<Finding>> = None;
        for seed in 0..count {
            let findings = self.sample(seed, &noise)?;
            if worst.as_ref().is_none_or(|worst| badness(&findings) > badness(worst)) {
                worst = Some(findings);
            }
        }
        Ok((worst.unwrap_or_default(), count as usize))
    }

    /// Nodes of the original whose results the lowered parts make in float32, by nodes that a rewrite put in their place:
    /// the tensors keep their names, the nodes do not.
    fn kept_under_other_names(&self) -> HashSet<&'a str> {
        let lowered =
            self.prepared.manifest.parts.iter().zip(self.parts).filter(|(part, _)| part.dtype != DType::Float);
        let made = lowered.flat_map(|(_, model)| {
            let graph = &model.graph;
            let nodes = graph.nodes().filter(|(_, node)| !node.is("Cast"));
            let values = nodes.flat_map(|(_, node)| node.writes()).map(|id| graph.value(id));
            values.filter(|value| value.dtype == Some(DType::Float)).map(|value| value.name.as_str())
        });
        let made: HashSet<&str> = made.collect();
        let original: &'a Model = self.original;
        let graph = &original.graph;
        let named = graph.nodes().filter(|(_, node)| !node.name.is_empty());
        let kept = named.filter(|(_, node)| node.writes().any(|id| made.contains(graph.value(id).name.as_str())));
        kept.map(|(_, node)| node.name.as_str()).collect()
    }

    /// What is found on one sample: with the parts as they are, and where these are in a 16-bit type, also with the parts
    /// before that. The type's own noise hides most faults of rewriting and partition; float32's does not.
    fn sample(&mut self, seed: u64, noise: &Noise) -> Result<Vec<Finding>, EngineError> {
        let inputs = samples::given_or_made(&self.prepared.samples, self.sized, seed);
        let reference = Emulated(self.engine).run_once(self.original, &inputs)?;
        self.part_failed = true;
        let lowered = !self.prepared.float32_parts.is_empty();
        let before = if lowered { &self.prepared.float32_parts } else { self.parts };
        let plain = Noise { dtype: if lowered { DType::Float } else { noise.dtype }, ..*noise };
        let plain = self.compared(&reference, before, &inputs, &plain)?;
        let mut told = plain;
        if lowered {
            let findings = self.measured(&reference, self.parts, &inputs, noise)?;
            told = match (verdict(&told), verdict(&findings)) {
                (Verdict::Differs, other) if other != Verdict::Differs => {
                    let add = |mut finding: Finding| {
                        finding.reason = format!("{} (before the element type was lowered)", finding.reason);
                        finding
                    };
                    told.into_iter().map(add).collect()
                }
                (Verdict::Same, Verdict::Differs) => findings.into_iter().map(doubtful).collect(),
                _ => findings,
            };
        }
        self.part_failed = false;
        Ok(told)
    }

    /// What is found where the target's own engine ran the bundle; nothing where it did not, or where the original does
    /// not run.
    fn itself(&self) -> Option<Itself> {
        let Ran { engine, tensors, approximated } = self.prepared.ran.as_ref()?;
        let inputs = samples::given_or_made(&self.prepared.samples, self.sized, 0);
        let keep = |_: &Node| false;
        let noise = Noise { dtype: DType::Float, keep: &keep, draws: 2, seed: 0, approximated };
        let runner = Emulated(self.engine);
        let reference = runner.run_once(self.original, &inputs).ok()?;
        let expectation = noise::measure_around(&runner, self.original, &inputs, reference, &noise).ok()?;
        let outputs = self.judge(expectation, tensors);
        Some(Itself { engine: engine.clone(), status: status(verdict(&outputs)).into(), outputs })
    }

    /// What is found in float32. Noise is measured only where it has something to explain: most bundles are equal to
    /// the model bit for bit, and every draw costs a run of the model.
    fn compared(
        &self,
        reference: &Tensors,
        parts: &[Model],
        inputs: &Tensors,
        noise: &Noise,
    ) -> Result<Vec<Finding>, EngineError> {
        let result = run_parts(self.engine, parts, inputs.clone())?;
        let exact = Expectation::new(reference.clone(), vec![reference.clone()], noise.dtype);
        let findings = self.judge(exact, &result);
        if findings.iter().all(|finding| finding.metrics.as_ref().is_some_and(|metrics| metrics.equal)) {
            return Ok(findings);
        }
        let expectation =
            noise::measure_around(&Emulated(self.engine), self.original, inputs, reference.clone(), noise)?;
        Ok(self.judge(expectation, &result))
    }

    /// What is found where the element type itself makes a difference.
    fn measured(
        &self,
        reference: &Tensors,
        parts: &[Model],
        inputs: &Tensors,
        noise: &Noise,
    ) -> Result<Vec<Finding>, EngineError> {
        let engine = Emulated(self.engine);
        let result = run_parts(self.engine, parts, inputs.clone())?;
        let mut expectation = noise::measure_around(&engine, self.original, inputs, reference.clone(), noise)?;
        // What flows between the parts was judged in float32, where a fault shows; here only the answers count.
        expectation.reference.retain(|name, _| self.is_output(name));
        let findings = self.judge(expectation.clone(), &result);
        if verdict(&findings) != Verdict::Differs {
            return Ok(findings);
        }
        // A few draws show how much rounding does; before a bundle is refused, more are asked.
        let more = Noise { draws: MORE, seed: noise.seed + 1, ..*noise };
        let more = noise::measure_around(&engine, self.original, inputs, reference.clone(), &more)?;
        expectation.draws.extend(more.draws);
        Ok(self.judge(expectation, &result))
    }

    fn is_output(&self, name: &str) -> bool {
        self.prepared.manifest.outputs.iter().any(|output| output.name == name)
    }

    fn judge(&self, mut expectation: Expectation, result: &Tensors) -> Vec<Finding> {
        // Tensors at the borders of parts are compared where they are still the original's.
        let is_output = |name: &str| self.is_output(name);
        let alike = |name: &str, tensor: &Tensor| {
            let other = result.get(name);
            other.is_some_and(|other| {
                other.dims() == tensor.dims() && other.dtype().is_float() && tensor.dtype().is_float()
            })
        };
        expectation.reference.retain(|name, tensor| is_output(name) || alike(name, tensor));
        let graph = &self.original.graph;
        let random = graph.random_values();
        let is_random = |name: &str| graph.value_named(name).is_some_and(|value| random.contains(&value));
        let mut findings = expectation.judge(result).excusing_random(&is_random).findings;
        findings.iter_mut().for_each(refuse_new_nan);
        findings.retain(|finding| is_output(&finding.name) || finding.verdict == Verdict::Differs);
        findings
    }
}

/// In float32 the bundle computes what the model computes. Where rounding to a narrower type moves the bulk of the
/// detections no further than it moves them in the model, and a few much further, the model hangs on ties that tip one way
/// here and another way there: nothing is shown to be wrong, nor is it shown to be right.
fn doubtful(mut finding: Finding) -> Finding {
    let new_nan = finding.metrics.as_ref().is_none_or(|metrics| metrics.non_finite > metrics.reference_non_finite);
    let pairs = || finding.detections.iter().zip(&finding.expected_detections);
    let told = !finding.detections.is_empty() && finding.detections.len() == finding.expected_detections.len();
    if finding.verdict == Verdict::Differs && !new_nan && told && pairs().all(|(found, draw)| bulk_agrees(found, draw))
    {
        finding.verdict = Verdict::Unclear;
        finding.reason =
            format!("{}; the bulk is where rounding leaves it, and in float32 nothing differs", finding.reason);
    }
    finding
}

/// Whether nine in ten detections are as near as a draw's, by the factor that 16 bits are allowed.
fn bulk_agrees(found: &Agreement, draw: &Agreement) -> bool {
    let bulk = |sorted: &[f64]| sorted.get(sorted.len() * 9 / 10).copied().unwrap_or(0.0);
    let near = |found: &[f64], draw: &[f64], least: f64| bulk(found) <= 3.0 * bulk(draw).max(least);
    10 * found.agree >= 9 * draw.agree.max(1)
        && near(&found.boxes, &draw.boxes, 1.0 / 16.0)
        && near(&found.scores, &draw.scores, 1.0 / 1024.0)
        && near(&found.rest, &draw.rest, 1.0 / 1024.0)
}

/// NaN and infinities that the model does not have are a fault, even where rounding to the element type makes them too.
fn refuse_new_nan(finding: &mut Finding) {
    let Some(metrics) = &finding.metrics else { return };
    let new = metrics.non_finite.saturating_sub(metrics.reference_non_finite);
    if new > 0 && finding.verdict != Verdict::Differs {
        finding.verdict = Verdict::Differs;
        finding.reason = format!(
            "{new} numbers are NaN or infinite that the model gives finite: the element type does not hold them"
        );
    }
}

fn verdict(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Same)
}

fn status(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Same => "same",
        Verdict::Unclear => "unclear",
        Verdict::Differs => "differs",
    }
}

/// How bad findings are, to pick the worst.
fn badness(findings: &[Finding]) -> (Option<Verdict>, f64) {
    (findings.iter().map(|f| f.verdict).max(), findings.iter().map(|f| f.strain).fold(0.0, f64::max))
}

/// The original, giving what the bundle gives: its own outputs, or tensors inside of it where the head was left out; and
/// what flows between the parts, as far as it has that. A selection of the best 300 forgives what its input does not.
fn with_outputs(original: &Model, manifest: &Manifest) -> Option<Model> {
    let mut model = original.clone();
    model.graph.outputs =
        manifest.outputs.iter().map(|output| model.graph.value_named(&output.name)).collect::<Option<Vec<_>>>()?;
    for border in manifest.parts.iter().flat_map(|part| &part.outputs) {
        let value = model.graph.value_named(&border.name).filter(|&id| model.graph.producer(id).is_some());
        if let Some(id) = value.filter(|&id| !model.graph.is_output(id)) {
            model.graph.outputs.push(id);
        }
    }
    model.graph.prune();
    Some(model)
}

/// The engines to try, in order: an ONNX Runtime that is installed, which is the faster one, then tract. ONNX Runtime has a
/// process of its own: a model can make it crash, and a crash is a result of the check, not the end of porter.
pub(super) fn engines(problems: &mut Vec<EngineError>) -> Vec<Box<dyn Engine>> {
    let mut engines: Vec<Box<dyn Engine>> = Vec::new();
    let ort = Local::Ort(Box::new(Ort { optimisation: Optimisation::Off, threads: 0, provider: None }));
    let opened = match ort.apart(&reach::Options::default()) {
        // A program that has porter as a library need not have its command at hand.
        Err(_) if !Local::has_command() => ort.here(),
        outcome => outcome,
    };
    match opened {
        Ok(ort) => engines.push(ort),
        Err(error) => problems.push(error),
    }
    engines.push(Box::new(Tract));
    engines
}

/// Runs the parts one after the other; gives every tensor there is then.
fn run_parts(engine: &dyn Engine, parts: &[Model], inputs: Tensors) -> Result<Tensors, EngineError> {
    let mut known = inputs;
    for part in parts {
        let outputs = Emulated(engine).run_once(part, &known)?;
        known.extend(outputs);
    }
    Ok(known)
}

fn not_run(why: String) -> Checked {
    Checked {
        passed: true,
        status: "not-run".into(),
        engine: "none".into(),
        refused: Vec::new(),
        samples: 0,
        outputs: Vec::new(),
        itself: None,
        story: format!("no engine here runs the original on these inputs: {why}"),
        lines: vec![format!("not run: {why}")],
    }
}

fn conclude(
    outputs: Vec<Finding>,
    engine: String,
    refused: Vec<String>,
    samples: usize,
    dtype: DType,
    target: &str,
) -> Checked {
    let verdict = outputs.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Same);
    let mut lines: Vec<String> = outputs.iter().map(|finding| line(finding, dtype)).collect();
    let count = if samples == 1 { "1 sample".to_string() } else { format!("{samples} samples") };
    let how = if dtype == DType::Float { String::new() } else { format!(", {} emulated", dtype.spelled()) };
    let itself = if ["cpu", "ort"].contains(&target) { String::new() } else { format!("; not run on {target} itself") };
    lines.push(format!("on {count}, model and parts run by {engine}{how}{itself}"));
    let unclear = outputs.iter().find(|finding| finding.verdict == Verdict::Unclear);
    let story = match outputs.iter().find(|finding| finding.verdict == Verdict::Differs) {
        Some(finding) => {
            format!("the bundle does not compute what the model computes: output {}: {}", finding.name, finding.reason)
        }
        None if verdict == Verdict::Unclear => format!(
            "nothing is shown to be wrong on {samples} samples ({engine}), nor right: {}",
            unclear.map_or("", |finding| finding.reason.as_str())
        ),
        None => format!("every output agrees on {samples} samples ({engine})"),
    };
    let (passed, status) = (verdict != Verdict::Differs, status(verdict).into());
    Checked { passed, status, engine, refused, samples, outputs, story, itself: None, lines }
}

/// `output0: 300 of 300 detections agree; worst box 0.40 px; 24 % of what bfloat16 allows`.
fn line(finding: &Finding, dtype: DType) -> String {
    let allowed = format!("{:.0} % of what {} allows", 100.0 * finding.strain, dtype.spelled());
    let name = &finding.name;
    let equal = finding.metrics.as_ref().is_some_and(|metrics| metrics.equal);
    let said = if equal {
        "equal, bit for bit".to_string()
    } else if let Some(all) = sum(&finding.detections) {
        format!("{} of {} detections agree; worst box {:.2} px; {allowed}", all.agree, all.count, all.worst_box)
    } else if let Some(metrics) = &finding.metrics {
        format!("largest difference {:.1e}; cosine {:.7}; {allowed}", metrics.max_abs, metrics.cosine)
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
