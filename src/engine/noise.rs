//! Measures what rounding alone does to a model: the draws of an [`Expectation`].
//!
//! In float32 a draw is the model with each weight of its convolutions, products and recurrences, and each float input,
//! moved at random by up to [`ULPS`] units in the last place. Every layer gets errors of its own, as with another order of
//! summation, only louder, so that what can tip does tip in some draw. Small constants are left alone: moving a Resize's
//! scale would change sizes, moving an epsilon means nothing. In a 16-bit type a draw is the model with every tensor
//! rounded to the type, see [`super::emulate`]; a second one starts from inputs moved by one unit in that type.
//!
//! In which order an engine adds up a long sum is its own choice, and with summands that are nearly alike the roundings do
//! not cancel: one number after the other, the error grows with their count, in blocks it hardly does. So a model with
//! long sums has one more float32 draw, in which nothing moves and they are added up one number after the other, see
//! [`sums`]. (Noise in the summands would make them cancel.)

mod rough;
mod sums;

use std::collections::HashSet;

use super::random::Random;
use super::tract::Tract;
use super::{Engine, EngineError, Tensors, emulate};
use crate::compare::Expectation;
use crate::graph::{Graph, Model, Node, ValueId};
use crate::onnx::{DType, Tensor};

/// Units in the last place by which a float32 draw moves what it moves, at most.
const ULPS: i32 = 8;
/// Weights of fewer elements are left alone.
const SMALL: usize = 16;

/// Which noise to measure.
pub struct Noise<'a> {
    /// The type whose errors are to be explained.
    pub dtype: DType,
    /// Nodes that stay in float32 when the type is a 16-bit one.
    pub keep: &'a (dyn Fn(&Node) -> bool + Sync),
    /// How many draws, 1 at least. With more, rare events are seen.
    pub draws: usize,
    /// Another seed gives other draws.
    pub seed: u64,
    /// Operators that are only approximated, with the most that their results are off.
    pub approximated: &'a [(String, f64)],
}

impl Noise<'_> {
    /// The noise of float32: two draws.
    pub fn float32() -> Self {
        Self::of(DType::Float, &[])
    }
}

impl<'a> Noise<'a> {
    /// The noise of a type in every node, and of operators that are only approximated: two draws.
    pub fn of(dtype: DType, approximated: &'a [(String, f64)]) -> Self {
        Self { dtype, keep: &|_| false, draws: 2, seed: 0, approximated }
    }
}

/// Runs the model as it is and with the noise; each run in a thread, as many at a time as there are cores.
///
/// # Errors
/// Any of them does not compile or run.
pub fn measure(
    engine: &dyn Engine,
    model: &Model,
    inputs: &Tensors,
    noise: &Noise,
) -> Result<Expectation, EngineError> {
    let mut runs = run_each(engine, model, inputs, noise, true)?.into_iter();
    let reference = runs.next().ok_or_else(|| crashed(engine))?;
    Ok(Expectation::new(reference, runs.collect(), noise.dtype))
}

/// As [`measure`] around a plain run that was made already.
///
/// # Errors
/// As [`measure`].
pub fn measure_around(
    engine: &dyn Engine,
    model: &Model,
    inputs: &Tensors,
    reference: Tensors,
    noise: &Noise,
) -> Result<Expectation, EngineError> {
    Ok(Expectation::new(reference, run_each(engine, model, inputs, noise, false)?, noise.dtype))
}

/// A run that is to be made.
enum Job {
    Plain,
    /// Long sums one number after the other.
    InOrder(Box<Model>),
    Draw(usize),
}

/// Runs the model as it is, if that is asked for, and then each draw of a noise.
fn run_each(
    engine: &dyn Engine,
    model: &Model,
    inputs: &Tensors,
    noise: &Noise,
    plain: bool,
) -> Result<Vec<Tensors>, EngineError> {
    let float32 = !matches!(noise.dtype, DType::Bfloat16 | DType::Float16);
    let in_order = float32.then(|| sums::one_by_one(model, inputs)).flatten().map(|model| Job::InOrder(model.into()));
    let draws = (0..noise.draws.max(1)).map(Job::Draw);
    let jobs: Vec<Job> = plain.then_some(Job::Plain).into_iter().chain(draws).chain(in_order).collect();
    let run = |job: &Job| match job {
        Job::Plain => engine.run_once(model, inputs).map(Some),
        // An engine that does not take sums written otherwise just has one draw less.
        Job::InOrder(model) => Ok(engine.run_once(model, inputs).ok()),
        Job::Draw(draw) => run_draw(engine, model, inputs, noise, *draw).map(Some),
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let mut runs = Vec::with_capacity(jobs.len());
    for group in jobs.chunks(cores) {
        let outcomes: Vec<Result<Option<Tensors>, EngineError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = group.iter().map(|job| scope.spawn(move || run(job))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(crashed(engine)))).collect()
        });
        for outcome in outcomes {
            runs.extend(outcome?);
        }
    }
    Ok(runs)
}

