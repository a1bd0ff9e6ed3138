//! The model under test: its own nodes, every size known as far as it can be, arithmetic on shapes folded away.
//!
//! Folding is what every compiler does before anything else; without it a piece would get sizes as run-time inputs that
//! are constants in the whole model. Nodes keep their names, and those without one get `OpType_index` by their place in
//! the file, so that a piece names them as the report does.

use std::collections::{BTreeMap, HashMap, HashSet};

use sha2::{Digest, Sha256};

use crate::engine::{Tensors, samples};
use crate::graph::freeze::{self, Freeze};
use crate::graph::{Graph, GraphError, Model, Node, NodeId, ValueId, fold, inline, shapes};
use crate::inspect::layer_names;
use crate::onnx::DType;

/// A model ready to be taken apart.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The model.
    pub model: Model,
    /// Inputs, several sets of them.
    pub samples: Vec<Tensors>,
    /// Nodes that are tested as one: what passes between them is no tensor.
    pub atoms: Vec<Vec<NodeId>>,
    /// The layer of each atom, by index into `layers`.
    pub layer_of: Vec<usize>,
    /// The layers, in the order in which they begin.
    pub layers: Vec<String>,
    /// Nodes that cannot be tested, and why.
    pub skipped: Vec<(String, String)>,
    /// Nodes that compute constants alone: they are folded before the target sees them, as every compiler does.
    pub folded: Vec<String>,
    /// The batch that was chosen, where the model leaves it free.
    pub batch: Option<i64>,
    /// What tells this model and these inputs from others.
    pub digest: String,
}

/// Whether the first size of some input is free.
pub fn batch_is_free(model: &Model) -> bool {
    let free = |id: &ValueId| {
        let shape = model.graph.value(*id).shape.as_ref();
        shape.and_then(|shape| shape.first()).is_some_and(|dim| dim.fixed().is_none())
    };
    model.graph.inputs.iter().any(free)
}

impl Subject {
    /// Makes a model ready. `given` are inputs from outside, used as they are; without them `count` sets are made.
    ///
    /// # Errors
    /// A graph whose sizes contradict each other.
    pub fn new(mut model: Model, sizes: &Freeze, given: &[Tensors], count: usize) -> Result<Self, GraphError> {
        name_all(&mut model.graph);
        inline::inline_functions(&mut model)?;
        name_all(&mut model.graph);
        let mut sizes = sizes.clone();
        if let Some(first) = given.first() {
            // What the inputs say stands above what would be assumed.
            for (name, tensor) in first {
                let known = model.graph.value_named(name).is_some_and(|id| model.graph.is_input(id));
                if known && sizes.shapes.iter().all(|(other, _)| other != name) {
                    sizes.shapes.push((name.clone(), tensor.dims().to_vec()));
                }
            }
        }
        let batch = sizes.batch;
        freeze::freeze(&mut model, &sizes)?;
        let (assumed, _) = freeze::assumed(&model);
        freeze::freeze(&mut model, &assumed)?;
        shapes::infer(&mut model)?;
        let own = |graph: &Graph| -> Vec<String> {
            let computes = |node: &&Node| !["Constant", "Identity"].contains(&node.op_type.as_str());
            graph.nodes().map(|(_, node)| node).filter(computes).map(|node| node.name.clone()).collect()
        };
        let mut folded = own(&model.graph);
        fold::fold_outside_branches(&mut model)?;
        shapes::infer(&mut model)?;
        let samples: Vec<Tensors> = match given.is_empty() {
            false => given.to_vec(),
            true => (0..count.max(1) as u64).map(|seed| samples::for_model(&model, seed)).collect(),
        };
        let (atoms, skipped) = atoms(&model.graph);
        let (layers, layer_of) = layers(&model.graph, &atoms);
        let left: HashSet<&str> = model.graph.nodes().map(|(_, node)| node.name.as_str()).collect();
        folded.retain(|name| !left.contains(name.as_str()));
        let digest = digest(&model, &samples);
        Ok(Self { model, samples, atoms, layer_of, layers, skipped, folded, batch, digest })
    }

    /// What to call a node.
    pub fn label(&self, id: NodeId) -> String {
        self.model.graph.label(id)
    }

    /// The values that an atom makes and that can be looked at.
    pub fn makes(&self, nodes: &[NodeId]) -> Vec<ValueId> {
        let graph = &self.model.graph;
        let tensor = |value: &ValueId| graph.value(*value).dtype.is_some_and(|dtype| dtype != DType::String);
        nodes.iter().flat_map(|&id| graph.node(id).writes().collect::<Vec<_>>()).filter(tensor).collect()
    }

    /// The last value of each layer that others read or the model gives, by the layer; of the nodes that `counts` says.
    pub fn layer_ends(&self, counts: &dyn Fn(NodeId) -> bool) -> BTreeMap<usize, ValueId> {
        let graph = &self.model.graph;
        let layer_of: HashMap<NodeId, usize> = self
            .atoms
            .iter()
            .zip(&self.layer_of)
            .flat_map(|(atom, &layer)| atom.iter().map(move |&id| (id, layer)))
            .collect();
        let mut ends = BTreeMap::new();
        for (atom, &layer) in self.atoms.iter().zip(&self.layer_of) {
            if !atom.last().is_some_and(|&last| counts(last)) {
                continue;
            }
            let elsewhere =
                |reader: &NodeId| counts(*reader) && layer_of.get(reader).is_some_and(|other| *other != layer);
            let leaves = |value: &ValueId| graph.is_output(*value) || graph.consumers(*value).iter().any(elsewhere);
            ends.extend(self.makes(atom).into_iter().filter(leaves).map(|value| (layer, value)));
        }
        ends
    }

