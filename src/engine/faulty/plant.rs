//! Changing a graph so that it computes what a broken compiler would.

use super::fault::{Fault, Kind};
use crate::engine::{EngineError, emulate};
use crate::graph::{Graph, Model, Node, NodeId, ValueId, shapes};
use crate::onnx::{DType, Tensor};

/// A graph with faults in it, and what its session has to feed.
pub(super) struct Planted {
    pub model: Model,
    pub stale: Vec<Stale>,
    pub noisy: Vec<Noisy>,
    /// The program ends when it is run, with this code.
    pub run_fails: Option<String>,
    /// The nodes that are struck.
    pub strikes: usize,
}

pub(super) struct Stale {
    pub input: String,
    pub output: String,
    pub last: Tensor,
}

pub(super) struct Noisy {
    pub input: String,
    pub dims: Vec<i64>,
}

/// Plants every fault wherever it strikes in this model.
pub(super) fn plant(model: &Model, faults: &[Fault], engine: &str) -> Result<Planted, EngineError> {
    let mut known = model.clone();
    // What cannot be inferred stays unknown, and no fault that depends on it strikes there.
    let _ = shapes::infer(&mut known);
    let places: Vec<Vec<NodeId>> = faults.iter().map(|fault| fault.places(&known)).collect();
    let strikes = places.iter().map(Vec::len).sum();
    let mut planted = Planted { model: known, stale: Vec::new(), noisy: Vec::new(), run_fails: None, strikes };
    for (fault, nodes) in faults.iter().zip(places) {
        for id in nodes {
            strike(&mut planted, fault, id, engine)?;
        }
    }
    // Only the order can be wrong now, and every new node reads what was there before.
    let _ = planted.model.graph.sort();
    Ok(planted)
}

fn strike(planted: &mut Planted, fault: &Fault, id: NodeId, engine: &str) -> Result<(), EngineError> {
    if !planted.model.graph.contains(id) {
        return Ok(()); // another fault took it
    }
    let label = planted.model.graph.label(id);
    let code = |other: &str| Some(fault.code.clone().unwrap_or_else(|| other.into()));
    let fails = |code: Option<String>, how: &str| {
        Err(EngineError::Compile { engine: engine.into(), code, problem: format!("simulated: {how} at {label}") })
    };
    match fault.kind {
        Kind::CompileError => return fails(code("error"), "the compiler refuses"),
        Kind::Crash => return fails(code("exit:70"), "the compiler ends"),
        Kind::Hang => return fails(Some("timeout".into()), "the compiler never ends"),
        Kind::RunCrash => {
            planted.run_fails = code("signal:6");
            return Ok(());
        }
        Kind::StrideDrop => {
            stride_drop(&mut planted.model.graph, fault, id);
            return Ok(());
        }
        Kind::WrongMode => {
            wrong_mode(&mut planted.model.graph, id);
            return Ok(());
        }
        Kind::ConstantTransposed => {
            constant_transposed(&mut planted.model.graph, id);
            return Ok(());
        }
        _ => {}
    }
    let outputs = planted.model.graph.node(id).outputs.clone();
    for (index, output) in outputs.into_iter().enumerate() {
        let Some(value) = output else { continue };
        if fault.output.is_none_or(|only| only == index) {
            wrong_output(planted, fault, id, index, value);
        }
    }
    Ok(())
}

/// Small steps for writing nodes into a graph.
struct Writer<'a> {
    graph: &'a mut Graph,
    stem: String,
}

