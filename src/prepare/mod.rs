//! Prepare: from a model as its exporter wrote it to parts that a target takes, with every change on record.
//!
//! ```text
//! load -> inline functions -> freeze sizes -> infer shapes -> fold -> rewrite -> assess -> partition -> dtype -> parts
//! ```
//!
//! [`prepare`] makes the parts and the manifest and touches no file; [`check`] runs original and parts against each
//! other.

pub mod check;
mod lowering;
mod pipeline;
mod ranges;
pub mod report;
mod script;
mod share;
pub mod trial;

use crate::engine::{EngineError, Tensors};
use crate::graph::freeze::Freeze;
use crate::graph::{GraphError, Model};
use crate::lower::neuron::Finding;
use crate::lower::{LowerError, Lowered, Weights};
use crate::onnx::DType;
use crate::target::dtype::DtypeError;
use crate::target::{Head, TargetError};

pub use lowering::write_part;
pub use pipeline::prepare;

/// What the user chose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The kind of device; the target's own where none is named.
    pub device: Option<String>,
    /// The toolchain's version; the target's newest where none is named.
    pub toolchain: Option<String>,
    /// The model's variant, over what its metadata says.
    pub variant: Option<String>,
    /// The type to compute in, over the target's policy.
    pub dtype: Option<DType>,
    /// What becomes of the model's end that the target cannot run; the target's own choice where none is made.
    pub head: Option<Head>,
    /// Sizes to freeze.
    pub freeze: Freeze,
    /// Whether every applied rewrite is proven on its own shapes.
    pub prove: bool,
    /// Where the weights of a lowered part go.
    pub weights: Weights,
    /// What the bundle is tried and checked on; made up where there is nothing.
    pub samples: Vec<Tensors>,
}

/// A model made ready for a target.
pub struct Prepared {
    /// What was done; the check is not in it yet.
    pub manifest: crate::bundle::Manifest,
    /// A model for each part.
    pub parts: Vec<Model>,
    /// Each part as HLO, where its target's compiler takes that.
    pub lowered: Vec<Option<Lowered>>,
    /// The parts before their element types were lowered; empty where they were not.
    pub float32_parts: Vec<Model>,
    /// The model before any change, its sizes frozen: what the parts are compared with.
    pub original: Model,
    /// What the bundle is checked on; made up where there is nothing.
    pub samples: Vec<Tensors>,
    /// What the bundle gave on the first sample on the target's own engine, where it was run there.
    pub ran: Option<trial::Ran>,
    /// Files that go into the bundle besides models, manifest and report.
    pub files: Vec<crate::bundle::TextFile>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// The model's short name, `YOLO26l`, where it is known.
    pub title: Option<String>,
    /// How many nodes the model had.
    pub original_nodes: usize,
}

/// A model that cannot be prepared.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each is said by its source
pub enum PrepareError {
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Rewrite(#[from] crate::rewrite::ApplyError),
    #[error(
        "target {target} applies the rule '{rule}', which is not there or is broken; `porter rules list` shows the rules"
    )]
    NoRule { target: String, rule: String },
    #[error(
        "rule {rule} changed what {nodes} compute: the largest difference is {max_abs:e}. This is a fault of the rule; leave it out of the target's `rewrites`"
    )]
    Disproved { rule: String, nodes: String, max_abs: f64 },
    #[error(
        "rule {rule} changed what {nodes} compute: {why}. This is a fault of the rule; leave it out of the target's `rewrites`"
    )]
    Misshapen { rule: String, nodes: String, why: String },
    #[error("rule {rule} cannot say which nodes it sends to the host: {error}")]
    Moves { rule: String, error: crate::rewrite::MatcherError },
    #[error(transparent)]
    Dtype(#[from] DtypeError),
    #[error(transparent)]
    Lower(#[from] LowerError),
    #[error("part '{part}' would not compile: {finding}")]
    WouldNotCompile { part: String, finding: Box<Finding> },
    #[error(transparent)]
    Engine(#[from] EngineError),
}
