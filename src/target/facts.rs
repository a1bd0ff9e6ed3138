//! What is known of a model apart from its graph: family, variant, task, names, sizes.
//!
//! Exporters write these into `metadata_props`, as Python reprs; any of it may be missing or junk, and then is `None`.

use indexmap::IndexMap;
use serde::Serialize;

use super::literal::Literal;
use crate::graph::{AttributeValue, Graph, Model};

/// How a detection head assigns predictions to objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assignment {
    /// One prediction an object: the best scores are the answer, no suppression is needed.
    OneToOne,
    /// Several predictions an object: overlapping boxes must be suppressed.
    OneToMany,
}

/// Facts of a model. Serialises to the names that target files use: `model.family`, `model.variant`, ...
#[derive(Clone, Debug, Default, Serialize)]
pub struct Facts {
    /// The family in lower case: `yolo26`, `yolov8`, ...
    pub family: Option<String>,
    /// The size letter of the family: `n`, `s`, `m`, `l`, `x`, ...
    pub variant: Option<String>,
    /// What it does: `detect`, `segment`, `pose`, `obb`, `classify`, ...
    pub task: Option<String>,
    /// The class of the head as the exporter names it.
    pub head: Option<String>,
    /// How the head assigns predictions, where the metadata says.
    pub assignment: Option<Assignment>,
    /// Whether the file contains the selection of the final detections.
    pub end2end: Option<bool>,
    /// Class names by number.
    pub names: IndexMap<i64, String>,
    /// Height and width of the images it was exported for.
    pub imgsz: Option<[i64; 2]>,
    /// Channels of the images.
    pub channels: Option<i64>,
    /// The largest stride of the head.
    pub stride: Option<i64>,
    /// The batch it was exported for.
    pub batch: Option<i64>,
    /// Keypoints and values a keypoint.
    pub kpt_shape: Option<Vec<i64>>,
    /// Version of the exporter.
    pub exporter: Option<String>,
    /// Elements of all floating-point weights.
    pub parameters: u64,
    /// Height times width of the largest image input; 0 where there is none or its size is not fixed.
    pub pixels: i64,
    /// Whether it has a convolution.
    pub convolutional: bool,
}

impl Facts {
    /// Collects the facts of a model.
    pub fn of(model: &Model) -> Facts {
        let literal = |key: &str| model.property(key).and_then(Literal::parse);
        let text = |key: &str| {
            model.property(key).map(str::trim).filter(|text| !text.is_empty() && text.len() <= 64).map(str::to_string)
        };
        let (family, variant, named_task) = model.property("description").map(described).unwrap_or_default();
        let end2end = literal("end2end").and_then(|value| value.as_bool());
        let head = text("head");
        let task = text("task").or(named_task);
        let detects = matches!(task.as_deref(), Some("detect" | "segment" | "pose" | "obb"));
        let assignment = match end2end {
            Some(true) if detects => Some(Assignment::OneToOne),
            Some(false) if detects => Some(Assignment::OneToMany),
            _ => None,
        };
        Facts {
            family,
            variant,
            task,
            head,
            assignment,
            end2end,
            names: literal("names").map(names).unwrap_or_default(),
            imgsz: literal("imgsz").and_then(image_size).or_else(|| input_image(&model.graph)),
            channels: literal("channels").and_then(|value| value.as_int()).filter(|&n| n > 0),
            stride: literal("stride").and_then(stride),
            batch: literal("batch").and_then(|value| value.as_int()).filter(|&n| n > 0),
            kpt_shape: literal("kpt_shape").and_then(|value| value.as_ints()),
            exporter: text("version"),
            parameters: parameters(&model.graph),
            pixels: input_image(&model.graph).map_or(0, |[height, width]| height.saturating_mul(width)),
            convolutional: has_conv(&model.graph),
        }
    }

    /// A short name for a report: `YOLO26l`, or nothing where the family is not known.
    pub fn title(&self) -> Option<String> {
        let family = self.family.as_deref()?;
        let family = family.strip_prefix("yolo").map_or(family.to_string(), |rest| format!("YOLO{rest}"));
        Some(format!("{family}{}", self.variant.as_deref().unwrap_or_default()))
    }
}

