//! Stripping and filling, against a second implementation of the fill form in Python, and against real trained models.

mod common;

use std::fs;
use std::path::Path;

use common::build::*;
use common::{fetched_model, model_path, model_paths, porter, python, run_fine};
use porter::onnx::proto::{
    FunctionProto, LOCATION_EXTERNAL, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
};
use porter::onnx::{DType, Tensor, encode, fill};
use prost::Message;

fn convert(command: &str, from: &Path, to: &Path) {
    run_fine(porter().arg(command).arg(from).arg("-o").arg(to));
}

/// The file's messages as they stand there, with recipes not yet drawn.
fn raw(path: &Path) -> ModelProto {
    ModelProto::decode(&*fs::read(path).unwrap()).unwrap()
}

fn is_recipe(tensor: &TensorProto) -> bool {
    tensor.external("location") == Some(fill::LOCATION)
}

fn initializers(model: &ModelProto) -> &[TensorProto] {
    &model.graph.as_ref().unwrap().initializer
}

#[test]
fn every_test_model_is_filled_as_the_definition_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = python("check_hydrate.py");
    for path in model_paths() {
        let filled = folder.path().join(path.file_name().unwrap());
        convert("hydrate", &path, &filled);
        command.arg(&path).arg(&filled);
    }
    let told = run_fine(&mut command);
    assert_eq!(told.lines().count(), model_paths().len(), "{told}");
    assert!(told.lines().all(|line| line.contains(" tensors are equal")), "{told}");
}

#[test]
fn every_type_that_can_be_filled_is_filled_as_the_definition_says() {
    let folder = tempfile::tempdir().unwrap();
    let plain = |dtype: &DType| dtype.is_float() || dtype.is_integer();
    let types: Vec<DType> = DType::ALL.iter().copied().filter(plain).collect();
    assert!(types.len() == 12 && types.iter().all(|&dtype| fill::supports(dtype)));
    let entry = |key: &str, value: &str| StringStringEntryProto::new(key, value);
    let recipe = |(i, &dtype): (usize, &DType)| {
        let unsigned = dtype.name().starts_with('u');
        TensorProto {
            name: Some(format!("w_{dtype}")),
            dims: vec![3, 0x4001, 1], // more than one chunk, and no multiple of it
            data_type: Some(dtype.number()),
            data_location: Some(LOCATION_EXTERNAL),
            external_data: vec![
                entry("location", "porter-fill"),
                entry("distribution", "uniform"),
                entry("mean", if unsigned { "60.5" } else { "-0.75" }),
                entry("std", "3.4e1"),
                entry("seed", &(u64::MAX - i as u64).to_string()),
            ],
            ..Default::default()
        }
    };
    let model = small_with(|g| g.initializer.extend(types.iter().enumerate().map(recipe)));
    let (from, to) = (folder.path().join("from.onnx"), folder.path().join("to.onnx"));
    fs::write(&from, encode(&model)).unwrap();
    convert("hydrate", &from, &to);
    let told = run_fine(python("check_hydrate.py").arg(&from).arg(&to));
    assert!(told.contains("12 tensors are equal"), "{told}");
}

