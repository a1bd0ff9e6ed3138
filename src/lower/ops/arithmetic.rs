//! Arithmetic, comparison and logic, element by element.
//!
//! | ONNX (opset 7 and later) | HLO |
//! | --- | --- |
//! | Add, Sub, Mul, Div, Min, Max, Sum, Mean | add, subtract, multiply, divide, minimum, maximum, after broadcast |
//! | Mod | remainder; with `fmod = 0` the sign is then the divisor's |
//! | Pow | power; multiply and sqrt for small constant exponents |
//! | Neg, Abs, Sign, Ceil, Floor, Round, Sqrt, Exp, Log, Reciprocal | the instruction of that name; divide |
//! | Equal, Less, LessOrEqual, Greater, GreaterOrEqual, IsNaN, IsInf | compare |
//! | And, Or, Xor, Not, BitwiseAnd, BitwiseOr, BitwiseXor, BitwiseNot, BitShift | and, or, xor, not, shift |
//! | Where, Clip | select; maximum and minimum |

use super::wide;
use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Binary, Builder, Direction, Op, Unary};
use crate::onnx::DType;

/// Add, Sub, Mul, Div and their like.
pub fn binary(call: &mut Call) -> Lowered {
    let (x, y) = (call.input(0)?, call.input(1)?);
    let binary = match call.node.op_type.as_str() {
        "Add" => Binary::Add,
        "Sub" => Binary::Subtract,
        "Mul" => Binary::Multiply,
        "Div" => Binary::Divide,
        "And" | "BitwiseAnd" => Binary::And,
        "Or" | "BitwiseOr" => Binary::Or,
        _ => Binary::Xor,
    };
    Ok(vec![call.b.binary_across(binary, x, y)])
}

/// BitShift.
pub fn shift(call: &mut Call) -> Lowered {
    let (x, y) = (call.input(0)?, call.input(1)?);
    let signed = matches!(call.b.dtype(x), DType::Int8 | DType::Int16 | DType::Int32 | DType::Int64);
    let binary = match (call.text("direction", "") == "LEFT", signed) {
        (true, _) => Binary::ShiftLeft,
        (false, true) => Binary::ShiftRightArithmetic,
        (false, false) => Binary::ShiftRightLogical,
    };
    Ok(vec![call.b.binary_across(binary, x, y)])
}

/// Min, Max, Sum, Mean of any number of tensors.
pub fn variadic(call: &mut Call) -> Lowered {
    let binary = match call.node.op_type.as_str() {
        "Min" => Binary::Minimum,
        "Max" => Binary::Maximum,
        _ => Binary::Add,
    };
    let count = call.arity();
    let mut all = call.input(0)?;
    for index in 1..count {
        let next = call.input(index)?;
        all = call.b.binary_across(binary, all, next);
    }
    if call.node.op_type == "Mean" {
        let divisor = call.b.full_like(all, count as f64);
        all = call.b.div(all, divisor);
    }
    Ok(vec![all])
}

/// Mod: the sign of the divisor, or with `fmod` that of the dividend.
pub fn modulo(call: &mut Call) -> Lowered {
    let (x, y) = (call.input(0)?, call.input(1)?);
    let (x, y) = call.b.align(x, y);
    let b = &mut *call.b;
    let rest = b.binary(Binary::Remainder, x, y);
    let unsigned = matches!(b.dtype(x), DType::Uint8 | DType::Uint16 | DType::Uint32 | DType::Uint64);
    if call.node.int("fmod") == Some(1) || unsigned {
        return Ok(vec![rest]);
    }
    let zero = b.full_like(rest, 0.0);
    let some = b.compare(Direction::Ne, rest, zero);
    let below = b.compare(Direction::Lt, rest, zero);
    let divisor_below = b.compare(Direction::Lt, y, zero);
    let differ = b.compare(Direction::Ne, below, divisor_below);
    let both = b.binary(Binary::And, some, differ);
    let moved = b.add(rest, y);
    Ok(vec![b.select(both, moved, rest)])
}

