//! Long sums, added up one number after the other.
//!
//! A `ReduceSum` or `ReduceMean` becomes the last of a `CumSum`, which every engine computes in order. That is the worst
//! order that an engine really uses (tract does over an axis that is not the last).

use crate::engine::Tensors;
use crate::graph::freeze::{self, Freeze};
use crate::graph::{Dim, Graph, Model, Node, NodeId, ValueId, shapes};
use crate::onnx::{DType, Tensor};

/// Shorter sums round as often whichever way they are added up.
const SHORT: i64 = 64;

/// The model with its long sums in order; none where it has none, or they cannot be written so.
pub(super) fn one_by_one(model: &Model, inputs: &Tensors) -> Option<Model> {
    let candidates = |graph: &Graph| graph.nodes().any(|(_, node)| node.is("ReduceSum") || node.is("ReduceMean"));
    if model.opset() < 11 || !candidates(&model.graph) {
        return None;
    }
    let mut model = sized(model, inputs)?;
    let graph = &mut model.graph;
    let mut any = false;
    for id in graph.node_ids() {
        any |= in_order(graph, id).is_some();
    }
    (any && graph.sort().is_ok()).then_some(model)
}

/// The model with the sizes that its inputs have, as far as they follow.
pub(super) fn sized(model: &Model, inputs: &Tensors) -> Option<Model> {
    let mut model = model.clone();
    let known = |name: &&String| model.graph.value_named(name).is_some_and(|id| model.graph.is_input(id));
    let sizes = inputs.iter().filter(|(name, _)| known(name));
    let shapes = sizes.map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect();
    freeze::freeze(&mut model, &Freeze { shapes, batch: None }).ok()?;
    shapes::infer(&mut model).ok()?;
    Some(model)
}

/// The axes that a node sums over, where it sums many floats.
fn axes_of(graph: &Graph, node: &Node, rank: i64) -> Option<Vec<i64>> {
    let given = match node.input(1) {
        Some(id) => Some(graph.constant(id)?.to_i64s().ok()?),
        None => node.ints("axes").map(<[i64]>::to_vec),
    };
    let all = given.as_ref().is_none_or(Vec::is_empty);
    if all && node.int("noop_with_empty_axes") == Some(1) {
        return None;
    }
    let axes = if all { (0..rank).collect() } else { given? };
    let axes: Vec<i64> = axes.into_iter().map(|axis| if axis < 0 { axis + rank } else { axis }).collect();
    axes.iter().all(|axis| (0..rank).contains(axis)).then_some(axes)
}

fn in_order(graph: &mut Graph, id: NodeId) -> Option<()> {
    let node = graph.node(id);
    let mean = node.is("ReduceMean");
    if !(mean || node.is("ReduceSum")) {
        return None;
    }
    let (x, y) = (node.input(0)?, node.output(0)?);
    let sizes = graph.value(x).static_shape()?;
    let result = graph.value(y).static_shape()?;
    let axes = axes_of(graph, node, sizes.len() as i64)?;
    let count: i64 = axes.iter().map(|&axis| sizes[axis as usize]).product();
    if graph.value(x).dtype != Some(DType::Float) || count < SHORT {
        return None;
    }
    let name = graph.value(y).name.clone();
    let mut made = 0;
    let mut value = |graph: &mut Graph, dims: &[i64]| {
        made += 1;
        let fixed = dims.iter().map(|&size| Dim::Fixed(size)).collect();
        let fresh = graph.fresh_name(&format!("{name}_in_order_{made}"));
        graph.add_typed_value(&fresh, Some(DType::Float), Some(fixed))
    };
    let ints = |graph: &mut Graph, what: &str, dims: &[i64], values: &[i64]| {
        let fresh = graph.fresh_name(&format!("{name}_{what}"));
        graph.add_initializer(Tensor::from_i64(fresh, dims, values))
    };
    let (mut from, mut dims): (ValueId, Vec<i64>) = (x, sizes);
    for &axis in &axes {
        let sums = value(graph, &dims);
        let which = ints(graph, "axis", &[], &[axis]);
        graph.add_node(Node::new("CumSum", [from, which], [sums]));
        let (begin, end) = (ints(graph, "begin", &[1], &[-1]), ints(graph, "end", &[1], &[i64::MAX]));
        let which = ints(graph, "axes", &[1], &[axis]);
        dims[axis as usize] = 1;
        let last = value(graph, &dims);
        graph.add_node(Node::new("Slice", [sums, begin, end, which], [last]));
        from = last;
    }
    if mean {
        let fresh = graph.fresh_name(&format!("{name}_share"));
        let share = graph.add_initializer(Tensor::from_f32(fresh, &[], &[1.0 / count as f32]));
        let scaled = value(graph, &dims);
        graph.add_node(Node::new("Mul", [from, share], [scaled]));
        from = scaled;
    }
    graph.remove_node(id);
    let shape = ints(graph, "sizes", &[result.len() as i64], &result);
    graph.add_node(Node::new("Reshape", [from, shape], [y]));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::engine::tract::Tract;

    #[test]
    fn sums_are_the_same_but_for_their_rounding() {
        for (operator, axes, keep) in
            [("ReduceSum", vec![1], 1), ("ReduceSum", vec![0, -1], 0), ("ReduceMean", vec![1, 2], 0)]
        {
            let listed: Vec<String> = axes.iter().map(i64::to_string).collect();
            let text = format!(
                r#"<ir_version: 8, opset_import: ["" : 12]>
                g (float[3, 80, 70] x) => (float y) {{ y = {operator} <axes = [{}], keepdims = {keep}> (x) }}"#,
                listed.join(", ")
            );
            let model = crate::text::parse_model(&text).unwrap();
            let values: Vec<f32> = (0..3 * 80 * 70).map(|i| 1.0 + (i % 97) as f32 * 1e-3).collect();
            let inputs = Tensors::from_iter([("x".to_string(), Tensor::from_f32("x", &[3, 80, 70], &values))]);
            let ordered = one_by_one(&model, &inputs).unwrap_or_else(|| panic!("{text}"));
            assert!(ordered.graph.nodes().any(|(_, node)| node.is("CumSum")));
            let (plain, other) = (Tract.run_once(&model, &inputs).unwrap(), Tract.run_once(&ordered, &inputs).unwrap());
            assert_eq!(plain["y"].dims(), other["y"].dims(), "{operator} {axes:?}");
            let apart = crate::compare::metrics(&plain["y"], &other["y"]).unwrap();
            assert!(apart.relative < 1e-4, "{operator} {axes:?}: {apart:?}");
        }
    }

    #[test]
    fn short_sums_are_left_alone() {
        let text = r#"<ir_version: 8, opset_import: ["" : 12]>
            g (float[8, 8] x) => (float[8] y) { y = ReduceSum <axes = [1], keepdims = 0> (x) }"#;
        let model = crate::text::parse_model(text).unwrap();
        let inputs = Tensors::from_iter([("x".to_string(), Tensor::from_f32("x", &[8, 8], &[1.0; 64]))]);
        assert!(one_by_one(&model, &inputs).is_none());
    }
}
