//! Takes the weights out of a model, so that a failing model can be shown without showing them.
//!
//! Kept as they are: tensors of up to 512 elements, biases, indices and tables (wide integers), and everything that is not
//! a number. Each other weight, those of quantized models too, becomes a [`Fill`] with its own mean and standard deviation
//! and a seed made from its name.

use std::collections::HashSet;

use super::fill::{self, Fill};
use super::proto::{GraphProto, LOCATION_EXTERNAL, ModelProto, TensorProto};
use super::read::try_for_each_tensor;
use super::{DType, Payload, TensorError};

/// Tensors with more elements than this are stripped.
const KEPT_ELEMENTS: usize = 512;

/// How many tensors were stripped and how many bytes that took out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stripped {
    /// Tensors replaced by a recipe.
    pub tensors: usize,
    /// Bytes of values taken out.
    pub bytes: usize,
}

/// Replaces the large weights of a model by recipes. Floats and bytes only: wider integers are indices and tables, whose
/// values decide what the model does.
pub fn strip(model: &mut ModelProto) -> Result<Stripped, (String, TensorError)> {
    let mut biases = HashSet::new();
    if let Some(graph) = &model.graph {
        collect_biases(graph, &mut biases);
    }
    let mut done = Stripped::default();
    try_for_each_tensor(model, &mut |tensor| {
        let name = tensor.name().to_string();
        strip_tensor(tensor, &biases, &mut done).map_err(|error| (name, error))
    })?;
    Ok(done)
}

fn strip_tensor(tensor: &mut TensorProto, biases: &HashSet<String>, done: &mut Stripped) -> Result<(), TensorError> {
    let dtype = tensor.dtype();
    let count = tensor.checked_len()?;
    let is_recipe = matches!(tensor.raw_data, Some(Payload::Fill(_)));
    let is_weight = dtype.is_float() || matches!(dtype, DType::Int8 | DType::Uint8);
    if !is_recipe && (count <= KEPT_ELEMENTS || !is_weight || biases.contains(tensor.name())) {
        return Ok(());
    }
    let recipe = match &tensor.raw_data {
        Some(Payload::Fill(fill)) => fill.clone(), // stripped already: the same recipe again
        _ => {
            let values = tensor.to_f64s()?;
            let finite = || values.iter().copied().filter(|x| x.is_finite());
            let present = finite().count().max(1) as f64;
            let mean = finite().sum::<f64>() / present;
            let variance = finite().map(|x| (x - mean).powi(2)).sum::<f64>() / present;
            Fill { mean, std: variance.sqrt(), seed: seed_of(tensor.name()), dtype, count }
        }
    };
    done.tensors += 1;
    done.bytes += recipe.byte_len();
    tensor.raw_data = None;
    tensor.float_data = Vec::new();
    tensor.double_data = Vec::new();
    tensor.int32_data = Vec::new();
    tensor.data_location = Some(LOCATION_EXTERNAL);
    tensor.external_data = recipe.entries();
    debug_assert!(fill::supports(dtype));
    Ok(())
}

/// Names that nodes use as a bias, as far as the operator tells, and the variances of normalisations: a drawn one could be
/// negative, and every value after it NaN.
fn collect_biases(graph: &GraphProto, biases: &mut HashSet<String>) {
    let lies_along_one_axis = |tensor: &&TensorProto| tensor.dims.iter().filter(|&&size| size > 1).count() <= 1;
    let vectors: HashSet<&str> =
        graph.initializer.iter().filter(lies_along_one_axis).map(|tensor| tensor.name()).collect();
    for node in &graph.node {
        let positions: &[usize] = match node.op_type.as_deref().unwrap_or_default() {
            "Conv" | "ConvTranspose" | "Gemm" => &[2],
            "LayerNormalization" | "InstanceNormalization" | "GroupNormalization" => &[2],
            "BatchNormalization" => &[2, 4],
            "LSTM" | "GRU" | "RNN" => &[3],
            "QLinearConv" => &[8],
            // What is added along one axis is the bias of a MatMul.
            "Add" => &[0, 1],
            _ => &[],
        };
        let named = positions.iter().filter_map(|&position| node.input.get(position)).filter(|name| !name.is_empty());
        biases.extend(
            named.filter(|name| node.op_type.as_deref() != Some("Add") || vectors.contains(name.as_str())).cloned(),
        );
        for attribute in &node.attribute {
            attribute.g.iter().chain(&attribute.graphs).for_each(|graph| collect_biases(graph, biases));
        }
    }
}

/// FNV-1a of the name: the same model strips to the same file everywhere.
fn seed_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3))
}
