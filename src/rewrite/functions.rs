//! The functions that expressions in rules can call, and the arithmetic behind their operators.
//!
//! `null` stands for what is not known before the model runs. A function that needs it fails with [`UNKNOWN`], which
//! the caller reads as "not proven".

use std::cell::OnceCell;
use std::sync::Arc;

use cel::{Context, ExecutionError, FunctionContext, Value};

/// The message of an error that only says: not known yet.
pub const UNKNOWN: &str = "unknown";

type Result<T> = std::result::Result<T, ExecutionError>;
type Body = fn(&[Value]) -> Result<Value>;

/// Every function: its name, whether a rule's author may call it, and what it does.
const FUNCTIONS: &[(&str, bool, Body)] = &[
    ("op_add", false, |a| arithmetic("op_add", a)),
    ("op_subtract", false, |a| arithmetic("op_subtract", a)),
    ("op_multiply", false, |a| arithmetic("op_multiply", a)),
    ("op_divide", false, |a| arithmetic("op_divide", a)),
    ("op_remainder", false, |a| arithmetic("op_remainder", a)),
    ("op_negate", false, negate),
    ("op_equal", false, |a| Ok(Value::Bool(same("op_equal", a)?))),
    ("op_unequal", false, |a| Ok(Value::Bool(!same("op_unequal", a)?))),
    ("op_less", false, |a| compare("op_less", a, |x, y| x < y)),
    ("op_less_or_equal", false, |a| compare("op_less_or_equal", a, |x, y| x <= y)),
    ("op_greater", false, |a| compare("op_greater", a, |x, y| x > y)),
    ("op_greater_or_equal", false, |a| compare("op_greater_or_equal", a, |x, y| x >= y)),
    ("op_in", false, contains),
    ("at", false, at),
    ("cut", false, cut),
    ("prod", true, |a| Ok(product(&numbers("prod", a)?))),
    ("sum", true, |a| numbers("sum", a)?.into_iter().try_fold(Value::Int(0), |x, y| arithmetic("sum", &[x, y]))),
    ("min", true, |a| extreme("min", a, |x, y| x < y)),
    ("max", true, |a| extreme("max", a, |x, y| x > y)),
    ("abs", true, |a| absolute(a)),
    ("len", true, |a| Ok(Value::Int(list("len", a, 0)?.len() as i64))),
    ("outer", true, |a| Ok(product(&known("outer", split_at_axis("outer", a)?.0)?))),
    ("inner", true, |a| Ok(product(&known("inner", split_at_axis("inner", a)?.1)?))),
    ("along", true, along),
    ("wrap", true, wrap),
    ("gcd", true, gcd),
    ("type_number", true, type_number),
    ("infinity", true, |_| Ok(Value::Float(f64::INFINITY))),
    ("unequal", true, |a| Ok(Value::Bool(known("unequal", list("unequal", a, 0)?)?.windows(2).any(|w| w[0] != w[1])))),
    ("all_equal", true, |a| Ok(Value::Bool(all_equal(a)?))),
    ("range", true, range),
    ("repeat", true, repeat),
    ("concat", true, concat),
    ("reverse", true, |a| Ok(list_of(list("reverse", a, 0)?.into_iter().rev()))),
    ("enumerate", true, enumerate),
    ("zip", true, zip),
    ("offsets", true, offsets),
    ("pieces", true, pieces),
    ("is_power_of_two", true, is_power_of_two),
    ("ceil_div", true, |a| round_div("ceil_div", a, true)),
    ("floor_div", true, |a| round_div("floor_div", a, false)),
    ("near", true, near),
    ("sqrt", true, |a| Ok(Value::Float(number("sqrt", a, 0)?.sqrt()))),
    ("is_permutation_identity", true, identity_permutation),
    ("broadcasts_to", true, broadcasts_to),
];

thread_local! {
    static ROOT: OnceCell<Context<'static, 'static>> = const { OnceCell::new() };
}

