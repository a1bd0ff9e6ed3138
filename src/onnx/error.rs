//! What can be wrong with a model file, said once, with the file and the place.

use std::path::{Path, PathBuf};

/// A model that cannot be read or written. Every message names the file and, where there is one, the node or tensor.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct OnnxError {
    /// The file, as the user named it.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong, without the file's name.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum Problem {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Unwritten(std::io::Error),
    #[error("not an ONNX model: {0}")]
    NotOnnx(String),
    #[error("the file is cut short: at least {missing} more bytes must follow; was it copied whole?")]
    CutShort { missing: u64 },
    #[error("{0}; was the file copied whole?")]
    Incomplete(String),
    #[error("the file is damaged: {0}")]
    Damaged(String),
    #[error(
        "opset {found} of {domain} is not supported; porter reads opset {oldest} to {newest}. Convert the model with onnx.version_converter"
    )]
    Opset { domain: String, found: i64, oldest: i64, newest: i64 },
    #[error("tensor '{name}': {problem}")]
    Tensor { name: String, problem: super::TensorError },
    #[error("tensor '{name}': its data file '{location}' {problem}")]
    External { name: String, location: String, problem: String },
    #[error("{place}: {problem}")]
    Graph { place: String, problem: String },
}

impl Problem {
    /// The node or tensor at fault, where there is one.
    pub fn place(&self) -> Option<String> {
        match self {
            Problem::Tensor { name, .. } | Problem::External { name, .. } => Some(format!("tensor '{name}'")),
            Problem::Graph { place, .. } => Some(place.clone()),
            _ => None,
        }
    }

    /// The problem as an error of this file.
    pub fn in_file(self, file: &Path) -> OnnxError {
        OnnxError { file: file.to_path_buf(), problem: self }
    }
}
