//! Predicates of target files, and what they may read: a node with its tensors, or the model's facts.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cel::Value;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::attributes;
use super::facts::Facts;
use crate::graph::{AttributeValue, Graph, Node, ValueId};
use crate::rewrite::expr::{Expression, ExpressionError, Outcome, Scope, integers};

/// A CEL predicate, compiled once.
#[derive(Clone, Debug)]
pub struct Predicate(Arc<Expression>);

impl Predicate {
    /// A predicate from its source; nothing is checked yet.
    pub fn new(source: impl Into<String>) -> Self {
        Predicate(Arc::new(Expression::new(source)))
    }

    /// The text as written.
    pub fn source(&self) -> &str {
        self.0.source()
    }

    /// Compiles, and checks that it reads only what `known` allows.
    ///
    /// # Errors
    /// What is wrong, and where in the expression.
    pub fn check(&self, known: fn(&str) -> bool, expected: &str) -> Result<(), ExpressionError> {
        for name in self.0.names()? {
            if !known(name) {
                let span = self.0.source().find(name).map(|at| at..at + name.len());
                return Err(ExpressionError {
                    message: format!("'{name}' is not known here; there are {expected}"),
                    span,
                });
            }
        }
        Ok(())
    }

    /// Whether it holds. `None` where that depends on a size or a value that is not known yet.
    ///
    /// # Errors
    /// It makes no sense for what it was asked about: a type error, a field that does not exist.
    pub fn holds(&self, scope: &dyn Scope) -> Result<Option<bool>, ExpressionError> {
        Ok(match self.0.holds(scope)? {
            Outcome::Known(holds) => Some(holds),
            Outcome::Unknown => None,
        })
    }
}

impl Serialize for Predicate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.source())
    }
}

impl<'de> Deserialize<'de> for Predicate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Predicate::new)
    }
}

impl JsonSchema for Predicate {
    fn schema_name() -> Cow<'static, str> {
        "Predicate".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "A predicate in CEL." })
    }
}

/// A device's name and facts, as predicates see them.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// The name.
    pub name: String,
    /// What the target file says of it.
    pub facts: IndexMap<String, serde_json::Value>,
}

impl Device {
    fn value(&self, fields: &BTreeSet<String>) -> Value {
        let mut map: HashMap<String, Value> = HashMap::from([("name".to_string(), Value::from(self.name.clone()))]);
        for field in fields {
            let fact = self.facts.get(field).or_else(|| self.facts.get(&field.replace('_', "-")));
            if let Some(fact) = fact {
                map.insert(field.clone(), json(fact));
            }
        }
        complete(map, fields)
    }
}

fn json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(whole) => Value::Int(whole),
            None => number.as_f64().map_or(Value::Null, Value::Float),
        },
        serde_json::Value::String(text) => Value::from(text.clone()),
        _ => Value::Null,
    }
}

/// Fields that are asked for and not there are unknown, not mistakes.
fn complete(mut map: HashMap<String, Value>, fields: &BTreeSet<String>) -> Value {
    for field in fields {
        map.entry(field.clone()).or_insert(Value::Null);
    }
    Value::from(map)
}

/// What predicates over a model may read.
pub struct ModelScope<'a> {
    /// The model's facts, with the variant filled in.
    pub facts: &'a Facts,
    /// The device.
    pub device: &'a Device,
}

impl ModelScope<'_> {
    /// The names, for a reader.
    pub const NAMES: &'static str = "model and device";

    /// Whether there is such a name.
    pub fn knows(name: &str) -> bool {
        matches!(name, "model" | "device")
    }
}

impl Scope for ModelScope<'_> {
    fn variable(&self, name: &str, fields: &BTreeSet<String>) -> Option<Value> {
        match name {
            "device" => Some(self.device.value(fields)),
            "model" => {
                let facts = self.facts;
                let text = |text: &Option<String>| Value::from(text.clone().unwrap_or_default());
                let number = |number: Option<i64>| number.map_or(Value::Null, Value::Int);
                let map = HashMap::from([
                    ("family".to_string(), text(&facts.family)),
                    ("variant".to_string(), text(&facts.variant)),
                    ("task".to_string(), text(&facts.task)),
                    ("head".to_string(), text(&facts.head)),
                    ("end2end".to_string(), Value::Bool(facts.end2end == Some(true))),
                    ("parameters".to_string(), Value::Int(i64::try_from(facts.parameters).unwrap_or(i64::MAX))),
                    ("pixels".to_string(), Value::Int(facts.pixels)),
                    ("batch".to_string(), number(facts.batch)),
                    ("convolutional".to_string(), Value::Bool(facts.convolutional)),
                ]);
                Some(complete(map, fields))
            }
            _ => None,
        }
    }
}

