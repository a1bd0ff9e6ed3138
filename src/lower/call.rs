//! One node on its way to HLO: its inputs as instructions, its constants as numbers, its attributes with defaults.

use std::collections::HashMap;

use super::error::Problem;
use super::hlo::{Builder, Op, Shape};
use crate::graph::{Dim, Graph, Node, ValueId};
use crate::onnx::{DType, Payload, Tensor};

/// A node being lowered.
pub(super) struct Call<'a> {
    /// Where instructions go.
    pub b: &'a mut Builder,
    /// The node.
    pub node: &'a Node,
    /// Its graph.
    pub graph: &'a Graph,
    /// The version of ai.onnx.
    pub opset: i64,
    /// What is lowered already; constants are added when they are first read.
    pub done: &'a mut HashMap<ValueId, Op>,
    /// Initializers that became parameters.
    pub separate: &'a HashMap<ValueId, Op>,
}

/// What a lowering gives: the node's outputs in order, or why there are none.
pub(super) type Lowered = Result<Vec<Op>, Problem>;

impl Call<'_> {
    /// Whether an input is there.
    pub fn has(&self, index: usize) -> bool {
        self.node.input(index).is_some()
    }

    /// Whether an output is asked for.
    pub fn wants(&self, index: usize) -> bool {
        self.node.output(index).is_some_and(|value| !self.graph.is_unused(value))
    }

    /// How many inputs are listed.
    pub fn arity(&self) -> usize {
        self.node.inputs.len()
    }

    /// An input as an instruction.
    pub fn input(&mut self, index: usize) -> Result<Op, Problem> {
        let value = self.node.input(index).ok_or_else(|| format!("its input {index} is missing"))?;
        if let Some(&op) = self.done.get(&value) {
            return Ok(op);
        }
        if let Some(&op) = self.separate.get(&value) {
            return Ok(op);
        }
        let name = &self.graph.value(value).name;
        let tensor = self.graph.constant(value).ok_or_else(|| format!("nothing gives its input '{name}'"))?;
        let op = constant(self.b, name, &tensor)?;
        self.done.insert(value, op);
        Ok(op)
    }

    /// An input as an instruction, if it is there.
    pub fn optional(&mut self, index: usize) -> Result<Option<Op>, Problem> {
        if self.has(index) { self.input(index).map(Some) } else { Ok(None) }
    }

    /// The tensor behind an input that must be known now.
    pub fn tensor(&self, index: usize) -> Result<std::sync::Arc<Tensor>, Problem> {
        let value = self.node.input(index).ok_or_else(|| format!("its input {index} is missing"))?;
        self.graph.constant(value).ok_or(Problem::NotConstant { index })
    }

    /// An input's whole numbers, which must be known now.
    pub fn ints_of(&self, index: usize) -> Result<Vec<i64>, Problem> {
        self.tensor(index)?.to_i64s().map_err(|error| Problem::Unsupported(error.to_string()))
    }

    /// An input's numbers, which must be known now.
    pub fn numbers_of(&self, index: usize) -> Result<Vec<f64>, Problem> {
        self.tensor(index)?.to_f64s().map_err(|error| Problem::Unsupported(error.to_string()))
    }

    /// Whole numbers that stand in an input, or in old opsets in an attribute; `None` where they are left out.
    pub fn ints_at(&self, index: usize, attribute: &str) -> Result<Option<Vec<i64>>, Problem> {
        if self.has(index) {
            return self.ints_of(index).map(Some);
        }
        Ok(self.node.ints(attribute).map(<[i64]>::to_vec))
    }

    /// The sizes of an input.
    pub fn dims(&self, index: usize) -> Result<Vec<i64>, Problem> {
        let value = self.node.input(index).ok_or_else(|| format!("its input {index} is missing"))?;
        fixed(self.graph, value)
    }

    /// Type and sizes of an output, as inferred.
    pub fn output(&self, index: usize) -> Result<Shape, Problem> {
        let value = self.node.output(index).ok_or_else(|| format!("its output {index} is missing"))?;
        let dtype = self.graph.value(value).dtype.ok_or("the type of its output is not known")?;
        Ok(Shape::new(dtype, fixed(self.graph, value)?))
    }

    /// An integer attribute, or its default.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.node.int(name).unwrap_or(default)
    }

    /// A float attribute, or its default.
    pub fn float(&self, name: &str, default: f64) -> f64 {
        // The default of the format is a float32; so is what the attribute holds.
        self.node.float(name).map_or(f64::from(default as f32), f64::from)
    }

    /// A text attribute, or its default.
    pub fn text(&self, name: &str, default: &'static str) -> String {
        self.node.string(name).unwrap_or(default).to_string()
    }

    /// An attribute that names an axis of `rank` dimensions, counted from the front.
    pub fn axis(&self, name: &str, default: i64, rank: usize) -> Result<usize, Problem> {
        axis(self.int(name, default), rank)
    }
}

/// An axis counted from the front.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, Problem> {
    let counted = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(counted) {
        Ok(counted) if counted < rank => Ok(counted),
        _ => Err(format!("axis {axis} is not one of {rank} dimensions").into()),
    }
}

/// Axes counted from the front, in order.
pub(super) fn axes(list: &[i64], rank: usize) -> Result<Vec<i64>, Problem> {
    let mut list = list.iter().map(|&one| axis(one, rank).map(|one| one as i64)).collect::<Result<Vec<_>, _>>()?;
    list.sort_unstable();
    list.dedup();
    Ok(list)
}

/// A tensor of the model as a constant.
pub(super) fn constant(b: &mut Builder, name: &str, tensor: &Tensor) -> Result<Op, Problem> {
    let dtype = tensor.dtype();
    if super::hlo::element_number(dtype) == 0 {
        return Err(format!("'{name}' is of type {dtype}, which is not lowered").into());
    }
    if super::hlo::packed::wider(dtype).is_some() {
        let wide = super::hlo::packed::unpack(tensor).ok_or_else(|| format!("'{name}' has no values"))?;
        let op = constant(b, name, &wide)?;
        return Ok(b.convert(op, dtype));
    }
    let payload = match &tensor.raw_data {
        Some(payload) => payload.clone(),
        None => Payload::Bytes(tensor.to_bytes().map_err(|error| Problem::Unsupported(error.to_string()))?),
    };
    let shape = Shape::new(dtype, tensor.dims());
    if shape.rank() == 0 && dtype != DType::Bool {
        return Ok(b.constant(shape, super::hlo::Literal { payload, weight: None }));
    }
    Ok(b.weight(name, shape, payload))
}

/// The sizes of a value, which must all be known.
pub(super) fn fixed(graph: &Graph, value: ValueId) -> Result<Vec<i64>, Problem> {
    let value = graph.value(value);
    value.static_shape().ok_or_else(|| Problem::Dynamic {
        value: value.name.clone(),
        found: match &value.shape {
            None => "of unknown rank".into(),
            Some(dims) => dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(" x "),
        },
    })
}