/// One run of the model with noise; another index gives another.
///
/// # Errors
/// It does not compile or run.
pub fn draw(
    engine: &dyn Engine,
    model: &Model,
    inputs: &Tensors,
    noise: &Noise,
    index: usize,
) -> Result<Tensors, EngineError> {
    run_draw(engine, model, inputs, noise, index)
}

/// Units in the last place by which the louder draws move what they move: ties tip in them.
const LOUD: [i32; 6] = [64, 64, 512, 512, 512, 4096];

/// Units of a 16-bit type by which the louder draws of one move what they move.
const LOUD_HALF: [i32; 4] = [4, 4, 16, 64];

/// How many times louder than a draw of a type's noise each of [`louder_in`] is.
pub fn loudness(dtype: DType) -> Vec<f64> {
    match dtype {
        DType::Bfloat16 | DType::Float16 => LOUD_HALF.map(f64::from).to_vec(),
        _ => LOUD.map(|units| f64::from(units) / f64::from(ULPS)).to_vec(),
    }
}

/// As [`louder_in`] float32.
///
/// # Errors
/// Any of them does not compile or run.
pub fn louder(engine: &dyn Engine, model: &Model, inputs: &Tensors) -> Result<Vec<Tensors>, EngineError> {
    louder_in(engine, model, inputs, DType::Float)
}

/// Runs of the model with noise far louder than rounding, for [`Expectation::loud`]. `dtype` is the type whose rounding is
/// explained; for one of 16 bits, the model is one that rounds to it (see [`lowered`]).
///
/// # Errors
/// Any of them does not compile or run.
pub fn louder_in(
    engine: &dyn Engine,
    model: &Model,
    inputs: &Tensors,
    dtype: DType,
) -> Result<Vec<Tensors>, EngineError> {
    let units: Vec<i32> = match dtype {
        DType::Bfloat16 | DType::Float16 => LOUD_HALF.iter().map(|units| units * unit_of(dtype)).collect(),
        _ => LOUD.to_vec(),
    };
    let draw = |(seed, &ulps): (usize, &i32)| {
        let seed = 7000 + seed as u64;
        engine.run_once(&moved_model(model, ulps, seed), &moved_inputs(inputs, ulps, seed))
    };
    units.iter().enumerate().map(draw).collect()
}

/// The model with every tensor rounded as the draws of a 16-bit type round it; none for other types.
pub fn lowered(model: &Model, noise: &Noise) -> Option<Model> {
    let half = matches!(noise.dtype, DType::Bfloat16 | DType::Float16);
    half.then(|| emulate::lower(model, noise.dtype, noise.keep))
}

/// One unit in the last place of a 16-bit type, in those of float32.
fn unit_of(dtype: DType) -> i32 {
    if dtype == DType::Bfloat16 { 1 << 16 } else { 1 << 13 }
}

fn crashed(engine: &dyn Engine) -> EngineError {
    EngineError::Run { engine: engine.name(), code: None, problem: "it panicked".into() }
}

fn run_draw(
    engine: &dyn Engine,
    model: &Model,
    inputs: &Tensors,
    noise: &Noise,
    draw: usize,
) -> Result<Tensors, EngineError> {
    let seed = noise.seed.wrapping_mul(1000).wrapping_add(draw as u64);
    // Who decides what is kept knows the model's own values only.
    let own: HashSet<ValueId> = model.graph.values().map(|(id, _)| id).collect();
    let keep = |node: &Node| node.writes().all(|id| own.contains(&id)) && (noise.keep)(node);
    let rough = rough::roughened(model, inputs, noise.approximated, seed);
    let model = rough.as_ref().unwrap_or(model);
    match noise.dtype {
        DType::Bfloat16 | DType::Float16 => {
            let lowered = emulate::lower(model, noise.dtype, &keep);
            let moved = (draw > 0).then(|| moved_inputs(inputs, unit_of(noise.dtype), seed));
            let inputs = moved.as_ref().unwrap_or(inputs);
            // ONNX Runtime casts to bfloat16 from opset 13 on; tract rounds at any.
            engine.run_once(&lowered, inputs).or_else(|error| Tract.run_once(&lowered, inputs).map_err(|_| error))
        }
        _ => {
            let (moved, inputs) = (moved_model(model, ULPS, seed), moved_inputs(inputs, ULPS, seed));
            engine.run_once(&moved, &inputs)
        }
    }
}

