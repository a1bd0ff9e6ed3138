use super::*;
use crate::postprocess::Corners;

fn head(task: Task, step: Step) -> Head {
    Head {
        task,
        tensor: "raw".into(),
        prototypes: (task == Task::Segment).then(|| "protos".to_string()),
        step,
        classes: None,
        keypoints: (task == Task::Pose).then_some([2, 3]),
    }
}

/// A raw tensor of some columns: box, scores of two classes, and what comes after.
fn raw(columns: &[&[f32]]) -> Tensors {
    let rows = columns[0].len();
    let values: Vec<f32> = (0..rows).flat_map(|row| columns.iter().map(move |column| column[row])).collect();
    let tensor = Tensor::from_f32("raw", &[1, rows as i64, columns.len() as i64], &values);
    Tensors::from_iter([("raw".to_string(), tensor)])
}

fn things(answer: Answer) -> Vec<Detection> {
    let Answer::Things(things) = answer else { panic!("{answer:?}") };
    things
}

fn short(found: &[Detection]) -> Vec<(usize, f32, Corners)> {
    found.iter().map(|one| (one.class, one.score, one.corners)).collect()
}

#[test]
fn a_one_to_one_head_needs_the_best_scores_only() {
    let outputs = raw(&[
        &[0.0, 0.0, 10.0, 10.0, 0.3, 0.9],
        &[0.0, 0.0, 10.0, 10.0, 0.8, 0.1],
        &[5.0, 5.0, 9.0, 9.0, 0.2, 0.1],
        &[6.0, 5.0, 9.0, 9.0, 0.2, 0.1],
        &[7.0, 5.0, 9.0, 9.0, 0.2, 0.1],
        &[8.0, 5.0, 9.0, 9.0, 0.2, 0.1],
        &[9.0, 5.0, 9.0, 9.0, 0.2, 0.1],
    ]);
    let found = head(Task::Detect, Step::TopK(BoxForm::Corners)).read(&outputs, 0, &Settings::default()).unwrap();
    let box_ = [0.0, 0.0, 10.0, 10.0];
    assert_eq!(short(&things(found)), [(1, 0.9, box_), (0, 0.8, box_), (0, 0.3, box_)]);
}

#[test]
fn a_one_to_many_head_needs_suppression() {
    let columns: [&[f32]; 8] = [
        &[5.0, 5.0, 10.0, 10.0, 0.3, 0.9],
        &[5.5, 5.0, 10.0, 10.0, 0.1, 0.8],
        &[5.0, 5.0, 10.0, 10.0, 0.7, 0.1],
        &[50.0, 5.0, 10.0, 10.0, 0.1, 0.26],
        &[50.0, 5.0, 10.0, 10.0, 0.1, 0.2],
        &[50.0, 5.0, 10.0, 10.0, 0.1, 0.2],
        &[50.0, 5.0, 10.0, 10.0, 0.1, 0.2],
        &[50.0, 5.0, 10.0, 10.0, 0.1, f32::NAN],
    ];
    let head = head(Task::Detect, Step::Nms(BoxForm::Centre));
    let found = things(head.read(&raw(&columns), 0, &Settings::default()).unwrap());
    let box_ = [0.0, 0.0, 10.0, 10.0];
    assert_eq!(short(&found), [(1, 0.9, box_), (0, 0.7, box_), (1, 0.26, [45.0, 0.0, 55.0, 10.0])]);
    let agnostic = Settings { agnostic: true, ..Settings::default() };
    assert_eq!(things(head.read(&raw(&columns), 0, &agnostic).unwrap()).len(), 2);
    // The same, anchors first and with a row of objectness.
    let rows: Vec<f32> = columns.iter().flat_map(|c| [c[0], c[1], c[2], c[3], 0.5, c[4] * 2.0, c[5] * 2.0]).collect();
    let tensor = Tensor::from_f32("raw", &[1, 8, 7], &rows);
    let outputs = Tensors::from_iter([("raw".to_string(), tensor)]);
    let known = Head { classes: Some(2), ..head };
    assert_eq!(short(&things(known.read(&outputs, 0, &Settings::default()).unwrap())), short(&found));
}

