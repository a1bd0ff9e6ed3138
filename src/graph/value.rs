//! Values: the named tensors that flow between nodes.

use std::fmt;
use std::sync::Arc;

use super::NodeId;
use crate::onnx::proto::ValueInfoProto;
use crate::onnx::{DType, Tensor};

/// A value of one graph. Only meaningful with the graph that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(super) u32);

/// One dimension of a shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A size known now.
    Fixed(i64),
    /// A size with a name, or an expression over names, known when the model runs.
    Symbol(String),
    /// Nothing is known.
    Unknown,
}

impl Dim {
    /// The size, if it is known now.
    pub fn fixed(&self) -> Option<i64> {
        match self {
            Dim::Fixed(size) => Some(*size),
            _ => None,
        }
    }

    /// The name of a size that has one. What some exporters write for every size that they do not know is none.
    pub fn name(&self) -> Option<&str> {
        match self {
            Dim::Symbol(name) if !is_placeholder(name) => Some(name),
            _ => None,
        }
    }
}

/// Whether a dimension's name is what some exporters write for every dimension that they do not know.
pub(in crate::graph) fn is_placeholder(name: &str) -> bool {
    matches!(name, "?" | "-1" | "None")
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(size) => write!(f, "{size}"),
            Dim::Symbol(name) => f.write_str(name),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// A named tensor: what is known of it and where it comes from.
#[derive(Clone, Debug, Default)]
pub struct Value {
    /// The name, unique in its graph.
    pub name: String,
    /// Element type, where known. `None` also for values that are no tensors.
    pub dtype: Option<DType>,
    /// Sizes, where the rank is known.
    pub shape: Option<Vec<Dim>>,
    /// The file's own declaration; kept for what porter does not model (docs, sequence types, denotations).
    pub declared: Option<ValueInfoProto>,
    /// Whether the type is written to the file's `value_info` (inputs and outputs always are).
    pub listed: bool,
    /// What was known when the declaration was read; while that stands, the declaration is written as it was.
    pub(super) declared_as: Option<(Option<DType>, Option<Vec<Dim>>)>,
    pub(super) constant: Option<Arc<Tensor>>,
    pub(super) producer: Option<NodeId>,
    pub(super) consumers: Vec<NodeId>,
    pub(super) captured: bool,
    pub(super) removed: bool,
}

impl Value {
    /// The sizes, if every one is known now.
    pub fn static_shape(&self) -> Option<Vec<i64>> {
        self.shape.as_ref()?.iter().map(Dim::fixed).collect()
    }

    /// The number of dimensions, if known.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// Whether it comes from an enclosing graph.
    pub fn is_captured(&self) -> bool {
        self.captured
    }

    /// Type and sizes as in ONNX's textual syntax: `float[1,3,640,640]`.
    pub fn type_text(&self) -> String {
        let dtype = self.dtype.map_or("?", DType::name);
        match &self.shape {
            None => dtype.to_string(),
            Some(dims) => {
                let dims: Vec<String> = dims.iter().map(Dim::to_string).collect();
                format!("{dtype}[{}]", dims.join(","))
            }
        }
    }
}
