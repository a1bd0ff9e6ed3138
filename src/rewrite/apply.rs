//! Applying rules to a model: in the order given, each until it finds nothing more, and all of them again until none
//! does. Every application is noted, with the piece of graph before and after where the caller wants to prove it.

use std::collections::{BTreeSet, HashSet};

use super::emit;
use super::locate::Step;
use super::matching::{Index, Search};
use super::place::Made;
use super::rule::{Action, Case, Keeps, Rule, RuleError};
use crate::graph::{Graph, Model, Node, NodeId, ValueId};

/// How rules are applied.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether the pieces before and after are kept, for [`super::prove`].
    pub record: bool,
    /// How often the whole list of rules may find something new.
    pub rounds: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { record: true, rounds: 12 }
    }
}

/// One application of a rule.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The rule.
    pub rule: String,
    /// What the rule promises.
    pub keeps: Keeps,
    /// The nodes that were matched.
    pub nodes: Vec<String>,
    /// The nodes that took their place.
    pub new_nodes: Vec<String>,
    /// The piece before, as a model of its own.
    pub before: Option<Model>,
    /// The piece after, with the same inputs and outputs.
    pub after: Option<Model>,
}

/// Why rules could not be applied.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)] // each message says it
pub enum ApplyError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Rule(#[from] Box<RuleError>),
    #[error(
        "rule {rule} does not settle: after {count} applications it still finds something; does its replacement match its own pattern?"
    )]
    #[diagnostic(help("last matched: {last}"))]
    Unsettled { rule: String, count: usize, last: String },
    #[error("rule {rule} left a graph that makes no sense: {problem}")]
    Broken { rule: String, problem: String },
}

/// Applies rules to a model until none finds anything more.
///
/// # Errors
/// A rule that does not settle, or whose expressions make no sense for what they met.
pub fn apply(model: &mut Model, rules: &[&Rule], options: &Options) -> Result<Vec<Applied>, ApplyError> {
    let mut all = Vec::new();
    let mut constant = false;
    let opset = model.opset();
    let bound = 1000 + 4 * model.graph.node_count();
    let shell = model.with_graph(Graph::new(""));
    // What is wrong from the start is not the rules' doing, and others say so.
    let sound = super::know_shapes(model).is_ok();
    for round in 0.. {
        let before = all.len();
        for rule in rules {
            if rule.does == Some(Action::FoldConstants) {
                super::fold_constants(model);
            }
            let start = all.len();
            loop {
                let mut pass = Pass { rule, opset, options, shell: &shell, all: &mut all, constant: &mut constant };
                if !pass.graph(&mut model.graph)? {
                    break;
                }
                if let Err(problem) = super::know_shapes(model)
                    && sound
                {
                    return Err(ApplyError::Broken { rule: rule.name.clone(), problem });
                }
                if all.len() - start > bound || (round + 1 >= options.rounds && all.len() > before) {
                    let last = all.last().map(|applied| applied.nodes.join(", ")).unwrap_or_default();
                    return Err(ApplyError::Unsettled { rule: rule.name.clone(), count: all.len() - start, last });
                }
            }
        }
        if all.len() == before {
            break;
        }
        model.graph.prune();
    }
    if constant {
        // Arithmetic that a replacement does on weights is done now, once.
        super::fold_constants(model);
    }
    Ok(all)
}

/// One pass of one rule over a graph and its subgraphs.
struct Pass<'a> {
    rule: &'a Rule,
    opset: i64,
    options: &'a Options,
    /// A model without graph, to put pieces into.
    shell: &'a Model,
    all: &'a mut Vec<Applied>,
    /// Whether some new node reads constants alone.
    constant: &'a mut bool,
}

