//! A tensor's bytes, held in the cheapest form: a view into the mapped file, a recipe, or a conversion not yet done.
//!
//! Writing streams a payload through a small buffer, so neither a hydrated nor a converted weight ever stands whole in
//! memory. All bytes are little-endian and row-major, as `raw_data` is.

use bytes::{Buf, BufMut, Bytes};
use half::f16;
use prost::DecodeError;
use prost::encoding::{WireType, decode_varint, encode_key, encode_varint, encoded_len_varint, key_len};

use super::DType;
use super::fill::Fill;

/// Elements produced at a time while a recipe or a conversion is streamed.
const CHUNK: usize = 1 << 14;

/// The content of `raw_data`.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Bytes as they are, most often a view into the mapped file.
    Bytes(Bytes),
    /// Deterministic values that stand in for a stripped weight.
    Fill(Fill),
    /// Another payload whose elements change type on the way out.
    Converted(Box<Converted>),
}

/// A pending change of element type.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    source: Payload,
    from: DType,
    to: DType,
}

impl Converted {
    /// Bytes of an element before and after.
    fn widths(&self) -> (usize, usize) {
        (self.from.bits() / 8, self.to.bits() / 8)
    }
}

impl Default for Payload {
    fn default() -> Self {
        Payload::Bytes(Bytes::new())
    }
}

impl PartialEq for Payload {
    /// Equal content, whatever the form.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Payload::Fill(a), Payload::Fill(b)) if a == b => true,
            (Payload::Bytes(a), Payload::Bytes(b)) => a == b,
            _ => self.len() == other.len() && self.to_bytes() == other.to_bytes(),
        }
    }
}

impl Payload {
    /// The payload as `to`, converted when it is read or written. Conversions go between the float types;
    /// `None` where one is not supported.
    pub fn convert(self, from: DType, to: DType) -> Option<Self> {
        if from == to {
            return Some(self);
        }
        let known = |dtype| matches!(dtype, DType::Float | DType::Float16 | DType::Bfloat16 | DType::Double);
        (known(from) && known(to)).then(|| Payload::Converted(Box::new(Converted { source: self, from, to })))
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Payload::Bytes(bytes) => bytes.len(),
            Payload::Fill(fill) => fill.byte_len(),
            Payload::Converted(c) => c.source.len() / (c.from.bits() / 8) * (c.to.bits() / 8),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, produced now if they are not at hand; free for a view.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Payload::Bytes(bytes) => bytes.clone(),
            _ => {
                let mut out = Vec::with_capacity(self.len());
                self.for_each_chunk(&mut |chunk| out.extend_from_slice(chunk));
                out.into()
            }
        }
    }

    /// Hands the bytes to `take` piece by piece, in order.
    pub fn for_each_chunk(&self, take: &mut dyn FnMut(&[u8])) {
        match self {
            Payload::Bytes(bytes) => take(bytes),
            Payload::Fill(fill) => fill.for_each_chunk(CHUNK, take),
            Payload::Converted(c) => {
                let (width, new_width) = c.widths();
                let mut room = vec![0; CHUNK * new_width];
                c.source.for_each_chunk(&mut |bytes| {
                    for piece in bytes.chunks(CHUNK * width) {
                        let out = &mut room[..piece.len() / width * new_width];
                        convert_elements(piece, c.from, c.to, out);
                        take(out);
                    }
                });
            }
        }
    }

    /// Puts the bytes into `out`, which is as long as they are.
    pub(super) fn copy_to(&self, out: &mut [u8]) {
        if let Payload::Converted(c) = self
            && let Payload::Bytes(source) = &c.source
        {
            return convert_elements(source, c.from, c.to, out);
        }
        let mut rest = out;
        self.for_each_chunk(&mut |chunk| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(chunk.len());
            now.copy_from_slice(chunk);
            rest = later;
        });
    }

    /// The bytes from `start`, a multiple of 192, to `end`, a multiple of 192 or the length: between elements of any type.
    pub(super) fn part(&self, start: usize, end: usize) -> Self {
        match self {
            Payload::Bytes(bytes) => Payload::Bytes(bytes.slice(start..end)),
            Payload::Fill(fill) => {
                let element = |byte: usize| (byte * 8 / fill.dtype.bits()).min(fill.count);
                let seed = fill.seed.wrapping_add(element(start) as u64);
                Payload::Fill(Fill { seed, count: element(end) - element(start), ..fill.clone() })
            }
            Payload::Converted(c) => {
                let (width, new_width) = c.widths();
                let source = c.source.part(start / new_width * width, end / new_width * width);
                Payload::Converted(Box::new(Converted { source, ..**c }))
            }
        }
    }

    /// Where in memory the bytes come from, and how many those are: the same for two that are one.
    pub(super) fn origin(&self) -> (usize, usize) {
        match self {
            Payload::Bytes(bytes) => (bytes.as_ptr() as usize, bytes.len()),
            Payload::Fill(fill) => (fill.seed as usize, fill.count),
            Payload::Converted(c) => c.source.origin(),
        }
    }

    /// Whether both are one and the same, without a look at the bytes.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Payload::Bytes(_), Payload::Bytes(_)) => self.origin() == other.origin(),
            (Payload::Fill(one), Payload::Fill(other)) => one == other,
            (Payload::Converted(one), Payload::Converted(other)) => {
                (one.from, one.to) == (other.from, other.to) && one.source.is_as(&other.source)
            }
            _ => false,
        }
    }
}

