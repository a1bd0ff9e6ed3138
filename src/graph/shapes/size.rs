//! Sizes: whole numbers that are known now, expressions over names, or nothing known.
//!
//! The algebra of expressions is rten's [`SymExpr`]. Its constants are 32 bits wide and its arithmetic unchecked, so this
//! module computes known numbers itself in 64 bits, and gives up on an expression (it becomes unknown) before its
//! constants could overflow or it grows past what a reader can take in.

use std::collections::HashMap;
use std::sync::Arc;

use rten_shape_inference::SymExpr;

use super::text;
use crate::graph::Dim;

/// The largest product of constants an expression may hold; far enough below 2^31 that simplifying cannot overflow.
const LARGEST_CONSTANT: f64 = (1u64 << 30) as f64;

/// The most terms and operators an expression may have.
const LONGEST: usize = 48;

/// A size or another whole number of shape arithmetic.
#[derive(Clone, Debug)]
pub enum Size {
    /// Known now.
    Fixed(i64),
    /// An expression over names, simplified, never a plain number.
    Symbolic(Arc<SymExpr>),
    /// Nothing is known.
    Unknown,
}

impl PartialEq for Size {
    /// Equal where that is certain: an unknown size equals nothing, not even another unknown one.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Size::Fixed(a), Size::Fixed(b)) => a == b,
            (Size::Symbolic(a), Size::Symbolic(b)) => a == b,
            _ => false,
        }
    }
}

impl From<i64> for Size {
    fn from(size: i64) -> Self {
        Size::Fixed(size)
    }
}

impl From<&Dim> for Size {
    fn from(dim: &Dim) -> Self {
        match dim {
            Dim::Fixed(size) => Size::Fixed(*size),
            Dim::Symbol(text) if crate::graph::value::is_placeholder(text) => Size::Unknown,
            Dim::Symbol(text) => Size::parse(text),
            Dim::Unknown => Size::Unknown,
        }
    }
}

impl From<&Size> for Dim {
    fn from(size: &Size) -> Self {
        match size {
            Size::Fixed(size) => Dim::Fixed(*size),
            Size::Symbolic(expr) => Dim::Symbol(text::print(expr)),
            Size::Unknown => Dim::Unknown,
        }
    }
}

impl Size {
    /// A size with a name.
    pub fn symbol(name: &str) -> Self {
        Size::Symbolic(Arc::new(SymExpr::pos_var(name)))
    }

    /// Reads a name or an expression as [`Dim`] shows it; what is no expression is a name as a whole.
    pub fn parse(symbol: &str) -> Self {
        match text::parse(symbol) {
            Some(expr) => Size::of(expr),
            None => Size::symbol(symbol),
        }
    }

    fn of(expr: SymExpr) -> Self {
        if expr.iter().count() > LONGEST || magnitude(&expr) > LARGEST_CONSTANT {
            return Size::Unknown;
        }
        match expr.simplify() {
            SymExpr::Value(value) => Size::Fixed(value.into()),
            expr => Size::Symbolic(Arc::new(expr)),
        }
    }

    /// The number, if it is known now.
    pub fn fixed(&self) -> Option<i64> {
        match self {
            Size::Fixed(size) => Some(*size),
            _ => None,
        }
    }

    /// Whether it is this very number.
    pub fn is(&self, number: i64) -> bool {
        self.fixed() == Some(number)
    }

    fn expr(&self) -> Option<SymExpr> {
        match self {
            Size::Fixed(size) => i32::try_from(*size).ok().map(SymExpr::Value),
            Size::Symbolic(expr) => Some((**expr).clone()),
            Size::Unknown => None,
        }
    }

    fn combine(
        &self,
        other: &Self,
        numbers: impl Fn(i64, i64) -> Option<i64>,
        exprs: impl Fn(SymExpr, SymExpr) -> SymExpr,
    ) -> Self {
        if let (Size::Fixed(a), Size::Fixed(b)) = (self, other) {
            return numbers(*a, *b).map_or(Size::Unknown, Size::Fixed);
        }
        match (self.expr(), other.expr()) {
            (Some(a), Some(b)) => Size::of(exprs(a, b)),
            _ => Size::Unknown,
        }
    }

    /// The sum.
    pub fn plus(&self, other: &Self) -> Self {
        match (self, other) {
            (size, Size::Fixed(0)) | (Size::Fixed(0), size) => size.clone(),
            _ => self.combine(other, i64::checked_add, |a, b| a + b),
        }
    }

