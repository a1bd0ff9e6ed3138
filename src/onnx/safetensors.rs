//! Safetensors files: tensors by name behind one JSON header, read and written.
//!
//! Read, a tensor is a view into the file's bytes. Those of a user's file may be mapped; those of a file that another
//! process may still write into are better read, since a map of a file that shrinks ends the process.

use std::borrow::Cow;
use std::path::Path;

use bytes::Bytes;
use indexmap::IndexMap;
use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensors, View};

use super::{DType, Tensor};

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

/// Writes tensors to a safetensors file, which is not there if one of them cannot be written.
///
/// # Errors
/// A tensor of a type that the format does not have (strings, numbers of less than a byte, complex128), or a full disk.
pub fn write<'a>(path: &Path, tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<(), TensorFileError> {
    Ok(safetensors::serialize_to_file(raws(tensors)?, None, path)?)
}

/// The bytes of a safetensors file with these tensors.
///
/// # Errors
/// A tensor of a type that the format does not have (strings, numbers of less than a byte, complex128).
pub fn encode<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<Vec<u8>, TensorFileError> {
    Ok(safetensors::serialize(raws(tensors)?, None)?)
}

fn raws<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<Vec<(String, Raw)>, TensorFileError> {
    tensors.into_iter().map(|(name, tensor)| Ok((name.to_string(), raw(name, tensor)?))).collect()
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

/// Reads every tensor of a safetensors file, in the order in which they lie there.
///
/// # Errors
/// As [`decode`], and the file is not there.
pub fn read(path: &Path) -> Result<IndexMap<String, Tensor>, TensorFileError> {
    decode(&Bytes::from(std::fs::read(path)?))
}

/// Every tensor in a safetensors file's bytes, as views of them, in the order in which they lie there.
///
/// # Errors
/// The bytes are no such file, are cut short, or hold a type that ONNX does not have.
pub fn decode(bytes: &Bytes) -> Result<IndexMap<String, Tensor>, TensorFileError> {
    decode_some(bytes, |_| true)
}

/// As [`decode`], but only the tensors whose names are wanted.
///
/// # Errors
/// As [`decode`].
pub fn decode_some(bytes: &Bytes, wanted: impl Fn(&str) -> bool) -> Result<IndexMap<String, Tensor>, TensorFileError> {
    let (length, header) = SafeTensors::read_metadata(bytes)?;
    let values = bytes.slice(size_of::<u64>() + length..);
    let mut tensors = IndexMap::new();
    for name in header.offset_keys() {
        let Some(info) = header.info(&name).filter(|_| wanted(&name)) else { continue };
        let (begin, end) = info.data_offsets; // within the bytes, or the header had been refused
        let tensor = Tensor::new(&name, dtype(&name, info)?, &dims(info), values.slice(begin..end));
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// Names, types and sizes of the tensors in a safetensors file's bytes, of which only the header is looked at.
///
/// # Errors
/// As [`decode`].
pub fn entries(bytes: &Bytes) -> Result<Vec<(String, DType, Vec<i64>)>, TensorFileError> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let infos = header.offset_keys().into_iter().filter_map(|name| Some((header.info(&name)?, name.clone())));
    infos
        .map(|(info, name)| {
            let dtype = dtype(&name, info)?;
            Ok((name, dtype, dims(info)))
        })
        .collect()
}

fn dtype(name: &str, info: &TensorInfo) -> Result<DType, TensorFileError> {
    let known = TYPES.iter().find(|(_, known)| *known == info.dtype);
    known.map(|(dtype, _)| *dtype).ok_or_else(|| TensorFileError::Tensor {
        name: name.into(),
        problem: format!("is {}, which ONNX does not have", info.dtype),
    })
}

fn dims(info: &TensorInfo) -> Vec<i64> {
    info.shape.iter().map(|&size| size as i64).collect()
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
        let bytes = Bytes::from(std::fs::read(&path).unwrap());
        let listed = entries(&bytes).unwrap();
        assert_eq!(listed.len(), tensors.len());
        for tensor in &tensors {
            assert_eq!(&back[tensor.name()], tensor);
            let one = decode_some(&bytes, |name| name == tensor.name()).unwrap();
            assert_eq!(one.values().collect::<Vec<_>>(), [tensor]);
            assert!(listed.contains(&(tensor.name().to_string(), tensor.dtype(), tensor.dims().to_vec())));
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
