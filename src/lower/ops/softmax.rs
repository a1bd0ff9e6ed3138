//! Softmax, LogSoftmax, Hardmax.
//!
//! ONNX: opset 13 and later normalise along one axis; before, everything from `axis` on counts as one. HLO: reduce,
//! subtract, exponential, divide, log; Hardmax compares with the first place of the largest. Types under 32 bits compute
//! in float32.

use super::Problem;
use super::arg::first_place;
use super::wide;
use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Builder, Direction, Op};
use crate::onnx::DType;

/// The tensor and the dimension to normalise along, and the sizes to give back.
fn arrange(call: &mut Call) -> Result<(Op, usize, Vec<i64>), Problem> {
    let x = call.input(0)?;
    let dims = call.b.dims(x);
    if call.opset >= 13 {
        let axis = call.axis("axis", -1, dims.len())?;
        return Ok((x, axis, dims));
    }
    let axis = call.int("axis", 1);
    let axis = if axis == dims.len() as i64 { dims.len() } else { crate::lower::call::axis(axis, dims.len())? };
    let flat = [dims[..axis].iter().product(), dims[axis..].iter().product()];
    Ok((call.b.reshape(x, &flat), 1, dims))
}

/// Softmax and LogSoftmax.
pub fn softmax(call: &mut Call) -> Lowered {
    let (x, axis, dims) = arrange(call)?;
    let log = call.node.op_type == "LogSoftmax";
    let (x, narrow) = wide(call.b, x);
    let b = &mut *call.b;
    let made = if log { log_softmax_along(b, x, axis) } else { softmax_along(b, x, axis) };
    let made = b.convert(made, narrow);
    Ok(vec![b.reshape(made, &dims)])
}

/// `exp(x - max) / sum` along a dimension.
pub fn softmax_along(b: &mut Builder, x: Op, axis: usize) -> Op {
    let (dims, along) = (b.dims(x), [axis as i64]);
    let top = b.largest(x, &along);
    let top = b.spread(top, &dims, &along);
    let moved = b.sub(x, top);
    let powers = b.exp(moved);
    let sum = b.sum(powers, &along);
    let sum = b.spread(sum, &dims, &along);
    b.div(powers, sum)
}

fn log_softmax_along(b: &mut Builder, x: Op, axis: usize) -> Op {
    let (dims, along) = (b.dims(x), [axis as i64]);
    let top = b.largest(x, &along);
    let top = b.spread(top, &dims, &along);
    let moved = b.sub(x, top);
    let powers = b.exp(moved);
    let sum = b.sum(powers, &along);
    let log = b.log(sum);
    let log = b.spread(log, &dims, &along);
    b.sub(moved, log)
}

/// Hardmax: 1 at the first place of the largest, 0 elsewhere.
pub fn hardmax(call: &mut Call) -> Lowered {
    let (x, axis, dims) = arrange(call)?;
    let b = &mut *call.b;
    let flat = b.dims(x);
    let first = first_place(b, x, axis, true, false);
    let first = b.spread(first, &flat, &[axis as i64]);
    let places = b.iota(DType::Int32, &flat, axis);
    let first = b.convert(first, DType::Int32);
    let hit = b.compare(Direction::Eq, places, first);
    let (one, zero) = (b.full_like(x, 1.0), b.full_like(x, 0.0));
    let made = b.select(hit, one, zero);
    Ok(vec![b.reshape(made, &dims)])
}
