//! Reaching a target: from what stands behind `--target` to an engine that runs it.
//!
//! A target is data; an [`Engine`] runs models. [`open`] brings the two together. What it takes is a [`Spec`]:
//!
//! | written | means |
//! | --- | --- |
//! | `cpu`, `tract` | tract, in process |
//! | `ort`, `ort:off`, `ort:basic`, `ort:all` | ONNX Runtime on the CPU, with so much of its graph optimisation |
//! | `openvino`, `cuda`, ... | the target file of that name |
//! | `openvino:bf16`, `cuda:off,tf32,device_id=1` | the same in a mode of its file, with other optimisation, other options |
//! | `cuda:partial` | the same, with the CPU running what the target does not take: otherwise that is an error |
//! | `worker:COMMAND` | a program that speaks the worker protocol |
//! | `faulty:N1,N3`, `faulty:N1@tract` | ONNX Runtime (or tract) with known faults of targets planted: simulated |
//! | `xla`, `xla:f64` | XLA on the CPU, from the HLO that porter writes |

mod codes;
mod command;
mod error;
mod local;
mod provider;
pub mod simulate;
mod spec;

use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;

pub use error::ReachError;
pub use local::{Local, this_is_the_command};
pub use spec::Spec;

use crate::engine::neuron;
use crate::engine::ort::{Optimisation, Ort, Provider};
use crate::engine::tract::Tract;
use crate::engine::worker::{Start, Worker};
use crate::engine::xla::Xla;
use crate::engine::{Engine, EngineError};
use crate::onnx::DType;
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
    /// Options of the target's provider, over those of its file; an empty value leaves one out.
    pub provider_options: IndexMap<String, String>,
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
            provider_options: IndexMap::new(),
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
    /// The kind of device that was asked for.
    pub device: Option<String>,
    /// The type whose rounding the mode that was asked for shows, where it has one.
    pub rounds: Option<DType>,
    /// Whether parts in 16 bits must be emulated on it, because it computes in none.
    pub emulates: bool,
}

/// What to open in place of `text` for a model in 16 bits: engines on the CPU emulate its arithmetic, and must not
/// optimise the roundings away.
///
/// # Errors
/// As [`Spec::parse`].
pub fn unoptimised(text: &str) -> Result<String, ReachError> {
    Ok(match Spec::parse(text)? {
        Spec::Ort(_) => "ort:off".into(),
        _ => text.into(),
    })
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
        device: options.device.clone(),
        rounds: None,
        emulates: false,
    };
    let on_cpu = |reached: Reached| Reached { emulates: true, ..reached };
    match Spec::parse(text)? {
        Spec::Tract => Ok(on_cpu(plain(Box::new(Tract), targets.get("cpu").ok()))),
        Spec::Ort(optimisation) => {
            let ort = Ort { optimisation, threads: options.threads, provider: None };
            Ok(on_cpu(plain(placed(ort, options)?, targets.get("ort").ok())))
        }
        Spec::Named(name) => named(text, targets.get(&name)?, &[], options),
        Spec::Tuned { name, words } => named(text, targets.get(&name)?, &words, options),
        Spec::Worker(command) => {
            let worker = Worker::start("worker", Start::shell(command), local::limits(options))?;
            Ok(plain(Box::new(worker), None))
        }
        Spec::Faulty { faults, base } => simulated(&faults, base.as_deref(), targets, options),
        Spec::Xla { double } => Ok(plain(xla(double, options)?, targets.get("xla").ok())),
    }
}

/// The engine of a target, where this machine has it: tract, or a provider of ONNX Runtime that starts. `None` for targets
/// that are compiled for ahead of time. In another process no request takes longer than `time_limit`.
pub fn at_hand(target: &Target, time_limit: Duration) -> Option<Box<dyn Engine>> {
    match target.reach {
        Reach::Tract {} | Reach::Onnxruntime { .. } => {
            let options = Options { time_limit, ..Options::default() };
            Some(named(&target.name, target, &[], &options).ok()?.engine)
        }
        _ => None,
    }
}

