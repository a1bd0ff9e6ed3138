//! `porter run` as its user meets it: pictures, arrays, bundles, batches, and what is said when something does not fit.

mod common;

use std::path::{Path, PathBuf};

use common::{fetched_model, model_path, porter, python, redact, run, run_fine, snapshots};
use porter::inputs::Fit;
use porter::postprocess::{Answer, BoxForm, Detection, Head, Oriented, RotatedOverlap, Settings, Step, Task};
use serde_json::Value;

/// A street as a child would draw it: ground, houses, something with wheels. Every run of the tests draws the same.
fn picture(folder: &Path, name: &str, width: u32, height: u32) -> PathBuf {
    let mut picture = image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(60 + x * 120 / width) as u8, (90 + y * 120 / height) as u8, 150])
    });
    let blocks = [(0.1, 0.3, 0.2, 0.4), (0.4, 0.2, 0.15, 0.5), (0.6, 0.6, 0.3, 0.2), (0.2, 0.7, 0.1, 0.2)];
    for (index, (left, top, wide, high)) in blocks.into_iter().enumerate() {
        let colour = [[200, 60, 40], [30, 160, 60], [240, 220, 90], [20, 20, 30]][index];
        for y in (top * height as f32) as u32..((top + high) * height as f32) as u32 {
            for x in (left * width as f32) as u32..((left + wide) * width as f32) as u32 {
                picture.put_pixel(x, y, image::Rgb(if (x / 6 + y / 6) % 5 == 0 { [250; 3] } else { colour }));
            }
        }
    }
    let path = folder.join(name);
    picture.save(&path).unwrap();
    path
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_picture_gives_boxes_in_its_own_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let street = picture(folder.path(), "street.png", 500, 300);
    let drawn = folder.path().join("out.png");
    let text = run_fine(
        porter()
            .args(["run", "--json", "--target", "ort", "--draw"])
            .arg(&drawn)
            .arg("--input")
            .arg(&street)
            .arg(model_path("yolo26n.onnx")),
    );
    let document = json(&text);
    let image = &document["images"][0];
    assert_eq!((image["width"].as_u64(), image["height"].as_u64()), (Some(500), Some(300)));
    let found = image["detections"].as_array().unwrap();
    assert!(!found.is_empty());
    for one in found {
        let corners: Vec<f64> = one["box"].as_array().unwrap().iter().map(|at| at.as_f64().unwrap()).collect();
        let [left, top, right, bottom] = corners[..] else { panic!("{one}") };
        assert!(
            0.0 <= left && left <= right && right <= 500.0 && 0.0 <= top && top <= bottom && bottom <= 300.0,
            "{one}"
        );
        assert!(one["score"].as_f64().unwrap() > 0.25);
    }
    let (before, after) = (image::open(&street).unwrap().to_rgb8(), image::open(&drawn).unwrap().to_rgb8());
    assert_eq!(before.dimensions(), after.dimensions());
    assert_ne!(before, after);
}

#[test]
fn a_raw_head_read_natively_finds_what_the_models_own_tail_finds() {
    let folder = tempfile::tempdir().unwrap();
    let street = picture(folder.path(), "street.png", 640, 480);
    let bundle = folder.path().join("raw");
    let prepare = ["prepare", "--target", "ort", "--head", "raw", "--no-check", "-o"];
    run_fine(porter().args(prepare).arg(&bundle).arg(model_path("yolo26n.onnx")));
    let detections = |model: &Path| {
        let text = run_fine(porter().args(["run", "--json", "--input"]).arg(&street).arg(model));
        json(&text)["images"][0]["detections"].as_array().unwrap().clone()
    };
    let (raw, own) = (detections(&bundle), detections(&model_path("yolo26n.onnx")));
    assert_eq!(raw.len(), own.len());
    assert!(raw.len() > 20, "{}", raw.len());
    // The order among equal scores may differ.
    for one in &own {
        let near = |other: &&Value| {
            let number = |value: &Value, index: usize| value["box"][index].as_f64().unwrap();
            one["class"] == other["class"] && (0..4).all(|i| (number(one, i) - number(other, i)).abs() < 0.5)
        };
        assert!(raw.iter().any(|other| near(&other)), "{one}");
    }
}

