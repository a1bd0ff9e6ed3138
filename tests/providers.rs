//! Models on every engine that a machine without an accelerator has: tract, ONNX Runtime, OpenVINO in float32 and as it
//! chooses by itself, and the emulator of Qualcomm's HTP. Each in a process of its own, as `--target` runs it.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::path::PathBuf;

use common::{fetched_model, model, ort_library};
use porter::engine::{EngineError, Tensors, samples};
use porter::graph::Model;
use porter::graph::freeze::{Freeze, freeze};
use porter::reach::{self, Options, Reached};
use porter::target::TargetSet;
use porter::verify::{self, Others, Outcome, Subject};

/// What every engine runs: the file, and the shape that is given to its input where it is free.
const MODELS: &[(&str, &[i64])] = &[
    ("yolo26n-raw.onnx", &[]),
    ("yolo26n.onnx", &[]),
    ("yolov8n-raw.onnx", &[]),
    ("nudenet/3.4.2/320n.onnx", &[1, 3, 320, 320]),
    ("rapidocr-onnxruntime/1.4.4/ch_PP-OCRv4_det_infer.onnx", &[1, 3, 160, 160]),
    ("rapidocr-onnxruntime/1.4.4/ch_PP-OCRv4_rec_infer.onnx", &[1, 3, 48, 160]),
    ("rapidocr-onnxruntime/1.4.4/ch_ppocr_mobile_v2.0_cls_infer.onnx", &[1, 3, 48, 192]),
];

/// What is known to be said of a model on an engine instead of `same`, and why.
const KNOWN: &[(&str, &str, &[Outcome], &str)] = &[
    (
        "cpu",
        "det",
        &[Outcome::Unclear],
        "a picture without text: all there is is a millionth, as much as tract's sigmoid is off",
    ),
    (
        "openvino:bf16",
        "det",
        &[Outcome::Unclear],
        "a picture without text: what is found is smaller than bfloat16's steps",
    ),
    ("qnn", "det", &[Outcome::Unclear], "a picture without text: what is found is smaller than float16's steps"),
    (
        "qnn",
        "yolo26n-raw",
        &[Outcome::Differs],
        "made-up weights: an attention's products pass float16's largest number",
    ),
    (
        "qnn",
        "yolo26n.onnx",
        &[Outcome::Differs, Outcome::Unclear],
        "as without the head; and made-up scores tie at the cut-off",
    ),
    (
        "qnn",
        "320n",
        &[Outcome::Unclear],
        "a picture with nobody on it: scores are smaller than what the emulator's sigmoid is off",
    ),
];

fn open(target: &str) -> Reached {
    ort_library();
    let options = Options { program: Some(PathBuf::from(env!("CARGO_BIN_EXE_porter"))), ..Options::default() };
    reach::open(target, &TargetSet::shipped(), &options).unwrap_or_else(|error| panic!("{target}: {error}"))
}

fn load(file: &str, shape: &[i64]) -> Model {
    if shape.is_empty() {
        return model(file);
    }
    let mut model = porter::load(&fetched_model(file)).unwrap();
    let name = model.graph.value(model.graph.inputs[0]).name.clone();
    freeze(&mut model, &Freeze { shapes: vec![(name, shape.to_vec())], batch: None }).unwrap();
    model
}

