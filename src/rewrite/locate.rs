//! Where a text inside a YAML file stands in the file, so that a mistake in a pattern is shown in the rule file itself.
//!
//! Understands what rule and target files use: block mappings and lists, and scalars that are plain, quoted or blocks.

use crate::text::Span;

/// One step into a document.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// The value of a key.
    Key(&'a str),
    /// An item of a list.
    Item(usize),
}

/// A scalar's text and the place of each of its lines in the file.
#[derive(Debug, Clone)]
pub struct Located {
    /// Begin in the scalar's text, begin in the file, length.
    pieces: Vec<(usize, usize, usize)>,
    /// All of it in the file.
    pub whole: Span,
}

impl Located {
    /// The place in the file of a span of the scalar's text.
    pub fn place(&self, span: &Span) -> Span {
        let start = self.offset(span.start);
        let end = self.offset(span.end).max(start);
        start..end
    }

    fn offset(&self, offset: usize) -> usize {
        let piece = self.pieces.iter().rev().find(|(begin, _, _)| *begin <= offset).or(self.pieces.first());
        match piece {
            Some((begin, file, length)) => file + (offset - begin.min(&offset)).min(*length),
            None => self.whole.start,
        }
    }
}

#[derive(Clone)]
struct Line {
    /// Offset of the content in the file.
    at: usize,
    indent: usize,
    text: String,
}

/// Finds the scalar, or the value whatever it is, at `path`.
pub fn locate(file: &str, path: &[Step]) -> Option<Located> {
    let mut lines = Vec::new();
    let mut offset = 0;
    for raw in file.split_inclusive('\n') {
        let content = raw.trim_end_matches(['\n', '\r']);
        let text = content.trim_start();
        let indent = content.len() - text.len();
        lines.push(Line { at: offset + indent, indent, text: text.to_string() });
        offset += raw.len();
    }
    descend(&lines, path)
}

fn significant(line: &Line) -> bool {
    !line.text.is_empty() && !line.text.starts_with('#') && line.text != "---"
}

fn whole(lines: &[Line]) -> Option<Located> {
    let first = lines.iter().find(|line| significant(line))?;
    let last = lines.iter().rfind(|line| significant(line))?;
    let whole = first.at..last.at + last.text.len();
    Some(Located { pieces: vec![(0, whole.start, whole.len())], whole })
}

fn descend(lines: &[Line], path: &[Step]) -> Option<Located> {
    let Some((step, rest)) = path.split_first() else { return whole(lines) };
    let indent = lines.iter().find(|line| significant(line))?.indent;
    match step {
        Step::Item(index) => {
            let starts: Vec<usize> = (0..lines.len())
                .filter(|i| lines[*i].indent == indent && (lines[*i].text == "-" || lines[*i].text.starts_with("- ")))
                .collect();
            let start = *starts.get(*index)?;
            let end = starts.get(index + 1).copied().unwrap_or(lines.len());
            let mut inner = lines[start..end].to_vec();
            // The dash becomes indentation.
            let first = inner.first_mut()?;
            let body = first.text[1..].trim_start().to_string();
            let skipped = first.text.len() - body.len();
            *first = Line { at: first.at + skipped, indent: first.indent + skipped, text: body };
            if !rest.is_empty() {
                return descend(&inner, rest);
            }
            let first = inner.first()?.clone();
            Some(scalar(&first, &first.text, first.at, &inner[1..]).unwrap_or(whole(&inner)?))
        }
        Step::Key(key) => {
            let start = (0..lines.len()).find(|i| {
                let line = &lines[*i];
                line.indent == indent
                    && line.text.strip_prefix(key).is_some_and(|after| after == ":" || after.starts_with(": "))
            })?;
            let line = &lines[start];
            let end = (start + 1..lines.len())
                .find(|i| {
                    let other = &lines[*i];
                    let item = other.text == "-" || other.text.starts_with("- ");
                    significant(other) && (other.indent < indent || (other.indent == indent && !item))
                })
                .unwrap_or(lines.len());
            let value = line.text[key.len() + 1..].trim_start();
            let at = line.at + line.text.len() - value.len();
            if rest.is_empty() {
                let found = scalar(line, value, at, &lines[start + 1..end]);
                return found.or_else(|| whole(&lines[start..end]));
            }
            if !value.is_empty() {
                // A flow collection: its parts are not told apart.
                return Some(Located { pieces: vec![(0, at, value.len())], whole: at..at + value.len() });
            }
            descend(&lines[start + 1..end], rest)
        }
    }
}

/// The scalar that begins with `value` at `at`; `after` are the lines that may belong to it.
fn scalar(line: &Line, value: &str, at: usize, after: &[Line]) -> Option<Located> {
    if value.starts_with('|') || value.starts_with('>') {
        let indent = after.iter().find(|line| !line.text.is_empty())?.indent;
        let mut pieces = Vec::new();
        let mut begin = 0;
        for inner in after {
            let start = inner.at - inner.indent.saturating_sub(indent).min(inner.indent);
            let length = if inner.text.is_empty() { 0 } else { inner.at + inner.text.len() - start };
            pieces.push((begin, start, length));
            begin += length + 1;
        }
        let first = pieces.first()?.1;
        let last = pieces.iter().rfind(|(_, _, length)| *length > 0)?;
        let whole = first..last.1 + last.2;
        return Some(Located { pieces, whole });
    }
    if value.is_empty() || line.text.is_empty() {
        return None;
    }
    let quoted = usize::from(value.starts_with(['"', '\'']));
    let mut pieces = vec![(0, at + quoted, value.len().saturating_sub(2 * quoted))];
    let mut begin = value.len() + 1;
    let mut end = at + value.len();
    for inner in after.iter().filter(|line| significant(line)) {
        pieces.push((begin, inner.at, inner.text.len()));
        begin += inner.text.len() + 1;
        end = inner.at + inner.text.len();
    }
    Some(Located { pieces, whole: at..end })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "rule: a\nwhere:\n  - outer(x) > 1\n  - 'b == 2'\nmatch: |\n  y = Relu (x)\n    z = Neg (y)\nexamples:\n  - before: |\n      text\n    after: q\n";

    fn found(path: &[Step], span: Span) -> &'static str {
        &FILE[locate(FILE, path).unwrap().place(&span)]
    }

    #[test]
    fn every_kind_of_scalar_is_found() {
        assert_eq!(found(&[Step::Key("rule")], 0..1), "a");
        assert_eq!(found(&[Step::Key("where"), Step::Item(0)], 0..5), "outer");
        assert_eq!(found(&[Step::Key("where"), Step::Item(1)], 0..1), "b");
        assert_eq!(found(&[Step::Key("match")], 4..8), "Relu");
        assert_eq!(found(&[Step::Key("match")], 15..22), "z = Neg");
        assert_eq!(found(&[Step::Key("examples"), Step::Item(0), Step::Key("before")], 0..4), "text");
        assert_eq!(found(&[Step::Key("examples"), Step::Item(0), Step::Key("after")], 0..1), "q");
    }
}
