//! Instructions that combine many elements: reductions, windows, products, convolutions.

use super::{Binary, Builder, DotDims, Kind, Op, Shape, Window};

impl Builder {
    /// Combines all elements along these dimensions, which go away.
    pub fn reduce(&mut self, x: Op, init: Op, dims: &[i64], binary: Binary) -> Op {
        if dims.is_empty() {
            return x;
        }
        let shape = self.shape(x).clone();
        let kept: Vec<i64> =
            (0..shape.rank() as i64).filter(|i| !dims.contains(i)).map(|i| shape.dims[i as usize]).collect();
        let reducer = self.reducer(binary, shape.dtype);
        let mut sorted = dims.to_vec();
        sorted.sort_unstable();
        self.push(Kind::Reduce { dims: sorted, reducer }, &[x, init], Shape::new(shape.dtype, kept))
    }

    /// The sum along these dimensions, which go away.
    pub fn sum(&mut self, x: Op, dims: &[i64]) -> Op {
        let zero = self.scalar(self.dtype(x), 0.0);
        self.reduce(x, zero, dims, Binary::Add)
    }

    /// The largest along these dimensions, which go away.
    pub fn largest(&mut self, x: Op, dims: &[i64]) -> Op {
        let init = self.extreme(self.dtype(x), false);
        self.reduce(x, init, dims, Binary::Maximum)
    }

    /// The smallest along these dimensions, which go away.
    pub fn smallest(&mut self, x: Op, dims: &[i64]) -> Op {
        let init = self.extreme(self.dtype(x), true);
        self.reduce(x, init, dims, Binary::Minimum)
    }

    /// A reduced tensor with the dimensions that went away back, repeated to the sizes of `like`.
    pub fn spread(&mut self, reduced: Op, like: &[i64], dims: &[i64]) -> Op {
        let places: Vec<i64> = (0..like.len() as i64).filter(|i| !dims.contains(i)).collect();
        self.broadcast(reduced, like, &places)
    }

    /// Combines the elements under a window, one result for each of its places. One entry a dimension.
    pub fn reduce_window(&mut self, x: Op, init: Op, window: &[Window], binary: Binary) -> Op {
        let shape = self.shape(x).clone();
        if window.len() != shape.rank() {
            self.fail(|| "a window needs one entry a dimension".into());
            return x;
        }
        let dims: Vec<i64> = shape.dims.iter().zip(window).map(|(&size, w)| w.places(size)).collect();
        let reducer = self.reducer(binary, shape.dtype);
        let kind = Kind::ReduceWindow { window: window.to_vec(), reducer };
        self.push(kind, &[x, init], Shape::new(shape.dtype, dims))
    }

    /// A product of tensors. The result has the batch dimensions, then the rest of the left, then the rest of the right.
    pub fn dot(&mut self, x: Op, y: Op, dims: DotDims) -> Op {
        let (left, right) = (self.shape(x).clone(), self.shape(y).clone());
        let at = |shape: &Shape, list: &[i64]| list.iter().map(|&i| shape.dims[i as usize]).collect::<Vec<i64>>();
        let fits = left.dtype == right.dtype
            && at(&left, &dims.left_contracting) == at(&right, &dims.right_contracting)
            && at(&left, &dims.left_batch) == at(&right, &dims.right_batch);
        if !fits {
            self.fail(|| format!("{left:?} and {right:?} do not multiply over {dims:?}"));
        }
        let rest = |shape: &Shape, taken: [&[i64]; 2]| {
            (0..shape.rank() as i64)
                .filter(|i| taken.iter().all(|list| !list.contains(i)))
                .map(|i| shape.dims[i as usize])
                .collect::<Vec<i64>>()
        };
        let mut out = at(&left, &dims.left_batch);
        out.extend(rest(&left, [&dims.left_batch, &dims.left_contracting]));
        out.extend(rest(&right, [&dims.right_batch, &dims.right_contracting]));
        self.push(Kind::Dot(dims), &[x, y], Shape::new(left.dtype, out))
    }

    /// A convolution of `[batch, features, space...]` with `[out, in / groups, space...]`.
    pub fn convolution(&mut self, x: Op, kernel: Op, window: &[Window], groups: i64) -> Op {
        let (input, filter) = (self.shape(x).clone(), self.shape(kernel).clone());
        let fits = input.dtype == filter.dtype
            && input.rank() == window.len() + 2
            && filter.rank() == input.rank()
            && groups > 0
            && input.dims[1] == filter.dims[1] * groups
            && filter.dims[0] % groups == 0
            && window.iter().zip(&filter.dims[2..]).all(|(w, &size)| w.size == size);
        if !fits {
            self.fail(|| format!("a convolution of {input:?} with {filter:?} in {groups} groups"));
            return x;
        }
        let mut dims = vec![input.dims[0], filter.dims[0]];
        dims.extend(input.dims[2..].iter().zip(window).map(|(&size, w)| w.places(size)));
        let kind = Kind::Convolution { window: window.to_vec(), groups };
        self.push(kind, &[x, kernel], Shape::new(input.dtype, dims))
    }
}
