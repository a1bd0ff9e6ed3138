//! Operators that move elements and compute nothing: the same for every element type.

use super::array::{Array, axis, count, strides};
use super::kernel::Call;
use crate::onnx::DType;

impl Call<'_> {
    /// The result of a layout operator; `None` where this is none, or makes no sense.
    pub(super) fn layout(&self) -> Option<Vec<Array>> {
        let one = |array: Array| Some(vec![array]);
        match self.node.op_type.as_str() {
            "Identity" => one(self.input(0)?.clone()),
            "Reshape" => one(self.reshape()?),
            "Flatten" => one(self.flatten()?),
            "Squeeze" => one(self.squeeze()?),
            "Unsqueeze" => one(self.unsqueeze()?),
            "Transpose" => one(self.transpose()?),
            "Slice" => one(self.slice()?),
            "Gather" => one(self.gather()?),
            "GatherElements" => one(self.gather_elements()?),
            "GatherND" => one(self.gather_nd()?),
            "Concat" => one(self.concat()?),
            "Split" => self.split(),
            "Expand" => one(self.expand()?),
            "Tile" => one(self.tile()?),
            "Pad" => one(self.pad()?),
            "Shape" => one(self.shape()?),
            "Size" => one(Array::from_elements(vec![], [self.input(0)?.len() as i64])),
            "ConstantOfShape" => one(self.constant_of_shape()?),
            "ScatterND" => one(self.scatter_nd()?),
            "DepthToSpace" => one(self.depth_to_space()?),
            "SpaceToDepth" => one(self.space_to_depth()?),
            "Trilu" => one(self.trilu()?),
            "NonZero" => one(self.non_zero()?),
            _ => None,
        }
    }

    fn reshape(&self) -> Option<Array> {
        let data = self.input(0)?;
        let wanted = match self.input(1) {
            Some(shape) => shape.to_i64s()?,
            None => self.node.ints("shape")?.to_vec(),
        };
        let keeps_zero = self.node.int("allowzero") == Some(1);
        let mut dims = Vec::with_capacity(wanted.len());
        let mut open = None;
        for (index, &size) in wanted.iter().enumerate() {
            dims.push(match size {
                -1 if open.is_none() => {
                    open = Some(index);
                    1
                }
                0 if !keeps_zero => *data.dims.get(index)?,
                size => usize::try_from(size).ok()?,
            });
        }
        if let Some(open) = open {
            let rest = count(&dims)?;
            *dims.get_mut(open)? = data.len().checked_div(rest)?;
        }
        data.reshaped(dims)
    }

    fn flatten(&self) -> Option<Array> {
        let data = self.input(0)?;
        let rank = data.dims.len() as i64;
        let at = self.node.int("axis").unwrap_or(1);
        let at = usize::try_from(if at < 0 { at + rank } else { at }).ok()?;
        let (outer, inner) = data.dims.split_at_checked(at)?;
        data.reshaped(vec![count(outer)?, count(inner)?])
    }

    fn axes(&self) -> Option<Option<Vec<i64>>> {
        match self.input(1) {
            Some(axes) => axes.to_i64s().map(Some),
            None => Some(self.node.ints("axes").map(<[i64]>::to_vec)),
        }
    }

    fn squeeze(&self) -> Option<Array> {
        let data = self.input(0)?;
        let rank = data.dims.len();
        let gone: Vec<usize> = match self.axes()? {
            // ONNX and ONNX Runtime disagree on what no axes remove.
            Some(axes) if axes.is_empty() && data.dims.contains(&1) => return None,
            Some(axes) => axes.into_iter().map(|a| axis(a, rank)).collect::<Option<_>>()?,
            None => (0..rank).filter(|&i| data.dims[i] == 1).collect(),
        };
        data.reshaped((0..rank).filter(|i| !gone.contains(i)).map(|i| data.dims[i]).collect())
    }

    fn unsqueeze(&self) -> Option<Array> {
        let data = self.input(0)?;
        let axes = self.axes()??;
        let rank = data.dims.len() + axes.len();
        let new: Vec<usize> = axes.into_iter().map(|a| axis(a, rank)).collect::<Option<_>>()?;
        let mut old = data.dims.iter();
        let dims = (0..rank).map(|i| if new.contains(&i) { Some(1) } else { old.next().copied() });
        data.reshaped(dims.collect::<Option<_>>()?)
    }

    fn transpose(&self) -> Option<Array> {
        let data = self.input(0)?;
        let rank = data.dims.len();
        let perm: Vec<usize> = match self.node.ints("perm") {
            Some(perm) => perm.iter().map(|&a| axis(a, rank)).collect::<Option<_>>()?,
            None => (0..rank).rev().collect(),
        };
        data.permuted(&perm)
    }

    fn slice(&self) -> Option<Array> {
        let data = self.input(0)?;
        let given = |index: usize, name: &str| match self.input(index) {
            Some(array) => array.to_i64s().map(Some),
            None => Some(self.node.ints(name).map(<[i64]>::to_vec)),
        };
        let starts = given(1, "starts")??;
        let ends = given(2, "ends")??;
        let axes = given(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = given(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
        let mut dims = data.dims.clone();
        let mut walk = strides(&data.dims);
        let mut offset = 0;
        for (((&start, &end), &at), &step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
            let at = axis(at, data.dims.len())?;
            let (first, length) = slice_bounds(start, end, step, data.dims[at] as i64)?;
            dims[at] = length as usize;
            offset += first * walk[at];
            walk[at] = walk[at].checked_mul(step)?;
        }
        if steps.iter().all(|&step| step == 1) && dims == data.dims {
            return Some(data.clone());
        }
        data.walk(dims, offset, &walk)
    }

    fn gather(&self) -> Option<Array> {
        let (data, indices) = (self.input(0)?, self.input(1)?);
        let at = axis(self.node.int("axis").unwrap_or(0), data.dims.len())?;
        let size = data.dims[at];
        let block = count(&data.dims[at + 1..])?.checked_mul(data.width())?;
        let outer = count(&data.dims[..at])?;
        let indices_read: Vec<usize> = indices.to_i64s()?.into_iter().map(|i| axis(i, size)).collect::<Option<_>>()?;
        let dims = [&data.dims[..at], &indices.dims, &data.dims[at + 1..]].concat();
        let mut out = Vec::with_capacity(count(&dims)?.checked_mul(data.width())?);
        for row in 0..outer {
            for &index in &indices_read {
                let start = (row * size + index) * block;
                out.extend_from_slice(data.bytes.get(start..start + block)?);
            }
        }
        Some(Array { dtype: data.dtype, dims, bytes: out.into() })
    }

    fn gather_elements(&self) -> Option<Array> {
        let (data, indices) = (self.input(0)?, self.input(1)?);
        let rank = data.dims.len();
        let at = axis(self.node.int("axis").unwrap_or(0), rank)?;
        let fits = (0..rank).all(|i| i == at || indices.dims.get(i).is_some_and(|&size| size <= data.dims[i]));
        if indices.dims.len() != rank || !fits {
            return None;
        }
        let (own, width) = (strides(&data.dims), data.width());
        let mut out = Vec::with_capacity(indices.len() * width);
        for (position, index) in indices.to_i64s()?.into_iter().enumerate() {
            let index = axis(index, data.dims[at])?;
            let mut rest = position;
            let mut start = index * own[at] as usize;
            for i in (0..rank).rev() {
                let digit = rest % indices.dims[i];
                rest /= indices.dims[i];
                if i != at {
                    start += digit * own[i] as usize;
                }
            }
            out.extend_from_slice(data.bytes.get(start * width..(start + 1) * width)?);
        }
        Some(Array { dtype: data.dtype, dims: indices.dims.clone(), bytes: out.into() })
    }

    fn gather_nd(&self) -> Option<Array> {
        let (data, indices) = (self.input(0)?, self.input(1)?);
        if self.node.int("batch_dims").unwrap_or(0) != 0 {
            return None;
        }
        let (&depth, outer) = indices.dims.split_last()?;
        let (walked, kept) = data.dims.split_at_checked(depth)?;
        let block = count(kept)?.checked_mul(data.width())?;
        let mut out = Vec::new();
        let indices = indices.to_i64s()?;
        for tuple in indices.chunks_exact(depth.max(1)) {
            let start = flat(tuple, walked)? * block;
            out.extend_from_slice(data.bytes.get(start..start + block)?);
        }
        let made = Array { dtype: data.dtype, dims: [outer, kept].concat(), bytes: out.into() };
        (count(&made.dims)? == made.len()).then_some(made)
    }

    fn scatter_nd(&self) -> Option<Array> {
        let (data, indices, updates) = (self.input(0)?, self.input(1)?, self.input(2)?);
        if self.node.string("reduction").is_some_and(|how| how != "none") || updates.dtype != data.dtype {
            return None;
        }
        let (&depth, _) = indices.dims.split_last()?;
        let (walked, kept) = data.dims.split_at_checked(depth)?;
        let block = count(kept)?.checked_mul(data.width())?;
        let mut out = data.bytes.to_vec();
        let indices = indices.to_i64s()?;
        for (i, tuple) in indices.chunks_exact(depth.max(1)).enumerate() {
            let start = flat(tuple, walked)? * block;
            out.get_mut(start..start + block)?.copy_from_slice(updates.bytes.get(i * block..(i + 1) * block)?);
        }
        Some(Array { dtype: data.dtype, dims: data.dims.clone(), bytes: out.into() })
    }

    fn concat(&self) -> Option<Array> {
        let arrays: Vec<&Array> = self.inputs.iter().map(Option::as_ref).collect::<Option<_>>()?;
        let first = *arrays.first()?;
        let at = axis(self.node.int("axis")?, first.dims.len())?;
        let mut dims = first.dims.clone();
        dims[at] = 0;
        for array in &arrays {
            let same = array.dims.len() == dims.len()
                && array.dtype == first.dtype
                && (0..dims.len()).all(|i| i == at || array.dims[i] == dims[i]);
            if !same {
                return None;
            }
            dims[at] += array.dims[at];
        }
        let outer = count(&dims[..at])?;
        let mut out = Vec::with_capacity(count(&dims)?.checked_mul(first.width())?);
        for row in 0..outer {
            for array in &arrays {
                let block = array.bytes.len() / outer.max(1);
                out.extend_from_slice(array.bytes.get(row * block..(row + 1) * block)?);
            }
        }
        Some(Array { dtype: first.dtype, dims, bytes: out.into() })
    }

    fn split(&self) -> Option<Vec<Array>> {
        let data = self.input(0)?;
        let at = axis(self.node.int("axis").unwrap_or(0), data.dims.len())?;
        let parts = self.node.outputs.len();
        let sizes: Vec<i64> = match (self.input(1), self.node.ints("split")) {
            (Some(sizes), _) => sizes.to_i64s()?,
            (None, Some(sizes)) => sizes.to_vec(),
            (None, None) => {
                let (size, parts) = (data.dims[at] as i64, parts as i64);
                let each = (size + parts - 1).checked_div(parts)?;
                (0..parts).map(|i| each.min(size - i * each).max(0)).collect()
            }
        };
        let total = sizes.iter().try_fold(0i64, |sum, &size| sum.checked_add(size).filter(|_| size >= 0));
        if sizes.len() != parts || total != Some(data.dims[at] as i64) {
            return None;
        }
        let walk = strides(&data.dims);
        let mut start = 0;
        let mut out = Vec::with_capacity(parts);
        for size in sizes {
            let mut dims = data.dims.clone();
            dims[at] = usize::try_from(size).ok()?;
            out.push(data.walk(dims, start * walk[at], &walk)?);
            start += size;
        }
        Some(out)
    }

    fn expand(&self) -> Option<Array> {
        let data = self.input(0)?;
        let wanted = self.input(1)?.to_i64s()?;
        let wanted: Vec<usize> = wanted.into_iter().map(|size| usize::try_from(size).ok()).collect::<Option<_>>()?;
        data.broadcast_to(&super::array::broadcast_dims(&[&data.dims, &wanted])?)
    }

    fn tile(&self) -> Option<Array> {
        let data = self.input(0)?;
        let repeats = self.input(1)?.to_i64s()?;
        if repeats.len() != data.dims.len() {
            return None;
        }
        // Each axis becomes two: the repeat, which stands still, and the axis itself.
        let own = strides(&data.dims);
        let (mut dims, mut walk, mut out) = (Vec::new(), Vec::new(), Vec::new());
        for ((&size, &repeat), &step) in data.dims.iter().zip(&repeats).zip(&own) {
            let repeat = usize::try_from(repeat).ok()?;
            dims.extend([repeat, size]);
            walk.extend([0, step]);
            out.push(repeat.checked_mul(size)?);
        }
        data.walk(dims, 0, &walk)?.reshaped(out)
    }

    fn pad(&self) -> Option<Array> {
        let data = self.input(0)?;
        if self.node.string("mode").unwrap_or("constant") != "constant" {
            return None;
        }
        let rank = data.dims.len();
        let pads = match self.input(1) {
            Some(pads) => pads.to_i64s()?,
            None => self.node.ints("pads")?.to_vec(),
        };
        let axes: Vec<usize> = match self.input(3) {
            Some(axes) => axes.to_i64s()?.into_iter().map(|a| axis(a, rank)).collect::<Option<_>>()?,
            None => (0..rank).collect(),
        };
        if pads.len() != 2 * axes.len() || pads.iter().any(|&pad| pad < 0) {
            return None;
        }
        let (mut dims, mut begins) = (data.dims.clone(), vec![0usize; rank]);
        for (i, &at) in axes.iter().enumerate() {
            begins[at] = pads[i] as usize;
            dims[at] = dims[at].checked_add(pads[i] as usize)?.checked_add(pads[axes.len() + i] as usize)?;
        }
        let width = data.width();
        let fill = match self.input(2) {
            Some(value) => value.bytes.get(..width)?.to_vec(),
            None if self.node.float("value").is_some_and(|value| value != 0.0) => return None,
            None => vec![0; width],
        };
        let mut out = fill.repeat(count(&dims)?);
        let (own, new) = (strides(&data.dims), strides(&dims));
        let row = data.dims.last().copied().unwrap_or(1);
        for start in (0..data.len()).step_by(row.max(1)) {
            let mut to = 0;
            for i in 0..rank {
                let digit = if i + 1 == rank { 0 } else { start / own[i] as usize % data.dims[i] };
                to += (digit + begins[i]) * new[i] as usize;
            }
            out.get_mut(to * width..(to + row) * width)?
                .copy_from_slice(data.bytes.get(start * width..(start + row) * width)?);
        }
        Some(Array { dtype: data.dtype, dims, bytes: out.into() })
    }

    fn shape(&self) -> Option<Array> {
        let dims = self.input(0)?.dims_i64();
        let range = shape_range(self.node.int("start"), self.node.int("end"), dims.len());
        Some(Array::ints(dims.get(range)?))
    }

    fn constant_of_shape(&self) -> Option<Array> {
        let dims = self.input(0)?.to_i64s()?;
        let dims: Vec<usize> = dims.into_iter().map(|size| usize::try_from(size).ok()).collect::<Option<_>>()?;
        let element = match self.node.attr("value") {
            Some(crate::graph::AttributeValue::Tensor(tensor)) => Array::of(tensor)?,
            Some(_) => return None,
            None => Array::from_elements(vec![1], [0f32]),
        };
        let bytes = element.bytes.get(..element.width())?;
        Some(Array { dtype: element.dtype, bytes: bytes.repeat(count(&dims)?).into(), dims })
    }

    fn depth_to_space(&self) -> Option<Array> {
        let data = self.input(0)?;
        let &[n, c, h, w] = data.dims.as_slice() else { return None };
        let block = usize::try_from(self.node.int("blocksize")?).ok()?;
        let inner = c.checked_div(block.checked_mul(block)?)?;
        let crd = self.node.string("mode") == Some("CRD");
        let split = if crd { vec![n, inner, block, block, h, w] } else { vec![n, block, block, inner, h, w] };
        let perm = if crd { [0, 1, 4, 2, 5, 3] } else { [0, 3, 4, 1, 5, 2] };
        data.reshaped(split)?.permuted(&perm)?.reshaped(vec![n, inner, h * block, w * block])
    }

    fn space_to_depth(&self) -> Option<Array> {
        let data = self.input(0)?;
        let &[n, c, h, w] = data.dims.as_slice() else { return None };
        let block = usize::try_from(self.node.int("blocksize")?).ok()?;
        let (rows, columns) = (h.checked_div(block)?, w.checked_div(block)?);
        let split = data.reshaped(vec![n, c, rows, block, columns, block])?;
        let columns_first = self.node.string("mode") == Some("CRD");
        let perm = if columns_first { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] };
        split.permuted(&perm)?.reshaped(vec![n, c.checked_mul(block)?.checked_mul(block)?, rows, columns])
    }

    fn trilu(&self) -> Option<Array> {
        let data = self.input(0)?;
        let &[.., rows, columns] = data.dims.as_slice() else { return None };
        let shift = match self.input(1) {
            Some(k) => *k.to_i64s()?.first()?,
            None => 0,
        };
        let upper = self.node.int("upper").unwrap_or(1) != 0;
        let (width, mut out) = (data.width(), data.bytes.to_vec());
        for (i, element) in out.chunks_exact_mut(width).enumerate() {
            let (row, column) = ((i / columns % rows) as i64, (i % columns) as i64);
            let keeps = if upper { column >= row.saturating_add(shift) } else { column <= row.saturating_add(shift) };
            if !keeps {
                element.fill(0);
            }
        }
        Some(Array { dtype: data.dtype, dims: data.dims.clone(), bytes: out.into() })
    }

    fn non_zero(&self) -> Option<Array> {
        let data = self.input(0)?;
        if !(data.dtype.is_integer() || data.dtype == DType::Bool) || data.dims.is_empty() {
            return None; // floats have a negative zero
        }
        let own = strides(&data.dims);
        let hits: Vec<i64> =
            (0..data.len() as i64).zip(data.to_i64s()?).filter(|(_, x)| *x != 0).map(|(i, _)| i).collect();
        let rows = own.iter().zip(&data.dims);
        let values: Vec<i64> =
            rows.flat_map(|(&step, &size)| hits.iter().map(move |&hit| hit / step % size as i64)).collect();
        Array::ints(&values).reshaped(vec![data.dims.len(), hits.len()])
    }
}