/// Converts whole elements, rounding to nearest even; NaN stays NaN. `out` has room for exactly as many.
fn convert_elements(bytes: &[u8], from: DType, to: DType, out: &mut [u8]) {
    match (from, to) {
        (DType::Float, DType::Bfloat16) => {
            each::<4, 2>(bytes, out, |x| bfloat16_bits(f32::from_le_bytes(x)).to_le_bytes());
        }
        (DType::Float, DType::Float16) => {
            each::<4, 2>(bytes, out, |x| f16::from_f32(f32::from_le_bytes(x)).to_le_bytes())
        }
        (DType::Float, _) => widened::<4>(bytes, to, out, |x| f32::from_le_bytes(x) as f64),
        (DType::Double, _) => widened::<8>(bytes, to, out, f64::from_le_bytes),
        (DType::Float16, _) => widened::<2>(bytes, to, out, |x| f16::from_le_bytes(x).to_f64()),
        _ => widened::<2>(bytes, to, out, |x| half::bf16::from_le_bytes(x).to_f64()),
    }
}

/// Converts by way of float64, which holds what every float type holds.
fn widened<const N: usize>(bytes: &[u8], to: DType, out: &mut [u8], read: impl Fn([u8; N]) -> f64) {
    match to {
        DType::Float => each::<N, 4>(bytes, out, |x| (read(x) as f32).to_le_bytes()),
        DType::Double => each::<N, 8>(bytes, out, |x| read(x).to_le_bytes()),
        DType::Float16 => each::<N, 2>(bytes, out, |x| f16::from_f64(read(x)).to_le_bytes()),
        _ => each::<N, 2>(bytes, out, |x| half::bf16::from_f64(read(x)).to_le_bytes()),
    }
}

/// Converts element by element into room that is there already, since a growing list is not filled by vectors.
#[inline]
fn each<const N: usize, const M: usize>(bytes: &[u8], out: &mut [u8], convert: impl Fn([u8; N]) -> [u8; M]) {
    for (new, &old) in out.as_chunks_mut::<M>().0.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *new = convert(old);
    }
}

/// The bfloat16 nearest to `x`, ties to even, without a branch so that the loop over weights vectorises.
#[inline]
pub fn bfloat16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    let nan = ((bits >> 16) | 0x40) as u16;
    if x.is_nan() { nan } else { rounded }
}

pub(crate) fn encode(tag: u32, value: &Payload, buf: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, buf);
    encode_varint(value.len() as u64, buf);
    value.for_each_chunk(&mut |chunk| buf.put_slice(chunk));
}

pub(crate) fn encoded_len(tag: u32, value: &Payload) -> usize {
    key_len(tag) + encoded_len_varint(value.len() as u64) + value.len()
}

pub(crate) fn merge(wire_type: WireType, value: &mut Payload, buf: &mut impl Buf) -> Result<(), DecodeError> {
    if wire_type != WireType::LengthDelimited {
        return Err(super::wire::error("raw_data is not a run of bytes"));
    }
    let length = decode_varint(buf)?;
    if length > buf.remaining() as u64 {
        return Err(super::wire::error("buffer underflow"));
    }
    *value = Payload::Bytes(buf.copy_to_bytes(length as usize)); // a view when the file is mapped
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bfloat16_rounds_as_the_half_crate_does() {
        let mut state = 1u32;
        for _ in 0..200_000 {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            let x = f32::from_bits(state);
            let (ours, theirs) = (bfloat16_bits(x), half::bf16::from_f32(x));
            if x.is_nan() {
                assert!(half::bf16::from_bits(ours).is_nan());
            } else {
                assert_eq!(ours, theirs.to_bits(), "{x:e}");
            }
        }
    }

    #[test]
    fn a_conversion_has_the_length_it_promises() {
        let floats: Vec<u8> = (0..100_000).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let payload = Payload::Bytes(floats.into()).convert(DType::Float, DType::Bfloat16).unwrap();
        assert_eq!(payload.len(), 200_000);
        assert_eq!(payload.to_bytes().len(), 200_000);
        let back = payload.convert(DType::Bfloat16, DType::Double).unwrap().to_bytes();
        assert_eq!(f64::from_le_bytes(back[8 * 256..8 * 257].try_into().unwrap()), 256.0);
    }
}