/// Family, variant and task from a description such as "Ultralytics YOLO26l-pose model".
fn described(description: &str) -> (Option<String>, Option<String>, Option<String>) {
    for word in description.split_whitespace() {
        let word = word.to_ascii_lowercase();
        let Some(rest) = word.strip_prefix("yolo") else { continue };
        let (model, suffix) = rest.split_once('-').unwrap_or((rest, ""));
        let digits_end = model.find(|c: char| !c.is_ascii_digit() && c != 'v').unwrap_or(model.len());
        let (version, letter) = model.split_at(digits_end);
        if !version.contains(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let variant = (letter.len() == 1 && letter.chars().all(|c| c.is_ascii_lowercase())).then(|| letter.to_string());
        let task = match suffix {
            "pose" | "obb" => Some(suffix.to_string()),
            "seg" => Some("segment".to_string()),
            "cls" => Some("classify".to_string()),
            _ => None,
        };
        return (Some(format!("yolo{version}")), variant, task);
    }
    (None, None, None)
}

/// Class names from a dictionary by number, or from a list.
fn names(value: Literal) -> IndexMap<i64, String> {
    match value {
        Literal::Dict(pairs) => pairs
            .into_iter()
            .filter_map(|(key, name)| {
                let number = key.as_int().or_else(|| key.as_str()?.parse().ok())?;
                Some((number, name.as_str()?.to_string()))
            })
            .collect(),
        Literal::List(items) => {
            (0..).zip(items).filter_map(|(number, name)| Some((number, name.as_str()?.to_string()))).collect()
        }
        _ => IndexMap::new(),
    }
}

fn image_size(value: Literal) -> Option<[i64; 2]> {
    let size = match (value.as_int(), value.as_ints().as_deref()) {
        (Some(side), _) => [side, side],
        (_, Some([side])) => [*side, *side],
        (_, Some([height, width])) => [*height, *width],
        _ => return None,
    };
    size.iter().all(|&side| side > 0).then_some(size)
}

/// A stride is one number, or a list of which the largest counts.
fn stride(value: Literal) -> Option<i64> {
    value.as_int().or_else(|| value.as_ints()?.into_iter().max()).filter(|&stride| stride > 0)
}

/// Height and width of the largest rank-4 input whose sizes are fixed, channels first or last.
fn input_image(graph: &Graph) -> Option<[i64; 2]> {
    graph
        .inputs
        .iter()
        .filter_map(|&input| {
            let shape = graph.value(input).shape.as_ref()?;
            let [_, a, b, c] = shape.as_slice() else { return None };
            let last = c.fixed().is_some_and(|channels| channels <= 4) && a.fixed().is_none_or(|size| size > 4);
            let (height, width) = if last { (a, b) } else { (b, c) };
            Some([height.fixed()?, width.fixed()?])
        })
        .max_by_key(|[height, width]| height.saturating_mul(*width))
}

fn parameters(graph: &Graph) -> u64 {
    let weights = graph.initializers().filter(|(_, tensor)| tensor.dtype().is_float()).map(|(_, t)| t.len() as u64);
    let inside: u64 = graph
        .nodes()
        .map(|(_, node)| {
            let constant = match node.attr("value") {
                Some(AttributeValue::Tensor(tensor)) if node.is("Constant") && tensor.dtype().is_float() => {
                    tensor.len() as u64
                }
                _ => 0,
            };
            constant + node.subgraphs().map(|(_, graph)| parameters(graph)).sum::<u64>()
        })
        .sum();
    weights.sum::<u64>() + inside
}

fn has_conv(graph: &Graph) -> bool {
    graph.nodes().any(|(_, node)| {
        matches!(node.op_type.as_str(), "Conv" | "ConvTranspose") || node.subgraphs().any(|(_, graph)| has_conv(graph))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::builder::Build;
    use crate::onnx::DType;
    use crate::onnx::proto::StringStringEntryProto;

    fn with(metadata: &[(&str, &str)]) -> Facts {
        let mut build = Build::new();
        let x = build.input("images", DType::Float, &[1, 3, 640, 480]);
        let w = build.weight("w", &[8, 3, 3, 3]);
        let y = build.op("Conv", "conv", &[x, w]);
        let mut model = build.finish(&[y]);
        model.metadata = metadata
            .iter()
            .map(|(key, value)| StringStringEntryProto {
                key: Some(key.to_string()),
                value: Some(value.to_string()),
                ..Default::default()
            })
            .collect();
        Facts::of(&model)
    }

    #[test]
    fn reads_an_ultralytics_export() {
        let facts = with(&[
            ("description", "Ultralytics YOLO26l-pose model "),
            ("task", "pose"),
            ("stride", "32"),
            ("imgsz", "[640, 480]"),
            ("names", "{0: 'person', 1: 'dog'}"),
            ("end2end", "True"),
            ("kpt_shape", "[17, 3]"),
        ]);
        assert_eq!(facts.family.as_deref(), Some("yolo26"));
        assert_eq!(facts.variant.as_deref(), Some("l"));
        assert_eq!(facts.title().as_deref(), Some("YOLO26l"));
        assert_eq!(facts.assignment, Some(Assignment::OneToOne));
        assert_eq!(facts.imgsz, Some([640, 480]));
        assert_eq!(facts.names.get(&1).map(String::as_str), Some("dog"));
        assert_eq!(facts.kpt_shape, Some(vec![17, 3]));
        assert_eq!((facts.parameters, facts.pixels, facts.convolutional), (216, 640 * 480, true));
    }

    #[test]
    fn families_of_several_times_are_told_apart() {
        let family = |text: &str| {
            let (family, variant, task) = described(text);
            [family, variant, task].map(Option::unwrap_or_default).join(" ")
        };
        assert_eq!(family("Ultralytics YOLOv8n model trained on coco.yaml"), "yolov8 n ");
        assert_eq!(family("Ultralytics YOLO11x-seg model"), "yolo11 x segment");
        assert_eq!(family("Ultralytics best model trained on data.yml"), "  ");
        assert_eq!(family("YOLO and nothing else"), "  ");
    }

    #[test]
    fn junk_gives_nothing() {
        let facts = with(&[("imgsz", "[640"), ("names", "person, dog"), ("stride", "-3"), ("end2end", "maybe")]);
        assert_eq!(facts.imgsz, Some([640, 480])); // from the input
        assert!(facts.names.is_empty() && facts.stride.is_none() && facts.end2end.is_none() && facts.family.is_none());
    }
}
