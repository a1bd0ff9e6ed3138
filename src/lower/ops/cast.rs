//! Changes of element type.
//!
//! ONNX: Cast, CastLike (opset 9 and later), every type but text and complex numbers; saturate and round_mode. HLO:
//! convert; to bool, compare with 0; to the small floats, maximum and minimum first; to float8e8m0, the exponent's bits.

use super::Problem;
use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Binary, Builder, Direction, Op, element_number, packed};
use crate::onnx::DType;

/// Cast and CastLike.
pub fn cast(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let to = match call.node.op_type.as_str() {
        "CastLike" => {
            let like = call.node.input(1).ok_or("its input 1 is missing")?;
            call.graph.value(like).dtype
        }
        _ => i32::try_from(call.int("to", 0)).ok().and_then(DType::from_number),
    };
    let to = to.ok_or("the type to cast to is not known")?;
    if element_number(to) == 0 {
        return Err(format!("a cast to {to} is not lowered").into());
    }
    let saturate = call.int("saturate", 1) != 0;
    if to == DType::Float8E8M0 {
        let rounding = call.text("round_mode", "up");
        return Ok(vec![to_exponent(call.b, x, saturate, &rounding)?]);
    }
    Ok(vec![convert(call.b, x, to, saturate)])
}

/// A tensor of another type, as ONNX casts. With `saturate`, what a small float cannot hold becomes its largest number;
/// without, what the type has for it: infinity or NaN.
pub fn convert(b: &mut Builder, x: Op, to: DType, saturate: bool) -> Op {
    let from = b.dtype(x);
    if to == DType::Bool && from != DType::Bool {
        let zero = b.full_like(x, 0.0);
        return b.compare(Direction::Ne, x, zero);
    }
    if from == to {
        return x;
    }
    match largest(to) {
        Some(largest) => {
            if !saturate && from.is_float() {
                return b.convert(x, to);
            }
            // What is narrower than float32 holds less than some of these types.
            let x = if from == DType::Double { x } else { b.convert(x, DType::Float) };
            let x = b.at_least(x, -largest);
            let x = b.at_most(x, largest);
            b.convert(x, to)
        }
        // Whole numbers of less than a byte keep their low bits, as wider ones do.
        None if packed::wider(to).is_some() && from.is_float() => {
            let whole = b.convert(x, DType::Int32);
            b.convert(whole, to)
        }
        None => b.convert(x, to),
    }
}

/// The largest number of a float of 8 bits or less that has a sign.
pub fn largest(dtype: DType) -> Option<f64> {
    Some(match dtype {
        DType::Float8E4M3FN => 448.0,
        DType::Float8E4M3FNUZ => 240.0,
        DType::Float8E5M2 | DType::Float8E5M2FNUZ => 57344.0,
        DType::Float4E2M1 => 6.0,
        _ => return None,
    })
}

/// To float8e8m0, which is a float32's exponent: powers of two, 255 for what is no number.
fn to_exponent(b: &mut Builder, x: Op, saturate: bool, rounding: &str) -> Result<Op, Problem> {
    let x = b.convert(x, DType::Float);
    let bits = b.bitcast(x, DType::Int32);
    let masked = |b: &mut Builder, x: Op, mask: i64| {
        let mask = b.integers(DType::Int32, &[], &[mask]);
        b.binary_across(Binary::And, x, mask)
    };
    let places = b.full_like(bits, 23.0);
    let shifted = b.binary(Binary::ShiftRightLogical, bits, places);
    let exponent = masked(b, shifted, 0xff);
    let fraction = masked(b, bits, 0x7f_ffff);
    let half = b.full_like(fraction, f64::from(0x40_0000));
    let zero = b.full_like(fraction, 0.0);
    let up = match rounding {
        "up" => b.compare(Direction::Gt, fraction, zero),
        "down" => b.compare(Direction::Lt, fraction, zero),
        "nearest" => {
            // Half goes up, except below the smallest normal number.
            let above = b.compare(Direction::Gt, fraction, half);
            let tied = b.compare(Direction::Eq, fraction, half);
            let normal = b.compare(Direction::Gt, exponent, zero);
            let tied = b.binary(Binary::And, tied, normal);
            b.binary(Binary::Or, above, tied)
        }
        other => return Err(format!("'{other}' is no way to round").into()),
    };
    let up = b.convert(up, DType::Int32);
    let moved = b.add(exponent, up);
    let moved = b.at_most(moved, if saturate { 254.0 } else { 255.0 });
    let none = b.full_like(exponent, 255.0);
    let is_none = b.compare(Direction::Eq, exponent, none);
    let code = b.select(is_none, none, moved);
    let code = b.convert(code, DType::Uint8);
    Ok(b.bitcast(code, DType::Float8E8M0))
}
