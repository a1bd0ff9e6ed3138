//! ONNX's textual syntax: reading it into a graph, and writing a graph so that a person can read it.
//!
//! ```text
//! <opset_import: ["" : 18]>
//! attention (float[1,8,4] x) => (float[1,2,4] q, float[1,6,4] kv)
//! <float[4] scale = {1, 2, 3, 4}>
//! {
//!    scaled = Mul (x, scale)
//!    [split] q, kv = Split <axis = 1> (scaled, {2, 6})
//! }
//! ```
//!
//! Three things go beyond the format's own grammar, because rules and reports need them: the graph's name may be
//! left out, a constant may be written where it is used (`{2, 6}` is an int64 vector, `float {0.5}` a scalar), and
//! `{...}` stands for values that are too many to read. Read back, `{...}` is filled with fixed small values.

pub mod ast;
mod build;
mod cursor;
pub mod parse;
mod print;

pub use build::{DEFAULT_OPSET, model as parse_model};
pub use cursor::{Cursor, Number};
pub use print::{Style, graph as print_graph, model as print_model, node as print_node};

use std::ops::Range;

/// A place in a text, as byte offsets.
pub type Span = Range<usize>;

/// Something else stands where the syntax expects `expected`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("line {line}, column {column}: expected {expected}, found {found}")]
pub struct TextError {
    /// Where, as offsets into the text.
    pub span: Span,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What would have been right.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl TextError {
    /// An error at `span` of `source`.
    pub fn new(source: &str, span: Span, expected: &str, found: &str) -> Self {
        let (line, column) = line_and_column(source, span.start);
        TextError { span, line, column, expected: expected.to_string(), found: found.to_string() }
    }
}

/// Line and column (from 1) of a byte offset.
pub fn line_and_column(source: &str, offset: usize) -> (usize, usize) {
    let before = source.get(..offset).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}
