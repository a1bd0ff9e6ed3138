//! Says what a detector's outputs mean: which tensor holds the predictions, how its boxes are written, and whether a
//! top-k or NMS is left to do.
//!
//! It is read off the graph where the graph tells, because the metadata does not: a raw export's boxes are centre and
//! size, while those in front of an end-to-end tail are corners. A box decoder ends in a Concat of two halves, computed
//! from the distances to the sides of an anchor point:
//!
//! ```text
//! xyxy   Concat(anchor - lt, anchor + rb)
//! xywh   Concat((p + q) / 2, q - p)          or, oriented: Concat(anchor + shift, lt + rb)
//! ```

use std::collections::BTreeSet;

use indexmap::IndexMap;

use crate::bundle::manifest::{Postprocess, Suppression};
use crate::graph::{Graph, Node, NodeId, ValueId};
use crate::target::{Assignment, Facts};

/// The most different strides that a row of stride constants may have to be believed.
const MAX_LEVELS: usize = 8;

/// What `outputs` of a graph mean. `final_answer` says that they are the model's own, selection included; predictions
/// that the graph shows to be raw are taken for that all the same.
pub fn describe(graph: &Graph, facts: &Facts, outputs: &[ValueId], final_answer: bool) -> Option<Postprocess> {
    let task = facts.task.clone();
    let classes = (!facts.names.is_empty()).then_some(facts.names.len() as u64);
    let names = facts.names.iter().map(|(number, name)| (number.to_string(), name.clone())).collect();
    let raw = outputs.iter().find_map(|&value| Raw::of(graph, value));
    if !final_answer && let Some(apart) = boxes_and_scores(graph, outputs) {
        return Some(Postprocess { task, names, ..apart });
    }
    if let Some(raw) = raw.filter(|raw| !final_answer || raw.boxes.is_some()) {
        let step = match facts.assignment {
            Some(Assignment::OneToOne) => "top-k",
            _ => "nms",
        };
        let assignment = match facts.assignment {
            Some(Assignment::OneToOne) => Some("one-to-one"),
            Some(Assignment::OneToMany) => Some("one-to-many"),
            None => None,
        };
        return Some(Postprocess {
            step: step.into(),
            task,
            tensor: graph.value(raw.value).name.clone(),
            layout: Some("[batch, box + classes + extra, anchors]".into()),
            boxes: raw.boxes.map(str::to_string),
            scores: None,
            suppression: None,
            assignment: assignment.map(str::to_string),
            classes,
            extra: classes.and_then(|classes| raw.rows.checked_sub(4 + classes)),
            strides: raw.strides,
            names,
        });
    }
    task.as_ref()?;
    Some(Postprocess {
        step: "none".into(),
        task,
        tensor: graph.value(*outputs.first()?).name.clone(),
        layout: None,
        boxes: None,
        scores: None,
        suppression: None,
        assignment: None,
        classes,
        extra: None,
        strides: Vec::new(),
        names,
    })
}

/// What two outputs mean that a NonMaxSuppression which was left out reads: boxes and scores.
fn boxes_and_scores(graph: &Graph, outputs: &[ValueId]) -> Option<Postprocess> {
    let reads = |node: &&Node| {
        let is_output = |index: usize| node.input(index).is_some_and(|value| outputs.contains(&value));
        node.is("NonMaxSuppression") && is_output(0) && is_output(1)
    };
    let node = graph.nodes().map(|(_, node)| node).find(reads)?;
    let number = |index: usize| {
        let tensor = graph.constant(node.input(index)?)?;
        tensor.to_f64s().ok()?.first().copied()
    };
    let (boxes, scores) = (graph.value(node.input(0)?), graph.value(node.input(1)?));
    let classes = scores.shape.as_ref().and_then(|shape| shape.get(1)?.fixed());
    Some(Postprocess {
        step: "nms".into(),
        task: None,
        tensor: boxes.name.clone(),
        layout: Some("[batch, boxes, 4]".into()),
        // As ONNX defines the operator's `center_point_box`.
        boxes: Some(if node.int("center_point_box") == Some(1) { "xywh" } else { "yxyx" }.into()),
        scores: Some(scores.name.clone()),
        suppression: Some(Suppression {
            max_per_class: number(2).map(|most| most as i64),
            iou: number(3),
            score: number(4),
        }),
        assignment: Some("one-to-many".into()),
        classes: classes.and_then(|classes| u64::try_from(classes).ok()),
        extra: None,
        strides: Vec::new(),
        names: IndexMap::new(),
    })
}

