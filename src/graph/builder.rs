//! A small builder for tests: graphs in a line an operator.

use super::{Dim, Graph, Model, Node, ValueId};
use crate::onnx::{DType, Tensor};

/// Builds a graph step by step; `finish` makes a model of it.
#[derive(Default)]
pub struct Build {
    /// The graph so far.
    pub graph: Graph,
}

impl Build {
    /// An empty graph.
    pub fn new() -> Self {
        Self { graph: Graph::new("test") }
    }

    /// A graph input.
    pub fn input(&mut self, name: &str, dtype: DType, dims: &[i64]) -> ValueId {
        let shape =
            dims.iter().map(|&size| if size < 0 { Dim::Symbol(format!("N{}", -size)) } else { Dim::Fixed(size) });
        let id = self.graph.add_typed_value(name, Some(dtype), Some(shape.collect()));
        self.graph.inputs.push(id);
        id
    }

    /// A float32 initializer whose values count up in small steps around zero.
    pub fn weight(&mut self, name: &str, dims: &[i64]) -> ValueId {
        let count: i64 = dims.iter().product();
        let values: Vec<f32> = (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 100.0).collect();
        self.graph.add_initializer(Tensor::from_f32(name, dims, &values))
    }

    /// An int64 vector initializer.
    pub fn ints(&mut self, name: &str, values: &[i64]) -> ValueId {
        self.graph.add_initializer(Tensor::from_i64(name, &[values.len() as i64], values))
    }

    /// A node with one output named after it.
    pub fn op(&mut self, op_type: &str, name: &str, inputs: &[ValueId]) -> ValueId {
        self.node(Node::new(op_type, inputs.iter().copied(), []).named(name))
    }

    /// A prepared node with one output named after it.
    pub fn node(&mut self, mut node: Node) -> ValueId {
        let id = self.graph.add_value(&format!("{}_output_0", node.name));
        node.outputs = vec![Some(id)];
        self.graph.add_node(node);
        id
    }

    /// The model with these outputs.
    pub fn finish(mut self, outputs: &[ValueId]) -> Model {
        self.graph.outputs = outputs.to_vec();
        Model::new(self.graph, 18)
    }
}
