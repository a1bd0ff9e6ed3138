//! Floating-point operations of a node: a multiply and an add count as two, anything else an element as one.
//!
//! Needs static shapes; where a size is not known, the node counts 0. Formulas: each output element of a contraction
//! takes one multiply-add for each weight that it reads.

use super::{Graph, Model, Node, NodeId, ValueId};

/// Operations that a node takes at its shapes, those of its subgraphs included (each counted once).
pub fn of(graph: &Graph, id: NodeId) -> f64 {
    let node = graph.node(id);
    let inner: f64 = node.subgraphs().map(|(_, sub)| graph_total(sub)).sum();
    count(graph, node).unwrap_or(0.0) + inner
}

/// Operations that a model takes at its shapes, bodies of If, Loop and Scan counted once.
pub fn total(model: &Model) -> f64 {
    graph_total(&model.graph)
}

fn graph_total(graph: &Graph) -> f64 {
    graph.nodes().map(|(id, _)| of(graph, id)).sum()
}

/// In floating point: sizes in a broken file multiply to more than 64 bits hold.
fn product(sizes: &[i64]) -> f64 {
    sizes.iter().map(|&size| size as f64).product()
}

fn count(graph: &Graph, node: &Node) -> Option<f64> {
    let shape = |value: Option<ValueId>| graph.value(value?).static_shape();
    let elements = |value: Option<ValueId>| Some(product(&shape(value)?));
    let (input, output) = (node.input(0), node.output(0));
    Some(match node.op_type.as_str() {
        // weight [out, in / group, kernel...]: in / group * kernel multiply-adds for each output element
        "Conv" | "ConvInteger" | "QLinearConv" => {
            let weight = shape(node.input(if node.op_type == "QLinearConv" { 3 } else { 1 }))?;
            2.0 * elements(output)? * product(weight.get(1..).unwrap_or_default())
        }
        // weight [in, out / group, kernel...]: out / group * kernel multiply-adds for each input element
        "ConvTranspose" => 2.0 * elements(input)? * product(shape(node.input(1))?.get(1..).unwrap_or_default()),
        "MatMul" | "MatMulInteger" => 2.0 * elements(output)? * *shape(input)?.last()? as f64,
        "Gemm" => {
            let a = shape(input)?;
            let inner = if node.int("transA").unwrap_or(0) != 0 { a.first()? } else { a.last()? };
            2.0 * elements(output)? * *inner as f64
        }
        // X [sequence, batch, in], R [directions, gates * hidden, hidden]; both orders of the batch multiply alike
        "LSTM" | "GRU" | "RNN" => {
            let (x, w, r) = (shape(input)?, shape(node.input(1))?, shape(node.input(2))?);
            let steps = product(x.get(..2)?);
            2.0 * steps * (product(&w) + product(&r))
        }
        "MaxPool" | "AveragePool" | "LpPool" => elements(output)? * product(node.ints("kernel_shape")?),
        op if op.starts_with("Reduce") || op.starts_with("Global") || op.starts_with("Arg") || op == "TopK" => {
            elements(input)?
        }
        "Softmax" | "LogSoftmax" | "LayerNormalization" | "InstanceNormalization" | "GroupNormalization" => {
            5.0 * elements(output)? // maximum or mean, difference, square or exponential, sum, division
        }
        "Constant" | "Identity" | "Reshape" | "Transpose" | "Flatten" | "Squeeze" | "Unsqueeze" | "Concat"
        | "Split" | "Slice" | "Gather" | "GatherElements" | "GatherND" | "Expand" | "Tile" | "Pad" | "Shape"
        | "Size" | "Cast" | "ConstantOfShape" | "Range" | "If" | "Loop" | "Scan" | "Dropout" | "DepthToSpace"
        | "SpaceToDepth" => 0.0,
        _ => node.writes().filter_map(|value| elements(Some(value))).sum(),
    })
}
