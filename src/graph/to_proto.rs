//! From a graph back to the file's messages. What nobody changed comes out as it came in.

use std::collections::HashSet;

use super::{Attribute, AttributeValue, Dim, Graph, Info, Model, Node, Value, ValueId, from_proto};
use crate::onnx::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto,
    TensorTypeProto, ValueInfoProto, attribute_type as kinds,
};

pub(super) fn model(model: &Model) -> ModelProto {
    let opset_import = model.opsets.iter().map(|(domain, &version)| {
        let read = model.header.opset_import.iter().find(|read| read.domain.as_deref().unwrap_or_default() == domain);
        let new = || OperatorSetIdProto { domain: Some(domain.clone()), ..Default::default() };
        let import = read.cloned().unwrap_or_else(new);
        OperatorSetIdProto { version: if version == 0 { import.version } else { Some(version) }, ..import }
    });
    ModelProto {
        ir_version: if model.ir_version == 0 { model.header.ir_version } else { Some(model.ir_version) },
        opset_import: opset_import.collect(),
        graph: Some(graph(&model.graph)),
        metadata_props: model.metadata.clone(),
        functions: model.functions.clone(),
        ..model.header.clone()
    }
}

fn graph(graph: &Graph) -> GraphProto {
    let listed =
        graph.listed_inputs.iter().filter(|&&id| graph.inputs.contains(&id) || graph.value(id).constant.is_some());
    let added = graph.inputs.iter().filter(|id| !graph.listed_inputs.contains(id));
    let is_border = |id: ValueId| graph.inputs.contains(&id) || graph.outputs.contains(&id);
    let is_written = |id: ValueId| {
        let value = graph.value(id);
        let known = value.dtype.is_some() || value.declared.is_some();
        value.listed && known && !value.removed && !is_border(id)
    };
    // A repeated declaration of the border is worth its place only while it says what the border says.
    let still_true = |stray: &ValueInfoProto| {
        let told = from_proto::type_of(stray.kind.as_ref());
        let value = stray.name.as_deref().and_then(|name| graph.value_named(name)).map(|id| graph.value(id));
        value.is_none_or(|value| told == (value.dtype, value.shape.clone()) || unchanged(value))
    };
    let read: HashSet<ValueId> = graph
        .infos
        .iter()
        .filter_map(|entry| match entry {
            Info::Value(id) => Some(*id),
            Info::Stray(_) => None,
        })
        .collect();
    let old = graph.infos.iter().filter_map(|entry| match entry {
        Info::Value(id) => is_written(*id).then(|| info(graph.value(*id))),
        Info::Stray(stray) => still_true(stray).then(|| (**stray).clone()),
    });
    let new = graph.values().map(|(id, _)| id).filter(|&id| !read.contains(&id) && is_written(id));
    let value_info = old.chain(new.map(|id| info(graph.value(id)))).collect();
    let output = |&id: &ValueId| match graph.redeclared.get(&id) {
        Some(declared) if unchanged(graph.value(id)) => declared.clone(),
        _ => info(graph.value(id)),
    };
    GraphProto {
        node: graph.nodes().map(|(_, node)| self::node(graph, node)).collect(),
        name: (!graph.nameless || !graph.name.is_empty()).then(|| graph.name.clone()),
        initializer: graph
            .initializers()
            .map(|(id, tensor)| {
                let name = &graph.value(id).name;
                if tensor.name() == name { (**tensor).clone() } else { (**tensor).clone().renamed(name) }
            })
            .collect(),
        sparse_initializer: graph.sparse_initializers.clone(),
        doc_string: graph.doc_string.clone(),
        input: listed.chain(added).map(|&id| info(graph.value(id))).collect(),
        output: graph.outputs.iter().map(output).collect(),
        value_info,
        metadata_props: graph.metadata.clone(),
        unknown: graph.unknown.clone(),
    }
}

/// Whether a value is still what the file declared.
fn unchanged(value: &Value) -> bool {
    value.declared_as.as_ref().is_some_and(|(dtype, shape)| *dtype == value.dtype && *shape == value.shape)
}

