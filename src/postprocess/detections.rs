//! From a model's tensors to what it found in each picture.

use super::head::{BoxForm, Head, Step, Task};
use super::mask::{Mask, Prototypes};
use super::overlap::{Corners, Oriented, RotatedOverlap, overlap_more_than, suppress};
use super::select::{self, Pick};
use super::{DecodeError, classify};
use bytes::Bytes;

use crate::engine::Tensors;
use crate::inputs::Fit;
use crate::onnx::{DType, Tensor};

/// Candidates that suppression looks at, at most.
const MOST_CANDIDATES: usize = 30_000;

/// What counts as found.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The least score.
    pub confidence: f32,
    /// Boxes of a class that overlap by more than this share are one thing.
    pub iou: f32,
    /// The most boxes a picture.
    pub most: usize,
    /// Whether boxes of different classes suppress each other too.
    pub agnostic: bool,
    /// How the overlap of rotated boxes is measured.
    pub rotated: RotatedOverlap,
    /// The best classes to name, for a classifier.
    pub ranks: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { confidence: 0.25, iou: 0.7, most: 300, agnostic: false, rotated: RotatedOverlap::default(), ranks: 5 }
    }
}

/// A point of a body, or of another thing that has points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keypoint {
    /// Pixels from the left.
    pub x: f32,
    /// Pixels from the top.
    pub y: f32,
    /// How sure the model is that it can be seen, where it says.
    pub visible: Option<f32>,
}

/// A thing that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Its class.
    pub class: usize,
    /// How sure the model is, 0 to 1.
    pub score: f32,
    /// The box around it.
    pub corners: Corners,
    /// The rotated box, where the model gives one.
    pub oriented: Option<Oriented>,
    /// Its points.
    pub keypoints: Vec<Keypoint>,
    /// What its mask is mixed from; see [`Found::masks`].
    pub coefficients: Vec<f32>,
}

/// What was found in a picture.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Things, best first, in pixels of the model's input.
    Things(Vec<Detection>),
    /// Classes of the whole picture, best first.
    Classes(Vec<classify::Ranked>),
}

impl Head {
    /// Reads what was found in one batch element, in pixels of the model's input.
    ///
    /// # Errors
    /// A tensor that is not there, or not of the form that the head says.
    pub fn read(&self, outputs: &Tensors, element: usize, settings: &Settings) -> Result<Answer, DecodeError> {
        let tensor = find(outputs, &self.tensor)?;
        let (dims, values) = element_of(tensor, element)?;
        if self.task == Task::Classify {
            return Ok(Answer::Classes(classify::best(&values, settings.ranks)));
        }
        let wrong = || DecodeError::form(&self.tensor, tensor.dims());
        let &[first, second] = dims.as_slice() else { return Err(wrong()) };
        // A column for each anchor after all, though neither graph nor metadata told.
        let rows = self.classes.is_some_and(|classes| first >= 4 + classes && second > first);
        let raw = rows && self.finished_columns(outputs) != Some(second);
        let step = if self.step == Step::Done && raw { Step::Nms(BoxForm::Centre) } else { self.step };
        let found = match step {
            Step::Done if second < 6 => return Err(wrong()),
            Step::Done => self.finished(&values, second, settings),
            Step::TopK(form) | Step::Nms(form) => {
                let table = Table::new(self, values, first, second).ok_or_else(wrong)?;
                match step {
                    Step::TopK(_) => table.top_k(self, form, settings),
                    _ => table.nms(self, form, settings),
                }
            }
        };
        Ok(Answer::Things(found))
    }

    /// How many numbers a row of an end-to-end head has, where the task tells: box, score, class, and what comes after.
    fn finished_columns(&self, outputs: &Tensors) -> Option<usize> {
        let more = match self.task {
            Task::Detect => 0,
            Task::Oriented => 1,
            Task::Pose => self.keypoints.map(|[count, numbers]| count * numbers)?,
            Task::Segment => usize::try_from(*outputs.get(self.prototypes.as_ref()?)?.dims().get(1)?).ok()?,
            Task::Classify => return None,
        };
        Some(6 + more)
    }