impl Writer<'_> {
    fn value(&mut self, what: &str) -> ValueId {
        let name = format!("{}_{what}", self.stem);
        self.graph.add_value(&name)
    }

    fn ints(&mut self, values: &[i64]) -> ValueId {
        let name = format!("{}_ints", self.stem);
        self.graph.add_initializer(Tensor::from_i64(name, &[values.len() as i64], values))
    }

    fn constant(&mut self, dtype: DType, dims: &[i64], values: &[f64]) -> Option<ValueId> {
        let name = format!("{}_constant", self.stem);
        Some(self.graph.add_initializer(Tensor::from_f64s(name, dtype, dims, values)?))
    }

    fn node(&mut self, node: Node, out: Option<ValueId>) -> ValueId {
        let out = out.unwrap_or_else(|| self.value("step"));
        let mut node = node;
        node.outputs = vec![Some(out)];
        self.graph.add_node(node);
        out
    }

    fn reshape(&mut self, x: ValueId, dims: &[i64]) -> ValueId {
        let dims = self.ints(dims);
        self.node(Node::new("Reshape", [x, dims], []), None)
    }

    fn slice(&mut self, x: ValueId, axis: i64, begin: i64, end: i64) -> ValueId {
        let (begin, end, axis) = (self.ints(&[begin]), self.ints(&[end]), self.ints(&[axis]));
        self.node(Node::new("Slice", [x, begin, end, axis], []), None)
    }
}

fn product(dims: &[i64]) -> i64 {
    dims.iter().product()
}

/// Which axis a node means, counted from the front.
fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

/// Output i of a Split is the run `flat[offset_i * inner..][..numel_i]` of its input; likewise for a Slice. A Concat lays
/// its inputs end to end.
fn stride_drop(graph: &mut Graph, fault: &Fault, id: NodeId) {
    let node = graph.node(id).clone();
    let dims = |graph: &Graph, value: Option<ValueId>| value.and_then(|value| graph.value(value).static_shape());
    let Some(x) = node.input(0) else { return };
    let Some(x_dims) = dims(graph, Some(x)) else { return };
    let outputs: Option<Vec<(ValueId, Vec<i64>)>> =
        node.outputs.iter().flatten().map(|&out| Some((out, dims(graph, Some(out))?))).collect();
    let Some(outputs) = outputs else { return };
    let rank = x_dims.len();
    match node.op_type.as_str() {
        "Split" => {
            let Some(axis) = axis_of(node.int("axis").unwrap_or(0), rank) else { return };
            let inner = product(&x_dims[axis + 1..]);
            let mut offset = 0;
            let mut pieces = Vec::new();
            for (index, (out, out_dims)) in outputs.into_iter().enumerate() {
                pieces.push((index, out, offset * inner, out_dims.clone()));
                offset += out_dims[axis];
            }
            for (index, out, begin, out_dims) in pieces {
                if fault.output.is_some_and(|only| only != index) {
                    continue;
                }
                let right = graph.add_value(&format!("{}_right", graph.value(out).name));
                graph.set_output(id, index, Some(right));
                contiguous(graph, fault, x, right, out, begin, &out_dims);
            }
        }
        "Slice" => {
            let ints = |index: usize| graph.constant(node.input(index)?)?.to_i64s().ok();
            let (Some(begins), Some((out, out_dims))) = (ints(1), outputs.into_iter().next()) else { return };
            let axes = ints(3).unwrap_or_else(|| (0..begins.len() as i64).collect());
            let steps = ints(4).unwrap_or_else(|| vec![1; begins.len()]);
            let (&[begin], &[axis], &[1]) = (begins.as_slice(), axes.as_slice(), steps.as_slice()) else { return };
            let Some(axis) = axis_of(axis, rank) else { return };
            let begin = if begin < 0 { begin + x_dims[axis] } else { begin }.clamp(0, x_dims[axis]);
            let offset = begin * product(&x_dims[axis + 1..]);
            if offset + product(&out_dims) <= product(&x_dims) {
                let right = graph.add_value(&format!("{}_right", graph.value(out).name));
                graph.set_output(id, 0, Some(right));
                contiguous(graph, fault, x, right, out, offset, &out_dims);
            }
        }
        "Concat" => {
            let Some((out, out_dims)) = outputs.into_iter().next() else { return };
            let right = graph.add_value(&format!("{}_right", graph.value(out).name));
            let dtype = graph.value(out).dtype;
            graph.set_output(id, 0, Some(right));
            let mut w = Writer { stem: format!("{}_fault", graph.value(out).name), graph };
            let flat: Vec<ValueId> = node.inputs.iter().flatten().map(|&input| w.reshape(input, &[-1])).collect();
            let all = w.node(Node::new("Concat", flat, []).with("axis", 0), None);
            let wrong = w.reshape(all, &out_dims);
            finish(&mut w, fault, right, wrong, out, &out_dims, dtype);
        }
        _ => {}
    }
}

