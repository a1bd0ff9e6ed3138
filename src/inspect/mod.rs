//! What a model is, for a reader: its border, its operators, its size, its work, layer by layer.

mod layers;
mod scope;
pub mod table;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::graph::{Graph, GraphError, Model, ValueId, flops, inline, shapes};
use crate::onnx::{DType, Payload};

pub use layers::{Layer, layer_names, scope_of};

/// What is to be told of a model.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// Program that wrote the file, with its version.
    pub producer: String,
    /// The format's version.
    pub ir_version: i64,
    /// Version of each operator domain.
    pub opsets: BTreeMap<String, i64>,
    /// The model's own properties.
    pub metadata: BTreeMap<String, String>,
    /// What the caller gives.
    pub inputs: Vec<Border>,
    /// What the caller gets.
    pub outputs: Vec<Border>,
    /// Operators with their counts, most frequent first; bodies of If, Loop and Scan and model-local functions included.
    pub operators: Vec<(String, usize)>,
    /// How many nodes there are, Constant nodes and those of subgraphs included.
    pub nodes: usize,
    /// How many model-local functions there are.
    pub functions: usize,
    /// How large the weights are.
    pub weights: Weights,
    /// Floating-point operations of a run at these sizes, a multiply-add counted as two; `None` where a size is free.
    pub flops: Option<f64>,
    /// Nodes whose work is not in `flops`, for their sizes show only when the model runs.
    pub uncounted: usize,
    /// The parts that node names tell, in the order of the graph.
    pub layers: Vec<Layer>,
}

/// An input or output.
#[derive(Clone, Debug, Serialize)]
pub struct Border {
    /// The value's name.
    pub name: String,
    /// Its element type; `None` for what is no tensor.
    pub dtype: Option<DType>,
    /// Its sizes: numbers, names, or `null` where nothing is known; `None` without a rank.
    pub shape: Option<Vec<serde_json::Value>>,
    /// Type and sizes as in ONNX's textual syntax.
    #[serde(rename = "type")]
    pub text: String,
}

/// What the model stores.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Weights {
    /// Elements of constants, without indices, shapes and flags.
    pub parameters: u64,
    /// Bytes of all constants.
    pub bytes: u64,
    /// Tensors whose values were stripped from the file, and are made up wherever the model runs.
    pub stripped: usize,
    /// Parameters by element type.
    pub dtypes: BTreeMap<String, u64>,
}

/// Looks a model over. Its shapes are inferred on the way; what it computes stays as it is.
///
/// # Errors
/// As [`shapes::infer`] and [`inline::inline_functions`].
pub fn inspect(model: &mut Model) -> Result<Facts, GraphError> {
    let functions = model.functions.len();
    inline::inline_functions(model)?;
    shapes::infer(model)?;
    let graph = &model.graph;
    let mut operators = BTreeMap::new();
    count_operators(graph, &mut operators);
    let nodes = operators.values().sum();
    let mut operators: Vec<(String, usize)> = operators.into_iter().collect();
    operators.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut weights = Weights::default();
    weigh(graph, &mut weights);
    let (uncounted, heavy) = uncounted(graph);
    let (producer, version) = model.producer();
    let property = |e: &crate::onnx::proto::StringStringEntryProto| {
        (e.key.clone().unwrap_or_default(), e.value.clone().unwrap_or_default())
    };
    Ok(Facts {
        producer: format!("{producer} {version}").trim().to_string(),
        ir_version: model.ir_version,
        opsets: model.opsets.iter().map(|(domain, &version)| (domain_name(domain), version)).collect(),
        metadata: model.metadata.iter().map(property).collect(),
        inputs: graph.inputs.iter().map(|&id| border(graph, id)).collect(),
        outputs: graph.outputs.iter().map(|&id| border(graph, id)).collect(),
        operators,
        nodes,
        functions,
        weights,
        flops: (!heavy).then(|| flops::total(model)),
        uncounted,
        layers: layers::layers(graph),
    })
}

fn domain_name(domain: &str) -> String {
    if domain.is_empty() { "ai.onnx".into() } else { domain.into() }
}

