//! How an engine can fail, in kinds that callers act on.

/// A model that an engine did not compile or run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum EngineError {
    /// The engine's library is not on this machine, or cannot be used.
    #[error("{engine} is not ready: {problem}. {fix}")]
    Absent { engine: String, problem: String, fix: String },
    /// An operator, or a type of tensor, that the engine does not have.
    #[error("{engine} cannot run node '{node}' ({op_type}): {problem}")]
    Unsupported { engine: String, node: String, op_type: String, problem: String },
    #[error("{engine} did not compile the model: {problem}")]
    Compile { engine: String, problem: String },
    #[error("{engine} did not run the model: {problem}")]
    Run { engine: String, problem: String },
    #[error("{engine}: input '{input}' {problem}")]
    Input { engine: String, input: String, problem: String },
}

impl EngineError {
    /// Whether the machine lacks something, as against the model being at fault.
    pub fn is_absence(&self) -> bool {
        matches!(self, EngineError::Absent { .. })
    }
}