fn contiguous(graph: &mut Graph, fault: &Fault, x: ValueId, right: ValueId, out: ValueId, begin: i64, dims: &[i64]) {
    let dtype = graph.value(out).dtype;
    let mut w = Writer { stem: format!("{}_fault", graph.value(out).name), graph };
    let flat = w.reshape(x, &[-1]);
    let run = w.slice(flat, 0, begin, begin + product(dims));
    let wrong = w.reshape(run, dims);
    finish(&mut w, fault, right, wrong, out, dims, dtype);
}

/// Makes `out` the wrong values where the fault strikes and the right ones elsewhere.
fn finish(
    w: &mut Writer,
    fault: &Fault,
    right: ValueId,
    wrong: ValueId,
    out: ValueId,
    dims: &[i64],
    dtype: Option<DType>,
) {
    let shape = Some(dims.iter().map(|&size| crate::graph::Dim::Fixed(size)).collect());
    for value in [right, wrong] {
        let known = w.graph.value_mut(value);
        known.dtype = dtype;
        known.shape = Clone::clone(&shape);
    }
    match mask(dims, fault) {
        Some((mask_dims, mask)) => {
            if let Some(mask) = w.constant(DType::Bool, &mask_dims, &mask) {
                w.node(Node::new("Where", [mask, wrong, right], []), Some(out));
            }
        }
        None => {
            w.node(Node::new("Identity", [wrong], []), Some(out));
        }
    }
}

/// Where the fault strikes, in sizes that broadcast; `None` for everywhere.
fn mask(dims: &[i64], fault: &Fault) -> Option<(Vec<i64>, Vec<f64>)> {
    if fault.batch.is_none() && fault.channel.is_none() {
        return None;
    }
    let size = |axis: usize, only: Option<usize>| match only {
        Some(_) => dims.get(axis).copied().unwrap_or(1).max(1),
        None => 1,
    };
    let (batches, channels) = (size(0, fault.batch), size(1, fault.channel));
    let mut mask = Vec::new();
    for batch in 0..batches {
        for channel in 0..channels {
            let strikes = fault.batch.is_none_or(|only| only as i64 % batches == batch)
                && fault.channel.is_none_or(|only| only as i64 % channels == channel);
            mask.push(strikes as u8 as f64);
        }
    }
    let mut mask_dims = vec![1; dims.len()];
    if !dims.is_empty() {
        mask_dims[0] = batches;
    }
    if dims.len() > 1 {
        mask_dims[1] = channels;
    }
    (product(&mask_dims) == mask.len() as i64).then_some((mask_dims, mask))
}

