//! Quantised tensors.
//!
//! ONNX: QuantizeLinear, DequantizeLinear (opset 10 and later; a scale for the tensor, an axis or blocks), whole numbers of
//! 2 to 32 bits and the small floats; DynamicQuantizeLinear (11 and later); QLinearMatMul (10 and later). HLO: divide, round-nearest-even, add, maximum
//! and minimum, convert; dot in int32.

use super::Problem;
use super::cast::{self, largest};
use super::matmul::{centred, product};
use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Builder, Direction, Op, Unary};
use crate::onnx::DType;

/// A scale or zero point in the sizes of the tensor it belongs to.
fn spread(b: &mut Builder, vector: Op, dims: &[i64], axis: usize, block: i64) -> Result<Op, Problem> {
    let own = b.dims(vector);
    if own.iter().product::<i64>() == 1 && (own.len() <= 1 || block == 0) {
        let one = b.reshape(vector, &[]);
        return Ok(b.broadcast(one, dims, &[]));
    }
    if own.len() == 1 && block == 0 {
        return Ok(b.along(vector, dims, axis));
    }
    if block > 0 && own.len() == dims.len() && axis < dims.len() {
        let mut double = own.clone();
        double.insert(axis + 1, block);
        let places: Vec<i64> = (0..own.len()).map(|i| if i <= axis { i as i64 } else { i as i64 + 1 }).collect();
        let repeated = b.broadcast(vector, &double, &places);
        let mut whole = own;
        whole[axis] *= block;
        let whole = b.reshape(repeated, &whole);
        return Ok(b.slice_axis(whole, axis, 0, dims[axis]));
    }
    Err(format!("a scale of {own:?} for a tensor of {dims:?}").into())
}

/// The numbers that a whole type holds.
fn limits(dtype: DType) -> Result<(f64, f64), Problem> {
    Ok(match dtype {
        DType::Int8 => (-128.0, 127.0),
        DType::Uint8 => (0.0, 255.0),
        DType::Int16 => (-32768.0, 32767.0),
        DType::Uint16 => (0.0, 65535.0),
        DType::Int4 => (-8.0, 7.0),
        DType::Uint4 => (0.0, 15.0),
        DType::Int2 => (-2.0, 1.0),
        DType::Uint2 => (0.0, 3.0),
        other => return Err(format!("quantising to {other} is not lowered").into()),
    })
}

fn axis_of(call: &Call, rank: usize) -> Result<usize, Problem> {
    if rank == 0 {
        return Ok(0);
    }
    let axis = call.int("axis", 1);
    // A vector has no axis 1, and with one scale none is needed.
    if rank == 1 { Ok(0) } else { crate::lower::call::axis(axis, rank) }
}

/// QuantizeLinear.
pub fn quantize(call: &mut Call) -> Lowered {
    let (x, scale, zero) = (call.input(0)?, call.input(1)?, call.optional(2)?);
    let out = call.output(0)?;
    let small_float = largest(out.dtype).is_some();
    let (low, high) = if small_float { (0.0, 0.0) } else { limits(out.dtype)? };
    let axis = axis_of(call, out.rank())?;
    let block = call.int("block_size", 0);
    let saturate = call.int("saturate", 1) != 0;
    let b = &mut *call.b;
    let compute = match b.dtype(scale) {
        DType::Double => DType::Double,
        _ => DType::Float,
    };
    let (x, scale) = (b.convert(x, compute), b.convert(scale, compute));
    let scale = spread(b, scale, &out.dims, axis, block)?;
    let quotient = b.div(x, scale);
    if small_float {
        // A zero point of these types is 0; added, it makes a zero of a negative zero.
        let quotient = match zero {
            Some(zero) => {
                let zero = b.convert(zero, compute);
                let zero = spread(b, zero, &out.dims, axis, block)?;
                b.add(quotient, zero)
            }
            None => quotient,
        };
        return Ok(vec![cast::convert(b, quotient, out.dtype, saturate)]);
    }
    let mut whole = b.unary(Unary::RoundNearestEven, quotient);
    if let Some(zero) = zero {
        let zero = b.convert(zero, compute);
        let zero = spread(b, zero, &out.dims, axis, block)?;
        whole = b.add(whole, zero);
    }
    let whole = b.at_least(whole, low);
    let whole = b.at_most(whole, high);
    Ok(vec![b.convert(whole, out.dtype)])
}