    /// The masks of things that were found in one batch element, in pixels of the picture. `input` is the width and the
    /// height of the model's input.
    ///
    /// # Errors
    /// The prototypes are not there, or do not fit the coefficients.
    pub fn masks(
        &self,
        outputs: &Tensors,
        element: usize,
        found: &[Detection],
        input: [usize; 2],
        fit: &Fit,
    ) -> Result<Vec<Mask>, DecodeError> {
        let Some(name) = self.prototypes.as_ref().filter(|_| !found.is_empty()) else { return Ok(Vec::new()) };
        let tensor = find(outputs, name)?;
        let (dims, values) = element_of(tensor, element)?;
        let fits = |count: usize| found.iter().all(|one| one.coefficients.len() == count);
        match dims.as_slice() {
            &[count, height, width] if fits(count) && height > 0 && width > 0 => {
                let shrink = [input[0] as f32 / width as f32, input[1] as f32 / height as f32];
                let prototypes = Prototypes { values: &values, height, width, shrink };
                Ok(found.iter().map(|one| prototypes.mask(&one.coefficients, &one.corners, fit)).collect())
            }
            _ => Err(DecodeError::form(name, tensor.dims())),
        }
    }

    /// Rows of box, score, class and more, as an end-to-end head gives them.
    fn finished(&self, values: &[f32], columns: usize, settings: &Settings) -> Vec<Detection> {
        let sure = values.chunks_exact(columns).filter(|row| row[4] > settings.confidence);
        let mut found: Vec<Detection> = sure
            .map(|row| {
                let form = if self.task == Task::Oriented { BoxForm::Centre } else { BoxForm::Corners };
                self.detection([row[0], row[1], row[2], row[3]], form, row[5].max(0.0) as usize, row[4], &row[6..])
            })
            .collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(settings.most);
        found
    }

    /// A thing from the numbers that stand for it.
    fn detection(&self, box_: [f32; 4], form: BoxForm, class: usize, score: f32, rest: &[f32]) -> Detection {
        let mut found = Detection {
            class,
            score,
            corners: corners(box_, form),
            oriented: None,
            keypoints: Vec::new(),
            coefficients: Vec::new(),
        };
        match self.task {
            Task::Oriented => {
                if let Some(&angle) = rest.first() {
                    let oriented = Oriented { centre: [box_[0], box_[1]], size: [box_[2], box_[3]], angle };
                    found.corners = oriented.bounds();
                    found.oriented = Some(oriented);
                }
            }
            Task::Pose => {
                let numbers =
                    self.keypoints.map_or(if rest.len().is_multiple_of(3) { 3 } else { 2 }, |[_, numbers]| numbers);
                let point = |point: &[f32]| Keypoint { x: point[0], y: point[1], visible: point.get(2).copied() };
                if numbers >= 2 {
                    found.keypoints = rest.chunks_exact(numbers).map(point).collect();
                }
            }
            Task::Segment => found.coefficients = rest.to_vec(),
            Task::Detect | Task::Classify => {}
        }
        found
    }
}

fn corners(box_: [f32; 4], form: BoxForm) -> Corners {
    let [a, b, c, d] = box_;
    match form {
        BoxForm::Corners => box_,
        BoxForm::Centre => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
    }
}

fn find<'a>(outputs: &'a Tensors, name: &str) -> Result<&'a Tensor, DecodeError> {
    outputs.get(name).ok_or_else(|| DecodeError::Missing { tensor: name.into() })
}

/// The numbers of a tensor: where they lie, if they can be read there.
enum Values {
    Lying(Bytes),
    Made(Vec<f32>),
}

impl Values {
    fn of(tensor: &Tensor, bytes: Bytes) -> Option<Self> {
        let plain = tensor.dtype() == DType::Float && cfg!(target_endian = "little");
        if plain && bytemuck::try_cast_slice::<u8, f32>(&bytes).is_ok() {
            return Some(Self::Lying(bytes));
        }
        let count = (bytes.len() * 8).checked_div(tensor.dtype().bits())?;
        let flat = Tensor::new("", tensor.dtype(), &[count as i64], bytes);
        flat.to_f32s().ok().map(Self::Made)
    }
}

impl std::ops::Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Lying(bytes) => bytemuck::try_cast_slice(bytes).unwrap_or_default(), // looked at when it was made
            Self::Made(values) => values,
        }
    }
}

/// One batch element of a tensor: its sizes without the batch, and its values.
fn element_of(tensor: &Tensor, element: usize) -> Result<(Vec<usize>, Values), DecodeError> {
    let wrong = || DecodeError::form(tensor.name(), tensor.dims());
    let sizes: Option<Vec<usize>> = tensor.dims().iter().map(|&size| usize::try_from(size).ok()).collect();
    let sizes = sizes.filter(|sizes| sizes.first().is_some_and(|&batch| element < batch)).ok_or_else(wrong)?;
    let count: usize = sizes[1..].iter().product();
    let width = tensor.dtype().bits() / 8;
    let bytes = tensor.to_bytes().map_err(|_| wrong())?;
    let mine = bytes.get(element * count * width..(element + 1) * count * width).ok_or_else(wrong)?;
    let values = Values::of(tensor, bytes.slice_ref(mine)).ok_or_else(wrong)?;
    Ok((sizes[1..].to_vec(), values))
}

