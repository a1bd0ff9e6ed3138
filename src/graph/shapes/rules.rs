//! Which operator follows which shape rule.

use super::call::{Call, Outcome, broadcast};
use super::fact::Shape;
use super::size::Size;

/// The shapes of a node's outputs by position, those that its rule knows.
pub fn shapes(call: &mut Call) -> Outcome {
    if call.node.is_standard() { standard(call) } else { contributed(call) }
}

fn one(shape: Shape) -> Outcome {
    Ok(vec![shape])
}

fn standard(call: &mut Call) -> Outcome {
    let all = call.outputs();
    match call.node.op_type.as_str() {
        // The first input's shape.
        "Abs"
        | "Acos"
        | "Acosh"
        | "Asin"
        | "Asinh"
        | "Atan"
        | "Atanh"
        | "Cast"
        | "CastLike"
        | "Ceil"
        | "Celu"
        | "Clip"
        | "Cos"
        | "Cosh"
        | "CumSum"
        | "CumProd"
        | "DequantizeLinear"
        | "Elu"
        | "Erf"
        | "Exp"
        | "Floor"
        | "Gelu"
        | "HardSigmoid"
        | "HardSwish"
        | "Identity"
        | "InstanceNormalization"
        | "IsInf"
        | "IsNaN"
        | "LRN"
        | "LeakyRelu"
        | "Log"
        | "LpNormalization"
        | "MeanVarianceNormalization"
        | "Mish"
        | "Neg"
        | "Not"
        | "QuantizeLinear"
        | "Reciprocal"
        | "Relu"
        | "ReverseSequence"
        | "Round"
        | "ScatterElements"
        | "Scatter"
        | "ScatterND"
        | "Selu"
        | "Shrink"
        | "Sigmoid"
        | "Sign"
        | "Sin"
        | "Sinh"
        | "Softplus"
        | "Softsign"
        | "Sqrt"
        | "Swish"
        | "Tan"
        | "Tanh"
        | "ThresholdedRelu"
        | "Trilu"
        | "GroupNormalization"
        | "EyeLike"
        | "RandomNormalLike"
        | "RandomUniformLike"
        | "Bernoulli"
        | "BitwiseNot"
        | "RotaryEmbedding"
        | "TensorScatter"
        | "StringNormalizer"
        | "RMSNormalization" => one(call.same(0)),
        "Softmax" | "LogSoftmax" | "Hardmax" => {
            if let (Some(x), Some(axis)) = (call.shape(0), call.node.int("axis"))
                && !x.is_empty()
            {
                call.axis(axis, x.len())?;
            }
            one(call.same(0))
        }
        "Dropout" => Ok(vec![call.same(0); all]),
        "BatchNormalization" => {
            let channels = call.same(3);
            Ok(vec![call.same(0), channels.clone(), channels.clone(), channels.clone(), channels])
        }
        "LayerNormalization" => {
            let Some(x) = call.shape(0) else { return Ok(vec![None; all]) };
            let at = call.axis(-1, x.len())?;
            let spread: Vec<Size> =
                x.iter().enumerate().map(|(i, s)| if i < at { s.clone() } else { Size::Fixed(1) }).collect();
            Ok(vec![Some(x.to_vec()), Some(spread.clone()), Some(spread)])
        }
        "DynamicQuantizeLinear" => Ok(vec![call.same(0), Some(vec![]), Some(vec![])]),
        // Broadcasting of all inputs.
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "PRelu" | "And" | "Or" | "Xor" | "Equal" | "Less"
        | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "BitShift" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor"
        | "Max" | "Min" | "Mean" | "Sum" | "Where" => {
            let shapes: Vec<Option<&[Size]>> = (0..call.inputs.len()).map(|i| call.shape(i)).collect();
            one(broadcast(&shapes)?)
        }
        "Conv" => call.conv(0, 1),
        "ConvInteger" => call.conv(0, 1),
        "QLinearConv" => call.conv(0, 3),
        "DeformConv" => call.conv(0, 1),
        "ConvTranspose" => call.conv_transpose(),
        "MaxPool" | "AveragePool" | "LpPool" => call.pool(),
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => call.global_pool(),
        "MaxUnpool" => call.max_unpool(),
        "Reshape" => call.reshape(),
        "Flatten" => call.flatten(),
        "Squeeze" => call.squeeze(),
        "Unsqueeze" => call.unsqueeze(),
        "Transpose" => call.transpose(),
        "Concat" => call.concat(),
        "Split" => call.split(),
        "Slice" => call.slice(),
        "Expand" => call.expand(),
        "Tile" => call.tile(),
        "Pad" => call.pad(),
        "Shape" => call.shape_of(),
        "Size" => one(Some(vec![])),
        "DepthToSpace" => call.blocks(false),
        "SpaceToDepth" => call.blocks(true),
        "ConstantOfShape" => one(call.shaped_by(0)),
        "Constant" => one(None),
        "Gather" => call.gather(),
        "GatherElements" => one(call.like(1)),
        "GatherND" => call.gather_nd(),
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean" | "ReduceMin"
        | "ReduceProd" | "ReduceSum" | "ReduceSumSquare" => call.reduce(),
        "ArgMax" | "ArgMin" => call.arg_reduce(),
        "TopK" => call.top_k(),
        "OneHot" => call.one_hot(),
        "MatMul" | "MatMulInteger" => call.matmul(0, 1, (false, false)),
        "QLinearMatMul" => call.matmul(0, 3, (false, false)),
        "Gemm" => call.gemm(),
        "Range" => call.range(),
        "NonZero" => call.non_zero(),
        "Compress" => call.compress(),
        "Unique" => call.unique(),
        "Einsum" => call.einsum(),
        "Det" => call.determinant(),
        "Resize" | "Upsample" => call.resize(),
        "GridSample" => call.grid_sample(),
        "AffineGrid" => call.affine_grid(),
        "RoiAlign" => call.roi_align(),
        "MaxRoiPool" => call.max_roi_pool(),
        "Col2Im" => call.col2im(),
        "LSTM" | "GRU" | "RNN" => call.recurrent(),
        "NonMaxSuppression" => call.non_max_suppression(),
        "STFT" => call.stft(),
        "DFT" => call.dft(),
        "MelWeightMatrix" => call.mel_weights(),
        "HannWindow" | "HammingWindow" | "BlackmanWindow" => {
            let size = call.sizes(0).and_then(|list| list.into_iter().next()).unwrap_or(Size::Unknown);
            one(Some(vec![size]))
        }
        "Attention" => call.attention(),
        "RandomNormal" | "RandomUniform" => {
            one(call.node.ints("shape").map(|sizes| sizes.iter().map(|&size| Size::Fixed(size)).collect()))
        }
        "Multinomial" => {
            let batch = call.shape(0).and_then(|x| x.first().cloned()).unwrap_or(Size::Unknown);
            one(Some(vec![batch, Size::Fixed(call.int("sample_size", 1))]))
        }
        "SoftmaxCrossEntropyLoss" | "NegativeLogLikelihoodLoss" => {
            let loss =
                if call.node.string("reduction").unwrap_or("mean") == "none" { call.same(1) } else { Some(vec![]) };
            Ok(vec![loss, call.same(0)])
        }
        "CenterCropPad" => call.center_crop_pad(),
        "BitCast" | "SwiGLU" | "CausalConvWithState" | "RegexFullMatch" => one(call.same(0)),
        "LinearAttention" => Ok(vec![None, call.same(3)]),
        "StringConcat" => one(broadcast(&[call.shape(0), call.shape(1)])?),
        "StringSplit" => {
            let parts = call.names.fresh("parts");
            Ok(vec![call.same(0).map(|x| [&x[..], &[parts]].concat()), call.same(0)])
        }
        "ImageDecoder" => one(Some(vec![Size::Unknown, Size::Unknown, channels(call)])),
        "SequenceLength" | "OptionalHasElement" | "SequenceEmpty" => one(Some(vec![])),
        _ => Ok(vec![None; all]),
    }
}