/// DequantizeLinear.
pub fn dequantize(call: &mut Call) -> Lowered {
    let (x, scale, zero) = (call.input(0)?, call.input(1)?, call.optional(2)?);
    let out = call.output(0)?;
    let axis = axis_of(call, out.rank())?;
    let block = call.int("block_size", 0);
    let b = &mut *call.b;
    let compute = match b.dtype(scale) {
        DType::Double => DType::Double,
        _ => DType::Float,
    };
    let own = b.dtype(x);
    let exact = if own.is_float() || largest(own).is_some() { compute } else { DType::Int32 };
    let mut made = b.convert(x, exact);
    if let Some(zero) = zero {
        let zero = b.convert(zero, exact);
        let zero = spread(b, zero, &out.dims, axis, block)?;
        made = b.sub(made, zero);
    }
    let scale = b.convert(scale, compute);
    let scale = spread(b, scale, &out.dims, axis, block)?;
    let made = b.convert(made, compute);
    let made = b.mul(made, scale);
    Ok(vec![b.convert(made, out.dtype)])
}

/// `sum * factor` rounded, moved by the zero point and kept within its type.
pub fn requantize(b: &mut Builder, sum: Op, factor: Op, zero: Op) -> Op {
    let dtype = b.dtype(zero);
    let compute = b.dtype(factor);
    let sum = b.convert(sum, compute);
    let scaled = b.mul(sum, factor);
    let whole = b.unary(Unary::RoundNearestEven, scaled);
    let zero = b.convert(zero, compute);
    let moved = b.add(whole, zero);
    match limits(dtype) {
        Ok((low, high)) => {
            let moved = b.at_least(moved, low);
            let moved = b.at_most(moved, high);
            b.convert(moved, dtype)
        }
        Err(_) => {
            b.fail(|| format!("quantising to {dtype} is not lowered"));
            moved
        }
    }
}

/// DynamicQuantizeLinear: scale and zero point from the tensor's own range, to uint8.
pub fn dynamic_quantize(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let b = &mut *call.b;
    let dims = b.dims(x);
    let all: Vec<i64> = (0..dims.len() as i64).collect();
    let (low, high) = (b.smallest(x, &all), b.largest(x, &all));
    let (low, high) = (b.at_most(low, 0.0), b.at_least(high, 0.0));
    let range = b.sub(high, low);
    let steps = b.full_like(range, 255.0);
    let scale = b.div(range, steps);
    // Of zeros alone the step is 1, as runtimes have it: nothing can be divided by 0.
    let (nothing, one) = (b.full_like(range, 0.0), b.full_like(range, 1.0));
    let is_flat = b.compare(Direction::Eq, range, nothing);
    let scale = b.select(is_flat, one, scale);
    let minus = b.neg(low);
    let place = b.div(minus, scale);
    let place = b.at_least(place, 0.0);
    let place = b.at_most(place, 255.0);
    let zero = b.unary(Unary::RoundNearestEven, place);
    let wide_scale = b.broadcast(scale, &dims, &[]);
    let wide_zero = b.broadcast(zero, &dims, &[]);
    let quotient = b.div(x, wide_scale);
    let whole = b.unary(Unary::RoundNearestEven, quotient);
    let moved = b.add(whole, wide_zero);
    let moved = b.at_least(moved, 0.0);
    let moved = b.at_most(moved, 255.0);
    Ok(vec![b.convert(moved, DType::Uint8), scale, b.convert(zero, DType::Uint8)])
}

/// QLinearMatMul.
pub fn qlinear_matmul(call: &mut Call) -> Lowered {
    let mut given = Vec::new();
    for index in 0..8 {
        given.push(call.input(index)?);
    }
    let [x, x_scale, x_zero, y, y_scale, y_zero, out_scale, out_zero] = given[..] else {
        return Err("it needs 8 inputs".into());
    };
    let b = &mut *call.b;
    let (left, right) = (centred(b, x, Some(x_zero), true), centred(b, y, Some(y_zero), false));
    let sum = product(b, left, right)?;
    let dims = b.dims(sum);
    let compute = match b.dtype(x_scale) {
        DType::Double => DType::Double,
        _ => DType::Float,
    };
    let number = |b: &mut Builder, x: Op, rows: bool| {
        let x = if b.dtype(x).is_float() { b.convert(x, compute) } else { x };
        let own = b.dims(x);
        match own.as_slice() {
            [n] if *n > 1 && rows => {
                let n = *n;
                let column = b.reshape(x, &[n, 1]);
                b.expand(column, &dims)
            }
            [n] if *n > 1 => b.expand(x, &dims),
            own if own.iter().product::<i64>() == 1 => {
                let one = b.reshape(x, &[]);
                b.broadcast(one, &dims, &[])
            }
            _ => b.expand(x, &dims),
        }
    };
    let (left, right, below) = (number(b, x_scale, true), number(b, y_scale, false), number(b, out_scale, false));
    let both = b.mul(left, right);
    let factor = b.div(both, below);
    let zero = number(b, out_zero, false);
    Ok(vec![requantize(b, sum, factor, zero)])
}
