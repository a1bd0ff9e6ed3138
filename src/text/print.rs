//! From a graph to a text that a person reads: one node a line, small constants in place, large ones as `{...}`.

use std::fmt::Write;

use crate::graph::{AttributeValue, Graph, Model, Node, Value, ValueId};
use crate::onnx::Tensor;

/// How much of a graph is written.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Constants of up to this many values are written where they are used.
    pub inline: usize,
    /// Constants of up to this many values are written out; longer ones as `{...}`.
    pub full: usize,
    /// Whether nodes carry their names.
    pub labels: bool,
    /// Whether the types of inner values are listed.
    pub types: bool,
}

impl Default for Style {
    fn default() -> Self {
        Style { inline: 8, full: 8, labels: true, types: false }
    }
}

/// A model with its header.
pub fn model(model: &Model, style: Style) -> String {
    let opsets: Vec<String> =
        model.opsets.iter().map(|(domain, version)| format!("\"{domain}\" : {version}")).collect();
    let mut text = format!("<ir_version: {}, opset_import: [{}]>\n", model.ir_version, opsets.join(", "));
    text.push_str(&graph(&model.graph, style));
    text.push('\n');
    text
}

/// A graph.
pub fn graph(graph: &Graph, style: Style) -> String {
    let mut text = String::new();
    Printer { graph, style, depth: 0 }.graph(&mut text);
    text
}

/// One node of a graph, on a line of its own.
pub fn node(graph: &Graph, node: &Node, style: Style) -> String {
    let mut text = String::new();
    Printer { graph, style, depth: 0 }.node(node, &mut text);
    text
}

struct Printer<'g> {
    graph: &'g Graph,
    style: Style,
    depth: usize,
}

