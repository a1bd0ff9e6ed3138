//! How an expression over sizes is written: `(height - 1)//32 + 1`, and read back.

use rten_shape_inference::SymExpr;

/// The text of an expression; [`parse`] reads it.
pub fn print(expr: &SymExpr) -> String {
    match expr {
        SymExpr::Value(value) => value.to_string(),
        SymExpr::Var(symbol) => symbol.name.clone(),
        SymExpr::Neg(inner) => format!("-{}", atom(inner)),
        SymExpr::Add(..) | SymExpr::Sub(..) => sum(expr),
        SymExpr::Mul(a, b) => format!("{}*{}", factor(a), factor(b)),
        SymExpr::Div(a, b) => format!("{}//{}", factor(a), atom(b)),
        SymExpr::DivCeil(a, b) => format!("ceil({}/{})", factor(a), atom(b)),
        SymExpr::Max(a, b) => format!("max({}, {})", print(a), print(b)),
        SymExpr::Min(a, b) => format!("min({}, {})", print(a), print(b)),
        SymExpr::Broadcast(a, b) => format!("broadcast({}, {})", print(a), print(b)),
    }
}

/// In parentheses unless it is one word.
fn atom(expr: &SymExpr) -> String {
    match expr {
        SymExpr::Value(_) | SymExpr::Var(_) | SymExpr::Max(..) | SymExpr::Min(..) | SymExpr::DivCeil(..) => print(expr),
        SymExpr::Broadcast(..) => print(expr),
        _ => format!("({})", print(expr)),
    }
}

/// In parentheses where a product would otherwise be read wrongly.
fn factor(expr: &SymExpr) -> String {
    match expr {
        SymExpr::Mul(..) => print(expr),
        _ => atom(expr),
    }
}

/// A sum with its names first and its number last.
fn sum(expr: &SymExpr) -> String {
    fn collect<'a>(expr: &'a SymExpr, minus: bool, terms: &mut Vec<(bool, &'a SymExpr)>, number: &mut i64) {
        match expr {
            SymExpr::Add(a, b) => {
                collect(a, minus, terms, number);
                collect(b, minus, terms, number);
            }
            SymExpr::Sub(a, b) => {
                collect(a, minus, terms, number);
                collect(b, !minus, terms, number);
            }
            SymExpr::Neg(a) => collect(a, !minus, terms, number),
            SymExpr::Value(value) => *number += if minus { -i64::from(*value) } else { i64::from(*value) },
            _ => terms.push((minus, expr)),
        }
    }
    let (mut terms, mut number) = (Vec::new(), 0);
    collect(expr, false, &mut terms, &mut number);
    terms.sort_by_key(|(minus, _)| *minus);
    let mut out = String::new();
    for (minus, term) in terms {
        let join = match (out.is_empty(), minus) {
            (true, false) => "",
            (true, true) => "-",
            (false, false) => " + ",
            (false, true) => " - ",
        };
        out.push_str(join);
        let term = if matches!(term, SymExpr::Div(..)) { print(term) } else { factor(term) };
        out.push_str(&term);
    }
    match number {
        0 if out.is_empty() => out.push('0'),
        0 => {}
        n if n < 0 => out.push_str(&format!(" - {}", -n)),
        n => out.push_str(&format!(" + {n}")),
    }
    out
}

/// Reads an expression of names, numbers, `+ - * / //`, `floor ceil max min broadcast` and parentheses.
/// `None` where the text is something else.
pub fn parse(text: &str) -> Option<SymExpr> {
    if text.len() > 256 {
        return None; // no expression that somebody wrote; and trees stay shallow
    }
    let mut parser = Parser { rest: text, depth: 0, fractions: 0 };
    let expr = parser.sum()?;
    (parser.rest.trim_start().is_empty() && parser.fractions == 0).then_some(expr)
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
    /// Divisions by `/` that nothing has rounded yet: only right inside `floor` or `ceil`.
    fractions: usize,
}

impl<'a> Parser<'a> {
    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start();
        match rest.strip_prefix(token) {
            Some(after) => {
                self.rest = after;
                true
            }
            None => false,
        }
    }

    fn sum(&mut self) -> Option<SymExpr> {
        let mut left = self.product()?;
        loop {
            if self.take("+") {
                left += self.product()?;
            } else if self.take("-") {
                left = left - self.product()?;
            } else {
                return Some(left);
            }
        }
    }

    fn product(&mut self) -> Option<SymExpr> {
        let mut left = self.atom()?;
        loop {
            if self.take("*") {
                left = left * self.atom()?;
            } else if self.take("//") {
                left = left / self.atom()?;
            } else if self.take("/") {
                left = left / self.atom()?;
                self.fractions += 1;
            } else {
                return Some(left);
            }
        }
    }

    fn atom(&mut self) -> Option<SymExpr> {
        self.depth += 1;
        if self.depth > 64 {
            return None; // as deep as no exporter writes, and as no stack minds
        }
        let atom = self.atom_inner();
        self.depth -= 1;
        atom
    }

    fn atom_inner(&mut self) -> Option<SymExpr> {
        if self.take("(") {
            let inner = self.sum()?;
            return self.take(")").then_some(inner);
        }
        if self.take("-") {
            return Some(-self.atom()?);
        }
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '#' | '@' | '$')));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        if word.is_empty() {
            return None;
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return word.parse::<i32>().ok().map(SymExpr::Value);
        }
        if !self.take("(") {
            return Some(SymExpr::pos_var(word));
        }
        let before = self.fractions;
        let first = self.sum()?;
        // Whole numbers divided once and rounded at once; a sum of fractions has no such form here.
        let rounded = self.fractions == before + 1 && matches!(first, SymExpr::Div(..));
        let second = if self.take(",") { Some(self.sum()?) } else { None };
        if !self.take(")") {
            return None;
        }
        match (word, second) {
            ("floor", None) if rounded || self.fractions == before => {
                self.fractions = before;
                Some(first)
            }
            ("ceil", None) if rounded => {
                self.fractions = before;
                match first {
                    SymExpr::Div(a, b) => Some(a.div_ceil(&b)),
                    _ => None,
                }
            }
            ("max" | "Max", Some(second)) => Some(first.max(&second)),
            ("min" | "Min", Some(second)) => Some(first.min(&second)),
            ("broadcast", Some(second)) => Some(first.broadcast(&second)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_back() {
        for text in
            ["batch", "past + 1", "(height - 1)//32 + 1", "4*batch*(n + 2)", "ceil(w/8)", "max(a, b) - 2", "a//b"]
        {
            let expr = parse(text).unwrap();
            assert_eq!(print(&expr), text, "{expr:?}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        // floor(h/2 - 1/2) is (h - 1)//2, not h//2: fractions must not be rounded one by one.
        assert_eq!(print(&parse("floor(h/2)").unwrap()), "h//2");
        for text in
            ["floor(h/2 - 1/2)", "h/2", "batch size", "", "a +", "f(x)", "99999999999", "((((", &"(".repeat(100_000)]
        {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
