//! Inputs for a model that nobody gave inputs for: deterministic, structured, and within the range the model expects.
//!
//! What an input is shows in its shape and in who reads it, not in the model's name:
//! - an image (rank 4, 1 to 4 channels first or last): a drawn picture, another one for each batch element;
//! - an index (it reaches a Gather, a OneHot): whole numbers below the table's size;
//! - a length (an LSTM reads it as one, or it is called so): as many steps as there are, at most;
//! - a switch (it is compared with a constant, as a sampling rate is): one of the constants it is compared with;
//! - a mask: ones; a state: small values; any other float: a few sines and some noise, as speech and features have.
//!
//! Sizes that the model leaves free are chosen here: 1 for the batch, what the metadata's `imgsz` says or 320 for the
//! sides of an image, 16 for others; [`Options::sizes`] overrides them by name.

use std::collections::HashMap;

use super::Tensors;
use super::picture;
use super::random::Random;
use crate::graph::{Dim, Graph, Model, ValueId};
use crate::onnx::{DType, Tensor};

/// More numbers than this are no switch.
const SWITCHES: usize = 8;

/// What to choose where the model leaves a choice.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Another seed gives other inputs.
    pub seed: u64,
    /// The batch size, where the first dimension is free.
    pub batch: Option<i64>,
    /// Sizes of free dimensions, by their name.
    pub sizes: HashMap<String, i64>,
}

/// More bytes of inputs than this are not made up.
const MOST_BYTES: f64 = 4e9;

/// Why inputs for a model cannot be made up: their sizes.
pub fn too_large(model: &Model) -> Option<String> {
    let bytes = |&id: &ValueId| {
        let dims = sizes(model, id, &Options::default());
        let elements: f64 = dims.iter().map(|&size| size.max(0) as f64).product();
        elements * model.graph.value(id).dtype.and_then(|dtype| dtype.byte_len(1)).unwrap_or(1) as f64
    };
    let all: f64 = model.graph.inputs.iter().map(bytes).sum();
    (all > MOST_BYTES).then(|| format!("its inputs take {:.0} GB, and more than 4 GB are not made up", all / 1e9))
}

/// The sample of that number among those given; made up where none are.
pub fn given_or_made(given: &[Tensors], model: &Model, number: u64) -> Tensors {
    let given = usize::try_from(number).ok().and_then(|number| given.get(number));
    given.cloned().unwrap_or_else(|| for_model(model, number))
}

/// Inputs for a model.
pub fn for_model(model: &Model, seed: u64) -> Tensors {
    with_options(model, &Options { seed, ..Default::default() })
}

/// Inputs for a model, with free sizes chosen by `options`.
pub fn with_options(model: &Model, options: &Options) -> Tensors {
    let graph = &model.graph;
    let mut inputs = Tensors::new();
    for &id in &graph.inputs {
        let value = graph.value(id);
        let dtype = value.dtype.unwrap_or(DType::Float);
        let dims = sizes(model, id, options);
        let mut random = Random::new(options.seed, &value.name);
        if let Some(tensor) = sample(graph, id, dtype, &dims, &mut random) {
            inputs.insert(value.name.clone(), tensor);
        }
    }
    inputs
}

/// The sizes of an input, with the free ones chosen.
fn sizes(model: &Model, id: ValueId, options: &Options) -> Vec<i64> {
    let value = model.graph.value(id);
    let Some(shape) = &value.shape else { return Vec::new() };
    let image = shape.len() == 4;
    let side = || image_side(model).unwrap_or(320);
    let choose = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Fixed(size) => *size,
        Dim::Symbol(name) if options.sizes.contains_key(name) => options.sizes[name],
        _ if axis == 0 => options.batch.unwrap_or(1),
        _ if image && (axis > 1 || shape[3].fixed().is_some_and(|c| c <= 4)) => side(),
        _ if image => 3,
        _ => 16,
    };
    shape.iter().enumerate().map(choose).collect()
}

/// The side of the images a model was exported for: the first number of the `imgsz` property.
fn image_side(model: &Model) -> Option<i64> {
    let text = model.property("imgsz")?;
    text.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())?.parse().ok()
}

