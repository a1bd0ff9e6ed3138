//! Named tensors to and from safetensors files.

use std::borrow::Cow;
use std::path::Path;

use bytes::Bytes;
use safetensors::{Dtype, SafeTensors, View};

use crate::engine::Tensors;
use crate::onnx::{DType, Tensor};

const TYPES: &[(DType, Dtype)] = &[
    (DType::Float, Dtype::F32),
    (DType::Double, Dtype::F64),
    (DType::Float16, Dtype::F16),
    (DType::Bfloat16, Dtype::BF16),
    (DType::Int8, Dtype::I8),
    (DType::Int16, Dtype::I16),
    (DType::Int32, Dtype::I32),
    (DType::Int64, Dtype::I64),
    (DType::Uint8, Dtype::U8),
    (DType::Uint16, Dtype::U16),
    (DType::Uint32, Dtype::U32),
    (DType::Uint64, Dtype::U64),
    (DType::Bool, Dtype::BOOL),
    (DType::Complex64, Dtype::C64),
    (DType::Float8E4M3FN, Dtype::F8_E4M3),
    (DType::Float8E4M3FNUZ, Dtype::F8_E4M3FNUZ),
    (DType::Float8E5M2, Dtype::F8_E5M2),
    (DType::Float8E5M2FNUZ, Dtype::F8_E5M2FNUZ),
    (DType::Float8E8M0, Dtype::F8_E8M0),
];

/// What cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum TensorFileError {
    #[error("'{name}' {problem}")]
    Tensor { name: String, problem: String },
    #[error("{0}")]
    Format(#[from] safetensors::SafeTensorError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

struct Raw {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl View for Raw {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes tensors to a safetensors file, whole or not at all.
///
/// # Errors
/// A tensor of a type that the format does not have (strings, numbers of less than a byte, complex128), or a full disk.
pub fn write<'a>(path: &Path, tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<(), TensorFileError> {
    let raw = tensors.into_iter().map(|(name, tensor)| Ok((name.to_string(), raw(name, tensor)?)));
    let raw: Vec<(String, Raw)> = raw.collect::<Result<_, TensorFileError>>()?;
    Ok(safetensors::serialize_to_file(raw, None, path)?)
}

fn raw(name: &str, tensor: &Tensor) -> Result<Raw, TensorFileError> {
    let wrong = |problem: String| TensorFileError::Tensor { name: name.into(), problem };
    tensor.check().map_err(|error| wrong(error.to_string()))?;
    let dtype = tensor.dtype();
    let known = TYPES.iter().find(|(known, _)| *known == dtype);
    let (_, known) = known.ok_or_else(|| wrong(format!("is {dtype}, which safetensors files do not have")))?;
    if name == "__metadata__" {
        return Err(wrong("has a name that safetensors files keep for themselves".into()));
    }
    let bytes = tensor.to_bytes().map_err(|error| wrong(error.to_string()))?;
    Ok(Raw { dtype: *known, shape: tensor.dims().iter().map(|&size| size as usize).collect(), bytes })
}

/// Reads every tensor of a safetensors file, in no particular order. The values are views into the file's bytes.
///
/// # Errors
/// The file is not there, is cut short, or has a type that ONNX does not.
pub fn read(path: &Path) -> Result<Tensors, TensorFileError> {
    let bytes = Bytes::from(std::fs::read(path)?);
    let file = SafeTensors::deserialize(&bytes)?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        let wrong = |problem: String| TensorFileError::Tensor { name: name.into(), problem };
        let known = TYPES.iter().find(|(_, known)| *known == view.dtype());
        let (dtype, _) = known.ok_or_else(|| wrong(format!("is {}, which ONNX does not have", view.dtype())))?;
        let dims: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        tensors.insert(name.to_string(), Tensor::new(name, *dtype, &dims, bytes.slice_ref(view.data())));
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_the_format_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let tensors: Vec<Tensor> = TYPES
            .iter()
            .flat_map(|(dtype, _)| {
                [&[][..], &[0], &[2, 3]].map(|dims: &[i64]| {
                    let count = dims.iter().product::<i64>() as usize * dtype.bits() / 8;
                    let bytes: Vec<u8> = (0..count).map(|i| (i % 2) as u8).collect();
                    Tensor::new(format!("{dtype} {dims:?}"), *dtype, dims, bytes)
                })
            })
            .collect();
        write(&path, tensors.iter().map(|tensor| (tensor.name(), tensor))).unwrap();
        let back = read(&path).unwrap();
        assert_eq!(back.len(), tensors.len());
        for tensor in &tensors {
            assert_eq!(&back[tensor.name()], tensor);
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let text = Tensor::new("s", DType::String, &[0], Vec::new());
        let text = Tensor { raw_data: None, ..text };
        let told = write(&path, [("s", &text)]).unwrap_err().to_string();
        assert_eq!(told, "'s' is string, which safetensors files do not have");
        assert!(!path.exists());
        std::fs::write(&path, b"\x08\0\0\0\0\0\0\0{}").unwrap();
        assert_eq!(read(&path).unwrap_err().to_string(), "invalid header length");
    }
}
