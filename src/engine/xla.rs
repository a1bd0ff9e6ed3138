//! XLA on the CPU: a model is lowered to HLO and handed to a worker that compiles and runs it.
//!
//! The worker is a Python program that porter carries (`workers/xla.py`); jaxlib, which it needs, comes with
//! `porter runtime install xla`. It is the numeric stand-in for accelerators that take HLO, and with
//! [`Xla::start`]`(true, ..)` a way to run whole models in float64.

mod borders;

use std::path::{Path, PathBuf};

use super::worker::{Form, Limits, PYTHON_MODULE, Start, Worker};
use super::{Engine, EngineError, Placement, Session, Tensors, emulate};
use crate::graph::Model;
use crate::lower::{self, LowerError, Weights, hlo};
use crate::onnx::{self, DType};

/// The worker's program.
const SCRIPT: &str = include_str!("../../workers/xla.py");
/// The Python to start it with, over the one that was installed.
pub const PYTHON: &str = "PORTER_XLA_PYTHON";

/// XLA on the CPU.
pub struct Xla {
    worker: Worker,
    double: bool,
}

impl Xla {
    /// Starts the worker. With `double`, every float of a model is computed as a float64, and outputs are float64.
    ///
    /// # Errors
    /// [`EngineError::Absent`] where Python or jaxlib is not there.
    pub fn start(double: bool, limits: Limits) -> Result<Self, EngineError> {
        Self::with_python(python(), double, limits)
    }

    /// As [`Xla::start`], with the Python given that has jaxlib.
    ///
    /// # Errors
    /// As [`Xla::start`].
    pub fn with_python(python: PathBuf, double: bool, limits: Limits) -> Result<Self, EngineError> {
        let label = if double { "xla (float64)" } else { "xla" };
        let start = Start::Python(python, vec![("xla.py", SCRIPT), PYTHON_MODULE]);
        let worker = Worker::with_form(label, start, limits, Box::new(Hlo)).map_err(|error| match error {
            EngineError::Absent { engine, problem, .. } => EngineError::Absent {
                engine,
                problem,
                fix: format!("`porter runtime install xla` gets what it needs; {PYTHON} names a Python that has it"),
            },
            other => other,
        })?;
        Ok(Self { worker, double })
    }
}

/// The Python that has jaxlib: what [`PYTHON`] says, what `porter runtime install xla` made, or the one on the path.
pub fn python() -> PathBuf {
    if let Some(python) = std::env::var_os(PYTHON).filter(|python| !python.is_empty()) {
        return python.into();
    }
    let installed = crate::home::home().join("runtimes/xla");
    let inside = if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" };
    Some(installed.join(inside)).filter(|python| python.is_file()).unwrap_or_else(|| "python3".into())
}

/// A model as the bytes of an HloModuleProto. It went through [`lower::prepare`] already.
struct Hlo;

impl Form for Hlo {
    fn format(&self) -> &str {
        "hlo"
    }

    fn write(&self, model: &Model, folder: &Path, stem: &str) -> Result<PathBuf, EngineError> {
        let path = folder.join(format!("{stem}.hlo_module.pb"));
        let lowered = lower::lower_prepared(model, Weights::Constants).map_err(|error| refused("xla", error))?;
        onnx::write_message(&path, &hlo::to_proto(&lowered.module)).map_err(|error| EngineError::Compile {
            engine: "xla".into(),
            code: None,
            problem: format!("the module could not be handed over: {error}"),
        })?;
        Ok(path)
    }
}

/// A model that is not lowered, as an engine says it.
pub(super) fn refused(engine: &str, error: LowerError) -> EngineError {
    let engine = engine.to_string();
    match error {
        LowerError::Unsupported { node, op_type, problem } => {
            EngineError::Unsupported { engine, node, op_type, problem }
        }
        LowerError::NotConstant { ref node, ref op_type, ref input, .. } => EngineError::Unsupported {
            engine,
            node: node.clone(),
            op_type: op_type.clone(),
            problem: format!("its input '{input}' must be a constant, since every size is compiled in"),
        },
        other => EngineError::Compile { engine, code: None, problem: other.to_string() },
    }
}

impl Engine for Xla {
    fn name(&self) -> String {
        self.worker.name()
    }

    fn version(&self) -> String {
        self.worker.version()
    }

    fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
        let mut model = emulate::with_casts(model).unwrap_or_else(|| model.clone());
        lower::prepare(&mut model).map_err(|error| refused("xla", error))?;
        if self.double {
            lower::widen(&mut model);
        }
        let borders = borders::widen(&mut model);
        let inner = self.worker.compile(&model)?;
        let inner = match borders {
            Some(borders) => Box::new(borders::Crossing { inner, borders }) as Box<dyn Session>,
            None => inner,
        };
        if !self.double {
            return Ok(inner);
        }
        let inputs = model.graph.inputs.iter().map(|&id| model.graph.value(id));
        let wide = inputs.filter(|value| value.dtype == Some(DType::Double)).map(|value| value.name.clone()).collect();
        Ok(Box::new(Wide { inner, wide }))
    }
}

/// A session in float64, fed with whatever floats its caller has.
struct Wide {
    inner: Box<dyn Session>,
    wide: Vec<String>,
}

impl Session for Wide {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, EngineError> {
        let widened = inputs
            .iter()
            .map(|(name, tensor)| {
                let wide = self.wide.contains(name).then(|| tensor.convert(DType::Double)).flatten();
                (name.clone(), wide.unwrap_or_else(|| tensor.clone()))
            })
            .collect();
        self.inner.run(&widened)
    }

    fn placement(&self) -> Option<&Placement> {
        self.inner.placement()
    }

    fn seconds(&self) -> Option<f64> {
        self.inner.seconds()
    }
}
