//! What is told of a tensor that nobody can read as an answer.

use serde::{Serialize, Serializer};

use crate::onnx::{DType, Tensor};

/// A tensor's type and sizes, and what its values are like.
#[derive(Serialize)]
pub struct TensorStory {
    pub name: String,
    dtype: String,
    /// Of all runs, one after the other; -1 for a size that changes from run to run.
    shape: Vec<i64>,
    #[serde(skip)]
    finite: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<Range>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mean: Option<f64>,
    nan: usize,
    infinite: usize,
}

/// The least and the greatest value: as a float, or exactly where they are whole numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Range {
    Real([f64; 2]),
    Whole([i128; 2]),
}

impl Range {
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Range::Whole(one), Range::Whole(two)) => Range::Whole([one[0].min(two[0]), one[1].max(two[1])]),
            (one, two) => {
                let (one, two) = (one.real(), two.real());
                Range::Real([one[0].min(two[0]), one[1].max(two[1])])
            }
        }
    }

    fn real(self) -> [f64; 2] {
        match self {
            Range::Real(range) => range,
            Range::Whole(range) => range.map(|number| number as f64),
        }
    }
}

impl Serialize for Range {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // No type has both numbers below i64's and above u64's, and JSON takes either.
        let whole = |number: i128| match i64::try_from(number) {
            Ok(number) => serde_json::Number::from(number),
            Err(_) => serde_json::Number::from(number as u64),
        };
        match self {
            Range::Real(range) => range.serialize(serializer),
            Range::Whole(range) => range.map(whole).serialize(serializer),
        }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Range::Real([low, high]) => write!(f, "{} to {}", short(*low), short(*high)),
            Range::Whole([low, high]) => write!(f, "{low} to {high}"),
        }
    }
}

/// `0.1250`; `1.25e-7` for what four decimals do not show.
fn short(value: f64) -> String {
    match value.abs() {
        size if size == 0.0 || (1e-3..1e9).contains(&size) => format!("{value:.4}"),
        _ => format!("{value:.3e}"),
    }
}

/// The range of whole numbers, and their sum.
fn whole(tensor: &Tensor) -> Option<(Range, f64)> {
    let unsigned = tensor.dtype() == DType::Uint64;
    let exact = |value: i64| if unsigned { i128::from(value as u64) } else { i128::from(value) };
    let mut values = tensor.to_i64s().ok()?.into_iter().map(exact);
    let first = values.next()?;
    let start = (first, first, first as f64);
    let (low, high, sum) =
        values.fold(start, |(low, high, sum), value| (low.min(value), high.max(value), sum + value as f64));
    Some((Range::Whole([low, high]), sum))
}

impl TensorStory {
    pub fn of(name: &str, tensor: &Tensor) -> Self {
        let mut story = Self {
            name: name.into(),
            dtype: tensor.dtype().spelled().into(),
            shape: tensor.dims().to_vec(),
            finite: 0,
            range: None,
            mean: None,
            nan: 0,
            infinite: 0,
        };
        if let Some((range, sum)) = whole(tensor) {
            story.finite = tensor.len();
            (story.range, story.mean) = (Some(range), Some(sum / story.finite as f64));
            return story;
        }
        let (mut low, mut high, mut sum) = (f64::INFINITY, f64::NEG_INFINITY, 0.0);
        for value in tensor.to_f64s().unwrap_or_default() {
            if value.is_finite() {
                (low, high) = (low.min(value), high.max(value));
                sum += value;
                story.finite += 1;
            } else if value.is_nan() {
                story.nan += 1;
            } else {
                story.infinite += 1;
            }
        }
        if story.finite > 0 {
            (story.range, story.mean) = (Some(Range::Real([low, high])), Some(sum / story.finite as f64));
        }
        story
    }

    /// Adds what another run gave.
    pub fn add(&mut self, more: Self) {
        let same = self.shape.len() == more.shape.len();
        for (axis, size) in self.shape.iter_mut().enumerate() {
            let other = more.shape.get(axis).copied().unwrap_or(-1);
            *size = match axis {
                0 if same => *size + other,
                _ if *size == other => *size,
                _ => -1,
            };
        }
        let all = self.finite + more.finite;
        let share = |story: &Self| story.mean.unwrap_or(0.0) * story.finite as f64 / all as f64;
        self.mean = (all > 0).then(|| share(self) + share(&more));
        self.range = match (self.range, more.range) {
            (Some(one), Some(other)) => Some(one.with(other)),
            (one, other) => one.or(other),
        };
        self.finite = all;
        self.nan += more.nan;
        self.infinite += more.infinite;
    }

    /// As a line of the screen; names take `wide` characters.
    pub fn line(&self, wide: usize) -> String {
        let size = |&size: &i64| if size < 0 { "?".to_string() } else { size.to_string() };
        let sizes: Vec<String> = self.shape.iter().map(size).collect();
        let kind = format!("{}[{}]", self.dtype, sizes.join(","));
        let mut line = format!("  {:<wide$}   {kind}", self.name);
        if let (Some(range), Some(mean)) = (self.range, self.mean) {
            line += &format!("   {range}, mean {}", short(mean));
        }
        if self.nan + self.infinite > 0 {
            line += &format!("   {} NaN, {} infinite", self.nan, self.infinite);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_told_exactly() {
        let tensor = Tensor::from_i64("ids", &[3], &[-7, (1 << 53) + 1, 4]);
        let mut story = TensorStory::of("ids", &tensor);
        assert!(story.line(3).starts_with("  ids   int64[3]   -7 to 9007199254740993, mean "), "{}", story.line(3));
        let bytes = [u64::MAX, 3].map(u64::to_le_bytes).concat();
        story.add(TensorStory::of("ids", &Tensor::new("ids", DType::Uint64, &[2], bytes)));
        let told = serde_json::to_string(&story).unwrap();
        assert!(told.contains("\"range\":[-7,18446744073709551615]") && told.contains("\"shape\":[5]"), "{told}");
    }

    #[test]
    fn floats_that_are_no_numbers_are_counted_apart() {
        let values = [f32::NAN, f32::INFINITY, 2.5e-5, -1.0];
        let story = TensorStory::of("y", &Tensor::from_f32("y", &[4], &values));
        assert_eq!(story.line(1), "  y   float32[4]   -1.0000 to 2.500e-5, mean -0.5000   1 NaN, 1 infinite");
    }
}
