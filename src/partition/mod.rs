//! Decides which nodes run on the target and which on the CPU, and groups them into parts that run one after another.
//!
//! 1. A node that the target refuses goes to the CPU; every other one to the target ([`Placement`]).
//! 2. Nodes are layered into *stages* ([`stages`]) so that along every edge the stage never falls, and rises where the
//!    device changes. One stage is one part: parts are convex by construction and as few as the refusals allow.
//! 3. A target part that does not pay for its border goes to the CPU ([`worth`]); the parts around it become one.
//! 4. Where a target part hands over to the CPU, the exact place of the border is a minimum cut ([`border`]) over bytes
//!    that cross and work that moves. That is what finds a detector's raw tensor in front of its top-k tail.
//!
//! Nothing here knows an operator or a model by name.

mod border;
pub mod example;
mod stages;
mod work;
mod worth;

use std::collections::{HashMap, HashSet};

use crate::graph::{Graph, NodeId, ValueId};
use crate::target::Cost;

pub use work::Work;

/// Where a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// On the target.
    Target,
    /// On the CPU of the host.
    Cpu,
}

/// A node that runs on the CPU although a target was asked for, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuReason {
    /// The node.
    pub node: NodeId,
    /// Why it is not on the target.
    pub reason: String,
}

/// Nodes that run together, in order.
#[derive(Clone, Debug)]
pub struct Part {
    /// Where they run.
    pub device: Device,
    /// The nodes, in topological order.
    pub nodes: Vec<NodeId>,
    /// What the part is given.
    pub inputs: Vec<ValueId>,
    /// What other parts or the caller take from it.
    pub outputs: Vec<ValueId>,
}

/// The parts in the order they run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The parts.
    pub parts: Vec<Part>,
    /// Every node on the CPU with its reason, in the graph's order.
    pub cpu_reasons: Vec<CpuReason>,
}

/// Where each node goes, while the plan is made.
pub(crate) struct Placement<'a> {
    pub graph: &'a Graph,
    pub work: Work<'a>,
    pub cost: Cost,
    pub device: HashMap<NodeId, Device>,
    pub reasons: HashMap<NodeId, String>,
}

impl Placement<'_> {
    /// Sends a node to the CPU for a reason; the first reason stays.
    pub fn move_to_cpu(&mut self, node: NodeId, reason: impl FnOnce() -> String) {
        self.device.insert(node, Device::Cpu);
        self.reasons.entry(node).or_insert_with(reason);
    }

    pub fn is_on_target(&self, node: NodeId) -> bool {
        self.device.get(&node) == Some(&Device::Target)
    }
}

/// Makes the plan. `refusals` says why the target does not take a node; `flops` how many operations a node takes.
pub fn plan(graph: &Graph, refusals: &HashMap<NodeId, String>, cost: Cost, flops: &dyn Fn(NodeId) -> f64) -> Plan {
    let mut placement = Placement {
        graph,
        work: Work { graph, cost, flops },
        cost,
        device: graph.nodes().map(|(id, _)| (id, Device::Target)).collect(),
        reasons: HashMap::new(),
    };
    for (&node, reason) in refusals {
        placement.move_to_cpu(node, || reason.clone());
    }
    // A constant of a kind that is not folded (a text) belongs to its readers.
    for (id, node) in graph.nodes().rev().filter(|(_, node)| node.is("Constant")) {
        let mut readers = node.writes().flat_map(|value| graph.consumers(value)).peekable();
        if readers.peek().is_some() && readers.all(|&reader| !placement.is_on_target(reader)) {
            placement.move_to_cpu(id, || "its readers run on the CPU".into());
        }
    }
    let mut layers = stages::layer(&placement);
    // Each round sends at least one part to the CPU, so the number of nodes bounds them.
    while worth::drop_one_part(&mut placement, &layers) {
        layers = stages::layer(&placement);
    }
    if border::settle(&mut placement, &layers) {
        layers = stages::layer(&placement);
    }
    assemble(&placement, layers)
}

/// From stages to parts with their borders.
fn assemble(placement: &Placement, layers: Vec<stages::Layer>) -> Plan {
    let graph = placement.graph;
    let mut part_of: HashMap<NodeId, usize> = HashMap::new();
    for (index, layer) in layers.iter().enumerate() {
        part_of.extend(layer.nodes.iter().map(|&node| (node, index)));
    }
    let mut parts: Vec<Part> = layers
        .into_iter()
        .map(|layer| Part { device: layer.device, nodes: layer.nodes, inputs: Vec::new(), outputs: Vec::new() })
        .collect();
    // An output that is a constant has no node that makes it; it leaves with the last part, a CPU's if there is one.
    let constants: Vec<ValueId> =
        graph.outputs.iter().copied().filter(|&value| graph.initializer(value).is_some()).collect();
    if !constants.is_empty() {
        let last = parts.iter().rposition(|part| part.device == Device::Cpu).or(parts.len().checked_sub(1));
        match last {
            Some(last) => parts[last].outputs.extend(constants),
            None => {
                let (nodes, inputs) = (Vec::new(), Vec::new());
                parts.push(Part { device: Device::Cpu, nodes, inputs, outputs: constants });
            }
        }
    }
    for (index, part) in parts.iter_mut().enumerate() {
        let mut seen: HashSet<ValueId> = HashSet::new();
        for &node in &part.nodes {
            for value in graph.node(node).reads() {
                let here = graph.producer(value).is_some_and(|producer| part_of.get(&producer) == Some(&index));
                if !here && graph.initializer(value).is_none() && seen.insert(value) {
                    part.inputs.push(value);
                }
            }
            for value in graph.node(node).writes() {
                let leaves = graph.is_output(value)
                    || graph.consumers(value).iter().any(|consumer| part_of.get(consumer) != Some(&index));
                if leaves {
                    part.outputs.push(value);
                }
            }
        }
        // The model's own order where the part touches the model's border, so that positions stay what they were.
        let place = |list: &[ValueId], value: &ValueId| list.iter().position(|v| v == value).unwrap_or(usize::MAX);
        part.inputs.sort_by_key(|value| place(&graph.inputs, value));
        part.outputs.sort_by_key(|value| place(&graph.outputs, value));
    }
    let cpu_reasons = graph
        .nodes()
        .filter(|(id, _)| !placement.is_on_target(*id))
        .map(|(node, _)| CpuReason {
            node,
            reason: placement.reasons.get(&node).cloned().unwrap_or_else(|| "runs with the CPU part around it".into()),
        })
        .collect();
    Plan { parts, cpu_reasons }
}

#[cfg(test)]
mod tests;
