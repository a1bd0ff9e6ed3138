//! Elements at fixed places along a dimension, as few plain instructions as their pattern needs.
//!
//! Used by Gather with constant indices, Pad and nearest Resize. Whole-number upsampling is broadcast and reshape; runs
//! that go up, down or stand still are slice, reverse and broadcast, joined by concatenate; anything else is a gather
//! with a constant index.

use crate::lower::hlo::{Builder, GatherDims, Op};
use crate::onnx::DType;

/// More runs than this are a gather.
const RUNS: usize = 16;
/// Runs that go down are taken one by one up to this many: a compiler is known that turns tensors round wrongly (N39).
const SHORT: i64 = 6;

/// A stretch of indices in even steps.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Run {
    start: i64,
    step: i64,
    count: i64,
}

impl Run {
    /// A short run that goes down as runs of one.
    fn without_turning(self) -> Vec<Run> {
        match self.step < 0 && self.count <= SHORT {
            true => (0..self.count).map(|i| Run { start: self.start + i * self.step, step: 1, count: 1 }).collect(),
            false => vec![self],
        }
    }
}

/// The elements of `x` at `indices` along `axis`, in that order. Each index must be inside.
pub fn pick(b: &mut Builder, x: Op, axis: usize, indices: &[i64]) -> Op {
    let mut dims = b.dims(x);
    let size = dims[axis];
    if indices.iter().any(|&i| i < 0 || i >= size) {
        b.fail(|| format!("a place is outside of {size} elements"));
        return x;
    }
    if let Some(times) = upsampling(indices, size) {
        let mut double = dims.clone();
        double.insert(axis + 1, times);
        let places: Vec<i64> = (0..dims.len()).map(|i| if i <= axis { i as i64 } else { i as i64 + 1 }).collect();
        let repeated = b.broadcast(x, &double, &places);
        dims[axis] *= times;
        return b.reshape(repeated, &dims);
    }
    let runs: Vec<Run> = runs(indices).into_iter().flat_map(Run::without_turning).collect();
    if runs.len() > RUNS {
        let places = b.integers(DType::Int32, &[indices.len() as i64, 1], indices);
        return gather_axis(b, x, axis, places);
    }
    let mut parts = Vec::new();
    for run in runs {
        let last = run.start + run.step * (run.count - 1);
        let (low, high) = (run.start.min(last), run.start.max(last));
        let mut start = vec![0; dims.len()];
        let mut limit = dims.clone();
        let mut stride = vec![1; dims.len()];
        start[axis] = low;
        limit[axis] = high + 1;
        stride[axis] = run.step.abs().max(1);
        let mut part = b.slice(x, &start, &limit, &stride);
        if run.step < 0 {
            part = b.reverse(part, &[axis as i64]);
        } else if run.step == 0 && run.count > 1 {
            let mut wide = dims.clone();
            wide[axis] = run.count;
            part = b.expand(part, &wide);
        }
        parts.push(part);
    }
    if parts.is_empty() {
        return b.slice_axis(x, axis, 0, 0);
    }
    b.concatenate(&parts, axis)
}

/// A gather along one dimension by an index tensor `[..., 1]`, whose other dimensions take the place of the axis.
pub fn gather_axis(b: &mut Builder, x: Op, axis: usize, indices: Op) -> Op {
    let dims = b.dims(x);
    let batch = b.dims(indices).len() as i64 - 1;
    let offset_dims = (0..dims.len() as i64 - 1).map(|i| if i < axis as i64 { i } else { i + batch }).collect();
    let mut slice_sizes = dims;
    slice_sizes[axis] = 1;
    let numbers = GatherDims {
        offset_dims,
        collapsed_slice_dims: vec![axis as i64],
        start_index_map: vec![axis as i64],
        index_vector_dim: batch,
        slice_sizes,
    };
    b.gather(x, indices, numbers)
}

/// How often each element stands one behind another, if every element does so equally often.
fn upsampling(indices: &[i64], size: i64) -> Option<i64> {
    let count = indices.len() as i64;
    if size == 0 || count == size || count % size != 0 {
        return None;
    }
    let times = count / size;
    indices.iter().enumerate().all(|(i, &index)| i as i64 / times == index).then_some(times)
}

fn runs(indices: &[i64]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for &index in indices {
        match runs.last_mut() {
            Some(run) if run.count == 1 => {
                run.step = index - run.start;
                run.count = 2;
            }
            Some(run) if run.start + run.step * run.count == index => run.count += 1,
            _ => runs.push(Run { start: index, step: 1, count: 1 }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_fall_into_runs() {
        let run = |start, step, count| Run { start, step, count };
        assert_eq!(runs(&[2, 1, 0, 1, 2]), [run(2, -1, 3), run(1, 1, 2)]);
        assert_eq!(runs(&[0, 0, 0, 1, 2, 3]), [run(0, 0, 3), run(1, 1, 3)]);
        assert_eq!(runs(&[0, 2, 4]), [run(0, 2, 3)]);
        assert_eq!(runs(&[]), []);
    }

    #[test]
    fn whole_upsampling_is_seen() {
        assert_eq!(upsampling(&[0, 0, 1, 1, 2, 2], 3), Some(2));
        assert_eq!(upsampling(&[0, 1, 1, 2, 2, 2], 3), None);
        assert_eq!(upsampling(&[0, 1, 2], 3), None);
    }
}