/// Calls `take` with a context that has every function.
pub(super) fn with_root<T>(take: impl FnOnce(&Context<'static, 'static>) -> T) -> T {
    ROOT.with(|root| take(root.get_or_init(make_root)))
}

fn make_root() -> Context<'static, 'static> {
    let mut context = Context::default();
    for &(name, _, body) in FUNCTIONS {
        let call = move |call: &FunctionContext| -> Result<Value> { body(&arguments(call)?) };
        // A name that CEL took for itself would be a mistake in the table above; the tests call every function.
        let _ = context.add_function(name, call);
    }
    context
}

/// The arguments of a call, the receiver of a method first.
fn arguments(call: &FunctionContext) -> Result<Vec<Value>> {
    call.this.iter().chain(call.args.iter()).map(|value| Value::try_from(value.as_ref())).collect()
}

/// Whether there is such a function.
pub fn exists(name: &str) -> bool {
    FUNCTIONS.iter().any(|(known, _, _)| *known == name)
}

/// The functions that a rule's author may call.
pub fn names() -> Vec<&'static str> {
    FUNCTIONS.iter().filter(|(_, public, _)| *public).map(|(name, _, _)| *name).collect()
}

fn unknown(function: &str) -> ExecutionError {
    ExecutionError::function_error(function, UNKNOWN)
}

fn wrong(function: &str, expected: &str, found: &Value) -> ExecutionError {
    match found {
        Value::Null => unknown(function),
        found => ExecutionError::function_error(function, format!("expected {expected}, found {}", describe(found))),
    }
}

/// A value in front of a reader.
pub fn describe(value: &Value) -> String {
    match value {
        Value::Int(value) => format!("the whole number {value}"),
        Value::UInt(value) => format!("the whole number {value}"),
        Value::Float(value) => format!("the number {value}"),
        Value::String(value) => format!("the text \"{value}\""),
        Value::Bool(value) => format!("{value}"),
        Value::List(_) => "a list".to_string(),
        Value::Map(_) => "a captured value (say which field, such as `.shape`)".to_string(),
        Value::Null => "nothing".to_string(),
        other => format!("{other:?}"),
    }
}

fn argument<'a>(function: &str, arguments: &'a [Value], index: usize) -> Result<&'a Value> {
    arguments
        .get(index)
        .ok_or_else(|| ExecutionError::function_error(function, format!("expected at least {} arguments", index + 1)))
}

fn list(function: &str, arguments: &[Value], index: usize) -> Result<Vec<Value>> {
    match argument(function, arguments, index)? {
        Value::List(list) => Ok(list.as_ref().clone()),
        other => Err(wrong(function, "a list", other)),
    }
}

fn known(function: &str, values: Vec<Value>) -> Result<Vec<Value>> {
    if values.contains(&Value::Null) { Err(unknown(function)) } else { Ok(values) }
}

/// The numbers in the arguments: several numbers, or one list of them.
fn numbers(function: &str, arguments: &[Value]) -> Result<Vec<Value>> {
    let values = match arguments {
        [Value::List(list)] => list.as_ref().clone(),
        other => other.to_vec(),
    };
    for value in &values {
        if !matches!(value, Value::Int(_) | Value::UInt(_) | Value::Float(_)) {
            return Err(wrong(function, "numbers", value));
        }
    }
    Ok(values)
}

fn integer(function: &str, arguments: &[Value], index: usize) -> Result<i64> {
    match argument(function, arguments, index)? {
        Value::Int(value) => Ok(*value),
        other => Err(wrong(function, "a whole number", other)),
    }
}

fn number(function: &str, arguments: &[Value], index: usize) -> Result<f64> {
    match argument(function, arguments, index)? {
        Value::Int(value) => Ok(*value as f64),
        Value::UInt(value) => Ok(*value as f64),
        Value::Float(value) => Ok(*value),
        other => Err(wrong(function, "a number", other)),
    }
}

fn list_of(values: impl IntoIterator<Item = Value>) -> Value {
    Value::List(Arc::new(values.into_iter().collect()))
}

