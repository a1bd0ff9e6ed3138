//! Element types of outputs.

use super::fact::Fact;
use crate::graph::{AttributeValue, Node};
use crate::onnx::DType;

/// The element types of a node's outputs by position, as far as they follow from its inputs and attributes.
pub fn dtypes(node: &Node, opset: i64, inputs: &[Option<Fact>]) -> Vec<Option<DType>> {
    let input = |index: usize| inputs.get(index)?.as_ref()?.dtype;
    let given = |index: usize| inputs.get(index).is_some_and(Option::is_some);
    let attribute = |name: &str| node.int(name).and_then(|n| DType::from_number(i32::try_from(n).ok()?));
    // Inputs that must agree: the first whose type is known tells.
    let any = || (0..inputs.len()).find_map(input);
    let first = input(0);
    let op = node.op_type.as_str();
    if !node.is_standard() {
        return match (node.domain.as_str(), op) {
            ("com.microsoft", "QuantizeLinear") => vec![input(2).or((!given(2)).then_some(DType::Uint8))],
            ("com.microsoft", "DequantizeLinear") => vec![input(1)],
            ("com.microsoft", "MatMulIntegerToFloat") => vec![input(2)],
            ("com.microsoft", "DynamicQuantizeMatMul") => vec![first],
            ("com.microsoft", _) if FIRST_OF_MICROSOFT.contains(&op) => vec![first; node.outputs.len()],
            _ => vec![None; node.outputs.len()],
        };
    }
    match op {
        "Equal"
        | "Less"
        | "LessOrEqual"
        | "Greater"
        | "GreaterOrEqual"
        | "And"
        | "Or"
        | "Xor"
        | "Not"
        | "IsNaN"
        | "IsInf"
        | "SequenceEmpty"
        | "OptionalHasElement"
        | "StringRegexFullMatch" => vec![Some(DType::Bool)],
        "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" | "NonMaxSuppression" | "SequenceLength" => {
            vec![Some(DType::Int64)]
        }
        "Cast" => vec![attribute("to")],
        "CastLike" => vec![input(1)],
        "BitCast" => vec![attribute("to")],
        "CausalConvWithState" | "LinearAttention" => vec![first, first],
        "BitShift" | "Add" | "Sub" | "Mul" | "Div" | "Mod" | "PRelu" | "Max" | "Min" | "Sum" | "Mean" | "MatMul"
        | "Gemm" | "Concat" | "Conv" | "ConvTranspose" | "Einsum" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor"
        | "Range" => vec![any()],
        "Where" => vec![input(1).or(input(2))],
        "OneHot" => vec![input(2)],
        "ConstantOfShape" => vec![match node.attr("value") {
            Some(AttributeValue::Tensor(tensor)) => Some(tensor.dtype()),
            _ => Some(DType::Float),
        }],
        "EyeLike" | "RandomNormalLike" | "RandomUniformLike" => vec![attribute("dtype").or(first)],
        "Bernoulli" => vec![attribute("dtype").or(first)],
        "RandomNormal" | "RandomUniform" => vec![attribute("dtype").or(Some(DType::Float))],
        "Multinomial" => vec![attribute("dtype").or(Some(DType::Int32))],
        "HannWindow" | "HammingWindow" | "BlackmanWindow" | "MelWeightMatrix" => {
            vec![attribute("output_datatype").or(Some(DType::Float))]
        }
        "Dropout" => vec![first, Some(if opset >= 10 { DType::Bool } else { first.unwrap_or(DType::Bool) })],
        "MaxPool" | "TopK" => vec![first, Some(DType::Int64)],
        "Unique" => vec![first, Some(DType::Int64), Some(DType::Int64), Some(DType::Int64)],
        "ConvInteger" | "MatMulInteger" => vec![Some(DType::Int32)],
        "QLinearConv" | "QLinearMatMul" => vec![input(7)],
        "QuantizeLinear" => {
            let asked = attribute("output_dtype").filter(|_| node.int("output_dtype") != Some(0));
            vec![input(2).or(asked).or((!given(2)).then_some(DType::Uint8))]
        }
        "DequantizeLinear" => {
            let asked = attribute("output_dtype").filter(|_| node.int("output_dtype") != Some(0));
            vec![asked.or(input(1))]
        }
        "DynamicQuantizeLinear" => vec![Some(DType::Uint8), Some(DType::Float), Some(DType::Uint8)],
        "LayerNormalization" => {
            let spread = attribute("stash_type").or(Some(DType::Float));
            vec![first, spread, spread]
        }
        "BatchNormalization" => vec![first, input(3), input(4), input(3), input(4)],
        "LSTM" | "GRU" | "RNN" => vec![first; 3],
        "Attention" => vec![first, input(1), input(2), first],
        "SoftmaxCrossEntropyLoss" => vec![first, first],
        "Split" => vec![first; node.outputs.len()],
        "ImageDecoder" => vec![Some(DType::Uint8)],
        "TfIdfVectorizer" => vec![Some(DType::Float)],
        "StringNormalizer" | "StringConcat" => vec![Some(DType::String)],
        "RegexFullMatch" => vec![Some(DType::Bool)],
        "StringSplit" => vec![Some(DType::String), Some(DType::Int64)],
        _ if FIRST.contains(&op) => vec![first],
        _ => vec![None; node.outputs.len()],
    }
}

/// Operators of ai.onnx whose first output has the first input's type.
const FIRST: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "AffineGrid",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "AveragePool",
    "BitwiseNot",
    "Ceil",
    "Celu",
    "CenterCropPad",
    "Clip",
    "Col2Im",
    "Compress",
    "Cos",
    "Cosh",
    "CumProd",
    "CumSum",
    "DFT",
    "DeformConv",
    "DepthToSpace",
    "Det",
    "Elu",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "GatherElements",
    "GatherND",
    "Gelu",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "GridSample",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "InstanceNormalization",
    "LRN",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "LpPool",
    "MaxRoiPool",
    "MaxUnpool",
    "MeanVarianceNormalization",
    "Mish",
    "Neg",
    "NegativeLogLikelihoodLoss",
    "Pad",
    "Pow",
    "RMSNormalization",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Resize",
    "ReverseSequence",
    "RoiAlign",
    "RotaryEmbedding",
    "Round",
    "STFT",
    "Scatter",
    "ScatterElements",
    "ScatterND",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Sqrt",
    "Squeeze",
    "Swish",
    "Tan",
    "Tanh",
    "TensorScatter",
    "ThresholdedRelu",
    "Tile",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Upsample",
];

/// Operators of ONNX Runtime's domain whose outputs have the first input's type.
const FIRST_OF_MICROSOFT: &[&str] = &[
    "Gelu",
    "FastGelu",
    "QuickGelu",
    "BiasGelu",
    "BiasSoftmax",
    "QLinearSigmoid",
    "QLinearLeakyRelu",
    "QLinearSoftmax",
    "RotaryEmbedding",
    "Trilu",
    "GroupNorm",
    "SkipLayerNormalization",
    "SimplifiedLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "FusedConv",
    "FusedMatMul",
    "TransposeMatMul",
    "FusedGemm",
    "QLinearAdd",
    "QLinearMul",
    "QLinearGlobalAveragePool",
    "QLinearAveragePool",
    "MatMulNBits",
    "MultiHeadAttention",
    "GroupQueryAttention",
    "Attention",
    "Inverse",
    "NhwcFusedConv",
];