impl Pass<'_> {
    fn graph(&mut self, graph: &mut Graph) -> Result<bool, ApplyError> {
        let mut changed = self.subgraphs(graph)?;
        let rule = self.rule;
        let index = Index::new(graph);
        let mut names: Option<HashSet<String>> = None;
        let mut here = false;
        for (number, case) in rule.cases.iter().enumerate() {
            if !index.could_match(&case.pattern) {
                continue;
            }
            for anchor in index.anchors(graph, &case.pattern) {
                if graph.contains(anchor) && self.one(graph, number, case, anchor, &mut names)? {
                    here = true;
                }
            }
        }
        if here {
            graph.sort().map_err(|error| ApplyError::Broken { rule: rule.name.clone(), problem: error.to_string() })?;
        }
        changed |= here;
        Ok(changed)
    }

    fn subgraphs(&mut self, graph: &mut Graph) -> Result<bool, ApplyError> {
        let mut changed = false;
        let holders: Vec<NodeId> =
            graph.nodes().filter(|(_, node)| node.subgraphs().next().is_some()).map(|(id, _)| id).collect();
        for id in holders {
            let mut here = false;
            // The node's graphs are changed apart from the graph around, which then looks at its captures again.
            for inner in graph.node_mut(id).subgraphs_mut() {
                if self.graph(inner)? {
                    inner.prune();
                    here = true;
                }
            }
            if here {
                graph.refresh_captures(id);
                changed = true;
            }
        }
        Ok(changed)
    }

    fn one(
        &mut self,
        graph: &mut Graph,
        number: usize,
        case: &Case,
        anchor: NodeId,
        names: &mut Option<HashSet<String>>,
    ) -> Result<bool, ApplyError> {
        let search = Search {
            graph,
            opset: self.opset,
            pattern: &case.pattern,
            predicates: &case.predicates,
            template: Some(&case.template),
        };
        let found = search.at(anchor).map_err(|(index, error)| {
            let case_path = [Step::Key("cases"), Step::Item(number), Step::Key("where"), Step::Item(index)];
            let path = if self.rule.cases.len() == 1 { &case_path[2..] } else { &case_path[..] };
            self.rule.error("where", path, &error)
        })?;
        let Some(found) = found else { return Ok(false) };
        let plan = emit::plan(&search, &found, &case.template).map_err(|error| {
            let case_path = [Step::Key("cases"), Step::Item(number), Step::Key("replace")];
            let path = if self.rule.cases.len() == 1 { &case_path[2..] } else { &case_path[..] };
            self.rule.error("replace", path, &error)
        })?;
        let Some(plan) = plan else { return Ok(false) };
        let removed = emit::removed(&found, &case.template);
        let leaving = leaving(graph, &removed);
        if !leaving.iter().all(|value| plan.makes(*value)) {
            return Ok(false);
        }
        let labels: Vec<String> = found.nodes.iter().map(|id| graph.label(*id)).collect();
        let before = self.options.record.then(|| piece(graph, &found.nodes, &leaving));
        let taken = names.get_or_insert_with(|| graph.nodes().map(|(_, node)| node.name.clone()).collect());
        let last = last_of(graph, &found.nodes).unwrap_or(anchor);
        let made = plan.carry_out(graph, &found, &removed, last, taken);
        *self.constant |=
            made.nodes.iter().any(|id| graph.node(*id).reads().all(|value| graph.constant(value).is_some()));
        let kept: Vec<NodeId> = found.nodes.iter().copied().filter(|id| !removed.contains(id)).collect();
        let new_nodes = made.nodes.iter().map(|id| graph.label(*id)).collect();
        let (before, after) = match before {
            Some(before) => {
                let names: Vec<String> = before.outputs.iter().map(|id| before.value(*id).name.clone()).collect();
                let after = piece_after(graph, &made, &kept, &leaving, &names);
                (Some(self.shell.with_graph(before)), Some(self.shell.with_graph(after)))
            }
            None => (None, None),
        };
        self.all.push(Applied {
            rule: self.rule.name.clone(),
            keeps: self.rule.keeps.clone(),
            nodes: labels,
            new_nodes,
            before,
            after,
        });
        Ok(true)
    }
}

/// The values of a match that something outside uses.
fn leaving(graph: &Graph, removed: &[NodeId]) -> Vec<ValueId> {
    let inside: BTreeSet<NodeId> = removed.iter().copied().collect();
    let outside = |value: &ValueId| {
        graph.is_output(*value) || graph.consumers(*value).iter().any(|consumer| !inside.contains(consumer))
    };
    let made = removed.iter().flat_map(|id| graph.node(*id).writes().collect::<Vec<_>>());
    made.filter(outside).collect()
}

fn last_of(graph: &Graph, nodes: &[NodeId]) -> Option<NodeId> {
    match nodes {
        [one] => Some(*one),
        many => graph.nodes().rev().map(|(id, _)| id).find(|id| many.contains(id)),
    }
}

/// The nodes as a graph of their own, constants included.
fn piece(graph: &Graph, nodes: &[NodeId], outputs: &[ValueId]) -> Graph {
    let mut all = nodes.to_vec();
    for id in nodes {
        let constants = graph.node(*id).reads().filter_map(|value| graph.producer(value));
        all.extend(constants.filter(|producer| graph.node(*producer).is("Constant")).collect::<Vec<_>>());
    }
    graph.extract(&all, &[], outputs)
}

/// The piece that took another's place; outputs keep the names they had.
fn piece_after(graph: &Graph, made: &Made, kept: &[NodeId], leaving: &[ValueId], names: &[String]) -> Graph {
    let now: Vec<ValueId> = leaving
        .iter()
        .map(|value| made.aliases.iter().find(|alias| alias.to == *value).map_or(*value, |alias| alias.is))
        .collect();
    let nodes: Vec<NodeId> = made.nodes.iter().chain(kept).copied().collect();
    let mut after = piece(graph, &nodes, &now);
    let outputs = after.outputs.clone();
    for (index, id) in outputs.into_iter().enumerate() {
        let Some(aliased) = made.aliases.iter().find(|alias| alias.to == leaving[index]) else { continue };
        // What became another value is that value under its old name.
        let (dtype, shape) = (after.value(id).dtype, after.value(id).shape.clone());
        let name = names.get(index).cloned().unwrap_or_default();
        if after.value(id).name == name {
            after.rename(id, &aliased.name);
        }
        if after.producer(id).is_none() && !after.is_input(id) && after.initializer(id).is_none() {
            after.inputs.push(id);
        }
        let output = after.add_typed_value(&name, dtype, shape);
        after.add_node(Node::new("Identity", [id], [output]));
        after.outputs[index] = output;
    }
    after
}
