//! Neuron devices: a model is lowered to HLO, compiled by neuronx-cc and run through libnrt.
//!
//! The compiler and the runtime are the SDK's own, found on the machine and opened when they are needed ([`compiler`],
//! [`runtime`]); `neuron-ls` says what devices there are ([`devices`]). Each session has one core to itself; sessions take
//! the cores in turn, so as many sessions as there are cores run as many inputs at once.
//!
//! Nothing here was run on a device. It was tested against stand-ins that behave as the SDK's documentation says; what
//! was run where stands in `docs/neuron.md`.

pub mod compiler;
pub mod devices;
pub mod runtime;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Engine, EngineError, Placement, Session, Tensors, emulate, in_order};
use crate::graph::Model;
use crate::lower::hlo::Shape;
use crate::lower::{self, Weights, hlo, neuron};
use crate::onnx::Tensor;

use compiler::Compiler;
use devices::{Claim, Devices};
use runtime::{Loaded, Runtime};

/// What the engine is called.
pub const NAME: &str = "neuron";

/// How models are compiled and run on Neuron devices.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Settings {
    /// The command that compiles, with `{module}` and `{output}` in it.
    pub compile: String,
    /// Physical cores that make a logical one, which is what a module runs on.
    pub lnc: i32,
    /// What is known of the compiler's errors: what answers each, by code.
    #[serde(default)]
    pub known: IndexMap<String, String>,
    /// The compiler, over the one that is found.
    #[serde(default)]
    pub compiler: Option<PathBuf>,
    /// The runtime's library, over the one that is found.
    #[serde(default)]
    pub library: Option<PathBuf>,
    /// Whether it takes one core and leaves the others to processes beside it, instead of all that it may see.
    #[serde(default)]
    pub one_core: bool,
    /// The command that lists devices, over the one that is found.
    #[serde(default)]
    pub lister: Option<PathBuf>,
    /// Where compiled modules are kept; in porter's own folder where none is named.
    #[serde(default)]
    pub cache: Option<PathBuf>,
}

/// Neuron devices of this machine.
pub struct Neuron {
    settings: Settings,
    compiler: Compiler,
    runtime: Arc<Runtime>,
    cores: usize,
    next: AtomicUsize,
    claim: Option<Claim>,
}

impl Neuron {
    /// Finds compiler, runtime and cores.
    ///
    /// # Errors
    /// [`EngineError::Absent`] where one of them is not there.
    pub fn open(settings: Settings) -> Result<Self, EngineError> {
        let compiler = Compiler::find(settings.compiler.clone(), settings.cache.clone())?;
        let listed = Devices::list(settings.lister.clone())?;
        let claim = match listed {
            Some(listed) if settings.one_core => Some(Claim::take(listed, &crate::home::home().join("cores"))?),
            _ => None,
        };
        let runtime = Runtime::open(settings.library.clone(), settings.lnc)?;
        // The runtime counts the logical cores that this process may use; the machine cannot have fewer than those.
        let visible = runtime.cores()?;
        let cores = listed.map_or(visible, |listed| visible.min(listed.cores));
        Ok(Self { settings, compiler, runtime, cores, next: AtomicUsize::new(0), claim })
    }

    /// How many modules run at once, each on a core of its own.
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// What the compiler's error means, where it is known.
    fn explained(&self, error: EngineError) -> EngineError {
        match error {
            EngineError::Compile { engine, code: Some(code), problem } => {
                let known = self.settings.known.get(&code);
                let problem = known.map_or(problem.clone(), |known| format!("{problem}. {known}"));
                EngineError::Compile { engine, code: Some(code), problem }
            }
            other => other,
        }
    }
}

impl Engine for Neuron {
    fn name(&self) -> String {
        NAME.into()
    }

    fn version(&self) -> String {
        self.compiler.version().to_string()
    }

    fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
        let mut model = emulate::with_casts(model).unwrap_or_else(|| model.clone());
        lower::prepare(&mut model).map_err(|error| super::xla::refused(NAME, error))?;
        let lowered =
            lower::lower_prepared(&model, Weights::Constants).map_err(|error| super::xla::refused(NAME, error))?;
        if let Some(finding) = neuron::check(&hlo::to_proto(&lowered.module)).into_iter().next() {
            return Err(EngineError::Compile {
                engine: NAME.into(),
                code: Some(finding.code.clone()),
                problem: format!("{finding} (told before the compiler was started)"),
            });
        }
        let neff =
            self.compiler.compile(&lowered.module, &self.settings.compile).map_err(|error| self.explained(error))?;
        let core = self.next.fetch_add(1, Ordering::Relaxed) % self.cores.max(1);
        // The runtime counts from the first core that it sees.
        let shown = core + self.claim.as_ref().map_or(0, |claim| claim.core);
        let loaded = self.runtime.load(&neff, core as i32)?;
        Ok(Box::new(NeuronSession {
            loaded,
            inputs: lowered.inputs,
            outputs: lowered.outputs,
            placement: Placement::from([(format!("neuron core {shown}"), model.graph.node_count())]),
        }))
    }
}

struct NeuronSession {
    loaded: Loaded,
    inputs: Vec<(String, Shape)>,
    outputs: Vec<(String, Shape)>,
    placement: Placement,
}

impl Session for NeuronSession {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, EngineError> {
        let names: Vec<String> = self.inputs.iter().map(|(name, _)| name.clone()).collect();
        let given = in_order(NAME, &names, inputs)?;
        let mut bytes = Vec::new();
        for ((name, shape), tensor) in self.inputs.iter().zip(given) {
            let wrong = |problem: String| EngineError::Input { engine: NAME.into(), input: name.clone(), problem };
            if tensor.dtype() != shape.dtype || tensor.dims() != shape.dims {
                let (dtype, dims) = (tensor.dtype(), tensor.dims());
                return Err(wrong(format!("is {dtype} {dims:?}, not {} {:?}", shape.dtype, shape.dims)));
            }
            bytes.push(tensor.to_bytes().map_err(|error| wrong(error.to_string()))?);
        }
        let sizes: Vec<usize> = self
            .outputs
            .iter()
            .map(|(_, shape)| shape.dtype.byte_len(shape.len() as usize).unwrap_or_default())
            .collect();
        let results = self.loaded.execute(&bytes, &sizes)?;
        let named =
            self.outputs.iter().zip(results).map(|((name, shape), bytes)| {
                (name.clone(), Tensor::new(name.clone(), shape.dtype, &shape.dims, bytes))
            });
        Ok(named.collect())
    }

    fn placement(&self) -> Option<&Placement> {
        Some(&self.placement)
    }
}
