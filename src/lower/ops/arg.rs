//! Where the largest and smallest stand.
//!
//! ONNX: ArgMax, ArgMin (opset 11 and later), TopK (opset 10 and later). HLO: ArgMax is a reduce for the value, compare,
//! select over an iota and a second reduce for the place; TopK is a stable sort of values and places, then slices. A
//! target without a sort does not take TopK.

use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Builder, Direction, Op};
use crate::onnx::DType;

/// ArgMax and ArgMin.
pub fn arg(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let largest = call.node.op_type == "ArgMax";
    let rank = call.b.dims(x).len();
    let axis = call.axis("axis", 0, rank)?;
    let last = call.int("select_last_index", 0) != 0;
    let made = first_place(call.b, x, axis, largest, last);
    let shape = call.output(0)?;
    let made = call.b.convert(made, shape.dtype);
    Ok(vec![call.b.reshape(made, &shape.dims)])
}

/// The first (or last) place of the largest (or smallest) along a dimension, which goes away; int32.
pub fn first_place(b: &mut Builder, x: Op, axis: usize, largest: bool, last: bool) -> Op {
    let (dims, along) = (b.dims(x), [axis as i64]);
    let best = if largest { b.largest(x, &along) } else { b.smallest(x, &along) };
    let best = b.spread(best, &dims, &along);
    let hit = b.compare(Direction::Eq, x, best);
    let places = b.iota(DType::Int32, &dims, axis);
    let outside = b.full_like(places, if last { -1.0 } else { dims[axis] as f64 });
    let held = b.select(hit, places, outside);
    let place = if last { b.largest(held, &along) } else { b.smallest(held, &along) };
    // Where nothing equals the best, it is NaN: any place inside will do.
    let place = b.at_least(place, 0.0);
    b.at_most(place, (dims[axis] - 1).max(0) as f64)
}

/// TopK.
pub fn top_k(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let dims = call.b.dims(x);
    let axis = call.axis("axis", -1, dims.len())?;
    let k = match call.has(1) {
        true => call.ints_of(1)?.first().copied().ok_or("its k is empty")?,
        false => call.int("k", 1),
    };
    if k < 0 || k > dims[axis] {
        return Err(format!("{k} of {} elements are asked for", dims[axis]).into());
    }
    let descending = call.int("largest", 1) != 0;
    let b = &mut *call.b;
    let places = b.iota(DType::Int32, &dims, axis);
    let sorted = b.sort(&[x, places], axis, descending);
    let values = b.slice_axis(sorted[0], axis, 0, k);
    let places = b.slice_axis(sorted[1], axis, 0, k);
    let places = b.convert(places, DType::Int64);
    Ok(vec![values, places])
}