fn product(values: &[Value]) -> Value {
    if values.iter().all(|value| matches!(value, Value::Int(_))) {
        let whole = |value: &Value| if let Value::Int(value) = value { *value } else { 1 };
        return Value::Int(values.iter().map(whole).fold(1, i64::saturating_mul));
    }
    Value::Float(values.iter().filter_map(as_f64).product())
}

fn key(name: &str) -> cel::objects::Key {
    cel::objects::Key::String(Arc::new(name.to_string()))
}

fn as_f64(value: &Value) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::UInt(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        _ => None,
    }
}

fn arithmetic(function: &str, arguments: &[Value]) -> Result<Value> {
    let (a, b) = (argument(function, arguments, 0)?, argument(function, arguments, 1)?);
    let operation = if function == "sum" { "op_add" } else { function };
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => Err(unknown(function)),
        (Value::Int(a), Value::Int(b)) => {
            let result = match operation {
                "op_add" => a.checked_add(*b),
                "op_subtract" => a.checked_sub(*b),
                "op_multiply" => a.checked_mul(*b),
                "op_divide" => a.checked_div(*b),
                _ => a.checked_rem(*b),
            };
            // Division by zero and overflow prove nothing about the model, so the rule does not apply.
            result.map(Value::Int).ok_or_else(|| unknown(function))
        }
        (Value::List(a), Value::List(b)) if operation == "op_add" => Ok(list_of(a.iter().chain(b.iter()).cloned())),
        (Value::String(a), Value::String(b)) if operation == "op_add" => Ok(Value::String(Arc::new(format!("{a}{b}")))),
        (a, b) => match (as_f64(a), as_f64(b)) {
            (Some(x), Some(y)) => Ok(Value::Float(match operation {
                "op_add" => x + y,
                "op_subtract" => x - y,
                "op_multiply" => x * y,
                "op_divide" => x / y,
                _ => x % y,
            })),
            (None, _) => Err(wrong(function, "numbers", a)),
            (_, None) => Err(wrong(function, "numbers", b)),
        },
    }
}

fn negate(arguments: &[Value]) -> Result<Value> {
    match argument("op_negate", arguments, 0)? {
        Value::Int(value) => value.checked_neg().map(Value::Int).ok_or_else(|| unknown("op_negate")),
        Value::Float(value) => Ok(Value::Float(-value)),
        other => Err(wrong("op_negate", "a number", other)),
    }
}

fn absolute(arguments: &[Value]) -> Result<Value> {
    match argument("abs", arguments, 0)? {
        Value::Int(value) => Ok(Value::Int(value.saturating_abs())),
        Value::Float(value) => Ok(Value::Float(value.abs())),
        other => Err(wrong("abs", "a number", other)),
    }
}

/// Whether two values are equal; unknown when that hangs on something unknown.
fn same(function: &str, arguments: &[Value]) -> Result<bool> {
    let (a, b) = (argument(function, arguments, 0)?, argument(function, arguments, 1)?);
    equal(a, b).ok_or_else(|| unknown(function))
}

fn equal(a: &Value, b: &Value) -> Option<bool> {
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => None,
        (Value::List(a), Value::List(b)) => {
            if a.len() != b.len() {
                return Some(false);
            }
            let parts: Vec<Option<bool>> = a.iter().zip(b.iter()).map(|(a, b)| equal(a, b)).collect();
            if parts.contains(&Some(false)) {
                Some(false)
            } else if parts.contains(&None) {
                None
            } else {
                Some(true)
            }
        }
        (Value::Int(a), Value::Int(b)) => Some(a == b),
        (a, b) => match (as_f64(a), as_f64(b)) {
            (Some(x), Some(y)) => Some(x == y),
            _ => Some(a == b),
        },
    }
}

