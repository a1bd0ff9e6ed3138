//! `porter verify` and what it judges by: healthy pairs pass, faults are seen, and float64 decides.

mod common;

use common::{fetched_model, model, ort_library, porter, run};
use porter::compare::Verdict;
use porter::engine::double::Double;
use porter::engine::noise::Noise;
use porter::engine::ort::{Optimisation, Ort};
use porter::engine::tract::Tract;
use porter::engine::{Engine, Tensors};
use porter::graph::{Model, freeze};
use porter::onnx::Tensor;
use porter::verify::Judge;
use porter::verify::sample::{Kind, sample};

fn sized(name: &str, batch: Option<i64>) -> Model {
    let mut model = match name.contains('/') {
        true => porter::load(&fetched_model(name)).unwrap_or_else(|error| panic!("{error}")),
        false => model(name),
    };
    if batch.is_some() {
        freeze::freeze(&mut model, &freeze::Freeze { batch, ..Default::default() }).unwrap();
    }
    let (sizes, _) = freeze::assumed(&model);
    freeze::freeze(&mut model, &sizes).unwrap();
    model
}

/// Every tensor with one change.
fn changed(outputs: &Tensors, change: impl Fn(&mut [f32], &[i64])) -> Tensors {
    let change = |(name, tensor): (&String, &Tensor)| {
        let mut values = tensor.to_f32s().unwrap();
        change(&mut values, tensor.dims());
        (name.clone(), Tensor::from_f32(name, tensor.dims(), &values))
    };
    outputs.iter().map(change).collect()
}

