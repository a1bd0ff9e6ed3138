//! CEL expressions in rules: compiled once, checked against the names a pattern captures, evaluated for each match.
//!
//! Two things go beyond plain CEL. Lists take Python's indices and slices (`x.shape[-1]`, `x.shape[:axis]`), which
//! are turned into calls before CEL parses. And a dimension may be *unknown*: it is `null`, and whatever is computed
//! from it is not proven, which is neither true nor an error (see [`Outcome`]). To keep that promise, operators are
//! routed to functions of our own that know about `null`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use cel::common::ast::{EntryExpr, Expr};
use cel::parser::{Expression as Ast, Parser};
use cel::{Context, ExecutionError, Value};

use super::functions;
use crate::text::Span;

/// An expression as it stands in a rule.
#[derive(Debug)]
pub struct Expression {
    source: String,
    compiled: OnceLock<Result<Compiled, ExpressionError>>,
}

#[derive(Debug)]
struct Compiled {
    ast: Ast,
    /// Which variables are read, and which fields of each (`*` when the variable is used whole).
    reads: BTreeMap<String, BTreeSet<String>>,
}

/// What an expression came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<T> {
    /// A value.
    Known(T),
    /// It depends on a size or a value that is not known before the model runs.
    Unknown,
}

/// An expression that makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// What is wrong, and what would be right.
    pub message: String,
    /// Where in the expression, when that is known.
    pub span: Option<Span>,
}

impl ExpressionError {
    fn new(message: impl Into<String>, span: Option<Span>) -> Self {
        ExpressionError { message: message.into(), span }
    }
}

/// What an expression may read.
pub trait Scope {
    /// The variable `name`, of which `fields` are read; none where there is no such variable.
    fn variable(&self, name: &str, fields: &BTreeSet<String>) -> Option<Value>;
}

/// The fields of a captured value.
pub const VALUE_FIELDS: &[&str] = &[
    "shape",
    "rank",
    "dtype",
    "value",
    "scalar",
    "min",
    "max",
    "size",
    "is_constant",
    "is_input",
    "is_output",
    "uses",
    "name",
    "present",
];

/// The fields of a captured node.
pub const NODE_FIELDS: &[&str] = &["op", "node_name"];

impl Expression {
    /// An expression that is compiled when it is first needed.
    pub fn new(source: impl Into<String>) -> Self {
        Expression { source: source.into(), compiled: OnceLock::new() }
    }

    /// The text as written.
    pub fn source(&self) -> &str {
        self.source.trim()
    }

