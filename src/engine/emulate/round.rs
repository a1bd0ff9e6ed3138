//! Rounding float32 values to what a narrower type holds: on slices, and as an operator of tract's.

use half::slice::HalfFloatSliceExt;
use tract_onnx::prelude::{DatumType, TractResult};
use tract_onnx::tract_core::ops::element_wise::{ElementWiseMiniOp, ElementWiseOp};
use tract_onnx::tract_hir::internal::bail;

use crate::onnx::payload::bfloat16_bits;
use crate::onnx::{DType, Tensor};

/// Rounds every value to the nearest that `to` holds, ties to even. Types other than the 16-bit floats change nothing.
pub fn round_in_place(values: &mut [f32], to: DType) {
    match to {
        DType::Bfloat16 => {
            for value in values {
                *value = f32::from_bits(u32::from(bfloat16_bits(*value)) << 16);
            }
        }
        DType::Float16 => {
            let mut narrow = [half::f16::ZERO; 1024];
            for values in values.chunks_mut(narrow.len()) {
                let narrow = &mut narrow[..values.len()];
                narrow.convert_from_f32_slice(values);
                narrow.convert_to_f32_slice(values);
            }
        }
        _ => {}
    }
}

/// A float32 tensor whose values are rounded to `to`; `None` where it is not float32 or cannot be read.
pub fn rounded(tensor: &Tensor, to: DType) -> Option<Tensor> {
    let narrow = (tensor.dtype() == DType::Float).then(|| tensor.convert(to)).flatten()?;
    narrow.convert(DType::Float)
}

/// The rounding as one of tract's element-wise operators.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Round {
    to: DType,
}

impl ElementWiseMiniOp for Round {
    fn name(&self) -> String {
        format!("RoundTo{}", self.to)
    }

    fn eval_in_place(&self, tensor: &mut tract_onnx::prelude::Tensor, _: Option<DatumType>) -> TractResult<()> {
        if tensor.datum_type() != DatumType::F32 {
            bail!("only float32 is rounded to {}, not {:?}", self.to, tensor.datum_type());
        }
        let mut view = tensor.try_as_plain_ram_mut()?;
        round_in_place(view.as_slice_mut::<f32>()?, self.to);
        Ok(())
    }
}

/// tract's operator that rounds to `to`.
pub(crate) fn round_op(to: DType) -> ElementWiseOp {
    ElementWiseOp(Box::new(Round { to }), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_type() {
        let values = [
            0.0,
            -0.0,
            1.0,
            1.0 + 1.0 / 256.0,
            1.0 + 3.0 / 256.0,
            1e-40,
            3.4e38,
            65519.0,
            65520.0,
            1e-7,
            6e-8,
            2e-8,
            f32::NAN,
        ];
        for (to, want) in [
            (DType::Bfloat16, values.map(|x| half::bf16::from_f32(x).to_f32())),
            (DType::Float16, values.map(|x| half::f16::from_f32(x).to_f32())),
        ] {
            let mut got = values;
            round_in_place(&mut got, to);
            for (index, (got, want)) in got.iter().zip(want).enumerate() {
                assert!(
                    got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
                    "{to} {index}: {got} {want}"
                );
            }
        }
        let mut got = [65519.0, 65520.0, -70000.0, 1.0 + 1.0 / 256.0];
        round_in_place(&mut got, DType::Float16);
        assert_eq!(got, [65504.0, f32::INFINITY, f32::NEG_INFINITY, 1.0 + 1.0 / 256.0]);
        let mut ties = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]; // 1 + 1/256 and 1 + 3/256: both half way
        round_in_place(&mut ties, DType::Bfloat16);
        assert_eq!(ties, [1.0, 1.015625]);
    }
}
