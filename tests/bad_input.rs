//! What porter says to files that make no sense: one message that names the file and the place, exit code 2, no panic,
//! and nothing left on the disk.

mod common;

use std::fs;
use std::path::Path;

use common::build::*;
use common::{porter, redact, run};
use porter::onnx::proto::*;
use porter::onnx::{DType, Tensor, encode};

/// Every command that opens a model, as arguments around the model's path.
fn commands(model: &Path, output: &Path) -> Vec<Vec<String>> {
    let (model, output) = (model.display().to_string(), output.display().to_string());
    let to = |command: &str| [command, &model, "-o", &output].map(str::to_string).to_vec();
    let mut prepare = to("prepare");
    prepare.extend(["--target", "neuron", "--no-check"].map(str::to_string));
    vec![to("strip"), to("hydrate"), prepare]
}

/// Runs every command on `file` in `folder`, and gives back what they say, which must be the same message.
fn refusal(folder: &Path, file: &str) -> String {
    let before = listing(folder);
    let model = folder.join(file);
    let mut messages: Vec<String> = Vec::new();
    for arguments in commands(&model, &folder.join("out.onnx")) {
        let (code, stdout, stderr) = run(porter().args(&arguments));
        assert_eq!(code, 2, "{arguments:?} must refuse: {stdout}{stderr}");
        assert_eq!(stdout, "", "{arguments:?}");
        assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
        assert!(stderr.contains(file), "{arguments:?} does not name the file: {stderr}");
        messages.push(redact(&stderr, folder));
    }
    assert_eq!(listing(folder), before, "something is left behind");
    messages.dedup();
    assert_eq!(messages.len(), 1, "the commands disagree: {messages:?}");
    messages.remove(0)
}

fn listing(folder: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// What porter says to each of several files, as one text for people to read.
struct Gallery {
    folder: tempfile::TempDir,
    text: String,
}

impl Gallery {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), text: String::new() }
    }

    fn bytes(&mut self, what: &str, bytes: &[u8]) {
        fs::write(self.folder.path().join("model.onnx"), bytes).unwrap();
        self.file(what, "model.onnx");
    }

    fn model(&mut self, what: &str, model: &ModelProto) {
        self.bytes(what, &encode(model));
    }

    fn file(&mut self, what: &str, file: &str) {
        let told = refusal(self.folder.path(), file);
        self.text.push_str(&format!("# {what}\n{told}\n"));
    }

    #[track_caller]
    fn show(self, name: &str) {
        common::snapshots().bind(|| insta::assert_snapshot!(name, self.text.trim_end()));
    }
}

#[test]
fn files_that_are_no_model() {
    let mut gallery = Gallery::new();
    gallery.bytes("text", b"hello, this is a text file\n");
    gallery.bytes("a picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\x06\0\0\0");
    gallery.bytes("an archive", b"PK\x03\x04\x14\0\0\0\x08\0");
    gallery.bytes("nothing", b"");
    gallery.bytes("zeros", &[0; 4096]);
    gallery.bytes("random bytes", &random(4096, 7));
    gallery.bytes("a number without an end", &[0xff; 64]);
    gallery.bytes("a length beyond the file", b"\x08\x08\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f");
    gallery.bytes("a group that never ends", b"\x08\x08\x3b\x08\x01");
    gallery.bytes("groups in groups", &[&b"\x08\x08"[..], &[0x7b; 5000]].concat());
    gallery.bytes("a name that is not UTF-8", b"\x08\x08\x12\x02\xff\xfe");
    fs::remove_file(gallery.folder.path().join("model.onnx")).unwrap();
    gallery.file("no file", "model.onnx");
    fs::create_dir(gallery.folder.path().join("model.onnx")).unwrap();
    gallery.file("a folder", "model.onnx");
    gallery.show("bad-input-no-model");
}

