//! Judging what a probe gave: first a cheap look that lets pass what rounding explains anyway, then the measured noise.

use crate::compare::{Detections, Expectation, Finding, Metrics, Verdict, metrics};
use crate::engine::double::Double;
use crate::engine::noise::{self, Noise};
use crate::engine::random::Random;
use crate::engine::{Engine, EngineError, Tensors};
use crate::graph::{Dim, Model, Node, ValueId};
use crate::onnx::{DType, Tensor};

/// Always explained: a few units in the last place of a slice's largest value.
pub const LEAST: f64 = 1.0 / (1 << 20) as f64;
/// Operators that engines approximate, with results around 1: what they may be off.
const APPROXIMATED: [&str; 9] = ["Sigmoid", "Tanh", "Softmax", "Erf", "HardSigmoid", "Swish", "Gelu", "Mish", "LSTM"];
const APPROXIMATION: f32 = 8e-6;
/// Operators that add many numbers up: in which order is the engine's choice, and the error grows with their count.
const SUMS: [&str; 6] = ["ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceL1", "ReduceL2", "GlobalAveragePool"];

/// Louder noise costs runs; graphs of more nodes than this do not get it.
const FEW: usize = 8;

/// The first look at a tensor: how far it is off, and whether that is nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// The largest difference over the largest magnitude.
    pub relative: f64,
    /// Whether no slice is further off than a few units in the last place.
    pub nothing: bool,
}

/// Looks at a tensor slice by slice.
pub fn look(reference: &Tensor, result: &Tensor) -> Look {
    let differs = Look { relative: f64::INFINITY, nothing: false };
    if reference.dims() != result.dims() || reference.dtype() != result.dtype() {
        return differs;
    }
    let (Ok(a), Ok(b)) = (reference.to_bytes(), result.to_bytes()) else { return differs };
    if a == b {
        return Look { relative: 0.0, nothing: true };
    }
    if reference.dtype() != DType::Float {
        let relative = metrics(reference, result).map_or(f64::INFINITY, |metrics| metrics.relative);
        return Look { relative, nothing: false };
    }
    let dims = reference.dims();
    let run = match dims {
        [] => 1,
        [_, _, rest @ ..] if !rest.is_empty() => rest.iter().product::<i64>().max(1) as usize,
        [_, rest @ ..] => rest.iter().product::<i64>().max(1) as usize,
    };
    let read = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut slices: Vec<(f32, f32)> = Vec::with_capacity(a.len() / (4 * run) + 1);
    let mut apart = false;
    for (a, b) in a.chunks(4 * run).zip(b.chunks(4 * run)) {
        let (mut difference, mut scale) = (0f32, 0f32);
        for (a, b) in a.chunks_exact(4).zip(b.chunks_exact(4)) {
            let (a, b) = (read(a), read(b));
            let d = (a - b).abs();
            if d.is_nan() || d == f32::INFINITY {
                apart |= !(a == b || a.is_nan() && b.is_nan());
                continue;
            }
            difference = difference.max(d);
            scale = scale.max(a.abs());
        }
        slices.push((difference, scale));
    }
    let whole = slices.iter().map(|slice| slice.1).fold(0.0, f32::max) as f64;
    let most = slices.iter().map(|slice| slice.0).fold(0.0, f32::max) as f64;
    let nothing = !apart
        && slices.iter().all(|&(difference, scale)| difference as f64 <= LEAST * scale as f64 + whole * 2f64.powi(-24));
    Look {
        relative: if apart {
            f64::INFINITY
        } else if most == 0.0 {
            0.0
        } else {
            most / whole
        },
        nothing,
    }
}

/// What was found about one tensor on one sample.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Whether it is further off than can be explained.
    pub differs: bool,
    /// Why.
    pub reason: String,
    /// How far it is off; none where it has other sizes.
    pub metrics: Option<Metrics>,
    /// The largest difference that noise made.
    pub expected: f64,
    /// How far off over how far it may be.
    pub strain: f64,
    /// Elements of the batch that are off.
    pub batch_elements: Vec<usize>,
    /// The largest distance of the reference and of the result from float64, where that was asked.
    pub from_exact: Option<(f64, f64)>,
}