/// Verifies every model on the target, none of whose nodes runs elsewhere: what it gives is as near to ONNX Runtime without
/// optimisation as the rounding of what it computes in explains, output by output and slice by slice, or what is [`KNOWN`].
fn agrees(target: &str) {
    let (here, reference) = (open(target), open("ort:off"));
    assert!(!here.engine.version().is_empty() || target == "cpu", "{target}");
    let others = Others {
        reference: &*reference.engine,
        label: reference.label.clone(),
        simulated: false,
        host: &*reference.engine,
        decider: None,
    };
    let mut wrong = Vec::new();
    for (file, shape) in MODELS {
        let model = load(file, shape);
        let session = here.engine.compile(&model).unwrap_or_else(|error| panic!("{target} {file}: {error}"));
        if let Some(placement) = session.placement() {
            assert!(!placement.contains_key("CPUExecutionProvider"), "{target} {file}: {placement:?}");
        }
        drop(session);
        let subject = Subject { name: file.to_string(), model, bundle: None };
        let options = verify::Options { samples: 1, ..Default::default() };
        let found = verify::verify(&subject, &here, &others, &options, &|_| {}).unwrap();
        println!("{target} {file}: {} in {}: {}", found.verdict.name(), found.dtype, found.story.join(" "));
        let known = KNOWN.iter().find(|(engine, part, ..)| *engine == target && file.contains(part));
        if found.verdict != Outcome::Same && !known.is_some_and(|(_, _, said, _)| said.contains(&found.verdict)) {
            wrong.push(format!("{file}: {}", found.story.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "{target}:\n{}", wrong.join("\n"));
}

#[test]
fn tract_runs_every_model() {
    agrees("cpu");
}

#[test]
fn onnx_runtime_runs_every_model() {
    agrees("ort");
}

#[test]
fn openvino_runs_every_model_in_float32() {
    agrees("openvino");
}

#[test]
fn openvino_runs_every_model_in_what_it_chooses() {
    agrees("openvino:bf16");
}

#[test]
fn the_emulator_of_qnn_runs_every_model() {
    agrees("qnn");
}

#[test]
fn what_a_provider_does_not_take_is_an_error_that_names_it() {
    let text = r#"<ir_version: 10, opset_import: ["" : 18]>
        g (float[4] x, int64 axis) => (float[4] y) { a = Relu(x)  b = CumSum(a, axis)  y = Relu(b) }"#;
    let model = porter::text::parse_model(text).unwrap();
    let strict = open("qnn");
    let error = strict.engine.compile(&model).err().unwrap();
    let told = error.to_string();
    assert!(matches!(&error, EngineError::Unsupported { op_type, .. } if op_type == "CumSum"), "{told}");
    assert!(told.contains("on the CPU") && told.contains("qnn:partial"), "{told}");
    let session = open("qnn:partial").engine.compile(&model).unwrap();
    let placement = session.placement().unwrap().clone();
    assert!(placement["CPUExecutionProvider"] >= 1, "{placement:?}");
}

#[test]
fn a_provider_that_is_not_there_says_so() {
    let options = Options { program: Some(PathBuf::from(env!("CARGO_BIN_EXE_porter"))), ..Options::default() };
    ort_library();
    let open = |target: &str| reach::open(target, &TargetSet::shipped(), &options).err().unwrap().to_string();
    let cuda = open("cuda");
    assert!(cuda.starts_with("cuda is not ready: this build of ONNX Runtime does not have the CUDA"), "{cuda}");
    assert!(open("openvino:fp8").contains("'fp8' means nothing; expected bf16, off"), "{}", open("openvino:fp8"));
    let npu = Options { device: Some("npu".into()), ..options.clone() };
    let told = reach::open("openvino", &TargetSet::shipped(), &npu).err().unwrap().to_string();
    assert!(told.contains("npu") || told.contains("NPU"), "{told}");
}

#[test]
fn an_output_that_is_an_input_is_the_tensors_own() {
    let text = r#"<ir_version: 10, opset_import: ["" : 18]>
        g (float[64] x) => (float[64] y, float[8, 8] z) { y = Identity(x)  s = Constant <value_ints = [8, 8]> ()  z = Reshape(x, s) }"#;
    let model = porter::text::parse_model(text).unwrap();
    let options = Options { isolate: false, ..Options::default() };
    ort_library();
    let here = reach::open("ort", &TargetSet::shipped(), &options).unwrap();
    let mut session = here.engine.compile(&model).unwrap();
    let results: Vec<Tensors> = (0..50).map(|seed| session.run(&samples::for_model(&model, seed)).unwrap()).collect();
    drop(session);
    for (seed, result) in results.iter().enumerate() {
        let x = samples::for_model(&model, seed as u64)["x"].to_f32s().unwrap();
        assert_eq!((result["y"].to_f32s().unwrap(), result["z"].to_f32s().unwrap()), (x.clone(), x));
    }
}
