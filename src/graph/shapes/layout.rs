//! Shapes of operators that rearrange, cut and stretch.

use super::call::{Call, Outcome, broadcast, resolve, shown, unknown};
use super::fact::Shape;
use super::size::Size;
use crate::graph::fold::{shape_range, slice_bounds};

impl Call<'_> {
    pub(super) fn reshape(&self) -> Outcome {
        let wanted = match (self.has(1), self.node.ints("shape")) {
            (true, _) => self.sizes(1),
            (false, Some(sizes)) => Some(sizes.iter().map(|&size| Size::Fixed(size)).collect()),
            (false, None) => return Err("it has no shape to reshape to".into()),
        };
        let Some(wanted) = wanted else { return Ok(vec![self.length(1).map(unknown)]) };
        let data = self.shape(0);
        let keeps_zero = self.int("allowzero", 0) == 1;
        let (mut out, mut open) = (Vec::with_capacity(wanted.len()), None);
        for (index, size) in wanted.iter().enumerate() {
            out.push(match size {
                Size::Fixed(-1) if open.is_some() => return Err(format!("its shape {} has two -1", shown(&wanted))),
                Size::Fixed(-1) => {
                    open = Some(index);
                    Size::Unknown
                }
                Size::Fixed(0) if !keeps_zero => match data {
                    Some(data) => data.get(index).cloned().ok_or_else(|| {
                        format!("its shape {} keeps a dimension that {} lacks", shown(&wanted), shown(data))
                    })?,
                    None => Size::Unknown,
                },
                Size::Fixed(size) if *size < 0 => return Err(format!("its shape {} is negative", shown(&wanted))),
                size => size.clone(),
            });
        }
        let Some(data) = data else { return Ok(vec![Some(out)]) };
        let refused = || Err(format!("its input {} cannot become {}", shown(data), shown(&wanted)));
        // One dimension follows from all others: the open one, or one that nothing else tells.
        let unsure: Vec<usize> = (0..out.len()).filter(|&i| matches!(out[i], Size::Unknown)).collect();
        if let (Some(open), [only]) = (open, &unsure[..])
            && open == *only
        {
            let others: Vec<Size> =
                out.iter().enumerate().filter(|(i, _)| *i != open).map(|(_, s)| s.clone()).collect();
            let (total, rest) = (Size::product(data), Size::product(&others));
            if let (Some(total), Some(rest)) = (total.fixed(), rest.fixed()) {
                if rest == 0 && total != 0 || rest != 0 && total % rest != 0 {
                    return refused();
                }
                out[open] = Size::Fixed(if rest == 0 { 0 } else { total / rest });
            } else {
                out[open] = Size::quotient(data, &others);
            }
        } else if let (Some(total), Some(made)) = (Size::product(data).fixed(), Size::product(&out).fixed())
            && total != made
        {
            return refused();
        }
        Ok(vec![Some(out)])
    }

    pub(super) fn flatten(&self) -> Outcome {
        let Some(x) = self.shape(0) else { return Ok(vec![Some(unknown(2))]) };
        let at = self.int("axis", 1);
        let at = if at < 0 { at + x.len() as i64 } else { at };
        let Some((outer, inner)) = usize::try_from(at).ok().and_then(|at| x.split_at_checked(at)) else {
            return Err(format!("axis {at} is outside its input {}", shown(x)));
        };
        Ok(vec![Some(vec![Size::product(outer), Size::product(inner)])])
    }

    pub(super) fn squeeze(&self) -> Outcome {
        let Some(x) = self.shape(0) else { return Ok(vec![None]) };
        let gone: Vec<usize> = match self.argument(1, "axes") {
            Some(None) => return Ok(vec![None]),
            // ONNX removes none of the dimensions then, ONNX Runtime every one of size 1: only where there is none are
            // they of one mind.
            Some(Some(axes)) if axes.is_empty() && !x.iter().all(|size| size.fixed().is_some_and(|size| size != 1)) => {
                return Ok(vec![None]);
            }
            Some(Some(axes)) => axes.into_iter().map(|at| resolve(at, x.len())).collect::<Result<_, _>>()?,
            None if x.iter().all(|size| size.fixed().is_some()) => (0..x.len()).filter(|&i| x[i].is(1)).collect(),
            None => return Ok(vec![None]),
        };
        if let Some(&bad) = gone.iter().find(|&&i| x[i].fixed().is_some_and(|size| size != 1)) {
            return Err(format!("axis {bad} of its input {} is not 1", shown(x)));
        }
        Ok(vec![Some((0..x.len()).filter(|i| !gone.contains(i)).map(|i| x[i].clone()).collect())])
    }

    pub(super) fn unsqueeze(&self) -> Outcome {
        let axes = match self.argument(1, "axes") {
            Some(Some(axes)) => axes,
            Some(None) => {
                let more = self.length(1);
                return Ok(vec![self.shape(0).zip(more).map(|(x, more)| unknown(x.len() + more))]);
            }
            None => return Err("it has no axes".into()),
        };
        let Some(x) = self.shape(0) else { return Ok(vec![None]) };
        let rank = x.len() + axes.len();
        let new: Vec<usize> = axes.into_iter().map(|at| resolve(at, rank)).collect::<Result<_, _>>()?;
        let mut old = x.iter();
        let one = Size::Fixed(1);
        let dim = |i: usize, old: &mut std::slice::Iter<Size>| match new.contains(&i) {
            true => Ok(one.clone()),
            false => old.next().cloned().ok_or("it names an axis twice"),
        };
        let out: Vec<Size> = (0..rank).map(|i| dim(i, &mut old)).collect::<Result<_, _>>()?;
        Ok(vec![Some(out)])
    }

    pub(super) fn transpose(&self) -> Outcome {
        let perm = self.node.ints("perm");
        let Some(x) = self.shape(0) else { return Ok(vec![perm.map(|perm| unknown(perm.len()))]) };
        let Some(perm) = perm else { return Ok(vec![Some(x.iter().rev().cloned().collect())]) };
        if perm.len() != x.len() {
            return Err(format!("perm {perm:?} does not fit its input {}", shown(x)));
        }
        let out: Vec<Size> =
            perm.iter().map(|&at| Ok(x[resolve(at, x.len())?].clone())).collect::<Result<_, String>>()?;
        let mut places: Vec<usize> = perm.iter().map(|&at| resolve(at, x.len())).collect::<Result<_, _>>()?;
        places.sort_unstable();
        places.dedup();
        if places.len() != x.len() {
            return Err(format!("perm {perm:?} takes an axis twice"));
        }
        Ok(vec![Some(out)])
    }

    pub(super) fn concat(&self) -> Outcome {
        let shapes: Vec<Option<&[Size]>> = (0..self.inputs.len()).map(|i| self.shape(i)).collect();
        let Some(known) = shapes.iter().flatten().next() else { return Ok(vec![None]) };
        let rank = known.len();
        let at = match self.node.int("axis") {
            Some(at) => resolve(at, rank)?,
            None => return Err("it has no axis".into()),
        };
        let mut out = unknown(rank);
        out[at] = Size::Fixed(0);
        for shape in &shapes {
            let Some(shape) = shape else {
                out[at] = Size::Unknown;
                continue;
            };
            if shape.len() != rank {
                return Err(format!("its inputs {} and {} differ in rank", shown(known), shown(shape)));
            }
            for (i, size) in shape.iter().enumerate() {
                out[i] = match (&out[i], size) {
                    (sum, size) if i == at => sum.plus(size),
                    (Size::Fixed(a), Size::Fixed(b)) if a != b => {
                        return Err(format!("its inputs {} and {} differ on axis {i}", shown(known), shown(shape)));
                    }
                    (Size::Fixed(_), _) | (_, Size::Unknown) => continue,
                    (Size::Symbolic(_), Size::Symbolic(_)) => continue,
                    (_, size) => size.clone(),
                };
            }
        }
        Ok(vec![Some(out)])
    }

    pub(super) fn split(&self) -> Outcome {
        let parts = self.outputs();
        let Some(x) = self.shape(0) else { return Ok(vec![None; parts]) };
        let at = self.axis(0, x.len())?;
        let sizes: Vec<Size> = match self.argument(1, "split") {
            Some(Some(sizes)) if sizes.len() != parts => {
                return Err(format!("it has {parts} outputs and sizes for {}", sizes.len()));
            }
            Some(Some(sizes)) => {
                let total = sizes.iter().fold(0i64, |sum, &size| sum.saturating_add(size));
                if x[at].fixed().is_some_and(|size| size != total) {
                    return Err(format!("sizes {sizes:?} do not add up to axis {at} of its input {}", shown(x)));
                }
                sizes.into_iter().map(Size::Fixed).collect()
            }
            Some(None) => match self.sizes(1) {
                Some(sizes) if sizes.len() == parts => sizes,
                _ => unknown(parts),
            },
            None => {
                let count = Size::Fixed(parts as i64);
                let each = x[at].over_ceil(&count);
                let even = x[at].fixed().is_some_and(|size| size % parts.max(1) as i64 == 0);
                let last = x[at].minus(&each.times(&Size::Fixed(parts as i64 - 1)));
                (0..parts).map(|i| if i + 1 == parts && !even { last.clone() } else { each.clone() }).collect()
            }
        };
        let part = |size: Size| {
            let mut out = x.to_vec();
            out[at] = size;
            Some(out)
        };
        Ok(sizes.into_iter().map(part).collect())
    }

    pub(super) fn slice(&self) -> Outcome {
        let Some(x) = self.shape(0) else { return Ok(vec![None]) };
        let bounds = |index: usize, name: &str| match self.has(index) {
            true => Some(self.sizes(index)),
            false => self.node.ints(name).map(|values| Some(values.iter().map(|&v| Size::Fixed(v)).collect())),
        };
        let (Some(starts), Some(ends)) = (bounds(1, "starts"), bounds(2, "ends")) else {
            return Err("it has no starts or no ends".into());
        };
        let given = starts.as_ref().map(Vec::len).or(ends.as_ref().map(Vec::len)).or(self.length(1)).or(self.length(2));
        let axes: Option<Vec<i64>> = match self.argument(3, "axes") {
            Some(axes) => axes,
            None => given.map(|count| (0..count as i64).collect()),
        };
        // Which axes are cut is not known: only the rank stays.
        let Some(axes) = axes else { return Ok(vec![Some(unknown(x.len()))]) };
        let steps = match self.argument(4, "steps") {
            Some(steps) => steps,
            None => Some(vec![1; axes.len()]),
        };
        let mut out = x.to_vec();
        for (i, &at) in axes.iter().enumerate() {
            let at = resolve(at, x.len())?;
            let bound = |list: &Option<Vec<Size>>| list.as_ref().and_then(|list| list.get(i).cloned());
            let step = steps.as_ref().and_then(|steps| steps.get(i).copied());
            out[at] = match (bound(&starts), bound(&ends), step) {
                (_, _, Some(0)) => return Err("it has a step of 0".into()),
                (Some(start), Some(end), Some(step)) => cut(&start, &end, step, &x[at]),
                _ => Size::Unknown,
            };
        }
        Ok(vec![Some(out)])
    }

    pub(super) fn expand(&self) -> Outcome {
        match self.sizes(1) {
            // A size of -1 is none that the format knows, but runtimes let it stand for 1.
            Some(sizes) => {
                let sizes: Vec<Size> =
                    sizes.iter().map(|s| if s.is(-1) { Size::Fixed(1) } else { s.clone() }).collect();
                Ok(vec![broadcast(&[self.shape(0), Some(&sizes)])?])
            }
            None => {
                let length = self.length(1);
                Ok(vec![self.shape(0).zip(length).map(|(x, length)| {
                    let mut out = unknown(length.max(x.len()));
                    let missing = out.len() - x.len();
                    for (slot, size) in out[missing..].iter_mut().zip(x) {
                        if size.fixed().is_some_and(|size| size > 1) {
                            *slot = size.clone();
                        }
                    }
                    out
                })])
            }
        }
    }

    pub(super) fn tile(&self) -> Outcome {
        let Some(x) = self.shape(0) else { return Ok(vec![self.length(1).map(unknown)]) };
        let Some(repeats) = self.sizes(1) else { return Ok(vec![Some(unknown(x.len()))]) };
        if repeats.len() != x.len() {
            return Err(format!("it repeats {} axes of its input {}", repeats.len(), shown(x)));
        }
        Ok(vec![Some(x.iter().zip(&repeats).map(|(size, repeat)| size.times(repeat)).collect())])
    }

    pub(super) fn pad(&self) -> Outcome {
        let Some(x) = self.shape(0) else { return Ok(vec![None]) };
        let pads = match (self.has(1), self.node.ints("pads").or(self.node.ints("paddings"))) {
            (true, _) => self.sizes(1),
            (false, Some(pads)) => Some(pads.iter().map(|&pad| Size::Fixed(pad)).collect()),
            (false, None) => return Err("it has no pads".into()),
        };
        let axes: Vec<usize> = match self.argument(3, "axes") {
            Some(Some(axes)) => axes.into_iter().map(|at| resolve(at, x.len())).collect::<Result<_, _>>()?,
            Some(None) => return Ok(vec![Some(unknown(x.len()))]),
            None => (0..x.len()).collect(),
        };
        let Some(pads) = pads else {
            let mut out = x.to_vec();
            axes.into_iter().for_each(|at| out[at] = Size::Unknown);
            return Ok(vec![Some(out)]);
        };
        if pads.len() != 2 * axes.len() {
            return Err(format!("it has {} pads for {} axes", pads.len(), axes.len()));
        }
        let mut out = x.to_vec();
        for (i, &at) in axes.iter().enumerate() {
            out[at] = out[at].plus(&pads[i]).plus(&pads[axes.len() + i]);
        }
        Ok(vec![Some(out)])
    }

    pub(super) fn center_crop_pad(&self) -> Outcome {
        let Some(mut x) = self.same(0) else { return Ok(vec![None]) };
        let axes: Vec<usize> = match self.node.ints("axes") {
            Some(axes) => axes.iter().map(|&at| resolve(at, x.len())).collect::<Result<_, _>>()?,
            None => (0..x.len()).collect(),
        };
        let sizes = self.sizes(1).filter(|sizes| sizes.len() == axes.len()).unwrap_or_else(|| unknown(axes.len()));
        axes.into_iter().zip(sizes).for_each(|(at, size)| x[at] = size);
        Ok(vec![Some(x)])
    }

    pub(super) fn shape_of(&self) -> Outcome {
        let length = self.shape(0).map(|x| {
            let range = shape_range(self.node.int("start"), self.node.int("end"), x.len());
            vec![Size::Fixed(range.len() as i64)]
        });
        Ok(vec![Some(length.unwrap_or_else(|| unknown(1)))])
    }

    /// DepthToSpace with `deeper` false, SpaceToDepth with it true.
    pub(super) fn blocks(&self, deeper: bool) -> Outcome {
        let block = match self.node.int("blocksize") {
            Some(block) if (1..1 << 15).contains(&block) => Size::Fixed(block),
            _ => return Err("its blocksize is missing or makes no sense".into()),
        };
        let Some(x) = self.shape(0) else { return Ok(vec![Some(unknown(4))]) };
        let [n, c, h, w] = x else { return Err(format!("its input {} is not of rank 4", shown(x))) };
        let area = block.times(&block);
        Ok(vec![Some(match deeper {
            true => vec![n.clone(), c.times(&area), h.over(&block), w.over(&block)],
            false => vec![n.clone(), c.over(&area), h.times(&block), w.times(&block)],
        })])
    }

    /// The shape that an input's elements give, else its rank.
    pub(super) fn shaped_by(&self, index: usize) -> Shape {
        self.sizes(index).or_else(|| self.length(index).map(unknown))
    }
}

