//! Looking for a pattern in a graph. Starts at the nodes that could be the pattern's last one and follows shared
//! values, trying both orders of operands that commute; a match counts only if nothing outside it needs what it hides.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cel::Value as CelValue;

use super::expr::{self, ExpressionError, Outcome, Scope};
use super::operators;
use super::pattern::{AttributeTest, Literal, Pattern, PatternInput, PatternNode, PatternOutput};
use super::rule::Predicate;
use super::template::Template;
use crate::graph::{AttributeValue, Dim, Graph, Node, NodeId, ValueId};
use crate::onnx::{DType, Tensor};

/// Larger constants than this are not handed to expressions value by value.
const LARGEST_VALUE: usize = 1 << 16;

/// What a captured value stands for.
#[derive(Debug, Clone)]
pub enum Bound {
    /// A value of the graph.
    Value(ValueId),
    /// A constant that an old opset holds as an attribute.
    Virtual(Arc<Tensor>),
    /// An optional input that was left out.
    Absent,
}

/// A place where a pattern fits.
#[derive(Debug, Clone)]
pub struct Match {
    /// The matched nodes, in the pattern's order.
    pub nodes: Vec<NodeId>,
    pub(super) values: Vec<Bound>,
    pub(super) lists: Vec<Vec<Bound>>,
    pub(super) attributes: Vec<AttributeValue>,
}

#[derive(Clone)]
struct Partial {
    nodes: Vec<Option<NodeId>>,
    values: Vec<Option<Bound>>,
    lists: Vec<Option<Vec<Bound>>>,
    attributes: Vec<Option<AttributeValue>>,
}

/// A graph ready to be searched: its nodes by operator.
pub struct Index {
    by_operator: HashMap<String, Vec<NodeId>>,
}

impl Index {
    /// Indexes the nodes in topological order.
    pub fn new(graph: &Graph) -> Self {
        let mut by_operator: HashMap<String, Vec<NodeId>> = HashMap::new();
        for (id, node) in graph.nodes() {
            match by_operator.get_mut(&node.op_type) {
                Some(list) => list.push(id),
                None => {
                    by_operator.insert(node.op_type.clone(), vec![id]);
                }
            }
        }
        Index { by_operator }
    }

    /// Whether every node of the pattern has a candidate.
    pub fn could_match(&self, pattern: &Pattern) -> bool {
        pattern.nodes.iter().all(|node| node.operators.iter().any(|operator| self.by_operator.contains_key(operator)))
    }

    /// The nodes that could be the pattern's anchor, in topological order.
    pub fn anchors(&self, graph: &Graph, pattern: &Pattern) -> Vec<NodeId> {
        let operators = &pattern.anchor().operators;
        let lists = operators.iter().filter_map(|operator| self.by_operator.get(operator));
        let mut all: Vec<NodeId> = lists.flatten().copied().filter(|id| graph.contains(*id)).collect();
        if operators.len() > 1 {
            let place: HashMap<NodeId, usize> = graph.nodes().enumerate().map(|(place, (id, _))| (id, place)).collect();
            all.sort_by_key(|id| place.get(id).copied());
        }
        all
    }
}

/// Searches one graph for one pattern.
pub struct Search<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// Its opset.
    pub opset: i64,
    /// The pattern.
    pub pattern: &'a Pattern,
    /// What must hold.
    pub predicates: &'a [Predicate],
    /// The replacement, which has to make again what it hides from others; none hides nothing.
    pub template: Option<&'a Template>,
}

/// A predicate that cannot be evaluated: which, and why.
pub type PredicateError = (usize, ExpressionError);