#[test]
fn a_stripped_model_is_small_and_says_what_it_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = fetched_model("nudenet/3.4.2/320n.onnx");
    let stripped = folder.path().join("stripped.onnx");
    convert("strip", &path, &stripped);
    let (before, after) = (fs::metadata(&path).unwrap().len(), fs::metadata(&stripped).unwrap().len());
    assert!(after * 20 < before, "{before} bytes became {after}");

    let (whole, bare) = (raw(&path), raw(&stripped));
    assert_eq!(initializers(&whole).len(), initializers(&bare).len());
    let graph = whole.graph.as_ref().unwrap();
    let biases: Vec<&String> =
        graph.node.iter().filter(|n| n.op_type.as_deref() == Some("Conv")).filter_map(|n| n.input.get(2)).collect();
    assert!(!biases.is_empty());
    let mut count = 0;
    for (full, bare) in initializers(&whole).iter().zip(initializers(&bare)) {
        assert_eq!((full.name(), &full.dims, full.data_type), (bare.name(), &bare.dims, bare.data_type));
        let is_bias = biases.iter().any(|bias| *bias == full.name());
        if !is_recipe(bare) {
            assert!(full.len() <= 512 || is_bias || !full.dtype().is_float(), "{} is kept", full.name());
            assert_eq!(full, bare, "what is kept is kept as it is");
            continue;
        }
        count += 1;
        assert!(full.len() > 512 && !is_bias, "{} is stripped", full.name());
        assert!(bare.raw_data.is_none());
        let number = |key: &str| bare.external(key).unwrap().parse::<f64>().unwrap();
        let values = full.to_f64s().unwrap();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let std = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        assert!((number("mean") - mean).abs() <= 1e-9 * (1.0 + mean.abs()), "{}", full.name());
        assert!((number("std") - std).abs() <= 1e-9 * (1.0 + std), "{}", full.name());
    }
    assert!(count > 50, "only {count} tensors are stripped");

    // What porter reads of the stripped file has the statistics of the real one.
    let filled = porter::onnx::read(&stripped).unwrap();
    for (full, drawn) in initializers(&whole).iter().zip(initializers(&filled)).filter(|(full, _)| full.len() > 50_000)
    {
        let spread = |tensor: &Tensor| {
            let values = tensor.to_f64s().unwrap();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            (mean, (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt())
        };
        let ((mean, std), (drawn_mean, drawn_std)) = (spread(full), spread(drawn));
        assert!((mean - drawn_mean).abs() < 0.02 * std && (std - drawn_std).abs() < 0.02 * std, "{}", full.name());
    }
}

#[test]
fn stripping_twice_is_stripping_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let trained = ["nudenet/3.4.2/320n.onnx", "silero-vad/6.2.3/silero_vad.onnx", "magika/1.0.3/model.onnx"];
    for from in
        trained.map(fetched_model).into_iter().chain([model_path("yolo26n.onnx"), model_path("yolo26n-cls.onnx")])
    {
        convert("strip", &from, &path("once.onnx"));
        convert("strip", &path("once.onnx"), &path("twice.onnx"));
        assert_eq!(fs::read(path("once.onnx")).unwrap(), fs::read(path("twice.onnx")).unwrap(), "{}", from.display());
        // Filling first changes the values' own statistics, but not what is stripped.
        convert("hydrate", &path("once.onnx"), &path("full.onnx"));
        convert("strip", &path("full.onnx"), &path("again.onnx"));
        let stripped = |name: &str| {
            let model = raw(&path(name));
            initializers(&model).iter().filter(|t| is_recipe(t)).map(|t| t.name().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(stripped("once.onnx"), stripped("again.onnx"), "{}", from.display());
    }
}

#[test]
fn a_model_without_recipes_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = python("check_equal.py");
    let fetched = common::fetched_models();
    for (i, path) in fetched.iter().enumerate() {
        let (copy, through) = (folder.path().join(format!("{i}.onnx")), folder.path().join(format!("{i}-graph.onnx")));
        convert("hydrate", path, &copy);
        porter::onnx::write(&through, &porter::load(path).unwrap().to_proto()).unwrap();
        command.arg(path).arg(copy).arg(path).arg(through);
    }
    let told = run_fine(&mut command);
    assert_eq!(told.matches("equal: ").count(), fetched.len() * 2, "{told}");
    for path in model_paths() {
        let (filled, again) = (folder.path().join("filled.onnx"), folder.path().join("again.onnx"));
        convert("hydrate", &path, &filled);
        porter::onnx::write(&again, &porter::load(&filled).unwrap().to_proto()).unwrap();
        assert!(fs::read(&filled).unwrap() == fs::read(&again).unwrap(), "{}", path.display());
    }
}

#[test]
fn external_weights_are_read_by_others_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = fetched_model("nudenet/3.4.2/320n.onnx");
    let copy = folder.path().join("copy.onnx");
    porter::onnx::write_with_limit(&copy, &porter::onnx::read(&path).unwrap(), 1 << 20).unwrap();
    assert!(fs::metadata(&copy).unwrap().len() < 1 << 20);
    assert!(folder.path().join("copy.onnx.data").is_file());
    let told = run_fine(python("check_equal.py").arg(&path).arg(&copy));
    assert!(told.starts_with("equal: "), "{told}");
}