#[test]
fn a_bundle_runs_part_by_part_on_a_stand_in_and_batches_are_filled_up() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = folder.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    for (index, size) in [(64, 48), (320, 320), (200, 640), (640, 200), (90, 90)].into_iter().enumerate() {
        picture(&pictures, &format!("{index}.png"), size.0, size.1);
    }
    let bundle = folder.path().join("b4");
    run_fine(
        porter()
            .args(["prepare", "--target", "neuron", "--no-check", "-o"])
            .arg(&bundle)
            .arg(model_path("yolo26n-b4.onnx")),
    );
    let (code, _, told) = run(porter().arg("run").arg(&bundle).arg("--input").arg(&pictures));
    assert_eq!(code, 3, "{told}");
    assert!(told.contains("--stand-in"), "{told}");
    let (tensors, drawn) = (folder.path().join("out.npz"), folder.path().join("drawn"));
    let text = run_fine(
        porter()
            .args(["run", "--json", "--stand-in", "ort", "--jobs", "2", "--input"])
            .arg(&pictures)
            .arg("-o")
            .arg(&tensors)
            .arg("--draw")
            .arg(&drawn)
            .arg(&bundle),
    );
    let document = json(&text);
    let images = document["images"].as_array().unwrap();
    assert_eq!(images.len(), 5, "the filling of the last batch is dropped");
    let order: Vec<bool> = (0..5).map(|i| images[i]["file"].as_str().unwrap().ends_with(&format!("{i}.png"))).collect();
    assert_eq!(order, [true; 5]);
    assert_eq!(document["timing"]["runs"], 2);
    assert_eq!(document["parts"].as_array().unwrap().len(), 2);
    assert_eq!(porter::inputs::read(&tensors).unwrap()["output0"].dims(), [5, 300, 6]);
    assert_eq!(std::fs::read_dir(&drawn).unwrap().count(), 5);
}

#[test]
fn every_kind_of_head_gives_its_own_answer() {
    let folder = tempfile::tempdir().unwrap();
    let street = picture(folder.path(), "street.png", 320, 240);
    let first = |model: &str| {
        let text = run_fine(
            porter()
                .args(["run", "--json", "--max-boxes", "5", "--conf", "0.01", "--input"])
                .arg(&street)
                .arg(model_path(model)),
        );
        json(&text)["images"][0].clone()
    };
    let pose = first("yolo26n-pose.onnx");
    assert_eq!(pose["detections"][0]["keypoints"].as_array().unwrap().len(), 17);
    let oriented = first("yolo26n-obb.onnx");
    assert_eq!(oriented["detections"][0]["oriented"]["corners"].as_array().unwrap().len(), 4);
    let segments = first("yolo26n-seg.onnx");
    let mask = &segments["detections"][0]["mask"];
    let pixels: u64 = mask["counts"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!((mask["size"][0].as_u64(), mask["size"][1].as_u64(), pixels), (Some(240), Some(320), 320 * 240));
    let classes = first("yolo26n-cls.onnx");
    assert_eq!(classes["classes"].as_array().unwrap().len(), 5);
}

#[test]
fn real_models_without_a_word_in_their_metadata_run_too() {
    let folder = tempfile::tempdir().unwrap();
    let street = picture(folder.path(), "street.png", 320, 240);
    let mut told = Vec::new();
    for model in [
        "nudenet/3.4.2/320n.onnx",
        "rapidocr-onnxruntime/1.4.4/ch_PP-OCRv4_rec_infer.onnx",
        "rapidocr-onnxruntime/1.4.4/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    ] {
        let text = run_fine(
            porter().args(["run", "--json", "--target", "ort", "--input"]).arg(&street).arg(fetched_model(model)),
        );
        let document = json(&text);
        let shapes: Vec<String> =
            document["outputs"].as_array().into_iter().flatten().map(|o| o["shape"].to_string()).collect();
        told.push(format!(
            "{}: {} pictures, outputs {}",
            model.rsplit('/').next().unwrap(),
            document["timing"]["elements"],
            shapes.join(" ")
        ));
    }
    run_fine(porter().args(["run", "--seed", "1"]).arg(fetched_model("silero-vad/6.2.3/silero_vad_openvino_16k.onnx")));
    snapshots().bind(|| insta::assert_snapshot!("run-real-models", told.join("\n")));
}

#[test]
fn what_does_not_fit_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let street = picture(folder.path(), "street.png", 32, 32);
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("broken.png"), b"\x89PNG\r\n\x1a\n and nothing").unwrap();
    std::fs::write(path("notes.txt"), "hello").unwrap();
    let tensor = |dtype, dims: &[i64]| {
        let count = dims.iter().product::<i64>() as usize;
        porter::onnx::Tensor::from_f64s("images", dtype, dims, &vec![0.0; count]).unwrap()
    };
    let save = |name: &str, tensor: porter::onnx::Tensor| {
        porter::inputs::write(&path(name), &[("images".to_string(), tensor)].into_iter().collect()).unwrap();
    };
    save("double.npz", tensor(porter::onnx::DType::Double, &[1, 3, 224, 224]));
    save("small.npz", tensor(porter::onnx::DType::Float, &[1, 3, 64, 64]));
    let model = model_path("yolo26n-cls.onnx");
    let text = |name: &str| path(name).display().to_string();
    let street = street.display().to_string();
    let cases: Vec<Vec<String>> = [
        vec!["--input", &text("broken.png")],
        vec!["--input", &text("notes.txt")],
        vec!["--input", &text("nowhere.png")],
        vec!["--input", &text("*.jpeg")],
        vec!["--input", &format!("picture={street}")],
        vec!["--input", &text("double.npz")],
        vec!["--input", &text("small.npz")],
        vec!["--input", &street, "--batch", "4"],
        vec!["--input", &street, "-o", "out.txt"],
        vec!["--input", &street, "--draw", "out"],
        vec!["--input", &street, "--target", "nothing"],
        vec!["--input", &street, "--stand-in", "ort"],
    ]
    .into_iter()
    .map(|case| case.into_iter().map(str::to_string).collect())
    .collect();
    let mut told = Vec::new();
    for case in cases {
        let (code, stdout, stderr) = run(porter().arg("run").arg(&model).args(&case));
        assert!(stdout.is_empty() && code == 2, "{case:?}: {code} {stdout} {stderr}");
        // The list of targets grows.
        let said = stderr.split("  help: there are").next().unwrap_or_default();
        told.push(format!("porter run MODEL {}\n{said}", case.join(" ")));
    }
    let told = redact(&redact(&told.join("\n"), folder.path()), model.parent().unwrap());
    snapshots().bind(|| insta::assert_snapshot!("run-bad-inputs", told));
}

