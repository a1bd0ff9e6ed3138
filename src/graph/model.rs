//! A model: a graph with the operator versions and the properties that stand around it.

use indexmap::IndexMap;

use super::{Graph, GraphError, from_proto, to_proto};
use crate::onnx::proto::{FunctionProto, ModelProto, StringStringEntryProto};

/// A model as a graph.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The graph.
    pub graph: Graph,
    /// The format's version.
    pub ir_version: i64,
    /// Version of each operator domain; ai.onnx is the empty domain.
    pub opsets: IndexMap<String, i64>,
    /// Model-local functions, as read.
    pub functions: Vec<FunctionProto>,
    /// `metadata_props`, in the order of the file.
    pub metadata: Vec<StringStringEntryProto>,
    /// The file's message without graph, functions and properties: producer, docs, unknown fields, and how opsets
    /// were written.
    pub(super) header: ModelProto,
}

impl Model {
    /// A model around a graph, in the given opset of ai.onnx.
    pub fn new(graph: Graph, opset: i64) -> Self {
        let opsets = IndexMap::from([(String::new(), opset)]);
        let header = ModelProto {
            producer_name: Some("porter".into()),
            producer_version: Some(env!("CARGO_PKG_VERSION").into()),
            ..Default::default()
        };
        Self { graph, ir_version: ir_version_for(opset), opsets, header, ..Default::default() }
    }

    /// A model around another graph, with this one's opsets, functions and IR version.
    pub fn with_graph(&self, graph: Graph) -> Self {
        let mut model = Self::new(graph, self.opset());
        model.opsets = self.opsets.clone();
        model.functions = self.functions.clone();
        model.ir_version = self.ir_version;
        model
    }

    /// Makes the graph of a file's messages.
    ///
    /// # Errors
    /// A cycle, an input that nothing produces, a name given twice, a node without operator.
    pub fn from_proto(proto: ModelProto) -> Result<Self, GraphError> {
        from_proto::model(proto)
    }

    /// The file's messages. Weights are shared, not copied.
    pub fn to_proto(&self) -> ModelProto {
        to_proto::model(self)
    }

    /// The version of ai.onnx.
    pub fn opset(&self) -> i64 {
        self.opsets.get("").or_else(|| self.opsets.get("ai.onnx")).copied().unwrap_or(crate::onnx::NEWEST_OPSET)
    }

    /// The value of a metadata property.
    pub fn property(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|e| e.key.as_deref() == Some(key)).and_then(|e| e.value.as_deref())
    }

    /// Who wrote the model: name and version, as the file says.
    pub fn producer(&self) -> (&str, &str) {
        (
            self.header.producer_name.as_deref().unwrap_or_default(),
            self.header.producer_version.as_deref().unwrap_or_default(),
        )
    }
}

/// The IR version that onnx gives a model of this opset, so that runtimes of its time read it.
/// Source: the version table of the ONNX format.
/// The IR version that readers of an opset's time know.
pub fn ir_version_for(opset: i64) -> i64 {
    match opset {
        ..=10 => 5,
        11 => 6,
        12..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        24 => 12,
        _ => 13,
    }
}
