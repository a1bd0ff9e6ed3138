//! Constant tensors to compute with: plain bytes with a type and dims, shared until somebody changes them.

use std::sync::Arc;

use bytes::Bytes;

use crate::onnx::{DType, Tensor};

/// A constant tensor of a type of 8 bits or more, little-endian and row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub dtype: DType,
    pub dims: Vec<usize>,
    pub bytes: Bytes,
}

/// Element types that computing kernels know, with how an element stands in bytes.
pub trait Element: Copy + PartialEq + PartialOrd + Default + 'static {
    const DTYPE: DType;
    const WIDTH: usize;
    fn read(bytes: &[u8]) -> Self;
    fn write(self, out: &mut Vec<u8>);
}

macro_rules! elements {
    ($($rust:ty, $dtype:ident);* $(;)?) => {
        $(impl Element for $rust {
            const DTYPE: DType = DType::$dtype;
            const WIDTH: usize = size_of::<$rust>();
            fn read(bytes: &[u8]) -> Self {
                <[u8; size_of::<$rust>()]>::try_from(bytes).map_or_else(|_| Self::default(), <$rust>::from_le_bytes)
            }
            fn write(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        })*
    };
}

elements! {
    f32, Float; f64, Double; half::f16, Float16; half::bf16, Bfloat16;
    i8, Int8; i16, Int16; i32, Int32; i64, Int64; u8, Uint8; u16, Uint16; u32, Uint32; u64, Uint64;
}

impl Element for bool {
    const DTYPE: DType = DType::Bool;
    const WIDTH: usize = 1;
    fn read(bytes: &[u8]) -> Self {
        bytes.first().is_some_and(|&byte| byte != 0)
    }
    fn write(self, out: &mut Vec<u8>) {
        out.push(u8::from(self));
    }
}

impl Array {
    /// The values of a tensor, shared with it. `None` for strings and types below a byte, and where the values are not
    /// at hand.
    pub fn of(tensor: &Tensor) -> Option<Self> {
        let dtype = tensor.dtype();
        if dtype.bits() < 8 {
            return None;
        }
        let dims = tensor.dims().iter().map(|&size| usize::try_from(size).ok()).collect::<Option<Vec<_>>>()?;
        let bytes = tensor.to_bytes().ok()?;
        (dtype.byte_len(tensor.checked_len().ok()?) == Some(bytes.len())).then_some(Array { dtype, dims, bytes })
    }

    /// The tensor under a name.
    pub fn into_tensor(self, name: &str) -> Arc<Tensor> {
        Arc::new(Tensor::new(name, self.dtype, &self.dims_i64(), self.bytes))
    }

    /// The dims as the format writes them.
    pub fn dims_i64(&self) -> Vec<i64> {
        self.dims.iter().map(|&size| size as i64).collect()
    }

    /// An array of elements.
    pub fn from_elements<T: Element>(dims: Vec<usize>, values: impl IntoIterator<Item = T>) -> Self {
        let mut bytes = Vec::with_capacity(count(&dims).unwrap_or(0).saturating_mul(T::WIDTH));
        values.into_iter().for_each(|value| value.write(&mut bytes));
        Array { dtype: T::DTYPE, dims, bytes: bytes.into() }
    }

    /// An int64 vector.
    pub fn ints(values: &[i64]) -> Self {
        Self::from_elements(vec![values.len()], values.iter().copied())
    }

    /// The elements, if they are of this type.
    pub fn elements<T: Element>(&self) -> Option<Vec<T>> {
        (self.dtype == T::DTYPE).then(|| self.bytes.chunks_exact(T::WIDTH).map(T::read).collect())
    }

    /// The elements as whole numbers, if they are integers or bools.
    pub fn to_i64s(&self) -> Option<Vec<i64>> {
        fn all<T: Element>(array: &Array, to: impl Fn(T) -> i64) -> Option<Vec<i64>> {
            Some(array.elements::<T>()?.into_iter().map(to).collect())
        }
        match self.dtype {
            DType::Int64 => self.elements(),
            DType::Int32 => all::<i32>(self, i64::from),
            DType::Int16 => all::<i16>(self, i64::from),
            DType::Int8 => all::<i8>(self, i64::from),
            DType::Uint8 => all::<u8>(self, i64::from),
            DType::Uint16 => all::<u16>(self, i64::from),
            DType::Uint32 => all::<u32>(self, i64::from),
            DType::Uint64 => self.elements::<u64>()?.into_iter().map(|x| i64::try_from(x).ok()).collect(),
            DType::Bool => all::<bool>(self, i64::from),
            _ => None,
        }
    }

    /// Bytes an element takes.
    pub fn width(&self) -> usize {
        self.dtype.bits() / 8
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.width().max(1)
    }

    /// The same elements under other dims; `None` where the counts differ.
    pub fn reshaped(&self, dims: Vec<usize>) -> Option<Self> {
        (count(&dims)? == self.len()).then(|| Array { dtype: self.dtype, dims, bytes: self.bytes.clone() })
    }

    /// Elements picked by a walk over `dims`: each output position `[i0, i1, ...]` reads the element at
    /// `offset + sum(i * steps)`. Positions past the end give up the whole.
    pub fn walk(&self, dims: Vec<usize>, offset: i64, steps: &[i64]) -> Option<Self> {
        let width = self.width();
        let total = count(&dims)?;
        let mut out = Vec::with_capacity(total.checked_mul(width)?);
        let inner = dims.last().copied().unwrap_or(1);
        let inner_step = if dims.is_empty() { 1 } else { *steps.last()? };
        let outer = dims.len().saturating_sub(1);
        if total == 0 {
            return Some(Array { dtype: self.dtype, dims, bytes: Bytes::new() });
        }
        let mut index = vec![0usize; outer];
        let mut at = offset;
        loop {
            if inner_step == 1 {
                let start = usize::try_from(at).ok()?.checked_mul(width)?;
                out.extend_from_slice(self.bytes.get(start..start.checked_add(inner * width)?)?);
            } else {
                for i in 0..inner as i64 {
                    let start =
                        usize::try_from(at.wrapping_add(i.wrapping_mul(inner_step))).ok()?.checked_mul(width)?;
                    out.extend_from_slice(self.bytes.get(start..start + width)?);
                }
            }
            // The next position of all axes but the last, as an odometer turns.
            let mut axis = outer;
            loop {
                if axis == 0 {
                    return Some(Array { dtype: self.dtype, dims, bytes: out.into() });
                }
                axis -= 1;
                index[axis] += 1;
                at = at.wrapping_add(steps[axis]); // past the end it is not read
                if index[axis] < dims[axis] {
                    break;
                }
                at = at.wrapping_sub(steps[axis].wrapping_mul(dims[axis] as i64));
                index[axis] = 0;
            }
        }
    }

    /// This array stretched to `dims` by broadcasting.
    pub fn broadcast_to(&self, dims: &[usize]) -> Option<Self> {
        if self.dims == dims {
            return Some(self.clone());
        }
        let steps = broadcast_steps(&self.dims, dims)?;
        self.walk(dims.to_vec(), 0, &steps)
    }
}

/// The number of elements; `None` on overflow.
pub fn count(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |total, &size| total.checked_mul(size))
}

