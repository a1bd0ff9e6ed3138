//! From a parsed text to a graph. Values that nothing declares and no node makes are mistakes, and told with their place.

use std::collections::HashMap;

use super::ast::*;
use super::{Number, Span, TextError};
use crate::graph::{Attribute, AttributeValue, Dim, Graph, Model, Node, ValueId};
use crate::onnx::proto::StringStringEntryProto;
use crate::onnx::{DType, Tensor};

/// The opset of a text that does not say.
pub const DEFAULT_OPSET: i64 = 18;

/// Reads a model or a graph; without header it is of opset 18.
///
/// # Errors
/// Says line, column and what was expected.
pub fn model(source: &str) -> Result<Model, TextError> {
    let ast = super::parse::model(source)?;
    let graph = Builder { source, outer: &[] }.graph(&ast.graph)?;
    let opset = ast.opsets.iter().find(|(domain, _)| domain.is_empty()).map_or(DEFAULT_OPSET, |(_, version)| *version);
    let mut model = Model::new(graph, opset);
    for (domain, version) in ast.opsets {
        model.opsets.insert(domain, version);
    }
    if let Some(version) = ast.ir_version {
        model.ir_version = version;
    }
    model.metadata = ast
        .metadata
        .into_iter()
        .map(|(key, value)| StringStringEntryProto { key: Some(key), value: Some(value), ..Default::default() })
        .collect();
    Ok(model)
}

/// What is known of the values of a graph, by name.
type Known = HashMap<String, (Option<DType>, Option<Vec<Dim>>)>;

struct Builder<'a> {
    source: &'a str,
    /// Names of the graphs around, innermost last, with what is known of them.
    outer: &'a [Known],
}

