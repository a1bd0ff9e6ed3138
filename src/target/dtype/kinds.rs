//! Which element types ONNX gives its operators, and which of their tensors are numbers of the computation.
//! The table is made from the operator definitions of ONNX 1.23 (opsets 11 to 26).

use crate::onnx::{DType, Payload, Tensor};

/// Operator, and the first opset from 11 on whose main float type may be float16, and bfloat16; 0 for never.
#[rustfmt::skip]
const SINCE: &[(&str, u8, u8)] = &[
    ("Abs", 11, 13),
    ("Acos", 11, 22),
    ("Acosh", 11, 22),
    ("Add", 11, 13),
    ("AffineGrid", 20, 20),
    ("ArgMax", 11, 13),
    ("ArgMin", 11, 13),
    ("Asin", 11, 22),
    ("Asinh", 11, 22),
    ("Atan", 11, 22),
    ("Atanh", 11, 22),
    ("Attention", 23, 23),
    ("AveragePool", 11, 22),
    ("BatchNormalization", 11, 14),
    ("Bernoulli", 15, 22),
    ("BitCast", 26, 26),
    ("BlackmanWindow", 17, 17),
    ("Cast", 11, 13),
    ("CastLike", 15, 15),
    ("Ceil", 11, 13),
    ("Celu", 0, 0),
    ("CenterCropPad", 18, 18),
    ("Clip", 11, 13),
    ("Col2Im", 18, 18),
    ("Compress", 11, 0),
    ("Concat", 11, 13),
    ("ConcatFromSequence", 11, 0),
    ("Constant", 11, 13),
    ("ConstantOfShape", 11, 20),
    ("Conv", 11, 22),
    ("ConvTranspose", 11, 22),
    ("Cos", 11, 22),
    ("Cosh", 11, 22),
    ("CumProd", 26, 26),
    ("CumSum", 14, 14),
    ("DFT", 17, 17),
    ("DeformConv", 19, 22),
    ("DepthToSpace", 11, 13),
    ("DequantizeLinear", 19, 19),
    ("Det", 11, 22),
    ("Div", 11, 13),
    ("Dropout", 11, 13),
    ("DynamicQuantizeLinear", 0, 0),
    ("Einsum", 12, 0),
    ("Elu", 11, 22),
    ("Equal", 11, 13),
    ("Erf", 11, 13),
    ("Exp", 11, 13),
    ("Expand", 11, 13),
    ("EyeLike", 11, 22),
    ("Flatten", 11, 13),
    ("Floor", 11, 13),
    ("GRU", 11, 22),
    ("Gather", 11, 13),
    ("GatherElements", 11, 13),
    ("GatherND", 11, 13),
    ("Gelu", 20, 20),
    ("Gemm", 11, 13),
    ("GlobalAveragePool", 11, 22),
    ("GlobalLpPool", 11, 22),
    ("GlobalMaxPool", 11, 22),
    ("Greater", 11, 13),
    ("GreaterOrEqual", 12, 16),
    ("GridSample", 16, 22),
    ("GroupNormalization", 21, 21),
    ("HammingWindow", 17, 17),
    ("HannWindow", 17, 17),
    ("HardSigmoid", 11, 22),
    ("HardSwish", 14, 22),
    ("Hardmax", 11, 13),
    ("Identity", 11, 13),
    ("If", 11, 16),
    ("InstanceNormalization", 11, 22),
    ("IsInf", 20, 20),
    ("IsNaN", 11, 13),
    ("LRN", 11, 13),
    ("LSTM", 11, 22),
    ("LayerNormalization", 17, 17),
    ("LeakyRelu", 11, 16),
    ("Less", 11, 13),
    ("LessOrEqual", 12, 16),
    ("Log", 11, 13),
    ("LogSoftmax", 11, 13),
    ("Loop", 11, 16),
    ("LpNormalization", 11, 22),
    ("LpPool", 11, 22),
    ("MatMul", 11, 13),
    ("Max", 11, 13),
    ("MaxPool", 11, 22),
    ("MaxRoiPool", 11, 22),
    ("MaxUnpool", 11, 22),
    ("Mean", 11, 13),
    ("MeanVarianceNormalization", 11, 13),
    ("MelWeightMatrix", 17, 17),
    ("Min", 11, 13),
    ("Mish", 18, 22),
    ("Mod", 11, 13),
    ("Mul", 11, 13),
    ("Multinomial", 11, 22),
    ("Neg", 11, 13),
    ("NegativeLogLikelihoodLoss", 12, 22),
    ("NonZero", 11, 13),
    ("OneHot", 11, 0),
    ("Optional", 15, 0),
    ("OptionalGetElement", 15, 0),
    ("OptionalHasElement", 18, 0),
    ("PRelu", 11, 16),
    ("Pad", 11, 13),
    ("Pow", 11, 13),
    ("QLinearMatMul", 21, 21),
    ("QuantizeLinear", 19, 19),
    ("RMSNormalization", 23, 23),
    ("RNN", 11, 22),
    ("RandomNormal", 11, 22),
    ("RandomNormalLike", 11, 22),
    ("RandomUniform", 11, 22),
    ("RandomUniformLike", 11, 22),
    ("Range", 0, 0),
    ("Reciprocal", 11, 13),
    ("ReduceL1", 11, 13),
    ("ReduceL2", 11, 13),
    ("ReduceLogSum", 11, 13),
    ("ReduceLogSumExp", 11, 13),
    ("ReduceMax", 11, 13),
    ("ReduceMean", 11, 13),
    ("ReduceMin", 11, 13),
    ("ReduceProd", 11, 13),
    ("ReduceSum", 11, 13),
    ("ReduceSumSquare", 11, 13),
    ("Relu", 11, 13),
    ("Reshape", 11, 13),
    ("Resize", 11, 13),
    ("ReverseSequence", 11, 0),
    ("RoiAlign", 11, 22),
    ("RotaryEmbedding", 23, 23),
    ("Round", 11, 22),
    ("STFT", 17, 17),
    ("Scan", 11, 16),
    ("Scatter", 0, 0),
    ("ScatterElements", 11, 13),
    ("ScatterND", 11, 13),
    ("Selu", 11, 22),
    ("SequenceAt", 11, 0),
    ("SequenceConstruct", 11, 0),
    ("SequenceInsert", 11, 0),
    ("SequenceMap", 17, 0),
    ("Shape", 11, 13),
    ("Shrink", 11, 0),
    ("Sigmoid", 11, 13),
    ("Sign", 11, 13),
    ("Sin", 11, 22),
    ("Sinh", 11, 22),
    ("Size", 11, 13),
    ("Slice", 11, 13),
    ("Softmax", 11, 13),
    ("SoftmaxCrossEntropyLoss", 12, 13),
    ("Softplus", 11, 22),
    ("Softsign", 11, 22),
    ("SpaceToDepth", 11, 13),
    ("Split", 11, 13),
    ("SplitToSequence", 11, 24),
    ("Sqrt", 11, 13),
    ("Squeeze", 11, 13),
    ("Sub", 11, 13),
    ("Sum", 11, 13),
    ("Swish", 24, 24),
    ("Tan", 11, 22),
    ("Tanh", 11, 13),
    ("TensorScatter", 24, 24),
    ("TfIdfVectorizer", 0, 0),
    ("ThresholdedRelu", 11, 22),
    ("Tile", 11, 13),
    ("TopK", 11, 24),
    ("Transpose", 11, 13),
    ("Trilu", 14, 14),
    ("Unique", 11, 0),
    ("Unsqueeze", 11, 13),
    ("Upsample", 0, 0),
    ("Where", 11, 16),
];

