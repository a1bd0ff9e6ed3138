//! Parts of tensors and tensors of parts.
//!
//! | ONNX (opset 10 and later) | HLO |
//! | --- | --- |
//! | Slice | slice; reverse before it for negative steps |
//! | Split | one slice an output, with bounds and stride on every dimension |
//! | Concat | concatenate |
//! | Pad: constant | pad |
//! | Pad: reflect, edge, wrap | slice, reverse, broadcast, concatenate |

use super::pick::pick;
use crate::lower::call::{Call, Lowered, axis};
use crate::lower::hlo::Op;
use crate::onnx::DType;

/// Concat.
pub fn concat(call: &mut Call) -> Lowered {
    let mut parts: Vec<Op> = Vec::new();
    for index in 0..call.arity() {
        parts.push(call.input(index)?);
    }
    let rank = call.b.dims(*parts.first().ok_or("it has no inputs")?).len();
    let axis = call.axis("axis", 1, rank)?;
    Ok(vec![call.b.concatenate(&parts, axis)])
}

/// Split: sizes in an input (13 and later), in an attribute (before), or equal.
pub fn split(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let rank = call.b.dims(x).len();
    let axis = call.axis("axis", 0, rank)?;
    let mut made = Vec::new();
    let mut start = 0;
    for index in 0..call.node.outputs.len() {
        let size = match call.node.output(index) {
            Some(_) => call.output(index)?.dims.get(axis).copied(),
            None => call.ints_at(1, "split")?.and_then(|sizes| sizes.get(index).copied()),
        };
        let size = size.ok_or("the sizes of its parts are not known")?;
        made.push(call.b.slice_axis(x, axis, start, start + size));
        start += size;
    }
    Ok(made)
}

/// Slice.
pub fn slice(call: &mut Call) -> Lowered {
    let mut x = call.input(0)?;
    let dims = call.b.dims(x);
    let rank = dims.len();
    let starts = call.ints_at(1, "starts")?.ok_or("its starts are missing")?;
    let ends = call.ints_at(2, "ends")?.ok_or("its ends are missing")?;
    let axes = call.ints_at(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = call.ints_at(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err("its bounds are not equally many".into());
    }
    let (mut from, mut to, mut by) = (vec![0; rank], dims.clone(), vec![1; rank]);
    let mut reversed = Vec::new();
    for i in 0..starts.len() {
        let at = axis(axes[i], rank)?;
        let size = dims[at];
        let count = |bound: i64| if bound < 0 { bound.saturating_add(size) } else { bound };
        if steps[i] > 0 {
            from[at] = count(starts[i]).clamp(0, size);
            to[at] = count(ends[i]).clamp(from[at], size);
            by[at] = steps[i].min(size.max(1)); // a longer step reaches no more
        } else if steps[i] < 0 {
            // In the reversed tensor, place p stands at size - 1 - p.
            if size == 0 {
                continue;
            }
            let (first, last) = (count(starts[i]).clamp(0, size - 1), count(ends[i]).clamp(-1, size - 1));
            reversed.push(at as i64);
            from[at] = size - 1 - first;
            to[at] = (size - 1 - last).max(from[at]);
            by[at] = steps[i].saturating_neg().min(size);
        } else {
            return Err("a step is 0".into());
        }
    }
    x = call.b.reverse(x, &reversed);
    Ok(vec![call.b.slice(x, &from, &to, &by)])
}

/// Pad.
pub fn pad(call: &mut Call) -> Lowered {
    let mut x = call.input(0)?;
    let dims = call.b.dims(x);
    let rank = dims.len();
    let pads = call.ints_at(1, "pads")?.ok_or("its pads are missing")?;
    let axes = match call.has(3) {
        true => call.ints_of(3)?,
        false => (0..rank as i64).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(format!("{} pads for {} axes", pads.len(), axes.len()).into());
    }
    let (mut low, mut high) = (vec![0; rank], vec![0; rank]);
    for (i, &one) in axes.iter().enumerate() {
        let at = axis(one, rank)?;
        low[at] = pads[i];
        high[at] = pads[i + axes.len()];
    }
    let mode = call.text("mode", "constant");
    if mode == "constant" {
        let dtype = call.b.dtype(x);
        let value = match call.optional(2)? {
            Some(value) => call.b.reshape(value, &[]),
            None => call.b.scalar(dtype, f64::from(call.node.float("value").unwrap_or(0.0))),
        };
        return Ok(vec![call.b.pad(x, value, &low, &high, &vec![0; rank])]);
    }
    for at in 0..rank {
        let size = dims[at];
        if low[at] == 0 && high[at] == 0 {
            continue;
        }
        if size == 0 {
            return Err(format!("a dimension of size 0 cannot be padded by {mode}").into());
        }
        // What is cut off goes first; the rest is padded from what is left.
        let (cut_low, cut_high) = ((-low[at]).max(0), (-high[at]).max(0));
        let left = size - cut_low - cut_high;
        if left <= 0 {
            return Err(format!("of a dimension of size {size} nothing is left to pad by {mode}").into());
        }
        let place = |i: i64| match mode.as_str() {
            "edge" => i.clamp(0, left - 1),
            "wrap" => i.rem_euclid(left),
            _ if left == 1 => 0,
            _ => {
                let period = 2 * (left - 1);
                let i = i.rem_euclid(period);
                if i < left { i } else { period - i }
            }
        };
        let indices: Vec<i64> = (-low[at].max(0)..left + high[at].max(0)).map(|i| place(i) + cut_low).collect();
        x = pick(call.b, x, at, &indices);
    }
    Ok(vec![x])
}

/// Gather along an axis at constant places, or at places that come in.
///
/// ONNX: Gather (opset 11 and later). HLO: slices for constant places, else gather.
pub fn gather(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let dims = call.b.dims(x);
    let axis = call.axis("axis", 0, dims.len())?;
    let out = call.output(0)?.dims;
    if let Ok(places) = call.ints_of(1) {
        let counted: Vec<i64> = places.iter().map(|&i| if i < 0 { i + dims[axis] } else { i }).collect();
        if counted.iter().any(|&i| i < 0 || i >= dims[axis]) {
            return Err(format!("a place is outside of {} elements", dims[axis]).into());
        }
        let picked = pick(call.b, x, axis, &counted);
        return Ok(vec![call.b.reshape(picked, &out)]);
    }
    let indices = call.input(1)?;
    let b = &mut *call.b;
    let indices = from_the_front(b, indices, dims[axis]);
    let mut column = b.dims(indices);
    column.push(1);
    let indices = b.reshape(indices, &column);
    Ok(vec![super::pick::gather_axis(b, x, axis, indices)])
}

/// Indices, those from the end counted from the front.
pub fn from_the_front(b: &mut crate::lower::hlo::Builder, indices: Op, size: i64) -> Op {
    if matches!(b.dtype(indices), DType::Uint8 | DType::Uint16 | DType::Uint32 | DType::Uint64) {
        return indices;
    }
    let behind = b.add_number(indices, size as f64);
    let zero = b.full_like(indices, 0.0);
    let below = b.compare(crate::lower::hlo::Direction::Lt, indices, zero);
    b.select(below, behind, indices)
}
