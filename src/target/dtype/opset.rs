//! Raises a model to a newer opset, so that its operators have the element types they are to compute in.
//!
//! From opset 11 on most operators only gain: types, attributes with the old meaning as default. The few that changed
//! are rewritten here. Source: the operator changelog of ONNX.

use crate::graph::{AttributeValue, Dim, Graph, Model, Node, NodeId, ValueId, ir_version_for};
use crate::onnx::Tensor;

/// The newest opset that porter raises to.
pub const NEWEST: i64 = 24;

/// A model that cannot be raised.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{place}: {why}")]
pub struct OpsetError {
    /// The node in the way, or the model.
    pub place: String,
    /// Why.
    pub why: String,
}

/// Raises a model to an opset of ai.onnx. Nothing changes if it stands there already.
///
/// # Errors
/// The opsets are outside 11 to 24, or an operator has no equivalent in the newer one.
pub fn raise(model: &mut Model, to: i64) -> Result<(), OpsetError> {
    let from = model.opset();
    if from >= to {
        return Ok(());
    }
    let place = || "the model".to_string();
    if from < 11 || to > NEWEST {
        return Err(OpsetError { place: place(), why: format!("opset {from} to {to} is not between 11 and {NEWEST}") });
    }
    if !model.functions.is_empty() {
        return Err(OpsetError { place: place(), why: "its functions hold operators of the old opset".into() });
    }
    let mut graph = std::mem::take(&mut model.graph);
    let raised = graph_from(&mut graph, from, to);
    model.graph = graph;
    raised?;
    let key = if model.opsets.contains_key("ai.onnx") && !model.opsets.contains_key("") { "ai.onnx" } else { "" };
    model.opsets.insert(key.to_string(), to);
    model.ir_version = model.ir_version.max(ir_version_for(to));
    Ok(())
}

fn graph_from(graph: &mut Graph, from: i64, to: i64) -> Result<(), OpsetError> {
    for id in graph.node_ids() {
        for inner in graph.node_mut(id).subgraphs_mut() {
            graph_from(inner, from, to)?;
        }
        if graph.node(id).is_standard() {
            node(graph, id, from, to).map_err(|why| OpsetError { place: graph.label(id), why })?;
        }
    }
    Ok(())
}

fn node(graph: &mut Graph, id: NodeId, from: i64, to: i64) -> Result<(), String> {
    let crosses = |opset: i64| from < opset && opset <= to;
    let op = graph.node(id).op_type.clone();
    match op.as_str() {
        "Dropout" if crosses(12) => {
            graph.node_mut(id).remove_attr("ratio"); // means nothing at inference
        }
        "Softmax" | "LogSoftmax" | "Hardmax" if crosses(13) => softmax(graph, id)?,
        "Squeeze" | "Unsqueeze" | "ReduceSum" if crosses(13) => attribute_to_input(graph, id, "axes"),
        "Split" => {
            if crosses(13) {
                attribute_to_input(graph, id, "split");
            }
            let node = graph.node_mut(id);
            if crosses(18) && node.input(1).is_none() {
                let outputs = node.outputs.len() as i64;
                node.set_attr("num_outputs", outputs);
            }
        }
        "BatchNormalization" if crosses(14) => {
            for index in 1..graph.node(id).outputs.len() {
                if graph.node(id).output(index).is_some_and(|value| !graph.is_unused(value)) {
                    return Err("its running mean is used, which inference no longer gives".into());
                }
                graph.set_output(id, index, None);
            }
            graph.node_mut(id).outputs.truncate(1);
        }
        "Resize"
            if crosses(13)
                && graph.node(id).string("coordinate_transformation_mode") == Some("tf_half_pixel_for_nn") =>
        {
            return Err("its coordinates tf_half_pixel_for_nn were taken out in opset 13".into());
        }
        "RoiAlign" if crosses(16) && graph.node(id).attr("coordinate_transformation_mode").is_none() => {
            graph.node_mut(id).set_attr("coordinate_transformation_mode", "output_half_pixel");
        }
        "ReduceMax" | "ReduceMin" | "ReduceMean" | "ReduceProd" | "ReduceL1" | "ReduceL2" | "ReduceLogSum"
        | "ReduceLogSumExp" | "ReduceSumSquare"
            if crosses(18) =>
        {
            attribute_to_input(graph, id, "axes");
        }
        "GridSample" if crosses(20) => {
            let renamed = match graph.node(id).string("mode") {
                Some("bilinear") => "linear",
                Some("bicubic") => "cubic",
                _ => return Ok(()),
            };
            graph.node_mut(id).set_attr("mode", renamed);
        }
        "DFT" if crosses(20) => return Err("its axis became an input in opset 20".into()),
        "GroupNormalization" if crosses(21) => {
            return Err("its scale went from groups to channels in opset 21".into());
        }
        "Upsample" | "Scatter" => return Err(format!("{op} was taken out before opset 11")),
        _ => {}
    }
    Ok(())
}

