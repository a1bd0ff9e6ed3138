//! A rule's examples are its tests: the rule is applied to the graph before, what comes out must be the graph after
//! but for the names of new values, and both are run and compared.

use std::collections::HashMap;

use super::apply::{ApplyError, Options, apply};
use super::prove::{self, Proof, ProofError};
use super::rule::{Action, Example, Rule};
use crate::engine::{Engine, EngineError};
use crate::graph::{AttributeValue, Graph, Model, Node, ValueId};
use crate::onnx::Tensor;
use crate::text::{self, Style};

/// How one example went.
#[derive(Debug)]
pub struct Checked {
    /// Which example, from 1.
    pub number: usize,
    /// What it shows.
    pub shows: Option<String>,
    /// The comparison of both sides, where the graph changes.
    pub proof: Option<Proof>,
    /// Why the two sides were compared as text alone: the engine lacks an operator of the example.
    pub unproven: Option<String>,
    /// What is wrong.
    pub problem: Option<String>,
}

/// Runs the examples of a rule. One that the partition carries out is tried there: none of its examples come back.
pub fn check(rule: &Rule, engine: &dyn Engine) -> Vec<Checked> {
    match rule.does.is_some_and(Action::is_of_the_partition) {
        true => Vec::new(),
        false => each(rule, &|example| one(rule, example, engine)),
    }
}

/// The examples of a rule, tried as `try_one` tries one.
pub fn each(rule: &Rule, try_one: &dyn Fn(&Example) -> Result<Compared, String>) -> Vec<Checked> {
    let each = rule.examples.iter().enumerate().map(|(index, example)| {
        let mut checked =
            Checked { number: index + 1, shows: example.shows.clone(), proof: None, unproven: None, problem: None };
        match try_one(example) {
            Ok(Compared::Run(proof)) => checked.proof = Some(proof),
            Ok(Compared::AsText(why)) => checked.unproven = Some(why),
            Ok(Compared::Unchanged) => {}
            Err(problem) => checked.problem = Some(problem),
        }
        checked
    });
    each.collect()
}

/// How an example that holds was seen to hold.
#[derive(Debug)]
pub enum Compared {
    /// Both sides were run.
    Run(Proof),
    /// Both sides are the same text; the engine lacks an operator.
    AsText(String),
    /// The rule left it alone, as it should.
    Unchanged,
}

fn one(rule: &Rule, example: &Example, engine: &dyn Engine) -> Result<Compared, String> {
    let before = text::parse_model(&example.before).map_err(|error| format!("before: {error}"))?;
    let mut changed = before.clone();
    let applied = apply(&mut changed, &[rule], &Options::default()).map_err(|error| match error {
        ApplyError::Rule(error) => error.to_string(),
        other => other.to_string(),
    })?;
    changed.graph.prune();
    let style = Style { labels: false, ..Style::default() };
    let Some(after) = &example.after else {
        return if applied.is_empty() {
            Ok(Compared::Unchanged)
        } else {
            Err(format!(
                "the rule must leave this alone, but makes of it\n{}",
                text::print_graph(&changed.graph, style)
            ))
        };
    };
    let mut after = text::parse_model(after).map_err(|error| format!("after: {error}"))?;
    after.graph.prune();
    super::fold_constants(&mut changed);
    super::fold_constants(&mut after);
    if applied.is_empty() && rule.does.is_none() {
        return Err("the rule finds nothing here".to_string());
    }
    same(&changed.graph, &after.graph).map_err(|difference| {
        let (got, wanted) = (text::print_graph(&changed.graph, style), text::print_graph(&after.graph, style));
        format!("{difference}\nthe rule makes\n{got}\nthe example says\n{wanted}")
    })?;
    let proof = match prove::compare(&before, &changed, engine) {
        Ok(proof) => proof,
        Err(ProofError::Run { error: error @ EngineError::Unsupported { .. }, .. }) => {
            return Ok(Compared::AsText(error.to_string()));
        }
        Err(error) => return Err(error.to_string()),
    };
    if !proof.is_within(&rule.keeps) {
        return Err(format!(
            "keeps: {}, but the largest difference is {:e} (relative {:e})",
            rule.keeps, proof.max_abs, proof.relative
        ));
    }
    let complete: Model = after;
    let both = prove::compare(&before, &complete, engine).map_err(|error| error.to_string())?;
    if !both.is_within(&rule.keeps) {
        return Err(format!("the graph after differs by {:e}", both.max_abs));
    }
    Ok(Compared::Run(proof))
}

