//! Targets that cannot be reached.

use crate::engine::EngineError;
use crate::target::TargetError;

/// A target that cannot be reached.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum ReachError {
    #[error("--target {text}: {problem}")]
    Spec { text: String, problem: String },
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("{target} cannot be run from here")]
    NoEngine { target: String },
}