/// Before opset 13 these flatten everything from their axis on, 1 by default; afterwards they take that axis alone,
/// the last by default. The same where only ones follow the axis.
fn softmax(graph: &mut Graph, id: NodeId) -> Result<(), String> {
    let axis = graph.node(id).int("axis").unwrap_or(1);
    let input = graph.node(id).input(0).ok_or("it has no input")?;
    let shape = graph.value(input).shape.clone().ok_or("the dimensions of its input are not known")?;
    let at = usize::try_from(if axis < 0 { axis + shape.len() as i64 } else { axis })
        .map_err(|_| "its axis is out of range")?;
    if shape.iter().skip(at + 1).all(|dim| dim.fixed() == Some(1)) {
        graph.node_mut(id).set_attr("axis", axis);
        return Ok(());
    }
    let sizes: Option<Vec<i64>> = shape.iter().map(Dim::fixed).collect();
    let sizes = sizes.ok_or("it takes several axes at once, which opset 13 can only say for sizes that are known")?;
    let flat: [i64; 2] = [sizes[..at].iter().product(), sizes[at..].iter().product()];
    flattened(graph, id, input, &flat, &sizes);
    Ok(())
}

/// Puts a node between two Reshapes: to `flat`, of which it takes the last axis, and back to `sizes`.
fn flattened(graph: &mut Graph, id: NodeId, input: ValueId, flat: &[i64; 2], sizes: &[i64]) {
    let Some(output) = graph.node(id).output(0) else { return };
    let (label, dtype) = (graph.label(id), graph.value(output).dtype);
    let form = |sizes: &[i64]| Some(sizes.iter().map(|&size| Dim::Fixed(size)).collect());
    let reshape = |graph: &mut Graph, from: ValueId, to: ValueId, sizes: &[i64], what: &str| {
        let tensor = Tensor::from_i64(format!("{label}_{what}"), &[sizes.len() as i64], sizes);
        let shape = graph.add_initializer(tensor);
        graph.insert_before(id, Node::new("Reshape", [from, shape], [to]).named(format!("{label}/{what}")))
    };
    let before = graph.add_typed_value(&format!("{label}_flat_in"), dtype, form(flat));
    let after = graph.add_typed_value(&format!("{label}_flat_out"), dtype, form(flat));
    reshape(graph, input, before, flat, "flatten");
    graph.set_input(id, 0, Some(before));
    graph.set_output(id, 0, Some(after));
    graph.node_mut(id).set_attr("axis", -1i64);
    reshape(graph, after, output, sizes, "restore");
    let _ = graph.sort(); // the second one stands in front of the node so far; it closes no cycle
}

fn attribute_to_input(graph: &mut Graph, id: NodeId, attribute: &str) {
    let node: &mut Node = graph.node_mut(id);
    let Some(AttributeValue::Ints(values)) = node.remove_attr(attribute) else { return };
    let name = node.output(0).map(|output| graph.value(output).name.clone()).unwrap_or_default();
    let tensor = Tensor::from_i64(format!("{name}_{attribute}"), &[values.len() as i64], &values);
    let input = graph.add_initializer(tensor);
    graph.set_input(id, 1, Some(input));
}
