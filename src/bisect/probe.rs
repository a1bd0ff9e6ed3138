//! Probes: pieces of the subject, compiled and run on the target, held against the reference.
//!
//! A probe is named by its content: the model with its weights, the inputs, the pieces, the target and its version, the
//! reference and its version. What it found is kept in a file of that name, so that a search that was killed goes on where
//! it stood, and no two models ever share an answer.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::judge::{self, Judged, Manner, Precision};
use super::pieces::{self, Assembly, Piece};
use super::reference::Reference;
use super::subject::Subject;
use crate::compare::Metrics;
use crate::engine::{Engine, EngineError, Session, Tensors};
use crate::graph::ValueId;
use crate::onnx::{DType, Tensor};

/// Why a search ends before it is through.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Stop {
    /// A limit that the user set.
    #[error("{0}")]
    Limit(String),
    /// The reference does not run the model, or the target is not there.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// How a target failed to compile or run something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// `compile-error`, `crash`, `timeout`, or `unsupported` where the engine says that it has no such operator.
    pub kind: String,
    /// The target's code for it.
    pub code: Option<String>,
    /// The node that the engine itself names.
    pub node: Option<String>,
    /// Whether it had been compiled.
    pub running: bool,
    /// The engine's words.
    pub message: String,
}

impl Failure {
    pub(super) fn of(error: &EngineError) -> Self {
        let code = error.code().map(str::to_string);
        let kind = match code.as_deref() {
            Some("timeout") => "timeout",
            Some(code) if ["exit:", "signal:", "protocol"].iter().any(|start| code.starts_with(start)) => "crash",
            _ if matches!(error, EngineError::Unsupported { .. }) => "unsupported",
            _ => "compile-error",
        };
        let node = match error {
            EngineError::Unsupported { node, .. } => Some(node.clone()),
            _ => None,
        };
        let running = matches!(error, EngineError::Run { .. } | EngineError::Input { .. });
        Self { kind: kind.into(), code, node, running, message: error.to_string() }
    }

    /// Whether another failure is the same one.
    pub fn is_like(&self, other: &Failure) -> bool {
        self.kind == other.kind && self.code == other.code
    }
}

/// What was seen of one value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// The value's name in the subject.
    pub value: String,
    /// Which of the probe's pieces makes it.
    pub piece: usize,
    /// Largest difference over largest magnitude, the worst of the samples; none where NaNs or sizes tell them apart.
    pub relative: Option<f64>,
    /// What noise makes of that, where it was measured.
    pub expected: Option<f64>,
    /// Set where it is further off than noise explains.
    pub wrong: Option<Wrong>,
}

/// A value that is further off than noise explains: the worst sample's figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wrong {
    /// Why, in words.
    pub reason: String,
    /// Cosine of the whole, of the worst slice, largest difference, and the largest that noise made.
    pub cosine: f64,
    /// Cosine of the worst slice.
    pub worst_cosine: f64,
    /// Largest difference; infinite where sizes differ.
    pub max_abs: f64,
    /// The largest difference that noise made.
    pub expected: f64,
    /// How far off over how far it may be.
    pub strain: f64,
    /// Elements of the batch that are off.
    pub batch_elements: Vec<usize>,
    /// NaN or infinite where the reference is not.
    pub nan: bool,
    /// The samples on which it is off.
    pub samples: Vec<usize>,
    /// Whether another run on the same inputs gave something else.
    pub unstable: bool,
    /// The largest distance of the reference and of the target from float64, where that was asked.
    #[serde(default)]
    pub from_exact: Option<(f64, f64)>,
}

/// What came of a probe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// The target did not take it.
    Failed(Failure),
    /// It ran.
    Ran(Vec<Seen>),
}

/// Counts of what was done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Models that the target compiled, or failed to.
    pub compiles: usize,
    /// Runs on the target.
    pub runs: usize,
    /// Probes answered from the cache.
    pub cached: usize,
    /// Seconds in all.
    pub seconds: f64,
}

