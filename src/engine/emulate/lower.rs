//! The rewriting behind emulation: 16-bit values become float32, with roundings where they were made.

use std::collections::{HashMap, HashSet};

use super::{DOMAIN, ROUND, is_half, rounded, types};
use crate::graph::{AttributeValue, Graph, Model, Node, NodeId, ValueId};
use crate::onnx::{DType, Tensor};

/// The largest finite float16.
const FLOAT16_MAX: f32 = 65504.0;

/// Operators whose results are among their inputs' values: what is rounded stays so.
const MOVES: &[&str] = &[
    "Abs",
    "Compress",
    "Concat",
    "DepthToSpace",
    "Dropout",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "GlobalMaxPool",
    "Identity",
    "If",
    "Loop",
    "Max",
    "MaxPool",
    "MaxRoiPool",
    "Min",
    "Neg",
    "OneHot",
    "Pad",
    "ReduceMax",
    "ReduceMin",
    "Relu",
    "Reshape",
    "ReverseSequence",
    "Scan",
    "ScatterElements",
    "ScatterND",
    "Sign",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "TopK",
    "Transpose",
    "Trilu",
    "Unique",
    "Unsqueeze",
    "Where",
];

/// What is rounded to the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Every tensor of the type, as a device would.
    Everything,
    /// Only the weights. What is computed from them is computed in float32, so that two forms of a model in 16 bits can
    /// be held against each other as sharply as two float32 models: what the type does to activations drops out.
    Weights,
}

/// The float32 model that computes what a model in 16-bit floats would, with the same names; `None` where nothing in it
/// is in 16 bits. Inputs and outputs of the type become float32.
pub fn of(model: &Model) -> Option<Model> {
    widened(model, Rounding::Everything)
}

/// As [`of`], with as much rounding as asked for.
pub fn widened(model: &Model, rounding: Rounding) -> Option<Model> {
    let known = types::of(&model.graph, &HashMap::new());
    if !known.values().any(|&dtype| is_half(dtype)) {
        return None;
    }
    let mut wide = model.clone();
    widen(&mut wide.graph, &HashMap::new(), rounding);
    wide.opsets.insert(DOMAIN.into(), 1);
    Some(wide)
}

fn widen(graph: &mut Graph, outer: &HashMap<String, DType>, rounding: Rounding) {
    let known = types::of(graph, outer);
    let half = |id: ValueId| known.get(&id).copied().filter(|&dtype| is_half(dtype));
    let ids: Vec<ValueId> = graph.values().map(|(id, _)| id).collect();
    for &id in &ids {
        if half(id).is_none() {
            continue;
        }
        if let Some(tensor) = graph.initializer(id).and_then(|tensor| tensor.convert(DType::Float)) {
            graph.set_initializer(id, tensor);
        }
        graph.value_mut(id).dtype = Some(DType::Float);
    }
    let mut inner = outer.clone();
    inner.extend(known.iter().map(|(&id, &dtype)| (graph.value(id).name.clone(), dtype)));
    for id in graph.node_ids() {
        graph.node_mut(id).subgraphs_mut().for_each(|body| widen(body, &inner, rounding));
        widen_attributes(graph.node_mut(id));
        let node = graph.node(id);
        let moves = moves(node);
        let outputs: Vec<(usize, ValueId, DType)> = node
            .outputs
            .iter()
            .enumerate()
            .filter_map(|(index, output)| Some((index, (*output)?, half((*output)?)?)))
            .collect();
        // A Cast to 16 bits is where float32 values come in: its rounding is the whole of it.
        if !moves && rounding == Rounding::Everything {
            for (index, output, dtype) in outputs {
                round_output(graph, id, index, output, dtype);
            }
        }
    }
    let _ = graph.sort(); // roundings stand at the end so far; they close no cycle
}

/// 16-bit types named in a node's attributes become float32.
fn widen_attributes(node: &mut Node) {
    for attribute in &mut node.attributes {
        match &mut attribute.value {
            AttributeValue::Tensor(tensor) if is_half(tensor.dtype()) => {
                if let Some(wide) = tensor.convert(DType::Float) {
                    **tensor = wide;
                }
            }
            AttributeValue::Int(number)
                if matches!(attribute.name.as_str(), "to" | "dtype" | "output_dtype")
                    && DType::from_number(*number as i32).is_some_and(is_half) =>
            {
                *number = i64::from(DType::Float.number());
            }
            _ => {}
        }
    }
}

fn moves(node: &Node) -> bool {
    let picks = matches!(node.op_type.as_str(), "Resize" | "Upsample")
        && node.string("mode").is_none_or(|mode| mode == "nearest");
    node.is_standard() && (picks || MOVES.contains(&node.op_type.as_str()))
}

/// Puts a rounding between a node's output and everybody who reads it; the rounded value keeps the name.
fn round_output(graph: &mut Graph, node: NodeId, index: usize, output: ValueId, dtype: DType) {
    let (name, shape) = (graph.value(output).name.clone(), graph.value(output).shape.clone());
    let exact = graph.add_typed_value(&format!("{name}_exact"), Some(DType::Float), shape);
    graph.set_output(node, index, Some(exact));
    let within = within(graph, &name, exact, dtype);
    graph.add_node(rounding(&name, within, output, dtype));
}

