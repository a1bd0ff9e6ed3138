//! Pools.
//!
//! | ONNX (opset 8 and later) | HLO |
//! | --- | --- |
//! | MaxPool | reduce-window with maximum |
//! | MaxPool with its second output | strided slices of values and places, one for each place in the window, compare and select |
//! | AveragePool | reduce-window with add, divided by counts that are known now |
//! | LpPool | reduce-window with add, between powers |
//!
//! pads, auto_pad, strides, dilations, ceil_mode and count_include_pad are all taken.

use super::conv::Geometry;
use super::reduce::{power, power_of_size};
use super::{Problem, wide};
use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Binary, Builder, Direction, Op, Window};
use crate::onnx::DType;

/// The window over space, made so that it has as many places as the output's sizes ask for.
fn window(call: &Call, dims: &[i64], out: &[i64]) -> Result<(Geometry, Vec<Window>), Problem> {
    if dims.len() < 3 || out.len() != dims.len() {
        return Err(format!("a pool over {dims:?}").into());
    }
    let mut geometry = Geometry::of(call, &dims[2..], None)?;
    for i in 0..geometry.kernel.len() {
        let reach = (geometry.kernel[i] - 1) * geometry.dilations[i] + 1;
        let needed = (out[2 + i] - 1) * geometry.strides[i] + reach;
        // ceil_mode lets the last window stand over the end.
        geometry.high[i] = (needed - dims[2 + i] - geometry.low[i]).max(0);
    }
    let mut whole = vec![Window::ONE; 2];
    whole.extend(geometry.window());
    Ok((geometry, whole))
}

/// MaxPool.
pub fn max_pool(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let dims = call.b.dims(x);
    let out = call.output(0)?.dims;
    let (geometry, whole) = window(call, &dims, &out)?;
    if call.wants(1) {
        return max_pool_places(call, x, &geometry);
    }
    let init = call.b.extreme(call.b.dtype(x), false);
    Ok(vec![call.b.reduce_window(x, init, &whole, Binary::Maximum)])
}

/// A window with places becomes a slice for each of its elements; compilers choke on many more than this.
const MOST_PLACES: i64 = 256;

/// MaxPool with the place of each maximum in the flat input; of equals the first counts.
fn max_pool_places(call: &mut Call, x: Op, geometry: &Geometry) -> Lowered {
    let column_major = call.int("storage_order", 0) != 0;
    let out = call.output(0)?.dims;
    let b = &mut *call.b;
    let dims = b.dims(x);
    let (rank, n) = (dims.len(), dims.len() - 2);
    let mut places = b.full(crate::lower::hlo::Shape::new(DType::Int64, dims.clone()), 0.0);
    let mut step = 1;
    // Row-major counts the last dimension fastest; column-major counts space the other way round.
    let order: Vec<usize> = match column_major {
        true => (2..rank).chain([1, 0]).collect(),
        false => (0..rank).rev().collect(),
    };
    for i in order {
        let own = b.iota(DType::Int64, &dims, i);
        let scaled = b.scale(own, step as f64);
        places = b.add(places, scaled);
        step *= dims[i];
    }
    let low: Vec<i64> = [0, 0].into_iter().chain(geometry.low.iter().copied()).collect();
    let high: Vec<i64> = [0, 0].into_iter().chain(geometry.high.iter().copied()).collect();
    let (least, none) = (b.extreme(b.dtype(x), false), b.integers(DType::Int64, &[], &[-1]));
    let padded = b.pad(x, least, &low, &high, &vec![0; rank]);
    let padded_places = b.pad(places, none, &low, &high, &vec![0; rank]);
    let mut best: Option<(Op, Op)> = None;
    let total: i64 = geometry.kernel.iter().product();
    if total > MOST_PLACES {
        return Err(
            format!("with the places of its maxima, a window of {total} elements: more than {MOST_PLACES}").into()
        );
    }
    for flat in 0..total {
        let mut start = vec![0; rank];
        let mut rest = flat;
        for i in (0..n).rev() {
            start[2 + i] = rest % geometry.kernel[i] * geometry.dilations[i];
            rest /= geometry.kernel[i];
        }
        let stride: Vec<i64> = [1, 1].into_iter().chain(geometry.strides.iter().copied()).collect();
        let limit: Vec<i64> = (0..rank).map(|i| start[i] + (out[i] - 1) * stride[i] + 1).collect();
        let (value, place) =
            (b.slice(padded, &start, &limit, &stride), b.slice(padded_places, &start, &limit, &stride));
        best = Some(match best {
            None => (value, place),
            Some((held, held_place)) => {
                // What is inside counts before padding, which may be as large.
                let larger = b.compare(Direction::Gt, value, held);
                let zero = b.full_like(place, 0.0);
                let (outside, inside) =
                    (b.compare(Direction::Lt, held_place, zero), b.compare(Direction::Ge, place, zero));
                let first = b.binary(Binary::And, outside, inside);
                let better = b.binary(Binary::Or, larger, first);
                (b.select(better, value, held), b.select(better, place, held_place))
            }
        });
    }
    let (value, place) = best.ok_or_else(|| Problem::from("its window is empty"))?;
    Ok(vec![value, place])
}