fn sample(graph: &Graph, id: ValueId, dtype: DType, dims: &[i64], random: &mut Random) -> Option<Tensor> {
    let name = &graph.value(id).name;
    let count = usize::try_from(dims.iter().product::<i64>()).ok()?;
    if dtype == DType::String {
        let texts = (0..count).map(|i| format!("text {i}").into_bytes().into()).collect();
        let tensor = Tensor::new(name, dtype, dims, Vec::new());
        return Some(Tensor { string_data: texts, raw_data: None, ..tensor });
    }
    if let Some(pixels) = image(dims, random) {
        let top = if dtype.is_float() { 1.0 } else { 255.0 };
        let values: Vec<f64> = pixels.iter().map(|&x| (x * top) as f64).collect();
        return Tensor::from_f64s(name, dtype, dims, &values);
    }
    if dtype == DType::Bool || is_called(name, &["mask"]) {
        return Tensor::from_f64s(name, dtype, dims, &vec![1.0; count]);
    }
    if dtype.is_float() {
        let values = if is_called(name, &["state", "hidden", "cell", "h0", "c0", "cache", "past"]) {
            (0..count).map(|_| random.between(-0.1, 0.1) as f64).collect()
        } else {
            wave(dims, count, random)
        };
        return Tensor::from_f64s(name, dtype, dims, &values);
    }
    let use_ = reader(graph, id, 6);
    let values: Vec<i64> = match use_ {
        // Many numbers of which one is marked, such as what only fills up: a text of nothing but filling says nothing.
        Some(Use::Switch(choices)) if count > SWITCHES => {
            let most = choices.iter().copied().max().unwrap_or(0).clamp(0, 1 << 15) as usize;
            let numbers = if most == 0 { 16 } else { most + 1 };
            (0..count).map(|_| random.below(numbers) as i64).collect()
        }
        Some(Use::Switch(choices)) => {
            let choice = if choices.contains(&16_000) { 16_000 } else { choices.first().copied().unwrap_or(0) };
            vec![choice; count]
        }
        Some(Use::Index(limit)) => (0..count).map(|_| random.below(limit.max(1) as usize) as i64).collect(),
        None if is_called(name, &["rate"]) || name == "sr" => vec![16_000; count],
        None if is_called(name, &["segment", "token_type"]) => vec![0; count],
        Some(Use::Length(limit)) => (0..count as i64).map(|i| (limit - i).max(1)).collect(),
        None if is_called(name, &["len"]) => vec![longest(graph, id).clamp(1, 16); count],
        None => (0..count).map(|_| random.below(16) as i64).collect(),
    };
    Tensor::from_i64s(name, dtype, dims, &values)
}

/// The longest sequence that the other inputs can hold, taken to stand in one of their first two dimensions.
fn longest(graph: &Graph, id: ValueId) -> i64 {
    let others = graph.inputs.iter().filter(|&&other| other != id);
    let long = others.filter_map(|&other| {
        let shape = graph.value(other).static_shape().filter(|shape| shape.len() > 1)?;
        shape.iter().take(2).copied().max()
    });
    long.min().unwrap_or(16)
}

fn is_called(name: &str, words: &[&str]) -> bool {
    let name = name.to_lowercase();
    words.iter().any(|word| name.contains(word))
}

/// Pictures for every batch element, if the sizes are those of images.
fn image(dims: &[i64], random: &mut Random) -> Option<Vec<f32>> {
    let &[batch, a, b, c] = dims else { return None };
    let few = |channels: i64| (1..=4).contains(&channels);
    let size = |size: i64| usize::try_from(size).ok();
    if few(a) && b >= 8 && c >= 8 {
        let (channels, height, width) = (size(a)?, size(b)?, size(c)?);
        return Some((0..batch).flat_map(|_| picture::draw(random, channels, height, width)).collect());
    }
    if few(c) && a >= 8 && b >= 8 {
        let (height, width, channels) = (size(a)?, size(b)?, size(c)?);
        let mut pixels = Vec::new();
        for _ in 0..batch {
            let planes = picture::draw(random, channels, height, width);
            let area = height * width;
            pixels
                .extend((0..area).flat_map(|i| (0..channels).map(move |c| (c, i))).map(|(c, i)| planes[c * area + i]));
        }
        return Some(pixels);
    }
    None
}

/// Sines of a few frequencies along the last axis, with noise; another mix for each row.
fn wave(dims: &[i64], count: usize, random: &mut Random) -> Vec<f64> {
    let row = dims.last().map_or(1, |&size| size.max(1) as usize);
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        let (slow, fast) = (random.between(0.01, 0.2), random.between(0.2, 1.5));
        let (loud, soft) = (random.between(0.2, 0.6), random.between(0.05, 0.3));
        let start = random.between(0.0, 6.0);
        for i in 0..row.min(count - values.len()) {
            let i = i as f32;
            let tone = loud * (start + slow * i).sin() + soft * (fast * i).sin();
            values.push((tone + 0.2 * random.normal()) as f64);
        }
    }
    values
}

/// What the readers of a whole number show it to be.
enum Use {
    /// It is compared with these constants.
    Switch(Vec<i64>),
    /// It picks one of this many rows.
    Index(i64),
    /// It says how many of this many steps count.
    Length(i64),
}

