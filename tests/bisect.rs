//! `porter bisect` and `porter sweep`: planted faults are named, whatever they touch, and healthy targets are not accused.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{model_path, ort_library, porter, run, run_fine};
use porter::bisect::judge::Precision;
use porter::bisect::report::{Kind as FaultKind, Report, Verdict};
use porter::bisect::{Options, Suspect, bisect};
use porter::engine::faulty::{Fault, Faulty, Kind, Place};
use porter::engine::tract::Tract;
use porter::engine::{Engine, EngineError, Session, Tensors};
use porter::fingerprint::Shape;
use porter::graph::{Dim, Graph, Model, Node, ValueId};
use porter::onnx::{self, DType, Tensor};
use serde_json::Value;

/// A graph in a line an operator.
struct Build {
    graph: Graph,
}

impl Build {
    fn new() -> Self {
        Self { graph: Graph::new("test") }
    }

    fn input(&mut self, name: &str, dims: &[i64]) -> ValueId {
        let shape = dims.iter().map(|&size| Dim::Fixed(size)).collect();
        let id = self.graph.add_typed_value(name, Some(DType::Float), Some(shape));
        self.graph.inputs.push(id);
        id
    }

    /// Values that count up and down around zero.
    fn weight(&mut self, name: &str, dims: &[i64]) -> ValueId {
        let count: i64 = dims.iter().product();
        let values: Vec<f32> = (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 100.0).collect();
        self.graph.add_initializer(Tensor::from_f32(name, dims, &values))
    }

    fn ints(&mut self, name: &str, values: &[i64]) -> ValueId {
        self.graph.add_initializer(Tensor::from_i64(name, &[values.len() as i64], values))
    }

    fn op(&mut self, op_type: &str, name: &str, inputs: &[ValueId]) -> ValueId {
        self.node(Node::new(op_type, inputs.iter().copied(), []).named(name))
    }

    fn node(&mut self, mut node: Node) -> ValueId {
        let id = self.graph.add_value(&format!("{}_output_0", node.name));
        node.outputs = vec![Some(id)];
        self.graph.add_node(node);
        id
    }

    fn finish(mut self, outputs: &[ValueId]) -> Model {
        self.graph.outputs = outputs.to_vec();
        let mut model = Model::new(self.graph, 18);
        porter::graph::shapes::infer(&mut model).unwrap();
        model
    }
}

/// A small network with everything that faults hide in: batch 2, two outputs, a split of four heads, indices, nodes without
/// a name. images [2,3,16,16] -> scores [2,10], places int64 [2,4]
fn network() -> Model {
    let mut build = Build::new();
    let images = build.input("images", &[2, 3, 16, 16]);
    let conv = |build: &mut Build, x: ValueId, name: &str, dims: &[i64]| {
        let weight = build.weight(&format!("{name}.weight"), dims);
        let node = Node::new("Conv", [x, weight], []).named(name).with("pads", vec![1i64, 1, 1, 1]);
        let y = build.node(node);
        build.op("Relu", &format!("{name}_relu"), &[y])
    };
    let a = conv(&mut build, images, "/a/conv", &[8, 3, 3, 3]);
    let b = conv(&mut build, a, "/b/conv", &[16, 8, 3, 3]);
    let sizes = build.ints("sizes", &[4, 12]);
    let (left, right) = (build.graph.add_value("left"), build.graph.add_value("right"));
    build.graph.add_node(Node::new("Split", [b, sizes], [left, right]).named("/c/Split").with("axis", 1));
    let right = build.op("Sigmoid", "/c/Sigmoid", &[right]);
    let joined = build.node(Node::new("Concat", [right, left], []).named("/c/Concat").with("axis", 1));
    let pooled = build.op("GlobalAveragePool", "/d/pool", &[joined]);
    let dims = build.ints("dims", &[2, 16]);
    let flat = build.op("Reshape", "/d/Reshape", &[pooled, dims]);
    let weight = build.weight("head", &[16, 10]);
    let product = build.op("MatMul", "/d/MatMul", &[flat, weight]);
    // No name: reports call it by its operator and place.
    let scores = build.graph.add_value("scores");
    build.graph.add_node(Node::new("Tanh", [product], [scores]));
    let four = build.ints("four", &[4]);
    let (best, places) = (build.graph.add_value("best"), build.graph.add_value("places"));
    build.graph.add_node(Node::new("TopK", [product, four], [best, places]).named("/d/TopK").with("axis", -1));
    build.finish(&[scores, places])
}

