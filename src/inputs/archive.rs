//! Files of tensors: `.npy`, `.npz` and `.safetensors`, read and written.
//!
//! [`contents`] reads names, types and sizes alone, so that a thousand files can be checked before the first is run.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use bytes::Bytes;
use safetensors::Dtype as StDtype;
use safetensors::tensor::{Metadata, TensorView};

use super::{InputError, npy};
use crate::engine::Tensors;
use crate::onnx::{DType, Tensor};
use crate::scratch::ScratchFile;

/// A longer header than this is junk.
const MAX_HEADER: u64 = 100 << 20;

const TYPES: &[(DType, StDtype)] = &[
    (DType::Float, StDtype::F32),
    (DType::Double, StDtype::F64),
    (DType::Float16, StDtype::F16),
    (DType::Bfloat16, StDtype::BF16),
    (DType::Int8, StDtype::I8),
    (DType::Int16, StDtype::I16),
    (DType::Int32, StDtype::I32),
    (DType::Int64, StDtype::I64),
    (DType::Uint8, StDtype::U8),
    (DType::Uint16, StDtype::U16),
    (DType::Uint32, StDtype::U32),
    (DType::Uint64, StDtype::U64),
    (DType::Bool, StDtype::BOOL),
    (DType::Float8E4M3FN, StDtype::F8_E4M3),
    (DType::Float8E5M2, StDtype::F8_E5M2),
];

/// What a file of tensors is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One array without a name.
    Npy,
    /// Arrays by name, in a zip archive.
    Npz,
    /// Tensors by name behind one JSON header.
    Safetensors,
}

impl Form {
    /// The form that a file's extension says.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "npy" => Some(Form::Npy),
            "npz" => Some(Form::Npz),
            "safetensors" => Some(Form::Safetensors),
            _ => None,
        }
    }
}

/// A tensor in a file, before it is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name; empty in a `.npy`.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The sizes.
    pub dims: Vec<i64>,
}

/// The names, types and sizes of the tensors in a file.
///
/// # Errors
/// The file is not there, or not what its extension says.
pub fn contents(path: &Path) -> Result<Vec<Entry>, InputError> {
    let failed = |problem: String| InputError::file(path, problem);
    let mut file = BufReader::new(open(path)?);
    let entry = |name: &str, header: npy::Header| Entry { name: name.into(), dtype: header.dtype, dims: header.dims };
    match form(path)? {
        Form::Npy => Ok(vec![entry("", npy::header(&mut file).map_err(failed)?)]),
        Form::Npz => {
            let mut entries = Vec::new();
            each_array(path, file, |name, array| {
                entries.push(entry(name, npy::header(array)?));
                Ok(())
            })?;
            Ok(entries)
        }
        Form::Safetensors => {
            let (metadata, _) = metadata(path, &mut file)?;
            let mut entries = Vec::new();
            for name in metadata.offset_keys() {
                let Some(info) = metadata.info(&name) else { continue };
                let dims = info.shape.iter().map(|&size| size as i64).collect();
                entries.push(Entry {
                    dtype: dtype_of(info.dtype).map_err(|p| failed(format!("'{name}' {p}")))?,
                    name,
                    dims,
                });
            }
            Ok(entries)
        }
    }
}

