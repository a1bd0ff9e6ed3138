//! Finds known faults in a model: the patterns of a target's quirks, where device and toolchain are those they strike.

use super::schema::{Quirk, Target};
use super::{Answer, QuirkHit, Setting};
use crate::graph::{Graph, Model, NodeId};
use crate::rewrite::{Matcher, MatcherError};

/// What is wrong with a quirk's pattern or predicate, and where in it.
pub struct Mistake {
    /// The text that holds the mistake, as it stands in the file.
    pub text: String,
    /// The place in that text.
    pub span: Option<std::ops::Range<usize>>,
    /// What is wrong.
    pub message: String,
    /// What was expected.
    pub expected: String,
}

/// Reads a quirk's pattern and predicates.
pub fn compile(quirk: &Quirk) -> Result<Matcher, Mistake> {
    let conditions: Vec<&str> = quirk.conditions.iter().collect();
    Matcher::parse(quirk.pattern.trim_end(), &conditions).map_err(|error| match error {
        MatcherError::Match(error) => {
            // Of a pattern over several lines only the line with the mistake can be underlined: YAML indents it.
            let start = quirk.pattern[..error.span.start.min(quirk.pattern.len())].rfind('\n').map_or(0, |at| at + 1);
            let line = quirk.pattern[start..].lines().next().unwrap_or_default().to_string();
            let span = error.span.start - start..(error.span.end - start).min(line.len());
            let message = error.to_string();
            Mistake { span: Some(span), text: line, message, expected: "here".into() }
        }
        MatcherError::Where { index, error } => Mistake {
            text: conditions.get(index).copied().unwrap_or_default().to_string(),
            span: error.span.clone(),
            message: error.to_string(),
            expected: "expected a predicate over what the pattern captures".into(),
        },
    })
}

impl Quirk {
    /// Whether the fault is one of this device and this version of the toolchain.
    pub fn strikes(&self, setting: &Setting) -> bool {
        let device = self.devices.is_empty() || self.devices.contains(&setting.device.name);
        device && setting.version().is_none_or(|version| self.versions.contains(&version))
    }
}

/// The quirks that a model hits, for this device and toolchain.
pub fn find(model: &Model, target: &Target, setting: &Setting) -> Vec<QuirkHit> {
    let mut hits = Vec::new();
    for quirk in target.quirks.iter().filter(|quirk| quirk.strikes(setting)) {
        let conditions: Vec<&str> = quirk.conditions.iter().collect();
        let Ok(matcher) = Matcher::parse_unchecked(quirk.pattern.trim_end(), &conditions) else { continue };
        let (mut nodes, mut ids) = (Vec::new(), Vec::new());
        search(&matcher, &model.graph, model.opset(), &mut |graph, found, top| {
            nodes.push(graph.label(found));
            ids.push(top.unwrap_or(found));
        });
        if nodes.is_empty() {
            continue;
        }
        ids.sort_unstable();
        ids.dedup();
        hits.push(QuirkHit {
            id: quirk.id.clone(),
            what: quirk.what.clone(),
            symptom: quirk.symptom.clone(),
            answer: quirk.answer.as_deref().map(Answer::of),
            reference: quirk.reference.clone(),
            mark: quirk.mark,
            nodes,
            ids,
        });
    }
    hits
}

/// Reports the last node of every match, with the node of the main graph around it where it is in a subgraph.
fn search(matcher: &Matcher, graph: &Graph, opset: i64, report: &mut dyn FnMut(&Graph, NodeId, Option<NodeId>)) {
    // A predicate that makes no sense for what was captured proves nothing, so the quirk is not reported there.
    for found in matcher.find(graph, opset).unwrap_or_default() {
        if let Some(&last) = found.nodes.last() {
            report(graph, last, None);
        }
    }
    for (id, node) in graph.nodes() {
        for (_, inner) in node.subgraphs() {
            search(matcher, inner, opset, &mut |graph, found, _| report(graph, found, Some(id)));
        }
    }
}