fn search_on(model: &Model, target: &dyn Engine, options: &Options) -> Report {
    let suspect = Suspect {
        engine: target,
        label: target.name(),
        simulated: true,
        target: None,
        precision: Precision::float32(),
    };
    let found = bisect(model, "test.onnx", &Tract, &suspect, options, &|_| {});
    found.unwrap_or_else(|error| panic!("{error}")).0
}

fn search(model: &Model, faults: Vec<Fault>) -> Report {
    search_on(model, &Faulty::new(Arc::new(Tract), faults, "test"), &Options::default())
}

fn named(report: &Report) -> Vec<Vec<String>> {
    let mut all: Vec<Vec<String>> = report.faults.iter().map(|fault| fault.nodes.clone()).collect();
    all.sort();
    all
}

fn at(kind: Kind, node: &str) -> Fault {
    Fault::new(kind, Place::node(node))
}

#[test]
fn a_fault_is_named_wherever_it_hides() {
    let model = network();
    for (what, fault, node) in [
        ("in the last batch element", Fault { batch: Some(1), ..at(Kind::Scaled, "/a/conv") }, "/a/conv"),
        ("in one channel", Fault { channel: Some(3), ..at(Kind::Zeroed, "/b/conv_relu") }, "/b/conv_relu"),
        (
            "in one place of one channel of one element",
            { Fault { channel: Some(3), batch: Some(0), amount: Some(1.01), ..at(Kind::Scaled, "/b/conv") } },
            "/b/conv",
        ),
        ("in the second output of a node", Fault { output: Some(1), ..at(Kind::Shifted, "/c/Split") }, "/c/Split"),
        ("in whole numbers", Fault { output: Some(1), ..at(Kind::Shifted, "/d/TopK") }, "/d/TopK"),
        ("in a node without a name", at(Kind::Scaled, "Tanh_10"), "Tanh_10"),
        ("in values that are only moved", at(Kind::ChannelsPermuted, "/c/Concat"), "/c/Concat"),
        ("by a two-thousandth", Fault { amount: Some(1.0005), ..at(Kind::Scaled, "/d/MatMul") }, "/d/MatMul"),
    ] {
        let report = search(&model, vec![fault]);
        assert_eq!(named(&report), [[node.to_string()]], "{what}: {:#?}", report.faults);
        assert_eq!(report.verdict, Verdict::Faulty, "{what}");
        assert!(report.faults[0].confirmed, "{what}");
    }
}

#[test]
fn several_faults_are_all_named_with_their_shapes() {
    let faults = vec![
        at(Kind::StrideDrop, "/c/Split"),
        Fault { batch: Some(1), ..at(Kind::Zeroed, "/a/conv") },
        at(Kind::Saturated, "/b/conv"),
    ];
    let report = search(&network(), faults);
    let told: Vec<(&str, Option<Shape>, Vec<usize>)> = report
        .faults
        .iter()
        .map(|fault| (fault.nodes[0].as_str(), fault.fingerprint, fault.batch_elements.clone()))
        .collect();
    assert_eq!(
        told,
        [
            ("/a/conv", Some(Shape::Zeroed), vec![1]),
            ("/b/conv", Some(Shape::Saturated), vec![0, 1]),
            // The first element begins where the run begins.
            ("/c/Split", Some(Shape::StrideDrop), vec![1]),
        ]
    );
}

