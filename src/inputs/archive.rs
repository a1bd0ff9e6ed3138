//! Files of tensors: `.npy`, `.npz` and `.safetensors`, read and written.
//!
//! [`contents`] reads names, types and sizes alone, so that a thousand files can be checked before the first is run.

use std::io::{Cursor, Write};
use std::path::Path;

use bytes::Bytes;

use super::{InputError, npy};
use crate::engine::Tensors;
use crate::onnx::{self, DType, Tensor, safetensors};
use crate::scratch::ScratchFile;

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
    let form = form(path)?;
    let file = map(path)?;
    let entry = |name: &str, header: npy::Header| Entry { name: name.into(), dtype: header.dtype, dims: header.dims };
    match form {
        Form::Npy => Ok(vec![entry("", npy::header(&mut file.as_ref()).map_err(failed)?)]),
        Form::Npz => {
            let mut entries = Vec::new();
            each_array(path, &file, |name, mut array| {
                entries.push(entry(name, npy::header(&mut array)?));
                Ok(())
            })?;
            Ok(entries)
        }
        Form::Safetensors => {
            let entries = safetensors::entries(&file).map_err(|error| failed(told(&error)))?;
            Ok(entries.into_iter().map(|(name, dtype, dims)| Entry { name, dtype, dims }).collect())
        }
    }
}

/// Reads every tensor of a file; the one in a `.npy` is called by the empty name. What is not packed is a view into the
/// file, mapped into memory.
///
/// # Errors
/// The file is not there, or not what its extension says.
pub fn read(path: &Path) -> Result<Tensors, InputError> {
    read_some(path, |_| true)
}

/// As [`read`], but one tensor only; none where no tensor is called so.
///
/// # Errors
/// As [`read`].
pub(super) fn read_one(path: &Path, wanted: &str) -> Result<Option<Tensor>, InputError> {
    Ok(read_some(path, |name| name == wanted)?.swap_remove(wanted))
}

fn read_some(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Tensors, InputError> {
    let failed = |problem: String| InputError::file(path, problem);
    let form = form(path)?;
    let file = map(path)?;
    let mut tensors = Tensors::new();
    match form {
        Form::Npy => {
            let mut rest = file.as_ref();
            let header = npy::header(&mut rest).map_err(failed)?;
            tensors.insert(String::new(), npy::view("", &header, file.slice_ref(rest)).map_err(failed)?);
        }
        Form::Npz => each_array(path, &file, |name, mut array| {
            if !wanted(name) {
                return Ok(());
            }
            let tensor = match lying(&file, &array) {
                Some(bytes) => {
                    // Read to its end, an array is held against the archive's checksum.
                    std::io::copy(&mut array, &mut std::io::sink()).map_err(|error| error.to_string())?;
                    let mut rest = bytes.as_ref();
                    let header = npy::header(&mut rest)?;
                    npy::view(name, &header, bytes.slice_ref(rest))?
                }
                None => {
                    let header = npy::header(&mut array)?;
                    npy::body(name, &header, &mut array)?
                }
            };
            tensors.insert(name.to_string(), tensor);
            Ok(())
        })?,
        Form::Safetensors => tensors = safetensors::decode_some(&file, wanted).map_err(|error| failed(told(&error)))?,
    }
    Ok(tensors)
}

/// Where in the file an array of a `.npz` lies, if it is not packed.
fn lying<R: std::io::Read>(file: &Bytes, array: &zip::read::ZipFile<'_, R>) -> Option<Bytes> {
    let plain = array.compression() == zip::CompressionMethod::Stored && !array.encrypted();
    let start = usize::try_from(array.data_start().filter(|_| plain)?).ok()?;
    let end = start.checked_add(usize::try_from(array.size()).ok()?).filter(|&end| end <= file.len())?;
    Some(file.slice(start..end))
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
            let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
            let bytes = safetensors::encode(named).map_err(|error| failed(error.to_string()))?;
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

/// A file's bytes, mapped.
fn map(path: &Path) -> Result<Bytes, InputError> {
    onnx::map(path).map_err(|error| InputError::file(path, error.to_string()))
}

fn told(error: &safetensors::TensorFileError) -> String {
    match error {
        safetensors::TensorFileError::Format(error) => format!("is no .safetensors file: {error}"),
        error => error.to_string(),
    }
}

fn form(path: &Path) -> Result<Form, InputError> {
    Form::of(path).ok_or_else(|| InputError::file(path, "expected .npz, .npy or .safetensors".into()))
}

/// Visits every array of a `.npz`.
fn each_array(
    path: &Path,
    file: &Bytes,
    mut visit: impl FnMut(&str, zip::read::ZipFile<'_, Cursor<&[u8]>>) -> Result<(), String>,
) -> Result<(), InputError> {
    let failed = |problem: String| InputError::file(path, problem);
    let broken = |error: zip::result::ZipError| failed(format!("is no .npz archive: {error}"));
    let mut archive = zip::ZipArchive::new(Cursor::new(file.as_ref())).map_err(broken)?;
    for index in 0..archive.len() {
        let array = archive.by_index(index).map_err(broken)?;
        let name = array.name().map_err(broken)?;
        let Some(name) = name.strip_suffix(".npy").map(str::to_string) else { continue };
        visit(&name, array).map_err(|problem| failed(format!("'{name}' {problem}")))?;
    }
    Ok(())
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
