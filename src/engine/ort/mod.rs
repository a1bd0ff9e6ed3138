//! ONNX Runtime, from a library found on this machine (see [`find`]).
//!
//! The reference is [`Ort::reference`]: the CPU provider with graph optimisation off, so that what it computes is what
//! the file says, operator by operator.
//!
//! With a [`Provider`] something else computes: a GPU, another library. ONNX Runtime runs what a provider does not take on
//! the CPU and says nothing; here that is an error that names the nodes, unless it is asked for, and every session
//! of a provider says which nodes run where.

mod builtin;
mod library;
mod placement;
mod provider;
mod shared;
mod value;

use ort::AsPointer;
use ort::session::Session as OrtRuntimeSession;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use serde::{Deserialize, Serialize};

use shared::Shared;

pub use library::{Library, TESTED, find, in_package, locate, locate_for};
pub use provider::{Plugin, Provider};

use super::{Engine, EngineError, Placement, Session, Tensors, emulate, in_order, quiet};
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

/// ONNX Runtime, on the CPU or with a provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ort {
    /// How far it may rewrite the graph.
    pub optimisation: Optimisation,
    /// Threads within an operator; 0 leaves the choice to the library.
    pub threads: usize,
    /// What computes; ONNX Runtime's own CPU provider where it is none.
    #[serde(default)]
    pub provider: Option<Provider>,
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
        let ort = Self { optimisation, threads: 0, provider: None };
        ort.check()?;
        Ok(ort)
    }

    /// Whether its library is there and loads, and the provider with it.
    ///
    /// # Errors
    /// As [`Ort::reference`].
    pub fn check(&self) -> Result<(), EngineError> {
        match &self.provider {
            Some(provider) => provider.check(),
            None => library::environment(None).map(|_| ()),
        }
    }

    /// Whether sessions are made to take little memory: the reference's are many.
    fn is_frugal(&self) -> bool {
        self.optimisation == Optimisation::Off && self.provider.is_none()
    }

    fn runtime(&self) -> Option<&str> {
        self.provider.as_ref().and_then(|provider| provider.runtime.as_deref())
    }

    fn builder(&self) -> Result<SessionBuilder, EngineError> {
        let told = |error: String| EngineError::Compile { engine: self.name(), code: None, problem: error };
        let environment = library::environment(self.runtime())?;
        let level = match self.optimisation {
            Optimisation::Off => GraphOptimizationLevel::Disable,
            Optimisation::Basic => GraphOptimizationLevel::Level1,
            Optimisation::All => GraphOptimizationLevel::All,
        };
        let start = || -> Result<SessionBuilder, String> {
            let mut builder = SessionBuilder::new(environment).map_err(|error| error.to_string())?;
            builder = builder.with_optimization_level(level).map_err(|error| error.to_string())?;
            if self.threads > 0 {
                builder = builder.with_intra_threads(self.threads).map_err(|error| error.to_string())?;
            }
            if self.is_frugal() {
                builder = frugal(builder)?;
            }
            if self.provider.is_some() {
                let (key, value) = placement::RECORD;
                builder = builder.with_config_entry(key, value).map_err(|error| error.to_string())?;
            }
            builder.with_log_level(ort::logging::LogLevel::Fatal).map_err(|error| error.to_string())
        };
        let builder = start().map_err(told)?;
        match &self.provider {
            Some(provider) => provider.register(builder),
            None => Ok(builder),
        }
    }

    /// Where the nodes run; an error where some run on the CPU and nobody allowed it.
    fn placement(&self, session: &OrtRuntimeSession, model: &Model) -> Result<Option<Placement>, EngineError> {
        let Some(provider) = &self.provider else { return Ok(None) };
        let failed = |problem: String| EngineError::Compile { engine: self.name(), code: None, problem };
        let assigned = placement::assigned(session)
            .map_err(|problem| failed(format!("ONNX Runtime does not say where the nodes run: {problem}")))?;
        let mut counts = Placement::new();
        assigned.iter().for_each(|node| *counts.entry(node.provider.clone()).or_default() += 1);
        let fallen: Vec<_> = assigned.iter().filter(|node| node.provider == placement::CPU).collect();
        let Some(first) = fallen.first().filter(|_| !provider.partial) else { return Ok(Some(counts)) };
        let node = if first.node.is_empty() { &first.op_type } else { &first.node };
        let mut others: Vec<&str> = fallen.iter().map(|node| node.op_type.as_str()).collect();
        others.sort_unstable();
        others.dedup();
        let free = model.graph.inputs.iter().any(|&id| model.graph.value(id).static_shape().is_none());
        let hint = if free { ". The model has free sizes, which may be why: fix them first" } else { "" };
        // A name in the message should be one of the model's, which fusions may have made up.
        let known = model.graph.nodes().any(|(_, own)| own.name == *node);
        Err(EngineError::Unsupported {
            engine: self.name(),
            node: if known { node.clone() } else { format!("{node} (made by ONNX Runtime)") },
            op_type: first.op_type.clone(),
            problem: format!(
                "ONNX Runtime put {} of {} nodes on the CPU, since the {} does not take them ({}). `porter prepare --target \
                 {label}` cuts them off; `{label}:partial` as the target lets them run on the CPU{hint}",
                fallen.len(),
                assigned.len(),
                provider.name,
                others.join(", "),
                label = provider.label,
            ),
        })
    }
}

