//! The XLA worker by its own protocol: for modules in either form, with weights beside them, as no engine hands them over.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use porter::engine::{Tensors, worker};
use porter::lower::Lowered;
use serde_json::{Value, json};

/// A worker's process with a folder for what goes to and fro.
pub struct XlaWorker {
    process: Child,
    ask: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    folder: tempfile::TempDir,
    asked: u64,
}

impl XlaWorker {
    pub fn start() -> Self {
        let mut process =
            super::python("../workers/xla.py").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (ask, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let folder = tempfile::tempdir().unwrap();
        Self { process, ask, answers: BufReader::new(answers).lines(), folder, asked: 0 }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        writeln!(self.ask, "{}", json!({ "id": self.asked, "method": method, "params": params })).unwrap();
        let answer: Value = serde_json::from_str(&self.answers.next().unwrap().unwrap()).unwrap();
        assert!(answer.get("error").is_none(), "{answer}");
        answer["result"].clone()
    }

    /// Compiles what stands in `file` and runs it once. `form` is `hlo` or `stablehlo`; a lowered model's weights, if it has
    /// some, stand in `weights.safetensors`.
    pub fn run(&mut self, form: &str, file: &str, lowered: &Lowered, inputs: &Tensors) -> Tensors {
        let names = |list: Vec<&String>| list.into_iter().cloned().collect::<Vec<_>>();
        let weights = (!lowered.weights.is_empty()).then(|| {
            let names = names(lowered.weights.iter().map(|(name, _)| name).collect());
            json!({ "file": self.at("weights.safetensors"), "names": names })
        });
        let options = json!({
            "inputs": names(lowered.inputs.iter().map(|(name, _)| name).collect()),
            "outputs": names(lowered.outputs.iter().map(|(name, _)| name).collect()),
            "weights": weights,
        });
        let (given, got) = (self.at("in.safetensors"), self.at("out.safetensors"));
        worker::write_tensors(&given, inputs.iter().map(|(name, tensor)| (name.as_str(), tensor))).unwrap();
        let made = self.call("compile", json!({ "format": form, "model": self.at(file), "options": options }));
        self.call("run", json!({ "handle": made["handle"], "inputs": given, "outputs": got }));
        worker::read_tensors(&got).unwrap()
    }
}

impl Drop for XlaWorker {
    fn drop(&mut self) {
        let _ = writeln!(self.ask, "{}", json!({ "id": 0, "method": "quit" }));
        let _ = self.process.wait();
    }
}
