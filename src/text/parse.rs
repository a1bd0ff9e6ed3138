//! From ONNX's textual syntax to a tree. Recursive descent; every error says where and what was expected.

use super::ast::*;
use super::{Cursor, Number, Span, TextError};
use crate::onnx::DType;

/// What a text is, which decides the forms it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A graph of its own.
    Graph,
    /// The left side of a rule: captures instead of values.
    Pattern,
    /// The right side of a rule: expressions inside braces.
    Template,
}

/// Parses a model or a graph, header and name being optional.
pub fn model(source: &str) -> Result<ModelAst, TextError> {
    let mut parser = Parser { at: Cursor::new(source), mode: Mode::Graph };
    let model = parser.model()?;
    if !parser.at.at_end() {
        return Err(parser.at.error("the end of the text"));
    }
    Ok(model)
}

/// Parses nodes up to the end of `span`.
pub fn nodes(source: &str, span: Span, mode: Mode) -> Result<Vec<NodeAst>, TextError> {
    let mut parser = Parser { at: Cursor::within(source, span), mode };
    let mut nodes = Vec::new();
    while !parser.at.at_end() {
        nodes.push(parser.node()?);
    }
    Ok(nodes)
}

struct Parser<'s> {
    at: Cursor<'s>,
    mode: Mode,
}

