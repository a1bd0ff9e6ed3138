//! Rules by example: what each operator makes of its inputs, and what is said of calls that cannot run.

use crate::graph::builder::Build;
use crate::graph::{Attribute, AttributeValue, Dim, Graph, Model, Node, ValueId, shapes};
use crate::onnx::{DType, Tensor};

/// Type and sizes of the first output of a node over float inputs of these shapes; negative sizes are names.
fn made(inputs: &[&[i64]], node: Node) -> String {
    told(inputs, &[], node).unwrap_or_else(|problem| format!("error: {problem}"))
}

/// As [`made`], with int64 vectors as further inputs.
fn told(inputs: &[&[i64]], ints: &[&[i64]], mut node: Node) -> Result<String, String> {
    let mut b = Build::new();
    for (index, dims) in inputs.iter().enumerate() {
        node.inputs.push(Some(b.input(&format!("x{index}"), DType::Float, dims)));
    }
    for (index, values) in ints.iter().enumerate() {
        node.inputs.push(Some(b.ints(&format!("i{index}"), values)));
    }
    let y = b.node(node.named("n"));
    let mut model = b.finish(&[y]);
    shapes::infer(&mut model).map_err(|error| error.to_string())?;
    Ok(model.graph.value(y).type_text())
}

fn op(name: &str) -> Node {
    Node::new(name, [], [])
}

#[test]
fn windows() {
    let conv = || op("Conv").with("kernel_shape", vec![3, 3]).with("pads", vec![1, 1, 1, 1]);
    assert_eq!(made(&[&[1, 3, 640, 640], &[16, 3, 3, 3]], conv().with("strides", vec![2, 2])), "float[1,16,320,320]");
    assert_eq!(
        made(&[&[-1, 3, -2, 64], &[16, 3, 3, 3]], conv().with("strides", vec![2, 2])),
        "float[N1,16,(N2 - 1)//2 + 1,32]"
    );
    let volume = op("Conv").with("auto_pad", "SAME_UPPER").with("strides", vec![2, 2, 2]);
    assert_eq!(made(&[&[1, 4, 7, 8, 9], &[8, 4, 3, 3, 3]], volume), "float[1,8,4,4,5]");
    let pool = || op("MaxPool").with("kernel_shape", vec![3, 3]).with("strides", vec![2, 2]);
    assert_eq!(made(&[&[1, 1, 6, 6]], pool()), "float[1,1,2,2]");
    assert_eq!(made(&[&[1, 1, 6, 6]], pool().with("ceil_mode", 1)), "float[1,1,3,3]");
    let up = op("ConvTranspose").with("strides", vec![2, 2]).with("output_padding", vec![1, 1]).with("group", 2);
    assert_eq!(made(&[&[1, 4, 5, 5], &[4, 3, 3, 3]], up), "float[1,6,12,12]");
    let up = op("ConvTranspose").with("strides", vec![2, 2]).with("output_shape", vec![10, 10]);
    assert_eq!(made(&[&[1, 4, 5, 5], &[4, 3, 3, 3]], up), "float[1,3,10,10]");
}