#[test]
fn graphs_that_make_no_sense() {
    let mut gallery = Gallery::new();
    let mut show = |what: &str, model: &ModelProto| gallery.model(what, model);
    show("no graph", &ModelProto { graph: None, ..small() });
    show("an empty graph", &model_of(GraphProto::default()));
    show("a dangling input", &small_with(|g| g.node[0].input[1] = "nowhere".into()));
    show("a dangling graph output", &small_with(|g| g.output[0].name = Some("nowhere".into())));
    show(
        "a cycle of two",
        &small_with(|g| {
            g.node[0].input[1] = "y".into();
        }),
    );
    show("a node that reads itself", &small_with(|g| g.node[0].input[1] = "sum".into()));
    show(
        "a cycle of a hundred",
        &small_with(|g| {
            g.node = (0..100)
                .map(|i| node("Relu", &[&format!("v{}", (i + 99) % 100)], &[&format!("v{i}")]))
                .chain([node("Relu", &["v3"], &["y"])])
                .collect();
        }),
    );
    show(
        "an initializer given twice",
        &small_with(|g| {
            g.initializer.push(g.initializer[0].clone());
        }),
    );
    show(
        "an input given twice",
        &small_with(|g| {
            g.input.push(g.input[0].clone());
        }),
    );
    show("a value produced twice", &small_with(|g| g.node[1].output = vec!["y".into(), "sum".into()]));
    show("a value produced twice by one node", &small_with(|g| g.node[1].output = vec!["y".into(), "y".into()]));
    show("an output that is an input", &small_with(|g| g.node[0].output[0] = "x".into()));
    show("an output that is an initializer", &small_with(|g| g.node[0].output[0] = "w".into()));
    show("a node without operator", &small_with(|g| g.node[1].op_type = None));
    show("a node without name or operator", &small_with(|g| g.node[1] = NodeProto::default()));
    show("an input without a name", &small_with(|g| g.input[0].name = None));
    show("an initializer without a name", &small_with(|g| g.initializer[0].name = None));
    show("a name with a line break and a NUL", &small_with(|g| g.node[0].input[1] = "no\nwhe\0re\u{1b}[31m".into()));
    gallery.show("bad-input-graphs");
}

#[test]
fn attributes_and_subgraphs_that_make_no_sense() {
    let mut gallery = Gallery::new();
    let mut show = |what: &str, model: &ModelProto| gallery.model(what, model);
    let attribute = |name: &str, kind: Option<i32>| AttributeProto {
        name: (!name.is_empty()).then(|| name.into()),
        kind,
        ..Default::default()
    };
    let with = |attribute: AttributeProto| small_with(|g| g.node[1].attribute.push(attribute));
    show("an attribute with neither type nor value", &with(attribute("axis", None)));
    show("a tensor attribute without a tensor", &with(attribute("value", Some(attribute_type::TENSOR))));
    show("a graph attribute without a graph", &with(attribute("body", Some(attribute_type::GRAPH))));
    show("an attribute of a type that does not exist", &with(attribute("axis", Some(99))));
    show("an attribute without a name", &with(attribute("", Some(attribute_type::INT))));
    let short = Tensor { dims: vec![4], ..Tensor::from_f32("t", &[2], &[1.0, 2.0]) };
    show("a tensor attribute that is too short", &with(tensor_attribute("value", short)));
    let body = |input: &str| GraphProto {
        name: Some("body".into()),
        output: vec![info("inner", DType::Float, &[2, 3])],
        node: vec![node("Relu", &[input], &["inner"])],
        ..Default::default()
    };
    let branch = |input: &str| {
        small_with(|g| {
            g.node[1].op_type = Some("If".into());
            g.node[1].attribute =
                vec![graph_attribute("then_branch", body("sum")), graph_attribute("else_branch", body(input))];
        })
    };
    show("a subgraph that reads what is not there", &branch("nowhere"));
    show("a subgraph that reads its own node's output", &branch("y"));
    let mut deep = body("sum");
    deep.node[0].input[0] = "nowhere".into();
    let mut outer = body("sum");
    outer.node[0] = node("If", &["sum"], &["inner"]);
    outer.node[0].attribute = vec![graph_attribute("then_branch", deep)];
    show("the same, one deeper", &small_with(|g| g.node[1].attribute = vec![graph_attribute("then_branch", outer)]));
    let mut nested = body("sum");
    for _ in 0..200 {
        let inside = std::mem::replace(&mut nested, body("sum"));
        nested.node[0].attribute = vec![graph_attribute("then_branch", inside)];
    }
    show("200 graphs in each other", &small_with(|g| g.node[1].attribute = vec![graph_attribute("body", nested)]));
    gallery.show("bad-input-attributes");
}

