//! Finds the best place where a target part hands over to the CPU part after it: a minimum cut.
//!
//! Refusals fix only which nodes *must* run on the CPU. The nodes just before them may run on either side, and which side
//! decides how many bytes cross: in front of a top-k tail stand a transpose, a split and a maximum over classes, and
//! handing over after them means three tensors instead of one.
//!
//! With nodes either kept (source side) or moved to the CPU (sink side), the cost of a choice is the work of each node
//! where it runs, plus the crossing of each tensor that a kept node makes and the CPU, or the caller, reads. A moved
//! node may have no reader that is kept. That is a minimum cut (Stone 1977, task assignment by network flow):
//!
//! - source -> node with the CPU's cost, node -> sink with the target's;
//! - node -> tensor with the cost of crossing, tensor -> each reader without limit (to the sink for readers beyond);
//! - reader -> node without limit, so that no reader of a moved node is kept.

use std::collections::{HashMap, VecDeque};

use petgraph::algo::dinics;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::stages::Layer;
use super::{Device, Placement};
use crate::graph::NodeId;

/// Larger than any sum of costs, small enough that two of them add up without overflow.
const NO_LIMIT: u64 = u64::MAX / 4;

/// Moves the border of every target part that a CPU part follows; says whether anything moved.
pub(super) fn settle(placement: &mut Placement, layers: &[Layer]) -> bool {
    let mut moved = false;
    for pair in layers.windows(2) {
        if pair[0].device == Device::Target && pair[1].device == Device::Cpu {
            let nodes = nodes_to_move(placement, &pair[0].nodes);
            if nodes.len() == pair[0].nodes.len() {
                continue; // the whole part: whether it pays was decided before
            }
            moved |= !nodes.is_empty();
            for node in nodes {
                placement.move_to_cpu(node, || "cheaper with the CPU part that follows: fewer bytes cross".into());
            }
        }
    }
    moved
}

fn nodes_to_move(placement: &Placement, part: &[NodeId]) -> Vec<NodeId> {
    let graph = placement.graph;
    let mut network: DiGraph<(), u64> = DiGraph::new();
    let (source, sink) = (network.add_node(()), network.add_node(()));
    let place: HashMap<NodeId, NodeIndex> = part.iter().map(|&id| (id, network.add_node(()))).collect();
    for &id in part {
        let at = place[&id];
        network.add_edge(source, at, placement.work.on_cpu(id));
        network.add_edge(at, sink, placement.work.on_target(id));
        for value in graph.node(id).writes() {
            let tensor = network.add_node(());
            network.add_edge(at, tensor, placement.work.crossing(value));
            if graph.is_output(value) {
                network.add_edge(tensor, sink, NO_LIMIT);
            }
            for reader in graph.consumers(value) {
                match place.get(reader) {
                    Some(&reader) => {
                        network.add_edge(tensor, reader, NO_LIMIT);
                        network.add_edge(reader, at, NO_LIMIT);
                    }
                    None => {
                        network.add_edge(tensor, sink, NO_LIMIT);
                    }
                }
            }
        }
    }
    let (_, flow) = dinics(&network, source, sink);
    // Everything from which the sink can still be reached stands on its side: the cut that moves the fewest nodes.
    let mut reaches_sink = vec![false; network.node_count()];
    reaches_sink[sink.index()] = true;
    let mut queue = VecDeque::from([sink]);
    while let Some(at) = queue.pop_front() {
        let incoming = network.edges_directed(at, petgraph::Direction::Incoming);
        let free = incoming.filter(|e| *e.weight() > flow[e.id().index()]).map(|e| e.source());
        let outgoing = network.edges_directed(at, petgraph::Direction::Outgoing);
        let undone = outgoing.filter(|e| flow[e.id().index()] > 0).map(|e| e.target());
        for next in free.chain(undone) {
            if !std::mem::replace(&mut reaches_sink[next.index()], true) {
                queue.push_back(next);
            }
        }
    }
    part.iter().copied().filter(|id| reaches_sink[place[id].index()]).collect()
}
