//! Numbers of eight bits and fewer that are no plain bytes: float8, float6, float4, and whole numbers of four and two bits.
//!
//! Such a type has at most 256 numbers, so each is a table: a code's number, and a number's nearest code. Elements of less
//! than a byte are packed, the first one in the lowest bits.

use super::DType;

/// How a small float is made: `sign exponent mantissa`.
struct Form {
    exponent: u32,
    mantissa: u32,
    bias: i32,
    /// Which codes are no numbers.
    odd: Odd,
}

enum Odd {
    /// None: every code is a number.
    None,
    /// As in IEEE 754: the largest exponent is infinity and NaN.
    Largest,
    /// The largest exponent with the largest mantissa is NaN.
    LargestOnly,
    /// What would be minus zero is NaN.
    MinusZero,
}

fn form(dtype: DType) -> Option<Form> {
    let (exponent, mantissa, bias, odd) = match dtype {
        DType::Float8E4M3FN => (4, 3, 7, Odd::LargestOnly),
        DType::Float8E4M3FNUZ => (4, 3, 8, Odd::MinusZero),
        DType::Float8E5M2 => (5, 2, 15, Odd::Largest),
        DType::Float8E5M2FNUZ => (5, 2, 16, Odd::MinusZero),
        DType::Float6E2M3 => (2, 3, 1, Odd::None),
        DType::Float6E3M2 => (3, 2, 3, Odd::None),
        DType::Float4E2M1 => (2, 1, 1, Odd::None),
        _ => return None,
    };
    Some(Form { exponent, mantissa, bias, odd })
}

/// Whether this is a type of small numbers.
pub fn is_small(dtype: DType) -> bool {
    let whole = matches!(dtype, DType::Int4 | DType::Uint4 | DType::Int2 | DType::Uint2);
    whole || dtype == DType::Float8E8M0 || form(dtype).is_some()
}

/// The number of a code; `None` for NaN and infinity, and for other types.
pub fn number(dtype: DType, code: u8) -> Option<f64> {
    match dtype {
        DType::Uint4 => return Some(f64::from(code & 15)),
        DType::Int4 => return Some(f64::from((code << 4) as i8 >> 4)),
        DType::Uint2 => return Some(f64::from(code & 3)),
        DType::Int2 => return Some(f64::from((code << 6) as i8 >> 6)),
        // A power of two and nothing else.
        DType::Float8E8M0 => return (code != 255).then(|| 2f64.powi(i32::from(code) - 127)),
        _ => {}
    }
    let Form { exponent, mantissa, bias, odd } = form(dtype)?;
    let (tail, power) = (u32::from(code) & ((1 << mantissa) - 1), u32::from(code) >> mantissa & ((1 << exponent) - 1));
    let negative = code >> (exponent + mantissa) & 1 == 1;
    let (top, full) = ((1 << exponent) - 1, (1 << mantissa) - 1);
    let is_odd = match odd {
        Odd::None => false,
        Odd::Largest => power == top,
        Odd::LargestOnly => power == top && tail == full,
        Odd::MinusZero => negative && power == 0 && tail == 0,
    };
    let scale = 2f64.powi(power.max(1) as i32 - bias - mantissa as i32);
    let whole = if power == 0 { tail } else { tail + (1 << mantissa) };
    let size = f64::from(whole) * scale;
    (!is_odd).then_some(if negative { -size } else { size })
}

/// The numbers of a type in their order, to find the nearest one.
pub struct Codes {
    whole: bool,
    numbers: Vec<(f64, u8)>,
}

impl Codes {
    /// The numbers of a small type; none of another.
    pub fn of(dtype: DType) -> Self {
        let codes = 0..=u8::MAX >> (8 - dtype.bits().clamp(1, 8));
        let mut numbers: Vec<(f64, u8)> = codes.filter_map(|code| Some((number(dtype, code)?, code))).collect();
        numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self { whole: matches!(dtype, DType::Int4 | DType::Uint4 | DType::Int2 | DType::Uint2), numbers }
    }

