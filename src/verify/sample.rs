//! The inputs a model is verified on: several, of different kinds, because every single kind hides something.
//!
//! A structured picture uses most of a detector's weights and leaves its scores apart. White noise saturates, and finds
//! what only large values reach. A constant makes normalisations divide by nothing. Batches have elements that differ, since
//! a fault may spare the first.

use serde::Serialize;

use crate::engine::Tensors;
use crate::engine::random::Random;
use crate::engine::samples::{self, Options};
use crate::graph::Model;
use crate::onnx::{DType, Tensor};

/// What an input looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Drawn pictures, sines with noise; see [`samples`].
    Structured,
    /// Every float value random: uniform in 0..1 for pictures, normal for others.
    WhiteNoise,
    /// Every float value the same, another one for each batch element.
    Constant,
    /// The user's own.
    Given,
}

impl Kind {
    fn spoken(self) -> &'static str {
        match self {
            Kind::Structured => "structured",
            Kind::WhiteNoise => "white noise",
            Kind::Constant => "constant",
            Kind::Given => "given",
        }
    }
}

/// One set of inputs.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What to call it in front of a reader: `structured, batch 2`, or the user's file.
    pub name: String,
    /// What it looks like.
    pub kind: Kind,
    /// The tensors.
    pub inputs: Tensors,
}

/// The kinds of `count` samples of a batch size: in turn structured, white noise, constant, then structured ones with
/// other seeds.
pub fn kinds(count: usize) -> Vec<Kind> {
    let kind = |index: usize| match index {
        1 => Kind::WhiteNoise,
        2 => Kind::Constant,
        _ => Kind::Structured,
    };
    (0..count.max(1)).map(kind).collect()
}

/// Inputs of a kind for a model of fixed sizes.
pub fn sample(model: &Model, kind: Kind, seed: u64, batch: Option<i64>) -> Sample {
    let mut inputs = samples::with_options(model, &Options { seed, batch, ..Default::default() });
    if kind != Kind::Structured {
        for (name, tensor) in &mut inputs {
            if let Some(other) = other(tensor, kind, &mut Random::new(seed, name)) {
                *tensor = other;
            }
        }
    }
    let mut name = kind.spoken().to_string();
    if seed > 0 && kind == Kind::Structured {
        name.push_str(&format!(" {}", seed + 1));
    }
    if let Some(batch) = batch {
        name.push_str(&format!(", batch {batch}"));
    }
    Sample { name, kind, inputs }
}

/// The values of another kind in place of a float tensor's; masks and states, which are all alike or small, are left.
fn other(tensor: &Tensor, kind: Kind, random: &mut Random) -> Option<Tensor> {
    let values = tensor.to_f64s().ok().filter(|_| tensor.dtype().is_float() || tensor.dtype() == DType::Uint8)?;
    let first = *values.first()?;
    if values.iter().all(|&x| x == first) {
        return None;
    }
    let picture = tensor.dims().len() == 4 && values.iter().all(|&x| x >= 0.0);
    let top = if tensor.dtype().is_float() { 1.0 } else { 255.0 };
    let element = (values.len() / tensor.dims().first().map_or(1, |&size| size.max(1) as usize)).max(1);
    let value = |index: usize, random: &mut Random| match (kind, picture) {
        (Kind::Constant, true) => top * 0.5 / (1 + index / element) as f64,
        (Kind::Constant, false) => 0.25 * (1 + index / element) as f64,
        (_, true) => top * random.unit() as f64,
        (_, false) => random.normal() as f64,
    };
    let values: Vec<f64> = (0..values.len()).map(|index| value(index, random)).collect();
    Tensor::from_f64s(tensor.name(), tensor.dtype(), tensor.dims(), &values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::builder::Build;

    #[test]
    fn kinds_differ_and_batch_elements_do_too() {
        let mut build = Build::new();
        let x = build.input("images", DType::Float, &[2, 3, 32, 32]);
        let y = build.op("Relu", "relu", &[x]);
        let model = build.finish(&[y]);
        let read = |kind| sample(&model, kind, 0, None).inputs["images"].to_f32s().unwrap();
        let (noise, constant) = (read(Kind::WhiteNoise), read(Kind::Constant));
        assert!(noise.iter().all(|x| (0.0..1.0).contains(x)));
        assert_ne!(noise[..3072], noise[3072..]);
        assert_eq!((constant[0], constant[3071], constant[3072]), (0.5, 0.5, 0.25));
        assert_eq!(kinds(4), [Kind::Structured, Kind::WhiteNoise, Kind::Constant, Kind::Structured]);
    }
}
