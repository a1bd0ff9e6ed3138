//! Resize.
//!
//! ONNX: Resize (opset 11 and later); every coordinate transformation, every rounding of nearest, linear,
//! cubic, antialias, exclude_outside, cropping. HLO: nearest picks elements (broadcast and reshape for whole factors,
//! slices, else a gather with a constant index); linear and cubic multiply by a constant matrix along each axis (dot).
//!
//! Coordinates are computed in float32 and from whole output sizes, as ONNX Runtime does.

use super::pick::pick;
use super::{Problem, wide};
use crate::lower::call::{Call, Lowered, axis};
use crate::lower::hlo::{Builder, DotDims, Op, Shape, Unary};
use crate::onnx::DType;

/// What one axis is resized by.
struct Axis {
    at: usize,
    input: i64,
    output: i64,
    scale: f32,
    crop: (f32, f32),
}

/// What the attributes say.
struct Settings {
    coordinates: String,
    nearest: String,
    cubic: f64,
    exclude_outside: bool,
    antialias: bool,
}

/// Resize.
pub fn resize(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let dims = call.b.dims(x);
    let out = call.output(0)?.dims;
    let settings = Settings {
        coordinates: call.text("coordinate_transformation_mode", "half_pixel"),
        nearest: call.text("nearest_mode", "round_prefer_floor"),
        cubic: call.float("cubic_coeff_a", -0.75),
        exclude_outside: call.int("exclude_outside", 0) != 0,
        antialias: call.int("antialias", 0) != 0,
    };
    let list = axes(call, &dims, &out)?;
    let mode = call.text("mode", "nearest");
    let outside = call.float("extrapolation_value", 0.0);
    let crops = settings.coordinates == "tf_crop_and_resize";
    if dims.contains(&0) {
        let shape = Shape::new(call.b.dtype(x), out);
        return match shape.is_empty() {
            true => Ok(vec![call.b.full(shape, 0.0)]),
            false => Err(format!("nothing of {dims:?} becomes {:?}", shape.dims).into()),
        };
    }
    // Whole numbers are averaged as floats that hold them, then cut.
    let narrow = call.b.dtype(x);
    let mut made = match narrow {
        _ if mode == "nearest" => x,
        DType::Int32 | DType::Uint32 | DType::Int64 | DType::Uint64 => call.b.convert(x, DType::Double),
        other if !other.is_float() => call.b.convert(x, DType::Float),
        _ => wide(call.b, x).0,
    };
    for one in &list {
        let places: Vec<f32> = (0..one.output).map(|i| settings.coordinate(one, i)).collect();
        if mode == "nearest" {
            let indices: Vec<i64> = places.iter().map(|&place| settings.round(place, one)).collect();
            if indices.iter().enumerate().any(|(i, &index)| i as i64 != index) || one.input != one.output {
                made = pick(call.b, made, one.at, &indices);
            }
            continue;
        }
        let matrix = settings.matrix(one, &places, mode == "cubic");
        made = times(call.b, made, one, &matrix);
    }
    if crops {
        made = extrapolate(call.b, made, &list, &settings, outside);
    }
    // Whole numbers are cut, but rounded where several were averaged, as runtimes do.
    if settings.antialias && mode != "nearest" && !narrow.is_float() {
        let moved = call.b.add_number(made, 0.5);
        made = call.b.unary(Unary::Floor, moved);
    }
    Ok(vec![call.b.convert(made, narrow)])
}

/// Which axes change, and how: from scales, or from sizes.
fn axes(call: &Call, dims: &[i64], out: &[i64]) -> Result<Vec<Axis>, Problem> {
    let rank = dims.len();
    let named = match call.node.ints("axes") {
        Some(list) => list.iter().map(|&one| axis(one, rank)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).collect(),
    };
    let numbers = |index: usize| -> Result<Option<Vec<f64>>, Problem> {
        if !call.has(index) {
            return Ok(None);
        }
        Ok(Some(call.numbers_of(index)?).filter(|list| !list.is_empty()))
    };
    let scales = numbers(2)?;
    let by_size = scales.is_none();
    let policy = call.text("keep_aspect_ratio_policy", "stretch");
    let ratio = |at: usize, wanted: f64| wanted / dims[at] as f64;
    let mut factors: Vec<f64> = match scales {
        Some(scales) => scales,
        None => {
            let sizes = numbers(3)?.unwrap_or_else(|| named.iter().map(|&at| out[at] as f64).collect());
            named.iter().zip(&sizes).map(|(&at, &size)| ratio(at, size)).collect()
        }
    };
    if factors.len() != named.len() {
        return Err(format!("{} factors for {} axes", factors.len(), named.len()).into());
    }
    if by_size && policy != "stretch" {
        let pick = if policy == "not_larger" { f64::min } else { f64::max };
        let one = factors.iter().copied().reduce(pick).unwrap_or(1.0);
        factors.fill(one);
    }
    let crop = if call.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize" {
        numbers(1)?.ok_or("its region is missing")?
    } else {
        Vec::new()
    };
    let corner = |i: usize| crop.get(i).copied().unwrap_or(if i < named.len() { 0.0 } else { 1.0 }) as f32;
    Ok(named
        .iter()
        .enumerate()
        .map(|(i, &at)| Axis {
            at,
            input: dims[at],
            output: out[at],
            scale: factors[i] as f32,
            crop: (corner(i), corner(i + named.len())),
        })
        .collect())
}

