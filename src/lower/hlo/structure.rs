//! Instructions that move elements: reshape, broadcast, slice, pad, gather, scatter, sort, loops.

use super::{Binary, Builder};
use super::{Direction, GatherDims, Inner, Kind, Op, ScatterDims, Shape};
use crate::onnx::DType;

impl Builder {
    /// The same elements under other sizes. Sizes that it has already are left alone.
    pub fn reshape(&mut self, x: Op, dims: &[i64]) -> Op {
        let shape = Shape::new(self.dtype(x), dims);
        if self.dims(x) == dims {
            return x;
        }
        let (before, after) = (self.shape(x).len(), shape.len());
        if before != after || dims.iter().any(|&size| size < 0) {
            let from = self.dims(x);
            self.fail(|| format!("sizes {from:?} cannot become {dims:?}"));
        }
        self.push(Kind::Reshape, &[x], shape)
    }

    /// HLO's broadcast: dimension `i` of `x` becomes dimension `places[i]` of the result, the rest repeats.
    pub fn broadcast(&mut self, x: Op, dims: &[i64], places: &[i64]) -> Op {
        if self.dims(x) == dims {
            return x;
        }
        let from = self.dims(x);
        let fits = from.len() == places.len()
            && from.iter().zip(places).all(|(&size, &place)| dims.get(place as usize) == Some(&size));
        if !fits {
            self.fail(|| format!("sizes {from:?} do not broadcast to {dims:?} at {places:?}"));
        }
        let shape = Shape::new(self.dtype(x), dims);
        self.push(Kind::Broadcast { dims: places.to_vec() }, &[x], shape)
    }

    /// numpy's broadcast to these sizes.
    pub fn expand(&mut self, x: Op, dims: &[i64]) -> Op {
        let from = self.dims(x);
        if from == dims {
            return x;
        }
        let lead = dims.len().saturating_sub(from.len());
        let mut kept = Vec::new();
        let mut places = Vec::new();
        for (i, &size) in from.iter().enumerate() {
            let place = lead + i;
            if dims.get(place) == Some(&size) {
                kept.push(size);
                places.push(place as i64);
            } else if size != 1 {
                self.fail(|| format!("sizes {from:?} do not broadcast to {dims:?}"));
            }
        }
        let x = self.reshape(x, &kept);
        self.broadcast(x, dims, &places)
    }

    /// A vector along dimension `axis` of `like`'s sizes, repeated over the rest.
    pub fn along(&mut self, vector: Op, like: &[i64], axis: usize) -> Op {
        self.broadcast(vector, like, &[axis as i64])
    }

    /// Dimension `i` of the result is dimension `perm[i]` of `x`.
    pub fn transpose(&mut self, x: Op, perm: &[i64]) -> Op {
        let from = self.dims(x);
        if perm.iter().enumerate().all(|(i, &p)| i as i64 == p) && perm.len() == from.len() {
            return x;
        }
        let dims: Option<Vec<i64>> = perm.iter().map(|&p| from.get(p as usize).copied()).collect();
        let mut sorted = perm.to_vec();
        sorted.sort_unstable();
        let Some(dims) = dims.filter(|_| sorted.iter().enumerate().all(|(i, &p)| i as i64 == p)) else {
            self.fail(|| format!("{perm:?} does not permute {from:?}"));
            return x;
        };
        let shape = Shape::new(self.dtype(x), dims);
        self.push(Kind::Transpose { perm: perm.to_vec() }, &[x], shape)
    }

