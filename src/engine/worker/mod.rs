//! Workers: engines in processes of their own, reached over the worker protocol (`docs/worker-protocol.md`).
//!
//! A [`Worker`] is any program that speaks the protocol: a vendor's Python package behind a script, a remote shell, or
//! porter itself ([`serve`]). Whatever happens to it is a result and not an accident. An answer that is an error keeps its
//! code; a crash is `signal:11`, an exit `exit:70`, a hang `timeout`, an answer that makes no sense `protocol`. After such an
//! end the request at hand has failed, and the next one gets a fresh process, in which the model is compiled again.
//!
//! A session has its process to itself while it lives, so sessions do not wait for each other, and one that crashes takes
//! no other with it. A process whose session is gone serves the next one.

mod leftover;
mod log;
mod process;
mod protocol;
mod serve;
mod system;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::{Engine, EngineError, Placement, Session, Tensors, emulate, in_order};
use crate::graph::{Dim, Model};
use crate::onnx::{self, DType, safetensors};

use process::{Death, Process};
use protocol::{Call, Stage};

pub use crate::onnx::safetensors::{TensorFileError, read as read_tensors, write as write_tensors};
pub use process::{Limits, Start};
pub use protocol::Hello;
pub use serve::serve;

/// What porter's Python workers have in common; it must lie beside them.
pub const PYTHON_MODULE: (&str, &str) = ("porter_worker.py", include_str!("../../../workers/porter_worker.py"));

/// Processes without a session that are kept for the next one.
const IDLE: usize = 2;

/// How a model becomes the file that a worker compiles.
pub trait Form: Send + Sync {
    /// The format's name in the protocol: `onnx`, `stablehlo`.
    fn format(&self) -> &str;

    /// Writes the model's file into a folder, under a name that starts with `stem`, and gives its path. What it lays beside
    /// the file under the same stem goes away with it.
    ///
    /// # Errors
    /// The model cannot be said in this form ([`EngineError::Unsupported`]), or the file cannot be written.
    fn write(&self, model: &Model, folder: &Path, stem: &str) -> Result<PathBuf, EngineError>;
}

/// The model as it is, in ONNX.
struct Onnx {
    /// Whether operators of porter's own may stand in it.
    own_operators: bool,
}

impl Form for Onnx {
    fn format(&self) -> &str {
        "onnx"
    }

    fn write(&self, model: &Model, folder: &Path, stem: &str) -> Result<PathBuf, EngineError> {
        let path = folder.join(format!("{stem}.onnx"));
        let expanded = if self.own_operators { None } else { emulate::with_casts(model) };
        let proto = expanded.as_ref().unwrap_or(model).to_proto();
        onnx::write(&path, &proto).map_err(|error| EngineError::Compile {
            engine: "worker".into(),
            code: None,
            problem: format!("the model could not be handed over: {error}"),
        })?;
        Ok(path)
    }
}

/// A program that speaks the worker protocol.
pub struct Worker {
    shared: Arc<Shared>,
}

struct Shared {
    label: String,
    start: Start,
    limits: Limits,
    form: Box<dyn Form>,
    hello: Hello,
    idle: Mutex<Vec<Process>>,
}

impl Worker {
    /// Starts the program and greets it; `label` is what readers see.
    ///
    /// # Errors
    /// [`EngineError::Absent`] where it does not start, or does not answer as a worker.
    pub fn start(label: &str, start: Start, limits: Limits) -> Result<Self, EngineError> {
        let own_operators = matches!(start, Start::Program(..));
        Self::with_form(label, start, limits, Box::new(Onnx { own_operators }))
    }

    /// As [`Worker::start`], for a worker that takes another form than ONNX.
    ///
    /// # Errors
    /// As [`Worker::start`].
    pub fn with_form(label: &str, start: Start, limits: Limits, form: Box<dyn Form>) -> Result<Self, EngineError> {
        let process = Process::start(&start, &limits).map_err(|death| match death.absent {
            Some((problem, fix)) => EngineError::Absent { engine: label.into(), problem, fix },
            None => EngineError::Absent {
                engine: label.into(),
                problem: format!("its worker did not answer: {}: {}", death.code, death.problem),
                fix: match &start {
                    Start::Shell { line, .. } => format!("Try the command by itself: {line}"),
                    Start::Program(program, _) | Start::Python(program, _) => {
                        format!("Try the command by itself: {}", program.display())
                    }
                },
            },
        })?;
        let hello = process.hello.clone();
        let accepts = |format: &str| match hello.accepts.as_slice() {
            [] => format == "onnx",
            list => list.iter().any(|one| one == format),
        };
        if !accepts(form.format()) {
            return Err(EngineError::Absent {
                engine: label.into(),
                problem: format!("its worker compiles {}, not {}", hello.accepts.join(", "), form.format()),
                fix: "Start one that does".into(),
            });
        }
        let idle = Mutex::new(vec![process]);
        Ok(Self { shared: Arc::new(Shared { label: label.into(), start, limits, form, hello, idle }) })
    }

