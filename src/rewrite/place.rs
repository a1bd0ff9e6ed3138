//! Putting a planned replacement in the place of a match.

use std::collections::{HashMap, HashSet};

use super::emit::{Operand, Plan};
use super::matching::Match;
use crate::graph::{Graph, Node, NodeId, ValueId};

/// An output that now is another value.
pub struct Aliased {
    /// The output.
    pub to: ValueId,
    /// The value that it is; the output itself where that had to keep its name.
    pub is: ValueId,
    /// The name that the value had.
    pub name: String,
}

/// What a plan made of the graph.
pub struct Made {
    /// The new nodes, in order.
    pub nodes: Vec<NodeId>,
    /// Outputs that now are another value.
    pub aliases: Vec<Aliased>,
}

impl Plan {
    /// Settles which planned value becomes which output; none where an output would have to be two things at once.
    pub(super) fn settle(mut self, graph: &Graph) -> Option<Plan> {
        let mut aliases = Vec::new();
        for (to, from) in std::mem::take(&mut self.aliases) {
            match from {
                Operand::Fresh(_) => {
                    for draft in &mut self.drafts {
                        for operand in draft.inputs.iter_mut().chain(&mut draft.outputs) {
                            if *operand == from {
                                *operand = Operand::Existing(to);
                            }
                        }
                    }
                }
                Operand::Existing(id) => {
                    if graph.is_output(to) {
                        // The output's name must stay, so the value before it takes that name; only an inner one can.
                        let inner = graph.producer(id).is_some()
                            && !graph.is_output(id)
                            && !graph.is_input(id)
                            && graph.initializer(id).is_none();
                        if !inner {
                            return None;
                        }
                    }
                    aliases.push((to, from));
                }
                Operand::Nothing | Operand::Constant(_) => return None,
            }
        }
        self.aliases = aliases;
        Some(self)
    }

    /// Whether the plan makes this value.
    pub fn makes(&self, value: ValueId) -> bool {
        self.aliases.iter().any(|(to, _)| *to == value)
            || self.drafts.iter().any(|draft| draft.outputs.contains(&Operand::Existing(value)))
    }

    /// Carries the plan out: new nodes before `before`, matched ones removed. `taken` are the names of nodes.
    pub fn carry_out(
        self,
        graph: &mut Graph,
        found: &Match,
        removed: &[NodeId],
        before: NodeId,
        taken: &mut HashSet<String>,
    ) -> Made {
        let anchor = graph.node(before);
        let base = if anchor.name.is_empty() {
            anchor.writes().next().map(|id| graph.value(id).name.clone()).unwrap_or_default()
        } else {
            anchor.name.clone()
        };
        let old_names: Vec<String> = found.nodes.iter().map(|id| graph.node(*id).name.clone()).collect();
        for id in removed {
            taken.remove(&graph.node(*id).name);
        }
        let mut counts: HashMap<String, usize> = HashMap::new();
        for draft in &self.drafts {
            *counts.entry(draft.operator.clone()).or_default() += 1;
        }
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut values: HashMap<Operand, ValueId> = HashMap::new();
        let mut nodes = Vec::new();
        for draft in &self.drafts {
            let wanted = match draft.named_after.map(|index| old_names[index].clone()).filter(|name| !name.is_empty()) {
                Some(name) => name,
                None => {
                    let number = numbers.entry(draft.operator.clone()).or_default();
                    let suffix =
                        if counts.get(&draft.operator) > Some(&1) { format!("_{number}") } else { String::new() };
                    *number += 1;
                    format!("{base}_{}{suffix}", draft.operator.to_lowercase())
                }
            };
            let mut name = wanted.clone();
            let mut next = 1;
            while !taken.insert(name.clone()) {
                name = format!("{wanted}_{next}");
                next += 1;
            }
            let mut node = Node::new(draft.operator.clone(), [], []);
            node.name.clone_from(&name);
            node.domain.clone_from(&draft.domain);
            node.attributes.clone_from(&draft.attributes);
            for operand in &draft.inputs {
                node.inputs.push(self.resolve(graph, &name, 0, *operand, &mut values));
            }
            // Outputs follow once the matched nodes have let go of them.
            let id = graph.insert_before(before, node);
            nodes.push(id);
            for (index, operand) in draft.outputs.iter().enumerate() {
                if matches!(operand, Operand::Fresh(_)) {
                    self.resolve(graph, &name, index, *operand, &mut values);
                }
            }
        }
        for id in removed {
            graph.remove_node(*id);
        }
        for (draft, id) in self.drafts.iter().zip(&nodes) {
            for (index, operand) in draft.outputs.iter().enumerate() {
                let value = match operand {
                    Operand::Existing(id) => Some(*id),
                    other => values.get(other).copied(),
                };
                graph.set_output(*id, index, value);
            }
        }
        let mut aliases = Vec::new();
        for (to, from) in &self.aliases {
            if let Operand::Existing(from) = from {
                let name = graph.value(*from).name.clone();
                aliases.push(Aliased { to: *to, is: alias(graph, *to, *from), name });
            }
        }
        Made { nodes, aliases }
    }

    fn resolve(
        &self,
        graph: &mut Graph,
        node: &str,
        index: usize,
        operand: Operand,
        values: &mut HashMap<Operand, ValueId>,
    ) -> Option<ValueId> {
        match operand {
            Operand::Nothing => None,
            Operand::Existing(id) => Some(id),
            Operand::Fresh(_) => {
                Some(*values.entry(operand).or_insert_with(|| graph.add_value(&format!("{node}_output_{index}"))))
            }
            Operand::Constant(at) => {
                if let Some(id) = values.get(&operand) {
                    return Some(*id);
                }
                let mut tensor = self.constants.get(at)?.as_ref().clone();
                let id = graph.add_value(&format!("{node}_constant"));
                tensor.name = Some(graph.value(id).name.clone());
                graph.set_initializer(id, tensor);
                values.insert(operand, id);
                Some(id)
            }
        }
    }
}

/// Makes `to` be `from`; returns the value that is left.
fn alias(graph: &mut Graph, to: ValueId, from: ValueId) -> ValueId {
    if graph.is_output(to)
        && let Some(producer) = graph.producer(from)
        && let Some(index) = graph.node(producer).outputs.iter().position(|output| *output == Some(from))
    {
        graph.set_output(producer, index, Some(to));
        graph.replace_uses(from, to);
        return to;
    }
    let (dtype, shape) = (graph.value(to).dtype, graph.value(to).shape.clone());
    let kept = graph.value_mut(from);
    if kept.dtype.is_none() {
        kept.dtype = dtype;
    }
    if kept.shape.is_none() {
        kept.shape = shape;
    }
    graph.replace_uses(to, from);
    from
}
