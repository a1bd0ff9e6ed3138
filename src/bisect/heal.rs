//! Healing: the smallest set of rewrites with which the faulty regions, and then the whole model, agree with the reference.
//!
//! Rules that answer a matching known fault are tried first, then every rule that matches in the cut. What heals is written
//! as an overlay of the target, so that the next `prepare` applies it.

use super::judge;
use super::report::{Fault, Kind, Report};
use super::subject::Subject;
use super::{BisectError, Options, Proof, Suspect};
use crate::compare::Verdict;
use crate::engine::{Engine, Tensors};
use crate::graph::Model;
use crate::rewrite::{self, Rule, RuleSet};
use crate::target::{Conditions, Mark, Measured, Overlay, Quirk, Symptom, Target, Versions};

/// What was found to heal.
#[derive(Debug)]
pub struct Healed {
    /// The overlay, as a target file.
    pub overlay: Overlay,
    /// Whether the whole model agrees with all of the rules applied.
    pub whole: bool,
}

/// Tries rules on every fault, and all that help on the whole model. Notes the rule of each fault in the report.
///
/// # Errors
/// The reference does not run the model.
pub fn heal(
    model: &Model,
    report: &mut Report,
    proofs: &[Proof],
    reference: &dyn Engine,
    suspect: &Suspect,
    rules: &RuleSet,
    options: &Options,
) -> Result<Option<Healed>, BisectError> {
    let mut chosen: Vec<String> = Vec::new();
    let mut measured: Vec<(usize, Option<Measured>)> = Vec::new();
    for proof in proofs {
        let fault = &report.faults[proof.fault];
        // What already helped elsewhere comes first: the fewer rules, the better.
        let mut candidates = chosen.clone();
        candidates.extend(linked(fault, suspect.target));
        candidates.extend(rules.names().map(str::to_string));
        let mut tried: Vec<String> = Vec::new();
        for name in candidates {
            if tried.contains(&name) {
                continue;
            }
            tried.push(name.clone());
            let Some(rule) = rules.get(&name) else { continue };
            if let Some(after) = heals(rule, proof, reference, suspect) {
                // What failed has no error to measure.
                let before = fault.metrics.as_ref().map(|metrics| metrics.max_abs);
                measured.push((proof.fault, before.map(|before| Measured { before, after })));
                if !chosen.contains(&name) {
                    chosen.push(name.clone());
                }
                report.faults[proof.fault].rewrite = Some(name);
                break;
            }
        }
    }
    if chosen.is_empty() {
        return Ok(None);
    }
    let applied: Vec<&Rule> = chosen.iter().filter_map(|name| rules.get(name)).collect();
    let whole = whole_agrees(model, &applied, reference, suspect, options)?;
    let target = suspect.target.map_or_else(|| report.target_argument().to_string(), |target| target.name.clone());
    let quirks = measured
        .iter()
        .map(|(index, measured)| entry(&report.faults[*index], *index, suspect.target, measured.clone(), report))
        .collect::<Vec<_>>();
    let mut distinct: Vec<Quirk> = Vec::new();
    for quirk in quirks {
        if distinct.iter().all(|other| other.id != quirk.id) {
            distinct.push(quirk);
        }
    }
    let what = format!("Written by porter bisect of {} on {}.", report.model, report.target);
    let overlay = Overlay {
        overlay: target,
        what: Some(what),
        rewrites: chosen,
        quirks: distinct,
        operators: Default::default(),
    };
    Ok(Some(Healed { overlay, whole }))
}

/// Rules that a known fault names as its answer.
fn linked(fault: &Fault, target: Option<&Target>) -> Vec<String> {
    let Some(target) = target else { return Vec::new() };
    let own = target.quirks.iter().filter(|quirk| fault.quirk.as_ref() == Some(&quirk.id));
    own.filter_map(|quirk| quirk.answer.clone()).collect()
}

