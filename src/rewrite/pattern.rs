//! The left side of a rule: nodes to look for, with captures.
//!
//! ```text
//! [c] conv = Conv <...> (x, w, b?)
//! y = BatchNormalization <epsilon = epsilon> (conv, scale, shift, mean, variance)
//! ```
//!
//! A name captures a value and is the same value everywhere; `b?` may be left out; `parts...` takes all that are
//! left; `_` matches anything. `<axis = axis>` captures an attribute, `<mode = "reflect">` asks for a value, and an
//! attribute that is not named must be at its default unless `<...>` says that any will do. `[c]` captures the node.

use std::collections::BTreeSet;

use crate::graph::AttributeValue;
use crate::onnx::DType;
use crate::text::ast::*;
use crate::text::parse::{self, Mode};
use crate::text::{Number, Span, TextError};

/// A name's place among the captures of its kind.
pub type Slot = usize;

/// A parsed pattern.
#[derive(Debug)]
pub struct Pattern {
    /// The nodes to find, as written.
    pub nodes: Vec<PatternNode>,
    /// The order to look for them in, anchor first.
    pub order: Vec<usize>,
    /// Names of captured values.
    pub values: Vec<String>,
    /// Names of captured lists of values.
    pub lists: Vec<String>,
    /// Names of captured attributes.
    pub attributes: Vec<String>,
}

/// One node of a pattern.
#[derive(Debug)]
pub struct PatternNode {
    /// Its capture.
    pub label: Option<String>,
    /// Its domain.
    pub domain: String,
    /// The operators that will do.
    pub operators: Vec<String>,
    /// The attributes asked for.
    pub attributes: Vec<(String, AttributeTest)>,
    /// Whether attributes that are not named may have any value.
    pub open: bool,
    /// Inputs in order.
    pub inputs: Vec<PatternInput>,
    /// Outputs in order.
    pub outputs: Vec<PatternOutput>,
}

/// What an attribute must be.
#[derive(Debug)]
pub enum AttributeTest {
    /// Anything: captured.
    Capture(Slot),
    /// This value.
    Equals(AttributeValue),
}

/// What an input must be.
#[derive(Debug)]
pub enum PatternInput {
    /// Left out.
    Absent,
    /// Anything, not captured.
    Any {
        /// Whether it may be left out.
        optional: bool,
    },
    /// A captured value.
    Value {
        /// The capture.
        slot: Slot,
        /// Whether it may be left out.
        optional: bool,
    },
    /// All inputs that are left.
    List(Slot),
    /// A constant with these values.
    Constant(Literal),
}

/// A constant in a pattern.
#[derive(Debug)]
pub struct Literal {
    /// The element type, when asked for.
    pub dtype: Option<DType>,
    /// The values; one value stands for a tensor of any shape filled with it.
    pub values: Vec<f64>,
}

/// What an output is.
#[derive(Debug)]
pub enum PatternOutput {
    /// Must not be used.
    Unused,
    /// A captured value.
    Value(Slot),
    /// A captured value that may be left out.
    Optional(Slot),
    /// All outputs that are left.
    List(Slot),
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Says line, column and what was expected.
    pub fn parse(source: &str) -> Result<Pattern, TextError> {
        let parsed = parse::nodes(source, 0..source.len(), Mode::Pattern)?;
        if parsed.is_empty() {
            return Err(TextError::new(source, 0..source.len(), "at least one node", "nothing"));
        }
        let mut builder =
            Builder { source, values: Vec::new(), lists: Vec::new(), attributes: Vec::new(), labels: Vec::new() };
        let nodes = parsed.iter().map(|node| builder.node(node)).collect::<Result<Vec<_>, _>>()?;
        let order = order(&nodes);
        if let Some(lost) = (0..nodes.len()).find(|index| !order.contains(index)) {
            let span = parsed[lost].span.clone();
            return Err(TextError::new(
                source,
                span,
                "nodes that share a captured value with the others",
                "one that stands alone",
            ));
        }
        Ok(Pattern { nodes, order, values: builder.values, lists: builder.lists, attributes: builder.attributes })
    }

    /// The node to start looking from: the last one written.
    pub fn anchor(&self) -> &PatternNode {
        &self.nodes[self.order[0]]
    }

    /// Every name that an expression may read.
    pub fn names(&self) -> BTreeSet<String> {
        let labels = self.nodes.iter().filter_map(|node| node.label.clone());
        let names = self.values.iter().chain(&self.lists).chain(&self.attributes).cloned();
        names.chain(labels).chain(["opset".to_string()]).collect()
    }

    /// The captured value's slot.
    pub fn value(&self, name: &str) -> Option<Slot> {
        self.values.iter().position(|known| known == name)
    }

    /// The captured list's slot.
    pub fn list(&self, name: &str) -> Option<Slot> {
        self.lists.iter().position(|known| known == name)
    }

