//! What rules need to know of ONNX's operators so that one text serves every opset: which operands commute, what an
//! attribute is when it is left out, which attributes became inputs, and since when an operator exists.
//!
//! Source: the operator pages of the ONNX specification, opsets 11 to 26.

use crate::graph::{AttributeValue, Graph, Node};
use crate::onnx::Tensor;

/// Whether the two operands of `operator` may change places.
pub fn commutes(operator: &str) -> bool {
    matches!(
        operator,
        "Add"
            | "Mul"
            | "And"
            | "Or"
            | "Xor"
            | "Max"
            | "Min"
            | "Sum"
            | "Mean"
            | "Equal"
            | "BitwiseAnd"
            | "BitwiseOr"
            | "BitwiseXor"
    )
}

/// The opset in which an operator of ai.onnx appeared, where that is later than 11.
pub fn since(operator: &str) -> i64 {
    match operator {
        "Celu" | "Einsum" | "GreaterOrEqual" | "LessOrEqual" => 12,
        "HardSwish" | "Trilu" => 14,
        "Bernoulli" | "CastLike" | "Optional" => 15,
        "GridSample" => 16,
        "LayerNormalization" | "DFT" => 17,
        "Mish" | "CenterCropPad" | "Col2Im" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "BitwiseNot"
        | "GroupNormalization" => 18,
        "DeformConv" => 19,
        "Gelu" | "AffineGrid" => 20,
        "RMSNormalization" | "RotaryEmbedding" | "Attention" => 23,
        "Swish" | "TensorScatter" => 24,
        _ => 1,
    }
}

/// An attribute that became an input.
pub struct Moved {
    /// The attribute's name in old opsets.
    pub attribute: &'static str,
    /// The input's position in new ones.
    pub input: usize,
    /// The first opset with the input.
    pub since: i64,
}

/// The attribute of `operator` that became an input after opset 11, if any.
pub fn moved(operator: &str) -> Option<Moved> {
    let (attribute, since) = match operator {
        "Split" => ("split", 13),
        "Squeeze" | "Unsqueeze" | "ReduceSum" => ("axes", 13),
        "ReduceMax" | "ReduceMin" | "ReduceMean" | "ReduceProd" | "ReduceL1" | "ReduceL2" | "ReduceLogSum"
        | "ReduceLogSumExp" | "ReduceSumSquare" => ("axes", 18),
        "Dropout" => ("ratio", 12),
        _ => return None,
    };
    Some(Moved { attribute, input: 1, since })
}

/// The constant input that an old attribute stands for.
pub fn as_input(value: &AttributeValue) -> Option<Tensor> {
    match value {
        AttributeValue::Ints(values) => Some(Tensor::from_i64("", &[values.len() as i64], values)),
        AttributeValue::Float(value) => Some(Tensor::from_f32("", &[], &[*value])),
        _ => None,
    }
}

/// The old attribute that a constant input stands for.
pub fn as_attribute(operator: &str, tensor: &Tensor) -> Option<AttributeValue> {
    match operator {
        "Dropout" => tensor.to_f32s().ok()?.first().map(|ratio| AttributeValue::Float(*ratio)),
        _ => tensor.to_i64s().ok().map(AttributeValue::Ints),
    }
}

/// Whether a node means in this opset what it means in the newest one. Softmax and its kin flattened their input
/// before opset 13, which is the same only for the last axis.
pub fn means_the_same(graph: &Graph, node: &Node, opset: i64) -> bool {
    if opset >= 13 || !matches!(node.op_type.as_str(), "Softmax" | "LogSoftmax" | "Hardmax") {
        return true;
    }
    let axis = node.int("axis").unwrap_or(1);
    match node.input(0).and_then(|input| graph.value(input).rank()) {
        Some(rank) => axis == -1 || axis == rank as i64 - 1,
        None => axis == -1,
    }
}

/// Attributes that change nothing a rule could get wrong.
pub fn ignorable(operator: &str, attribute: &str) -> bool {
    matches!(
        (operator, attribute),
        ("BatchNormalization", "momentum" | "spatial") | ("Split", "num_outputs") | ("Dropout", "seed")
    ) || (matches!(operator, "MaxPool") && attribute == "storage_order")
}

/// What an attribute is when a node leaves it out; none where ONNX gives no default.
pub fn default(graph: &Graph, node: &Node, attribute: &str, opset: i64) -> Option<AttributeValue> {
    let operator = node.op_type.as_str();
    if let Some(value) = plain_default(operator, attribute, opset) {
        return Some(value);
    }
    let window = matches!(
        operator,
        "Conv" | "ConvTranspose" | "ConvInteger" | "QLinearConv" | "MaxPool" | "AveragePool" | "LpPool" | "DeformConv"
    );
    match attribute {
        "strides" | "dilations" if window => Some(AttributeValue::Ints(vec![1; spatial(graph, node)?])),
        "output_padding" if operator == "ConvTranspose" => Some(AttributeValue::Ints(vec![0; spatial(graph, node)?])),
        "pads" if window => Some(AttributeValue::Ints(vec![0; 2 * spatial(graph, node)?])),
        "kernel_shape" if matches!(operator, "Conv" | "ConvTranspose" | "ConvInteger" | "DeformConv") => {
            let shape = graph.value(node.input(1)?).static_shape()?;
            Some(AttributeValue::Ints(shape.get(2..)?.to_vec()))
        }
        "perm" if operator == "Transpose" => {
            let rank = graph.value(node.input(0)?).rank()? as i64;
            Some(AttributeValue::Ints((0..rank).rev().collect()))
        }
        _ => None,
    }
}

