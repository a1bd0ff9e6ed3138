//! Deterministic stand-ins for weights that were taken out of a model: the `porter-fill` form.
//!
//! A stripped tensor keeps its name, dims and type; its `external_data` names the location `porter-fill`, which is no
//! file, and how to draw the values: `distribution` (`uniform`), `mean`, `std`, `seed`. Element i, in row-major order, is
//!
//! ```text
//! u_i = splitmix64(seed + i) >> 11, times 2^-53       in [0, 1)
//! x_i = mean + std * sqrt(3) * (2 u_i - 1)            in float64, then rounded to the tensor's type
//! ```
//!
//! where splitmix64 is the finaliser of `s + 0x9E3779B97F4A7C15`.

use half::{bf16, f16};

use super::proto::{ModelProto, StringStringEntryProto, TensorProto};
use super::read::for_each_tensor;
use super::{DType, Payload, TensorError, small};

/// The `external_data` location that marks a stripped tensor.
pub const LOCATION: &str = "porter-fill";

/// The most bytes a recipe may ask for: a model of a few bytes must not be able to fill a disk.
const LARGEST: usize = 1 << 36;

/// How to draw a stripped tensor's values.
#[derive(Clone, Debug, PartialEq)]
pub struct Fill {
    /// Mean of the uniform distribution.
    pub mean: f64,
    /// Standard deviation of the uniform distribution.
    pub std: f64,
    /// Where the sequence of splitmix64 starts.
    pub seed: u64,
    /// The type the values are rounded to.
    pub dtype: DType,
    /// How many elements to draw.
    pub count: usize,
}