fn compare(function: &str, arguments: &[Value], holds: fn(f64, f64) -> bool) -> Result<Value> {
    if let [Value::Int(a), Value::Int(b)] = arguments {
        // Exact where float64 would round.
        let (a, b) = (*a, *b);
        let (x, y) = match a.cmp(&b) {
            std::cmp::Ordering::Less => (0.0, 1.0),
            std::cmp::Ordering::Equal => (0.0, 0.0),
            std::cmp::Ordering::Greater => (1.0, 0.0),
        };
        return Ok(Value::Bool(holds(x, y)));
    }
    Ok(Value::Bool(holds(number(function, arguments, 0)?, number(function, arguments, 1)?)))
}

fn contains(arguments: &[Value]) -> Result<Value> {
    let item = argument("op_in", arguments, 0)?;
    let answers: Vec<Option<bool>> = list("op_in", arguments, 1)?.iter().map(|other| equal(item, other)).collect();
    if answers.contains(&Some(true)) {
        Ok(Value::Bool(true))
    } else if answers.contains(&None) {
        Err(unknown("op_in"))
    } else {
        Ok(Value::Bool(false))
    }
}

fn at(arguments: &[Value]) -> Result<Value> {
    let list = list("at", arguments, 0)?;
    let index = integer("at", arguments, 1)?;
    let from = if index < 0 { index + list.len() as i64 } else { index };
    match usize::try_from(from).ok().and_then(|index| list.get(index)) {
        Some(Value::Null) | None => Err(unknown("at")),
        Some(value) => Ok(value.clone()),
    }
}

fn clamp(index: i64, length: usize) -> usize {
    let from = if index < 0 { index.saturating_add(length as i64) } else { index };
    usize::try_from(from).unwrap_or(0).min(length)
}

fn cut(arguments: &[Value]) -> Result<Value> {
    let list = list("cut", arguments, 0)?;
    let begin = clamp(integer("cut", arguments, 1)?, list.len());
    let end = if arguments.len() > 2 { clamp(integer("cut", arguments, 2)?, list.len()) } else { list.len() };
    Ok(list_of(list.into_iter().skip(begin).take(end.saturating_sub(begin))))
}

/// The sizes of a captured value, or a list as it is.
fn shape(function: &str, arguments: &[Value]) -> Result<Vec<Value>> {
    match argument(function, arguments, 0)? {
        Value::List(list) => Ok(list.as_ref().clone()),
        Value::Map(map) => match map.get(&key("shape")) {
            Some(Value::List(list)) => Ok(list.as_ref().clone()),
            _ => Err(unknown(function)),
        },
        other => Err(wrong(function, "a captured value or its shape", other)),
    }
}

fn axis_of(function: &str, arguments: &[Value], rank: usize) -> Result<usize> {
    let axis = integer(function, arguments, 1)?;
    let from = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(from).ok().filter(|axis| *axis < rank).ok_or_else(|| unknown(function))
}

fn split_at_axis(function: &str, arguments: &[Value]) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut before = shape(function, arguments)?;
    let axis = axis_of(function, arguments, before.len())?;
    let after = before.split_off(axis + 1);
    before.pop();
    Ok((before, after))
}

fn along(arguments: &[Value]) -> Result<Value> {
    let shape = shape("along", arguments)?;
    let axis = axis_of("along", arguments, shape.len())?;
    // Not an error where it is unknown: `pieces` asks for it but needs it only without sizes.
    Ok(shape.get(axis).cloned().unwrap_or(Value::Null))
}

/// The number of an element type in the format, as Cast's `to` wants it.
fn type_number(arguments: &[Value]) -> Result<Value> {
    match argument("type_number", arguments, 0)? {
        Value::String(name) => match crate::onnx::DType::from_name(name) {
            Some(dtype) => Ok(Value::Int(i64::from(dtype.number()))),
            None => Err(ExecutionError::function_error("type_number", format!("`{name}` is not an element type"))),
        },
        other => Err(wrong("type_number", "the name of an element type", other)),
    }
}

fn gcd(arguments: &[Value]) -> Result<Value> {
    let values = whole("gcd", list("gcd", arguments, 0)?)?;
    let divide = |a: i64, b: i64| {
        let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a as i64
    };
    Ok(Value::Int(values.into_iter().fold(0, divide)))
}

