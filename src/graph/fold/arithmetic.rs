//! Operators that compute element by element, by the rules that ONNX Runtime has on a CPU: integers wrap, half precision is
//! computed in float and rounded. Where ONNX leaves the last bit open (a power, a root), so does this.

use super::array::{Array, Element, broadcast_dims};
use super::kernel::Call;
use crate::onnx::DType;

/// Runs `$body` with `$t` as the element type of `$dtype`.
macro_rules! with_type {
    ($dtype:expr, $t:ident, [$($variant:ident $rust:ty),*], $body:expr) => {
        match $dtype {
            $(DType::$variant => { type $t = $rust; $body })*
            _ => None,
        }
    };
}

impl Call<'_> {
    /// The result of an elementwise operator; `None` where this is none, or makes no sense.
    pub(super) fn arithmetic(&self) -> Option<Vec<Array>> {
        let one = |array: Array| Some(vec![array]);
        match self.node.op_type.as_str() {
            "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" => one(self.binary(self.input(0)?, self.input(1)?)?),
            "Min" | "Max" | "Sum" => one(self.variadic()?),
            "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" => one(self.compare()?),
            "And" | "Or" | "Xor" => one(self.logic()?),
            "Not" => one(map::<bool, bool>(self.input(0)?, |x| Some(!x))?),
            "Neg" | "Abs" | "Sign" | "Floor" | "Ceil" | "Round" | "Sqrt" | "Reciprocal" | "Relu" | "Exp" | "Log"
            | "Cos" | "Sin" => one(self.unary()?),
            "Clip" => one(self.clip()?),
            "Cast" => one(cast(self.input(0)?, DType::from_number(i32::try_from(self.node.int("to")?).ok()?)?)?),
            "CastLike" => one(cast(self.input(0)?, self.input(1)?.dtype)?),
            "Where" => one(self.select()?),
            "Range" => one(self.range()?),
            _ => None,
        }
    }

    // The body is compiled for every element type, and reads oddly for one of them.
    #[allow(clippy::unnecessary_fallible_conversions, clippy::useless_conversion)]
    fn binary(&self, a: &Array, b: &Array) -> Option<Array> {
        if self.node.op_type == "Pow" && a.dtype != b.dtype {
            // The result has the base's type; a whole exponent makes the same power in either type.
            return self.binary(a, &cast(b, a.dtype).filter(|same| cast(same, b.dtype).as_ref() == Some(b))?);
        }
        if a.dtype != b.dtype {
            return None;
        }
        if let Some(result) = in_float(&[a, b], |arrays| self.binary(&arrays[0], &arrays[1])) {
            return Some(result);
        }
        let op = self.node.op_type.as_str();
        let fmod = self.node.int("fmod") == Some(1);
        let integers = with_type!(
            a.dtype, T,
            [Int8 i8, Int16 i16, Int32 i32, Int64 i64, Uint8 u8, Uint16 u16, Uint32 u32, Uint64 u64],
            zip::<T, T>(a, b, |x, y| Some(match op {
                "Add" => x.wrapping_add(y),
                "Sub" => x.wrapping_sub(y),
                "Mul" => x.wrapping_mul(y),
                "Div" => x.checked_div(y)?,
                "Mod" if fmod => x.checked_rem(y)?,
                "Mod" => floor_mod(y, x.checked_rem(y)?),
                _ => x.checked_pow(u32::try_from(y).ok()?)?,
            }))
        );
        integers.or_else(|| {
            with_type!(a.dtype, T, [Float f32, Double f64], zip::<T, T>(a, b, |x, y| Some(match op {
                "Add" => x + y,
                "Sub" => x - y,
                "Mul" => x * y,
                "Div" => x / y,
                "Mod" if fmod => x % y,
                "Mod" => return None, // its sign follows rules that runtimes differ in
                _ if y == 2.0 => x * x,
                _ if y == 3.0 => x * x * x,
                _ => x.powf(y),
            })))
        })
    }

    fn variadic(&self) -> Option<Array> {
        let op = self.node.op_type.as_str();
        let mut arrays = self.inputs.iter();
        let first = arrays.next()?.clone()?;
        arrays.try_fold(first, |a, b| {
            let b = b.as_ref()?;
            if a.dtype != b.dtype {
                return None;
            }
            let pick = |arrays: &[Array]| {
                let (a, b) = (&arrays[0], &arrays[1]);
                with_type!(
                    a.dtype, T,
                    [Int8 i8, Int16 i16, Int32 i32, Int64 i64, Uint8 u8, Uint16 u16, Uint32 u32, Uint64 u64,
                     Float f32, Double f64],
                    zip::<T, T>(a, b, |x, y| match op {
                        "Sum" => None,
                        _ if x.partial_cmp(&y).is_none() => None, // NaN: leave it to an engine
                        "Min" => Some(if y < x { y } else { x }),
                        _ => Some(if y > x { y } else { x }),
                    })
                )
            };
            match op {
                "Sum" => in_float(&[&a, b], |arrays| sum(&arrays[0], &arrays[1])).or_else(|| sum(&a, b)),
                _ => in_float(&[&a, b], pick).or_else(|| pick(&[a.clone(), b.clone()])),
            }
        })
    }

    // The body is compiled for every element type, and reads oddly for one of them.
    #[allow(clippy::bool_comparison)]
    fn compare(&self) -> Option<Array> {
        let (a, b) = (self.input(0)?, self.input(1)?);
        if a.dtype != b.dtype {
            return None;
        }
        let op = self.node.op_type.as_str();
        with_type!(
            a.dtype, T,
            [Int8 i8, Int16 i16, Int32 i32, Int64 i64, Uint8 u8, Uint16 u16, Uint32 u32, Uint64 u64,
             Float f32, Double f64, Float16 half::f16, Bfloat16 half::bf16, Bool bool],
            zip::<T, bool>(a, b, |x, y| Some(match op {
                "Equal" => x == y,
                "Less" => x < y,
                "LessOrEqual" => x <= y,
                "Greater" => x > y,
                _ => x >= y,
            }))
        )
    }

    fn logic(&self) -> Option<Array> {
        let op = self.node.op_type.as_str();
        zip::<bool, bool>(self.input(0)?, self.input(1)?, |x, y| {
            Some(match op {
                "And" => x && y,
                "Or" => x || y,
                _ => x ^ y,
            })
        })
    }

    fn unary(&self) -> Option<Array> {
        let x = self.input(0)?;
        let op = self.node.op_type.as_str();
        let run = |x: &Array| {
            let floats = with_type!(x.dtype, T, [Float f32, Double f64], map::<T, T>(x, |x| Some(match op {
                "Neg" => -x,
                "Abs" => x.abs(),
                "Sign" if x == 0.0 || x.is_nan() => x,
                "Sign" => x.signum(),
                "Floor" => x.floor(),
                "Ceil" => x.ceil(),
                "Round" => x.round_ties_even(),
                "Sqrt" => x.sqrt(),
                "Reciprocal" => 1.0 / x,
                "Exp" => x.exp(),
                "Log" => x.ln(),
                "Cos" => x.cos(),
                "Sin" => x.sin(),
                _ if x.is_nan() => x,
                _ => x.max(0.0),
            })));
            floats.or_else(|| {
                with_type!(x.dtype, T, [Int8 i8, Int16 i16, Int32 i32, Int64 i64], map::<T, T>(x, |x| Some(match op {
                    "Neg" => x.wrapping_neg(),
                    "Abs" => x.wrapping_abs(),
                    "Sign" => x.signum(),
                    "Relu" => x.max(0),
                    _ => return None,
                })))
            })
        };
        in_float(&[x], |arrays| run(&arrays[0])).or_else(|| run(x))
    }

    fn clip(&self) -> Option<Array> {
        let x = self.input(0)?;
        let bound = |index: usize, name: &str| match self.input(index) {
            Some(bound) => Some(Some(bound.clone())),
            None => Some(self.node.float(name).map(|bound| Array::from_elements(vec![], [bound]))),
        };
        let (low, high) = (bound(1, "min")?, bound(2, "max")?);
        with_type!(
            x.dtype, T,
            [Int8 i8, Int16 i16, Int32 i32, Int64 i64, Uint8 u8, Uint16 u16, Uint32 u32, Uint64 u64,
             Float f32, Double f64, Float16 half::f16, Bfloat16 half::bf16],
            {
                let scalar = |bound: &Option<Array>| match bound {
                    Some(bound) => bound.elements::<T>()?.first().copied().map(Some),
                    None => Some(None),
                };
                let (low, high) = (scalar(&low)?, scalar(&high)?);
                map::<T, T>(x, |mut x| {
                    if let Some(low) = low && x < low {
                        x = low;
                    }
                    if let Some(high) = high && x > high {
                        x = high;
                    }
                    Some(x)
                })
            }
        )
    }

    fn select(&self) -> Option<Array> {
        let (condition, x, y) = (self.input(0)?, self.input(1)?, self.input(2)?);
        if x.dtype != y.dtype {
            return None;
        }
        let dims = broadcast_dims(&[&condition.dims, &x.dims, &y.dims])?;
        let chosen = condition.broadcast_to(&dims)?.elements::<bool>()?;
        let (x, y, width) = (x.broadcast_to(&dims)?, y.broadcast_to(&dims)?, x.width());
        let mut out = Vec::with_capacity(x.bytes.len());
        let pairs = x.bytes.chunks_exact(width).zip(y.bytes.chunks_exact(width));
        for (first, (x, y)) in chosen.into_iter().zip(pairs) {
            out.extend_from_slice(if first { x } else { y });
        }
        Some(Array { dtype: x.dtype, dims, bytes: out.into() })
    }

    // The body is compiled for every element type, and reads oddly for one of them.
    #[allow(clippy::unnecessary_cast)]
    fn range(&self) -> Option<Array> {
        let (start, limit, delta) = (self.input(0)?, self.input(1)?, self.input(2)?);
        with_type!(start.dtype, T, [Int16 i16, Int32 i32, Int64 i64, Float f32, Double f64], {
            let number = |array: &Array| array.elements::<T>()?.first().copied();
            let (start, limit, delta) = (number(start)?, number(limit)?, number(delta)?);
            let steps = ((limit as f64 - start as f64) / delta as f64).ceil();
            if !steps.is_finite() || steps > (1u32 << 24) as f64 {
                return None;
            }
            let steps = steps.max(0.0) as usize;
            // Step by step, with the roundings that add up so, as ONNX Runtime does it.
            let mut value = start;
            let mut step = |index: usize| {
                if index > 0 {
                    value += delta;
                }
                value
            };
            Some(Array::from_elements(vec![steps], (0..steps).map(&mut step)))
        })
    }
}