fn name(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && crate::onnx::DType::from_name(text).is_none();
    if plain { text.to_string() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t"))
}

fn float(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    if value.is_nan() {
        return "nan".into();
    }
    let magnitude = value.abs();
    // A float32 is written as short as it reads back.
    let short = value as f32;
    let exact = f64::from(short) == value;
    let text = match (exact, magnitude != 0.0 && !(1e-4..1e7).contains(&magnitude)) {
        (true, true) => format!("{short:e}"),
        (true, false) => format!("{short}"),
        (false, true) => format!("{value:e}"),
        (false, false) => format!("{value}"),
    };
    if text.contains(['.', 'e']) { text } else { format!("{text}.0") }
}

fn values(tensor: &Tensor) -> Option<String> {
    if let Ok(whole) = tensor.to_i64s() {
        return Some(whole.iter().map(i64::to_string).collect::<Vec<_>>().join(", "));
    }
    if let Ok(real) = tensor.to_f64s() {
        return Some(real.iter().map(|value| float(*value)).collect::<Vec<_>>().join(", "));
    }
    let strings: Vec<String> = tensor.string_data.iter().map(|bytes| quoted(&String::from_utf8_lossy(bytes))).collect();
    (!strings.is_empty()).then(|| strings.join(", "))
}

fn tensor_type(tensor: &Tensor) -> String {
    let dims: Vec<String> = tensor.dims().iter().map(i64::to_string).collect();
    format!("{}[{}]", tensor.dtype().name(), dims.join(","))
}

impl Printer<'_> {
    fn graph(&self, text: &mut String) {
        let indent = "  ".repeat(self.depth);
        let graph = self.graph;
        let name_of = if graph.name.is_empty() { "graph".to_string() } else { name(&graph.name) };
        let inputs: Vec<String> = graph.inputs.iter().map(|id| self.declared(*id)).collect();
        let outputs: Vec<String> = graph.outputs.iter().map(|id| self.declared(*id)).collect();
        let _ = write!(text, "{name_of} ({}) => ({})", inputs.join(", "), outputs.join(", "));
        let mut listed: Vec<String> = graph
            .initializers()
            .filter(|(id, tensor)| !self.inlined(*id, tensor))
            .map(|(id, tensor)| {
                let data = if tensor.len() <= self.style.full { values(tensor) } else { None };
                let data = data.map_or_else(|| "{...}".to_string(), |data| format!("{{{data}}}"));
                format!("{} {} = {data}", tensor_type(tensor), name(&graph.value(id).name))
            })
            .collect();
        if self.style.types {
            let inner = graph.nodes().flat_map(|(_, node)| node.writes().collect::<Vec<_>>());
            listed.extend(
                inner
                    .filter(|id| !graph.is_output(*id) && graph.value(*id).dtype.is_some())
                    .map(|id| self.declared(id)),
            );
        }
        if !listed.is_empty() {
            let _ = write!(text, "\n{indent}<\n{indent}  {}\n{indent}>", listed.join(&format!(",\n{indent}  ")));
        }
        if graph.nodes().next().is_none() {
            text.push_str(" {}");
            return;
        }
        let _ = write!(text, "\n{indent}{{\n");
        let inner = Printer { depth: self.depth + 1, ..*self };
        for (_, node) in graph.nodes() {
            if node.is("Constant") && node.output(0).is_some_and(|id| inner.inlined_constant(id)) {
                continue;
            }
            text.push_str(&"  ".repeat(inner.depth));
            inner.node(node, text);
            text.push('\n');
        }
        let _ = write!(text, "{indent}}}");
    }

    /// Whether the value is written where it is used, and so not listed.
    fn inlined(&self, id: ValueId, tensor: &Tensor) -> bool {
        let value = self.graph.value(id);
        tensor.len() <= self.style.inline
            && tensor.dtype() != crate::onnx::DType::String
            && !self.graph.is_output(id)
            && !self.graph.consumers(id).is_empty()
            && !value.is_captured()
            && self.graph.consumers(id).iter().all(|node| !self.graph.node(*node).captures.contains(&id))
    }

    fn inlined_constant(&self, id: ValueId) -> bool {
        self.graph.constant(id).is_some_and(|tensor| self.inlined(id, &tensor))
    }

    fn declared(&self, id: ValueId) -> String {
        let value: &Value = self.graph.value(id);
        let shown = match &value.shape {
            _ if value.dtype.is_none() => return name(&value.name),
            None => value.dtype.map_or("", |dtype| dtype.name()).to_string(),
            Some(dims) => {
                let dims: Vec<String> = dims
                    .iter()
                    .map(|dim| match dim {
                        crate::graph::Dim::Symbol(symbol) => name(symbol),
                        other => other.to_string(),
                    })
                    .collect();
                format!("{}[{}]", value.dtype.map_or("", |dtype| dtype.name()), dims.join(","))
            }
        };
        format!("{shown} {}", name(&value.name))
    }

    fn node(&self, node: &Node, text: &mut String) {
        if self.style.labels && !node.name.is_empty() {
            let _ = write!(text, "[{}] ", name(&node.name));
        }
        let outputs: Vec<String> = node
            .outputs
            .iter()
            .map(|output| output.map_or_else(|| "\"\"".to_string(), |id| name(&self.graph.value(id).name)))
            .collect();
        let domain = if node.is_standard() { String::new() } else { format!("{}.", node.domain) };
        let _ = write!(text, "{} = {domain}{}", outputs.join(", "), node.op_type);
        if !node.attributes.is_empty() {
            let attributes: Vec<String> = node
                .attributes
                .iter()
                .map(|attribute| format!("{}{}", attribute.name, self.attribute(&attribute.value)))
                .collect();
            let _ = write!(text, " <{}>", attributes.join(", "));
        }
        let inputs: Vec<String> =
            node.inputs.iter().map(|input| input.map_or_else(|| "\"\"".to_string(), |id| self.operand(id))).collect();
        let _ = write!(text, " ({})", inputs.join(", "));
    }

    fn operand(&self, id: ValueId) -> String {
        if let Some(tensor) = self.graph.constant(id)
            && self.inlined(id, &tensor)
            && let Some(data) = values(&tensor)
        {
            let vector = tensor.dtype() == crate::onnx::DType::Int64 && tensor.dims().len() == 1 && !tensor.is_empty();
            let kind = match tensor.dims() {
                _ if vector => String::new(),
                [] => format!("{} ", tensor.dtype().name()),
                _ => format!("{} ", tensor_type(&tensor)),
            };
            return format!("{kind}{{{data}}}");
        }
        name(&self.graph.value(id).name)
    }

    fn attribute(&self, value: &AttributeValue) -> String {
        let list = |items: Vec<String>| format!("[{}]", items.join(", "));
        let text = |bytes: &[u8]| quoted(&String::from_utf8_lossy(bytes));
        match value {
            AttributeValue::Float(value) => format!(" = {}", float(f64::from(*value))),
            AttributeValue::Int(value) => format!(" = {value}"),
            AttributeValue::String(bytes) => format!(" = {}", text(bytes)),
            AttributeValue::Tensor(tensor) => {
                let data = if tensor.len() <= self.style.full { values(tensor) } else { None };
                format!(" = {} {{{}}}", tensor_type(tensor), data.unwrap_or_else(|| "...".to_string()))
            }
            AttributeValue::Graph(graph) => {
                let mut inner = String::from(" = ");
                Printer { graph, style: self.style, depth: self.depth }.graph(&mut inner);
                inner
            }
            AttributeValue::Floats(values) if values.is_empty() => ": floats = []".to_string(),
            AttributeValue::Floats(values) => {
                format!(" = {}", list(values.iter().map(|value| float(f64::from(*value))).collect()))
            }
            AttributeValue::Ints(values) => format!(" = {}", list(values.iter().map(i64::to_string).collect())),
            AttributeValue::Strings(values) if values.is_empty() => ": strings = []".to_string(),
            AttributeValue::Strings(values) => format!(" = {}", list(values.iter().map(|value| text(value)).collect())),
            AttributeValue::Tensors(tensors) => format!(" = {}", list(tensors.iter().map(tensor_type).collect())),
            AttributeValue::Graphs(graphs) => {
                let graphs = graphs.iter().map(|graph| {
                    let mut inner = String::new();
                    Printer { graph, style: self.style, depth: self.depth }.graph(&mut inner);
                    inner
                });
                format!(" = {}", list(graphs.collect()))
            }
            AttributeValue::Reference { to, .. } => format!(" = @{to}"),
            AttributeValue::SparseTensor(_) => ": sparse_tensor".to_string(),
            AttributeValue::SparseTensors(_) => ": sparse_tensors".to_string(),
            AttributeValue::Type(_) => ": type_proto".to_string(),
            AttributeValue::Types(_) => ": type_protos".to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::build;
    use super::*;

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let source = "<ir_version: 7, opset_import: [\"\" : 13]>\n\
            g (float[2,6,N] x, bool c) => (float[2,2,N] a, \"b/1\")\n\
            <\n  float[3,4] w = {...}\n>\n\
            {\n  \
              [\"/split\"] a, rest = Split <axis = 1> (x, {2, 4})\n  \
              m = Mul (rest, float {0.5})\n  \
              n = Clip (m, \"\", float {6.0})\n  \
              u = Add (n, int32[1,2] {1, 2})\n  \
              v = Foo <scale = 1e-5, names = [\"a\", \"b\"], table = float[2] {1.5, -inf}> (w)\n  \
              \"b/1\" = If <then_branch = t () => (float[2] p)\n  {\n    p = Relu (u)\n  }, else_branch = e () => (q)\n  {\n    q = Neg (u)\n  }> (c)\n\
            }\n";
        let first = build::model(source).unwrap();
        assert_eq!(model(&first, Style::default()), source);
    }
}
