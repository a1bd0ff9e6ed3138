//! Writes a model in float64: types, constants, and the operators that have to be written otherwise.

use super::function::{FUNCTION, Function};
use crate::engine::EngineError;
use crate::engine::emulate::DOMAIN;
use crate::graph::{AttributeValue, Graph, Model, Node, NodeId, ValueId};
use crate::onnx::{DType, Tensor};

/// Operators that tract computes in float64 as they stand, or that compute nothing.
const AS_THEY_ARE: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "ArgMax",
    "ArgMin",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "AveragePool",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "CastLike",
    "Ceil",
    "Compress",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "ConvTranspose",
    "Cos",
    "Cosh",
    "CumSum",
    "DepthToSpace",
    "Div",
    "Dropout",
    "Einsum",
    "Equal",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "GatherElements",
    "GatherND",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "Identity",
    "If",
    "Less",
    "LessOrEqual",
    "Log",
    "Loop",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "NonZero",
    "Not",
    "OneHot",
    "Or",
    "Pad",
    "Range",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Reshape",
    "Round",
    "Scan",
    "ScatterElements",
    "ScatterND",
    "Shape",
    "Sign",
    "Sin",
    "Sinh",
    "Size",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tan",
    "Tanh",
    "Tile",
    "TopK",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Where",
    "Xor",
];

/// The model in float64, under the same names.
///
/// # Errors
/// An operator that cannot be had in float64.
pub(super) fn to_double(model: &Model) -> Result<Model, EngineError> {
    let mut model = model.clone();
    let opset = model.opset();
    crate::graph::inline::inline_functions(&mut model).map_err(|error| EngineError::Compile {
        engine: super::NAME.into(),
        code: None,
        problem: error.to_string(),
    })?;
    // Where sizes are known, what depends on them can be written down, and branches are chosen that tract would not take.
    let _ = crate::graph::fold::fold_whole_numbers(&mut model);
    let _ = crate::graph::shapes::infer(&mut model);
    widen(&mut model.graph, opset)?;
    model.opsets.insert(DOMAIN.into(), 1);
    Ok(model)
}

fn is_narrow(dtype: DType) -> bool {
    matches!(dtype, DType::Float | DType::Float16 | DType::Bfloat16)
}

fn wide(tensor: &Tensor) -> Option<Tensor> {
    is_narrow(tensor.dtype()).then(|| tensor.convert(DType::Double)).flatten()
}

fn widen(graph: &mut Graph, opset: i64) -> Result<(), EngineError> {
    for id in graph.node_ids() {
        keep_scales(graph, id);
    }
    let kept = kept_values(graph);
    let ids: Vec<ValueId> = graph.values().map(|(id, _)| id).filter(|id| !kept.contains(id)).collect();
    for id in ids {
        if let Some(tensor) = graph.initializer(id).and_then(|tensor| wide(tensor)) {
            graph.set_initializer(id, tensor);
        }
        let value = graph.value_mut(id);
        if value.dtype.is_some_and(is_narrow) {
            value.dtype = Some(DType::Double);
            value.declared = None;
        }
    }
    for id in graph.node_ids() {
        for body in graph.node_mut(id).subgraphs_mut() {
            widen(body, opset)?;
        }
        let node = graph.node_mut(id);
        widen_attributes(node);
        write_otherwise(graph, id, opset)?;
    }
    let _ = graph.sort();
    Ok(())
}

/// Inputs of Resize that are float32 whatever is resized.
fn kept_values(graph: &Graph) -> Vec<ValueId> {
    let resizes = graph.nodes().filter(|(_, node)| node.is("Resize"));
    resizes.flat_map(|(_, node)| [node.input(1), node.input(2)]).flatten().collect()
}

/// Gives a Resize scales of its own, so that they can stay float32.
fn keep_scales(graph: &mut Graph, id: NodeId) {
    for index in [1, 2] {
        let node = graph.node(id);
        let Some(value) = node.input(index).filter(|_| node.is("Resize")) else { continue };
        if let Some(tensor) = graph.constant(value) {
            let name = format!("{}_kept", graph.value(value).name);
            let own = graph.add_initializer(Tensor::clone(&tensor).renamed(name));
            graph.set_input(id, index, Some(own));
        }
    }
}

