//! Nodes and their attributes.

use bytes::Bytes;

use super::{Graph, ValueId};
use crate::onnx::Tensor;
use crate::onnx::proto::{SparseTensorProto, StringStringEntryProto, TypeProto};

/// A node of one graph. Only meaningful with the graph that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(super) u32);

/// One operator call.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// The node's name; may be empty. See [`Graph::label`] for what to call it in front of a reader.
    pub name: String,
    /// The operator: `Conv`, `Split`, ...
    pub op_type: String,
    /// The operator's domain; empty for ai.onnx.
    pub domain: String,
    /// Inputs by position; `None` is an optional input left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs by position; `None` is an optional output left out.
    pub outputs: Vec<Option<ValueId>>,
    /// Attributes in the order of the file.
    pub attributes: Vec<Attribute>,
    /// Values of the enclosing graph that subgraphs in the attributes use. Kept by the graph, see
    /// [`Graph::refresh_captures`].
    pub captures: Vec<ValueId>,
    /// Documentation, as read.
    pub doc_string: Option<String>,
    /// Free-form properties, as read.
    pub metadata: Vec<StringStringEntryProto>,
    /// Which overload of a model-local function is called.
    pub overload: Option<String>,
    /// Undeclared fields of the file's message, as read.
    pub unknown: Vec<u8>,
    /// Whether the file writes out an empty name and an empty domain, where others leave them away.
    pub(super) writes_empty: (bool, bool),
}

/// A named attribute of a node.
#[derive(Clone, Debug)]
pub struct Attribute {
    /// The attribute's name: `axis`, `kernel_shape`, ...
    pub name: String,
    /// Its value.
    pub value: AttributeValue,
    /// Documentation, as read.
    pub doc_string: Option<String>,
    /// Undeclared fields of the file's message, as read.
    pub unknown: Vec<u8>,
    /// What the file says where the attribute's type belongs, if it is not the type: old writers say nothing, or 0.
    pub(super) untyped: Option<Option<i32>>,
    /// Whether the file leaves the value away where it is 0 or empty.
    pub(super) implied: bool,
}

/// The value of an attribute.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // each variant is the format's own name
pub enum AttributeValue {
    Float(f32),
    Int(i64),
    String(Bytes),
    Tensor(Box<Tensor>),
    Graph(Box<Graph>),
    SparseTensor(Box<SparseTensorProto>),
    Type(Box<TypeProto>),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Strings(Vec<Bytes>),
    Tensors(Vec<Tensor>),
    Graphs(Vec<Graph>),
    SparseTensors(Vec<SparseTensorProto>),
    Types(Vec<TypeProto>),
    /// In a function body: the value of the function's attribute of this name; `kind` is its attribute type.
    Reference {
        to: String,
        kind: i32,
    },
}

impl Attribute {
    /// An attribute from name and value.
    pub fn new(name: impl Into<String>, value: AttributeValue) -> Self {
        Self { name: name.into(), value, doc_string: None, unknown: Vec::new(), untyped: None, implied: false }
    }
}

impl From<i64> for AttributeValue {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}
impl From<f32> for AttributeValue {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}
impl From<&str> for AttributeValue {
    fn from(value: &str) -> Self {
        Self::String(Bytes::copy_from_slice(value.as_bytes()))
    }
}
impl From<Vec<i64>> for AttributeValue {
    fn from(value: Vec<i64>) -> Self {
        Self::Ints(value)
    }
}
impl From<Tensor> for AttributeValue {
    fn from(value: Tensor) -> Self {
        Self::Tensor(Box::new(value))
    }
}

impl Node {
    /// A node of ai.onnx without attributes.
    pub fn new(
        op_type: impl Into<String>,
        inputs: impl IntoIterator<Item = ValueId>,
        outputs: impl IntoIterator<Item = ValueId>,
    ) -> Self {
        Self {
            op_type: op_type.into(),
            inputs: inputs.into_iter().map(Some).collect(),
            outputs: outputs.into_iter().map(Some).collect(),
            ..Default::default()
        }
    }

