//! Models lowered to HLO and run by XLA on the CPU: the same as ONNX Runtime, and as ONNX's own cases say.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{model, ort_library, snapshots};
use porter::compare::Verdict;
use porter::engine::noise::{self, Noise};
use porter::engine::ort::Ort;
use porter::engine::worker::Limits;
use porter::engine::xla::Xla;
use porter::engine::{Engine, Tensors, samples};
use porter::graph::{Dim, Model};
use porter::lower::{self, LowerError, Weights};
use porter::onnx::{DType, Tensor};
use prost::Message;

/// XLA on the CPU, with the tests' own Python.
fn xla(double: bool) -> Xla {
    let python = PathBuf::from(common::python("").get_program());
    Xla::with_python(python, double, Limits::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// The whole model on XLA, held against ONNX Runtime by what rounding does to it.
fn agrees(name: &str) {
    ort_library();
    let ort = Ort::reference().unwrap();
    let model = model(name);
    let inputs = samples::for_model(&model, 1);
    let expectation = noise::measure(&ort, &model, &inputs, &Noise::float32()).unwrap();
    let ours = xla(false).run_once(&model, &inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
    let report = expectation.judge(&ours);
    for finding in &report.findings {
        println!("{name} {}: {:?} strain {:.2} {}", finding.name, finding.verdict, finding.strain, finding.reason);
    }
    assert!(
        report.verdict < Verdict::Differs,
        "{name}: {:?}",
        report.findings.iter().map(|f| &f.reason).collect::<Vec<_>>()
    );
}

#[test]
fn detectors_run_on_xla_as_on_onnx_runtime() {
    for name in ["yolo26n.onnx", "yolo26n-raw-b4.onnx", "yolov8n-raw.onnx"] {
        agrees(name);
    }
}

#[test]
fn task_heads_run_on_xla_as_on_onnx_runtime() {
    for name in ["yolo26n-seg.onnx", "yolo26n-pose.onnx", "yolo26n-obb.onnx", "yolo26n-cls.onnx"] {
        agrees(name);
    }
}

#[test]
fn whole_models_run_in_float64() {
    ort_library();
    let model = model("yolo26n-cls.onnx");
    let inputs = samples::for_model(&model, 1);
    let exact = xla(true).run_once(&model, &inputs).unwrap();
    let single = xla(false).run_once(&model, &inputs).unwrap();
    let ort = Ort::reference().unwrap().run_once(&model, &inputs).unwrap();
    for (name, exact) in &exact {
        assert_eq!(exact.dtype(), DType::Double);
        let exact = exact.to_f64s().unwrap();
        let off =
            |other: &Tensor| exact.iter().zip(other.to_f64s().unwrap()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let (ours, theirs) = (off(&single[name]), off(&ort[name]));
        println!("{name}: XLA is {ours:e} from float64, ONNX Runtime {theirs:e}");
        assert!(ours < 1e-4 && theirs < 1e-4);
    }
}

#[test]
fn a_split_becomes_slices_with_bounds_on_every_dimension() {
    let mut model = model("yolo26l.onnx");
    lower::prepare(&mut model).unwrap();
    let splits = model.graph.nodes().filter(|(_, node)| node.is("Split")).count();
    let lowered = lower::lower_prepared(&model, Weights::Constants).unwrap();
    let text = lower::hlo::text::to_string(&lowered.module, lower::hlo::text::Constants::Elided);
    let mut from_split = 0;
    for instruction in &lowered.module.entry.instructions {
        let Some(origin) = instruction.origin.as_ref().filter(|origin| origin.op_type == "Split") else { continue };
        let lower::hlo::Kind::Slice { start, limit, stride } = &instruction.kind else {
            panic!("{}: a split became {:?}", origin.node, instruction.kind)
        };
        let whole = lowered.module.entry.shape(instruction.operands[0]);
        assert_eq!((start.len(), limit.len(), stride.len()), (whole.rank(), whole.rank(), whole.rank()));
        assert!(stride.iter().all(|&step| step == 1), "{}", origin.node);
        from_split += 1;
    }
    assert!(splits > 10 && from_split >= 2 * splits, "{splits} splits, {from_split} slices");
    assert!(text.contains("stablehlo.slice") && text.len() < 2_000_000, "{} bytes", text.len());
}

/// One of ONNX's cases: where it is and how near is near enough.
struct Case {
    name: String,
    folder: PathBuf,
    rtol: f64,
    atol: f64,
    others: bool,
}

fn cases() -> Vec<Case> {
    let root = common::node_cases();
    let index: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(root.join("cases.json")).unwrap()).unwrap();
    let mut cases: Vec<Case> = index["cases"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, case)| Case {
            name: name.clone(),
            folder: root.join(name),
            rtol: case["rtol"].as_f64().unwrap_or(0.0),
            atol: case["atol"].as_f64().unwrap_or(0.0),
            others: !case["others"].as_array().unwrap().is_empty(),
        })
        .collect();
    cases.retain(|case| case.name.starts_with("node/"));
    if let Ok(only) = std::env::var("CASES") {
        cases.retain(|case| only.split(',').any(|part| case.name.contains(part)));
    }
    cases
}

fn read_tensors(folder: &Path, what: &str) -> Vec<Tensor> {
    (0..)
        .map_while(|i| std::fs::read(folder.join(format!("{what}_{i}.pb"))).ok())
        .map(|bytes| Tensor::decode(bytes.as_slice()).unwrap())
        .collect()
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Passed,
    /// The operator, the element type or the opset is not one that is lowered: the case is not counted.
    NotListed(String),
    Failed(String),
}

/// Lowers a case's model. What decides sizes is an input in these cases: it becomes a constant, as it is in real models.
fn constant_sizes(model: &Model, inputs: &Tensors) -> Result<Model, String> {
    let mut model = model.clone();
    for (name, tensor) in inputs {
        let Some(id) = model.graph.value_named(name) else { continue };
        let value = model.graph.value_mut(id);
        value.dtype = Some(tensor.dtype());
        value.shape = Some(tensor.dims().iter().map(|&size| Dim::Fixed(size)).collect());
    }
    for _ in 0..8 {
        let mut tried = model.clone();
        let outcome = lower::prepare(&mut tried).and_then(|()| lower::lower_prepared(&tried, Weights::Constants));
        let fixed = match outcome {
            Ok(_) => return Ok(model),
            Err(LowerError::NotConstant { ref input, .. }) if inputs.contains_key(input) => {
                model.graph.value_named(input)
            }
            Err(ref error @ (LowerError::NotConstant { .. } | LowerError::Dynamic { .. })) => {
                let small = model.graph.inputs.iter().copied().find(|&id| {
                    inputs.get(&model.graph.value(id).name).is_some_and(|t| t.dims().len() < 2 && t.len() <= 16)
                });
                Some(small.ok_or_else(|| error.to_string())?)
            }
            Err(error) => return Err(error.to_string()),
        };
        let Some(id) = fixed else { return Err("an input is nowhere".into()) };
        let name = model.graph.value(id).name.clone();
        model.graph.inputs.retain(|&other| other != id);
        model.graph.set_initializer(id, inputs[&name].clone());
    }
    Err("it does not settle".into())
}

fn run_case(engine: &dyn Engine, case: &Case) -> Outcome {
    if case.others {
        return Outcome::NotListed("sequences, optionals and maps".into());
    }
    let failed = |problem: String| {
        let problem = problem.replace(&format!("{}/", case.folder.display()), "");
        let start = problem.find("is not lowered to HLO: ").map_or(0, |at| at + "is not lowered to HLO: ".len());
        Outcome::Failed(problem[start..].lines().next().unwrap_or_default().chars().take(140).collect())
    };
    let model = match porter::load(&case.folder.join("model.onnx")) {
        Ok(model) => model,
        Err(error) if error.to_string().contains("opset") => return Outcome::NotListed("opset 10 or older".into()),
        Err(error) => return failed(error.to_string()),
    };
    let foreign = model.graph.nodes().find(|(_, node)| {
        let function = model.functions.iter().any(|f| f.name.as_deref() == Some(node.op_type.as_str()));
        !function && (!node.is_standard() || !lower::is_lowered(&node.op_type))
    });
    if let Some((_, node)) = foreign {
        return Outcome::NotListed(node.op_type.clone());
    }
    let folder = case.folder.join("test_data_set_0");
    let names: Vec<String> = model.graph.inputs.iter().map(|&id| model.graph.value(id).name.clone()).collect();
    let inputs: Tensors =
        names.into_iter().zip(read_tensors(&folder, "input")).map(|(n, t)| (n.clone(), t.renamed(n))).collect();
    let wanted = read_tensors(&folder, "output");
    // Text and complex numbers are not among the types that are lowered.
    let small = inputs.values().chain(&wanted).map(Tensor::dtype).find(|&dtype| lower::hlo::element_number(dtype) == 0);
    if let Some(dtype) = small {
        return Outcome::NotListed(format!("type {dtype}"));
    }
    let ready = match constant_sizes(&model, &inputs) {
        Ok(ready) => ready,
        Err(problem) => return failed(problem),
    };
    let outputs = match engine.run_once(&ready, &inputs) {
        Ok(outputs) => outputs,
        Err(error) => return failed(error.to_string()),
    };
    for (&id, wanted) in model.graph.outputs.iter().zip(&wanted) {
        let name = &model.graph.value(id).name;
        let Some(got) = outputs.get(name) else { return failed(format!("output {name} is missing")) };
        if let Err(problem) = same(wanted, got, case) {
            return failed(format!("wrong: {problem}"));
        }
    }
    Outcome::Passed
}

/// As `numpy.testing.assert_allclose` does it; types of 16 bits may be off by a step, as their own kernels are.
fn same(wanted: &Tensor, got: &Tensor, case: &Case) -> Result<(), String> {
    if wanted.dtype() != got.dtype() || wanted.dims() != got.dims() {
        return Err(format!("{} {:?}, not {} {:?}", got.dtype(), got.dims(), wanted.dtype(), wanted.dims()));
    }
    let step = match wanted.dtype() {
        DType::Float16 => 2f64.powi(-10),
        DType::Bfloat16 => 2f64.powi(-7),
        _ => 0.0,
    };
    // Types below 16 bits are held to every bit.
    let (Ok(wanted), Ok(got)) = (wanted.to_f64s(), got.to_f64s()) else {
        let (wanted, got) = (wanted.to_bytes(), got.to_bytes());
        return if wanted == got { Ok(()) } else { Err(format!("other bits: {got:x?}, not {wanted:x?}")) };
    };
    for (index, (&w, &g)) in wanted.iter().zip(&got).enumerate() {
        let allowed = case.atol.max(1e-6) + case.rtol.max(step) * w.abs();
        if !(w == g || (w.is_nan() && g.is_nan()) || (w - g).abs() <= allowed) {
            return Err(format!("element {index} is {g}, not {w}"));
        }
    }
    Ok(())
}

#[test]
fn nine_in_ten_of_onnx_cases_pass_through_hlo() {
    let cases = cases();
    let engine = xla(false);
    let (next, results) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |count| count.get()) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run_case(&engine, case);
                    results.lock().unwrap().insert(case.name.clone(), outcome);
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    let passed = results.values().filter(|outcome| **outcome == Outcome::Passed).count();
    let mut failed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut foreign: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, outcome) in &results {
        match outcome {
            Outcome::Passed => {}
            Outcome::NotListed(op_type) => *foreign.entry(op_type).or_default() += 1,
            Outcome::Failed(reason) => {
                failed.entry(reason).or_default().insert(name.trim_start_matches("node/"));
            }
        }
    }
    let listed = passed + failed.values().map(BTreeSet::len).sum::<usize>();
    let mut text = format!("{passed} of {listed} cases pass whose operators are lowered\n");
    for (reason, names) in &failed {
        text.push_str(&format!("\n{reason}: {}\n", names.len()));
        names.iter().for_each(|name| text.push_str(&format!("  {name}\n")));
    }
    text.push_str(&format!(
        "\nnot counted, for an operator, a type or an opset that is not lowered: {}\n",
        foreign.values().sum::<usize>()
    ));
    foreign.iter().for_each(|(op_type, count)| text.push_str(&format!("  {op_type}: {count}\n")));
    println!("{text}");
    if std::env::var_os("CASES").is_none() {
        assert!(passed * 10 >= listed * 9, "{text}");
        snapshots().bind(|| insta::assert_snapshot!("lowered-cases", text));
    }
}