impl Builder<'_> {
    fn error(&self, span: Span, expected: &str, found: &str) -> TextError {
        TextError::new(self.source, span, expected, found)
    }

    fn graph(&self, ast: &GraphAst) -> Result<Graph, TextError> {
        let mut graph = Graph::new(if ast.name.is_empty() { "graph" } else { &ast.name });
        for declared in &ast.inputs {
            let id = self.declare(&mut graph, declared)?;
            if declared.data.is_none() {
                graph.inputs.push(id);
            }
        }
        for declared in &ast.values {
            self.declare(&mut graph, declared)?;
        }
        // Outputs are known by name before the nodes that make them, so that their names stay.
        for node in &ast.nodes {
            for output in node.outputs.iter().filter(|output| !output.name.text.is_empty()) {
                let name = &output.name;
                match graph.value_named(&name.text) {
                    Some(id) if graph.is_input(id) || graph.constant(id).is_some() => {
                        return Err(self.error(
                            name.span.clone(),
                            "a name of its own",
                            &format!("`{}` again", name.text),
                        ));
                    }
                    Some(_) => {}
                    None => {
                        graph.add_value(&name.text);
                    }
                }
            }
        }
        let mut made: HashMap<ValueId, Span> = HashMap::new();
        for node in &ast.nodes {
            self.node(&mut graph, node, &mut made)?;
        }
        for declared in &ast.outputs {
            let name = &declared.name;
            let Some(id) = graph.value_named(&name.text).or_else(|| self.capture(&mut graph, &name.text)) else {
                return Err(self.error(
                    name.span.clone(),
                    "the output of a node, or an input",
                    &format!("`{}`", name.text),
                ));
            };
            if let Some(kind) = &declared.kind {
                self.set_type(&mut graph, id, kind)?;
            }
            graph.outputs.push(id);
        }
        let unmade =
            |id: &ValueId| graph.producer(*id).is_none() && graph.constant(*id).is_none() && !graph.is_input(*id);
        for declared in &ast.values {
            if let Some(id) = graph.value_named(&declared.name.text).filter(unmade) {
                let name = graph.value(id).name.clone();
                return Err(self.error(
                    declared.name.span.clone(),
                    "data, or a node that makes it",
                    &format!("`{name}` alone"),
                ));
            }
        }
        graph.sort().map_err(|error| self.error(ast.span.clone(), "a graph without cycles", &error.to_string()))?;
        Ok(graph)
    }

    fn declare(&self, graph: &mut Graph, declared: &Declared) -> Result<ValueId, TextError> {
        let name = &declared.name;
        if graph.value_named(&name.text).is_some() {
            return Err(self.error(name.span.clone(), "a name of its own", &format!("`{}` again", name.text)));
        }
        let id = graph.add_value(&name.text);
        if let Some(kind) = &declared.kind {
            self.set_type(graph, id, kind)?;
        }
        if let Some(data) = &declared.data {
            let tensor = self.tensor(&name.text, declared.kind.as_ref(), data, name.span.clone())?;
            graph.set_initializer(id, tensor);
        }
        Ok(id)
    }

    fn set_type(&self, graph: &mut Graph, id: ValueId, kind: &TypeAst) -> Result<(), TextError> {
        let value = graph.value_mut(id);
        value.dtype = Some(self.dtype(kind)?);
        if let Some(dims) = &kind.dims {
            value.shape = Some(
                dims.iter()
                    .map(|dim| match dim {
                        DimAst::Fixed(size) => Dim::Fixed(*size),
                        DimAst::Symbol(name) => Dim::Symbol(name.clone()),
                        DimAst::Unknown => Dim::Unknown,
                    })
                    .collect(),
            );
        }
        value.listed = true;
        Ok(())
    }

    fn dtype(&self, kind: &TypeAst) -> Result<DType, TextError> {
        match &kind.element {
            Element::Named(dtype) => Ok(*dtype),
            Element::Like(name) => Err(self.error(kind.span.clone(), "an element type", &format!("`{name}.dtype`"))),
        }
    }

    fn tensor(&self, name: &str, kind: Option<&TypeAst>, data: &Data, span: Span) -> Result<Tensor, TextError> {
        let count = match data {
            Data::Numbers(numbers) => numbers.len(),
            Data::Strings(strings) => strings.len(),
            _ => 1,
        };
        let dtype = match (kind, data) {
            (Some(kind), _) => self.dtype(kind)?,
            (None, Data::Strings(_)) => DType::String,
            (None, Data::Numbers(numbers)) if numbers.iter().all(|number| matches!(number, Number::Int(_))) => {
                DType::Int64
            }
            (None, _) => DType::Float,
        };
        let dims: Vec<i64> = match kind.and_then(|kind| kind.dims.as_ref()) {
            Some(dims) => dims
                .iter()
                .map(|dim| match dim {
                    DimAst::Fixed(size) => Ok(*size),
                    _ => Err(self.error(span.clone(), "fixed dimensions, since there is data", "open ones")),
                })
                .collect::<Result<_, _>>()?,
            // A lone typed number is a scalar, as in the format's own syntax.
            None if kind.is_some() && count == 1 => Vec::new(),
            None => vec![count as i64],
        };
        let expected = dims.iter().product::<i64>();
        if !matches!(data, Data::Elided) && count as i64 != expected {
            return Err(self.error(span, &format!("{expected} values, as the dimensions say"), &format!("{count}")));
        }
        let made = match data {
            Data::Strings(strings) => Some(Tensor {
                name: Some(name.to_string()),
                data_type: Some(DType::String.number()),
                dims: dims.clone(),
                string_data: strings.iter().map(|text| text.clone().into_bytes().into()).collect(),
                ..Default::default()
            }),
            Data::Numbers(numbers) if dtype.is_float() => {
                Tensor::from_f64s(name, dtype, &dims, &numbers.iter().map(|number| number.as_f64()).collect::<Vec<_>>())
            }
            Data::Numbers(numbers) => {
                let whole = |number: &Number| match number {
                    Number::Int(value) => *value,
                    Number::Float(value) => *value as i64,
                };
                Tensor::from_i64s(name, dtype, &dims, &numbers.iter().map(whole).collect::<Vec<_>>())
            }
            Data::Elided => elided(name, dtype, &dims),
            Data::Expression(_) => None,
        };
        made.ok_or_else(|| {
            self.error(span, "data that this element type can hold", &format!("`{}` data", dtype.name()))
        })
    }

    /// A value of an enclosing graph, made known here.
    fn capture(&self, graph: &mut Graph, name: &str) -> Option<ValueId> {
        let (dtype, shape) = self.outer.iter().rev().find_map(|names| names.get(name))?;
        Some(graph.add_captured(name, *dtype, shape.clone()))
    }

    fn node(&self, graph: &mut Graph, ast: &NodeAst, made: &mut HashMap<ValueId, Span>) -> Result<(), TextError> {
        let operator = ast.operators.first().map(|operator| operator.text.clone()).unwrap_or_default();
        let mut node = Node::new(operator, [], []);
        node.name = ast.label.as_ref().map(|label| label.text.clone()).unwrap_or_default();
        node.domain = ast.domain.clone();
        for input in &ast.inputs {
            node.inputs.push(match input {
                InputAst::Absent(_) => None,
                InputAst::Value { name, .. } => {
                    match graph.value_named(&name.text).or_else(|| self.capture(graph, &name.text)) {
                        Some(id) => Some(id),
                        None => {
                            let found = format!("`{}`, which nothing makes", name.text);
                            return Err(self.error(
                                name.span.clone(),
                                "an input, an initializer or a node's output",
                                &found,
                            ));
                        }
                    }
                }
                InputAst::Constant(constant) => {
                    let tensor = self.tensor("const", constant.kind.as_ref(), &constant.data, constant.span.clone())?;
                    Some(graph.add_initializer(tensor))
                }
            });
        }
        for output in &ast.outputs {
            let name = &output.name;
            let id = graph.value_named(&name.text).filter(|_| !name.text.is_empty());
            if let Some(id) = id
                && made.insert(id, name.span.clone()).is_some()
            {
                return Err(self.error(name.span.clone(), "a name of its own", &format!("`{}` again", name.text)));
            }
            node.outputs.push(id);
        }
        for attribute in &ast.attributes {
            let value = self.attribute(graph, attribute)?;
            node.attributes.push(Attribute::new(attribute.name.text.clone(), value));
        }
        graph.add_node(node);
        Ok(())
    }

    fn attribute(&self, graph: &mut Graph, ast: &AttributeAst) -> Result<AttributeValue, TextError> {
        let value = self.attribute_value(graph, &ast.value, &ast.span)?;
        let kind = ast.kind.as_ref().map(|kind| kind.text.as_str());
        Ok(match (value, kind) {
            // What the type says wins over how the number is written.
            (AttributeValue::Int(value), Some("float")) => AttributeValue::Float(value as f32),
            (AttributeValue::Ints(values), Some("floats")) => {
                AttributeValue::Floats(values.into_iter().map(|value| value as f32).collect())
            }
            (AttributeValue::Ints(values), Some("strings")) if values.is_empty() => AttributeValue::Strings(Vec::new()),
            (value, _) => value,
        })
    }

    fn attribute_value(
        &self,
        graph: &mut Graph,
        ast: &AttributeValueAst,
        span: &Span,
    ) -> Result<AttributeValue, TextError> {
        Ok(match ast {
            AttributeValueAst::Number(Number::Int(value)) => AttributeValue::Int(*value),
            AttributeValueAst::Number(Number::Float(value)) => AttributeValue::Float(*value as f32),
            AttributeValueAst::String(text) => AttributeValue::from(text.as_str()),
            AttributeValueAst::Tensor(tensor) => {
                AttributeValue::from(self.tensor("", tensor.kind.as_ref(), &tensor.data, tensor.span.clone())?)
            }
            AttributeValueAst::Graph(inner) => {
                let known = graph
                    .values()
                    .map(|(_, value)| (value.name.clone(), (value.dtype, value.shape.clone())))
                    .collect::<Known>();
                let mut outer = self.outer.to_vec();
                outer.push(known);
                AttributeValue::Graph(Box::new(Builder { source: self.source, outer: &outer }.graph(inner)?))
            }
            AttributeValueAst::Reference(name) => AttributeValue::Reference { to: name.clone(), kind: 0 },
            AttributeValueAst::List(items) => {
                let items =
                    items.iter().map(|item| self.attribute_value(graph, item, span)).collect::<Result<Vec<_>, _>>()?;
                list(items).ok_or_else(|| self.error(span.clone(), "a list of one kind", "a mixed one"))?
            }
            AttributeValueAst::Name(name) => {
                return Err(self.error(name.span.clone(), "a value", &format!("`{}`", name.text)));
            }
            AttributeValueAst::Expression(span) => return Err(self.error(span.clone(), "a value", "an expression")),
        })
    }
}

