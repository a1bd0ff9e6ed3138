//! Activations.
//!
//! ONNX (opset 6 and later): Relu, LeakyRelu, PRelu, ThresholdedRelu, Elu, Celu, Selu, HardSigmoid, HardSwish, Swish,
//! Softplus, Softsign, Mish, Gelu (both forms), Shrink. HLO: maximum, select, exponential-minus-one, log-plus-one,
//! logistic, tanh and arithmetic. Types under 32 bits compute in float32, as runtimes do.

use super::erf::erf_of;
use super::wide;
use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Builder, Direction, Op, Unary};
use crate::onnx::DType;

/// An activation of one tensor.
pub fn activation(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    if call.node.op_type == "Relu" {
        return Ok(vec![call.b.at_least(x, 0.0)]);
    }
    let (x, narrow) = wide(call.b, x);
    let alpha = |default: f64| call.float("alpha", default);
    let made = match call.node.op_type.as_str() {
        "LeakyRelu" => {
            let alpha = alpha(0.01);
            leaky(call.b, x, alpha)
        }
        "ThresholdedRelu" => {
            let alpha = alpha(1.0);
            let b = &mut *call.b;
            let (limit, zero) = (b.full_like(x, alpha), b.full_like(x, 0.0));
            let above = b.compare(Direction::Gt, x, limit);
            b.select(above, x, zero)
        }
        "Elu" => {
            let alpha = alpha(1.0);
            elu(call.b, x, alpha, 1.0)
        }
        "Celu" => {
            let alpha = alpha(1.0);
            let b = &mut *call.b;
            let inner = {
                let divisor = b.full_like(x, alpha);
                b.div(x, divisor)
            };
            let low = b.unary(Unary::ExponentialMinusOne, inner);
            let low = b.scale(low, alpha);
            let (low, high) = (b.at_most(low, 0.0), b.at_least(x, 0.0));
            b.add(low, high)
        }
        "Selu" => {
            let (alpha, gamma) = (alpha(1.673_263_192_176_818_8), call.float("gamma", 1.050_700_978_240_966_8));
            elu(call.b, x, alpha, gamma)
        }
        "HardSigmoid" => {
            let (alpha, beta) = (alpha(0.2), call.float("beta", 0.5));
            hard_sigmoid(call.b, x, alpha, beta)
        }
        "HardSwish" => {
            let gate = hard_sigmoid(call.b, x, 1.0 / 6.0, 0.5);
            call.b.mul(x, gate)
        }
        "Swish" => {
            let alpha = alpha(1.0);
            let b = &mut *call.b;
            let inner = b.scale(x, alpha);
            let gate = b.logistic(inner);
            b.mul(x, gate)
        }
        "Softplus" => softplus(call.b, x),
        "Softsign" => {
            let b = &mut *call.b;
            let size = b.abs(x);
            let below = b.add_number(size, 1.0);
            b.div(x, below)
        }
        "Mish" => {
            let b = &mut *call.b;
            let inner = softplus(b, x);
            let gate = b.tanh(inner);
            b.mul(x, gate)
        }
        "Gelu" => {
            let tanh = call.text("approximate", "none") == "tanh";
            gelu(call.b, x, tanh)
        }
        "Shrink" => {
            let (lambda, bias) = (call.float("lambd", 0.5), call.float("bias", 0.0));
            let b = &mut *call.b;
            // Bounds and bias are floats for whole numbers too; what comes out is cut.
            let x = if b.dtype(x).is_float() { x } else { b.convert(x, DType::Double) };
            let (low, high, zero) = (b.full_like(x, -lambda), b.full_like(x, lambda), b.full_like(x, 0.0));
            let (up, down) = (b.add_number(x, bias), b.add_number(x, -bias));
            let (below, above) = (b.compare(Direction::Lt, x, low), b.compare(Direction::Gt, x, high));
            let rest = b.select(above, down, zero);
            b.select(below, up, rest)
        }
        other => return Err(format!("{other} is no activation").into()),
    };
    Ok(vec![call.b.convert(made, narrow)])
}

/// PRelu: a slope of its own for each channel, broadcast to the input alone.
pub fn prelu(call: &mut Call) -> Lowered {
    let (x, slope) = (call.input(0)?, call.input(1)?);
    let b = &mut *call.b;
    let below = b.mul(x, slope);
    let zero = b.full_like(x, 0.0);
    let negative = b.compare(Direction::Lt, x, zero);
    Ok(vec![b.select(negative, below, x)])
}

/// `x` above 0, `alpha * x` below.
pub fn leaky(b: &mut Builder, x: Op, alpha: f64) -> Op {
    let zero = b.full_like(x, 0.0);
    let low = b.scale(x, alpha);
    let negative = b.compare(Direction::Lt, x, zero);
    b.select(negative, low, x)
}

/// `gamma * x` above 0, `gamma * alpha * (exp(x) - 1)` below.
pub fn elu(b: &mut Builder, x: Op, alpha: f64, gamma: f64) -> Op {
    let zero = b.full_like(x, 0.0);
    let low = b.unary(Unary::ExponentialMinusOne, x);
    let low = b.scale(low, alpha);
    let above = b.compare(Direction::Gt, x, zero);
    let made = b.select(above, x, low);
    if gamma == 1.0 { made } else { b.scale(made, gamma) }
}

/// `alpha * x + beta`, kept between 0 and 1.
pub fn hard_sigmoid(b: &mut Builder, x: Op, alpha: f64, beta: f64) -> Op {
    let scaled = b.scale(x, alpha);
    let moved = b.add_number(scaled, beta);
    let low = b.at_least(moved, 0.0);
    b.at_most(low, 1.0)
}

/// `log(1 + exp(x))` that neither overflows nor loses small results.
pub fn softplus(b: &mut Builder, x: Op) -> Op {
    let size = b.abs(x);
    let minus = b.neg(size);
    let fall = b.exp(minus);
    let rest = b.unary(Unary::LogPlusOne, fall);
    let high = b.at_least(x, 0.0);
    b.add(high, rest)
}

/// Gelu through the error function, or through tanh.
pub fn gelu(b: &mut Builder, x: Op, tanh: bool) -> Op {
    let inner = if tanh {
        let square = b.mul(x, x);
        let cube = b.mul(square, x);
        let cubed = b.scale(cube, 0.044_715);
        let sum = b.add(x, cubed);
        let scaled = b.scale(sum, (2.0 / std::f64::consts::PI).sqrt());
        b.tanh(scaled)
    } else {
        let scaled = b.scale(x, std::f64::consts::FRAC_1_SQRT_2);
        erf_of(b, scaled)
    };
    let gate = b.add_number(inner, 1.0);
    let half = b.scale(x, 0.5);
    b.mul(half, gate)
}
