//! The right side of a rule: nodes to put in place of the matched ones.
//!
//! ```text
//! let middle = x.shape[axis] / 2
//! for part, begin, end in pieces(parts, sizes):
//!   part = Slice (x, {begin}, {end}, {axis})
//! if present(b):
//!   y = Conv <...c> (x, w, b)
//! else:
//!   y = Conv <...c> (x, w)
//! ```
//!
//! Braces hold CEL expressions: `{begin}` is an int64 vector, `float {expr}` a scalar, `x.dtype {expr}` a scalar of
//! the type that `x` has. An output that the pattern captured keeps its name; any other name is a new value, which a
//! later line may assign again. `y = x` alone says that `y` is `x`. `part...` as an input takes every value that was
//! assigned to `part` since it was last taken. `[c]` keeps the name of the matched node `c`, `<...c>` its attributes.

use std::collections::BTreeSet;

use super::expr::{Expression, ExpressionError};
use super::names::{check, check_expressions, kept};
use super::pattern::{self, Pattern};
use crate::graph::AttributeValue;
use crate::onnx::DType;
use crate::text::ast::*;
use crate::text::parse::{self, Mode};
use crate::text::{Span, TextError};

/// A parsed replacement.
#[derive(Debug)]
pub struct Template {
    /// What to do, in order.
    pub body: Vec<Statement>,
    /// Names that it assigns and the pattern captured: outputs it produces.
    pub produced: BTreeSet<String>,
    /// Places of the pattern's nodes that stay, because the replacement reads what they make.
    pub kept: BTreeSet<usize>,
}

/// One line of a replacement.
#[derive(Debug)]
pub enum Statement {
    /// Makes a node.
    Node(TemplateNode),
    /// `to = from`
    Alias {
        /// The name assigned.
        to: String,
        /// The value it is.
        from: String,
    },
    /// `let name = expression`
    Let {
        /// The name assigned.
        name: String,
        /// Its value.
        value: Expression,
        /// Where it stands.
        span: Span,
    },
    /// `for a, b in expression:`
    For {
        /// The names assigned in each round.
        names: Vec<String>,
        /// What they are assigned from.
        list: Expression,
        /// Where the expression stands.
        span: Span,
        /// What to do in each round.
        body: Vec<Statement>,
    },
    /// `if expression:` with an optional `else:`
    If {
        /// The condition.
        condition: Expression,
        /// Where it stands.
        span: Span,
        /// What to do if it holds.
        then: Vec<Statement>,
        /// What to do if not.
        otherwise: Vec<Statement>,
    },
}

/// A node to make.
#[derive(Debug)]
pub struct TemplateNode {
    /// The matched node whose name it takes.
    pub label: Option<String>,
    /// The matched node whose attributes it takes.
    pub attributes_of: Option<String>,
    /// Its domain.
    pub domain: String,
    /// Its operator.
    pub operator: String,
    /// Its attributes.
    pub attributes: Vec<TemplateAttribute>,
    /// Its inputs.
    pub inputs: Vec<TemplateInput>,
    /// Its outputs.
    pub outputs: Vec<TemplateOutput>,
}

/// An output of a node to make.
#[derive(Debug, PartialEq)]
pub enum TemplateOutput {
    /// Left out.
    Absent,
    /// A value by name.
    Value(String),
    /// Every value of a captured list.
    List(String),
}

/// An attribute to set.
#[derive(Debug)]
pub struct TemplateAttribute {
    /// Its name.
    pub name: String,
    /// Its type, when written.
    pub kind: Option<String>,
    /// Its value.
    pub value: TemplateValue,
}

/// The value of an attribute.
#[derive(Debug)]
pub enum TemplateValue {
    /// As written.
    Literal(AttributeValue),
    /// Computed.
    Computed(Expression, Span),
}

/// An input of a node to make.
#[derive(Debug)]
pub enum TemplateInput {
    /// Left out.
    Absent,
    /// A value by name.
    Value(String),
    /// Every value under this name.
    List(String),
    /// A constant.
    Constant {
        /// The element type; none says that whole numbers are int64 and others float.
        element: Option<Element>,
        /// The dimensions; none says a scalar (typed, one value) or a vector.
        dims: Option<Vec<i64>>,
        /// The values.
        values: Expression,
        /// Where they stand.
        span: Span,
    },
}

struct Line {
    indent: usize,
    span: Span,
}

impl Template {
    /// Parses a replacement for what `pattern` matches.
    ///
    /// # Errors
    /// Says line, column and what was expected.
    pub fn parse(source: &str, pattern: &Pattern) -> Result<Template, TextError> {
        let lines = logical_lines(source);
        let mut parser = TemplateParser { source, lines: &lines, at: 0 };
        let indent = lines.first().map_or(0, |line| line.indent);
        let body = parser.block(indent)?;
        let mut template = Template { body, produced: BTreeSet::new(), kept: BTreeSet::new() };
        let mut names = pattern.names();
        let mut produced = BTreeSet::new();
        check(source, &template.body, pattern, &mut names, &mut produced)?;
        template.produced = produced;
        template.kept = kept(&template, pattern);
        Ok(template)
    }

