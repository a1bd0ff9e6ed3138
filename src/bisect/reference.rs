//! What the reference computes for every value of the subject: made when asked for, forgotten when others need the room.
//!
//! The model is cut along its order into stretches whose values fit into a budget. One stretch is at hand at a time, on
//! one sample; what later stretches read of it, and what the search looks at last (the model's outputs, and on the first
//! sample the ends of layers), goes to files in a scratch folder, so that any stretch can be made again without running the ones before
//! it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::pieces::{self, Assembly, Piece};
use super::subject::Subject;
use crate::engine::{Engine, EngineError, Session, Tensors};
use crate::graph::{NodeId, ValueId};
use crate::onnx::{DType, Tensor};

/// Values of the reference, by the subject's values.
pub struct Reference<'a> {
    engine: &'a dyn Engine,
    subject: &'a Subject,
    /// Atoms of each stretch.
    pub stretches: Vec<std::ops::Range<usize>>,
    stretch_of: HashMap<ValueId, usize>,
    /// Nodes that are no atoms, such as random ones: they belong to the stretch of the next atom.
    nodes: Vec<Vec<NodeId>>,
    /// Bytes that the values of a stretch may take on one sample.
    pub budget: usize,
    at_hand: Option<AtHand>,
    scratch: Option<tempfile::TempDir>,
    spilled: HashMap<(usize, ValueId), Spilled>,
    /// Values that are asked for again once every stretch is done with, on the first sample.
    ends: HashSet<ValueId>,
    /// Values that will be asked for again, by sample, and their bytes: no more than a stretch may take.
    kept: HashMap<(usize, ValueId), Tensor>,
    kept_bytes: usize,
    /// How often the reference was compiled.
    pub compiles: usize,
    /// How often it was run.
    pub runs: usize,
}

/// A value in a file of its own: the bytes alone.
struct Spilled {
    path: PathBuf,
    dtype: DType,
    dims: Vec<i64>,
}

struct AtHand {
    stretch: usize,
    assembly: Assembly,
    session: Box<dyn Session>,
    /// The sample, and its values.
    values: Option<(usize, HashMap<ValueId, Tensor>)>,
}

impl<'a> Reference<'a> {
    /// Plans the stretches; nothing is run. `budget` is the most bytes that the values of a stretch may take on one
    /// sample; one atom's may take more.
    pub fn new(engine: &'a dyn Engine, subject: &'a Subject, budget: usize) -> Self {
        let graph = &subject.model.graph;
        let mut stretches: Vec<std::ops::Range<usize>> = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (index, atom) in subject.atoms.iter().enumerate() {
            let own: usize = subject.makes(atom).iter().map(|&value| subject.bytes(value)).sum::<usize>();
            if bytes + own > budget && index > start {
                stretches.push(start..index);
                (start, bytes) = (index, 0);
            }
            bytes += own;
        }
        stretches.push(start..subject.atoms.len());
        let mut nodes: Vec<Vec<NodeId>> = Vec::new();
        let mut stretch_of = HashMap::new();
        let atom_of: HashMap<NodeId, usize> = subject
            .atoms
            .iter()
            .enumerate()
            .flat_map(|(index, atom)| atom.iter().map(move |&id| (id, index)))
            .collect();
        for (index, range) in stretches.iter().enumerate() {
            let own: Vec<NodeId> = subject.atoms[range.clone()].iter().flatten().copied().collect();
            own.iter().flat_map(|&id| graph.node(id).writes()).for_each(|value| {
                stretch_of.insert(value, index);
            });
            nodes.push(own);
        }
        for (id, node) in graph.nodes().filter(|(id, _)| !atom_of.contains_key(id)) {
            if node.writes().all(|value| graph.constant(value).is_some()) {
                continue;
            }
            // A node that is not tested still has to run for those that are.
            let readers = node.writes().flat_map(|value| graph.consumers(value).to_vec());
            let first = readers.filter_map(|reader| atom_of.get(&reader)).min();
            let stretch = first.map_or(stretches.len() - 1, |atom| {
                stretches.iter().position(|range| range.contains(atom)).unwrap_or_default()
            });
            node.writes().for_each(|value| {
                stretch_of.insert(value, stretch);
            });
            nodes[stretch].push(id);
        }
        Self {
            engine,
            subject,
            stretches,
            stretch_of,
            nodes,
            budget,
            at_hand: None,
            scratch: None,
            spilled: HashMap::new(),
            ends: subject.layer_ends(&|_| true).into_values().collect(),
            kept: HashMap::new(),
            kept_bytes: 0,
            compiles: 0,
            runs: 0,
        }
    }

