//! Converts a part to what its policy says: weights, and the tensors between nodes that compute in less.
//!
//! The part's inputs and outputs keep their float32; casts stand at the borders between float32 and the rest. A value
//! keeps its name on the side of the node that makes it; casted copies get the type as a suffix.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::kinds;
use super::opset::{self, OpsetError};
use super::policy::{FLOAT16_MAX, Policy, computes};
use crate::graph::{Graph, Model, Node, NodeId, ValueId};
use crate::onnx::{DType, Tensor};

/// What the pass did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Applied {
    /// Nodes that compute in less now.
    pub nodes: usize,
    /// Weights that were converted.
    pub weights: usize,
    /// Constants whose numbers were clamped to what the type holds.
    pub clamped: Vec<String>,
    /// Casts that were put in.
    pub casts: usize,
    /// The opset the part was raised to, because its own has not got the type.
    pub raised_to: Option<i64>,
}

/// A part that cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum DtypeError {
    /// The operators' definitions in the model's opset have not got the type.
    #[error("{node} computes in {dtype} only from opset {needed} on, and the model cannot be raised there: {source}")]
    Opset {
        /// A node that needs it.
        node: String,
        /// The type.
        dtype: DType,
        /// The opset it takes.
        needed: i64,
        /// Why it cannot be raised.
        source: OpsetError,
    },
    /// A weight's bytes cannot be converted.
    #[error("weight {0} cannot be converted to {1}")]
    Weight(String, DType),
}

/// Converts a part.
///
/// # Errors
/// The part's opset has not got the type and cannot be raised.
pub fn apply(part: &mut Model, policy: &Policy) -> Result<Applied, DtypeError> {
    let mut applied = Applied::default();
    if policy.compute == DType::Float {
        return Ok(applied);
    }
    applied.raised_to = raise(part, policy)?;
    let mut pass = Pass {
        to: policy.compute,
        reduced: reduced(&part.graph, policy),
        copies: HashMap::new(),
        graph: &mut part.graph,
        applied,
    };
    pass.run()?;
    Ok(pass.applied)
}

fn reduced(graph: &Graph, policy: &Policy) -> HashSet<NodeId> {
    let lower = |node: &Node| computes(graph, node) && policy.of(graph, node) != DType::Float;
    graph.nodes().filter(|(_, node)| lower(node)).map(|(id, _)| id).collect()
}

/// Raises the part's opset to the first in which all its nodes have the type.
fn raise(part: &mut Model, policy: &Policy) -> Result<Option<i64>, DtypeError> {
    let nodes = reduced(&part.graph, policy);
    let needs = nodes.iter().filter_map(|&id| Some((kinds::since(&part.graph.node(id).op_type, policy.compute)?, id)));
    let Some((needed, id)) = needs.max() else { return Ok(None) };
    // Casts between the types are needed as well.
    let needed = needed.max(kinds::since("Cast", policy.compute).unwrap_or(needed));
    if needed <= part.opset() {
        return Ok(None);
    }
    let node = part.graph.label(id);
    opset::raise(part, needed).map_err(|source| DtypeError::Opset { node, dtype: policy.compute, needed, source })?;
    Ok(Some(needed))
}

struct Pass<'a> {
    graph: &'a mut Graph,
    to: DType,
    /// Nodes that compute in less.
    reduced: HashSet<NodeId>,
    /// The other form of a value, by the type of that form.
    copies: HashMap<(ValueId, DType), ValueId>,
    applied: Applied,
}