/// Reads every tensor of a file; the one in a `.npy` is called by the empty name.
///
/// # Errors
/// The file is not there, or not what its extension says.
pub fn read(path: &Path) -> Result<Tensors, InputError> {
    let failed = |problem: String| InputError::file(path, problem);
    let mut file = BufReader::new(open(path)?);
    let mut tensors = Tensors::new();
    match form(path)? {
        Form::Npy => {
            let header = npy::header(&mut file).map_err(failed)?;
            tensors.insert(String::new(), npy::body("", &header, &mut file).map_err(failed)?);
        }
        Form::Npz => each_array(path, file, |name, array| {
            let header = npy::header(array)?;
            tensors.insert(name.to_string(), npy::body(name, &header, array)?);
            Ok(())
        })?,
        Form::Safetensors => {
            let (metadata, start) = metadata(path, &mut file)?;
            file.seek(SeekFrom::Start(start)).map_err(|error| failed(error.to_string()))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
            let bytes = Bytes::from(bytes);
            for name in metadata.offset_keys() {
                let Some(info) = metadata.info(&name) else { continue };
                let dims: Vec<i64> = info.shape.iter().map(|&size| size as i64).collect();
                let dtype = dtype_of(info.dtype).map_err(|problem| failed(format!("'{name}' {problem}")))?;
                let (begin, end) = info.data_offsets;
                if begin > end || end > bytes.len() {
                    return Err(failed(format!("ends early: '{name}' is not all there")));
                }
                let tensor = Tensor::new(&name, dtype, &dims, bytes.slice(begin..end));
                tensor.check().map_err(|error| failed(format!("'{name}': {error}")))?;
                tensors.insert(name, tensor);
            }
        }
    }
    Ok(tensors)
}

/// Writes tensors in the form that the extension says; whole or not at all.
///
/// # Errors
/// The extension says none, a type that the form does not have, or the file cannot be written.
pub fn write(path: &Path, tensors: &Tensors) -> Result<(), InputError> {
    let failed = |problem: String| InputError::file(path, problem);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let told = |error: std::io::Error| failed(format!("cannot be written: {error}"));
    let form = form(path)?;
    let mut scratch = ScratchFile::new_in(folder).map_err(told)?;
    let file = scratch.file();
    match form {
        Form::Npy => {
            let [tensor] = tensors.values().collect::<Vec<_>>()[..] else {
                return Err(failed(format!("a .npy takes one tensor, and there are {}; write a .npz", tensors.len())));
            };
            file.write_all(&npy::write(tensor).map_err(failed)?).map_err(told)?;
        }
        Form::Npz => {
            let mut archive = zip::ZipWriter::new(&mut *file);
            let options = zip::write::SimpleFileOptions::default()
                .compression_method(zip::CompressionMethod::Stored)
                .large_file(true);
            for (name, tensor) in tensors {
                let bytes = npy::write(tensor).map_err(|problem| failed(format!("'{name}' {problem}")))?;
                archive.start_file(format!("{name}.npy"), options).map_err(|error| failed(error.to_string()))?;
                archive.write_all(&bytes).map_err(told)?;
            }
            archive.finish().map_err(|error| failed(error.to_string()))?;
        }
        Form::Safetensors => {
            let mut held = Vec::with_capacity(tensors.len());
            for (name, tensor) in tensors {
                let bytes = tensor.to_bytes().map_err(|error| failed(format!("'{name}': {error}")))?;
                let known = TYPES.iter().find(|(dtype, _)| *dtype == tensor.dtype());
                let (_, dtype) = known.ok_or_else(|| {
                    failed(format!("'{name}' is {}, which safetensors does not have", tensor.dtype().spelled()))
                })?;
                let shape: Vec<usize> = tensor.dims().iter().map(|&size| size as usize).collect();
                held.push((name, *dtype, shape, bytes));
            }
            let views: Result<Vec<_>, _> = held
                .iter()
                .map(|(name, dtype, shape, bytes)| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?)))
                .collect();
            let views = views.map_err(|error: safetensors::SafeTensorError| failed(error.to_string()))?;
            let bytes = safetensors::serialize(views, None).map_err(|error| failed(error.to_string()))?;
            file.write_all(&bytes).map_err(told)?;
        }
    }
    persist(scratch, path).map_err(told)
}

/// Renames a finished file into its place, with the permissions of the file that it replaces.
fn persist(mut scratch: ScratchFile, path: &Path) -> std::io::Result<()> {
    if let Ok(old) = std::fs::metadata(path) {
        scratch.file().set_permissions(old.permissions())?;
    }
    scratch.persist(path)
}

fn open(path: &Path) -> Result<File, InputError> {
    File::open(path).map_err(|error| InputError::file(path, error.to_string()))
}

fn form(path: &Path) -> Result<Form, InputError> {
    Form::of(path).ok_or_else(|| InputError::file(path, "expected .npz, .npy or .safetensors".into()))
}

