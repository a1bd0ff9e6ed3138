//! The parts of a program, compiled: tensors go in at one end and come out at the other.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{Program, RunError};
use crate::engine::{Engine, EngineError, Placement, Session, Tensors};

/// One part, compiled.
pub(super) struct Stage {
    /// Its name in messages.
    pub name: String,
    session: Box<dyn Session>,
    /// What later parts and the caller still need; everything else is let go after this part.
    needed: HashSet<String>,
}

impl Stage {
    /// Runs the part and adds what it makes; lets go of what nobody reads any more.
    pub fn run(&mut self, known: &mut Tensors) -> Result<Duration, RunError> {
        let start = Instant::now();
        let made = self.session.run(known).map_err(|source| named(&self.name, source))?;
        let took = start.elapsed();
        known.retain(|name, _| self.needed.contains(name));
        known.extend(made.into_iter().filter(|(name, _)| self.needed.contains(name)));
        Ok(took)
    }
}

/// A program's parts, compiled and in order.
pub struct Line {
    pub(super) stages: Vec<Stage>,
    pub(super) outputs: Vec<String>,
    /// What compiling each part took.
    pub compiled: Vec<Duration>,
}

impl Line {
    /// Compiles a program; `engine` gives the one that a part, by its number, runs on.
    ///
    /// # Errors
    /// An engine that does not take its part.
    pub fn compile<'a>(program: &Program, engine: impl Fn(usize) -> &'a dyn Engine) -> Result<Self, RunError> {
        let outputs: Vec<String> = program.outputs.iter().map(|output| output.name.clone()).collect();
        let mut needed: HashSet<String> = outputs.iter().cloned().collect();
        let mut later = Vec::with_capacity(program.pieces.len());
        for piece in program.pieces.iter().rev() {
            later.push(needed.clone());
            let graph = &piece.model.graph;
            needed.extend(graph.inputs.iter().map(|&id| graph.value(id).name.clone()));
        }
        later.reverse();
        let mut line = Self { stages: Vec::new(), outputs, compiled: Vec::new() };
        for (index, (piece, needed)) in program.pieces.iter().zip(later).enumerate() {
            let start = Instant::now();
            let session = engine(index).compile(&piece.model).map_err(|source| named(&piece.name, source))?;
            line.compiled.push(start.elapsed());
            line.stages.push(Stage { name: piece.name.clone(), session, needed });
        }
        Ok(line)
    }

    /// Runs all parts; gives the outputs in order, and what each part took.
    ///
    /// # Errors
    /// A part that does not run.
    pub fn run(&mut self, inputs: Tensors) -> Result<(Tensors, Vec<Duration>), RunError> {
        let mut known = inputs;
        let mut took = Vec::with_capacity(self.stages.len());
        for stage in &mut self.stages {
            took.push(stage.run(&mut known)?);
        }
        Ok((in_order(known, &self.outputs), took))
    }

    /// At how many nodes faults were planted in the parts that simulate some; none where no part does.
    pub fn strikes(&self) -> Option<usize> {
        self.stages.iter().filter_map(|stage| stage.session.strikes()).reduce(|all, more| all + more)
    }

    /// Where each part's nodes run, as far as its engine says.
    pub fn placements(&self) -> Vec<Option<&Placement>> {
        self.stages.iter().map(|stage| stage.session.placement()).collect()
    }
}

/// The named tensors, in that order.
pub(super) fn in_order(mut known: Tensors, names: &[String]) -> Tensors {
    names.iter().filter_map(|name| known.swap_remove_entry(name)).collect()
}

fn named(part: &str, source: EngineError) -> RunError {
    match part.is_empty() {
        true => RunError::Engine(source),
        false => RunError::Part { part: part.into(), source },
    }
}