/// How many dimensions a window slides over.
fn spatial(graph: &Graph, node: &Node) -> Option<usize> {
    if let Some(kernel) = node.ints("kernel_shape") {
        return Some(kernel.len());
    }
    let rank = |index| node.input(index).and_then(|input| graph.value(input).rank());
    rank(0).or_else(|| rank(1))?.checked_sub(2)
}

fn plain_default(operator: &str, attribute: &str, opset: i64) -> Option<AttributeValue> {
    let int = |value: i64| Some(AttributeValue::Int(value));
    let float = |value: f32| Some(AttributeValue::Float(value));
    let text = |value: &str| Some(AttributeValue::from(value));
    match (operator, attribute) {
        (
            "Conv" | "ConvTranspose" | "MaxPool" | "AveragePool" | "LpPool" | "ConvInteger" | "QLinearConv",
            "auto_pad",
        ) => text("NOTSET"),
        ("Conv" | "ConvTranspose" | "ConvInteger" | "QLinearConv", "group") => int(1),
        ("MaxPool" | "AveragePool" | "LpPool", "ceil_mode") => int(0),
        ("AveragePool", "count_include_pad") => int(0),
        ("LpPool" | "GlobalLpPool" | "LpNormalization", "p") => int(2),
        ("LpNormalization", "axis") => int(-1),
        ("Gemm", "alpha" | "beta") => float(1.0),
        ("Gemm", "transA" | "transB") => int(0),
        (
            "BatchNormalization"
            | "InstanceNormalization"
            | "LayerNormalization"
            | "GroupNormalization"
            | "RMSNormalization",
            "epsilon",
        ) => float(1e-5),
        ("BatchNormalization", "momentum") => float(0.9),
        ("BatchNormalization", "training_mode") => int(0),
        ("LayerNormalization" | "GroupNormalization" | "RMSNormalization", "stash_type") => int(1),
        ("LayerNormalization" | "RMSNormalization", "axis") => int(-1),
        ("Softmax" | "LogSoftmax" | "Hardmax", "axis") => int(if opset < 13 { 1 } else { -1 }),
        ("Flatten" | "QuantizeLinear" | "DequantizeLinear", "axis") => int(1),
        ("QuantizeLinear" | "DequantizeLinear", "block_size" | "output_dtype") => int(0),
        ("QuantizeLinear" | "Cast" | "CastLike", "saturate") => int(1),
        (
            "Gather" | "GatherElements" | "ScatterElements" | "Scatter" | "Split" | "ArgMax" | "ArgMin"
            | "SplitToSequence",
            "axis",
        ) => int(0),
        ("GatherND", "batch_dims") => int(0),
        ("ScatterElements" | "ScatterND", "reduction") => text("none"),
        ("ArgMax" | "ArgMin", "keepdims") => int(1),
        ("ArgMax" | "ArgMin", "select_last_index") => int(0),
        ("TopK", "axis") => int(-1),
        ("TopK", "largest" | "sorted") => int(1),
        ("OneHot", "axis") => int(-1),
        ("ConcatFromSequence", "new_axis") => int(0),
        ("Reshape", "allowzero") => int(0),
        ("Mod", "fmod") => int(0),
        ("CumSum" | "CumProd", "exclusive" | "reverse") => int(0),
        ("Trilu", "upper") => int(1),
        ("DepthToSpace", "mode") => text("DCR"),
        ("Pad", "mode") => text("constant"),
        ("Gelu", "approximate") => text("none"),
        ("HardSigmoid", "alpha") => float(0.2),
        ("HardSigmoid", "beta") => float(0.5),
        ("LeakyRelu", "alpha") => float(0.01),
        ("Elu" | "Celu" | "ThresholdedRelu" | "Swish", "alpha") => float(1.0),
        ("Selu", "alpha") => float(1.673_263_2),
        ("Selu", "gamma") => float(1.050_701),
        ("Resize" | "Upsample", "mode") => text("nearest"),
        ("Resize", "coordinate_transformation_mode") => text("half_pixel"),
        ("Resize", "nearest_mode") => text("round_prefer_floor"),
        ("Resize", "cubic_coeff_a") => float(-0.75),
        ("Resize", "exclude_outside" | "antialias") => int(0),
        ("Resize", "extrapolation_value") => float(0.0),
        ("Resize", "keep_aspect_ratio_policy") => text("stretch"),
        ("GridSample", "align_corners") => int(0),
        ("GridSample", "padding_mode") => text("zeros"),
        ("GridSample", "mode") => text(if opset < 20 { "bilinear" } else { "linear" }),
        ("NonMaxSuppression", "center_point_box") => int(0),
        ("IsInf", "detect_negative" | "detect_positive") => int(1),
        ("Shape", "start") => int(0),
        ("MatMulInteger", _) => None,
        (operator, "keepdims") if operator.starts_with("Reduce") => int(1),
        (operator, "noop_with_empty_axes") if operator.starts_with("Reduce") => int(0),
        _ => None,
    }
}

/// Whether two attribute values say the same.
pub fn same(a: &AttributeValue, b: &AttributeValue) -> bool {
    use AttributeValue::*;
    match (a, b) {
        (Int(a), Int(b)) => a == b,
        (Float(a), Float(b)) => a == b || (a - b).abs() <= 1e-6 * a.abs().max(b.abs()),
        (Int(a), Float(b)) | (Float(b), Int(a)) => *a as f32 == *b,
        (String(a), String(b)) => a == b,
        (Ints(a), Ints(b)) => a == b,
        (Floats(a), Floats(b)) => a == b,
        (Strings(a), Strings(b)) => a == b,
        _ => false,
    }
}
