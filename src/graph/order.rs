//! Topological order: stable, so that nodes keep their places unless they must move.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::{Graph, GraphError, NodeId};

impl Graph {
    /// Puts the nodes into topological order. Nodes that are ready together keep their present order.
    ///
    /// # Errors
    /// A cycle, with the names of the nodes on it.
    pub fn sort(&mut self) -> Result<(), GraphError> {
        let place: HashMap<NodeId, usize> = self.nodes().enumerate().map(|(i, (id, _))| (id, i)).collect();
        let ids = self.node_ids();
        let mut waiting = vec![0usize; ids.len()];
        for (i, &id) in ids.iter().enumerate() {
            waiting[i] = self.node(id).reads().filter(|&value| self.producer(value).is_some()).count();
        }
        let mut ready: BinaryHeap<Reverse<usize>> =
            waiting.iter().enumerate().filter(|(_, count)| **count == 0).map(|(i, _)| Reverse(i)).collect();
        let mut sorted = Vec::with_capacity(ids.len());
        while let Some(Reverse(i)) = ready.pop() {
            sorted.push(ids[i]);
            for value in self.node(ids[i]).writes() {
                for consumer in self.consumers(value) {
                    let j = place[consumer];
                    waiting[j] -= 1;
                    if waiting[j] == 0 {
                        ready.push(Reverse(j));
                    }
                }
            }
        }
        if sorted.len() < ids.len() {
            return Err(self.cycle(&ids, &waiting));
        }
        self.sequence = sorted;
        Ok(())
    }

    /// Follows unfinished producers backwards until a node comes up twice.
    fn cycle(&self, ids: &[NodeId], waiting: &[usize]) -> GraphError {
        let stuck: HashMap<NodeId, usize> =
            ids.iter().zip(waiting).filter(|(_, w)| **w > 0).map(|(&id, &w)| (id, w)).collect();
        let mut path: Vec<NodeId> = Vec::new();
        let mut seen: HashMap<NodeId, usize> = HashMap::new();
        let mut at = ids.iter().copied().find(|id| stuck.contains_key(id));
        while let Some(id) = at {
            if let Some(&start) = seen.get(&id) {
                // The path went backwards; told forwards, and closed.
                let on_cycle = path[start..].iter().chain([&id]).rev();
                let mut names: Vec<String> = on_cycle.take(5).map(|&id| self.label(id)).collect();
                if path.len() - start >= 5 {
                    names.push("...".into());
                }
                return GraphError::new(
                    format!("node '{}'", self.label(id)),
                    format!("stands on a cycle: {}", names.join(" -> ")),
                );
            }
            seen.insert(id, path.len());
            path.push(id);
            at = self.node(id).reads().filter_map(|value| self.producer(value)).find(|id| stuck.contains_key(id));
        }
        GraphError::new("the graph", "has a cycle")
    }
}
