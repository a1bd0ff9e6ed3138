//! What a search reports: the verdict, every fault with its proof, the layers, the counts.

use serde::Serialize;

use super::probe::Counts;
use crate::fingerprint::Shape;
use crate::onnx::DType;

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// At least one fault.
    Faulty,
    /// Everything was looked at and nothing was found.
    Healthy,
    /// The faults that were found give something else at each run.
    Nondeterministic,
    /// The search ended early, or the end differs and no region says why.
    Inconclusive,
}

/// The kind of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Other values than the reference's.
    WrongValues,
    /// The compiler refuses.
    CompileError,
    /// A process ends.
    Crash,
    /// A process does not end.
    Timeout,
    /// NaN or infinite values.
    Nan,
}

/// A fault.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    /// The smallest set of nodes that shows it, as the model names them.
    pub nodes: Vec<String>,
    /// Their operators.
    pub operators: Vec<String>,
    /// The scope around the first of them.
    pub layer: String,
    /// What kind of fault it is.
    pub kind: Kind,
    /// The target's code for a failure.
    pub code: Option<String>,
    /// What is wrong with the values, where that is known.
    pub fingerprint: Option<Shape>,
    /// Whether the nodes alone, cut out of the model, show it again.
    pub confirmed: bool,
    /// How far off; none for failures.
    pub metrics: Option<FaultMetrics>,
    /// The batch elements that are wrong; empty where there is one, or for failures.
    pub batch_elements: Vec<usize>,
    /// The batch sizes at which it was seen, where the model leaves the batch free.
    pub batches: Vec<i64>,
    /// The outputs that are wrong.
    pub outputs: Vec<String>,
    /// A known fault of a target that this is.
    pub quirk: Option<String>,
    /// The rule that answers it.
    pub rewrite: Option<String>,
    /// The folder that shows it.
    pub repro: Option<String>,
    /// Whether it shows only while these nodes stand together: a fault of fusion.
    pub fused: bool,
    /// Whether it is gone once the values between the nodes are shown.
    pub vanishes_when_observed: bool,
    /// The largest distance of the reference and of the target from float64, where float64 was asked who is right.
    pub from_exact: Option<(f64, f64)>,
    /// In words: what was seen.
    pub reason: String,
}

/// How far off the worst wrong output is.
#[derive(Clone, Debug, Serialize)]
pub struct FaultMetrics {
    /// Cosine of the whole output.
    pub cosine: f64,
    /// Cosine of the worst batch element and channel.
    pub worst_cosine: f64,
    /// The largest difference.
    pub max_abs: f64,
    /// The largest difference that noise explains.
    pub expected: f64,
}

/// A layer in the table.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Error at its end in the whole model, largest difference over largest magnitude; none where it was not seen.
    pub cumulative: Option<f64>,
    /// The same for its nodes on true inputs.
    pub isolated: Option<f64>,
    /// What noise explains.
    pub expected: Option<f64>,
    /// How many of its nodes are at fault.
    pub faults: usize,
}

/// Counts as they are reported.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Probes {
    /// Compiles on the target.
    pub compiles: usize,
    /// Runs on the target.
    pub runs: usize,
    /// Probes answered from the cache.
    pub cached: usize,
    /// Compiles of the reference.
    pub reference_compiles: usize,
    /// Seconds in all.
    pub seconds: f64,
}

impl Probes {
    /// Adds what a search counted.
    pub fn add(&mut self, counts: &Counts, reference_compiles: usize) {
        self.compiles += counts.compiles;
        self.runs += counts.runs;
        self.cached += counts.cached;
        self.reference_compiles += reference_compiles;
    }
}

/// The whole answer.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The answer in a word.
    pub verdict: Verdict,
    /// The model's file name.
    pub model: String,
    /// The target.
    pub target: String,
    /// What stands behind `--target`.
    #[serde(skip)]
    pub target_spec: String,
    /// Whether the target is only played.
    pub simulated: bool,
    /// The type whose rounding is no fault.
    pub rounds: DType,
    /// The version of what runs behind it, where it tells.
    pub target_version: String,
    /// The reference.
    pub reference: String,
    /// Its version.
    pub reference_version: String,
    /// How many sets of inputs were tried.
    pub samples: usize,
    /// The batch sizes that were tried; empty where the model fixes it.
    pub batches: Vec<i64>,
    /// Nodes that were looked at.
    pub nodes: usize,
    /// The faults, in the model's order.
    pub faults: Vec<Fault>,
    /// The layers.
    pub layers: Vec<Layer>,
    /// Nodes that the target says it does not have, or that cannot be compared, with the reason.
    pub not_tested: Vec<(String, String)>,
    /// Things worth knowing.
    pub notes: Vec<String>,
    /// Why the search ended early.
    pub stopped: Option<String>,
    /// The overlay that heals, where one was asked for and found.
    pub overlay: Option<String>,
    /// What was done.
    pub probes: Probes,
}

impl Report {
    /// What to write behind `--target` to reach the same one.
    pub fn target_argument(&self) -> &str {
        if self.target_spec.is_empty() { &self.target } else { &self.target_spec }
    }
}
