//! An If whose condition is known gives way to the branch that it takes.

use std::collections::HashMap;

use crate::graph::{AttributeValue, Graph, Node, NodeId, ValueId};

/// Puts the nodes of the branch that an If takes in its place. Its outputs keep their names. `false`, and nothing
/// changed, where the condition is not known or the node has no such branch.
pub fn take_branch(graph: &mut Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let condition = node.input(0).and_then(|value| graph.constant(value)).and_then(|tensor| tensor.to_i64s().ok());
    let Some(chosen) = condition.and_then(|list| list.first().copied()) else { return false };
    let name = if chosen != 0 { "then_branch" } else { "else_branch" };
    let Some(AttributeValue::Graph(branch)) = node.attr(name) else { return false };
    let (branch, outputs) = ((**branch).clone(), node.outputs.clone());
    // What the branch takes from further out than this graph must pass through it already.
    let at_hand =
        |(_, value): (ValueId, &crate::graph::Value)| !value.captured || graph.value_named(&value.name).is_some();
    if branch.outputs.len() != outputs.len() || !branch.sparse_initializers.is_empty() || !branch.values().all(at_hand)
    {
        return false;
    }
    // Frees the outputs' names from their producer before the branch's nodes take that place.
    let place = graph.node_ids().into_iter().skip_while(|other| *other != id).nth(1);
    graph.remove_node(id);
    Splice { graph, branch: &branch, place, map: HashMap::new() }.run(&outputs);
    true
}

struct Splice<'a> {
    graph: &'a mut Graph,
    branch: &'a Graph,
    /// The node before which everything goes; none at the end.
    place: Option<NodeId>,
    map: HashMap<ValueId, ValueId>,
}

impl Splice<'_> {
    fn run(&mut self, outputs: &[Option<ValueId>]) {
        let branch = self.branch;
        // What a node of the branch produces is produced under the If's name from now on, once for each value.
        for (&inner, outer) in branch.outputs.iter().zip(outputs) {
            if let (Some(outer), Some(_)) = (*outer, branch.producer(inner)) {
                self.map.entry(inner).or_insert(outer);
            }
        }
        for (id, value) in branch.values() {
            if self.map.contains_key(&id) {
                continue;
            }
            let outer = match &value.constant {
                _ if value.captured => match self.graph.value_named(&value.name) {
                    Some(outer) => outer,
                    None => continue,
                },
                Some(tensor) => {
                    let outer = self.graph.add_value(&value.name);
                    self.graph.set_initializer(outer, tensor.clone());
                    outer
                }
                None => self.graph.add_typed_value(&value.name, value.dtype, value.shape.clone()),
            };
            self.map.insert(id, outer);
        }
        let renamed: Vec<(String, String)> = self
            .map
            .iter()
            .map(|(&inner, &outer)| (branch.value(inner).name.clone(), self.graph.value(outer).name.clone()))
            .filter(|(inner, outer)| inner != outer)
            .collect();
        for (_, node) in branch.nodes() {
            let mut node = node.clone();
            let moved = |ids: &mut Vec<Option<ValueId>>| {
                ids.iter_mut().for_each(|id| *id = id.and_then(|id| self.map.get(&id).copied()));
            };
            moved(&mut node.inputs);
            moved(&mut node.outputs);
            node.captures = Vec::new(); // looked up again when the node is placed
            super::super::rename_captures(&mut node, &renamed);
            self.add(node);
        }
        // The rest of the outputs pass something on: a captured value, a constant, or a value given twice.
        for (&inner, outer) in branch.outputs.iter().zip(outputs) {
            let (Some(outer), Some(&source)) = (*outer, self.map.get(&inner)) else { continue };
            if source != outer {
                self.add(Node::new("Identity", [source], [outer]));
            }
        }
    }

    fn add(&mut self, node: Node) {
        match self.place {
            Some(place) => self.graph.insert_before(place, node),
            None => self.graph.add_node(node),
        };
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::builder::Build;
    use crate::graph::fold::{fold_constants, fold_outside_branches};
    use crate::graph::{Attribute, AttributeValue, Graph, Node};
    use crate::onnx::{DType, Tensor};

    fn branch(op: &str) -> Graph {
        let mut graph = Graph::new("branch");
        let x = graph.add_captured("x", None, None);
        let y = graph.add_value("y"); // a name that the outer graph has too
        graph.add_node(Node::new(op, [x], [y]).named(op));
        graph.outputs = vec![y];
        graph
    }

    #[test]
    fn the_branch_that_is_taken_stays() {
        let mut b = Build::new();
        let x = b.input("x", DType::Float, &[2]);
        let y = b.op("Abs", "y", &[x]);
        let yes = b.graph.add_initializer(Tensor::new("yes", DType::Bool, &[], vec![0u8]));
        let mut node = Node::new("If", [yes], []).named("choice");
        for (name, op) in [("then_branch", "Relu"), ("else_branch", "Neg")] {
            node.attributes.push(Attribute::new(name, AttributeValue::Graph(Box::new(branch(op)))));
        }
        let chosen = b.node(node);
        let sum = b.op("Add", "sum", &[chosen, y]);
        let mut model = b.finish(&[sum]);
        let folded = fold_constants(&mut model).unwrap();
        assert_eq!(folded.nodes, ["choice"]);
        let told: Vec<String> = model
            .graph
            .nodes()
            .map(|(_, n)| {
                let names = |ids: &[Option<crate::graph::ValueId>]| {
                    ids.iter().flatten().map(|&id| model.graph.value(id).name.clone()).collect::<Vec<_>>().join(",")
                };
                format!("{}({}) -> {}", n.op_type, names(&n.inputs), names(&n.outputs))
            })
            .collect();
        assert_eq!(
            told,
            ["Abs(x) -> y_output_0", "Neg(x) -> choice_output_0", "Add(choice_output_0,y_output_0) -> sum_output_0"]
        );
    }

    /// What is known of sizes may fit nothing there.
    #[test]
    fn a_branch_that_may_not_run_can_be_left_as_it_is() {
        let mut body = Graph::new("body");
        let one = body.add_initializer(Tensor::from_f32("one", &[2], &[1.0, 2.0]));
        let out = body.add_value("out");
        body.add_node(Node::new("Add", [one, one], [out]).named("added"));
        body.outputs = vec![out];
        let mut b = Build::new();
        let x = b.input("x", DType::Float, &[2]);
        let ask = b.input("ask", DType::Bool, &[]);
        let mut node = Node::new("If", [ask], []).named("outer");
        node.attributes.push(Attribute::new("then_branch", AttributeValue::Graph(Box::new(body))));
        node.attributes.push(Attribute::new("else_branch", AttributeValue::Graph(Box::new(branch("Abs")))));
        let chosen = b.node(node);
        let sum = b.op("Add", "sum", &[chosen, x]);
        let mut model = b.finish(&[sum]);
        assert!(fold_outside_branches(&mut model).unwrap().nodes.is_empty());
        assert_eq!(fold_constants(&mut model).unwrap().nodes, ["added"]);
    }
}
