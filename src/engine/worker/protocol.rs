//! The messages of the worker protocol, as both sides read and write them. `docs/worker-protocol.md` tells them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::engine::EngineError;

/// The version of the protocol that porter speaks.
pub const VERSION: u32 = 1;

/// A request, one line on the worker's standard input.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Counts up; the answer repeats it.
    pub id: u64,
    /// What is wanted.
    #[serde(flatten)]
    pub call: Call,
}

/// What a worker can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "lowercase")]
pub enum Call {
    /// Who is there?
    Hello {
        /// The version that porter speaks.
        protocol: u32,
    },
    /// Make a model ready.
    Compile {
        /// What the file is: `onnx`, `stablehlo`, ...
        format: String,
        /// The file.
        model: PathBuf,
        /// What else the worker may want to know: `inputs` and `outputs`, each a list of name, dtype and shape.
        #[serde(default)]
        options: Map<String, Value>,
    },
    /// Run a compiled model.
    Run {
        /// Which.
        handle: String,
        /// The safetensors file with the inputs.
        inputs: PathBuf,
        /// The safetensors file that the worker writes.
        outputs: PathBuf,
        /// How often.
        #[serde(default = "once")]
        repeat: usize,
    },
    /// Forget a compiled model.
    Release {
        /// Which.
        handle: String,
    },
    /// Exit with 0.
    Quit {},
}

fn once() -> usize {
    1
}

/// An answer: a result or an error.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The request's.
    pub id: u64,
    /// What came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// What went wrong; the worker lives on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault>,
}

/// What a worker says of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// The version of the protocol it speaks.
    pub protocol: u32,
    /// Its name.
    pub name: String,
    /// The version of what computes.
    pub version: String,
    /// What it computes on.
    pub device: String,
    /// The formats it compiles; `onnx` alone where it names none.
    pub accepts: Vec<String>,
}

/// An error that a worker answers with. porter's own workers fill in what tells the kinds of [`EngineError`] apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fault {
    /// What the toolchain calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What happened.
    pub message: String,
    /// A file with more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// `absent`, `unsupported` or `input`; a plain failure without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// With `absent`: what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// With `unsupported`: the node, or with `input`: the input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// With `unsupported`: its operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op_type: Option<String>,
}

impl Fault {
    /// An engine's error as an answer.
    pub fn of(error: &EngineError) -> Self {
        match error.clone() {
            EngineError::Absent { problem, fix, .. } => {
                Self { kind: Some("absent".into()), message: problem, fix: Some(fix), ..Self::default() }
            }
            EngineError::Unsupported { node, op_type, problem, .. } => Self {
                kind: Some("unsupported".into()),
                message: problem,
                node: Some(node),
                op_type: Some(op_type),
                ..Self::default()
            },
            EngineError::Compile { code, problem, .. } | EngineError::Run { code, problem, .. } => {
                Self { code, message: problem, ..Self::default() }
            }
            EngineError::Input { input, problem, .. } => {
                Self { kind: Some("input".into()), message: problem, node: Some(input), ..Self::default() }
            }
        }
    }

    /// The answer as the error it was; `stage` says what a plain failure is.
    pub fn into_error(self, engine: &str, stage: Stage) -> EngineError {
        let engine = engine.to_string();
        let code = self.code.filter(|code| !code.is_empty());
        let problem = match self.log {
            Some(log) => format!("{} (its log: {})", self.message, log.display()),
            None => self.message,
        };
        match self.kind.as_deref() {
            Some("absent") => EngineError::Absent { engine, problem, fix: self.fix.unwrap_or_default() },
            Some("unsupported") => EngineError::Unsupported {
                engine,
                node: self.node.unwrap_or_default(),
                op_type: self.op_type.unwrap_or_default(),
                problem,
            },
            Some("input") => EngineError::Input { engine, input: self.node.unwrap_or_default(), problem },
            _ => stage.failed(engine, code, problem),
        }
    }
}

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Making a model ready.
    Compile,
    /// Running it.
    Run,
}

impl Stage {
    /// The error of this stage.
    pub fn failed(self, engine: String, code: Option<String>, problem: String) -> EngineError {
        match self {
            Stage::Compile => EngineError::Compile { engine, code, problem },
            Stage::Run => EngineError::Run { engine, code, problem },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_the_protocol_says() {
        let request = Request { id: 1, call: Call::Hello { protocol: VERSION } };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(text, r#"{"id":1,"method":"hello","params":{"protocol":1}}"#);
        let text = serde_json::to_string(&Request { id: 5, call: Call::Quit {} }).unwrap();
        assert_eq!(text, r#"{"id":5,"method":"quit","params":{}}"#);
        let run = r#"{"id":3,"method":"run","params":{"handle":"m1","inputs":"a","outputs":"b"}}"#;
        let request: Request = serde_json::from_str(run).unwrap();
        assert!(matches!(request.call, Call::Run { repeat: 1, .. }));
    }

    #[test]
    fn errors_keep_their_kind_on_the_way() {
        let errors = [
            EngineError::Absent { engine: "e".into(), problem: "p".into(), fix: "f".into() },
            EngineError::Unsupported {
                engine: "e".into(),
                node: "n".into(),
                op_type: "TopK".into(),
                problem: "p".into(),
            },
            EngineError::Compile { engine: "e".into(), code: Some("NCC_EVRF029".into()), problem: "p".into() },
            EngineError::Input { engine: "e".into(), input: "x".into(), problem: "is missing".into() },
        ];
        for error in errors {
            let text = serde_json::to_string(&Fault::of(&error)).unwrap();
            let back: Fault = serde_json::from_str(&text).unwrap();
            assert_eq!(back.into_error("e", Stage::Compile), error);
        }
    }
}
