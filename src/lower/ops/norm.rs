//! Normalisations.
//!
//! ONNX: BatchNormalization (opset 9 and later, not training), InstanceNormalization, LayerNormalization (17 and later,
//! with its mean and deviation), GroupNormalization (18 and later), RMSNormalization (23 and later), LpNormalization, LRN.
//! HLO: reduce, subtract, multiply, rsqrt. The variance is taken of what is left when the mean is gone, in float32 at
//! least, so that a large mean costs nothing.

use super::{Problem, wide};
use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Binary, Builder, Op, Unary, Window};

/// BatchNormalization with the statistics of training.
pub fn batch(call: &mut Call) -> Lowered {
    if call.int("training_mode", 0) != 0 {
        return Err("it is set to training".into());
    }
    let x = call.input(0)?;
    let (x, narrow) = wide(call.b, x);
    let mut vectors = Vec::new();
    for index in 1..5 {
        let vector = call.input(index)?;
        let dtype = call.b.dtype(x);
        vectors.push(call.b.convert(vector, dtype));
    }
    let epsilon = call.float("epsilon", 1e-5);
    let b = &mut *call.b;
    let dims = b.dims(x);
    let [scale, bias, mean, variance] = vectors[..] else { return Err("it needs 5 inputs".into()) };
    let below = b.add_number(variance, epsilon);
    let below = b.sqrt(below);
    let factor = b.div(scale, below);
    let (mean, factor, bias) = (b.along(mean, &dims, 1), b.along(factor, &dims, 1), b.along(bias, &dims, 1));
    let moved = b.sub(x, mean);
    let scaled = b.mul(moved, factor);
    let made = b.add(scaled, bias);
    Ok(vec![b.convert(made, narrow)])
}

/// `x` less its mean, the mean, and one over the deviation, along these dimensions; mean and deviation as they are.
fn standard(b: &mut Builder, x: Op, dims: &[i64], epsilon: f64) -> (Op, Op, Op) {
    let like = b.dims(x);
    let count = dims.iter().map(|&i| like[i as usize]).product::<i64>().max(1) as f64;
    let sum = b.sum(x, dims);
    let divisor = b.full_like(sum, count);
    let mean = b.div(sum, divisor);
    let spread = b.spread(mean, &like, dims);
    let moved = b.sub(x, spread);
    let square = b.mul(moved, moved);
    let sum = b.sum(square, dims);
    let variance = b.div(sum, divisor);
    let below = b.add_number(variance, epsilon);
    (moved, mean, b.unary(Unary::Rsqrt, below))
}

/// InstanceNormalization.
pub fn instance(call: &mut Call) -> Lowered {
    let (x, scale, bias) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let epsilon = call.float("epsilon", 1e-5);
    let (x, narrow) = wide(call.b, x);
    let b = &mut *call.b;
    let dims = b.dims(x);
    let along: Vec<i64> = (2..dims.len() as i64).collect();
    let (moved, _, inverse) = standard(b, x, &along, epsilon);
    let inverse = b.spread(inverse, &dims, &along);
    let made = b.mul(moved, inverse);
    let made = affine(b, made, Some(scale), Some(bias), |b, vector| b.along(vector, &dims, 1));
    Ok(vec![b.convert(made, narrow)])
}

fn affine(b: &mut Builder, x: Op, scale: Option<Op>, bias: Option<Op>, spread: impl Fn(&mut Builder, Op) -> Op) -> Op {
    let dtype = b.dtype(x);
    let mut made = x;
    for (vector, binary) in [(scale, Binary::Multiply), (bias, Binary::Add)] {
        if let Some(vector) = vector {
            let vector = b.convert(vector, dtype);
            let vector = spread(b, vector);
            made = b.binary_across(binary, made, vector);
        }
    }
    made
}

/// LayerNormalization, over every dimension from `axis` on.
pub fn layer(call: &mut Call) -> Lowered {
    let (x, scale, bias) = (call.input(0)?, call.input(1)?, call.optional(2)?);
    let epsilon = call.float("epsilon", 1e-5);
    let (x, narrow) = wide(call.b, x);
    let rank = call.b.dims(x).len();
    let axis = call.axis("axis", -1, rank)?;
    let kept: Vec<Option<crate::lower::hlo::Shape>> =
        (1..3).map(|i| call.node.output(i).and_then(|_| call.output(i).ok())).collect();
    let b = &mut *call.b;
    let dims = b.dims(x);
    let along: Vec<i64> = (axis as i64..rank as i64).collect();
    let (moved, mean, inverse) = standard(b, x, &along, epsilon);
    let wide_inverse = b.spread(inverse, &dims, &along);
    let made = b.mul(moved, wide_inverse);
    let made = affine(b, made, Some(scale), bias, |_, vector| vector);
    let mut outputs = vec![b.convert(made, narrow)];
    let small: Vec<i64> = dims.iter().enumerate().map(|(i, &size)| if i < axis { size } else { 1 }).collect();
    for (statistic, shape) in [mean, inverse].into_iter().zip(kept) {
        let statistic = b.reshape(statistic, &small);
        outputs.push(match shape {
            Some(shape) => b.convert(statistic, shape.dtype),
            None => statistic,
        });
    }
    Ok(outputs)
}

