//! Reductions, and running sums.
//!
//! | ONNX | HLO |
//! | --- | --- |
//! | ReduceSum, Max, Min, Prod, Mean, L1, L2, SumSquare, LogSum, LogSumExp (opset 11 and later, axes in an attribute or an input) | reduce, with arithmetic around it |
//! | GlobalAveragePool, GlobalMaxPool, GlobalLpPool | reduce |
//! | CumSum, CumProd (the axis a constant) | pad, slice and add, doubling the step each time |
//!
//! Types under 32 bits sum in float32.

use super::{Problem, wide};
use crate::lower::call::{Call, Lowered, axes, axis};
use crate::lower::hlo::{Binary, Builder, Op, Unary};
use crate::onnx::DType;

/// The Reduce family.
pub fn reduce(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let rank = call.b.dims(x).len();
    let given = call.ints_at(1, "axes")?.unwrap_or_default();
    let dims = match given.is_empty() {
        true if call.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
        true => (0..rank as i64).collect(),
        false => axes(&given, rank)?,
    };
    let shape = call.output(0)?;
    let op_type = call.node.op_type.clone();
    let made = reduced(call.b, x, &dims, &op_type)?;
    Ok(vec![call.b.reshape(made, &shape.dims)])
}

/// A reduction by its ONNX name; the dimensions go away.
fn reduced(b: &mut Builder, x: Op, dims: &[i64], op_type: &str) -> Result<Op, Problem> {
    let (mut wider, narrow) = wide(b, x);
    if op_type.starts_with("ReduceLog") && !narrow.is_float() {
        // There is no logarithm of whole numbers: floats, then cut.
        wider = b.convert(x, DType::Double);
    }
    let count: i64 = dims.iter().map(|&i| b.dims(x)[i as usize]).product();
    let made = match op_type {
        "ReduceSum" => b.sum(wider, dims),
        "ReduceMax" | "ReduceMin" if narrow == DType::Bool => {
            let (init, binary) = if op_type == "ReduceMax" { (0.0, Binary::Or) } else { (1.0, Binary::And) };
            let init = b.scalar(DType::Bool, init);
            b.reduce(x, init, dims, binary)
        }
        "ReduceMax" => b.largest(x, dims),
        "ReduceMin" => b.smallest(x, dims),
        "ReduceProd" => {
            let one = b.scalar(b.dtype(wider), 1.0);
            b.reduce(wider, one, dims, Binary::Multiply)
        }
        "ReduceMean" => {
            let sum = b.sum(wider, dims);
            let count = b.full_like(sum, count as f64);
            b.div(sum, count)
        }
        "ReduceL1" => {
            let size = b.abs(wider);
            b.sum(size, dims)
        }
        "ReduceL2" | "ReduceSumSquare" => {
            let square = b.mul(wider, wider);
            let sum = b.sum(square, dims);
            if op_type == "ReduceL2" { root(b, sum) } else { sum }
        }
        "ReduceLogSum" => {
            let sum = b.sum(wider, dims);
            b.log(sum)
        }
        "ReduceLogSumExp" => {
            let like = b.dims(wider);
            let top = b.largest(wider, dims);
            // A row of -inf has no largest that can be taken away.
            let (finite, zero) = (b.unary(Unary::IsFinite, top), b.full_like(top, 0.0));
            let top = b.select(finite, top, zero);
            let spread = b.spread(top, &like, dims);
            let moved = b.sub(wider, spread);
            let powers = b.exp(moved);
            let sum = b.sum(powers, dims);
            let log = b.log(sum);
            b.add(log, top)
        }
        other => return Err(format!("{other} is no reduction").into()),
    };
    Ok(b.convert(made, narrow))
}

fn root(b: &mut Builder, x: Op) -> Op {
    let dtype = b.dtype(x);
    if dtype.is_float() {
        return b.sqrt(x);
    }
    let float = b.convert(x, DType::Double);
    let root = b.sqrt(float);
    b.convert(root, dtype)
}

