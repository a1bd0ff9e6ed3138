//! Putting pieces of a model side by side into one graph, each fed with values of its own.
//!
//! One compile can try hundreds of pieces: every piece reads its inputs from the border of the graph, where the reference's
//! values are given, and shows its outputs there. A piece of one node is that node on its own; one of a layer hides what
//! is inside, so that a compiler may fuse it; one piece with everything is the model.

use std::collections::{HashMap, HashSet};

use crate::engine::loose::loosened;
use crate::engine::{Engine, EngineError, Session};
use crate::graph::{Graph, Model, NodeId, ValueId};
use crate::onnx::Tensor;

/// Some nodes, and which of their values are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The nodes, in the model's order.
    pub nodes: Vec<NodeId>,
    /// The values looked at; all of them are made here.
    pub shows: Vec<ValueId>,
}

/// A graph of pieces.
#[derive(Debug)]
pub struct Assembly {
    /// The graph.
    pub model: Model,
    /// What each input is called here, and which value of the subject it is.
    pub inputs: Vec<(String, ValueId)>,
    /// What each output is called here, which value of the subject it is, and which piece makes it.
    pub outputs: Vec<(String, ValueId, usize)>,
}

impl Piece {
    /// A piece that shows what somebody outside of it reads, or the model's caller gets.
    pub fn closed(graph: &Graph, nodes: &[NodeId]) -> Self {
        let inside: HashSet<NodeId> = nodes.iter().copied().collect();
        let leaves = |value: &ValueId| {
            graph.value(*value).dtype.is_some()
                && (graph.is_output(*value) || graph.consumers(*value).iter().any(|reader| !inside.contains(reader)))
        };
        let shows: Vec<ValueId> = made(graph, nodes).filter(leaves).collect();
        let shows = if shows.is_empty() { made(graph, nodes).collect() } else { shows };
        Self { nodes: nodes.to_vec(), shows }
    }

    /// A piece that shows every value.
    pub fn open(graph: &Graph, nodes: &[NodeId]) -> Self {
        let tensor = |value: &ValueId| graph.value(*value).dtype.is_some();
        Self { nodes: nodes.to_vec(), shows: made(graph, nodes).filter(tensor).collect() }
    }
}

fn made<'a>(graph: &'a Graph, nodes: &'a [NodeId]) -> impl Iterator<Item = ValueId> + 'a {
    nodes.iter().flat_map(|&id| graph.node(id).writes())
}

/// The values that a set of nodes reads and does not make, constants left out.
pub fn reads(graph: &Graph, nodes: &[NodeId]) -> Vec<ValueId> {
    let own: HashSet<ValueId> = made(graph, nodes).collect();
    let mut seen = HashSet::new();
    let outside = |value: &ValueId| !own.contains(value) && graph.constant(*value).is_none() && seen.insert(*value);
    nodes.iter().flat_map(|&id| graph.node(id).reads().collect::<Vec<_>>()).filter(outside).collect()
}

/// Compiles a graph, with free sizes where it does not compile with fixed ones; gives what was compiled.
///
/// # Errors
/// Neither compiles: what was said of the fixed ones.
pub fn compile(engine: &dyn Engine, model: &mut Model) -> Result<Box<dyn Session>, EngineError> {
    match engine.compile(model) {
        Err(error) if !error.is_absence() => {
            let Some(free) = loosened(model) else { return Err(error) };
            let session = engine.compile(&free).map_err(|_| error)?;
            *model = free;
            Ok(session)
        }
        outcome => outcome,
    }
}

/// Puts pieces side by side. No node may stand in two of them.
pub fn assemble(subject: &Model, pieces: &[Piece]) -> Assembly {
    let from = &subject.graph;
    let mut graph = Graph::new(if from.name.is_empty() { "pieces" } else { &from.name });
    let place: HashMap<NodeId, usize> = from.nodes().enumerate().map(|(place, (id, _))| (id, place)).collect();
    let mut fed: HashMap<ValueId, ValueId> = HashMap::new();
    let mut assembly = Assembly { model: Model::default(), inputs: Vec::new(), outputs: Vec::new() };
    let captured: HashSet<ValueId> = pieces
        .iter()
        .flat_map(|piece| {
            let own: HashSet<ValueId> = made(from, &piece.nodes).collect();
            let captures = piece.nodes.iter().flat_map(|&id| from.node(id).captures.clone());
            captures.filter(|value| own.contains(value)).collect::<Vec<_>>()
        })
        .collect();
    for piece in pieces {
        for value in reads(from, &piece.nodes) {
            if fed.contains_key(&value) {
                continue;
            }
            let own = from.value(value);
            // A body refers to what it captures by name, so that name belongs to the value made beside it.
            let name = if captured.contains(&value) { format!("{}__fed", own.name) } else { own.name.clone() };
            let id = graph.add_typed_value(&name, own.dtype, own.shape.clone());
            graph.inputs.push(id);
            assembly.inputs.push((graph.value(id).name.clone(), value));
            fed.insert(value, id);
        }
    }
    let mut constants: HashMap<ValueId, ValueId> = HashMap::new();
    for (index, piece) in pieces.iter().enumerate() {
        let mut own: HashMap<ValueId, ValueId> = HashMap::new();
        for value in made(from, &piece.nodes) {
            let known = from.value(value);
            let id = graph.add_typed_value(&known.name, known.dtype, known.shape.clone());
            graph.value_mut(id).declared = known.declared.clone().filter(|_| known.dtype.is_none());
            own.insert(value, id);
        }
        let mut nodes = piece.nodes.clone();
        nodes.sort_by_key(|id| place.get(id).copied());
        for id in nodes {
            let mut node = from.node(id).clone();
            for value in node.reads().collect::<Vec<_>>() {
                if own.contains_key(&value) || fed.contains_key(&value) || constants.contains_key(&value) {
                    continue;
                }
                if let Some(tensor) = from.constant(value) {
                    let tensor: Tensor = (*tensor).clone();
                    let id = graph.add_initializer(tensor.renamed(from.value(value).name.clone()));
                    constants.insert(value, id);
                }
            }
            let find = |value: &ValueId| own.get(value).or_else(|| fed.get(value)).or_else(|| constants.get(value));
            node.inputs = node.inputs.iter().map(|value| value.as_ref().and_then(find).copied()).collect();
            node.outputs = node.outputs.iter().map(|value| value.as_ref().and_then(find).copied()).collect();
            node.captures = Vec::new();
            graph.add_node(node);
        }
        for value in &piece.shows {
            if let Some(&id) = own.get(value) {
                graph.outputs.push(id);
                assembly.outputs.push((graph.value(id).name.clone(), *value, index));
            }
        }
    }
    assembly.model = subject.with_graph(graph);
    assembly
}