/// Limits and places.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Probes at a time.
    pub jobs: usize,
    /// The most target compiles.
    pub max_probes: Option<usize>,
    /// The longest that the search may take.
    pub time_limit: Option<Duration>,
    /// Where answers are kept; nowhere, if not set.
    pub cache: Option<PathBuf>,
    /// Whether answers from before are taken.
    pub recall: bool,
}

/// Where probes are made.
pub struct Lab<'a> {
    /// The model under test.
    pub subject: &'a Subject,
    /// The reference's values.
    pub reference: Reference<'a>,
    /// The target.
    pub target: &'a dyn Engine,
    /// What was done so far.
    pub counts: Counts,
    limits: &'a Limits,
    started: Instant,
    /// Bytes that results may take while their noise is measured.
    room: usize,
    /// What the target's numbers may be off by.
    precision: &'a Precision,
}

/// A probe on its way.
struct Job {
    slot: usize,
    assembly: Assembly,
    key: Option<PathBuf>,
    question: Question,
    session: Option<Box<dyn Session>>,
    failure: Option<Failure>,
    seen: Vec<Seen>,
    /// What each output was in the turn before, as a hash.
    before: Vec<u64>,
    runs: usize,
}

/// Whether a run is one of the two on the same inputs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    None,
    First,
    Second,
}

/// What bounds a judgement: room for it, and what counts as rounding.
#[derive(Clone, Copy)]
struct Allowed<'a> {
    room: usize,
    precision: &'a Precision,
}

/// What a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// How outputs are held against the reference.
    pub manner: Manner,
    /// Which samples, and how often.
    pub turns: Turns,
}

/// Which samples a probe runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// Every one; where there is one, twice.
    Each,
    /// Every one, and the first once more.
    All,
    /// The first, once.
    First,
    /// The first, once; what is seen is measured and not judged.
    Once,
    /// The first, once; what is seen is looked at, and noise is not measured.
    Look,
}

/// Every sample; every element in its place. Whether runs agree is asked of the whole model, and of each fault's proof.
pub const PIECES: Question = Question { manner: Manner::Isolated, turns: Turns::Each };
/// The first sample; every element in its place. What is found is tried with [`PIECES`] before it is told.
pub const REGIONS: Question = Question { manner: Manner::Isolated, turns: Turns::First };
/// Every sample, and the first one twice; what the model's caller gets.
pub const WHOLE: Question = Question { manner: Manner::Whole, turns: Turns::All };
/// The first sample; what the model's caller gets once the faults that are known are fed from the reference.
pub const REST: Question = Question { manner: Manner::Whole, turns: Turns::First };
/// The first sample, layer by layer.
pub const LAYERS: Question = Question { manner: Manner::Whole, turns: Turns::Once };
/// The same, where what noise makes of the whole model is too much to measure.
pub const LARGE_LAYERS: Question = Question { manner: Manner::Whole, turns: Turns::Look };

impl<'a> Lab<'a> {
    /// A lab. `started` is when the search began, for its time limit; `precision` is the target's.
    pub fn new(
        subject: &'a Subject,
        reference: Reference<'a>,
        target: &'a dyn Engine,
        limits: &'a Limits,
        started: Instant,
        precision: &'a Precision,
    ) -> Self {
        let room = (reference.budget / 3).max(1 << 20);
        Self { subject, reference, target, counts: Counts::default(), limits, started, room, precision }
    }

    /// The type whose rounding the target may do.
    pub fn rounds(&self) -> DType {
        self.precision.rounds
    }

    /// How many probes may run at a time.
    pub fn jobs(&self) -> usize {
        self.limits.jobs.max(1)
    }

    /// Tries pieces in one graph.
    ///
    /// # Errors
    /// A limit is reached, or the reference fails.
    pub fn probe(&mut self, pieces: &[Piece], question: Question) -> Result<Outcome, Stop> {
        let mut all = self.probe_each(&[pieces.to_vec()], question)?;
        all.pop().ok_or_else(|| Stop::Limit("nothing was probed".into()))
    }

