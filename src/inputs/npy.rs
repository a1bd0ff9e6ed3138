//! NumPy's `.npy`: a header that is a Python dictionary, then the elements.
//!
//! Read are numbers and text of either byte order and either axis order; written is what NumPy itself can read, so
//! bfloat16, which it does not know, is written as float32.

use std::io::Read;

use bytes::Bytes;

use crate::onnx::{DType, Tensor};
use crate::target::Literal;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// A longer header than this is junk.
const MAX_HEADER: usize = 1 << 20;

/// What a file's header says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    /// The element type.
    pub dtype: DType,
    /// The sizes.
    pub dims: Vec<i64>,
    element: Element,
    fortran: bool,
}

/// How an element is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Element {
    /// So many bytes, which are swapped in groups of so many where the file is big-endian.
    Number { width: usize, swap: usize },
    /// Text of so many code points, 4 bytes each.
    Unicode { length: usize, big: bool },
    /// Text of so many bytes.
    Ascii { length: usize },
}

impl Element {
    fn width(self) -> usize {
        match self {
            Element::Number { width, .. } => width,
            Element::Unicode { length, .. } => length * 4,
            Element::Ascii { length } => length,
        }
    }
}

/// Reads the header and leaves the reader at the first element.
pub(super) fn header(file: &mut dyn Read) -> Result<Header, String> {
    let mut start = [0u8; 8];
    read_exactly(file, &mut start)?;
    if &start[..6] != MAGIC {
        return Err("is no .npy file: it does not begin as one".into());
    }
    let length = match start[6] {
        1 => {
            let mut length = [0u8; 2];
            read_exactly(file, &mut length)?;
            u16::from_le_bytes(length) as usize
        }
        2 | 3 => {
            let mut length = [0u8; 4];
            read_exactly(file, &mut length)?;
            u32::from_le_bytes(length) as usize
        }
        version => return Err(format!("is a .npy file of version {version}, which is not known")),
    };
    if length > MAX_HEADER {
        return Err("has a header that is too long".into());
    }
    let mut text = vec![0u8; length];
    read_exactly(file, &mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    parse(&text).map_err(|problem| format!("{problem} (header: {})", text.trim()))
}

fn parse(text: &str) -> Result<Header, String> {
    let Some(Literal::Dict(pairs)) = Literal::parse(text.trim()) else {
        return Err("has a header that cannot be read".into());
    };
    let field = |name: &str| pairs.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value);
    let Some(descr) = field("descr").and_then(Literal::as_str) else {
        return Err("holds records, not plain elements".into());
    };
    let dims = field("shape").and_then(Literal::as_ints).ok_or("has no shape")?;
    let fortran = field("fortran_order").and_then(Literal::as_bool).unwrap_or(false);
    if dims.iter().any(|&size| size < 0) {
        return Err("has a negative size".into());
    }
    let (dtype, element) = element(descr)?;
    Ok(Header { dtype, dims, element, fortran })
}

/// The type behind NumPy's code for it, such as `<f4`.
fn element(descr: &str) -> Result<(DType, Element), String> {
    let unknown = || format!("holds elements of NumPy's type '{descr}', which no model takes");
    let mut chars = descr.chars();
    let big = chars.next() == Some('>');
    let kind = chars.next().ok_or_else(unknown)?;
    let width: usize = chars.as_str().parse().map_err(|_| match kind {
        'O' => "holds Python objects, not numbers".to_string(),
        _ => unknown(),
    })?;
    use DType::*;
    let dtype = match (kind, width) {
        ('f', 2) => Float16,
        ('f', 4) => Float,
        ('f', 8) => Double,
        ('i', 1) => Int8,
        ('i', 2) => Int16,
        ('i', 4) => Int32,
        ('i', 8) => Int64,
        ('u', 1) => Uint8,
        ('u', 2) => Uint16,
        ('u', 4) => Uint32,
        ('u', 8) => Uint64,
        ('b', 1) => Bool,
        ('c', 8) => Complex64,
        ('c', 16) => Complex128,
        ('V', 2) => Bfloat16, // as the package ml_dtypes saves it
        ('U', length) if length < 1 << 20 => return Ok((String, Element::Unicode { length, big })),
        ('S', length) if length < 1 << 20 => return Ok((String, Element::Ascii { length })),
        _ => return Err(unknown()),
    };
    let part = if kind == 'c' { width / 2 } else { width };
    Ok((dtype, Element::Number { width, swap: if big { part } else { 1 } }))
}

