//! The pass: every node whose outputs do not depend on the model's inputs gives way to initializers.

use std::collections::HashMap;

use super::{Array, Call, branch};
use crate::graph::shapes::{self, Shapes};
use crate::graph::{AttributeValue, Graph, GraphError, Model, Node, NodeId, ValueId};
use crate::onnx::{DType, Tensor};

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
    fold(model, Extent { branches: true, wanted: |_| true })
}

/// As [`fold_constants`], with the branches of every If that is left as they were: one that does not run may not allow the
/// sizes that are known, and what is computed from them fits nothing there.
///
/// # Errors
/// As [`shapes::infer`].
pub fn fold_outside_branches(model: &mut Model) -> Result<Folded, GraphError> {
    fold(model, Extent { branches: false, wanted: |_| true })
}

/// As [`fold_constants`], but nothing is rounded: arithmetic on floats stays, for those who compute it in another type.
///
/// # Errors
/// As [`shapes::infer`].
pub fn fold_whole_numbers(model: &mut Model) -> Result<Folded, GraphError> {
    fold(model, Extent { branches: true, wanted: |dtype| !dtype.is_float() })
}

/// How far folding goes.
#[derive(Clone, Copy)]
struct Extent {
    /// Into the branches of an If whose condition is not known.
    branches: bool,
    /// Results of which types are computed.
    wanted: fn(DType) -> bool,
}

fn fold(model: &mut Model, extent: Extent) -> Result<Folded, GraphError> {
    let opset = model.opset();
    let mut folded = Folded::default();
    let known = shapes::infer_graph(&mut model.graph, opset)?;
    fold_graph(&mut model.graph, opset, &known, extent, &mut folded);
    model.graph.prune();
    Ok(folded)
}

fn fold_graph(graph: &mut Graph, opset: i64, known: &Shapes, extent: Extent, folded: &mut Folded) {
    let mut branches = false;
    let mut twins = Twins::default();
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
            if node.is("If") && branch::take_branch(graph, id) {
                folded.nodes.push(label);
                branches = true;
                continue;
            }
            if !extent.branches && graph.node(id).is("If") {
                continue;
            }
            for inner in graph.node_mut(id).subgraphs_mut() {
                let known = shapes::infer_inner(inner, opset);
                fold_graph(inner, opset, &known, extent, folded);
                inner.prune();
            }
            graph.refresh_captures(id);
            continue;
        }
        let is_constant = node.is("Constant");
        let Some(tensors) = outputs(graph, id, known) else { continue };
        if !is_constant && !tensors.iter().all(|(_, tensor)| (extent.wanted)(tensor.dtype())) {
            continue;
        }
        let removed = graph.remove_node(id);
        let already = match &tensors[..] {
            [(value, tensor)] if !is_constant && is_large(tensor) => twins.of(graph, &removed, *value),
            _ => None,
        };
        for (value, tensor) in tensors {
            if let Some(same) = already {
                graph.replace_uses(value, same);
                continue;
            }
            let tensor = tensor.renamed(graph.value(value).name.clone());
            graph.set_initializer(value, tensor);
        }
        if !is_constant {
            folded.nodes.push(label);
        }
    }
    if branches {
        // What came out of branches may fold in its turn; every round takes at least one If away.
        let known = shapes::infer_inner(graph, opset);
        fold_graph(graph, opset, &known, extent, folded);
    }
}

/// Weights of fewer bytes are not worth being kept once.
const WORTH_SHARING: usize = 4096;

fn is_large(tensor: &Tensor) -> bool {
    tensor.dtype().byte_len(tensor.len()).is_some_and(|bytes| bytes >= WORTH_SHARING)
}

/// What was folded so far, to find what is the same tensor: exporters write a shared weight as one initializer and a node
/// for every layer that uses it, and a file must not grow by a copy for each.
#[derive(Default)]
struct Twins(HashMap<(String, Vec<Option<ValueId>>), ValueId>);

impl Twins {
    /// The value that is the same as what `node` made as `value`, if the graph has one and `value` need not be one itself.
    fn of(&mut self, graph: &Graph, node: &Node, value: ValueId) -> Option<ValueId> {
        if graph.is_output(value) {
            return None;
        }
        if node.is("Identity") {
            return node.input(0).filter(|&source| graph.initializer(source).is_some());
        }
        let said = format!("{} {:?}", node.op_type, node.attributes);
        let same = *self.0.entry((said, node.inputs.clone())).or_insert(value);
        (same != value).then_some(same)
    }
}

