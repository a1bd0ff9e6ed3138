//! Reading and making tensors: [`Tensor`] is the file's own message, so that nothing is lost on the way through.

use bytes::Bytes;
use half::{bf16, f16};

use super::payload::Payload;
use super::proto::{StringStringEntryProto, TensorProto};
use super::{DType, fill};

/// A tensor, exactly as the file holds it.
pub type Tensor = TensorProto;

/// What can be wrong with a tensor. The caller knows the tensor's name and adds it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum TensorError {
    #[error("data type {0} is not one that ONNX defines")]
    UnknownType(i32),
    #[error("dimension {index} is {size}, which is negative")]
    NegativeDimension { index: usize, size: i64 },
    #[error("{dims:?} has more elements than this machine can address")]
    TooLarge { dims: Vec<i64> },
    #[error("{dims:?} of {dtype} takes {expected} bytes, but {found} are stored")]
    WrongLength { dtype: DType, dims: Vec<i64>, expected: usize, found: usize },
    #[error("{dims:?} has {expected} elements, but {found} are stored")]
    WrongCount { dims: Vec<i64>, expected: usize, found: usize },
    #[error("its values are strings, which cannot stand in raw_data or in another file")]
    StringBytes,
    #[error("{0}")]
    Fill(String),
    #[error("a {dtype} tensor cannot be read as {wanted}")]
    NotReadable { dtype: DType, wanted: &'static str },
    #[error("its values stand in another file, which was not loaded")]
    NotLoaded,
}

impl TensorProto {
    /// A tensor from little-endian row-major bytes. Dims and length are the caller's to match; [`Tensor::check`] tells.
    pub fn new(name: impl Into<String>, dtype: DType, dims: &[i64], bytes: impl Into<Bytes>) -> Self {
        Self {
            name: Some(name.into()),
            data_type: Some(dtype.number()),
            dims: dims.to_vec(),
            raw_data: Some(Payload::Bytes(bytes.into())),
            ..Default::default()
        }
    }