/// The inputs with every float32 value moved at random by up to `ulps` units in the last place.
fn moved_inputs(inputs: &Tensors, ulps: i32, seed: u64) -> Tensors {
    inputs.iter().map(|(name, tensor)| (name.clone(), moved(tensor, ulps, seed, name))).collect()
}

/// The model with every large float32 weight moved likewise.
fn moved_model(model: &Model, ulps: i32, seed: u64) -> Model {
    let mut model = model.clone();
    move_weights(&mut model.graph, ulps, seed);
    model
}

fn move_weights(graph: &mut Graph, ulps: i32, seed: u64) {
    let mut weights: HashSet<ValueId> = HashSet::new();
    for id in graph.node_ids() {
        graph.node_mut(id).subgraphs_mut().for_each(|body| move_weights(body, ulps, seed));
        let node = graph.node(id);
        let multiplies = ["Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU", "RNN", "BatchNormalization"];
        if multiplies.contains(&node.op_type.as_str()) {
            // A BatchNormalization's variance may be zero and must not turn negative; moving units never crosses zero.
            weights.extend(node.inputs.iter().flatten());
        }
    }
    // Some exporters keep weights in Constant nodes.
    for &id in &weights {
        let Some(maker) = graph.producer(id).filter(|&maker| graph.node(maker).is("Constant")) else { continue };
        if let Some(tensor) = graph.constant(id).filter(|tensor| tensor.dtype().is_float()) {
            graph.remove_node(maker);
            graph.set_initializer(id, tensor);
        }
    }
    for id in weights {
        if let Some(tensor) = graph.initializer(id).filter(|tensor| tensor.len() >= SMALL) {
            let tensor = moved(tensor, ulps, seed, tensor.name());
            graph.set_initializer(id, tensor);
        }
    }
}

fn moved(tensor: &Tensor, ulps: i32, seed: u64, name: &str) -> Tensor {
    let mut random = Random::new(seed, name);
    match tensor.dtype() {
        DType::Float => moved_floats(tensor, ulps, &mut random),
        // A model in 16 bits rounds to them at every step: a unit or so of the type itself.
        DType::Float16 | DType::Bfloat16 => moved_halves(tensor, (ulps / ULPS).max(1), &mut random),
        _ => None,
    }
    .unwrap_or_else(|| tensor.clone())
}

fn moved_floats(tensor: &Tensor, ulps: i32, random: &mut Random) -> Option<Tensor> {
    let mut values = tensor.to_f32s().ok()?;
    for value in &mut values {
        if value.is_normal() {
            let moved = f32::from_bits(value.to_bits().wrapping_add_signed(random.within(ulps)));
            if moved.is_normal() && moved.is_sign_positive() == value.is_sign_positive() {
                *value = moved;
            }
        }
    }
    Some(Tensor::from_f32(tensor.name(), tensor.dims(), &values))
}

/// The values of a 16-bit type by their bits, which count up as the values do.
fn moved_halves(tensor: &Tensor, units: i32, random: &mut Random) -> Option<Tensor> {
    // What neither zero nor infinity may become: the exponent's bits of the type.
    let exponent: u16 = if tensor.dtype() == DType::Float16 { 0x7c00 } else { 0x7f80 };
    let normal = |bits: u16| bits & exponent != 0 && bits & exponent != exponent;
    let bytes = tensor.to_bytes().ok()?;
    let mut moved = Vec::with_capacity(bytes.len());
    for pair in bytes.chunks_exact(2) {
        let bits = u16::from_le_bytes([pair[0], pair[1]]);
        let other = bits.wrapping_add_signed(random.within(units).clamp(-1024, 1024) as i16);
        let fits = normal(bits) && normal(other) && (bits ^ other) >> 15 == 0;
        moved.extend(if fits { other } else { bits }.to_le_bytes());
    }
    Some(Tensor::new(tensor.name(), tensor.dtype(), tensor.dims(), moved))
}
