//! Faults of fusion: regions whose nodes pass alone and that fail together, cut down to the smallest window.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::outcome::Outcome;
use super::pieces::Piece;
use super::probe::Stop;
use super::question::PIECES;
use super::search::{Found, Hunt, differs, hold};
use crate::graph::{Graph, NodeId};

impl Hunt<'_, '_> {
    /// Layers with their insides hidden, then the places where they meet.
    pub(super) fn regions(&mut self, atoms: &[usize]) -> Result<(), Stop> {
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
        let outcome = self.lab.probe(&pieces, self.regions)?;
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
    pub(super) fn shrink(&mut self, region: &[NodeId]) -> Result<(), Stop> {
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
            if is_convex(graph, &fewer) && self.fails(&fewer)? { window = fewer } else { index += 1 }
        }
        self.window(&window)
    }

    pub(super) fn fails(&mut self, nodes: &[NodeId]) -> Result<bool, Stop> {
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
fn is_convex(graph: &Graph, nodes: &[NodeId]) -> bool {
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
