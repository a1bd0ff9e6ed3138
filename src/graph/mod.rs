//! The graph: nodes and values with stable ids, in topological order, that rules and passes change in place.
//!
//! A [`Model`] is made from a file's messages and turns back into them; what nobody touched comes back as it was.
//! This layer knows neither files nor targets.

mod error;
mod extract;
pub mod flops;
pub mod fold;
pub mod freeze;
mod from_proto;
pub mod inline;
mod model;
mod node;
mod order;
pub mod shapes;
mod to_proto;
mod value;

#[cfg(test)]
pub mod builder;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub use error::GraphError;
pub use model::{Model, ir_version_for};
pub use node::{Attribute, AttributeValue, Node, NodeId};
pub use value::{Dim, Value, ValueId};

use crate::onnx::proto::{SparseTensorProto, StringStringEntryProto, ValueInfoProto};
use crate::onnx::{DType, Tensor};

/// A dataflow graph. Ids stay valid while it changes; removed nodes and values leave holes.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The graph's name, as read.
    pub name: String,
    /// Values the caller must give, in order.
    pub inputs: Vec<ValueId>,
    /// Values the caller gets, in order.
    pub outputs: Vec<ValueId>,
    /// Documentation, as read.
    pub doc_string: Option<String>,
    /// Free-form properties, as read.
    pub metadata: Vec<StringStringEntryProto>,
    /// Sparse initializers: carried, never computed with.
    pub sparse_initializers: Vec<SparseTensorProto>,
    /// Undeclared fields of the file's message, as read.
    pub unknown: Vec<u8>,
    /// Every value the file lists as an input, in its order: with old files that includes initializers.
    listed_inputs: Vec<ValueId>,
    /// The file's `value_info`, in its order.
    infos: Vec<Info>,
    /// What the file declares of an output that it declares otherwise as an input.
    redeclared: HashMap<ValueId, ValueInfoProto>,
    /// Whether the file leaves the graph's name away, where others write an empty one.
    nameless: bool,
    nodes: Vec<Option<Node>>,
    values: Vec<Value>,
    names: HashMap<String, ValueId>,
    sequence: Vec<NodeId>,
    initializer_order: Vec<ValueId>,
}