/// Visits every array of a `.npz`.
fn each_array(
    path: &Path,
    file: impl Read + Seek,
    mut visit: impl FnMut(&str, &mut dyn Read) -> Result<(), String>,
) -> Result<(), InputError> {
    let failed = |problem: String| InputError::file(path, problem);
    let broken = |error: zip::result::ZipError| failed(format!("is no .npz archive: {error}"));
    let mut archive = zip::ZipArchive::new(file).map_err(broken)?;
    for index in 0..archive.len() {
        let mut array = archive.by_index(index).map_err(broken)?;
        let name = array.name().map_err(broken)?;
        let Some(name) = name.strip_suffix(".npy").map(str::to_string) else { continue };
        visit(&name, &mut array).map_err(|problem| failed(format!("'{name}' {problem}")))?;
    }
    Ok(())
}

/// The header of a `.safetensors` file, and where the elements begin.
fn metadata(path: &Path, file: &mut (impl Read + Seek)) -> Result<(Metadata, u64), InputError> {
    let failed = |problem: String| InputError::file(path, format!("is no .safetensors file: {problem}"));
    let mut length = [0u8; 8];
    file.read_exact(&mut length).map_err(|error| failed(error.to_string()))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(failed("its header is too long".into()));
    }
    let mut text = Vec::new();
    let read = file.take(length).read_to_end(&mut text).map_err(|error| failed(error.to_string()))?;
    if read as u64 != length {
        return Err(failed("it ends within its header".into()));
    }
    let metadata = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    Ok((metadata, 8 + length))
}

fn dtype_of(dtype: StDtype) -> Result<DType, String> {
    let known = TYPES.iter().find(|(_, known)| *known == dtype);
    known.map(|(dtype, _)| *dtype).ok_or_else(|| format!("is {dtype:?}, which no model takes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Tensors {
        let list = [
            Tensor::from_f32("/model.23/Concat_3_output_0", &[1, 2, 2], &[1.0, 2.0, 3.0, f32::NAN]),
            Tensor::from_i64("counts", &[3], &[7, -8, 9]),
            Tensor::from_f32("scalar", &[], &[0.5]),
        ];
        list.into_iter().map(|tensor| (tensor.name().to_string(), tensor)).collect()
    }

    #[test]
    fn every_form_gives_back_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["a.npz", "a.safetensors"] {
            let path = folder.path().join(file);
            write(&path, &some()).unwrap();
            let mut got = read(&path).unwrap();
            got.sort_keys();
            let mut want = some();
            want.sort_keys();
            assert_eq!(got, want, "{file}");
            let listed = contents(&path).unwrap();
            assert_eq!(listed.len(), 3);
            for entry in listed {
                assert_eq!((entry.dtype, entry.dims.as_slice()), (want[&entry.name].dtype(), want[&entry.name].dims()));
            }
        }
        let path = folder.path().join("a.npy");
        assert!(write(&path, &some()).is_err());
        let one = Tensors::from_iter([("x".to_string(), Tensor::from_f32("x", &[2], &[1.0, 2.0]))]);
        write(&path, &one).unwrap();
        assert_eq!(read(&path).unwrap()[""].to_f32s().unwrap(), [1.0, 2.0]);
    }

    #[test]
    fn broken_files_are_errors_with_their_name() {
        let folder = tempfile::tempdir().unwrap();
        for (file, bytes) in [
            ("a.npz", &b"PK\x03\x04 and nothing"[..]),
            ("a.npy", b"12345"),
            ("a.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"),
            ("b.safetensors", b"\x30\0\0\0\0\0\0\0{\"x\":{\"dtype\":\"F32\",\"shape\":[9],\"data_offsets\""),
        ] {
            let path = folder.path().join(file);
            std::fs::write(&path, bytes).unwrap();
            for told in [contents(&path).unwrap_err().to_string(), read(&path).unwrap_err().to_string()] {
                assert!(told.contains(file), "{told}");
            }
        }
    }
}
