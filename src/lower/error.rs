//! What cannot be lowered, with the node and the operator.

use crate::graph::GraphError;

/// A model that does not become HLO.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum LowerError {
    /// The operator, or this use of it, has no lowering.
    #[error("node '{node}' ({op_type}) is not lowered to HLO: {problem}")]
    Unsupported { node: String, op_type: String, problem: String },
    /// An input decides sizes or places, and is computed or given when the model runs.
    #[error(
        "node '{node}' ({op_type}) is not lowered to HLO: its input {index} ('{input}') must be a constant, since every size is compiled in"
    )]
    NotConstant { node: String, op_type: String, index: usize, input: String },
    /// A size that is not known.
    #[error("'{value}' has no fixed size ({found}); freeze it with --shape or --batch")]
    Dynamic { value: String, found: String },
    #[error("{0}")]
    Graph(#[from] GraphError),
}

/// Why one node cannot be lowered; its name is added by the caller.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Problem {
    Unsupported(String),
    NotConstant { index: usize },
    Dynamic { value: String, found: String },
}

impl From<&str> for Problem {
    fn from(problem: &str) -> Self {
        Problem::Unsupported(problem.into())
    }
}

impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Problem::Unsupported(problem)
    }
}
