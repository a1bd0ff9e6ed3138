//! Naming a fault: what known shapes of faults would make of the right values, held against the wrong ones.
//!
//! Each shape predicts the wrong tensor from the right one, from the node's inputs, or from running the node another way. A
//! name is given only if the prediction holds for every element that is wrong, on every sample, and no other shape explains
//! the same; where that is not so there is no name. Slices (batch elements, channels) that are right are left out, so that
//! a fault in one channel is named by what happens there.

mod shapes;
#[cfg(test)]
mod tests;
mod variants;

use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Tensors};
use crate::graph::Model;
use crate::onnx::{DType, Tensor};

/// One run of a piece: what went in, what should have come out, what did.
#[derive(Clone, Debug)]
pub struct Run {
    /// The piece's inputs.
    pub inputs: Tensors,
    /// What the reference gives.
    pub right: Tensors,
    /// What the target gave.
    pub wrong: Tensors,
}

/// Everything known about a fault, by running its piece on its own.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The piece.
    pub model: Model,
    /// The runs, in the order in which one session made them. The last repeats the first one's inputs.
    pub runs: Vec<Run>,
    /// The outputs that are wrong.
    pub outputs: Vec<String>,
    /// The type that the target rounds to in any case.
    pub rounds: DType,
}

/// The shape of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Output i is one contiguous run of the input.
    StrideDrop,
    /// Two axes are read the other way round: of the result, or of a constant operand.
    Transposed,
    /// Everything stands one place off.
    Shifted,
    /// Nothing but zeros.
    Zeroed,
    /// Every batch element is the first.
    BatchBroadcast,
    /// The channels stand in another order.
    ChannelsPermuted,
    /// Every value is the same multiple of itself.
    Scaled,
    /// Values beyond a bound are the bound.
    Saturated,
    /// Rounded to a type with fewer digits.
    Rounded,
    /// Another mode of the operator: other pixels, another rounding, padding counted.
    WrongMode,
    /// What the run before should have given.
    Stale,
    /// NaN or infinite.
    Nan,
    /// Another result at each run.
    Nondeterministic,
}

impl Shape {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Shape::StrideDrop => "stride-drop",
            Shape::Transposed => "transposed",
            Shape::Shifted => "shifted",
            Shape::Zeroed => "zeroed",
            Shape::BatchBroadcast => "batch-broadcast",
            Shape::ChannelsPermuted => "channels-permuted",
            Shape::Scaled => "scaled",
            Shape::Saturated => "saturated",
            Shape::Rounded => "rounded",
            Shape::WrongMode => "wrong-mode",
            Shape::Stale => "stale",
            Shape::Nan => "nan",
            Shape::Nondeterministic => "nondeterministic",
        }
    }

    /// What happens, in words.
    pub fn says(self) -> &'static str {
        match self {
            Shape::StrideDrop => "each output is one contiguous run of the input: the stride of the axis is forgotten",
            Shape::Transposed => "two axes are read the other way round",
            Shape::Shifted => "everything stands one place off",
            Shape::Zeroed => "nothing but zeros comes out",
            Shape::BatchBroadcast => "every batch element is the first",
            Shape::ChannelsPermuted => "the channels stand in another order",
            Shape::Scaled => "every value is the same multiple of what it should be",
            Shape::Saturated => "values beyond a bound are the bound",
            Shape::Rounded => "the values are rounded to a type with fewer digits",
            Shape::WrongMode => "the operator runs in another of its modes",
            Shape::Stale => "what comes out is what the run before should have given",
            Shape::Nan => "NaN or infinity comes out where numbers should",
            Shape::Nondeterministic => "each run gives something else",
        }
    }
}

/// Fewer wrong numbers prove nothing.
const ENOUGH: usize = 8;

