//! `porter prepare` as a user runs it: the built command, on real models, for every target.

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

const TARGETS: [&str; 8] = ["cpu", "ort", "cuda", "tensorrt", "coreml", "openvino", "qnn", "neuron"];

fn model(name: &str) -> PathBuf {
    common::model_path(name)
}

fn prepare(model: &Path, target: &str, output: &Path, more: &[&str]) -> Output {
    let mut command = common::porter();
    command.arg("prepare").arg(model).args(["--target", target, "-o"]).arg(output).args(more);
    command.output().unwrap()
}

/// Runs it with `--json` and gives the manifest; standard output must hold nothing else.
fn manifest(model: &Path, target: &str, output: &Path, more: &[&str]) -> Value {
    let done = prepare(model, target, output, &[&["--json"], more].concat());
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{} for {target}: {errors}", model.display());
    let printed: Value = serde_json::from_slice(&done.stdout).expect("standard output holds one JSON document");
    let written: Value = serde_json::from_slice(&std::fs::read(output.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(printed, written);
    printed
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect()
}

/// The operators in a part's file.
fn operators(bundle: &Path, part: &Value) -> Vec<String> {
    let model = porter::load(&bundle.join(part["file"].as_str().unwrap())).unwrap();
    model.graph.nodes().map(|(_, node)| node.op_type.clone()).collect()
}

#[test]
fn every_test_model_is_prepared_for_every_target() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = String::new();
    for path in &common::model_paths() {
        let stem = path.file_stem().unwrap().to_string_lossy();
        for target in TARGETS {
            let output = folder.path().join("bundle");
            let m = manifest(path, target, &output, &["--no-check"]);
            let parts: Vec<String> = m["parts"]
                .as_array()
                .unwrap()
                .iter()
                .map(|part| format!("{} {}", part["device"].as_str().unwrap(), part["nodes"].as_array().unwrap().len()))
                .collect();
            let line = format!("{stem:<18} {target:<9} {:<9} {}", m["dtype"].as_str().unwrap(), parts.join(", "));
            table.push_str(line.trim_end());
            table.push('\n');
        }
    }
    common::snapshots().bind(|| insta::assert_snapshot!("prepare-every-model-and-target", table));
}

/// Every model with the check, each on another target: the table above is made without, for its time.
#[test]
fn every_test_model_agrees_with_its_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("bundle");
    for (number, path) in common::model_paths().iter().enumerate() {
        let target = TARGETS[number % TARGETS.len()];
        let m = manifest(path, target, &output, &[]);
        let stem = path.file_stem().unwrap().to_string_lossy();
        assert_eq!(m["check"]["status"], "same", "{stem} on {target}: {}", m["check"]["story"]);
        assert_ne!(m["check"]["engine"], "none", "{stem} on {target}");
    }
}

#[test]
fn yolo26l_for_neuron_is_one_accelerator_part_in_bfloat16_and_one_host_part() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("l");
    let m = manifest(&model("yolo26l.onnx"), "neuron", &output, &[]);
    assert_eq!((m["dtype"].as_str(), m["variant"].as_str()), (Some("bfloat16"), Some("l")));
    let parts = m["parts"].as_array().unwrap();
    let devices: Vec<&str> = parts.iter().map(|part| part["device"].as_str().unwrap()).collect();
    assert_eq!(devices, ["neuron", "cpu"]);
    assert_eq!(names(&parts[0]["outputs"]), ["/model.23/Concat_3_output_0"]);
    let used = operators(&output, &parts[0]);
    for refused in ["TopK", "Sort", "GatherElements", "Mod", "NonMaxSuppression", "Split"] {
        assert!(!used.iter().any(|op| op == refused), "{refused} is in the accelerator part");
    }
    let accelerator = porter::load(&output.join(parts[0]["file"].as_str().unwrap())).unwrap();
    let heavy = accelerator.graph.initializers().filter(|(_, tensor)| tensor.len() > 4096);
    let wide: Vec<String> = heavy
        .filter(|(_, tensor)| tensor.dtype() != porter::onnx::DType::Bfloat16 && tensor.dims().len() == 4)
        .map(|(_, tensor)| tensor.name().to_string())
        .collect();
    assert!(wide.is_empty(), "weights that are not bfloat16: {wide:?}");
    // Inputs and outputs of the bundle stay float32.
    assert_eq!(m["inputs"][0]["dtype"], "float32");
    assert_eq!(m["outputs"][0]["dtype"], "float32");
    assert_eq!(m["check"]["passed"], true);
    assert_ne!(m["check"]["status"], "not-run");
    let splits: Vec<&Value> = m["quirks"].as_array().unwrap().iter().filter(|quirk| quirk["id"] == "N1").collect();
    assert_eq!(splits.len(), 1);
    assert_eq!((splits[0]["nodes"].as_array().unwrap().len(), &splits[0]["answered"]), (4, &Value::Bool(true)));
}