/// A tensor of raw predictions: boxes, class scores and more, one column an anchor.
struct Raw {
    value: ValueId,
    rows: u64,
    boxes: Option<&'static str>,
    strides: Vec<u64>,
}

impl Raw {
    fn of(graph: &Graph, value: ValueId) -> Option<Self> {
        let shape = graph.value(value).shape.as_ref()?;
        let rows = u64::try_from(shape.get(1).filter(|_| shape.len() == 3)?.fixed()?).ok()?;
        let concat = graph.node(graph.producer(value)?);
        if !concat.is("Concat") || rows < 5 {
            return None;
        }
        let mut strides = Vec::new();
        let (_, halves) = behind_scaling(graph, concat.input(0)?, &mut strides)?;
        let halves = graph.node(halves);
        let boxes = if halves.is("Concat") && halves.inputs.len() == 2 {
            let operator = |index: usize| {
                let (_, node) = behind_scaling(graph, halves.input(index)?, &mut Vec::new())?;
                Some(graph.node(node).op_type.as_str())
            };
            match (operator(0), operator(1)) {
                (Some("Sub"), Some("Add")) => Some("xyxy"),
                (Some("Add"), Some("Sub" | "Add")) => Some("xywh"),
                _ => None,
            }
        } else {
            None
        };
        Some(Self { value, rows, boxes, strides })
    }
}

/// The first node behind `value` that is not a scaling by a constant; whole numbers in the constants are strides.
fn behind_scaling(graph: &Graph, mut value: ValueId, strides: &mut Vec<u64>) -> Option<(ValueId, NodeId)> {
    loop {
        let id = graph.producer(value)?;
        let node = graph.node(id);
        let scales = matches!(node.op_type.as_str(), "Mul" | "Div");
        let constant = |index: usize| node.input(index).and_then(|v| graph.constant(v));
        let (next, factor) = match (constant(0), constant(1)) {
            (None, Some(factor)) if scales => (node.input(0)?, Some(factor)),
            (Some(factor), None) if scales && node.is("Mul") => (node.input(1)?, Some(factor)),
            _ if node.is("Cast") || node.is("Identity") => (node.input(0)?, None),
            _ => return Some((value, id)),
        };
        if let Some(values) = factor.filter(|f| f.len() > 1).and_then(|factor| factor.to_f64s().ok()) {
            let whole = values.iter().all(|x| x.fract() == 0.0 && (1.0..=4096.0).contains(x));
            let distinct: BTreeSet<u64> = values.iter().map(|&x| x as u64).collect();
            if whole && distinct.len() <= MAX_LEVELS {
                *strides = distinct.into_iter().collect();
            }
        }
        value = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::shapes;
    use crate::text::parse_model;

    #[test]
    fn what_a_suppression_reads_is_told_where_it_was_left_out() {
        let text = "(float[1,8,4] boxes, float[1,3,8] p) => (int64[n,3] kept)
            <int64[1] most = {5}, float[1] overlap = {0.25}> {
              scores = Sigmoid (p)
              rows = Relu (boxes)
              kept = NonMaxSuppression <center_point_box = 1> (rows, scores, most, overlap)
            }";
        let mut model = parse_model(text).unwrap();
        shapes::infer(&mut model).unwrap();
        let graph = &model.graph;
        let outputs = ["rows", "scores"].map(|name| graph.value_named(name).unwrap());
        let post = describe(graph, &Facts::of(&model), &outputs, false).unwrap();
        assert_eq!((post.step.as_str(), post.tensor.as_str(), post.scores.as_deref()), ("nms", "rows", Some("scores")));
        assert_eq!((post.boxes.as_deref(), post.classes), (Some("xywh"), Some(3)));
        let given = post.suppression.unwrap();
        assert_eq!((given.max_per_class, given.iou, given.score), (Some(5), Some(0.25), None));
        assert!(describe(graph, &Facts::of(&model), &graph.outputs, true).is_none());
    }
}