/// How a probe's outputs are to be held against the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Piece by piece on true inputs: every element stands in its place.
    Isolated,
    /// The end of a whole model: detections are a set.
    Whole,
}

/// Graphs whose values take less than this have their draws made at the same time; larger ones one after the other.
const TOGETHER: usize = 64 << 20;

/// What a target's numbers may be off by.
#[derive(Clone, Debug, PartialEq)]
pub struct Precision {
    /// The type that it rounds to, whatever the model says.
    pub rounds: DType,
    /// Operators that it approximates, with the most that their results are off besides rounding.
    pub approximates: Vec<(String, f64)>,
}

impl Precision {
    /// Rounding of float32, and nothing else.
    pub fn float32() -> Self {
        Self { rounds: DType::Float, approximates: Vec::new() }
    }
}

/// Measures what rounding does to a graph: two draws, with the errors of approximated functions and long sums in them.
/// `reference` is what the graph gives without noise, where that is known already; `precision` is that of the target.
///
/// # Errors
/// The engine does not compile or run the graph.
pub fn expectation(
    engine: &dyn Engine,
    model: &Model,
    inputs: &Tensors,
    reference: Option<Tensors>,
    precision: &Precision,
) -> Result<Expectation, EngineError> {
    drawn(engine, model, inputs, reference, precision, 2)
}

/// As [`expectation`], with one draw where one is enough.
pub(super) fn drawn(
    engine: &dyn Engine,
    model: &Model,
    inputs: &Tensors,
    reference: Option<Tensors>,
    precision: &Precision,
    draws: usize,
) -> Result<Expectation, EngineError> {
    let reference = match reference {
        Some(known) => known,
        None => engine.run_once(model, inputs)?,
    };
    let dtype = precision.rounds;
    let noise = Noise::of(dtype, &precision.approximates);
    let draw = |index: usize| {
        // What an engine refuses once it is written with errors in it is drawn without them.
        // The errors of a 16-bit type are larger than these.
        let rough = (dtype == DType::Float).then(|| approximated(model, index, draws < 2)).flatten();
        let noisy = rough.map(|rough| noise::draw(engine, &rough, inputs, &noise, index));
        noisy.and_then(Result::ok).map_or_else(|| noise::draw(engine, model, inputs, &noise, index), Ok)
    };
    // Errors of approximated functions are as large as their results, all of which a draw holds at once.
    let bytes = made_by(model).max(reference.values().filter_map(|tensor| tensor.dtype().byte_len(tensor.len())).sum());
    let draws = if draws < 2 {
        vec![draw(0)?]
    } else if bytes < TOGETHER {
        let (first, second) = rayon::join(|| draw(0), || draw(1));
        vec![first?, second?]
    } else {
        vec![draw(0)?, draw(1)?]
    };
    Ok(Expectation::new(reference, draws, dtype))
}

/// Bytes of all that the nodes of a model make, as far as the sizes are known.
fn made_by(model: &Model) -> usize {
    let graph = &model.graph;
    let bytes = |value: ValueId| {
        let value = graph.value(value);
        let count = value.static_shape()?.iter().product::<i64>();
        value.dtype?.byte_len(usize::try_from(count).ok()?)
    };
    graph.nodes().flat_map(|(_, node)| node.writes()).filter_map(bytes).sum()
}

