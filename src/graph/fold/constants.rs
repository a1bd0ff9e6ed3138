//! The pass: every node whose outputs do not depend on the model's inputs gives way to initializers.

use super::{Array, Call};
use crate::graph::shapes::{self, Shapes};
use crate::graph::{AttributeValue, Graph, GraphError, Model, NodeId, ValueId};
use crate::onnx::Tensor;

/// Results larger than this, and larger than what they were computed from, stay nodes: a file must not grow by a tensor of
/// zeros that a node says in a line.
const GROWTH_LIMIT: usize = 64 * 1024;

/// What was folded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folded {
    /// The nodes that are gone because their outputs were computed, without the Constant nodes that held them already.
    pub nodes: Vec<String>,
}

/// Computes what depends on constants alone, in subgraphs too, and shape arithmetic whose result is fixed. Values keep
/// their names. Constant nodes become initializers; what nothing reads any more is removed.
///
/// # Errors
/// As [`shapes::infer`].
pub fn fold_constants(model: &mut Model) -> Result<Folded, GraphError> {
    let opset = model.opset();
    let mut folded = Folded::default();
    fold_graph(&mut model.graph, opset, &mut folded)?;
    model.graph.prune();
    Ok(folded)
}

fn fold_graph(graph: &mut Graph, opset: i64, folded: &mut Folded) -> Result<(), GraphError> {
    let known = shapes::infer_graph(graph, opset)?;
    let labels: Vec<(NodeId, String)> = graph
        .nodes()
        .enumerate()
        .map(|(index, (id, node))| match node.name.as_str() {
            "" => (id, format!("{}_{index}", node.op_type)),
            name => (id, name.to_string()),
        })
        .collect();
    for (id, label) in labels {
        let node = graph.node(id);
        if node.subgraphs().next().is_some() {
            for inner in graph.node_mut(id).subgraphs_mut() {
                // A branch that cannot run at these sizes is one that will not be taken: it stays as it is.
                if fold_graph(inner, opset, folded).is_ok() {
                    inner.prune();
                }
            }
            graph.refresh_captures(id);
            continue;
        }
        let is_constant = node.is("Constant");
        let Some(tensors) = outputs(graph, id, opset, &known) else { continue };
        graph.remove_node(id);
        for (value, tensor) in tensors {
            let tensor = tensor.renamed(graph.value(value).name.clone());
            graph.set_initializer(value, tensor);
        }
        if !is_constant {
            folded.nodes.push(label);
        }
    }
    Ok(())
}

/// The outputs of a node as tensors, if all of them are known.
fn outputs(graph: &Graph, id: NodeId, opset: i64, known: &Shapes) -> Option<Vec<(ValueId, Tensor)>> {
    let node = graph.node(id);
    let written: Vec<ValueId> = node.writes().collect();
    if written.is_empty() || !node.is_standard() || node.op_type.starts_with("Random") || is_random(&node.op_type) {
        return None;
    }
    if node.is("Constant") {
        let tensor = graph.constant(written[0])?;
        // A name that the file shows as text, or another form than numbers, stays as it is.
        return (!matches!(node.attributes.first()?.value, AttributeValue::SparseTensor(_)))
            .then(|| vec![(written[0], (*tensor).clone())]);
    }
    let tracked: Option<Vec<(ValueId, Tensor)>> =
        written.iter().map(|&value| Some((value, (*known.constant(graph, value)?).clone()))).collect();
    if tracked.is_some() {
        return tracked;
    }
    let mut taken = 0;
    let mut inputs = Vec::with_capacity(node.inputs.len());
    for input in &node.inputs {
        inputs.push(match input {
            None => None,
            Some(value) => {
                let array = Array::of(&*graph.constant(*value)?)?;
                taken += array.bytes.len();
                Some(array)
            }
        });
    }
    let results = Call { node, opset, inputs: &inputs }.run()?;
    let grows = results.iter().map(|array| array.bytes.len()).sum::<usize>() > GROWTH_LIMIT.max(taken);
    if grows {
        return None;
    }
    let at = |value: ValueId| node.outputs.iter().position(|output| *output == Some(value));
    let result = |value: ValueId| Some((value, (*results.get(at(value)?)?.clone().into_tensor("")).clone()));
    written.iter().map(|&value| result(value)).collect()
}

fn is_random(op_type: &str) -> bool {
    matches!(op_type, "Bernoulli" | "Multinomial")
}