fn widen_attributes(node: &mut Node) {
    let double = || i64::from(DType::Double.number());
    if node.is("ConstantOfShape") && node.attr("value").is_none() {
        let zero = Tensor::new("value", DType::Double, &[1], 0f64.to_le_bytes().to_vec());
        node.set_attr("value", AttributeValue::Tensor(zero.into()));
    }
    if node.is("Constant") {
        let floats = match (node.attr("value_float"), node.attr("value_floats")) {
            (Some(AttributeValue::Float(x)), _) => Some((vec![*x as f64], Vec::new())),
            (_, Some(AttributeValue::Floats(list))) => {
                Some((list.iter().map(|&x| x as f64).collect(), vec![list.len() as i64]))
            }
            _ => None,
        };
        if let Some((values, dims)) = floats {
            node.remove_attr("value_float");
            node.remove_attr("value_floats");
            if let Some(tensor) = Tensor::from_f64s("value", DType::Double, &dims, &values) {
                node.set_attr("value", AttributeValue::Tensor(tensor.into()));
            }
        }
    }
    let types = match node.op_type.as_str() {
        "Cast" => "to",
        "EyeLike" => "dtype",
        _ => "",
    };
    if let Some(number) = node.int(types)
        && DType::from_number(number as i32).is_some_and(is_narrow)
    {
        node.set_attr(types, double());
    }
    for attribute in &mut node.attributes {
        if let AttributeValue::Tensor(tensor) = &mut attribute.value
            && let Some(double) = wide(tensor)
        {
            *tensor = double.into();
        }
    }
}

/// Replaces a node that tract has in float32 only.
fn write_otherwise(graph: &mut Graph, id: NodeId, opset: i64) -> Result<(), EngineError> {
    let node = graph.node(id);
    let float = node.input(0).is_none_or(|input| graph.value(input).dtype.is_none_or(DType::is_float));
    let standard = node.is_standard();
    if standard && AS_THEY_ARE.contains(&node.op_type.as_str()) || standard && !float && node.is("Relu") {
        return Ok(());
    }
    if let Some(function) = Function::of(node).filter(|_| standard && float) {
        let node = graph.node_mut(id);
        node.attributes.clear();
        node.op_type = FUNCTION.into();
        node.domain = DOMAIN.into();
        node.set_attr("of", AttributeValue::String(function.of.into_bytes().into()));
        // As text: an attribute has room for a float32 only.
        node.set_attr("alpha", AttributeValue::String(function.alpha.to_string().into_bytes().into()));
        node.set_attr("beta", AttributeValue::String(function.beta.to_string().into_bytes().into()));
        return Ok(());
    }
    let refused = || EngineError::Unsupported {
        engine: super::NAME.into(),
        node: graph.label(id),
        op_type: node.op_type.clone(),
        problem: "it is computed in float32 only".into(),
    };
    let known = [
        "Softmax",
        "LogSoftmax",
        "BatchNormalization",
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "Clip",
        "PRelu",
        "Resize",
        "Pow",
        "RMSNormalization",
        "ReduceLogSumExp",
        "LSTM",
        "GRU",
    ];
    if !standard || !known.contains(&node.op_type.as_str()) {
        return Err(refused());
    }
    let error = refused();
    let node = node.clone();
    graph.remove_node(id);
    Write { graph, name: node.name.clone(), count: 0, ended: false }.node(&node, opset).ok_or(error)
}

/// Writes the nodes that stand for one.
pub(super) struct Write<'a> {
    pub(super) graph: &'a mut Graph,
    name: String,
    count: usize,
    /// Whether a node has the replaced one's name already.
    ended: bool,
}

