//! Judges what somebody else made of a model: any model, or a piece of one, on given inputs.
//!
//! The reference runs it as it is and with the noise of the element type (see [`noise`]). That settles most results. Where
//! it does not, more is measured, and only then, because it costs runs: louder noise where single elements moved at places
//! that were quiet, further draws and float64 where the result differs. All are measured once for all results.

use std::sync::OnceLock;

use crate::compare::{Expectation, Report, Verdict};
use crate::engine::double::Double;
use crate::engine::noise::{self, Noise};
use crate::engine::{Engine, EngineError, Tensors};
use crate::graph::Model;
use crate::onnx::DType;

/// Further float32 draws where a result differs: a tie that tips once in a few runs may not have tipped in the first two.
const MORE: std::ops::Range<usize> = 100..106;

/// What a model should give on some inputs, and how far from that anybody may be.
pub struct Judge<'a> {
    engine: &'a dyn Engine,
    model: &'a Model,
    inputs: &'a Tensors,
    expectation: Expectation,
    loud: OnceLock<Result<Vec<Tensors>, EngineError>>,
    more: OnceLock<Result<Vec<Tensors>, EngineError>>,
    exact: OnceLock<Result<Tensors, EngineError>>,
    precise: Option<&'a dyn Engine>,
    /// The model that rounds to a 16-bit type, where that is what is explained.
    lowered: Option<Model>,
}

impl<'a> Judge<'a> {
    /// Runs the model on the reference `engine`, plainly and with noise: `1 + noise.draws` runs, as many at a time as there
    /// are cores.
    ///
    /// # Errors
    /// The reference does not compile or run it.
    pub fn new(
        engine: &'a dyn Engine,
        model: &'a Model,
        inputs: &'a Tensors,
        noise: &Noise,
    ) -> Result<Self, EngineError> {
        let expectation = noise::measure(engine, model, inputs, noise)?;
        let lowered = noise::lowered(model, noise);
        Ok(Self { lowered, ..Self::with(engine, model, inputs, expectation) })
    }

    /// As [`Judge::new`], where the expectation was measured before.
    pub fn with(engine: &'a dyn Engine, model: &'a Model, inputs: &'a Tensors, expectation: Expectation) -> Self {
        let (loud, more, exact) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { engine, model, inputs, expectation, loud, more, exact, precise: None, lowered: None }
    }

    /// Another engine to ask for float64; porter's own is [`Double`].
    pub fn decided_by(mut self, engine: &'a dyn Engine) -> Self {
        self.precise = Some(engine);
        self
    }

    /// What the reference gives.
    pub fn reference(&self) -> &Tensors {
        &self.expectation.reference
    }

    /// What was measured, without what [`Judge::judge`] measures when it is needed.
    pub fn expectation(&self) -> &Expectation {
        &self.expectation
    }

    /// Judges a result: every output of the model must be there, and no further away than explained.
    pub fn judge(&self, result: &Tensors) -> Report {
        let report = self.expectation.judge(result);
        let lone = report.findings.iter().any(|finding| finding.lone > 0);
        let loud = self.expectation.dtype == DType::Float || self.lowered.is_some();
        if report.verdict != Verdict::Differs && !(lone && loud) {
            return report;
        }
        let mut expectation = self.expectation.clone();
        if lone
            && loud
            && let Ok(loud) = self.louder()
        {
            expectation.loud = loud.clone();
            expectation.loudness = noise::loudness(expectation.dtype);
        }
        let mut report = expectation.judge(result);
        if report.verdict != Verdict::Differs || !report.findings.iter().any(is_doubtful) {
            return report;
        }
        if self.expectation.dtype == DType::Float
            && let Ok(more) = self.more()
        {
            expectation.draws.extend(more.iter().cloned());
            report = expectation.judge(result);
            if report.verdict != Verdict::Differs {
                return report;
            }
        }
        let Ok(exact) = self.exact() else { return report };
        expectation.exact = Some(exact.clone());
        expectation.judge(result)
    }

    /// What the model gives in float64, or why that cannot be had.
    ///
    /// # Errors
    /// The engine for float64 does not take the model.
    pub fn exact(&self) -> Result<&Tensors, &EngineError> {
        let engine = self.precise.unwrap_or(&Double);
        self.exact.get_or_init(|| engine.run_once(self.model, self.inputs)).as_ref()
    }

    fn more(&self) -> Result<&Vec<Tensors>, &EngineError> {
        let noise = Noise::float32();
        let run = || MORE.map(|index| noise::draw(self.engine, self.model, self.inputs, &noise, index)).collect();
        self.more.get_or_init(run).as_ref()
    }

    fn louder(&self) -> Result<&Vec<Tensors>, &EngineError> {
        let model = self.lowered.as_ref().unwrap_or(self.model);
        let run = || noise::louder_in(self.engine, model, self.inputs, self.expectation.dtype);
        self.loud.get_or_init(run).as_ref()
    }
}

/// Whether float64 could change the verdict: not where a tensor is missing, or has other sizes.
fn is_doubtful(finding: &crate::compare::Finding) -> bool {
    finding.verdict == Verdict::Differs && finding.metrics.is_some()
}