#[test]
fn engines_that_agree_are_not_accused() {
    ort_library();
    let (off, all) = (Ort::reference().unwrap(), Ort::new(Optimisation::All).unwrap());
    for (name, batch, kind) in [
        ("yolo26n-raw.onnx", None, Kind::Structured),
        ("yolo26n-dynamic.onnx", Some(2), Kind::WhiteNoise),
        ("nudenet/3.4.2/320n.onnx", None, Kind::Structured),
        ("rapidocr-onnxruntime/1.4.4/ch_PP-OCRv4_rec_infer.onnx", Some(2), Kind::Structured),
        ("rapidocr-onnxruntime/1.4.4/ch_ppocr_mobile_v2.0_cls_infer.onnx", Some(4), Kind::Structured),
        ("magika/1.0.3/model.onnx", Some(4), Kind::Structured),
    ] {
        let model = sized(name, batch);
        let inputs = sample(&model, kind, 0, None).inputs;
        let judge =
            Judge::new(&off, &model, &inputs, &Noise::float32()).unwrap_or_else(|error| panic!("{name}: {error}"));
        for engine in [&Tract as &dyn Engine, &all] {
            let result = engine.run_once(&model, &inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
            for finding in judge.judge(&result).findings {
                println!("{name} {} {}: {:?} {}", engine.name(), finding.name, finding.verdict, finding.reason);
                assert_eq!(finding.verdict, Verdict::Same, "{name}, {}: {}", engine.name(), finding.reason);
            }
        }
    }
}

#[test]
fn a_channel_out_of_scale_is_seen_where_others_jump_further() {
    ort_library();
    let off = Ort::reference().unwrap();
    let model = sized("yolo26n-raw.onnx", None);
    let inputs = sample(&model, Kind::WhiteNoise, 0, None).inputs;
    let judge = Judge::new(&off, &model, &inputs, &Noise::float32()).unwrap();
    // In this sample an attention sits on a tie: some elements move by a pixel from rounding alone.
    let jump = judge.expectation().judge(judge.reference()).findings[0].expected;
    assert!(jump > 0.1, "{jump}");
    let channel = changed(judge.reference(), |values, dims| {
        let row = dims[2] as usize;
        values[50 * row..51 * row].iter_mut().for_each(|x| *x *= 1.01);
    });
    assert_eq!(judge.judge(&channel).verdict, Verdict::Differs);
}

/// A tensor with one number changed.
fn with_one(outputs: &Tensors, index: usize, change: impl Fn(f32) -> f32) -> Tensors {
    let mut outputs = outputs.clone();
    let (name, tensor) = outputs.iter().next().map(|(name, tensor)| (name.clone(), tensor.clone())).unwrap();
    let mut values = tensor.to_f32s().unwrap();
    values[index] = change(values[index]);
    outputs.insert(name.clone(), Tensor::from_f32(name, tensor.dims(), &values));
    outputs
}

#[test]
fn one_wrong_number_is_seen_on_any_kind_of_input() {
    ort_library();
    let (off, all) = (Ort::reference().unwrap(), Ort::new(Optimisation::All).unwrap());
    for (name, batch, kinds) in [
        ("yolo26n-raw.onnx", None, &[Kind::Structured, Kind::WhiteNoise, Kind::Constant][..]),
        ("magika/1.0.3/model.onnx", Some(4), &[Kind::Structured]),
        (
            "rapidocr-onnxruntime/1.4.4/ch_ppocr_mobile_v2.0_cls_infer.onnx",
            Some(2),
            &[Kind::Structured, Kind::WhiteNoise],
        ),
    ] {
        let model = sized(name, batch);
        for &kind in kinds {
            let inputs = sample(&model, kind, 0, None).inputs;
            let judge = Judge::new(&off, &model, &inputs, &Noise::float32()).unwrap();
            let healthy = all.run_once(&model, &inputs).unwrap();
            let report = judge.judge(&healthy);
            assert_eq!(report.verdict, Verdict::Same, "{name} {kind:?}: {:?}", report.findings[0].reason);
            let (reference, draws) = (judge.reference(), &judge.expectation().draws);
            let values = reference[0].to_f32s().unwrap();
            let drawn: Vec<Vec<f32>> = draws.iter().map(|draw| draw[0].to_f32s().unwrap()).collect();
            let boxes = if name.starts_with("yolo") { 4 * 8400 } else { 0 };
            let step = (values.len() / 7).max(1);
            for index in (0..values.len()).step_by(step).chain([values.len() - 1]) {
                // A box is in pixels.
                let (by, quiet) = if index < boxes { (1.0, 1e-3) } else { (0.1, 1e-5) };
                let moved = drawn.iter().map(|draw| (draw[index] - values[index]).abs()).fold(0.0, f32::max);
                if moved > quiet {
                    continue;
                }
                let found = judge.judge(&with_one(&healthy, index, |x| x + by));
                let strain = found.findings[0].strain;
                assert_eq!(found.verdict, Verdict::Differs, "{name} {kind:?} {index}: {strain}, noise {moved}");
            }
        }
    }
}

#[test]
fn one_detection_that_is_off_is_seen() {
    ort_library();
    let (off, all) = (Ort::reference().unwrap(), Ort::new(Optimisation::All).unwrap());
    // A place in a row, and what is wrong there: a box, a score, an angle, a mask's coefficient.
    for (name, wrong) in [
        ("yolo26n.onnx", &[(0, 4.0), (4, 0.1)][..]),
        ("yolo26n-obb.onnx", &[(6, 0.3)]),
        ("yolo26n-seg.onnx", &[(20, 1.0)]),
    ] {
        let model = sized(name, None);
        let inputs = sample(&model, Kind::Structured, 0, None).inputs;
        let judge = Judge::new(&off, &model, &inputs, &Noise::float32()).unwrap();
        let healthy = all.run_once(&model, &inputs).unwrap();
        let report = judge.judge(&healthy);
        assert_ne!(report.verdict, Verdict::Differs, "{name}: {:?}", report.findings[0].reason);
        let columns = judge.reference()[0].dims()[2] as usize;
        for &(column, by) in wrong {
            for row in [1, 40] {
                // The rows stay sorted by score, or they would be no detections.
                let change = |x: f32| if column == 4 { x - by } else { x + by };
                let mut result = with_one(&healthy, row * columns + column, change);
                if column == 4 {
                    result = resorted(&result, columns);
                }
                let found = &judge.judge(&result).findings[0];
                assert_eq!(found.verdict, Verdict::Differs, "{name}, column {column} of row {row}: {}", found.strain);
            }
        }
    }
}

/// The first output's rows, best score first.
fn resorted(outputs: &Tensors, columns: usize) -> Tensors {
    let mut outputs = outputs.clone();
    let (name, tensor) = outputs.iter().next().map(|(name, tensor)| (name.clone(), tensor.clone())).unwrap();
    let values = tensor.to_f32s().unwrap();
    let mut rows: Vec<&[f32]> = values.chunks(columns).collect();
    rows.sort_by(|a, b| b[4].total_cmp(&a[4]));
    outputs.insert(name.clone(), Tensor::from_f32(name, tensor.dims(), &rows.concat()));
    outputs
}

#[test]
fn in_sixteen_bits_a_gross_error_of_one_number_is_seen() {
    ort_library();
    let off = Ort::reference().unwrap();
    let model = sized("yolo26n-raw.onnx", None);
    let inputs = sample(&model, Kind::Structured, 0, None).inputs;
    let nothing_kept = |_: &porter::graph::Node| false;
    let noise = Noise { dtype: porter::onnx::DType::Bfloat16, keep: &nothing_kept, ..Noise::float32() };
    let judge = Judge::new(&off, &model, &inputs, &noise).unwrap();
    let draw = judge.expectation().draws[1].clone();
    assert_ne!(judge.judge(&draw).verdict, Verdict::Differs, "{}", judge.judge(&draw).findings[0].reason);
    let found = judge.judge(&with_one(&draw, 30 * 8400 + 77, |x| x + 0.9));
    assert_eq!(found.verdict, Verdict::Differs, "{}: {}", found.findings[0].strain, found.findings[0].reason);
}

#[test]
fn models_in_float16_are_judged_by_their_own_rounding() {
    ort_library();
    let (off, all) = (Ort::reference().unwrap(), Ort::new(Optimisation::All).unwrap());
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        g (float16[1, 256] x, float16[256, 64] w) => (float16[1, 64] y) { a = MatMul(x, w)  b = Tanh(a)  y = Mul(b, a) }"#;
    let (model, half) = (porter::text::parse_model(text).unwrap(), porter::onnx::DType::Float16);
    let inputs = porter::engine::samples::for_model(&model, 0);
    let judge = Judge::new(&off, &model, &inputs, &Noise::float32()).unwrap();
    for engine in [&Tract as &dyn Engine, &all] {
        let found = judge.judge(&engine.run_once(&model, &inputs).unwrap());
        assert_eq!(found.verdict, Verdict::Same, "{}: {}", engine.name(), found.findings[0].reason);
    }
    let wrong = judge.reference()["y"].to_f64s().unwrap().iter().map(|x| x * 1.05).collect::<Vec<_>>();
    let wrong = Tensor::from_f64s("y", half, &[1, 64], &wrong).unwrap();
    let found = judge.judge(&Tensors::from_iter([("y".to_string(), wrong)]));
    assert_eq!(found.verdict, Verdict::Differs);
}

#[test]
fn what_is_no_number_any_more_differs() {
    ort_library();
    let off = Ort::reference().unwrap();
    let model = sized("rapidocr-onnxruntime/1.4.4/ch_ppocr_mobile_v2.0_cls_infer.onnx", Some(1));
    let inputs = sample(&model, Kind::Structured, 0, None).inputs;
    let judge = Judge::new(&off, &model, &inputs, &Noise::float32()).unwrap();
    let mut expectation = judge.expectation().clone();
    let broken = with_one(judge.reference(), 0, |_| f32::NAN);
    // Draws that are NaN at the same place are no excuse.
    expectation.draws = vec![broken.clone()];
    assert_eq!(expectation.judge(&broken).verdict, Verdict::Differs);
}

#[test]
fn the_whole_of_a_detector_is_had_in_float64() {
    let model = sized("yolo26n-raw.onnx", None);
    let inputs = sample(&model, Kind::Structured, 0, None).inputs;
    let exact = Double.run_once(&model, &inputs).unwrap_or_else(|error| panic!("{error}"));
    let rounded = Tract.run_once(&model, &inputs).unwrap();
    let found = porter::compare::metrics(&exact[0], &rounded[0]).unwrap();
    assert!(found.cosine > 0.999999 && found.max_abs > 0.0, "{found:?}");
}

#[test]
fn the_command_says_what_it_found_and_exits_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let magika = fetched_model("magika/1.0.3/model.onnx");
    let (code, stdout, stderr) =
        run(porter().arg("verify").arg(&magika).args(["--target", "tract", "--json", "--html"]).arg(&page));
    assert_eq!(code, 0, "{stdout}{stderr}");
    let found: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(found["verdict"], "same");
    let batches: Vec<i64> = found["samples"].as_array().unwrap().iter().filter_map(|s| s["batch"].as_i64()).collect();
    assert_eq!(batches, [1, 1, 1, 2, 4]);
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("target_label") && !page.contains("http"), "the report needs nothing else");
    let (code, _, stderr) = run(porter().arg("verify").arg(&magika).args(["--target", "ort:fast"]));
    assert_eq!(code, 2, "{stderr}");
}

