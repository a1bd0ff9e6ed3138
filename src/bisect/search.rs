//! The search: few compiles, and every node looked at on its own outputs.
//!
//! 1. Every node on its own, fed with the reference's values, hundreds in one graph. A node whose inputs are right and whose
//!    output is not is a cause, however little of it reaches the end. Nodes that the target refuses are told apart by
//!    halving such graphs; what is found is taken out and the rest is tried again.
//! 2. Layers with their insides hidden, and once more the places where layers meet, so that every pair of neighbours stands
//!    in one graph with nothing shown between them: faults of fusion. A region that fails where its nodes pass is cut down to
//!    the smallest window that still does.
//! 3. The whole model with everything found so far taken out and fed from the reference. If the end is still wrong, the
//!    model is halved along its order until a region fails.
//! 4. The whole model with the layers' ends shown: the cumulative error, layer by layer.
//!
//! The first is in this file, the second in [`regions`](super::regions), the others in [`whole`](super::whole).

use std::collections::{BTreeMap, HashSet};

use super::outcome::{Failure, Outcome, Seen};
use super::pieces::Piece;
use super::probe::{Lab, Stop};
use super::question::{PIECES, Question, REGIONS};
use crate::graph::NodeId;

/// A fault as it was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The smallest set of nodes that shows it.
    pub nodes: Vec<NodeId>,
    /// What was seen of the values it makes; empty for failures.
    pub seen: Vec<Seen>,
    /// How the target failed.
    pub failure: Option<Failure>,
    /// Whether it shows only while several nodes stand together.
    pub fused: bool,
    /// Whether it is gone once the values inside are shown.
    pub vanishes: bool,
}

/// What is known of a layer.
#[derive(Clone, Debug, Default)]
pub struct LayerErrors {
    /// Worst error at the layer's end in the whole model.
    pub cumulative: Option<f64>,
    /// Worst error of a node of it, or of all of it, on the reference's inputs.
    pub isolated: Option<f64>,
    /// What noise explains.
    pub expected: Option<f64>,
}

/// What a search knows, complete or not.
#[derive(Debug, Default)]
pub struct Findings {
    /// The faults.
    pub faults: Vec<Found>,
    /// Layers by index.
    pub layers: Vec<LayerErrors>,
    /// Nodes that the target says it does not have.
    pub refused: Vec<(String, String)>,
    /// Things a reader should know.
    pub notes: Vec<String>,
    /// Whether the end of the whole model is further off than noise explains; none where it did not run.
    pub whole_differs: Option<bool>,
    /// Whether it is so on the first sample, at every run.
    pub first_differs: bool,
    /// The end still differs and no region says why.
    pub unexplained: Option<String>,
    /// Why the search ended early.
    pub stopped: Option<Stop>,
}

/// Nodes that a target is known to fail at with a code.
pub type Hints<'a> = &'a dyn Fn(&str) -> Vec<NodeId>;

/// Runs the search. What was found before a limit was reached is in the findings.
pub fn search(lab: &mut Lab, hints: Hints, step: &dyn Fn(&str)) -> Findings {
    let mut hunt = Hunt {
        findings: Findings { layers: vec![LayerErrors::default(); lab.subject.layers.len()], ..Default::default() },
        out: HashSet::new(),
        regions: REGIONS,
        lab,
        hints,
        step,
    };
    if let Err(stop) = hunt.run() {
        hunt.findings.stopped = Some(stop);
    }
    hunt.findings
}

/// A search under way.
pub(super) struct Hunt<'h, 'a> {
    pub(super) lab: &'h mut Lab<'a>,
    hints: Hints<'h>,
    pub(super) step: &'h dyn Fn(&str),
    pub(super) findings: Findings,
    /// How regions are tried: on the first sample, until the end says that something is left.
    pub(super) regions: Question,
    /// Nodes that are fed from the reference: known faults, and what the target does not have.
    pub(super) out: HashSet<NodeId>,
}

impl Hunt<'_, '_> {
    fn run(&mut self) -> Result<(), Stop> {
        let stretches = self.lab.reference.stretches.clone();
        for (index, range) in stretches.iter().enumerate() {
            let of = if stretches.len() > 1 {
                format!(", part {} of {}", index + 1, stretches.len())
            } else {
                String::new()
            };
            (self.step)(&format!("every node on its own{of}"));
            let atoms: Vec<usize> = range.clone().collect();
            self.isolate(&atoms)?;
            (self.step)(&format!("layers{of}"));
            self.regions(&atoms)?;
        }
        self.remainder()?;
        (self.step)("layer by layer");
        self.cumulative()
    }

    /// Every atom that is not out.
    pub(super) fn rest(&self) -> Vec<NodeId> {
        let all = self.lab.subject.atoms.iter().flatten().copied();
        all.filter(|id| !self.out.contains(id)).collect()
    }