    /// Tries several graphs, as many at a time as there are jobs.
    ///
    /// # Errors
    /// As [`Lab::probe`].
    pub fn probe_each(&mut self, probes: &[Vec<Piece>], question: Question) -> Result<Vec<Outcome>, Stop> {
        let mut outcomes = Vec::with_capacity(probes.len());
        for wave in probes.chunks(self.jobs()) {
            let mut slots: Vec<Option<Outcome>> = Vec::new();
            let mut jobs: Vec<Job> = Vec::new();
            for pieces in wave {
                let key = self.key(pieces, question);
                if let Some(known) = key.as_ref().filter(|_| self.limits.recall).and_then(recall) {
                    self.counts.cached += 1;
                    slots.push(Some(known));
                    continue;
                }
                self.check_limits(jobs.len())?;
                jobs.push(self.prepare(slots.len(), pieces, key, question));
                slots.push(None);
            }
            self.carry_out(&mut jobs, question)?;
            for job in jobs {
                let outcome = match job.failure {
                    Some(failure) => Outcome::Failed(failure),
                    None => Outcome::Ran(job.seen),
                };
                self.counts.compiles += 1;
                self.counts.runs += job.runs;
                if let Some(path) = &job.key {
                    remember(path, &outcome);
                }
                slots[job.slot] = Some(outcome);
            }
            outcomes.extend(slots.into_iter().flatten());
        }
        Ok(outcomes)
    }

    /// Compiles the jobs, then runs them sample by sample, so that only one sample's values are in memory.
    fn carry_out(&mut self, jobs: &mut [Job], question: Question) -> Result<(), Stop> {
        let (reference, target) = (self.reference.engine(), self.target);
        let allowed = Allowed { room: self.room, precision: self.precision };
        // The whole model on the target is large enough without a stretch of the reference's beside it.
        let alone = question.manner == Manner::Whole && self.reference.stretches.len() > 1;
        if alone {
            self.reference.rest();
        }
        give_back();
        together(jobs, &|job| job.compile(target))?;
        give_back();
        // The first sample comes last: its values are at hand for what is asked next.
        let samples = self.subject.samples.len();
        let mut turns: Vec<usize> = match question.turns {
            Turns::First | Turns::Once | Turns::Look => vec![0],
            Turns::Each | Turns::All => (0..samples).rev().collect(),
        };
        // Runs on the same inputs that do not agree, and what a run leaves to the next one, show here.
        if question.turns == Turns::All || question.turns == Turns::Each && samples == 1 {
            turns.push(0);
        }
        for (turn, &sample) in turns.iter().enumerate() {
            let mut fed: Vec<Option<Fed>> = Vec::new();
            for job in jobs.iter() {
                fed.push(match job.failure {
                    None => Some(self.feed(&job.assembly, sample)?),
                    Some(_) => None,
                });
            }
            if alone {
                self.reference.rest();
            }
            let repeat = match turn {
                _ if turn > 0 && turns[turn - 1] == sample => Repeat::Second,
                _ if turns.get(turn + 1) == Some(&sample) => Repeat::First,
                _ => Repeat::None,
            };
            let mut pairs: Vec<(&mut Job, Option<Fed>)> = jobs.iter_mut().zip(fed).collect();
            together(&mut pairs, &|(job, fed)| match fed {
                Some(fed) => job.turn(reference, fed, sample, repeat, allowed),
                None => Ok(()),
            })?;
            for (job, fed) in &pairs {
                if let Some(fed) = fed {
                    keep_faults(&mut self.reference, job, fed, sample);
                }
            }
        }
        Ok(())
    }

    fn check_limits(&self, waiting: usize) -> Result<(), Stop> {
        if self.limits.max_probes.is_some_and(|most| self.counts.compiles + waiting >= most) {
            return Err(Stop::Limit(format!("the limit of {} probes is reached", self.counts.compiles + waiting)));
        }
        if self.limits.time_limit.is_some_and(|limit| self.started.elapsed() >= limit) {
            return Err(Stop::Limit("the time limit is reached".into()));
        }
        Ok(())
    }