/// GlobalAveragePool, GlobalMaxPool, GlobalLpPool: everything behind the channels.
pub fn global_pool(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let shape = call.output(0)?;
    let dims: Vec<i64> = (2..shape.rank() as i64).collect();
    let made = match call.node.op_type.as_str() {
        "GlobalMaxPool" => reduced(call.b, x, &dims, "ReduceMax")?,
        "GlobalAveragePool" => reduced(call.b, x, &dims, "ReduceMean")?,
        _ => {
            let p = call.int("p", 2) as f64;
            let (x, narrow) = wide(call.b, x);
            let b = &mut *call.b;
            let powers = power_of_size(b, x, p);
            let sum = b.sum(powers, &dims);
            let made = power(b, sum, 1.0 / p);
            b.convert(made, narrow)
        }
    };
    Ok(vec![call.b.reshape(made, &shape.dims)])
}

/// `|x|^p`.
pub fn power_of_size(b: &mut Builder, x: Op, p: f64) -> Op {
    let size = b.abs(x);
    if p == 2.0 { b.mul(x, x) } else { power(b, size, p) }
}

/// `x^p` of what is not negative.
pub fn power(b: &mut Builder, x: Op, p: f64) -> Op {
    if p == 1.0 {
        x
    } else if p == 0.5 {
        b.sqrt(x)
    } else {
        let exponent = b.full_like(x, p);
        b.binary(Binary::Power, x, exponent)
    }
}

/// CumSum and CumProd.
pub fn cumulative(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let rank = call.b.dims(x).len();
    let at = axis(call.ints_of(1)?.first().copied().ok_or("its axis is empty")?, rank)?;
    let (exclusive, reverse) = (call.int("exclusive", 0) != 0, call.int("reverse", 0) != 0);
    let product = call.node.op_type == "CumProd";
    let (x, narrow) = wide(call.b, x);
    let b = &mut *call.b;
    let neutral = if product { 1.0 } else { 0.0 };
    let size = b.dims(x)[at];
    // `shifted` moves everything by `step`, away from where the sum starts.
    let shifted = |b: &mut Builder, x: Op, step: i64| {
        let value = b.scalar(b.dtype(x), neutral);
        let (mut low, mut high) = (vec![0; rank], vec![0; rank]);
        let (near, far) = if reverse { (&mut high, &mut low) } else { (&mut low, &mut high) };
        near[at] = step;
        far[at] = -step;
        b.pad(x, value, &low, &high, &vec![0; rank])
    };
    let mut sum = if exclusive && size > 0 { shifted(b, x, 1) } else { x };
    let mut step = 1;
    while step < size {
        let moved = shifted(b, sum, step);
        sum = if product { b.mul(sum, moved) } else { b.add(sum, moved) };
        step *= 2;
    }
    Ok(vec![b.convert(sum, narrow)])
}

/// MeanVarianceNormalization is a reduction with its own axes; kept here beside what it is made of.
pub fn mean_variance_normalization(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let rank = call.b.dims(x).len();
    let dims = axes(&call.node.ints("axes").map_or_else(|| vec![0, 2, 3], <[i64]>::to_vec), rank)?;
    let (x, narrow) = wide(call.b, x);
    let b = &mut *call.b;
    let like = b.dims(x);
    let count: i64 = dims.iter().map(|&i| like[i as usize]).product();
    let mean = |b: &mut Builder, x: Op| {
        let sum = b.sum(x, &dims);
        let mean = b.scale(sum, 1.0 / count.max(1) as f64);
        b.spread(mean, &like, &dims)
    };
    let centre = mean(b, x);
    let moved = b.sub(x, centre);
    let square = b.mul(moved, moved);
    let variance = mean(b, square);
    let deviation = b.sqrt(variance);
    let below = b.add_number(deviation, 1e-9);
    let made = b.div(moved, below);
    Ok(vec![b.convert(made, narrow)])
}