/// The model with what engines approximate, and long sums, off by as much as they are. `alike`: an approximated function errs
/// by the same in all planes (its last two dimensions), which is enough to measure by, takes little room, and is no base
/// for a judgement.
fn approximated(model: &Model, draw: usize, alike: bool) -> Option<Model> {
    let mut rough = model.clone();
    let graph = &mut rough.graph;
    let mut any = false;
    for id in graph.node_ids() {
        let node = graph.node(id);
        let Some(out) = node.output(0) else { continue };
        let value = graph.value(out);
        let (Some(dims), Some(DType::Float)) = (value.static_shape(), value.dtype) else { continue };
        let (operator, low, high) = if APPROXIMATED.iter().any(|op| node.is(op)) {
            ("Add", -APPROXIMATION, APPROXIMATION)
        } else if SUMS.iter().any(|op| node.is(op)) {
            let read = node.input(0).and_then(|input| graph.value(input).static_shape());
            let added = read.map_or(1, |read| read.iter().product::<i64>() / dims.iter().product::<i64>().max(1));
            // Roundings of a sum walk at random: the root of how many there are. All sums are too large in one draw and too
            // small in the other: a variance near zero is cut off on one side.
            let off = (added.max(1) as f32).sqrt() * f32::EPSILON / 2.0;
            let factor = if draw == 0 { 1.0 + off } else { 1.0 - off };
            ("Mul", factor, factor)
        } else {
            continue;
        };
        let name = value.name.clone();
        let mut random = Random::new(7 + draw as u64, &name);
        let own = if alike { &dims[dims.len().saturating_sub(2)..] } else { &dims[..] };
        let count = own.iter().product::<i64>().max(0) as usize;
        let values: Vec<f32> = (0..count).map(|_| random.between(low, high)).collect();
        let error = graph.add_initializer(Tensor::from_f32(format!("{name}_error"), own, &values));
        let exact = graph.add_value(&format!("{name}_exact"));
        graph.value_mut(exact).shape = Some(dims.iter().map(|&size| Dim::Fixed(size)).collect());
        graph.value_mut(exact).dtype = Some(DType::Float);
        graph.set_output(id, 0, Some(exact));
        graph.add_node(Node::new(operator, [exact, error], [out]));
        any = true;
    }
    (any && graph.sort().is_ok()).then_some(rough)
}

/// A graph that was run, for what has to be asked of it again.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The reference.
    pub engine: &'a dyn Engine,
    /// The graph.
    pub model: &'a Model,
    /// Its inputs.
    pub inputs: &'a Tensors,
}

/// Judges one tensor. Where it differs from the reference, float64 is asked who is right; where single elements are off at
/// places that were quiet in the draws, louder noise is asked whether a tie tips there.
pub fn judge(setting: Setting, expectation: &Expectation, name: &str, result: &Tensor, manner: Manner) -> Judged {
    // What the reference gives says what kind of tensor it is: a wrong one may look like something else.
    let rows =
        manner == Manner::Isolated && expectation.reference.get(name).is_some_and(|one| Detections::of(one).is_some());
    let seen = |tensor: &Tensor| if rows { by_column(tensor) } else { tensor.clone() };
    let one = |tensors: &Tensors| -> Tensors {
        tensors.get(name).map(|tensor| (name.to_string(), seen(tensor))).into_iter().collect()
    };
    let draws = expectation.draws.iter().map(one).collect();
    let mut own = Expectation::new(one(&expectation.reference), draws, expectation.dtype);
    let result = seen(result);
    let mut finding = own.judge_one(name, Some(&result));
    let lone = finding.verdict != Verdict::Differs && finding.lone > 0;
    let doubtful = finding.verdict == Verdict::Differs && finding.metrics.is_some();
    if (lone || doubtful)
        && let Some(value) = setting.model.graph.value_named(name)
    {
        let small = behind(setting.model, &[value]);
        let inputs = read_by(&small, setting.inputs);
        let quiet = own.dtype == DType::Float && small.graph.node_count() <= FEW;
        let may_tip = |finding: &Finding| quiet && is_of_elements(finding);
        let louder = |own: &mut Expectation| {
            let Ok(loud) = noise::louder(setting.engine, &small, &inputs) else { return };
            own.loud = loud.iter().map(one).collect();
            own.loudness = noise::loudness(own.dtype);
        };
        if may_tip(&finding) {
            louder(&mut own);
            finding = own.judge_one(name, Some(&result));
        }
        if finding.verdict == Verdict::Differs
            && finding.metrics.is_some()
            && let Ok(exact) = Double.run_once(&small, &inputs)
        {
            own.exact = Some(one(&exact));
            finding = own.ask_exact(finding, &result);
            // What is left once the reference's own error is taken off may be single elements.
            if own.loud.is_empty() && may_tip(&finding) {
                louder(&mut own);
                finding = own.judge_one(name, Some(&result));
            }
        }
    }
    Judged {
        differs: finding.verdict == Verdict::Differs,
        reason: finding.reason,
        metrics: finding.metrics,
        expected: finding.expected,
        strain: finding.strain,
        batch_elements: finding.batch_elements,
        from_exact: finding.from_exact,
    }
}

