//! The answer itself: where a detector's head is left raw, its predictions are read as `porter run` reads them, and what
//! the two sides find is compared.
//!
//! It is told and judges nothing. Every number that the answer is made of has been judged before, and a box whose score
//! lies at the confidence, or whose overlap with another lies at the limit, may come and go between two that are right.

use serde::Serialize;

use crate::compare::{Agreement, Detections};
use crate::engine::Tensors;
use crate::graph::{Model, shapes};
use crate::postprocess::{Answer, Detection, Head, Settings, Step, Task, describe};
use crate::target::Facts;

/// What two sides find in one batch element, held against each other.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// The tensor that it was read from.
    pub tensor: String,
    /// The batch element.
    pub element: usize,
    /// Detections of the target.
    pub found: usize,
    /// How they agree with the reference's.
    pub agreement: Agreement,
    /// How those of the draw that is furthest off agree with them.
    pub expected: Agreement,
}

/// How a model's outputs are read, where they are raw predictions.
pub(super) fn head(model: &Model, facts: &Facts) -> Option<Head> {
    let mut known = model.clone();
    let _ = shapes::infer(&mut known); // where it fails, nothing is known of the outputs
    let graph = &known.graph;
    let interface: Vec<_> =
        graph.outputs.iter().map(|&id| crate::bundle::manifest::TensorType::of(graph.value(id))).collect();
    let post = describe(graph, facts, &graph.outputs, facts.end2end != Some(false))?;
    Head::of(&post, facts, &interface).filter(|head| head.step != Step::Done && head.reads(&interface))
}

/// Reads both sides and holds them against each other; empty where they cannot be read.
pub(super) fn compare(head: &Head, reference: &Tensors, result: &Tensors, draws: &[Tensors]) -> Vec<Found> {
    let batch = reference.get(&head.tensor).and_then(|tensor| tensor.dims().first().copied()).unwrap_or(0);
    (0..usize::try_from(batch).unwrap_or(0))
        .filter_map(|element| one(head, element, reference, result, draws))
        .collect()
}

fn one(head: &Head, element: usize, reference: &Tensors, result: &Tensors, draws: &[Tensors]) -> Option<Found> {
    let settings = Settings::default();
    let read = |tensors: &Tensors| match head.read(tensors, element, &settings).ok()? {
        Answer::Things(list) => Some(list.iter().map(|one| row(head, one)).collect::<Vec<_>>()),
        Answer::Classes(_) => None,
    };
    let (ours, theirs) = (read(reference)?, read(result)?);
    let cut = |rows: &[Vec<f64>]| match rows.last() {
        Some(last) if rows.len() >= settings.most => last[4],
        _ => f64::from(settings.confidence),
    };
    let cut = cut(&ours).max(cut(&theirs));
    let against = |rows: &[Vec<f64>], slack: f64| Detections::agreement_of(&ours, rows, cut, slack);
    let drawn: Vec<Vec<Vec<f64>>> = draws.iter().filter_map(read).collect();
    let slack = drawn.iter().map(|rows| against(rows, 0.0).worst_score).fold(0.0, f64::max);
    let expected = drawn.iter().map(|rows| against(rows, slack)).max_by(|a, b| a.worst_box.total_cmp(&b.worst_box));
    Some(Found {
        tensor: head.tensor.clone(),
        element,
        found: theirs.len(),
        agreement: against(&theirs, slack),
        expected: expected.unwrap_or_default(),
    })
}

/// A detection as a row of numbers: box, score, class, and what hangs on it.
fn row(head: &Head, one: &Detection) -> Vec<f64> {
    let mut row: Vec<f32> = match (&one.oriented, head.task) {
        (Some(oriented), Task::Oriented) => {
            vec![oriented.centre[0], oriented.centre[1], oriented.size[0], oriented.size[1]]
        }
        _ => one.corners.to_vec(),
    };
    row.extend([one.score, one.class as f32]);
    row.extend(one.oriented.map(|oriented| oriented.angle));
    row.extend(one.keypoints.iter().flat_map(|point| [Some(point.x), Some(point.y), point.visible]).flatten());
    row.extend(&one.coefficients);
    row.into_iter().map(f64::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::Tensor;
    use crate::postprocess::BoxForm;

    /// Two things of one class each, 20 anchors, the first with a box moved and a score changed.
    fn raw(shift: f32, score: f32) -> Tensors {
        let mut values = vec![0f32; 6 * 20];
        for (anchor, (x, best)) in [(3, (100.0 + shift, score)), (9, (300.0, 0.8))] {
            for (row, value) in [x, 50.0, 40.0, 40.0].into_iter().enumerate() {
                values[row * 20 + anchor] = value;
            }
            values[(4 + anchor % 2) * 20 + anchor] = best;
        }
        Tensors::from_iter([("y".to_string(), Tensor::from_f32("y", &[1, 6, 20], &values))])
    }

    #[test]
    fn what_is_found_is_held_against_what_the_reference_finds() {
        let head = Head {
            task: Task::Detect,
            tensor: "y".into(),
            prototypes: None,
            step: Step::Nms(BoxForm::Centre),
            classes: Some(2),
            keypoints: None,
        };
        let found = compare(&head, &raw(0.0, 0.9), &raw(2.0, 0.85), &[raw(0.5, 0.9)]);
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((one.found, one.agreement.agree, one.agreement.lost, one.agreement.worst_box), (2, 2, 0, 2.0));
        assert!((one.agreement.worst_score - 0.05).abs() < 1e-6 && one.agreement.worst_iou < 0.96);
        assert_eq!(one.expected.worst_box, 0.5);
        let lost = &compare(&head, &raw(0.0, 0.9), &raw(0.0, 0.1), &[])[0];
        assert_eq!((lost.found, lost.agreement.agree, lost.agreement.lost), (1, 1, 1));
    }
}
