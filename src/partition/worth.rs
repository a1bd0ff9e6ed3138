//! Drops target parts that cost more at their border than they save.

use std::collections::HashSet;

use super::stages::Layer;
use super::{Device, Placement};
use crate::graph::{NodeId, ValueId};

/// The least share of a model's work that makes its largest target part stay whatever it costs.
const WORTH_A_PART: f64 = 0.05;

/// Sends the target part with the worst balance to the CPU, if it has one below zero. The part with the most work
/// stays whatever its balance, for the user asked for the target, unless it is next to nothing of the model.
pub(super) fn drop_one_part(placement: &mut Placement, layers: &[Layer]) -> bool {
    let parts: Vec<&Layer> = layers.iter().filter(|layer| layer.device == Device::Target).collect();
    let work = |layer: &Layer| layer.nodes.iter().map(|&node| placement.work.on_cpu(node)).sum::<u64>();
    let Some(largest) = parts.iter().enumerate().max_by_key(|(_, layer)| work(layer)).map(|(index, _)| index) else {
        return false;
    };
    let total: u64 = layers.iter().map(work).sum();
    let stays = work(parts[largest]) as f64 >= WORTH_A_PART * total as f64;
    let losing = parts
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != largest || !stays)
        .map(|(_, layer)| (balance(placement, layer), *layer))
        .filter(|(balance, _)| *balance < 0)
        .min_by_key(|(balance, _)| *balance);
    let Some((balance, layer)) = losing else { return false };
    let count = layer.nodes.len();
    for &node in &layer.nodes {
        placement.move_to_cpu(node, || {
            let unit = if count == 1 { "node" } else { "nodes" };
            format!(
                "a part of {count} {unit} would cost {:.0} us more at its border than it saves",
                -balance as f64 / 1e3
            )
        });
    }
    true
}

/// Nanoseconds that running the part on the target saves over the CPU, its border paid.
fn balance(placement: &Placement, layer: &Layer) -> i64 {
    let graph = placement.graph;
    let members: HashSet<NodeId> = layer.nodes.iter().copied().collect();
    let mut crossing: HashSet<ValueId> = HashSet::new();
    let mut saved = 0i64;
    for &id in &layer.nodes {
        saved += placement.work.on_cpu(id) as i64 - placement.work.on_target(id) as i64;
        let node = graph.node(id);
        let enters = |value: &ValueId| {
            graph.initializer(*value).is_none()
                && graph.producer(*value).is_none_or(|producer| !members.contains(&producer))
        };
        crossing.extend(node.reads().filter(enters));
        let leaves = |value: &ValueId| {
            graph.is_output(*value) || graph.consumers(*value).iter().any(|consumer| !members.contains(consumer))
        };
        crossing.extend(node.writes().filter(leaves));
    }
    let border: u64 = crossing.iter().map(|&value| placement.work.crossing(value)).sum();
    saved - border as i64 - (placement.cost.border_us * 1e3) as i64
}
