//! How far a tensor is from a reference, as numbers.
//!
//! One number for a whole tensor hides faults: with every class score of an `[84,8400]` head zeroed, the cosine is still
//! 0.999999996, because the boxes' pixels drown the scores. So the cosine is also taken over every batch element and
//! channel on its own, and the worst of them is told with its place.

use rayon::prelude::*;
use serde::Serialize;

use crate::onnx::{DType, Tensor, TensorError};

/// A part of a tensor: one batch element, and one channel of it where the tensor has channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Slice {
    /// Index on axis 0.
    pub batch: usize,
    /// Index on the channel axis: axis 1 of a tensor of rank 3 or more.
    pub channel: Option<usize>,
}

impl std::fmt::Display for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.channel {
            None => write!(f, "batch element {}", self.batch),
            Some(channel) => write!(f, "batch element {}, channel {channel}", self.batch),
        }
    }
}

/// What was measured between a reference and another tensor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Bit for bit the same, but for the payload of NaNs and the sign of zero.
    pub equal: bool,
    /// The largest difference, over the elements that are finite on both sides.
    pub max_abs: f64,
    /// The largest difference over the largest magnitude of the reference.
    pub relative: f64,
    /// Root mean square of the differences.
    pub rms: f64,
    /// The largest magnitude of the reference.
    pub scale: f64,
    /// The cosine of the whole; 1 when both are zero.
    pub cosine: f64,
    /// The worst cosine of a slice of at least 16 elements, and where.
    pub worst_cosine: f64,
    /// Where the worst cosine is.
    pub worst: Option<Slice>,
    /// Norm over the reference's norm; 1 when both are zero.
    pub norm_ratio: f64,
    /// Elements of the reference that are NaN or infinite.
    pub reference_non_finite: usize,
    /// Elements of the other that are NaN or infinite.
    pub non_finite: usize,
    /// Elements that are NaN or infinite on one side, and not just so on the other.
    pub non_finite_apart: usize,
}

/// Two tensors that cannot be compared element by element.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum Mismatch {
    #[error("the type is {other}, not {reference}")]
    Type { reference: DType, other: DType },
    #[error("the sizes are {other:?}, not {reference:?}")]
    Sizes { reference: Vec<i64>, other: Vec<i64> },
    #[error(transparent)]
    Unreadable(#[from] TensorError),
}

/// Measures how far `other` is from `reference`.
///
/// # Errors
/// Other sizes, another kind of type (a float type may stand for another), or values that cannot be read.
pub fn metrics(reference: &Tensor, other: &Tensor) -> Result<Metrics, Mismatch> {
    let (r, o) = (reference.dtype(), other.dtype());
    if r != o && !(r.is_float() && o.is_float()) {
        return Err(Mismatch::Type { reference: r, other: o });
    }
    if reference.dims() != other.dims() {
        return Err(Mismatch::Sizes { reference: reference.dims().to_vec(), other: other.dims().to_vec() });
    }
    if r == DType::String {
        let equal = reference.string_data == other.string_data;
        let apart = reference.string_data.iter().zip(&other.string_data).filter(|(a, b)| a != b).count();
        return Ok(Metrics { equal, max_abs: apart as f64, ..Sums::default().metrics() });
    }
    let (values, others) = match (reference.to_f64s(), other.to_f64s()) {
        (Ok(values), Ok(others)) => (values, others),
        // Types without numbers that can be told apart here, such as float8 and complex ones: the same bytes are the same.
        (Err(problem), _) | (_, Err(problem)) => {
            let same = r == o && matches!((reference.to_bytes(), other.to_bytes()), (Ok(a), Ok(b)) if a == b);
            return if same { Ok(Sums::default().metrics()) } else { Err(problem.into()) };
        }
    };
    let mut found = of_values(reference.dims(), &values, &others);
    // Whole numbers above 2^53 are not all floats.
    if found.equal && !r.is_float() && r == o {
        found.equal = matches!((reference.to_bytes(), other.to_bytes()), (Ok(a), Ok(b)) if a == b);
    }
    Ok(found)
}

/// Elements that a thread looks at in one go, at least.
pub(super) const AT_A_TIME: usize = 1 << 14;

/// [`metrics`] of plain values.
pub(crate) fn of_values(dims: &[i64], reference: &[f64], other: &[f64]) -> Metrics {
    let layout = Layout::of(dims);
    let run = layout.run.max(1);
    // A thread takes many slices of a few elements at a time, or one of many.
    let together = (AT_A_TIME / run).max(1);
    let part = |(index, (reference, other)): (usize, (&[f64], &[f64]))| {
        let mut whole = Sums::default();
        let mut worst: Option<(f64, Slice)> = None;
        for (place, (reference, other)) in reference.chunks(run).zip(other.chunks(run)).enumerate() {
            let mut sums = Sums::default();
            reference.iter().zip(other).for_each(|(&r, &o)| sums.add(r, o));
            if layout.run >= 16 {
                let cosine = sums.cosine();
                if worst.is_none_or(|(least, _)| cosine < least) {
                    worst = Some((cosine, layout.slice(index * together + place)));
                }
            }
            whole.merge(&sums);
        }
        (whole, worst)
    };
    let chunks = reference.par_chunks(run * together).zip(other.par_chunks(run * together));
    let parts: Vec<(Sums, Option<(f64, Slice)>)> = chunks.enumerate().map(part).collect();
    let mut whole = Sums::default();
    let mut worst: Option<(f64, Slice)> = None;
    for (sums, lowest) in parts {
        whole.merge(&sums);
        if let Some(lowest) = lowest.filter(|lowest| worst.is_none_or(|(least, _)| lowest.0 < least)) {
            worst = Some(lowest);
        }
    }
    let metrics = whole.metrics();
    Metrics {
        worst_cosine: worst.map_or(metrics.cosine, |(cosine, _)| cosine),
        worst: worst.map(|(_, slice)| slice),
        ..metrics
    }
}

