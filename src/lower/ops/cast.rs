//! Changes of element type.
//!
//! ONNX: Cast, CastLike (opset 9 and later). HLO: convert; to bool, compare with 0.

use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Builder, Direction, Op, element_number};
use crate::onnx::DType;

/// Cast and CastLike.
pub fn cast(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let to = match call.node.op_type.as_str() {
        "CastLike" => {
            let like = call.node.input(1).ok_or("its input 1 is missing")?;
            call.graph.value(like).dtype
        }
        _ => i32::try_from(call.int("to", 0)).ok().and_then(DType::from_number),
    };
    let to = to.ok_or("the type to cast to is not known")?;
    if element_number(to) == 0 {
        return Err(format!("a cast to {to} is not lowered").into());
    }
    Ok(vec![convert(call.b, x, to)])
}

/// A tensor of another type, as ONNX casts: to bool by comparing with 0.
pub fn convert(b: &mut Builder, x: Op, to: DType) -> Op {
    if to == DType::Bool && b.dtype(x) != DType::Bool {
        let zero = b.full_like(x, 0.0);
        return b.compare(Direction::Ne, x, zero);
    }
    b.convert(x, to)
}
