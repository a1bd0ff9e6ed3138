//! Letters, as grey values: Noto Sans Mono, drawn ahead at one size.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

const SIZE: RasterHeight = RasterHeight::Size16;

/// The height of a letter in pixels.
pub(super) const HEIGHT: u32 = SIZE.val() as u32;
/// The width of a letter in pixels.
pub(super) const WIDTH: u32 = get_raster_width(FontWeight::Regular, SIZE) as u32;

/// The rows of a letter; a question mark for one that is not drawn.
pub(super) fn letter(letter: char) -> impl Iterator<Item = &'static [u8]> {
    let known = |letter: char| get_raster(letter, FontWeight::Regular, SIZE);
    known(letter).or_else(|| known('?')).into_iter().flat_map(|letter| letter.rows())
}
