//! The run itself: sizes, samples, the reference with its noise, the target, the verdict.

use std::time::Instant;

use super::outcome::{Breakage, Judged, Outcome, Sampled, Side, Verification};
use super::sample::{self, Kind, Sample};
use super::subject::{Running, Subject};
use super::{Judge, VerifyError};
use super::{answer, blocks};
use crate::compare::{Verdict, metrics};
use crate::engine::double::Double;
use crate::engine::loose::Loose;
use crate::engine::noise::Noise;
use crate::engine::{Engine, EngineError, Tensors};
use crate::graph::freeze::{self, Freeze};
use crate::graph::{Dim, Model, Node, shapes};
use crate::onnx::{DType, Tensor};
use crate::reach::Reached;
use crate::target::{self, Facts};

/// Batch sizes tried where the batch is free.
pub const BATCHES: [i64; 3] = [1, 2, 4];

/// What is to be tried.
#[derive(Clone, Debug)]
pub struct Options {
    /// Samples of the first batch size; the others get one for every three of these.
    pub samples: usize,
    /// Another seed gives other samples.
    pub seed: u64,
    /// Batch sizes, where the batch is free; [`BATCHES`] where none is given.
    pub batches: Vec<i64>,
    /// Sizes the user gave.
    pub freeze: Freeze,
    /// The element type whose rounding is allowed, over what the target or the bundle says.
    pub dtype: Option<DType>,
    /// Samples of the user's own; with any of these none are made up.
    pub given: Vec<(String, Tensors)>,
    /// Whether every tensor inside of the model is compared too, by making it an output. That can change how a target
    /// fuses.
    pub all_tensors: bool,
    /// How many times noise is drawn for each sample.
    pub draws: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            samples: 3,
            seed: 0,
            batches: Vec::new(),
            freeze: Freeze::default(),
            dtype: None,
            given: Vec::new(),
            all_tensors: false,
            draws: 2,
        }
    }
}

/// Who takes part besides the target.
pub struct Others<'a> {
    /// What the target is held against.
    pub reference: &'a dyn Engine,
    /// What to call it in front of a reader.
    pub label: String,
    /// Whether it only plays a reference: known faults are planted in it.
    pub simulated: bool,
    /// Runs the CPU parts of a bundle.
    pub host: &'a dyn Engine,
    /// Decides where reference and target differ; porter's own float64 where none is given.
    pub decider: Option<&'a dyn Engine>,
}

