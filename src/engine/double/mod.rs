//! A model in float64, on tract: what it would give if nobody rounded.
//!
//! Two engines that differ are both right, or one is wrong, and float32 alone cannot say which. Float64 can: its rounding
//! errors are a billion times smaller, so it stands nearer to the truth than either.
//!
//! tract computes convolutions, products, sums and movements in float64 as it does in float32. What it has in float32
//! only is written otherwise here: functions of one value (Sigmoid, Erf, Gelu, ...) are evaluated by [`function`], and
//! normalisations and softmaxes are taken apart into sums and quotients, LSTM and GRU into their steps, and an interpolation
//! is a product with its weights. An operator that is on neither list is refused,
//! since one that silently computed in float32 would make the whole answer worthless.

mod convert;
mod function;
mod interpolate;
mod recurrent;

use super::tract::Tract;
use super::{Engine, EngineError, Session, Tensors};
use crate::graph::Model;
use crate::onnx::DType;

pub(crate) use function::{FUNCTION, function_op};

/// tract, computing everything in float64. It takes float32 (and 16-bit) models and inputs, and gives float64 outputs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Double;

const NAME: &str = "tract in float64";

impl Engine for Double {
    fn name(&self) -> String {
        NAME.into()
    }

    fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
        let double = convert::to_double(model)?;
        Ok(Box::new(DoubleSession(Tract.compile(&double)?)))
    }
}

struct DoubleSession(Box<dyn Session>);

impl Session for DoubleSession {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, EngineError> {
        let widen = |(name, tensor): (&String, &crate::onnx::Tensor)| {
            let wide = if tensor.dtype().is_float() { tensor.convert(DType::Double) } else { None };
            (name.clone(), wide.unwrap_or_else(|| tensor.clone()))
        };
        self.0.run(&inputs.iter().map(widen).collect())
    }
}

#[cfg(test)]
mod tests;