    /// The engine.
    pub fn engine(&self) -> &'a dyn Engine {
        self.engine
    }

    /// The model whose values these are.
    pub fn subject(&self) -> &'a Subject {
        self.subject
    }

    /// Lets go of the stretch that is at hand: it is made again when somebody asks for it.
    pub fn rest(&mut self) {
        self.at_hand = None;
    }

    /// Keeps a value for later, where there is room.
    pub fn keep(&mut self, sample: usize, value: ValueId, tensor: &Tensor) {
        let bytes = tensor.dtype().byte_len(tensor.len()).unwrap_or(0);
        if self.kept_bytes + bytes <= self.budget && !self.kept.contains_key(&(sample, value)) {
            self.kept_bytes += bytes;
            self.kept.insert((sample, value), apart(tensor));
        }
    }

    /// The values asked for, on one sample.
    ///
    /// # Errors
    /// The reference does not run the model.
    pub fn values(&mut self, wanted: &[ValueId], sample: usize) -> Result<HashMap<ValueId, Tensor>, EngineError> {
        let graph = &self.subject.model.graph;
        let mut found = HashMap::new();
        let mut missing: Vec<(usize, ValueId)> = Vec::new();
        for &value in wanted {
            if let Some(tensor) = graph.constant(value) {
                found.insert(value, (*tensor).clone());
            } else if let Some(tensor) = self.subject.samples[sample].get(&graph.value(value).name) {
                found.insert(value, tensor.clone());
            } else if let Some(tensor) = self.kept.get(&(sample, value)) {
                found.insert(value, tensor.clone());
            } else if let Some(&stretch) = self.stretch_of.get(&value) {
                missing.push((stretch, value));
            }
        }
        missing.sort_unstable();
        // A view of one result keeps all the memory of the session that made it, so what outlives its stretch is copied.
        let last = missing.last().map(|(stretch, _)| *stretch);
        for (stretch, value) in missing {
            let here = |at_hand: &AtHand| {
                let (own, values) = at_hand.values.as_ref()?;
                if at_hand.stretch == stretch && *own == sample { values.get(&value).cloned() } else { None }
            };
            if let Some(tensor) = self.at_hand.as_ref().and_then(here) {
                found.insert(value, if Some(stretch) == last { tensor } else { apart(&tensor) });
                continue;
            }
            if let Some(tensor) = self.unspill(sample, value) {
                found.insert(value, tensor);
                continue;
            }
            self.make(stretch, sample)?;
            if let Some(tensor) = self.at_hand.as_ref().and_then(here) {
                found.insert(value, if Some(stretch) == last { tensor } else { apart(&tensor) });
            }
        }
        Ok(found)
    }

    /// Makes the values of a stretch for a sample.
    fn make(&mut self, stretch: usize, sample: usize) -> Result<(), EngineError> {
        let subject = self.subject;
        let graph = &subject.model.graph;
        let inputs = pieces::reads(graph, &self.nodes[stretch]);
        let given = self.values(&inputs, sample)?; // of earlier stretches, so this ends
        if self.at_hand.as_ref().is_none_or(|at_hand| at_hand.stretch != stretch) {
            self.at_hand = None;
            let piece = Piece::open(graph, &self.nodes[stretch]);
            let mut assembly = pieces::assemble(&subject.model, &[piece]);
            let session = pieces::compile(self.engine, &mut assembly.model)?;
            self.compiles += 1;
            self.at_hand = Some(AtHand { stretch, assembly, session, values: None });
        }
        let Some(at_hand) = &mut self.at_hand else { return Ok(()) };
        at_hand.values = None;
        let fed: Tensors = at_hand
            .assembly
            .inputs
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), given.get(value)?.clone().renamed(name.clone()))))
            .collect();
        let mut outputs = at_hand.session.run(&fed)?;
        self.runs += 1;
        let mut values = HashMap::new();
        for (name, value, _) in &at_hand.assembly.outputs {
            if let Some(tensor) = outputs.swap_remove(name) {
                values.insert(*value, tensor);
            }
        }
        at_hand.values = Some((sample, values));
        self.spill(stretch, sample);
        Ok(())
    }

    /// Puts what is read later into files.
    fn spill(&mut self, stretch: usize, sample: usize) {
        if self.stretches.len() < 2 {
            return;
        }
        let graph = &self.subject.model.graph;
        let Some((_, values)) = self.at_hand.as_ref().and_then(|at_hand| at_hand.values.as_ref()) else { return };
        if self.scratch.is_none() {
            self.scratch = tempfile::tempdir().ok();
        }
        // Without a scratch folder stretches are made again from the first one on: slower, not wrong.
        let Some(folder) = &self.scratch else { return };
        let mut wanted: HashSet<ValueId> =
            self.nodes[stretch + 1..].iter().flat_map(|later| pieces::reads(graph, later)).collect();
        wanted.extend(graph.outputs.iter().copied());
        if sample == 0 {
            wanted.extend(&self.ends);
        }
        for (&value, tensor) in values.iter().filter(|(value, _)| wanted.contains(value)) {
            let path = folder.path().join(format!("{sample}-{}", self.spilled.len()));
            let Entry::Vacant(free) = self.spilled.entry((sample, value)) else { continue };
            let Ok(bytes) = tensor.to_bytes() else { continue };
            if std::fs::write(&path, &bytes).is_ok() {
                free.insert(Spilled { path, dtype: tensor.dtype(), dims: tensor.dims().to_vec() });
            }
        }
    }

    fn unspill(&self, sample: usize, value: ValueId) -> Option<Tensor> {
        let Spilled { path, dtype, dims } = self.spilled.get(&(sample, value))?;
        let name = &self.subject.model.graph.value(value).name;
        Some(Tensor::new(name, *dtype, dims, bytes::Bytes::from(std::fs::read(path).ok()?)))
    }
}

/// The tensor in memory of its own.
pub(super) fn apart(tensor: &Tensor) -> Tensor {
    match tensor.to_bytes() {
        Ok(bytes) => {
            Tensor::new(tensor.name(), tensor.dtype(), tensor.dims(), bytes::Bytes::copy_from_slice(bytes.as_ref()))
        }
        Err(_) => tensor.clone(),
    }
}
