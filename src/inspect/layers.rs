//! The layers of a model, as node names tell them.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::is_parameter;
use super::scope::{Tree, scopes};
use crate::graph::{Graph, NodeId, ValueId, flops};

/// A part of the model that its source names.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// The path of its scope: `/model.10`; empty for nodes outside every scope.
    pub name: String,
    /// How many nodes it has, Constant nodes left out.
    pub nodes: usize,
    /// Parameters that it is the first to read.
    pub parameters: u64,
    /// Floating-point operations at these sizes; what has no known size counts nothing.
    pub flops: f64,
    /// Type and sizes of the last value that leaves it.
    pub output: Option<String>,
}

/// The layer of each node, Constant nodes left out; empty for a node outside every scope.
pub fn layer_names(graph: &Graph) -> HashMap<NodeId, String> {
    let nodes: Vec<(NodeId, Vec<String>)> =
        graph.nodes().filter(|(_, node)| !node.is("Constant")).map(|(id, node)| (id, scopes(node))).collect();
    let mut tree = Tree::default();
    nodes.iter().for_each(|(_, scopes)| tree.add(scopes));
    nodes.iter().map(|(id, scopes)| (*id, path(&scopes[..tree.depth(scopes)]))).collect()
}

/// The path of the innermost scope around a node: `/model.10/m/m.0/attn`; empty outside every scope.
pub fn scope_of(node: &crate::graph::Node) -> String {
    path(&scopes(node))
}

fn path(scopes: &[String]) -> String {
    if scopes.is_empty() { String::new() } else { format!("/{}", scopes.join("/")) }
}

/// The layers in the order in which they end. Empty where names tell none.
pub fn layers(graph: &Graph) -> Vec<Layer> {
    let nodes: Vec<(NodeId, Vec<String>)> =
        graph.nodes().filter(|(_, node)| !node.is("Constant")).map(|(id, node)| (id, scopes(node))).collect();
    let mut tree = Tree::default();
    nodes.iter().for_each(|(_, scopes)| tree.add(scopes));
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut layer_of: HashMap<NodeId, usize> = HashMap::new();
    let mut layers: Vec<Layer> = Vec::new();
    let mut ends: Vec<usize> = Vec::new();
    for (index, (id, scopes)) in nodes.iter().enumerate() {
        let name = path(&scopes[..tree.depth(scopes)]);
        let place = *places.entry(name.clone()).or_insert_with(|| {
            layers.push(Layer { name, nodes: 0, parameters: 0, flops: 0.0, output: None });
            ends.push(index);
            layers.len() - 1
        });
        ends[place] = index;
        layer_of.insert(*id, place);
    }
    if layers.iter().all(|layer| layer.name.is_empty()) {
        return Vec::new();
    }
    let outputs: HashSet<ValueId> = graph.outputs.iter().copied().collect();
    let mut counted: HashSet<ValueId> = HashSet::new();
    for (id, _) in &nodes {
        let place = layer_of[id];
        let node = graph.node(*id);
        let leaves = |value: &ValueId| {
            outputs.contains(value) || graph.consumers(*value).iter().any(|reader| layer_of.get(reader) != Some(&place))
        };
        let layer = &mut layers[place];
        layer.nodes += 1;
        layer.flops += flops::of(graph, *id);
        for value in node.reads() {
            let is_constant = graph.initializer(value).is_some()
                || graph.producer(value).is_some_and(|p| graph.node(p).is("Constant"));
            if is_constant
                && counted.insert(value)
                && let Some(tensor) = graph.constant(value).filter(|tensor| is_parameter(tensor.dtype()))
            {
                layer.parameters += tensor.len() as u64;
            }
        }
        if let Some(value) = node.writes().find(leaves) {
            layer.output = Some(graph.value(value).type_text());
        }
    }
    // Shape arithmetic for a late layer may stand early: the last node tells where a layer belongs.
    let mut order: Vec<(usize, Layer)> = ends.into_iter().zip(layers).collect();
    order.sort_by_key(|(end, _)| *end);
    order.into_iter().map(|(_, layer)| layer).collect()
}
