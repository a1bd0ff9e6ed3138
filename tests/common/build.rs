//! Small models made by hand, in the file's own messages, so that a test can break any part of one.

use porter::onnx::proto::*;
use porter::onnx::{DType, Tensor};

/// A tensor's declaration: `float[2,3]`.
pub fn info(name: &str, dtype: DType, dims: &[i64]) -> ValueInfoProto {
    let dim = |&size: &i64| DimensionProto { dim_value: Some(size), ..Default::default() };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect(), ..Default::default() };
    let tensor = TensorTypeProto { elem_type: Some(dtype.number()), shape: Some(shape), ..Default::default() };
    let kind = TypeProto { tensor_type: Some(tensor), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), kind: Some(kind), ..Default::default() }
}

/// A node, named after its first output.
pub fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    NodeProto {
        op_type: Some(op_type.into()),
        name: outputs.first().map(|output| format!("make_{output}")),
        input: owned(inputs),
        output: owned(outputs),
        ..Default::default()
    }
}

/// An attribute that holds a subgraph.
pub fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { name: Some(name.into()), kind: Some(attribute_type::GRAPH), g: Some(graph), ..Default::default() }
}

/// An attribute that holds a tensor.
pub fn tensor_attribute(name: &str, tensor: Tensor) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        kind: Some(attribute_type::TENSOR),
        t: Some(tensor),
        ..Default::default()
    }
}

/// A model of ai.onnx 18 around a graph.
pub fn model_of(graph: GraphProto) -> ModelProto {
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(18), ..Default::default() };
    ModelProto { ir_version: Some(8), opset_import: vec![opset], graph: Some(graph), ..Default::default() }
}

/// `y = Relu(x + w)`, with w a float tensor `[2, 3]`.
pub fn small() -> ModelProto {
    model_of(GraphProto {
        name: Some("small".into()),
        input: vec![info("x", DType::Float, &[2, 3])],
        output: vec![info("y", DType::Float, &[2, 3])],
        initializer: vec![Tensor::from_f32("w", &[2, 3], &[0.5, -1.0, 2.0, 0.0, 1.5, -0.25])],
        node: vec![node("Add", &["x", "w"], &["sum"]), node("Relu", &["sum"], &["y"])],
        ..Default::default()
    })
}

/// The graph of a model.
pub fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.get_or_insert_default()
}

/// `small()`, changed.
pub fn small_with(change: impl FnOnce(&mut GraphProto)) -> ModelProto {
    let mut model = small();
    change(graph(&mut model));
    model
}