impl Parser<'_> {
    fn model(&mut self) -> Result<ModelAst, TextError> {
        let mut model = ModelAst {
            ir_version: None,
            opsets: Vec::new(),
            producer: None,
            metadata: Vec::new(),
            graph: GraphAst {
                name: String::new(),
                inputs: Vec::new(),
                outputs: Vec::new(),
                values: Vec::new(),
                nodes: Vec::new(),
                span: 0..0,
            },
        };
        if self.at.take("<") {
            while !self.at.take(">") {
                self.header_item(&mut model)?;
                if !self.at.take(",") && !self.at.sees(">") {
                    return Err(self.at.error("`,` or `>`"));
                }
            }
        }
        model.graph = self.graph()?;
        Ok(model)
    }

    fn header_item(&mut self, model: &mut ModelAst) -> Result<(), TextError> {
        let Some((key, span)) = self.at.name() else {
            return Err(self.at.error("a header field such as `opset_import`"));
        };
        self.at.expect(":")?;
        match key.as_str() {
            "ir_version" => model.ir_version = Some(self.integer()?),
            "model_version" => {
                self.integer()?;
            }
            "opset_import" => {
                self.at.expect("[")?;
                while !self.at.take("]") {
                    let (domain, _) = self.at.string()?;
                    self.at.expect(":")?;
                    let version = self.integer()?;
                    let domain = if domain == "ai.onnx" { String::new() } else { domain };
                    model.opsets.push((domain, version));
                    if !self.at.take(",") && !self.at.sees("]") {
                        return Err(self.at.error("`,` or `]`"));
                    }
                }
            }
            "metadata_props" => {
                self.at.expect("[")?;
                while !self.at.take("]") {
                    let (key, _) = self.at.string()?;
                    self.at.expect(":")?;
                    let (value, _) = self.at.string()?;
                    model.metadata.push((key, value));
                    if !self.at.take(",") && !self.at.sees("]") {
                        return Err(self.at.error("`,` or `]`"));
                    }
                }
            }
            "producer_name" => model.producer = Some(self.at.string()?.0),
            "producer_version" | "domain" | "doc_string" => {
                self.at.string()?;
            }
            other => {
                return Err(self.at.error_at(
                    span,
                    "`ir_version`, `opset_import`, `producer_name`, `metadata_props` or another header field",
                    &format!("`{other}`"),
                ));
            }
        }
        Ok(())
    }

    fn integer(&mut self) -> Result<i64, TextError> {
        match self.at.number()? {
            (Number::Int(value), _) => Ok(value),
            (Number::Float(value), span) => Err(self.at.error_at(span, "an integer", &format!("`{value}`"))),
        }
    }

    fn graph(&mut self) -> Result<GraphAst, TextError> {
        self.at.skip_blank();
        let start = self.at.offset();
        let name = self.at.quotable_name()?.map(|(name, _)| name).unwrap_or_default();
        self.at.expect("(")?;
        let inputs = self.declared_until(")")?;
        self.at.expect("=>")?;
        self.at.expect("(")?;
        let outputs = self.declared_until(")")?;
        let values = if self.at.take("<") { self.declared_until(">")? } else { Vec::new() };
        self.at.expect("{")?;
        let mut nodes = Vec::new();
        while !self.at.take("}") {
            if self.at.at_end() {
                return Err(self.at.error("a node or `}`"));
            }
            nodes.push(self.node()?);
            self.at.take(";");
        }
        Ok(GraphAst { name, inputs, outputs, values, nodes, span: start..self.at.offset() })
    }

    fn declared_until(&mut self, close: &str) -> Result<Vec<Declared>, TextError> {
        let mut list = Vec::new();
        while !self.at.take(close) {
            list.push(self.declared()?);
            if !self.at.take(",") && !self.at.sees(close) {
                return Err(self.at.error(&format!("`,` or `{close}`")));
            }
        }
        Ok(list)
    }

    fn declared(&mut self) -> Result<Declared, TextError> {
        // In a subgraph the type may be left out: a lone name is the value.
        let before = self.at.clone();
        let kind = match self.element()? {
            Some((element, span)) => Some(self.type_of(element, span)?),
            None => None,
        };
        let (name, kind) = match self.at.quotable_name()? {
            Some((text, span)) => (Name { text, span }, kind),
            None => {
                self.at = before;
                match self.at.quotable_name()? {
                    Some((text, span)) if kind.is_none() || DType::from_name(&text).is_none() => {
                        (Name { text, span }, None)
                    }
                    Some((_, _)) => return Err(self.at.error("a name after the type")),
                    None => return Err(self.at.error("a type and a name, such as `float[2,3] x`")),
                }
            }
        };
        let data = if self.at.take("=") { Some(self.data()?) } else { None };
        Ok(Declared { name, kind, data })
    }

    /// An element type when one comes next: `float`, or `x.dtype` in a template.
    fn element(&mut self) -> Result<Option<(Element, Span)>, TextError> {
        let before = self.at.clone();
        let Some((name, span)) = self.at.name() else { return Ok(None) };
        if let Some(dtype) = DType::from_name(&name) {
            return Ok(Some((Element::Named(dtype), span)));
        }
        if self.mode == Mode::Template && self.at.sees(".") {
            self.at.take(".");
            if self.at.take_word("dtype") {
                return Ok(Some((Element::Like(name), span.start..self.at.offset())));
            }
        }
        self.at = before;
        Ok(None)
    }

    fn type_of(&mut self, element: Element, span: Span) -> Result<TypeAst, TextError> {
        let mut dims = None;
        if self.at.take("[") {
            let mut list = Vec::new();
            while !self.at.take("]") {
                list.push(if self.at.take("?") {
                    DimAst::Unknown
                } else if let Some((symbol, _)) = self.at.name() {
                    DimAst::Symbol(symbol)
                } else if self.at.sees("\"") {
                    DimAst::Symbol(self.at.string()?.0)
                } else if self.at.sees_number() {
                    DimAst::Fixed(self.integer()?)
                } else {
                    return Err(self.at.error("a dimension: a number, a name or `?`"));
                });
                if !self.at.take(",") && !self.at.sees("]") {
                    return Err(self.at.error("`,` or `]`"));
                }
            }
            dims = Some(list);
        }
        Ok(TypeAst { element, dims, span: span.start..self.at.offset() })
    }

    fn data(&mut self) -> Result<Data, TextError> {
        if self.mode == Mode::Template {
            return self.at.braced().map(Data::Expression);
        }
        self.at.expect("{")?;
        if self.at.take("...") {
            self.at.expect("}")?;
            return Ok(Data::Elided);
        }
        let mut numbers = Vec::new();
        let mut strings = Vec::new();
        while !self.at.take("}") {
            if self.at.sees("\"") {
                strings.push(self.at.string()?.0);
            } else if self.at.take_word("true") {
                numbers.push(Number::Int(1));
            } else if self.at.take_word("false") {
                numbers.push(Number::Int(0));
            } else {
                numbers.push(self.at.number()?.0);
            }
            if !self.at.take(",") && !self.at.sees("}") {
                return Err(self.at.error("`,` or `}`"));
            }
        }
        Ok(if strings.is_empty() { Data::Numbers(numbers) } else { Data::Strings(strings) })
    }

    fn tensor(&mut self, kind: Option<TypeAst>, start: usize) -> Result<TensorAst, TextError> {
        if kind.is_some() {
            self.at.take("=");
        }
        let data = self.data()?;
        Ok(TensorAst { kind, data, span: start..self.at.offset() })
    }

    fn node(&mut self) -> Result<NodeAst, TextError> {
        self.at.skip_blank();
        let start = self.at.offset();
        let mut label = None;
        if self.at.take("[") {
            let Some((text, span)) = self.at.quotable_name()? else {
                return Err(self.at.error("a node's name"));
            };
            label = Some(Name { text, span });
            self.at.expect("]")?;
        }
        let mut outputs = Vec::new();
        while !self.at.take("=") {
            outputs.push(self.output()?);
            if !self.at.take(",") && !self.at.sees("=") {
                return Err(self.at.error("`,` or `=`"));
            }
        }
        let (domain, operators) = self.operators()?;
        let mut node = NodeAst {
            label,
            outputs,
            domain,
            operators,
            attributes: Vec::new(),
            rest: None,
            inputs: Vec::new(),
            span: start..start,
        };
        let before = self.at.take("<");
        if before {
            self.attributes(&mut node)?;
        }
        self.at.expect("(")?;
        self.inputs(&mut node)?;
        if !before && self.at.take("<") {
            self.attributes(&mut node)?;
        }
        node.span = start..self.at.offset();
        Ok(node)
    }

    fn output(&mut self) -> Result<OutputAst, TextError> {
        let Some((text, span)) = self.at.quotable_name()? else {
            return Err(self.at.error("the name of an output, or `=`"));
        };
        let variadic = self.mode != Mode::Graph && self.at.take("...");
        let optional = self.mode == Mode::Pattern && self.at.take("?");
        Ok(OutputAst { name: Name { text, span }, variadic, optional })
    }

    fn operators(&mut self) -> Result<(String, Vec<Name>), TextError> {
        let mut operators = Vec::new();
        let mut domain = String::new();
        loop {
            let Some((mut text, mut span)) = self.at.name() else {
                return Err(self.at.error("an operator such as `Conv`"));
            };
            let mut path = Vec::new();
            while self.at.take(".") {
                let Some((next, next_span)) = self.at.name() else {
                    return Err(self.at.error("an operator after the domain"));
                };
                path.push(std::mem::replace(&mut text, next));
                span = next_span;
            }
            if !path.is_empty() {
                domain = path.join(".");
            }
            operators.push(Name { text, span });
            if self.mode != Mode::Pattern || !self.at.take("|") {
                break;
            }
        }
        if domain == "ai.onnx" {
            domain.clear();
        }
        Ok((domain, operators))
    }

    fn inputs(&mut self, node: &mut NodeAst) -> Result<(), TextError> {
        if self.at.take(")") {
            return Ok(());
        }
        loop {
            node.inputs.push(self.input()?);
            if self.at.take(")") {
                return Ok(());
            }
            if !self.at.take(",") {
                return Err(self.at.error("`,` or `)`"));
            }
        }
    }

    fn input(&mut self) -> Result<InputAst, TextError> {
        self.at.skip_blank();
        let start = self.at.offset();
        if self.at.sees(",") || self.at.sees(")") {
            return Ok(InputAst::Absent(start..start));
        }
        if self.at.sees("{") {
            return Ok(InputAst::Constant(self.tensor(None, start)?));
        }
        // `float {1}` is a constant, but `float` alone may be the name of a value.
        let before = self.at.clone();
        if let Some((element, span)) = self.element()? {
            if self.at.sees("[") || self.at.sees("{") || self.at.sees("=") {
                let kind = self.type_of(element, span)?;
                return Ok(InputAst::Constant(self.tensor(Some(kind), start)?));
            }
            self.at = before;
        }
        let Some((text, span)) = self.at.quotable_name()? else {
            return Err(self.at.error("an input: a name, or a constant such as `{2, 4}`"));
        };
        if text.is_empty() {
            return Ok(InputAst::Absent(span));
        }
        let variadic = self.mode != Mode::Graph && self.at.take("...");
        let optional = self.mode != Mode::Graph && self.at.take("?");
        Ok(InputAst::Value { name: Name { text, span }, optional, variadic })
    }

    fn attributes(&mut self, node: &mut NodeAst) -> Result<(), TextError> {
        while !self.at.take(">") {
            self.at.skip_blank();
            let start = self.at.offset();
            if self.mode != Mode::Graph && self.at.take("...") {
                let of = self.at.name().map(|(name, _)| name);
                node.rest = Some(RestAst { of, span: start..self.at.offset() });
            } else {
                let attribute = self.attribute()?;
                node.attributes.push(attribute);
            }
            if !self.at.take(",") && !self.at.sees(">") {
                return Err(self.at.error("`,` or `>`"));
            }
        }
        Ok(())
    }

    fn attribute(&mut self) -> Result<AttributeAst, TextError> {
        let Some((text, span)) = self.at.name() else {
            return Err(self.at.error("an attribute such as `axis = 1`"));
        };
        let start = span.start;
        let name = Name { text, span };
        let mut kind = None;
        if self.at.take(":") {
            let Some((text, span)) = self.at.name() else {
                return Err(self.at.error("the type of the attribute, such as `ints`"));
            };
            kind = Some(Name { text, span });
        }
        self.at.expect("=")?;
        let value = self.attribute_value()?;
        Ok(AttributeAst { name, kind, value, span: start..self.at.offset() })
    }

    fn attribute_value(&mut self) -> Result<AttributeValueAst, TextError> {
        self.at.skip_blank();
        let start = self.at.offset();
        if self.at.take("@") {
            return match self.at.name() {
                Some((name, _)) => Ok(AttributeValueAst::Reference(name)),
                None => Err(self.at.error("the name of an attribute of the function")),
            };
        }
        if self.at.take("[") {
            let mut list = Vec::new();
            while !self.at.take("]") {
                list.push(self.attribute_value()?);
                if !self.at.take(",") && !self.at.sees("]") {
                    return Err(self.at.error("`,` or `]`"));
                }
            }
            return Ok(AttributeValueAst::List(list));
        }
        if self.at.sees("\"") {
            // A string, unless it is the quoted name of a graph.
            let before = self.at.clone();
            let (text, _) = self.at.string()?;
            if !self.at.sees("(") {
                return Ok(AttributeValueAst::String(text));
            }
            self.at = before;
            return Ok(AttributeValueAst::Graph(Box::new(self.graph()?)));
        }
        if self.at.sees_number() {
            return Ok(AttributeValueAst::Number(self.at.number()?.0));
        }
        if self.at.sees("{") {
            return match self.mode {
                Mode::Template => Ok(AttributeValueAst::Expression(self.at.braced()?)),
                _ => Err(self.at.error("a value; a tensor needs its type, such as `float[2] {1, 2}`")),
            };
        }
        if self.at.sees("(") {
            return Ok(AttributeValueAst::Graph(Box::new(self.graph()?)));
        }
        let before = self.at.clone();
        if let Some((element, span)) = self.element()? {
            if self.at.sees("[") || self.at.sees("{") || self.at.sees("=") {
                let kind = self.type_of(element, span)?;
                // `float[2] name = {1, 2}`: the name is of no use here.
                self.at.quotable_name()?;
                return Ok(AttributeValueAst::Tensor(self.tensor(Some(kind), start)?));
            }
            self.at = before.clone();
        }
        match self.at.name() {
            Some((_, _)) if self.at.sees("(") => {
                self.at = before;
                Ok(AttributeValueAst::Graph(Box::new(self.graph()?)))
            }
            Some((text, span)) if self.mode != Mode::Graph => {
                // `<scale = x.shape>` would be easy to write and is not a name.
                if self.at.sees(".") {
                    return Err(self.at.error("`,` or `>`; an expression stands in braces, `{x.rank - 1}`"));
                }
                Ok(AttributeValueAst::Name(Name { text, span }))
            }
            Some((text, span)) => {
                Err(self.at.error_at(span, "a number, a string, a list, a tensor or a graph", &format!("`{text}`")))
            }
            None => Err(self.at.error("the value of the attribute")),
        }
    }
}