#[test]
fn versions_out_of_range() {
    let mut gallery = Gallery::new();
    for opset in [0, 1, 7, 10, 99, -1, i64::MAX] {
        let mut model = small();
        model.opset_import[0].version = Some(opset);
        gallery.model(&format!("opset {opset}"), &model);
    }
    gallery.model("no opset", &ModelProto { opset_import: Vec::new(), ..small() });
    let mut model = small();
    let other = OperatorSetIdProto { domain: Some("ai.onnx".into()), version: Some(12), ..Default::default() };
    model.opset_import.push(other);
    gallery.model("two opsets", &model);
    gallery.show("bad-input-opsets");
}

#[test]
fn tensors_that_do_not_match() {
    let mut gallery = Gallery::new();
    let mut show = |what: &str, change: &dyn Fn(&mut Tensor)| {
        gallery.model(what, &small_with(|g| change(&mut g.initializer[0])));
    };
    let bytes = |count: usize| Some(porter::onnx::Payload::Bytes(vec![0; count].into()));
    show("one byte short", &|t| t.raw_data = bytes(23));
    show("one byte long", &|t| t.raw_data = bytes(25));
    show("no values", &|t| t.raw_data = None);
    show("a negative size", &|t| t.dims = vec![2, -3]);
    show("sizes whose product overflows", &|t| t.dims = vec![1 << 40, 1 << 40]);
    show("bytes that overflow", &|t| t.dims = vec![1 << 62]);
    show("no type", &|t| t.data_type = None);
    show("a type that does not exist", &|t| t.data_type = Some(77));
    show("typed values that are too few", &|t| {
        t.raw_data = None;
        t.float_data = vec![1.0; 5];
    });
    show("half floats that are too many", &|t| {
        t.raw_data = None;
        t.data_type = Some(DType::Float16.number());
        t.int32_data = vec![1; 7];
    });
    show("strings as raw bytes", &|t| t.data_type = Some(DType::String.number()));
    show("packed nibbles that are too few", &|t| {
        t.data_type = Some(DType::Int4.number());
        t.raw_data = bytes(2);
    });
    gallery.show("bad-input-tensors");
}

/// A change that makes `tensor` stand in another file.
fn external(tensor: &mut Tensor, entries: &[(&str, &str)]) {
    tensor.raw_data = None;
    tensor.data_location = Some(LOCATION_EXTERNAL);
    tensor.external_data = entries.iter().map(|(key, value)| StringStringEntryProto::new(*key, *value)).collect();
}

#[test]
fn data_files_that_are_missing_short_or_elsewhere() {
    let mut gallery = Gallery::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), [0; 64]).unwrap();
    fs::write(gallery.folder.path().join("weights.bin"), [0; 20]).unwrap();
    fs::create_dir(gallery.folder.path().join("sub")).unwrap();
    let mut show = |what: &str, entries: &[(&str, &str)]| {
        gallery.model(what, &small_with(|g| external(&mut g.initializer[0], entries)));
    };
    show("missing", &[("location", "nothing.bin")]);
    show("too short", &[("location", "weights.bin")]);
    show("too short from its offset", &[("location", "weights.bin"), ("offset", "16")]);
    show("an offset beyond everything", &[("location", "weights.bin"), ("offset", "18446744073709551615")]);
    show("a length of other dims", &[("location", "weights.bin"), ("length", "12")]);
    show("an offset that is no number", &[("location", "weights.bin"), ("offset", "zwei")]);
    show("a negative offset", &[("location", "weights.bin"), ("offset", "-4")]);
    show("a length that is no number", &[("location", "weights.bin"), ("length", "1e3")]);
    show("no location", &[("offset", "0")]);
    show("an empty location", &[("location", "")]);
    show("a folder", &[("location", "sub")]);
    show("outside, by ..", &[("location", "../secret")]);
    show("outside, by .. in the middle", &[("location", "sub/../../secret")]);
    show("outside, as an absolute path", &[("location", "/etc/hostname")]);
    show("a NUL in the location", &[("location", "wei\0ghts.bin")]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(outside.path().join("secret"), gallery.folder.path().join("link.bin")).unwrap();
        std::os::unix::fs::symlink(outside.path(), gallery.folder.path().join("door")).unwrap();
        let mut show = |what: &str, entries: &[(&str, &str)]| {
            gallery.model(what, &small_with(|g| external(&mut g.initializer[0], entries)));
        };
        show("outside, through a link", &[("location", "link.bin")]);
        show("outside, through a link to a folder", &[("location", "door/secret")]);
    }
    gallery.show("bad-input-data-files");
}

