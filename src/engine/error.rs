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
    /// The model was not compiled. `code` is what the target calls it (`NCC_EVRF029`), or how its process ended:
    /// `exit:70`, `signal:11`, `timeout`, `protocol`.
    #[error("{engine} did not compile the model: {}{problem}", coded(code))]
    Compile { engine: String, code: Option<String>, problem: String },
    /// The model was compiled and not run; `code` as above.
    #[error("{engine} did not run the model: {}{problem}", coded(code))]
    Run { engine: String, code: Option<String>, problem: String },
    #[error("{engine}: input '{input}' {problem}")]
    Input { engine: String, input: String, problem: String },
}

impl EngineError {
    /// The error's code, where the target gave one or its process died.
    pub fn code(&self) -> Option<&str> {
        match self {
            EngineError::Compile { code, .. } | EngineError::Run { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    /// Whether the machine lacks something, as against the model being at fault.
    pub fn is_absence(&self) -> bool {
        matches!(self, EngineError::Absent { .. })
    }
}

/// `NCC_EVRF029: `, or nothing.
fn coded(code: &Option<String>) -> String {
    code.as_ref().map(|code| format!("{code}: ")).unwrap_or_default()
}