/// Whether the cut, rewritten by one rule, agrees on the target; the largest difference that is left.
fn heals(rule: &Rule, proof: &Proof, reference: &dyn Engine, suspect: &Suspect) -> Option<f64> {
    let mut cut = proof.model.clone();
    let settings = rewrite::Options { record: false, ..Default::default() };
    let applied = rewrite::apply(&mut cut, &[rule], &settings).ok()?;
    if applied.is_empty() {
        return None;
    }
    let mut session = suspect.engine.compile(&cut).ok()?;
    let mut worst: f64 = 0.0;
    for (inputs, expected) in proof.inputs.iter().zip(&proof.expected) {
        let outputs = session.run(inputs).ok()?;
        let all_near = expected
            .iter()
            .all(|(name, right)| outputs.get(name).is_some_and(|result| judge::look(right, result).nothing));
        let expectation = match all_near {
            true => None,
            false => Some(judge::expectation(reference, &proof.model, inputs, None, &suspect.precision).ok()?),
        };
        for (name, right) in expected {
            let result = outputs.get(name)?;
            if let Some(expectation) = &expectation {
                let setting = judge::Setting { engine: reference, model: &proof.model, inputs };
                let judged = judge::judge(setting, expectation, name, result, judge::Manner::Isolated);
                if judged.differs {
                    return None;
                }
            }
            worst = worst.max(crate::compare::metrics(right, result).ok()?.max_abs);
        }
    }
    Some(worst)
}

/// Whether the whole model, rewritten, gives on the target what the original gives on the reference.
fn whole_agrees(
    model: &Model,
    rules: &[&Rule],
    reference: &dyn Engine,
    suspect: &Suspect,
    options: &Options,
) -> Result<bool, BisectError> {
    let mut sizes = options.sizes.clone();
    // At the largest batch that was tried, where the search chose it.
    if super::searches_batches(model, options) {
        sizes.batch = options.batches.last().copied();
    }
    let subject = Subject::new(model.clone(), &sizes, &options.inputs, options.samples)?;
    let mut rewritten = subject.model.clone();
    let settings = rewrite::Options { record: false, ..Default::default() };
    if rewrite::apply(&mut rewritten, rules, &settings).is_err() {
        return Ok(false);
    }
    let Ok(mut session) = suspect.engine.compile(&rewritten) else { return Ok(false) };
    for inputs in &subject.samples {
        let Ok(outputs): Result<Tensors, _> = session.run(inputs) else { return Ok(false) };
        let expectation = judge::expectation(reference, &subject.model, inputs, None, &suspect.precision)?;
        if expectation.judge(&outputs).verdict == Verdict::Differs {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The fault as an entry of a target file: the known one, now measured, or one of its own.
fn entry(fault: &Fault, index: usize, target: Option<&Target>, measured: Option<Measured>, report: &Report) -> Quirk {
    let answer = fault.rewrite.clone();
    let known = target.and_then(|target| target.quirks.iter().find(|quirk| fault.quirk.as_ref() == Some(&quirk.id)));
    if let Some(quirk) = known {
        // It was seen with this toolchain, whatever versions it was reported for.
        return Quirk { measured, answer, mark: Mark::Measured, versions: Versions::default(), ..quirk.clone() };
    }
    let operator = fault.operators.last().cloned().unwrap_or_default();
    let symptom = match fault.kind {
        Kind::WrongValues | Kind::Nan => Symptom {
            silent: Some(fault.fingerprint.map_or("unknown", |shape| shape.name()).into()),
            code: None,
            slow: None,
            crash: None,
        },
        Kind::CompileError => {
            Symptom { silent: None, code: fault.code.clone().or(Some("error".into())), slow: None, crash: None }
        }
        Kind::Crash | Kind::Timeout => Symptom {
            silent: None,
            code: None,
            slow: None,
            crash: Some(fault.code.clone().unwrap_or_default().replace(':', " ")),
        },
    };
    Quirk {
        id: format!("bisect-{}", index + 1),
        what: format!("{operator} at {}: {}", fault.nodes.join(", "), fault.reason),
        pattern: format!("all... = {operator} <...> (inputs...)"),
        conditions: Conditions::None,
        devices: Vec::new(),
        versions: Versions::default(),
        symptom,
        answer,
        reference: format!("porter bisect of {} on {}", report.model, report.target),
        mark: Mark::Measured,
        measured,
    }
}
