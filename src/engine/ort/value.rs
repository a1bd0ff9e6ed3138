//! Tensors to and from ONNX Runtime's values. Numbers are not copied: an input is a view of the tensor's bytes, an output's
//! bytes are a view of ONNX Runtime's value.

use std::ptr::{self, NonNull};

use bytes::Bytes;
use ort::AsPointer;
use ort::memory::{Allocator, MemoryInfo};
use ort::value::{DynTensor, DynValue, TensorElementType};

use crate::onnx::{DType, Tensor};

const TYPES: &[(DType, TensorElementType)] = &[
    (DType::Float, TensorElementType::Float32),
    (DType::Double, TensorElementType::Float64),
    (DType::Float16, TensorElementType::Float16),
    (DType::Bfloat16, TensorElementType::Bfloat16),
    (DType::Int8, TensorElementType::Int8),
    (DType::Int16, TensorElementType::Int16),
    (DType::Int32, TensorElementType::Int32),
    (DType::Int64, TensorElementType::Int64),
    (DType::Uint8, TensorElementType::Uint8),
    (DType::Uint16, TensorElementType::Uint16),
    (DType::Uint32, TensorElementType::Uint32),
    (DType::Uint64, TensorElementType::Uint64),
    (DType::Bool, TensorElementType::Bool),
    (DType::String, TensorElementType::String),
    (DType::Float8E4M3FN, TensorElementType::Float8E4M3FN),
    (DType::Float8E4M3FNUZ, TensorElementType::Float8E4M3FNUZ),
    (DType::Float8E5M2, TensorElementType::Float8E5M2),
    (DType::Float8E5M2FNUZ, TensorElementType::Float8E5M2FNUZ),
    (DType::Uint4, TensorElementType::Uint4),
    (DType::Int4, TensorElementType::Int4),
];

/// An input. It is a view of the bytes beside it, which must be kept while it is in use.
pub(super) struct Input {
    pub value: DynValue,
    pub bytes: Bytes,
}

pub(super) fn to_ort(tensor: &Tensor) -> Result<Input, String> {
    tensor.check().map_err(|error| error.to_string())?;
    let dtype = tensor.dtype();
    if dtype == DType::String {
        let texts: Result<Vec<String>, _> =
            tensor.string_data.iter().map(|text| String::from_utf8(text.to_vec())).collect();
        let texts = texts.map_err(|_| "is not UTF-8".to_string())?;
        let value = ort::value::Tensor::from_string_array((tensor.dims().to_vec(), texts.as_slice()));
        let value = value.map(ort::value::Value::into_dyn).map_err(|error| error.to_string())?;
        return Ok(Input { value, bytes: Bytes::new() });
    }
    let known = TYPES.iter().find(|(known, _)| *known == dtype);
    let (_, element) = known.ok_or_else(|| format!("is {dtype}, which ONNX Runtime does not take"))?;
    let bytes = tensor.to_bytes().map_err(|error| error.to_string())?;
    let aligned = bytes.as_ptr().addr().is_multiple_of(dtype.bits().div_ceil(8).max(1));
    if !bytes.is_empty() && aligned {
        return Ok(Input { value: view(&bytes, tensor.dims(), *element)?, bytes });
    }
    let mut value =
        DynTensor::new(&Allocator::default(), *element, tensor.dims()).map_err(|error| error.to_string())?;
    if !bytes.is_empty() {
        // SAFETY: the allocator is the CPU's, and made room for this type and these sizes; `check` made sure the bytes
        // are as many.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.data_ptr_mut().cast(), bytes.len()) };
    }
    Ok(Input { value: value.into_dyn(), bytes: Bytes::new() })
}

/// A value over bytes that somebody else keeps.
fn view(bytes: &Bytes, dims: &[i64], element: TensorElementType) -> Result<DynValue, String> {
    let memory = MemoryInfo::default();
    let mut value = ptr::null_mut();
    // SAFETY: the bytes are as many as the type and the sizes say and are aligned; ONNX Runtime only reads inputs. The value
    // that comes back is ours to drop, which leaves the bytes alone.
    unsafe {
        let status = (ort::api().CreateTensorWithDataAsOrtValue)(
            memory.ptr(),
            bytes.as_ptr().cast_mut().cast(),
            bytes.len(),
            dims.as_ptr(),
            dims.len(),
            element.into(),
            &mut value,
        );
        ort::Error::result_from_status(status).map_err(|error| error.message().to_string())?;
        let value = NonNull::new(value).ok_or("was not taken")?;
        Ok(DynValue::from_ptr(value, Some(&Allocator::default())))
    }
}

/// A value of ONNX Runtime's that a tensor's bytes are a view of.
struct Held {
    _value: DynValue,
    start: *const u8,
    length: usize,
}

// SAFETY: the value may be sent, and the pointer is to memory of its own.
unsafe impl Send for Held {}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the value is alive, and holds this many bytes in memory that the CPU reads.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

/// An output; `inputs` are the run's, which an output may be a view of where the graph only hands one on.
pub(super) fn from_ort(name: &str, own: DynValue, inputs: &[Bytes]) -> Result<Tensor, String> {
    let value = own.view().downcast::<ort::value::DynTensorValueType>().map_err(|_| "is no tensor".to_string())?;
    let dims: Vec<i64> = value.shape().to_vec();
    let known = TYPES.iter().find(|(_, element)| element == value.data_type());
    let (dtype, _) = known.ok_or_else(|| format!("is {:?}, which porter does not know", value.data_type()))?;
    if *dtype == DType::String {
        let (_, texts) = value.try_extract_strings().map_err(|error| error.to_string())?;
        let texts = texts.into_iter().map(|text| Bytes::from(text.into_bytes())).collect();
        return Ok(Tensor { string_data: texts, raw_data: None, ..Tensor::new(name, *dtype, &dims, Vec::new()) });
    }
    if !value.memory_info().is_cpu_accessible() {
        return Err("is not in the CPU's memory".into());
    }
    let count = dims.iter().product::<i64>().max(0) as usize;
    let length = dtype.byte_len(count).unwrap_or(0);
    if length == 0 {
        return Ok(Tensor::new(name, *dtype, &dims, Vec::new()));
    }
    let start = value.data_ptr().cast::<u8>();
    drop(value);
    let handed_on = inputs.iter().any(|bytes| bytes.as_ptr_range().contains(&start));
    let held = Held { _value: own, start, length };
    let bytes = if handed_on { Bytes::copy_from_slice(held.as_ref()) } else { Bytes::from_owner(held) };
    Ok(Tensor::new(name, *dtype, &dims, bytes))
}
