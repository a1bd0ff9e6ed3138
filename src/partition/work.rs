//! What a node or a tensor costs, in nanoseconds, by the target's cost figures.

use crate::graph::{Graph, Node, NodeId, ValueId};
use crate::target::Cost;

/// Sizes assumed for dimensions that are not known: enough to tell a tensor from a scalar.
const UNKNOWN_DIMENSION: i64 = 64;

/// Prices of a graph's nodes and tensors.
pub struct Work<'a> {
    pub(super) graph: &'a Graph,
    pub(super) cost: Cost,
    pub(super) flops: &'a dyn Fn(NodeId) -> f64,
}

impl Work<'_> {
    /// Bytes of a tensor; unknown dimensions are guessed.
    pub fn bytes(&self, value: ValueId) -> f64 {
        let value = self.graph.value(value);
        let bits = value.dtype.map_or(32, |dtype| dtype.bits()).max(1) as f64;
        let count: f64 = match &value.shape {
            Some(dims) => dims.iter().map(|dim| dim.fixed().unwrap_or(UNKNOWN_DIMENSION) as f64).product(),
            None => (UNKNOWN_DIMENSION * UNKNOWN_DIMENSION) as f64,
        };
        count * bits / 8.0
    }

    /// Moving a tensor across a border. A fixed share each keeps one tensor cheaper than two of half the size.
    pub fn crossing(&self, value: ValueId) -> u64 {
        nanoseconds(self.bytes(value) / self.cost.bytes_per_us + self.cost.border_us / 10.0)
    }

    /// Running a node on the CPU.
    pub fn on_cpu(&self, node: NodeId) -> u64 {
        let started = if self.is_movement(node) { 0 } else { nodes(self.graph.node(node)) };
        nanoseconds((self.flops)(node) / self.cost.cpu_flops_per_us + started as f64 * self.cost.cpu_node_us)
    }

    /// Running a node on the target.
    pub fn on_target(&self, node: NodeId) -> u64 {
        nanoseconds((self.flops)(node) / self.cost.target_flops_per_us + self.cost.target_node_us)
    }

    /// Whether the node computes nothing: it only moves elements. At a border that is free on the CPU, which has to
    /// copy the tensor anyway, and a pass over memory on the target.
    fn is_movement(&self, node: NodeId) -> bool {
        let node = self.graph.node(node);
        node.is_standard()
            && matches!(
                node.op_type.as_str(),
                "Transpose"
                    | "Reshape"
                    | "Flatten"
                    | "Squeeze"
                    | "Unsqueeze"
                    | "Split"
                    | "Slice"
                    | "Identity"
                    | "Expand"
            )
    }
}

fn nanoseconds(microseconds: f64) -> u64 {
    (microseconds * 1e3).clamp(1.0, 1e15) as u64 // a cost is never nothing, nor so large that sums overflow
}

/// A node and those of the graphs within it. Where sizes are not known these are all there is to weigh.
fn nodes(node: &Node) -> usize {
    let within = node.subgraphs().flat_map(|(_, graph)| graph.nodes());
    1 + within.map(|(_, node)| nodes(node)).sum::<usize>()
}
