//! The element type of every value of a graph, filled in where the file does not declare it.
//!
//! Most operators give the type of their first input, so only the others are listed.

use std::collections::HashMap;

use crate::graph::{AttributeValue, Graph, Node, ValueId};
use crate::onnx::DType;

/// Types by value; `outer` holds those of the enclosing graph, by name.
pub(super) fn of(graph: &Graph, outer: &HashMap<String, DType>) -> HashMap<ValueId, DType> {
    let mut types = HashMap::new();
    for (id, value) in graph.values() {
        let known = value.dtype.or_else(|| outer.get(&value.name).copied().filter(|_| value.is_captured()));
        if let Some(dtype) = known {
            types.insert(id, dtype);
        }
    }
    for (_, node) in graph.nodes() {
        for (index, output) in node.outputs.iter().enumerate() {
            let Some(output) = *output else { continue };
            if !types.contains_key(&output)
                && let Some(dtype) = output_type(graph, node, index, &types)
            {
                types.insert(output, dtype);
            }
        }
    }
    types
}

fn output_type(graph: &Graph, node: &Node, index: usize, types: &HashMap<ValueId, DType>) -> Option<DType> {
    let input = |index: usize| types.get(&node.input(index)?).copied();
    let attribute = |name: &str| node.int(name).and_then(|number| DType::from_number(number as i32));
    match (node.op_type.as_str(), index) {
        ("Cast", _) => attribute("to"),
        ("CastLike", _) => input(1),
        ("Constant" | "ConstantOfShape", _) => match node.attributes.first().map(|a| &a.value) {
            Some(AttributeValue::Tensor(tensor)) => Some(tensor.dtype()),
            Some(AttributeValue::Int(_) | AttributeValue::Ints(_)) => Some(DType::Int64),
            Some(AttributeValue::String(_) | AttributeValue::Strings(_)) => Some(DType::String),
            _ => Some(DType::Float),
        },
        ("Shape" | "Size" | "ArgMax" | "ArgMin" | "NonZero" | "NonMaxSuppression", _) => Some(DType::Int64),
        ("TopK", 1) | ("MaxPool", 1) => Some(DType::Int64),
        ("Unique", 1..) => Some(DType::Int64),
        ("Dropout", 1) => Some(DType::Bool),
        (
            "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Not" | "And" | "Or" | "Xor" | "IsNaN"
            | "IsInf",
            _,
        ) => Some(DType::Bool),
        ("Where", _) => input(1),
        ("OneHot", _) => input(2),
        ("QuantizeLinear", _) => attribute("output_dtype").or(input(2)).or(Some(DType::Uint8)),
        ("DynamicQuantizeLinear", 0 | 2) => Some(DType::Uint8),
        ("DequantizeLinear", _) => input(1),
        ("QLinearConv" | "QLinearMatMul", _) => input(7),
        ("MatMulInteger" | "ConvInteger", _) => Some(DType::Int32),
        ("RandomNormal" | "RandomUniform" | "EyeLike" | "RandomNormalLike" | "RandomUniformLike", _) => {
            attribute("dtype").or(input(0)).or(Some(DType::Float))
        }
        ("If", _) => {
            let (_, branch) = node.subgraphs().next()?;
            branch.value(*branch.outputs.get(index)?).dtype
        }
        ("Loop", _) => {
            let (_, body) = node.subgraphs().next()?;
            body.value(*body.outputs.get(index + 1)?).dtype
        }
        ("Scan", _) => {
            let (_, body) = node.subgraphs().next()?;
            body.value(*body.outputs.get(index)?).dtype
        }
        // The types of a function's outputs are not known from outside.
        _ if !node.is_standard()
            && node.domain != super::DOMAIN
            && graph.value(node.output(index)?).dtype.is_none() =>
        {
            None
        }
        _ => input(0),
    }
}
