//! From the file's messages to a graph, refusing what makes no sense.

use std::collections::{HashMap, HashSet};
use std::mem::take;

use indexmap::IndexMap;
use prost::Message;

use super::{Attribute, AttributeValue, Dim, Graph, GraphError, Info, Model, Node};
use crate::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, attribute_type as kinds,
};
use crate::onnx::{DType, Tensor};

/// What an enclosing graph tells of a value that a subgraph captures.
type Known = (Option<DType>, Option<Vec<Dim>>);

pub(super) fn model(mut proto: ModelProto) -> Result<Model, GraphError> {
    let graph_proto = proto.graph.take().ok_or_else(|| GraphError::new("the model", "has no graph"))?;
    let opsets: IndexMap<String, i64> = proto
        .opset_import
        .iter()
        .map(|import| (import.domain.clone().unwrap_or_default(), import.version.unwrap_or(0)))
        .collect();
    Ok(Model {
        graph: graph(graph_proto, &HashMap::new())?,
        ir_version: proto.ir_version.unwrap_or(0),
        opsets,
        functions: take(&mut proto.functions),
        metadata: take(&mut proto.metadata_props),
        header: proto,
    })
}

/// Builds a graph; `outer` holds every name that an enclosing graph offers.
pub(super) fn graph(proto: GraphProto, outer: &HashMap<String, Known>) -> Result<Graph, GraphError> {
    let nameless = proto.name.is_none();
    let mut graph = Graph::new(proto.name.unwrap_or_default());
    graph.nameless = nameless;
    graph.doc_string = proto.doc_string;
    graph.metadata = proto.metadata_props;
    graph.sparse_initializers = proto.sparse_initializer;
    graph.unknown = proto.unknown;

    let mut inputs = Vec::with_capacity(proto.input.len());
    for info in proto.input {
        let name = info.name.clone().unwrap_or_default();
        if name.is_empty() {
            return Err(GraphError::new("a graph input", "has no name"));
        }
        if graph.value_named(&name).is_some() {
            return Err(GraphError::new(format!("graph input '{name}'"), "is given twice"));
        }
        let id = graph.add_value(&name);
        declare(&mut graph, id, info);
        inputs.push(id);
    }
    for tensor in proto.initializer {
        let name = tensor.name().to_string();
        if name.is_empty() {
            return Err(GraphError::new("an initializer", "has no name"));
        }
        let id = graph.value_named(&name).unwrap_or_else(|| graph.add_value(&name));
        if graph.value(id).constant.is_some() {
            return Err(GraphError::new(format!("initializer '{name}'"), "is given twice"));
        }
        graph.set_initializer(id, tensor);
        let value = graph.value_mut(id);
        if value.declared.is_some() {
            value.declared_as = Some((value.dtype, value.shape.clone())); // an input with a default: the tensor rules
        }
    }
    // A sparse initializer is a value like any other; that it has a tensor behind it shows only on the way out.
    let sparse: Vec<String> =
        graph.sparse_initializers.iter().filter_map(|s| Some(s.values.as_ref()?.name().to_string())).collect();
    for name in sparse.iter().filter(|name| !name.is_empty()) {
        if graph.value_named(name).is_none() {
            graph.add_value(name);
        }
    }
    graph.listed_inputs = inputs.clone();
    graph.inputs = inputs.into_iter().filter(|&id| graph.value(id).constant.is_none()).collect();

    // Every output gets its value first, so that nodes may stand in any order.
    let mut produced = HashSet::new();
    for (index, node) in proto.node.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            let known = graph.value_named(name);
            let taken = known.is_some_and(|id| graph.value(id).constant.is_some() || graph.inputs.contains(&id));
            if taken || !produced.insert(name.as_str()) {
                let what = if taken { "is also an input or initializer" } else { "is produced by another node too" };
                return Err(GraphError::new(place(node, index), format!("its output '{name}' {what}")));
            }
            if known.is_none() {
                graph.add_value(name);
            }
        }
    }
    drop(produced);
    // The border declares itself; exporters that repeat it in value_info get their copy back, but it is not the word.
    let border: HashSet<String> = proto.output.iter().filter_map(|info| info.name.clone()).collect();
    for info in proto.value_info {
        match info.name.as_deref().filter(|&name| !border.contains(name)).and_then(|name| graph.value_named(name)) {
            Some(id) if graph.value(id).declared.is_none() => {
                declare(&mut graph, id, info);
                graph.value_mut(id).listed = true;
                graph.infos.push(Info::Value(id));
            }
            _ => graph.infos.push(Info::Stray(Box::new(info))),
        }
    }
    let mut outputs = Vec::with_capacity(proto.output.len());
    for info in proto.output {
        let name = info.name.clone().unwrap_or_default();
        let id = match graph.value_named(&name) {
            Some(id) => id,
            None => match outer.get(&name) {
                Some(known) => graph.add_captured(&name, known.0, known.1.clone()),
                None => return Err(GraphError::new(format!("graph output '{name}'"), "is produced by no node")),
            },
        };
        match &graph.value(id).declared {
            Some(as_input) if *as_input != info => drop(graph.redeclared.insert(id, info)),
            _ => declare(&mut graph, id, info),
        }
        outputs.push(id);
    }
    graph.outputs = outputs;

    let holds_graphs = |node: &NodeProto| node.attribute.iter().any(|a| a.g.is_some() || !a.graphs.is_empty());
    let mut scope = None;
    for (index, node) in proto.node.into_iter().enumerate() {
        if scope.is_none() && holds_graphs(&node) {
            let mut names = outer.clone();
            names.extend(graph.values().map(|(_, value)| (value.name.clone(), (value.dtype, value.shape.clone()))));
            scope = Some(names);
        }
        let built = build_node(&mut graph, node, index, outer, scope.as_ref().unwrap_or(outer))?;
        graph.add_node(built);
    }
    for &id in &graph.outputs {
        let value = graph.value(id);
        let source =
            value.producer.is_some() || value.constant.is_some() || value.captured || graph.inputs.contains(&id);
        if !source && !sparse.contains(&value.name) {
            return Err(GraphError::new(format!("graph output '{}'", value.name), "is produced by no node"));
        }
    }
    graph.sort()?; // readers may stand before producers; a cycle shows here
    Ok(graph)
}