impl Array {
    /// The array with its axes in another order.
    pub fn permuted(&self, perm: &[usize]) -> Option<Self> {
        let own = strides(&self.dims);
        let mut seen = vec![false; self.dims.len()];
        for &at in perm {
            if std::mem::replace(seen.get_mut(at)?, true) {
                return None;
            }
        }
        if perm.len() != self.dims.len() {
            return None;
        }
        let dims: Vec<usize> = perm.iter().map(|&at| self.dims[at]).collect();
        // Where only axes of size 1 move, the elements stay where they are.
        let moved: Vec<usize> = perm.iter().copied().filter(|&at| self.dims[at] != 1).collect();
        if moved.is_sorted() {
            return self.reshaped(dims);
        }
        let walk: Vec<i64> = perm.iter().map(|&at| own[at]).collect();
        self.walk(dims, 0, &walk)
    }
}

/// The row-major position of an index tuple.
fn flat(tuple: &[i64], dims: &[usize]) -> Option<usize> {
    if tuple.len() != dims.len() {
        return None;
    }
    tuple.iter().zip(dims).try_fold(0usize, |at, (&index, &size)| at.checked_mul(size)?.checked_add(axis(index, size)?))
}

/// First position and length of a slice over an axis of `size`, by ONNX's clamping; `None` for step 0.
pub fn slice_bounds(start: i64, end: i64, step: i64, size: i64) -> Option<(i64, i64)> {
    if step == 0 {
        return None;
    }
    if size == 0 {
        return Some((0, 0));
    }
    let from_end = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
    let (start, end) = match step > 0 {
        true => (from_end(start).clamp(0, size), from_end(end).clamp(0, size)),
        false => (from_end(start).clamp(0, size - 1), from_end(end).clamp(-1, size - 1)),
    };
    let distance = if step > 0 { end - start } else { start - end };
    let step = step.checked_abs()?;
    let length = if distance <= 0 { 0 } else { (distance - 1) / step + 1 };
    Some((start, length))
}

/// The part of a shape that Shape's `start` and `end` name.
pub fn shape_range(start: Option<i64>, end: Option<i64>, rank: usize) -> std::ops::Range<usize> {
    let rank = rank as i64;
    let place = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
    let start = place(start.unwrap_or(0));
    start..place(end.unwrap_or(rank)).max(start)
}
