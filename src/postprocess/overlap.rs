//! Suppression of boxes that mean the same thing: intersection over union, straight and rotated.

use serde::Serialize;

/// A box by its corners: left, top, right, bottom.
pub type Corners = [f32; 4];

/// A rotated box, sizes in pixels, the angle in radians from x towards y.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Oriented {
    /// The centre.
    pub centre: [f32; 2],
    /// Width and height, along the box's own axes.
    pub size: [f32; 2],
    /// The rotation.
    pub angle: f32,
}

/// How the overlap of rotated boxes is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RotatedOverlap {
    /// The similarity of the Gaussians that the boxes stand for, as the models' own exporter suppresses by.
    #[default]
    Gaussian,
    /// Intersection over union of the rectangles themselves.
    Exact,
}

/// Goes through boxes, best first, and keeps each that no kept one of its class overlaps; ends when `most` are kept.
/// `overlaps` is asked about a kept box and a later one.
pub fn suppress(classes: &[u32], most: usize, mut overlaps: impl FnMut(usize, usize) -> bool) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::with_capacity(most.min(classes.len()));
    for (index, class) in classes.iter().enumerate() {
        if kept.len() == most {
            break;
        }
        if !kept.iter().any(|&other| classes[other] == *class && overlaps(other, index)) {
            kept.push(index);
        }
    }
    kept
}

/// Whether the intersection of two boxes is more than `share` of their union.
#[inline]
pub fn overlap_more_than(a: &Corners, b: &Corners, share: f32) -> bool {
    let wide = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let high = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let common = wide * high;
    let area = |c: &Corners| (c[2] - c[0]) * (c[3] - c[1]);
    common > share * (area(a) + area(b) - common)
}

impl Oriented {
    /// Its four corners, in turn.
    pub fn corners(&self) -> [[f32; 2]; 4] {
        let (sin, cos) = self.angle.sin_cos();
        let [x, y] = self.centre;
        let [w, h] = self.size.map(|side| side / 2.0);
        let (across, down) = ([w * cos, w * sin], [-h * sin, h * cos]);
        let corner = |a: f32, d: f32| [x + a * across[0] + d * down[0], y + a * across[1] + d * down[1]];
        [corner(-1.0, -1.0), corner(1.0, -1.0), corner(1.0, 1.0), corner(-1.0, 1.0)]
    }

    /// The straight box around it.
    pub fn bounds(&self) -> Corners {
        let corners = self.corners();
        let over =
            |axis: usize, pick: fn(f32, f32) -> f32, start: f32| corners.iter().map(|c| c[axis]).fold(start, pick);
        [
            over(0, f32::min, f32::INFINITY),
            over(1, f32::min, f32::INFINITY),
            over(0, f32::max, f32::NEG_INFINITY),
            over(1, f32::max, f32::NEG_INFINITY),
        ]
    }

    /// The variances of the Gaussian that a uniform rectangle has the moments of: along x, along y, and between them.
    fn variances(&self) -> [f64; 3] {
        let [a, b] = self.size.map(|side| f64::from(side) * f64::from(side) / 12.0);
        let (sin, cos) = f64::from(self.angle).sin_cos();
        [a * cos * cos + b * sin * sin, a * sin * sin + b * cos * cos, (a - b) * cos * sin]
    }

    /// The similarity of the two boxes' Gaussians, 0 to 1: one less the Hellinger distance, which follows from the
    /// Bhattacharyya distance.
    ///
    /// Source: Llerena, Zeni, Kristen and Jung, "Gaussian Bounding Boxes and Probabilistic Intersection-over-Union for
    /// Object Detection" (arXiv:2106.06072), equations for B_D, H_D and ProbIoU.
    pub fn similarity(&self, other: &Self) -> f64 {
        const LEAST: f64 = 1e-7;
        let ([a1, b1, c1], [a2, b2, c2]) = (self.variances(), other.variances());
        let (a, b, c) = (a1 + a2, b1 + b2, c1 + c2);
        let [dx, dy] = [0, 1].map(|axis| f64::from(self.centre[axis]) - f64::from(other.centre[axis]));
        let spread = a * b - c * c;
        let apart = (a * dy * dy + b * dx * dx - 2.0 * c * dx * dy) / (4.0 * (spread + LEAST));
        let shape1 = (a1 * b1 - c1 * c1).max(0.0);
        let shape2 = (a2 * b2 - c2 * c2).max(0.0);
        let unlike = 0.5 * (spread / (4.0 * (shape1 * shape2).sqrt() + LEAST) + LEAST).ln();
        let distance = (apart + unlike).clamp(LEAST, 100.0);
        1.0 - (1.0 - (-distance).exp() + LEAST).sqrt()
    }

    /// Intersection over union of the two rectangles, 0 to 1.
    pub fn overlap(&self, other: &Self) -> f64 {
        let common = area(&clipped(&self.corners(), &other.corners()));
        let whole = |one: &Self| f64::from(one.size[0]) * f64::from(one.size[1]);
        let union = whole(self) + whole(other) - common;
        if union > 0.0 { common / union } else { 0.0 }
    }
}