fn declare(graph: &mut Graph, id: super::ValueId, info: ValueInfoProto) {
    let (dtype, shape) = type_of(info.kind.as_ref());
    let value = graph.value_mut(id);
    if value.constant.is_none() {
        value.dtype = dtype.or(value.dtype);
        value.shape = shape.or(value.shape.take());
    }
    value.declared = Some(info);
    value.declared_as = Some((value.dtype, value.shape.clone()));
}

/// Element type and shape that a declaration gives.
pub(super) fn type_of(kind: Option<&TypeProto>) -> Known {
    let Some(tensor) = kind.and_then(|kind| kind.tensor_type.as_ref()) else { return (None, None) };
    let shape = tensor.shape.as_ref().map(|shape| {
        let dim = |dim: &crate::onnx::proto::DimensionProto| match (&dim.dim_value, &dim.dim_param) {
            (Some(size), _) if *size >= 0 => Dim::Fixed(*size),
            (_, Some(name)) if !name.is_empty() => Dim::Symbol(name.clone()),
            _ => Dim::Unknown,
        };
        shape.dim.iter().map(dim).collect()
    });
    (tensor.elem_type.and_then(DType::from_number), shape)
}

fn place(node: &NodeProto, index: usize) -> String {
    match node.name.as_deref() {
        Some(name) if !name.is_empty() => format!("node '{name}'"),
        _ => format!("node '{}_{index}'", node.op_type.as_deref().unwrap_or_default()),
    }
}

fn build_node(
    graph: &mut Graph,
    proto: NodeProto,
    index: usize,
    outer: &HashMap<String, Known>,
    scope: &HashMap<String, Known>,
) -> Result<Node, GraphError> {
    let place = place(&proto, index);
    let Some(op_type) = proto.op_type.filter(|op| !op.is_empty()) else {
        return Err(GraphError::new(place, "has no operator"));
    };
    let mut inputs = Vec::with_capacity(proto.input.len());
    for (position, name) in proto.input.iter().enumerate() {
        inputs.push(match (name.is_empty(), graph.value_named(name)) {
            (true, _) => None,
            (false, Some(id)) => Some(id),
            (false, None) => match outer.get(name) {
                Some(known) => Some(graph.add_captured(name, known.0, known.1.clone())),
                None => {
                    let problem =
                        format!("input {position} '{name}' is produced by no node and is no input or initializer");
                    return Err(GraphError::new(place, problem));
                }
            },
        });
    }
    let outputs = proto.output.iter().map(|name| graph.value_named(name).filter(|_| !name.is_empty())).collect();
    let mut attributes = Vec::with_capacity(proto.attribute.len());
    for proto in proto.attribute {
        let built = attribute(proto, scope)
            .map_err(|error| GraphError::new(format!("{place}, {}", error.place), error.problem))?;
        attributes.push(built);
    }
    // What the subgraphs take from further out passes through this graph.
    let mut captured = Vec::new();
    let node = Node {
        writes_empty: (proto.name.as_deref() == Some(""), proto.domain.as_deref() == Some("")),
        name: proto.name.unwrap_or_default(),
        op_type,
        domain: proto.domain.unwrap_or_default(),
        inputs,
        outputs,
        attributes,
        captures: Vec::new(),
        doc_string: proto.doc_string,
        metadata: proto.metadata_props,
        overload: proto.overload,
        unknown: proto.unknown,
    };
    node.subgraphs().for_each(|(_, sub)| sub.collect_captures(&mut captured));
    for name in captured {
        if let (None, Some(known)) = (graph.value_named(&name), outer.get(&name)) {
            graph.add_captured(&name, known.0, known.1.clone());
        }
    }
    Ok(node)
}

