//! Writes files that share weights: each weight is read, converted or drawn once and put into every file that has it.
//!
//! A file's room is claimed before it is filled, which the file system then does in one step instead of page by page.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom, Write};

use super::Payload;
use super::apart::Apart;

/// Bytes of weights that are held at a time: what a processor's own cache takes, and whole elements of any type, six bits wide
/// ones too.
const TRAY: usize = 3 << 18;
/// Size of the pages that a file is mapped by.
const PAGE: usize = 4096;
/// Most pieces that the system writes in one call.
const PIECES: usize = 512;

/// Fills files with messages.
///
/// # Errors
/// The first file that cannot be written, by its number, and what the system says.
pub(super) fn fill(files: &mut [&mut File], messages: &[Apart<'_>]) -> Result<(), (usize, io::Error)> {
    for (file, message) in files.iter().zip(messages) {
        claim(file, message.size() as u64);
    }
    let weights = shared(messages);
    let mut tray = vec![0; if weights.iter().all(|weight| is_view(&weight.payload)) { 0 } else { TRAY }];
    let mut left = weights.as_slice();
    while !left.is_empty() {
        let mut bytes = 0;
        let fits = |weight: &&Weight| {
            bytes += weight.payload.len();
            bytes <= TRAY
        };
        let count = left.iter().take(PIECES / 2).take_while(fits).count().max(1);
        let (now, later) = left.split_at(count);
        write_some(now, &mut tray, files)?;
        left = later;
    }
    for (number, (file, message)) in files.iter_mut().zip(messages).enumerate() {
        let at = message.size() - message.rest().len();
        write_at(file, at as u64, vec![message.rest()]).map_err(|error| (number, error))?;
    }
    Ok(())
}

/// A weight, or a part of a large one, and where it goes.
struct Weight<'a> {
    /// At most a tray full.
    payload: Payload,
    places: Vec<Place<'a>>,
}

#[derive(Clone, Copy)]
struct Place<'a> {
    /// The file's number.
    file: usize,
    /// Where the weight begins.
    at: u64,
    /// The bytes in front of it.
    before: &'a [u8],
}

/// The messages' weights in order, each once.
fn shared<'a>(messages: &'a [Apart<'_>]) -> Vec<Weight<'a>> {
    let mut whole: Vec<(&Payload, Vec<Place>)> = Vec::new();
    let mut known: HashMap<(usize, usize), Vec<usize>> = HashMap::new(); // one origin may be there in several types
    for (file, message) in messages.iter().enumerate() {
        for (before, payload, at) in message.weights() {
            let place = Place { file, at, before };
            let forms = known.entry(payload.origin()).or_default();
            match forms.iter().find(|&&index| whole[index].0.is_as(payload)) {
                Some(&index) => whole[index].1.push(place),
                None => {
                    forms.push(whole.len());
                    whole.push((payload, vec![place]));
                }
            }
        }
    }
    let mut weights = Vec::new();
    for (payload, places) in whole {
        for start in (0..payload.len()).step_by(TRAY) {
            let part = |place: &Place<'a>| Place {
                at: place.at + start as u64,
                before: if start == 0 { place.before } else { &[] },
                ..*place
            };
            let end = payload.len().min(start + TRAY);
            weights.push(Weight { payload: payload.part(start, end), places: places.iter().map(part).collect() });
        }
    }
    weights
}

fn is_view(payload: &Payload) -> bool {
    matches!(payload, Payload::Bytes(_))
}

/// Writes weights that fit the tray together.
fn write_some(weights: &[Weight], tray: &mut [u8], files: &mut [&mut File]) -> Result<(), (usize, io::Error)> {
    let mut room = tray;
    let mut runs: Vec<(usize, u64, &[u8])> = Vec::new();
    for weight in weights {
        let bytes: &[u8] = match &weight.payload {
            Payload::Bytes(view) => {
                touch(view);
                view
            }
            other => {
                let (bytes, rest) = room.split_at_mut(other.len());
                room = rest;
                other.copy_to(bytes);
                bytes
            }
        };
        for place in &weight.places {
            runs.push((place.file, place.at - place.before.len() as u64, place.before));
            runs.push((place.file, place.at, bytes));
        }
    }
    runs.sort_by_key(|&(file, at, _)| (file, at));
    let follows =
        |one: &(usize, u64, &[u8]), next: &(usize, u64, &[u8])| one.0 == next.0 && one.1 + one.2.len() as u64 == next.1;
    for run in runs.chunk_by(follows) {
        let (file, at, _) = run[0];
        let pieces = run.iter().map(|&(_, _, bytes)| bytes).collect();
        write_at(files[file], at, pieces).map_err(|error| (file, error))?;
    }
    Ok(())
}