/// RMSNormalization: as LayerNormalization, without a mean.
pub fn rms(call: &mut Call) -> Lowered {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let epsilon = call.float("epsilon", 1e-5);
    let (x, narrow) = wide(call.b, x);
    let rank = call.b.dims(x).len();
    let axis = call.axis("axis", -1, rank)?;
    let b = &mut *call.b;
    let dims = b.dims(x);
    let along: Vec<i64> = (axis as i64..rank as i64).collect();
    let count = dims[axis..].iter().product::<i64>().max(1) as f64;
    let square = b.mul(x, x);
    let sum = b.sum(square, &along);
    let divisor = b.full_like(sum, count);
    let mean = b.div(sum, divisor);
    let below = b.add_number(mean, epsilon);
    let inverse = b.unary(Unary::Rsqrt, below);
    let inverse = b.spread(inverse, &dims, &along);
    let made = b.mul(x, inverse);
    let made = affine(b, made, Some(scale), None, |_, vector| vector);
    Ok(vec![b.convert(made, narrow)])
}

/// GroupNormalization: scale and bias a channel (21 and later) or a group (18).
pub fn group(call: &mut Call) -> Lowered {
    let (x, scale, bias) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let epsilon = call.float("epsilon", 1e-5);
    let groups = call.int("num_groups", 1);
    let (x, narrow) = wide(call.b, x);
    let b = &mut *call.b;
    let dims = b.dims(x);
    if dims.len() < 2 || groups < 1 || dims[1] % groups != 0 {
        return Err(format!("{groups} groups of {dims:?}").into());
    }
    let mut split = vec![dims[0], groups, dims[1] / groups];
    split.extend(&dims[2..]);
    let along: Vec<i64> = (2..split.len() as i64).collect();
    let grouped = b.reshape(x, &split);
    let (moved, _, inverse) = standard(b, grouped, &along, epsilon);
    let inverse = b.spread(inverse, &split, &along);
    let made = b.mul(moved, inverse);
    let made = if b.dims(scale) == [groups] && groups != dims[1] {
        let made = affine(b, made, Some(scale), Some(bias), |b, vector| b.along(vector, &split, 1));
        b.reshape(made, &dims)
    } else {
        let made = b.reshape(made, &dims);
        affine(b, made, Some(scale), Some(bias), |b, vector| b.along(vector, &dims, 1))
    };
    Ok(vec![b.convert(made, narrow)])
}

/// LpNormalization.
pub fn lp(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let p = call.int("p", 2);
    let rank = call.b.dims(x).len();
    let axis = call.axis("axis", -1, rank)? as i64;
    let (x, narrow) = wide(call.b, x);
    let b = &mut *call.b;
    let dims = b.dims(x);
    let made = match p {
        1 => {
            let size = b.abs(x);
            b.sum(size, &[axis])
        }
        2 => {
            let square = b.mul(x, x);
            let sum = b.sum(square, &[axis]);
            b.sqrt(sum)
        }
        p => return Err(format!("p = {p} is neither 1 nor 2").into()),
    };
    let size = b.spread(made, &dims, &[axis]);
    let zero = b.full_like(size, 0.0);
    let none = b.compare(crate::lower::hlo::Direction::Eq, size, zero);
    let quotient = b.div(x, size);
    let made = b.select(none, zero, quotient);
    Ok(vec![b.convert(made, narrow)])
}

/// LRN: squares summed over a window of channels.
///
/// HLO: reduce-window, power.
pub fn lrn(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let size = call.node.int("size").ok_or_else(|| Problem::from("its size is missing"))?;
    let (alpha, beta, bias) = (call.float("alpha", 1e-4), call.float("beta", 0.75), call.float("bias", 1.0));
    let (x, narrow) = wide(call.b, x);
    let b = &mut *call.b;
    let rank = b.dims(x).len();
    if rank < 2 || size < 1 {
        return Err("it needs channels and a size".into());
    }
    let mut window = vec![Window::ONE; rank];
    window[1] = Window { size, low: (size - 1) / 2, high: size - 1 - (size - 1) / 2, ..Window::ONE };
    let square = b.mul(x, x);
    let zero = b.scalar(b.dtype(x), 0.0);
    let sum = b.reduce_window(square, zero, &window, Binary::Add);
    let scaled = b.scale(sum, alpha / size as f64);
    let base = b.add_number(scaled, bias);
    let exponent = b.full_like(base, beta);
    let below = b.binary(Binary::Power, base, exponent);
    let made = b.div(x, below);
    Ok(vec![b.convert(made, narrow)])
}