    /// What the program said of itself.
    pub fn hello(&self) -> &Hello {
        &self.shared.hello
    }
}

impl Engine for Worker {
    fn name(&self) -> String {
        self.shared.label.clone()
    }

    fn version(&self) -> String {
        let Hello { name, version, device, .. } = &self.shared.hello;
        [name.as_str(), version, device].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" ")
    }

    fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
        let mut session = WorkerSession {
            shared: self.shared.clone(),
            interface: Interface::of(model),
            model: model.clone(),
            live: None,
            placement: None,
            runs: 0,
            seconds: None,
        };
        session.compile()?;
        Ok(Box::new(session))
    }
}

impl Shared {
    /// A process without a session: one that is there, or a new one.
    fn lease(&self) -> Result<Process, Death> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(mut process) => {
                    if process.is_alive() {
                        return Ok(process);
                    }
                }
                None => return Process::start(&self.start, &self.limits),
            }
        }
    }

    fn give_back(&self, process: Process) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(process);
        } else {
            drop(idle);
            process.quit();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let idle = std::mem::take(self.idle.get_mut().unwrap_or_else(PoisonError::into_inner));
        idle.into_iter().for_each(Process::quit);
    }
}

/// What a model takes and gives.
struct Interface {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

struct Port {
    name: String,
    dtype: Option<DType>,
    shape: Option<Vec<Dim>>,
}

impl Interface {
    fn of(model: &Model) -> Self {
        let port = |&id: &_| {
            let value = model.graph.value(id);
            Port { name: value.name.clone(), dtype: value.dtype, shape: value.shape.clone() }
        };
        // An input with a value of its own need not be given.
        let wanted = model.graph.inputs.iter().filter(|&&id| model.graph.initializer(id).is_none());
        Self { inputs: wanted.map(port).collect(), outputs: model.graph.outputs.iter().map(port).collect() }
    }

    /// As the options of a compile request.
    fn options(&self) -> Map<String, Value> {
        let list = |ports: &[Port]| ports.iter().map(Port::json).collect::<Value>();
        Map::from_iter(
            [("inputs", &self.inputs), ("outputs", &self.outputs)].map(|(key, ports)| (key.into(), list(ports))),
        )
    }

    /// Puts what came back into the model's order, if it is what the model gives. The sizes that a model declares may be
    /// wrong, and an engine that runs it all the same is believed if it is `own`, porter's.
    fn accept(&self, mut given: Tensors, own: bool) -> Result<Tensors, String> {
        let mut outputs = Tensors::with_capacity(self.outputs.len());
        for port in &self.outputs {
            let Some(tensor) = given.swap_remove(&port.name) else {
                let came = given.keys().cloned().collect::<Vec<_>>().join(", ");
                return Err(format!("output '{}' did not come back; the file has {came:?}", port.name));
            };
            port.check(tensor.dtype(), tensor.dims(), own)?;
            outputs.insert(port.name.clone(), tensor);
        }
        match given.keys().next() {
            Some(name) => Err(format!("'{name}' came back, which is no output of the model")),
            None => Ok(outputs),
        }
    }
}

impl Port {
    fn json(&self) -> Value {
        let size = |dim: &Dim| dim.fixed().map_or_else(|| json!(dim.to_string()), |size| json!(size));
        let shape = self.shape.as_ref().map(|shape| shape.iter().map(size).collect::<Value>());
        json!({ "name": self.name, "dtype": self.dtype.map(DType::name), "shape": shape })
    }

    fn check(&self, dtype: DType, dims: &[i64], own: bool) -> Result<(), String> {
        let fits = own
            || self.shape.as_ref().is_none_or(|shape| {
                shape.len() == dims.len()
                    && shape.iter().zip(dims).all(|(dim, &size)| dim.fixed().is_none_or(|fixed| fixed == size))
            });
        if fits && self.dtype.is_none_or(|expected| expected == dtype) {
            return Ok(());
        }
        let sizes = |shape: &Vec<Dim>| shape.iter().map(Dim::to_string).collect::<Vec<_>>().join(", ");
        let expected = self.dtype.map_or("tensor", DType::name);
        let shape = self.shape.as_ref().map_or_else(String::new, |shape| format!(" [{}]", sizes(shape)));
        Err(format!(
            "output '{}' came back as {dtype} {dims:?}, and the model declares {expected}{shape}: one of the two is wrong",
            self.name
        ))
    }
}

struct WorkerSession {
    shared: Arc<Shared>,
    model: Model,
    interface: Interface,
    /// The process with the compiled model, unless it died.
    live: Option<Live>,
    placement: Option<Placement>,
    runs: u64,
    seconds: Option<f64>,
}

struct Live {
    process: Process,
    handle: String,
    model: PathBuf,
}

impl WorkerSession {
    fn died(&self, stage: Stage, death: Death) -> EngineError {
        stage.failed(self.shared.label.clone(), Some(death.code), death.problem)
    }

