//! Weights beside a module that takes them as parameters: a safetensors file, keyed by the initializers' names.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use safetensors::{Dtype, View};

use crate::onnx::{DType, OnnxError, Problem, Tensor, write_with};

/// Writes weights to `path`, whole or not at all.
///
/// # Errors
/// The file cannot be written, or a weight is of a type that the format does not have.
pub fn write_weights(path: &Path, weights: &[(String, Arc<Tensor>)]) -> Result<(), OnnxError> {
    let views: Vec<(&str, Weight)> = weights.iter().map(|(name, tensor)| (name.as_str(), Weight(tensor))).collect();
    let bytes = safetensors::serialize(views, None)
        .map_err(|error| Problem::Io(std::io::Error::other(error.to_string())).in_file(path))?;
    write_with(path, |out| out.write_all(&bytes))
}

struct Weight<'a>(&'a Tensor);

impl View for Weight<'_> {
    fn dtype(&self) -> Dtype {
        match self.0.dtype() {
            DType::Float16 => Dtype::F16,
            DType::Bfloat16 => Dtype::BF16,
            DType::Double => Dtype::F64,
            _ => Dtype::F32, // separate weights are floats
        }
    }

    fn shape(&self) -> &[usize] {
        // The dims of a tensor that was read are not negative, and a usize is as wide as an i64 wherever one fits.
        bytemuck::cast_slice(self.0.dims())
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.0.to_bytes().map(|bytes| bytes.to_vec()).unwrap_or_default())
    }

    fn data_len(&self) -> usize {
        self.0.dtype().byte_len(self.0.len()).unwrap_or(0)
    }
}
