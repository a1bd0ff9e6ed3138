//! Cuts a piece out of a graph as a graph of its own, names and all.

use std::collections::HashMap;

use super::{Graph, NodeId, Value, ValueId};

impl Graph {
    /// A graph of the given nodes, with `inputs` and `outputs` at its border. Initializers that the nodes read come
    /// along (weights are shared, not copied), unless they are among `inputs`. Every other value that the nodes read
    /// and none of them makes becomes an input too, after the given ones.
    pub fn extract(&self, nodes: &[NodeId], inputs: &[ValueId], outputs: &[ValueId]) -> Graph {
        let mut piece = Graph::new(self.name.clone());
        let mut map: HashMap<ValueId, ValueId> = HashMap::new();
        let wanted: std::collections::HashSet<NodeId> = nodes.iter().copied().collect();
        for &input in inputs {
            let id = piece.copy_value(self.value(input), &mut map, input);
            piece.inputs.push(id);
        }
        for (_, node) in self.nodes().filter(|(id, _)| wanted.contains(id)) {
            let mut node = node.clone();
            for value in node.reads() {
                if map.contains_key(&value) {
                    continue;
                }
                let made_here = self.producer(value).is_some_and(|producer| wanted.contains(&producer));
                let id = piece.copy_value(self.value(value), &mut map, value);
                match &self.value(value).constant {
                    Some(tensor) => piece.set_initializer(id, tensor.clone()),
                    None if made_here => {}
                    None => piece.inputs.push(id),
                }
            }
            for value in node.writes() {
                if !map.contains_key(&value) {
                    piece.copy_value(self.value(value), &mut map, value);
                }
            }
            let renamed = |ids: &mut Vec<Option<ValueId>>| {
                for id in ids.iter_mut() {
                    *id = id.and_then(|id| map.get(&id).copied());
                }
            };
            renamed(&mut node.inputs);
            renamed(&mut node.outputs);
            node.captures = node.captures.iter().filter_map(|id| map.get(id).copied()).collect();
            piece.add_node(node);
        }
        for &output in outputs {
            let id = match map.get(&output) {
                Some(&id) => id,
                None => {
                    let id = piece.copy_value(self.value(output), &mut map, output);
                    if let Some(tensor) = &self.value(output).constant {
                        piece.set_initializer(id, tensor.clone());
                    }
                    id
                }
            };
            piece.outputs.push(id);
        }
        piece
    }

    fn copy_value(&mut self, value: &Value, map: &mut HashMap<ValueId, ValueId>, from: ValueId) -> ValueId {
        let id = self.add_typed_value(&value.name, value.dtype, value.shape.clone());
        let copy = self.value_mut(id);
        copy.declared = value.declared.clone();
        copy.declared_as = value.declared_as.clone();
        copy.listed = value.listed;
        map.insert(from, id);
        id
    }
}