#[test]
fn recipes_that_cannot_be_drawn() {
    let mut gallery = Gallery::new();
    let good =
        [("location", "porter-fill"), ("distribution", "uniform"), ("mean", "0.5"), ("std", "0.1"), ("seed", "7")];
    let mut show = |what: &str, key: &str, value: Option<&str>, change: &dyn Fn(&mut Tensor)| {
        let entries: Vec<_> = good
            .iter()
            .filter_map(|&(k, v)| if k == key { value.map(|value| (k, value)) } else { Some((k, v)) })
            .collect();
        let model = small_with(|g| {
            external(&mut g.initializer[0], &entries);
            change(&mut g.initializer[0]);
        });
        gallery.model(what, &model);
    };
    show("another distribution", "distribution", Some("normal"), &|_| {});
    show("no mean", "mean", None, &|_| {});
    show("a mean that is no number", "mean", Some("about 3"), &|_| {});
    show("a mean that is infinite", "mean", Some("inf"), &|_| {});
    show("no std", "std", None, &|_| {});
    show("no seed", "seed", None, &|_| {});
    show("a negative seed", "seed", Some("-1"), &|_| {});
    show("a seed of 65 bits", "seed", Some("18446744073709551616"), &|_| {});
    show("a type that cannot be drawn", "", None, &|t| t.data_type = Some(DType::Bool.number()));
    show("strings", "", None, &|t| t.data_type = Some(DType::String.number()));
    show("more than a disk holds", "", None, &|t| t.dims = vec![1 << 40, 1 << 10]);
    show("a negative size", "", None, &|t| t.dims = vec![-2, 3]);
    gallery.show("bad-input-recipes");
}

#[test]
fn outputs_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let model = path("model.onnx");
    fs::write(&model, encode(&small())).unwrap();
    fs::create_dir(path("folder")).unwrap();
    fs::write(path("file"), "").unwrap();
    let before = listing(folder.path());
    let mut text = String::new();
    for output in ["missing/out.onnx", "folder", "file/out.onnx", "no\0pe.onnx"] {
        for command in ["strip", "hydrate"] {
            if output.contains('\0') {
                continue; // the system refuses such an argument before porter sees it
            }
            let (code, stdout, stderr) = run(porter().arg(command).arg(&model).arg("-o").arg(path(output)));
            assert_eq!((code, stdout.as_str()), (2, ""), "{output}: {stderr}");
            assert!(!stderr.contains("panicked"), "{stderr}");
            text.push_str(&format!("# {command} -o {output}\n{}\n", redact(&stderr, folder.path())));
        }
    }
    assert_eq!(listing(folder.path()), before);
    assert_eq!(fs::read(&model).unwrap(), encode(&small()));
    common::snapshots().bind(|| insta::assert_snapshot!("bad-input-outputs", text.trim_end()));
}

/// Root may write anywhere, so this says nothing there.
#[test]
#[cfg(unix)]
fn a_folder_without_write_permission() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    fs::write(&model, encode(&small())).unwrap();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    let (code, _, stderr) = run(porter().arg("hydrate").arg(&model).arg("-o").arg(closed.join("out.onnx")));
    if fs::write(closed.join("probe"), "").is_ok() {
        assert_eq!(code, 0, "{stderr}");
        return;
    }
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("cannot be written") && stderr.contains("out.onnx"), "{stderr}");
    assert_eq!(listing(&closed).len(), 0);
}

/// Not even root makes a file in /sys.
#[test]
#[cfg(target_os = "linux")]
fn a_place_that_cannot_be_written_to_is_no_bad_input() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    fs::write(&model, encode(&small())).unwrap();
    for command in [vec!["strip"], vec!["hydrate"], vec!["lower"], vec!["prepare", "-t", "ort", "--no-check"]] {
        let (code, _, stderr) = run(porter().args(&command).arg(&model).args(["-o", "/sys/porter-test"]));
        assert_eq!(code, 3, "{command:?}: {stderr}");
        assert!(stderr.contains("/sys"), "{command:?}: {stderr}");
    }
}

#[test]
fn the_input_may_be_the_output() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    fs::copy(common::model_path("yolo26n-cls.onnx"), &model).unwrap();
    common::run_fine(porter().arg("hydrate").arg(&model).arg("-o").arg(&model));
    let (read, was) = (porter::onnx::read(&model).unwrap(), common::model_path("yolo26n-cls.onnx"));
    assert_eq!(read.graph.unwrap().node, porter::onnx::read(&was).unwrap().graph.unwrap().node);
    // Weights that are taken out would be nowhere else.
    let (code, _, stderr) = run(porter().arg("strip").arg(&model).arg("-o").arg(&model));
    assert_eq!(code, 2);
    assert!(stderr.contains("model.onnx: would be overwritten by its stripped form"), "{stderr}");
    assert_eq!(listing(folder.path()).len(), 1);
}