/// A folder with a model of a few lines.
fn written(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    porter::onnx::write(&path, &porter::text::parse_model(text).unwrap().to_proto()).unwrap();
    (folder, path)
}

#[test]
fn every_verdict_has_its_exit_code() {
    // N1 strikes a Split whose parts differ, behind an axis of more than 1.
    let (_folder, split) = written(
        r#"<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 96, 20] x) => (float[2, 32, 20] y, float[2, 64, 20] z)
        <int64[2] sizes = {32, 64}> { y, z = Split <axis = 1> (x, sizes) }"#,
    );
    let verify = |model: &std::path::Path, target: &str| {
        let (code, stdout, stderr) = run(porter().arg("verify").arg(model).args(["--target", target, "--json"]));
        let found: serde_json::Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
        (code, found)
    };
    let (code, found) = verify(&split, "faulty:N1");
    assert_eq!((code, found["verdict"].as_str()), (1, Some("differs")), "{found}");
    assert_eq!(found["target"]["simulated"], true);
    let (_folder, sorted) = written(
        r#"<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 64] x) => (float[1, 5] y) <int64[1] k = {5}> { y, i = TopK(x, k) }"#,
    );
    let (code, found) = verify(&sorted, "faulty:NCC_EVRF029");
    assert_eq!((code, found["verdict"].as_str()), (1, Some("broken")), "{found}");
    assert_eq!((&found["broken"]["stage"], &found["broken"]["code"]), (&"compile".into(), &"NCC_EVRF029".into()));
    // The difference of two products that are the same but for the order of adding: nothing but rounding.
    let (_folder, rounding) = written(
        r#"<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 512] x, float[512, 64] w) => (float[1, 64] y)
        <int64[1] none = {0}, int64[1] half = {256}, int64[1] all = {512}, int64[1] rows = {0}, int64[1] columns = {1}> {
            l = Slice(x, none, half, columns)  r = Slice(x, half, all, columns)
            wl = Slice(w, none, half, rows)  wr = Slice(w, half, all, rows)
            turned = Concat <axis = 1> (r, l)  wturned = Concat <axis = 0> (wr, wl)
            a = MatMul(x, w)  b = MatMul(turned, wturned)  y = Sub(a, b)
        }"#,
    );
    let (code, found) = verify(&rounding, "tract");
    assert_eq!((code, found["verdict"].as_str()), (4, Some("unclear")), "{found}");
    let (code, found) = verify(&rounding, "ort:off");
    assert_eq!((code, found["verdict"].as_str()), (0, Some("same")), "{found}");
}

