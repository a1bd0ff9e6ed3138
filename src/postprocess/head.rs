//! How a model's outputs are to be read as an answer.

use crate::bundle::manifest::{Postprocess, Size, TensorType};
use crate::target::Facts;

/// What a model looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Boxes.
    Detect,
    /// Boxes with masks.
    Segment,
    /// Boxes with keypoints.
    Pose,
    /// Rotated boxes.
    Oriented,
    /// One class for the whole picture.
    Classify,
}

/// How boxes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxForm {
    /// Left, top, right, bottom.
    Corners,
    /// Centre, width and height.
    Centre,
}

/// What is left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: rows of box, score, class and more.
    Done,
    /// A column for each anchor, each object predicted once: the best scores are the answer.
    TopK(BoxForm),
    /// A column for each anchor, objects predicted several times: overlapping boxes are suppressed.
    Nms(BoxForm),
}

/// How a model's outputs are to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// What it looks for.
    pub task: Task,
    /// The tensor with the predictions.
    pub tensor: String,
    /// The tensor with the prototypes of masks.
    pub prototypes: Option<String>,
    /// What is left to do.
    pub step: Step,
    /// Number of classes, where it is known.
    pub classes: Option<usize>,
    /// Keypoints, and numbers a keypoint.
    pub keypoints: Option<[usize; 2]>,
}

impl Head {
    /// The head of a model whose outputs mean what `post` says; none where they are no answer that can be read.
    pub fn of(post: &Postprocess, facts: &Facts, outputs: &[TensorType]) -> Option<Self> {
        if post.scores.is_some() {
            return None; // boxes and scores apart are handed on as they are
        }
        let task = match post.task.as_deref().or(facts.task.as_deref()) {
            Some("segment") => Task::Segment,
            Some("pose") => Task::Pose,
            Some("obb") => Task::Oriented,
            Some("classify") => Task::Classify,
            Some("detect") | None => Task::Detect,
            Some(_) => return None,
        };
        let centre = match post.boxes.as_deref() {
            Some("xyxy") => Some(BoxForm::Corners),
            Some("xywh") => Some(BoxForm::Centre),
            _ => None,
        };
        let step = match post.step.as_str() {
            // The exporters that leave a head raw write these where the graph does not tell.
            "top-k" if task == Task::Oriented => Step::TopK(BoxForm::Centre),
            "top-k" => Step::TopK(centre.unwrap_or(BoxForm::Corners)),
            "nms" => Step::Nms(centre.unwrap_or(BoxForm::Centre)),
            _ => Step::Done,
        };
        let rank = |tensor: &&TensorType| tensor.shape.as_ref().is_none_or(|shape| shape.len() == 4);
        let prototypes = outputs.iter().filter(|tensor| tensor.name != post.tensor).find(rank);
        let keypoints = match facts.kpt_shape.as_deref() {
            Some(&[count, numbers]) => Some([usize::try_from(count).ok()?, usize::try_from(numbers).ok()?]),
            _ => None,
        };
        Some(Self {
            task,
            tensor: post.tensor.clone(),
            prototypes: prototypes.filter(|_| task == Task::Segment).map(|tensor| tensor.name.clone()),
            step,
            classes: post.classes.and_then(|classes| usize::try_from(classes).ok()).filter(|&classes| classes > 0),
            keypoints,
        })
    }

    /// Whether the outputs can be read as an answer at all, going by the shape of the predictions.
    pub fn reads(&self, outputs: &[TensorType]) -> bool {
        let Some(tensor) = outputs.iter().find(|output| output.name == self.tensor) else { return false };
        let Some(shape) = &tensor.shape else { return true };
        match (self.task, self.step) {
            (Task::Classify, _) => shape.len() >= 2,
            (_, Step::Done) => shape.len() == 3 && !matches!(shape[2], Size::Fixed(..6)),
            _ => shape.len() == 3,
        }
    }
}
