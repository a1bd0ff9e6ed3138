//! What a run found in each of its pictures, in the pictures' own pixels.

use std::borrow::Cow;

use serde::Serialize;

use super::{Done, Program, RunError};
use crate::inputs::{Fit, Frame};
use crate::postprocess::{Answer, Detection, Head, Keypoint, Mask, Oriented, PackedMask, Ranked, Settings};

/// A thing that was found, in the picture's own pixels.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it is and what it is.
    pub detection: Detection,
    /// Its class's name.
    pub name: String,
    /// Its mask, where the model gives one and it was asked for.
    pub mask: Option<Mask>,
    /// The mask once more, where [`Found::pack`] put it.
    pub packed: Option<PackedMask>,
}

impl Found {
    /// Keeps the mask in its packed form only; pixel by pixel, those of many pictures fill the memory.
    pub fn pack(&mut self) {
        if let Some(mask) = self.mask.take() {
            self.packed = Some(PackedMask::from(&mask));
        }
    }
}

/// What was found in one picture.
#[derive(Clone, Debug)]
pub enum Answers {
    /// Things, best first.
    Things(Vec<Found>),
    /// Classes of the whole picture with their names, best first.
    Classes(Vec<(Ranked, String)>),
}

/// One picture and what was found in it.
#[derive(Clone, Debug)]
pub struct FoundIn {
    /// The picture.
    pub frame: Frame,
    /// What was found.
    pub answers: Answers,
}

/// Reads what a run found, picture by picture. Masks are made only if `masks` says so.
///
/// # Errors
/// Outputs that are not what the head says.
pub fn read_answers(
    program: &Program,
    head: &Head,
    done: &mut Done,
    settings: &Settings,
    masks: bool,
) -> Result<Vec<FoundIn>, RunError> {
    let frames = std::mem::take(&mut done.feed.frames);
    let mut all = Vec::with_capacity(frames.len());
    for (element, frame) in frames.iter().enumerate() {
        let answers = match head.read(&done.outputs, element, settings)? {
            Answer::Classes(ranked) => {
                Answers::Classes(ranked.into_iter().map(|one| (one, program.class_name(one.class))).collect())
            }
            Answer::Things(things) => {
                let [width, height] = done.feed.picture_size;
                let fit = frame.fit.unwrap_or(Fit::identity(width as u32, height as u32));
                let made = match masks {
                    true => head.masks(&done.outputs, element, &things, [width, height], &fit)?,
                    false => Vec::new(),
                };
                let mut made = made.into_iter();
                let found = things.into_iter().map(|one| Found {
                    name: program.class_name(one.class),
                    detection: in_picture(one, &fit),
                    mask: made.next(),
                    packed: None,
                });
                Answers::Things(found.collect())
            }
        };
        all.push(FoundIn { frame: frame.clone(), answers });
    }
    done.feed.frames = frames;
    Ok(all)
}

/// From pixels of the model's input to the picture's own.
fn in_picture(mut found: Detection, fit: &Fit) -> Detection {
    let ([left, top], [right, bottom]) =
        (fit.clipped(found.corners[0], found.corners[1]), fit.clipped(found.corners[2], found.corners[3]));
    found.corners = [left, top, right, bottom];
    if let Some(oriented) = &mut found.oriented {
        let scale = (fit.scale[0] + fit.scale[1]) / 2.0;
        oriented.centre = fit.point(oriented.centre[0], oriented.centre[1]);
        oriented.size = oriented.size.map(|side| side / scale);
    }
    for point in &mut found.keypoints {
        [point.x, point.y] = fit.point(point.x, point.y);
    }
    found
}

#[derive(Serialize)]
struct OrientedBox {
    #[serde(flatten)]
    oriented: Oriented,
    corners: [[f32; 2]; 4],
}

#[derive(Serialize)]
struct Entry<'a> {
    class: usize,
    name: &'a str,
    score: f32,
    #[serde(rename = "box")]
    corners: [f32; 4],
    #[serde(skip_serializing_if = "Option::is_none")]
    oriented: Option<OrientedBox>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keypoints: Vec<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<Cow<'a, PackedMask>>,
}

impl Serialize for Found {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let found = &self.detection;
        let numbers = |point: &Keypoint| [point.x, point.y].into_iter().chain(point.visible).collect();
        Entry {
            class: found.class,
            name: &self.name,
            score: found.score,
            corners: found.corners,
            oriented: found.oriented.map(|oriented| OrientedBox { oriented, corners: oriented.corners() }),
            keypoints: found.keypoints.iter().map(numbers).collect(),
            mask: self.packed.as_ref().map(Cow::Borrowed).or(self.mask.as_ref().map(|mask| Cow::Owned(mask.into()))),
        }
        .serialize(serializer)
    }
}

#[derive(Serialize)]
struct Document<'a> {
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detections: Option<&'a [Found]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<Vec<serde_json::Value>>,
}

impl Serialize for FoundIn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let size = self.frame.fit.map(|fit| fit.size);
        let (detections, classes) = match &self.answers {
            Answers::Things(things) => (Some(things.as_slice()), None),
            Answers::Classes(classes) => (None, Some(classes)),
        };
        let entry = |(ranked, name): &'_ (Ranked, String)| serde_json::json!({ "class": ranked.class, "name": name, "score": ranked.score });
        let entries = classes.map(|classes| classes.iter().map(entry).collect());
        Document {
            file: &self.frame.name,
            width: size.map(|size| size[0]),
            height: size.map(|size| size[1]),
            detections,
            classes: entries,
        }
        .serialize(serializer)
    }
}