/// The value with numbers beyond float16's largest brought back to it, as accelerators do. What float16 makes of a model is
/// wanted here as a measure of its noise, and an infinity measures nothing.
fn within(graph: &mut Graph, name: &str, value: ValueId, dtype: DType) -> ValueId {
    if dtype != DType::Float16 {
        return value;
    }
    let shape = graph.value(value).shape.clone();
    let low = graph.add_initializer(Tensor::from_f32(format!("{name}_lowest"), &[], &[-FLOAT16_MAX]));
    let high = graph.add_initializer(Tensor::from_f32(format!("{name}_highest"), &[], &[FLOAT16_MAX]));
    let within = graph.add_typed_value(&format!("{name}_within"), Some(DType::Float), shape);
    graph.add_node(Node::new("Clip", [value, low, high], [within]).named(format!("{name}_within")));
    within
}

fn rounding(name: &str, from: ValueId, to: ValueId, dtype: DType) -> Node {
    let mut node = Node::new(ROUND, [from], [to]).named(format!("{name}_round"));
    node.domain = DOMAIN.into();
    node.with("to", i64::from(dtype.number()))
}

/// What a float32 model would compute in `to`: every float tensor that a node makes is rounded, and so is what it reads,
/// except at nodes for which `keep` says that they stay in float32. Outputs keep their names.
pub fn lower(model: &Model, to: DType, keep: &dyn Fn(&Node) -> bool) -> Model {
    lowered(model, to, keep, Rounding::Everything)
}

/// As [`lower`], with as much rounding as asked for.
pub fn lowered(model: &Model, to: DType, keep: &dyn Fn(&Node) -> bool, rounding: Rounding) -> Model {
    let mut lowered = model.clone();
    lower_graph(&mut lowered.graph, to, keep, &HashMap::new(), rounding, 0);
    lowered.opsets.insert(DOMAIN.into(), 1);
    lowered
}

fn lower_graph(
    graph: &mut Graph,
    to: DType,
    keep: &dyn Fn(&Node) -> bool,
    outer: &HashMap<String, DType>,
    rounding: Rounding,
    depth: usize,
) {
    let known = types::of(graph, outer);
    let mut inner = outer.clone();
    inner.extend(known.iter().map(|(&id, &dtype)| (graph.value(id).name.clone(), dtype)));
    let is_float = |id: ValueId| known.get(&id) == Some(&DType::Float);
    let mut narrow: HashSet<ValueId> = HashSet::new(); // what holds values of the type already
    let mut copies: HashMap<ValueId, ValueId> = HashMap::new(); // rounded copies of what does not
    for id in graph.node_ids() {
        if graph.node(id).subgraphs().next().is_some() {
            let bodies = graph.node_mut(id).subgraphs_mut();
            bodies.for_each(|body| lower_graph(body, to, keep, &inner, rounding, depth + 1));
            continue;
        }
        let node = graph.node(id);
        // A constant is rounded by whoever reads it. What makes or reads lists of tensors hands them on as they are.
        let lists =
            (node.op_type.contains("Sequence") && !node.is("ReverseSequence")) || node.op_type.contains("Optional");
        if node.is("Constant") || lists || keep(node) {
            continue;
        }
        let moves = moves(node);
        let sizes_only = node.is("Resize") || node.is("Upsample"); // the other inputs are scales and sizes, which decide shapes
        let inputs: Vec<(usize, ValueId)> = node
            .inputs
            .iter()
            .enumerate()
            .filter_map(|(index, input)| Some((index, (*input)?)))
            .filter(|&(index, input)| is_float(input) && !narrow.contains(&input) && !(sizes_only && index > 0))
            .filter(|&(_, input)| rounding == Rounding::Everything || graph.initializer(input).is_some())
            .collect();
        let outputs: Vec<(usize, ValueId)> = node
            .outputs
            .iter()
            .enumerate()
            .filter_map(|(index, output)| Some((index, (*output)?)))
            .filter(|&(_, output)| is_float(output))
            .collect();
        if outputs.is_empty() && !inputs.is_empty() && node.is("Cast") {
            continue; // leaving float: whatever comes next decides
        }
        for (index, input) in inputs {
            let copy = *copies.entry(input).or_insert_with(|| rounded_copy(graph, input, to, depth));
            graph.set_input(id, index, Some(copy));
        }
        for (index, output) in outputs {
            if !moves && rounding == Rounding::Everything {
                round_output(graph, id, index, output, to);
            }
            narrow.insert(output);
        }
    }
    let _ = graph.sort();
}

/// A value that holds `value` rounded: another initializer, or a rounding of it. A graph within a graph may round a value
/// that is rounded outside as well, and no name may stand twice along that way, so the `depth` is in it.
fn rounded_copy(graph: &mut Graph, value: ValueId, to: DType, depth: usize) -> ValueId {
    let inner = if depth > 0 { format!("_{depth}") } else { String::new() };
    let name = format!("{}_rounded{inner}", graph.value(value).name);
    if let Some(tensor) = graph.initializer(value).and_then(|tensor| rounded(&finite(tensor, to), to)) {
        return graph.add_initializer(tensor.renamed(&name));
    }
    let shape = graph.value(value).shape.clone();
    let copy = graph.add_typed_value(&name, Some(DType::Float), shape);
    let value = within(graph, &name, value, to);
    graph.add_node(rounding(&name, value, copy, to));
    copy
}

/// A weight as [`within`] has it.
fn finite(tensor: &Tensor, to: DType) -> Tensor {
    let values = (to == DType::Float16 && tensor.dtype() == DType::Float).then(|| tensor.to_f32s().ok()).flatten();
    match values {
        Some(values) if values.iter().any(|x| x.abs() > FLOAT16_MAX) => {
            let values: Vec<f32> = values.into_iter().map(|x| x.clamp(-FLOAT16_MAX, FLOAT16_MAX)).collect();
            Tensor::from_f32(tensor.name(), tensor.dims(), &values)
        }
        _ => tensor.clone(),
    }
}