#[test]
fn failures_keep_their_code_and_their_smallest_region() {
    let model = network();
    for (kind, code, expected) in [
        (Kind::CompileError, Some("NCC_EVRF029"), (FaultKind::CompileError, "NCC_EVRF029")),
        (Kind::Crash, Some("signal:11"), (FaultKind::Crash, "signal:11")),
        (Kind::RunCrash, None, (FaultKind::Crash, "signal:6")),
        (Kind::Hang, None, (FaultKind::Timeout, "timeout")),
    ] {
        let report = search(&model, vec![Fault { code: code.map(Into::into), ..at(kind, "/d/TopK") }]);
        assert_eq!(named(&report), [["/d/TopK"]], "{kind:?}");
        let fault = &report.faults[0];
        assert_eq!((fault.kind, fault.code.as_deref(), fault.confirmed), (expected.0, Some(expected.1), true));
    }
}

#[test]
fn two_that_fail_only_together_are_named_together() {
    let place = Place { after: Some("Conv".into()), ..Place::node("/b/conv_relu") };
    for (kind, code) in [(Kind::Scaled, None), (Kind::CompileError, Some("E1"))] {
        let report = search(&network(), vec![Fault { code: code.map(Into::into), ..Fault::new(kind, place.clone()) }]);
        assert_eq!(named(&report), [["/b/conv", "/b/conv_relu"]], "{kind:?}: {:#?}", report.faults);
        assert!(report.faults[0].fused);
        assert_eq!(report.faults[0].vanishes_when_observed, kind == Kind::Scaled);
    }
}

/// A fault in one node, and one before it that is there only while two nodes far apart are compiled together.
struct FarApart;

impl Engine for FarApart {
    fn name(&self) -> String {
        "far apart".into()
    }

    fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
        let mut faults = vec![at(Kind::Scaled, "/d/MatMul")];
        let node = |name: &str| model.graph.nodes().find(|(_, node)| node.name == name);
        if let (Some((_, first)), Some(_)) = (node("/a/conv"), node("/c/Concat")) {
            let shown = first.writes().any(|value| model.graph.is_output(value));
            faults.extend((!shown).then(|| at(Kind::Scaled, "/c/Concat")));
        }
        Faulty::new(Arc::new(Tract), faults, "test").compile(model)
    }
}

#[test]
fn a_fault_before_another_one_is_found_though_its_trace_ends_there() {
    let report = search_on(&network(), &FarApart, &Options::default());
    let found = named(&report);
    assert!(found.contains(&vec!["/d/MatMul".to_string()]), "{found:?}");
    let both = |nodes: &Vec<String>| ["/a/conv", "/c/Concat"].iter().all(|&one| nodes.iter().any(|node| node == one));
    assert!(found.len() == 2 && found.iter().any(both), "{found:?}");
}

#[test]
fn nan_and_noise_are_kinds_of_their_own() {
    let report = search(&network(), vec![Fault { channel: Some(2), ..at(Kind::Nan, "/a/conv_relu") }]);
    assert_eq!(report.faults[0].kind, FaultKind::Nan);
    assert_eq!(named(&report), [["/a/conv_relu"]]);
    let report = search(&network(), vec![Fault { amount: Some(0.1), ..at(Kind::Nondeterministic, "/b/conv") }]);
    assert_eq!(report.verdict, Verdict::Nondeterministic);
    assert_eq!(named(&report), [["/b/conv"]]);
}

/// tract without top-k.
struct NoTopK;

impl Engine for NoTopK {
    fn name(&self) -> String {
        "tract without top-k".into()
    }

    fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
        if model.graph.nodes().any(|(_, node)| node.is("TopK")) {
            let problem = "top-k is not there".to_string();
            let node = model.graph.nodes().find(|(_, node)| node.is("TopK")).map(|(_, node)| node.name.clone());
            return Err(EngineError::Unsupported {
                engine: self.name(),
                node: node.unwrap_or_default(),
                op_type: "TopK".into(),
                problem,
            });
        }
        Tract.compile(model)
    }
}