/// Puts wrong values behind one output of a node.
fn wrong_output(planted: &mut Planted, fault: &Fault, id: NodeId, index: usize, out: ValueId) {
    let graph = &mut planted.model.graph;
    let (dtype, Some(dims)) = (graph.value(out).dtype, graph.value(out).static_shape()) else { return };
    let Some(dtype) = dtype.filter(|dtype| *dtype != DType::String) else { return };
    let rank = dims.len();
    let float = dtype.is_float();
    let axis = axis_of(fault.axis.unwrap_or(if fault.kind == Kind::ChannelsPermuted { 1 } else { -1 }), rank);
    // Decided before anything is changed: what makes no sense here does not strike.
    let fits = match fault.kind {
        Kind::Transposed => rank >= 2 && dims[rank - 2..].iter().all(|&size| size > 1),
        Kind::Shifted | Kind::ChannelsPermuted => axis.is_some_and(|axis| dims[axis] > 1),
        Kind::BatchBroadcast => rank >= 1 && dims[0] > 1,
        Kind::Scaled | Kind::Saturated | Kind::Rounded | Kind::Nan => float,
        Kind::Nondeterministic => dtype == DType::Float,
        _ => true,
    };
    if !fits || dims.iter().any(|&size| size < 1) {
        return;
    }
    let name = graph.value(out).name.clone();
    let right = graph.add_value(&format!("{name}_right"));
    graph.set_output(id, index, Some(right));
    let axis = axis.unwrap_or(0);
    let mut w = Writer { graph, stem: format!("{name}_fault") };
    let amount = |other: f64| fault.amount.unwrap_or(other);
    let scalar = |w: &mut Writer, x: f64| w.constant(dtype, &[], &[x]);
    let wrong = match fault.kind {
        Kind::Transposed => {
            let mut perm: Vec<i64> = (0..rank as i64).collect();
            perm.swap(rank - 1, rank - 2);
            let turned = w.node(Node::new("Transpose", [right], []).with("perm", perm), None);
            Some(w.reshape(turned, &dims))
        }
        Kind::Shifted => {
            let last = dims[axis] - 1;
            let (front, rest) = (w.slice(right, axis as i64, last, last + 1), w.slice(right, axis as i64, 0, last));
            Some(w.node(Node::new("Concat", [front, rest], []).with("axis", axis as i64), None))
        }
        Kind::Zeroed => {
            let ones: Vec<i64> = vec![1; rank];
            let zero = w.constant(dtype, &ones, &[0.0]);
            let target = w.ints(&dims);
            zero.map(|zero| w.node(Node::new("Expand", [zero, target], []), None))
        }
        Kind::BatchBroadcast => {
            let first = w.slice(right, 0, 0, 1);
            let target = w.ints(&dims);
            Some(w.node(Node::new("Expand", [first, target], []), None))
        }
        Kind::ChannelsPermuted => {
            // Turned round, and then the first two exchanged, so that a middle one moves too.
            let mut order: Vec<i64> = (0..dims[axis]).rev().collect();
            if order.len() > 2 {
                order.swap(0, 1);
            }
            let order = w.ints(&order);
            Some(w.node(Node::new("Gather", [right, order], []).with("axis", axis as i64), None))
        }
        Kind::Scaled => scalar(&mut w, amount(1.5)).map(|by| w.node(Node::new("Mul", [right, by], []), None)),
        Kind::Saturated => saturated(&mut w, right, dtype, fault.amount),
        Kind::Rounded => {
            let to = i64::from(fault.dtype.unwrap_or(DType::Bfloat16).number());
            let mut node = Node::new(emulate::ROUND, [right], []).with("to", to);
            node.domain = emulate::DOMAIN.into();
            Some(w.node(node, None))
        }
        Kind::Nan => {
            let ones: Vec<i64> = vec![1; rank];
            let target = w.ints(&dims);
            let nan = w.constant(dtype, &ones, &[f64::NAN]);
            nan.map(|nan| w.node(Node::new("Expand", [nan, target], []), None))
        }
        Kind::Stale => {
            let input = w.value("before");
            w.graph.inputs.push(input);
            w.graph.outputs.push(right);
            let known = w.graph.value_mut(input);
            known.dtype = Some(dtype);
            known.shape = Some(dims.iter().map(|&size| crate::graph::Dim::Fixed(size)).collect());
            let input_name = w.graph.value(input).name.clone();
            let count = product(&dims) as usize;
            let last = Tensor::from_f64s(&input_name, dtype, &dims, &vec![0.0; count]);
            last.map(|last| {
                planted.stale.push(Stale { input: input_name, output: w.graph.value(right).name.clone(), last });
                input
            })
        }
        Kind::Nondeterministic => {
            let input = w.value("noise");
            w.graph.inputs.push(input);
            let known = w.graph.value_mut(input);
            known.dtype = Some(dtype);
            known.shape = Some(dims.iter().map(|&size| crate::graph::Dim::Fixed(size)).collect());
            planted.noisy.push(Noisy { input: w.graph.value(input).name.clone(), dims: dims.clone() });
            scalar(&mut w, amount(0.1)).map(|by| {
                let noise = w.node(Node::new("Mul", [input, by], []), None);
                w.node(Node::new("Add", [right, noise], []), None)
            })
        }
        _ => None,
    };
    let wrong = wrong.unwrap_or(right);
    finish(&mut w, fault, right, wrong, out, &dims, Some(dtype));
    if fault.kind == Kind::Rounded {
        planted.model.opsets.entry(emulate::DOMAIN.into()).or_insert(1);
    }
}

