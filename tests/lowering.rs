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
    agrees_as(name, &model(name));
}

fn agrees_as(name: &str, model: &Model) {
    ort_library();
    let ort = Ort::reference().unwrap();
    let inputs = samples::for_model(model, 1);
    let expectation = noise::measure(&ort, model, &inputs, &Noise::float32()).unwrap();
    let ours = xla(false).run_once(model, &inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
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

/// A sum that float32 gets wrong in its second place, and a whole model.
#[test]
fn whole_models_run_in_float64() {
    let text = "<ir_version: 8, opset_import: [\"\" : 18]> g (float[4] x) => (float y) { s = Sin (x) y = ReduceSum <keepdims = 0> (s) }";
    let sum = porter::text::parse_model(text).unwrap();
    let values = [1e7f32, 0.3, -1e7, 0.1];
    let inputs: Tensors = [("x".to_string(), Tensor::from_f32("x", &[4], &values))].into_iter().collect();
    let wanted: f64 = values.iter().map(|&x| f64::from(x).sin()).sum();
    let off = |double: bool| {
        let output = &xla(double).run_once(&sum, &inputs).unwrap()["y"];
        assert_eq!(output.dtype(), if double { DType::Double } else { DType::Float });
        (output.to_f64s().unwrap()[0] - wanted).abs()
    };
    assert!(off(true) < 1e-14, "{:e}", off(true));
    assert!(off(false) > 1e-12, "float32 cannot be as near");

    // A whole model, against tract's float64.
    let model = model("yolo26n-raw.onnx");
    let inputs = samples::for_model(&model, 1);
    let exact = xla(true).run_once(&model, &inputs).unwrap();
    let tract = porter::engine::double::Double.run_once(&model, &inputs).unwrap();
    for (name, exact) in &exact {
        assert_eq!(exact.dtype(), DType::Double);
        let (exact, tract) = (exact.to_f64s().unwrap(), tract[name].to_f64s().unwrap());
        let worst = exact.iter().zip(tract).map(|(a, b)| (a - b).abs() / a.abs().max(1e-4)).fold(0.0, f64::max);
        println!("{name}: {worst:e} from tract's float64");
        assert!(worst < 1e-9, "{name}: {worst:e} from tract's float64");
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

/// The operators that are asked of the lowering: a general CNN's, a detector's, an OCR model's, a transformer encoder's.
const ASKED: &str = "Conv ConvTranspose MatMul Gemm Add Sub Mul Div Mod Pow Neg Abs Sign Ceil Floor Round Sqrt Exp Log Sin Cos Tan
    Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Reciprocal Min Max Sum Mean And Or Xor Not BitwiseAnd BitwiseOr BitwiseXor
    BitwiseNot BitShift Equal Less LessOrEqual Greater GreaterOrEqual IsNaN IsInf Sigmoid Swish Gelu Erf HardSwish HardSigmoid
    Relu LeakyRelu PRelu ThresholdedRelu Elu Celu Selu Softplus Softsign Mish Shrink Tanh Softmax LogSoftmax Hardmax
    BatchNormalization LayerNormalization InstanceNormalization GroupNormalization RMSNormalization LpNormalization LRN
    MeanVarianceNormalization MaxPool AveragePool LpPool GlobalMaxPool GlobalAveragePool GlobalLpPool Resize Concat Slice Split
    Transpose Reshape Flatten Squeeze Unsqueeze Identity Dropout Expand Tile DepthToSpace SpaceToDepth Gather GatherElements
    GatherND ScatterElements ScatterND Where Pad ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceSumSquare ArgMax ArgMin CumSum TopK Einsum Cast CastLike Clip QuantizeLinear
    DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul ConvInteger MatMulInteger LSTM GRU RNN Shape Size
    ConstantOfShape Range Trilu OneHot EyeLike Attention RotaryEmbedding GridSample";

#[test]
fn every_operator_that_is_asked_for_is_lowered_and_listed_by_the_xla_target() {
    let targets = porter::target::TargetSet::shipped();
    let xla = targets.get("xla").unwrap();
    for op_type in ASKED.split_whitespace() {
        assert!(lower::is_lowered(op_type), "{op_type} is not lowered");
        assert!(xla.operators.contains_key(op_type), "targets/xla.yaml does not list {op_type}");
    }
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
    /// The operator is not one that is lowered, or the types are text, sequences and the like: the case is not counted.
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

/// The operator of a file whose opset porter does not read, if it is one that is not lowered.
fn older_than_porter_reads(path: &Path) -> Option<String> {
    let file = porter::onnx::proto::ModelProto::decode(std::fs::read(path).unwrap().as_slice()).unwrap();
    let graph = file.graph.unwrap_or_default();
    graph.node.into_iter().filter_map(|node| node.op_type).find(|op_type| !lower::is_lowered(op_type))
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
        Err(error) if error.to_string().contains("opset") => {
            return match older_than_porter_reads(&case.folder.join("model.onnx")) {
                Some(op_type) => Outcome::NotListed(op_type),
                None => failed("its opset is older than porter reads".into()),
            };
        }
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
        // A float8e5m2 has several codes that are no number.
        let plain = |byte: u8| if wanted.dtype() == DType::Float8E5M2 && byte & 0x7f > 0x7c { 0x7f } else { byte };
        let codes =
            |tensor: &Tensor| tensor.to_bytes().map(|bytes| bytes.iter().map(|&byte| plain(byte)).collect::<Vec<_>>());
        let (wanted, got) = (codes(wanted), codes(got));
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
        "\nnot counted, for an operator or a type that is not lowered: {}\n",
        foreign.values().sum::<usize>()
    ));
    foreign.iter().for_each(|(op_type, count)| text.push_str(&format!("  {op_type}: {count}\n")));
    println!("{text}");
    if std::env::var_os("CASES").is_none() {
        assert!(passed * 10 >= listed * 9, "{text}");
        snapshots().bind(|| insta::assert_snapshot!("lowered-cases", text));
    }
}

/// The model with another batch: a file that was exported for one says it in its inputs, and in the sizes of its Reshapes.
fn with_batch(mut model: Model, batch: i64) -> Model {
    let graph = &mut model.graph;
    for id in graph.inputs.clone().into_iter().chain(graph.outputs.clone()) {
        if let Some(first) = graph.value_mut(id).shape.as_mut().and_then(|shape| shape.first_mut()) {
            *first = Dim::Fixed(batch);
        }
    }
    for id in graph.node_ids() {
        let Some(sizes) = graph.node(id).is("Reshape").then(|| graph.node(id).input(1)).flatten() else { continue };
        let Some(mut list) = graph.constant(sizes).and_then(|tensor| tensor.to_i64s().ok()) else { continue };
        if list.first() == Some(&1) {
            list[0] = batch;
            let name = format!("{}_batch", graph.value(sizes).name);
            let fresh = graph.add_initializer(Tensor::from_i64(&name, &[list.len() as i64], &list));
            graph.set_input(id, 1, Some(fresh));
        }
    }
    model
}

#[test]
fn a_larger_detector_runs_on_xla_as_on_onnx_runtime() {
    agrees("yolo26s.onnx");
}

/// `cargo test --test lowering -- --ignored every_size`: ten minutes on two cores.
#[test]
#[ignore = "takes ten minutes; docs/neuron.md has what it gave"]
fn every_size_and_task_agrees_at_batch_1_and_4() {
    for name in
        ["yolo26s", "yolo26m", "yolo26l", "yolo26x", "yolo26n-pose", "yolo26n-obb", "yolo26n-cls", "yolov8n-raw"]
    {
        for batch in [1, 4] {
            agrees_as(&format!("{name} at batch {batch}"), &with_batch(model(&format!("{name}.onnx")), batch));
        }
    }
}

#[test]
fn a_detector_at_batch_4_runs_on_xla_as_on_onnx_runtime() {
    agrees_as("yolo26n-pose at batch 4", &with_batch(model("yolo26n-pose.onnx"), 4));
}

#[test]
fn real_models_run_on_xla_as_on_onnx_runtime() {
    ort_library();
    for name in [
        "nudenet/3.4.2/320n.onnx",
        "magika/1.0.3/model.onnx",
        "rapidocr-onnxruntime/1.4.4/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "rapidocr-onnxruntime/1.4.4/ch_PP-OCRv4_rec_infer.onnx",
        "rapidocr-onnxruntime/1.4.4/ch_PP-OCRv4_det_infer.onnx",
        "silero-vad/6.2.3/silero_vad_16k_op15.onnx",
        "silero-vad/6.2.3/silero_vad_half.onnx",
    ] {
        let mut command = common::porter();
        command
            .env("PORTER_XLA_PYTHON", common::python("").get_program())
            .arg("verify")
            .arg(common::fetched_model(name));
        let said = common::run_fine(command.args([
            "--target",
            "xla",
            "--reference",
            "ort:off",
            "--samples",
            "1",
            "--batch",
            "1",
        ]));
        assert!(said.contains("same"), "{said}");
    }
}

/// The policy's bfloat16: the bundle's part on XLA, its host part behind it, held against the model in float32.
#[test]
fn a_large_detector_in_bfloat16_finds_what_the_model_finds() {
    let folder = tempfile::tempdir().unwrap();
    let (file, bundle) = (common::model_path("yolo26l.onnx"), folder.path().join("l.neuron"));
    let mut prepare = common::porter();
    prepare.arg("prepare").arg(&file).args(["--target", "neuron", "--no-check", "-o"]).arg(&bundle);
    common::run_fine(&mut prepare);
    let mut verify = common::porter();
    verify
        .env("PORTER_XLA_PYTHON", common::python("").get_program())
        .arg("verify")
        .arg(&bundle)
        .arg("--model")
        .arg(&file);
    let said = common::run_fine(verify.args(["--target", "xla", "--reference", "ort:off", "--samples", "1"]));
    assert!(said.contains("rounding   bfloat16: the bundle's") && said.contains("detections agree"), "{said}");
}

/// A picture in, boxes out, without the device: the bundle's boxes are those of the model on ONNX Runtime.
#[test]
fn a_bundle_draws_boxes_with_xla_in_place_of_the_device() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let file = common::model_path("yolo26n.onnx");
    let picture =
        image::RgbImage::from_fn(320, 240, |x, y| image::Rgb([(x * y) as u8, (x * 3 + y) as u8, (y * 5) as u8]));
    picture.save(at("street.png")).unwrap();
    let porter = || {
        let mut command = common::porter();
        command.env("PORTER_XLA_PYTHON", common::python("").get_program());
        command
    };
    common::run_fine(
        porter().arg("prepare").arg(&file).args(["--target", "neuron", "--no-check", "-o"]).arg(at("n.neuron")),
    );
    let mut run = porter();
    run.arg("run").arg(at("n.neuron")).args(["--stand-in", "xla", "--conf", "0.05", "--input"]).arg(at("street.png"));
    common::run_fine(run.arg("--draw").arg(at("out.png")).arg("-o").arg(at("xla.json")));
    let mut run = porter();
    run.arg("run").arg(&file).args(["--target", "ort", "--conf", "0.05", "--input"]).arg(at("street.png"));
    common::run_fine(run.arg("-o").arg(at("ort.json")));
    let found = |name: &str| -> Vec<(i64, f64, Vec<f64>)> {
        let answer: serde_json::Value = serde_json::from_slice(&std::fs::read(at(name)).unwrap()).unwrap();
        let list = answer["images"][0]["detections"].as_array().unwrap();
        let numbers =
            |value: &serde_json::Value| value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        list.iter().map(|d| (d["class"].as_i64().unwrap(), d["score"].as_f64().unwrap(), numbers(&d["box"]))).collect()
    };
    let (ours, theirs) = (found("xla.json"), found("ort.json"));
    assert!(ours.len() > 20, "{} found", ours.len());
    // As sets: the order of near ties is rounding's, and what stands at the threshold comes and goes.
    let mut left = theirs.clone();
    for one in &ours {
        let near = |other: &(i64, f64, Vec<f64>)| {
            other.0 == one.0
                && (other.1 - one.1).abs() < 2e-3
                && other.2.iter().zip(&one.2).all(|(x, y)| (x - y).abs() < 1.0)
        };
        if let Some(place) = left.iter().position(near) {
            left.remove(place);
        }
    }
    assert!(left.len() * 20 <= theirs.len(), "{} of {} have no partner: {left:?}", left.len(), theirs.len());
    assert!(ours.len().abs_diff(theirs.len()) * 20 <= theirs.len(), "{} and {}", ours.len(), theirs.len());
    let drawn = image::open(at("out.png")).unwrap().to_rgb8();
    assert_eq!(drawn.dimensions(), (320, 240));
    assert!(drawn != picture, "nothing was drawn");
}

/// The faults that this road does not have, planted into it: XLA runs what a compiler with them would have made.
#[test]
fn planted_stride_drops_are_caught_and_slices_have_nothing_to_drop() {
    use porter::reach::simulate;
    use porter::target::TargetSet;
    ort_library();
    let ort = Ort::reference().unwrap();
    let model = model("yolo26n-raw-b4.onnx");
    let inputs = samples::for_model(&model, 1);
    let expectation = noise::measure(&ort, &model, &inputs, &Noise::float32()).unwrap();
    let planted = |name: &str| {
        simulate::faulty(&[name.to_string()], std::sync::Arc::new(xla(false)), &TargetSet::shipped()).unwrap()
    };
    for name in ["N1", "N2"] {
        let faulty = planted(name);
        assert!(!faulty.strikes(&model).concat().is_empty(), "{name} strikes no split");
        let report = expectation.judge(&faulty.run_once(&model, &inputs).unwrap());
        assert!(report.verdict >= Verdict::Differs, "{name} was not caught: {:?}", report.verdict);
    }
    let small = "g (float[4,256,16,16] x) => (float[4,128,16,16] a, float[4,128,16,16] b) { a, b = Split <axis = 1, num_outputs = 2> (x) }";
    let small = porter::text::parse_model(&format!("<ir_version: 8, opset_import: [\"\" : 18]> {small}")).unwrap();
    let crash = planted("N3").compile(&small).err().expect("N3 ends the compiler");
    assert_eq!(crash.code(), Some("exit:70"));
    // With the target's rule there is no split left, so none of the three has a place to strike.
    let rules = porter::rewrite::RuleSet::shipped();
    let mut rewritten = model.clone();
    lower::prepare(&mut rewritten).unwrap();
    let rule = rules.get("split-to-slices").unwrap();
    porter::rewrite::apply(&mut rewritten, &[rule], &Default::default()).unwrap();
    for name in ["N1", "N2", "N3"] {
        assert_eq!(planted(name).strikes(&rewritten).concat(), [""; 0], "{name}");
    }
    let report = expectation.judge(&planted("N1").run_once(&rewritten, &inputs).unwrap());
    assert!(report.verdict < Verdict::Differs, "{:?}", report.verdict);
}

/// Weights beside the module: parameters behind the inputs, in the file's order, and the same answer bit for bit.
#[test]
fn separate_weights_are_parameters_that_a_file_holds() {
    let model = model("yolo26n-cls.onnx");
    let constants = lower::lower(&model, Weights::Constants).unwrap();
    let separate = lower::lower(&model, Weights::Separate).unwrap();
    assert_eq!(constants.weights.len(), 0);
    assert!(separate.weights.len() > 50, "{} weights", separate.weights.len());
    let parameters: Vec<String> = separate
        .module
        .entry
        .parameters()
        .map(|parameter| match &parameter.kind {
            lower::hlo::Kind::Parameter { name, .. } => name.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    let names: Vec<&String> =
        separate.inputs.iter().map(|(name, _)| name).chain(separate.weights.iter().map(|(name, _)| name)).collect();
    assert_eq!(parameters.iter().collect::<Vec<_>>(), names);
    let (whole, apart) = (lower::hlo::encoded_len(&constants.module), lower::hlo::encoded_len(&separate.module));
    assert!(apart * 5 < whole, "{apart} of {whole} bytes are left");

    let mut worker = common::xla_worker::XlaWorker::start();
    for (name, lowered) in [("constants.pb", &constants), ("separate.pb", &separate)] {
        std::fs::write(worker.at(name), lower::hlo::to_bytes(&lowered.module)).unwrap();
    }
    lower::write_weights(&worker.at("weights.safetensors"), &separate.weights).unwrap();
    let inputs = samples::for_model(&model, 1);
    let outputs =
        [worker.run("hlo", "constants.pb", &constants, &inputs), worker.run("hlo", "separate.pb", &separate, &inputs)];
    for (name, wanted) in &outputs[0] {
        let (wanted, got) = (wanted.to_f64s().unwrap(), outputs[1][name].to_f64s().unwrap());
        let worst = wanted.iter().zip(got).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-5, "{name}: {worst:e}");
    }
}

/// Both forms of a module are the same program: what XLA makes of the text and of the message, bit for bit.
#[test]
fn text_and_message_are_the_same_program() {
    let mut worker = common::xla_worker::XlaWorker::start();
    for name in ["yolo26n-cls.onnx", "yolo26n.onnx"] {
        let model = model(name);
        let lowered = lower::lower(&model, Weights::Constants).unwrap();
        std::fs::write(worker.at("m.pb"), lower::hlo::to_bytes(&lowered.module)).unwrap();
        let text = lower::hlo::text::to_string(&lowered.module, lower::hlo::text::Constants::Written);
        std::fs::write(worker.at("m.mlir"), text).unwrap();
        let inputs = samples::for_model(&model, 1);
        let message = worker.run("hlo", "m.pb", &lowered, &inputs);
        let text = worker.run("stablehlo", "m.mlir", &lowered, &inputs);
        for (name, wanted) in &message {
            assert!(wanted.to_bytes().unwrap() == text[name].to_bytes().unwrap(), "{name} differs");
        }
    }
}