    /// The elements from `start` up to `limit`, every `stride`-th, in each dimension.
    pub fn slice(&mut self, x: Op, start: &[i64], limit: &[i64], stride: &[i64]) -> Op {
        let from = self.dims(x);
        let whole = start.iter().all(|&s| s == 0) && limit == from && stride.iter().all(|&s| s == 1);
        if whole {
            return x;
        }
        let fits = start.len() == from.len()
            && limit.len() == from.len()
            && stride.len() == from.len()
            && (0..from.len()).all(|i| 0 <= start[i] && start[i] <= limit[i] && limit[i] <= from[i] && stride[i] >= 1);
        if !fits {
            self.fail(|| format!("a slice from {start:?} to {limit:?} by {stride:?} of {from:?}"));
            return x;
        }
        let count = |i: usize| if limit[i] == start[i] { 0 } else { (limit[i] - start[i] - 1) / stride[i] + 1 };
        let dims: Vec<i64> = (0..from.len()).map(count).collect();
        let shape = Shape::new(self.dtype(x), dims);
        let kind = Kind::Slice { start: start.to_vec(), limit: limit.to_vec(), stride: stride.to_vec() };
        self.push(kind, &[x], shape)
    }

    /// A slice along one dimension.
    pub fn slice_axis(&mut self, x: Op, axis: usize, start: i64, limit: i64) -> Op {
        let dims = self.dims(x);
        let mut starts = vec![0; dims.len()];
        let mut limits = dims.clone();
        starts[axis] = start;
        limits[axis] = limit;
        self.slice(x, &starts, &limits, &vec![1; dims.len()])
    }

    /// Padding at both ends and between elements; negative sizes cut off.
    pub fn pad(&mut self, x: Op, value: Op, low: &[i64], high: &[i64], interior: &[i64]) -> Op {
        if low.iter().chain(high).chain(interior).all(|&size| size == 0) {
            return x;
        }
        let from = self.dims(x);
        let dims: Vec<i64> =
            (0..from.len()).map(|i| from[i] + low[i] + high[i] + interior[i] * (from[i] - 1).max(0)).collect();
        if dims.iter().any(|&size| size < 0) {
            self.fail(|| format!("padding {from:?} by {low:?} and {high:?}"));
        }
        let shape = Shape::new(self.dtype(x), dims);
        let kind = Kind::Pad { low: low.to_vec(), high: high.to_vec(), interior: interior.to_vec() };
        self.push(kind, &[x, value], shape)
    }

    /// Tensors one behind another along a dimension.
    pub fn concatenate(&mut self, parts: &[Op], dim: usize) -> Op {
        if let [only] = parts {
            return *only;
        }
        let mut shape = self.shape(parts[0]).clone();
        let first = shape.clone();
        for &part in &parts[1..] {
            let other = self.shape(part).clone();
            let same = other.dtype == first.dtype
                && other.rank() == first.rank()
                && (0..first.rank()).all(|i| i == dim || other.dims[i] == first.dims[i]);
            if !same || dim >= first.rank() {
                self.fail(|| format!("{:?} and {:?} do not concatenate along {dim}", first.dims, other.dims));
                return parts[0];
            }
            shape.dims[dim] += other.dims[dim];
        }
        self.push(Kind::Concatenate { dim: dim as i64 }, parts, shape)
    }

    /// Elements in reverse order along these dimensions.
    pub fn reverse(&mut self, x: Op, dims: &[i64]) -> Op {
        if dims.is_empty() {
            return x;
        }
        let shape = self.shape(x).clone();
        self.push(Kind::Reverse { dims: dims.to_vec() }, &[x], shape)
    }

    /// A gather; the result has the dimensions of the index vectors with the slices' own at `offset_dims`.
    pub fn gather(&mut self, x: Op, indices: Op, dims: GatherDims) -> Op {
        let index_dims = self.dims(indices);
        let mut batch: Vec<i64> = index_dims;
        if (dims.index_vector_dim as usize) < batch.len() {
            batch.remove(dims.index_vector_dim as usize);
        }
        let window = (0..dims.slice_sizes.len() as i64)
            .filter(|i| !dims.collapsed_slice_dims.contains(i))
            .map(|i| dims.slice_sizes[i as usize]);
        let rank = batch.len() + dims.offset_dims.len();
        let (mut window, mut batch) = (window, batch.into_iter());
        let out: Vec<i64> = (0..rank as i64)
            .filter_map(|i| if dims.offset_dims.contains(&i) { window.next() } else { batch.next() })
            .collect();
        let shape = Shape::new(self.dtype(x), out);
        self.push(Kind::Gather(dims), &[x, indices], shape)
    }