    /// Bytes of all weights.
    pub fn weights(&self) -> usize {
        self.model.graph.initializers().map(|(_, tensor)| tensor.dtype().byte_len(tensor.len()).unwrap_or(0)).sum()
    }

    /// Bytes of a value, 0 where its sizes are not known.
    pub fn bytes(&self, value: ValueId) -> usize {
        let value = self.model.graph.value(value);
        let (Some(dims), Some(dtype)) = (value.static_shape(), value.dtype) else { return 0 };
        dtype.byte_len(dims.iter().product::<i64>().max(0) as usize).unwrap_or(0)
    }
}

/// Gives every node without a name the one it has in reports.
fn name_all(graph: &mut Graph) {
    let nameless: Vec<(NodeId, String)> = graph
        .nodes()
        .enumerate()
        .filter(|(_, (_, node))| node.name.is_empty())
        .map(|(index, (id, node))| (id, format!("{}_{index}", node.op_type)))
        .collect();
    for (id, name) in nameless {
        graph.node_mut(id).name = name;
    }
}

/// Groups nodes between which something passes that is no tensor; leaves constants and random numbers out.
fn atoms(graph: &Graph) -> (Vec<Vec<NodeId>>, Vec<(String, String)>) {
    let mut skipped = Vec::new();
    let mut group: HashMap<NodeId, usize> = HashMap::new();
    let mut atoms: Vec<Vec<NodeId>> = Vec::new();
    for (id, node) in graph.nodes() {
        if node.writes().all(|value| graph.constant(value).is_some()) {
            continue;
        }
        if node.is_random() && !node.is("If") {
            skipped.push((graph.label(id), "its result is random".into()));
            continue;
        }
        if node.is("If") {
            skipped.push((graph.label(id), "of its branches only those that these inputs take are tried".into()));
        }
        let untyped = |value: &ValueId| graph.value(*value).dtype.is_none() && graph.constant(*value).is_none();
        let mut joined: Vec<usize> = node
            .reads()
            .filter(untyped)
            .filter_map(|value| graph.producer(value).and_then(|producer| group.get(&producer).copied()))
            .collect();
        joined.sort_unstable();
        joined.dedup();
        match joined.split_first() {
            None => {
                group.insert(id, atoms.len());
                atoms.push(vec![id]);
            }
            Some((&first, rest)) => {
                for &other in rest {
                    let moved = std::mem::take(&mut atoms[other]);
                    moved.iter().for_each(|id| {
                        group.insert(*id, first);
                    });
                    atoms[first].extend(moved);
                }
                atoms[first].push(id);
                group.insert(id, first);
            }
        }
    }
    atoms.retain(|atom| !atom.is_empty());
    (atoms, skipped)
}

/// The layers by the nodes' scopes; where names give none, runs of nodes between the narrow places of the graph.
fn layers(graph: &Graph, atoms: &[Vec<NodeId>]) -> (Vec<String>, Vec<usize>) {
    let named: HashMap<NodeId, String> = layer_names(graph);
    let mut names: Vec<String> = Vec::new();
    let mut of = Vec::with_capacity(atoms.len());
    if named.values().any(|name| !name.is_empty()) {
        for atom in atoms {
            let name = atom.last().and_then(|id| named.get(id)).cloned().unwrap_or_default();
            let index = names.iter().position(|other| *other == name).unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
            of.push(index);
        }
        return (names, of);
    }
    // A narrow place: at most one value made so far is still wanted later.
    let mut live: HashSet<ValueId> = HashSet::new();
    let mut left: HashMap<ValueId, usize> = HashMap::new();
    let mut count = 0;
    names.push(String::new());
    for atom in atoms {
        for &id in atom {
            for value in graph.node(id).reads() {
                if let Some(waiting) = left.get_mut(&value) {
                    *waiting = waiting.saturating_sub(1);
                    if *waiting == 0 {
                        live.remove(&value);
                    }
                }
            }
            for value in graph.node(id).writes() {
                let readers = graph.consumers(value).len();
                if readers > 0 {
                    left.insert(value, readers);
                    live.insert(value);
                }
            }
        }
        of.push(names.len() - 1);
        count += 1;
        if count >= 4 && live.len() <= 1 || count >= 24 {
            names.push(String::new());
            count = 0;
        }
    }
    if count == 0 && names.len() > 1 {
        names.pop(); // the last one ended with the model
    }
    for (index, name) in names.iter_mut().enumerate() {
        let inside: Vec<usize> = (0..atoms.len()).filter(|&atom| of[atom] == index).collect();
        let label = |atom: Option<&usize>| atom.and_then(|&atom| atoms[atom].first()).map(|&id| graph.label(id));
        if let (Some(first), Some(last)) = (label(inside.first()), label(inside.last())) {
            *name = format!("{first} ... {last}");
        }
    }
    (names, of)
}

struct Hashed<'a>(&'a mut Sha256);

impl std::io::Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn digest(model: &Model, samples: &[Tensors]) -> String {
    let mut hash = Sha256::new();
    // Weights are part of the messages, so two models never share a digest.
    let _ = crate::onnx::encode_into(&model.to_proto(), &mut Hashed(&mut hash)); // hashing does not fail
    crate::onnx::give_back();
    for (name, tensor) in samples.iter().flatten() {
        hash.update(name.as_bytes());
        hash.update(format!("{:?}{:?}", tensor.dtype(), tensor.dims()).as_bytes());
        hash.update(tensor.to_bytes().unwrap_or_default());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
