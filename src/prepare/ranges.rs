//! Which nodes float16 cannot hold: it has no number beyond 65504, and what goes beyond becomes infinite and soon NaN.
//!
//! The model runs in float32 on the samples that the check uses later; a node that reads or writes a tensor which comes
//! near that limit stays float32. Nothing of the tensors is kept but the largest number of each.

use super::check;
use crate::engine::{Engine, Tensors, samples as inputs};
use crate::graph::{AttributeValue, Model, Node, ValueId, freeze};
use crate::onnx::DType;
use crate::target::dtype::{FLOAT16_MAX, Policy};

/// How far below the limit a tensor must stay: other inputs reach further than a few samples do.
const MARGIN: f64 = 4.0;
/// Inputs that are tried.
const SAMPLES: u64 = 2;

/// Keeps the nodes of `model` in float32 that go beyond float16 on a sample. Returns false where no engine runs the model,
/// so that nothing is known.
pub(super) fn keep_what_overflows(model: &Model, samples: &[Tensors], policy: &mut Policy) -> bool {
    if policy.compute != DType::Float16 {
        return true;
    }
    let mut probe = model.clone();
    let values = watch(&mut probe);
    let mut sized = model.clone();
    let (sizes, _) = freeze::assumed(&sized);
    if freeze::freeze(&mut sized, &sizes).is_err() || inputs::too_large(&sized).is_some() {
        return false;
    }
    let mut problems = Vec::new();
    let runs = |engine: &dyn Engine| -> Option<Vec<f64>> {
        let mut session = engine.compile(&probe).ok()?;
        let mut largest = vec![0f64; values.len()];
        for seed in 0..if samples.is_empty() { SAMPLES } else { samples.len() as u64 } {
            let outputs = session.run(&inputs::given_or_made(samples, &sized, seed)).ok()?;
            for (largest, (_, name)) in largest.iter_mut().zip(&values) {
                let found = outputs.get(name)?.to_f64s().ok()?.first().copied()?;
                *largest = largest.max(found); // a NaN of the model's own says nothing
            }
        }
        Some(largest)
    };
    let Some(largest) = check::engines(&mut problems).iter().find_map(|engine| runs(engine.as_ref())) else {
        return false;
    };
    for (&(value, _), &largest) in values.iter().zip(&largest) {
        if largest * MARGIN > f64::from(FLOAT16_MAX) {
            let why = format!(
                "{} reaches {largest:.1e} on a sample, and float16 ends at 6.6e4",
                model.graph.value(value).name
            );
            let readers = model.graph.consumers(value).iter().copied();
            let near: Vec<_> = model.graph.producer(value).into_iter().chain(readers).collect();
            near.into_iter().for_each(|id| policy.keep(&model.graph, id, &why));
        }
    }
    true
}

/// Makes a model give the largest magnitude of each float32 tensor in place of its outputs; the tensors, and the names of
/// the outputs that stand for them.
fn watch(model: &mut Model) -> Vec<(ValueId, String)> {
    let graph = &mut model.graph;
    let made: Vec<ValueId> = graph.nodes().flat_map(|(_, node)| node.writes().collect::<Vec<_>>()).collect();
    let watched: Vec<ValueId> = graph.inputs.iter().copied().chain(made).collect();
    graph.outputs.clear();
    let mut values = Vec::new();
    for (index, value) in watched.into_iter().enumerate() {
        if graph.value(value).dtype != Some(DType::Float) || graph.initializer(value).is_some() {
            continue;
        }
        let magnitude = graph.add_typed_value(&format!("porter_magnitude_{index}"), Some(DType::Float), None);
        let name = format!("porter_largest_{index}");
        let largest = graph.add_typed_value(&name, Some(DType::Float), Some(Vec::new()));
        graph.add_node(Node::new("Abs", [value], [magnitude]).named(format!("porter_abs_{index}")));
        let reduce = Node::new("ReduceMax", [magnitude], [largest]).named(format!("porter_max_{index}"));
        graph.add_node(reduce.with("keepdims", AttributeValue::Int(0)));
        graph.outputs.push(largest);
        values.push((value, name));
    }
    values
}