impl Settings {
    /// Where an output place stands in the input.
    fn coordinate(&self, axis: &Axis, place: i64) -> f32 {
        let (x, scale, input, output) = (place as f32, axis.scale, axis.input as f32, axis.output as f32);
        if scale == 1.0 && axis.input == axis.output && self.coordinates != "tf_crop_and_resize" {
            return x;
        }
        match self.coordinates.as_str() {
            "asymmetric" => x / scale,
            "align_corners" if axis.output == 1 => 0.0,
            "align_corners" => x * (input - 1.0) / (output - 1.0),
            "pytorch_half_pixel" if axis.output == 1 => 0.0,
            "half_pixel_symmetric" => {
                let adjustment = output / (scale * input);
                let offset = input / 2.0 * (1.0 - adjustment);
                offset + (x + 0.5) / scale - 0.5
            }
            "tf_half_pixel_for_nn" => (x + 0.5) / scale,
            "tf_crop_and_resize" => {
                let (start, end) = axis.crop;
                if axis.output > 1 {
                    start * (input - 1.0) + x * (end - start) * (input - 1.0) / (output - 1.0)
                } else {
                    0.5 * (start + end) * (input - 1.0)
                }
            }
            _ => (x + 0.5) / scale - 0.5,
        }
    }

    /// The element that is nearest.
    fn round(&self, place: f32, axis: &Axis) -> i64 {
        let index = match self.nearest.as_str() {
            "floor" => place.floor(),
            "ceil" => place.ceil(),
            "round_prefer_ceil" => (place + 0.5).floor(),
            _ => (place - 0.5).ceil(),
        };
        (index as i64).clamp(0, axis.input - 1)
    }

    /// How much of each input element goes into each output element, a row an output.
    fn matrix(&self, axis: &Axis, places: &[f32], cubic: bool) -> Vec<f64> {
        let size = axis.input as usize;
        let mut matrix = vec![0.0; places.len() * size];
        for (row, &place) in matrix.chunks_mut(size).zip(places) {
            // The share is in (0, 1], of the element behind.
            let base = f64::from(place.ceil()) - 1.0;
            let share = f64::from(place) - base;
            let mut taps = self.taps(share, f64::from(axis.scale), cubic);
            if self.exclude_outside {
                for (offset, weight) in &mut taps {
                    let at = base as i64 + *offset;
                    if at < 0 || at >= axis.input {
                        *weight = 0.0;
                    }
                }
                let sum: f64 = taps.iter().map(|tap| tap.1).sum();
                taps.iter_mut().for_each(|tap| tap.1 /= sum);
            }
            for (offset, weight) in taps {
                let at = (base as i64 + offset).clamp(0, axis.input - 1) as usize;
                row[at] += weight;
            }
        }
        matrix
    }

    /// Weights of the elements around, by their distance from the base.
    fn taps(&self, share: f64, scale: f64, cubic: bool) -> Vec<(i64, f64)> {
        let scale = if self.antialias { scale.min(1.0) } else { 1.0 };
        let reach = if cubic { 2.0 } else { 1.0 };
        let start = (-reach / scale).floor() as i64 + 1;
        let weight = |i: i64| {
            let distance = ((i as f64 - share) * scale).abs();
            if cubic { self.cubic(distance) } else { (1.0 - distance).max(0.0) }
        };
        let end = 2 - start;
        let taps: Vec<(i64, f64)> = (start..end).map(|i| (i, weight(i))).collect();
        let sum: f64 = taps.iter().map(|tap| tap.1).sum();
        let sum = if self.antialias { sum } else { 1.0 };
        taps.into_iter().map(|(i, weight)| (i, weight / sum)).collect()
    }

    fn cubic(&self, x: f64) -> f64 {
        let a = self.cubic;
        if x <= 1.0 {
            ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
        } else if x < 2.0 {
            ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
        } else {
            0.0
        }
    }
}

/// Multiplies by a matrix along an axis.
fn times(b: &mut Builder, x: Op, axis: &Axis, matrix: &[f64]) -> Op {
    let size = axis.input as usize;
    let identity = axis.input == axis.output
        && matrix.iter().enumerate().all(|(i, &w)| w == if i / size.max(1) == i % size.max(1) { 1.0 } else { 0.0 });
    if identity {
        return x;
    }
    let rank = b.dims(x).len() as i64;
    let matrix = b.numbers(b.dtype(x), &[axis.output, axis.input], matrix);
    let at = axis.at as i64;
    let dims = DotDims { left_contracting: vec![at], right_contracting: vec![1], ..Default::default() };
    let made = b.dot(x, matrix, dims);
    // The product puts the new dimension last.
    let perm: Vec<i64> = (0..rank)
        .map(|i| {
            if i < at {
                i
            } else if i == at {
                rank - 1
            } else {
                i - 1
            }
        })
        .collect();
    b.transpose(made, &perm)
}

/// What stands outside of the cropped image is a value of its own.
fn extrapolate(b: &mut Builder, x: Op, axes: &[Axis], settings: &Settings, outside: f64) -> Op {
    let dims = b.dims(x);
    let mut made = x;
    for axis in axes {
        let inside: Vec<f64> = (0..axis.output)
            .map(|i| {
                let place = settings.coordinate(axis, i);
                f64::from(place >= 0.0 && place <= (axis.input - 1) as f32)
            })
            .collect();
        if inside.iter().all(|&inside| inside == 1.0) {
            continue;
        }
        let inside = b.numbers(DType::Bool, &[axis.output], &inside);
        let inside = b.along(inside, &dims, axis.at);
        let value = b.full(Shape::new(b.dtype(x), dims.clone()), outside);
        made = b.select(inside, made, value);
    }
    made
}