    /// A float32 tensor.
    pub fn from_f32(name: impl Into<String>, dims: &[i64], values: &[f32]) -> Self {
        Self::new(name, DType::Float, dims, values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// An int64 tensor.
    pub fn from_i64(name: impl Into<String>, dims: &[i64], values: &[i64]) -> Self {
        Self::new(name, DType::Int64, dims, values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// A tensor of any float, integer or bool type from float64 values, rounded (floats) or truncated (integers).
    /// `None` for other types.
    pub fn from_f64s(name: impl Into<String>, dtype: DType, dims: &[i64], values: &[f64]) -> Option<Self> {
        let bytes: Vec<u8> = match dtype {
            DType::Float => values.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
            DType::Double => values.iter().flat_map(|&x| x.to_le_bytes()).collect(),
            DType::Float16 => values.iter().flat_map(|&x| f16::from_f64(x).to_le_bytes()).collect(),
            DType::Bfloat16 => values.iter().flat_map(|&x| bf16::from_f64(x).to_le_bytes()).collect(),
            DType::Bool => values.iter().map(|&x| (x != 0.0) as u8).collect(),
            _ => return Self::from_i64s(name, dtype, dims, &values.iter().map(|&x| x as i64).collect::<Vec<_>>()),
        };
        Some(Self::new(name, dtype, dims, bytes))
    }

    /// A tensor of any float, integer or bool type from whole numbers; integers keep their low bits.
    /// `None` for other types.
    pub fn from_i64s(name: impl Into<String>, dtype: DType, dims: &[i64], values: &[i64]) -> Option<Self> {
        let bytes: Vec<u8> = match dtype {
            DType::Int64 | DType::Uint64 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::Int32 | DType::Uint32 => values.iter().flat_map(|&x| (x as i32).to_le_bytes()).collect(),
            DType::Int16 | DType::Uint16 => values.iter().flat_map(|&x| (x as i16).to_le_bytes()).collect(),
            DType::Int8 | DType::Uint8 => values.iter().map(|&x| x as u8).collect(),
            DType::Bool | DType::Float | DType::Double | DType::Float16 | DType::Bfloat16 => {
                return Self::from_f64s(name, dtype, dims, &values.iter().map(|&x| x as f64).collect::<Vec<_>>());
            }
            _ => return None,
        };
        Some(Self::new(name, dtype, dims, bytes))
    }

    /// The name; empty when there is none.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The element type; files with an unknown one are refused when read, so float is never a guess here.
    pub fn dtype(&self) -> DType {
        self.data_type.and_then(DType::from_number).unwrap_or(DType::Float)
    }

    /// The sizes.
    pub fn dims(&self) -> &[i64] {
        &self.dims
    }

    /// How many elements the dims give; 0 when they are nonsense.
    pub fn len(&self) -> usize {
        self.checked_len().unwrap_or(0)
    }

    /// Whether the dims give no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many elements the dims give, checked.
    pub fn checked_len(&self) -> Result<usize, TensorError> {
        let mut count = 1usize;
        for (index, &size) in self.dims.iter().enumerate() {
            let size = usize::try_from(size).map_err(|_| TensorError::NegativeDimension { index, size })?;
            count = count.checked_mul(size).ok_or_else(|| TensorError::TooLarge { dims: self.dims.clone() })?;
        }
        Ok(count)
    }

    /// Whether the stored values are as many as the dims say, of a type that exists.
    pub fn check(&self) -> Result<(), TensorError> {
        let number = self.data_type.unwrap_or(0);
        let dtype = DType::from_number(number).ok_or(TensorError::UnknownType(number))?;
        let count = self.checked_len()?;
        let too_large = || TensorError::TooLarge { dims: self.dims.clone() };
        if dtype == DType::String && self.raw_data.is_some() {
            return Err(TensorError::StringBytes);
        }
        if let Some(payload) = &self.raw_data {
            let expected = dtype.byte_len(count).ok_or_else(too_large)?;
            if payload.len() != expected {
                return Err(TensorError::WrongLength {
                    dtype,
                    dims: self.dims.clone(),
                    expected,
                    found: payload.len(),
                });
            }
            return Ok(());
        }
        if !self.external_data.is_empty() {
            return Ok(()); // the reader resolves and checks it
        }
        let (found, expected) = match dtype {
            DType::String => (self.string_data.len(), count),
            DType::Float => (self.float_data.len(), count),
            DType::Complex64 => (self.float_data.len(), count.checked_mul(2).ok_or_else(too_large)?),
            DType::Double => (self.double_data.len(), count),
            DType::Complex128 => (self.double_data.len(), count.checked_mul(2).ok_or_else(too_large)?),
            DType::Int64 => (self.int64_data.len(), count),
            DType::Uint32 | DType::Uint64 => (self.uint64_data.len(), count),
            _ if dtype.bits() < 8 => (self.int32_data.len(), dtype.byte_len(count).ok_or_else(too_large)?),
            _ => (self.int32_data.len(), count),
        };
        if found != expected {
            return Err(TensorError::WrongCount { dims: self.dims.clone(), expected, found });
        }
        Ok(())
    }

    /// The values as little-endian row-major bytes; free when they are a view into the file.
    pub fn to_bytes(&self) -> Result<Bytes, TensorError> {
        if let Some(payload) = &self.raw_data {
            return Ok(payload.to_bytes());
        }
        let dtype = self.dtype();
        if !self.external_data.is_empty() {
            return match fill::Fill::of(self, dtype, self.checked_len()?)? {
                Some(fill) => Ok(Payload::Fill(fill).to_bytes()),
                None => Err(TensorError::NotLoaded),
            };
        }
        Ok(match dtype {
            DType::String => return Err(TensorError::NotReadable { dtype, wanted: "bytes" }),
            DType::Float | DType::Complex64 => self.float_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::Double | DType::Complex128 => self.double_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::Int64 => self.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::Uint64 => self.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::Uint32 => self.uint64_data.iter().flat_map(|&x| (x as u32).to_le_bytes()).collect(),
            DType::Int32 => self.int32_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            _ if dtype.bits() == 16 => self.int32_data.iter().flat_map(|&x| (x as u16).to_le_bytes()).collect(),
            _ => self.int32_data.iter().map(|&x| x as u8).collect(),
        })
    }

    /// The values as float64, from any float, integer or bool type.
    pub fn to_f64s(&self) -> Result<Vec<f64>, TensorError> {
        let dtype = self.dtype();
        let bytes = match dtype {
            DType::String => return Err(TensorError::NotReadable { dtype, wanted: "numbers" }),
            _ => self.to_bytes()?,
        };
        Ok(match dtype {
            DType::Float => bytes.as_chunks().0.iter().map(|&e| f32::from_le_bytes(e) as f64).collect(),
            DType::Double => bytes.as_chunks().0.iter().map(|&e| f64::from_le_bytes(e)).collect(),
            DType::Float16 => bytes.as_chunks().0.iter().map(|&e| f16::from_le_bytes(e).to_f64()).collect(),
            DType::Bfloat16 => bytes.as_chunks().0.iter().map(|&e| bf16::from_le_bytes(e).to_f64()).collect(),
            DType::Uint64 => bytes.as_chunks().0.iter().map(|&e| u64::from_le_bytes(e) as f64).collect(),
            _ => self
                .integers(dtype, &bytes)
                .ok_or(TensorError::NotReadable { dtype, wanted: "numbers" })?
                .into_iter()
                .map(|x| x as f64)
                .collect(),
        })
    }

    /// The values as float32, from any float, integer or bool type.
    pub fn to_f32s(&self) -> Result<Vec<f32>, TensorError> {
        if self.dtype() == DType::Float {
            return Ok(self.to_bytes()?.as_chunks().0.iter().map(|&e| f32::from_le_bytes(e)).collect());
        }
        Ok(self.to_f64s()?.into_iter().map(|x| x as f32).collect())
    }

    /// The values as int64, from any integer or bool type; uint64 above the signed range wraps.
    pub fn to_i64s(&self) -> Result<Vec<i64>, TensorError> {
        let dtype = self.dtype();
        if !(dtype.is_integer() || dtype == DType::Bool) {
            return Err(TensorError::NotReadable { dtype, wanted: "whole numbers" });
        }
        let bytes = self.to_bytes()?;
        self.integers(dtype, &bytes).ok_or(TensorError::NotReadable { dtype, wanted: "whole numbers" })
    }

    fn integers(&self, dtype: DType, bytes: &[u8]) -> Option<Vec<i64>> {
        Some(match dtype {
            DType::Int64 | DType::Uint64 => bytes.as_chunks().0.iter().map(|&e| i64::from_le_bytes(e)).collect(),
            DType::Int32 => bytes.as_chunks().0.iter().map(|&e| i32::from_le_bytes(e) as i64).collect(),
            DType::Uint32 => bytes.as_chunks().0.iter().map(|&e| u32::from_le_bytes(e) as i64).collect(),
            DType::Int16 => bytes.as_chunks().0.iter().map(|&e| i16::from_le_bytes(e) as i64).collect(),
            DType::Uint16 => bytes.as_chunks().0.iter().map(|&e| u16::from_le_bytes(e) as i64).collect(),
            DType::Int8 => bytes.iter().map(|&e| e as i8 as i64).collect(),
            DType::Uint8 | DType::Bool => bytes.iter().map(|&e| e as i64).collect(),
            _ => return None,
        })
    }

    /// This tensor with elements of another float type, converted only when read or written. `None` where either type
    /// is not one of the four float types, or the values are not at hand.
    pub fn convert(&self, to: DType) -> Option<Self> {
        let from = self.dtype();
        let payload = match &self.raw_data {
            Some(payload) => payload.clone(),
            None => Payload::Bytes(self.to_bytes().ok()?),
        };
        let payload = payload.convert(from, to)?;
        Some(Self {
            data_type: Some(to.number()),
            raw_data: Some(payload),
            float_data: Vec::new(),
            int32_data: Vec::new(),
            double_data: Vec::new(),
            ..self.clone()
        })
    }

    /// This tensor under another name.
    pub fn renamed(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The same values with other dims; the caller sees to it that the count stays.
    pub fn reshaped(mut self, dims: &[i64]) -> Self {
        self.dims = dims.to_vec();
        self
    }

    /// The value that `external_data` holds under a key.
    pub fn external(&self, key: &str) -> Option<&str> {
        let found = |e: &&StringStringEntryProto| e.key.as_deref() == Some(key);
        self.external_data.iter().find(found).and_then(|e| e.value.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_fields_read_as_raw_bytes_do() {
        let raw = Tensor::from_f64s("t", DType::Float16, &[3], &[1.0, -2.5, 65504.0]).unwrap();
        let typed = Tensor {
            data_type: Some(DType::Float16.number()),
            dims: vec![3],
            int32_data: [1.0, -2.5, 65504.0].iter().map(|&x| f16::from_f64(x).to_bits() as i32).collect(),
            ..Default::default()
        };
        assert_eq!(raw.to_f64s().unwrap(), typed.to_f64s().unwrap());
        assert!(raw.check().is_ok() && typed.check().is_ok());
    }

    #[test]
    fn a_count_that_does_not_match_the_dims_is_told() {
        let tensor = Tensor::from_f32("w", &[2, 3], &[0.0; 5]);
        let told = tensor.check().unwrap_err().to_string();
        assert_eq!(told, "[2, 3] of float takes 24 bytes, but 20 are stored");
    }

    #[test]
    fn dims_that_overflow_are_refused() {
        let tensor = Tensor { dims: vec![i64::MAX, i64::MAX], data_type: Some(1), ..Default::default() };
        assert!(matches!(tensor.check(), Err(TensorError::TooLarge { .. })));
        let tensor = Tensor { dims: vec![3, -1], data_type: Some(1), ..Default::default() };
        assert!(matches!(tensor.check(), Err(TensorError::NegativeDimension { index: 1, size: -1 })));
    }
}
