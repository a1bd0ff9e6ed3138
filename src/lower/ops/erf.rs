//! The error function, which HLO leaves to its readers: a rational approximation, good to the last digits of float32
//! and float64.
//!
//! ONNX: Erf (opset 9 and later). HLO: multiply, add, divide, exponential, compare, select.
//!
//! The approximation is the one of the Cephes library: a quotient of polynomials in `x * x` up to 1, and beyond it `1 - exp(-x * x) * p / q`,
//! which past 6 is 1 in every type.

use super::wide;
use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Builder, Direction, Op, Unary};

const NEAR_OVER: [f64; 5] = [
    9.604_973_739_870_516,
    9.002_601_972_038_427e1,
    2.232_005_345_946_843e3,
    7.003_325_141_128_051e3,
    5.559_230_130_103_949e4,
];
const NEAR_UNDER: [f64; 6] = [
    1.0,
    3.356_171_416_475_031e1,
    5.213_579_497_801_527e2,
    4.594_323_829_709_801e3,
    2.262_900_006_138_909e4,
    4.926_739_426_086_359e4,
];
const FAR_OVER: [f64; 9] = [
    2.461_969_814_735_305e-10,
    5.641_895_648_310_689e-1,
    7.463_210_564_422_699,
    4.863_719_709_856_814e1,
    1.965_208_329_560_771e2,
    5.264_451_949_954_773e2,
    9.345_285_271_719_576e2,
    1.027_551_886_895_157_2e3,
    5.575_353_353_693_994e2,
];
const FAR_UNDER: [f64; 9] = [
    1.0,
    1.322_819_511_547_449_8e1,
    8.670_721_408_859_897e1,
    3.549_377_788_878_199e2,
    9.757_085_017_432_054e2,
    1.823_909_166_879_097_4e3,
    2.246_337_608_187_109_8e3,
    1.656_663_091_941_613_4e3,
    5.575_353_408_177_277e2,
];

/// Erf.
pub fn erf(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let (x, narrow) = wide(call.b, x);
    let made = erf_of(call.b, x);
    Ok(vec![call.b.convert(made, narrow)])
}

/// The error function of a float32 or float64.
pub fn erf_of(b: &mut Builder, x: Op) -> Op {
    let square = b.mul(x, x);
    let (over, under) = (b.polynomial(square, &NEAR_OVER), b.polynomial(square, &NEAR_UNDER));
    let quotient = b.div(over, under);
    let near = b.mul(x, quotient);

    // Capped where the answer is 1 anyway, so that the polynomials stay finite.
    let size = b.abs(x);
    let capped = b.at_most(size, 6.5);
    let (over, under) = (b.polynomial(capped, &FAR_OVER), b.polynomial(capped, &FAR_UNDER));
    let quotient = b.div(over, under);
    let square = b.mul(capped, capped);
    let minus = b.neg(square);
    let fall = b.exp(minus);
    let rest = b.mul(fall, quotient);
    let one = b.full_like(x, 1.0);
    let far = b.sub(one, rest);
    let sign = b.unary(Unary::Sign, x);
    let far = b.mul(sign, far);

    let is_near = b.compare(Direction::Lt, size, one);
    let made = b.select(is_near, near, far);
    let number = b.compare(Direction::Eq, x, x);
    b.select(number, made, x)
}