    /// The code of the nearest number, of two equally near ones the even code; for whole numbers of what is left towards
    /// zero, as other whole types are filled. What lies beyond the largest number becomes that.
    pub fn nearest(&self, x: f64) -> u8 {
        let x = if self.whole { x.trunc() } else { x };
        let above = self.numbers.partition_point(|(number, _)| *number < x);
        let around = self.numbers[above.saturating_sub(1)..].iter().take(2);
        let nearest = around.min_by(|a, b| {
            let distance = |(number, code): &(f64, u8)| ((number - x).abs(), code % 2);
            distance(a).partial_cmp(&distance(b)).unwrap_or(std::cmp::Ordering::Equal)
        });
        nearest.map_or(0, |(_, code)| *code)
    }
}

/// The codes of packed elements.
pub fn unpack(dtype: DType, bytes: &[u8], count: usize) -> Vec<u8> {
    let bits = dtype.bits();
    let at = |index: usize| {
        let (byte, shift) = (index * bits / 8, index * bits % 8);
        let both = u16::from(bytes[byte]) | bytes.get(byte + 1).map_or(0, |&next| u16::from(next) << 8);
        (both >> shift) as u8 & (u8::MAX >> (8 - bits))
    };
    (0..count).map(at).collect()
}

/// Appends the packed elements; the last byte is filled up with zeros.
pub fn pack(dtype: DType, codes: impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    let bits = dtype.bits();
    let (mut held, mut filled) = (0u16, 0);
    for code in codes {
        held |= u16::from(code) << filled;
        filled += bits;
        if filled >= 8 {
            out.push(held as u8);
            held >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push(held as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: [DType; 12] = [
        DType::Float8E4M3FN,
        DType::Float8E4M3FNUZ,
        DType::Float8E5M2,
        DType::Float8E5M2FNUZ,
        DType::Float8E8M0,
        DType::Float6E2M3,
        DType::Float6E3M2,
        DType::Float4E2M1,
        DType::Int4,
        DType::Uint4,
        DType::Int2,
        DType::Uint2,
    ];

    #[test]
    fn every_number_has_its_own_code() {
        for dtype in TYPES {
            let codes = Codes::of(dtype);
            for code in 0..=u8::MAX >> (8 - dtype.bits()) {
                let Some(number) = number(dtype, code) else { continue };
                let again = codes.nearest(number);
                assert!(again == code || (number == 0.0 && super::number(dtype, again) == Some(0.0)), "{dtype} {code}");
            }
        }
    }

    /// The largest numbers are those of ONNX's description of the types.
    #[test]
    fn the_largest_numbers() {
        let largest = |dtype| (0..=255u8).filter_map(|code| number(dtype, code)).fold(0.0, f64::max);
        let all: Vec<f64> = TYPES[..4].iter().chain(&TYPES[5..]).map(|&dtype| largest(dtype)).collect();
        assert_eq!(all, [448.0, 240.0, 57344.0, 57344.0, 7.5, 28.0, 6.0, 7.0, 15.0, 1.0, 3.0]);
        let nearest = |dtype, x| Codes::of(dtype).nearest(x);
        // 2.5 lies between 2 (code 4) and 3 (code 5).
        assert_eq!((nearest(DType::Float8E4M3FN, 1e9), nearest(DType::Float4E2M1, 2.5)), (0x7e, 4));
        assert_eq!((nearest(DType::Int4, -2.9), nearest(DType::Uint4, -2.9)), (0b1110, 0));
    }

    #[test]
    fn packing_and_unpacking() {
        for dtype in TYPES {
            let codes: Vec<u8> = (0..21u8).map(|i| (i * 7) & (u8::MAX >> (8 - dtype.bits()))).collect();
            let mut bytes = Vec::new();
            pack(dtype, codes.iter().copied(), &mut bytes);
            assert_eq!(Some(bytes.len()), dtype.byte_len(21));
            assert_eq!(unpack(dtype, &bytes, 21), codes);
        }
        assert_eq!(
            {
                let mut out = Vec::new();
                pack(DType::Int4, [1, 2, 3].into_iter(), &mut out);
                out
            },
            [0x21, 0x03]
        );
    }
}