/// The outputs of a node as tensors, if all of them are known.
fn outputs(graph: &Graph, id: NodeId, known: &Shapes) -> Option<Vec<(ValueId, Tensor)>> {
    let node = graph.node(id);
    let written: Vec<ValueId> = node.writes().collect();
    if written.is_empty() || !node.is_standard() || node.is_random() {
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
    if !node.inputs.iter().flatten().all(|&value| graph.constant(value).is_some()) {
        return None;
    }
    if matches!(node.op_type.as_str(), "Identity" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze") {
        // The same elements under other sizes: shared, whatever form they are in.
        let tensor = graph.constant(node.input(0)?)?;
        let dims = graph.value(written[0]).static_shape()?;
        let same =
            dims.iter().try_fold(1i64, |count, &size| count.checked_mul(size)) == i64::try_from(tensor.len()).ok();
        return same.then(|| vec![(written[0], (*tensor).clone().reshaped(&dims))]);
    }
    // What it takes and what it makes is known before anything is computed, so that nothing too large is.
    let taken: usize = node
        .inputs
        .iter()
        .flatten()
        .map(|&value| graph.constant(value).and_then(|tensor| tensor.dtype().byte_len(tensor.len())).unwrap_or(0))
        .sum();
    let bytes = |value: &ValueId| {
        let value = graph.value(*value);
        let count = value.static_shape()?.iter().try_fold(1i64, |count, &size| count.checked_mul(size))?;
        value.dtype?.byte_len(usize::try_from(count).ok()?)
    };
    let made = written.iter().map(bytes).try_fold(0usize, |sum, bytes| sum.checked_add(bytes?));
    if made.is_none_or(|made| made > GROWTH_LIMIT.max(taken)) {
        return None;
    }
    let given = |input: &Option<ValueId>| match input {
        None => Some(None),
        Some(value) => Array::of(&*graph.constant(*value)?).map(Some),
    };
    let inputs = node.inputs.iter().map(given).collect::<Option<Vec<_>>>()?;
    let results = Call { node, inputs: &inputs }.run()?;
    let at = |value: ValueId| node.outputs.iter().position(|output| *output == Some(value));
    let result = |value: ValueId| Some((value, (*results.get(at(value)?)?.clone().into_tensor("")).clone()));
    written.iter().map(|&value| result(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::builder::Build;
    use crate::graph::{Node, freeze};
    use crate::onnx::DType;

    #[test]
    fn a_weight_that_layers_share_is_kept_once() {
        let mut b = Build::new();
        let mut x = b.input("x", DType::Float, &[1, 64]);
        let w = b.weight("w", &[64, 64]);
        for layer in 0..3 {
            let same = b.op("Identity", &format!("same{layer}"), &[w]);
            let turned = b.op("Transpose", &format!("turned{layer}"), &[same]);
            x = b.op("MatMul", &format!("mul{layer}"), &[x, turned]);
            x = b.op("MatMul", &format!("back{layer}"), &[x, same]);
        }
        let mut model = b.finish(&[x]);
        assert_eq!(fold_constants(&mut model).unwrap().nodes.len(), 6);
        assert_eq!((model.graph.node_count(), model.graph.initializers().count()), (6, 2));
    }

    #[test]
    fn the_head_that_computes_its_slices_folds_once_sizes_are_known() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/yolo26n-dynamic.onnx");
        let mut model = crate::load(path.as_ref()).unwrap();
        let (sizes, _) = freeze::assumed(&model);
        freeze::freeze(&mut model, &sizes).unwrap();
        fold_constants(&mut model).unwrap();
        let left = |op: &str| model.graph.nodes().filter(|(_, node)| node.is(op)).count();
        assert_eq!(["Shape", "Gather", "Range", "ConstantOfShape", "Constant"].map(left), [0; 5]);
        for (_, node) in model.graph.nodes().filter(|(_, node)| node.is("Slice")) {
            assert!(node.inputs.iter().skip(1).flatten().all(|&bound| model.graph.constant(bound).is_some()));
        }
        let folded = fold_constants(&mut model).unwrap();
        assert_eq!(folded.nodes, Vec::<String>::new(), "a second time there is nothing left");
    }

    #[test]
    fn what_would_make_the_file_grow_stays_a_node() {
        let mut b = Build::new();
        let x = b.input("x", DType::Float, &[512, 512]);
        let shape = b.ints("shape", &[512, 512]);
        let zeros = b.op("ConstantOfShape", "zeros", &[shape]);
        let y = b.op("Add", "y", &[x, zeros]);
        let mut model = b.finish(&[y]);
        assert_eq!(fold_constants(&mut model).unwrap().nodes, Vec::<String>::new());
        assert_eq!(model.graph.node_count(), 2);
    }

    #[test]
    fn a_reshaped_weight_shares_its_bytes() {
        let mut b = Build::new();
        let x = b.input("x", DType::Float, &[6]);
        let w = b.weight("w", &[2, 3]);
        let before = b.graph.constant(w).unwrap().to_bytes().unwrap();
        let shape = b.ints("shape", &[-1]);
        let flat = b.node(Node::new("Reshape", [w, shape], []).named("flat"));
        let y = b.op("Add", "y", &[x, flat]);
        let mut model = b.finish(&[y]);
        assert_eq!(fold_constants(&mut model).unwrap().nodes, ["flat"]);
        let after = model.graph.constant(flat).unwrap();
        assert_eq!(after.dims(), [6]);
        assert_eq!(after.to_bytes().unwrap().as_ptr(), before.as_ptr());
    }
}