/// The remainder with the sign of the divisor.
fn floor_mod<T: Element + std::ops::Add<Output = T>>(y: T, rest: T) -> T {
    let zero = T::default();
    if rest != zero && ((rest < zero) != (y < zero)) { rest + y } else { rest }
}

fn sum(a: &Array, b: &Array) -> Option<Array> {
    with_type!(a.dtype, T, [Float f32, Double f64], zip::<T, T>(a, b, |x, y| Some(x + y)))
}

/// Runs half-precision arrays as float and rounds the result back; `None` where they are of another type.
fn in_float(arrays: &[&Array], run: impl Fn(&[Array]) -> Option<Array>) -> Option<Array> {
    let dtype = arrays.first()?.dtype;
    if !matches!(dtype, DType::Float16 | DType::Bfloat16) {
        return None;
    }
    let wide: Vec<Array> = arrays.iter().map(|array| cast(array, DType::Float)).collect::<Option<_>>()?;
    cast(&run(&wide)?, dtype)
}

fn map<T: Element, U: Element>(x: &Array, f: impl Fn(T) -> Option<U>) -> Option<Array> {
    let values: Vec<U> = x.elements::<T>()?.into_iter().map(f).collect::<Option<_>>()?;
    Some(Array::from_elements(x.dims.clone(), values))
}

