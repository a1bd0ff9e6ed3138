//! Sampling at places that a grid says.
//!
//! ONNX: GridSample (opset 16 and later), 1 to 3 dimensions of space: nearest, linear, cubic (2 dimensions), the three ways to
//! go on outside, both meanings of a corner. HLO: floor, select, gather of whole pixels, multiply, add: one gather for each
//! neighbour.
//!
//! Types under 32 bits compute in float32.

use super::gather::gather_points;
use super::{Problem, wide};
use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Binary, Builder, Direction, Op, Shape, Unary};
use crate::onnx::DType;

/// The coefficient of the cubic kernel.
const CUBIC: f64 = -0.75;

/// What lies outside of the tensor.
#[derive(Clone, Copy, PartialEq)]
enum Outside {
    Zeros,
    Border,
    Reflection,
}

/// One dimension of space.
struct Axis {
    size: i64,
    /// Where the tensor is taken to begin and end when it is reflected.
    ends: (f64, f64),
    /// Offsets of the neighbours from the place below the coordinate, each with its weight.
    taps: Vec<(f64, Op)>,
    /// The place below the coordinate, `[batch, points]`.
    below: Op,
}

/// GridSample.
pub fn grid_sample(call: &mut Call) -> Lowered {
    let (x, grid) = (call.input(0)?, call.input(1)?);
    let mode = call.text("mode", "linear");
    let outside = match call.text("padding_mode", "zeros").as_str() {
        "zeros" => Outside::Zeros,
        "border" => Outside::Border,
        "reflection" => Outside::Reflection,
        other => return Err(format!("'{other}' is no way to go on outside").into()),
    };
    let align = call.int("align_corners", 0) != 0;
    let out = call.output(0)?.dims;
    let b = &mut *call.b;
    let ((x, narrow), (grid, _)) = (wide(b, x), wide(b, grid));
    let compute = b.dtype(x);
    let grid = b.convert(grid, compute);
    let (dims, grid_dims) = (b.dims(x), b.dims(grid));
    let space = dims.len().saturating_sub(2);
    if space == 0 || grid_dims.len() != space + 2 || grid_dims.last() != Some(&(space as i64)) {
        return Err(format!("a grid of {grid_dims:?} for {dims:?}").into());
    }
    if dims.iter().chain(&grid_dims).any(|&size| size == 0) {
        return Ok(vec![b.full(Shape::new(narrow, out), 0.0)]);
    }
    let (batch, points) = (grid_dims[0], grid_dims[1..=space].iter().product::<i64>());
    let grid = b.reshape(grid, &[batch, points, space as i64]);
    let mut axes = Vec::new();
    for at in 0..space {
        // The grid names the innermost dimension first.
        let place = b.slice_axis(grid, 2, (space - 1 - at) as i64, (space - at) as i64);
        let place = b.reshape(place, &[batch, points]);
        axes.push(axis(b, place, dims[at + 2], &mode, outside, align)?);
    }
    // Pixels with their channels together, so that each neighbour is one piece.
    let mut perm: Vec<i64> = vec![0];
    perm.extend(2..dims.len() as i64);
    perm.push(1);
    let pixels = b.transpose(x, &perm);
    let whole = [batch, points, dims[1]];
    let own_batch = b.iota(DType::Int32, &[batch, points, 1], 0);
    let mut sum = b.full(Shape::new(compute, whole), 0.0);
    let count: usize = axes.iter().map(|axis| axis.taps.len()).product();
    for number in 0..count {
        let (mut rest, mut parts, mut weight, mut inside) = (number, vec![own_batch], None, None);
        for axis in &axes {
            let (offset, own) = axis.taps[rest % axis.taps.len()];
            rest /= axis.taps.len();
            let (place, valid) = neighbour(b, axis, offset, outside);
            parts.push(b.reshape(place, &[batch, points, 1]));
            weight = Some(weight.map_or(own, |before| b.mul(before, own)));
            inside = match (inside, valid) {
                (Some(before), Some(valid)) => Some(b.binary(Binary::And, before, valid)),
                (before, valid) => before.or(valid),
            };
        }
        let vectors = b.concatenate(&parts, 2);
        let mut found = gather_points(b, pixels, vectors, space + 1);
        if let Some(inside) = inside {
            let inside = b.broadcast(inside, &whole, &[0, 1]);
            let zero = b.full_like(found, 0.0);
            found = b.select(inside, found, zero);
        }
        if let Some(weight) = weight {
            let weight = b.broadcast(weight, &whole, &[0, 1]);
            found = b.mul(found, weight);
        }
        sum = b.add(sum, found);
    }
    let made = b.transpose(sum, &[0, 2, 1]);
    let made = b.reshape(made, &out);
    Ok(vec![b.convert(made, narrow)])
}

