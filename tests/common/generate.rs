//! Random models that use every corner of the format, from a seed: what a lossless reader must give back.

use bytes::Bytes;
use porter::onnx::proto::*;
use porter::onnx::{DType, Payload, Tensor};

/// A source of choices; the same seed makes the same model.
pub struct Choices(u64);

impl Choices {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// Absent, empty, or text: three different things in a file.
    fn text(&mut self) -> Option<String> {
        match self.below(4) {
            0 => Some(String::new()),
            1 => Some("grüße\n\t\u{1f600}".into()),
            _ => None,
        }
    }

    fn unknown(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.one_in(6) {
            prost::encoding::uint64::encode(3000 + self.below(9) as u32, &self.next(), &mut out);
        }
        if self.one_in(6) {
            prost::encoding::string::encode(4000, &"later version".to_string(), &mut out);
        }
        out
    }

    fn properties(&mut self) -> Vec<StringStringEntryProto> {
        let entry = |choices: &mut Self| StringStringEntryProto {
            key: choices.text(),
            value: choices.text(),
            unknown: choices.unknown(),
        };
        if self.one_in(4) { vec![entry(self), entry(self)] } else { Vec::new() }
    }

    fn bytes(&mut self, count: usize) -> Bytes {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// A tensor of any type, its values in raw bytes or in the typed field that the format names.
pub fn tensor(choices: &mut Choices, name: &str) -> Tensor {
    let dtype = *choices.pick(DType::ALL);
    let dims: Vec<i64> = (0..choices.below(4)).map(|_| choices.below(4) as i64).collect();
    let count = dims.iter().product::<i64>() as usize;
    let mut tensor = Tensor {
        name: Some(name.into()),
        data_type: Some(dtype.number()),
        dims,
        doc_string: choices.text(),
        metadata_props: choices.properties(),
        unknown: choices.unknown(),
        ..Default::default()
    };
    if dtype == DType::String {
        tensor.string_data = (0..count).map(|i| choices.bytes(i % 5)).collect();
        return tensor;
    }
    if choices.one_in(2) {
        tensor.raw_data = Some(Payload::Bytes(choices.bytes(dtype.byte_len(count).unwrap())));
        tensor.data_location = choices.one_in(3).then_some(0);
        return tensor;
    }
    let floats = |choices: &mut Choices, count: usize| (0..count).map(|_| choices.below(100) as f32 - 50.5).collect();
    let doubles = |choices: &mut Choices, count: usize| (0..count).map(|_| choices.below(100) as f64 / 7.0).collect();
    match dtype {
        DType::Float => tensor.float_data = floats(choices, count),
        DType::Complex64 => tensor.float_data = floats(choices, count * 2),
        DType::Double => tensor.double_data = doubles(choices, count),
        DType::Complex128 => tensor.double_data = doubles(choices, count * 2),
        DType::Int64 => tensor.int64_data = (0..count).map(|_| choices.next() as i64).collect(),
        DType::Uint32 | DType::Uint64 => tensor.uint64_data = (0..count).map(|_| choices.next()).collect(),
        _ => {
            let count = if dtype.bits() < 8 { dtype.byte_len(count).unwrap() } else { count };
            tensor.int32_data = (0..count).map(|_| choices.next() as i32).collect();
        }
    }
    tensor
}

fn value_type(choices: &mut Choices) -> Option<TypeProto> {
    if choices.one_in(8) {
        return None;
    }
    if choices.one_in(8) {
        // A sequence type, which porter does not declare.
        let mut unknown = Vec::new();
        prost::encoding::string::encode(4, &"\u{a}\u{4}seq?".to_string(), &mut unknown);
        return Some(TypeProto { unknown, denotation: choices.text(), ..Default::default() });
    }
    let dim = |choices: &mut Choices| DimensionProto {
        dim_value: choices.one_in(2).then(|| choices.below(9) as i64 - 1),
        dim_param: if choices.one_in(2) { choices.text() } else { None },
        denotation: if choices.one_in(8) { choices.text() } else { None },
        unknown: choices.unknown(),
    };
    let shape = (!choices.one_in(4)).then(|| TensorShapeProto {
        dim: (0..choices.below(5)).map(|_| dim(choices)).collect(),
        unknown: choices.unknown(),
    });
    let elem_type = (!choices.one_in(6)).then(|| choices.below(40) as i32);
    let tensor = TensorTypeProto { elem_type, shape, unknown: choices.unknown() };
    Some(TypeProto { tensor_type: Some(tensor), denotation: choices.text(), unknown: choices.unknown() })
}

fn declaration(choices: &mut Choices, name: &str) -> ValueInfoProto {
    ValueInfoProto {
        name: Some(name.into()),
        kind: value_type(choices),
        doc_string: choices.text(),
        metadata_props: choices.properties(),
        unknown: choices.unknown(),
    }
}

fn sparse(choices: &mut Choices, name: &str) -> SparseTensorProto {
    SparseTensorProto {
        values: Some(Tensor::from_f32(name, &[2], &[1.0, 2.0])),
        indices: Some(Tensor::from_i64("", &[2], &[0, 5])),
        dims: vec![9],
        unknown: choices.unknown(),
    }
}

/// An attribute of any type; `outer` holds the names that a subgraph may capture.
fn attribute(choices: &mut Choices, name: &str, outer: &[String], depth: usize, in_function: bool) -> AttributeProto {
    let kind = 1 + choices.below(14) as i32;
    let mut proto = AttributeProto {
        name: Some(name.into()),
        kind: Some(kind),
        doc_string: choices.text(),
        unknown: choices.unknown(),
        ..Default::default()
    };
    if in_function && choices.one_in(2) {
        proto.ref_attr_name = Some("alpha".into());
        return proto;
    }
    let count = choices.below(3);
    let body = |choices: &mut Choices, i: usize| graph(choices, 2, outer, &format!("{name}_{i}"), depth + 1);
    match kind {
        // A number of 0 and an empty text may be written or left away.
        attribute_type::FLOAT => proto.f = (!choices.one_in(4)).then(|| choices.below(3) as f32),
        attribute_type::INT => proto.i = (!choices.one_in(4)).then(|| choices.below(3) as i64 - 1),
        attribute_type::STRING => proto.s = (!choices.one_in(4)).then(|| choices.bytes(count)),
        attribute_type::TENSOR => proto.t = Some(tensor(choices, "")),
        attribute_type::GRAPH if depth < 2 => proto.g = Some(body(choices, 0)),
        attribute_type::GRAPHS if depth < 2 => proto.graphs = (0..count).map(|i| body(choices, i)).collect(),
        attribute_type::FLOATS => proto.floats = vec![-0.0; count],
        attribute_type::STRINGS => proto.strings = (0..count).map(|i| choices.bytes(i)).collect(),
        attribute_type::TENSORS => proto.tensors = (0..count).map(|_| tensor(choices, "t")).collect(),
        attribute_type::SPARSE_TENSOR => proto.sparse_tensor = Some(sparse(choices, "")),
        attribute_type::SPARSE_TENSORS => proto.sparse_tensors = vec![sparse(choices, ""); count],
        attribute_type::TYPE_PROTO => proto.tp = Some(value_type(choices).unwrap_or_default()),
        attribute_type::TYPE_PROTOS => proto.type_protos = vec![TypeProto::default(); count],
        _ => {
            proto.kind = Some(attribute_type::INTS);
            proto.ints = (0..count).map(|_| choices.next() as i64).collect();
        }
    }
    let has_value = proto.f.is_some() || proto.i.is_some() || proto.s.is_some() || !proto.ints.is_empty();
    if has_value && choices.one_in(4) {
        proto.kind = *choices.pick(&[None, Some(0)]); // old writers
    } else if choices.one_in(8) {
        proto.strings.push(choices.bytes(3)); // a value beside the value
        if proto.kind == Some(attribute_type::STRINGS) {
            proto.floats.push(1.5);
        }
    }
    proto
}

fn node(choices: &mut Choices, known: &[String], outputs: &[String], depth: usize, in_function: bool) -> NodeProto {
    let mut output = outputs.to_vec();
    if choices.one_in(4) {
        output.insert(choices.below(output.len() + 1), String::new());
    }
    let input = |choices: &mut Choices| {
        if known.is_empty() || choices.one_in(5) { String::new() } else { choices.pick(known).clone() }
    };
    NodeProto {
        input: (0..choices.below(4)).map(|_| input(choices)).collect(),
        output,
        name: if choices.one_in(2) { choices.text() } else { Some(format!("n{}", choices.below(5))) },
        op_type: Some(choices.pick(&["Relu", "If", "Constant", "Strange"]).to_string()),
        domain: match choices.below(4) {
            0 => Some("com.example".into()),
            _ => choices.text().filter(String::is_empty),
        },
        overload: choices.text(),
        attribute: (0..choices.below(3))
            .map(|i| attribute(choices, &format!("{}a{i}", outputs[0]), known, depth, in_function))
            .collect(),
        doc_string: choices.text(),
        metadata_props: choices.properties(),
        unknown: choices.unknown(),
    }
}

/// A graph of up to `size` nodes whose names begin with `prefix`.
fn graph(choices: &mut Choices, size: usize, outer: &[String], prefix: &str, depth: usize) -> GraphProto {
    let mut graph = GraphProto {
        name: choices.text(),
        doc_string: choices.text(),
        metadata_props: choices.properties(),
        unknown: choices.unknown(),
        ..Default::default()
    };
    let mut known: Vec<String> = Vec::new();
    for i in 0..choices.below(3) {
        known.push(format!("{prefix}/in{i}"));
        graph.input.push(declaration(choices, &known[known.len() - 1]));
    }
    for i in 0..choices.below(4) {
        known.push(format!("{prefix}/w{i}"));
        let name = &known[known.len() - 1];
        graph.initializer.push(tensor(choices, name));
        if choices.one_in(3) {
            let at = choices.below(graph.input.len() + 1);
            graph.input.insert(at, declaration(choices, name)); // as IR versions before 4 must
        }
    }
    if choices.one_in(6) {
        known.push(format!("{prefix}/sparse"));
        graph.sparse_initializer.push(sparse(choices, &known[known.len() - 1]));
    }
    let own = known.len();
    known.extend(outer.iter().cloned());
    for i in 0..1 + choices.below(size) {
        let outputs: Vec<String> = (0..1 + choices.below(2)).map(|k| format!("{prefix}/v{i}.{k}")).collect();
        graph.node.push(node(choices, &known, &outputs, depth, false));
        known.extend(outputs);
    }
    let visible: Vec<String> = if depth == 0 { known.clone() } else { known[own..].to_vec() };
    let mut results: Vec<String> = Vec::new();
    for _ in 0..1 + choices.below(3) {
        let name = choices.pick(&visible).clone();
        if !results.contains(&name) {
            graph.output.push(declaration(choices, &name));
            results.push(name);
        }
    }
    // Declarations of what flows between, of the border once more, and of what is not there; in no order.
    let mut told: Vec<String> = known.iter().filter(|name| name.starts_with(prefix)).cloned().collect();
    told.push(format!("{prefix}/gone"));
    while !told.is_empty() {
        let name = told.remove(choices.below(told.len()));
        let is_border = graph.input.iter().any(|info| info.name.as_ref() == Some(&name));
        if !is_border && choices.one_in(2) {
            graph.value_info.push(declaration(choices, &name));
        }
    }
    graph
}

/// A model of up to `size` nodes in its outermost graph.
pub fn model(seed: u64, size: usize) -> ModelProto {
    let choices = &mut Choices::new(seed);
    let mut opset_import = vec![OperatorSetIdProto {
        domain: if choices.one_in(2) { Some(String::new()) } else { None },
        version: Some(11 + choices.below(18) as i64),
        unknown: choices.unknown(),
    }];
    if choices.one_in(2) {
        let domain = Some("com.example".to_string());
        opset_import.push(OperatorSetIdProto { domain, version: Some(1), unknown: Vec::new() });
    }
    let functions = (0..choices.below(2))
        .map(|i| FunctionProto {
            name: Some(format!("f{i}")),
            input: vec!["a".into()],
            output: vec!["b".into()],
            attribute: vec!["alpha".into()],
            attribute_proto: vec![attribute(choices, "beta", &[], 2, false)],
            node: vec![node(choices, &["a".into()], &["b".into()], 2, true)],
            doc_string: choices.text(),
            opset_import: opset_import.clone(),
            domain: Some("com.example".into()),
            overload: choices.text(),
            value_info: vec![declaration(choices, "b")],
            metadata_props: choices.properties(),
            unknown: choices.unknown(),
        })
        .collect();
    ModelProto {
        ir_version: (!choices.one_in(8)).then(|| 3 + choices.below(10) as i64),
        opset_import,
        producer_name: choices.text(),
        producer_version: choices.text(),
        domain: choices.text(),
        model_version: choices.one_in(2).then_some(0),
        doc_string: choices.text(),
        graph: Some(graph(choices, size, &[], "g", 0)),
        metadata_props: choices.properties(),
        functions,
        unknown: choices.unknown(),
    }
}