    /// Takes a node out that the engine itself names as one it does not have.
    pub(super) fn refuse(&mut self, outcome: &Outcome) -> bool {
        let Outcome::Failed(Failure { kind, node: Some(name), message, .. }) = outcome else { return false };
        if kind != "unsupported" {
            return false;
        }
        let subject = self.lab.subject;
        let named = |atom: &&Vec<NodeId>| atom.iter().any(|&id| subject.model.graph.node(id).name == *name);
        let Some(atom) = subject.atoms.iter().find(named) else { return false };
        if atom.iter().all(|id| self.out.contains(id)) {
            return false;
        }
        self.out.extend(atom);
        self.findings.refused.push((name.clone(), message.clone()));
        true
    }

    /// Tries atoms on their own, all in one graph, and halves what does not compile; halves are tried beside each other.
    fn isolate(&mut self, atoms: &[usize]) -> Result<(), Stop> {
        let subject = self.lab.subject;
        let graph = &subject.model.graph;
        let mut waiting: Vec<Vec<usize>> = vec![atoms.to_vec()];
        let mut hinted_at: HashSet<String> = HashSet::new();
        while !waiting.is_empty() {
            let count = waiting.len().min(self.lab.jobs());
            let out = &self.out;
            let is_in = |atom: &usize| !subject.atoms[*atom].iter().any(|id| out.contains(id));
            let wave: Vec<Vec<usize>> = waiting
                .drain(..count)
                .map(|group| group.into_iter().filter(is_in).collect::<Vec<_>>())
                .filter(|group| !group.is_empty())
                .collect();
            let pieces = |group: &Vec<usize>| -> Vec<Piece> {
                group.iter().map(|&atom| Piece::open(graph, &subject.atoms[atom])).collect()
            };
            let outcomes = self.lab.probe_each(&wave.iter().map(pieces).collect::<Vec<_>>(), PIECES)?;
            for (mut group, outcome) in wave.into_iter().zip(outcomes) {
                if self.refuse(&outcome) {
                    waiting.push(group);
                    continue;
                }
                match outcome {
                    Outcome::Ran(seen) => self.take_isolated(&group, seen),
                    Outcome::Failed(failure) if group.len() == 1 => {
                        self.failing(&subject.atoms[group[0]].clone(), failure, false);
                    }
                    Outcome::Failed(failure) => {
                        // Where the target is known to fail with this code, that is looked at first.
                        let known: HashSet<NodeId> = match &failure.code {
                            Some(code) if hinted_at.insert(code.clone()) => (self.hints)(code).into_iter().collect(),
                            _ => HashSet::new(),
                        };
                        let (hinted, others): (Vec<usize>, Vec<usize>) =
                            group.iter().partition(|&&atom| subject.atoms[atom].iter().any(|id| known.contains(id)));
                        if !hinted.is_empty() && !others.is_empty() {
                            waiting.extend(hinted.into_iter().map(|atom| vec![atom]));
                            waiting.push(others);
                            continue;
                        }
                        // Alike operators fail alike, so they are kept together while halving.
                        let operator = |atom: &usize| {
                            subject.atoms[*atom].last().map(|&id| graph.node(id).op_type.clone()).unwrap_or_default()
                        };
                        group.sort_by_key(|atom| (operator(atom), *atom));
                        let (left, right) = group.split_at(group.len() / 2);
                        waiting.extend([left.to_vec(), right.to_vec()]);
                    }
                }
            }
        }
        Ok(())
    }

    fn take_isolated(&mut self, atoms: &[usize], seen: Vec<Seen>) {
        let subject = self.lab.subject;
        let mut by_atom: BTreeMap<usize, Vec<Seen>> = BTreeMap::new();
        for seen in seen {
            let Some(&atom) = atoms.get(seen.piece) else { continue };
            let errors = &mut self.findings.layers[subject.layer_of[atom]];
            hold(&mut errors.isolated, seen.relative.unwrap_or(f64::INFINITY));
            if let Some(expected) = seen.expected.filter(|_| seen.wrong.is_none()) {
                hold(&mut errors.expected, expected);
            }
            by_atom.entry(atom).or_default().push(seen);
        }
        for (atom, seen) in by_atom {
            if seen.iter().any(|seen| seen.wrong.is_some()) {
                let nodes = subject.atoms[atom].clone();
                self.out.extend(&nodes);
                self.findings.faults.push(Found { nodes, seen, failure: None, fused: false, vanishes: false });
            }
        }
    }

    pub(super) fn failing(&mut self, nodes: &[NodeId], failure: Failure, fused: bool) {
        self.out.extend(nodes);
        let nodes = nodes.to_vec();
        self.findings.faults.push(Found { nodes, seen: Vec::new(), failure: Some(failure), fused, vanishes: false });
    }
}

/// Whether anything was wrong; none where it did not run.
pub(super) fn differs(outcome: &Outcome) -> Option<bool> {
    match outcome {
        Outcome::Failed(_) => None,
        Outcome::Ran(seen) => Some(seen.iter().any(|seen| seen.wrong.is_some())),
    }
}

pub(super) fn hold(most: &mut Option<f64>, value: f64) {
    *most = Some(most.map_or(value, |most| most.max(value)));
}
