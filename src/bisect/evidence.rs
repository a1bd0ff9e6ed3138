//! Proof of a fault: its nodes cut out of the model, run alone on the target, with what went in and came out kept.

use super::outcome::{Failure, Outcome};
use super::pieces::{self, Assembly, Piece};
use super::probe::{Lab, Stop};
use super::question::PIECES;
use super::reference::apart;
use super::search::Found;
use super::{BisectError, Proof};
use crate::engine::Tensors;
use crate::fingerprint::{Evidence, Run};
use crate::graph::ValueId;

/// What a fault's cut reads and what it should give, sample by sample.
pub type Feeds = Vec<(Tensors, Tensors)>;

/// The cut of a fault.
fn cut(lab: &Lab, found: &Found) -> Assembly {
    let graph = &lab.subject.model.graph;
    let piece = match found.fused {
        true => Piece::closed(graph, &found.nodes),
        false => Piece::open(graph, &found.nodes),
    };
    pieces::assemble(&lab.subject.model, std::slice::from_ref(&piece))
}

/// The reference's values around each fault: all of a sample together, so that the reference makes them once.
///
/// # Errors
/// The reference fails.
pub fn feed(lab: &mut Lab, faults: &[Found]) -> Result<Vec<Feeds>, BisectError> {
    let cuts: Vec<Assembly> = faults.iter().map(|found| cut(lab, found)).collect();
    let mut all: Vec<Feeds> = cuts.iter().map(|_| Feeds::new()).collect();
    for sample in 0..lab.subject.samples.len() {
        for (cut, feeds) in cuts.iter().zip(&mut all) {
            let (inputs, expected) = match lab.feed(cut, sample) {
                Ok(fed) => fed,
                Err(Stop::Engine(error)) => return Err(error.into()),
                Err(Stop::Limit(_)) => continue,
            };
            // A proof is kept until the report is written, so it must not keep the memory of what made it.
            let named = |(name, value, _): &(String, ValueId, usize)| Some((name.clone(), apart(expected.get(value)?)));
            let inputs: Tensors = inputs.iter().map(|(name, tensor)| (name.clone(), apart(tensor))).collect();
            feeds.push((inputs, cut.outputs.iter().filter_map(named).collect()));
        }
    }
    Ok(all)
}

/// Runs the cut of a fault: every sample, and the first once more, in one session.
pub fn gather(lab: &mut Lab, found: &Found, fed: &Feeds, index: usize) -> Proof {
    let graph = &lab.subject.model.graph;
    let mut assembly = cut(lab, found);
    let mut proof = Proof {
        fault: index,
        evidence: None,
        inputs: fed.iter().map(|(inputs, _)| inputs.clone()).collect(),
        expected: fed.iter().map(|(_, expected)| expected.clone()).collect(),
        model: assembly.model.clone(),
        nearby: super::nearby::around(graph, &found.nodes),
    };
    if found.failure.is_some() || fed.is_empty() {
        return proof;
    }
    let outputs = wrong_names(found, &assembly);
    lab.counts.compiles += 1;
    let Ok(mut session) = pieces::compile(lab.target, &mut assembly.model) else { return proof };
    let mut runs = Vec::new();
    for turn in 0..=fed.len() {
        let (inputs, right) = &fed[if turn == fed.len() { 0 } else { turn }];
        lab.counts.runs += 1;
        let Ok(wrong) = session.run(inputs) else { return proof };
        runs.push(Run { inputs: inputs.clone(), right: right.clone(), wrong });
    }
    // Confirmed is what differs here again, on its own.
    let again = |name: &String| {
        runs.iter().any(|run| match (run.right.get(name), run.wrong.get(name)) {
            (Some(right), Some(wrong)) => !super::judge::look(right, wrong).nothing,
            _ => true,
        })
    };
    let outputs = outputs.into_iter().filter(again).collect();
    proof.evidence = Some(Evidence { model: assembly.model, runs, outputs, rounds: lab.rounds() });
    proof
}

/// The outputs of the cut that were wrong when the fault was found.
fn wrong_names(found: &Found, assembly: &Assembly) -> Vec<String> {
    let wrong = |name: &str| found.seen.iter().any(|seen| seen.value == name && seen.wrong.is_some());
    assembly.outputs.iter().map(|(name, _, _)| name.clone()).filter(|name| wrong(name)).collect()
}

/// Whether the cut fails with the same code again.
pub fn fails_alike(lab: &mut Lab, found: &Found, failure: &Failure) -> bool {
    let graph = &lab.subject.model.graph;
    let piece = match found.fused {
        true => Piece::closed(graph, &found.nodes),
        false => Piece::open(graph, &found.nodes),
    };
    match lab.probe(&[piece], PIECES) {
        Ok(Outcome::Failed(again)) => again.is_like(failure),
        _ => false,
    }
}