impl Engine for Ort {
    fn name(&self) -> String {
        if let Some(provider) = &self.provider {
            return provider.label.clone();
        }
        match self.optimisation {
            Optimisation::Off => "ort".into(),
            Optimisation::Basic => "ort (basic optimisation)".into(),
            Optimisation::All => "ort (all optimisations)".into(),
        }
    }

    fn version(&self) -> String {
        let own = format!("onnxruntime {} {:?}", library::version(self.runtime()), self.optimisation).to_lowercase();
        match &self.provider {
            Some(provider) => format!("{own} {}", provider.version()),
            None => own,
        }
    }

    fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
        let name = self.name();
        let failed = |problem: String| EngineError::Compile { engine: name.clone(), code: None, problem };
        let expanded = emulate::with_casts(model);
        let mut proto = expanded.as_ref().unwrap_or(model).to_proto();
        let mut shared = Shared::default();
        let start = || -> Result<OrtRuntimeSession, EngineError> {
            let mut builder = self.builder()?;
            if self.is_frugal() {
                (builder, shared) = shared::share(&mut proto, builder).map_err(failed)?;
            }
            let made = if prost::Message::encoded_len(&proto) > LARGE {
                // Files that the model names are looked for beside it.
                let folder = match shared.folder.take() {
                    Some(folder) => folder,
                    None => tempfile::tempdir().map_err(|error| failed(error.to_string()))?,
                };
                let path = folder.path().join("model.onnx");
                onnx::write_with_limit(&path, &proto, LARGE).map_err(|error| failed(error.to_string()))?;
                builder.commit_from_file(&path)
            } else {
                builder.commit_from_memory(&onnx::encode(&proto))
            };
            made.map_err(|error| compile_error(&name, model, &error))
        };
        let session = quiet::catch(start).map_err(failed)??;
        let placement = self.placement(&session, model)?;
        let outputs = model.graph.outputs.iter().map(|&id| model.graph.value(id).name.clone()).collect();
        let inputs = session.inputs().iter().map(|input| input.name().to_string()).collect();
        Ok(Box::new(OrtSession { name, session, inputs, outputs, placement, _weights: shared.weights }))
    }
}

/// A session that holds no memory and no core once its run is over: references are many, and each runs once or twice.
///
/// With an arena, one result that is kept keeps everything that the session ever allocated, rounded up to a power of two.
fn frugal(mut builder: SessionBuilder) -> Result<SessionBuilder, String> {
    // SAFETY: the options are alive and ours alone; the status that comes back is taken over by the error.
    unsafe {
        let status = (ort::api().DisableCpuMemArena)(builder.ptr_mut());
        ort::Error::result_from_status(status).map_err(|error| error.message().to_string())?;
    }
    // Waiting threads sleep: a core that spins is one less for what stands beside the reference.
    builder.with_config_entry("session.intra_op.allow_spinning", "0").map_err(|error| error.to_string())
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
    placement: Option<Placement>,
    /// What the session reads of porter's own memory; dropped after it.
    _weights: Vec<bytes::Bytes>,
}

impl Session for OrtSession {
    fn placement(&self) -> Option<&Placement> {
        self.placement.as_ref()
    }

    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, EngineError> {
        let engine = &self.name;
        let failed = |problem: String| EngineError::Run { engine: engine.clone(), code: None, problem };
        let given = in_order(engine, &self.inputs, inputs)?;
        let mut values = Vec::with_capacity(given.len());
        let mut kept = Vec::with_capacity(given.len());
        for (name, tensor) in self.inputs.iter().zip(given) {
            let value::Input { value, bytes } = value::to_ort(tensor).map_err(|problem| EngineError::Input {
                engine: engine.clone(),
                input: name.clone(),
                problem,
            })?;
            kept.push(bytes);
            values.push((name.clone(), ort::session::SessionInputValue::from(value)));
        }
        let results = quiet::catch(|| self.session.run(values)).map_err(failed)?;
        let mut results = results.map_err(|error| failed(error.message().to_string()))?;
        let mut outputs = Tensors::with_capacity(self.outputs.len());
        for name in &self.outputs {
            let value = results.remove(name).ok_or_else(|| failed(format!("output '{name}' did not come back")))?;
            let tensor =
                value::from_ort(name, value, &kept).map_err(|problem| failed(format!("output '{name}' {problem}")))?;
            outputs.insert(name.clone(), tensor);
        }
        Ok(outputs)
    }
}
