//! What integration tests share: where models and engines are, the built binary, and small models made by hand.

#![allow(dead_code)] // every test binary uses its own part of this

pub mod build;
pub mod generate;
pub mod xla_worker;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use porter::engine::ort::Library;
use porter::graph::Model;

/// The command that installs what the tests need.
const SETUP: &str = "run `python3 tests/run.py` once: it installs what the tests need";

/// A stripped model of the repository, as a graph: `model("yolo26n.onnx")`.
pub fn model(file: &str) -> Model {
    porter::load(&model_path(file)).unwrap_or_else(|error| panic!("{error}"))
}

/// The file of a stripped model of the repository.
pub fn model_path(file: &str) -> PathBuf {
    let path = repository().join("tests/models").join(file);
    assert!(path.is_file(), "{} is not there", path.display());
    path
}

/// Every stripped model of the repository, by name.
pub fn model_paths() -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(repository().join("tests/models")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    files.sort();
    assert!(files.len() >= 17, "test models are missing");
    files
}

/// A real trained model out of a package: `fetched_model("nudenet/3.4.2/320n.onnx")`.
pub fn fetched_model(file: &str) -> PathBuf {
    let path = PathBuf::from(installed("PORTER_MODELS")).join(file);
    assert!(path.is_file(), "{} is not there; {SETUP}", path.display());
    path
}

/// Every real trained model.
pub fn fetched_models() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(installed("PORTER_MODELS"))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|_| panic!("{} is not there; {SETUP}", folder.display()))
        {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    files
}

/// The folder of ONNX's backend test cases, with `cases.json` in it.
pub fn node_cases() -> PathBuf {
    let path = PathBuf::from(installed("PORTER_NODE_CASES"));
    assert!(path.join("cases.json").is_file(), "{} is not there; {SETUP}", path.display());
    path
}

/// ONNX Runtime's library. A missing one fails the test: a test that skips itself proves nothing.
pub fn ort_library() -> Library {
    let path = PathBuf::from(installed("PORTER_ORT"));
    assert!(path.is_file(), "{} is not there; {SETUP}", path.display());
    Library { path, source: "PORTER_ORT" }
}

/// A Python script of the tests, to be run with the onnx package and ONNX Runtime at hand.
pub fn python(script: &str) -> Command {
    let mut command = Command::new(installed("PORTER_PYTHON"));
    command.arg(repository().join("tests").join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// The built `porter`, with colours and the environment's own settings out of the way.
pub fn porter() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_porter"));
    command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "0").env("PORTER_ORT", installed("PORTER_ORT"));
    command
}

/// Runs a command and gives back its exit code, standard output and standard error.
pub fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// As [`run`], for a command that must end well.
pub fn run_fine(command: &mut Command) -> String {
    let (code, stdout, stderr) = run(command);
    assert_eq!(code, 0, "{command:?}\n{stdout}\n{stderr}");
    stdout
}

/// Settings under which snapshots land in the top-level `snapshots/`.
pub fn snapshots() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(repository().join("snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

/// `text` with the path of a test's own folder said as `<folder>`.
pub fn redact(text: &str, folder: &Path) -> String {
    text.replace(&format!("{}", folder.display()), "<folder>")
}

/// The repository's folder.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `tests/run.py` said: in the environment, else in the file that it leaves behind.
fn installed(name: &str) -> String {
    if let Ok(value) = std::env::var(name) {
        return value;
    }
    let file = repository().join(".porter/env");
    let lines = std::fs::read_to_string(&file).unwrap_or_else(|_| panic!("{name} is not set; {SETUP}"));
    let found = lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("{name} is not set; {SETUP}")).to_string()
}
