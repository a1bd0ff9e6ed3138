//! Pictures as input tensors: decoded, fitted into the size that the model wants, and scaled.
//!
//! A detector gets the whole picture, shrunk or grown to fit and centred on grey (a letterbox); a classifier gets the
//! middle of it, with the shorter side fitted. Where each pixel went is kept in [`Fit`], so that boxes can be given in
//! the picture's own pixels.

use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};

use super::InputError;
use crate::onnx::{DType, Tensor};

/// The grey around a letterboxed picture, of 255.
const BORDER: u8 = 114;
/// The most pixels a picture may have: a file of a few bytes can claim to be of any size.
const MOST_PIXELS: u64 = 1 << 28;

/// What a model wants to be given as a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureInput {
    /// The input's name.
    pub name: String,
    /// Its element type; floats are scaled to 0..=1, whole numbers are left at 0..=255.
    pub dtype: DType,
    /// 1 (grey), 3 (red, green, blue) or 4 (and opacity).
    pub channels: usize,
    /// Whether the channels come last (NHWC) and not before height and width (NCHW).
    pub channels_last: bool,
    /// The height in pixels, where it is not free.
    pub height: Option<usize>,
    /// The width in pixels, where it is not free.
    pub width: Option<usize>,
    /// A free side is a multiple of this.
    pub stride: usize,
    /// How the picture is fitted.
    pub fitting: Fitting,
}

/// How a picture is fitted into another size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fitting {
    /// All of it, with a grey border.
    Letterbox,
    /// As much of its middle as there is room for.
    CentreCrop,
}

/// Where a picture lies in a tensor: `x' = x * scale + left`, and likewise for y.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// The tensor's pixels to one of the picture, across and down: equal but for rounding.
    pub scale: [f32; 2],
    /// Where the picture's left edge lies in the tensor; negative where it was cropped.
    pub left: f32,
    /// Where its upper edge lies.
    pub top: f32,
    /// The picture's width and height.
    pub size: [u32; 2],
}

impl Fit {
    /// No change: the tensor is the picture.
    pub fn identity(width: u32, height: u32) -> Self {
        Self { scale: [1.0, 1.0], left: 0.0, top: 0.0, size: [width, height] }
    }

    /// How a picture of `size` (width, height) is fitted into `width` x `height`.
    pub fn new(size: [u32; 2], width: usize, height: usize, fitting: Fitting) -> Self {
        let ratios = [width as f32 / size[0] as f32, height as f32 / size[1] as f32];
        let ratio = match fitting {
            Fitting::Letterbox => ratios[0].min(ratios[1]),
            Fitting::CentreCrop => ratios[0].max(ratios[1]),
        };
        let fitted = size.map(|side| (side as f32 * ratio).round().max(1.0));
        let scale = [fitted[0] / size[0] as f32, fitted[1] / size[1] as f32];
        // Half of what is left goes to each side, the odd pixel to the right and below.
        let margin = |room: usize, side: f32| ((room as f32 - side) / 2.0 - 0.1).round();
        Self { scale, left: margin(width, fitted[0]), top: margin(height, fitted[1]), size }
    }

    /// A point of the tensor in the picture's pixels, not clipped to it.
    pub fn point(&self, x: f32, y: f32) -> [f32; 2] {
        [(x - self.left) / self.scale[0], (y - self.top) / self.scale[1]]
    }

    /// A point of the tensor in the picture's pixels, clipped to it.
    pub fn clipped(&self, x: f32, y: f32) -> [f32; 2] {
        let [x, y] = self.point(x, y);
        [x.clamp(0.0, self.size[0] as f32), y.clamp(0.0, self.size[1] as f32)]
    }

    /// A point of the picture in the tensor's pixels.
    pub fn forward(&self, x: f32, y: f32) -> [f32; 2] {
        [x * self.scale[0] + self.left, y * self.scale[1] + self.top]
    }
}