impl Search<'_> {
    /// The match at this anchor, if there is one.
    ///
    /// # Errors
    /// A predicate that makes no sense for what was captured.
    pub fn at(&self, anchor: NodeId) -> Result<Option<Match>, PredicateError> {
        let pattern = self.pattern;
        let empty = Partial {
            nodes: vec![None; pattern.nodes.len()],
            values: vec![None; pattern.values.len()],
            lists: vec![None; pattern.lists.len()],
            attributes: vec![None; pattern.attributes.len()],
        };
        let mut budget = 10_000;
        self.step(0, anchor, &empty, &mut budget)
    }

    /// Tries `id` as the node that comes at `step` of the pattern's order, and then the rest.
    fn step(
        &self,
        step: usize,
        id: NodeId,
        partial: &Partial,
        budget: &mut usize,
    ) -> Result<Option<Match>, PredicateError> {
        if *budget == 0 || partial.nodes.contains(&Some(id)) {
            return Ok(None);
        }
        *budget -= 1;
        let wanted = &self.pattern.nodes[self.pattern.order[step]];
        let swaps: &[bool] = if wanted.inputs.len() == 2 && operators::commutes(&self.graph.node(id).op_type) {
            &[false, true]
        } else {
            &[false]
        };
        for &swap in swaps {
            let mut next = partial.clone();
            next.nodes[self.pattern.order[step]] = Some(id);
            if self.node(wanted, id, swap, &mut next)
                && let Some(found) = self.next(step + 1, &next, budget)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn next(&self, step: usize, partial: &Partial, budget: &mut usize) -> Result<Option<Match>, PredicateError> {
        let Some(&index) = self.pattern.order.get(step) else { return self.finish(partial) };
        let wanted = &self.pattern.nodes[index];
        let mut candidates: Vec<NodeId> = Vec::new();
        let bound = |slot: usize| match partial.values.get(slot) {
            Some(Some(Bound::Value(id))) => Some(*id),
            _ => None,
        };
        let output = wanted.outputs.iter().find_map(|output| match output {
            PatternOutput::Value(slot) | PatternOutput::Optional(slot) => bound(*slot),
            _ => None,
        });
        if let Some(value) = output {
            candidates.extend(self.graph.producer(value));
        } else if let Some(value) = wanted.inputs.iter().find_map(|input| match input {
            PatternInput::Value { slot, .. } => bound(*slot),
            _ => None,
        }) {
            candidates.extend_from_slice(self.graph.consumers(value));
            candidates.dedup();
        }
        for id in candidates {
            if let Some(found) = self.step(step, id, partial, budget)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn node(&self, wanted: &PatternNode, id: NodeId, swap: bool, partial: &mut Partial) -> bool {
        let node = self.graph.node(id);
        let domain = if node.is_standard() { "" } else { node.domain.as_str() };
        wanted.operators.contains(&node.op_type)
            && wanted.domain == domain
            && operators::means_the_same(self.graph, node, self.opset)
            && self.outputs(wanted, node, partial)
            && self.inputs(wanted, node, swap, partial)
            && self.attributes(wanted, node, partial)
    }

    fn outputs(&self, wanted: &PatternNode, node: &Node, partial: &mut Partial) -> bool {
        let mut left = node.outputs.iter();
        for output in &wanted.outputs {
            match output {
                PatternOutput::List(slot) => {
                    let Some(all) = left.by_ref().copied().collect::<Option<Vec<_>>>() else { return false };
                    partial.lists[*slot] = Some(all.into_iter().map(Bound::Value).collect());
                }
                PatternOutput::Value(slot) => match left.next().copied().flatten() {
                    Some(value) if self.bind(*slot, Bound::Value(value), partial) => {}
                    _ => return false,
                },
                PatternOutput::Optional(slot) => {
                    let bound = left.next().copied().flatten().map_or(Bound::Absent, Bound::Value);
                    if !self.bind(*slot, bound, partial) {
                        return false;
                    }
                }
                PatternOutput::Unused => {
                    if left.next().copied().flatten().is_some_and(|value| !self.graph.is_unused(value)) {
                        return false;
                    }
                }
            }
        }
        left.flatten().all(|value| self.graph.is_unused(*value))
    }

    /// The node's inputs as the newest opset has them.
    fn modern_inputs(&self, node: &Node) -> Vec<Bound> {
        let mut inputs: Vec<Bound> =
            node.inputs.iter().map(|input| input.map_or(Bound::Absent, Bound::Value)).collect();
        if let Some(moved) = moved_here(node, self.opset)
            && let Some(tensor) = node.attr(moved.attribute).and_then(operators::as_input)
        {
            inputs.resize_with(inputs.len().max(moved.input + 1), || Bound::Absent);
            inputs[moved.input] = Bound::Virtual(Arc::new(tensor));
        }
        while matches!(inputs.last(), Some(Bound::Absent)) {
            inputs.pop();
        }
        inputs
    }

    /// Whether a constant gives an elementwise result more dimensions than the other operand has: it is not its number
    /// alone, then, that it stands for.
    fn adds_dimensions(&self, constant: &Tensor, node: &Node) -> bool {
        let elementwise = ["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"].contains(&node.op_type.as_str());
        let rank = constant.dims().len();
        elementwise && rank > 0 && {
            let others = node.reads().filter(|&value| self.graph.constant(value).is_none());
            let ranks: Option<Vec<usize>> = others.map(|value| self.graph.value(value).rank()).collect();
            ranks.is_none_or(|ranks| ranks.into_iter().max().is_some_and(|most| rank > most))
        }
    }

    fn inputs(&self, wanted: &PatternNode, node: &Node, swap: bool, partial: &mut Partial) -> bool {
        let mut inputs = self.modern_inputs(node);
        if swap {
            if inputs.len() != 2 {
                return false;
            }
            inputs.swap(0, 1);
        }
        let mut left = inputs.into_iter();
        for input in &wanted.inputs {
            let fits = match input {
                PatternInput::Absent => matches!(left.next(), None | Some(Bound::Absent)),
                PatternInput::Any { optional } => {
                    *optional || matches!(left.next(), Some(Bound::Value(_) | Bound::Virtual(_)))
                }
                PatternInput::List(slot) => {
                    partial.lists[*slot] = Some(left.by_ref().collect());
                    true
                }
                PatternInput::Value { slot, optional } => {
                    let bound = left.next().unwrap_or(Bound::Absent);
                    (*optional || !matches!(bound, Bound::Absent)) && self.bind(*slot, bound, partial)
                }
                PatternInput::Constant(literal) => match left.next() {
                    Some(Bound::Value(value)) => self
                        .graph
                        .constant(value)
                        .is_some_and(|tensor| equals(literal, &tensor) && !self.adds_dimensions(&tensor, node)),
                    Some(Bound::Virtual(tensor)) => equals(literal, &tensor),
                    _ => false,
                },
            };
            if !fits {
                return false;
            }
            if matches!(input, PatternInput::Any { optional: true }) {
                left.next();
            }
        }
        left.all(|bound| matches!(bound, Bound::Absent))
    }

    fn bind(&self, slot: usize, bound: Bound, partial: &mut Partial) -> bool {
        match &partial.values[slot] {
            None => {
                partial.values[slot] = Some(bound);
                true
            }
            Some(before) => match (before, &bound) {
                (Bound::Value(a), Bound::Value(b)) => a == b,
                (Bound::Absent, Bound::Absent) => true,
                _ => false,
            },
        }
    }

    fn attributes(&self, wanted: &PatternNode, node: &Node, partial: &mut Partial) -> bool {
        for (name, test) in &wanted.attributes {
            let value = node.attr(name).cloned().or_else(|| operators::default(self.graph, node, name, self.opset));
            let Some(value) = value else { return false };
            match test {
                AttributeTest::Equals(expected) => {
                    if !operators::same(&value, expected) {
                        return false;
                    }
                }
                AttributeTest::Capture(slot) => match &partial.attributes[*slot] {
                    Some(before) if !operators::same(before, &value) => return false,
                    _ => partial.attributes[*slot] = Some(value),
                },
            }
        }
        let moved = moved_here(node, self.opset).map(|moved| moved.attribute);
        wanted.open
            || node.attributes.iter().all(|attribute| {
                let name = attribute.name.as_str();
                wanted.attributes.iter().any(|(known, _)| known == name)
                    || moved == Some(name)
                    || operators::ignorable(&node.op_type, name)
                    || operators::default(self.graph, node, name, self.opset)
                        .is_some_and(|default| operators::same(&default, &attribute.value))
            })
    }

    fn finish(&self, partial: &Partial) -> Result<Option<Match>, PredicateError> {
        let nodes: Option<Vec<NodeId>> = partial.nodes.iter().copied().collect();
        let attributes: Option<Vec<AttributeValue>> = partial.attributes.iter().cloned().collect();
        let (Some(nodes), Some(attributes)) = (nodes, attributes) else { return Ok(None) };
        let found = Match {
            nodes,
            values: partial.values.iter().map(|value| value.clone().unwrap_or(Bound::Absent)).collect(),
            lists: partial.lists.iter().map(|list| list.clone().unwrap_or_default()).collect(),
            attributes,
        };
        if !self.hides_nothing(&found) {
            return Ok(None);
        }
        let scope = MatchScope { search: self, found: &found };
        for (index, predicate) in self.predicates.iter().enumerate() {
            if predicate.expression.holds(&scope).map_err(|error| (index, error))? != Outcome::Known(true) {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    /// Whether every value that the match makes and others use is made again by the replacement, and putting the
    /// replacement in one place makes no cycle.
    fn hides_nothing(&self, found: &Match) -> bool {
        let Some(template) = self.template else { return true };
        let mut kept: BTreeSet<ValueId> = BTreeSet::new();
        for name in &template.produced {
            if let Some(slot) = self.pattern.value(name)
                && let Bound::Value(id) = &found.values[slot]
            {
                kept.insert(*id);
            }
            if let Some(slot) = self.pattern.list(name) {
                kept.extend(
                    found.lists[slot]
                        .iter()
                        .filter_map(|bound| if let Bound::Value(id) = bound { Some(*id) } else { None }),
                );
            }
        }
        let mut leaving = 0;
        for (index, &id) in found.nodes.iter().enumerate() {
            if template.kept.contains(&index) {
                continue;
            }
            let mut leaves = false;
            for value in self.graph.node(id).writes() {
                let outside = self.graph.is_output(value)
                    || self.graph.consumers(value).iter().any(|consumer| !found.nodes.contains(consumer));
                if outside && !kept.contains(&value) {
                    return false;
                }
                leaves |= outside;
            }
            leaving += usize::from(leaves);
        }
        leaving <= 1 || self.is_convex(found)
    }

    /// Whether no path leaves the match and comes back.
    fn is_convex(&self, found: &Match) -> bool {
        let mut seen: BTreeSet<NodeId> = BTreeSet::new();
        let mut open: Vec<NodeId> = Vec::new();
        let follow = |id: NodeId, open: &mut Vec<NodeId>| {
            for value in self.graph.node(id).writes() {
                open.extend(self.graph.consumers(value));
            }
        };
        for &id in &found.nodes {
            for value in self.graph.node(id).writes() {
                open.extend(self.graph.consumers(value).iter().filter(|consumer| !found.nodes.contains(consumer)));
            }
        }
        while let Some(id) = open.pop() {
            if found.nodes.contains(&id) {
                return false;
            }
            if seen.insert(id) {
                follow(id, &mut open);
            }
        }
        true
    }
}

/// The attribute of this node that newer opsets have as an input.
fn moved_here(node: &Node, opset: i64) -> Option<operators::Moved> {
    if !node.is_standard() {
        return None;
    }
    operators::moved(&node.op_type).filter(|moved| opset < moved.since)
}

fn equals(literal: &Literal, tensor: &Tensor) -> bool {
    if literal.dtype.is_some_and(|dtype| dtype != tensor.dtype()) {
        return false;
    }
    let count = tensor.len();
    // A tensor of equal floats broadcasts, and then it is not the number alone that it stands for.
    if tensor.dtype().is_float() && count != literal.values.len() {
        return false;
    }
    if count == 0 || (count != literal.values.len() && literal.values.len() != 1) || count > LARGEST_VALUE {
        return false;
    }
    // Weights in half precision hold a constant such as 1/sqrt(2) only roughly.
    let tolerance = match tensor.dtype() {
        DType::Float16 => 1e-3,
        DType::Bfloat16 => 8e-3,
        _ => 1e-5,
    };
    let Ok(values) = tensor.to_f64s() else { return false };
    let close = |value: f64, wanted: f64| value == wanted || (value - wanted).abs() <= tolerance * wanted.abs();
    values.iter().enumerate().all(|(index, value)| {
        literal
            .values
            .get(if literal.values.len() == 1 { 0 } else { index })
            .is_some_and(|wanted| close(*value, *wanted))
    })
}

/// What predicates and replacements see of a match.
pub(super) struct MatchScope<'a> {
    pub(super) search: &'a Search<'a>,
    pub(super) found: &'a Match,
}

/// Captured values carry where they were captured, so that a loop over them finds its way back.
pub(super) const PLACE: &str = "@place";

impl MatchScope<'_> {
    /// The bound value that a CEL value stands for.
    pub(super) fn bound(&self, value: &CelValue) -> Option<Bound> {
        let CelValue::Map(map) = value else { return None };
        let key = cel::objects::Key::String(Arc::new(PLACE.to_string()));
        let Some(CelValue::Int(place)) = map.map.get(&key) else { return None };
        let (list, index) = ((place >> 32) as usize, (place & 0xffff_ffff) as usize);
        match list {
            0 => self.found.values.get(index).cloned(),
            list => self.found.lists.get(list - 1)?.get(index).cloned(),
        }
    }

    /// The bound value of a captured name.
    pub(super) fn named(&self, name: &str) -> Option<Bound> {
        self.search.pattern.value(name).and_then(|slot| self.found.values.get(slot).cloned())
    }
}

impl Scope for MatchScope<'_> {
    fn variable(&self, name: &str, fields: &BTreeSet<String>) -> Option<CelValue> {
        let pattern = self.search.pattern;
        if name == "opset" {
            return Some(CelValue::Int(self.search.opset));
        }
        if let Some(slot) = pattern.value(name) {
            return Some(value_fields(self.search.graph, &self.found.values[slot], slot as i64, fields));
        }
        if let Some(slot) = pattern.list(name) {
            let all = self.found.lists[slot].iter().enumerate().map(|(index, bound)| {
                value_fields(
                    self.search.graph,
                    bound,
                    ((slot as i64 + 1) << 32) | index as i64,
                    &BTreeSet::from(["*".to_string()]),
                )
            });
            return Some(CelValue::List(Arc::new(all.collect())));
        }
        if let Some(slot) = pattern.attribute(name) {
            return Some(attribute_value(&self.found.attributes[slot]));
        }
        let index = pattern.node(name)?;
        let node = self.search.graph.node(self.found.nodes[index]);
        let text = |text: &str| CelValue::String(Arc::new(text.to_string()));
        let map = HashMap::from([("op".to_string(), text(&node.op_type)), ("node_name".to_string(), text(&node.name))]);
        Some(CelValue::from(map))
    }
}

/// An attribute as CEL sees it.
fn attribute_value(value: &AttributeValue) -> CelValue {
    let text = |bytes: &[u8]| CelValue::String(Arc::new(String::from_utf8_lossy(bytes).into_owned()));
    match value {
        AttributeValue::Int(value) => CelValue::Int(*value),
        AttributeValue::Float(value) => CelValue::Float(f64::from(*value)),
        AttributeValue::String(bytes) => text(bytes),
        AttributeValue::Ints(values) => expr::integers(values.iter().copied()),
        AttributeValue::Floats(values) => {
            CelValue::List(Arc::new(values.iter().map(|value| CelValue::Float(f64::from(*value))).collect()))
        }
        AttributeValue::Strings(values) => CelValue::List(Arc::new(values.iter().map(|value| text(value)).collect())),
        _ => CelValue::Null,
    }
}

fn value_fields(graph: &Graph, bound: &Bound, place: i64, fields: &BTreeSet<String>) -> CelValue {
    let all = fields.contains("*");
    let mut map: HashMap<String, CelValue> = HashMap::new();
    let mut set = |name: &str, make: &dyn Fn() -> CelValue| {
        // A whole value is read by loops and functions, which want no contents of large constants.
        if fields.contains(name) || (all && !matches!(name, "min" | "max")) {
            map.insert(name.to_string(), make());
        }
    };
    let tensor = || match bound {
        Bound::Value(id) => graph.constant(*id),
        Bound::Virtual(tensor) => Some(tensor.clone()),
        Bound::Absent => None,
    };
    let id = if let Bound::Value(id) = bound { Some(*id) } else { None };
    let shape = || -> Option<Vec<Dim>> {
        match bound {
            Bound::Value(id) => graph
                .value(*id)
                .shape
                .clone()
                .or_else(|| tensor().map(|tensor| tensor.dims().iter().map(|size| Dim::Fixed(*size)).collect())),
            Bound::Virtual(tensor) => Some(tensor.dims().iter().map(|size| Dim::Fixed(*size)).collect()),
            Bound::Absent => None,
        }
    };
    let dtype = || match bound {
        Bound::Value(id) => graph.value(*id).dtype,
        Bound::Virtual(tensor) => Some(tensor.dtype()),
        Bound::Absent => None,
    };
    let or_null = |value: Option<CelValue>| value.unwrap_or(CelValue::Null);
    let dim = |dim: &Dim| dim.fixed().map_or(CelValue::Null, CelValue::Int);
    set("present", &|| CelValue::Bool(!matches!(bound, Bound::Absent)));
    set("shape", &|| or_null(shape().map(|dims| CelValue::List(Arc::new(dims.iter().map(dim).collect())))));
    set("rank", &|| or_null(shape().map(|dims| CelValue::Int(dims.len() as i64))));
    set("size", &|| {
        let sizes: Option<Vec<i64>> = shape().and_then(|dims| dims.iter().map(Dim::fixed).collect());
        let size = sizes.and_then(|sizes| sizes.into_iter().try_fold(1i64, i64::checked_mul));
        or_null(size.map(CelValue::Int))
    });
    set("dtype", &|| or_null(dtype().map(|dtype| CelValue::String(Arc::new(dtype.name().to_string())))));
    set("is_constant", &|| CelValue::Bool(tensor().is_some()));
    set("is_input", &|| CelValue::Bool(id.is_some_and(|id| graph.is_input(id) || graph.value(id).is_captured())));
    set("is_output", &|| CelValue::Bool(id.is_some_and(|id| graph.is_output(id))));
    set("uses", &|| CelValue::Int(id.map_or(0, |id| graph.consumers(id).len() as i64)));
    set("name", &|| CelValue::String(Arc::new(id.map(|id| graph.value(id).name.clone()).unwrap_or_default())));
    set("value", &|| {
        or_null(tensor().and_then(|tensor| contents(&tensor)).map(|values| CelValue::List(Arc::new(values))))
    });
    set("scalar", &|| {
        or_null(
            tensor()
                .filter(|tensor| tensor.len() == 1)
                .and_then(|tensor| contents(&tensor))
                .and_then(|mut values| values.pop()),
        )
    });
    set("min", &|| or_null(tensor().and_then(|tensor| extreme(&tensor, f64::min))));
    set("max", &|| or_null(tensor().and_then(|tensor| extreme(&tensor, f64::max))));
    map.insert(PLACE.to_string(), CelValue::Int(place));
    CelValue::from(map)
}

fn contents(tensor: &Tensor) -> Option<Vec<CelValue>> {
    if tensor.len() > LARGEST_VALUE {
        return None;
    }
    match tensor.to_i64s() {
        Ok(values) => Some(values.into_iter().map(CelValue::Int).collect()),
        Err(_) => tensor.to_f64s().ok().map(|values| values.into_iter().map(CelValue::Float).collect()),
    }
}

fn extreme(tensor: &Tensor, pick: fn(f64, f64) -> f64) -> Option<CelValue> {
    let best = tensor.to_f64s().ok()?.into_iter().reduce(pick)?;
    Some(if tensor.dtype().is_float() { CelValue::Float(best) } else { CelValue::Int(best as i64) })
}