#[test]
fn layouts() {
    let ok = |inputs: &[&[i64]], ints: &[&[i64]], node| told(inputs, ints, node).unwrap();
    assert_eq!(ok(&[&[-1, 3, 4]], &[&[0, -1]], op("Reshape")), "float[N1,12]");
    assert_eq!(ok(&[&[-1, 32, 64]], &[&[-1, 64]], op("Reshape")), "float[32*N1,64]");
    assert_eq!(ok(&[&[2, 3]], &[&[3, -1, 2]], op("Reshape")), "float[3,1,2]");
    assert_eq!(ok(&[&[10, 20]], &[&[1], &[i64::MAX], &[1], &[3]], op("Slice")), "float[10,7]");
    assert_eq!(ok(&[&[10, 20]], &[&[-1], &[i64::MIN], &[0], &[-2]], op("Slice")), "float[5,20]");
    assert_eq!(ok(&[&[-1, 20]], &[&[2], &[i64::MAX], &[0]], op("Slice")), "float[N1 - 2,20]");
    assert_eq!(ok(&[&[1, 5]], &[&[2, 3, 5]], op("Expand")), "float[2,3,5]");
    assert_eq!(ok(&[&[2, 3]], &[&[2, 4]], op("Tile")), "float[4,12]");
    assert_eq!(ok(&[&[2, 3]], &[&[0, 1, 0, 2]], op("Pad")), "float[2,6]");
    assert_eq!(ok(&[&[2, 1, 3, 1]], &[&[1, -1]], op("Squeeze")), "float[2,3]");
    // ONNX and ONNX Runtime disagree on what an empty list of axes removes from [2,1,3].
    assert_eq!(ok(&[&[2, 1, 3]], &[&[]], op("Squeeze")), "float");
    assert_eq!(ok(&[&[2, 3]], &[&[]], op("Squeeze")), "float[2,3]");
    assert_eq!(made(&[&[2, 1, 3]], op("Squeeze")), "float[2,3]");
    assert_eq!(ok(&[&[2, 3]], &[&[0, 3]], op("Unsqueeze")), "float[1,2,3,1]");
    assert_eq!(ok(&[&[2, 3, 8]], &[&[3]], op("TopK")), "float[2,3,3]");
    assert_eq!(made(&[&[2, 3, 4]], op("Transpose").with("perm", vec![0, 2, 1])), "float[2,4,3]");
    assert_eq!(made(&[&[2, 3], &[-1, 3]], op("Concat").with("axis", 0)), "float[N1 + 2,3]");
    assert_eq!(made(&[&[1, 16, 2, 3]], op("DepthToSpace").with("blocksize", 2)), "float[1,4,4,6]");
    assert_eq!(made(&[&[-1, 3, 4]], op("Flatten").with("axis", 2)), "float[3*N1,4]");
}

#[test]
fn products_and_reductions() {
    assert_eq!(made(&[&[-1, 1, 4, 5], &[8, 5, 6]], op("MatMul")), "float[N1,8,4,6]");
    assert_eq!(made(&[&[5], &[5, 6]], op("MatMul")), "float[6]");
    assert_eq!(made(&[&[4, 5], &[6, 5]], op("Gemm").with("transB", 1)), "float[4,6]");
    assert_eq!(made(&[&[2, 3, 4], &[2, 4, 5]], op("Einsum").with("equation", "bij,bjk->bik")), "float[2,3,5]");
    let mean = op("ReduceMean").with("axes", vec![-1, 1]).with("keepdims", 0);
    assert_eq!(made(&[&[2, 3, 4]], mean), "float[2]");
    assert_eq!(made(&[&[2, 3, 4]], op("ArgMax").with("axis", 1)), "int64[2,1,4]");
    let lstm = op("LSTM").with("hidden_size", 7).with("direction", "bidirectional");
    assert_eq!(made(&[&[9, -1, 4], &[2, 28, 4], &[2, 28, 7]], lstm), "float[9,2,N1,7]");
    assert_eq!(made(&[&[2, 3]], op("NonZero")), "int64[2,nonzero_0]");
}

#[test]
fn calls_that_cannot_run_name_the_node() {
    let problem = |inputs: &[&[i64]], node| told(inputs, &[], node).unwrap_err();
    assert_eq!(
        problem(&[&[1, 3, 8, 8], &[4, 5, 3, 3]], op("Conv")),
        "node 'n': its input has 3 channels, its weight [4,5,3,3] asks for 5"
    );
    assert_eq!(problem(&[&[2, 3], &[2, 4]], op("Add")), "node 'n': its inputs [2,3] and [2,4] do not broadcast");
    assert_eq!(
        problem(&[&[2, 3], &[4, 5]], op("MatMul")),
        "node 'n': it multiplies [2,3] and [4,5], whose inner sizes differ"
    );
    assert_eq!(
        problem(&[&[2, 3]], op("Transpose").with("perm", vec![0, 2])),
        "node 'n': axis 2 is outside a tensor of rank 2"
    );
}