    /// The captured attribute's slot.
    pub fn attribute(&self, name: &str) -> Option<Slot> {
        self.attributes.iter().position(|known| known == name)
    }

    /// The captured node's place.
    pub fn node(&self, label: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.label.as_deref() == Some(label))
    }

    /// Whether a node of the pattern produces the value.
    pub fn produces(&self, slot: Slot) -> bool {
        self.nodes.iter().flat_map(|node| &node.outputs).any(
            |output| matches!(output, PatternOutput::Value(other) | PatternOutput::Optional(other) if *other == slot),
        )
    }
}

/// The order to look for nodes in: from the last one along shared values, producers first.
fn order(nodes: &[PatternNode]) -> Vec<usize> {
    let reads = |node: &PatternNode| -> Vec<Slot> {
        node.inputs
            .iter()
            .filter_map(|input| if let PatternInput::Value { slot, .. } = input { Some(*slot) } else { None })
            .collect()
    };
    let writes = |node: &PatternNode| -> Vec<Slot> {
        node.outputs
            .iter()
            .filter_map(|output| match output {
                PatternOutput::Value(slot) | PatternOutput::Optional(slot) => Some(*slot),
                _ => None,
            })
            .collect()
    };
    let mut order = vec![nodes.len() - 1];
    let mut bound: BTreeSet<Slot> =
        reads(&nodes[nodes.len() - 1]).into_iter().chain(writes(&nodes[nodes.len() - 1])).collect();
    loop {
        let left = || (0..nodes.len()).rev().filter(|index| !order.contains(index));
        let producer = left().find(|index| writes(&nodes[*index]).iter().any(|slot| bound.contains(slot)));
        let next =
            producer.or_else(|| left().find(|index| reads(&nodes[*index]).iter().any(|slot| bound.contains(slot))));
        let Some(next) = next else { return order };
        bound.extend(reads(&nodes[next]));
        bound.extend(writes(&nodes[next]));
        order.push(next);
    }
}

struct Builder<'s> {
    source: &'s str,
    values: Vec<String>,
    lists: Vec<String>,
    attributes: Vec<String>,
    labels: Vec<String>,
}

fn slot(names: &mut Vec<String>, name: &str) -> Slot {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_string());
        names.len() - 1
    })
}

