//! Shorthand for arithmetic: what lowerings write most.

use super::{Binary, Builder, Op, Unary};

impl Builder {
    /// `x + y`, broadcast.
    pub fn add(&mut self, x: Op, y: Op) -> Op {
        self.binary_across(Binary::Add, x, y)
    }

    /// `x - y`, broadcast.
    pub fn sub(&mut self, x: Op, y: Op) -> Op {
        self.binary_across(Binary::Subtract, x, y)
    }

    /// `x * y`, broadcast.
    pub fn mul(&mut self, x: Op, y: Op) -> Op {
        self.binary_across(Binary::Multiply, x, y)
    }

    /// `x / y`, broadcast.
    pub fn div(&mut self, x: Op, y: Op) -> Op {
        self.binary_across(Binary::Divide, x, y)
    }

    /// The larger, broadcast.
    pub fn max(&mut self, x: Op, y: Op) -> Op {
        self.binary_across(Binary::Maximum, x, y)
    }

    /// The smaller, broadcast.
    pub fn min(&mut self, x: Op, y: Op) -> Op {
        self.binary_across(Binary::Minimum, x, y)
    }

    /// `x + number`.
    pub fn add_number(&mut self, x: Op, number: f64) -> Op {
        let y = self.full_like(x, number);
        self.add(x, y)
    }

    /// `x * number`.
    pub fn scale(&mut self, x: Op, number: f64) -> Op {
        let y = self.full_like(x, number);
        self.mul(x, y)
    }

    /// `max(x, number)`.
    pub fn at_least(&mut self, x: Op, number: f64) -> Op {
        let y = self.full_like(x, number);
        self.max(x, y)
    }

    /// `min(x, number)`.
    pub fn at_most(&mut self, x: Op, number: f64) -> Op {
        let y = self.full_like(x, number);
        self.min(x, y)
    }

    /// `-x`.
    pub fn neg(&mut self, x: Op) -> Op {
        self.unary(Unary::Negate, x)
    }

    /// `e` to the power of `x`.
    pub fn exp(&mut self, x: Op) -> Op {
        self.unary(Unary::Exponential, x)
    }

    /// The natural logarithm.
    pub fn log(&mut self, x: Op) -> Op {
        self.unary(Unary::Log, x)
    }

    /// The square root.
    pub fn sqrt(&mut self, x: Op) -> Op {
        self.unary(Unary::Sqrt, x)
    }

    /// `|x|`.
    pub fn abs(&mut self, x: Op) -> Op {
        self.unary(Unary::Abs, x)
    }

    /// `1 / (1 + exp(-x))`.
    pub fn logistic(&mut self, x: Op) -> Op {
        self.unary(Unary::Logistic, x)
    }

    /// The hyperbolic tangent.
    pub fn tanh(&mut self, x: Op) -> Op {
        self.unary(Unary::Tanh, x)
    }

    /// A polynomial by Horner's scheme, highest coefficient first.
    pub fn polynomial(&mut self, x: Op, coefficients: &[f64]) -> Op {
        let mut sum = self.full_like(x, coefficients.first().copied().unwrap_or(0.0));
        for &coefficient in coefficients.iter().skip(1) {
            let product = self.mul(sum, x);
            sum = self.add_number(product, coefficient);
        }
        sum
    }
}
