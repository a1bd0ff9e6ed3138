//! The lowerings, a file an operator family. Each file's doc says which operators and opsets it takes and which
//! instructions it makes.

mod activation;
mod arg;
mod arithmetic;
mod attention;
mod cast;
mod conv;
mod einsum;
mod erf;
mod gather;
mod grid_sample;
mod matmul;
mod norm;
mod pick;
mod pool;
mod quantize;
mod recurrent;
mod reduce;
mod resize;
mod shape;
mod slice;
mod softmax;

use super::Problem;
use super::call::{Call, Lowered, constant};
use super::hlo::{Builder, Op};
use crate::onnx::DType;

type Lowering = fn(&mut Call) -> Lowered;

/// Whether an operator of ai.onnx has a lowering. A use of it may still be refused.
pub fn is_lowered(op_type: &str) -> bool {
    lowering(op_type).is_some()
}

/// Lowers a node.
pub(super) fn lower(call: &mut Call) -> Lowered {
    if !call.node.is_standard() {
        return Err(format!("there is no lowering for the domain '{}'", call.node.domain).into());
    }
    match lowering(&call.node.op_type) {
        Some(lowering) => lowering(call),
        None => Err("there is no lowering for this operator".into()),
    }
}

fn lowering(op_type: &str) -> Option<Lowering> {
    Some(match op_type {
        "Add" | "Sub" | "Mul" | "Div" | "And" | "Or" | "Xor" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" => {
            arithmetic::binary
        }
        "BitShift" => arithmetic::shift,
        "Min" | "Max" | "Sum" | "Mean" => arithmetic::variadic,
        "Mod" => arithmetic::modulo,
        "Pow" => arithmetic::power,
        "Neg" | "Abs" | "Sign" | "Ceil" | "Floor" | "Round" | "Sqrt" | "Exp" | "Log" | "Sin" | "Cos" | "Tanh"
        | "Sigmoid" | "Not" | "BitwiseNot" => arithmetic::unary,
        "Reciprocal" => arithmetic::reciprocal,
        "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" => arithmetic::compare,
        "IsNaN" => arithmetic::is_nan,
        "IsInf" => arithmetic::is_inf,
        "Where" => arithmetic::select,
        "Clip" => arithmetic::clip,
        "Tan" | "Asin" | "Acos" | "Atan" | "Sinh" | "Cosh" | "Asinh" | "Acosh" | "Atanh" => arithmetic::trigonometry,
        "Erf" => erf::erf,
        "Relu" | "LeakyRelu" | "ThresholdedRelu" | "Elu" | "Celu" | "Selu" | "HardSigmoid" | "HardSwish" | "Swish"
        | "Softplus" | "Softsign" | "Mish" | "Gelu" | "Shrink" => activation::activation,
        "PRelu" => activation::prelu,
        "Softmax" | "LogSoftmax" => softmax::softmax,
        "Hardmax" => softmax::hardmax,
        "ArgMax" | "ArgMin" => arg::arg,
        "TopK" => arg::top_k,
        "Cast" | "CastLike" => cast::cast,
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => shape::reshape,
        "Identity" | "Dropout" => shape::identity,
        "Transpose" => shape::transpose,
        "Expand" => shape::expand,
        "Tile" => shape::tile,
        "DepthToSpace" | "SpaceToDepth" => shape::depth,
        "Shape" | "Size" => shape::sizes,
        "ConstantOfShape" => shape::constant_of_shape,
        "EyeLike" => shape::eye_like,
        "Range" => shape::range,
        "Trilu" => shape::trilu,
        "OneHot" => shape::one_hot,
        "ReverseSequence" => shape::reverse_sequence,
        "Concat" => slice::concat,
        "Split" => slice::split,
        "Slice" => slice::slice,
        "Pad" => slice::pad,
        "Gather" => slice::gather,
        "GatherElements" => gather::gather_elements,
        "GatherND" => gather::gather_nd,
        "ScatterElements" => gather::scatter_elements,
        "ScatterND" => gather::scatter_nd,
        "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceMean" | "ReduceL1" | "ReduceL2"
        | "ReduceSumSquare" | "ReduceLogSum" | "ReduceLogSumExp" => reduce::reduce,
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => reduce::global_pool,
        "CumSum" | "CumProd" => reduce::cumulative,
        "MeanVarianceNormalization" => reduce::mean_variance_normalization,
        "MatMul" => matmul::matmul,
        "Gemm" => matmul::gemm,
        "MatMulInteger" => matmul::matmul_integer,
        "Attention" => attention::attention,
        "RotaryEmbedding" => attention::rotary_embedding,
        "GridSample" => grid_sample::grid_sample,
        "Einsum" => einsum::einsum,
        "Conv" => conv::conv,
        "ConvTranspose" => conv::conv_transpose,
        "ConvInteger" => conv::conv_integer,
        "QLinearConv" => conv::qlinear_conv,
        "BatchNormalization" => norm::batch,
        "InstanceNormalization" => norm::instance,
        "LayerNormalization" => norm::layer,
        "RMSNormalization" => norm::rms,
        "GroupNormalization" => norm::group,
        "LpNormalization" => norm::lp,
        "LRN" => norm::lrn,
        "MaxPool" => pool::max_pool,
        "AveragePool" => pool::average_pool,
        "LpPool" => pool::lp_pool,
        "Resize" => resize::resize,
        "QuantizeLinear" => quantize::quantize,
        "DequantizeLinear" => quantize::dequantize,
        "DynamicQuantizeLinear" => quantize::dynamic_quantize,
        "QLinearMatMul" => quantize::qlinear_matmul,
        "RNN" | "GRU" | "LSTM" => recurrent::recurrent,
        "Constant" => constant_node,
        _ => return None,
    })
}

/// Constant, where it was not folded.
fn constant_node(call: &mut Call) -> Lowered {
    let value = call.node.output(0).ok_or("it has no output")?;
    let tensor = call.graph.constant(value).ok_or("its value is no tensor")?;
    Ok(vec![constant(call.b, &call.graph.value(value).name, &tensor)?])
}

/// A tensor in the type that it is computed in: float32 for the floats below it. Gives its own type too, to go back to.
fn wide(b: &mut Builder, x: Op) -> (Op, DType) {
    let dtype = b.dtype(x);
    match dtype {
        DType::Float16 | DType::Bfloat16 => (b.convert(x, DType::Float), dtype),
        _ => (x, dtype),
    }
}
