//! What comes of a probe: values that are right or wrong, or a failure. Kept in files, so that a search goes on where it stood.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::judge::{self, Judged};
use crate::compare::Metrics;
use crate::engine::EngineError;

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

impl Seen {
    /// Notes what noise makes of the value, over its largest magnitude.
    pub(super) fn expect(&mut self, expected: f64) {
        let most = expected.max(self.expected.unwrap_or(judge::LEAST));
        self.expected = Some(most).filter(|most| most.is_finite());
    }
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
    /// The largest difference over the reference's largest magnitude; none where sizes differ.
    #[serde(default)]
    pub relative: Option<f64>,
}

impl Wrong {
    /// Whether another sample, off by `relative` of its largest magnitude, is as wrong as the one that was judged: then
    /// nothing new would come of judging it. Of a batch each element is to be told.
    pub(super) fn is_told_by(&self, relative: f64, batch: i64) -> bool {
        batch <= 1
            && !self.nan
            && relative.is_finite()
            && self.relative.is_some_and(|judged| (judged / 2.0..=judged * 2.0).contains(&relative))
    }
}

/// What came of a probe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// The target did not take it.
    Failed(Failure),
    /// It ran.
    Ran(Vec<Seen>),
}

/// Adds what was judged on a sample to what was seen before: the worse figures stay.
pub(super) fn note(seen: &mut Seen, judged: Judged, sample: usize, unstable: bool, batched: bool) {
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
        relative: judged.metrics.as_ref().map(|metrics| metrics.relative).filter(|relative| relative.is_finite()),
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

/// What was found before, if that is known.
pub(super) fn recall(path: &PathBuf) -> Option<Outcome> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Written beside and renamed, so that a kill leaves no half an answer; a cache that cannot be written is none.
pub(super) fn remember(path: &PathBuf, outcome: &Outcome) {
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