#[test]
fn quantized_and_tied_and_kept_weights() {
    let folder = tempfile::tempdir().unwrap();
    let count = 1024usize;
    let ramp = |dtype: DType| {
        let values: Vec<f64> = (0..count).map(|i| (i % 100) as f64).collect();
        Tensor::from_f64s(format!("w_{dtype}"), dtype, &[32, 32], &values).unwrap()
    };
    let kept = [DType::Int64, DType::Int32, DType::Bool];
    let taken = [DType::Float, DType::Double, DType::Float16, DType::Bfloat16, DType::Int8, DType::Uint8];
    let model = small_with(|g| {
        g.initializer.extend(kept.iter().chain(&taken).map(|&dtype| ramp(dtype)));
        g.initializer.push(Tensor::from_f32("exactly", &[512], &[1.0; 512]));
        g.initializer.push(Tensor::from_f32("bias", &[1, 2048], &[0.25; 2048]));
        g.node.push(node("Add", &["x", "bias"], &["unused"]));
        g.initializer.push(Tensor::from_f32("odd", &[1024], &[f32::NAN; 1024]));
    });
    let (from, to) = (folder.path().join("from.onnx"), folder.path().join("to.onnx"));
    fs::write(&from, encode(&model)).unwrap();
    let told = run_fine(porter().arg("strip").arg(&from).arg("-o").arg(&to).arg("--json"));
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["stripped"], taken.len() + 1);
    let stripped = raw(&to);
    let names: Vec<_> = initializers(&stripped).iter().filter(|t| is_recipe(t)).map(|t| t.name()).collect();
    assert_eq!(names[..taken.len()], taken.map(|dtype| format!("w_{dtype}")));
    assert_eq!(names[taken.len()..], ["odd"]);
    // All of them can be drawn again, as the definition says.
    convert("hydrate", &to, &from);
    assert!(run_fine(python("check_hydrate.py").arg(&to).arg(&from)).contains("7 tensors are equal"));
}

#[test]
fn what_is_smaller_than_a_byte_and_what_functions_hold_is_taken_out_too() {
    let small = [DType::Int4, DType::Uint4, DType::Float8E4M3FN, DType::Float8E5M2, DType::Float4E2M1];
    let secret = |dtype: DType| {
        let bytes: Vec<u8> = (0..dtype.byte_len(601).unwrap()).map(|i| [0x35, 0x2b, 0x51][i % 3]).collect();
        Tensor::new(format!("w_{dtype}"), dtype, &[601], bytes)
    };
    let constant = |name: &str, count: usize| NodeProto {
        attribute: vec![tensor_attribute("value", Tensor::from_f32("", &[count as i64], &vec![0.37; count]))],
        ..node("Constant", &[], &[name])
    };
    let mut model = small_with(|g| g.initializer.extend(small.map(secret)));
    model.functions.push(FunctionProto {
        name: Some("Layer".into()),
        domain: Some("own".into()),
        input: vec!["x".into()],
        output: vec!["y".into()],
        // `bias` is one, `w` is none, though the graph outside has a bias of that name.
        node: vec![constant("w", 600), constant("bias", 600), node("Conv", &["x", "w", "bias"], &["y"])],
        ..Default::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let [from, stripped, filled] = ["from.onnx", "stripped.onnx", "filled.onnx"].map(|name| folder.path().join(name));
    fs::write(&from, encode(&model)).unwrap();
    convert("strip", &from, &stripped);
    convert("hydrate", &stripped, &filled);
    let written = raw(&stripped);
    let large = initializers(&written).iter().filter(|tensor| tensor.dims == [601]);
    assert_eq!(large.filter(|tensor| is_recipe(tensor)).count(), small.len());
    let taken = |index: usize| is_recipe(written.functions[0].node[index].attribute[0].t.as_ref().unwrap());
    assert_eq!((taken(0), taken(1)), (true, false));
    for tensor in initializers(&raw(&filled)).iter().filter(|tensor| tensor.dims == [601]) {
        let bytes = tensor.to_bytes().unwrap();
        assert_eq!(Some(bytes.len()), tensor.dtype().byte_len(601), "{}", tensor.name());
        assert_ne!(bytes, secret(tensor.dtype()).to_bytes().unwrap(), "{}", tensor.name());
    }
}
