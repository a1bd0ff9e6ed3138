//! How much of a model's work its target gets.

use std::collections::HashMap;

use indexmap::IndexMap;

use crate::graph::{Graph, NodeId, flops};
use crate::partition::{Device, Plan};
use crate::target::Target;

/// Less than this of a model's operations on the target is told.
const LITTLE: f64 = 0.1;

/// What is said where the target gets almost nothing of a model's work: how much, and the first operators in the way.
pub(super) fn little(
    graph: &Graph,
    plan: &Plan,
    refusals: &HashMap<NodeId, String>,
    target: &Target,
) -> Option<String> {
    let work = |device: Device| -> (f64, usize) {
        let nodes = plan.parts.iter().filter(|part| part.device == device).flat_map(|part| &part.nodes);
        nodes.fold((0.0, 0), |(work, count), &id| (work + flops::of(graph, id), count + 1))
    };
    let ((here, taken), (there, left)) = (work(Device::Target), work(Device::Cpu));
    let share = here / (here + there);
    if target.name == "cpu" || share.is_nan() || share >= LITTLE {
        return None;
    }
    let mut in_the_way: IndexMap<&str, &str> = IndexMap::new();
    for (id, node) in graph.nodes() {
        if let Some(reason) = refusals.get(&id) {
            in_the_way.entry(&node.op_type).or_insert(reason);
        }
    }
    let first: Vec<String> = in_the_way.iter().take(3).map(|(op, reason)| format!("{op} ({reason})")).collect();
    let way = if first.is_empty() { String::new() } else { format!(". In the way, first: {}", first.join("; ")) };
    Some(format!(
        "{} gets {:.1} % of the model's operations, {taken} of {} nodes{way}",
        target.name,
        share * 100.0,
        taken + left
    ))
}
