//! Running models: one small trait, and the engines behind it.
//!
//! An [`Engine`] compiles a [`Model`] into a [`Session`]; a session takes named tensors and gives named tensors. Failing
//! is a result like any other: [`EngineError`] keeps apart what a caller must be able to tell apart, namely a library
//! that is not there, an operator the engine does not know, a compile that failed and a run that failed.
//!
//! - [`tract`]: in process, nothing to install.
//! - [`ort`]: ONNX Runtime, where its library is found.
//! - [`double`]: tract in float64, to decide between two that differ.
//! - [`worker`]: any program that speaks the worker protocol, in a process of its own.
//! - [`xla`]: XLA on the CPU, from HLO.
//! - [`neuron`]: Neuron devices, from the same HLO.
//! - [`emulate`]: either of them, computing as if in bfloat16 or float16.
//! - [`faulty`]: either of them, with faults planted.
//! - [`loose`]: any of them, given free sizes where it refuses fixed ones.
//!
//! What to feed a model that nobody gave inputs for is in [`samples`]; what rounding alone does to a model is measured
//! by [`noise`].

pub mod double;
pub mod emulate;
mod error;
pub mod faulty;
pub mod loose;
pub mod neuron;
pub mod noise;
pub mod ort;
mod picture;
mod quiet;
pub(crate) mod random;
pub mod samples;
pub mod tract;
pub mod worker;
pub mod xla;

use indexmap::IndexMap;

pub use error::EngineError;

use crate::graph::Model;
use crate::onnx::Tensor;

/// Named tensors, in the order the model names them.
pub type Tensors = IndexMap<String, Tensor>;

/// How many nodes ran where: a provider's or a device's name, and a count.
pub type Placement = IndexMap<String, usize>;

/// Something that can run models.
pub trait Engine: Send + Sync {
    /// What to call it in front of a reader: `tract`, `ort cpu`.
    fn name(&self) -> String;

    /// The version of what computes, empty where it is porter's own: results are kept for one version only.
    fn version(&self) -> String {
        String::new()
    }

    /// Makes a model ready to run. Inputs with sizes that are not fixed may be given in any size that fits.
    ///
    /// # Errors
    /// Whatever kind of [`EngineError`] it is; an engine that crashes is an error too, not an accident.
    fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError>;

    /// Compiles and runs once.
    ///
    /// # Errors
    /// As [`Engine::compile`] and [`Session::run`].
    fn run_once(&self, model: &Model, inputs: &Tensors) -> Result<Tensors, EngineError> {
        self.compile(model)?.run(inputs)
    }
}

/// A compiled model.
pub trait Session: Send {
    /// Runs it. Inputs the model does not have are left alone, so that one set of tensors can feed a model and its parts.
    ///
    /// # Errors
    /// An input that is missing or does not fit, or a run that failed.
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, EngineError>;

    /// Which nodes run where, as the engine itself reports it; none where there is only one place.
    fn placement(&self) -> Option<&Placement> {
        None
    }

    /// At how many nodes faults are planted, where they are simulated; known once it was run.
    fn strikes(&self) -> Option<usize> {
        None
    }

    /// How long the last run took inside the engine, in seconds, where it runs in another process and says so.
    fn seconds(&self) -> Option<f64> {
        None
    }
}

/// Puts the inputs a model wants into its order.
fn in_order<'a>(engine: &str, names: &[String], inputs: &'a Tensors) -> Result<Vec<&'a Tensor>, EngineError> {
    let find = |name: &String| {
        inputs.get(name).ok_or_else(|| EngineError::Input {
            engine: engine.into(),
            input: name.clone(),
            problem: "is missing".into(),
        })
    };
    names.iter().map(find).collect()
}