/// The declaration of a value: the file's own where it still says the truth.
fn info(value: &Value) -> ValueInfoProto {
    let mut info = value.declared.clone().unwrap_or_default();
    info.name = Some(value.name.clone());
    let Some(dtype) = value.dtype.filter(|_| !unchanged(value)) else { return info };
    let dim = |dim: &Dim| match dim {
        Dim::Fixed(size) => DimensionProto { dim_value: Some(*size), ..Default::default() },
        Dim::Symbol(name) => DimensionProto { dim_param: Some(name.clone()), ..Default::default() },
        Dim::Unknown => DimensionProto::default(),
    };
    let shape =
        value.shape.as_ref().map(|dims| TensorShapeProto { dim: dims.iter().map(dim).collect(), unknown: Vec::new() });
    let mut kind = info.kind.unwrap_or_default();
    kind.tensor_type = Some(TensorTypeProto { elem_type: Some(dtype.number()), shape, unknown: Vec::new() });
    info.kind = Some(kind);
    info
}

fn node(graph: &Graph, node: &Node) -> NodeProto {
    let names = |ids: &[Option<ValueId>]| -> Vec<String> {
        ids.iter().map(|id| id.map(|id| graph.value(id).name.clone()).unwrap_or_default()).collect()
    };
    let text = |text: &str, empty: bool| (empty || !text.is_empty()).then(|| text.to_string());
    NodeProto {
        input: names(&node.inputs),
        output: names(&node.outputs),
        name: text(&node.name, node.writes_empty.0),
        op_type: Some(node.op_type.clone()),
        domain: text(&node.domain, node.writes_empty.1),
        overload: node.overload.clone(),
        attribute: node.attributes.iter().map(attribute).collect(),
        doc_string: node.doc_string.clone(),
        metadata_props: node.metadata.clone(),
        unknown: node.unknown.clone(),
    }
}

fn attribute(attribute: &Attribute) -> AttributeProto {
    let mut proto = AttributeProto {
        name: Some(attribute.name.clone()),
        doc_string: attribute.doc_string.clone(),
        unknown: attribute.unknown.clone(),
        ..Default::default()
    };
    let kind = match &attribute.value {
        AttributeValue::Float(x) => (proto.f = Some(*x), kinds::FLOAT).1,
        AttributeValue::Int(x) => (proto.i = Some(*x), kinds::INT).1,
        AttributeValue::String(x) => (proto.s = Some(x.clone()), kinds::STRING).1,
        AttributeValue::Tensor(x) => (proto.t = Some((**x).clone()), kinds::TENSOR).1,
        AttributeValue::Graph(x) => (proto.g = Some(graph(x)), kinds::GRAPH).1,
        AttributeValue::SparseTensor(x) => (proto.sparse_tensor = Some((**x).clone()), kinds::SPARSE_TENSOR).1,
        AttributeValue::Type(x) => (proto.tp = Some((**x).clone()), kinds::TYPE_PROTO).1,
        AttributeValue::Floats(x) => (proto.floats = x.clone(), kinds::FLOATS).1,
        AttributeValue::Ints(x) => (proto.ints = x.clone(), kinds::INTS).1,
        AttributeValue::Strings(x) => (proto.strings = x.clone(), kinds::STRINGS).1,
        AttributeValue::Tensors(x) => (proto.tensors = x.clone(), kinds::TENSORS).1,
        AttributeValue::Graphs(x) => (proto.graphs = x.iter().map(graph).collect(), kinds::GRAPHS).1,
        AttributeValue::SparseTensors(x) => (proto.sparse_tensors = x.clone(), kinds::SPARSE_TENSORS).1,
        AttributeValue::Types(x) => (proto.type_protos = x.clone(), kinds::TYPE_PROTOS).1,
        AttributeValue::Reference { to, kind } => (proto.ref_attr_name = Some(to.clone()), *kind).1,
    };
    proto.kind = attribute.untyped.unwrap_or(Some(kind));
    if attribute.implied {
        proto.f.take_if(|x| x.to_bits() == 0);
        proto.i.take_if(|x| *x == 0);
        proto.s.take_if(|x| x.is_empty());
    }
    proto
}
