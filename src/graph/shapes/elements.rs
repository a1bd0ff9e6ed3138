//! The elements of small whole-number tensors, followed through shape arithmetic as expressions.

use super::call::Call;
use super::fact::TRACKED;
use super::size::Size;
use crate::graph::fold::{axis, shape_range, slice_bounds};
use crate::onnx::DType;

/// What is known of the elements of a node's first output, whose shape is `shape`.
pub fn elements(call: &Call, shape: &[Size]) -> Option<Vec<Size>> {
    if !call.node.is_standard() {
        return None;
    }
    let count = Size::product(shape).fixed().filter(|&count| (0..=TRACKED as i64).contains(&count))? as usize;
    let made = compute(call, shape)?;
    // A tensor of which nothing is known is not worth keeping; one of another length would be a bug.
    (made.len() == count && made.iter().any(|size| !matches!(size, Size::Unknown))).then_some(made)
}

fn compute(call: &Call, shape: &[Size]) -> Option<Vec<Size>> {
    let whole = |index: usize| matches!(call.dtype(index), Some(DType::Int64 | DType::Int32));
    match call.node.op_type.as_str() {
        "Shape" => {
            let x = call.shape(0)?;
            Some(x.get(shape_range(call.node.int("start"), call.node.int("end"), x.len()))?.to_vec())
        }
        "Size" => Some(vec![Size::product(call.shape(0)?)]),
        "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => call.sizes(0),
        "Cast" => {
            // A whole number stays itself in every type that shape arithmetic passes through.
            let to = DType::from_number(i32::try_from(call.node.int("to")?).ok()?)?;
            let keeps = matches!(to, DType::Int64 | DType::Int32 | DType::Float | DType::Double);
            call.sizes(0).filter(|_| keeps && call.dtype(0) != Some(DType::Bool))
        }
        "Floor" | "Ceil" | "Round" => call.sizes(0),
        "Concat" if shape.len() == 1 => {
            let mut all = Vec::new();
            for index in 0..call.inputs.len() {
                match call.sizes(index) {
                    Some(sizes) => all.extend(sizes),
                    None => all.extend(vec![Size::Unknown; call.length(index)?]),
                }
            }
            Some(all)
        }
        "Gather" => {
            let data = call.sizes(0).filter(|_| call.shape(0).is_some_and(|x| x.len() == 1))?;
            let at = call.ints(1)?;
            at.into_iter().map(|at| data.get(axis(at, data.len())?).cloned()).collect()
        }
        "Slice" => {
            let data = call.sizes(0).filter(|_| call.shape(0).is_some_and(|x| x.len() == 1))?;
            let single = |index: usize, name: &str, default: Option<i64>| match call.argument(index, name) {
                Some(Some(list)) if list.len() == 1 => list.first().copied(),
                Some(_) => None,
                None => default,
            };
            let (start, end) = (single(1, "starts", None)?, single(2, "ends", None)?);
            let step = single(4, "steps", Some(1))?;
            let (first, length) = slice_bounds(start, end, step, data.len() as i64)?;
            (0..length).map(|i| data.get(usize::try_from(first + i * step).ok()?).cloned()).collect()
        }
        "Split" => None, // only its first output could be told here
        "Add" => pairwise(call, shape, Size::plus),
        "Sub" => pairwise(call, shape, Size::minus),
        "Mul" => pairwise(call, shape, Size::times),
        "Div" if whole(0) => pairwise(call, shape, Size::over),
        "Div" => pairwise(call, shape, |a, b| {
            // In floats only a division that comes out even stays a whole number.
            match (a, b) {
                (Size::Fixed(a), Size::Fixed(b)) if a.checked_rem(*b) == Some(0) => Size::Fixed(a / b),
                (_, Size::Fixed(1)) => a.clone(),
                _ => Size::Unknown,
            }
        }),
        "Mod" if whole(0) => pairwise(call, shape, |a, b| match b {
            Size::Fixed(1) => Size::Fixed(0),
            _ => match (a.fixed(), b.fixed()) {
                (Some(a), Some(b)) if a >= 0 && b > 0 => Size::Fixed(a % b),
                _ if matches!((a, b), (Size::Symbolic(_), Size::Fixed(1..))) => a.minus(&a.over(b).times(b)),
                _ => Size::Unknown,
            },
        }),
        "Min" if call.inputs.len() == 2 => pairwise(call, shape, Size::at_most),
        "Max" if call.inputs.len() == 2 => pairwise(call, shape, Size::at_least),
        "Neg" => Some(call.sizes(0)?.iter().map(|size| Size::Fixed(0).minus(size)).collect()),
        "ReduceProd" if shape.iter().all(|size| size.is(1)) => Some(vec![Size::product(&call.sizes(0)?)]),
        "ReduceSum" if shape.iter().all(|size| size.is(1)) => {
            Some(vec![call.sizes(0)?.iter().fold(Size::Fixed(0), |sum, size| sum.plus(size))])
        }
        "Equal" => pairwise(call, shape, |a, b| match (a, b) {
            (Size::Fixed(a), Size::Fixed(b)) => Size::Fixed(i64::from(a == b)),
            // Names stand for sizes, which are never negative.
            (Size::Symbolic(_), Size::Fixed(n)) | (Size::Fixed(n), Size::Symbolic(_)) if *n < 0 && is_name(a, b) => {
                Size::Fixed(0)
            }
            (a, b) if a == b => Size::Fixed(1),
            _ => Size::Unknown,
        }),
        "Where" => {
            let count = Size::product(shape).fixed()? as usize;
            let list = |index: usize| stretched(call, index, shape, count);
            let (condition, x, y) = (list(0)?, list(1)?, list(2)?);
            let pick = |((condition, x), y): ((Size, Size), Size)| match condition.fixed() {
                Some(0) => y,
                Some(_) => x,
                None if x == y => x,
                None => Size::Unknown,
            };
            Some(condition.into_iter().zip(x).zip(y).map(pick).collect())
        }
        "ConstantOfShape" | "Expand" | "Tile" => None, // known elements are computed, unknown ones hardly matter
        _ => None,
    }
}

fn is_name(a: &Size, b: &Size) -> bool {
    a.name().is_some() || b.name().is_some()
}

fn pairwise(call: &Call, shape: &[Size], f: impl Fn(&Size, &Size) -> Size) -> Option<Vec<Size>> {
    let count = Size::product(shape).fixed()? as usize;
    let (a, b) = (stretched(call, 0, shape, count)?, stretched(call, 1, shape, count)?);
    Some(a.iter().zip(&b).map(|(a, b)| f(a, b)).collect())
}

/// An input's elements broadcast to the output's shape: the same count, or one for all.
fn stretched(call: &Call, index: usize, shape: &[Size], count: usize) -> Option<Vec<Size>> {
    let sizes = call.sizes(index)?;
    match sizes.len() {
        n if n == count && call.shape(index)?.len() <= shape.len() => Some(sizes),
        1 => Some(vec![sizes.first()?.clone(); count]),
        _ => None,
    }
}