#[test]
fn rotated_boxes_keypoints_and_the_second_batch_element() {
    let many = |column: [f32; 7]| -> Tensors {
        let zero = [0.0f32; 7];
        let columns: Vec<&[f32]> = vec![&column, &zero, &zero, &zero, &zero, &zero, &zero, &zero];
        raw(&columns)
    };
    let outputs = many([20.0, 10.0, 8.0, 4.0, 0.1, 0.9, std::f32::consts::FRAC_PI_2]);
    let found =
        things(head(Task::Oriented, Step::Nms(BoxForm::Centre)).read(&outputs, 0, &Settings::default()).unwrap());
    assert_eq!(found.len(), 1);
    let oriented = found[0].oriented.unwrap();
    assert_eq!((oriented.centre, oriented.size), ([20.0, 10.0], [8.0, 4.0]));
    assert!((found[0].corners[0] - 18.0).abs() < 1e-4 && (found[0].corners[3] - 14.0).abs() < 1e-4);

    let row = |x: f32| [0.0, 0.0, 9.0, 9.0, 0.8, 0.0, x, 2.0, 0.9, 3.0, 4.0, 0.1];
    let values: Vec<f32> = [row(1.0), row(7.0)].concat();
    let outputs = Tensors::from_iter([("raw".to_string(), Tensor::from_f32("raw", &[2, 1, 12], &values))]);
    let found = things(head(Task::Pose, Step::Done).read(&outputs, 1, &Settings::default()).unwrap());
    assert_eq!(found[0].keypoints[0], Keypoint { x: 7.0, y: 2.0, visible: Some(0.9) });
    assert_eq!(found[0].keypoints.len(), 2);
    assert!(head(Task::Pose, Step::Done).read(&outputs, 2, &Settings::default()).is_err());
}

#[test]
fn tensors_of_another_form_are_errors() {
    let outputs = Tensors::from_iter([("raw".to_string(), Tensor::from_f32("raw", &[1, 5], &[0.0; 5]))]);
    let told = |head: Head, outputs: &Tensors| head.read(outputs, 0, &Settings::default()).unwrap_err().to_string();
    assert_eq!(
        told(head(Task::Detect, Step::Done), &outputs),
        "tensor 'raw' is [1, 5], which is not the form of the model's predictions"
    );
    assert_eq!(
        told(head(Task::Detect, Step::Done), &Tensors::new()),
        "the model gave no tensor 'raw', which its predictions are in"
    );
    let narrow = Tensors::from_iter([("raw".to_string(), Tensor::from_f32("raw", &[1, 3, 9], &[0.0; 27]))]);
    assert!(head(Task::Detect, Step::TopK(BoxForm::Corners)).read(&narrow, 0, &Settings::default()).is_err());
}

#[test]
fn a_finished_head_with_few_rows_is_no_raw_one() {
    // Two keypoints of three numbers: rows of 12, fewer of them than columns.
    let row = |score: f32| [1.0, 2.0, 3.0, 4.0, score, 0.0, 5.0, 6.0, 0.9, 7.0, 8.0, 0.1];
    let rows: Vec<f32> = (0..8).flat_map(|index| row(if index == 3 { 0.8 } else { 0.1 })).collect();
    let outputs = Tensors::from_iter([("raw".to_string(), Tensor::from_f32("raw", &[1, 8, 12], &rows))]);
    let head = Head { classes: Some(1), ..head(Task::Pose, Step::Done) };
    let found = things(head.read(&outputs, 0, &Settings::default()).unwrap());
    assert_eq!(short(&found), [(0, 0.8, [1.0, 2.0, 3.0, 4.0])]);
    assert_eq!((found[0].keypoints.len(), found[0].keypoints[1].x), (2, 7.0));
}

#[test]
fn rotated_boxes_without_an_angle_are_an_error() {
    let columns: Vec<[f32; 6]> = (0..9).map(|_| [5.0, 5.0, 2.0, 2.0, 0.9, 0.3]).collect();
    let columns: Vec<&[f32]> = columns.iter().map(|column| column.as_slice()).collect();
    let head = Head { classes: Some(2), ..head(Task::Oriented, Step::Nms(BoxForm::Centre)) };
    assert!(head.read(&raw(&columns), 0, &Settings::default()).is_err());
}