/// Reads a picture, turned as its camera said it should be.
///
/// # Errors
/// The file is not there, or no picture that can be read.
pub fn read(path: &Path) -> Result<DynamicImage, InputError> {
    let failed = |problem: String| InputError::file(path, problem);
    let unreadable = |error: image::ImageError| failed(format!("is no picture that can be read: {error}"));
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
    let mut decoder = reader.map_err(|error| failed(error.to_string()))?.into_decoder().map_err(unreadable)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 || u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(failed(format!("is a picture of {width} x {height} pixels, which is not taken")));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

impl PictureInput {
    /// The size that a picture is fitted into: what the model fixes, and for a free side what suits the picture.
    pub fn size_for(&self, width: u32, height: u32) -> (usize, usize) {
        let up = |size: f32| (size.round().max(1.0) as usize).next_multiple_of(self.stride.max(1));
        match (self.width, self.height) {
            (Some(wide), Some(high)) => (wide, high),
            (Some(wide), None) => (wide, up(wide as f32 * height as f32 / width as f32)),
            (None, Some(high)) => (up(high as f32 * width as f32 / height as f32), high),
            (None, None) => (up(width as f32), up(height as f32)),
        }
    }

    /// The tensor of some pictures of one size, one for each batch element, and where each of them lies in it.
    ///
    /// # Errors
    /// A type that pictures have not.
    pub fn tensor(&self, pictures: &[DynamicImage]) -> Result<(Tensor, Vec<Fit>), String> {
        let Some(first) = pictures.first() else { return Err("no picture was given".into()) };
        let (width, height) = self.size_for(first.width(), first.height());
        if width.saturating_mul(height) as u64 > MOST_PIXELS {
            let (wide, high) = (first.width(), first.height());
            return Err(format!(
                "is {wide} x {high}, which would be fitted into {width} x {height} pixels; give a smaller size with --shape"
            ));
        }
        let scaled = self.dtype.is_float();
        let mut values = vec![0f32; pictures.len() * self.channels * width * height];
        let mut fits = Vec::with_capacity(pictures.len());
        for (picture, values) in pictures.iter().zip(values.chunks_exact_mut(self.channels * width * height)) {
            let fit = Fit::new([picture.width(), picture.height()], width, height, self.fitting);
            let samples = self.samples(picture);
            let border = if self.fitting == Fitting::Letterbox { BORDER } else { 0 };
            let source = Source { samples: &samples, channels: self.channels, fit };
            let planes = source.fitted(width, height, border);
            let top = if scaled { 255.0 } else { 1.0 };
            if self.channels_last {
                values.iter_mut().zip(&planes).for_each(|(to, &from)| *to = f32::from(from) / top);
            } else {
                for (channel, plane) in values.chunks_exact_mut(width * height).enumerate() {
                    let from = planes.iter().skip(channel).step_by(self.channels);
                    plane.iter_mut().zip(from).for_each(|(to, &from)| *to = f32::from(from) / top);
                }
            }
            fits.push(fit);
        }
        let (batch, channels) = (pictures.len() as i64, self.channels as i64);
        let (high, wide) = (height as i64, width as i64);
        let dims = if self.channels_last { [batch, high, wide, channels] } else { [batch, channels, high, wide] };
        let tensor = match self.dtype {
            DType::Float => Some(Tensor::new(&self.name, DType::Float, &dims, bytemuck::cast_slice(&values).to_vec())),
            other => {
                let wide: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
                Tensor::from_f64s(&self.name, other, &dims, &wide)
            }
        };
        let tensor = tensor.ok_or_else(|| format!("takes {}, which no picture is", self.dtype.spelled()))?;
        Ok((tensor, fits))
    }

    /// The picture's samples, as many a pixel as the model takes.
    fn samples(&self, picture: &DynamicImage) -> Vec<u8> {
        match self.channels {
            1 => picture.to_luma8().into_raw(),
            4 => picture.to_rgba8().into_raw(),
            _ => picture.to_rgb8().into_raw(),
        }
    }

    /// Width and height of a tensor for this input.
    pub fn size_of(&self, tensor: &Tensor) -> Option<[usize; 2]> {
        let &[_, a, b, c] = tensor.dims() else { return None };
        let [width, height] = if self.channels_last { [b, a] } else { [c, b] };
        Some([usize::try_from(width).ok()?, usize::try_from(height).ok()?])
    }

    /// A picture of one batch element of a tensor, for inputs that came as numbers.
    pub fn picture_of(&self, tensor: &Tensor, element: usize) -> Option<RgbImage> {
        let &[_, a, b, c] = tensor.dims() else { return None };
        let (channels, height, width) = if self.channels_last { (c, a, b) } else { (a, b, c) };
        let [channels, height, width] = [channels, height, width].map(|size| usize::try_from(size).unwrap_or(0));
        let area = height * width;
        let values = tensor.to_f32s().ok()?;
        let values = values.get(element * channels * area..(element + 1) * channels * area)?;
        let factor = if tensor.dtype().is_float() { 255.0 } else { 1.0 };
        let at = |channel: usize, pixel: usize| {
            let channel = if channels < 3 { 0 } else { channel };
            let place = if self.channels_last { pixel * channels + channel } else { channel * area + pixel };
            (values[place] * factor).round().clamp(0.0, 255.0) as u8
        };
        let pixels: Vec<u8> = (0..area).flat_map(|pixel| [at(0, pixel), at(1, pixel), at(2, pixel)]).collect();
        RgbImage::from_raw(width as u32, height as u32, pixels)
    }
}

/// A picture's samples and where they are to go.
struct Source<'a> {
    samples: &'a [u8],
    channels: usize,
    fit: Fit,
}