/// Clipped at a bound, or at half of the largest value that is there.
fn saturated(w: &mut Writer, right: ValueId, dtype: DType, bound: Option<f64>) -> Option<ValueId> {
    let half = match bound {
        Some(bound) => w.constant(dtype, &[], &[bound])?,
        None => {
            let size = w.node(Node::new("Abs", [right], []), None);
            let most = w.node(Node::new("ReduceMax", [size], []).with("keepdims", 0), None);
            let half = w.constant(dtype, &[], &[0.5])?;
            w.node(Node::new("Mul", [most, half], []), None)
        }
    };
    let low = w.node(Node::new("Neg", [half], []), None);
    let above = w.node(Node::new("Max", [right, low], []), None);
    Some(w.node(Node::new("Min", [above, half], []), None))
}

/// The neighbouring choice of an operator that has several.
fn wrong_mode(graph: &mut Graph, id: NodeId) {
    let node = graph.node_mut(id);
    match node.op_type.as_str() {
        "Resize" => {
            let nearest = node.string("mode").unwrap_or("nearest") == "nearest";
            let way = node.string("coordinate_transformation_mode").unwrap_or("half_pixel").to_string();
            if nearest {
                let other = if node.string("nearest_mode") == Some("ceil") { "floor" } else { "ceil" };
                node.set_attr("nearest_mode", other);
            } else {
                let other = if way == "align_corners" { "half_pixel" } else { "align_corners" };
                node.set_attr("coordinate_transformation_mode", other);
            }
        }
        "Round" => node.op_type = "Floor".into(),
        "AveragePool" => {
            let counted = node.int("count_include_pad").unwrap_or(0);
            node.set_attr("count_include_pad", 1 - counted);
        }
        _ => {}
    }
}

/// A constant operand of at least two axes, its last two read the other way round.
fn constant_transposed(graph: &mut Graph, id: NodeId) {
    let node = graph.node(id).clone();
    for (index, input) in node.inputs.iter().enumerate() {
        let Some(tensor) = input.and_then(|input| graph.constant(input)) else { continue };
        let (dims, Ok(values)) = (tensor.dims().to_vec(), tensor.to_f64s()) else { continue };
        let moving: Vec<usize> = (0..dims.len()).filter(|&axis| dims[axis] > 1).collect();
        let &[.., rows_axis, columns_axis] = moving.as_slice() else { continue };
        let (rows, columns) = (dims[rows_axis] as usize, dims[columns_axis] as usize);
        // Axes of size 1 between the two move nothing.
        let turned: Vec<f64> = values
            .chunks(rows * columns)
            .flat_map(|table| (0..rows * columns).map(|i| table[i % rows * columns + i / rows]).collect::<Vec<_>>())
            .collect();
        if let Some(turned) = Tensor::from_f64s(format!("{}_turned", tensor.name()), tensor.dtype(), &dims, &turned) {
            let turned = graph.add_initializer(turned);
            graph.set_input(id, index, Some(turned));
        }
        return;
    }
}