#[test]
fn the_screen_shows_a_table_and_the_timing() {
    let folder = tempfile::tempdir().unwrap();
    let street = picture(folder.path(), "street.png", 320, 240);
    let said = run_fine(
        porter()
            .args(["run", "--target", "tract", "--conf", "0", "--input"])
            .arg(&street)
            .arg(model_path("yolo26n-cls.onnx")),
    );
    let said = redact(&redact(&said, folder.path()), model_path("yolo26n-cls.onnx").parent().unwrap());
    // Times differ from run to run.
    let shown: Vec<&str> = said
        .lines()
        .map(|line| if line.trim_start().starts_with("timing") { "  timing    ..." } else { line })
        .collect();
    snapshots().bind(|| insta::assert_snapshot!("run-screen", shown.join("\n")));
}

#[test]
fn raw_heads_are_read_as_onnx_runtimes_own_operators_read_them() {
    let folder = tempfile::tempdir().unwrap();
    run_fine(python("check_heads.py").arg(folder.path()));
    let raw = porter::inputs::read(&folder.path().join("raw.npz")).unwrap();
    let wanted = porter::inputs::read(&folder.path().join("wanted.npz")).unwrap();
    let read = |step: Step, confidence: f32| -> Vec<Detection> {
        let head = Head {
            task: Task::Segment,
            tensor: "raw".into(),
            prototypes: Some("protos".into()),
            step,
            classes: Some(12),
            keypoints: None,
        };
        let settings = Settings { confidence, ..Settings::default() };
        let Answer::Things(found) = head.read(&raw, 0, &settings).unwrap() else { panic!() };
        let best = &found[..1];
        let mask = &head.masks(&raw, 0, best, [160, 160], &Fit::identity(160, 160)).unwrap()[0];
        let theirs = wanted["mask"].to_f32s().unwrap();
        let inside = |x: u32, y: u32| {
            let (x, y) = (x.wrapping_sub(mask.origin[0]), y.wrapping_sub(mask.origin[1]));
            x < mask.width && y < mask.height() && mask.pixels[(y * mask.width + x) as usize]
        };
        let unlike = (0..160 * 160u32).filter(|&i| inside(i % 160, i / 160) != (theirs[i as usize] > 0.0)).count();
        assert!(mask.area() > 50 && unlike * 100 <= mask.area(), "{unlike} of {}", mask.area());
        found
    };
    let scores: Vec<f32> = read(Step::TopK(BoxForm::Centre), -1.0).iter().map(|one| one.score).collect();
    assert_eq!(scores, wanted["top"].to_f32s().unwrap());
    let found = read(Step::Nms(BoxForm::Centre), 0.25);
    let theirs = wanted["found"].to_f32s().unwrap();
    assert!(found.len() > 100 && found.len() * 6 == theirs.len(), "{} {}", found.len(), theirs.len() / 6);
    for (ours, theirs) in found.iter().zip(theirs.chunks(6)) {
        assert_eq!((ours.score, ours.class), (theirs[0], theirs[1] as usize));
        assert!((ours.corners[0] - (theirs[2] - theirs[4] / 2.0)).abs() < 1e-3);
    }
}

