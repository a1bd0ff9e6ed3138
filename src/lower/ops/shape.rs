//! The same elements under other sizes, and tensors that sizes alone decide.
//!
//! | ONNX (opset 11 and later) | HLO |
//! | --- | --- |
//! | Reshape, Flatten, Squeeze, Unsqueeze | reshape |
//! | Identity, Dropout (which does nothing when a model runs) | nothing |
//! | Transpose | transpose |
//! | Expand, Tile | broadcast and reshape |
//! | DepthToSpace, SpaceToDepth | reshape and transpose |
//! | Shape, Size, ConstantOfShape, EyeLike, Range | constant, broadcast, iota |

use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::Direction;
use crate::onnx::DType;

/// Reshape, Flatten, Squeeze, Unsqueeze: the sizes are inferred.
pub fn reshape(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let dims = call.output(0)?.dims;
    Ok(vec![call.b.reshape(x, &dims)])
}

/// Identity, and Dropout when a model runs.
pub fn identity(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    if call.has(2) {
        let training = call.ints_of(2)?;
        if training.first().is_some_and(|&on| on != 0) && call.numbers_of(1).map_or(true, |ratio| ratio != [0.0]) {
            return Err("dropout while training is random".into());
        }
    }
    if call.wants(1) {
        let mask = call.output(1)?;
        let mask = call.b.full(mask, 1.0);
        return Ok(vec![x, mask]);
    }
    Ok(vec![x])
}

/// Transpose.
pub fn transpose(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let rank = call.b.dims(x).len() as i64;
    let perm = call.node.ints("perm").map_or_else(|| (0..rank).rev().collect(), <[i64]>::to_vec);
    let perm: Vec<i64> = perm.into_iter().map(|p| if p < 0 { p + rank } else { p }).collect();
    Ok(vec![call.b.transpose(x, &perm)])
}

/// Expand.
pub fn expand(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let dims = call.output(0)?.dims;
    Ok(vec![call.b.expand(x, &dims)])
}

/// Tile: each dimension becomes two, the first of which repeats.
pub fn tile(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let repeats = call.ints_of(1)?;
    let dims = call.b.dims(x);
    if repeats.len() != dims.len() || repeats.iter().any(|&n| n < 0) {
        return Err(format!("repeats {repeats:?} do not fit sizes {dims:?}").into());
    }
    let double: Vec<i64> = repeats.iter().zip(&dims).flat_map(|(&n, &size)| [n, size]).collect();
    let places: Vec<i64> = (0..dims.len() as i64).map(|i| 2 * i + 1).collect();
    let whole: Vec<i64> = repeats.iter().zip(&dims).map(|(&n, &size)| n * size).collect();
    let repeated = call.b.broadcast(x, &double, &places);
    Ok(vec![call.b.reshape(repeated, &whole)])
}

/// DepthToSpace and SpaceToDepth.
pub fn depth(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let dims = call.b.dims(x);
    let [n, c, h, w] = dims[..] else { return Err("it needs 4 dimensions".into()) };
    let block = call.int("blocksize", 1).max(1);
    let out = call.output(0)?.dims;
    let (split, perm) = if call.node.op_type == "SpaceToDepth" {
        let perm = if call.text("mode", "DCR") == "CRD" { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] };
        ([n, c, h / block, block, w / block, block], perm)
    } else if call.text("mode", "DCR") == "CRD" {
        ([n, c / (block * block), block, block, h, w], [0, 1, 4, 2, 5, 3])
    } else {
        ([n, block, block, c / (block * block), h, w], [0, 3, 4, 1, 5, 2])
    };
    let b = &mut *call.b;
    let split = b.reshape(x, &split);
    let moved = b.transpose(split, &perm);
    Ok(vec![b.reshape(moved, &out)])
}