#[test]
fn shape_arithmetic_is_followed() {
    // y = Reshape(x, [Shape(x)[0] * 2, -1]) over x [N1, 6, 4]
    let mut b = Build::new();
    let x = b.input("x", DType::Float, &[-1, 6, 4]);
    let shape = b.op("Shape", "shape", &[x]);
    let zero = b.ints("zero", &[0]);
    let first = b.op("Gather", "first", &[shape, zero]);
    let two = b.ints("two", &[2]);
    let doubled = b.op("Mul", "doubled", &[first, two]);
    let rest = b.ints("rest", &[-1]);
    let wanted = b.node(Node::new("Concat", [doubled, rest], []).named("wanted").with("axis", 0));
    let y = b.op("Reshape", "y", &[x, wanted]);
    let mut model = b.finish(&[y]);
    shapes::infer(&mut model).unwrap();
    assert_eq!(model.graph.value(y).type_text(), "float[2*N1,12]");
}

#[test]
fn branches_are_merged_and_see_what_they_capture() {
    let branch = |op: &str| {
        let mut graph = Graph::new("branch");
        let x = graph.add_captured("x", None, None);
        let y = graph.add_value("z");
        graph.add_node(Node::new(op, [x], [y]).named(op));
        graph.outputs = vec![y];
        graph
    };
    let mut b = Build::new();
    let condition = b.input("condition", DType::Bool, &[]);
    b.input("x", DType::Float, &[-1, 4]);
    let mut node = Node::new("If", [condition], []).named("choice");
    for (name, op) in [("then_branch", "Relu"), ("else_branch", "Transpose")] {
        node.attributes.push(Attribute::new(name, AttributeValue::Graph(Box::new(branch(op)))));
    }
    let y = b.node(node);
    let mut model = b.finish(&[y]);
    shapes::infer(&mut model).unwrap();
    assert_eq!(model.graph.value(y).type_text(), "float[?,?]");
    let (_, node) = model.graph.nodes().next().unwrap();
    let (_, inner) = node.subgraphs().nth(1).unwrap();
    assert_eq!(inner.value(inner.outputs[0]).type_text(), "float[4,N1]");
}

#[test]
fn an_output_of_another_type_is_refused_and_a_stale_size_corrected() {
    let mut b = Build::new();
    let x = b.input("x", DType::Float, &[2, 3]);
    let y = b.op("Shape", "y", &[x]);
    b.graph.value_mut(y).dtype = Some(DType::Float);
    let told = shapes::infer(&mut b.finish(&[y])).unwrap_err().to_string();
    assert_eq!(told, "graph output 'y_output_0': is declared as float, but its node makes int64");
    let mut b = Build::new();
    let x = b.input("x", DType::Float, &[2, 3]);
    let y = b.op("Relu", "y", &[x]);
    b.graph.value_mut(y).shape = Some(vec![Dim::Fixed(1), Dim::Fixed(3)]);
    let mut model = b.finish(&[y]);
    shapes::infer(&mut model).unwrap();
    assert_eq!(model.graph.value(y).type_text(), "float[2,3]");
}

