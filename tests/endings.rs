//! How commands end when something goes wrong: what stands on standard output and on the disk, and with which exit code.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::build::*;
use common::{model_path, porter, run};
use porter::onnx::DType;
use porter::onnx::encode;
use serde_json::Value;

/// Every name in a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[test]
fn a_failure_is_one_json_document_where_json_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("cut.onnx"), &encode(&small())[..40]).unwrap();
    fs::write(at("rule.yaml"), "rule: broken\nwhat: [\n").unwrap();
    fs::create_dir(at("rules")).unwrap();
    fs::rename(at("rule.yaml"), at("rules/rule.yaml")).unwrap();
    fs::write(at("target.yaml"), "target: mine\nnonsense: 1\n").unwrap();
    let lines = [
        "prepare cut.onnx --target cpu",
        "prepare missing.onnx --target cpu",
        "prepare cut.onnx --target nowhere",
        "prepare cut.onnx --target cpu --dtype int8",
        "prepare cut.onnx",
        "inspect cut.onnx",
        "strip cut.onnx -o out.onnx",
        "hydrate missing.onnx -o out.onnx",
        "lower cut.onnx",
        "run cut.onnx",
        "bench cut.onnx",
        "verify cut.onnx --target cpu",
        "bisect cut.onnx --target cpu",
        "sweep cut.onnx --target cpu --batch 1..2",
        "rules show nothing",
        "rules list --rules rules",
        "targets show nothing",
        "targets list --targets target.yaml",
        "runtime install nothing",
        "doctor nothing",
        "nonsense",
    ];
    for line in lines {
        let (code, stdout, stderr) = run(porter().args(words(line)).arg("--json").current_dir(folder.path()));
        assert!(!stderr.contains("panicked"), "{line}: {stderr}");
        let document: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{line}: {error}: {stdout}"));
        let error = &document["error"];
        assert_eq!(error["code"], code, "{line}: {stdout}");
        assert!(code != 0 && error["message"].as_str().is_some_and(|said| !said.is_empty()), "{line}: {stdout}");
        assert!(error.get("place").is_some() && !stderr.is_empty(), "{line}: {stdout}{stderr}");
    }
    assert_eq!(names(folder.path()), ["cut.onnx", "rules", "target.yaml"]);
    let place = |line: &str| {
        let (_, stdout, _) = run(porter().args(words(line)).arg("--json").current_dir(folder.path()));
        serde_json::from_str::<Value>(&stdout).unwrap()["error"]["place"].as_str().unwrap_or_default().to_string()
    };
    assert_eq!(place("inspect cut.onnx"), "cut.onnx");
    assert_eq!(place("targets list --targets target.yaml"), "target.yaml:2");
}

#[test]
fn names_from_a_model_do_not_steer_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_with(|g| {
        let name = "x\u{1b}[31m\n\u{9b}2J\u{202e}y";
        g.input[0] = info(name, DType::Float, &[2, 3]);
        g.node[0].input[0] = name.into();
        g.node[1].name = Some("a\u{7}b/c\u{1b}]0;title\u{7}".into());
    });
    let path = folder.path().join("model.onnx");
    fs::write(&path, encode(&model)).unwrap();
    let bundle = folder.path().join("bundle");
    let harmless = |text: &str| text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}'));
    for (line, more) in [("inspect", vec!["--target", "neuron"]), ("prepare", vec!["--target", "coreml", "--explain"])]
    {
        for json in [false, true] {
            let mut command = porter();
            command.arg(line).arg(&path).args(&more).args(json.then_some("--json"));
            if line == "prepare" {
                command.arg("-o").arg(&bundle);
            }
            let (code, stdout, stderr) = run(&mut command);
            assert_eq!(code, 0, "{line}: {stderr}");
            assert!(harmless(&stdout) && harmless(&stderr), "{line}: {stdout:?} {stderr:?}");
            assert!(stdout.contains("31m"), "{line}: the name is not shown: {stdout}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_does_not_arrive_is_told_and_a_closed_pipe_is_not() {
    for line in ["targets list", "rules list --json", "--help", "--version"] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let done = porter().args(words(line)).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(3), "{line}: {stderr}");
        assert!(stderr.starts_with("error: standard output: "), "{line}: {stderr}");
    }
    // Both ends closed, of standard output and of standard error.
    let program = porter().get_program().to_string_lossy().into_owned();
    for line in ["targets list", "--help", "targets show nothing", "rules list --json"] {
        let script = format!("('{program}' {line}; echo $? >&3) 2>&1 3>&4 | true");
        let done = Command::new("sh").args(["-c", &format!("exec 4>&1; {script}")]).output().unwrap();
        let code = String::from_utf8_lossy(&done.stdout);
        let expected = if line.contains("nothing") { "2" } else { "0" };
        assert_eq!(code.trim(), expected, "{line}");
    }
}

#[test]
fn a_bundle_is_not_replaced_over_files_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle");
    let prepare = || {
        let model = model_path("yolo26n-cls.onnx");
        run(porter().arg("prepare").arg(model).args(["--target", "neuron", "--no-check", "-o"]).arg(&bundle))
    };
    assert_eq!(prepare().0, 0);
    assert_eq!(prepare().0, 0, "a bundle as it was written is replaced");
    fs::write(bundle.join("notes.txt"), "mine").unwrap();
    fs::write(bundle.join("model.neff"), "an hour's work").unwrap();
    let (code, _, stderr) = prepare();
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("model.neff, notes.txt") && stderr.contains("-o"), "{stderr}");
    assert_eq!(fs::read_to_string(bundle.join("notes.txt")).unwrap(), "mine");
    fs::remove_file(bundle.join("notes.txt")).unwrap();
    fs::remove_file(bundle.join("model.neff")).unwrap();
    assert_eq!(prepare().0, 0);
    assert_eq!(names(folder.path()), ["bundle"]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_command_leaves_nothing_and_a_killed_one_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = porter();
        command.arg("prepare").arg(model_path("yolo26l.onnx")).args(["--target", "neuron", "-o", "bundle"]);
        let mut child = command.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Until its draft stands there.
        while names(folder.path()).is_empty() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it wrote");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child
    };
    let send = |signal: &str, child: &std::process::Child| {
        Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
    };
    for signal in ["INT", "TERM", "HUP"] {
        let mut child = start();
        send(signal, &child);
        let status = child.wait().unwrap();
        assert!(status.code().is_none(), "{signal}: it must die of the signal: {status}");
        assert_eq!(names(folder.path()), Vec::<String>::new(), "{signal}");
    }
    let mut child = start();
    send("KILL", &child);
    child.wait().unwrap();
    assert_eq!(names(folder.path()).len(), 1, "nothing can clean after a kill");
    let (code, _, stderr) = run(porter()
        .arg("strip")
        .arg(model_path("yolo26n.onnx"))
        .args(["-o", "small.onnx"])
        .current_dir(folder.path()));
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(names(folder.path()), ["small.onnx"]);
}