/// A coordinate between -1 and 1 as the places around it.
fn axis(b: &mut Builder, place: Op, size: i64, mode: &str, outside: Outside, align: bool) -> Result<Axis, Problem> {
    let length = size as f64;
    let from_one = b.add_number(place, 1.0);
    let (place, ends) = if align {
        (b.scale(from_one, (length - 1.0) / 2.0), (0.0, length - 1.0))
    } else {
        let wide = b.scale(from_one, length);
        let moved = b.add_number(wide, -1.0);
        (b.scale(moved, 0.5), (-0.5, length - 0.5))
    };
    let nearest = mode == "nearest";
    let place = if nearest { b.unary(Unary::RoundNearestEven, place) } else { place };
    let place = match outside {
        Outside::Zeros => place,
        // The cubic kernel is laid where the coordinate is, and each neighbour brought back by itself.
        Outside::Border if mode == "cubic" || mode == "bicubic" => place,
        Outside::Border => within(b, place, size),
        Outside::Reflection => reflected(b, place, ends),
    };
    let one = b.full_like(place, 1.0);
    if nearest {
        let below = b.unary(Unary::RoundNearestEven, place);
        return Ok(Axis { size, ends, taps: vec![(0.0, one)], below });
    }
    let below = b.unary(Unary::Floor, place);
    let part = b.sub(place, below);
    let taps = match mode {
        "linear" | "bilinear" => vec![(0.0, b.sub(one, part)), (1.0, part)],
        "cubic" | "bicubic" => [-1.0, 0.0, 1.0, 2.0]
            .map(|offset| {
                // How far the neighbour lies from the coordinate: `1 + part`, `part`, `1 - part`, `2 - part`.
                let away = if offset <= 0.0 {
                    b.add_number(part, -offset)
                } else {
                    let back = b.neg(part);
                    b.add_number(back, offset)
                };
                let weight = match offset {
                    0.0 | 1.0 => [CUBIC + 2.0, -(CUBIC + 3.0), 0.0, 1.0],
                    _ => [CUBIC, -5.0 * CUBIC, 8.0 * CUBIC, -4.0 * CUBIC],
                };
                (offset, b.polynomial(away, &weight))
            })
            .to_vec(),
        other => return Err(format!("'{other}' is no way to sample").into()),
    };
    Ok(Axis { size, ends, taps, below })
}

/// A neighbour's place as an index that exists, and, where zeros lie outside, whether it did before.
fn neighbour(b: &mut Builder, axis: &Axis, offset: f64, outside: Outside) -> (Op, Option<Op>) {
    let mut place = b.add_number(axis.below, offset);
    let valid = (outside == Outside::Zeros).then(|| {
        let (first, last) = (b.full_like(place, 0.0), b.full_like(place, axis.size as f64 - 1.0));
        let (above, below) = (b.compare(Direction::Ge, place, first), b.compare(Direction::Le, place, last));
        b.binary(Binary::And, above, below)
    });
    if outside == Outside::Reflection {
        place = reflected(b, place, axis.ends);
    }
    let place = within(b, place, axis.size);
    (b.convert(place, DType::Int32), valid)
}

/// The nearest place that exists.
fn within(b: &mut Builder, place: Op, size: i64) -> Op {
    let place = b.at_least(place, 0.0);
    b.at_most(place, size as f64 - 1.0)
}

/// The place folded back at both ends until it lies between them.
fn reflected(b: &mut Builder, place: Op, (first, last): (f64, f64)) -> Op {
    let range = last - first;
    if range <= 0.0 {
        return b.full_like(place, first);
    }
    let moved = b.add_number(place, -first);
    let away = b.abs(moved);
    let (wide, two) = (b.full_like(away, range), b.full_like(away, 2.0));
    let turns = b.div(away, wide);
    let turns = b.unary(Unary::Floor, turns);
    let gone = b.mul(turns, wide);
    let rest = b.sub(away, gone);
    let odd = b.binary(Binary::Remainder, turns, two);
    let (zero, back) = (b.full_like(odd, 0.0), b.neg(rest));
    let (ahead, back) = (b.add_number(rest, first), b.add_number(back, last));
    let even = b.compare(Direction::Eq, odd, zero);
    b.select(even, ahead, back)
}
