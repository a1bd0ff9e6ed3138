//! Finding the nodes at fault: where a target gives something else than the reference, or fails, and proof of it.
//!
//! [`bisect`] takes a model, a reference and a target and reports every fault that it finds, or that there is none. How
//! it searches is told in [`search`]; what it tries is a [probe](probe), of [pieces](pieces) of the [subject](subject) fed
//! with what the [reference](reference) computes, [judged](judge) by measured noise.

pub mod evidence;
pub mod groups;
pub mod heal;
pub mod html;
mod job;
pub mod judge;
mod memory;
pub mod nearby;
pub mod outcome;
pub mod pieces;
pub mod prepared;
pub mod probe;
pub mod question;
pub mod reduce;
pub mod reference;
mod regions;
pub mod report;
pub mod repro;
pub mod search;
pub mod subject;
pub mod sweep;
mod whole;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::engine::{Engine, EngineError, Tensors};
use crate::fingerprint::{self, Evidence, Shape};
use crate::graph::freeze::Freeze;
use crate::graph::{GraphError, Model, NodeId};
use crate::inspect::scope_of;
use crate::target::{Target, assess};
use probe::{Lab, Limits, Stop};
use reference::Reference;
use report::{Fault, FaultMetrics, Kind, Layer, Report, Verdict};
use search::{Findings, Found};
use subject::Subject;

/// How to search.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sizes to freeze.
    pub sizes: Freeze,
    /// Sets of inputs from outside; made up where there are none.
    pub inputs: Vec<Tensors>,
    /// How many sets to make up. At batch sizes after the first one is enough: its elements differ.
    pub samples: usize,
    /// Batch sizes to try where the model leaves the batch free and nothing was said about it.
    pub batches: Vec<i64>,
    /// Probes at a time.
    pub jobs: usize,
    /// The most compiles on the target.
    pub max_probes: Option<usize>,
    /// The longest that the search may take.
    pub time_limit: Option<Duration>,
    /// Where answers to probes are kept.
    pub cache: Option<PathBuf>,
    /// Whether answers from before are taken.
    pub recall: bool,
    /// Bytes that the reference's values may take at a time; chosen by the model's size where it is not set.
    pub memory: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sizes: Freeze::default(),
            inputs: Vec::new(),
            samples: 2,
            batches: vec![1, 2, 4],
            jobs: 1,
            max_probes: None,
            time_limit: None,
            cache: None,
            recall: true,
            memory: None,
        }
    }
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum BisectError {
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A target as bisect needs it.
pub struct Suspect<'a> {
    /// Runs models there.
    pub engine: &'a dyn Engine,
    /// What to call it.
    pub label: String,
    /// Whether it is only played.
    pub simulated: bool,
    /// What is known of it.
    pub target: Option<&'a Target>,
    /// What it rounds to and approximates is no fault.
    pub precision: judge::Precision,
}

/// A fault with what shows it.
pub struct Proof {
    /// The index of the fault in the report.
    pub fault: usize,
    /// The cut, and its runs; none for a failure, whose cut is in `model`.
    pub evidence: Option<Evidence>,
    /// The cut.
    pub model: Model,
    /// Inputs of the cut.
    pub inputs: Vec<Tensors>,
    /// What the reference gives for them.
    pub expected: Vec<Tensors>,
    /// The nodes around it, for a drawing.
    pub nearby: nearby::Nearby,
}