/// The engine that a target file names.
fn named(text: &str, target: &Target, words: &[String], options: &Options) -> Result<Reached, ReachError> {
    let engine = match &target.reach {
        Reach::Onnxruntime { otherwise, .. } => {
            let Some(ort) = provider::ort(text, target, words, options)? else {
                return Err(ReachError::NoEngine { target: target.name.clone() });
            };
            let settings = ort.provider.clone();
            match (placed(ort, options), settings, otherwise) {
                (Err(ReachError::Engine(absent)), Some(provider), Some(command)) if absent.is_absence() => {
                    apart_from_plugin(absent, &provider, command, options)?
                }
                (outcome, ..) => outcome?,
            }
        }
        _ if !words.is_empty() => {
            let problem = format!("{} takes nothing after a colon", target.name);
            return Err(ReachError::Spec { text: text.into(), problem });
        }
        Reach::Tract {} => Box::new(Tract) as Box<dyn Engine>,
        Reach::Worker { command, runtime } => {
            let device = target.setting(options.device.as_deref(), None)?.device.name;
            let start = command::start(command, runtime.as_deref(), &[("device", &device)]);
            Box::new(Worker::start(&target.name, start, local::limits(options)).map_err(|error| fixed(error, runtime))?)
        }
        Reach::Lowering { run, .. } if run == "xla" => xla(false, options)?,
        Reach::Lowering { run, .. } if run == neuron::NAME => on_neuron(target, options)?,
        Reach::Lowering { .. } => return Err(ReachError::NoEngine { target: target.name.clone() }),
    };
    let (label, rounds, emulates) = match &target.reach {
        Reach::Onnxruntime { mode_rounds, provider, .. } => {
            let rounds = words.iter().rev().find_map(|word| mode_rounds.get(word).copied());
            let label = if words.is_empty() { engine.name() } else { format!("{}:{}", target.name, words.join(",")) };
            (label, rounds, provider == provider::CPU)
        }
        reach => (engine.name(), None, matches!(reach, Reach::Tract {})),
    };
    let device = options.device.clone();
    Ok(Reached { label, engine, simulated: false, target: Some(target.clone()), device, rounds, emulates })
}

/// What is missing, with the runtime that brings it as what to do about it.
fn fixed(error: EngineError, runtime: &Option<String>) -> EngineError {
    match (error, runtime) {
        (EngineError::Absent { engine, problem, .. }, Some(runtime)) => {
            let fix = format!("`porter runtime install {runtime}` gets what it needs");
            EngineError::Absent { engine, problem, fix }
        }
        (error, _) => error,
    }
}

/// The worker that stands in where a plug-in is there and offers no device; `absent` is what the plug-in said.
fn apart_from_plugin(
    absent: EngineError,
    provider: &Provider,
    command: &str,
    options: &Options,
) -> Result<Box<dyn Engine>, ReachError> {
    let plugin = provider.plugin.as_ref();
    if plugin.is_none_or(|plugin| provider.library(plugin).is_err()) {
        return Err(absent.into());
    }
    let device = plugin.and_then(|plugin| plugin.device.clone()).unwrap_or_default();
    let settings = serde_json::to_string(&provider.options).unwrap_or_default();
    let threads = options.threads.to_string();
    let words = [("device", device.as_str()), ("options", &settings), ("threads", &threads)];
    let start = command::start(command, provider.runtime.as_deref(), &words);
    match Worker::start(&provider.label, start, local::limits(options)) {
        Ok(worker) => Ok(Box::new(worker)),
        Err(other) => Err(EngineError::Absent {
            engine: provider.label.clone(),
            problem: format!("{absent}. Without the plug-in: {other}"),
            fix: match &provider.runtime {
                Some(runtime) => format!("`porter runtime install {runtime}` gets both"),
                None => String::new(),
            },
        }
        .into()),
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
        Some(_) => plain_ort(options)?,
        None => plain_ort(options).unwrap_or_else(|_| Box::new(Tract)),
    };
    let engine = simulate::faulty(names, base.into(), targets)?;
    Ok(Reached {
        label: engine.name(),
        engine: Box::new(engine),
        simulated: true,
        target: simulate::home(names, targets).cloned(),
        device: None,
        rounds: None,
        emulates: true,
    })
}

/// ONNX Runtime on the CPU, as it reads the file.
fn plain_ort(options: &Options) -> Result<Box<dyn Engine>, ReachError> {
    placed(Ort { optimisation: Optimisation::Off, threads: options.threads, provider: None }, options)
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
    let lnc = setting.device.facts.get("lnc").and_then(|lnc| lnc.as_i64()).unwrap_or(1) as i32;
    let local = Local::Neuron(neuron::Settings {
        compile,
        lnc,
        known: codes::known(target),
        one_core: options.isolate,
        ..Default::default()
    });
    Ok(if options.isolate { local.apart(options)? } else { local.here()? })
}

/// ONNX Runtime in a process of its own, or in this one.
fn placed(ort: Ort, options: &Options) -> Result<Box<dyn Engine>, ReachError> {
    let local = Local::Ort(Box::new(ort));
    Ok(if options.isolate { local.apart(options)? } else { local.here()? })
}