/// An entry of the file's `value_info`.
#[derive(Clone, Debug)]
enum Info {
    /// What it says stands in the value.
    Value(ValueId),
    /// It repeats the border, or names what no node has.
    Stray(Box<ValueInfoProto>),
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Default::default() }
    }

    /// A node.
    ///
    /// # Panics
    /// If the node was removed, or the id is another graph's: both are bugs in the caller, never in a file.
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.0 as usize].as_ref().expect("node was removed")
    }

    /// A node, to change its attributes or name. Inputs and outputs change through the graph, which keeps track of uses.
    ///
    /// # Panics
    /// As [`Graph::node`].
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id.0 as usize].as_mut().expect("node was removed")
    }

    /// Whether the node is still in the graph.
    pub fn contains(&self, id: NodeId) -> bool {
        self.nodes.get(id.0 as usize).is_some_and(Option::is_some)
    }

    /// Every node, in topological order.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = (NodeId, &Node)> {
        self.sequence.iter().filter_map(|&id| Some((id, self.nodes[id.0 as usize].as_ref()?)))
    }

    /// Inputs of the file that have an initializer as well: a default, which the caller may override.
    pub fn inputs_with_default(&self) -> Vec<ValueId> {
        self.listed_inputs.iter().copied().filter(|&id| self.initializer(id).is_some()).collect()
    }

    /// Every value that hangs on random numbers, see [`Node::is_random`].
    pub fn random_values(&self) -> HashSet<ValueId> {
        let mut found = HashSet::new();
        for (_, node) in self.nodes() {
            if node.is_random() || node.reads().any(|value| found.contains(&value)) {
                found.extend(node.writes());
            }
        }
        found
    }

    /// The ids of every node, in topological order.
    pub fn node_ids(&self) -> Vec<NodeId> {
        self.nodes().map(|(id, _)| id).collect()
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes().count()
    }

    /// The first node of this name.
    pub fn node_named(&self, name: &str) -> Option<NodeId> {
        self.nodes().find(|(_, node)| node.name == name).map(|(id, _)| id)
    }

    /// What to call a node in front of a reader: its name, or `OpType_index` with its place in the order.
    pub fn label(&self, id: NodeId) -> String {
        let node = self.node(id);
        if !node.name.is_empty() {
            return node.name.clone();
        }
        let index = self.nodes().position(|(other, _)| other == id).unwrap_or_default();
        format!("{}_{index}", node.op_type)
    }

    /// A value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// A value, to change what is known of it. Rename through [`Graph::rename`].
    pub fn value_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.values[id.0 as usize]
    }

    /// The value of this name.
    pub fn value_named(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }

    /// Every value.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.values.iter().enumerate().filter(|(_, value)| !value.removed).map(|(i, value)| (ValueId(i as u32), value))
    }

    /// A new value under `name`, or under a name made from it if that is taken.
    pub fn add_value(&mut self, name: &str) -> ValueId {
        let name = self.fresh_name(name);
        let id = ValueId(self.values.len() as u32);
        self.names.insert(name.clone(), id);
        self.values.push(Value { name, ..Default::default() });
        id
    }

    /// A new value with element type and fixed sizes.
    pub fn add_typed_value(&mut self, name: &str, dtype: Option<DType>, shape: Option<Vec<Dim>>) -> ValueId {
        let id = self.add_value(name);
        let value = self.value_mut(id);
        value.dtype = dtype;
        value.shape = shape;
        id
    }

    /// A value that subgraphs take from this graph's enclosing one.
    pub(crate) fn add_captured(&mut self, name: &str, dtype: Option<DType>, shape: Option<Vec<Dim>>) -> ValueId {
        let id = self.add_typed_value(name, dtype, shape);
        self.value_mut(id).captured = true;
        id
    }

    /// `name` if no value has it, else the first of `name_1`, `name_2`, ... that is free.
    pub fn fresh_name(&self, name: &str) -> String {
        if !name.is_empty() && !self.names.contains_key(name) {
            return name.to_string();
        }
        let stem = if name.is_empty() { "value" } else { name };
        (1..).map(|i| format!("{stem}_{i}")).find(|name| !self.names.contains_key(name)).unwrap_or_default()
    }

    /// Gives a value another name, made unique if it is taken.
    pub fn rename(&mut self, id: ValueId, name: &str) {
        let old = self.value(id).name.clone();
        self.names.remove(&old);
        let name = self.fresh_name(name);
        self.names.insert(name.clone(), id);
        self.value_mut(id).name = name;
    }

    /// The node that produces a value.
    pub fn producer(&self, id: ValueId) -> Option<NodeId> {
        self.value(id).producer
    }

    /// The nodes that read a value, once for each place; nodes whose subgraphs capture it are among them.
    pub fn consumers(&self, id: ValueId) -> &[NodeId] {
        &self.value(id).consumers
    }

    /// Whether the caller must give this value.
    pub fn is_input(&self, id: ValueId) -> bool {
        self.inputs.contains(&id)
    }

    /// Whether the caller gets this value.
    pub fn is_output(&self, id: ValueId) -> bool {
        self.outputs.contains(&id)
    }

    /// Whether nothing reads the value and the caller does not get it.
    pub fn is_unused(&self, id: ValueId) -> bool {
        self.consumers(id).is_empty() && !self.is_output(id)
    }

    /// The tensor behind a value that is an initializer or the output of a Constant node.
    pub fn constant(&self, id: ValueId) -> Option<Arc<Tensor>> {
        let value = self.value(id);
        if let Some(tensor) = &value.constant {
            return Some(tensor.clone());
        }
        from_proto::constant_of(self.node(value.producer?)).map(Arc::new)
    }

    /// The initializer behind a value, without looking at Constant nodes.
    pub fn initializer(&self, id: ValueId) -> Option<&Arc<Tensor>> {
        self.value(id).constant.as_ref()
    }

    /// Every initializer, in the order of the file and then of their making.
    pub fn initializers(&self) -> impl Iterator<Item = (ValueId, &Arc<Tensor>)> {
        self.initializer_order.iter().filter_map(|&id| Some((id, self.value(id).constant.as_ref()?)))
    }

    /// Makes a value an initializer; its type becomes the tensor's.
    pub fn set_initializer(&mut self, id: ValueId, tensor: impl Into<Arc<Tensor>>) {
        let tensor = tensor.into();
        if self.value(id).constant.is_none() {
            self.initializer_order.push(id);
        }
        let value = self.value_mut(id);
        value.dtype = Some(tensor.dtype());
        value.shape = Some(tensor.dims().iter().map(|&size| Dim::Fixed(size)).collect());
        value.constant = Some(tensor);
    }

    /// A new initializer under the tensor's name, made unique.
    pub fn add_initializer(&mut self, tensor: Tensor) -> ValueId {
        let id = self.add_value(tensor.name());
        self.set_initializer(id, tensor);
        id
    }

    /// Stops a value from being an initializer and returns the tensor.
    pub fn take_initializer(&mut self, id: ValueId) -> Option<Arc<Tensor>> {
        self.initializer_order.retain(|&other| other != id);
        self.value_mut(id).constant.take()
    }

    /// Appends a node.
    pub fn add_node(&mut self, node: Node) -> NodeId {
        let id = self.place(node);
        self.sequence.push(id);
        id
    }

    /// Adds a node right before another one.
    pub fn insert_before(&mut self, other: NodeId, node: Node) -> NodeId {
        let id = self.place(node);
        let index = self.sequence.iter().position(|&n| n == other).unwrap_or(self.sequence.len());
        self.sequence.insert(index, id);
        id
    }

    fn place(&mut self, node: Node) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        for read in node.reads() {
            self.value_mut(read).consumers.push(id);
        }
        for written in node.writes() {
            self.value_mut(written).producer = Some(id);
        }
        let holds_graphs = node.subgraphs().next().is_some();
        self.nodes.push(Some(node));
        if holds_graphs {
            self.refresh_captures(id);
        }
        id
    }

    /// Removes a node. Its outputs stay as values that nothing produces.
    ///
    /// # Panics
    /// As [`Graph::node`].
    pub fn remove_node(&mut self, id: NodeId) -> Node {
        let node = self.nodes[id.0 as usize].take().expect("node was removed"); // its place in `sequence` stays, empty
        for read in node.reads() {
            self.drop_consumer(read, id);
        }
        for written in node.writes() {
            let value = self.value_mut(written);
            if value.producer == Some(id) {
                value.producer = None;
            }
        }
        node
    }

    fn drop_consumer(&mut self, value: ValueId, node: NodeId) {
        let consumers = &mut self.value_mut(value).consumers;
        if let Some(index) = consumers.iter().position(|&other| other == node) {
            consumers.remove(index);
        }
    }

    /// Changes one input of a node, adding the position if it is not there yet.
    pub fn set_input(&mut self, id: NodeId, index: usize, value: Option<ValueId>) {
        let inputs = &mut self.node_mut(id).inputs;
        if inputs.len() <= index {
            inputs.resize(index + 1, None);
        }
        let old = std::mem::replace(&mut inputs[index], value);
        if let Some(old) = old {
            self.drop_consumer(old, id);
        }
        if let Some(new) = value {
            self.value_mut(new).consumers.push(id);
        }
    }

    /// Changes one output of a node, adding the position if it is not there yet.
    pub fn set_output(&mut self, id: NodeId, index: usize, value: Option<ValueId>) {
        let outputs = &mut self.node_mut(id).outputs;
        if outputs.len() <= index {
            outputs.resize(index + 1, None);
        }
        let old = std::mem::replace(&mut outputs[index], value);
        if let Some(old) = old {
            self.value_mut(old).producer = None;
        }
        if let Some(new) = value {
            self.value_mut(new).producer = Some(id);
        }
    }

    /// Makes every reader of `old` read `new` instead: nodes, captures in subgraphs, graph outputs are left alone.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        let consumers = std::mem::take(&mut self.value_mut(old).consumers);
        let (old_name, new_name) = (self.value(old).name.clone(), self.value(new).name.clone());
        for &id in &consumers {
            let node = self.node_mut(id);
            for input in node.inputs.iter_mut().filter(|input| **input == Some(old)) {
                *input = Some(new);
            }
            if let Some(capture) = node.captures.iter_mut().find(|capture| **capture == old) {
                *capture = new;
                node.subgraphs_mut().for_each(|graph| graph.rename_capture(&old_name, &new_name));
            }
        }
        self.value_mut(new).consumers.extend(consumers);
    }

    fn rename_capture(&mut self, old: &str, new: &str) {
        if let Some(id) = self.value_named(old).filter(|&id| self.value(id).captured) {
            match self.value_named(new).filter(|&id| self.value(id).captured) {
                // Already captured: let its readers share that one.
                Some(other) => {
                    self.replace_uses(id, other);
                    for output in self.outputs.iter_mut().filter(|output| **output == id) {
                        *output = other;
                    }
                }
                None => {
                    self.free_name(new);
                    self.rename(id, new);
                }
            }
        }
        for id in self.node_ids() {
            self.node_mut(id).subgraphs_mut().for_each(|graph| graph.rename_capture(old, new));
        }
    }

    /// Makes room for a captured value of this name: one of the graph's own gives it up.
    fn free_name(&mut self, name: &str) {
        if let Some(id) = self.value_named(name).filter(|&id| !self.value(id).captured) {
            let fresh = self.fresh_name(name);
            let inner = [(name.to_string(), fresh.clone())];
            self.rename(id, &fresh);
            for id in self.node_ids() {
                rename_captures(self.node_mut(id), &inner);
            }
        }
    }

    /// Looks again at which values of this graph a node's subgraphs use; call it after changing them.
    pub fn refresh_captures(&mut self, id: NodeId) {
        let mut names = Vec::new();
        self.node(id).subgraphs().for_each(|(_, graph)| graph.collect_captures(&mut names));
        let mut captures: Vec<ValueId> = Vec::new();
        for name in names {
            if let Some(value) = self.value_named(&name).filter(|value| !captures.contains(value)) {
                captures.push(value);
            }
        }
        for old in std::mem::take(&mut self.node_mut(id).captures) {
            self.drop_consumer(old, id);
        }
        for &new in &captures {
            self.value_mut(new).consumers.push(id);
        }
        self.node_mut(id).captures = captures;
    }

    fn collect_captures(&self, names: &mut Vec<String>) {
        let captured = |id: &ValueId| self.value(*id).captured;
        for (id, value) in self.values().filter(|(_, value)| value.captured) {
            if !value.consumers.is_empty() || self.outputs.contains(&id) {
                names.push(value.name.clone());
            }
        }
        debug_assert!(self.inputs.iter().all(|id| !captured(id)));
    }

    /// Removes every node whose outputs nobody uses, then every value that nothing reads or makes.
    pub fn prune(&mut self) {
        for id in self.node_ids().into_iter().rev() {
            if self.node(id).writes().all(|value| self.is_unused(value)) {
                self.remove_node(id);
            }
        }
        let inputs = &self.inputs;
        for (index, value) in self.values.iter_mut().enumerate().filter(|(_, value)| !value.removed) {
            let id = ValueId(index as u32);
            let dead = value.producer.is_none() && value.consumers.is_empty();
            if dead && !inputs.contains(&id) && !self.outputs.contains(&id) {
                value.removed = true;
                value.constant = None;
                self.names.remove(&value.name);
            }
        }
        self.initializer_order.retain(|id| !self.values[id.0 as usize].removed);
        self.listed_inputs.retain(|id| !self.values[id.0 as usize].removed);
    }
}
/// Renames what subgraphs of a node capture; first to names that nobody has, for names may trade places.
pub(crate) fn rename_captures(node: &mut Node, renamed: &[(String, String)]) {
    for graph in node.subgraphs_mut() {
        for (index, (old, _)) in renamed.iter().enumerate() {
            graph.rename_capture(old, &format!("\u{1}{index}"));
        }
        for (index, (_, new)) in renamed.iter().enumerate() {
            graph.rename_capture(&format!("\u{1}{index}"), new);
        }
    }
}
