//! An annotated picture: boxes with labels, rotated boxes, keypoints with the bones between them, translucent masks.
//!
//! Sizes of lines and letters follow the picture's. Each class has a colour of its own.

mod canvas;
mod text;

use image::RgbImage;

use crate::postprocess::{Detection, Mask};

pub use canvas::{Canvas, Colour};

/// Bones between the 17 points of a body, in the order of the COCO data set.
const BONES: [[usize; 2]; 16] = [
    [15, 13],
    [13, 11],
    [16, 14],
    [14, 12],
    [11, 12],
    [5, 11],
    [6, 12],
    [5, 6],
    [5, 7],
    [6, 8],
    [7, 9],
    [8, 10],
    [1, 2],
    [0, 1],
    [0, 2],
    [3, 5],
];
/// Keypoints that the model is less sure of than this are left out.
const LEAST_VISIBLE: f32 = 0.5;
/// How much of a mask's colour covers the picture.
const COVER: f32 = 0.45;

/// A thing to draw, in the picture's own pixels.
pub struct Thing<'a> {
    /// Where it is.
    pub detection: &'a Detection,
    /// What to write on it.
    pub label: String,
    /// Its mask.
    pub mask: Option<&'a Mask>,
}

/// Draws what was found onto a picture; the surest last, so that it lies on top.
pub fn things(picture: &mut RgbImage, things: &[Thing]) {
    let mut canvas = Canvas::new(picture);
    for thing in things.iter().rev() {
        if let Some(mask) = thing.mask {
            canvas.cover(mask, colour(thing.detection.class), COVER);
        }
    }
    for thing in things.iter().rev() {
        let found = thing.detection;
        let colour = colour(found.class);
        let [left, top, right, bottom] = found.corners;
        let outline = match &found.oriented {
            Some(oriented) => oriented.corners(),
            None => [[left, top], [right, top], [right, bottom], [left, bottom]],
        };
        for side in 0..4 {
            canvas.line(outline[side], outline[(side + 1) % 4], canvas.stroke(), colour);
        }
        points(&mut canvas, found, colour);
    }
    // Labels above all: they are what a reader looks for.
    for thing in things.iter().rev() {
        let found = thing.detection;
        let corner = match &found.oriented {
            Some(oriented) => oriented.corners()[0],
            None => [found.corners[0], found.corners[1]],
        };
        canvas.label(corner, &thing.label, colour(found.class));
    }
}

/// Lines of text in the upper left corner, as for a classifier's best classes.
pub fn lines(picture: &mut RgbImage, lines: &[String]) {
    let mut canvas = Canvas::new(picture);
    let step = canvas.letter_height() as f32 + 4.0;
    for (index, line) in lines.iter().enumerate() {
        canvas.label([4.0, 4.0 + step * (index as f32 + 1.0)], line, Colour([40, 40, 40]));
    }
}

fn points(canvas: &mut Canvas, found: &Detection, colour: Colour) {
    let seen = |index: usize| {
        let point = found.keypoints.get(index)?;
        point.visible.is_none_or(|visible| visible >= LEAST_VISIBLE).then_some([point.x, point.y])
    };
    if found.keypoints.len() == 17 {
        for [a, b] in BONES {
            if let (Some(a), Some(b)) = (seen(a), seen(b)) {
                canvas.line(a, b, canvas.stroke(), colour);
            }
        }
    }
    for point in (0..found.keypoints.len()).filter_map(seen) {
        canvas.dot(point, canvas.stroke() * 1.5 + 1.0, Colour([255, 255, 255]));
        canvas.dot(point, canvas.stroke() * 1.5, colour);
    }
}

/// A class's colour: hues that lie far apart for classes that stand side by side.
fn colour(class: usize) -> Colour {
    let hue = (class as f32 * 0.618_034).fract() * 6.0;
    let part = |shift: f32| {
        let distance = ((hue + shift) % 6.0 - 3.0).abs() - 1.0;
        (255.0 * (0.15 + 0.8 * distance.clamp(0.0, 1.0))) as u8
    };
    Colour([part(0.0), part(4.0), part(2.0)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postprocess::{Keypoint, Oriented};
    use image::Rgb;

    fn found(class: usize, corners: [f32; 4]) -> Detection {
        Detection { class, score: 0.9, corners, oriented: None, keypoints: Vec::new(), coefficients: Vec::new() }
    }

    #[test]
    fn boxes_masks_points_and_labels_leave_their_marks() {
        let mut picture = RgbImage::from_pixel(200, 100, Rgb([128, 128, 128]));
        let detection = found(0, [20.0, 30.0, 120.0, 90.0]);
        let mask = Mask { size: [200, 100], origin: [40, 40], width: 20, pixels: vec![true; 400] };
        let thing = Thing { detection: &detection, label: "thing 0.90".into(), mask: Some(&mask) };
        things(&mut picture, &[thing]);
        let pixel = |x: u32, y: u32| picture.get_pixel(x, y).0;
        assert_eq!(pixel(120, 60), colour(0).0, "the right side");
        assert_ne!(pixel(50, 50), [128; 3], "inside of the mask");
        assert_eq!(pixel(100, 60), [128; 3], "inside of the box, outside of the mask");
        let written = (20..60).any(|x| (12..30).any(|y| pixel(x, y) == [255; 3] || pixel(x, y) == [0; 3]));
        assert!(written, "the label has letters");
    }

    #[test]
    fn what_lies_outside_is_cut_off() {
        let mut picture = RgbImage::from_pixel(20, 20, Rgb([0; 3]));
        let mut detection = found(3, [-1e9, -50.0, f32::INFINITY, f32::NAN]);
        detection.oriented = Some(Oriented { centre: [1e9, -1e9], size: [1e9, 5.0], angle: 0.5 });
        detection.keypoints = vec![Keypoint { x: -9e9, y: f32::NAN, visible: None }; 17];
        let thing = Thing { detection: &detection, label: "ünïcode ☃ and much more than fits".into(), mask: None };
        things(&mut picture, &[thing]);
        lines(&mut picture, &["a".into(), "b".into(), "c".into()]);
    }

    #[test]
    fn neighbouring_classes_have_other_colours() {
        for class in 0..80 {
            let (a, b) = (colour(class).0, colour(class + 1).0);
            let apart: i32 = a.iter().zip(b).map(|(&a, b)| (i32::from(a) - i32::from(b)).abs()).sum();
            assert!(apart > 100, "{class}: {a:?} {b:?}");
        }
    }
}