/// Follows a whole number through operators that only move it, up to `depth` of them.
fn reader(graph: &Graph, id: ValueId, depth: usize) -> Option<Use> {
    let constant = |id: Option<ValueId>| graph.constant(id?)?.to_i64s().ok();
    for &consumer in graph.consumers(id) {
        let node = graph.node(consumer);
        match node.op_type.as_str() {
            "Equal" => {
                let other = node.inputs.iter().flatten().copied().find(|&other| other != id);
                if let Some(values) = constant(other) {
                    return Some(Use::Switch(values));
                }
            }
            "Gather" | "GatherElements" if node.input(1) == Some(id) => {
                let axis = node.int("axis").unwrap_or(0);
                let shape = graph.value(node.input(0)?).static_shape()?;
                return along(&shape, axis).map(Use::Index);
            }
            "ScatterElements" | "Scatter" if node.input(1) == Some(id) => {
                let shape = graph.value(node.input(0)?).static_shape()?;
                return along(&shape, node.int("axis").unwrap_or(0)).map(Use::Index);
            }
            "LSTM" | "GRU" | "RNN" if node.input(4) == Some(id) => {
                let shape = graph.value(node.input(0)?).static_shape()?;
                return along(&shape, node.int("layout").unwrap_or(0)).map(Use::Length);
            }
            "ReverseSequence" if node.input(1) == Some(id) => {
                let shape = graph.value(node.input(0)?).static_shape()?;
                return along(&shape, node.int("time_axis").unwrap_or(0)).map(Use::Length);
            }
            "TopK" if node.input(1) == Some(id) => {
                let shape = graph.value(node.input(0)?).static_shape()?;
                return along(&shape, node.int("axis").unwrap_or(-1)).map(Use::Length);
            }
            "OneHot" if node.input(0) == Some(id) => {
                return constant(node.input(1))?.first().map(|&depth| Use::Index(depth));
            }
            "Cast" | "Identity" | "Unsqueeze" | "Squeeze" | "Reshape" | "Flatten" | "Expand" | "Transpose"
                if depth > 0 && node.input(0) == Some(id) =>
            {
                if let Some(found) = node.output(0).and_then(|next| reader(graph, next, depth - 1)) {
                    return Some(found);
                }
            }
            _ => {}
        }
    }
    None
}

/// The size along an axis, which may be counted from the end.
fn along(shape: &[i64], axis: i64) -> Option<i64> {
    let axis = if axis < 0 { axis + shape.len() as i64 } else { axis };
    shape.get(usize::try_from(axis).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;
    use crate::graph::builder::Build;

    #[test]
    fn batch_elements_are_distinct_pictures() {
        let mut build = Build::new();
        let x = build.input("images", DType::Float, &[-1, 3, 32, 32]);
        let model = build.finish(&[x]);
        let options = Options { batch: Some(2), ..Default::default() };
        let values = with_options(&model, &options)["images"].to_f32s().unwrap();
        let (first, second) = values.split_at(values.len() / 2);
        assert_eq!(values.len(), 2 * 3 * 32 * 32);
        assert_ne!(first, second);
    }

    #[test]
    fn indices_stay_within_the_table_they_reach() {
        let mut build = Build::new();
        let x = build.input("tokens", DType::Int32, &[1, 50]);
        let table = build.weight("table", &[5, 4]);
        let cast = build.op("Identity", "same", &[x]);
        let rows = build.op("Gather", "rows", &[table, cast]);
        let model = build.finish(&[rows]);
        let values = for_model(&model, 3)["tokens"].to_i64s().unwrap();
        assert!(values.iter().all(|x| (0..5).contains(x)) && values.contains(&4), "{values:?}");
    }

    #[test]
    fn lengths_are_no_longer_than_what_they_measure() {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[5, 3, 4]);
        let [w, r] = [build.weight("w", &[1, 28, 4]), build.weight("r", &[1, 28, 7])];
        let used = build.input("used", DType::Int32, &[3]);
        build.input("frame_lengths", DType::Int64, &[2]);
        let mut lstm = Node::new("LSTM", [x, w, r], []).named("lstm").with("hidden_size", 7);
        lstm.inputs.extend([None, Some(used)]);
        let y = build.node(lstm);
        let inputs = for_model(&build.finish(&[y]), 0);
        assert_eq!(inputs["used"].to_i64s().unwrap(), [5, 4, 3]);
        assert_eq!(inputs["frame_lengths"].to_i64s().unwrap(), [5, 5]);
    }

    #[test]
    fn a_switch_takes_a_value_it_is_compared_with() {
        let mut build = Build::new();
        let rate = build.input("sr", DType::Int64, &[]);
        let want = build.ints("want", &[8000]);
        let same = build.op("Equal", "same", &[rate, want]);
        let model = build.finish(&[same]);
        assert_eq!(for_model(&model, 0)["sr"].to_i64s().unwrap(), [8000]);
    }
}
