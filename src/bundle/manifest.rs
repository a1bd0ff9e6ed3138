//! The manifest: what a bundle holds, where it came from, what was changed and why. Its JSON Schema is published in
//! `docs/manifest.schema.json`.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::graph::{Dim, Value};
use crate::onnx::DType;

/// `manifest.json` of a bundle.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Manifest {
    /// The version of porter that wrote the bundle.
    pub porter: String,
    /// The model it was made from.
    pub model: ModelOrigin,
    /// The target's name.
    pub target: String,
    /// The kind of device, where the target has several.
    pub device: Option<String>,
    /// The version of the target's toolchain that quirks were chosen for.
    pub toolchain: Option<String>,
    /// The model's size in its family (`n`, `l`, ...), where known.
    pub variant: Option<String>,
    /// The type that target parts compute in.
    pub dtype: DType,
    /// Why that type.
    pub dtype_reason: String,
    /// What the caller gives, in the model's order.
    pub inputs: Vec<TensorType>,
    /// What the caller gets, in the model's order.
    pub outputs: Vec<TensorType>,
    /// The parts in the order they run. Each reads what the caller gave and what earlier parts made, by name.
    pub parts: Vec<Part>,
    /// Every rewrite that was applied.
    pub rewrites: Vec<Rewrite>,
    /// Constant work that was done ahead, by node.
    pub folded: Vec<String>,
    /// Sizes that were assumed because the target needs them and nobody gave them.
    pub assumed: Vec<String>,
    /// Known faults of the target that the model meets.
    pub quirks: Vec<QuirkHit>,
    /// Every node that runs on the CPU though another target was asked for, and why.
    pub cpu_reasons: Vec<CpuReason>,
    /// Nodes of target parts that stay float32 while the part computes in less, and why.
    pub float32_nodes: Vec<Float32Node>,
    /// Constants of target parts with numbers beyond what the part's type holds, which became its largest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clamped: Vec<String>,
    /// What the outputs mean and what is left to do with them; null where nothing is known.
    pub postprocess: Option<Postprocess>,
    /// Every file in the bundle's folder, sorted: anything else there is not porter's.
    #[serde(default)]
    pub files: Vec<String>,
    /// The comparison with the original model; null with `--no-check`.
    pub check: Option<serde_json::Value>,
}

/// The model a bundle was made from.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct ModelOrigin {
    /// The file's name, without its folder.
    pub file: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Its `metadata_props`.
    pub metadata: BTreeMap<String, String>,
    /// The version of ai.onnx it uses.
    pub opset: i64,
    /// Number of weights.
    pub parameters: u64,
}

/// A tensor at a border.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct TensorType {
    /// Its name.
    pub name: String,
    /// The element type; null for values that are no tensors.
    pub dtype: Option<DType>,
    /// Sizes: a number, or the name of one that is known when the model runs. Null where the rank is unknown.
    pub shape: Option<Vec<Size>>,
}

/// A size: known, or a name.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Size {
    /// A known size.
    Fixed(i64),
    /// The name of one that is known when the model runs; `?` where it has none.
    Named(String),
}

impl TensorType {
    /// The type of a graph's value.
    pub fn of(value: &Value) -> Self {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => Size::Fixed(*size),
            other => Size::Named(other.to_string()),
        };
        let shape = value.shape.as_ref().map(|dims| dims.iter().map(size).collect());
        Self { name: value.name.clone(), dtype: value.dtype, shape }
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if let Some(shape) = &self.shape {
            let sizes = shape.iter().map(|size| match size {
                Size::Fixed(size) => size.to_string(),
                Size::Named(name) => name.clone(),
            });
            write!(f, " [{}]", sizes.collect::<Vec<_>>().join(","))?;
        }
        Ok(())
    }
}

/// A part of the model.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Part {
    /// Its name: the stem of its files.
    pub name: String,
    /// Where it runs: the target's name, or `cpu`.
    pub device: String,
    /// Its file in the bundle.
    pub file: String,
    /// The file's format: `onnx`.
    pub format: String,
    /// The same part in the forms that the target's compiler takes; empty where it takes `file` itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lowered: Vec<LoweredFile>,
    /// The type it computes in.
    pub dtype: DType,
    /// What it reads.
    pub inputs: Vec<TensorType>,
    /// What it makes.
    pub outputs: Vec<TensorType>,
    /// Its nodes, in order, by the names they have in its file.
    pub nodes: Vec<String>,
}