    /// This node under a name.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// This node with one more attribute.
    pub fn with(mut self, name: &str, value: impl Into<AttributeValue>) -> Self {
        self.attributes.push(Attribute::new(name, value.into()));
        self
    }

    /// Whether this is the operator `op_type` of ai.onnx.
    pub fn is(&self, op_type: &str) -> bool {
        self.op_type == op_type && self.is_standard()
    }

    /// Whether the operator is one of ai.onnx.
    pub fn is_standard(&self) -> bool {
        self.domain.is_empty() || self.domain == "ai.onnx"
    }

    /// Whether it draws random numbers, here or in a graph inside it, so that no two runs agree. An operator with a seed
    /// counts too: what a seed gives is the engine's own.
    pub fn is_random(&self) -> bool {
        const RANDOM: [&str; 6] =
            ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"];
        let inside = |graph: &Graph| graph.nodes().any(|(_, node)| node.is_random());
        self.is_standard() && RANDOM.contains(&self.op_type.as_str())
            || self.subgraphs().any(|(_, graph)| inside(graph))
    }

    /// The value of an attribute.
    pub fn attr(&self, name: &str) -> Option<&AttributeValue> {
        self.attributes.iter().find(|a| a.name == name).map(|a| &a.value)
    }

    /// Sets an attribute, replacing one of the same name.
    pub fn set_attr(&mut self, name: &str, value: impl Into<AttributeValue>) {
        let value = value.into();
        match self.attributes.iter_mut().find(|a| a.name == name) {
            Some(attribute) => attribute.value = value,
            None => self.attributes.push(Attribute::new(name, value)),
        }
    }

    /// Removes an attribute and returns its value.
    pub fn remove_attr(&mut self, name: &str) -> Option<AttributeValue> {
        let index = self.attributes.iter().position(|a| a.name == name)?;
        Some(self.attributes.remove(index).value)
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attr(name)? {
            AttributeValue::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// A list-of-integers attribute.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attr(name)? {
            AttributeValue::Ints(values) => Some(values),
            _ => None,
        }
    }

    /// A float attribute.
    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attr(name)? {
            AttributeValue::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// A string attribute that is UTF-8.
    pub fn string(&self, name: &str) -> Option<&str> {
        match self.attr(name)? {
            AttributeValue::String(value) => std::str::from_utf8(value).ok(),
            _ => None,
        }
    }

    /// The input at a position, if it is there.
    pub fn input(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    /// The output at a position, if it is there.
    pub fn output(&self, index: usize) -> Option<ValueId> {
        self.outputs.get(index).copied().flatten()
    }

    /// Every value the node reads, those its subgraphs capture included.
    pub fn reads(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.inputs.iter().flatten().chain(&self.captures).copied()
    }

    /// Every value the node produces.
    pub fn writes(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.outputs.iter().flatten().copied()
    }

    /// The subgraphs in the node's attributes (bodies of If, Loop, Scan), with the attribute's name.
    pub fn subgraphs(&self) -> impl Iterator<Item = (&str, &Graph)> {
        self.attributes.iter().flat_map(|attribute| {
            let graphs: &[Graph] = match &attribute.value {
                AttributeValue::Graph(graph) => std::slice::from_ref(graph),
                AttributeValue::Graphs(graphs) => graphs,
                _ => &[],
            };
            graphs.iter().map(move |graph| (attribute.name.as_str(), graph))
        })
    }

    /// The subgraphs, to change. Call [`Graph::refresh_captures`] on the enclosing graph afterwards.
    pub fn subgraphs_mut(&mut self) -> impl Iterator<Item = &mut Graph> {
        self.attributes.iter_mut().flat_map(|attribute| match &mut attribute.value {
            AttributeValue::Graph(graph) => std::slice::from_mut(&mut **graph),
            AttributeValue::Graphs(graphs) => graphs.as_mut_slice(),
            _ => &mut [],
        })
    }
}