/// Two neighbours along an axis and the share of the second, in 2048ths.
#[derive(Clone, Copy)]
struct Between {
    first: usize,
    second: usize,
    share: i32,
}

impl Source<'_> {
    /// The samples fitted into `width` x `height`, channels last; between pixels linearly, edges repeated.
    fn fitted(&self, width: usize, height: usize, border: u8) -> Vec<u8> {
        let fit = &self.fit;
        let [from_width, from_height] = fit.size.map(|side| side as usize);
        let columns = places(fit.left, fit.scale[0], from_width, width);
        let rows = places(fit.top, fit.scale[1], from_height, height);
        let mut out = vec![border; width * height * self.channels];
        let stride = from_width * self.channels;
        for (row, place) in out.chunks_exact_mut(width * self.channels).zip(&rows) {
            let Some(down) = place else { continue };
            let above = &self.samples[down.first * stride..][..stride];
            let below = &self.samples[down.second * stride..][..stride];
            for (pixel, place) in row.chunks_exact_mut(self.channels).zip(&columns) {
                let Some(across) = place else { continue };
                let (left, right) = (across.first * self.channels, across.second * self.channels);
                for (channel, to) in pixel.iter_mut().enumerate() {
                    let mix = |row: &[u8]| {
                        let (a, b) = (i32::from(row[left + channel]), i32::from(row[right + channel]));
                        a * 2048 + (b - a) * across.share
                    };
                    let (upper, lower) = (mix(above) as i64, mix(below) as i64);
                    let sum = upper * 2048 + (lower - upper) * i64::from(down.share);
                    *to = ((sum + (1 << 21)) >> 22) as u8;
                }
            }
        }
        out
    }
}

