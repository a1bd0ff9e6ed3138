//! Reading position in a text: skips blanks and comments, takes names, numbers, strings and punctuation,
//! and says what was expected where something else stands.

use super::{Span, TextError};

/// A reading position in `source`.
#[derive(Clone)]
pub struct Cursor<'s> {
    source: &'s str,
    at: usize,
    end: usize,
}

/// A number as it was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Written without a point or exponent.
    Int(i64),
    /// Written with a point, an exponent, or as `inf` or `nan`.
    Float(f64),
}

impl Number {
    /// The value as a double.
    pub fn as_f64(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Float(value) => value,
        }
    }
}

fn starts_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn continues_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

impl<'s> Cursor<'s> {
    /// Reads `source` from its start.
    pub fn new(source: &'s str) -> Self {
        Cursor { source, at: 0, end: source.len() }
    }

    /// Reads the part `span` of `source`; spans stay offsets into the whole of `source`.
    pub fn within(source: &'s str, span: Span) -> Self {
        let end = span.end.min(source.len());
        Cursor { source, at: span.start.min(end), end }
    }

    /// The whole text that spans are offsets into.
    pub fn source(&self) -> &'s str {
        self.source
    }

    /// The offset of the next unread character.
    pub fn offset(&self) -> usize {
        self.at
    }

    fn rest(&self) -> &'s str {
        self.source.get(self.at..self.end).unwrap_or("")
    }

    fn first(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn advance(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.end);
    }

    /// Skips blanks and `# comments`.
    pub fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.advance(rest.len() - trimmed.len());
            if !trimmed.starts_with('#') {
                return;
            }
            let line = trimmed.find('\n').unwrap_or(trimmed.len());
            self.advance(line);
        }
    }

    /// Whether nothing but blanks is left.
    pub fn at_end(&mut self) -> bool {
        self.skip_blank();
        self.rest().is_empty()
    }

    /// Whether the next thing is exactly `text` (not consumed).
    pub fn sees(&mut self, text: &str) -> bool {
        self.skip_blank();
        self.rest().starts_with(text)
    }

    /// Takes `text` when it comes next.
    pub fn take(&mut self, text: &str) -> bool {
        let found = self.sees(text);
        if found {
            self.advance(text.len());
        }
        found
    }

    /// Takes the word `word` when it comes next as a whole word.
    pub fn take_word(&mut self, word: &str) -> bool {
        self.skip_blank();
        let rest = self.rest();
        let whole = rest.starts_with(word) && !rest[word.len()..].starts_with(continues_name);
        if whole {
            self.advance(word.len());
        }
        whole
    }

    /// Takes `text` or says that it was expected.
    pub fn expect(&mut self, text: &str) -> Result<Span, TextError> {
        self.skip_blank();
        let start = self.at;
        if self.take(text) { Ok(start..self.at) } else { Err(self.error(&format!("`{text}`"))) }
    }

    /// Whether a name comes next (not consumed).
    pub fn sees_name(&mut self) -> bool {
        self.skip_blank();
        self.first().is_some_and(starts_name)
    }

    /// Takes a plain name: letters, digits and `_`.
    pub fn name(&mut self) -> Option<(String, Span)> {
        if !self.sees_name() {
            return None;
        }
        let rest = self.rest();
        let length = rest.find(|c| !continues_name(c)).unwrap_or(rest.len());
        let start = self.at;
        self.advance(length);
        Some((rest[..length].to_string(), start..self.at))
    }

    /// Takes a plain or a quoted name.
    pub fn quotable_name(&mut self) -> Result<Option<(String, Span)>, TextError> {
        if self.sees("\"") {
            return self.string().map(Some);
        }
        Ok(self.name())
    }

    /// Takes a quoted string with the escapes `\"`, `\\`, `\n`, `\t`.
    pub fn string(&mut self) -> Result<(String, Span), TextError> {
        let start = self.expect("\"")?.start;
        let mut text = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((index, c)) = chars.next() {
            match c {
                '"' => {
                    self.advance(index + 1);
                    return Ok((text, start..self.at));
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, other)) => text.push(other),
                    None => break,
                },
                other => text.push(other),
            }
        }
        self.at = start;
        Err(self.error_at(start..self.end, "a closing `\"`", "the end of the text"))
    }

    /// Whether a number comes next (not consumed).
    pub fn sees_number(&mut self) -> bool {
        self.skip_blank();
        let rest = self.rest();
        let unsigned = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        unsigned.starts_with(|c: char| c.is_ascii_digit())
            || (unsigned.starts_with('.') && unsigned[1..].starts_with(|c: char| c.is_ascii_digit()))
            || ["inf", "nan"]
                .iter()
                .any(|word| unsigned.starts_with(word) && !unsigned[word.len()..].starts_with(continues_name))
    }

    /// Takes a number.
    pub fn number(&mut self) -> Result<(Number, Span), TextError> {
        if !self.sees_number() {
            return Err(self.error("a number"));
        }
        let start = self.at;
        let rest = self.rest();
        let sign = usize::from(rest.starts_with(['-', '+']));
        let body = &rest[sign..];
        if body.starts_with("inf") || body.starts_with("nan") {
            self.advance(sign + 3);
            let value = if body.starts_with("nan") {
                f64::NAN
            } else if rest.starts_with('-') {
                f64::NEG_INFINITY
            } else {
                f64::INFINITY
            };
            return Ok((Number::Float(value), start..self.at));
        }
        let mut length = sign;
        let mut real = false;
        let bytes = rest.as_bytes();
        while let Some(&byte) = bytes.get(length) {
            match byte {
                b'0'..=b'9' => {}
                b'.' => real = true,
                b'e' | b'E' => {
                    real = true;
                    if matches!(bytes.get(length + 1), Some(b'-' | b'+')) {
                        length += 1;
                    }
                }
                _ => break,
            }
            length += 1;
        }
        let text = &rest[..length];
        let span = start..start + length;
        let number = if real {
            text.parse().ok().map(Number::Float)
        } else {
            text.parse().ok().map(Number::Int).or_else(|| {
                // Beyond int64 only uint64 is left: keep its bits.
                text.parse::<u64>().ok().map(|value| Number::Int(value as i64))
            })
        };
        match number {
            Some(number) => {
                self.advance(length);
                Ok((number, span))
            }
            None => Err(self.error_at(span, "a number", &format!("`{text}`"))),
        }
    }

    /// Takes the raw text between `{` and its matching `}`; strings and nested braces are kept whole.
    pub fn braced(&mut self) -> Result<Span, TextError> {
        let open = self.expect("{")?;
        let mut depth = 1usize;
        let mut quote = None;
        let mut escaped = false;
        for (index, c) in self.rest().char_indices() {
            match (quote, c) {
                (Some(_), _) if escaped => escaped = false,
                (Some(_), '\\') => escaped = true,
                (Some(q), c) if q == c => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(c),
                (None, '{') => depth += 1,
                (None, '}') => {
                    depth -= 1;
                    if depth == 0 {
                        let span = self.at..self.at + index;
                        self.advance(index + 1);
                        return Ok(span);
                    }
                }
                _ => {}
            }
        }
        Err(self.error_at(open, "a matching `}`", "the end of the text"))
    }

    /// An error at the next thing, which is not `expected`.
    pub fn error(&mut self, expected: &str) -> TextError {
        self.skip_blank();
        let rest = self.rest();
        let length = match self.first() {
            None => 0,
            Some(c) if continues_name(c) => rest.find(|c| !continues_name(c)).unwrap_or(rest.len()),
            Some(c) => c.len_utf8(),
        };
        let found = match length {
            0 => "the end of the text".to_string(),
            _ => format!("`{}`", &rest[..length]),
        };
        self.error_at(self.at..self.at + length, expected, &found)
    }

    /// An error at `span`.
    pub fn error_at(&self, span: Span, expected: &str, found: &str) -> TextError {
        TextError::new(self.source, span, expected, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_kind() {
        let mut cursor = Cursor::new(" 3 -4 2.5 1e-3 -inf nan 18446744073709551615");
        let mut take = || cursor.number().unwrap().0;
        assert_eq!(take(), Number::Int(3));
        assert_eq!(take(), Number::Int(-4));
        assert_eq!(take(), Number::Float(2.5));
        assert_eq!(take(), Number::Float(1e-3));
        assert_eq!(take(), Number::Float(f64::NEG_INFINITY));
        assert!(matches!(take(), Number::Float(value) if value.is_nan()));
        assert_eq!(take(), Number::Int(-1));
    }

    #[test]
    fn braces_nest_and_strings_hide_them() {
        let mut cursor = Cursor::new("{ a[{1}] == '}' } tail");
        let span = cursor.braced().unwrap();
        assert_eq!(&cursor.source()[span], " a[{1}] == '}' ");
        assert!(cursor.sees("tail"));
    }

    #[test]
    fn errors_say_line_and_column() {
        let mut cursor = Cursor::new("a\n  b");
        cursor.name();
        let error = cursor.expect("=").unwrap_err();
        assert_eq!(error.to_string(), "line 2, column 3: expected `=`, found `b`");
    }
}