    fn key(&self, pieces: &[Piece], question: Question) -> Option<PathBuf> {
        let folder = self.limits.cache.as_ref()?;
        let graph = &self.subject.model.graph;
        let mut hash = Sha256::new();
        let engine = self.reference.engine();
        for text in [
            env!("CARGO_PKG_VERSION"),
            &self.subject.digest,
            &self.target.name(),
            &self.target.version(),
            &engine.name(),
            &engine.version(),
            &format!("{question:?} {:?}", self.precision),
        ] {
            hash.update(text.as_bytes());
            hash.update([0]);
        }
        for piece in pieces {
            for &id in &piece.nodes {
                hash.update(graph.node(id).name.as_bytes());
                hash.update([1]);
            }
            for &value in &piece.shows {
                hash.update(graph.value(value).name.as_bytes());
                hash.update([2]);
            }
            hash.update([3]);
        }
        let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Some(folder.join(format!("{name}.json")))
    }

    fn prepare(&self, slot: usize, pieces: &[Piece], key: Option<PathBuf>, question: Question) -> Job {
        let assembly = pieces::assemble(&self.subject.model, pieces);
        let graph = &self.subject.model.graph;
        let seen = |(_, value, piece): &(String, ValueId, usize)| Seen {
            value: graph.value(*value).name.clone(),
            piece: *piece,
            relative: Some(0.0),
            expected: None,
            wrong: None,
        };
        let seen = assembly.outputs.iter().map(seen).collect();
        Job { slot, assembly, key, question, session: None, failure: None, seen, before: Vec::new(), runs: 0 }
    }

    /// What an assembly reads and what it should give, on one sample.
    ///
    /// # Errors
    /// The reference fails.
    pub fn feed(&mut self, assembly: &Assembly, sample: usize) -> Result<(Tensors, HashMap<ValueId, Tensor>), Stop> {
        let shown: Vec<ValueId> = assembly.outputs.iter().map(|(_, value, _)| *value).collect();
        let wanted: Vec<ValueId> = assembly.inputs.iter().map(|(_, value)| *value).chain(shown.clone()).collect();
        let values = self.reference.values(&wanted, sample)?;
        let inputs = assembly
            .inputs
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), values.get(value)?.clone().renamed(name.clone()))))
            .collect();
        let expected = shown.into_iter().filter_map(|value| Some((value, values.get(&value)?.clone()))).collect();
        Ok((inputs, expected))
    }
}

fn recall(path: &PathBuf) -> Option<Outcome> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Written beside and renamed, so that a kill leaves no half an answer; a cache that cannot be written is none.
fn remember(path: &PathBuf, outcome: &Outcome) {
    let Some(folder) = path.parent() else { return };
    let _ = std::fs::create_dir_all(folder);
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut file, &serde_json::to_vec(outcome)?)?;
        file.persist(path)?;
        Ok(())
    };
    let _ = write();
}

/// Keeps what stands around a wrong value: it is fed to the rest of the model, and is the proof.
fn keep_faults(reference: &mut Reference, job: &Job, (inputs, expected): &Fed, sample: usize) {
    let graph = &reference.subject().model.graph;
    let wrong = job.seen.iter().zip(&job.assembly.outputs).filter(|(seen, _)| seen.wrong.is_some());
    for maker in wrong.filter_map(|(_, (_, value, _))| graph.producer(*value)) {
        let node = graph.node(maker);
        node.writes().filter_map(|value| Some((value, expected.get(&value)?))).for_each(|(value, tensor)| {
            reference.keep(sample, value, tensor);
        });
        let read: Vec<ValueId> = node.reads().collect();
        for (name, value) in job.assembly.inputs.iter().filter(|(_, value)| read.contains(value)) {
            if let Some(tensor) = inputs.get(name) {
                reference.keep(sample, *value, tensor);
            }
        }
    }
}

/// Gives back to the system what sessions that are gone have used, and what was read of mapped files.
fn give_back() {
    crate::onnx::give_back();
    // SAFETY: it only gives back memory that nobody has.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What goes into an assembly, and what should come out.
pub type Fed = (Tensors, HashMap<ValueId, Tensor>);

/// Does the same to each, at the same time.
fn together<T: Send>(all: &mut [T], work: &(dyn Fn(&mut T) -> Result<(), Stop> + Sync)) -> Result<(), Stop> {
    if let [only] = all {
        return work(only);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = all.iter_mut().map(|one| scope.spawn(move || work(one))).collect();
        let mut outcome = Ok(());
        for thread in threads {
            let panicked = || EngineError::Run { engine: "a probe".into(), code: None, problem: "it panicked".into() };
            outcome = outcome.and(thread.join().unwrap_or_else(|_| Err(Stop::Engine(panicked()))));
        }
        outcome
    })
}

