//! Tensors to and from ONNX Runtime's values: one copy each way.

use bytes::Bytes;
use ort::memory::Allocator;
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

pub(super) fn to_ort(tensor: &Tensor) -> Result<DynValue, String> {
    tensor.check().map_err(|error| error.to_string())?;
    let dtype = tensor.dtype();
    if dtype == DType::String {
        let texts: Result<Vec<String>, _> =
            tensor.string_data.iter().map(|text| String::from_utf8(text.to_vec())).collect();
        let texts = texts.map_err(|_| "is not UTF-8".to_string())?;
        let value = ort::value::Tensor::from_string_array((tensor.dims().to_vec(), texts.as_slice()));
        return value.map(ort::value::Value::into_dyn).map_err(|error| error.to_string());
    }
    let known = TYPES.iter().find(|(known, _)| *known == dtype);
    let (_, element) = known.ok_or_else(|| format!("is {dtype}, which ONNX Runtime does not take"))?;
    let bytes = tensor.to_bytes().map_err(|error| error.to_string())?;
    let mut value =
        DynTensor::new(&Allocator::default(), *element, tensor.dims()).map_err(|error| error.to_string())?;
    if !bytes.is_empty() {
        // SAFETY: the allocator is the CPU's, and made room for this type and these sizes; `check` made sure the bytes
        // are as many.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.data_ptr_mut().cast(), bytes.len()) };
    }
    Ok(value.into_dyn())
}

pub(super) fn from_ort(name: &str, value: &DynValue) -> Result<Tensor, String> {
    let value = value.view().downcast::<ort::value::DynTensorValueType>().map_err(|_| "is no tensor".to_string())?;
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
    let bytes = match length {
        0 => Vec::new(),
        // SAFETY: a tensor of this type and these sizes holds this many bytes, in memory the CPU reads.
        _ => unsafe { std::slice::from_raw_parts(value.data_ptr().cast::<u8>(), length) }.to_vec(),
    };
    Ok(Tensor::new(name, *dtype, &dims, bytes))
}