#[test]
fn points_and_rotated_boxes_are_read_as_others_read_them() {
    let folder = tempfile::tempdir().unwrap();
    run_fine(python("check_heads.py").arg(folder.path()));
    let raw = porter::inputs::read(&folder.path().join("raw.npz")).unwrap();
    let wanted = porter::inputs::read(&folder.path().join("wanted.npz")).unwrap();
    let wanted = |name: &str| wanted[name].to_f32s().unwrap();
    let read = |task: Task, tensor: &str| -> Vec<Detection> {
        let head = Head {
            task,
            tensor: tensor.into(),
            prototypes: None,
            step: Step::Nms(BoxForm::Centre),
            classes: Some(12),
            keypoints: (task == Task::Pose).then_some([5, 3]),
        };
        let settings = Settings { rotated: RotatedOverlap::Exact, ..Settings::default() };
        let Answer::Things(found) = head.read(&raw, 0, &settings).unwrap() else { panic!() };
        found
    };

    let (posed, theirs) = (read(Task::Pose, "posed"), wanted("posed"));
    assert!(posed.len() > 100 && posed.len() * 17 == theirs.len(), "{} {}", posed.len(), theirs.len() / 17);
    for (ours, theirs) in posed.iter().zip(theirs.chunks(17)) {
        let points: Vec<f32> =
            ours.keypoints.iter().flat_map(|point| [point.x, point.y, point.visible.unwrap()]).collect();
        assert_eq!((ours.score, ours.class as f32, points.as_slice()), (theirs[0], theirs[1], &theirs[2..]));
    }

    let (turned, theirs) = (read(Task::Oriented, "turned"), wanted("turned"));
    assert!(turned.len() > 100 && turned.len() * 3 == theirs.len(), "{} {}", turned.len(), theirs.len() / 3);
    let (table, anchors) = (raw["turned"].to_f32s().unwrap(), 2000);
    for (ours, theirs) in turned.iter().zip(theirs.chunks(3)) {
        assert_eq!((ours.score, ours.class as f32), (theirs[0], theirs[1]));
        let column = |row: usize| table[row * anchors + theirs[2] as usize];
        let oriented = Oriented { centre: [column(0), column(1)], size: [column(2), column(3)], angle: column(16) };
        assert_eq!(ours.oriented, Some(oriented));
    }

    // The Gaussians of the boxes, whose likeness is what suppression goes by if nothing else is asked for.
    let pairs = raw["pairs"].to_f32s().unwrap();
    let oriented = |n: &[f32]| Oriented { centre: [n[0], n[1]], size: [n[2], n[3]], angle: n[4] };
    for (pair, theirs) in pairs.chunks(10).zip(wanted("likeness")) {
        let ours = oriented(&pair[..5]).similarity(&oriented(&pair[5..]));
        assert!((ours - f64::from(theirs)).abs() < 1e-3, "{ours} {theirs}");
    }
}

#[test]
fn bench_measures_targets_in_turns() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, plot) = (folder.path().join("out.csv"), folder.path().join("out.svg"));
    let model = fetched_model("magika/1.0.3/model.onnx");
    let mut command = porter();
    command.args(["bench", "--json", "--target", "ort,tract", "--batch", "1,2", "--jobs", "2", "--runs", "6", "--csv"]);
    let (code, text, said) = run(command.arg(&csv).arg("--plot").arg(&plot).arg(&model));
    assert_eq!(code, 0, "{said}");
    let rows = json(&text)["results"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 8, "two targets, two batches, one job and two");
    for row in &rows {
        let runs = 6 * row["jobs"].as_u64().unwrap();
        assert_eq!(row["times"]["runs"].as_u64(), Some(runs), "{row}");
        let figure = |name: &str| row["times"][name].as_f64().unwrap();
        assert!(0.0 < figure("least") && figure("median") <= figure("p95") && figure("p95") <= figure("p99"), "{row}");
        assert!(row["elements_per_second"].as_f64().unwrap() > 0.0 && row["compile_seconds"].as_f64().unwrap() > 0.0);
        #[cfg(target_os = "linux")]
        assert!(row["peak_bytes"].as_u64().unwrap() > 10 << 20, "{row}");
    }
    assert_eq!(std::fs::read_to_string(&csv).unwrap().lines().count(), 9);
    assert!(std::fs::read_to_string(&plot).unwrap().contains("<polyline"));
    let (code, _, told) = run(porter().args(["bench", "--batch", "1,4"]).arg(model_path("yolo26n-cls.onnx")));
    assert_eq!(code, 2);
    assert!(told.contains("--batch 4: its batch is fixed at 1"), "{told}");
}
