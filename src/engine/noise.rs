//! Measures what rounding alone does to a model: the draws of an [`Expectation`].
//!
//! In float32 a draw is the model with each weight of its convolutions, products and recurrences, and each float input,
//! moved at random by up to [`ULPS`] units in the last place. Every layer gets errors of its own, as with another order of
//! summation, only louder, so that what can tip does tip in some draw. Small constants are left alone: moving a Resize's
//! scale would change sizes, moving an epsilon means nothing. In a 16-bit type a draw is the model with every tensor
//! rounded to the type, see [`super::emulate`]; a second one starts from inputs moved by one unit in that type.

use std::collections::HashSet;

use super::random::Random;
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
}

impl Noise<'_> {
    /// The noise of float32: two draws.
    pub fn float32() -> Self {
        Self { dtype: DType::Float, keep: &|_| true, draws: 2, seed: 0 }
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
    measure_each(engine, model, inputs, &[noise]).and_then(|mut all| all.pop().ok_or_else(|| crashed(engine)))
}

/// As [`measure`] for several noises at once; the plain run is made only once.
///
/// # Errors
/// As [`measure`].
pub fn measure_each(
    engine: &dyn Engine,
    model: &Model,
    inputs: &Tensors,
    noises: &[&Noise],
) -> Result<Vec<Expectation>, EngineError> {
    let draws = noises.iter().flat_map(|noise| (0..noise.draws.max(1)).map(move |draw| (*noise, draw)));
    let jobs: Vec<Option<(&Noise, usize)>> = std::iter::once(None).chain(draws.map(Some)).collect();
    let run = |job: &Option<(&Noise, usize)>| match job {
        None => engine.run_once(model, inputs),
        Some((noise, draw)) => run_draw(engine, model, inputs, noise, *draw),
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let mut runs = Vec::with_capacity(jobs.len());
    for group in jobs.chunks(cores) {
        let outcomes: Vec<Result<Tensors, EngineError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = group.iter().map(|job| scope.spawn(move || run(job))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(crashed(engine)))).collect()
        });
        for outcome in outcomes {
            runs.push(outcome?);
        }
    }
    let mut runs = runs.into_iter();
    let reference = runs.next().unwrap_or_default();
    let expectation = |noise: &&Noise| {
        Expectation::new(reference.clone(), runs.by_ref().take(noise.draws.max(1)).collect(), noise.dtype)
    };
    Ok(noises.iter().map(expectation).collect())
}

/// One run of the model with float32 noise; another index gives another.
///
/// # Errors
/// It does not compile or run.
pub fn draw(engine: &dyn Engine, model: &Model, inputs: &Tensors, index: usize) -> Result<Tensors, EngineError> {
    run_draw(engine, model, inputs, &Noise::float32(), index)
}

/// Units in the last place by which the louder draws move what they move: ties tip in them.
const LOUD: [i32; 6] = [64, 64, 512, 512, 512, 4096];

/// Runs of the model with float32 noise far louder than rounding, for [`Expectation::loud`].
///
/// # Errors
/// Any of them does not compile or run.
pub fn louder(engine: &dyn Engine, model: &Model, inputs: &Tensors) -> Result<Vec<Tensors>, EngineError> {
    let draw = |(seed, &ulps): (usize, &i32)| {
        let seed = 7000 + seed as u64;
        engine.run_once(&moved_model(model, ulps, seed), &moved_inputs(inputs, ulps, seed))
    };
    LOUD.iter().enumerate().map(draw).collect()
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
    match noise.dtype {
        DType::Bfloat16 | DType::Float16 => {
            let lowered = emulate::lower(model, noise.dtype, noise.keep);
            // One unit of the type is this many of float32's.
            let unit = if noise.dtype == DType::Bfloat16 { 1 << 16 } else { 1 << 13 };
            let moved = (draw > 0).then(|| moved_inputs(inputs, unit, seed));
            engine.run_once(&lowered, moved.as_ref().unwrap_or(inputs))
        }
        _ => engine.run_once(&moved_model(model, ULPS, seed), &moved_inputs(inputs, ULPS, seed)),
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
        if let Some(tensor) = graph.constant(id).filter(|tensor| tensor.dtype() == DType::Float) {
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
    if tensor.dtype() != DType::Float {
        return tensor.clone();
    }
    let Ok(mut values) = tensor.to_f32s() else { return tensor.clone() };
    let mut random = Random::new(seed, name);
    let span = (2 * ulps + 1) as u64;
    for value in &mut values {
        if value.is_normal() {
            let by = (random.next() % span) as i32 - ulps;
            let moved = f32::from_bits(value.to_bits().wrapping_add_signed(by));
            if moved.is_normal() && moved.is_sign_positive() == value.is_sign_positive() {
                *value = moved;
            }
        }
    }
    Tensor::from_f32(tensor.name(), tensor.dims(), &values)
}
