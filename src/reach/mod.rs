//! Reaching a target: from what stands behind `--target` to an engine that runs it.
//!
//! A target is data; an [`Engine`] runs models. [`open`] brings the two together. What it takes is a [`Spec`]:
//!
//! | written | means |
//! | --- | --- |
//! | `cpu`, `tract` | tract, in process |
//! | `ort`, `ort:off`, `ort:basic`, `ort:all` | ONNX Runtime on the CPU, with so much of its graph optimisation |
//! | `openvino`, `cuda`, ... | the target file of that name |
//! | `worker:COMMAND` | a program that speaks the worker protocol |
//! | `faulty:N1,N3`, `faulty:N1@tract` | ONNX Runtime (or tract) with known faults of targets planted: simulated |
//! | `xla`, `xla:f64` | XLA on the CPU, from the HLO that porter writes |

mod error;
mod local;
pub mod simulate;
mod spec;

use std::path::PathBuf;
use std::time::Duration;

pub use error::ReachError;
pub use local::Local;
pub use spec::Spec;

use crate::engine::Engine;
use crate::engine::neuron;
use crate::engine::ort::{Optimisation, Ort};
use crate::engine::tract::Tract;
use crate::engine::worker::{Start, Worker};
use crate::engine::xla::Xla;
use crate::target::{Reach, Target, TargetSet};

/// How a target is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kind of device; the target's own where none is named.
    pub device: Option<String>,
    /// The toolchain's version; the target's own where none is named.
    pub toolchain: Option<String>,
    /// Whether it runs in a process of its own, so that its crash costs one request. tract, which is porter's own,
    /// never does.
    pub isolate: bool,
    /// The longest that one request to another process may take.
    pub time_limit: Duration,
    /// The most memory in bytes that another process may take.
    pub memory_limit: Option<u64>,
    /// Threads within an operator; 0 leaves the choice to the engine.
    pub threads: usize,
    /// The porter command that runs engines apart; where none is named, this program or one beside it.
    pub program: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device: None,
            toolchain: None,
            isolate: true,
            time_limit: Duration::from_secs(600),
            memory_limit: None,
            threads: 0,
            program: None,
        }
    }
}

/// An engine for a target.
pub struct Reached {
    /// Runs models there.
    pub engine: Box<dyn Engine>,
    /// What to call it in front of a reader: `openvino`, `faulty: N1 (simulated, on ort)`.
    pub label: String,
    /// Whether it only plays the target.
    pub simulated: bool,
    /// The target file, where one is meant.
    pub target: Option<Target>,
}

/// Finds the engine for what stands behind `--target`.
///
/// # Errors
/// A word that means nothing, a target that is not there, or one whose engine this machine lacks.
pub fn open(text: &str, targets: &TargetSet, options: &Options) -> Result<Reached, ReachError> {
    let plain = |engine: Box<dyn Engine>, target: Option<&Target>| Reached {
        label: engine.name(),
        engine,
        simulated: false,
        target: target.cloned(),
    };
    match Spec::parse(text)? {
        Spec::Tract => Ok(plain(Box::new(Tract), targets.get("cpu").ok())),
        Spec::Ort(optimisation) => Ok(plain(ort(optimisation, options)?, targets.get("ort").ok())),
        Spec::Named(name) => {
            let target = targets.get(&name)?;
            match &target.reach {
                Reach::Tract {} => Ok(plain(Box::new(Tract), Some(target))),
                Reach::Onnxruntime { provider, .. } if provider == "CPUExecutionProvider" => {
                    Ok(plain(ort(Optimisation::All, options)?, Some(target)))
                }
                Reach::Lowering { run, .. } if run == "xla" => Ok(plain(xla(false, options)?, Some(target))),
                Reach::Lowering { run, .. } if run == neuron::NAME => {
                    Ok(plain(on_neuron(target, options)?, Some(target)))
                }
                Reach::Worker { command } => Ok(plain(worker(&name, command, options)?, Some(target))),
                _ => Err(ReachError::NoEngine { target: name }),
            }
        }
        Spec::Worker(command) => Ok(plain(worker("worker", &command, options)?, None)),
        Spec::Faulty { faults, base } => simulated(&faults, base.as_deref(), targets, options),
        Spec::Xla { double } => Ok(plain(xla(double, options)?, targets.get("xla").ok())),
    }
}

/// Known faults, planted in ONNX Runtime with its optimisation off, or in tract where that is not there.
fn simulated(
    names: &[String],
    base: Option<&str>,
    targets: &TargetSet,
    options: &Options,
) -> Result<Reached, ReachError> {
    // What is planted is played here: another process would only carry tensors to and fro.
    let options = &Options { isolate: false, ..options.clone() };
    let base: Box<dyn Engine> = match base {
        Some("tract") => Box::new(Tract),
        Some(_) => ort(Optimisation::Off, options)?,
        None => ort(Optimisation::Off, options).unwrap_or_else(|_| Box::new(Tract)),
    };
    let engine = simulate::faulty(names, base.into(), targets)?;
    Ok(Reached {
        label: engine.name(),
        engine: Box::new(engine),
        simulated: true,
        target: simulate::home(names, targets).cloned(),
    })
}

fn ort(optimisation: Optimisation, options: &Options) -> Result<Box<dyn Engine>, ReachError> {
    let local = Local::Ort(Ort { optimisation, threads: options.threads });
    Ok(if options.isolate { local.apart(options)? } else { local.here()? })
}

fn xla(double: bool, options: &Options) -> Result<Box<dyn Engine>, ReachError> {
    Ok(Box::new(Xla::start(double, local::limits(options))?))
}

/// Neuron devices, with what the target file says of compiling and of the compiler's errors.
fn on_neuron(target: &Target, options: &Options) -> Result<Box<dyn Engine>, ReachError> {
    let setting = target.setting(options.device.as_deref(), options.toolchain.as_deref())?;
    let mut compile = target.compile.clone().unwrap_or_default().replace("{device}", &setting.device.name);
    for (name, fact) in &setting.device.facts {
        let text = fact.as_str().map_or_else(|| fact.to_string(), str::to_string);
        compile = compile.replace(&format!("{{{name}}}"), &text);
    }
    let known = target.quirks.iter().filter_map(|quirk| {
        let answer = quirk.answer.as_ref().map(|answer| format!(" Answered by {answer}.")).unwrap_or_default();
        Some((quirk.symptom.code.clone()?, format!("Known as {}: {}{answer}", quirk.id, quirk.what)))
    });
    let lnc = setting.device.facts.get("lnc").and_then(|lnc| lnc.as_i64()).unwrap_or(1) as i32;
    let local = Local::Neuron(neuron::Settings { compile, lnc, known: known.collect(), ..Default::default() });
    Ok(if options.isolate { local.apart(options)? } else { local.here()? })
}

fn worker(label: &str, command: &str, options: &Options) -> Result<Box<dyn Engine>, ReachError> {
    Ok(Box::new(Worker::start(label, Start::Shell(command.into()), local::limits(options))?))
}