/// Searches a model for faults of a target. `step` hears what is being done.
///
/// # Errors
/// A model that makes no sense, a reference that does not run it, or a target that is not there.
pub fn bisect(
    model: &Model,
    file: &str,
    reference: &dyn Engine,
    suspect: &Suspect,
    options: &Options,
    step: &dyn Fn(&str),
) -> Result<(Report, Vec<Proof>), BisectError> {
    let started = Instant::now();
    let limits = Limits {
        jobs: options.jobs,
        max_probes: options.max_probes,
        time_limit: options.time_limit,
        cache: options.cache.clone(),
        recall: options.recall,
    };
    let mut report = Report {
        verdict: Verdict::Healthy,
        model: file.into(),
        target: suspect.label.clone(),
        target_spec: String::new(),
        simulated: suspect.simulated,
        target_version: suspect.engine.version(),
        rounds: suspect.precision.rounds,
        reference: reference.name(),
        reference_version: reference.version(),
        samples: 0,
        batches: Vec::new(),
        nodes: 0,
        faults: Vec::new(),
        layers: Vec::new(),
        not_tested: Vec::new(),
        notes: Vec::new(),
        stopped: None,
        overlay: None,
        probes: Default::default(),
    };
    let free = searches_batches(model, options);
    let batches: Vec<Option<i64>> = match free {
        true => options.batches.iter().copied().map(Some).collect(),
        false => vec![options.sizes.batch],
    };
    let mut proofs: Vec<Proof> = Vec::new();
    let mut unexplained = None;
    for (turn, batch) in batches.into_iter().enumerate() {
        let sizes = Freeze { batch, ..options.sizes.clone() };
        let count = if turn == 0 { options.samples } else { 1 };
        let subject = match Subject::new(model.clone(), &sizes, &options.inputs, count) {
            Ok(subject) => subject,
            Err(error) if free && batch != Some(1) => {
                // Some models take one batch only, whatever their input says.
                report.notes.push(format!("batch {} cannot be tried: {error}", batch.unwrap_or_default()));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let said = batch.filter(|_| free);
        let step = |what: &str| match said {
            Some(batch) => step(&format!("batch {batch}: {what}")),
            None => step(what),
        };
        let values = Reference::new(reference, &subject, budget(&subject, options));
        let mut lab = Lab::new(&subject, values, suspect.engine, &limits, started, &suspect.precision);
        lab.counts.compiles = report.probes.compiles;
        let before = report.probes.compiles;
        let hints = |code: &str| known_to_fail(&subject, suspect.target, code);
        let mut findings = search::search(&mut lab, &hints, &step);
        let place: HashMap<NodeId, usize> =
            subject.model.graph.nodes().enumerate().map(|(place, (id, _))| (id, place)).collect();
        findings.faults.sort_by_key(|found| found.nodes.first().and_then(|id| place.get(id).copied()));
        if let Some(Stop::Engine(error)) = &findings.stopped {
            if free && batch != Some(1) {
                report.notes.push(format!("batch {} cannot be tried: {error}", batch.unwrap_or_default()));
                continue;
            }
            return Err(error.clone().into());
        }
        step("proof");
        let first = report.layers.is_empty();
        let stopped = findings.stopped.clone();
        let feeds = evidence::feed(&mut lab, &findings.faults)?;
        for (found, fed) in findings.faults.iter().zip(&feeds) {
            let (fault, proof) = describe(&mut lab, found, fed, suspect, report.faults.len());
            merge(&mut report, &mut proofs, fault, proof, batch.filter(|_| free));
        }
        if first || !findings.faults.is_empty() {
            report.layers = layers(&subject, &findings);
        }
        report.samples = report.samples.max(subject.samples.len());
        report.nodes = report.nodes.max(subject.atoms.iter().flatten().count());
        report.batches.extend(said);
        for entry in subject.skipped.iter().chain(&findings.refused) {
            if !report.not_tested.contains(entry) {
                report.not_tested.push(entry.clone());
            }
        }
        if let (true, Some(one)) = (first, subject.folded.first()) {
            let count = subject.folded.len();
            let told = if count == 1 { one.clone() } else { format!("{count} nodes ({one}, ...)") };
            report
                .notes
                .push(format!("{told} computed constants alone: folded before the target saw them, not tested"));
        }
        report.notes.extend(findings.notes);
        unexplained = unexplained.or(findings.unexplained);
        lab.counts.compiles -= before;
        report.probes.add(&lab.counts, lab.reference.compiles);
        if let Some(stop) = stopped {
            report.stopped = Some(stop.to_string());
            break;
        }
    }
    if let Some(why) = &unexplained {
        report.notes.push(format!("the end differs ({why}) and no region of the model does on its own"));
    }
    let untried = report.faults.is_empty() && report.probes.runs + report.probes.cached == 0;
    if untried && report.stopped.is_none() {
        report.notes.push("no node ran on the target, so nothing can be said of it".into());
    }
    let moving = |fault: &Fault| fault.fingerprint == Some(Shape::Nondeterministic);
    report.verdict = if !report.faults.is_empty() {
        if report.faults.iter().all(moving) { Verdict::Nondeterministic } else { Verdict::Faulty }
    } else if report.stopped.is_some() || unexplained.is_some() || untried {
        Verdict::Inconclusive
    } else {
        Verdict::Healthy
    };
    report.probes.seconds = started.elapsed().as_secs_f64();
    Ok((report, proofs))
}

/// Whether several batch sizes are tried: whoever gives sizes or inputs has chosen the batch.
fn searches_batches(model: &Model, options: &Options) -> bool {
    let chosen = options.sizes.batch.is_some() || !options.sizes.shapes.is_empty() || !options.inputs.is_empty();
    subject::batch_is_free(model) && !chosen && !options.batches.is_empty()
}

/// Never less than this for the reference's values: it is little beside what engines take for themselves.
const LEAST_ROOM: usize = 96 << 20;

/// Room for the reference's values on one sample: half of the weights, or the largest atom, or what is little anyway. The
/// target's results take as much again, and noise is measured in thirds of it.
fn budget(subject: &Subject, options: &Options) -> usize {
    let own = |atom: &Vec<NodeId>| subject.makes(atom).iter().map(|&value| subject.bytes(value)).sum::<usize>();
    let largest = subject.atoms.iter().map(own).max().unwrap_or(0);
    options.memory.unwrap_or_else(|| (subject.weights() / 2).max(largest).max(LEAST_ROOM))
}

/// Nodes that the target file knows to fail with a code.
fn known_to_fail(subject: &Subject, target: Option<&Target>, code: &str) -> Vec<NodeId> {
    let Some(target) = target else { return Vec::new() };
    let Ok(setting) = target.setting(None, None) else { return Vec::new() };
    let assessment = assess(&subject.model, target, &setting);
    let mut nodes: Vec<NodeId> =
        assessment.refused().filter(|(_, refusal)| refusal.code.as_deref() == Some(code)).map(|(id, _)| id).collect();
    let crash = code.strip_prefix("exit:").map(|number| format!("exit {number}"));
    for hit in &assessment.quirks {
        let codes = hit.symptom.code.as_deref().unwrap_or_default();
        let dies = crash.is_some() && hit.symptom.crash == crash;
        if codes.split(", ").any(|own| own == code) || dies {
            nodes.extend(&hit.ids);
        }
    }
    nodes
}

/// Cuts a fault out, runs the cut alone, and names what is seen.
fn describe(lab: &mut Lab, found: &Found, fed: &evidence::Feeds, suspect: &Suspect, index: usize) -> (Fault, Proof) {
    let subject = lab.subject;
    let graph = &subject.model.graph;
    let named: Vec<String> = found.nodes.iter().map(|&id| subject.label(id)).collect();
    let wrong: Vec<_> = found.seen.iter().filter_map(|seen| Some((seen, seen.wrong.as_ref()?))).collect();
    let worst = wrong.iter().max_by(|a, b| a.1.strain.total_cmp(&b.1.strain));
    let nan = wrong.iter().any(|(_, wrong)| wrong.nan);
    let kind = match &found.failure {
        Some(failure) if failure.kind == "crash" => Kind::Crash,
        Some(failure) if failure.kind == "timeout" => Kind::Timeout,
        Some(_) => Kind::CompileError,
        None if nan => Kind::Nan,
        None => Kind::WrongValues,
    };
    let mut batch_elements: Vec<usize> = wrong.iter().flat_map(|(_, wrong)| wrong.batch_elements.clone()).collect();
    batch_elements.sort_unstable();
    batch_elements.dedup();
    let proof = evidence::gather(lab, found, fed, index);
    let shown = proof.evidence.as_ref();
    let fingerprint = shown.and_then(|evidence| fingerprint::name(evidence, lab.reference.engine()));
    let confirmed = match &found.failure {
        Some(failure) => evidence::fails_alike(lab, found, failure),
        None => shown.is_some_and(|evidence| !evidence.outputs.is_empty()),
    };
    let fault = Fault {
        operators: found.nodes.iter().map(|&id| graph.node(id).op_type.clone()).collect(),
        layer: found.nodes.first().map(|&id| scope_of(graph.node(id))).unwrap_or_default(),
        nodes: named,
        kind,
        code: found.failure.as_ref().and_then(|failure| failure.code.clone()),
        fingerprint,
        confirmed,
        metrics: worst.map(|(_, wrong)| FaultMetrics {
            cosine: wrong.cosine,
            worst_cosine: wrong.worst_cosine,
            max_abs: wrong.max_abs,
            expected: wrong.expected,
        }),
        batch_elements,
        batches: Vec::new(),
        outputs: wrong.iter().map(|(seen, _)| seen.value.clone()).collect(),
        quirk: quirk_of(subject, found, suspect.target, kind, fingerprint),
        rewrite: None,
        repro: None,
        fused: found.fused,
        vanishes_when_observed: found.vanishes,
        from_exact: worst.and_then(|(_, wrong)| wrong.from_exact),
        reason: match (&found.failure, worst) {
            (Some(failure), _) => failure.message.clone(),
            (None, Some((seen, wrong))) => format!("{}: {}", seen.value, wrong.reason),
            (None, None) => String::new(),
        },
    };
    (fault, proof)
}

/// The known fault that this is: its pattern fits one of the nodes, and its symptom is what was seen.
fn quirk_of(
    subject: &Subject,
    found: &Found,
    target: Option<&Target>,
    kind: Kind,
    shape: Option<Shape>,
) -> Option<String> {
    let target = target?;
    let fits = |quirk: &&crate::target::Quirk| {
        let symptom = &quirk.symptom;
        let alike = match kind {
            Kind::WrongValues | Kind::Nan => match (&symptom.silent, shape) {
                (Some(silent), Some(shape)) => silent == shape.name() || silent == "unknown",
                (Some(silent), None) => silent == "unknown",
                (None, _) => false,
            },
            _ => {
                let code = found.failure.as_ref().and_then(|failure| failure.code.clone()).unwrap_or_default();
                let coded = symptom.code.as_deref().unwrap_or_default().split(", ").any(|own| own == code);
                let dies = symptom.crash.as_deref().map(|crash| crash.replace("exit ", "exit:"));
                coded && !code.is_empty() || dies.as_deref() == Some(&code)
            }
        };
        if !alike {
            return false;
        }
        let conditions: Vec<&str> = quirk.conditions.iter().collect();
        let Ok(matcher) = crate::rewrite::Matcher::parse_unchecked(quirk.pattern.trim_end(), &conditions) else {
            return false;
        };
        let matches = matcher.find(&subject.model.graph, subject.model.opset()).unwrap_or_default();
        matches.iter().any(|found_| found_.nodes.last().is_some_and(|last| found.nodes.contains(last)))
    };
    target.quirks.iter().find(fits).map(|quirk| quirk.id.clone())
}

/// Adds a fault, or the batch at which a known one was seen again.
fn merge(report: &mut Report, proofs: &mut Vec<Proof>, mut fault: Fault, mut proof: Proof, batch: Option<i64>) {
    let same = |other: &&mut Fault| other.nodes == fault.nodes && other.kind == fault.kind && other.code == fault.code;
    if let Some(known) = report.faults.iter_mut().find(same) {
        known.batches.extend(batch);
        known.batch_elements.extend(&fault.batch_elements);
        known.batch_elements.sort_unstable();
        known.batch_elements.dedup();
        known.fingerprint = known.fingerprint.or(fault.fingerprint);
        return;
    }
    fault.batches.extend(batch);
    proof.fault = report.faults.len();
    proofs.push(proof);
    report.faults.push(fault);
}

fn layers(subject: &Subject, findings: &Findings) -> Vec<Layer> {
    let mut faults: HashMap<usize, usize> = HashMap::new();
    for found in &findings.faults {
        for id in &found.nodes {
            if let Some(atom) = subject.atoms.iter().position(|atom| atom.contains(id)) {
                *faults.entry(subject.layer_of[atom]).or_default() += 1;
            }
        }
    }
    let layer = |(index, name): (usize, &String)| {
        let errors = findings.layers.get(index).cloned().unwrap_or_default();
        Layer {
            name: name.clone(),
            cumulative: errors.cumulative,
            isolated: errors.isolated,
            expected: errors.expected,
            faults: faults.get(&index).copied().unwrap_or(0),
        }
    };
    subject.layers.iter().enumerate().map(layer).collect()
}