/// The name of a fault, if there is one that explains it and no other that does.
pub fn name(evidence: &Evidence, reference: &dyn Engine) -> Option<Shape> {
    let mut views = Vec::new();
    for run in &evidence.runs {
        let mut of_run = Vec::new();
        for output in &evidence.outputs {
            of_run.push(View::of(run.right.get(output)?, run.wrong.get(output)?, evidence.rounds)?);
        }
        views.push(of_run);
    }
    let count = evidence.runs.len();
    let first_turn = count.saturating_sub(1).max(1);
    if views.iter().flatten().any(View::has_new_nan) {
        return Some(Shape::Nan);
    }
    if let Some(proved) = shapes::stale(&views) {
        return (proved >= ENOUGH).then_some(Shape::Stale);
    }
    if count > 1 {
        let (first, last) = (&views[0], &views[count - 1]);
        let apart = first.iter().zip(last).any(|(a, b)| !a.alike(&a.wrong, &b.wrong));
        // Zeros at first and right later may as well be stale, where the samples are alike.
        let empty_at_first = first.iter().all(|view| view.wrong.iter().all(|&x| x == 0.0));
        if apart && empty_at_first && last.iter().all(|view| view.deviating.is_empty()) {
            return None;
        }
        if apart {
            return Some(Shape::Nondeterministic);
        }
    }
    let views = &views[..first_turn];
    let runs = &evidence.runs[..first_turn];
    let deviating = |view: &View| !view.deviating.is_empty();
    let enough: usize = views.iter().flatten().map(View::weight).max().unwrap_or(0);
    if enough < ENOUGH || views.iter().filter(|views| views.iter().any(deviating)).count() < 2.min(views.len()) {
        return None;
    }
    let mut names: Vec<Shape> = shapes::matching(views);
    if evidence.rounds != DType::Float {
        // What a 16-bit type blurs can look like any of these.
        names.retain(|name| !matches!(name, Shape::Scaled | Shape::Saturated | Shape::Rounded));
    }
    if variants::stride_drop(evidence, runs, views) {
        names.push(Shape::StrideDrop);
    }
    if variants::other_mode(evidence, runs, views, reference) {
        names.push(Shape::WrongMode);
    }
    if !names.contains(&Shape::Transposed) && variants::constant_transposed(evidence, runs, views, reference) {
        names.push(Shape::Transposed);
    }
    decide(names)
}

/// One name, or none where several remain.
fn decide(mut names: Vec<Shape>) -> Option<Shape> {
    names.sort();
    names.dedup();
    let without = |names: &mut Vec<Shape>, special: Shape, general: Shape| {
        if names.contains(&special) {
            names.retain(|name| *name != general);
        }
    };
    // A shift along the channels is a permutation too, and every copy of the first element too.
    without(&mut names, Shape::Shifted, Shape::ChannelsPermuted);
    match names.as_slice() {
        [one] => Some(*one),
        _ => None,
    }
}

/// A wrong tensor beside the right one.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub dims: Vec<usize>,
    pub right: Vec<f64>,
    pub wrong: Vec<f64>,
    /// Elements of a slice.
    pub run: usize,
    /// Slices that are wrong.
    pub deviating: Vec<usize>,
    pub tolerance: f64,
}

impl View {
    fn of(right: &Tensor, wrong: &Tensor, rounds: DType) -> Option<Self> {
        if right.dims() != wrong.dims() {
            return None;
        }
        let dims: Vec<usize> = right.dims().iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
        let (right, wrong) = (right.to_f64s().ok()?, wrong.to_f64s().ok()?);
        let run = match dims.as_slice() {
            [] => 1,
            [_, _, rest @ ..] if !rest.is_empty() => rest.iter().product::<usize>().max(1),
            [_, rest @ ..] => rest.iter().product::<usize>().max(1),
        };
        let scale = right.iter().filter(|x| x.is_finite()).fold(0.0, |most: f64, x| most.max(x.abs()));
        let apart = match rounds {
            DType::Bfloat16 => 2f64.powi(-7),
            DType::Float16 => 2f64.powi(-10),
            _ => 3e-6,
        };
        let mut view = Self { dims, right, wrong, run, deviating: Vec::new(), tolerance: apart * scale };
        let differs = |slice: &usize| {
            let (a, b) = (view.slice(&view.right, *slice), view.slice(&view.wrong, *slice));
            a.iter().zip(b).any(|(a, b)| !view.near(*a, *b))
        };
        view.deviating = (0..view.right.len() / run.max(1)).filter(differs).collect();
        Some(view)
    }

    pub fn slice<'a>(&self, values: &'a [f64], index: usize) -> &'a [f64] {
        &values[index * self.run..(index + 1) * self.run]
    }

    pub fn near(&self, a: f64, b: f64) -> bool {
        a == b || (a - b).abs() <= self.tolerance.max(1e-5 * a.abs().min(b.abs())) || a.is_nan() && b.is_nan()
    }

    /// Elements that are wrong.
    pub fn weight(&self) -> usize {
        let count = |slice: &usize| {
            let (a, b) = (self.slice(&self.right, *slice), self.slice(&self.wrong, *slice));
            a.iter().zip(b).filter(|(a, b)| !self.near(**a, **b)).count()
        };
        self.deviating.iter().map(count).sum()
    }

    pub fn alike(&self, a: &[f64], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.near(*a, *b))
    }

    fn has_new_nan(&self) -> bool {
        self.right.iter().zip(&self.wrong).any(|(right, wrong)| right.is_finite() && !wrong.is_finite())
    }

    /// Whether a prediction holds in every slice that is wrong.
    pub fn holds(&self, predicted: &[f64]) -> bool {
        predicted.len() == self.wrong.len()
            && self.deviating.iter().all(|&slice| {
                self.slice(predicted, slice).iter().zip(self.slice(&self.wrong, slice)).all(|(a, b)| self.near(*a, *b))
            })
    }
}
