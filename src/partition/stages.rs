//! Layers a placed graph into stages that alternate between target and CPU.
//!
//! Target stages are even, CPU stages odd; CPU work that needs nothing from the target may stand before it, at -1.
//! `stage(n)` is the smallest number of n's parity that no input exceeds. That makes the number of stages the smallest
//! possible. CPU nodes then sink to the latest stage that their readers allow, so that what only a tail needs runs with
//! the tail instead of as a part of its own.

use std::collections::HashMap;

use super::{Device, Placement};
use crate::graph::NodeId;

/// The nodes of one stage.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub device: Device,
    /// In topological order.
    pub nodes: Vec<NodeId>,
}

/// The stages that have nodes, in running order.
pub(super) fn layer(placement: &Placement) -> Vec<Layer> {
    let graph = placement.graph;
    let mut stage: HashMap<NodeId, i64> = HashMap::new();
    for (id, node) in graph.nodes() {
        let device = placement.device[&id];
        let first = if device == Device::Target { 0 } else { -1 };
        let earliest =
            node.reads().filter_map(|value| stage.get(&graph.producer(value)?)).fold(first, |at, &input| at.max(input));
        let matches = (earliest % 2 == 0) == (device == Device::Target);
        stage.insert(id, if matches { earliest } else { earliest + 1 });
    }
    let last = stage.values().copied().max().unwrap_or(0);
    for (id, node) in graph.nodes().rev() {
        if placement.device[&id] == Device::Target {
            continue;
        }
        let readers = node.writes().flat_map(|value| graph.consumers(value));
        let latest = readers.filter_map(|reader| stage.get(reader)).fold(last, |at, &reader| at.min(reader));
        let sunk = if latest % 2 == 0 { latest - 1 } else { latest };
        if sunk > stage[&id] {
            stage.insert(id, sunk);
        }
    }
    let mut layers: Vec<Layer> = Vec::new();
    for number in -1..=last {
        let nodes: Vec<NodeId> = graph.nodes().map(|(id, _)| id).filter(|id| stage[id] == number).collect();
        if nodes.is_empty() {
            continue;
        }
        let device = if number % 2 == 0 { Device::Target } else { Device::Cpu };
        match layers.last_mut() {
            // An emptied stage between them lets two of the same device run as one.
            Some(before) if before.device == device => before.nodes.extend(nodes),
            _ => layers.push(Layer { device, nodes }),
        }
    }
    layers
}
