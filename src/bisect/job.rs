//! One probe on its way: compiled, run sample by sample, every output looked at and, where it is off, judged.

use std::collections::HashMap;
use std::path::PathBuf;

use super::judge::{self, Precision};
use super::outcome::{Failure, Seen, note};
use super::pieces::{self, Assembly};
use super::probe::Stop;
use super::question::{Question, Turns};
use super::reference::Reference;
use crate::engine::{Engine, EngineError, Session, Tensors};
use crate::graph::ValueId;
use crate::onnx::Tensor;

/// A probe on its way.
pub(super) struct Job {
    pub(super) slot: usize,
    pub(super) assembly: Assembly,
    pub(super) key: Option<PathBuf>,
    pub(super) question: Question,
    pub(super) session: Option<Box<dyn Session>>,
    pub(super) failure: Option<Failure>,
    pub(super) seen: Vec<Seen>,
    /// What each output was in the turn before, as a hash.
    pub(super) before: Vec<u64>,
    pub(super) runs: usize,
}

/// Whether a run is one of the two on the same inputs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    None,
    First,
    Second,
}

/// What bounds a judgement: room for it, and what counts as rounding.
#[derive(Clone, Copy)]
pub(super) struct Allowed<'a> {
    pub(super) room: usize,
    pub(super) precision: &'a Precision,
}

/// Keeps what stands around a wrong value: it is fed to the rest of the model, and is the proof.
pub(super) fn keep_faults(reference: &mut Reference, job: &Job, (inputs, expected): &Fed, sample: usize) {
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

/// What goes into an assembly, and what should come out.
pub type Fed = (Tensors, HashMap<ValueId, Tensor>);

impl Job {
    fn fail(&mut self, error: &EngineError) -> Result<(), Stop> {
        if error.is_absence() {
            return Err(Stop::Engine(error.clone()));
        }
        self.failure = Some(Failure::of(error));
        self.session = None;
        Ok(())
    }

    pub(super) fn compile(&mut self, target: &dyn Engine) -> Result<(), Stop> {
        match pieces::compile(target, &mut self.assembly.model) {
            Ok(session) => self.session = Some(session),
            Err(error) => self.fail(&error)?,
        }
        Ok(())
    }

    /// Runs once and looks at every output; what is off is held against noise at once, so that nothing is kept.
    pub(super) fn turn(
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
            let batch = expected.get(&self.assembly.outputs[index].1).and_then(|tensor| tensor.dims().first());
            let batch = batch.copied().unwrap_or(1);
            let own = &mut self.seen[index];
            own.relative = own.relative.filter(|_| look.relative.is_finite()).map(|most| most.max(look.relative));
            let moved = again && self.before[index] != *hash;
            // The second time only what changed says more than the first.
            if !look.nothing && (!again || moved) && self.question.turns != Turns::Look {
                match own.wrong.as_mut().filter(|wrong| !again && wrong.is_told_by(look.relative, batch)) {
                    Some(wrong) => {
                        wrong.samples.push(sample);
                        wrong.samples.sort_unstable();
                    }
                    None => suspects.push((index, moved)),
                }
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
                // What is only measured is held against one draw of the whole model: better once than in parts.
                if count > 0 && bytes > allowed.room && self.question.turns != Turns::Once {
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
        if self.question.turns == Turns::Once {
            for &(index, _) in suspects {
                let expected = judge::measure(&expectation, &self.assembly.outputs[index].0);
                self.seen[index].expect(expected);
            }
            return Ok(());
        }
        let missing = Tensor::from_f32("missing", &[0], &[]);
        let question = self.question;
        let judge_one = |&(index, moved): &(usize, bool)| {
            let name = &self.assembly.outputs[index].0;
            let result = outputs.get(name).unwrap_or(&missing);
            (index, moved, judge::judge(setting, &expectation, name, result, question.manner))
        };
        let judged: Vec<_> = {
            use rayon::prelude::*;
            suspects.par_iter().map(judge_one).collect()
        };
        for (index, moved, judged) in judged {
            let own = &mut self.seen[index];
            let scale = judged.metrics.as_ref().map_or(1.0, |metrics| metrics.scale.max(f64::MIN_POSITIVE));
            own.expect(judged.expected / scale);
            if judged.differs {
                let batched = expectation.reference.get(&self.assembly.outputs[index].0);
                let batched = batched.is_some_and(|tensor| tensor.dims().len() > 1 && tensor.dims()[0] > 1);
                note(own, judged, sample, moved, batched);
            }
        }
        Ok(())
    }
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