fn wrap(arguments: &[Value]) -> Result<Value> {
    let (axis, rank) = (integer("wrap", arguments, 0)?, integer("wrap", arguments, 1)?);
    Ok(Value::Int(if axis < 0 { axis + rank } else { axis }))
}

fn all_equal(arguments: &[Value]) -> Result<bool> {
    let values = known("all_equal", list("all_equal", arguments, 0)?)?;
    match arguments.get(1) {
        Some(wanted) => Ok(values.iter().all(|value| equal(value, wanted) == Some(true))),
        None => Ok(values.windows(2).all(|pair| pair[0] == pair[1])),
    }
}

/// Longer lists than this are no sizes, axes or outputs.
const LONGEST: i64 = 1 << 20;

fn range(arguments: &[Value]) -> Result<Value> {
    let (begin, end) = match arguments.len() {
        1 => (0, integer("range", arguments, 0)?),
        _ => (integer("range", arguments, 0)?, integer("range", arguments, 1)?),
    };
    if end.saturating_sub(begin) > LONGEST {
        return Err(unknown("range"));
    }
    Ok(list_of((begin..end).map(Value::Int)))
}

fn repeat(arguments: &[Value]) -> Result<Value> {
    let value = argument("repeat", arguments, 0)?;
    let count = integer("repeat", arguments, 1)?;
    if count > LONGEST {
        return Err(unknown("repeat"));
    }
    Ok(list_of((0..count).map(|_| value.clone())))
}

fn concat(arguments: &[Value]) -> Result<Value> {
    let mut all = Vec::new();
    for index in 0..arguments.len() {
        all.extend(list("concat", arguments, index)?);
    }
    Ok(list_of(all))
}

fn enumerate(arguments: &[Value]) -> Result<Value> {
    let values = list("enumerate", arguments, 0)?;
    Ok(list_of(values.into_iter().enumerate().map(|(index, value)| list_of([Value::Int(index as i64), value]))))
}

fn zip(arguments: &[Value]) -> Result<Value> {
    let (a, b) = (list("zip", arguments, 0)?, list("zip", arguments, 1)?);
    Ok(list_of(a.into_iter().zip(b).map(|(a, b)| list_of([a, b]))))
}

fn whole(function: &str, values: Vec<Value>) -> Result<Vec<i64>> {
    values
        .iter()
        .map(|value| match value {
            Value::Int(value) => Ok(*value),
            other => Err(wrong(function, "whole numbers", other)),
        })
        .collect()
}

fn offsets(arguments: &[Value]) -> Result<Value> {
    let mut total = 0i64;
    let sizes = whole("offsets", list("offsets", arguments, 0)?)?;
    Ok(list_of(sizes.into_iter().map(|size| {
        let begin = total;
        total = total.saturating_add(size);
        Value::Int(begin)
    })))
}

/// `pieces(parts, sizes)` or `pieces(parts, sizes, total)`: each part with where it begins and ends. Without sizes
/// the total is shared out equally, a last piece being smaller where it does not divide, as Split does.
fn pieces(arguments: &[Value]) -> Result<Value> {
    let parts = list("pieces", arguments, 0)?;
    let sizes = match argument("pieces", arguments, 1)? {
        Value::List(list) => Some(whole("pieces", list.as_ref().clone())?),
        Value::Map(map) => match (map.get(&key("present")), map.get(&key("value"))) {
            (Some(Value::Bool(false)), _) => None,
            (_, Some(Value::List(list))) => Some(whole("pieces", list.as_ref().clone())?),
            _ => return Err(unknown("pieces")),
        },
        other => return Err(wrong("pieces", "a list of sizes, or the captured input that holds them", other)),
    };
    let sizes = match sizes {
        Some(sizes) => sizes,
        None => {
            let total = integer("pieces", arguments, 2)?;
            let count = parts.len() as i64;
            if count == 0 || total < count {
                return Err(unknown("pieces"));
            }
            let each = (total + count - 1) / count;
            let sizes: Vec<i64> = (0..count).map(|i| each.min(total - each * i)).collect();
            if sizes.iter().any(|size| *size < 0) {
                return Err(unknown("pieces"));
            }
            sizes
        }
    };
    if sizes.len() != parts.len() {
        return Err(unknown("pieces"));
    }
    let mut begin = 0i64;
    Ok(list_of(parts.into_iter().zip(sizes).map(|(part, size)| {
        let end = begin.saturating_add(size);
        let piece = list_of([part, Value::Int(begin), Value::Int(end)]);
        begin = end;
        piece
    })))
}