/// The length of a slice.
fn cut(start: &Size, end: &Size, step: i64, size: &Size) -> Size {
    if let (Some(start), Some(end), Some(size)) = (start.fixed(), end.fixed(), size.fixed()) {
        return slice_bounds(start, end, step, size).map_or(Size::Unknown, |(_, length)| Size::Fixed(length));
    }
    if step == -1 && start.is(-1) && end.fixed().is_some_and(|end| end < i64::from(i32::MIN)) {
        return size.clone(); // the whole axis, walked backwards
    }
    if step < 1 {
        return Size::Unknown;
    }
    // Places counted from the end become expressions; past the end is the end.
    let place = |at: &Size| match at {
        Size::Fixed(at) if *at < 0 => size.plus(&Size::Fixed(*at)),
        Size::Fixed(at) if *at >= i64::from(i32::MAX) => size.clone(),
        _ => at.clone(),
    };
    let (first, last) = (place(start), place(end));
    let last = match (&last, size) {
        (last, size) if *last == *size => last.clone(),
        // Shape arithmetic keeps its bounds inside; a plain number may lie beyond a symbolic end.
        (Size::Fixed(_), _) if end.fixed().is_none_or(|end| end >= 0) => last.at_most(size),
        _ => last,
    };
    last.minus(&first).over_ceil(&Size::Fixed(step))
}
