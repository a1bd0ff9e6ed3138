//! Writes a model: streamed, so that weights never stand twice in memory, and atomically, so that a file is there whole
//! or not at all. Models beyond protobuf's 2 GiB get their large tensors in a data file beside them.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use bytes::buf::UninitSlice;
use bytes::{BufMut, Bytes};
use prost::Message;

use super::proto::{LOCATION_EXTERNAL, ModelProto, StringStringEntryProto, TensorProto};
use super::read::try_for_each_tensor;
use super::{Apart, OnnxError, Problem, TakeApart, together};
use crate::scratch::{ScratchFile, ScratchFolder};

/// The most bytes a protobuf message may have, less room for the fields around the tensors.
const PROTOBUF_LIMIT: usize = (1 << 31) - (1 << 20);
/// Tensors smaller than this stay in the model file even when the rest goes out.
const INLINE_LIMIT: usize = 1024;
/// External tensors start at multiples of this, so that a loader can map them.
const ALIGNMENT: u64 = 4096;

/// Writes a model to `path`; one too large for protobuf gets its weights in `<file>.data` beside it.
pub fn write(path: &Path, model: &ModelProto) -> Result<(), OnnxError> {
    write_with_limit(path, model, PROTOBUF_LIMIT)
}

/// As [`write()`], with the size in bytes beyond which weights go to a data file given.
pub fn write_with_limit(path: &Path, model: &ModelProto, limit: usize) -> Result<(), OnnxError> {
    let at = |error: io::Error| Problem::Unwritten(error).in_file(path);
    if model.encoded_len() <= limit {
        return write_message(path, model);
    }
    let mut data_path = path.as_os_str().to_owned();
    data_path.push(".data");
    let data_path = Path::new(&data_path);
    let location = data_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut slim = model.clone(); // weights are shared views; only the messages around them are copied
    let mut offset = 0u64;
    let data = fill_beside(data_path, |file| {
        stream(file, |buf| {
            let outcome: Result<(), std::convert::Infallible> = try_for_each_tensor(&mut slim, &mut |tensor| {
                offset = move_out(tensor, &location, offset, buf);
                Ok(())
            });
            let Ok(()) = outcome;
        })
    })
    .map_err(|error| Problem::Unwritten(error).in_file(data_path))?;
    // Both files are whole before either gets its name.
    let main = fill_beside(path, |file| stream(file, |buf| slim.encode_raw(buf))).map_err(at)?;
    place_both(data, data_path, main, path)
}

/// Gives a model's two files their names: both, or neither. What stood under the data file's name is put back where the
/// model itself cannot be placed, for an older model there still reads it.
fn place_both(data: ScratchFile, data_path: &Path, main: ScratchFile, path: &Path) -> Result<(), OnnxError> {
    let told = |error: io::Error, path: &Path| Problem::Unwritten(error).in_file(path);
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let aside = ScratchFolder::new_in(folder).map_err(|error| told(error, data_path))?;
    let old = aside.path().join("data");
    let had_data = std::fs::hard_link(data_path, &old).is_ok();
    data.persist(data_path).map_err(|error| told(error, data_path))?;
    main.persist(path).map_err(|error| {
        let restored = had_data && std::fs::rename(&old, data_path).is_ok();
        if !restored {
            let _ = std::fs::remove_file(data_path); // half a model is none
        }
        told(error, path)
    })
}

/// Writes any message to `path`, whole or not at all. What is no regular file is written to front to back.
pub fn write_message(path: &Path, message: &(impl Message + TakeApart)) -> Result<(), OnnxError> {
    let placed = match is_regular(path) {
        true => return write_files(&[(path, message)]),
        false => place(path, |file| stream(file, |buf| message.encode_raw(buf))),
    };
    placed.map_err(|error| Problem::Unwritten(error).in_file(path))
}

/// Writes a model to `path` as [`write()`] does, and messages that share its weights to theirs: such a weight is converted,
/// or drawn, once.
pub fn write_together(path: &Path, model: &ModelProto, others: &[(&Path, &dyn TakeApart)]) -> Result<(), OnnxError> {
    if model.encoded_len() > PROTOBUF_LIMIT {
        write(path, model)?;
        return write_files(others);
    }
    let all: Vec<(&Path, &dyn TakeApart)> = std::iter::once((path, model as _)).chain(others.iter().copied()).collect();
    write_files(&all)
}

/// Writes files, all of them whole before the first gets its name.
fn write_files(all: &[(&Path, &dyn TakeApart)]) -> Result<(), OnnxError> {
    let at = |number: usize, error: io::Error| Problem::Unwritten(error).in_file(all[number].0);
    let messages: Vec<Apart> = all.iter().map(|&(_, message)| Apart::of(message)).collect();
    let mut files = Vec::new();
    for (number, (path, _)) in all.iter().enumerate() {
        files.push(new_beside(path).map_err(|error| at(number, error))?);
    }
    let mut open: Vec<&mut File> = files.iter_mut().map(ScratchFile::file).collect();
    together::fill(&mut open, &messages).map_err(|(number, error)| at(number, error))?;
    for (number, (file, (path, _))) in files.into_iter().zip(all).enumerate() {
        file.persist(path).map_err(|error| at(number, error))?;
    }
    Ok(())
}