/// The first opset in which the operator computes in a type; `None` where it never does.
pub fn since(op: &str, dtype: DType) -> Option<i64> {
    if dtype == DType::Float {
        return Some(0);
    }
    let index = SINCE.binary_search_by_key(&op, |(name, ..)| name).ok()?;
    let (_, float16, bfloat16) = SINCE[index];
    let since = match dtype {
        DType::Float16 => float16,
        DType::Bfloat16 => bfloat16,
        _ => 0,
    };
    (since > 0).then_some(i64::from(since))
}

/// Whether an input keeps its type when the node computes in less: sizes, scales and the like that ONNX wants in
/// float32 or that carry exact counts.
pub fn is_parameter(op: &str, input: usize) -> bool {
    matches!(
        (op, input),
        ("Resize", 1 | 2) | ("Upsample", 1) | ("Dropout", 1) | ("OneHot", 0 | 1) | ("Reshape" | "Expand" | "Tile", 1)
    )
}

/// Whether an output keeps float32 when the node computes in less.
pub fn is_side_output(op: &str, output: usize) -> bool {
    // The statistics that LayerNormalization hands out are in its stash type.
    op == "LayerNormalization" && output > 0
}

/// Operators that look at a tensor's form alone: any element type will do.
pub fn looks_at_form(op: &str) -> bool {
    matches!(op, "Shape" | "Size")
}