#[test]
fn what_a_target_does_not_have_is_no_fault() {
    let report = search_on(&network(), &NoTopK, &Options::default());
    assert_eq!(report.verdict, Verdict::Healthy, "{:#?}", report.faults);
    assert_eq!(report.not_tested.len(), 1);
    assert_eq!(report.not_tested[0].0, "/d/TopK");
    // Where nothing is left to be tried, nothing is healthy.
    let mut build = Build::new();
    let x = build.input("x", &[2, 8]);
    let four = build.ints("four", &[4]);
    let (best, places) = (build.graph.add_value("best"), build.graph.add_value("places"));
    build.graph.add_node(Node::new("TopK", [x, four], [best, places]).named("top"));
    let report = search_on(&build.finish(&[best, places]), &NoTopK, &Options::default());
    assert_eq!(report.verdict, Verdict::Inconclusive);
    assert!(report.notes.iter().any(|note| note.contains("no node ran on the target")), "{:?}", report.notes);
}

#[test]
fn small_tensors_hide_no_fault() {
    for width in [1, 3, 7, 15, 40] {
        let mut build = Build::new();
        let x = build.input("x", &[3, 12]);
        let (weight, bias) = (build.weight("w", &[12, width]), build.weight("b", &[width]));
        let y = build.op("Gemm", "/g", &[x, weight, bias]);
        let z = build.op("Relu", "/r", &[y]);
        let model = build.finish(&[z]);
        assert_eq!(search(&model, Vec::new()).verdict, Verdict::Healthy, "{width}");
        for amount in [1.01, 1.0003, 1.0001] {
            let report = search(&model, vec![Fault { amount: Some(amount), ..at(Kind::Scaled, "/g") }]);
            assert_eq!(named(&report), [["/g"]], "{width}, {amount}");
        }
    }
}

/// Runs of tract with `change` made to them, by how many there were before.
struct Changed(fn(usize, &mut Tensors));

struct ChangedSession(Box<dyn Session>, fn(usize, &mut Tensors), usize);

impl Engine for Changed {
    fn name(&self) -> String {
        "changed".into()
    }

    fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
        Ok(Box::new(ChangedSession(Tract.compile(model)?, self.0, 0)))
    }
}

impl Session for ChangedSession {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, EngineError> {
        let mut outputs = self.0.run(inputs)?;
        (self.1)(self.2, &mut outputs);
        self.2 += 1;
        Ok(outputs)
    }
}

/// A model of one Relu, and what `change` makes of its runs.
fn search_changed(change: fn(usize, &mut Tensors)) -> Report {
    let mut build = Build::new();
    let x = build.input("x", &[1, 64]);
    let y = build.op("Relu", "/r", &[x]);
    let samples: Vec<Tensors> = (0..2)
        .map(|sample| {
            let values: Vec<f32> = (0..64).map(|i| (i + sample) as f32 / 64.0).collect();
            [("x".to_string(), Tensor::from_f32("x", &[1, 64], &values))].into_iter().collect()
        })
        .collect();
    search_on(&build.finish(&[y]), &Changed(change), &Options { inputs: samples, ..Default::default() })
}

#[test]
fn every_sample_has_its_say() {
    // The second sample runs first: off by half there, and no number on the other.
    let report = search_changed(|run, outputs| {
        let tensor = &mut outputs[0];
        let values = tensor.to_f32s().unwrap();
        let wrong: Vec<f32> = values.iter().map(|x| if run == 0 { x * 1.5 } else { f32::NAN }).collect();
        *tensor = Tensor::from_f32(tensor.name(), tensor.dims(), &wrong);
    });
    assert_eq!(report.faults[0].kind, FaultKind::Nan, "{:#?}", report.faults);
    // A little off at first, and much on the other: the worse one is told.
    let report = search_changed(|run, outputs| {
        let tensor = &mut outputs[0];
        let factor = if run == 0 { 1.01 } else { 3.0 };
        let wrong: Vec<f32> = tensor.to_f32s().unwrap().iter().map(|x| x * factor).collect();
        *tensor = Tensor::from_f32(tensor.name(), tensor.dims(), &wrong);
    });
    assert!(report.faults[0].metrics.as_ref().unwrap().max_abs > 1.0, "{:#?}", report.faults);
}