impl Job {
    fn fail(&mut self, error: &EngineError) -> Result<(), Stop> {
        if error.is_absence() {
            return Err(Stop::Engine(error.clone()));
        }
        self.failure = Some(Failure::of(error));
        self.session = None;
        Ok(())
    }

    fn compile(&mut self, target: &dyn Engine) -> Result<(), Stop> {
        match pieces::compile(target, &mut self.assembly.model) {
            Ok(session) => self.session = Some(session),
            Err(error) => self.fail(&error)?,
        }
        Ok(())
    }

    /// Runs once and looks at every output; what is off is held against noise at once, so that nothing is kept.
    fn turn(
        &mut self,
        reference: &dyn Engine,
        (inputs, expected): &Fed,
        sample: usize,
        repeat: Repeat,
        allowed: Allowed,
    ) -> Result<(), Stop> {
        let Some(session) = &mut self.session else { return Ok(()) };
        self.runs += 1;
        let outputs = match session.run(inputs) {
            Ok(outputs) => outputs,
            Err(error) => return self.fail(&error),
        };
        let again = repeat == Repeat::Second;
        let hash = |tensor: &Tensor| if repeat == Repeat::None { 0 } else { fingerprint(tensor) };
        let looks: Vec<(judge::Look, u64)> = {
            use rayon::prelude::*;
            let look = |(name, value, _): &(String, ValueId, usize)| match (outputs.get(name), expected.get(value)) {
                (Some(result), Some(expected)) => (judge::look(expected, result), hash(result)),
                (_, None) => (judge::Look { relative: 0.0, nothing: true }, 0),
                (None, _) => (judge::Look { relative: f64::INFINITY, nothing: false }, 0),
            };
            self.assembly.outputs.par_iter().map(look).collect()
        };
        let mut suspects = Vec::new();
        for (index, (look, hash)) in looks.iter().enumerate() {
            let own = &mut self.seen[index];
            own.relative = own.relative.filter(|_| look.relative.is_finite()).map(|most| most.max(look.relative));
            let moved = again && self.before[index] != *hash;
            // The second time only what changed says more than the first.
            if !look.nothing && (!again || moved) && self.question.turns != Turns::Look {
                suspects.push((index, moved));
            }
            if let Some(wrong) = own.wrong.as_mut().filter(|_| moved) {
                wrong.unstable = true;
            }
        }
        self.before = looks.iter().map(|(_, hash)| *hash).collect();
        // A part of the suspects at a time, so that their noise takes no more room than there is.
        let mut rest = suspects.as_slice();
        while !rest.is_empty() {
            let (mut count, mut bytes) = (0, 0);
            for &(index, _) in rest {
                let value = &self.assembly.outputs[index].1;
                bytes += expected.get(value).and_then(|t| t.dtype().byte_len(t.len())).unwrap_or(0);
                if count > 0 && bytes > allowed.room {
                    break;
                }
                count += 1;
            }
            let (now, later) = rest.split_at(count);
            self.judge(reference, (inputs, expected), &outputs, now, sample, allowed.precision)?;
            rest = later;
        }
        Ok(())
    }