/// Operators with weights: the rest of a model after the last of them is its tail.
pub fn is_weighted(op: &str) -> bool {
    matches!(
        op,
        "Conv" | "ConvTranspose" | "MatMul" | "Gemm" | "LSTM" | "GRU" | "RNN" | "Einsum" | "DeformConv" | "Attention"
    )
}

/// Operators that make numbers from a dtype attribute or from integers rather than from float tensors.
pub fn is_source(op: &str) -> bool {
    matches!(
        op,
        "ConstantOfShape"
            | "EyeLike"
            | "RandomNormal"
            | "RandomNormalLike"
            | "RandomUniform"
            | "RandomUniformLike"
            | "Bernoulli"
            | "Multinomial"
            | "Range"
            | "BlackmanWindow"
            | "HannWindow"
            | "HammingWindow"
            | "MelWeightMatrix"
            | "CastLike"
            | "DFT"
            | "STFT"
    )
}

/// Whether a tensor's numbers are made from a mean and a deviation, in place of weights that were taken out.
pub fn is_filled(tensor: &Tensor) -> bool {
    matches!(tensor.raw_data, Some(Payload::Fill(_)))
}

/// Operators of quantised models: their float32 scales say what the integers mean.
pub fn is_quantised(op: &str) -> bool {
    matches!(
        op,
        "QuantizeLinear"
            | "DequantizeLinear"
            | "DynamicQuantizeLinear"
            | "QLinearConv"
            | "QLinearMatMul"
            | "ConvInteger"
            | "MatMulInteger"
    )
}

/// Operators that hand numbers on as they are, or one at a time: what feeds an integer is followed through these.
pub fn is_pointwise(op: &str) -> bool {
    matches!(
        op,
        "Add"
            | "Sub"
            | "Mul"
            | "Div"
            | "Neg"
            | "Abs"
            | "Floor"
            | "Ceil"
            | "Round"
            | "Clip"
            | "Mod"
            | "Min"
            | "Max"
            | "Sqrt"
            | "Pow"
            | "Cast"
            | "Concat"
            | "Slice"
            | "Gather"
            | "Reshape"
            | "Unsqueeze"
            | "Squeeze"
            | "Flatten"
            | "Transpose"
            | "Expand"
            | "Tile"
            | "Identity"
            | "ReduceProd"
            | "ReduceSum"
            | "Split"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_right() {
        assert!(SINCE.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(since("Conv", DType::Bfloat16), Some(22));
        assert_eq!(since("Conv", DType::Float16), Some(11));
        assert_eq!(since("MatMul", DType::Bfloat16), Some(13));
        assert_eq!(since("NonMaxSuppression", DType::Float16), None);
        assert_eq!(since("Celu", DType::Bfloat16), None);
    }
}