impl Fill {
    /// The recipe that a tensor's `external_data` gives; `None` when the tensor is not a stripped one.
    pub fn of(tensor: &TensorProto, dtype: DType, count: usize) -> Result<Option<Self>, TensorError> {
        let entry = |key: &str| {
            tensor.external_data.iter().find(|e| e.key.as_deref() == Some(key)).and_then(|e| e.value.as_deref())
        };
        if entry("location") != Some(LOCATION) {
            return Ok(None);
        }
        if let Some(other) = entry("distribution").filter(|&d| d != "uniform") {
            return Err(TensorError::Fill(format!("distribution '{other}' is unknown; only 'uniform' is")));
        }
        if !supports(dtype) {
            return Err(TensorError::Fill(format!("a {dtype} tensor cannot be filled")));
        }
        if dtype.byte_len(count).is_none_or(|bytes| bytes > LARGEST) {
            let most = LARGEST >> 30;
            return Err(TensorError::Fill(format!(
                "{:?} of {dtype} is more than porter fills ({most} GiB)",
                tensor.dims
            )));
        }
        let number = |key: &'static str| -> Result<f64, TensorError> {
            let text = entry(key).ok_or_else(|| TensorError::Fill(format!("'{key}' is missing")))?;
            text.parse::<f64>()
                .ok()
                .filter(|x| x.is_finite())
                .ok_or_else(|| TensorError::Fill(format!("{key} '{text}' is not a finite number")))
        };
        let (mean, std) = (number("mean")?, number("std")?);
        let text = entry("seed").ok_or_else(|| TensorError::Fill("'seed' is missing".into()))?;
        let seed =
            text.parse().map_err(|_| TensorError::Fill(format!("seed '{text}' is not an unsigned 64-bit number")))?;
        Ok(Some(Self { mean, std, seed, dtype, count }))
    }

    /// The `external_data` entries that say this recipe.
    pub fn entries(&self) -> Vec<StringStringEntryProto> {
        let entry = |key: &str, value: String| StringStringEntryProto::new(key, value);
        vec![
            entry("location", LOCATION.into()),
            entry("distribution", "uniform".into()),
            entry("mean", self.mean.to_string()),
            entry("std", self.std.to_string()),
            entry("seed", self.seed.to_string()),
        ]
    }

    /// Length of the drawn values in bytes.
    pub fn byte_len(&self) -> usize {
        (self.count * self.dtype.bits()).div_ceil(8)
    }

    /// Element `i`, before it is rounded to the tensor's type.
    #[inline]
    pub fn value(&self, i: usize) -> f64 {
        let mut z = self.seed.wrapping_add(i as u64).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let u = (z >> 11) as f64 * 2f64.powi(-53);
        self.mean + self.std * 3f64.sqrt() * (2.0 * u - 1.0)
    }

    /// Draws the bytes, at most `chunk` elements at a time.
    pub(super) fn for_each_chunk(&self, chunk: usize, take: &mut dyn FnMut(&[u8])) {
        let mut out = Vec::with_capacity(chunk * 8);
        let codes = small::is_small(self.dtype).then(|| small::Codes::of(self.dtype));
        let mut start = 0;
        while start < self.count {
            let range = start..self.count.min(start + chunk);
            start = range.end;
            out.clear();
            let values = range.map(|i| self.value(i));
            // Chunks are a multiple of eight elements, so that packed ones end with a byte.
            if let Some(codes) = &codes {
                small::pack(self.dtype, values.map(|x| codes.nearest(x)), &mut out);
                take(&out);
                continue;
            }
            match self.dtype {
                DType::Float => out.extend(values.flat_map(|x| (x as f32).to_le_bytes())),
                DType::Double => out.extend(values.flat_map(f64::to_le_bytes)),
                DType::Float16 => out.extend(values.flat_map(|x| f16::from_f64(x).to_le_bytes())),
                // Through float32, as numpy's bfloat16 rounds: the definition of the form is what numpy draws.
                DType::Bfloat16 => out.extend(values.flat_map(|x| bf16::from_f32(x as f32).to_le_bytes())),
                DType::Int8 | DType::Uint8 => out.extend(values.map(|x| x as i64 as u8)),
                DType::Int16 | DType::Uint16 => out.extend(values.flat_map(|x| (x as i64 as u16).to_le_bytes())),
                DType::Int32 | DType::Uint32 => out.extend(values.flat_map(|x| (x as i64 as u32).to_le_bytes())),
                _ => out.extend(values.flat_map(|x| (x as i64).to_le_bytes())),
            }
            take(&out);
        }
    }
}

/// How many tensors of a model are recipes.
pub fn count(model: &ModelProto) -> usize {
    let mut filled = 0;
    for_each_tensor(model, &mut |tensor| filled += matches!(tensor.raw_data, Some(Payload::Fill(_))) as usize);
    filled
}

/// The types a recipe can be rounded to. Integers truncate towards zero, as numpy's `astype` does; small numbers that are
/// packed, and those beyond a small type's largest, are as [`small`] says.
pub fn supports(dtype: DType) -> bool {
    use DType::*;
    small::is_small(dtype)
        || matches!(
            dtype,
            Float | Double | Float16 | Bfloat16 | Int8 | Uint8 | Int16 | Uint16 | Int32 | Uint32 | Int64 | Uint64
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_the_documented_sequence() {
        // From the definition, computed with numpy for seed 7.
        let fill = Fill { mean: 0.5, std: 2.0, seed: 7, dtype: DType::Double, count: 3 };
        let want = [-0.2632818930758585, 1.3210241259471727, 1.7634460895633552];
        for (i, want) in want.into_iter().enumerate() {
            assert_eq!(fill.value(i), want, "element {i}");
        }
    }

    #[test]
    fn entries_say_the_same_recipe_again() {
        let fill = Fill { mean: -1.25e-3, std: 0.1, seed: u64::MAX, dtype: DType::Float, count: 4 };
        let tensor = TensorProto { external_data: fill.entries(), ..Default::default() };
        assert_eq!(Fill::of(&tensor, DType::Float, 4).unwrap(), Some(fill));
    }
}