    /// Compiles and checks that every name is one of `names` and every function exists.
    pub fn check(&self, names: &BTreeSet<String>) -> Result<(), ExpressionError> {
        let compiled = self.compiled()?;
        for (name, fields) in &compiled.reads {
            if !names.contains(name) {
                let known: Vec<&str> = names.iter().map(String::as_str).collect();
                return Err(ExpressionError::new(
                    format!("`{name}` is not captured by the pattern; it captures {}", known.join(", ")),
                    find_word(&self.source, name),
                ));
            }
            for field in fields {
                let known = |list: &[&str]| list.contains(&field.as_str());
                if field != "*" && !known(VALUE_FIELDS) && !known(NODE_FIELDS) {
                    return Err(ExpressionError::new(
                        format!("`{name}.{field}` does not exist; a value has {}", VALUE_FIELDS.join(", ")),
                        find_word(&self.source, field),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The names this expression reads.
    pub fn names(&self) -> Result<impl Iterator<Item = &str>, ExpressionError> {
        Ok(self.compiled()?.reads.keys().map(String::as_str))
    }

    fn compiled(&self) -> Result<&Compiled, ExpressionError> {
        self.compiled.get_or_init(|| compile(&self.source)).as_ref().map_err(Clone::clone)
    }

    /// Evaluates in `scope`.
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Outcome<Value>, ExpressionError> {
        let compiled = self.compiled()?;
        functions::with_root(|root| {
            let mut context = root.new_inner_scope();
            for (name, fields) in &compiled.reads {
                match scope.variable(name, fields) {
                    Some(value) => context.add_variable_from_value(name.as_str(), value),
                    None => {
                        return Err(ExpressionError::new(
                            format!("`{name}` is not captured by the pattern"),
                            find_word(&self.source, name),
                        ));
                    }
                }
            }
            self.run(&compiled.ast, &context)
        })
    }

    fn run(&self, ast: &Ast, context: &Context) -> Result<Outcome<Value>, ExpressionError> {
        match Value::resolve(ast, context) {
            Ok(Value::Null) => Ok(Outcome::Unknown),
            Ok(value) => Ok(Outcome::Known(value)),
            Err(error) if is_unknown(&error) => Ok(Outcome::Unknown),
            Err(ExecutionError::FunctionError { function, message }) => {
                Err(ExpressionError::new(format!("{}: {message}", spoken(&function)), None))
            }
            Err(error) => Err(ExpressionError::new(error.to_string(), None)),
        }
    }

    /// Evaluates a predicate: only `Known(true)` is proven.
    pub fn holds(&self, scope: &dyn Scope) -> Result<Outcome<bool>, ExpressionError> {
        match self.evaluate(scope)? {
            Outcome::Known(Value::Bool(value)) => Ok(Outcome::Known(value)),
            Outcome::Unknown => Ok(Outcome::Unknown),
            Outcome::Known(other) => Err(ExpressionError::new(
                format!("expected true or false, found {}", functions::describe(&other)),
                None,
            )),
        }
    }
}

/// Our operators under the names they are written with.
fn spoken(function: &str) -> String {
    OPERATORS
        .iter()
        .find(|(_, ours)| *ours == function)
        .map_or_else(|| format!("`{function}`"), |(theirs, _)| format!("`{}`", theirs.replace('_', "")))
}

fn is_unknown(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::FunctionError { message, .. } => message == functions::UNKNOWN,
        ExecutionError::NoSuchOverload(overload) => overload.argument_types().iter().any(|kind| kind.contains("null")),
        ExecutionError::ValuesNotComparable(a, b) | ExecutionError::UnsupportedBinaryOperator(_, a, b) => {
            matches!(a, Value::Null) || matches!(b, Value::Null)
        }
        ExecutionError::UnexpectedType { got, .. } => got.contains("Null"),
        _ => false,
    }
}

fn find_word(source: &str, word: &str) -> Option<Span> {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    source
        .match_indices(word)
        .map(|(start, _)| start..start + word.len())
        .find(|span| !source[..span.start].ends_with(inside) && !source[span.end..].starts_with(inside))
}

/// CEL's operators and the functions that stand in for them.
const OPERATORS: &[(&str, &str)] = &[
    ("_+_", "op_add"),
    ("_-_", "op_subtract"),
    ("_*_", "op_multiply"),
    ("_/_", "op_divide"),
    ("_%_", "op_remainder"),
    ("_==_", "op_equal"),
    ("_!=_", "op_unequal"),
    ("_<_", "op_less"),
    ("_<=_", "op_less_or_equal"),
    ("_>_", "op_greater"),
    ("_>=_", "op_greater_or_equal"),
    ("-_", "op_negate"),
    ("@in", "op_in"),
];

/// CEL's own functions that rules may call.
const STANDARD: &[&str] = &[
    "size",
    "int",
    "double",
    "string",
    "bool",
    "contains",
    "startsWith",
    "endsWith",
    "_?_:_",
    "_&&_",
    "_||_",
    "!_",
    "@not_strictly_false",
    "_[_]",
    "type",
];

fn compile(source: &str) -> Result<Compiled, ExpressionError> {
    let plain = Plain::of(source)?;
    let mut ast = Parser::default().parse(&plain.text).map_err(|errors| {
        let first = errors.errors.first();
        let span = first.and_then(|error| plain.span_at(error.pos));
        let message = first.map_or_else(|| "not a CEL expression".to_string(), |error| error.msg.clone());
        ExpressionError::new(format!("expected a CEL expression: {message}"), span)
    })?;
    let mut compiled = Compiled { ast: Ast::default(), reads: BTreeMap::new() };
    let mut functions = HashMap::new();
    visit(&mut ast, &mut Vec::new(), &mut compiled.reads, &mut functions);
    for name in functions.into_keys() {
        if !functions::exists(&name) && !STANDARD.contains(&name.as_str()) {
            return Err(ExpressionError::new(
                format!("there is no function `{name}`; there are {}", functions::names().join(", ")),
                find_word(source, &name),
            ));
        }
    }
    compiled.ast = ast;
    Ok(compiled)
}

/// Renames operators and notes what is read.
fn visit(
    node: &mut Ast,
    bound: &mut Vec<String>,
    reads: &mut BTreeMap<String, BTreeSet<String>>,
    functions: &mut HashMap<String, ()>,
) {
    match &mut node.expr {
        Expr::Ident(name) => {
            if !bound.contains(name) {
                reads.entry(name.clone()).or_default().insert("*".to_string());
            }
        }
        Expr::Select(select) => {
            if let Expr::Ident(name) = &select.operand.expr
                && !bound.contains(name)
            {
                reads.entry(name.clone()).or_default().insert(select.field.clone());
                return;
            }
            visit(&mut select.operand, bound, reads, functions);
        }
        Expr::Call(call) => {
            // The macros' own bookkeeping (`accumulator + [x]`) stays CEL's.
            let bookkeeping =
                matches!(&call.args.first().map(|arg| &arg.expr), Some(Expr::Ident(name)) if name.starts_with('@'));
            match OPERATORS.iter().find(|(theirs, _)| *theirs == call.func_name) {
                Some((_, ours)) if !bookkeeping => call.func_name = (*ours).to_string(),
                Some(_) => {}
                None => {
                    functions.insert(call.func_name.clone(), ());
                }
            }
            if let Some(target) = &mut call.target {
                visit(target, bound, reads, functions);
            }
            for arg in &mut call.args {
                visit(arg, bound, reads, functions);
            }
        }
        Expr::List(list) => list.elements.iter_mut().for_each(|element| visit(element, bound, reads, functions)),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    visit(&mut entry.key, bound, reads, functions);
                    visit(&mut entry.value, bound, reads, functions);
                }
            }
        }
        Expr::Comprehension(all) => {
            visit(&mut all.iter_range, bound, reads, functions);
            visit(&mut all.accu_init, bound, reads, functions);
            let depth = bound.len();
            bound.push(all.iter_var.clone());
            bound.extend(all.iter_var2.clone());
            bound.push(all.accu_var.clone());
            visit(&mut all.loop_cond, bound, reads, functions);
            visit(&mut all.loop_step, bound, reads, functions);
            visit(&mut all.result, bound, reads, functions);
            bound.truncate(depth);
        }
        Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => {}
    }
}

/// An expression without Python's brackets, and where each byte of it came from.
struct Plain {
    text: String,
    origin: Vec<usize>,
    length: usize,
}

impl Plain {
    /// Turns `a[i]` into `a.at(i)` and `a[b:e]` into `a.cut(b, e)`.
    fn of(source: &str) -> Result<Plain, ExpressionError> {
        let mut plain = Plain { text: String::new(), origin: Vec::new(), length: source.len() };
        // For each open bracket: the kind, and where its text starts in the output.
        let mut open: Vec<Bracket> = Vec::new();
        let mut quote: Option<char> = None;
        let mut escaped = false;
        for (at, c) in source.char_indices() {
            if let Some(q) = quote {
                plain.push(&c.to_string(), at);
                if escaped {
                    escaped = false;
                } else if c == '\\' {
                    escaped = true;
                } else if c == q {
                    quote = None;
                }
                continue;
            }
            match c {
                '"' | '\'' => {
                    quote = Some(c);
                    plain.push(&c.to_string(), at);
                }
                '[' if follows_value(&plain.text) => {
                    open.push(Bracket { kind: Kind::Index, at, start: plain.text.len(), colon: None, ternaries: 0 });
                }
                '[' | '(' | '{' => {
                    let kind = if c == '[' { Kind::List } else { Kind::Other };
                    open.push(Bracket { kind, at, start: 0, colon: None, ternaries: 0 });
                    plain.push(&c.to_string(), at);
                }
                ']' | ')' | '}' => match open.pop() {
                    Some(bracket) if bracket.kind == Kind::Index && c == ']' => plain.close_index(&bracket, at),
                    _ => plain.push(&c.to_string(), at),
                },
                '?' => {
                    if let Some(bracket) = open.last_mut() {
                        bracket.ternaries += 1;
                    }
                    plain.push("?", at);
                }
                ':' => match open.last_mut() {
                    Some(bracket) if bracket.kind == Kind::Index && bracket.ternaries == 0 => {
                        if bracket.colon.is_some() {
                            return Err(ExpressionError::new(
                                "a slice takes a begin and an end, no step",
                                Some(at..at + 1),
                            ));
                        }
                        bracket.colon = Some(plain.text.len());
                    }
                    bracket => {
                        if let Some(bracket) = bracket {
                            bracket.ternaries = bracket.ternaries.saturating_sub(1);
                        }
                        plain.push(":", at);
                    }
                },
                _ => plain.push(&c.to_string(), at),
            }
        }
        if let Some(bracket) = open.iter().rfind(|bracket| bracket.kind == Kind::Index) {
            return Err(ExpressionError::new("expected a matching `]`", Some(bracket.at..bracket.at + 1)));
        }
        Ok(plain)
    }

    fn push(&mut self, text: &str, origin: usize) {
        self.text.push_str(text);
        self.origin.extend(std::iter::repeat_n(origin, text.len()));
    }

    fn close_index(&mut self, bracket: &Bracket, at: usize) {
        let inner = self.text.split_off(bracket.start);
        let origins = self.origin.split_off(bracket.start);
        let append = |plain: &mut Plain, range: Span| {
            plain.text.push_str(&inner[range.clone()]);
            plain.origin.extend_from_slice(&origins[range]);
        };
        match bracket.colon {
            None => {
                self.push(".at(", bracket.at);
                append(self, 0..inner.len());
                self.push(")", at);
            }
            Some(colon) => {
                let colon = colon - bracket.start;
                let begin = !inner[..colon].trim().is_empty();
                let end = !inner[colon..].trim().is_empty();
                self.push(".cut(", bracket.at);
                if begin {
                    append(self, 0..colon);
                } else {
                    self.push("0", bracket.at);
                }
                if end {
                    self.push(", ", at);
                    append(self, colon..inner.len());
                }
                self.push(")", at);
            }
        }
    }

    /// The place in the source of CEL's line and column (from 1).
    fn span_at(&self, (line, column): (isize, isize)) -> Option<Span> {
        let line = usize::try_from(line - 1).ok()?;
        let column = usize::try_from(column - 1).ok()?;
        let start: usize = self.text.split_inclusive('\n').take(line).map(str::len).sum();
        let at = self.origin.get(start + column).copied().unwrap_or(self.length);
        Some(at..(at + 1).min(self.length.max(at)))
    }
}

#[derive(PartialEq)]
enum Kind {
    Index,
    List,
    Other,
}

struct Bracket {
    kind: Kind,
    at: usize,
    start: usize,
    colon: Option<usize>,
    ternaries: usize,
}

/// Whether a bracket after this text indexes what stands before it.
fn follows_value(text: &str) -> bool {
    let trimmed = text.trim_end();
    if !trimmed.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ')' || c == ']') {
        return false;
    }
    // `x in [1, 2]` is a list after a word.
    let word: String = trimmed.chars().rev().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    word != "ni"
}

/// A list of integers as a CEL value.
pub fn integers(values: impl IntoIterator<Item = i64>) -> Value {
    Value::List(Arc::new(values.into_iter().map(Value::Int).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(BTreeMap<String, Value>);

    impl Scope for Fixed {
        fn variable(&self, name: &str, _: &BTreeSet<String>) -> Option<Value> {
            self.0.get(name).cloned()
        }
    }

    fn scope() -> Fixed {
        let shape = Value::List(Arc::new(vec![Value::Int(2), Value::Null, Value::Int(4)]));
        let map: HashMap<String, Value> =
            HashMap::from([("shape".to_string(), shape), ("rank".to_string(), Value::Int(3))]);
        Fixed(BTreeMap::from([
            ("x".to_string(), Value::from(map)),
            ("axis".to_string(), Value::Int(-2)),
            ("sizes".to_string(), integers([2, 4])),
        ]))
    }

    fn value(source: &str) -> Outcome<Value> {
        Expression::new(source).evaluate(&scope()).unwrap()
    }

    fn yes(source: &str) {
        assert_eq!(value(source), Outcome::Known(Value::Bool(true)), "{source}");
    }

    fn unknown(source: &str) {
        assert_eq!(value(source), Outcome::Unknown, "{source}");
    }

    #[test]
    fn indices_and_slices_are_pythons() {
        yes("x.shape[-1] == 4 && x.shape[0] == 2");
        yes("prod(sizes[:axis]) == 1 && prod(sizes[:]) == 8 && sizes[1:] == [4]");
        yes("prod(x.shape[:1]) > 1");
        yes("sizes[0 < 1 ? 1 : 0] == 4");
        yes("sizes[x.rank - 2:x.rank][0] == 4");
        yes("2 in [1, 2] && !(3 in sizes)");
    }

    #[test]
    fn what_depends_on_an_unknown_size_is_not_proven() {
        unknown("x.shape[1] == 3");
        unknown("x.shape[1] != 3");
        unknown("x.shape.all(d, d != 1)");
        unknown("prod(x.shape) > 1");
        unknown("prod(x.shape[:axis + x.rank + 1]) > 1");
        unknown("x.shape == [2, 3, 4]");
        unknown("x.shape[7] == 1");
        yes("x.shape != [2, 3, 5] && x.shape != [2, 3]");
        yes("x.shape[1] == 3 || x.rank == 3");
        yes("!(x.shape[1] == 3 && x.rank == 4)");
    }

    #[test]
    fn whole_and_real_numbers_mix() {
        yes("abs(1 - 1.5) == 0.5 && 2 * 1.5 == 3 && 7 / 2 == 3 && 7.0 / 2 == 3.5");
        yes("sum([1, 2, 3]) == 6 && max(sizes) == 4 && min(sizes) == 2 && unequal(sizes)");
        yes("sizes.map(s, s + 1) == [3, 5] && range(3) == [0, 1, 2] && sizes.exists(s, s > 3)");
        yes("sizes.filter(s, s > 2) == [4] && len(sizes) == size(sizes)");
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let names = BTreeSet::from(["x".to_string()]);
        let error = |source: &str| Expression::new(source).check(&names).unwrap_err();
        assert_eq!(error("axes > 1").span, Some(0..4));
        assert_eq!(error("x.shap[0] > 1").span, Some(2..6));
        assert_eq!(error("product(x.shape) > 1").span, Some(0..7));
        assert!(error("x.rank >").message.contains("expected"));
        assert!(error("x.shape[1").message.contains("matching `]`"));
        let wrong = Expression::new("x.rank + 'a'").holds(&scope()).unwrap_err();
        assert!(wrong.message.contains("`+`"), "{wrong}");
        let wrong = Expression::new("x.rank").holds(&scope()).unwrap_err();
        assert_eq!(wrong.message, "expected true or false, found the whole number 3");
    }
}
