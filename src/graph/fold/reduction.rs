//! Reductions and running sums of constants.

use super::array::{Array, Element, axis, count};
use super::kernel::Call;
use crate::onnx::DType;

impl Call<'_> {
    /// The result of a reduction over integers, or of a maximum or minimum; `None` where this is none. Sums of floats
    /// depend on the order of adding and are left to an engine.
    pub(super) fn reduction(&self) -> Option<Vec<Array>> {
        let op = self.node.op_type.as_str();
        match op {
            "ReduceSum" | "ReduceProd" | "ReduceMax" | "ReduceMin" => {}
            "CumSum" => return Some(vec![self.running_sum()?]),
            _ => return None,
        }
        let x = self.input(0)?;
        match x.dtype {
            DType::Int64 => self.reduce::<i64>(x, |a, b| match op {
                "ReduceSum" => Some(a.wrapping_add(b)),
                "ReduceProd" => Some(a.wrapping_mul(b)),
                "ReduceMax" => Some(a.max(b)),
                _ => Some(a.min(b)),
            }),
            DType::Int32 => self.reduce::<i32>(x, |a, b| match op {
                "ReduceSum" => Some(a.wrapping_add(b)),
                "ReduceProd" => Some(a.wrapping_mul(b)),
                "ReduceMax" => Some(a.max(b)),
                _ => Some(a.min(b)),
            }),
            DType::Float => self.reduce::<f32>(x, |a, b| match op {
                _ if a.is_nan() || b.is_nan() => None,
                "ReduceMax" => Some(a.max(b)),
                "ReduceMin" => Some(a.min(b)),
                _ => None,
            }),
            _ => None,
        }
        .map(|array| vec![array])
    }

    fn reduce<T: Element>(&self, x: &Array, f: impl Fn(T, T) -> Option<T>) -> Option<Array> {
        let rank = x.dims.len();
        let axes = match self.input(1) {
            Some(axes) => axes.to_i64s()?,
            None => self.node.ints("axes").unwrap_or_default().to_vec(),
        };
        if axes.is_empty() && self.node.int("noop_with_empty_axes") == Some(1) {
            return Some(x.clone());
        }
        let mut gone: Vec<usize> = axes.into_iter().map(|a| axis(a, rank)).collect::<Option<_>>()?;
        if gone.is_empty() {
            gone = (0..rank).collect();
        }
        // Reduced axes move to the end, where their elements stand in one run.
        let kept: Vec<usize> = (0..rank).filter(|i| !gone.contains(i)).collect();
        gone.sort_unstable();
        gone.dedup();
        let run = count(&gone.iter().map(|&i| x.dims[i]).collect::<Vec<_>>())?;
        let moved = x.permuted(&[kept.clone(), gone.clone()].concat())?.elements::<T>()?;
        if run == 0 {
            return None;
        }
        let mut out = Vec::with_capacity(moved.len() / run);
        for chunk in moved.chunks_exact(run) {
            let (&first, rest) = chunk.split_first()?;
            out.push(rest.iter().try_fold(first, |a, &b| f(a, b))?);
        }
        let dims = match self.node.int("keepdims").unwrap_or(1) {
            0 => kept.iter().map(|&i| x.dims[i]).collect(),
            _ => (0..rank).map(|i| if gone.contains(&i) { 1 } else { x.dims[i] }).collect(),
        };
        Some(Array::from_elements(dims, out))
    }

    fn running_sum(&self) -> Option<Array> {
        let x = self.input(0)?;
        let flag = |name: &str| self.node.int(name).unwrap_or(0) != 0;
        if x.dtype != DType::Int64 || flag("exclusive") || flag("reverse") {
            return None;
        }
        let at = axis(*self.input(1)?.to_i64s()?.first()?, x.dims.len())?;
        let step = count(&x.dims[at + 1..])?;
        let size = x.dims[at];
        let mut values = x.elements::<i64>()?;
        for i in 0..values.len() {
            if size > 0 && i / step % size != 0 {
                values[i] = values[i].wrapping_add(values[i - step]);
            }
        }
        Some(Array::from_elements(x.dims.clone(), values))
    }
}
