//! The whole model: once more without what was found, and once with the ends of its layers shown.

use std::collections::HashSet;

use super::outcome::{Outcome, Seen};
use super::pieces::Piece;
use super::probe::Stop;
use super::question::{LARGE_LAYERS, LAYERS, PIECES, REST, WHOLE};
use super::search::{Hunt, differs, hold};
use crate::graph::{NodeId, ValueId};

/// Whether a value is off on the first sample, at every run: what is shown next is shown on that one.
fn is_off_at_first(seen: &Seen) -> bool {
    seen.wrong.as_ref().is_some_and(|wrong| wrong.samples.contains(&0) && !wrong.unstable)
}

impl Hunt<'_, '_> {
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
            let mut shows = self.outputs(&nodes);
            // What leads to a fault ends there: its last values are ends as well.
            let graph = &self.lab.subject.model.graph;
            let found: HashSet<NodeId> = self.findings.faults.iter().flat_map(|fault| fault.nodes.clone()).collect();
            let ends = |value: &ValueId| graph.consumers(*value).iter().any(|reader| found.contains(reader));
            let more: Vec<ValueId> = self.lab.subject.makes(&nodes).into_iter().filter(ends).collect();
            shows.extend(more.into_iter().filter(|value| !graph.is_output(*value)));
            if shows.is_empty() {
                return Ok(Outcome::Ran(Vec::new()));
            }
            let question = if self.findings.faults.is_empty() { WHOLE } else { REST };
            let outcome = self.lab.probe(&[Piece { nodes, shows }], question)?;
            if !self.refuse(&outcome) {
                return Ok(outcome);
            }
        }
    }

    /// The model without what was found; if its end is still wrong, halves of it.
    pub(super) fn remainder(&mut self) -> Result<(), Stop> {
        for _ in 0..8 {
            (self.step)(if self.out.is_empty() { "the whole model" } else { "what is left" });
            let outcome = self.whole()?;
            if self.findings.faults.is_empty() {
                self.findings.whole_differs = differs(&outcome);
                self.findings.first_differs =
                    matches!(&outcome, Outcome::Ran(seen) if seen.iter().any(is_off_at_first));
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
            self.regions = PIECES; // it may show on other samples than the first alone
            // Where no half fails, what does may lie far apart in it.
            let region = self.halve(&rest)?.unwrap_or_else(|| rest.clone());
            self.shrink(&region)?;
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
    pub(super) fn cumulative(&mut self) -> Result<(), Stop> {
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
        let end_of = subject.layer_ends(&|id| inside.contains(&id));
        let outputs = self.outputs(&nodes);
        // As many ends at a time as there is room for, twice: what the target gives, and what the reference does.
        let room = if self.lab.large { self.lab.reference.budget / 2 } else { self.lab.reference.budget };
        let mut groups = vec![outputs.clone()];
        let mut bytes = outputs.iter().map(|&value| subject.bytes(value)).sum::<usize>();
        for value in end_of.values().copied().filter(|value| !outputs.contains(value)) {
            bytes += subject.bytes(value);
            if bytes > room {
                groups.push(Vec::new());
                bytes = subject.bytes(value);
            }
            if let Some(group) = groups.last_mut() {
                group.push(value);
            }
        }
        let mut seen: Vec<Seen> = Vec::new();
        let large = self.lab.large || groups.len() > 1;
        for (index, shows) in groups.into_iter().enumerate().filter(|(_, shows)| !shows.is_empty()) {
            // The outputs are among the first; their noise says below whether they are off.
            let look = large && (index > 0 || !self.findings.faults.is_empty());
            let question = if look { LARGE_LAYERS } else { LAYERS };
            let outcome = self.lab.probe(&[Piece { nodes: nodes.clone(), shows }], question)?;
            let Outcome::Ran(own) = outcome else { return Ok(()) };
            seen.extend(own);
        }
        for seen in &seen {
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
        if self.findings.faults.is_empty() && self.findings.first_differs && !seen.iter().any(|seen| far(&seen)) {
            self.findings.notes.push(
                "the end is wrong as long as the layers' ends are not shown, and right once they are: a fault that \
                 vanishes when observed"
                    .into(),
            );
        }
        Ok(())
    }
}