impl Write<'_> {
    pub(super) fn op(&mut self, op_type: &str, inputs: &[ValueId]) -> ValueId {
        self.with(Node::new(op_type, inputs.iter().copied(), []))
    }

    pub(super) fn with(&mut self, mut node: Node) -> ValueId {
        self.count += 1;
        // Nodes without a name are many.
        let name = self.graph.fresh_name(&format!("{}_double_{}", self.name, self.count));
        let out = self.graph.add_value(&name);
        node.outputs = vec![Some(out)];
        node.name = name;
        self.graph.add_node(node);
        out
    }

    /// The last step: it makes a value that the replaced node made.
    pub(super) fn last(&mut self, op_type: &str, inputs: &[ValueId], output: ValueId) {
        let first = !std::mem::replace(&mut self.ended, true);
        self.count += 1;
        let name = if first { self.name.clone() } else { format!("{}_double_{}", self.name, self.count) };
        self.graph.add_node(Node::new(op_type, inputs.iter().copied(), [output]).named(name));
    }

    pub(super) fn number(&mut self, x: f64) -> ValueId {
        self.graph.add_initializer(Tensor::new("number", DType::Double, &[], x.to_le_bytes().to_vec()))
    }

    pub(super) fn whole_numbers(&mut self, values: &[i64]) -> ValueId {
        self.graph.add_initializer(Tensor::from_i64("numbers", &[values.len() as i64], values))
    }

    /// A reduction that keeps its axes, written as the opset has it.
    fn reduce(&mut self, op_type: &str, x: ValueId, axes: &[i64], opset: i64) -> ValueId {
        let since = if op_type == "ReduceSum" { 13 } else { 18 };
        if opset >= since {
            let axes = self.whole_numbers(axes);
            return self.with(Node::new(op_type, [x, axes], []).with("keepdims", 1));
        }
        self.with(Node::new(op_type, [x], []).with("keepdims", 1).with("axes", axes.to_vec()))
    }

    /// `x` less its mean, and over its deviation, along `axes`.
    fn normalised(&mut self, x: ValueId, axes: &[i64], epsilon: f64, opset: i64) -> ValueId {
        let mean = self.reduce("ReduceMean", x, axes, opset);
        let centred = self.op("Sub", &[x, mean]);
        self.over_deviation(centred, axes, epsilon, opset)
    }

    fn over_deviation(&mut self, centred: ValueId, axes: &[i64], epsilon: f64, opset: i64) -> ValueId {
        let squares = self.op("Mul", &[centred, centred]);
        let variance = self.reduce("ReduceMean", squares, axes, opset);
        let epsilon = self.number(epsilon);
        let sum = self.op("Add", &[variance, epsilon]);
        let deviation = self.op("Sqrt", &[sum]);
        self.op("Div", &[centred, deviation])
    }

    /// A vector of channels as `[C, 1, 1, ...]`, to stand beside a tensor of the given rank.
    fn channels(&mut self, vector: ValueId, rank: usize) -> ValueId {
        let mut sizes = vec![-1];
        sizes.resize(rank.max(2) - 1, 1);
        let sizes = self.whole_numbers(&sizes);
        self.op("Reshape", &[vector, sizes])
    }

    fn node(&mut self, node: &Node, opset: i64) -> Option<()> {
        if ["LSTM", "GRU"].contains(&node.op_type.as_str()) {
            return self.unrolled(node, opset); // its first output may be left out
        }
        let (x, out) = (node.input(0)?, node.output(0)?);
        let rank = self.graph.value(x).rank();
        let epsilon = |default: f32| node.float("epsilon").unwrap_or(default) as f64;
        match node.op_type.as_str() {
            "Softmax" | "LogSoftmax" => {
                let axis = node.int("axis");
                let axes: Vec<i64> = match axis {
                    Some(axis) if opset >= 13 => vec![axis],
                    None if opset >= 13 => vec![-1],
                    // Everything from the axis on is one row.
                    _ => {
                        let rank = rank? as i64;
                        let axis = axis.unwrap_or(1);
                        ((if axis < 0 { axis + rank } else { axis })..rank).collect()
                    }
                };
                let most = self.reduce("ReduceMax", x, &axes, opset);
                let less = self.op("Sub", &[x, most]);
                let powers = self.op("Exp", &[less]);
                let sum = self.reduce("ReduceSum", powers, &axes, opset);
                if node.is("Softmax") {
                    self.last("Div", &[powers, sum], out);
                } else {
                    let log = self.op("Log", &[sum]);
                    self.last("Sub", &[less, log], out);
                }
            }
            "ReduceLogSumExp" => return None,
            "BatchNormalization" => {
                if node.int("training_mode").unwrap_or(0) != 0 || node.output(1).is_some() {
                    return None;
                }
                let rank = rank?;
                let [scale, bias, mean, variance] =
                    [1, 2, 3, 4].map(|index| node.input(index).map(|input| self.channels(input, rank)));
                let epsilon = self.number(epsilon(1e-5));
                let sum = self.op("Add", &[variance?, epsilon]);
                let deviation = self.op("Sqrt", &[sum]);
                let centred = self.op("Sub", &[x, mean?]);
                let scaled = self.op("Mul", &[centred, scale?]);
                let over = self.op("Div", &[scaled, deviation]);
                self.last("Add", &[over, bias?], out);
            }
            "LayerNormalization" | "RMSNormalization" => {
                if node.outputs.iter().skip(1).any(Option::is_some) {
                    return None;
                }
                let rank = rank? as i64;
                let axis = node.int("axis").unwrap_or(-1);
                let axes: Vec<i64> = ((if axis < 0 { axis + rank } else { axis })..rank).collect();
                let epsilon = epsilon(1e-5);
                let normal = match node.is("LayerNormalization") {
                    true => self.normalised(x, &axes, epsilon, opset),
                    false => self.over_deviation(x, &axes, epsilon, opset),
                };
                self.scaled(normal, node.input(1), node.input(2), out);
            }
            "InstanceNormalization" => {
                let rank = rank?;
                let axes: Vec<i64> = (2..rank as i64).collect();
                let normal = self.normalised(x, &axes, epsilon(1e-5), opset);
                let (scale, bias) = (self.channels(node.input(1)?, rank), self.channels(node.input(2)?, rank));
                self.scaled(normal, Some(scale), Some(bias), out);
            }
            "GroupNormalization" => {
                let sizes = self.graph.value(x).static_shape()?;
                // Before opset 21 scale and bias are the groups', since then the channels'.
                if opset < 21 {
                    return None;
                }
                let groups = node.int("num_groups")?;
                let apart = self.whole_numbers(&[sizes[0], groups, -1]);
                let together = self.whole_numbers(&sizes);
                let grouped = self.op("Reshape", &[x, apart]);
                let normal = self.normalised(grouped, &[2], epsilon(1e-5), opset);
                let normal = self.op("Reshape", &[normal, together]);
                let (scale, bias) =
                    (self.channels(node.input(1)?, sizes.len()), self.channels(node.input(2)?, sizes.len()));
                self.scaled(normal, Some(scale), Some(bias), out);
            }
            "Clip" => {
                let low = node.input(1).or_else(|| node.float("min").map(|x| self.number(x as f64)));
                let high = node.input(2).or_else(|| node.float("max").map(|x| self.number(x as f64)));
                match (low, high) {
                    (None, None) => self.last("Identity", &[x], out),
                    (Some(low), None) => self.last("Max", &[x, low], out),
                    (None, Some(high)) => self.last("Min", &[x, high], out),
                    (Some(low), Some(high)) => {
                        let above = self.op("Max", &[x, low]);
                        self.last("Min", &[above, high], out);
                    }
                }
            }
            "PRelu" => {
                let zero = self.number(0.0);
                let (above, below) = (self.op("Max", &[x, zero]), self.op("Min", &[x, zero]));
                let sloped = self.op("Mul", &[below, node.input(1)?]);
                self.last("Add", &[above, sloped], out);
            }
            // tract shortens a power by a constant to float32; by a whole number it is a product.
            "Pow" => match self.graph.constant(node.input(1)?).and_then(|power| power.to_f64s().ok()) {
                Some(power) if power.len() == 1 && [0.5, 1.0, 2.0, 3.0, -1.0].contains(&power[0]) => match power[0] {
                    0.5 => self.last("Sqrt", &[x], out),
                    1.0 => self.last("Identity", &[x], out),
                    2.0 => self.last("Mul", &[x, x], out),
                    3.0 => {
                        let square = self.op("Mul", &[x, x]);
                        self.last("Mul", &[square, x], out);
                    }
                    _ => self.last("Reciprocal", &[x], out),
                },
                _ => return None,
            },
            // What is picked is one of the values: as a large and a small half, each of which float32 holds.
            "Resize" if matches!(node.string("mode"), None | Some("nearest")) => {
                let cast = |to: DType, x: ValueId| Node::new("Cast", [x], []).with("to", i64::from(to.number()));
                let large = self.with(cast(DType::Float, x));
                let back = self.with(cast(DType::Double, large));
                let rest = self.op("Sub", &[x, back]);
                let small = self.with(cast(DType::Float, rest));
                let mut halves = Vec::new();
                for half in [large, small] {
                    let mut resize = node.clone();
                    resize.inputs[0] = Some(half);
                    let resized = self.with(resize);
                    halves.push(self.with(cast(DType::Double, resized)));
                }
                self.last("Add", &halves, out);
            }
            "Resize" => return self.interpolated(node, opset),
            _ => return None,
        }
        Some(())
    }

    fn scaled(&mut self, x: ValueId, scale: Option<ValueId>, bias: Option<ValueId>, out: ValueId) {
        let x = scale.map_or(x, |scale| self.op("Mul", &[x, scale]));
        match bias {
            Some(bias) => self.last("Add", &[x, bias], out),
            None => self.last("Identity", &[x], out),
        }
    }
}