/// Shape and Size.
pub fn sizes(call: &mut Call) -> Lowered {
    let dims = call.dims(0)?;
    if call.node.op_type == "Size" {
        return Ok(vec![call.b.integers(DType::Int64, &[], &[dims.iter().product()])]);
    }
    let rank = dims.len() as i64;
    let place = |name: &str, default: i64| {
        let at = call.int(name, default);
        (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize
    };
    let (start, end) = (place("start", 0), place("end", rank));
    let kept = if start < end { &dims[start..end] } else { &[] };
    let kept = kept.to_vec();
    Ok(vec![call.b.integers(DType::Int64, &[kept.len() as i64], &kept)])
}

/// ConstantOfShape.
pub fn constant_of_shape(call: &mut Call) -> Lowered {
    let shape = call.output(0)?;
    let value = match call.node.attr("value") {
        Some(crate::graph::AttributeValue::Tensor(tensor)) => {
            tensor.to_f64s().ok().and_then(|values| values.first().copied()).ok_or("its value is not a number")?
        }
        _ => 0.0,
    };
    Ok(vec![call.b.full(shape, value)])
}

/// EyeLike.
pub fn eye_like(call: &mut Call) -> Lowered {
    let shape = call.output(0)?;
    let k = call.int("k", 0);
    let b = &mut *call.b;
    let rows = b.iota(DType::Int32, &shape.dims, 0);
    let columns = b.iota(DType::Int32, &shape.dims, 1);
    let moved = b.add_number(rows, k as f64);
    let on = b.compare(Direction::Eq, columns, moved);
    Ok(vec![b.convert(on, shape.dtype)])
}

/// Range, whose bounds are constants.
pub fn range(call: &mut Call) -> Lowered {
    let (start, step) = (call.numbers_of(0)?, call.numbers_of(2)?);
    let shape = call.output(0)?;
    let (Some(&start), Some(&step)) = (start.first(), step.first()) else { return Err("its bounds are empty".into()) };
    let b = &mut *call.b;
    if shape.dtype.is_float() {
        // Step by step, as the operator is defined.
        let values: Vec<f64> = (0..shape.len()).map(|i| start + i as f64 * step).collect();
        return Ok(vec![b.numbers(shape.dtype, &shape.dims, &values)]);
    }
    let values: Vec<i64> = (0..shape.len()).map(|i| start as i64 + i * step as i64).collect();
    Ok(vec![b.integers(shape.dtype, &shape.dims, &values)])
}

/// Trilu: the triangle above or below a diagonal.
///
/// ONNX: opset 14 and later. HLO: iota, compare, select.
pub fn trilu(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let k = if call.has(1) { call.ints_of(1)?.first().copied().unwrap_or(0) } else { 0 };
    let upper = call.int("upper", 1) != 0;
    let b = &mut *call.b;
    let dims = b.dims(x);
    let rank = dims.len();
    if rank < 2 {
        return Err("it needs 2 dimensions or more".into());
    }
    let rows = b.iota(DType::Int32, &dims, rank - 2);
    let columns = b.iota(DType::Int32, &dims, rank - 1);
    let k = k.clamp(-(1 << 30), 1 << 30);
    let edge = b.add_number(rows, k as f64);
    let keep = b.compare(if upper { Direction::Ge } else { Direction::Le }, columns, edge);
    let zero = b.full_like(x, 0.0);
    Ok(vec![b.select(keep, x, zero)])
}

/// OneHot.
///
/// ONNX: opset 9 and later, the depth a constant. HLO: iota, compare, select.
pub fn one_hot(call: &mut Call) -> Lowered {
    let (indices, values) = (call.input(0)?, call.input(2)?);
    let shape = call.output(0)?;
    let axis = call.axis("axis", -1, shape.rank())?;
    let b = &mut *call.b;
    let depth = shape.dims[axis];
    let indices = b.convert(indices, DType::Int64);
    let behind = b.add_number(indices, depth as f64);
    let zero = b.full_like(indices, 0.0);
    let below = b.compare(Direction::Lt, indices, zero);
    let indices = b.select(below, behind, indices);
    let indices = b.spread(indices, &shape.dims, &[axis as i64]);
    let places = b.iota(DType::Int64, &shape.dims, axis);
    let hit = b.compare(Direction::Eq, places, indices);
    let pick = |b: &mut crate::lower::hlo::Builder, i: i64| {
        let one = b.slice(values, &[i], &[i + 1], &[1]);
        let one = b.reshape(one, &[]);
        b.broadcast(one, &shape.dims, &[])
    };
    let (off, on) = (pick(b, 0), pick(b, 1));
    Ok(vec![b.select(hit, on, off)])
}

/// ReverseSequence.
///
/// ONNX: opset 10 and later. HLO: iota, compare, select, gather.
pub fn reverse_sequence(call: &mut Call) -> Lowered {
    let (x, lengths) = (call.input(0)?, call.input(1)?);
    let (time, batch) = (call.int("time_axis", 0) as usize, call.int("batch_axis", 1) as usize);
    let b = &mut *call.b;
    let dims = b.dims(x);
    if time > 1 || batch > 1 || time == batch || dims.len() < 2 {
        return Err("its axes are not 0 and 1".into());
    }
    let plane = [dims[0], dims[1]];
    let steps = b.iota(DType::Int64, &plane, time);
    let lengths = b.convert(lengths, DType::Int64);
    let lengths = b.broadcast(lengths, &plane, &[batch as i64]);
    let inside = b.compare(Direction::Lt, steps, lengths);
    let last = b.add_number(lengths, -1.0);
    let mirrored = b.sub(last, steps);
    let from = b.select(inside, mirrored, steps);
    let own = b.iota(DType::Int64, &plane, batch);
    let pair = if time == 0 { [from, own] } else { [own, from] };
    let column: Vec<_> = pair.iter().map(|&index| b.reshape(index, &[plane[0], plane[1], 1])).collect();
    let vectors = b.concatenate(&column, 2);
    let made = super::gather::gather_points(b, x, vectors, 2);
    Ok(vec![made])
}
