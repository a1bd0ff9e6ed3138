//! Defaults of ONNX attributes, for predicates that read one which the node leaves out.
//! Source: the operator definitions of ONNX, opsets 11 to 24.

use cel::Value;

/// The default of an attribute, `null` where it has none or depends on a tensor's rank.
pub fn default_of(op: &str, attribute: &str) -> Value {
    let text = |text: &str| Value::from(text.to_string());
    match (op, attribute) {
        (_, "auto_pad") => text("NOTSET"),
        ("GridSample", "mode") => text("linear"),
        ("Resize" | "Upsample", "mode") => text("nearest"),
        ("Pad", "mode") => text("constant"),
        ("RoiAlign", "mode") => text("avg"),
        ("DepthToSpace" | "SpaceToDepth", "mode") => text("DCR"),
        ("Resize", "coordinate_transformation_mode") => text("half_pixel"),
        ("Resize", "nearest_mode") => text("round_prefer_floor"),
        ("Resize", "keep_aspect_ratio_policy") => text("stretch"),
        ("GridSample", "padding_mode") => text("zeros"),
        ("Gelu", "approximate") => text("none"),
        ("LSTM" | "GRU" | "RNN", "direction") => text("forward"),
        ("ScatterElements" | "ScatterND", "reduction") => text("none"),
        ("QuantizeLinear" | "DequantizeLinear", "axis") => Value::Int(1),
        ("Softmax" | "LogSoftmax" | "Hardmax" | "ArgMax", "axis") if op != "ArgMax" => Value::Int(-1),
        ("TopK" | "LayerNormalization" | "OneHot", "axis") => Value::Int(-1),
        ("Attention", "left_window_size" | "right_window_size") => Value::Int(-1),
        ("Flatten", "axis") => Value::Int(1),
        (_, "axis" | "batch_dims" | "ceil_mode" | "count_include_pad" | "storage_order" | "align_corners") => {
            Value::Int(0)
        }
        (_, "antialias" | "exclude_outside" | "select_last_index" | "transA" | "transB" | "fmod") => Value::Int(0),
        (_, "exclusive" | "reverse" | "layout" | "allowzero" | "training_mode" | "center_point_box") => Value::Int(0),
        (_, "input_forget" | "linear_before_reset" | "noop_with_empty_axes" | "block_size") => Value::Int(0),
        (_, "group" | "keepdims" | "largest" | "sorted" | "stash_type" | "saturate") => Value::Int(1),
        ("LpNormalization" | "LpPool" | "GlobalLpPool", "p") => Value::Int(2),
        ("Elu" | "Celu" | "ThresholdedRelu" | "Swish", "alpha") => Value::Float(1.0),
        ("LSTM" | "GRU" | "RNN", "clip") => Value::Float(0.0), // none
        ("Gemm", "alpha" | "beta") => Value::Float(1.0),
        _ => Value::Null,
    }
}
