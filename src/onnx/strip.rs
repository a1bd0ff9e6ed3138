//! Takes the weights out of a model, so that a failing model can be shown without showing them.
//!
//! Kept as they are: tensors of up to 512 elements, biases, and everything that is not a number. Each other weight becomes
//! a [`Fill`] with its own mean and standard deviation and a seed made from its name.

use std::collections::HashSet;

use super::fill::{self, Fill};
use super::proto::{GraphProto, LOCATION_EXTERNAL, ModelProto, TensorProto};
use super::read::try_for_each_tensor;
use super::{Payload, TensorError};

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

/// Replaces the large weights of a model by recipes. Floats only: integer tensors are indices and tables, whose values
/// decide what the model does.
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
    if count <= KEPT_ELEMENTS || !dtype.is_float() || biases.contains(tensor.name()) {
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

/// The third input of a layer is its bias; an elementwise Add to one axis is seldom over 512 long.
fn collect_biases(graph: &GraphProto, biases: &mut HashSet<String>) {
    for node in &graph.node {
        if matches!(node.op_type.as_deref(), Some("Conv" | "ConvTranspose" | "Gemm" | "LayerNormalization")) {
            biases.extend(node.input.get(2).cloned());
        }
        for attribute in &node.attribute {
            attribute.g.iter().chain(&attribute.graphs).for_each(|graph| collect_biases(graph, biases));
        }
    }
}

/// FNV-1a of the name: the same model strips to the same file everywhere.
fn seed_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3))
}
