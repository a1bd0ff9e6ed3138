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

use std::collections::{BTreeMap, HashMap, HashSet};

use super::pieces::Piece;
use super::probe::{Failure, LAYERS, Lab, Outcome, PIECES, Seen, Stop, WHOLE};
use crate::graph::{Graph, NodeId, ValueId};

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
        lab,
        hints,
        step,
    };
    if let Err(stop) = hunt.run() {
        hunt.findings.stopped = Some(stop);
    }
    hunt.findings
}

struct Hunt<'h, 'a> {
    lab: &'h mut Lab<'a>,
    hints: Hints<'h>,
    step: &'h dyn Fn(&str),
    findings: Findings,
    /// Nodes that are fed from the reference: known faults, and what the target does not have.
    out: HashSet<NodeId>,
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
    fn rest(&self) -> Vec<NodeId> {
        let all = self.lab.subject.atoms.iter().flatten().copied();
        all.filter(|id| !self.out.contains(id)).collect()
    }

    fn outputs(&self, nodes: &[NodeId]) -> Vec<ValueId> {
        let graph = &self.lab.subject.model.graph;
        let inside: HashSet<NodeId> = nodes.iter().copied().collect();
        let made = |value: &&ValueId| graph.producer(**value).is_some_and(|producer| inside.contains(&producer));
        let mut seen = HashSet::new();
        graph.outputs.iter().filter(made).copied().filter(|value| seen.insert(*value)).collect()
    }

    /// The model without what is out.
    fn whole(&mut self) -> Result<Outcome, Stop> {
        loop {
            let nodes = self.rest();
            let shows = self.outputs(&nodes);
            if shows.is_empty() {
                return Ok(Outcome::Ran(Vec::new()));
            }
            let outcome = self.lab.probe(&[Piece { nodes, shows }], WHOLE)?;
            if !self.refuse(&outcome) {
                return Ok(outcome);
            }
        }
    }

