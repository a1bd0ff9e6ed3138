//! Providers that are part of an ONNX Runtime library: asked for by name through its C interface.

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use indexmap::IndexMap;
use ort::AsPointer;
use ort::session::builder::SessionBuilder;

/// The providers that the loaded library was built with.
pub(super) fn available() -> Result<Vec<String>, String> {
    let api = ort::api();
    let (mut names, mut count) = (ptr::null_mut::<*mut c_char>(), 0);
    // SAFETY: fills in an array of texts, which are copied before it is given back.
    unsafe {
        checked((api.GetAvailableProviders)(&mut names, &mut count))?;
        let text = |index| CStr::from_ptr(*names.add(index)).to_string_lossy().into_owned();
        let found = (0..usize::try_from(count).unwrap_or(0)).map(text).collect();
        checked((api.ReleaseAvailableProviders)(names, count))?;
        Ok(found)
    }
}

/// Gives a session to a provider.
pub(super) fn append(
    builder: &mut SessionBuilder,
    name: &str,
    options: &IndexMap<String, String>,
) -> Result<(), String> {
    let owned =
        |text: &String| CString::new(text.as_str()).map_err(|_| format!("option {text:?} has a zero byte in it"));
    let own_keys = options.keys().map(owned).collect::<Result<Vec<_>, _>>()?;
    let own_values = options.values().map(owned).collect::<Result<Vec<_>, _>>()?;
    let keys: Vec<*const c_char> = own_keys.iter().map(|text| text.as_ptr()).collect();
    let values: Vec<*const c_char> = own_values.iter().map(|text| text.as_ptr()).collect();
    let (api, session, count) = (ort::api(), builder.ptr_mut(), keys.len());
    // SAFETY: keys and values are as many as said and live to the end; what is created is released.
    unsafe {
        match name {
            "CUDAExecutionProvider" => {
                let mut own = ptr::null_mut();
                checked((api.CreateCUDAProviderOptions)(&mut own))?;
                let done = checked((api.UpdateCUDAProviderOptions)(own, keys.as_ptr(), values.as_ptr(), count))
                    .and_then(|()| checked((api.SessionOptionsAppendExecutionProvider_CUDA_V2)(session, own)));
                (api.ReleaseCUDAProviderOptions)(own);
                done
            }
            "TensorrtExecutionProvider" => {
                let mut own = ptr::null_mut();
                checked((api.CreateTensorRTProviderOptions)(&mut own))?;
                let done = checked((api.UpdateTensorRTProviderOptions)(own, keys.as_ptr(), values.as_ptr(), count))
                    .and_then(|()| checked((api.SessionOptionsAppendExecutionProvider_TensorRT_V2)(session, own)));
                (api.ReleaseTensorRTProviderOptions)(own);
                done
            }
            _ => {
                let name = CString::new(name).map_err(|_| "the provider's name has a zero byte in it".to_string())?;
                let (keys, values) = (keys.as_ptr(), values.as_ptr());
                checked((api.SessionOptionsAppendExecutionProvider)(session, name.as_ptr(), keys, values, count))
            }
        }
    }
}

/// What ONNX Runtime says of a call, as a result.
///
/// # Safety
/// The status must come from ONNX Runtime, and nobody else may use it.
unsafe fn checked(status: ort::sys::OrtStatusPtr) -> Result<(), String> {
    // SAFETY: as promised by the caller.
    unsafe { ort::Error::result_from_status(status) }.map_err(|error| error.message().to_string())
}