/// What predicates over a node may read.
pub struct NodeScope<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The node.
    pub node: &'a Node,
    /// The model's opset.
    pub opset: i64,
    /// The device.
    pub device: &'a Device,
    /// Whether no weighted operator (convolution, matrix product) follows; `None` where nobody looked.
    pub tail: Option<bool>,
}

impl NodeScope<'_> {
    /// The names, for a reader.
    pub const NAMES: &'static str = "op, opset, attrs, inputs (how many), x and y (first input and output), in0, in1, ..., out0, ..., branches_alike, device, tail";

    /// Whether there is such a name.
    pub fn knows(name: &str) -> bool {
        matches!(name, "op" | "opset" | "attrs" | "inputs" | "x" | "y" | "branches_alike" | "device" | "tail")
            || position(name, "in").or_else(|| position(name, "out")).is_some()
    }

    fn attributes(&self, fields: &BTreeSet<String>) -> Value {
        let mut map = HashMap::new();
        for field in fields {
            let value = match self.node.attr(field) {
                Some(value) => attribute(value),
                None => match attributes::default_of(&self.node.op_type, field) {
                    Value::Null => self.spatial_default(field),
                    value => value,
                },
            };
            map.insert(field.clone(), value);
        }
        Value::from(map)
    }
}

impl NodeScope<'_> {
    /// Defaults with one entry for each spatial dimension.
    fn spatial_default(&self, field: &str) -> Value {
        let rank = |index| self.node.input(index).and_then(|id| self.graph.value(id).rank());
        let spatial = match self.node.ints("kernel_shape") {
            Some(kernel) => Some(kernel.len()),
            None => rank(0).or_else(|| rank(1)).and_then(|rank| rank.checked_sub(2)),
        };
        match (field, spatial) {
            ("dilations" | "strides", Some(spatial)) => integers(vec![1; spatial]),
            ("pads", Some(spatial)) => integers(vec![0; 2 * spatial]),
            ("output_padding", Some(spatial)) => integers(vec![0; spatial]),
            ("output_shape", _) => integers([]),
            _ => Value::Null,
        }
    }
}

/// Whether all subgraphs of a node give outputs of the same ranks and sizes, as far as those are known.
fn branches_alike(node: &Node) -> Option<bool> {
    let bodies: Vec<&Graph> = node.subgraphs().map(|(_, body)| body).collect();
    let Some((first, others)) = bodies.split_first() else { return Some(true) };
    let mut all_known = true;
    for other in others {
        for (&a, &b) in first.outputs.iter().zip(&other.outputs) {
            match (&first.value(a).shape, &other.value(b).shape) {
                (Some(a), Some(b)) if a.len() != b.len() => return Some(false),
                (Some(a), Some(b)) => {
                    let sizes = || a.iter().zip(b).map(|(a, b)| (a.fixed(), b.fixed()));
                    if sizes().any(|(a, b)| a.is_some() && b.is_some() && a != b) {
                        return Some(false);
                    }
                    all_known &= sizes().all(|(a, b)| a.is_some() && b.is_some());
                }
                _ => all_known = false,
            }
        }
    }
    all_known.then_some(true)
}

fn position(name: &str, kind: &str) -> Option<usize> {
    name.strip_prefix(kind)?.parse().ok()
}

fn attribute(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::Int(value) => Value::Int(*value),
        AttributeValue::Float(value) => Value::Float(f64::from(*value)),
        AttributeValue::String(value) => Value::from(String::from_utf8_lossy(value).into_owned()),
        AttributeValue::Ints(values) => integers(values.iter().copied()),
        AttributeValue::Floats(values) => {
            Value::List(Arc::new(values.iter().map(|&value| Value::Float(f64::from(value))).collect()))
        }
        AttributeValue::Strings(values) => Value::List(Arc::new(
            values.iter().map(|value| Value::from(String::from_utf8_lossy(value).into_owned())).collect(),
        )),
        _ => Value::Null,
    }
}

impl Scope for NodeScope<'_> {
    fn variable(&self, name: &str, fields: &BTreeSet<String>) -> Option<Value> {
        Some(match name {
            "op" => Value::from(self.node.op_type.clone()),
            "opset" => Value::Int(self.opset),
            "attrs" => self.attributes(fields),
            "inputs" => Value::Int(self.node.inputs.iter().flatten().count() as i64),
            "device" => self.device.value(fields),
            "tail" => self.tail.map_or(Value::Null, Value::Bool),
            "branches_alike" => branches_alike(self.node).map_or(Value::Null, Value::Bool),
            "x" => tensor(self.graph, self.node.input(0), fields),
            "y" => tensor(self.graph, self.node.output(0), fields),
            name => match (position(name, "in"), position(name, "out")) {
                (Some(index), _) => tensor(self.graph, self.node.input(index), fields),
                (_, Some(index)) => tensor(self.graph, self.node.output(index), fields),
                _ => return None,
            },
        })
    }
}

