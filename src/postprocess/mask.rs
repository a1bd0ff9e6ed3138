//! Masks: coefficients times prototypes, cropped to the box and grown to the picture's pixels.

use serde::Serialize;
use serde::ser::SerializeStruct;

use super::Corners;
use crate::inputs::Fit;

/// A mask in a picture's own pixels, kept only where its box is.
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    /// The whole picture's width and height.
    pub size: [u32; 2],
    /// Where the kept part begins: left and top.
    pub origin: [u32; 2],
    /// Its width; its height follows.
    pub width: u32,
    /// Row by row, whether a pixel belongs to the object.
    pub pixels: Vec<bool>,
}

impl Mask {
    /// How many pixels belong to the object.
    pub fn area(&self) -> usize {
        self.pixels.iter().filter(|&&inside| inside).count()
    }

    /// Height of the kept part.
    pub fn height(&self) -> u32 {
        (self.pixels.len() as u32).checked_div(self.width).unwrap_or(0)
    }

    /// Lengths of runs, column by column, outside first: the uncompressed run-length form of the COCO data set.
    pub fn run_lengths(&self) -> Vec<u32> {
        let [wide, high] = self.size;
        let ([left, top], (width, height)) = (self.origin, (self.width, self.height()));
        let mut runs = Runs::default();
        runs.push(false, left * high);
        for x in 0..width {
            runs.push(false, top);
            (0..height).for_each(|y| runs.push(self.pixels[(y * width + x) as usize], 1));
            runs.push(false, high - top - height);
        }
        runs.push(false, (wide - left - width) * high);
        runs.finished()
    }
}

/// A mask as its lengths of runs, which is what is kept of it once it is drawn: a number or two for each of its columns.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedMask {
    /// The whole picture's width and height.
    pub size: [u32; 2],
    /// How many pixels belong to the object.
    pub area: usize,
    /// See [`Mask::run_lengths`].
    pub runs: Vec<u32>,
}

impl From<&Mask> for PackedMask {
    fn from(mask: &Mask) -> Self {
        let mut runs = mask.run_lengths();
        runs.shrink_to_fit();
        Self { size: mask.size, area: mask.area(), runs }
    }
}

/// Lengths of runs that take turns, the first of them outside.
#[derive(Default)]
struct Runs {
    counts: Vec<u32>,
    inside: bool,
    run: u32,
}

impl Runs {
    fn push(&mut self, inside: bool, count: u32) {
        if inside != self.inside && count > 0 {
            self.counts.push(self.run);
            (self.inside, self.run) = (inside, 0);
        }
        self.run += count;
    }

    fn finished(mut self) -> Vec<u32> {
        self.counts.push(self.run);
        self.counts
    }
}

impl Serialize for PackedMask {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("PackedMask", 2)?;
        out.serialize_field("size", &[self.size[1], self.size[0]])?;
        out.serialize_field("counts", &self.runs)?;
        out.end()
    }
}

/// The prototypes of one batch element: `count` planes of `height` x `width`.
#[derive(Clone, Copy, Debug)]
pub struct Prototypes<'a> {
    /// Plane after plane.
    pub values: &'a [f32],
    /// Height of a plane.
    pub height: usize,
    /// Width of a plane.
    pub width: usize,
    /// Pixels of the model's input to one of a plane, across and down.
    pub shrink: [f32; 2],
}

impl Prototypes<'_> {
    /// The mask of an object: where the sum of the planes is above 0, within its box. `corners` are in pixels of the
    /// model's input.
    pub fn mask(&self, coefficients: &[f32], corners: &Corners, fit: &Fit) -> Mask {
        let [wide, high] = fit.size;
        let ([left, top], [right, bottom]) = (fit.clipped(corners[0], corners[1]), fit.clipped(corners[2], corners[3]));
        let begin = [left.round() as u32, top.round() as u32];
        let end = [(right.round() as u32).clamp(begin[0], wide), (bottom.round() as u32).clamp(begin[1], high)];
        let width = end[0] - begin[0];
        let grid = self.weighed(coefficients, corners);
        let mut pixels = Vec::with_capacity((width * (end[1] - begin[1])) as usize);
        for y in begin[1]..end[1] {
            for x in begin[0]..end[0] {
                let [x, y] = fit.forward(x as f32 + 0.5, y as f32 + 0.5);
                pixels.push(grid.at(x / self.shrink[0] - 0.5, y / self.shrink[1] - 0.5) > 0.0);
            }
        }
        Mask { size: [wide, high], origin: begin, width, pixels }
    }

    /// The weighed sum of the planes around a box.
    fn weighed(&self, coefficients: &[f32], corners: &Corners) -> Grid {
        let clamp = |at: f32, shrink: f32, most: usize| ((at / shrink).max(0.0) as usize).min(most);
        let left = clamp(corners[0] - self.shrink[0], self.shrink[0], self.width);
        let top = clamp(corners[1] - self.shrink[1], self.shrink[1], self.height);
        let right = clamp(corners[2] + 2.0 * self.shrink[0], self.shrink[0], self.width).max(left);
        let bottom = clamp(corners[3] + 2.0 * self.shrink[1], self.shrink[1], self.height).max(top);
        let width = right - left;
        let mut sums = vec![0f32; width * (bottom - top)];
        let area = self.width * self.height;
        for (plane, &coefficient) in self.values.chunks_exact(area.max(1)).zip(coefficients) {
            for (row, y) in sums.chunks_exact_mut(width.max(1)).zip(top..bottom) {
                let from = &plane[y * self.width + left..][..width];
                row.iter_mut().zip(from).for_each(|(sum, &value)| *sum += coefficient * value);
            }
        }
        Grid { left, top, width, height: bottom - top, sums }
    }
}

