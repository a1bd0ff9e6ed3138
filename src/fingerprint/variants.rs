//! Shapes that need the node itself: its inputs read another way, or the node run another way.

use super::{Evidence, Run, View};
use crate::engine::Engine;
use crate::graph::{Model, Node};
use crate::onnx::{DType, Tensor};

/// The node that makes the wrong outputs, if one makes all of them.
fn culprit(evidence: &Evidence) -> Option<&Node> {
    let graph = &evidence.model.graph;
    let producers = evidence.outputs.iter().map(|name| graph.value_named(name).and_then(|value| graph.producer(value)));
    let mut all: Vec<_> = producers.collect::<Option<_>>()?;
    all.dedup();
    match all.as_slice() {
        [one] => Some(graph.node(*one)),
        _ => None,
    }
}

/// What an input of the node held in a run.
fn held(evidence: &Evidence, run: &Run, node: &Node, index: usize) -> Option<Tensor> {
    let graph = &evidence.model.graph;
    let value = node.input(index)?;
    match graph.constant(value) {
        Some(tensor) => Some((*tensor).clone()),
        None => run.inputs.get(&graph.value(value).name).cloned(),
    }
}

/// Outputs that are contiguous runs of the input, as forgetting the stride of the axis makes them.
pub(super) fn stride_drop(evidence: &Evidence, runs: &[Run], views: &[Vec<View>]) -> bool {
    let Some(node) = culprit(evidence) else { return false };
    let graph = &evidence.model.graph;
    let mut proved = false;
    for (run, views) in runs.iter().zip(views) {
        for (output, view) in evidence.outputs.iter().zip(views) {
            if view.deviating.is_empty() {
                continue;
            }
            let predicted = match node.op_type.as_str() {
                "Split" | "Slice" => (|| {
                    let x = held(evidence, run, node, 0)?;
                    let dims: Vec<usize> = x.dims().iter().map(|&size| size as usize).collect();
                    let value = graph.value_named(output)?;
                    let start = match node.op_type.as_str() {
                        "Split" => {
                            let axis = node.int("axis").unwrap_or(0);
                            let axis = if axis < 0 { axis + dims.len() as i64 } else { axis } as usize;
                            let inner: usize = dims.get(axis + 1..)?.iter().product();
                            let before = node.outputs.iter().take_while(|out| **out != Some(value));
                            let mut offset = 0;
                            for out in before.flatten() {
                                offset += *graph.value(*out).static_shape()?.get(axis)? as usize;
                            }
                            offset * inner
                        }
                        _ => {
                            let ints = |index: usize| held(evidence, run, node, index)?.to_i64s().ok();
                            let (begins, axes) = (ints(1)?, ints(3).unwrap_or_else(|| vec![0]));
                            let (&[begin], &[axis]) = (begins.as_slice(), axes.as_slice()) else { return None };
                            let axis = if axis < 0 { axis + dims.len() as i64 } else { axis } as usize;
                            let size = *dims.get(axis)? as i64;
                            let begin = if begin < 0 { begin + size } else { begin }.clamp(0, size) as usize;
                            begin * dims.get(axis + 1..)?.iter().product::<usize>()
                        }
                    };
                    let values = x.to_f64s().ok()?;
                    values.get(start..start + view.right.len()).map(<[f64]>::to_vec)
                })(),
                "Concat" => {
                    let parts = (0..node.inputs.len()).map(|index| held(evidence, run, node, index)?.to_f64s().ok());
                    parts.collect::<Option<Vec<_>>>().map(|parts| parts.concat())
                }
                _ => None,
            };
            match predicted {
                Some(predicted) if view.holds(&predicted) => proved = true,
                _ => return false,
            }
        }
    }
    proved
}