/// A part in a compiler's form. Its parameters are the part's `inputs`, its results the part's `outputs`, in their order.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct LoweredFile {
    /// Its file in the bundle.
    pub file: String,
    /// `hlo` (an HloModuleProto), `stablehlo` (MLIR text), or `safetensors`: weights that are parameters of the module,
    /// behind the inputs.
    pub format: String,
    /// Names of the weights in `file`, in the order of the module's parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<String>,
}

/// One application of a rewrite rule.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Rewrite {
    /// The rule.
    pub rule: String,
    /// The nodes it replaced, as the model names them.
    pub nodes: Vec<String>,
    /// The largest difference between both sides on random inputs of the real shapes; null with `--no-check`, or
    /// where no engine runs them.
    pub max_abs: Option<f64>,
    /// The cosine between both sides, likewise.
    pub cosine: Option<f64>,
    /// Why there is no proof, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproven: Option<String>,
    /// Where the rule changes values on purpose: what makes up for it on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
}

/// A known fault that the model meets on this target.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct QuirkHit {
    /// The fault's name in the target file.
    pub id: String,
    /// What happens, in a sentence.
    pub what: String,
    /// The nodes that meet it.
    pub nodes: Vec<String>,
    /// The error code, or the silent fault's shape.
    pub symptom: String,
    /// What answers it; null where nothing does.
    pub answer: Option<String>,
    /// Whether the answer was applied, so that the bundle does not meet the fault.
    pub answered: bool,
    /// Where it is reported.
    pub reference: String,
}

/// A node on the CPU.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct CpuReason {
    /// The node.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// Why it does not run on the target.
    pub reason: String,
}

/// A node that stays float32.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Float32Node {
    /// The node.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// What the outputs of a detector, or of a model with a known head, mean.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Postprocess {
    /// `none` where the outputs are final, `top-k` or `nms` where that is left to the caller.
    pub step: String,
    /// The task: `detect`, `segment`, `pose`, `obb`, `classify`.
    pub task: Option<String>,
    /// The tensor with the predictions.
    pub tensor: String,
    /// What its dimensions are: `[batch, box + classes + extra, anchors]`, or `[batch, boxes, 4]` where scores stand apart.
    pub layout: Option<String>,
    /// `xyxy` or `yxyx` (two corners) or `xywh` (centre and size), in pixels of the input.
    pub boxes: Option<String>,
    /// The tensor with the scores, `[batch, classes, boxes]`, where they stand apart from the boxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<String>,
    /// What the model's own NonMaxSuppression was given, where it was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppression: Option<Suppression>,
    /// `one-to-one` (each object predicted once: a top-k is enough) or `one-to-many` (needs NMS).
    pub assignment: Option<String>,
    /// Number of classes.
    pub classes: Option<u64>,
    /// Numbers after the classes: keypoints, mask coefficients, angle.
    pub extra: Option<u64>,
    /// Pixels between anchors, by level.
    pub strides: Vec<u64>,
    /// The classes' names by number.
    pub names: IndexMap<String, String>,
}

/// What a NonMaxSuppression was given; null where that is not a constant.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Suppression {
    /// Boxes kept at most, for each class of each batch element.
    pub max_per_class: Option<i64>,
    /// Overlap (intersection over union) above which the lesser of two boxes goes.
    pub iou: Option<f64>,
    /// Score that a box must exceed.
    pub score: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::Manifest;

    #[test]
    fn the_schema_in_docs_is_current() {
        let schema = serde_json::to_string_pretty(&schemars::schema_for!(Manifest)).unwrap() + "\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/manifest.schema.json");
        if std::env::var_os("PORTER_UPDATE_DOCS").is_some() {
            std::fs::write(path, &schema).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == schema, "docs/manifest.schema.json is not current: run the tests with PORTER_UPDATE_DOCS=1");
    }
}