/// AveragePool.
pub fn average_pool(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let (dims, out) = (call.b.dims(x), call.output(0)?.dims);
    let (geometry, whole) = window(call, &dims, &out)?;
    let padded_too = call.int("count_include_pad", 0) != 0;
    let declared = Geometry::of(call, &dims[2..], None)?;
    let counts = counts(&geometry, &declared, &dims[2..], &out[2..], padded_too);
    let (x, narrow) = wide(call.b, x);
    let b = &mut *call.b;
    let zero = b.scalar(b.dtype(x), 0.0);
    let sum = b.reduce_window(x, zero, &whole, Binary::Add);
    let first = counts.first().copied().unwrap_or(1.0);
    let below = if counts.iter().all(|&count| count == first) {
        b.full_like(sum, first)
    } else {
        let counts = b.numbers(b.dtype(x), &out[2..], &counts);
        b.broadcast(counts, &out, &(2..out.len() as i64).collect::<Vec<_>>())
    };
    let made = b.div(sum, below);
    Ok(vec![b.convert(made, narrow)])
}

/// How many elements each place of the window averages over.
fn counts(geometry: &Geometry, declared: &Geometry, space: &[i64], out: &[i64], padded_too: bool) -> Vec<f64> {
    let along: Vec<Vec<f64>> = (0..space.len())
        .map(|i| {
            (0..out[i])
                .map(|place| {
                    let start = place * geometry.strides[i] - geometry.low[i];
                    let inside = (0..geometry.kernel[i]).filter(|k| {
                        let at = start + k * geometry.dilations[i];
                        match padded_too {
                            // Padding that was asked for counts; what ceil_mode adds behind it does not.
                            true => at < space[i] + declared.high[i],
                            false => (0..space[i]).contains(&at),
                        }
                    });
                    inside.count().max(1) as f64
                })
                .collect()
        })
        .collect();
    along.iter().fold(vec![1.0], |all, next| all.iter().flat_map(|a| next.iter().map(move |b| a * b)).collect())
}

/// LpPool.
pub fn lp_pool(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let (dims, out) = (call.b.dims(x), call.output(0)?.dims);
    let (_, whole) = window(call, &dims, &out)?;
    let p = call.int("p", 2) as f64;
    let (x, narrow) = wide(call.b, x);
    let b: &mut Builder = call.b;
    let powers = power_of_size(b, x, p);
    let zero = b.scalar(b.dtype(x), 0.0);
    let sum = b.reduce_window(powers, zero, &whole, Binary::Add);
    let made = power(b, sum, 1.0 / p);
    Ok(vec![b.convert(made, narrow)])
}