    fn compile(&mut self) -> Result<(), EngineError> {
        let label = &self.shared.label;
        let mut process = self.shared.lease().map_err(|death| self.died(Stage::Compile, death))?;
        let stem = process.fresh("model");
        let path = match self.shared.form.write(&self.model, process.folder(), &stem) {
            Ok(path) => path,
            Err(error) => {
                self.shared.give_back(process);
                return Err(error);
            }
        };
        let call = Call::Compile {
            format: self.shared.form.format().into(),
            model: path.clone(),
            options: self.interface.options(),
        };
        let result = match process.request(call).map_err(|death| self.died(Stage::Compile, death))? {
            Ok(result) => result,
            Err(fault) => {
                remove_model(&path);
                self.shared.give_back(process);
                return Err(fault.into_error(label, Stage::Compile));
            }
        };
        let Some(handle) = result.get("handle").and_then(Value::as_str).map(str::to_string) else {
            let death = process.broke("its answer to compile has no handle".into());
            return Err(self.died(Stage::Compile, death));
        };
        self.placement = match result.get("placement").filter(|told| !told.is_null()) {
            None => None,
            Some(told) => match serde_json::from_value(told.clone()) {
                Ok(placement) => Some(placement),
                Err(_) => {
                    let death = process.broke(format!("its placement is no map of names to counts: {told}"));
                    return Err(self.died(Stage::Compile, death));
                }
            },
        };
        self.live = Some(Live { process, handle, model: path });
        Ok(())
    }

    /// Writes the inputs, asks, reads the outputs. The process is gone where this gives a death.
    fn ask(&mut self, live: &mut Live, inputs: &[&onnx::Tensor]) -> Result<Result<Tensors, EngineError>, Death> {
        self.runs += 1;
        let path = |what: &str| live.process.folder().join(format!("{what}-{}.safetensors", self.runs));
        let (given, got) = (path("inputs"), path("outputs"));
        let named = self.interface.inputs.iter().map(|port| port.name.as_str()).zip(inputs.iter().copied());
        if let Err(error) = safetensors::write(&given, named) {
            return Ok(Err(match error {
                TensorFileError::Tensor { name, problem } => {
                    EngineError::Input { engine: self.shared.label.clone(), input: name, problem }
                }
                other => Stage::Run.failed(
                    self.shared.label.clone(),
                    None,
                    format!("the inputs could not be handed over: {other}"),
                ),
            }));
        }
        let handle = live.handle.clone();
        let call = Call::Run { handle, inputs: given.clone(), outputs: got.clone(), repeat: 1 };
        let result = match live.process.request(call)? {
            Ok(result) => result,
            Err(fault) => {
                remove(&given);
                remove(&got);
                return Ok(Err(fault.into_error(&self.shared.label, Stage::Run)));
            }
        };
        self.seconds = result.get("seconds").and_then(|list| list.get(0)).and_then(Value::as_f64);
        let outputs = match safetensors::read(&got) {
            Ok(tensors) => self.interface.accept(tensors, matches!(self.shared.start, Start::Program(..))),
            Err(TensorFileError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                Err("it wrote no file of outputs".into())
            }
            Err(error) => Err(format!("its file of outputs cannot be read: {error}")),
        };
        remove(&given);
        remove(&got);
        outputs.map(Ok).map_err(|problem| live.process.broke(problem))
    }
}

fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}

/// Removes a model's file and what lies beside it under its name.
fn remove_model(path: &Path) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned() + ".";
    let beside = path.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    for entry in beside.filter(|entry| entry.file_name().to_string_lossy().starts_with(&stem)) {
        remove(&entry.path());
    }
}

impl Session for WorkerSession {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, EngineError> {
        let names: Vec<String> = self.interface.inputs.iter().map(|port| port.name.clone()).collect();
        let inputs = in_order(&self.shared.label, &names, inputs)?;
        if self.live.is_none() {
            self.compile()?;
        }
        let Some(mut live) = self.live.take() else { unreachable!("compiled just now") };
        match self.ask(&mut live, &inputs) {
            Ok(outcome) => {
                self.live = Some(live);
                outcome
            }
            Err(death) => Err(self.died(Stage::Run, death)),
        }
    }

    fn placement(&self) -> Option<&Placement> {
        self.placement.as_ref()
    }

    fn seconds(&self) -> Option<f64> {
        self.seconds
    }
}

impl Drop for WorkerSession {
    fn drop(&mut self) {
        let Some(Live { mut process, handle, model }) = self.live.take() else { return };
        // A worker that cannot even forget a model is not handed on.
        if let Ok(Ok(_)) = process.request(Call::Release { handle }) {
            remove_model(&model);
            self.shared.give_back(process);
        }
    }
}