/// What lies in both of two convex polygons, the second turning from x towards y.
fn clipped(polygon: &[[f32; 2]; 4], window: &[[f32; 2]; 4]) -> Vec<[f64; 2]> {
    let wide = |point: &[f32; 2]| point.map(f64::from);
    let mut inside: Vec<[f64; 2]> = polygon.iter().map(wide).collect();
    for side in 0..4 {
        let (from, to) = (wide(&window[side]), wide(&window[(side + 1) % 4]));
        let edge = [to[0] - from[0], to[1] - from[1]];
        let depth = |p: &[f64; 2]| edge[0] * (p[1] - from[1]) - edge[1] * (p[0] - from[0]);
        let mut next = Vec::with_capacity(inside.len() + 1);
        for (i, point) in inside.iter().enumerate() {
            let before = &inside[(i + inside.len() - 1) % inside.len()];
            let (here, there) = (depth(point), depth(before));
            if (here >= 0.0) != (there >= 0.0) {
                let part = there / (there - here);
                next.push([0, 1].map(|axis| before[axis] + part * (point[axis] - before[axis])));
            }
            if here >= 0.0 {
                next.push(*point);
            }
        }
        inside = next;
    }
    inside
}

fn area(polygon: &[[f64; 2]]) -> f64 {
    let turn = |i: usize| {
        let (a, b) = (polygon[i], polygon[(i + 1) % polygon.len()]);
        a[0] * b[1] - a[1] * b[0]
    };
    (0..polygon.len()).map(turn).sum::<f64>().abs() / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::{FRAC_PI_2, FRAC_PI_4};

    fn oriented(x: f32, y: f32, w: f32, h: f32, angle: f32) -> Oriented {
        Oriented { centre: [x, y], size: [w, h], angle }
    }

    #[test]
    fn straight_boxes() {
        let a = [0.0, 0.0, 10.0, 10.0];
        let b = [5.0, 0.0, 15.0, 10.0]; // a third
        assert!(overlap_more_than(&a, &b, 0.33) && !overlap_more_than(&a, &b, 0.34));
        assert!(!overlap_more_than(&a, &[20.0, 20.0, 30.0, 30.0], 0.0));
        assert!(!overlap_more_than(&a, &[f32::NAN; 4], 0.1));
    }

    #[test]
    fn the_best_of_a_class_stays() {
        let boxes = [[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [0.0, 0.0, 10.0, 10.0], [50.0, 0.0, 60.0, 10.0]];
        let overlaps = |a: usize, b: usize| overlap_more_than(&boxes[a], &boxes[b], 0.5);
        assert_eq!(suppress(&[0, 0, 1, 0], 10, overlaps), [0, 2, 3]);
        assert_eq!(suppress(&[0, 0, 1, 0], 2, overlaps), [0, 2]);
        assert_eq!(suppress(&[0; 4], 10, overlaps), [0, 3]);
    }

    #[test]
    fn rotated_boxes_overlap_as_their_rectangles_do() {
        let a = oriented(5.0, 5.0, 10.0, 10.0, 0.0);
        assert!((a.overlap(&oriented(10.0, 5.0, 10.0, 10.0, 0.0)) - 1.0 / 3.0).abs() < 1e-9);
        assert!((a.overlap(&oriented(5.0, 5.0, 10.0, 10.0, FRAC_PI_2)) - 1.0).abs() < 1e-5);
        // A square and the same one turned by 45 degrees: an octagon over both.
        let octagon = 200.0 * (2f64.sqrt() - 1.0);
        let share = octagon / (200.0 - octagon);
        assert!((a.overlap(&oriented(5.0, 5.0, 10.0, 10.0, FRAC_PI_4)) - share).abs() < 1e-5);
        assert_eq!(a.overlap(&oriented(50.0, 5.0, 10.0, 10.0, 0.3)), 0.0);
        assert_eq!(a.overlap(&oriented(5.0, 5.0, 0.0, 0.0, 0.3)), 0.0);
    }

    #[test]
    fn the_similarity_of_gaussians() {
        let a = oriented(5.0, 5.0, 10.0, 4.0, 0.3);
        assert!((a.similarity(&a) - 1.0).abs() < 1e-3);
        let b = oriented(7.0, 5.0, 10.0, 4.0, 0.3);
        let c = oriented(9.0, 5.0, 10.0, 4.0, 0.9);
        assert!(a.similarity(&b) > a.similarity(&c) && (a.similarity(&b) - b.similarity(&a)).abs() < 1e-12);
        assert!(a.similarity(&oriented(500.0, 5.0, 10.0, 4.0, 0.3)) < 1e-3);
        // Turning both by the same angle about the same point changes nothing.
        let turned = |o: &Oriented, by: f32| {
            let (sin, cos) = by.sin_cos();
            let [x, y] = o.centre;
            Oriented { centre: [x * cos - y * sin, x * sin + y * cos], size: o.size, angle: o.angle + by }
        };
        assert!((a.similarity(&c) - turned(&a, 1.1).similarity(&turned(&c, 1.1))).abs() < 1e-5);
    }

    #[test]
    fn bounds_hold_every_corner() {
        let bounds = oriented(0.0, 0.0, 10.0, 2.0, FRAC_PI_2).bounds();
        assert!((bounds[0] + 1.0).abs() < 1e-5 && (bounds[3] - 5.0).abs() < 1e-5);
    }
}