/// Constants up to this many elements are shown by value.
const SHOWN: usize = 1024;

/// A tensor as predicates see it: only the fields that are asked for.
fn tensor(graph: &Graph, id: Option<ValueId>, fields: &BTreeSet<String>) -> Value {
    let mut map = HashMap::from([("present".to_string(), Value::Bool(id.is_some()))]);
    let Some(id) = id else { return complete(map, fields) };
    let value = graph.value(id);
    let whole = fields.contains("*");
    let wants = |field: &str| whole || fields.contains(field);
    let mut set = |field: &str, value: Value| {
        map.insert(field.to_string(), value);
    };
    if wants("name") {
        set("name", Value::from(value.name.clone()));
    }
    if wants("dtype") {
        set("dtype", value.dtype.map_or(Value::Null, |dtype| Value::from(dtype.name().to_string())));
    }
    if wants("rank") {
        set("rank", value.rank().map_or(Value::Null, |rank| Value::Int(rank as i64)));
    }
    if wants("shape")
        && let Some(shape) = &value.shape
    {
        let dims = shape.iter().map(|dim| dim.fixed().map_or(Value::Null, Value::Int)).collect();
        set("shape", Value::List(Arc::new(dims)));
    }
    if wants("size")
        && let Some(shape) = value.static_shape()
    {
        set("size", shape.iter().try_fold(1i64, |n, &dim| n.checked_mul(dim)).map_or(Value::Null, Value::Int));
    }
    if wants("is_input") {
        set("is_input", Value::Bool(graph.is_input(id)));
    }
    if wants("is_output") {
        set("is_output", Value::Bool(graph.is_output(id)));
    }
    if wants("uses") {
        set("uses", Value::Int(graph.consumers(id).len() as i64));
    }
    let constant = graph.constant(id);
    if wants("is_constant") {
        set("is_constant", Value::Bool(constant.is_some()));
    }
    if let Some(tensor) = constant.filter(|tensor| tensor.len() <= SHOWN)
        && ["value", "scalar", "min", "max"].into_iter().any(&wants)
    {
        let numbers: Vec<Value> = if tensor.dtype().is_integer() {
            tensor.to_i64s().unwrap_or_default().into_iter().map(Value::Int).collect()
        } else {
            tensor.to_f64s().unwrap_or_default().into_iter().map(Value::Float).collect()
        };
        if wants("scalar") && numbers.len() == 1 {
            set("scalar", numbers[0].clone());
        }
        let extreme = |pick: fn(f64, f64) -> f64| {
            tensor.to_f64s().ok().and_then(|all| all.into_iter().reduce(pick)).map_or(Value::Null, Value::Float)
        };
        if wants("min") {
            set("min", extreme(f64::min));
        }
        if wants("max") {
            set("max", extreme(f64::max));
        }
        if wants("value") {
            set("value", Value::List(Arc::new(numbers)));
        }
    }
    complete(map, fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::builder::Build;
    use crate::onnx::DType;

    fn ask(source: &str) -> Result<Option<bool>, ExpressionError> {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[1, 8, -1, 16]);
        let w = build.weight("w", &[8, 8, 3, 3]);
        let y = build.node(Node::new("Conv", [x, w], []).named("conv").with("pads", vec![1, 1, 1, 1]));
        let model = build.finish(&[y]);
        let (_, node) = model.graph.nodes().next().unwrap();
        let device = Device { name: "trn2".into(), facts: IndexMap::from([("cores".to_string(), 8.into())]) };
        let scope = NodeScope { graph: &model.graph, node, opset: 18, device: &device, tail: Some(false) };
        let predicate = Predicate::new(source);
        predicate.check(NodeScope::knows, NodeScope::NAMES)?;
        predicate.holds(&scope)
    }

    #[test]
    fn nodes_are_read() {
        for yes in [
            "op == 'Conv' && opset >= 11",
            "x.rank == 4 && x.shape[1] == 8 && x.dtype == 'float'",
            "in1.is_constant && !x.is_constant && !in2.present",
            "attrs.pads == [1, 1, 1, 1] && attrs.group == 1 && attrs.auto_pad == 'NOTSET'",
            "device.name == 'trn2' && device.cores == 8 && !tail && inputs == 2",
            "in1.size == 576",
        ] {
            assert_eq!(ask(yes), Ok(Some(true)), "{yes}");
        }
        assert_eq!(ask("x.shape[2] == 4"), Ok(None));
        assert_eq!(ask("attrs.dilations == [1, 1]"), Ok(Some(true))); // not written, and the rank decides its default
        let error = ask("shape[0] == 1").unwrap_err();
        assert_eq!(error.span, Some(0..5));
        assert!(error.message.contains("in0, in1"));
    }
}