pub(super) fn attribute(mut proto: AttributeProto, scope: &HashMap<String, Known>) -> Result<Attribute, GraphError> {
    let name = proto.name.take().unwrap_or_default();
    if name.is_empty() {
        return Err(GraphError::new("an attribute", "has no name"));
    }
    let place = format!("attribute '{name}'");
    let missing = || GraphError::new(place.clone(), "has no value");
    let sub = |g: GraphProto| graph(g, scope).map_err(|e| GraphError::new(format!("{place}, {}", e.place), e.problem));
    let untyped = proto.kind.is_none_or(|kind| kind == 0).then_some(proto.kind);
    let kind = match proto.kind.take().filter(|&kind| kind != 0) {
        Some(kind) => kind,
        None => kind_of_field(&proto).ok_or_else(missing)?,
    };
    let mut implied = false;
    let value = match proto.ref_attr_name.take_if(|to| !to.is_empty()) {
        Some(to) => AttributeValue::Reference { to, kind },
        None => {
            implied = match kind {
                kinds::FLOAT => proto.f.is_none(),
                kinds::INT => proto.i.is_none(),
                kinds::STRING => proto.s.is_none(),
                _ => false,
            };
            match kind {
                kinds::FLOAT => AttributeValue::Float(proto.f.take().unwrap_or(0.0)),
                kinds::INT => AttributeValue::Int(proto.i.take().unwrap_or(0)),
                kinds::STRING => AttributeValue::String(proto.s.take().unwrap_or_default()),
                kinds::TENSOR => AttributeValue::Tensor(Box::new(proto.t.take().ok_or_else(missing)?)),
                kinds::GRAPH => AttributeValue::Graph(Box::new(sub(proto.g.take().ok_or_else(missing)?)?)),
                kinds::SPARSE_TENSOR => {
                    AttributeValue::SparseTensor(Box::new(proto.sparse_tensor.take().ok_or_else(missing)?))
                }
                kinds::TYPE_PROTO => AttributeValue::Type(Box::new(proto.tp.take().ok_or_else(missing)?)),
                kinds::FLOATS => AttributeValue::Floats(take(&mut proto.floats)),
                kinds::INTS => AttributeValue::Ints(take(&mut proto.ints)),
                kinds::STRINGS => AttributeValue::Strings(take(&mut proto.strings)),
                kinds::TENSORS => AttributeValue::Tensors(take(&mut proto.tensors)),
                kinds::GRAPHS => {
                    let graphs = take(&mut proto.graphs).into_iter();
                    AttributeValue::Graphs(graphs.map(sub).collect::<Result<_, _>>()?)
                }
                kinds::SPARSE_TENSORS => AttributeValue::SparseTensors(take(&mut proto.sparse_tensors)),
                kinds::TYPE_PROTOS => AttributeValue::Types(take(&mut proto.type_protos)),
                other => return Err(GraphError::new(place, format!("has the unknown type {other}"))),
            }
        }
    };
    let doc_string = proto.doc_string.take();
    // A value of another type beside the declared one means nothing, but it is in the file: it goes with what is unknown.
    let unknown = proto.encode_to_vec();
    Ok(Attribute { name, value, doc_string, unknown, untyped, implied })
}

/// The type of an attribute whose writer left it out: the field that is there tells.
fn kind_of_field(proto: &AttributeProto) -> Option<i32> {
    let fields = [
        (proto.f.is_some(), kinds::FLOAT),
        (proto.i.is_some(), kinds::INT),
        (proto.s.is_some(), kinds::STRING),
        (proto.t.is_some(), kinds::TENSOR),
        (proto.g.is_some(), kinds::GRAPH),
        (proto.sparse_tensor.is_some(), kinds::SPARSE_TENSOR),
        (proto.tp.is_some(), kinds::TYPE_PROTO),
        (!proto.floats.is_empty(), kinds::FLOATS),
        (!proto.ints.is_empty(), kinds::INTS),
        (!proto.strings.is_empty(), kinds::STRINGS),
        (!proto.tensors.is_empty(), kinds::TENSORS),
        (!proto.graphs.is_empty(), kinds::GRAPHS),
        (!proto.sparse_tensors.is_empty(), kinds::SPARSE_TENSORS),
        (!proto.type_protos.is_empty(), kinds::TYPE_PROTOS),
    ];
    fields.into_iter().find(|(there, _)| *there).map(|(_, kind)| kind)
}

/// The tensor that a Constant node gives; `None` for other nodes and for sparse or string constants.
pub(super) fn constant_of(node: &Node) -> Option<Tensor> {
    if !node.is("Constant") {
        return None;
    }
    let name = "constant";
    node.attributes.iter().find_map(|attribute| match (attribute.name.as_str(), &attribute.value) {
        ("value", AttributeValue::Tensor(tensor)) => Some((**tensor).clone()),
        ("value_float", AttributeValue::Float(x)) => Some(Tensor::from_f32(name, &[], &[*x])),
        ("value_floats", AttributeValue::Floats(xs)) => Some(Tensor::from_f32(name, &[xs.len() as i64], xs)),
        ("value_int", AttributeValue::Int(x)) => Some(Tensor::from_i64(name, &[], &[*x])),
        ("value_ints", AttributeValue::Ints(xs)) => Some(Tensor::from_i64(name, &[xs.len() as i64], xs)),
        _ => None,
    })
}