/// Operators with inputs of every odd kind: whatever comes out, nothing panics.
#[test]
fn nonsense_never_panics() {
    let operators = [
        "Conv",
        "ConvTranspose",
        "MaxPool",
        "Reshape",
        "Slice",
        "Squeeze",
        "Unsqueeze",
        "Gather",
        "GatherND",
        "Concat",
        "Split",
        "Expand",
        "Tile",
        "Pad",
        "Resize",
        "LSTM",
        "TopK",
        "OneHot",
        "Range",
        "MatMul",
        "Gemm",
        "Einsum",
        "Transpose",
        "DepthToSpace",
        "GridSample",
        "ConstantOfShape",
        "ScatterND",
        "NonZero",
        "ReduceSum",
        "CumSum",
        "Where",
        "Trilu",
        "GatherElements",
        "STFT",
        "DFT",
        "Attention",
        "LayerNormalization",
        "Compress",
        "AffineGrid",
        "Col2Im",
        "CenterCropPad",
        "RoiAlign",
        "Flatten",
        "SpaceToDepth",
        "ArgMax",
        "Clip",
        "Pow",
        "Mod",
        "Cast",
        "Equal",
        "Min",
        "Shape",
        "Unique",
        "MaxUnpool",
        "If",
        "Loop",
        "Scan",
    ];
    let vectors: [&[i64]; 6] = [&[], &[0], &[-1], &[i64::MIN, i64::MAX], &[1, 2, 3, 4], &[i64::MAX; 9]];
    let numbers = [i64::MIN, -7, 0, 3, i64::MAX];
    for operator in operators {
        for round in 0..60usize {
            let mut b = Build::new();
            let mut node = op(operator).named("n");
            for place in 0..(round % 6) {
                let values = vectors[(round * 7 + place * 5) % vectors.len()];
                let id = match (round + place) % 4 {
                    0 => b.input(&format!("x{place}"), DType::Float, &[-1, 3, 0, 5][..(round + place) % 5]),
                    1 => b.ints(&format!("i{place}"), values),
                    2 => b.graph.add_initializer(Tensor::from_i64(format!("s{place}"), &[], &[numbers[round % 5]])),
                    _ => b.graph.add_value(&format!("unknown{place}")),
                };
                node.inputs.push(Some(id));
            }
            for (index, name) in
                ["axis", "axes", "kernel_shape", "strides", "pads", "perm", "blocksize", "to", "split", "hidden_size"]
                    .iter()
                    .enumerate()
            {
                match (round + index) % 5 {
                    0 => node.set_attr(name, numbers[(round + index) % 5]),
                    1 => node.set_attr(name, vectors[(round / 5 + index) % vectors.len()].to_vec()),
                    _ => {}
                }
            }
            node.outputs = (0..1 + round % 3).map(|i| Some(b.graph.add_value(&format!("y{i}")))).collect();
            let outputs: Vec<ValueId> = node.writes().collect();
            b.graph.add_node(node);
            let mut model: Model = b.finish(&outputs);
            let _ = shapes::infer(&mut model);
            let _ = crate::graph::fold::fold_constants(&mut model);
        }
    }
}

#[test]
fn every_model_of_the_tests_is_known_whole() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "onnx") || path.to_string_lossy().contains("dynamic") {
            continue;
        }
        let mut model = crate::load(&path).unwrap();
        shapes::infer(&mut model).unwrap();
        let unknown: Vec<&str> = model
            .graph
            .values()
            .filter(|(_, value)| value.dtype.is_none() || value.static_shape().is_none())
            .map(|(_, value)| value.name.as_str())
            .collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", path.display());
    }
}

/// A list that grows by one each round has no length that holds in all of them.
#[test]
fn what_a_loop_makes_longer_has_no_length_in_it() {
    let mut body = Graph::new("body");
    let round = body.add_typed_value("round", Some(DType::Int64), Some(vec![]));
    let go = body.add_typed_value("go", Some(DType::Bool), Some(vec![]));
    let list = body.add_typed_value("list", Some(DType::Float), None);
    body.inputs = vec![round, go, list];
    let one = body.add_initializer(Tensor::from_f32("one", &[1], &[1.0]));
    let (goes, longer) = (body.add_value("goes"), body.add_value("longer"));
    body.add_node(op("Identity").named("same"));
    let same = body.node_named("same").unwrap();
    body.set_input(same, 0, Some(go));
    body.set_output(same, 0, Some(goes));
    body.add_node(Node::new("Concat", [list, one], [longer]).with("axis", 0).named("grow"));
    body.outputs = vec![goes, longer];

    let mut b = Build::new();
    let start = b.input("start", DType::Float, &[1]);
    let rounds = b.ints("rounds", &[5]);
    let mut node = Node::new("Loop", [], []).named("loop");
    node.inputs = vec![Some(rounds), None, Some(start)];
    node.attributes.push(Attribute::new("body", AttributeValue::Graph(Box::new(body))));
    let end = b.node(node);
    let mut model = b.finish(&[end]);
    shapes::infer(&mut model).unwrap();
    let (_, node) = model.graph.nodes().next().unwrap();
    let (_, body) = node.subgraphs().next().unwrap();
    for name in ["list", "longer"] {
        assert_eq!(body.value(body.value_named(name).unwrap()).static_shape(), None, "{name}");
    }
    assert_eq!(model.graph.value(end).static_shape(), None);
}