    /// A scatter; `combine` says what becomes of two values for one place, the new one replaces where it is `None`.
    pub fn scatter(&mut self, x: Op, indices: Op, updates: Op, dims: ScatterDims, combine: Option<Binary>) -> Op {
        let dtype = self.dtype(x);
        let combine = match combine {
            Some(binary) => self.reducer(binary, dtype),
            None => self.second(dtype),
        };
        let shape = self.shape(x).clone();
        self.push(Kind::Scatter { dims, combine }, &[x, indices, updates], shape)
    }

    /// The computation that gives the second of two numbers.
    fn second(&mut self, dtype: DType) -> Inner {
        if let Some(&inner) = self.seconds.get(&dtype) {
            return inner;
        }
        let shape = Shape::new(dtype, []);
        let inner = self.nested(&format!("second_{dtype}"), &[shape.clone(), shape], |_, given| vec![given[1]]);
        self.seconds.insert(dtype, inner);
        inner
    }

    /// Sorts along a dimension by the first operand, stable; the others follow.
    pub fn sort(&mut self, operands: &[Op], dim: usize, descending: bool) -> Vec<Op> {
        let shapes: Vec<Shape> = operands.iter().map(|&x| self.shape(x).clone()).collect();
        let dtypes: Vec<DType> = shapes.iter().map(|shape| shape.dtype).collect();
        let comparator = match self.comparators.get(&(dtypes.clone(), descending)) {
            Some(&known) => known,
            None => {
                let given: Vec<Shape> =
                    dtypes.iter().flat_map(|&dtype| [Shape::new(dtype, []), Shape::new(dtype, [])]).collect();
                let direction = if descending { Direction::Gt } else { Direction::Lt };
                let made = self.nested("order", &given, |b, given| vec![b.compare(direction, given[0], given[1])]);
                self.comparators.insert((dtypes, descending), made);
                made
            }
        };
        let sorted = self.push_many(Kind::Sort { dim: dim as i64, comparator }, operands, shapes);
        self.elements(sorted)
    }

    /// Each result of an instruction that gives several; of one that gives one, itself.
    pub(super) fn elements(&mut self, op: Op) -> Vec<Op> {
        let shapes = self.current.get(op).shapes.clone();
        if shapes.len() == 1 {
            return vec![op];
        }
        shapes.into_iter().enumerate().map(|(index, shape)| self.push(Kind::Element { index }, &[op], shape)).collect()
    }

    /// A slice that starts where scalars say.
    pub fn dynamic_slice(&mut self, x: Op, starts: &[Op], sizes: &[i64]) -> Op {
        let shape = Shape::new(self.dtype(x), sizes);
        let operands: Vec<Op> = std::iter::once(x).chain(starts.iter().copied()).collect();
        self.push(Kind::DynamicSlice { sizes: sizes.to_vec() }, &operands, shape)
    }

    /// `x` with `update` written where scalars say.
    pub fn dynamic_update_slice(&mut self, x: Op, update: Op, starts: &[Op]) -> Op {
        let shape = self.shape(x).clone();
        let operands: Vec<Op> = [x, update].into_iter().chain(starts.iter().copied()).collect();
        self.push(Kind::DynamicUpdateSlice, &operands, shape)
    }

    /// Repeats `body` while `condition` holds of the values carried.
    pub fn while_loop(
        &mut self,
        carried: &[Op],
        condition: impl FnOnce(&mut Self, &[Op]) -> Op,
        body: impl FnOnce(&mut Self, &[Op]) -> Vec<Op>,
    ) -> Vec<Op> {
        let shapes: Vec<Shape> = carried.iter().map(|&x| self.shape(x).clone()).collect();
        let condition = self.nested("while_condition", &shapes, |b, given| vec![condition(b, given)]);
        let body = self.nested("while_body", &shapes, body);
        let done = self.push_many(Kind::While { condition, body }, carried, shapes);
        self.elements(done)
    }
}