/// Writes what `fill` gives to `path`, whole or not at all.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), OnnxError> {
    let placed = place(path, |file| {
        let mut out = io::BufWriter::with_capacity(1 << 18, file);
        fill(&mut out)?;
        out.flush()
    });
    placed.map_err(|error| Problem::Unwritten(error).in_file(path))
}

/// The whole model as bytes, for engines that take a model from memory.
pub fn encode(model: &ModelProto) -> Bytes {
    model.encode_to_vec().into()
}

/// The whole model into `out`, a piece at a time.
///
/// # Errors
/// What `out` gives.
pub fn encode_into(model: &ModelProto, out: &mut dyn Write) -> io::Result<()> {
    stream(out, |buf| model.encode_raw(buf))
}

/// Appends a tensor's values to the data file and points the tensor there; returns where the next may start.
fn move_out(tensor: &mut TensorProto, location: &str, offset: u64, buf: &mut impl BufMut) -> u64 {
    let Some(payload) = tensor.raw_data.take_if(|payload| payload.len() >= INLINE_LIMIT) else {
        return offset;
    };
    let start = offset.next_multiple_of(ALIGNMENT);
    buf.put_bytes(0, (start - offset) as usize);
    payload.for_each_chunk(&mut |chunk| buf.put_slice(chunk));
    let entry = |key: &str, value: String| StringStringEntryProto::new(key, value);
    tensor.data_location = Some(LOCATION_EXTERNAL);
    tensor.external_data = vec![
        entry("location", location.to_string()),
        entry("offset", start.to_string()),
        entry("length", payload.len().to_string()),
    ];
    start + payload.len() as u64
}

/// Whether a file that is written whole and then named can stand at `path`.
fn is_regular(path: &Path) -> bool {
    !std::fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
}

/// Puts a whole file at `path`, or nothing. What is no regular file (a pipe, `/dev/stdout`) is written to as it is, since
/// renaming would put a file in its place.
fn place(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    if !is_regular(path) {
        return fill(&mut File::options().write(true).open(path)?);
    }
    fill_beside(path, fill)?.persist(path)
}

/// Fills a temporary file in the folder of `path`, which goes away unless it is given a name.
fn fill_beside(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<ScratchFile> {
    let mut temporary = new_beside(path)?;
    fill(temporary.file())?;
    Ok(temporary)
}

/// An empty temporary file in the folder of `path`.
fn new_beside(path: &Path) -> io::Result<ScratchFile> {
    if path.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder; name the file to write"));
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        let what = if folder.exists() { "is not a folder" } else { "does not exist" };
        let told = format!("cannot be written: '{}' {what}", folder.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, told));
    }
    ScratchFile::new_in(folder)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot be written: {}", without_path(&error))))
}

/// What the system says, without the temporary file's name, which tells the user nothing.
fn without_path(error: &io::Error) -> String {
    let told = error.to_string();
    told.split(" at path ").next().unwrap_or_default().to_string()
}

fn stream(out: &mut dyn Write, encode: impl FnOnce(&mut Stream<'_>)) -> io::Result<()> {
    let mut stream = Stream { out, buffer: vec![0; 1 << 18].into_boxed_slice(), filled: 0, error: None };
    encode(&mut stream);
    stream.flush();
    stream.error.map_or(Ok(()), Err)
}

/// A `BufMut` of fixed size over what is written to. The first write error is kept, and what follows is dropped.
struct Stream<'a> {
    out: &'a mut dyn Write,
    buffer: Box<[u8]>,
    filled: usize,
    error: Option<io::Error>,
}

impl Stream<'_> {
    fn flush(&mut self) {
        let filled = std::mem::take(&mut self.filled);
        if self.error.is_none() {
            self.error = self.out.write_all(&self.buffer[..filled]).err();
        }
    }
}

// SAFETY: `chunk_mut` hands out the initialised free end of `buffer`, never empty since a full buffer is flushed first;
// `advance_mut` stays within it.
unsafe impl BufMut for Stream<'_> {
    fn remaining_mut(&self) -> usize {
        usize::MAX
    }

    unsafe fn advance_mut(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.buffer.len());
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        if self.filled == self.buffer.len() {
            self.flush();
        }
        UninitSlice::new(&mut self.buffer[self.filled..])
    }

    fn put_slice(&mut self, source: &[u8]) {
        if source.len() > self.buffer.len() - self.filled {
            self.flush();
        }
        if source.len() >= self.buffer.len() {
            if self.error.is_none() {
                self.error = self.out.write_all(source).err();
            }
            return;
        }
        self.buffer[self.filled..self.filled + source.len()].copy_from_slice(source);
        self.filled += source.len();
    }
}