#[test]
#[cfg(unix)]
fn a_device_is_written_to_and_not_replaced() {
    use std::os::unix::fs::FileTypeExt;
    common::run_fine(porter().arg("hydrate").arg(common::model_path("yolo26n-cls.onnx")).args(["-o", "/dev/null"]));
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    let (code, _, stderr) = run(porter().args(["strip", "/dev/zero", "-o", "/dev/null"]));
    assert_eq!((code, stderr.as_str()), (2, "error: /dev/zero: is a device, not a model file\n"));
}

#[test]
fn a_chain_of_a_hundred_thousand_nodes_is_read_in_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let name = |i: usize| format!("v{i}");
    const COUNT: usize = 100_000;
    let chain = |turn: bool| {
        small_with(|g| {
            g.input[0].name = Some(name(0));
            g.output[0].name = Some(name(COUNT));
            g.node = (0..COUNT).map(|i| node("Relu", &[&name(i)], &[&name(i + 1)])).collect();
            if turn {
                g.node.reverse();
            }
        })
    };
    for turn in [false, true] {
        let path = folder.path().join("model.onnx");
        fs::write(&path, encode(&chain(turn))).unwrap();
        let start = std::time::Instant::now();
        let model = porter::load(&path).unwrap();
        assert_eq!(model.graph.node_count(), COUNT);
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    }
    // A cycle through all of them, and the search for it.
    let ring = small_with(|g| {
        g.node = (0..COUNT).map(|i| node("Relu", &[&name((i + COUNT - 1) % COUNT)], &[&name(i)])).collect();
        g.output[0].name = Some(name(0));
    });
    fs::write(folder.path().join("ring.onnx"), encode(&ring)).unwrap();
    let start = std::time::Instant::now();
    let told = refusal(folder.path(), "ring.onnx");
    assert!(told.contains("stands on a cycle"), "{told}");
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

/// Cuts a file at `end` and says whether what is left reads; it may never panic.
fn reads_cut(folder: &Path, bytes: &[u8], end: usize) -> bool {
    let path = folder.join("cut.onnx");
    fs::write(&path, &bytes[..end]).unwrap();
    match porter::load(&path) {
        Ok(_) => true,
        Err(error) => {
            assert!(error.to_string().contains("cut.onnx"), "{error}");
            false
        }
    }
}

#[test]
fn a_model_cut_anywhere_is_refused_or_still_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = encode(&small());
    let whole = (0..=bytes.len()).filter(|&end| reads_cut(folder.path(), &bytes, end)).count();
    // `opset_import` is the last field that is written: only the whole file is a model.
    assert_eq!(whole, 1);
    let mut told: Vec<String> = Vec::new();
    for end in 0..bytes.len() {
        let path = folder.path().join("cut.onnx");
        fs::write(&path, &bytes[..end]).unwrap();
        let line = redact(&porter::load(&path).unwrap_err().to_string(), folder.path());
        let line =
            line.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>().replace("00", "0");
        if told.last() != Some(&line) && !told.contains(&line) {
            told.push(line);
        }
    }
    common::snapshots().bind(|| insta::assert_snapshot!("bad-input-cut", told.join("\n")));
}

#[test]
fn real_models_cut_anywhere_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for path in [common::model_path("yolo26n.onnx"), common::fetched_model("nudenet/3.4.2/320n.onnx")] {
        let bytes = fs::read(&path).unwrap();
        let step = bytes.len() / 40;
        for end in (0..bytes.len()).step_by(step).chain(bytes.len() - 5..bytes.len()) {
            assert!(!reads_cut(folder.path(), &bytes, end), "{} cut at {end}", path.display());
        }
        fs::write(folder.path().join("cut.onnx"), &bytes[..bytes.len() / 2]).unwrap();
        let told = refusal(folder.path(), "cut.onnx");
        assert!(told.contains("cut short"), "{told}");
        fs::remove_file(folder.path().join("cut.onnx")).unwrap();
    }
}

/// Bytes that look like nothing, the same every time.
fn random(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}