#[test]
fn a_wrong_tensor_that_looks_like_detections_is_judged_as_what_it_is() {
    // A table whose rows, once they are all zero, could be detections.
    let mut build = Build::new();
    let x = build.input("x", &[2, 5, 8]);
    let y = build.op("Softsign", "/s", &[x]);
    let report = search(&build.finish(&[y]), vec![at(Kind::Zeroed, "/s")]);
    let metrics = report.faults[0].metrics.as_ref().unwrap();
    assert!(metrics.max_abs <= 1.0 && !report.faults[0].reason.contains("sizes"), "{:#?}", report.faults);
    assert_eq!(report.faults[0].batch_elements, [0, 1]);
}

#[test]
fn every_part_of_memory_gives_the_same_answer() {
    let faults = vec![at(Kind::StrideDrop, "/c/Split"), at(Kind::Scaled, "/a/conv")];
    let faulty = Faulty::new(Arc::new(Tract), faults, "test");
    // Room for one node at a time: every stretch is made from files of the one before.
    for (memory, jobs) in [(1 << 10, 1), (1 << 15, 2), (1 << 30, 1)] {
        let options = Options { memory: Some(memory), jobs, ..Default::default() };
        let report = search_on(&network(), &faulty, &options);
        assert_eq!(named(&report), [["/a/conv"], ["/c/Split"]], "{memory} bytes, {jobs} jobs");
    }
}

#[test]
fn limits_end_a_search_with_what_is_known() {
    let faulty = Faulty::new(Arc::new(Tract), vec![at(Kind::CompileError, "/d/TopK")], "test");
    let report = search_on(&network(), &faulty, &Options { max_probes: Some(2), ..Default::default() });
    assert_eq!(report.verdict, Verdict::Inconclusive);
    assert!(report.stopped.is_some() && report.probes.compiles <= 3, "{:?}", report.probes);
    let report = search_on(&network(), &faulty, &Options { time_limit: Some(Duration::ZERO), ..Default::default() });
    assert_eq!(report.verdict, Verdict::Inconclusive);
}

// The command.

fn saved(folder: &Path, model: &Model) -> PathBuf {
    let path = folder.join("network.onnx");
    onnx::write(&path, &model.to_proto()).unwrap();
    path
}

/// Runs `porter bisect` with `--json`; its exit code and its report.
fn told(model: &Path, arguments: &[&str]) -> (i32, Value) {
    ort_library();
    let (code, stdout, stderr) = run(porter().arg("bisect").arg(model).args(arguments).arg("--json"));
    let report = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{arguments:?}\n{stdout}\n{stderr}"));
    (code, report)
}

fn nodes(report: &Value) -> Vec<String> {
    let faults = report["faults"].as_array().unwrap();
    faults.iter().flat_map(|fault| fault["nodes"].as_array().unwrap()).map(|n| n.as_str().unwrap().into()).collect()
}

#[test]
fn both_splits_of_a_detector_are_found_healed_and_prepared_away() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("faults");
    let out_text = out.to_str().unwrap();
    let file = model_path("yolo26n-raw.onnx");
    let (code, report) =
        told(&file, &["--target", "faulty:N1", "--no-cache", "--samples", "1", "--heal", "-o", out_text]);
    assert_eq!((code, report["verdict"].as_str()), (1, Some("faulty")));
    assert_eq!(nodes(&report), ["/model.10/m/m.0/attn/Split", "/model.22/m.0/m.0.1/attn/Split"]);
    for fault in report["faults"].as_array().unwrap() {
        assert_eq!(fault["fingerprint"], "stride-drop");
        assert_eq!(fault["quirk"], "N1");
        assert_eq!(fault["rewrite"], "split-to-slices");
        assert_eq!(fault["confirmed"], true);
    }
    // The reference's side of a repro needs nothing of porter.
    let repro = PathBuf::from(report["faults"][0]["repro"].as_str().unwrap());
    let said = run_fine(&mut common::python(repro.join("repro.py").to_str().unwrap()));
    let worst = |kind: &str| {
        let lines = said.lines().filter(|line| line.contains(kind));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).fold(0.0, f64::max)
    };
    assert!(worst("expected") == 0.0 && worst("target") > 1.0, "{said}");
    let readme = std::fs::read_to_string(repro.join("README.md")).unwrap();
    assert!(readme.contains("onnxruntime 1.") && readme.contains("planted"), "{readme}");
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("<svg class=\"graph\"") && page.contains("batch elements down") && !page.contains("http"));
    // The overlay is what the next prepare applies: what it makes has no fault left.
    let overlay = out.join("overlay.yaml");
    let bundle = folder.path().join("bundle");
    run_fine(
        porter()
            .arg("prepare")
            .arg(&file)
            .args(["--target", "neuron", "--no-check", "--targets"])
            .arg(&overlay)
            .arg("-o")
            .arg(&bundle),
    );
    let (code, report) = told(&bundle, &["--target", "faulty:N1", "--no-cache", "--samples", "1"]);
    assert_eq!((code, report["verdict"].as_str()), (0, Some("healthy")), "{report:#}");
}

