//! Weights beside a module that takes them as parameters: a safetensors file, keyed by the initializers' names.

use std::path::Path;
use std::sync::Arc;

use crate::onnx::{OnnxError, Problem, Tensor, safetensors, write_with};

/// Writes weights to `path`, whole or not at all.
///
/// # Errors
/// The file cannot be written, or a weight is of a type that the format does not have.
pub fn write_weights(path: &Path, weights: &[(String, Arc<Tensor>)]) -> Result<(), OnnxError> {
    let bytes = safetensors::encode(weights.iter().map(|(name, tensor)| (name.as_str(), tensor.as_ref())))
        .map_err(|error| Problem::Io(std::io::Error::other(error.to_string())).in_file(path))?;
    write_with(path, |out| out.write_all(&bytes))
}