impl Builder<'_> {
    fn error(&self, span: Span, expected: &str, found: &str) -> TextError {
        TextError::new(self.source, span, expected, found)
    }

    /// A name captures one kind of thing.
    fn claim(&self, name: &Name, kind: &str) -> Result<(), TextError> {
        let kinds =
            [("value", &self.values), ("list", &self.lists), ("attribute", &self.attributes), ("node", &self.labels)];
        for (other, names) in kinds {
            if other != kind && names.contains(&name.text) {
                let found = format!("`{}`, which captures a {other} already", name.text);
                return Err(self.error(name.span.clone(), "a name of its own", &found));
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &NodeAst) -> Result<PatternNode, TextError> {
        if let Some(label) = &node.label {
            self.claim(label, "node")?;
            self.labels.push(label.text.clone());
        }
        let mut inputs = Vec::new();
        for (index, input) in node.inputs.iter().enumerate() {
            inputs.push(self.input(input, index + 1 == node.inputs.len())?);
        }
        let mut outputs = Vec::new();
        for (index, output) in node.outputs.iter().enumerate() {
            outputs.push(self.output(output, index + 1 == node.outputs.len())?);
        }
        let mut attributes = Vec::new();
        for attribute in &node.attributes {
            attributes.push((attribute.name.text.clone(), self.attribute(attribute)?));
        }
        if let Some(RestAst { of: Some(of), span }) = &node.rest {
            return Err(self.error(span.clone(), "`...` alone in a pattern", &format!("`...{of}`")));
        }
        Ok(PatternNode {
            label: node.label.as_ref().map(|label| label.text.clone()),
            domain: node.domain.clone(),
            operators: node.operators.iter().map(|operator| operator.text.clone()).collect(),
            attributes,
            open: node.rest.is_some(),
            inputs,
            outputs,
        })
    }

    fn input(&mut self, input: &InputAst, last: bool) -> Result<PatternInput, TextError> {
        match input {
            InputAst::Absent(_) => Ok(PatternInput::Absent),
            InputAst::Value { name, optional, .. } if name.text == "_" => Ok(PatternInput::Any { optional: *optional }),
            InputAst::Value { name, variadic: true, .. } => {
                if !last {
                    return Err(self.error(name.span.clone(), "`...` on the last input only", "one before the last"));
                }
                self.claim(name, "list")?;
                Ok(PatternInput::List(slot(&mut self.lists, &name.text)))
            }
            InputAst::Value { name, optional, .. } => {
                self.claim(name, "value")?;
                Ok(PatternInput::Value { slot: slot(&mut self.values, &name.text), optional: *optional })
            }
            InputAst::Constant(tensor) => self.literal(tensor).map(PatternInput::Constant),
        }
    }

    fn literal(&self, tensor: &TensorAst) -> Result<Literal, TextError> {
        let Data::Numbers(numbers) = &tensor.data else {
            return Err(self.error(tensor.span.clone(), "numbers", "other data"));
        };
        let dtype = match &tensor.kind {
            Some(TypeAst { element: Element::Named(dtype), .. }) => Some(*dtype),
            _ => None,
        };
        Ok(Literal { dtype, values: numbers.iter().map(|number| number.as_f64()).collect() })
    }

    fn output(&mut self, output: &OutputAst, last: bool) -> Result<PatternOutput, TextError> {
        if output.name.text.is_empty() || output.name.text == "_" {
            return Ok(PatternOutput::Unused);
        }
        if output.variadic {
            if !last {
                return Err(self.error(
                    output.name.span.clone(),
                    "`...` on the last output only",
                    "one before the last",
                ));
            }
            self.claim(&output.name, "list")?;
            return Ok(PatternOutput::List(slot(&mut self.lists, &output.name.text)));
        }
        self.claim(&output.name, "value")?;
        let slot = slot(&mut self.values, &output.name.text);
        Ok(if output.optional { PatternOutput::Optional(slot) } else { PatternOutput::Value(slot) })
    }

    fn attribute(&mut self, attribute: &AttributeAst) -> Result<AttributeTest, TextError> {
        if let AttributeValueAst::Name(name) = &attribute.value {
            self.claim(name, "attribute")?;
            return Ok(AttributeTest::Capture(slot(&mut self.attributes, &name.text)));
        }
        literal_attribute(&attribute.value).map(AttributeTest::Equals).ok_or_else(|| {
            self.error(
                attribute.span.clone(),
                "a name to capture, a number, a string or a list of them",
                "another value",
            )
        })
    }
}

/// The attribute value behind plain numbers, strings and lists of them.
pub fn literal_attribute(value: &AttributeValueAst) -> Option<AttributeValue> {
    match value {
        AttributeValueAst::Number(Number::Int(value)) => Some(AttributeValue::Int(*value)),
        AttributeValueAst::Number(Number::Float(value)) => Some(AttributeValue::Float(*value as f32)),
        AttributeValueAst::String(text) => Some(AttributeValue::from(text.as_str())),
        AttributeValueAst::List(items) => {
            let items: Vec<AttributeValue> = items.iter().map(literal_attribute).collect::<Option<_>>()?;
            if items.iter().all(|item| matches!(item, AttributeValue::Int(_))) {
                return Some(AttributeValue::Ints(
                    items
                        .iter()
                        .filter_map(|item| if let AttributeValue::Int(value) = item { Some(*value) } else { None })
                        .collect(),
                ));
            }
            if items.iter().all(|item| matches!(item, AttributeValue::String(_))) {
                return Some(AttributeValue::Strings(
                    items
                        .into_iter()
                        .filter_map(|item| if let AttributeValue::String(value) = item { Some(value) } else { None })
                        .collect(),
                ));
            }
            let floats: Vec<f32> = items
                .iter()
                .map(|item| match item {
                    AttributeValue::Int(value) => Some(*value as f32),
                    AttributeValue::Float(value) => Some(*value),
                    _ => None,
                })
                .collect::<Option<_>>()?;
            Some(AttributeValue::Floats(floats))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_parses() {
        let pattern = Pattern::parse(
            "[c] conv = Conv <group = group, ...> (x, w, b?)\n\
             parts... = Split <axis = axis> (conv, sizes?)\n\
             y = com.microsoft.Gelu | Relu (conv)\n\
             z = Resize <mode = \"nearest\"> (y, , scales, _?)\n\
             u = Concat <axis = 1> (z, rest...)",
        )
        .unwrap();
        assert_eq!(pattern.nodes.len(), 5);
        assert_eq!(pattern.nodes[2].operators, ["Gelu", "Relu"]);
        assert_eq!(pattern.nodes[2].domain, "com.microsoft");
        assert_eq!(pattern.order, [4, 3, 2, 0, 1]);
        assert!(pattern.names().contains("group") && pattern.names().contains("parts"));
    }

    #[test]
    fn mistakes_are_told() {
        let told = |source: &str| Pattern::parse(source).unwrap_err().to_string();
        assert_eq!(told("y = Relu x)"), "line 1, column 10: expected `(`, found `x`");
        assert_eq!(
            told("y = Relu (x)\nz = Relu (u)"),
            "line 1, column 1: expected nodes that share a captured value with the others, found one that stands alone"
        );
        assert_eq!(
            told("y = Concat <axis = x> (x)"),
            "line 1, column 20: expected a name of its own, found `x`, which captures a value already"
        );
    }
}