/// Elements to step over for each axis.
pub fn strides(dims: &[usize]) -> Vec<i64> {
    let mut steps = vec![1i64; dims.len()];
    for axis in (1..dims.len()).rev() {
        steps[axis - 1] = steps[axis].wrapping_mul(dims[axis] as i64);
    }
    steps
}

/// Steps with which an array of `from` is read as one of `to`; 0 where an axis is stretched.
pub fn broadcast_steps(from: &[usize], to: &[usize]) -> Option<Vec<i64>> {
    let missing = to.len().checked_sub(from.len())?;
    let own = strides(from);
    let mut steps = vec![0; missing];
    for (axis, (&size, &wanted)) in from.iter().zip(&to[missing..]).enumerate() {
        steps.push(match size {
            _ if size == wanted => own[axis],
            1 => 0,
            _ => return None,
        });
    }
    Some(steps)
}

/// The dims that several dims broadcast to.
pub fn broadcast_dims(all: &[&[usize]]) -> Option<Vec<usize>> {
    let rank = all.iter().map(|dims| dims.len()).max()?;
    let mut out = vec![1usize; rank];
    for dims in all {
        let missing = rank - dims.len();
        for (slot, &size) in out[missing..].iter_mut().zip(dims.iter()) {
            match (*slot, size) {
                (1, _) => *slot = size,
                (_, 1) => {}
                (a, b) if a == b => {}
                _ => return None,
            }
        }
    }
    Some(out)
}

/// An axis that may count from the end, as an index.
pub fn axis(axis: i64, rank: usize) -> Option<usize> {
    let rank = rank as i64;
    let axis = if axis < 0 { axis.checked_add(rank)? } else { axis };
    (0..rank).contains(&axis).then_some(axis as usize)
}
