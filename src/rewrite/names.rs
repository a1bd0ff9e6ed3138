//! Which names a replacement reads and assigns, checked against what its pattern captures.

use std::collections::BTreeSet;

use super::expr::ExpressionError;
use super::pattern::{Pattern, PatternInput, PatternNode, PatternOutput};
use super::template::{Statement, Template, TemplateInput, TemplateOutput, TemplateValue};
use crate::text::{Span, TextError};

/// The nodes of the pattern whose outputs the replacement reads without making them, and those before them.
pub(super) fn kept(template: &Template, pattern: &Pattern) -> BTreeSet<usize> {
    let mut read = BTreeSet::new();
    reads(&template.body, &mut read);
    let mut wanted: Vec<usize> = read.difference(&template.produced).filter_map(|name| pattern.value(name)).collect();
    let mut kept = BTreeSet::new();
    while let Some(slot) = wanted.pop() {
        let makes = |node: &PatternNode| {
            node.outputs.iter().any(|output| {
                matches!(output, PatternOutput::Value(other) | PatternOutput::Optional(other) if *other == slot)
            })
        };
        if let Some(index) = pattern.nodes.iter().position(makes)
            && kept.insert(index)
        {
            wanted.extend(pattern.nodes[index].inputs.iter().filter_map(|input| match input {
                PatternInput::Value { slot, .. } => Some(*slot),
                _ => None,
            }));
        }
    }
    kept
}

fn reads(body: &[Statement], names: &mut BTreeSet<String>) {
    for statement in body {
        match statement {
            Statement::Node(node) => names.extend(node.inputs.iter().filter_map(|input| match input {
                TemplateInput::Value(name) => Some(name.clone()),
                _ => None,
            })),
            Statement::Alias { from, .. } => {
                names.insert(from.clone());
            }
            Statement::Let { .. } => {}
            Statement::For { body, .. } => reads(body, names),
            Statement::If { then, otherwise, .. } => {
                reads(then, names);
                reads(otherwise, names);
            }
        }
    }
}

/// Checks that names exist where they are read, and collects the pattern's outputs that are assigned.
pub(super) fn check(
    source: &str,
    body: &[Statement],
    pattern: &Pattern,
    names: &mut BTreeSet<String>,
    produced: &mut BTreeSet<String>,
) -> Result<(), TextError> {
    let missing = |name: &str, what: &str| {
        let at = source.find(name).unwrap_or(0);
        TextError::new(source, at..at + name.len(), what, &format!("`{name}`"))
    };
    for statement in body {
        match statement {
            Statement::Node(node) => {
                for label in node.label.iter().chain(&node.attributes_of) {
                    if pattern.node(label).is_none() {
                        return Err(missing(label, "a node that the pattern captures as `[name]`"));
                    }
                }
                for input in &node.inputs {
                    if let TemplateInput::Value(name) | TemplateInput::List(name) = input
                        && !names.contains(name)
                    {
                        return Err(missing(name, "a captured value or one assigned before"));
                    }
                }
                for output in &node.outputs {
                    match output {
                        TemplateOutput::Absent => {}
                        TemplateOutput::Value(name) => assign(name, pattern, names, produced),
                        TemplateOutput::List(name) if pattern.list(name).is_some() => {
                            produced.insert(name.clone());
                        }
                        TemplateOutput::List(name) => return Err(missing(name, "a captured list of outputs")),
                    }
                }
            }
            Statement::Alias { to, from } => {
                if !names.contains(from) {
                    return Err(missing(from, "a captured value or one assigned before"));
                }
                assign(to, pattern, names, produced);
            }
            Statement::Let { name, .. } => {
                names.insert(name.clone());
            }
            Statement::For { names: loops, list, body, .. } => {
                names.extend(loops.iter().cloned());
                // A loop over a captured list may assign its parts.
                let over: Vec<String> = list.names().map(|all| all.map(str::to_string).collect()).unwrap_or_default();
                check(source, body, pattern, names, produced)?;
                for list in over.iter().filter(|name| pattern.list(name).is_some()) {
                    if loops.iter().any(|name| assigns(body, name)) {
                        produced.insert(list.clone());
                    }
                }
            }
            Statement::If { then, otherwise, .. } => {
                check(source, then, pattern, names, produced)?;
                check(source, otherwise, pattern, names, produced)?;
            }
        }
    }
    Ok(())
}

fn assign(name: &str, pattern: &Pattern, names: &mut BTreeSet<String>, produced: &mut BTreeSet<String>) {
    if pattern.value(name).is_some_and(|slot| pattern.produces(slot)) {
        produced.insert(name.to_string());
    }
    names.insert(name.to_string());
}

fn assigns(body: &[Statement], name: &str) -> bool {
    body.iter().any(|statement| match statement {
        Statement::Node(node) => {
            node.outputs.iter().any(|output| matches!(output, TemplateOutput::Value(other) if other == name))
        }
        Statement::Alias { to, .. } => to == name,
        Statement::Let { .. } => false,
        Statement::For { body, .. } => assigns(body, name),
        Statement::If { then, otherwise, .. } => assigns(then, name) || assigns(otherwise, name),
    })
}

pub(super) fn check_expressions(
    body: &[Statement],
    names: &mut BTreeSet<String>,
) -> Result<(), (Span, ExpressionError)> {
    let inside = |span: &Span, error: ExpressionError, shift: usize| {
        let place = error.span.clone().map(|inner| {
            let start = (span.start + inner.start.saturating_sub(shift)).min(span.end);
            start..(span.start + inner.end.saturating_sub(shift)).clamp(start, span.end.max(start))
        });
        (place.unwrap_or_else(|| span.clone()), error)
    };
    for statement in body {
        match statement {
            Statement::Node(node) => {
                for attribute in &node.attributes {
                    if let TemplateValue::Computed(expression, span) = &attribute.value {
                        expression.check(names).map_err(|error| inside(span, error, 0))?;
                    }
                }
                for input in &node.inputs {
                    if let TemplateInput::Constant { values, span, .. } = input {
                        // The expression stands in brackets of our own.
                        values.check(names).map_err(|error| inside(span, error, 1))?;
                    }
                }
                names.extend(node.outputs.iter().filter_map(|output| match output {
                    TemplateOutput::Value(name) => Some(name.clone()),
                    _ => None,
                }));
            }
            Statement::Alias { to, .. } => {
                names.insert(to.clone());
            }
            Statement::Let { name, value, span } => {
                value.check(names).map_err(|error| inside(span, error, 0))?;
                names.insert(name.clone());
            }
            Statement::For { names: loops, list, span, body } => {
                list.check(names).map_err(|error| inside(span, error, 0))?;
                names.extend(loops.iter().cloned());
                check_expressions(body, names)?;
            }
            Statement::If { condition, span, then, otherwise } => {
                condition.check(names).map_err(|error| inside(span, error, 0))?;
                check_expressions(then, names)?;
                check_expressions(otherwise, names)?;
            }
        }
    }
    Ok(())
}
