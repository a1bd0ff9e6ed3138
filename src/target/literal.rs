//! Python literals: what `repr` writes into a model's metadata (`[640, 640]`, `{0: 'person'}`, `True`).
//!
//! Only values are read, nothing is ever evaluated. Text that is no literal gives `None`.

use std::iter::Peekable;
use std::str::Chars;

/// A Python literal.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a point or an exponent.
    Float(f64),
    /// Text.
    Str(String),
    /// A list, a tuple or a set.
    List(Vec<Literal>),
    /// A dictionary, in its order.
    Dict(Vec<(Literal, Literal)>),
}

/// Deeper nesting than this is junk, not metadata.
const MAX_DEPTH: usize = 32;

impl Literal {
    /// Reads one literal that fills the whole text.
    pub fn parse(text: &str) -> Option<Literal> {
        let mut reader = Reader { chars: text.chars().peekable() };
        let value = reader.value(0)?;
        reader.skip_space();
        reader.chars.peek().is_none().then_some(value)
    }

    /// The whole number, also from a float without fraction.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Literal::Int(value) => Some(*value),
            Literal::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => Some(*value as i64),
            _ => None,
        }
    }

    /// The whole numbers of a list.
    pub fn as_ints(&self) -> Option<Vec<i64>> {
        match self {
            Literal::List(items) => items.iter().map(Literal::as_int).collect(),
            _ => None,
        }
    }

    /// The text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Literal::Str(value) => Some(value),
            _ => None,
        }
    }

    /// True or false.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Literal::Bool(value) => Some(*value),
            _ => None,
        }
    }
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        while self.chars.next_if(|c| c.is_whitespace()).is_some() {}
    }

    fn value(&mut self, depth: usize) -> Option<Literal> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.skip_space();
        match *self.chars.peek()? {
            '[' => self.list(']', depth),
            '(' => self.list(')', depth),
            '{' => self.braces(depth),
            '\'' | '"' => self.text().map(Literal::Str),
            c if c.is_ascii_digit() || c == '-' || c == '+' || c == '.' => self.number(),
            _ => self.word(),
        }
    }

    fn list(&mut self, close: char, depth: usize) -> Option<Literal> {
        self.chars.next();
        let mut items = Vec::new();
        loop {
            self.skip_space();
            if self.chars.next_if_eq(&close).is_some() {
                return Some(Literal::List(items));
            }
            items.push(self.value(depth + 1)?);
            self.comma(close)?;
        }
    }

    /// After an item: a comma, or the closing bracket ahead.
    fn comma(&mut self, close: char) -> Option<()> {
        self.skip_space();
        match self.chars.peek()? {
            ',' => {
                self.chars.next();
                Some(())
            }
            c if *c == close => Some(()),
            _ => None,
        }
    }

    fn braces(&mut self, depth: usize) -> Option<Literal> {
        self.chars.next();
        let (mut pairs, mut items) = (Vec::new(), Vec::new());
        loop {
            self.skip_space();
            if self.chars.next_if_eq(&'}').is_some() {
                return Some(if items.is_empty() { Literal::Dict(pairs) } else { Literal::List(items) });
            }
            let key = self.value(depth + 1)?;
            self.skip_space();
            if self.chars.next_if_eq(&':').is_some() {
                pairs.push((key, self.value(depth + 1)?));
            } else {
                items.push(key);
            }
            self.comma('}')?;
        }
    }

    fn text(&mut self) -> Option<String> {
        let quote = self.chars.next()?;
        let mut text = String::new();
        loop {
            match self.chars.next()? {
                c if c == quote => return Some(text),
                '\\' => text.push(self.escape()?),
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let digits = match self.chars.next()? {
            'n' => return Some('\n'),
            't' => return Some('\t'),
            'r' => return Some('\r'),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            other => return Some(other),
        };
        let mut code = 0u32;
        for _ in 0..digits {
            code = code.checked_mul(16)?.checked_add(self.chars.next()?.to_digit(16)?)?;
        }
        char::from_u32(code)
    }

    fn number(&mut self) -> Option<Literal> {
        let mut text = String::new();
        while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.' | '_')) {
            if c != '_' {
                text.push(c);
            }
        }
        match text.parse::<i64>() {
            Ok(value) => Some(Literal::Int(value)),
            Err(_) => text.parse::<f64>().ok().map(Literal::Float),
        }
    }

    fn word(&mut self) -> Option<Literal> {
        let mut word = String::new();
        while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            word.push(c);
        }
        match word.as_str() {
            "None" | "null" => Some(Literal::None),
            "True" | "true" => Some(Literal::Bool(true)),
            "False" | "false" => Some(Literal::Bool(false)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_exporters_write() {
        assert_eq!(Literal::parse("[640, 640]").and_then(|v| v.as_ints()), Some(vec![640, 640]));
        assert_eq!(Literal::parse("(17, 3,)").and_then(|v| v.as_ints()), Some(vec![17, 3]));
        assert_eq!(Literal::parse("True"), Some(Literal::Bool(true)));
        assert_eq!(Literal::parse(" -1.5e3 "), Some(Literal::Float(-1500.0)));
        assert_eq!(
            Literal::parse(r#"{0: 'person', 1: "it's", 'k': None}"#),
            Some(Literal::Dict(vec![
                (Literal::Int(0), Literal::Str("person".into())),
                (Literal::Int(1), Literal::Str("it's".into())),
                (Literal::Str("k".into()), Literal::None),
            ]))
        );
        assert_eq!(Literal::parse(r"'a\n\x41\u00e9'"), Some(Literal::Str("a\nAé".into())));
        assert_eq!(Literal::parse("{1, 2}").and_then(|v| v.as_ints()), Some(vec![1, 2]));
    }

    #[test]
    fn junk_is_none() {
        for junk in ["", "[1, 2", "{0: }", "__import__('os')", "[1 2]", "'open", "1 2", "0x", "\\", "--1"] {
            assert_eq!(Literal::parse(junk), None, "{junk}");
        }
        assert_eq!(Literal::parse(&"[".repeat(100_000)), None);
    }
}
