//! Functions of one value in float64: the operators of ONNX that tract has in float32 only, as one operator of tract's.

use tract_onnx::prelude::{DatumType, TractResult};
use tract_onnx::tract_core::ops::element_wise::{ElementWiseMiniOp, ElementWiseOp};
use tract_onnx::tract_hir::internal::bail;

use crate::graph::Node;

/// The operator's name; its domain is that of porter's other own operator.
pub const FUNCTION: &str = "PorterFunction";

/// A function with its parameters, named by ONNX's operator.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Function {
    pub of: String,
    pub alpha: f64,
    pub beta: f64,
}

impl Eq for Function {}

/// Attributes are float32 in the file; the decimal that was meant is the nearest short one.
fn meant(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(x as f64)
}

impl Function {
    /// The function that a node computes, where it is one of these.
    pub fn of(node: &Node) -> Option<Self> {
        let attribute = |name: &str, default: f64| node.float(name).map_or(default, meant);
        let (alpha, beta) = match node.op_type.as_str() {
            "Sigmoid" | "Erf" | "Softplus" | "Softsign" | "Mish" | "HardSwish" | "Relu" => (0.0, 0.0),
            "HardSigmoid" => (attribute("alpha", 0.2), attribute("beta", 0.5)),
            "LeakyRelu" => (attribute("alpha", 0.01), 0.0),
            "Elu" | "Celu" | "ThresholdedRelu" | "Swish" => (attribute("alpha", 1.0), 0.0),
            "Selu" => (attribute("alpha", 1.673_263_192_176_818_8), attribute("gamma", 1.050_701_022_148_132_3)),
            "Shrink" => (attribute("lambd", 0.5), attribute("bias", 0.0)),
            "Gelu" => ((node.string("approximate") == Some("tanh")) as u8 as f64, 0.0),
            _ => return None,
        };
        Some(Self { of: node.op_type.clone(), alpha, beta })
    }

    fn apply(&self, x: f64) -> Option<f64> {
        let (a, b) = (self.alpha, self.beta);
        let sigmoid = |x: f64| if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) };
        let softplus = |x: f64| if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() };
        Some(match self.of.as_str() {
            "Sigmoid" => sigmoid(x),
            "Erf" => libm::erf(x),
            "Softplus" => softplus(x),
            "Softsign" => x / (1.0 + x.abs()),
            "Mish" => x * softplus(x).tanh(),
            "HardSwish" => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            "Relu" => {
                if x > 0.0 || x.is_nan() {
                    x
                } else {
                    0.0
                }
            }
            "HardSigmoid" => (a * x + b).clamp(0.0, 1.0),
            "LeakyRelu" => {
                if x < 0.0 {
                    a * x
                } else {
                    x
                }
            }
            "Elu" => {
                if x < 0.0 {
                    a * x.exp_m1()
                } else {
                    x
                }
            }
            "Celu" => x.max(0.0) + (a * (x / a).exp_m1()).min(0.0),
            "ThresholdedRelu" => {
                if x > a {
                    x
                } else {
                    0.0
                }
            }
            "Swish" => x * sigmoid(a * x),
            "Selu" => b * if x < 0.0 { a * x.exp_m1() } else { x },
            "Shrink" => {
                if x < -a {
                    x + b
                } else if x > a {
                    x - b
                } else {
                    0.0
                }
            }
            "Gelu" if a == 0.0 => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            "Gelu" => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + inner.tanh())
            }
            _ => return None,
        })
    }
}

impl ElementWiseMiniOp for Function {
    fn name(&self) -> String {
        format!("{}InFloat64", self.of)
    }

    fn eval_in_place(&self, tensor: &mut tract_onnx::prelude::Tensor, _: Option<DatumType>) -> TractResult<()> {
        if tensor.datum_type() != DatumType::F64 {
            bail!("{} is computed in float64 only, not {:?}", self.of, tensor.datum_type());
        }
        let mut view = tensor.try_as_plain_ram_mut()?;
        for value in view.as_slice_mut::<f64>()? {
            let Some(result) = self.apply(*value) else { bail!("there is no function {}", self.of) };
            *value = result;
        }
        Ok(())
    }
}

/// tract's operator for a function of this name.
pub(crate) fn function_op(of: &str, alpha: f64, beta: f64) -> ElementWiseOp {
    ElementWiseOp(Box::new(Function { of: of.into(), alpha, beta }), None)
}
