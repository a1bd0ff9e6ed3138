//! The other side of the protocol: an engine of porter's answers requests.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::protocol::{Answer, Call, Fault, Request, VERSION};
use crate::engine::{Engine, EngineError, Session, Tensors};
use crate::onnx::safetensors;

/// Answers requests until the input ends or somebody says quit. `engine` is `Err` where the engine is not there; whoever
/// says hello is told why.
///
/// # Errors
/// The input or the output broke.
pub fn serve(
    engine: Result<Box<dyn Engine>, EngineError>,
    input: impl BufRead,
    mut output: impl Write,
) -> io::Result<()> {
    let mut server = Server { engine, sessions: HashMap::new(), made: 0 };
    for line in input.lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let (id, outcome) = match serde_json::from_str::<Request>(&line) {
            Ok(Request { call: Call::Quit {}, .. }) => return Ok(()),
            Ok(Request { id, call }) => (id, server.answer(call)),
            Err(error) => {
                let id = serde_json::from_str::<Value>(&line).ok().and_then(|value| value.get("id")?.as_u64());
                (id.unwrap_or(0), Err(plain(format!("the request makes no sense: {error}"))))
            }
        };
        let answer = match outcome {
            Ok(result) => Answer { id, result: Some(result), error: None },
            Err(fault) => Answer { id, result: None, error: Some(*fault) },
        };
        serde_json::to_writer(&mut output, &answer)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

fn refused(error: &EngineError) -> Box<Fault> {
    Box::new(Fault::of(error))
}

fn plain(message: impl Into<String>) -> Box<Fault> {
    Box::new(Fault { message: message.into(), ..Fault::default() })
}

struct Server {
    engine: Result<Box<dyn Engine>, EngineError>,
    sessions: HashMap<String, Box<dyn Session>>,
    made: usize,
}

impl Server {
    fn answer(&mut self, call: Call) -> Result<Value, Box<Fault>> {
        let engine = self.engine.as_ref().map_err(refused)?;
        match call {
            Call::Hello { protocol: VERSION } => Ok(json!({
                "protocol": VERSION,
                "name": engine.name(),
                "version": engine.version(),
                "accepts": ["onnx"],
            })),
            Call::Hello { protocol } => {
                Err(plain(format!("version {protocol} of the protocol is asked for, and this is {VERSION}")))
            }
            Call::Compile { format, model, .. } => {
                if format != "onnx" {
                    return Err(plain(format!("it compiles onnx, not {format}")));
                }
                let start = Instant::now();
                let model = crate::load(&model).map_err(|error| plain(error.to_string()))?;
                let session = engine.compile(&model).map_err(|error| refused(&error))?;
                self.made += 1;
                let handle = format!("m{}", self.made);
                let answer = json!({
                    "handle": handle,
                    "seconds": start.elapsed().as_secs_f64(),
                    "placement": session.placement(),
                });
                self.sessions.insert(handle, session);
                Ok(answer)
            }
            Call::Run { handle, inputs, outputs, repeat } => {
                let session = self.sessions.get_mut(&handle);
                let session = session.ok_or_else(|| plain(format!("there is no compiled model '{handle}'")))?;
                run(session.as_mut(), &inputs, &outputs, repeat)
            }
            Call::Release { handle } => {
                self.sessions.remove(&handle);
                Ok(json!({}))
            }
            Call::Quit {} => Ok(json!({})),
        }
    }
}

fn run(session: &mut dyn Session, inputs: &Path, outputs: &Path, repeat: usize) -> Result<Value, Box<Fault>> {
    let given = safetensors::read(inputs).map_err(|error| plain(format!("inputs: {error}")))?;
    let mut seconds = Vec::with_capacity(repeat);
    let mut results = Tensors::new();
    for _ in 0..repeat.max(1) {
        let start = Instant::now();
        results = session.run(&given).map_err(|error| refused(&error))?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let named = results.iter().map(|(name, tensor)| (name.as_str(), tensor));
    safetensors::write(outputs, named).map_err(|error| plain(format!("output {error}")))?;
    Ok(json!({ "seconds": seconds }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tract::Tract;
    use crate::graph::builder::Build;
    use crate::onnx::{self, DType, Tensor};

    fn told(requests: &str) -> Vec<Value> {
        let mut output = Vec::new();
        serve(Ok(Box::new(Tract)), requests.as_bytes(), &mut output).unwrap();
        let text = String::from_utf8(output).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_model_is_compiled_run_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[2]);
        let y = build.op("Relu", "relu", &[x]);
        onnx::write(&path("m.onnx"), &build.finish(&[y]).to_proto()).unwrap();
        safetensors::write(&path("in"), [("x", &Tensor::from_f32("x", &[2], &[-1.0, 2.0]))]).unwrap();
        let (model, given, got) = (path("m.onnx"), path("in"), path("out"));
        let requests = [
            json!({"id": 1, "method": "hello", "params": {"protocol": 1}}),
            json!({"id": 2, "method": "compile", "params": {"format": "onnx", "model": model, "options": {}}}),
            json!({"id": 3, "method": "run", "params": {"handle": "m1", "inputs": given, "outputs": got, "repeat": 2}}),
            json!({"id": 4, "method": "release", "params": {"handle": "m1"}}),
            json!({"id": 5, "method": "run", "params": {"handle": "m1", "inputs": given, "outputs": got}}),
            json!({"id": 6, "method": "quit", "params": {}}),
            json!({"id": 7, "method": "hello", "params": {"protocol": 1}}),
        ];
        let answers = told(&requests.map(|request| request.to_string()).join("\n"));
        assert_eq!(answers.len(), 5);
        assert_eq!(answers[0]["result"]["name"], "tract");
        assert_eq!(answers[1]["result"]["handle"], "m1");
        assert_eq!(answers[2]["result"]["seconds"].as_array().unwrap().len(), 2);
        assert_eq!(answers[4]["error"]["message"], "there is no compiled model 'm1'");
        assert_eq!(safetensors::read(&got).unwrap()["relu_output_0"].to_f32s().unwrap(), [0.0, 2.0]);
    }

    #[test]
    fn nonsense_is_answered_and_survived() {
        let answers = told(
            "\nwhat?\n{\"id\":9,\"method\":\"dance\"}\n{\"id\":10,\"method\":\"hello\",\"params\":{\"protocol\":2}}\n",
        );
        assert_eq!(answers.iter().map(|answer| answer["id"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 9, 10]);
        assert!(answers.iter().all(|answer| answer.get("error").is_some()));
    }
}