/// How a tensor falls into slices: runs of elements that lie together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Elements of a slice.
    pub run: usize,
    /// Channels of a batch element; 0 where the tensor has none.
    pub channels: usize,
}

impl Layout {
    pub fn of(dims: &[i64]) -> Self {
        let size = |dims: &[i64]| dims.iter().product::<i64>().max(0) as usize;
        match dims {
            [] => Self { run: 1, channels: 0 },
            [_, channels, rest @ ..] if !rest.is_empty() => Self { run: size(rest), channels: *channels as usize },
            [_, rest @ ..] => Self { run: size(rest), channels: 0 },
        }
    }

    pub fn slice(&self, index: usize) -> Slice {
        match self.channels {
            0 => Slice { batch: index, channel: None },
            channels => Slice { batch: index / channels, channel: Some(index % channels) },
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Sums {
    count: usize,
    differ: bool,
    max_abs: f64,
    scale: f64,
    squares: f64,
    dot: f64,
    reference: f64,
    other: f64,
    reference_non_finite: usize,
    non_finite: usize,
    apart: usize,
}

impl Sums {
    #[inline]
    fn add(&mut self, r: f64, o: f64) {
        self.count += 1;
        if !(r.is_finite() && o.is_finite()) {
            self.reference_non_finite += !r.is_finite() as usize;
            self.non_finite += !o.is_finite() as usize;
            if !(r == o || (r.is_nan() && o.is_nan())) {
                self.apart += 1;
                self.differ = true;
            }
            return;
        }
        let difference = (r - o).abs();
        self.differ |= difference != 0.0;
        self.max_abs = self.max_abs.max(difference);
        self.scale = self.scale.max(r.abs());
        self.squares += difference * difference;
        self.dot += r * o;
        self.reference += r * r;
        self.other += o * o;
    }

    fn merge(&mut self, more: &Sums) {
        self.count += more.count;
        self.differ |= more.differ;
        self.max_abs = self.max_abs.max(more.max_abs);
        self.scale = self.scale.max(more.scale);
        self.squares += more.squares;
        self.dot += more.dot;
        self.reference += more.reference;
        self.other += more.other;
        self.reference_non_finite += more.reference_non_finite;
        self.non_finite += more.non_finite;
        self.apart += more.apart;
    }

    fn cosine(&self) -> f64 {
        match (self.reference > 0.0, self.other > 0.0) {
            (false, false) => 1.0,
            (true, true) if !self.differ => 1.0,
            (true, true) => (self.dot / (self.reference.sqrt() * self.other.sqrt())).clamp(-1.0, 1.0),
            _ => 0.0,
        }
    }

    fn metrics(&self) -> Metrics {
        let ratio = |a: f64, b: f64| if a == b { 1.0 } else { a / b };
        Metrics {
            equal: !self.differ,
            max_abs: self.max_abs,
            relative: if self.max_abs == 0.0 { 0.0 } else { self.max_abs / self.scale },
            rms: (self.squares / self.count.max(1) as f64).sqrt(),
            scale: self.scale,
            cosine: self.cosine(),
            worst_cosine: self.cosine(),
            worst: None,
            norm_ratio: ratio(self.other.sqrt(), self.reference.sqrt()),
            reference_non_finite: self.reference_non_finite,
            non_finite: self.non_finite,
            non_finite_apart: self.apart,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_scores_hide_in_the_whole_and_show_in_their_slice() {
        // 4 rows of pixels, 80 rows of scores, 8400 columns.
        let value = |i: usize| if i < 4 * 8400 { (i % 640) as f32 } else { (i % 97) as f32 / 970.0 };
        let head: Vec<f32> = (0..84 * 8400).map(value).collect();
        let broken: Vec<f32> = head.iter().enumerate().map(|(i, &x)| if i < 4 * 8400 { x } else { 0.0 }).collect();
        let dims = [1, 84, 8400];
        let found = metrics(&Tensor::from_f32("a", &dims, &head), &Tensor::from_f32("b", &dims, &broken)).unwrap();
        assert!(found.cosine > 0.99999, "{found:?}");
        assert_eq!(found.worst_cosine, 0.0);
        assert_eq!(found.worst, Some(Slice { batch: 0, channel: Some(4) }));
    }

    #[test]
    fn infinities_and_nans_must_stand_at_the_same_places() {
        let tensor = |values: &[f32]| Tensor::from_f32("t", &[values.len() as i64], values);
        let reference = tensor(&[f32::NAN, f32::INFINITY, 1.0]);
        assert!(metrics(&reference, &reference).unwrap().equal);
        let found = metrics(&reference, &tensor(&[0.0, f32::NEG_INFINITY, 1.5])).unwrap();
        assert_eq!((found.reference_non_finite, found.non_finite, found.non_finite_apart), (2, 1, 2));
        assert_eq!(found.max_abs, 0.5);
    }

    #[test]
    fn other_sizes_and_types_are_not_compared() {
        let floats = Tensor::from_f32("a", &[2], &[1.0, 2.0]);
        let told = |other: &Tensor| metrics(&floats, other).unwrap_err().to_string();
        assert_eq!(told(&Tensor::from_f32("b", &[1, 2], &[1.0, 2.0])), "the sizes are [1, 2], not [2]");
        assert_eq!(told(&Tensor::from_i64("b", &[2], &[1, 2])), "the type is int64, not float");
        let half = floats.convert(DType::Float16).unwrap();
        assert!(metrics(&floats, &half).unwrap().equal);
    }
}