#[test]
fn a_killed_search_goes_on_where_it_stood() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let file = model_path("yolo26n-raw.onnx");
    let search = |extra: &[&str]| {
        let mut command = porter();
        command.arg("bisect").arg(&file).args(["--target", "faulty:N1", "--samples", "1", "--json", "--cache"]);
        command.arg(&cache).args(extra);
        command
    };
    let mut first = search(&[]).stdout(std::process::Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    let kept = || std::fs::read_dir(&cache).map(|all| all.count()).unwrap_or(0);
    while kept() == 0 {
        assert!(start.elapsed() < Duration::from_secs(300), "no answer was kept");
        assert!(first.try_wait().unwrap().is_none() || kept() > 0, "it ended without keeping an answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    first.kill().unwrap();
    first.wait().unwrap();
    let (code, stdout, stderr) = run(&mut search(&["--resume"]));
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stderr}"));
    assert_eq!(code, 1);
    assert!(report["probes"]["cached"].as_u64().unwrap() > 0);
    assert_eq!(nodes(&report), ["/model.10/m/m.0/attn/Split", "/model.22/m.0/m.0.1/attn/Split"]);
}

#[test]
fn a_users_inputs_and_what_prepare_makes_are_tested() {
    let folder = tempfile::tempdir().unwrap();
    let file = saved(folder.path(), &network());
    let values: Vec<f32> = (0..2 * 3 * 16 * 16).map(|i| (i % 23) as f32 / 23.0).collect();
    let tensor = Tensor::from_f32("images", &[2, 3, 16, 16], &values);
    let input = folder.path().join("frames.npz");
    porter::inputs::write(&input, &Tensors::from_iter([("images".to_string(), tensor)])).unwrap();
    let input = input.to_str().unwrap();
    let plan = folder.path().join("plan.yaml");
    std::fs::write(&plan, "- { kind: scaled, at: { node: /b/conv }, amount: 1.1 }\n").unwrap();
    let target = format!("faulty:{}@tract", plan.display());
    let (code, report) = told(&file, &["--target", &target, "--no-cache", "--input", input]);
    assert_eq!((code, nodes(&report), &report["samples"]), (1, vec!["/b/conv".to_string()], &Value::from(1)));
    let (code, stdout, stderr) =
        run(porter().arg("bisect").arg(&file).args(["--target", "tract", "--input", "nowhere.npz"]));
    assert!(code == 2 && stdout.is_empty() && stderr.contains("there is no such file"), "{code} {stderr}");
    let (code, report) = told(&file, &["--target", "ort", "--no-cache", "--prepared"]);
    assert_eq!((code, report["verdict"].as_str()), (0, Some("healthy")), "{report:#}");
    let (code, _, stderr) = run(porter().arg("bisect").arg(&file).args(["--target", &target, "--prepared"]));
    assert!(code == 2 && stderr.contains("--prepared needs a target file"), "{code} {stderr}");
}

#[test]
fn a_sweep_finds_the_border_and_says_it_as_a_condition() {
    let folder = tempfile::tempdir().unwrap();
    let mut build = Build::new();
    let x = build.input("x", &[4, 8, 16, 15]);
    let sizes = build.ints("sizes", &[4, 4]);
    let (a, b) = (build.graph.add_value("a"), build.graph.add_value("b"));
    build.graph.add_node(Node::new("Split", [x, sizes], [a, b]).named("split").with("axis", 1));
    let file = saved(folder.path(), &build.finish(&[a, b]));
    ort_library();
    let (code, stdout, stderr) = run(porter().arg("sweep").arg(&file).args([
        "--target",
        "faulty:N3",
        "--batch",
        "1..6",
        "--dim",
        "H=8..40",
        "--json",
    ]));
    let found: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stderr}"));
    assert_eq!(code, 1);
    // 17 x 15 is below 264, 18 x 15 is not.
    assert_eq!(found["predicate"], "x.shape[0] >= 4 && x.shape[2] <= 17");
    let others: Vec<&str> = found["alternatives"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert!(others.contains(&"x.shape[0] >= 4 && x.shape[2] * x.shape[3] <= 255"), "{others:?}");
    assert!(found["probes"].as_u64().unwrap() <= 50, "{}", found["probes"]);
    // A fault at the model's own batch alone is not passed by.
    let only = folder.path().join("only.yaml");
    std::fs::write(&only, "- { kind: scaled, at: { op: Split, shape: [4, -1, -1, -1] }, amount: 1.5 }\n").unwrap();
    let (code, stdout, _) = run(porter()
        .arg("sweep")
        .arg(&file)
        .arg("--target")
        .arg(format!("faulty:{}", only.display()))
        .args(["--batch", "1..16"]));
    assert!(code == 1 && stdout.contains("where: x.shape[0] == 4"), "{stdout}");
    let (code, stdout, _) = run(porter().arg("sweep").arg(&file).args(["--target", "tract", "--batch", "1..6"]));
    assert!(code == 0 && stdout.contains("it shows nowhere here"), "{stdout}");
}

#[test]
fn weights_of_a_repro_are_reduced() {
    let folder = tempfile::tempdir().unwrap();
    let mut build = Build::new();
    let x = build.input("x", &[1, 64, 12, 12]);
    let weight = build.weight("weight", &[128, 64, 3, 3]);
    let y = build.op("Conv", "conv", &[x, weight]);
    let file = saved(folder.path(), &build.finish(&[y]));
    let plan = folder.path().join("plan.yaml");
    std::fs::write(&plan, "- { kind: scaled, at: { op: Conv }, amount: 1.5 }\n").unwrap();
    let out = folder.path().join("out");
    let target = format!("faulty:{}@tract", plan.display());
    let (code, report) = told(&file, &["--target", &target, "--no-cache", "-o", out.to_str().unwrap()]);
    assert_eq!(code, 1);
    let cut = PathBuf::from(report["faults"][0]["repro"].as_str().unwrap()).join("model.onnx");
    let (whole, cut) = (std::fs::metadata(&file).unwrap().len(), std::fs::metadata(cut).unwrap().len());
    assert!(cut * 20 < whole, "{cut} of {whole} bytes");
}

#[test]
fn real_engines_are_not_accused() {
    let magika = common::fetched_model("magika/1.0.3/model.onnx");
    for (target, batch) in [("tract", "2"), ("ort", "4")] {
        let (code, report) = told(&magika, &["--target", target, "--no-cache", "--batch", batch]);
        assert_eq!((code, report["verdict"].as_str()), (0, Some("healthy")), "{target}: {report:#}");
    }
    // Two branches for two sampling rates; 256 samples fit both.
    let silero = common::fetched_model("silero-vad/6.2.3/silero_vad.onnx");
    let (code, report) =
        told(&silero, &["--target", "ort", "--no-cache", "--shape", "input=1,256", "--shape", "state=2,1,128"]);
    assert_eq!((code, report["verdict"].as_str()), (0, Some("healthy")), "{report:#}");
}
