//! What is known of a value: element type, sizes, and for small ones the elements themselves.

use super::size::Size;
use crate::graph::fold::{Array, cast};
use crate::onnx::{DType, Tensor};

/// The most elements of a tensor that are tracked while shapes are inferred: shapes, bounds, axes, not weights.
pub const TRACKED: usize = 1024;

/// The sizes of a value; `None` where not even the rank is known.
pub type Shape = Option<Vec<Size>>;

/// What is known of a value.
#[derive(Clone, Debug, Default)]
pub struct Fact {
    pub dtype: Option<DType>,
    pub shape: Shape,
    pub elements: Elements,
}

/// What is known of a value's elements.
#[derive(Clone, Debug, Default)]
pub enum Elements {
    /// Nothing, or they are too many to track.
    #[default]
    Unknown,
    /// All of them.
    Known(Array),
    /// Whole numbers in row-major order, some of them expressions or unknown.
    Sizes(Vec<Size>),
}

impl Fact {
    /// A fact of type and sizes.
    pub fn new(dtype: Option<DType>, shape: Shape) -> Self {
        Self { dtype, shape, elements: Elements::Unknown }
    }

    /// What is known of a constant.
    pub fn of_tensor(tensor: &Tensor) -> Self {
        let mut fact = Self::new(Some(tensor.dtype()), Some(tensor.dims().iter().map(|&s| Size::Fixed(s)).collect()));
        if tensor.checked_len().is_ok_and(|count| count <= TRACKED)
            && let Some(array) = Array::of(tensor)
        {
            fact.elements = Elements::Known(array);
        }
        fact
    }

    /// The elements, if every one is known.
    pub fn array(&self) -> Option<&Array> {
        match &self.elements {
            Elements::Known(array) => Some(array),
            _ => None,
        }
    }

    /// The elements as whole numbers, if something is known of them; floats too, where they are whole.
    pub fn sizes(&self) -> Option<Vec<Size>> {
        match &self.elements {
            Elements::Known(array) => {
                let whole = array.to_i64s().or_else(|| {
                    let wide = cast(array, DType::Double)?.elements::<f64>()?;
                    wide.into_iter().map(|x| (x.fract() == 0.0 && x.abs() < 9e15).then_some(x as i64)).collect()
                })?;
                Some(whole.into_iter().map(Size::Fixed).collect())
            }
            Elements::Sizes(sizes) => Some(sizes.clone()),
            Elements::Unknown => None,
        }
    }

    /// The elements as numbers, if every one is known and whole.
    pub fn ints(&self) -> Option<Vec<i64>> {
        match &self.elements {
            Elements::Known(array) => array.to_i64s(),
            Elements::Sizes(sizes) => sizes.iter().map(Size::fixed).collect(),
            Elements::Unknown => None,
        }
    }

    /// The sizes as numbers, if every one is known.
    pub fn static_shape(&self) -> Option<Vec<i64>> {
        self.shape.as_ref()?.iter().map(Size::fixed).collect()
    }
}
