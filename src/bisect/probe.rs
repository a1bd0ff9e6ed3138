//! Probes: pieces of the subject, compiled and run on the target, held against the reference.
//!
//! A probe is named by its content: the model with its weights, the inputs, the pieces, the target and its version, the
//! reference and its version. What it found is kept in a file of that name, so that a search that was killed goes on where
//! it stood, and no two models ever share an answer.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::job::{Allowed, Fed, Job, Repeat, keep_faults};
use super::judge::{Manner, Precision};
use super::memory;
use super::outcome::{Outcome, Seen, recall, remember};
use super::pieces::{self, Assembly, Piece};
use super::question::{Question, Turns};
use super::reference::Reference;
use super::subject::Subject;
use crate::engine::{Engine, EngineError};
use crate::graph::ValueId;
use crate::onnx::DType;

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

/// Weights of as many bytes or more make a model large.
const LARGE: usize = 32 << 20;

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
    /// Whether memory is spared before time: what is free is given back at once, and the ends of layers are shown a few at a
    /// time and without their noise.
    pub(super) large: bool,
    /// What the target's numbers may be off by.
    precision: &'a Precision,
}

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
        let large = subject.weights() >= LARGE;
        if !large {
            memory::hold();
        }
        Self { subject, reference, target, counts: Counts::default(), limits, started, room, large, precision }
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
        if self.large {
            memory::give_back();
        }
        together(jobs, &|job| job.compile(target))?;
        if self.large {
            memory::give_back();
        }
        // The first sample comes last: its values are at hand for what is asked next.
        let samples = self.subject.samples.len();
        let mut turns: Vec<usize> = match question.turns {
            Turns::First | Turns::Once | Turns::Look => vec![0],
            Turns::Each | Turns::All => (0..samples).rev().collect(),
        };
        // Runs on the same inputs that do not agree, and what a run leaves to the next one, show here.
        let only = question.turns == Turns::Each && question.manner == Manner::Isolated && samples == 1;
        if question.turns == Turns::All || only {
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
    pub fn feed(&mut self, assembly: &Assembly, sample: usize) -> Result<Fed, Stop> {
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
