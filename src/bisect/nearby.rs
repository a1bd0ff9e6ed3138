//! The nodes around a fault, for a drawing.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::graph::{Graph, NodeId};

/// More nodes than these are no drawing.
const MOST: usize = 40;
/// How many steps before and after the fault are shown.
const STEPS: usize = 2;

/// A part of a graph, laid out in rows.
#[derive(Clone, Debug, Default)]
pub struct Nearby {
    /// The nodes, those of a row together.
    pub nodes: Vec<Spot>,
    /// From which node to which, by index.
    pub edges: Vec<(usize, usize)>,
}

/// A node in a drawing.
#[derive(Clone, Debug)]
pub struct Spot {
    /// Its name.
    pub name: String,
    /// Its operator.
    pub operator: String,
    /// Sizes of what it makes.
    pub makes: String,
    /// The row: what a node reads stands in rows above it.
    pub row: usize,
    /// Whether it is at fault.
    pub fault: bool,
}

/// What stands within two steps of some nodes.
pub fn around(graph: &Graph, faulty: &[NodeId]) -> Nearby {
    let before = |id: NodeId| graph.node(id).reads().filter_map(|value| graph.producer(value)).collect::<Vec<_>>();
    let after = |id: NodeId| graph.node(id).writes().flat_map(|value| graph.consumers(value).to_vec()).collect();
    let mut shown: BTreeSet<NodeId> = faulty.iter().copied().collect();
    for way in [&before as &dyn Fn(NodeId) -> Vec<NodeId>, &after] {
        let mut edge: Vec<NodeId> = faulty.to_vec();
        for _ in 0..STEPS {
            edge = edge.iter().flat_map(|&id| way(id)).collect();
            for &id in &edge {
                if shown.len() < MOST {
                    shown.insert(id);
                }
            }
        }
    }
    let faulty: HashSet<NodeId> = faulty.iter().copied().collect();
    let mut nearby = Nearby::default();
    let mut place: HashMap<NodeId, usize> = HashMap::new();
    // In the graph's order every node comes after what it reads, so one pass finds the rows.
    for (id, node) in graph.nodes().filter(|(id, _)| shown.contains(id)) {
        let above: Vec<usize> = before(id).iter().filter_map(|id| place.get(id).copied()).collect();
        let index = nearby.nodes.len();
        nearby.edges.extend(above.iter().map(|&from| (from, index)));
        nearby.nodes.push(Spot {
            name: graph.label(id),
            operator: node.op_type.clone(),
            makes: node.writes().next().map(|value| graph.value(value).type_text()).unwrap_or_default(),
            row: above.iter().map(|&from| nearby.nodes[from].row + 1).max().unwrap_or(0),
            fault: faulty.contains(&id),
        });
        place.insert(id, index);
    }
    nearby.edges.sort_unstable();
    nearby.edges.dedup();
    nearby
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::builder::Build;
    use crate::onnx::DType;

    #[test]
    fn two_steps_each_way_in_rows() {
        let mut build = Build::new();
        let mut x = build.input("x", DType::Float, &[4]);
        for index in 0..9 {
            x = build.op("Relu", &format!("relu{index}"), &[x]);
        }
        let model = build.finish(&[x]);
        let middle = model.graph.node_named("relu4").unwrap();
        let nearby = around(&model.graph, &[middle]);
        let told: Vec<(&str, usize, bool)> =
            nearby.nodes.iter().map(|spot| (spot.name.as_str(), spot.row, spot.fault)).collect();
        let expected = [("relu2", 0), ("relu3", 1), ("relu4", 2), ("relu5", 3), ("relu6", 4)];
        assert_eq!(told, expected.map(|(name, row)| (name, row, name == "relu4")));
        assert_eq!(nearby.edges, [(0, 1), (1, 2), (2, 3), (3, 4)]);
    }
}