#[test]
fn a_reference_with_faults_is_called_simulated_and_own_files_may_differ_in_size() {
    let (folder, model) =
        written(r#"<ir_version: 8, opset_import: ["" : 17]> g (float[N, 8] x) => (float[N, 8] y) { y = Sigmoid(x) }"#);
    let mut files = Vec::new();
    for rows in [1, 3] {
        let path = folder.path().join(format!("{rows}.npy"));
        let values: Vec<f32> = (0..rows * 8).map(|i| i as f32 / 7.0).collect();
        let x = Tensor::from_f32("x", &[rows, 8], &values);
        porter::inputs::write(&path, &Tensors::from_iter([("x".to_string(), x)])).unwrap();
        files.push(path);
    }
    for file in &files {
        let (code, stdout, stderr) = run(porter()
            .arg("verify")
            .arg(&model)
            .args(["--target", "tract", "--reference", "faulty:N1", "--json", "--input"])
            .arg(file));
        let found: serde_json::Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
        assert_eq!(code, 0, "{found}");
        assert_eq!(found["reference"]["simulated"], true);
    }
    let mut several = porter();
    several.arg("verify").arg(&model).args(["--target", "tract", "--batch", "1,2", "--input"]).arg(&files[0]);
    let (code, _, stderr) = run(&mut several);
    assert!(code == 2 && stderr.contains("--batch with --input wants one number"), "{code} {stderr}");
}