#[test]
fn yolo26n_for_neuron_answers_what_the_model_answers() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("n");
    let m = manifest(&model("yolo26n.onnx"), "neuron", &output, &[]);
    assert_eq!(m["dtype"], "float32");
    assert_eq!(m["outputs"][0]["shape"], serde_json::json!([1, 300, 6]));
    assert_eq!(m["check"]["outputs"][0]["metrics"]["equal"], true, "{}", m["check"]);
}

#[test]
fn the_raw_head_says_what_it_means() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = String::new();
    for (name, target) in [
        ("yolo26n.onnx", "neuron"),
        ("yolo26n.onnx", "cpu"),
        ("yolo26n-seg.onnx", "neuron"),
        ("yolo26n-pose.onnx", "neuron"),
        ("yolo26n-obb.onnx", "neuron"),
        ("yolo26n-raw.onnx", "neuron"),
        ("yolov8n-raw.onnx", "neuron"),
        ("yolo26n-simplified.onnx", "coreml"),
    ] {
        let m = manifest(&model(name), target, &folder.path().join("raw"), &["--head", "raw", "--no-check"]);
        let post = &m["postprocess"];
        said.push_str(&format!(
            "{name} {target}: {:?} {} step={} boxes={} assignment={} classes={} extra={} strides={}\n",
            names(&m["outputs"]),
            m["outputs"][0]["shape"],
            post["step"],
            post["boxes"],
            post["assignment"],
            post["classes"],
            post["extra"],
            post["strides"]
        ));
    }
    common::snapshots().bind(|| insta::assert_snapshot!("prepare-raw-heads", said));
}

#[test]
fn real_models_are_prepared_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    for name in
        ["nudenet/3.4.2/320n.onnx", "magika/1.0.3/model.onnx", "rapidocr-onnxruntime/1.4.4/ch_PP-OCRv4_rec_infer.onnx"]
    {
        let path = common::fetched_model(name);
        let m = manifest(&path, "neuron", &folder.path().join("real"), &[]);
        assert_eq!(m["check"]["passed"], true, "{name}: {}", m["check"]);
        assert_eq!(m["check"]["status"], "same", "{name}: {}", m["check"]);
    }
}

/// Its sample rate chooses one of two networks, and no one size of input fits both: an `If` that no static target takes.
#[test]
fn sizes_are_not_assumed_where_the_network_stays_on_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let path = common::fetched_model("silero-vad/6.2.3/silero_vad.onnx");
    for target in ["neuron", "coreml", "qnn", "cuda"] {
        let m = manifest(&path, target, &folder.path().join("silero"), &[]);
        assert_eq!(m["check"]["status"], "same", "{target}: {}", m["check"]);
        assert_eq!(m["assumed"], serde_json::json!([]), "{target}");
    }
}

/// tract compiles a square of whole numbers and refuses it when it runs.
#[test]
fn what_the_engine_of_the_target_refuses_to_run_goes_to_the_host() {
    common::ort_library();
    let folder = tempfile::tempdir().unwrap();
    let (path, output) = (folder.path().join("square.onnx"), folder.path().join("bundle"));
    let text = r#"<ir_version: 10, opset_import: ["" : 18]>
        g (float[4] x, int64[4] n) => (float[4] y, int64[4] m) { y = Exp(x)  two = Add(n, n)  m = Mul(two, two) }"#;
    porter::onnx::write(&path, &porter::text::parse_model(text).unwrap().to_proto()).unwrap();
    let m = manifest(&path, "cpu", &output, &[]);
    let reasons = m["cpu_reasons"].as_array().unwrap();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(reasons[0]["reason"].as_str().unwrap().contains("does not support I64"), "{reasons:?}");
    let mut run = common::porter();
    let done = run.arg("run").arg(&output).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    // Both kinds of parts run on the CPU; the screen tells them apart.
    let told = prepare(&path, "cpu", &output, &[]).stdout;
    let told = String::from_utf8_lossy(&told);
    let runs_on = |device: &str| told.lines().filter(|line| line.contains(&format!(" {device}   "))).count();
    assert_eq!((runs_on("tract"), runs_on("host")), (1, 1), "{told}");
}