/// The elements behind a header, where they lie in memory already: a view of them, if they lie as a tensor's do.
pub(super) fn view(name: &str, header: &Header, elements: Bytes) -> Result<Tensor, String> {
    let Element::Number { width, swap } = header.element else { return body(name, header, &mut elements.as_ref()) };
    let aligned = elements.as_ptr().addr().is_multiple_of(width.max(1));
    if swap > 1 || !aligned || header.fortran && header.dims.len() > 1 {
        return body(name, header, &mut elements.as_ref());
    }
    let length = byte_length(header)?.1;
    if elements.len() < length {
        return Err(ends_early(length, elements.len()));
    }
    Ok(Tensor::new(name, header.dtype, &header.dims, elements.slice(..length)))
}

/// How many elements a header promises, and how many bytes they take.
fn byte_length(header: &Header) -> Result<(usize, usize), String> {
    let count = Tensor::new("", header.dtype, &header.dims, Vec::new()).checked_len().map_err(|e| e.to_string())?;
    Ok((count, count.checked_mul(header.element.width()).ok_or("is too large")?))
}

fn ends_early(promised: usize, there: usize) -> String {
    format!("ends early: {promised} bytes of elements were promised, {there} are there")
}

/// Reads the elements behind a header.
pub(super) fn body(name: &str, header: &Header, file: &mut dyn Read) -> Result<Tensor, String> {
    let (count, length) = byte_length(header)?;
    let mut bytes = Vec::new();
    // What is not there is not allocated for: a header can promise anything.
    let read = file.take(length as u64).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if read != length {
        return Err(ends_early(length, read));
    }
    if header.fortran && header.dims.len() > 1 {
        bytes = to_row_major(&bytes, &header.dims, header.element.width());
    }
    let text = |texts: Vec<Bytes>| {
        let tensor = Tensor::new(name, DType::String, &header.dims, Vec::new());
        Ok(Tensor { string_data: texts, raw_data: None, ..tensor })
    };
    match header.element {
        Element::Number { swap, .. } => {
            if swap > 1 {
                bytes.chunks_exact_mut(swap).for_each(<[u8]>::reverse);
            }
            Ok(Tensor::new(name, header.dtype, &header.dims, bytes))
        }
        Element::Unicode { length: 0, .. } | Element::Ascii { length: 0 } => text(vec![Bytes::new(); count]),
        Element::Unicode { length, big } => text(bytes.chunks_exact(length * 4).map(|e| unicode(e, big)).collect()),
        Element::Ascii { length } => {
            let trimmed = |element: &[u8]| {
                let end = element.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                Bytes::copy_from_slice(&element[..end])
            };
            text(bytes.chunks_exact(length).map(trimmed).collect())
        }
    }
}