/// Pow. The result has the type of the base.
pub fn power(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let dtype = call.b.dtype(x);
    if dtype.is_float()
        && let Ok(values) = call.numbers_of(1)
        && let [exponent] = values[..]
        && call.dims(1)?.len() <= call.dims(0)?.len()
    {
        let b = &mut *call.b;
        let squared = |b: &mut Builder| b.mul(x, x);
        match exponent {
            1.0 => return Ok(vec![x]),
            2.0 => return Ok(vec![squared(b)]),
            3.0 => {
                let square = squared(b);
                return Ok(vec![b.mul(square, x)]);
            }
            0.5 => return Ok(vec![b.sqrt(x)]),
            _ => {}
        }
    }
    let y = call.input(1)?;
    let b = &mut *call.b;
    let exponent = b.dtype(y);
    // A fraction as exponent of a whole number: computed as floats, then cut.
    let compute = match (dtype.is_float(), exponent.is_float()) {
        (true, _) | (false, false) => dtype,
        (false, true) => DType::Double,
    };
    let (x, y) = (b.convert(x, compute), b.convert(y, compute));
    let made = b.binary_across(Binary::Power, x, y);
    Ok(vec![b.convert(made, dtype)])
}

/// Functions of one tensor that HLO has.
pub fn unary(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let unary = match call.node.op_type.as_str() {
        "Neg" => Unary::Negate,
        "Abs" => Unary::Abs,
        "Sign" => Unary::Sign,
        "Ceil" => Unary::Ceil,
        "Floor" => Unary::Floor,
        "Round" => Unary::RoundNearestEven,
        "Sqrt" => Unary::Sqrt,
        "Exp" => Unary::Exponential,
        "Log" => Unary::Log,
        "Sin" => Unary::Sine,
        "Cos" => Unary::Cosine,
        "Tanh" => Unary::Tanh,
        "Sigmoid" => Unary::Logistic,
        _ => Unary::Not,
    };
    let b = &mut *call.b;
    let unsigned = matches!(b.dtype(x), DType::Uint8 | DType::Uint16 | DType::Uint32 | DType::Uint64);
    if unary == Unary::Abs && unsigned {
        return Ok(vec![x]);
    }
    if unary == Unary::Sign && unsigned {
        return Ok(vec![b.at_most(x, 1.0)]);
    }
    Ok(vec![b.unary(unary, x)])
}

/// Reciprocal.
pub fn reciprocal(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let one = call.b.full_like(x, 1.0);
    Ok(vec![call.b.div(one, x)])
}

/// Equal, Less and their like.
pub fn compare(call: &mut Call) -> Lowered {
    let (x, y) = (call.input(0)?, call.input(1)?);
    let direction = match call.node.op_type.as_str() {
        "Equal" => Direction::Eq,
        "Less" => Direction::Lt,
        "LessOrEqual" => Direction::Le,
        "Greater" => Direction::Gt,
        _ => Direction::Ge,
    };
    Ok(vec![call.b.compare(direction, x, y)])
}

/// IsNaN.
pub fn is_nan(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    Ok(vec![call.b.compare(Direction::Ne, x, x)])
}

/// IsInf, of either sign or of both.
pub fn is_inf(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let (negative, positive) = (call.int("detect_negative", 1) != 0, call.int("detect_positive", 1) != 0);
    let b = &mut *call.b;
    let at = |b: &mut crate::lower::hlo::Builder, value: f64| {
        let limit = b.full_like(x, value);
        b.compare(Direction::Eq, x, limit)
    };
    Ok(vec![match (negative, positive) {
        (true, true) => {
            let (above, below) = (at(b, f64::INFINITY), at(b, f64::NEG_INFINITY));
            b.binary(Binary::Or, above, below)
        }
        (true, false) => at(b, f64::NEG_INFINITY),
        (false, true) => at(b, f64::INFINITY),
        (false, false) => {
            let shape = crate::lower::hlo::Shape::new(DType::Bool, b.dims(x));
            b.full(shape, 0.0)
        }
    }])
}

/// Where.
pub fn select(call: &mut Call) -> Lowered {
    let (condition, yes, no) = (call.input(0)?, call.input(1)?, call.input(2)?);
    Ok(vec![call.b.select(condition, yes, no)])
}