/// Whether running a changed piece on the reference gives exactly what is wrong, on every run.
fn explains(evidence: &Evidence, changed: &Model, runs: &[Run], views: &[Vec<View>], reference: &dyn Engine) -> bool {
    let Ok(mut session) = reference.compile(changed) else { return false };
    let mut proved = false;
    for (run, views) in runs.iter().zip(views) {
        let Ok(outputs) = session.run(&run.inputs) else { return false };
        for (name, view) in evidence.outputs.iter().zip(views) {
            if view.deviating.is_empty() {
                continue;
            }
            let values = outputs.get(name).and_then(|tensor| tensor.to_f64s().ok());
            match values {
                Some(values) if view.holds(&values) => proved = true,
                _ => return false,
            }
        }
    }
    proved
}

/// The piece with its culprit changed.
fn with_node(evidence: &Evidence, change: &dyn Fn(&mut Node)) -> Option<Model> {
    let label = culprit(evidence)?.name.clone();
    let mut model = evidence.model.clone();
    let id = model.graph.node_named(&label)?;
    change(model.graph.node_mut(id));
    Some(model)
}

/// Another mode of the same operator.
pub(super) fn other_mode(evidence: &Evidence, runs: &[Run], views: &[Vec<View>], reference: &dyn Engine) -> bool {
    let Some(node) = culprit(evidence) else { return false };
    let mut changed: Vec<Model> = Vec::new();
    let mut attempt = |change: &dyn Fn(&mut Node)| changed.extend(with_node(evidence, change));
    match node.op_type.as_str() {
        "Resize" => {
            let ways = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"];
            let roundings = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"];
            for way in ways {
                for rounding in roundings {
                    attempt(&|node| {
                        node.set_attr("coordinate_transformation_mode", way);
                        node.set_attr("nearest_mode", rounding);
                    });
                }
            }
            for mode in ["nearest", "linear", "cubic"] {
                attempt(&|node| node.set_attr("mode", mode));
            }
        }
        "Round" | "Floor" | "Ceil" => {
            for op in ["Round", "Floor", "Ceil"].into_iter().filter(|op| *op != node.op_type) {
                attempt(&|node| node.op_type = op.into());
            }
        }
        "AveragePool" => {
            let counted = node.int("count_include_pad").unwrap_or(0);
            attempt(&|node| node.set_attr("count_include_pad", 1 - counted));
        }
        "Gelu" => {
            let exact = node.string("approximate") != Some("tanh");
            attempt(&|node| node.set_attr("approximate", if exact { "tanh" } else { "none" }));
        }
        "GridSample" => {
            let corners = node.int("align_corners").unwrap_or(0);
            attempt(&|node| node.set_attr("align_corners", 1 - corners));
        }
        _ => {}
    }
    changed.iter().any(|model| explains(evidence, model, runs, views, reference))
}

/// A constant operand with two of its axes read the other way round.
pub(super) fn constant_transposed(
    evidence: &Evidence,
    runs: &[Run],
    views: &[Vec<View>],
    reference: &dyn Engine,
) -> bool {
    let Some(node) = culprit(evidence) else { return false };
    let graph = &evidence.model.graph;
    for (index, input) in node.inputs.iter().enumerate() {
        let Some(tensor) = input.and_then(|input| graph.constant(input)) else { continue };
        if tensor.dtype() != DType::Float || tensor.len() > 1 << 24 {
            continue;
        }
        let dims: Vec<usize> = tensor.dims().iter().map(|&size| size as usize).collect();
        let Ok(values) = tensor.to_f64s() else { continue };
        for a in 0..dims.len() {
            for b in a + 1..dims.len() {
                if dims[a] < 2 || dims[b] < 2 {
                    continue;
                }
                let mut order: Vec<usize> = (0..dims.len()).collect();
                order.swap(a, b);
                let turned = super::shapes::permuted(&values, &dims, &order);
                let Some(turned) = Tensor::from_f64s("turned", tensor.dtype(), tensor.dims(), &turned) else {
                    continue;
                };
                let mut model = evidence.model.clone();
                let Some(id) = model.graph.node_named(&node.name) else { continue };
                let constant = model.graph.add_initializer(turned);
                model.graph.set_input(id, index, Some(constant));
                if explains(evidence, &model, runs, views, reference) {
                    return true;
                }
            }
        }
    }
    false
}
