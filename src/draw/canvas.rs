//! Lines, dots, masks and labels on a picture, cut off at its edges.

use image::{Rgb, RgbImage};

use super::text;
use crate::postprocess::Mask;

/// Red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour(pub [u8; 3]);

impl Colour {
    /// Black or white, whichever is easier to read on it.
    fn ink(self) -> Colour {
        let [r, g, b] = self.0.map(f32::from);
        if 0.299 * r + 0.587 * g + 0.114 * b > 140.0 { Colour([0; 3]) } else { Colour([255; 3]) }
    }
}

/// A picture that is drawn on.
pub struct Canvas<'a> {
    picture: &'a mut RgbImage,
    stroke: f32,
    /// How many times larger letters are drawn than they are in the font.
    zoom: u32,
}

impl<'a> Canvas<'a> {
    /// A canvas, with strokes and letters that suit the picture's size.
    pub fn new(picture: &'a mut RgbImage) -> Self {
        let side = (picture.width() + picture.height()) as f32 / 2.0;
        let zoom = (side / 1400.0).round().max(1.0) as u32;
        Self { stroke: (side * 0.003).round().max(2.0), picture, zoom }
    }

    /// The width of a line in pixels.
    pub fn stroke(&self) -> f32 {
        self.stroke
    }

    /// The height of a line of letters in pixels.
    pub fn letter_height(&self) -> u32 {
        text::HEIGHT * self.zoom
    }

    fn mix(&mut self, x: i64, y: i64, colour: Colour, share: f32) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
        if x < self.picture.width() && y < self.picture.height() {
            let Rgb(old) = self.picture.get_pixel_mut(x, y);
            for (old, new) in old.iter_mut().zip(colour.0) {
                *old = (f32::from(*old) + (f32::from(new) - f32::from(*old)) * share).round() as u8;
            }
        }
    }

    /// The part of the picture that a box covers, in whole pixels: from and to, across and down.
    fn within(&self, left: f32, top: f32, right: f32, bottom: f32) -> Option<[i64; 4]> {
        if ![left, top, right, bottom].iter().all(|at| at.is_finite()) {
            return None;
        }
        let (width, height) = (self.picture.width() as f32, self.picture.height() as f32);
        let cut = |at: f32, most: f32| at.clamp(0.0, most) as i64;
        Some([
            cut(left.floor(), width),
            cut(right.ceil() + 1.0, width),
            cut(top.floor(), height),
            cut(bottom.ceil() + 1.0, height),
        ])
    }

    /// A line with round ends and soft edges.
    pub fn line(&mut self, from: [f32; 2], to: [f32; 2], width: f32, colour: Colour) {
        let reach = width / 2.0 + 1.0;
        let (left, right) = (from[0].min(to[0]) - reach, from[0].max(to[0]) + reach);
        let (top, bottom) = (from[1].min(to[1]) - reach, from[1].max(to[1]) + reach);
        let Some([begin, end, above, below]) = self.within(left, top, right, bottom) else { return };
        let along = [to[0] - from[0], to[1] - from[1]];
        let length = along[0] * along[0] + along[1] * along[1];
        for y in above..below {
            // A slanted line crosses each row in a short run: the rest of the row is not looked at.
            let (begin, end) = match along[1].abs() > 1e-3 {
                true => {
                    let at = |y: f32| (((y - from[1]) / along[1]).clamp(0.0, 1.0)) * along[0] + from[0];
                    let (a, b) = (at(y as f32 - reach), at(y as f32 + 1.0 + reach));
                    let (a, b) = (a.min(b) - reach - 1.0, a.max(b) + reach + 1.0);
                    (begin.max(a as i64), end.min(b as i64 + 1))
                }
                false => (begin, end),
            };
            for x in begin..end {
                let point = [x as f32 + 0.5 - from[0], y as f32 + 0.5 - from[1]];
                let part = if length > 0.0 {
                    ((point[0] * along[0] + point[1] * along[1]) / length).clamp(0.0, 1.0)
                } else {
                    0.0
                };
                let off = [point[0] - part * along[0], point[1] - part * along[1]];
                let distance = (off[0] * off[0] + off[1] * off[1]).sqrt();
                self.mix(x, y, colour, (width / 2.0 + 0.5 - distance).clamp(0.0, 1.0));
            }
        }
    }

    /// A filled circle.
    pub fn dot(&mut self, at: [f32; 2], radius: f32, colour: Colour) {
        self.line(at, at, radius * 2.0, colour);
    }

    /// Covers a mask's pixels.
    pub fn cover(&mut self, mask: &Mask, colour: Colour, share: f32) {
        let rows = mask.pixels.chunks_exact(mask.width.max(1) as usize);
        for (row, y) in rows.zip(mask.origin[1]..) {
            for (_, x) in row.iter().zip(mask.origin[0]..).filter(|(inside, _)| **inside) {
                self.mix(i64::from(x), i64::from(y), colour, share);
            }
        }
    }

    /// Text on a filled ground, standing on a point; below it where there is no room above.
    pub fn label(&mut self, at: [f32; 2], label: &str, colour: Colour) {
        if label.is_empty() || !at.iter().all(|at| at.is_finite()) {
            return;
        }
        let letters: Vec<char> = label.chars().collect();
        let (high, wide) = (self.letter_height() as i64, (text::WIDTH * self.zoom) as i64);
        let room = (i64::from(self.picture.width()) - wide * letters.len() as i64).max(0);
        let left = (at[0] as i64).clamp(0, room);
        let above = at[1] as i64 - high;
        let top = (if above < 0 { at[1].max(0.0) as i64 } else { above }).min(i64::from(self.picture.height()) - high);
        for y in top..top + high {
            for x in left..left + wide * letters.len() as i64 {
                self.mix(x, y, colour, 1.0);
            }
        }
        let (zoom, ink) = (self.zoom as i64, colour.ink());
        for (letter, place) in letters.iter().zip(0..) {
            for (row, y) in text::letter(*letter).zip(0..) {
                for (&share, x) in row.iter().zip(0..) {
                    for step in 0..zoom * zoom {
                        let (x, y) = (left + place * wide + x * zoom + step % zoom, top + y * zoom + step / zoom);
                        self.mix(x, y, ink, f32::from(share) / 255.0);
                    }
                }
            }
        }
    }
}
