//! ONNX Runtime, from a library found on this machine (see [`find`]).
//!
//! The reference is [`Ort::reference`]: the CPU provider with graph optimisation off, so that what it computes is what
//! the file says, operator by operator.

mod library;
mod value;

use ort::session::Session as OrtRuntimeSession;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use serde::{Deserialize, Serialize};

pub use library::{Library, TESTED, find, locate};

use super::{Engine, EngineError, Session, Tensors, emulate, in_order, quiet};
use crate::graph::Model;
use crate::onnx;

/// Protobuf's limit, less some room: a larger model goes over as files.
const LARGE: usize = 1 << 30;

/// How far ONNX Runtime may rewrite the graph before it runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimisation {
    /// Not at all.
    Off,
    /// What it calls basic: folding and the removal of what does nothing.
    Basic,
    /// Everything it has, fusions and layouts included.
    All,
}

/// ONNX Runtime on the CPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ort {
    /// How far it may rewrite the graph.
    pub optimisation: Optimisation,
    /// Threads within an operator; 0 leaves the choice to the library.
    pub threads: usize,
}

impl Ort {
    /// The reference: no optimisation.
    ///
    /// # Errors
    /// [`EngineError::Absent`] where there is no library, with what to do about it.
    pub fn reference() -> Result<Self, EngineError> {
        Self::new(Optimisation::Off)
    }

    /// With the given optimisation.
    ///
    /// # Errors
    /// As [`Ort::reference`].
    pub fn new(optimisation: Optimisation) -> Result<Self, EngineError> {
        let ort = Self { optimisation, threads: 0 };
        ort.check()?;
        Ok(ort)
    }

    /// Whether its library is there and loads.
    ///
    /// # Errors
    /// As [`Ort::reference`].
    pub fn check(&self) -> Result<(), EngineError> {
        library::environment().map(|_| ())
    }

    fn builder(&self) -> Result<SessionBuilder, String> {
        let told = |error: ort::Error| error.to_string();
        let environment = library::environment().map_err(|error| error.to_string())?;
        let level = match self.optimisation {
            Optimisation::Off => GraphOptimizationLevel::Disable,
            Optimisation::Basic => GraphOptimizationLevel::Level1,
            Optimisation::All => GraphOptimizationLevel::All,
        };
        let mut builder = SessionBuilder::new(environment).map_err(told)?;
        builder = builder.with_optimization_level(level).map_err(|error| error.to_string())?;
        if self.threads > 0 {
            builder = builder.with_intra_threads(self.threads).map_err(|error| error.to_string())?;
        }
        builder.with_log_level(ort::logging::LogLevel::Fatal).map_err(|error| error.to_string())
    }
}

impl Engine for Ort {
    fn name(&self) -> String {
        match self.optimisation {
            Optimisation::Off => "ort".into(),
            Optimisation::Basic => "ort (basic optimisation)".into(),
            Optimisation::All => "ort (all optimisations)".into(),
        }
    }

    fn version(&self) -> String {
        library::version()
    }

    fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
        let name = self.name();
        let failed = |problem: String| EngineError::Compile { engine: name.clone(), code: None, problem };
        let expanded = emulate::with_casts(model);
        let proto = expanded.as_ref().unwrap_or(model).to_proto();
        let start = || -> Result<OrtRuntimeSession, EngineError> {
            let mut builder = self.builder().map_err(failed)?;
            let made = if prost::Message::encoded_len(&proto) > LARGE {
                let folder = tempfile::tempdir().map_err(|error| failed(error.to_string()))?;
                let path = folder.path().join("model.onnx");
                onnx::write_with_limit(&path, &proto, LARGE).map_err(|error| failed(error.to_string()))?;
                builder.commit_from_file(&path)
            } else {
                builder.commit_from_memory(&onnx::encode(&proto))
            };
            made.map_err(|error| compile_error(&name, model, &error))
        };
        let session = quiet::catch(start).map_err(failed)??;
        let outputs = model.graph.outputs.iter().map(|&id| model.graph.value(id).name.clone()).collect();
        let inputs = session.inputs().iter().map(|input| input.name().to_string()).collect();
        Ok(Box::new(OrtSession { name, session, inputs, outputs }))
    }
}

/// Names the node where ONNX Runtime says that it has no such operator.
fn compile_error(engine: &str, model: &Model, error: &ort::Error) -> EngineError {
    let text = error.message();
    let unknown = text.contains("Could not find an implementation") || text.contains("is not a registered function/op");
    let culprit = model.graph.nodes().find(|(_, node)| {
        let quoted = !node.name.is_empty() && text.contains(&format!("'{}'", node.name));
        let called = text.contains(&format!("for {}(", node.op_type));
        quoted || called || text.contains(&format!("{}:{}(", node.domain, node.op_type))
    });
    match culprit.filter(|_| unknown) {
        Some((id, node)) => EngineError::Unsupported {
            engine: engine.into(),
            node: model.graph.label(id),
            op_type: node.op_type.clone(),
            problem: text.into(),
        },
        None => EngineError::Compile { engine: engine.into(), code: None, problem: text.into() },
    }
}

struct OrtSession {
    name: String,
    session: OrtRuntimeSession,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl Session for OrtSession {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, EngineError> {
        let engine = &self.name;
        let failed = |problem: String| EngineError::Run { engine: engine.clone(), code: None, problem };
        let given = in_order(engine, &self.inputs, inputs)?;
        let mut values = Vec::with_capacity(given.len());
        for (name, tensor) in self.inputs.iter().zip(given) {
            let value = value::to_ort(tensor).map_err(|problem| EngineError::Input {
                engine: engine.clone(),
                input: name.clone(),
                problem,
            })?;
            values.push((name.clone(), ort::session::SessionInputValue::from(value)));
        }
        let results = quiet::catch(|| self.session.run(values)).map_err(failed)?;
        let results = results.map_err(|error| failed(error.message().to_string()))?;
        let mut outputs = Tensors::with_capacity(self.outputs.len());
        for name in &self.outputs {
            let value = results.get(name).ok_or_else(|| failed(format!("output '{name}' did not come back")))?;
            let tensor =
                value::from_ort(name, value).map_err(|problem| failed(format!("output '{name}' {problem}")))?;
            outputs.insert(name.clone(), tensor);
        }
        Ok(outputs)
    }
}