/// Verifies a model or bundle on a target. `step` hears what is being done.
///
/// # Errors
/// The reference does not run the model, or sizes that do not fit. That the *target* does not is no error but the verdict
/// [`Outcome::Broken`].
pub fn verify(
    subject: &Subject,
    target: &Reached,
    others: &Others,
    options: &Options,
    step: &dyn Fn(&str),
) -> Result<Verification, VerifyError> {
    let facts = Facts::of(&subject.model);
    let mut verification = Verification {
        verdict: Outcome::Same,
        model: subject.name.clone(),
        target: side(&*target.engine, &target.label, target.simulated),
        reference: side(others.reference, &others.label, others.simulated),
        dtype: DType::Float,
        dtype_reason: String::new(),
        decided_by: None,
        broken: None,
        emulated: None,
        assumed: Vec::new(),
        samples: Vec::new(),
        story: Vec::new(),
    };
    let mut unlike: Option<String> = None;
    let mut strikes = None;
    if target.emulates {
        verification.emulated = subject.half();
    }
    // Sizes that are assumed here fit the branch that is taken, and an engine may refuse the other one for them.
    let reference = Loose(others.reference);
    for (index, round) in rounds(subject, options)?.into_iter().enumerate() {
        let Round { batch, .. } = round;
        let (model, assumed) = sized(subject, options, &round)?;
        if index == 0 {
            verification.assumed = assumed;
        }
        let own: Vec<String> = model.graph.outputs.iter().map(|&id| model.graph.value(id).name.clone()).collect();
        let model = with_outputs(model, subject, options);
        let (dtype, reason, keep) = element_type(subject, &model, target, options)?;
        (verification.dtype, verification.dtype_reason) = (dtype, reason);
        let head = answer::head(&model, &facts);
        let keep = |node: &Node| {
            node.writes().next().is_some_and(|id| keep.contains(&model.graph.value(id).name))
                || keep.contains(&node.name)
        };
        let approximated: Vec<(String, f64)> = target
            .target
            .iter()
            .flat_map(|target| target.approximates.iter().map(|(operator, most)| (operator.clone(), *most)))
            .collect();
        let random = model.graph.random_values();
        let (draws, seed) = (options.draws, options.seed);
        let noise = Noise { dtype, keep: &keep, draws, seed, approximated: &approximated };
        let batch_said = batch.map(|batch| format!(" at batch {batch}")).unwrap_or_default();
        step(&format!("compiling for {}{batch_said}", target.label));
        let parts = subject.bundle.as_ref();
        let mut running = match Running::compile(&model, parts, target, others.host) {
            Ok(running) => running,
            Err(error) if error.is_absence() => return Err(error.into()),
            Err(error) => {
                verification.broken = Some(Breakage::of(&error, batch_said.trim_start_matches(" at ")));
                break;
            }
        };
        for (number, sample) in samples(&model, round, options).into_iter().enumerate() {
            step(&format!("{} on {}", sample.name, others.label));
            let judge = Judge::new(&reference, &model, &sample.inputs, &noise).map_err(VerifyError::Reference)?;
            let judge = match others.decider {
                Some(engine) => judge.decided_by(engine),
                None => judge,
            };
            step(&format!("{} on {}", sample.name, target.label));
            let start = Instant::now();
            let result = match running.run(&sample.inputs) {
                Ok(result) => result,
                Err(error) if error.is_absence() => return Err(error.into()),
                Err(error) => {
                    verification.broken = Some(Breakage::of(&error, &sample.name));
                    break;
                }
            };
            let seconds = start.elapsed().as_secs_f64();
            let unrepeatable = match number {
                0 => match unrepeatable(&mut running, &sample.inputs, &result) {
                    Ok(by) => Some(by),
                    Err(error) => {
                        let again = format!("{}, the second time", sample.name);
                        verification.broken = Some(Breakage::of(&error, &again));
                        break;
                    }
                },
                _ => None,
            };
            let is_random = |name: &str| model.graph.value_named(name).is_some_and(|value| random.contains(&value));
            let report = judge.judge(&result).excusing_random(&is_random);
            if report.findings.iter().any(|finding| finding.from_exact.is_some()) {
                unlike = Some(others.decider.map_or_else(|| Double.name(), |engine| engine.name()));
            } else if report.verdict == Verdict::Differs {
                let asked = judge.exact();
                unlike = unlike.or_else(|| Some(nobody(asked.err())));
            }
            let judged = |finding: crate::compare::Finding| {
                let reference = &judge.reference()[&finding.name];
                let measured = result
                    .get(&finding.name)
                    .map(|result| blocks::measure(&blocks::blocks(&facts, reference.dims()), reference, result));
                let mut blocks = measured.unwrap_or_default();
                blocks.iter_mut().for_each(|block| block.judge(&finding));
                Judged { output: own.contains(&finding.name), dims: reference.dims().to_vec(), blocks, finding }
            };
            let answers =
                head.as_ref().map(|head| answer::compare(head, judge.reference(), &result, &judge.expectation().draws));
            verification.samples.push(Sampled {
                name: sample.name,
                kind: sample.kind,
                batch,
                verdict: report.verdict.into(),
                seconds,
                unrepeatable,
                outputs: report.findings.into_iter().map(judged).collect(),
                answers: answers.unwrap_or_default(),
            });
        }
        strikes = strikes.max(running.strikes());
        if verification.broken.is_some() {
            break;
        }
    }
    verification.decided_by = unlike;
    let worst = verification.samples.iter().map(|sample| sample.verdict).max().unwrap_or(Outcome::Same);
    verification.verdict = if verification.broken.is_some() { Outcome::Broken } else { worst };
    verification.story = super::story::tell(&verification, subject);
    if strikes == Some(0) && verification.broken.is_none() {
        verification.story.push("No node meets the simulated fault: nothing was planted.".into());
    }
    Ok(verification)
}