/// Has the pages of a mapped file at hand. The system writes from pages that are not there one at a time.
fn touch(view: &[u8]) {
    for page in view.chunks(PAGE) {
        std::hint::black_box(page[0]);
    }
}

fn write_at(file: &mut File, at: u64, pieces: Vec<&[u8]>) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    let mut slices: Vec<IoSlice> = pieces.into_iter().filter(|piece| !piece.is_empty()).map(IoSlice::new).collect();
    let mut left = slices.as_mut_slice();
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Claims a new file's room. Where that is not possible, writing tells.
#[cfg(target_os = "linux")]
fn claim(file: &File, length: u64) {
    use std::os::fd::AsRawFd;
    if let Ok(length) = libc::off_t::try_from(length) {
        // SAFETY: a plain system call on a file that is open.
        unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) };
    }
}

#[cfg(not(target_os = "linux"))]
fn claim(_file: &File, _length: u64) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::{GraphProto, ModelProto, TensorProto};
    use crate::onnx::{DType, Tensor, fill::Fill};
    use prost::Message;

    fn model(tensors: &[&TensorProto]) -> ModelProto {
        let initializer = tensors.iter().map(|&tensor| tensor.clone()).collect();
        let graph = GraphProto { initializer, name: Some("g".into()), ..Default::default() };
        ModelProto { ir_version: Some(8), graph: Some(graph), unknown: vec![0x78, 1], ..Default::default() }
    }

    fn written(messages: &[&ModelProto]) -> Vec<Vec<u8>> {
        let mut files: Vec<File> = messages.iter().map(|_| tempfile::tempfile().unwrap()).collect();
        let apart: Vec<Apart> = messages.iter().map(|&message| Apart::of(message)).collect();
        fill(&mut files.iter_mut().collect::<Vec<_>>(), &apart).unwrap();
        let read = |mut file: File| {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            io::Read::read_to_end(&mut file, &mut bytes).unwrap();
            bytes
        };
        files.into_iter().map(read).collect()
    }

    #[test]
    fn files_that_share_weights_hold_what_prost_encodes() {
        let numbers = |count: usize| (0..count).map(|i| i as f32 * 0.37 - 99.0).collect::<Vec<f32>>();
        let tensor = |name: &str, count: usize| Tensor::from_f32(name, &[count as i64], &numbers(count));
        let (small, middle, large) = (tensor("small", 7), tensor("middle", 30_001), tensor("large", 1_500_003));
        let half = large.convert(DType::Bfloat16).unwrap();
        let drawn = |dtype: DType| {
            let fill = Fill { mean: 0.1, std: 2.0, seed: u64::MAX - 5, dtype: DType::Float, count: 1_400_001 };
            let payload = Payload::Fill(fill).convert(DType::Float, dtype).unwrap();
            TensorProto { raw_data: Some(payload), data_type: Some(dtype.number()), ..tensor("drawn", 0) }
        };
        let (drawn, drawn_half) = (drawn(DType::Float), drawn(DType::Float16));
        // In another order, with other weights between them, with two types of one weight, and one weight twice.
        let one = model(&[&small, &large, &half, &drawn, &middle, &half]);
        let other = model(&[&half, &middle, &drawn_half, &drawn, &small]);
        let none = model(&[&small]);
        let files = written(&[&one, &other, &none]);
        for (found, wanted) in files.iter().zip([&one, &other, &none]) {
            assert!(*found == wanted.encode_to_vec());
        }
    }

    #[test]
    fn drawn_weights_of_narrow_types_are_cut_between_elements() {
        let drawn = |dtype: DType| {
            let fill = Fill { mean: 0.0, std: 1.0, seed: 11, dtype, count: 5_000_001 };
            let tensor =
                TensorProto { name: Some("drawn".into()), data_type: Some(dtype.number()), ..Default::default() };
            TensorProto { dims: vec![5_000_001], raw_data: Some(Payload::Fill(fill)), ..tensor }
        };
        for dtype in [DType::Float6E2M3, DType::Float4E2M1, DType::Int4, DType::Float8E4M3FN] {
            let one = model(&[&drawn(dtype)]);
            assert!(written(&[&one])[0] == one.encode_to_vec(), "{dtype}");
        }
    }

    #[test]
    fn a_shared_weight_is_made_once() {
        let tensor = Tensor::from_f32("w", &[5000], &[1.0; 5000]);
        let (half, other) = (tensor.convert(DType::Bfloat16).unwrap(), tensor.convert(DType::Float16).unwrap());
        let (one, two) = (model(&[&half, &other]), model(&[&other]));
        let apart = [Apart::of(&one), Apart::of(&two)];
        let places: Vec<usize> = shared(&apart).iter().map(|weight| weight.places.len()).collect();
        assert_eq!(places, [1, 2]);
    }
}
