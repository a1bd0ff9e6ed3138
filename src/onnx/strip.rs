//! Takes the weights out of a model, so that a failing model can be shown without showing them.
//!
//! Kept as they are: tensors of up to 512 elements, biases, indices and tables (wide integers), and everything that is not
//! a number. Each other weight, those of quantized models too, becomes a [`Fill`] with its own mean and standard deviation
//! and a seed made from its name.

use std::collections::HashSet;

use super::fill::{self, Fill};
use super::proto::{AttributeProto, GraphProto, LOCATION_EXTERNAL, ModelProto, NodeProto, TensorProto};
use super::{DType, Payload, TensorError, small};

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

/// Replaces the large weights of a model by recipes. Floats, bytes and what is smaller only: wider integers are indices and
/// tables, whose values decide what the model does.
///
/// # Errors
/// A tensor, by its name, whose values cannot be read.
pub fn strip(model: &mut ModelProto) -> Result<Stripped, (String, TensorError)> {
    let mut done = Stripped::default();
    if let Some(graph) = &mut model.graph {
        strip_graph(graph, &HashSet::new(), "", &mut done)?;
    }
    for function in &mut model.functions {
        // Names in a function are its own.
        let mut biases = HashSet::new();
        collect_biases(&function.node, &[], &mut biases);
        let scope = format!("{}/", function.name.as_deref().unwrap_or_default());
        strip_nodes(&mut function.node, &biases, &scope, &mut done)?;
        for attribute in &mut function.attribute_proto {
            let name = format!("{scope}{}", attribute.name.as_deref().unwrap_or_default());
            strip_attribute(attribute, &biases, &scope, &name, false, &mut done)?;
        }
    }
    Ok(done)
}

type Outcome = Result<(), (String, TensorError)>;

/// A graph's tensors. What a subgraph uses as a bias may stand in a graph around it, and the other way round no name is
/// used twice.
fn strip_graph(graph: &mut GraphProto, outer: &HashSet<String>, scope: &str, done: &mut Stripped) -> Outcome {
    let mut biases = outer.clone();
    collect_biases(&graph.node, &graph.initializer, &mut biases);
    let sparse = graph.sparse_initializer.iter_mut().filter_map(|sparse| sparse.values.as_mut());
    for tensor in graph.initializer.iter_mut().chain(sparse) {
        let name = tensor.name().to_string();
        let is_bias = biases.contains(&name);
        strip_tensor(tensor, &format!("{scope}{name}"), is_bias, done)?;
    }
    strip_nodes(&mut graph.node, &biases, scope, done)
}

fn strip_nodes(nodes: &mut [NodeProto], biases: &HashSet<String>, scope: &str, done: &mut Stripped) -> Outcome {
    for node in nodes {
        // A Constant's tensor is known by the name of what it makes.
        let made = node.output.first().cloned().unwrap_or_default();
        let is_bias = node.op_type.as_deref() == Some("Constant") && biases.contains(&made);
        for attribute in &mut node.attribute {
            strip_attribute(attribute, biases, scope, &format!("{scope}{made}"), is_bias, done)?;
        }
    }
    Ok(())
}

fn strip_attribute(
    attribute: &mut AttributeProto,
    biases: &HashSet<String>,
    scope: &str,
    name: &str,
    is_bias: bool,
    done: &mut Stripped,
) -> Outcome {
    let sparse = attribute.sparse_tensor.iter_mut().chain(&mut attribute.sparse_tensors);
    let sparse = sparse.filter_map(|sparse| sparse.values.as_mut());
    for tensor in attribute.t.iter_mut().chain(&mut attribute.tensors).chain(sparse) {
        // A name that it has itself is what earlier files were seeded with.
        let own = if tensor.name().is_empty() { name.to_string() } else { tensor.name().to_string() };
        strip_tensor(tensor, &own, is_bias, done)?;
    }
    attribute.g.iter_mut().chain(&mut attribute.graphs).try_for_each(|graph| strip_graph(graph, biases, scope, done))
}

fn strip_tensor(tensor: &mut TensorProto, name: &str, is_bias: bool, done: &mut Stripped) -> Outcome {
    let told = |problem: TensorError| (name.to_string(), problem);
    let dtype = tensor.dtype();
    let count = tensor.checked_len().map_err(told)?;
    let is_recipe = matches!(tensor.raw_data, Some(Payload::Fill(_)));
    let is_weight = dtype.is_float() || small::is_small(dtype) || matches!(dtype, DType::Int8 | DType::Uint8);
    if !is_recipe && (count <= KEPT_ELEMENTS || !is_weight || is_bias) {
        return Ok(());
    }
    let recipe = match &tensor.raw_data {
        Some(Payload::Fill(fill)) => fill.clone(), // stripped already: the same recipe again
        _ => {
            let values = numbers(tensor, dtype, count).map_err(told)?;
            let finite = || values.iter().copied().filter(|x| x.is_finite());
            let present = finite().count().max(1) as f64;
            let mean = finite().sum::<f64>() / present;
            let variance = finite().map(|x| (x - mean).powi(2)).sum::<f64>() / present;
            Fill { mean, std: variance.sqrt(), seed: seed_of(name), dtype, count }
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

fn numbers(tensor: &TensorProto, dtype: DType, count: usize) -> Result<Vec<f64>, TensorError> {
    if !small::is_small(dtype) {
        return tensor.to_f64s();
    }
    let codes = small::unpack(dtype, &tensor.to_bytes()?, count);
    Ok(codes.into_iter().map(|code| small::number(dtype, code).unwrap_or(f64::NAN)).collect())
}

/// Names that nodes use as a bias, as far as the operator tells, and the variances of normalisations: a drawn one could be
/// negative, and every value after it NaN.
fn collect_biases(nodes: &[NodeProto], initializers: &[TensorProto], biases: &mut HashSet<String>) {
    let lies_along_one_axis = |tensor: &TensorProto| tensor.dims.iter().filter(|&&size| size > 1).count() <= 1;
    let stored = initializers.iter().map(|tensor| (tensor.name(), tensor));
    let made = nodes.iter().filter_map(|node| {
        let constant = node.op_type.as_deref() == Some("Constant");
        let tensor = node.attribute.iter().find_map(|attribute| attribute.t.as_ref()).filter(|_| constant)?;
        Some((node.output.first()?.as_str(), tensor))
    });
    let vectors: HashSet<&str> =
        stored.chain(made).filter(|(_, tensor)| lies_along_one_axis(tensor)).map(|(name, _)| name).collect();
    for node in nodes {
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
            let inner = attribute.g.iter().chain(&attribute.graphs);
            inner.for_each(|graph| collect_biases(&graph.node, &graph.initializer, biases));
        }
    }
}

/// FNV-1a of the name: the same model strips to the same file everywhere.
fn seed_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3))
}