fn zip<T: Element, U: Element>(a: &Array, b: &Array, f: impl Fn(T, T) -> Option<U>) -> Option<Array> {
    let dims = broadcast_dims(&[&a.dims, &b.dims])?;
    let (x, y) = (a.broadcast_to(&dims)?.elements::<T>()?, b.broadcast_to(&dims)?.elements::<T>()?);
    let values: Vec<U> = x.into_iter().zip(y).map(|(x, y)| f(x, y)).collect::<Option<_>>()?;
    Some(Array::from_elements(dims, values))
}

/// The same numbers in another type. Numbers that a whole-number type cannot hold give up, since processors differ.
pub fn cast(x: &Array, to: DType) -> Option<Array> {
    if x.dtype == to {
        return Some(x.clone());
    }
    if x.dtype.is_integer() || x.dtype == DType::Bool {
        if x.dtype == DType::Uint64 {
            return with_type!(to, T, [Int64 i64, Int32 i32, Uint32 u32], map::<u64, T>(x, |v| T::try_from(v).ok()));
        }
        let values = x.to_i64s()?;
        let dims = x.dims.clone();
        macro_rules! to {
            ($t:ty) => {
                Array::from_elements(dims, values.into_iter().map(|v| v as $t))
            };
        }
        return Some(match to {
            DType::Int8 => to!(i8),
            DType::Int16 => to!(i16),
            DType::Int32 => to!(i32),
            DType::Int64 => to!(i64),
            DType::Uint8 => to!(u8),
            DType::Uint16 => to!(u16),
            DType::Uint32 => to!(u32),
            DType::Uint64 => to!(u64),
            DType::Float => to!(f32),
            DType::Double => to!(f64),
            DType::Bool => Array::from_elements(dims, values.into_iter().map(|v| v != 0)),
            DType::Float16 => Array::from_elements(dims, values.into_iter().map(|v| half::f16::from_f32(v as f32))),
            DType::Bfloat16 => Array::from_elements(dims, values.into_iter().map(|v| half::bf16::from_f32(v as f32))),
            _ => return None,
        });
    }
    let values: Vec<f64> = match x.dtype {
        DType::Float => x.elements::<f32>()?.into_iter().map(f64::from).collect(),
        DType::Double => x.elements()?,
        DType::Float16 => x.elements::<half::f16>()?.into_iter().map(f64::from).collect(),
        DType::Bfloat16 => x.elements::<half::bf16>()?.into_iter().map(f64::from).collect(),
        _ => return None,
    };
    let dims = x.dims.clone();
    if to.is_integer() {
        let whole = values.into_iter().map(|v| (v.abs() < 9e18).then_some(v as i64)).collect::<Option<Vec<i64>>>()?;
        let wide = Array::from_elements(dims, whole.iter().copied());
        return cast(&wide, to).filter(|narrow| narrow.to_i64s().as_ref() == Some(&whole));
    }
    Some(match to {
        DType::Float => Array::from_elements(dims, values.into_iter().map(|v| v as f32)),
        DType::Double => Array::from_elements(dims, values),
        DType::Float16 => Array::from_elements(dims, values.into_iter().map(half::f16::from_f64)),
        DType::Bfloat16 => Array::from_elements(dims, values.into_iter().map(half::bf16::from_f64)),
        DType::Bool => Array::from_elements(dims, values.into_iter().map(|v| v != 0.0)),
        _ => return None,
    })
}
