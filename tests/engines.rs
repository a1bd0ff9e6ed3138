//! The engines on real graphs: tract and ONNX Runtime run the same models and agree, in float32 and emulated.

mod common;

use std::time::Instant;

use common::{model, ort_library};
use porter::compare::metrics;
use porter::engine::emulate;
use porter::engine::ort::Ort;
use porter::engine::tract::Tract;
use porter::engine::{Engine, samples};
use porter::graph::{Dim, Graph, Model, Node, shapes};
use porter::onnx::{DType, Tensor};

fn reference() -> Ort {
    ort_library();
    Ort::reference().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn tract_and_onnx_runtime_agree_on_yolo26n() {
    let ort = reference();
    for name in ["yolo26n-raw.onnx", "yolo26n-raw-b4.onnx"] {
        let model = model(name);
        let inputs = samples::for_model(&model, 1);
        let start = Instant::now();
        let theirs = ort.run_once(&model, &inputs).unwrap();
        let ort_time = start.elapsed();
        let start = Instant::now();
        let ours = Tract.run_once(&model, &inputs).unwrap();
        println!("{name}: ort {ort_time:?}, tract {:?}", start.elapsed());
        for (output, theirs) in &theirs {
            let found = metrics(theirs, &ours[output]).unwrap();
            assert!(found.cosine > 0.99999, "{name} {output}: {found:?}");
        }
    }
}

/// As in a mapped file.
#[test]
fn large_weights_may_start_at_any_byte() {
    let ort = reference();
    let dims = [2048, 2100];
    let numbers = (0..dims[0] * dims[1]).flat_map(|i| (i as f32).sin().to_le_bytes());
    let file = bytes::Bytes::from(std::iter::once(0).chain(numbers).collect::<Vec<u8>>());
    let mut graph = Graph::new("product");
    let x = graph.add_typed_value("x", Some(DType::Float), Some(vec![Dim::Fixed(1), Dim::Fixed(dims[0])]));
    let weight = graph.add_initializer(Tensor::new("weight", DType::Float, &dims, file.slice(1..)));
    let y = graph.add_value("y");
    graph.add_node(Node::new("MatMul", [x, weight], [y]));
    (graph.inputs, graph.outputs) = (vec![x], vec![y]);
    let mut model = Model::new(graph, 18);
    shapes::infer(&mut model).unwrap();
    let inputs = samples::for_model(&model, 1);
    let (theirs, ours) = (ort.run_once(&model, &inputs).unwrap(), Tract.run_once(&model, &inputs).unwrap());
    let found = metrics(&theirs["y"], &ours["y"]).unwrap();
    assert!(found.cosine > 0.999999, "{found:?}");
}

#[test]
fn emulated_types_are_the_same_on_both_engines() {
    let ort = reference();
    let model = model("yolo26n-cls.onnx");
    let inputs = samples::for_model(&model, 1);
    let exact = Tract.run_once(&model, &inputs).unwrap();
    for (dtype, least, most) in [(DType::Bfloat16, 1e-5, 0.3), (DType::Float16, 1e-6, 0.05)] {
        let lowered = emulate::lower(&model, dtype, &|_| false);
        let ours = Tract.run_once(&lowered, &inputs).unwrap();
        let theirs = ort.run_once(&lowered, &inputs).unwrap();
        for (name, exact) in &exact {
            let from_exact = metrics(exact, &ours[name]).unwrap();
            let between = metrics(&theirs[name], &ours[name]).unwrap();
            assert!(from_exact.relative > least && from_exact.relative < most, "{dtype} {from_exact:?}");
            assert!(between.relative < from_exact.relative / 10.0, "{dtype} {between:?} {from_exact:?}");
        }
    }
}

/// In every direction, from a state that is given and from none, float64 is what ONNX Runtime rounds.
#[test]
fn recurrent_layers_in_float64_are_those_of_onnx_runtime() {
    let ort = reference();
    for (op, gates, late) in
        [("LSTM", 4, ""), ("GRU", 3, "linear_before_reset = 0, "), ("GRU", 3, "linear_before_reset = 1, ")]
    {
        for (direction, d) in [("forward", 1), ("reverse", 1), ("bidirectional", 2)] {
            for given in [false, true] {
                let rows = gates * 3;
                let states = match (given, op) {
                    (false, _) => "",
                    (true, "LSTM") => ", , h, c",
                    (true, _) => ", , h",
                };
                let (more, last) =
                    if op == "LSTM" { (", yc", format!(", float[{d},4,3] yc")) } else { ("", String::new()) };
                let text = format!(
                    "<ir_version: 10, opset_import: [\"\" : 21]> g (float[6,4,5] x, float[{d},{rows},5] w, float[{d},{rows},3] r, \
                     float[{d},{biases}] b, float[{d},4,3] h, float[{d},4,3] c) => (float[6,{d},4,3] y, float[{d},4,3] yh{last}) \
                     {{ y, yh{more} = {op} <hidden_size = 3, {late}direction = \"{direction}\"> (x, w, r, b{states}) }}",
                    biases = 2 * rows
                );
                let mut model = porter::text::parse_model(&text).unwrap();
                porter::graph::shapes::infer(&mut model).unwrap();
                let layer = model.graph.node_ids()[0];
                model.graph.node_mut(layer).name = "layer".into();
                let inputs = samples::for_model(&model, 1);
                let rounded = ort.run_once(&model, &inputs).unwrap();
                let exact = porter::engine::double::Double.run_once(&model, &inputs).unwrap();
                assert_eq!(exact.len(), if op == "LSTM" { 3 } else { 2 });
                for (name, exact) in &exact {
                    assert_eq!(exact.dtype(), DType::Double);
                    let found = metrics(exact, &rounded[name]).unwrap();
                    assert!(
                        found.scale > 1e-3 && found.max_abs < 2e-6,
                        "{op} {late}{direction} {given} {name}: {found:?}"
                    );
                }
            }
        }
    }
}

#[test]
#[ignore = "measures"]
fn timing() {
    let ort = reference();
    for name in std::env::var("MODELS").unwrap_or("yolo26n.onnx,yolo26l.onnx".into()).split(',') {
        let model = model(name);
        let inputs = samples::for_model(&model, 1);
        let lowered = emulate::lower(&model, DType::Bfloat16, &|_| false);
        for (what, model) in [("float32", &model), ("bfloat16", &lowered)] {
            for engine in [&Tract as &dyn Engine, &ort] {
                let start = Instant::now();
                let session = engine.compile(model);
                let compiled = start.elapsed();
                let outcome = session.and_then(|mut session| session.run(&inputs));
                println!(
                    "{name} {what} {}: compile {compiled:?}, all {:?}, {:?}",
                    engine.name(),
                    start.elapsed(),
                    outcome.map(|o| o.len())
                );
            }
        }
    }
}