fn list(items: Vec<AttributeValue>) -> Option<AttributeValue> {
    macro_rules! all {
        ($kind:ident, $list:ident) => {
            if !items.is_empty() && items.iter().all(|item| matches!(item, AttributeValue::$kind(_))) {
                let inner = items.into_iter().filter_map(|item| match item {
                    AttributeValue::$kind(value) => Some(value),
                    _ => None,
                });
                return Some(AttributeValue::$list(inner.collect()));
            }
        };
    }
    if items.is_empty() {
        return Some(AttributeValue::Ints(Vec::new()));
    }
    all!(Int, Ints);
    all!(String, Strings);
    if items.iter().all(|item| matches!(item, AttributeValue::Tensor(_))) {
        let inner = items.into_iter().filter_map(|item| match item {
            AttributeValue::Tensor(tensor) => Some(*tensor),
            _ => None,
        });
        return Some(AttributeValue::Tensors(inner.collect()));
    }
    let floats = items.iter().map(|item| match item {
        AttributeValue::Int(value) => Some(*value as f32),
        AttributeValue::Float(value) => Some(*value),
        _ => None,
    });
    floats.collect::<Option<Vec<f32>>>().map(AttributeValue::Floats)
}

/// Fixed small values that depend on the name: what `{...}` reads as. Whole numbers are 0 or 1.
fn elided(name: &str, dtype: DType, dims: &[i64]) -> Option<Tensor> {
    let count = usize::try_from(dims.iter().product::<i64>()).ok()?;
    let mut state =
        name.bytes().fold(0x9e37_79b9_u32, |state, byte| state.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (f64::from(state >> 8) / f64::from(1u32 << 24) - 0.5) * 0.5
    };
    if dtype.is_float() {
        return Tensor::from_f64s(name, dtype, dims, &(0..count).map(|_| next()).collect::<Vec<_>>());
    }
    Tensor::from_i64s(name, dtype, dims, &(0..count).map(|_| i64::from(next() > 0.0)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_is_built_with_constants_in_place() {
        let model = model(
            "<opset_import: [\"\" : 13]>\n\
             g (float[2,6,N] x, float[?] z) => (float[2,2,N] a, b)\n\
             <float[2] w = {1, 2.5}, int64 axis = {1}>\n\
             { [split] a, b = Split <axis = 1> (x, {2, 4})  c = Add (z, w) }",
        )
        .unwrap();
        assert_eq!(model.opset(), 13);
        let graph = &model.graph;
        assert_eq!((graph.inputs.len(), graph.outputs.len(), graph.node_count()), (2, 2, 2));
        let split = graph.node(graph.node_named("split").unwrap());
        assert_eq!(graph.constant(split.input(1).unwrap()).unwrap().to_i64s().unwrap(), [2, 4]);
        let axis = graph.constant(graph.value_named("axis").unwrap()).unwrap();
        assert_eq!(axis.dims(), [0i64; 0]);
    }

    #[test]
    fn subgraphs_capture() {
        let model = model(
            "(bool c, float[2] x) => (float[2] y) {
               y = If (c) <then_branch = t () => (float[2] u) { u = Relu (x) }, else_branch = e () => (float[2] v) { v = Neg (x) }>
             }",
        )
        .unwrap();
        let graph = &model.graph;
        let x = graph.value_named("x").unwrap();
        assert_eq!(graph.consumers(x).len(), 1);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let told = |source: &str| model(source).unwrap_err().to_string();
        assert_eq!(
            told("(float[2] x) => (float[2] y) { y = Relu (z) }"),
            "line 1, column 42: expected an input, an initializer or a node's output, found `z`, which nothing makes"
        );
        assert_eq!(
            told("(float[2] x) => (float[2] y) { y = Add (x, float[3] {1, 2}) }"),
            "line 1, column 44: expected 3 values, as the dimensions say, found 2"
        );
        assert_eq!(
            told("(float[2] x) => (float[2] y) { x = Relu (x) }"),
            "line 1, column 32: expected a name of its own, found `x` again"
        );
        assert!(told("(float[2] x) => (float[2] y) { y = Relu (y) }").contains("cycle"));
        assert_eq!(told("(float[2 x) => () {}"), "line 1, column 10: expected `,` or `]`, found `x`");
    }
}
