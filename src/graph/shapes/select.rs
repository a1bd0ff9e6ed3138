//! Shapes of operators that pick, count and multiply: gathers, reductions, matrix products.

use super::call::{Call, Outcome, broadcast, resolve, shown, unknown};
use super::fact::Shape;
use super::size::Size;

impl Call<'_> {
    pub(super) fn gather(&self) -> Outcome {
        let (Some(x), Some(indices)) = (self.shape(0), self.shape(1)) else { return Ok(vec![None]) };
        let at = self.axis(0, x.len())?;
        Ok(vec![Some([&x[..at], indices, &x[at + 1..]].concat())])
    }

    pub(super) fn gather_nd(&self) -> Outcome {
        let (Some(x), Some(indices)) = (self.shape(0), self.shape(1)) else { return Ok(vec![None]) };
        let Some((depth, outer)) = indices.split_last() else { return Err("its indices have no axis".into()) };
        let Some(depth) = depth.fixed() else { return Ok(vec![None]) };
        let walked = self.int("batch_dims", 0).saturating_add(depth);
        match usize::try_from(walked).ok().and_then(|walked| x.get(walked..)) {
            Some(kept) => Ok(vec![Some([outer, kept].concat())]),
            None => Err(format!("its indices {} reach deeper than its input {}", shown(indices), shown(x))),
        }
    }

    pub(super) fn reduce(&self) -> Outcome {
        let keeps = self.int("keepdims", 1) != 0;
        let axes = self.argument(1, "axes");
        let Some(x) = self.shape(0) else { return Ok(vec![None]) };
        let gone: Vec<usize> = match axes {
            Some(None) => return Ok(vec![keeps.then(|| unknown(x.len()))]),
            Some(Some(axes)) if !axes.is_empty() => {
                axes.into_iter().map(|at| resolve(at, x.len())).collect::<Result<_, _>>()?
            }
            _ if self.int("noop_with_empty_axes", 0) == 1 => return Ok(vec![self.same(0)]),
            _ => (0..x.len()).collect(),
        };
        Ok(vec![Some(without(x, &gone, keeps))])
    }

    pub(super) fn arg_reduce(&self) -> Outcome {
        let Some(x) = self.shape(0) else { return Ok(vec![None]) };
        let at = self.axis(0, x.len())?;
        Ok(vec![Some(without(x, &[at], self.int("keepdims", 1) != 0))])
    }

    pub(super) fn top_k(&self) -> Outcome {
        let Some(x) = self.shape(0) else { return Ok(vec![None, None]) };
        let at = self.axis(-1, x.len())?;
        let mut out = x.to_vec();
        out[at] = match (self.has(1), self.node.int("k")) {
            (true, _) => self.sizes(1).and_then(|k| k.into_iter().next()).unwrap_or(Size::Unknown),
            (false, Some(k)) => Size::Fixed(k),
            (false, None) => return Err("it has no k".into()),
        };
        if let (Some(k), Some(size)) = (out[at].fixed(), x[at].fixed())
            && k > size
        {
            return Err(format!("it takes the first {k} of an axis that has {size}"));
        }
        Ok(vec![Some(out.clone()), Some(out)])
    }

    pub(super) fn one_hot(&self) -> Outcome {
        let Some(x) = self.shape(0) else { return Ok(vec![None]) };
        let at = self.axis(-1, x.len() + 1)?;
        let depth = self.sizes(1).and_then(|depth| depth.into_iter().next()).unwrap_or(Size::Unknown);
        let mut out = x.to_vec();
        out.insert(at, depth);
        Ok(vec![Some(out)])
    }

    /// Matrix product of two inputs, with numpy's rules for vectors and leading axes.
    pub(super) fn matmul(&self, a: usize, b: usize, (flip_a, flip_b): (bool, bool)) -> Outcome {
        let (Some(a), Some(b)) = (self.shape(a), self.shape(b)) else { return Ok(vec![None]) };
        if a.is_empty() || b.is_empty() {
            return Err(format!("it multiplies {} and {}", shown(a), shown(b)));
        }
        let matrix = |x: &[Size], flip: bool| -> (Vec<Size>, Size, Size) {
            let (lead, last) = x.split_at(x.len() - 2);
            let (rows, columns) = (last[0].clone(), last[1].clone());
            if flip { (lead.to_vec(), columns, rows) } else { (lead.to_vec(), rows, columns) }
        };
        let one = Size::Fixed(1);
        let left = if a.len() == 1 { (vec![], one.clone(), a[0].clone()) } else { matrix(a, flip_a) };
        let right = if b.len() == 1 { (vec![], b[0].clone(), one) } else { matrix(b, flip_b) };
        if let (Some(inner), Some(other)) = (left.2.fixed(), right.1.fixed())
            && inner != other
        {
            return Err(format!("it multiplies {} and {}, whose inner sizes differ", shown(a), shown(b)));
        }
        let mut out = broadcast(&[Some(&left.0), Some(&right.0)])?.unwrap_or_default();
        if a.len() > 1 {
            out.push(left.1);
        }
        if b.len() > 1 {
            out.push(right.2);
        }
        Ok(vec![Some(out)])
    }

    pub(super) fn gemm(&self) -> Outcome {
        let flips = (self.int("transA", 0) != 0, self.int("transB", 0) != 0);
        for index in [0, 1] {
            // Before opset 11 runtimes flattened a higher rank; nothing that porter reads does.
            if let Some(x) = self.shape(index).filter(|x| x.len() != 2) {
                return Err(format!("its input {} is no matrix", shown(x)));
            }
        }
        match self.matmul(0, 1, flips)?.into_iter().next().flatten() {
            Some(out) => Ok(vec![Some(out)]),
            None => {
                let side = |index: usize, at: usize| self.shape(index).map_or(Size::Unknown, |x| x[at].clone());
                let rows = side(0, usize::from(flips.0));
                let columns = side(1, usize::from(!flips.1));
                Ok(vec![Some(vec![rows, columns])])
            }
        }
    }

    pub(super) fn range(&mut self) -> Outcome {
        let first = |index: usize| self.sizes(index).and_then(|s| s.into_iter().next());
        let (start, limit, delta) = (first(0), first(1), first(2));
        let size = match (start, limit, delta) {
            (Some(start), Some(limit), Some(delta)) if delta.fixed().is_some_and(|delta| delta > 0) => {
                let length = limit.minus(&start).over_ceil(&delta);
                if length.fixed().is_some() { length.at_least(&Size::Fixed(0)) } else { length }
            }
            (Some(Size::Fixed(start)), Some(Size::Fixed(limit)), Some(Size::Fixed(delta))) if delta < 0 => {
                let steps =
                    Size::Fixed(start).minus(&Size::Fixed(limit)).over_ceil(&Size::Fixed(0).minus(&Size::Fixed(delta)));
                steps.at_least(&Size::Fixed(0))
            }
            (_, _, Some(Size::Fixed(0))) => return Err("it steps by 0".into()),
            _ => match self.float_range() {
                Some(size) => size,
                None => self.names.fresh("range"),
            },
        };
        Ok(vec![Some(vec![size])])
    }

    fn float_range(&self) -> Option<Size> {
        let number = |index: usize| {
            let array = self.input(index)?.array()?;
            array
                .elements::<f32>()
                .and_then(|v| v.first().map(|&v| f64::from(v)))
                .or_else(|| array.elements::<f64>()?.first().copied())
        };
        let steps = ((number(1)? - number(0)?) / number(2)?).ceil();
        (steps.is_finite() && steps < 1e15).then(|| Size::Fixed(steps.max(0.0) as i64))
    }

    pub(super) fn non_zero(&mut self) -> Outcome {
        let rank = self.shape(0).map_or(Size::Unknown, |x| Size::Fixed(x.len() as i64));
        Ok(vec![Some(vec![rank, self.names.fresh("nonzero")])])
    }

    pub(super) fn compress(&mut self) -> Outcome {
        let kept = self.names.fresh("kept");
        let Some(at) = self.node.int("axis") else { return Ok(vec![Some(vec![kept])]) };
        let Some(x) = self.shape(0) else { return Ok(vec![None]) };
        let mut out = x.to_vec();
        out[resolve(at, x.len())?] = kept;
        Ok(vec![Some(out)])
    }

    pub(super) fn unique(&mut self) -> Outcome {
        let count = self.names.fresh("unique");
        let values = match self.node.int("axis") {
            None => Some(vec![count.clone()]),
            Some(at) => match self.same(0) {
                Some(mut x) => {
                    let at = resolve(at, x.len())?;
                    x[at] = count.clone();
                    Some(x)
                }
                None => None,
            },
        };
        let inverse = match self.node.int("axis") {
            None => self.shape(0).map_or(Size::Unknown, Size::product),
            Some(at) => match self.shape(0) {
                Some(x) => x[resolve(at, x.len())?].clone(),
                None => Size::Unknown,
            },
        };
        let list = |size: &Size| Some(vec![size.clone()]);
        Ok(vec![values, list(&count), list(&inverse), list(&count)])
    }

    pub(super) fn einsum(&self) -> Outcome {
        use rten_shape_inference::einsum_parser::{EinsumExpr, expand_ellipsis};
        let equation = self.node.string("equation").unwrap_or_default();
        let parsed = EinsumExpr::parse(equation).map_err(|e| format!("its equation '{equation}': {e}"))?;
        let ranks = (0..self.inputs.len()).map(|i| self.shape(i).map(<[Size]>::len));
        let Ok(dots) = parsed.validate_inputs(ranks) else {
            if (0..self.inputs.len()).all(|i| self.shape(i).is_some()) {
                return Err(format!("its equation '{equation}' does not fit its inputs"));
            }
            return Ok(vec![None]);
        };
        let terms: Vec<String> = parsed.inputs.iter().map(|term| expand_ellipsis(term, dots)).collect();
        let mut out = Vec::new();
        for letter in expand_ellipsis(&parsed.output, dots).chars() {
            let mut size = Size::Fixed(1);
            for (index, term) in terms.iter().enumerate() {
                for (found, dim) in term.chars().zip(self.shape(index).unwrap_or_default()) {
                    if found == letter {
                        size = size
                            .broadcast(dim)
                            .ok_or_else(|| format!("its equation '{equation}' gives '{letter}' two sizes"))?;
                    }
                }
            }
            out.push(size);
        }
        Ok(vec![Some(out)])
    }

    pub(super) fn determinant(&self) -> Outcome {
        Ok(vec![self.shape(0).map(|x| x[..x.len().saturating_sub(2)].to_vec())])
    }

    /// Elements of the first input at places of the second: the second's shape.
    pub(super) fn like(&self, index: usize) -> Shape {
        self.same(index)
    }
}

fn without(x: &[Size], gone: &[usize], keeps: bool) -> Vec<Size> {
    let one = |(i, size): (usize, &Size)| match (gone.contains(&i), keeps) {
        (false, _) => Some(size.clone()),
        (true, true) => Some(Size::Fixed(1)),
        (true, false) => None,
    };
    x.iter().enumerate().filter_map(one).collect()
}