    /// Measures the noise of what leads to the suspects, and judges them.
    fn judge(
        &mut self,
        reference: &dyn Engine,
        (inputs, expected): (&Tensors, &HashMap<ValueId, Tensor>),
        outputs: &Tensors,
        suspects: &[(usize, bool)],
        sample: usize,
        precision: &Precision,
    ) -> Result<(), Stop> {
        let wanted: Vec<ValueId> = suspects
            .iter()
            .filter_map(|(index, _)| self.assembly.model.graph.value_named(&self.assembly.outputs[*index].0))
            .collect();
        // Only what is needed is run again: the nodes behind the suspects.
        let mut small = judge::behind(&self.assembly.model, &wanted);
        let inputs = &judge::read_by(&small, inputs);
        let known = suspects.iter().filter_map(|(index, _)| {
            let (name, value, _) = &self.assembly.outputs[*index];
            Some((name.clone(), expected.get(value)?.clone()))
        });
        let known: Tensors = known.collect();
        // What is only measured needs no second draw.
        let draws = if self.question.turns == Turns::Once { 1 } else { 2 };
        let expectation = match judge::drawn(reference, &small, inputs, Some(known.clone()), precision, draws) {
            Ok(expectation) => expectation,
            Err(error) => {
                small = crate::engine::loose::loosened(&small).ok_or(error)?;
                judge::drawn(reference, &small, inputs, Some(known), precision, draws)?
            }
        };
        let setting = judge::Setting { engine: reference, model: &small, inputs };
        let missing = Tensor::from_f32("missing", &[0], &[]);
        let question = self.question;
        let judge_one = |&(index, moved): &(usize, bool)| {
            let name = &self.assembly.outputs[index].0;
            let result = outputs.get(name).unwrap_or(&missing);
            let judged = match question.turns {
                Turns::Once => judge::measure(&expectation, name, result),
                _ => judge::judge(setting, &expectation, name, result, question.manner),
            };
            (index, moved, judged)
        };
        let judged: Vec<_> = {
            use rayon::prelude::*;
            suspects.par_iter().map(judge_one).collect()
        };
        for (index, moved, judged) in judged {
            let own = &mut self.seen[index];
            let scale = judged.metrics.as_ref().map_or(1.0, |metrics| metrics.scale.max(f64::MIN_POSITIVE));
            let expected = (judged.expected / scale).max(own.expected.unwrap_or(judge::LEAST));
            own.expected = Some(expected).filter(|expected| expected.is_finite());
            if judged.differs {
                let batched = expectation.reference.get(&self.assembly.outputs[index].0);
                let batched = batched.is_some_and(|tensor| tensor.dims().len() > 1 && tensor.dims()[0] > 1);
                note(own, judged, sample, moved, batched);
            }
        }
        Ok(())
    }
}

fn note(seen: &mut Seen, judged: Judged, sample: usize, unstable: bool, batched: bool) {
    let figure = |read: fn(&Metrics) -> f64, other: f64| judged.metrics.as_ref().map_or(other, read);
    let finite = |x: f64| if x.is_finite() { x } else { f64::MAX };
    let nan = judged.metrics.as_ref().is_some_and(|metrics| metrics.non_finite > metrics.reference_non_finite);
    let mut wrong = Wrong {
        reason: judged.reason.clone(),
        cosine: figure(|m| m.cosine, 0.0),
        worst_cosine: figure(|m| m.worst_cosine, 0.0),
        max_abs: finite(figure(|m| m.max_abs, f64::MAX)),
        expected: finite(judged.expected),
        strain: finite(judged.strain),
        // Of a batch of one there is nothing to tell.
        batch_elements: judged.batch_elements.into_iter().filter(|_| batched).collect(),
        nan,
        samples: vec![sample],
        unstable,
        from_exact: judged.from_exact.map(|(reference, own)| (finite(reference), finite(own))),
    };
    if let Some(other) = seen.wrong.take() {
        let (mut worse, lesser) = if wrong.strain >= other.strain { (wrong, other) } else { (other, wrong) };
        worse
            .samples
            .extend(lesser.samples.iter().filter(|sample| !worse.samples.contains(sample)).collect::<Vec<_>>());
        worse.samples.sort_unstable();
        worse.batch_elements.extend(&lesser.batch_elements);
        worse.batch_elements.sort_unstable();
        worse.batch_elements.dedup();
        worse.nan |= lesser.nan;
        wrong = worse;
    }
    seen.wrong = Some(wrong);
}

/// FNV-1a over eight bytes at a time: to tell two runs' results apart, not to name them.
fn fingerprint(tensor: &Tensor) -> u64 {
    let bytes = tensor.to_bytes().unwrap_or_default();
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |word: [u8; 8]| {
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    };
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().for_each(|&word| add(word));
    let mut last = [0u8; 8];
    last[..rest.len()].copy_from_slice(rest);
    add(last);
    hash
}