    /// Checks every expression against the names that are known where it stands.
    ///
    /// # Errors
    /// The expression's place in the replacement and what is wrong with it.
    pub fn check(&self, pattern: &Pattern) -> Result<(), (Span, ExpressionError)> {
        let mut names = pattern.names();
        check_expressions(&self.body, &mut names)
    }
}

/// Lines with what continues them, blank ones and comments left out.
fn logical_lines(source: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut start: Option<(usize, usize)> = None;
    let mut depth = 0i64;
    let mut offset = 0;
    for line in source.split_inclusive('\n') {
        let content = line.trim_end();
        let trimmed = content.trim_start();
        let end = offset + content.len();
        if start.is_some() || !(trimmed.is_empty() || trimmed.starts_with('#')) {
            let (indent, begin) =
                *start.get_or_insert((content.len() - trimmed.len(), offset + content.len() - trimmed.len()));
            for c in trimmed.chars() {
                match c {
                    '(' | '{' | '[' => depth += 1,
                    ')' | '}' | ']' => depth -= 1,
                    _ => {}
                }
            }
            if depth <= 0 {
                lines.push(Line { indent, span: begin..end });
                start = None;
                depth = 0;
            }
        }
        offset += line.len();
    }
    if let Some((indent, begin)) = start {
        lines.push(Line { indent, span: begin..source.trim_end().len() });
    }
    lines
}

struct TemplateParser<'s> {
    source: &'s str,
    lines: &'s [Line],
    at: usize,
}

impl TemplateParser<'_> {
    fn error(&self, span: Span, expected: &str, found: &str) -> TextError {
        TextError::new(self.source, span, expected, found)
    }

    fn block(&mut self, indent: usize) -> Result<Vec<Statement>, TextError> {
        let mut body = Vec::new();
        while let Some(line) = self.lines.get(self.at) {
            if line.indent < indent {
                break;
            }
            if line.indent > indent {
                let span = line.span.clone();
                return Err(self.error(
                    span,
                    &format!("a line indented by {indent}"),
                    &format!("one indented by {}", line.indent),
                ));
            }
            self.at += 1;
            self.statement(line, &mut body)?;
        }
        Ok(body)
    }

    fn inner(&mut self, line: &Line) -> Result<Vec<Statement>, TextError> {
        match self.lines.get(self.at) {
            Some(next) if next.indent > line.indent => {
                let indent = next.indent;
                self.block(indent)
            }
            _ => Err(self.error(line.span.end..line.span.end, "an indented line after `:`", "none")),
        }
    }

    fn statement(&mut self, line: &Line, body: &mut Vec<Statement>) -> Result<(), TextError> {
        let text = &self.source[line.span.clone()];
        let start = line.span.start;
        if text.starts_with("for ") {
            let Some(colon) = text.ends_with(':').then(|| text.len() - 1) else {
                return Err(self.error(line.span.end..line.span.end, "`:` at the end of the line", "nothing"));
            };
            let Some(position) = text.find(" in ") else {
                return Err(self.error(line.span.clone(), "`for name, name in list:`", "no ` in `"));
            };
            let names = text[4..position].split(',').map(|name| name.trim().to_string()).collect::<Vec<_>>();
            if names.iter().any(|name| name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
            {
                return Err(self.error(start + 4..start + position, "names separated by commas", "something else"));
            }
            let span = start + position + 4..start + colon;
            let list = Expression::new(&self.source[span.clone()]);
            let inner = self.inner(line)?;
            body.push(Statement::For { names, list, span, body: inner });
        } else if text.starts_with("if ") {
            let Some(colon) = text.ends_with(':').then(|| text.len() - 1) else {
                return Err(self.error(line.span.end..line.span.end, "`:` at the end of the line", "nothing"));
            };
            let span = start + 3..start + colon;
            let condition = Expression::new(&self.source[span.clone()]);
            let then = self.inner(line)?;
            let mut otherwise = Vec::new();
            if let Some(next) = self.lines.get(self.at)
                && next.indent == line.indent
                && &self.source[next.span.clone()] == "else:"
            {
                self.at += 1;
                otherwise = self.inner(next)?;
            }
            body.push(Statement::If { condition, span, then, otherwise });
        } else if let Some(rest) = text.strip_prefix("let ") {
            let Some((name, value)) = rest.split_once('=') else {
                return Err(self.error(line.span.clone(), "`let name = expression`", "no `=`"));
            };
            let span = line.span.end - value.len()..line.span.end;
            let name = name.trim().to_string();
            body.push(Statement::Let { name, value: Expression::new(value), span });
        } else if let Some(alias) = alias(text) {
            body.push(alias);
        } else {
            for node in parse::nodes(self.source, line.span.clone(), Mode::Template)? {
                body.push(Statement::Node(self.node(node)?));
            }
        }
        Ok(())
    }

    fn node(&self, node: NodeAst) -> Result<TemplateNode, TextError> {
        let operator = node.operators.first().map(|operator| operator.text.clone()).unwrap_or_default();
        let attributes_of = match node.rest {
            Some(RestAst { of: Some(of), .. }) => Some(of),
            Some(RestAst { of: None, span }) => {
                return Err(self.error(span, "`...name` of a captured node", "`...` alone"));
            }
            None => None,
        };
        let mut attributes = Vec::new();
        for attribute in node.attributes {
            let value = match attribute.value {
                AttributeValueAst::Name(name) => TemplateValue::Computed(Expression::new(name.text.clone()), name.span),
                AttributeValueAst::Expression(span) => {
                    TemplateValue::Computed(Expression::new(&self.source[span.clone()]), span)
                }
                other => match pattern::literal_attribute(&other) {
                    Some(value) => TemplateValue::Literal(value),
                    None => {
                        return Err(self.error(
                            attribute.span,
                            "a number, a string, a list of them, a name or `{expression}`",
                            "another value",
                        ));
                    }
                },
            };
            attributes.push(TemplateAttribute {
                name: attribute.name.text,
                kind: attribute.kind.map(|kind| kind.text),
                value,
            });
        }
        let mut inputs = Vec::new();
        for input in node.inputs {
            inputs.push(match input {
                InputAst::Absent(_) => TemplateInput::Absent,
                InputAst::Value { name, variadic: true, .. } => TemplateInput::List(name.text),
                InputAst::Value { name, .. } => TemplateInput::Value(name.text),
                InputAst::Constant(tensor) => self.constant(tensor)?,
            });
        }
        Ok(TemplateNode {
            label: node.label.map(|label| label.text),
            attributes_of,
            domain: node.domain,
            operator,
            attributes,
            inputs,
            outputs: node.outputs.into_iter().map(output).collect(),
        })
    }

    fn constant(&self, tensor: TensorAst) -> Result<TemplateInput, TextError> {
        let Data::Expression(span) = tensor.data else {
            return Err(self.error(tensor.span, "an expression in braces", "other data"));
        };
        let mut element = None;
        let mut dims = None;
        if let Some(kind) = tensor.kind {
            if let Some(list) = kind.dims {
                let fixed = |dim: DimAst| if let DimAst::Fixed(size) = dim { Some(size) } else { None };
                let fixed: Option<Vec<i64>> = list.into_iter().map(fixed).collect();
                if fixed.is_none() {
                    return Err(self.error(kind.span, "fixed dimensions", "open ones"));
                }
                dims = fixed;
            }
            element = Some(kind.element);
        }
        let values = Expression::new(format!("[{}]", &self.source[span.clone()]));
        Ok(TemplateInput::Constant { element, dims, values, span })
    }
}