fn is_power_of_two(arguments: &[Value]) -> Result<Value> {
    let value = number("is_power_of_two", arguments, 0)?.abs();
    Ok(Value::Bool(value > 0.0 && value.is_finite() && value.log2().fract() == 0.0))
}

fn round_div(function: &str, arguments: &[Value], up: bool) -> Result<Value> {
    let (a, b) = (integer(function, arguments, 0)?, integer(function, arguments, 1)?);
    if b == 0 {
        return Err(unknown(function));
    }
    let floor = a.checked_div_euclid(b).ok_or_else(|| unknown(function))?;
    let floor = if b < 0 && a % b != 0 { floor - 1 } else { floor };
    Ok(Value::Int(if up && a % b != 0 { floor + 1 } else { floor }))
}

/// `near(a, b)` or `near(a, b, relative)`: equal up to rounding, by default that of float16 weights.
fn near(arguments: &[Value]) -> Result<Value> {
    let (a, b) = (number("near", arguments, 0)?, number("near", arguments, 1)?);
    let relative = if arguments.len() > 2 { number("near", arguments, 2)? } else { 1e-3 };
    Ok(Value::Bool((a - b).abs() <= relative * b.abs().max(a.abs())))
}

fn extreme(function: &str, arguments: &[Value], better: fn(f64, f64) -> bool) -> Result<Value> {
    let values = numbers(function, arguments)?;
    let mut best: Option<&Value> = None;
    for value in &values {
        let replace = match (best.and_then(as_f64), as_f64(value)) {
            (Some(old), Some(new)) => better(new, old),
            _ => true,
        };
        if replace {
            best = Some(value);
        }
    }
    best.cloned().ok_or_else(|| unknown(function))
}

fn identity_permutation(arguments: &[Value]) -> Result<Value> {
    let perm = whole("is_permutation_identity", list("is_permutation_identity", arguments, 0)?)?;
    Ok(Value::Bool(perm.iter().enumerate().all(|(index, axis)| index as i64 == *axis)))
}

/// Whether a tensor of the first shape, broadcast with one of the second, leaves the second as it is.
fn broadcasts_to(arguments: &[Value]) -> Result<Value> {
    let small = whole("broadcasts_to", known("broadcasts_to", shape("broadcasts_to", arguments)?)?)?;
    let large = whole("broadcasts_to", known("broadcasts_to", shape("broadcasts_to", &arguments[1..])?)?)?;
    let fits = small.len() <= large.len()
        && small.iter().rev().zip(large.iter().rev()).all(|(small, large)| *small == 1 || small == large);
    Ok(Value::Bool(fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cel_has_taken_none_of_the_names() {
        let mut context = Context::default();
        for (name, _, _) in FUNCTIONS {
            assert_eq!(context.add_function(name, |a: i64| a), Ok(()), "{name}");
        }
    }

    #[test]
    fn pieces_share_out_as_split_does() {
        let parts = list_of([Value::Int(0), Value::Int(1), Value::Int(2)]);
        let absent = Value::from(std::collections::HashMap::from([("present".to_string(), Value::Bool(false))]));
        let pieces = pieces(&[parts, absent, Value::Int(7)]).unwrap();
        let Value::List(pieces) = pieces else { panic!("a list") };
        let ends: Vec<Value> = pieces.iter().map(|piece| at(&[piece.clone(), Value::Int(2)]).unwrap()).collect();
        assert_eq!(ends, [Value::Int(3), Value::Int(6), Value::Int(7)]);
    }
}