fn border(graph: &Graph, id: ValueId) -> Border {
    let value = graph.value(id);
    let dim = |dim: &crate::graph::Dim| match dim {
        crate::graph::Dim::Fixed(size) => (*size).into(),
        crate::graph::Dim::Symbol(name) => name.as_str().into(),
        crate::graph::Dim::Unknown => serde_json::Value::Null,
    };
    Border {
        name: value.name.clone(),
        dtype: value.dtype,
        shape: value.shape.as_ref().map(|dims| dims.iter().map(dim).collect()),
        text: value.type_text(),
    }
}

fn count_operators(graph: &Graph, counts: &mut BTreeMap<String, usize>) {
    for (_, node) in graph.nodes() {
        let name = if node.is_standard() { node.op_type.clone() } else { format!("{}.{}", node.domain, node.op_type) };
        *counts.entry(name).or_default() += 1;
        node.subgraphs().for_each(|(_, inner)| count_operators(inner, counts));
    }
}

/// Whether elements of this type are what training made, not indices, shapes or flags.
fn is_parameter(dtype: DType) -> bool {
    !matches!(dtype, DType::Int64 | DType::Int32 | DType::Bool | DType::String)
}

fn weigh(graph: &Graph, weights: &mut Weights) {
    let made = graph.nodes().filter(|(_, node)| node.is("Constant")).filter_map(|(_, node)| node.output(0));
    let constants = graph.initializers().map(|(id, _)| id).chain(made);
    for tensor in constants.filter_map(|id| graph.constant(id)) {
        let count = tensor.len() as u64;
        weights.bytes += tensor.dtype().byte_len(tensor.len()).unwrap_or(0) as u64;
        weights.stripped += usize::from(matches!(tensor.raw_data, Some(Payload::Fill(_))));
        if is_parameter(tensor.dtype()) {
            weights.parameters += count;
            *weights.dtypes.entry(tensor.dtype().name().to_string()).or_default() += count;
        }
    }
    for (_, node) in graph.nodes() {
        node.subgraphs().for_each(|(_, inner)| weigh(inner, weights));
    }
}

/// Nodes with an output of unknown size, and whether one of them is of the kind that the work is in.
fn uncounted(graph: &Graph) -> (usize, bool) {
    let (mut count, mut heavy) = (0, false);
    for (_, node) in graph.nodes() {
        if node.writes().any(|value| graph.value(value).static_shape().is_none()) {
            count += 1;
            heavy |= matches!(
                node.op_type.as_str(),
                "Conv" | "ConvTranspose" | "MatMul" | "Gemm" | "LSTM" | "GRU" | "RNN" | "Attention" | "Einsum"
            );
        }
        for (_, inner) in node.subgraphs() {
            let (more, inner_heavy) = uncounted(inner);
            (count, heavy) = (count + more, heavy || inner_heavy);
        }
    }
    (count, heavy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;
    use crate::graph::builder::Build;

    fn model(free: bool) -> Model {
        let mut b = Build::new();
        let x = b.input("x", DType::Float, &[if free { -1 } else { 2 }, 3, 8, 8]);
        let w = b.weight("w", &[4, 3, 3, 3]);
        let conv = b.node(Node::new("Conv", [x, w], []).named("/model.0/conv/Conv"));
        let y = b.op("Relu", "/model.0/act/Relu", &[conv]);
        let z = b.op("GlobalAveragePool", "/model.1/pool/GlobalAveragePool", &[y]);
        b.finish(&[z])
    }

    #[test]
    fn work_and_weights_are_told_by_layer() {
        let facts = inspect(&mut model(false)).unwrap();
        assert_eq!(facts.weights.parameters, 108);
        assert_eq!(facts.weights.bytes, 432);
        let conv = 2.0 * (2 * 4 * 6 * 6 * 27) as f64;
        assert_eq!(facts.flops, Some(conv + 288.0 + 288.0));
        let told: Vec<_> =
            facts.layers.iter().map(|l| (l.name.as_str(), l.nodes, l.parameters, l.output.as_deref())).collect();
        assert_eq!(told, [("/model.0", 2, 108, Some("float[2,4,6,6]")), ("/model.1", 1, 0, Some("float[2,4,1,1]"))]);
    }

    #[test]
    fn work_at_a_free_size_is_not_known() {
        let facts = inspect(&mut model(true)).unwrap();
        assert_eq!(facts.flops, None);
        assert_eq!(facts.uncounted, 3);
        assert_eq!(facts.outputs[0].text, "float[N1,4,1,1]");
    }
}
