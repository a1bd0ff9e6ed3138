//! What a text says, before it becomes a graph: names and values as written, each with its span.
//!
//! The same tree serves three texts: whole graphs, the patterns of rules and their replacements. Forms that
//! only rules use (`sizes?`, `parts...`, `<axis = axis>`, `{expression}`) are marked here and refused when a
//! graph is built from them.

use super::{Number, Span};

/// A name as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Name {
    /// The name without quotes.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// A model: an optional header and a graph.
#[derive(Debug, Clone)]
pub struct ModelAst {
    /// `ir_version`, when the header gives it.
    pub ir_version: Option<i64>,
    /// `opset_import`, when the header gives it.
    pub opsets: Vec<(String, i64)>,
    /// `producer_name`, when the header gives it.
    pub producer: Option<String>,
    /// `metadata_props`, when the header gives it.
    pub metadata: Vec<(String, String)>,
    /// The graph.
    pub graph: GraphAst,
}

/// A graph with its typed inputs and outputs.
#[derive(Debug, Clone)]
pub struct GraphAst {
    /// The graph's name; may be left out.
    pub name: String,
    /// Inputs; an input with data is also an initializer.
    pub inputs: Vec<Declared>,
    /// Outputs.
    pub outputs: Vec<Declared>,
    /// Declared initializers and inner values.
    pub values: Vec<Declared>,
    /// Nodes in the order written.
    pub nodes: Vec<NodeAst>,
    /// Where the graph stands.
    pub span: Span,
}

/// A value with its type and perhaps its data.
#[derive(Debug, Clone)]
pub struct Declared {
    /// Its name.
    pub name: Name,
    /// Its type; left out in subgraphs only.
    pub kind: Option<TypeAst>,
    /// Its data.
    pub data: Option<Data>,
}

/// A tensor's type.
#[derive(Debug, Clone, PartialEq)]
pub struct TypeAst {
    /// Element type by ONNX's text name, or `NAME.dtype` in a rule.
    pub element: Element,
    /// Dimensions; none means that the rank is open.
    pub dims: Option<Vec<DimAst>>,
    /// Where it stands.
    pub span: Span,
}

/// How an element type is given.
#[derive(Debug, Clone, PartialEq)]
pub enum Element {
    /// By name, `float`.
    Named(crate::onnx::DType),
    /// As that of a captured value, `x.dtype`.
    Like(String),
}

/// One dimension as written.
#[derive(Debug, Clone, PartialEq)]
pub enum DimAst {
    /// A number.
    Fixed(i64),
    /// A name.
    Symbol(String),
    /// `?`
    Unknown,
}

/// The data of a tensor as written.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Values one by one.
    Numbers(Vec<Number>),
    /// Strings one by one.
    Strings(Vec<String>),
    /// `{...}`: left out for the reader; stands for arbitrary but fixed values.
    Elided,
    /// An expression of a rule, with its span.
    Expression(Span),
}

/// A tensor written in place.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorAst {
    /// Its type, when written.
    pub kind: Option<TypeAst>,
    /// Its values.
    pub data: Data,
    /// Where it stands.
    pub span: Span,
}

/// A node.
#[derive(Debug, Clone)]
pub struct NodeAst {
    /// `[label]`: the node's name in a graph, a capture in a rule.
    pub label: Option<Name>,
    /// Outputs in order.
    pub outputs: Vec<OutputAst>,
    /// Domain, empty for ONNX's own.
    pub domain: String,
    /// The operator, or alternatives `Relu | Sigmoid` in a pattern.
    pub operators: Vec<Name>,
    /// Attributes in order.
    pub attributes: Vec<AttributeAst>,
    /// `<...>`: attributes not named are allowed (pattern) or taken from that node (replacement).
    pub rest: Option<RestAst>,
    /// Inputs in order.
    pub inputs: Vec<InputAst>,
    /// Where the node stands.
    pub span: Span,
}

/// `...` or `...label` among the attributes of a rule's node.
#[derive(Debug, Clone, PartialEq)]
pub struct RestAst {
    /// The node that the attributes are taken from.
    pub of: Option<String>,
    /// Where it stands.
    pub span: Span,
}

/// An output of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputAst {
    /// Its name; empty when left out.
    pub name: Name,
    /// `name...`
    pub variadic: bool,
    /// `name?`
    pub optional: bool,
}

/// An input of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum InputAst {
    /// Left out.
    Absent(Span),
    /// A value by name.
    Value {
        /// Its name.
        name: Name,
        /// `name?`
        optional: bool,
        /// `name...`
        variadic: bool,
    },
    /// A constant written in place.
    Constant(TensorAst),
}

impl InputAst {
    /// Where it stands.
    pub fn span(&self) -> Span {
        match self {
            InputAst::Absent(span) => span.clone(),
            InputAst::Value { name, .. } => name.span.clone(),
            InputAst::Constant(tensor) => tensor.span.clone(),
        }
    }
}

/// An attribute of a node.
#[derive(Debug, Clone)]
pub struct AttributeAst {
    /// Its name.
    pub name: Name,
    /// Its type, when written.
    pub kind: Option<Name>,
    /// Its value.
    pub value: AttributeValueAst,
    /// Where it stands.
    pub span: Span,
}

/// The value of an attribute as written.
#[derive(Debug, Clone)]
pub enum AttributeValueAst {
    /// A number.
    Number(Number),
    /// A string.
    String(String),
    /// A list of values.
    List(Vec<AttributeValueAst>),
    /// A tensor.
    Tensor(TensorAst),
    /// A graph.
    Graph(Box<GraphAst>),
    /// `@name`, an attribute of the function around.
    Reference(String),
    /// A bare name: a capture in a pattern, an expression in a replacement.
    Name(Name),
    /// `{expression}` in a replacement.
    Expression(Span),
}