#[test]
fn little_work_on_the_target_is_told_with_what_is_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let (path, output) = (folder.path().join("double.onnx"), folder.path().join("bundle"));
    let text = r#"<ir_version: 10, opset_import: ["" : 18]>
        g (double[2048,2048] x, float[768,768] z) => (double[2048,2048] y, float[768,768] m)
        { y = MatMul(x, x)  m = MatMul(z, z) }"#;
    porter::onnx::write(&path, &porter::text::parse_model(text).unwrap().to_proto()).unwrap();
    let told = |target: &str| {
        let done = prepare(&path, target, &output, &["--no-check"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let warning = "neuron gets 5.0 % of the model's operations, 1 of 2 nodes. In the way, first: MatMul (";
    assert!(told("neuron").contains(warning), "{}", told("neuron"));
    assert!(!told("ort").contains("operations"), "{}", told("ort"));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| {
        let output = folder.path().join(name);
        manifest(&model("yolo26n-seg.onnx"), "coreml", &output, &["--no-check"]);
        let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(&output)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    };
    assert!(read("one") == read("two"), "two runs differ");
}

#[test]
fn a_folder_that_is_no_bundle_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("mine");
    std::fs::create_dir(&output).unwrap();
    std::fs::write(output.join("notes.txt"), "mine").unwrap();
    let done = prepare(&model("yolo26n-cls.onnx"), "cpu", &output, &["--no-check"]);
    assert_eq!(done.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(output.join("notes.txt")).unwrap(), "mine");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mine"]);
}

#[test]
fn a_bad_wish_is_told_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = String::new();
    for (target, more) in [
        ("neuro", vec![]),
        ("neuron", vec!["--device", "trn9"]),
        ("neuron", vec!["--toolchain", "new"]),
        ("neuron", vec!["--toolchain", "99"]),
        ("neuron", vec!["--variant", "zz"]),
        ("neuron", vec!["--shape", "image=1,3,64,64"]),
        ("neuron", vec!["--shape", "images=1,3,64,64"]),
        ("neuron", vec!["--batch", "4"]),
        ("neuron", vec!["--dtype", "int8"]),
    ] {
        let output = folder.path().join("bundle");
        let done = prepare(&model("yolo26n-cls.onnx"), target, &output, &more);
        assert_eq!(done.status.code(), Some(2), "{target} {more:?}");
        assert!(!output.exists());
        let text = String::from_utf8_lossy(&done.stderr)
            .replace(&*common::repository().join("tests/models/").to_string_lossy(), "");
        said.push_str(&format!("$ porter prepare yolo26n-cls.onnx --target {target} {}\n{text}\n", more.join(" ")));
    }
    common::snapshots().bind(|| insta::assert_snapshot!("prepare-bad-wishes", said));
}

#[test]
fn the_screen_tells_the_story() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = String::new();
    for (name, target) in [("yolo26n.onnx", "neuron"), ("yolo26n-cls.onnx", "coreml"), ("yolo26x.onnx", "neuron")] {
        let output = folder.path().join("story");
        let done = prepare(&model(name), target, &output, &["--no-check"]);
        let text = String::from_utf8_lossy(&done.stdout)
            .replace(&*common::repository().join("tests/models/").to_string_lossy(), "");
        let text: Vec<&str> = text.lines().filter(|line| !line.contains("  wrote ")).collect();
        said.push_str(&format!("{}\n\n", text.join("\n")));
        said.push_str(&String::from_utf8_lossy(&done.stderr));
    }
    common::snapshots().bind(|| insta::assert_snapshot!("prepare-stories", said));
}