fn side(engine: &dyn Engine, label: &str, simulated: bool) -> Side {
    Side { name: label.into(), version: engine.version(), simulated }
}

fn nobody(error: Option<&EngineError>) -> String {
    let why = error.map_or_else(String::new, |error| format!(": {error}"));
    format!("the reference alone, since float64 is not to be had here{why}")
}

/// How far a second run of the target is from its first one, where it is not the same.
fn unrepeatable(running: &mut Running, inputs: &Tensors, first: &Tensors) -> Result<f64, EngineError> {
    let second = running.run(inputs)?;
    let apart = |(name, one): (&String, &Tensor)| {
        second
            .get(name)
            .and_then(|other| metrics(one, other).ok())
            .map_or(f64::INFINITY, |m| if m.equal { 0.0 } else { m.max_abs.max(f64::MIN_POSITIVE) })
    };
    Ok(first.iter().map(apart).fold(0.0, f64::max))
}

/// Samples of the same sizes, for which the model is compiled once.
#[derive(Default)]
struct Round {
    /// The batch size, where it is free.
    batch: Option<i64>,
    /// Kinds of samples to make up.
    kinds: Vec<Kind>,
    /// The user's own.
    given: Vec<(String, Tensors)>,
}

/// The rounds: one for each batch size, or one for each set of sizes that the user's own inputs have.
fn rounds(subject: &Subject, options: &Options) -> Result<Vec<Round>, VerifyError> {
    if !options.given.is_empty() {
        let mut rounds: Vec<Round> = Vec::new();
        let alike = |a: &Tensors, b: &Tensors| {
            a.len() == b.len() && a.iter().all(|(name, tensor)| b.get(name).is_some_and(|b| b.dims() == tensor.dims()))
        };
        for (name, inputs) in &options.given {
            let own = (name.clone(), inputs.clone());
            match rounds.iter_mut().find(|round| alike(&round.given[0].1, inputs)) {
                Some(round) => round.given.push(own),
                None => rounds.push(Round { given: vec![own], ..Default::default() }),
            }
        }
        return Ok(rounds);
    }
    let mut sized = subject.model.clone();
    freeze::freeze(&mut sized, &subject.sizes())?;
    freeze::freeze(&mut sized, &options.freeze)?;
    if !has_free_batch(&sized) {
        // Says which input has which batch, unless it is the one that was asked for.
        for &batch in &options.batches {
            freeze::freeze(&mut sized.clone(), &Freeze { batch: Some(batch), ..Default::default() })?;
        }
        return Ok(vec![Round { kinds: sample::kinds(options.samples), ..Default::default() }]);
    }
    let list = if options.batches.is_empty() { BATCHES.to_vec() } else { options.batches.clone() };
    let round = |(index, batch): (usize, i64)| {
        let count = if index == 0 { options.samples } else { options.samples.div_ceil(3) };
        Round { batch: Some(batch), kinds: sample::kinds(count), given: Vec::new() }
    };
    Ok(list.into_iter().enumerate().map(round).collect())
}

fn has_free_batch(model: &Model) -> bool {
    let graph = &model.graph;
    let free = |dim: Option<&Dim>| dim.is_some_and(|dim| dim.fixed().is_none());
    graph
        .inputs
        .iter()
        .any(|&id| graph.value(id).shape.as_ref().is_some_and(|shape| shape.len() > 1 && free(shape.first())))
}