    /// Takes a node out that the engine itself names as one it does not have.
    fn refuse(&mut self, outcome: &Outcome) -> bool {
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

    /// Tries atoms on their own, all in one graph, and halves what does not compile.
    fn isolate(&mut self, atoms: &[usize]) -> Result<(), Stop> {
        let subject = self.lab.subject;
        let graph = &subject.model.graph;
        let mut atoms: Vec<usize> =
            atoms.iter().copied().filter(|&atom| !subject.atoms[atom].iter().any(|id| self.out.contains(id))).collect();
        let mut failed_before = false;
        while !atoms.is_empty() {
            let pieces: Vec<Piece> = atoms.iter().map(|&atom| Piece::open(graph, &subject.atoms[atom])).collect();
            let outcome = self.lab.probe(&pieces, PIECES)?;
            if self.refuse(&outcome) {
                atoms.retain(|&atom| !subject.atoms[atom].iter().any(|id| self.out.contains(id)));
                continue;
            }
            match outcome {
                Outcome::Ran(seen) => {
                    self.take_isolated(&atoms, seen);
                    return Ok(());
                }
                Outcome::Failed(failure) if atoms.len() == 1 => {
                    self.failing(&subject.atoms[atoms[0]].clone(), failure, false);
                    return Ok(());
                }
                Outcome::Failed(failure) => {
                    // Where the target is known to fail with this code, that is looked at first.
                    let known: HashSet<NodeId> = match (&failure.code, failed_before) {
                        (Some(code), false) => (self.hints)(code).into_iter().collect(),
                        _ => HashSet::new(),
                    };
                    failed_before = true;
                    let (hinted, others): (Vec<usize>, Vec<usize>) =
                        atoms.iter().partition(|&&atom| subject.atoms[atom].iter().any(|id| known.contains(id)));
                    if !hinted.is_empty() && !others.is_empty() {
                        for atom in hinted {
                            self.isolate(&[atom])?;
                        }
                        atoms = others;
                        continue;
                    }
                    // Alike operators fail alike, so they are kept together while halving.
                    let operator = |atom: &usize| {
                        subject.atoms[*atom].last().map(|&id| graph.node(id).op_type.clone()).unwrap_or_default()
                    };
                    atoms.sort_by_key(|atom| (operator(atom), *atom));
                    let (left, right) = atoms.split_at(atoms.len() / 2);
                    self.isolate(left)?;
                    return self.isolate(right);
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

    fn failing(&mut self, nodes: &[NodeId], failure: Failure, fused: bool) {
        self.out.extend(nodes);
        let nodes = nodes.to_vec();
        self.findings.faults.push(Found { nodes, seen: Vec::new(), failure: Some(failure), fused, vanishes: false });
    }

    /// Layers with their insides hidden, then the places where they meet.
    fn regions(&mut self, atoms: &[usize]) -> Result<(), Stop> {
        for meeting in [false, true] {
            for _ in 0..16 {
                let regions = if meeting { self.meetings(atoms) } else { self.layers(atoms) };
                if regions.is_empty() {
                    break;
                }
                let bad = self.failing_regions(&regions)?;
                if bad.is_empty() {
                    break;
                }
                let before = self.out.len();
                for region in bad {
                    self.shrink(&region)?;
                }
                if self.out.len() == before {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Regions that do not give what they should, or do not compile.
    fn failing_regions(&mut self, regions: &[Vec<NodeId>]) -> Result<Vec<Vec<NodeId>>, Stop> {
        let subject = self.lab.subject;
        let graph = &subject.model.graph;
        let regions: Vec<Vec<NodeId>> = regions
            .iter()
            .map(|region| region.iter().copied().filter(|id| !self.out.contains(id)).collect::<Vec<_>>())
            .filter(|region| region.len() > 1)
            .collect();
        if regions.is_empty() {
            return Ok(Vec::new());
        }
        let pieces: Vec<Piece> = regions.iter().map(|region| Piece::closed(graph, region)).collect();
        let outcome = self.lab.probe(&pieces, PIECES)?;
        if self.refuse(&outcome) {
            return self.failing_regions(&regions);
        }
        match outcome {
            Outcome::Failed(_) if regions.len() == 1 => Ok(regions),
            Outcome::Failed(_) => {
                let (left, right) = regions.split_at(regions.len() / 2);
                let mut all = self.failing_regions(left)?;
                all.extend(self.failing_regions(right)?);
                Ok(all)
            }
            Outcome::Ran(seen) => {
                let mut bad: Vec<usize> = Vec::new();
                for seen in &seen {
                    let layer = self.layer_of(&regions[seen.piece]);
                    let errors = &mut self.findings.layers[layer];
                    hold(&mut errors.isolated, seen.relative.unwrap_or(f64::INFINITY));
                    if let Some(expected) = seen.expected.filter(|_| seen.wrong.is_none()) {
                        hold(&mut errors.expected, expected);
                    }
                    if seen.wrong.is_some() && !bad.contains(&seen.piece) {
                        bad.push(seen.piece);
                    }
                }
                Ok(bad.into_iter().map(|piece| regions[piece].clone()).collect())
            }
        }
    }

    fn layer_of(&self, nodes: &[NodeId]) -> usize {
        let subject = self.lab.subject;
        let last = nodes.last();
        let atom = subject.atoms.iter().position(|atom| last.is_some_and(|id| atom.contains(id)));
        atom.map_or(0, |atom| subject.layer_of[atom])
    }

    fn layers(&self, atoms: &[usize]) -> Vec<Vec<NodeId>> {
        let subject = self.lab.subject;
        let mut by_layer: BTreeMap<usize, Vec<NodeId>> = BTreeMap::new();
        for &atom in atoms {
            by_layer.entry(subject.layer_of[atom]).or_default().extend(&subject.atoms[atom]);
        }
        by_layer.into_values().collect()
    }

    /// Nodes of different layers that are neighbours, with one more neighbour on each side of the border.
    fn meetings(&self, atoms: &[usize]) -> Vec<Vec<NodeId>> {
        let subject = self.lab.subject;
        let graph = &subject.model.graph;
        let layer: HashMap<NodeId, usize> = atoms
            .iter()
            .flat_map(|&atom| subject.atoms[atom].iter().map(move |&id| (id, subject.layer_of[atom])))
            .collect();
        let order: Vec<NodeId> = atoms.iter().flat_map(|&atom| subject.atoms[atom].clone()).collect();
        let mut group: HashMap<NodeId, usize> = HashMap::new();
        let mut groups: Vec<Vec<NodeId>> = Vec::new();
        for &id in &order {
            for value in graph.node(id).writes() {
                let across: Vec<NodeId> = graph
                    .consumers(value)
                    .iter()
                    .copied()
                    .filter(|reader| layer.get(reader).is_some_and(|other| *other != layer[&id]))
                    .collect();
                for reader in across {
                    join(&mut group, &mut groups, id, reader);
                }
            }
        }
        // One more on each side, where it belongs to nobody yet.
        for (index, own) in groups.iter_mut().enumerate() {
            for id in own.clone() {
                let node = graph.node(id);
                let before = node.reads().filter_map(|value| graph.producer(value));
                let after = node.writes().flat_map(|value| graph.consumers(value).to_vec());
                for other in before.chain(after).collect::<Vec<_>>() {
                    if layer.contains_key(&other) && !group.contains_key(&other) {
                        group.insert(other, index);
                        own.push(other);
                    }
                }
            }
        }
        groups.retain(|group| group.len() > 1);
        let place: HashMap<NodeId, usize> = order.iter().enumerate().map(|(place, &id)| (id, place)).collect();
        groups.iter_mut().for_each(|group| group.sort_by_key(|id| place.get(id).copied()));
        groups
    }

    /// Cuts a region that fails down to the smallest windows that still do, and takes them out.
    fn shrink(&mut self, region: &[NodeId]) -> Result<(), Stop> {
        let graph = &self.lab.subject.model.graph;
        let region: Vec<NodeId> = region.iter().copied().filter(|id| !self.out.contains(id)).collect();
        // Pairs of neighbours first: as many in one graph as share no node.
        for pairs in disjoint_pairs(graph, &region) {
            let bad = self.failing_regions(&pairs)?;
            for pair in bad {
                self.window(&pair)?;
            }
        }
        let region: Vec<NodeId> = region.iter().copied().filter(|id| !self.out.contains(id)).collect();
        if !self.fails(&region)? {
            return Ok(());
        }
        // The shortest beginning that fails, then its shortest end.
        let (mut low, mut high) = (1, region.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.fails(&region[..middle])? { high = middle } else { low = middle + 1 }
        }
        let region = &region[..high];
        let (mut low, mut high) = (0, region.len() - 1);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if self.fails(&region[middle..])? { low = middle } else { high = middle - 1 }
        }
        let mut window: Vec<NodeId> = region[low..].to_vec();
        // Nodes in between that do not matter.
        let mut index = 0;
        while index < window.len() && window.len() > 2 && window.len() <= 24 {
            let mut fewer = window.clone();
            fewer.remove(index);
            if self.fails(&fewer)? { window = fewer } else { index += 1 }
        }
        self.window(&window)
    }

    fn fails(&mut self, nodes: &[NodeId]) -> Result<bool, Stop> {
        if nodes.len() < 2 {
            return Ok(false); // on its own each of them passed
        }
        Ok(!self.failing_regions(&[nodes.to_vec()])?.is_empty())
    }

    /// Notes a window as a fault, and whether showing what is inside makes it vanish.
    fn window(&mut self, nodes: &[NodeId]) -> Result<(), Stop> {
        let graph = &self.lab.subject.model.graph;
        let outcome = self.lab.probe(&[Piece::closed(graph, nodes)], PIECES)?;
        match outcome {
            Outcome::Failed(failure) => self.failing(nodes, failure, true),
            Outcome::Ran(seen) if seen.iter().any(|seen| seen.wrong.is_some()) => {
                let open = self.lab.probe(&[Piece::open(graph, nodes)], PIECES)?;
                let vanishes = differs(&open) == Some(false);
                // What makes the wrong values is fed from the reference from now on; the others stay in.
                for seen in seen.iter().filter(|seen| seen.wrong.is_some()) {
                    let value = graph.value_named(&seen.value);
                    self.out.extend(value.and_then(|value| graph.producer(value)));
                }
                let nodes = nodes.to_vec();
                self.findings.faults.push(Found { nodes, seen, failure: None, fused: true, vanishes });
            }
            Outcome::Ran(_) => {}
        }
        Ok(())
    }

    /// The model without what was found; if its end is still wrong, halves of it.
    fn remainder(&mut self) -> Result<(), Stop> {
        for _ in 0..8 {
            (self.step)(if self.out.is_empty() { "the whole model" } else { "what is left" });
            let outcome = self.whole()?;
            if self.findings.faults.is_empty() {
                self.findings.whole_differs = differs(&outcome);
            }
            let wrong = match &outcome {
                Outcome::Failed(failure) => Some(failure.message.clone()),
                Outcome::Ran(seen) => seen
                    .iter()
                    .find_map(|seen| seen.wrong.as_ref().map(|wrong| format!("{}: {}", seen.value, wrong.reason))),
            };
            let Some(why) = wrong else { return Ok(()) };
            let before = self.findings.faults.len();
            let rest = self.rest();
            let region = self.halve(&rest)?;
            if let Some(region) = region {
                self.shrink(&region)?;
            }
            if self.findings.faults.len() == before {
                // Neither half of anything fails, only the whole.
                match outcome {
                    Outcome::Failed(failure) => self.failing(&rest, failure, true),
                    Outcome::Ran(_) => self.findings.unexplained = Some(why),
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// The smallest half of a half that still fails on the reference's inputs.
    fn halve(&mut self, nodes: &[NodeId]) -> Result<Option<Vec<NodeId>>, Stop> {
        let mut region = nodes.to_vec();
        let mut found = None;
        while region.len() > 2 {
            let (left, right) = region.split_at(region.len() / 2);
            let (left, right) = (left.to_vec(), right.to_vec());
            if self.fails(&left)? {
                region = left;
            } else if self.fails(&right)? {
                region = right;
            } else {
                break;
            }
            found = Some(region.clone());
        }
        // The middle belongs to neither half.
        if found.is_none() && region.len() > 3 {
            let quarter = region.len() / 4;
            let middle = region[quarter..region.len() - quarter].to_vec();
            if self.fails(&middle)? {
                found = Some(middle);
            }
        }
        Ok(found)
    }

    /// The whole model with the ends of its layers shown.
    fn cumulative(&mut self) -> Result<(), Stop> {
        let subject = self.lab.subject;
        let graph = &subject.model.graph;
        if self.findings.faults.iter().any(|fault| fault.failure.is_some()) {
            return Ok(()); // the target does not take the model as it is
        }
        // What the target does not have stays out; faults are in, this is the model as it is.
        let faulty: HashSet<NodeId> = self.findings.faults.iter().flat_map(|fault| fault.nodes.clone()).collect();
        let nodes: Vec<NodeId> = subject
            .atoms
            .iter()
            .flatten()
            .copied()
            .filter(|id| !self.out.contains(id) || faulty.contains(id))
            .collect();
        let inside: HashSet<NodeId> = nodes.iter().copied().collect();
        let mut end_of: BTreeMap<usize, ValueId> = BTreeMap::new();
        for (atom, own) in subject.atoms.iter().enumerate() {
            for value in subject.makes(own) {
                let layer = subject.layer_of[atom];
                let leaves = graph.is_output(value)
                    || graph.consumers(value).iter().any(|reader| {
                        inside.contains(reader)
                            && subject
                                .atoms
                                .iter()
                                .position(|atom| atom.contains(reader))
                                .is_some_and(|other| subject.layer_of[other] != layer)
                    });
                if leaves && inside.contains(&own[own.len() - 1]) {
                    end_of.insert(layer, value);
                }
            }
        }
        let mut shows = self.outputs(&nodes);
        let outputs = shows.clone();
        let ends: Vec<ValueId> = end_of.values().copied().filter(|value| !outputs.contains(value)).collect();
        shows.extend(ends);
        let outcome = self.lab.probe(&[Piece { nodes, shows }], LAYERS)?;
        let Outcome::Ran(seen) = &outcome else { return Ok(()) };
        for seen in seen {
            for (layer, value) in &end_of {
                if graph.value(*value).name == seen.value {
                    let errors = &mut self.findings.layers[*layer];
                    hold(&mut errors.cumulative, seen.relative.unwrap_or(f64::INFINITY));
                    if let Some(expected) = seen.expected {
                        hold(&mut errors.expected, expected);
                    }
                }
            }
        }
        // Values that change once others are shown: the compiler does something else then.
        let names: HashSet<&str> = outputs.iter().map(|&value| graph.value(value).name.as_str()).collect();
        let far = |seen: &&Seen| {
            let allowed = 64.0 * seen.expected.unwrap_or(super::judge::LEAST);
            names.contains(seen.value.as_str()) && seen.relative.is_none_or(|relative| relative > allowed)
        };
        if self.findings.faults.is_empty()
            && self.findings.whole_differs == Some(true)
            && !seen.iter().any(|seen| far(&seen))
        {
            self.findings.notes.push(
                "the end is wrong as long as the layers' ends are not shown, and right once they are: a fault that \
                 vanishes when observed"
                    .into(),
            );
        }
        Ok(())
    }
}

/// Whether anything was wrong; none where it did not run.
fn differs(outcome: &Outcome) -> Option<bool> {
    match outcome {
        Outcome::Failed(_) => None,
        Outcome::Ran(seen) => Some(seen.iter().any(|seen| seen.wrong.is_some())),
    }
}

fn hold(most: &mut Option<f64>, value: f64) {
    *most = Some(most.map_or(value, |most| most.max(value)));
}

fn join(group: &mut HashMap<NodeId, usize>, groups: &mut Vec<Vec<NodeId>>, a: NodeId, b: NodeId) {
    match (group.get(&a).copied(), group.get(&b).copied()) {
        (None, None) => {
            group.insert(a, groups.len());
            group.insert(b, groups.len());
            groups.push(vec![a, b]);
        }
        (Some(index), None) => {
            group.insert(b, index);
            groups[index].push(b);
        }
        (None, Some(index)) => {
            group.insert(a, index);
            groups[index].push(a);
        }
        (Some(one), Some(other)) if one != other => {
            let moved = std::mem::take(&mut groups[other]);
            moved.iter().for_each(|&id| {
                group.insert(id, one);
            });
            groups[one].extend(moved);
        }
        _ => {}
    }
}

/// Neighbours within a region, in as few sets as share no node.
fn disjoint_pairs(graph: &Graph, region: &[NodeId]) -> Vec<Vec<Vec<NodeId>>> {
    let inside: HashSet<NodeId> = region.iter().copied().collect();
    let mut sets: Vec<(HashSet<NodeId>, Vec<Vec<NodeId>>)> = Vec::new();
    let mut seen = HashSet::new();
    for &id in region {
        for value in graph.node(id).writes() {
            for &reader in graph.consumers(value) {
                if !inside.contains(&reader) || !seen.insert((id, reader)) {
                    continue;
                }
                let free = sets.iter_mut().find(|(taken, _)| !taken.contains(&id) && !taken.contains(&reader));
                match free {
                    Some((taken, pairs)) => {
                        taken.extend([id, reader]);
                        pairs.push(vec![id, reader]);
                    }
                    None => sets.push((HashSet::from([id, reader]), vec![vec![id, reader]])),
                }
            }
        }
    }
    sets.into_iter().map(|(_, pairs)| pairs).collect()
}

/// Whether a set of nodes is convex: no path leaves it and comes back.
pub fn is_convex(graph: &Graph, nodes: &[NodeId]) -> bool {
    let inside: HashSet<NodeId> = nodes.iter().copied().collect();
    let mut tainted: HashSet<NodeId> = HashSet::new();
    for (id, node) in graph.nodes() {
        let before: Vec<NodeId> = node.reads().filter_map(|value| graph.producer(value)).collect();
        let from_outside = before.iter().any(|producer| tainted.contains(producer));
        if inside.contains(&id) {
            if from_outside {
                return false;
            }
        } else if from_outside || before.iter().any(|producer| inside.contains(producer)) {
            tainted.insert(id);
        }
    }
    true
}