    /// The difference.
    pub fn minus(&self, other: &Self) -> Self {
        match other {
            Size::Fixed(0) => self.clone(),
            _ => self.combine(other, i64::checked_sub, |a, b| a - b),
        }
    }

    /// The product.
    pub fn times(&self, other: &Self) -> Self {
        match (self, other) {
            (size, Size::Fixed(1)) | (Size::Fixed(1), size) => size.clone(),
            (_, Size::Fixed(0)) | (Size::Fixed(0), _) => Size::Fixed(0),
            _ => self.combine(other, i64::checked_mul, |a, b| a * b),
        }
    }

    /// The quotient as ONNX divides integers, toward zero; expressions are taken for non-negative.
    pub fn over(&self, other: &Self) -> Self {
        match other {
            Size::Fixed(0) => Size::Unknown,
            Size::Fixed(1) => self.clone(),
            _ => self.combine(other, i64::checked_div, |a, b| a / b),
        }
    }

    /// The quotient rounded up.
    pub fn over_ceil(&self, other: &Self) -> Self {
        let ceil = |a: i64, b: i64| Some(a.checked_div_euclid(b)? + i64::from(a.checked_rem_euclid(b)? != 0));
        match other {
            Size::Fixed(0) => Size::Unknown,
            Size::Fixed(1) => self.clone(),
            _ => self.combine(other, ceil, |a, b| a.div_ceil(&b)),
        }
    }

    /// The smaller one.
    pub fn at_most(&self, other: &Self) -> Self {
        if self == other { self.clone() } else { self.combine(other, |a, b| Some(a.min(b)), |a, b| a.min(&b)) }
    }

    /// The larger one.
    pub fn at_least(&self, other: &Self) -> Self {
        if self == other { self.clone() } else { self.combine(other, |a, b| Some(a.max(b)), |a, b| a.max(&b)) }
    }

    /// What two dimensions broadcast to; `None` where they cannot.
    pub fn broadcast(&self, other: &Self) -> Option<Self> {
        Some(match (self, other) {
            (Size::Fixed(1), size) | (size, Size::Fixed(1)) => size.clone(),
            (Size::Fixed(a), Size::Fixed(b)) => return (a == b).then(|| self.clone()),
            // The other side must be 1 or the same; either way the result is the number.
            (Size::Fixed(_), _) => self.clone(),
            (_, Size::Fixed(_)) => other.clone(),
            (Size::Symbolic(a), Size::Symbolic(b)) => Size::of(a.broadcast(b)),
            _ => Size::Unknown,
        })
    }