/// Whether what is off are single elements, which ties may explain, and no slice by its quantiles.
fn is_of_elements(finding: &Finding) -> bool {
    finding.lone > 0 && finding.slices.iter().all(|slice| slice.strain <= 1.0)
}

/// What of `inputs` a model reads: the others need no noise of their own.
pub fn read_by(model: &Model, inputs: &Tensors) -> Tensors {
    let graph = &model.graph;
    let read = |name: &str| graph.value_named(name).is_some_and(|id| graph.is_input(id));
    inputs.iter().filter(|(name, _)| read(name)).map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
}

/// The nodes that lead to some values, as a model of their own.
pub fn behind(model: &Model, wanted: &[ValueId]) -> Model {
    let mut small = model.clone();
    small.graph.outputs = wanted.to_vec();
    small.graph.prune();
    let graph = &small.graph;
    let read: Vec<ValueId> =
        graph.inputs.iter().copied().filter(|&id| !graph.consumers(id).is_empty() || graph.is_output(id)).collect();
    small.graph.inputs = read;
    small.graph.prune();
    small
}

/// How far noise takes one tensor, over its largest magnitude; nothing is judged.
pub fn measure(expectation: &Expectation, name: &str) -> f64 {
    let Some(reference) = expectation.reference.get(name) else { return 0.0 };
    let draws = expectation.draws.iter().filter_map(|draw| draw.get(name));
    draws.map(|draw| look(reference, draw).relative).fold(0.0, f64::max)
}

/// A table laid out by column: on their own, rows of detections are rows and no set.
fn by_column(tensor: &Tensor) -> Tensor {
    let (&[batch, rows, columns], Ok(values)) = (tensor.dims(), tensor.to_f32s()) else { return tensor.clone() };
    let (rows_, columns_) = (rows as usize, columns as usize);
    let turned: Vec<f32> = values
        .chunks((rows_ * columns_).max(1))
        .flat_map(|table| (0..rows_ * columns_).map(|i| table[i % rows_ * columns_ + i / rows_]).collect::<Vec<_>>())
        .collect();
    Tensor::from_f32(tensor.name(), &[batch, columns, rows, 1], &turned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_look_lets_rounding_pass_and_nothing_else() {
        let values: Vec<f32> = (0..64).map(|i| i as f32 + 0.3).collect();
        let tensor = |values: &[f32]| Tensor::from_f32("t", &[1, 2, 32], values);
        let nudged: Vec<f32> = values.iter().map(|x| x * (1.0 + 1e-7)).collect();
        assert!(look(&tensor(&values), &tensor(&nudged)).nothing);
        let scaled: Vec<f32> = values.iter().map(|x| x * (1.0 + 1e-5)).collect();
        assert!(!look(&tensor(&values), &tensor(&scaled)).nothing);
        let mut holed = values.clone();
        holed[3] = f32::NAN;
        assert!(!look(&tensor(&values), &tensor(&holed)).nothing);
        assert!(look(&tensor(&holed), &tensor(&holed)).nothing);
    }
}