fn unicode(element: &[u8], big: bool) -> Bytes {
    let point = |&bytes: &[u8; 4]| if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
    let points = element.as_chunks().0.iter().map(point);
    let text: String = points.map(|point| char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    Bytes::from(text.trim_end_matches('\0').as_bytes().to_vec())
}

/// From the order in which the first axis moves fastest to the one in which the last does.
fn to_row_major(bytes: &[u8], dims: &[i64], width: usize) -> Vec<u8> {
    let dims: Vec<usize> = dims.iter().map(|&size| size as usize).collect();
    let mut strides = vec![1; dims.len()];
    for axis in 1..dims.len() {
        strides[axis] = strides[axis - 1] * dims[axis - 1];
    }
    let mut place = vec![0; dims.len()];
    let mut out = Vec::with_capacity(bytes.len());
    while out.len() < bytes.len() {
        let from: usize = place.iter().zip(&strides).map(|(at, stride)| at * stride).sum();
        out.extend_from_slice(&bytes[from * width..(from + 1) * width]);
        for axis in (0..dims.len()).rev() {
            place[axis] += 1;
            if place[axis] < dims[axis] {
                break;
            }
            place[axis] = 0;
        }
    }
    out
}

/// A tensor as a `.npy` file.
pub(super) fn write(tensor: &Tensor) -> Result<Vec<u8>, String> {
    let widened;
    let tensor = match tensor.dtype() {
        DType::Bfloat16 => {
            widened = tensor.convert(DType::Float).ok_or("cannot be converted to float32")?;
            &widened
        }
        _ => tensor,
    };
    use DType::*;
    let (descr, bytes) = match tensor.dtype() {
        Float16 => ("<f2", None),
        Float => ("<f4", None),
        Double => ("<f8", None),
        Int8 => ("|i1", None),
        Int16 => ("<i2", None),
        Int32 => ("<i4", None),
        Int64 => ("<i8", None),
        Uint8 => ("|u1", None),
        Uint16 => ("<u2", None),
        Uint32 => ("<u4", None),
        Uint64 => ("<u8", None),
        Bool => ("|b1", None),
        Complex64 => ("<c8", None),
        Complex128 => ("<c16", None),
        String => {
            let texts: Vec<Vec<char>> = tensor
                .string_data
                .iter()
                .map(|text| std::string::String::from_utf8_lossy(text).chars().collect())
                .collect();
            let length = texts.iter().map(Vec::len).max().unwrap_or(0).max(1);
            let points = texts.iter().flat_map(|text| (0..length).map(|i| text.get(i).map_or(0, |&c| c as u32)));
            let bytes: Vec<u8> = points.flat_map(u32::to_le_bytes).collect();
            return Ok(assemble(&format!("<U{length}"), tensor.dims(), &bytes));
        }
        other => return Err(format!("is {}, which NumPy does not have", other.spelled())),
    };
    let bytes = bytes.map_or_else(|| tensor.to_bytes(), Ok).map_err(|error| error.to_string())?;
    Ok(assemble(descr, tensor.dims(), &bytes))
}

fn assemble(descr: &str, dims: &[i64], bytes: &[u8]) -> Vec<u8> {
    let sizes: Vec<String> = dims.iter().map(i64::to_string).collect();
    let shape = match sizes.as_slice() {
        [one] => format!("({one},)"),
        many => format!("({})", many.join(", ")),
    };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // The elements begin at a multiple of 64 bytes.
    let total = (10 + header.len() + 1).next_multiple_of(64);
    header.push_str(&" ".repeat(total - 10 - header.len() - 1));
    header.push('\n');
    let mut out = Vec::with_capacity(total + bytes.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[1, 0]);
    out.extend_from_slice(&(header.len() as u16).to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(bytes);
    out
}

fn read_exactly(file: &mut dyn Read, into: &mut [u8]) -> Result<(), String> {
    file.read_exact(into).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "is no .npy file: it ends within its header".into(),
        _ => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Tensor, String> {
        let mut file = bytes;
        let header = header(&mut file)?;
        body("x", &header, &mut file)
    }

    #[test]
    fn what_is_written_is_read_back() {
        for dtype in [DType::Float, DType::Float16, DType::Double, DType::Int64, DType::Uint8, DType::Bool] {
            for dims in [&[][..], &[3], &[2, 3], &[0, 4]] {
                let count = dims.iter().product::<i64>();
                let values: Vec<f64> = (0..count).map(|i| (i % 2) as f64).collect();
                let tensor = Tensor::from_f64s("x", dtype, dims, &values).unwrap();
                assert_eq!(read(&write(&tensor).unwrap()).unwrap(), tensor, "{dtype} {dims:?}");
            }
        }
        let texts = vec![Bytes::from("ä1"), Bytes::from("")];
        let tensor = Tensor { string_data: texts, raw_data: None, ..Tensor::new("x", DType::String, &[2], Vec::new()) };
        assert_eq!(read(&write(&tensor).unwrap()).unwrap(), tensor);
    }

    #[test]
    fn other_byte_and_axis_orders_are_turned() {
        let swapped: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|x| x.to_be_bytes()).collect();
        let file = assemble("x", &[2, 3], &swapped);
        let text = String::from_utf8_lossy(&file).replace("'x'", "'>f4'").replace("False", "True");
        // The header grew by two characters less three: make up for it, so that the length stays what it says.
        let mut bytes = file.clone();
        let header = text.split_once('{').unwrap().1.split_once('}').unwrap().0;
        let line = format!("{{{header}}}");
        let room = bytes.len() - swapped.len() - 10;
        let mut padded = line.into_bytes();
        padded.resize(room, b' ');
        bytes[10..10 + room].copy_from_slice(&padded);
        assert_eq!(read(&bytes).unwrap().to_f32s().unwrap(), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
    }

    #[test]
    fn broken_files_are_told() {
        assert_eq!(read(b"nothing at all").unwrap_err(), "is no .npy file: it does not begin as one");
        assert_eq!(read(b"\x93NUM").unwrap_err(), "is no .npy file: it ends within its header");
        let mut file = write(&Tensor::from_f32("x", &[4], &[0.0; 4])).unwrap();
        file.truncate(file.len() - 3);
        assert_eq!(read(&file).unwrap_err(), "ends early: 16 bytes of elements were promised, 13 are there");
        let objects = assemble("|O", &[1], &[0; 8]);
        assert!(read(&objects).unwrap_err().starts_with("holds Python objects, not numbers"));
        let huge = assemble("<f4", &[1 << 40, 1 << 40], &[]);
        assert!(read(&huge).is_err());
    }
}