    /// The product of sizes, which is 0 as soon as one of them is.
    pub fn product<'a>(sizes: impl IntoIterator<Item = &'a Size>) -> Self {
        sizes.into_iter().fold(Size::Fixed(1), |product, size| product.times(size))
    }

    /// The product of `numerators` over the product of `denominators`, where equal factors cancel before anything is
    /// multiplied out.
    pub fn quotient(numerators: &[Size], denominators: &[Size]) -> Self {
        let mut above: Vec<Size> = Vec::new();
        let (mut above_fixed, mut below_fixed) = (Size::Fixed(1), Size::Fixed(1));
        let mut below: Vec<Size> = Vec::new();
        for size in numerators.iter().flat_map(Size::factors) {
            if size.fixed().is_some() { above_fixed = above_fixed.times(&size) } else { above.push(size) }
        }
        for size in denominators.iter().flat_map(Size::factors) {
            match above.iter().position(|other| *other == size) {
                _ if size.fixed().is_some() => below_fixed = below_fixed.times(&size),
                Some(index) => drop(above.remove(index)),
                None => below.push(size),
            }
        }
        if let (Size::Fixed(a), Size::Fixed(b)) = (&above_fixed, &below_fixed)
            && a.checked_rem(*b) == Some(0)
        {
            (above_fixed, below_fixed) = (above_fixed.over(&below_fixed), Size::Fixed(1));
        }
        let above = Size::product(&above).times(&above_fixed);
        above.over(&Size::product(&below).times(&below_fixed))
    }

    fn factors(&self) -> Vec<Size> {
        fn collect(expr: &SymExpr, out: &mut Vec<Size>) {
            match expr {
                SymExpr::Mul(a, b) => {
                    collect(a, out);
                    collect(b, out);
                }
                SymExpr::Value(value) => out.push(Size::Fixed((*value).into())),
                _ => out.push(Size::Symbolic(Arc::new(expr.clone()))),
            }
        }
        match self {
            Size::Symbolic(expr) => {
                let mut out = Vec::new();
                collect(expr, &mut out);
                out
            }
            _ => vec![self.clone()],
        }
    }

    /// The same with names replaced by numbers.
    pub fn with(&self, known: &HashMap<String, i64>) -> Self {
        match self {
            Size::Symbolic(expr) => evaluate(expr, known),
            _ => self.clone(),
        }
    }

    /// Hands every name in it to `take`.
    pub fn names(&self, take: &mut dyn FnMut(&str)) {
        if let Size::Symbolic(expr) = self {
            for part in expr.iter() {
                if let SymExpr::Var(symbol) = part {
                    take(&symbol.name);
                }
            }
        }
    }

    /// The name, if it is a name and nothing more.
    pub fn name(&self) -> Option<&str> {
        match self {
            Size::Symbolic(expr) => match &**expr {
                SymExpr::Var(symbol) => Some(&symbol.name),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Computes in 64 bits what becomes known.
fn evaluate(expr: &SymExpr, known: &HashMap<String, i64>) -> Size {
    let of = |expr: &SymExpr| evaluate(expr, known);
    match expr {
        SymExpr::Value(value) => Size::Fixed((*value).into()),
        SymExpr::Var(symbol) => known.get(&symbol.name).map_or_else(|| Size::of(expr.clone()), |&n| Size::Fixed(n)),
        SymExpr::Add(a, b) => of(a).plus(&of(b)),
        SymExpr::Sub(a, b) => of(a).minus(&of(b)),
        SymExpr::Mul(a, b) => of(a).times(&of(b)),
        SymExpr::Div(a, b) => of(a).over(&of(b)),
        SymExpr::DivCeil(a, b) => of(a).over_ceil(&of(b)),
        SymExpr::Max(a, b) => of(a).at_least(&of(b)),
        SymExpr::Min(a, b) => of(a).at_most(&of(b)),
        SymExpr::Broadcast(a, b) => of(a).broadcast(&of(b)).unwrap_or(Size::Unknown),
        SymExpr::Neg(a) => Size::Fixed(0).minus(&of(a)),
    }
}

/// A bound on every constant that simplifying could make of an expression.
fn magnitude(expr: &SymExpr) -> f64 {
    match expr {
        SymExpr::Value(value) => f64::from(*value).abs().max(1.0),
        SymExpr::Var(_) => 1.0,
        SymExpr::Neg(a) => magnitude(a),
        SymExpr::Add(a, b) | SymExpr::Sub(a, b) | SymExpr::Max(a, b) | SymExpr::Min(a, b) => {
            magnitude(a) + magnitude(b)
        }
        SymExpr::Broadcast(a, b) => magnitude(a) + magnitude(b),
        SymExpr::Mul(a, b) | SymExpr::Div(a, b) | SymExpr::DivCeil(a, b) => magnitude(a) * magnitude(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(size: &Size) -> String {
        Dim::from(size).to_string()
    }

    #[test]
    fn strides_compose_into_one_division() {
        let mut size = Size::symbol("height");
        for _ in 0..3 {
            // A convolution of kernel 3, stride 2, padding 1.
            size = size.minus(&Size::Fixed(1)).over(&Size::Fixed(2)).plus(&Size::Fixed(1));
        }
        assert_eq!(shown(&size), "(height - 1)//8 + 1");
        assert_eq!(size.with(&HashMap::from([("height".into(), 640)])), Size::Fixed(80));
    }

    #[test]
    fn equal_factors_cancel_before_they_multiply() {
        let (batch, large) = (Size::symbol("batch"), Size::Fixed(3_000_000_000));
        let quotient = Size::quotient(&[batch.clone(), large.clone(), Size::Fixed(4)], &[large, Size::Fixed(2)]);
        assert_eq!(shown(&quotient), "2*batch");
        assert_eq!(Size::quotient(&[batch.clone(), Size::Fixed(6)], &[batch]), Size::Fixed(6));
    }

    #[test]
    fn constants_beyond_32_bits_never_reach_the_algebra() {
        let size = Size::symbol("n").times(&Size::Fixed(1 << 29)).times(&Size::Fixed(16));
        assert!(matches!(size, Size::Unknown));
        assert_eq!(Size::Fixed(1 << 40).times(&Size::Fixed(4)), Size::Fixed(1 << 42));
    }
}