/// For each place along an axis of the result, the two of the source it lies between; none in the border.
fn places(offset: f32, scale: f32, from: usize, to: usize) -> Vec<Option<Between>> {
    let end = offset + (from as f32 * scale).round();
    let place = |at: usize| {
        let at = at as f32;
        if at < offset || at >= end {
            return None;
        }
        // Centres of pixels lie on centres.
        let centre = ((at - offset + 0.5) / scale - 0.5).clamp(0.0, from as f32 - 1.0);
        let first = centre as usize;
        let share = ((centre - first as f32) * 2048.0).round() as i32;
        Some(Between { first, second: (first + 1).min(from - 1), share })
    };
    (0..to).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn input(width: usize, height: usize) -> PictureInput {
        PictureInput {
            name: "images".into(),
            dtype: DType::Float,
            channels: 3,
            channels_last: false,
            height: Some(height),
            width: Some(width),
            stride: 32,
            fitting: Fitting::Letterbox,
        }
    }

    fn shaded(width: u32, height: u32) -> DynamicImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x % 256) as u8, (y % 256) as u8, 7])).into()
    }

    #[test]
    fn a_picture_of_the_right_size_goes_in_unchanged() {
        let picture = shaded(8, 6);
        let (tensor, fits) = input(8, 6).tensor(std::slice::from_ref(&picture)).unwrap();
        assert_eq!(tensor.dims(), [1, 3, 6, 8]);
        assert_eq!(fits[0], Fit::identity(8, 6));
        let values = tensor.to_f32s().unwrap();
        assert_eq!(values[48 + 8 * 3 + 5], 3.0 / 255.0, "the green of a pixel in row 3 is 3");
        assert_eq!(input(8, 6).picture_of(&tensor, 0).unwrap(), picture.to_rgb8());
    }

    #[test]
    fn the_border_is_grey_and_points_map_back() {
        let (tensor, fits) = input(64, 64).tensor(&[shaded(100, 50)]).unwrap();
        let values = tensor.to_f32s().unwrap();
        assert_eq!(values[0], 114.0 / 255.0);
        let fit = fits[0];
        assert_eq!((fit.left, fit.top), (0.0, 16.0));
        let [x, y] = fit.forward(30.0, 20.0);
        let [x, y] = fit.point(x, y);
        assert!((x - 30.0).abs() < 1e-4 && (y - 20.0).abs() < 1e-4);
        assert_eq!(fit.clipped(-5.0, 200.0), [0.0, 50.0]);
        // The picture's middle row (y = 25) lies in the tensor's row 32.
        let green = values[64 * 64 + 32 * 64 + 32] * 255.0;
        assert!((green - 25.0).abs() <= 1.0, "{green}");
    }

    #[test]
    fn a_classifier_sees_the_middle() {
        let mut input = input(32, 32);
        input.fitting = Fitting::CentreCrop;
        let (tensor, fits) = input.tensor(&[shaded(64, 32)]).unwrap();
        assert_eq!((fits[0].left, fits[0].top), (-16.0, 0.0));
        let red = tensor.to_f32s().unwrap()[0] * 255.0;
        assert!((red - 16.0).abs() <= 1.0, "{red}");
    }

    #[test]
    fn a_free_side_suits_the_picture() {
        let mut free = input(0, 48);
        free.width = None;
        assert_eq!(free.size_for(200, 100), (96, 48));
        free.height = None;
        assert_eq!(free.size_for(200, 100), (224, 128));
    }

    #[test]
    fn channels_last_and_whole_numbers() {
        let mut input = input(8, 6);
        input.channels_last = true;
        input.dtype = DType::Uint8;
        let (tensor, _) = input.tensor(&[shaded(8, 6)]).unwrap();
        assert_eq!(tensor.dims(), [1, 6, 8, 3]);
        assert_eq!(&tensor.to_bytes().unwrap()[24 * 3..24 * 3 + 3], [0, 3, 7]);
    }

    #[test]
    fn the_shapes_of_tiny_pictures() {
        for (width, height) in [(1, 1), (1, 500), (3000, 2)] {
            let (tensor, _) = input(32, 32).tensor(&[shaded(width, height)]).unwrap();
            assert_eq!(tensor.dims(), [1, 3, 32, 32]);
        }
    }
}