/// Whether two graphs are the same but for the names of inner values and nodes.
///
/// # Errors
/// The first difference, in words.
pub fn same(a: &Graph, b: &Graph) -> Result<(), String> {
    let mut pairs = Pairs { a, b, known: HashMap::new() };
    if a.inputs.len() != b.inputs.len() || a.outputs.len() != b.outputs.len() {
        return Err("inputs or outputs differ in number".to_string());
    }
    for (x, y) in a.inputs.iter().zip(&b.inputs) {
        if a.value(*x).name != b.value(*y).name {
            return Err(format!("input {} is {} in the example", a.value(*x).name, b.value(*y).name));
        }
        pairs.known.insert(*x, *y);
    }
    if a.node_count() != b.node_count() {
        return Err(format!("{} nodes, but {} in the example", a.node_count(), b.node_count()));
    }
    for (x, y) in a.outputs.iter().zip(&b.outputs) {
        if a.value(*x).name != b.value(*y).name {
            return Err(format!("output {} is {} in the example", a.value(*x).name, b.value(*y).name));
        }
        pairs.value(*x, *y)?;
    }
    Ok(())
}

struct Pairs<'g> {
    a: &'g Graph,
    b: &'g Graph,
    known: HashMap<ValueId, ValueId>,
}

impl Pairs<'_> {
    fn value(&mut self, x: ValueId, y: ValueId) -> Result<(), String> {
        if let Some(known) = self.known.get(&x) {
            return if *known == y { Ok(()) } else { Err(format!("{} is wired otherwise", self.a.value(x).name)) };
        }
        self.known.insert(x, y);
        match (self.a.constant(x), self.b.constant(y)) {
            (Some(x), Some(y)) => return same_tensor(&x, &y),
            (None, None) => {}
            _ => return Err(format!("{} is a constant on one side only", self.a.value(x).name)),
        }
        let (a, b) = (self.a, self.b);
        let (Some(p), Some(q)) = (a.producer(x), b.producer(y)) else {
            let same = a.value(x).name == b.value(y).name && a.producer(x).is_none() && b.producer(y).is_none();
            return if same { Ok(()) } else { Err(format!("{} is not made by a node on both sides", a.value(x).name)) };
        };
        let (p, q) = (a.node(p), b.node(q));
        if p.op_type != q.op_type || p.domain != q.domain {
            return Err(format!("{} stands where the example has {}", p.op_type, q.op_type));
        }
        same_attributes(p, q)?;
        if p.inputs.len() != q.inputs.len() || p.outputs.len() != q.outputs.len() {
            return Err(format!("{} has {} inputs, {} in the example", p.op_type, p.inputs.len(), q.inputs.len()));
        }
        for (x, y) in p.inputs.iter().zip(&q.inputs).chain(p.outputs.iter().zip(&q.outputs)) {
            match (x, y) {
                (Some(x), Some(y)) => self.value(*x, *y)?,
                (None, None) => {}
                _ => return Err(format!("{} leaves out another input", p.op_type)),
            }
        }
        Ok(())
    }
}

fn same_attributes(p: &Node, q: &Node) -> Result<(), String> {
    for (one, other) in [(p, q), (q, p)] {
        for attribute in &one.attributes {
            let equal = match (&attribute.value, other.attr(&attribute.name)) {
                (_, None) => false,
                (AttributeValue::Tensor(x), Some(AttributeValue::Tensor(y))) => same_tensor(x, y).is_ok(),
                (AttributeValue::Graph(x), Some(AttributeValue::Graph(y))) => {
                    same(x, y).map_err(|difference| format!("in {}: {difference}", attribute.name))?;
                    true
                }
                (value, Some(wanted)) => super::operators::same(value, wanted),
            };
            if !equal {
                return Err(format!("{} differs in the attribute {}", p.op_type, attribute.name));
            }
        }
    }
    Ok(())
}

fn same_tensor(x: &Tensor, y: &Tensor) -> Result<(), String> {
    let show = |tensor: &Tensor| format!("{}{:?}", tensor.dtype().name(), tensor.dims());
    if x.dtype() != y.dtype() || x.dims() != y.dims() {
        return Err(format!("a constant is {}, {} in the example", show(x), show(y)));
    }
    let (Ok(a), Ok(b)) = (x.to_f64s(), y.to_f64s()) else { return Ok(()) };
    let close = |(x, y): (&f64, &f64)| x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= 1e-6 * x.abs().max(1.0);
    if a.iter().zip(&b).all(close) { Ok(()) } else { Err(format!("a constant {} has other values", show(x))) }
}
