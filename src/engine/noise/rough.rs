//! Functions that a target approximates: their results are off by up to so much, which no rounding of a type explains.

use super::sums::sized;
use crate::engine::Tensors;
use crate::engine::random::Random;
use crate::graph::{Dim, Graph, Model, Node, NodeId};
use crate::onnx::{DType, Tensor};

/// The model with an error of up to the listed one added to what each of the listed operators gives; none where it has
/// none of them. In every other draw all errors are to one side: an approximation is off alike over a whole range, and
/// sums add that up.
pub(super) fn roughened(model: &Model, inputs: &Tensors, list: &[(String, f64)], seed: u64) -> Option<Model> {
    let any = |graph: &Graph| graph.nodes().any(|(_, node)| list.iter().any(|(operator, _)| node.is(operator)));
    if list.is_empty() || !any(&model.graph) {
        return None;
    }
    let mut model = sized(model, inputs)?;
    let graph = &mut model.graph;
    for id in graph.node_ids() {
        if let Some((_, most)) = list.iter().find(|(operator, _)| graph.node(id).is(operator)) {
            let _ = roughen(graph, id, *most as f32, seed);
        }
    }
    graph.sort().is_ok().then_some(model)
}

fn roughen(graph: &mut Graph, id: NodeId, most: f32, seed: u64) -> Option<()> {
    let out = graph.node(id).output(0)?;
    let value = graph.value(out);
    let (name, dims) = (value.name.clone(), value.static_shape().filter(|_| value.dtype == Some(DType::Float))?);
    let mut random = Random::new(seed, &name);
    let count = dims.iter().product::<i64>().max(0) as usize;
    let low = if seed.is_multiple_of(2) { -most } else { 0.0 };
    let errors: Vec<f32> = (0..count).map(|_| random.between(low, most)).collect();
    let fresh = graph.fresh_name(&format!("{name}_error"));
    let error = graph.add_initializer(Tensor::from_f32(fresh, &dims, &errors));
    let fresh = graph.fresh_name(&format!("{name}_exact"));
    let exact =
        graph.add_typed_value(&fresh, Some(DType::Float), Some(dims.iter().map(|&size| Dim::Fixed(size)).collect()));
    graph.set_output(id, 0, Some(exact));
    graph.add_node(Node::new("Add", [exact, error], [out]));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::engine::tract::Tract;

    #[test]
    fn what_is_listed_is_off_by_as_much_and_nothing_else() {
        let text = r#"<ir_version: 8, opset_import: ["" : 12]>
            g (float[64] x) => (float[64] y, float[64] z) { y = Sigmoid(x)  z = Relu(x) }"#;
        let model = crate::text::parse_model(text).unwrap();
        let inputs = Tensors::from_iter([("x".to_string(), Tensor::from_f32("x", &[64], &[0.5; 64]))]);
        assert!(roughened(&model, &inputs, &[("Tanh".to_string(), 0.1)], 0).is_none());
        let rough = roughened(&model, &inputs, &[("Sigmoid".to_string(), 0.01)], 0).unwrap();
        let (plain, off) = (Tract.run_once(&model, &inputs).unwrap(), Tract.run_once(&rough, &inputs).unwrap());
        let apart = crate::compare::metrics(&plain["y"], &off["y"]).unwrap();
        assert!((1e-3..0.0101).contains(&apart.max_abs), "{apart:?}");
        assert!(crate::compare::metrics(&plain["z"], &off["z"]).unwrap().equal);
    }
}