/// The raw predictions of a picture: a row for each number of the box, each class and what comes after, a column for
/// each anchor.
struct Table {
    values: Values,
    anchors: usize,
    /// Rows before the classes.
    first: usize,
    classes: usize,
}

impl Table {
    fn new(head: &Head, values: Values, first: usize, second: usize) -> Option<Self> {
        let extra = match head.task {
            Task::Oriented => Some(1),
            Task::Pose => head.keypoints.map(|[count, numbers]| count * numbers),
            Task::Detect => Some(0),
            _ => None,
        };
        let classes_in = |rows: usize| match (head.classes, extra) {
            (Some(classes), extra) => (rows >= 4 + classes + extra.unwrap_or(0)).then_some(classes),
            (None, Some(extra)) => rows.checked_sub(4 + extra).filter(|&classes| classes > 0),
            (None, None) => None,
        };
        // Anchors come last, and are more than rows; a few exporters write them first.
        let turned = first > second && classes_in(second).is_some();
        let (rows, anchors) = if turned { (second, first) } else { (first, second) };
        let classes = classes_in(rows)?;
        let objects = head.task == Task::Detect && rows == 5 + classes;
        if !turned && !objects {
            return Some(Self { values, anchors, first: 4, classes });
        }
        let mut made = values.to_vec();
        if turned {
            let places = (0..rows).flat_map(|row| (0..anchors).map(move |anchor| anchor * rows + row));
            made = places.map(|place| values[place]).collect();
        }
        if objects {
            // A row of objectness before the classes: a class's score is the product of the two.
            let (objectness, scores) = made[4 * anchors..].split_at_mut(anchors);
            for row in scores.chunks_exact_mut(anchors) {
                row.iter_mut().zip(objectness.iter()).for_each(|(score, object)| *score *= object);
            }
        }
        Some(Self { values: Values::Made(made), anchors, first: if objects { 5 } else { 4 }, classes })
    }

    fn scores(&self) -> &[f32] {
        &self.values[self.first * self.anchors..(self.first + self.classes) * self.anchors]
    }

    fn at(&self, row: usize, anchor: u32) -> f32 {
        self.values[row * self.anchors + anchor as usize]
    }

    fn detection(&self, head: &Head, form: BoxForm, pick: &Pick) -> Detection {
        let box_ = [0, 1, 2, 3].map(|row| self.at(row, pick.anchor));
        let rows = self.values.len() / self.anchors;
        let rest: Vec<f32> = (self.first + self.classes..rows).map(|row| self.at(row, pick.anchor)).collect();
        head.detection(box_, form, pick.class as usize, pick.score, &rest)
    }

    fn top_k(&self, head: &Head, form: BoxForm, settings: &Settings) -> Vec<Detection> {
        let picks = select::top_k(self.scores(), self.anchors, settings.most, settings.confidence);
        picks.iter().map(|pick| self.detection(head, form, pick)).collect()
    }

    fn nms(&self, head: &Head, form: BoxForm, settings: &Settings) -> Vec<Detection> {
        let mut picks = select::best_classes(self.scores(), self.anchors, settings.confidence);
        select::best_first(&mut picks, MOST_CANDIDATES);
        let classes: Vec<u32> = picks.iter().map(|pick| if settings.agnostic { 0 } else { pick.class }).collect();
        let boxes: Vec<[f32; 4]> = picks.iter().map(|pick| [0, 1, 2, 3].map(|row| self.at(row, pick.anchor))).collect();
        let kept = if head.task == Task::Oriented {
            let angle = self.first + self.classes;
            let oriented: Vec<Oriented> = picks
                .iter()
                .zip(&boxes)
                .map(|(pick, b)| Oriented {
                    centre: [b[0], b[1]],
                    size: [b[2], b[3]],
                    angle: self.at(angle, pick.anchor),
                })
                .collect();
            let share = f64::from(settings.iou);
            suppress(&classes, settings.most, |a, b| match settings.rotated {
                RotatedOverlap::Gaussian => oriented[a].similarity(&oriented[b]) > share,
                RotatedOverlap::Exact => oriented[a].overlap(&oriented[b]) > share,
            })
        } else {
            let corners: Vec<Corners> = boxes.iter().map(|&box_| corners(box_, form)).collect();
            suppress(&classes, settings.most, |a, b| overlap_more_than(&corners[a], &corners[b], settings.iou))
        };
        kept.into_iter().map(|index| self.detection(head, form, &picks[index])).collect()
    }
}

#[cfg(test)]
mod tests;