impl Pass<'_> {
    fn run(&mut self) -> Result<(), DtypeError> {
        self.constants()?;
        for id in self.graph.node_ids() {
            if self.reduced.contains(&id) {
                self.inputs(id, self.to);
                self.outputs(id);
                self.applied.nodes += 1;
            } else if !kinds::looks_at_form(&self.graph.node(id).op_type) {
                self.inputs(id, DType::Float);
            }
        }
        Ok(())
    }

    /// Gives every input of a node the type the node wants it in.
    fn inputs(&mut self, id: NodeId, wanted: DType) {
        for index in 0..self.graph.node(id).inputs.len() {
            let Some(value) = self.graph.node(id).input(index) else { continue };
            let wanted = if kinds::is_parameter(&self.graph.node(id).op_type, index) { DType::Float } else { wanted };
            let is = self.graph.value(value).dtype;
            let ours = is == Some(DType::Float) || is == Some(self.to);
            // A value of the lower type that was so before the pass is not ours to raise.
            if !ours || is == Some(wanted) || (is == Some(self.to) && !self.was_lowered(value)) {
                continue;
            }
            let copy = self.copy(value, wanted, id);
            self.graph.set_input(id, index, Some(copy));
        }
    }

    fn was_lowered(&self, value: ValueId) -> bool {
        self.graph.producer(value).is_some_and(|maker| self.reduced.contains(&maker))
            || self.copies.contains_key(&(value, DType::Float))
    }

    /// The value in another type: a cast before its first reader.
    fn copy(&mut self, value: ValueId, dtype: DType, reader: NodeId) -> ValueId {
        if let Some(&copy) = self.copies.get(&(value, dtype)) {
            return copy;
        }
        let (name, shape) =
            (format!("{}_{}", self.graph.value(value).name, suffix(dtype)), self.graph.value(value).shape.clone());
        let copy = self.graph.add_typed_value(&name, Some(dtype), shape);
        self.graph.insert_before(reader, cast(&name, value, copy, dtype));
        self.applied.casts += 1;
        self.copies.insert((value, dtype), copy);
        copy
    }

    /// The outputs of a node that computes in less. One that leaves the part keeps its name for the float32 that
    /// leaves; what the node makes gets the suffix.
    fn outputs(&mut self, id: NodeId) {
        let makes = self.graph.node(id).output(0).and_then(|value| self.graph.value(value).dtype);
        // A Cast to bool, or to another float type, says what the model means, not what it computes in.
        if self.graph.node(id).is("Cast") && makes == Some(DType::Float) {
            self.graph.node_mut(id).set_attr("to", i64::from(self.to.number()));
        }
        for index in 0..self.graph.node(id).outputs.len() {
            let Some(value) = self.graph.node(id).output(index) else { continue };
            let side = kinds::is_side_output(&self.graph.node(id).op_type, index);
            if side || self.graph.value(value).dtype != Some(DType::Float) {
                continue;
            }
            if !self.graph.is_output(value) {
                self.retype(value);
                continue;
            }
            let name = format!("{}_{}", self.graph.value(value).name, suffix(self.to));
            let shape = self.graph.value(value).shape.clone();
            let lower = self.graph.add_typed_value(&name, Some(self.to), shape);
            self.graph.set_output(id, index, Some(lower));
            // Readers inside take the lower one; whoever wants float32 finds the output that leaves.
            self.graph.replace_uses(value, lower);
            let name = self.graph.value(value).name.clone();
            let node = cast(&format!("{name}_{}", suffix(DType::Float)), lower, value, DType::Float);
            self.insert_after(id, node);
            self.applied.casts += 1;
            self.copies.insert((lower, DType::Float), value);
        }
    }

    fn insert_after(&mut self, id: NodeId, node: Node) {
        let next = self.graph.nodes().map(|(id, _)| id).skip_while(|&other| other != id).nth(1);
        match next {
            Some(next) => self.graph.insert_before(next, node),
            None => self.graph.add_node(node),
        };
    }

    fn retype(&mut self, value: ValueId) {
        let value = self.graph.value_mut(value);
        value.dtype = Some(self.to);
        value.declared = None;
    }

    /// Weights and other constants: converted where every reader wants it, copied where only some do.
    fn constants(&mut self) -> Result<(), DtypeError> {
        let float = |graph: &Graph, id: ValueId| graph.value(id).dtype == Some(DType::Float);
        let weights: Vec<ValueId> = self.graph.initializers().map(|(id, _)| id).collect();
        let nodes = self.graph.nodes().filter(|(_, node)| node.is("Constant"));
        let inline: Vec<ValueId> = nodes.filter_map(|(_, node)| node.output(0)).collect();
        for id in weights.into_iter().chain(inline).filter(|&id| float(self.graph, id)).collect::<Vec<_>>() {
            let (lower, upper): (Vec<_>, Vec<_>) = self.readers(id).into_iter().partition(|&(_, _, lower)| lower);
            if lower.is_empty() {
                continue;
            }
            let Some(tensor) = self.graph.constant(id) else { continue };
            let name = self.graph.value(id).name.clone();
            let converted = self.convert(&tensor).ok_or_else(|| DtypeError::Weight(name.clone(), self.to))?;
            self.applied.weights += 1;
            if upper.is_empty() && !self.graph.is_output(id) {
                if let Some(maker) = self.graph.producer(id) {
                    self.graph.remove_node(maker);
                }
                self.graph.set_initializer(id, converted);
                self.graph.value_mut(id).declared = None;
            } else {
                let name = format!("{name}_{}", suffix(self.to));
                let copy = self.graph.add_initializer(converted.renamed(name));
                for (node, index, _) in lower {
                    self.graph.set_input(node, index, Some(copy));
                }
            }
        }
        Ok(())
    }

    /// Every place that reads a value: node, input, and whether it wants the lower type there.
    fn readers(&self, id: ValueId) -> Vec<(NodeId, usize, bool)> {
        let mut nodes = self.graph.consumers(id).to_vec();
        nodes.sort_unstable();
        nodes.dedup();
        let mut readers = Vec::new();
        for node_id in nodes {
            let node = self.graph.node(node_id);
            for (index, _) in node.inputs.iter().enumerate().filter(|(_, input)| **input == Some(id)) {
                let lower = self.reduced.contains(&node_id) && !kinds::is_parameter(&node.op_type, index);
                readers.push((node_id, index, lower));
            }
            if node.captures.contains(&id) {
                readers.push((node_id, usize::MAX, false));
            }
        }
        readers
    }

    fn convert(&mut self, tensor: &Tensor) -> Option<Tensor> {
        if self.to == DType::Float16 && !kinds::is_filled(tensor) {
            let numbers = tensor.to_f32s().ok()?;
            if numbers.iter().any(|x| x.is_finite() && x.abs() > FLOAT16_MAX) {
                let clamp = |x: f32| if x.is_finite() { x.clamp(-FLOAT16_MAX, FLOAT16_MAX) } else { x };
                let numbers: Vec<f32> = numbers.into_iter().map(clamp).collect();
                self.applied.clamped.push(tensor.name().to_string());
                return Tensor::from_f32(tensor.name(), tensor.dims(), &numbers).convert(self.to);
            }
        }
        tensor.convert(self.to)
    }
}

fn cast(name: &str, from: ValueId, to: ValueId, dtype: DType) -> Node {
    Node::new("Cast", [from], [to]).named(format!("{name}/Cast")).with("to", i64::from(dtype.number()))
}

/// What a copy's name ends with.
fn suffix(dtype: DType) -> &'static str {
    if dtype == DType::Float { "float32" } else { dtype.name() }
}
