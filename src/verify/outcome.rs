//! What verifying came to, as the screen, the JSON and the HTML report say it.

use serde::Serialize;

use super::answer::Found;
use super::blocks::BlockMetrics;
use super::sample::Kind;
use crate::compare::{Finding, Verdict};
use crate::engine::EngineError;
use crate::onnx::DType;

/// The verdict on a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every output is as near as rounding explains, on every sample.
    Same,
    /// Rounding alone makes so much of a difference that nothing can be said of some output.
    Unclear,
    /// Some output is further away than rounding explains.
    Differs,
    /// The target did not compile or run the model.
    Broken,
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Same => Outcome::Same,
            Verdict::Unclear => Outcome::Unclear,
            Verdict::Differs => Outcome::Differs,
        }
    }
}

impl Outcome {
    /// As it is written: `same`, `differs`, ...
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Same => "same",
            Outcome::Unclear => "unclear",
            Outcome::Differs => "differs",
            Outcome::Broken => "broken",
        }
    }
}

/// A side of the comparison.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Side {
    /// What a reader calls it.
    pub name: String,
    /// The version of what computes, where it is known.
    pub version: String,
    /// Whether it only plays a target.
    pub simulated: bool,
}

/// A target that did not compile or run.
#[derive(Clone, Debug, Serialize)]
pub struct Breakage {
    /// `compile` or `run`.
    pub stage: String,
    /// The target's code, or how its process ended; null where there is none.
    pub code: Option<String>,
    /// What it said.
    pub message: String,
    /// The sample it broke on.
    pub sample: String,
}

impl Breakage {
    /// The breakage behind an engine's error.
    pub fn of(error: &EngineError, sample: &str) -> Self {
        let stage = match error {
            EngineError::Run { .. } | EngineError::Input { .. } => "run",
            _ => "compile",
        };
        Self {
            stage: stage.into(),
            code: error.code().map(str::to_string),
            message: error.to_string(),
            sample: sample.into(),
        }
    }
}

/// One output on one sample.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
    /// Whether the model itself gives this tensor, as against one inside of it.
    pub output: bool,
    /// The sizes.
    pub dims: Vec<i64>,
    /// Named parts of it, each measured on its own.
    pub blocks: Vec<BlockMetrics>,
}

/// One sample.
#[derive(Clone, Debug, Serialize)]
pub struct Sampled {
    /// What to call it.
    pub name: String,
    /// What it looks like.
    pub kind: Kind,
    /// The batch size, where the model's batch is free.
    pub batch: Option<i64>,
    /// The worst verdict of its outputs.
    pub verdict: Outcome,
    /// Seconds that the target took to run it, the first time.
    pub seconds: f64,
    /// The largest difference between two runs of the target on it, where it was run twice; 0 is a target that repeats
    /// itself.
    pub unrepeatable: Option<f64>,
    /// Output by output, in the model's order.
    pub outputs: Vec<Judged>,
    /// What is found in each batch element, where the outputs are a detector's raw predictions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Found>,
}

/// What verifying came to.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// The verdict.
    pub verdict: Outcome,
    /// The model's or bundle's name.
    pub model: String,
    /// Under judgement.
    pub target: Side,
    /// What it is held against.
    pub reference: Side,
    /// The element type whose rounding is allowed.
    pub dtype: DType,
    /// Why that type.
    pub dtype_reason: String,
    /// What decides where the two differ, or why nothing does; null where nothing differed.
    pub decided_by: Option<String>,
    /// How the target failed; null where it did not.
    pub broken: Option<Breakage>,
    /// The 16-bit type whose arithmetic was emulated for the bundle's parts, because the target has none; null otherwise.
    pub emulated: Option<DType>,
    /// Sizes that were chosen for the model.
    pub assumed: Vec<String>,
    /// Sample by sample.
    pub samples: Vec<Sampled>,
    /// The outcome in sentences.
    pub story: Vec<String>,
}

impl Verification {
    /// For every tensor the finding on the sample where it is worst, with that sample's name; in the model's order.
    pub fn worst(&self) -> Vec<(&Judged, &str)> {
        let mut list: Vec<(&Judged, &str)> = Vec::new();
        for sample in &self.samples {
            for judged in &sample.outputs {
                let worse =
                    |a: &Finding, b: &Finding| a.verdict > b.verdict || a.verdict == b.verdict && a.strain > b.strain;
                match list.iter_mut().find(|(other, _)| other.finding.name == judged.finding.name) {
                    Some(entry) if worse(&judged.finding, &entry.0.finding) => *entry = (judged, &sample.name),
                    Some(_) => {}
                    None => list.push((judged, &sample.name)),
                }
            }
        }
        list
    }
}
