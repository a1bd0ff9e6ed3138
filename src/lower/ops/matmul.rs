//! Products of matrices.
//!
//! | ONNX | HLO |
//! | --- | --- |
//! | MatMul (opset 9 and later), with numpy's rules for vectors and batches | dot with batch dimensions; none where the right side has none |
//! | Gemm (opset 9 and later) | dot over the dimensions that `transA` and `transB` name, multiply, add |
//! | MatMulInteger (opset 10 and later) | convert to int32, subtract the zero points, dot |

use super::Problem;
use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Builder, DotDims, Op};
use crate::onnx::DType;

/// MatMul.
pub fn matmul(call: &mut Call) -> Lowered {
    let (x, y) = (call.input(0)?, call.input(1)?);
    Ok(vec![product(call.b, x, y)?])
}

/// A product as numpy's matmul defines it.
pub fn product(b: &mut Builder, x: Op, y: Op) -> Result<Op, Problem> {
    let (left, right) = (b.dims(x), b.dims(y));
    let (l, r) = (left.len(), right.len());
    if l == 0 || r == 0 {
        return Err("a scalar has no product of matrices".into());
    }
    let last = l as i64 - 1;
    if r <= 2 {
        // The right side has no batch of its own: what stands before the left's last dimension just runs along.
        let over = if r == 1 { 0 } else { r as i64 - 2 };
        let dims = DotDims { left_contracting: vec![last], right_contracting: vec![over], ..Default::default() };
        return Ok(b.dot(x, y, dims));
    }
    if l == 1 {
        let row = b.reshape(x, &[1, left[0]]);
        let made = product(b, row, y)?;
        let mut dims = b.dims(made);
        dims.remove(dims.len() - 2);
        return Ok(b.reshape(made, &dims));
    }
    let Some(batch) = broadcast(&left[..l - 2], &right[..r - 2]) else {
        return Err(format!("batches {:?} and {:?} do not broadcast", &left[..l - 2], &right[..r - 2]).into());
    };
    let n = batch.len() as i64;
    let widen = |b: &mut Builder, x: Op, dims: &[i64]| {
        let whole: Vec<i64> = batch.iter().chain(&dims[dims.len() - 2..]).copied().collect();
        b.expand(x, &whole)
    };
    let (x, y) = (widen(b, x, &left), widen(b, y, &right));
    let dims = DotDims {
        left_contracting: vec![n + 1],
        right_contracting: vec![n],
        left_batch: (0..n).collect(),
        right_batch: (0..n).collect(),
    };
    Ok(b.dot(x, y, dims))
}

fn broadcast(left: &[i64], right: &[i64]) -> Option<Vec<i64>> {
    crate::lower::hlo::broadcast_dims(left, right)
}

/// Gemm.
pub fn gemm(call: &mut Call) -> Lowered {
    let (x, y) = (call.input(0)?, call.input(1)?);
    let over = |transposed: bool, plain: i64| vec![if transposed { 1 - plain } else { plain }];
    let dims = DotDims {
        left_contracting: over(call.int("transA", 0) != 0, 1),
        right_contracting: over(call.int("transB", 0) != 0, 0),
        ..Default::default()
    };
    let (alpha, beta) = (call.float("alpha", 1.0), call.float("beta", 1.0));
    let added = call.optional(2)?;
    let b = &mut *call.b;
    let mut made = b.dot(x, y, dims);
    if alpha != 1.0 {
        made = b.scale(made, alpha);
    }
    if let Some(mut added) = added
        && beta != 0.0
    {
        if beta != 1.0 {
            added = b.scale(added, beta);
        }
        made = b.add(made, added);
    }
    Ok(vec![made])
}

/// MatMulInteger: int32 throughout.
pub fn matmul_integer(call: &mut Call) -> Lowered {
    let (x, y) = (call.input(0)?, call.input(1)?);
    let (x_zero, y_zero) = (call.optional(2)?, call.optional(3)?);
    let b = &mut *call.b;
    let x = centred(b, x, x_zero, true);
    let y = centred(b, y, y_zero, false);
    Ok(vec![product(b, x, y)?])
}

/// An integer tensor as int32, less its zero point; one zero point a row of the left side, one a column of the right.
pub fn centred(b: &mut Builder, x: Op, zero: Option<Op>, rows: bool) -> Op {
    let wide = b.convert(x, DType::Int32);
    let Some(zero) = zero else { return wide };
    let mut zero = b.convert(zero, DType::Int32);
    let dims = b.dims(zero);
    if rows && dims.len() == 1 && dims[0] > 1 {
        zero = b.reshape(zero, &[dims[0], 1]);
    } else if dims == [1] {
        zero = b.reshape(zero, &[]);
    }
    b.sub(wide, zero)
}
