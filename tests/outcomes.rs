//! What commands that run models leave behind and say: no file that was read is written over, sizes are what they are, and
//! numbers are told as what they are.

mod common;

use std::path::{Path, PathBuf};

use common::{porter, run, run_fine};
use serde_json::Value;

/// Writes a model of ONNX's textual syntax.
fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    let model = porter::text::parse_model(text).unwrap();
    porter::onnx::write(&path, &model.to_proto()).unwrap();
    path
}

const RELU: &str = "<ir_version: 10, opset_import: [\"\" : 21]> g (float[n,4] x) => (float[n,4] y) { y = Relu (x) }";

#[test]
fn what_is_read_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let model = written(folder.path(), "m.onnx", RELU);
    let input = folder.path().join("x.json.npz");
    let x = porter::onnx::Tensor::from_f32("x", &[1, 4], &[1.0, -2.0, 3.0, 0.5]);
    porter::inputs::write(&input, &[("x".to_string(), x)].into_iter().collect()).unwrap();
    let bundle = folder.path().join("m.cpu");
    run_fine(porter().args(["prepare", "--target", "cpu", "-o"]).arg(&bundle).arg(&model));
    let manifest = bundle.join("manifest.json");
    let part = bundle.join("model.onnx");
    assert!(part.is_file());

    let given = |path: &Path| path.display().to_string();
    let (m, i, b) = (given(&model), given(&input), given(&bundle));
    let cases: Vec<(Vec<&str>, &Path)> = vec![
        (vec!["verify", &m, "--target", "tract", "--reference", "tract", "-o"], &model),
        (vec!["verify", &m, "--target", "tract", "--reference", "tract", "--html"], &model),
        (vec!["verify", &m, "--target", "tract", "--reference", "tract", "--input", &i, "-o"], &input),
        (vec!["verify", &b, "--target", "tract", "--reference", "tract", "--model", &m, "--html"], &model),
        (vec!["verify", &b, "--target", "tract", "--reference", "tract", "--model", &m, "-o"], &manifest),
        (vec!["run", &m, "--target", "tract", "--input", &i, "-o"], &input),
        (vec!["run", &b, "--input", &i, "-o"], &manifest),
        (vec!["bench", &m, "--target", "tract", "--csv"], &model),
        (vec!["bench", &b, "--plot"], &part),
        (vec!["lower", &m, "--batch", "1", "-o"], &model),
        (vec!["lower", &m, "--batch", "1", "--text"], &model),
    ];
    for (words, output) in cases {
        let before = std::fs::read(output).unwrap();
        let (code, _, said) = run(porter().args(&words).arg(output));
        assert!(code == 2 && said.contains("which would be overwritten"), "{words:?}: {code} {said}");
        assert!(std::fs::read(output).unwrap() == before, "{words:?}");
    }
    // What an earlier run wrote is no input.
    let report = folder.path().join("report.json");
    for _ in 0..2 {
        run_fine(porter().args(["verify", &m, "--target", "tract", "--reference", "tract", "-o"]).arg(&report));
    }
}

#[test]
fn a_bundle_takes_sizes_where_they_are_free() {
    let folder = tempfile::tempdir().unwrap();
    let model = written(folder.path(), "m.onnx", RELU);
    let bundle = folder.path().join("m.cpu");
    run_fine(porter().args(["prepare", "--target", "cpu", "-o"]).arg(&bundle).arg(&model));
    let told = |shape: &str| run(porter().args(["run", "--json", "--shape", shape]).arg(&bundle));
    let (code, told_of, said) = told("x=3,4");
    assert_eq!(code, 0, "{said}");
    let document: Value = serde_json::from_str(&told_of).unwrap();
    assert_eq!(document["outputs"][0]["shape"], serde_json::json!([3, 4]));
    for (shape, why) in [
        ("x=3,5", "--shape x=3,5: it was prepared for x [n,4]"),
        ("x=3", "--shape x=3: it was prepared for x [n,4]"),
        ("z=3,4", "--shape z is no input; the inputs are x [n,4]"),
    ] {
        let (code, _, said) = told(shape);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(code == 2 && said.contains(why), "{shape}: {code} {said}");
    }
}

#[test]
fn a_declaration_that_lies_is_named_and_the_model_runs() {
    common::ort_library();
    let folder = tempfile::tempdir().unwrap();
    // A shape that depends on values, so that only the engine knows it.
    let text = "<ir_version: 10, opset_import: [\"\" : 21]> g (float[5] x) => (int64[7,2] y) { y = NonZero (x) }";
    let model = written(folder.path(), "lie.onnx", text);
    for isolated in [false, true] {
        let mut command = porter();
        command.args(["run", "--json", "--target", "ort"]).arg(&model);
        let (code, told, said) = run(if isolated { command.arg("--isolate") } else { &mut command });
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("output y [7,2] by the model's declaration came out as [1,5]"), "{said}");
        let document: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(document["outputs"][0]["shape"], serde_json::json!([1, 5]));
        // Whole numbers are told as such.
        assert_eq!(document["outputs"][0]["range"].to_string(), "[0,4]");
    }
}

#[test]
fn a_fault_that_strikes_nowhere_is_no_proof() {
    let folder = tempfile::tempdir().unwrap();
    let model = written(folder.path(), "m.onnx", RELU);
    let (code, _, said) = run(porter().args(["run", "--target", "faulty:N1@tract"]).arg(&model));
    assert!(code == 0 && said.contains("no node of the model meets the simulated fault"), "{said}");
    let words = ["verify", "--target", "faulty:N1@tract", "--reference", "tract", "--json"];
    let told = run_fine(porter().args(words).arg(&model));
    assert!(told.contains("No node meets the simulated fault: nothing was planted."), "{told}");

    // N1 drops the stride of a Split on axis 1 with a batch.
    let split = "<ir_version: 10, opset_import: [\"\" : 21]> g (float[2,6,4] x) => (float[2,2,4] a, float[2,4,4] b) \
                 <int64[2] sizes = {2, 4}> { a, b = Split <axis = 1> (x, sizes) }";
    let model = written(folder.path(), "split.onnx", split);
    let (code, _, said) = run(porter().args(["run", "--target", "faulty:N1@tract"]).arg(&model));
    assert!(code == 0 && !said.contains("simulated fault"), "{said}");
}