/// A part of a plane.
struct Grid {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    sums: Vec<f32>,
}

impl Grid {
    /// The value at a point of the plane, between its samples linearly.
    fn at(&self, x: f32, y: f32) -> f32 {
        if self.sums.is_empty() {
            return f32::NEG_INFINITY;
        }
        let place = |at: f32, begin: usize, size: usize| {
            let at = (at - begin as f32).clamp(0.0, size as f32 - 1.0);
            let first = at as usize;
            (first, (first + 1).min(size - 1), at - first as f32)
        };
        let (x0, x1, across) = place(x, self.left, self.width);
        let (y0, y1, down) = place(y, self.top, self.height);
        let row = |y: usize| {
            let (a, b) = (self.sums[y * self.width + x0], self.sums[y * self.width + x1]);
            a + (b - a) * across
        };
        let (upper, lower) = (row(y0), row(y1));
        upper + (lower - upper) * down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(counts: &[u32], size: [u32; 2]) -> Vec<bool> {
        let column_wise: Vec<bool> =
            counts.iter().enumerate().flat_map(|(i, &count)| std::iter::repeat_n(i % 2 == 1, count as usize)).collect();
        assert_eq!(column_wise.len(), (size[0] * size[1]) as usize);
        (0..size[1])
            .flat_map(|y| (0..size[0]).map(move |x| (x, y)))
            .map(|(x, y)| column_wise[(x * size[1] + y) as usize])
            .collect()
    }

    #[test]
    fn run_lengths_say_the_same_picture() {
        let mut state = 7u32;
        let mut bit = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            state >> 31 == 1
        };
        for (size, origin, width, height) in [
            ([5, 4], [1, 1], 3, 2),
            ([5, 4], [0, 0], 5, 4),
            ([3, 3], [2, 0], 1, 3),
            ([4, 2], [1, 0], 0, 0),
            ([2, 6], [0, 3], 2, 3),
        ] {
            for full in [true, false] {
                let pixels: Vec<bool> = (0..width * height).map(|_| full || bit()).collect();
                let mask = Mask { size, origin, width, pixels };
                let whole = decoded(&mask.run_lengths(), size);
                let inside = |x: u32, y: u32| {
                    let (x, y) = (x.wrapping_sub(origin[0]), y.wrapping_sub(origin[1]));
                    x < width && y < height && mask.pixels[(y * width + x) as usize]
                };
                let want: Vec<bool> =
                    (0..size[1]).flat_map(|y| (0..size[0]).map(move |x| (x, y))).map(|(x, y)| inside(x, y)).collect();
                assert_eq!(whole, want, "{mask:?}");
            }
        }
    }

    #[test]
    fn a_mask_follows_its_prototype_within_its_box() {
        // One plane of 8 x 8, above 0 in its left half; the input is 32 x 32, the picture 64 x 64.
        let plane: Vec<f32> = (0..64).map(|i| if i % 8 < 4 { 1.0 } else { -1.0 }).collect();
        let prototypes = Prototypes { values: &plane, height: 8, width: 8, shrink: [4.0, 4.0] };
        let fit = Fit { scale: [0.5, 0.5], left: 0.0, top: 0.0, size: [64, 64] };
        let mask = prototypes.mask(&[2.0], &[4.0, 8.0, 28.0, 16.0], &fit);
        assert_eq!((mask.origin, mask.width, mask.height()), ([8, 16], 48, 16));
        assert_eq!(mask.area(), (32 - 8) * 16);
        let turned = prototypes.mask(&[-2.0], &[4.0, 8.0, 28.0, 16.0], &fit);
        assert_eq!(turned.area(), (56 - 32) * 16);
        let outside = prototypes.mask(&[1.0], &[-50.0, -50.0, -10.0, -10.0], &fit);
        assert_eq!(outside.area(), 0);
    }
}
