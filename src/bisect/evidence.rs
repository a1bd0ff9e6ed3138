//! Proof of a fault: its nodes cut out of the model, run alone on the target, with what went in and came out kept.

use super::pieces::{self, Piece};
use super::probe::{Failure, Lab, Outcome, PIECES, Stop};
use super::reference::apart;
use super::search::Found;
use super::{BisectError, Proof};
use crate::engine::Tensors;
use crate::fingerprint::{Evidence, Run};
use crate::graph::ValueId;

/// Cuts the nodes of a fault out and runs them: every sample, and the first once more, in one session. `None` where the
/// reference cannot feed the cut.
///
/// # Errors
/// The reference fails.
pub fn gather(lab: &mut Lab, found: &Found, index: usize) -> Result<Option<Proof>, BisectError> {
    let subject = lab.subject;
    let graph = &subject.model.graph;
    let piece = match found.fused {
        true => Piece::closed(graph, &found.nodes),
        false => Piece::open(graph, &found.nodes),
    };
    let assembly = pieces::assemble(&subject.model, std::slice::from_ref(&piece));
    let mut fed: Vec<(Tensors, Tensors)> = Vec::new();
    for sample in 0..subject.samples.len() {
        let (inputs, expected) = match lab.feed(&assembly, sample) {
            Ok(fed) => fed,
            Err(Stop::Engine(error)) => return Err(error.into()),
            Err(Stop::Limit(_)) => return Ok(None),
        };
        // A proof is kept until the report is written, so it must not keep the memory of what made it.
        let named = |(name, value, _): &(String, ValueId, usize)| Some((name.clone(), apart(expected.get(value)?)));
        let inputs: Tensors = inputs.iter().map(|(name, tensor)| (name.clone(), apart(tensor))).collect();
        let expected: Tensors = assembly.outputs.iter().filter_map(named).collect();
        fed.push((inputs, expected));
    }
    let mut proof = Proof {
        fault: index,
        evidence: None,
        inputs: fed.iter().map(|(inputs, _)| inputs.clone()).collect(),
        expected: fed.iter().map(|(_, expected)| expected.clone()).collect(),
        model: assembly.model.clone(),
        nearby: super::nearby::around(graph, &found.nodes),
    };
    if found.failure.is_some() {
        return Ok(Some(proof));
    }
    let outputs = wrong_names(found, &assembly);
    lab.counts.compiles += 1;
    let mut assembly = assembly;
    let Ok(mut session) = pieces::compile(lab.target, &mut assembly.model) else { return Ok(Some(proof)) };
    let mut runs = Vec::new();
    for turn in 0..=fed.len() {
        let (inputs, right) = &fed[if turn == fed.len() { 0 } else { turn }];
        lab.counts.runs += 1;
        let Ok(wrong) = session.run(inputs) else { return Ok(Some(proof)) };
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
    Ok(Some(proof))
}

/// The outputs of the cut that were wrong when the fault was found.
fn wrong_names(found: &Found, assembly: &pieces::Assembly) -> Vec<String> {
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