/// The model at fixed sizes: the bundle's, the user's, the given tensors', then what can be assumed.
fn sized(subject: &Subject, options: &Options, round: &Round) -> Result<(Model, Vec<String>), VerifyError> {
    let mut model = subject.model.clone();
    freeze::freeze(&mut model, &subject.sizes())?;
    freeze::freeze(&mut model, &options.freeze)?;
    let batch = round.batch;
    if let Some((_, given)) = round.given.first() {
        let fits = |name: &String| model.graph.value_named(name).is_some_and(|id| model.graph.is_input(id));
        let shapes = given.iter().filter(|(name, _)| fits(name));
        let shapes = shapes.map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect();
        freeze::freeze(&mut model, &Freeze { shapes, batch: None })?;
        return Ok((model, Vec::new()));
    }
    if batch.is_some() {
        freeze::freeze(&mut model, &Freeze { batch, ..Default::default() })?;
    }
    let (sizes, said) = freeze::assumed(&model);
    freeze::freeze(&mut model, &sizes)?;
    Ok((model, said))
}

/// The model with the outputs that are compared: what a bundle gives where it is one, and all tensors where asked.
fn with_outputs(mut model: Model, subject: &Subject, options: &Options) -> Model {
    if let Some(parts) = &subject.bundle {
        let graph = &mut model.graph;
        let named: Vec<_> =
            parts.manifest.outputs.iter().filter_map(|output| graph.value_named(&output.name)).collect();
        if named.len() == parts.manifest.outputs.len() {
            graph.outputs = named;
            graph.prune();
        }
        return model;
    }
    if options.all_tensors {
        let _ = shapes::infer(&mut model);
        let graph = &mut model.graph;
        let inside: Vec<_> = graph
            .nodes()
            .filter(|(_, node)| !node.is("Constant"))
            .flat_map(|(_, node)| node.writes())
            .filter(|&id| graph.value(id).dtype.is_some_and(DType::is_float) && !graph.is_output(id))
            .collect();
        // In the order of the nodes, the model's own outputs last.
        let own = std::mem::replace(&mut graph.outputs, inside);
        graph.outputs.extend(own);
    }
    model
}

/// The type whose rounding is allowed, why, and the names of what stays in float32.
fn element_type(
    subject: &Subject,
    model: &Model,
    reached: &Reached,
    options: &Options,
) -> Result<(DType, String, std::collections::HashSet<String>), VerifyError> {
    let mut keep = std::collections::HashSet::new();
    if let Some(parts) = &subject.bundle {
        let manifest = &parts.manifest;
        keep.extend(manifest.float32_nodes.iter().map(|one| one.node.clone()));
        keep.extend(manifest.cpu_reasons.iter().map(|one| one.node.clone()));
        if manifest.dtype != DType::Float || options.dtype.is_some() {
            return Ok((options.dtype.unwrap_or(manifest.dtype), "the bundle's".into(), keep));
        }
    }
    if let Some(dtype) = options.dtype {
        return Ok((dtype, "asked for".into(), keep));
    }
    if let Some(dtype) = reached.rounds {
        return Ok((dtype, format!("{} rounds like it", reached.label), keep));
    }
    let Some(target) = &reached.target else {
        return Ok((DType::Float, "the model's".into(), keep));
    };
    let setting = target.setting(reached.device.as_deref(), None)?;
    let mut typed = model.clone();
    let _ = shapes::infer(&mut typed);
    let assessment = target::assess(&typed, target, &setting);
    let wishes = target::dtype::Wishes { dtype: None, variant: None };
    let policy = target::dtype::policy(&typed, target, &setting, &assessment, wishes)?;
    keep.extend(policy.float32.keys().cloned());
    // A bundle's float32 is the target's, whatever another model would be prepared in.
    let given = if subject.bundle.is_some() { DType::Float } else { policy.compute };
    let dtype = if policy.rounds != policy.compute { policy.rounds } else { given };
    Ok((dtype, policy.why.clone(), keep))
}

fn samples(model: &Model, round: Round, options: &Options) -> Vec<Sample> {
    let given = |(name, inputs): (String, Tensors)| Sample { name, kind: Kind::Given, inputs };
    if !round.given.is_empty() {
        return round.given.into_iter().map(given).collect();
    }
    let seeded = |(index, &kind): (usize, &Kind)| {
        let seed = if kind == Kind::Structured { index.saturating_sub(2) as u64 } else { 0 };
        sample::sample(model, kind, options.seed + seed, round.batch)
    };
    round.kinds.iter().enumerate().map(seeded).collect()
}