/// Channels of a decoded image.
fn channels(call: &Call) -> Size {
    Size::Fixed(if call.node.string("pixel_format") == Some("Grayscale") { 1 } else { 3 })
}

/// Operators of ONNX Runtime's own domain that its optimiser and quantizer write, and converters use.
fn contributed(call: &mut Call) -> Outcome {
    if call.node.domain != "com.microsoft" {
        return Ok(vec![None; call.outputs()]);
    }
    match call.node.op_type.as_str() {
        "Gelu"
        | "FastGelu"
        | "QuickGelu"
        | "BiasGelu"
        | "BiasSoftmax"
        | "QLinearSigmoid"
        | "QLinearLeakyRelu"
        | "QLinearSoftmax"
        | "QuantizeLinear"
        | "DequantizeLinear"
        | "RotaryEmbedding"
        | "Trilu"
        | "GroupNorm"
        | "Inverse"
        | "BifurcationDetector" => one(call.same(0)),
        "SkipLayerNormalization"
        | "SimplifiedLayerNormalization"
        | "SkipSimplifiedLayerNormalization"
        | "EmbedLayerNormalization" => {
            let keeps = call.node.op_type != "EmbedLayerNormalization";
            Ok(vec![call.same(0).filter(|_| keeps), None, None, call.same(0).filter(|_| keeps)])
        }
        "FusedConv" | "NhwcFusedConv" => call.conv(0, 1),
        "FusedMatMul" | "TransposeMatMul" => {
            let flips = (call.int("transA", 0) != 0, call.int("transB", 0) != 0);
            if call.int("transBatchA", 0) != 0 || call.int("transBatchB", 0) != 0 {
                return one(None);
            }
            call.matmul(0, 1, flips)
        }
        "FusedGemm" => call.gemm(),
        "MatMulIntegerToFloat" | "DynamicQuantizeMatMul" => call.matmul(0, 1, (false, false)),
        "QLinearAdd" | "QLinearMul" => one(broadcast(&[call.shape(0), call.shape(3)])?),
        "QLinearGlobalAveragePool" if call.int("channels_last", 0) == 0 => call.global_pool(),
        "QLinearAveragePool" if call.int("channels_last", 0) == 0 => call.pool(),
        "MatMulNBits" => {
            let columns = call.node.int("N").map_or(Size::Unknown, Size::Fixed);
            one(call.shape(0).and_then(|x| {
                let (_, lead) = x.split_last()?;
                Some([lead, &[columns]].concat())
            }))
        }
        "MultiHeadAttention" | "GroupQueryAttention" | "Attention" => {
            // Output: the query's batch and length; its width only where query and value are as wide as each other.
            let separate = call.has(1) && call.node.op_type != "Attention";
            one(call.same(0).filter(|x| x.len() == 3 && separate))
        }
        _ => Ok(vec![None; call.outputs()]),
    }
}