fn output(output: OutputAst) -> TemplateOutput {
    match output.name.text.as_str() {
        "" | "_" => TemplateOutput::Absent,
        _ if output.variadic => TemplateOutput::List(output.name.text),
        _ => TemplateOutput::Value(output.name.text),
    }
}

/// `to = from`, nothing else on the line.
fn alias(text: &str) -> Option<Statement> {
    let (to, from) = text.split_once('=')?;
    let name = |text: &str| {
        let text = text.trim();
        let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        plain.then(|| text.to_string())
    };
    Some(Statement::Alias { to: name(to)?, from: name(from)? })
}

/// The element type that a constant takes, given the type of the captured value it follows.
pub fn element_type(element: &Element, like: impl Fn(&str) -> Option<DType>) -> Option<DType> {
    match element {
        Element::Named(dtype) => Some(*dtype),
        Element::Like(name) => like(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_parses() {
        let pattern = Pattern::parse("[s] parts... = Split <axis = axis> (x, sizes?)").unwrap();
        let template = Template::parse(
            "let n = len(parts)  \n\
             # a comment\n\
             for part, begin, end in pieces(parts, sizes):\n  \
               part = Slice (x, {begin}, {end},\n      {axis})\n\
             if n > 2:\n  y = Relu <...s> (x)\n\
             else:\n  y = Neg (x)\n\
             z = y",
            &pattern,
        )
        .unwrap();
        assert_eq!(template.body.len(), 4);
        assert_eq!(template.produced, BTreeSet::from(["parts".to_string()]));
        assert_eq!(template.check(&pattern), Ok(()));
    }

    #[test]
    fn mistakes_are_told() {
        let pattern = Pattern::parse("y = Relu (x)").unwrap();
        let told = |source: &str| Template::parse(source, &pattern).unwrap_err().to_string();
        assert_eq!(
            told("y = Neg (z)"),
            "line 1, column 10: expected a captured value or one assigned before, found `z`"
        );
        assert_eq!(
            told("for i in range(3)\n  y = Neg (x)"),
            "line 1, column 18: expected `:` at the end of the line, found nothing"
        );
        assert_eq!(
            told("y = Neg <...r> (x)"),
            "line 1, column 13: expected a node that the pattern captures as `[name]`, found `r`"
        );
        let template = Template::parse("y = Add (x, float {z + 1})", &pattern).unwrap();
        let (span, error) = template.check(&pattern).unwrap_err();
        assert_eq!(span, 19..20);
        assert!(error.message.starts_with("`z` is not captured"), "{error}");
    }
}