/// Clip, its bounds inputs (opset 11 and later).
pub fn clip(call: &mut Call) -> Lowered {
    let mut x = call.input(0)?;
    let dtype = call.b.dtype(x);
    let bound = |call: &mut Call, index: usize, name: &str| -> Result<Option<Op>, _> {
        if call.has(index) {
            return call.optional(index);
        }
        Ok::<_, super::Problem>(call.node.float(name).map(|value| call.b.scalar(dtype, f64::from(value))))
    };
    if let Some(low) = bound(call, 1, "min")? {
        x = call.b.max(x, low);
    }
    if let Some(high) = bound(call, 2, "max")? {
        x = call.b.min(x, high);
    }
    Ok(vec![x])
}

/// Tan, Asin and their like, from what HLO has.
///
/// Tan, Asin, Acos, Atan, Sinh, Cosh, Asinh, Acosh, Atanh: sine, cosine, atan2, exponential, exponential-minus-one,
/// log-plus-one, sqrt.
pub fn trigonometry(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let (x, narrow) = wide(call.b, x);
    let op_type = call.node.op_type.clone();
    let b = &mut *call.b;
    let made = match op_type.as_str() {
        "Tan" => {
            let (sine, cosine) = (b.unary(Unary::Sine, x), b.unary(Unary::Cosine, x));
            b.div(sine, cosine)
        }
        "Asin" | "Acos" => {
            // sqrt(1 - x^2) without losing what is near 1.
            let one = b.full_like(x, 1.0);
            let (less, more) = (b.sub(one, x), b.add(one, x));
            let product = b.mul(less, more);
            let side = b.sqrt(product);
            let (over, under) = if op_type == "Asin" { (x, side) } else { (side, x) };
            b.binary(Binary::Atan2, over, under)
        }
        "Atan" => {
            let one = b.full_like(x, 1.0);
            b.binary(Binary::Atan2, x, one)
        }
        "Sinh" => {
            let small = b.unary(Unary::ExponentialMinusOne, x);
            let below = b.add_number(small, 1.0);
            let quotient = b.div(small, below);
            let near = b.add(small, quotient);
            let near = b.scale(near, 0.5);
            let (up, down) = half_powers(b, x);
            let (far, sign) = (b.sub(up, down), b.unary(Unary::Sign, x));
            let far = b.mul(far, sign);
            let (size, one) = (b.abs(x), b.full_like(x, 1.0));
            let is_near = b.compare(Direction::Lt, size, one);
            b.select(is_near, near, far)
        }
        "Cosh" => {
            let (up, down) = half_powers(b, x);
            b.add(up, down)
        }
        "Asinh" => {
            let size = b.abs(x);
            let square = b.mul(size, size);
            let above = b.add_number(square, 1.0);
            let root = b.sqrt(above);
            let below = b.add_number(root, 1.0);
            let part = b.div(square, below);
            let sum = b.add(size, part);
            let log = b.unary(Unary::LogPlusOne, sum);
            let log = where_large(b, size, log);
            let sign = b.unary(Unary::Sign, x);
            b.mul(sign, log)
        }
        "Acosh" => {
            let (less, more) = (b.add_number(x, -1.0), b.add_number(x, 1.0));
            let product = b.mul(less, more);
            let root = b.sqrt(product);
            let sum = b.add(x, root);
            let log = b.log(sum);
            where_large(b, x, log)
        }
        _ => {
            let minus = b.neg(x);
            let (up, down) = (b.unary(Unary::LogPlusOne, x), b.unary(Unary::LogPlusOne, minus));
            let twice = b.sub(up, down);
            b.scale(twice, 0.5)
        }
    };
    Ok(vec![b.convert(made, narrow)])
}

/// `exp(|x|) / 2` and `exp(-|x|) / 2`. The power is the square of its root, so that it overflows only where its half does.
fn half_powers(b: &mut Builder, x: Op) -> (Op, Op) {
    let size = b.abs(x);
    let half = b.scale(size, 0.5);
    let root = b.exp(half);
    let halved = b.scale(root, 0.5);
    let minus = b.neg(size);
    let down = b.exp(minus);
    (b.mul(halved, root), b.scale(down, 0.5))
}

/// `log(2 size)` where the square of `size` may overflow and what is left out is less than rounding, else `otherwise`.
fn where_large(b: &mut Builder, size: Op, otherwise: Op) -> Op {
    let log = b.log(size);
    let log = b.add_number(log, std::f64::consts::LN_2);
    let limit = b.full_like(size, 1e9);
    let large = b.compare(Direction::Gt, size, limit);
    b.select(large, log, otherwise)
}
