//! One node with what is known of its inputs: what every shape rule looks at.

use super::fact::{Fact, Shape};
use super::size::Size;
use crate::graph::Node;
use crate::graph::fold::axis;
use crate::onnx::DType;

/// A node's call, for rules.
pub struct Call<'a> {
    /// The node.
    pub node: &'a Node,
    /// The version of ai.onnx.
    pub opset: i64,
    /// Facts of the inputs by position; `None` where one is left out.
    pub inputs: &'a [Option<Fact>],
    /// Gives names to sizes that only running can tell.
    pub names: &'a mut Names,
}

/// The outcome of a rule: shapes of the outputs by position, or why the call makes no sense.
pub type Outcome = Result<Vec<Shape>, String>;

/// Names for sizes that only running can tell, apart from the names that the model has.
#[derive(Default)]
pub struct Names {
    pub taken: std::collections::HashSet<String>,
}

impl Names {
    /// A new name from what the size counts: `nonzero_0`.
    pub fn fresh(&mut self, what: &str) -> Size {
        let mut index = 0usize;
        // A stem is used a handful of times; a model that uses it a million times gets unknown sizes instead.
        while index < 4096 {
            let name = format!("{what}_{index}");
            if self.taken.insert(name.clone()) {
                return Size::symbol(&name);
            }
            index += 1;
        }
        Size::Unknown
    }
}

impl Call<'_> {
    /// What is known of an input; `None` if it is left out.
    pub fn input(&self, index: usize) -> Option<&Fact> {
        self.inputs.get(index)?.as_ref()
    }

    /// Whether an input is given.
    pub fn has(&self, index: usize) -> bool {
        self.input(index).is_some()
    }

    /// The sizes of an input, if the rank is known.
    pub fn shape(&self, index: usize) -> Option<&[Size]> {
        self.input(index)?.shape.as_deref()
    }

    /// The shape of an input as the shape of an output.
    pub fn same(&self, index: usize) -> Shape {
        self.shape(index).map(<[Size]>::to_vec)
    }

    /// The element type of an input.
    pub fn dtype(&self, index: usize) -> Option<DType> {
        self.input(index)?.dtype
    }

    /// What is known of an input's elements as whole numbers.
    pub fn sizes(&self, index: usize) -> Option<Vec<Size>> {
        self.input(index)?.sizes()
    }

    /// The elements of an input, if all are known and whole.
    pub fn ints(&self, index: usize) -> Option<Vec<i64>> {
        self.input(index)?.ints()
    }

    /// Numbers that later opsets take as an input and earlier ones as an attribute: `None` if neither is given,
    /// `Some(None)` if given but not known now.
    pub fn argument(&self, index: usize, attribute: &str) -> Option<Option<Vec<i64>>> {
        match self.has(index) {
            true => Some(self.ints(index)),
            false => self.node.ints(attribute).map(|values| Some(values.to_vec())),
        }
    }

    /// An integer attribute with its default.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.node.int(name).unwrap_or(default)
    }

    /// The axis in an attribute, as an index into an input of this rank.
    pub fn axis(&self, default: i64, rank: usize) -> Result<usize, String> {
        resolve(self.int("axis", default), rank)
    }

    /// How many outputs the node has.
    pub fn outputs(&self) -> usize {
        self.node.outputs.len()
    }

    /// The length that a value's first dimension gives, for inputs that are lists.
    pub fn length(&self, index: usize) -> Option<usize> {
        match self.shape(index)? {
            [Size::Fixed(length)] => usize::try_from(*length).ok().filter(|&length| length <= 64),
            _ => None,
        }
    }
}

/// An axis that may count from the end, as an index.
pub fn resolve(at: i64, rank: usize) -> Result<usize, String> {
    axis(at, rank).ok_or_else(|| format!("axis {at} is outside a tensor of rank {rank}"))
}

/// A shape of known rank and nothing more.
pub fn unknown(rank: usize) -> Vec<Size> {
    vec![Size::Unknown; rank]
}

/// Shapes as a reader sees them: `[1,3,h,w]`.
pub fn shown(shape: &[Size]) -> String {
    let dims: Vec<String> = shape.iter().map(|size| crate::graph::Dim::from(size).to_string()).collect();
    format!("[{}]", dims.join(","))
}

/// What several shapes broadcast to; `Ok(None)` where a rank is unknown.
pub fn broadcast(shapes: &[Option<&[Size]>]) -> Result<Shape, String> {
    let Some(shapes) = shapes.iter().copied().collect::<Option<Vec<&[Size]>>>() else { return Ok(None) };
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut out = vec![Size::Fixed(1); rank];
    for shape in &shapes {
        let missing = rank - shape.len();
        for (slot, size) in out[missing..].iter_mut().zip(shape.iter()) {
            *slot = slot.broadcast(size).ok_or_else(|| {
                let all: Vec<String> = shapes.iter().map(|shape| shown(shape)).collect();
                format!("its inputs {} do not broadcast", all.join(" and "))
            })?;
        }
    }
    Ok(Some(out))
}
