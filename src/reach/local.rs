//! Engines that run inside a porter process: in this one, or in one of their own (`porter worker`).

use std::path::PathBuf;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::Options;
use crate::engine::neuron::{self, Neuron};
use crate::engine::ort::Ort;
use crate::engine::tract::Tract;
use crate::engine::worker::{Limits, Start, Worker};
use crate::engine::{Engine, EngineError};

/// An engine of porter's own, said so that another porter process can make it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Local {
    /// tract.
    Tract,
    /// ONNX Runtime.
    Ort(Box<Ort>),
    /// Neuron devices.
    Neuron(neuron::Settings),
}

impl Local {
    /// The engine in this process.
    ///
    /// # Errors
    /// Its library is not there.
    pub fn here(&self) -> Result<Box<dyn Engine>, EngineError> {
        Ok(match self {
            Local::Tract => Box::new(Tract),
            Local::Ort(ort) => {
                ort.check()?;
                ort.clone()
            }
            Local::Neuron(settings) => Box::new(Neuron::open(settings.clone())?),
        })
    }

    /// The engine in a porter process of its own.
    ///
    /// # Errors
    /// As [`Local::here`], or no porter command is at hand to run it in.
    pub fn apart(&self, options: &Options) -> Result<Box<dyn Engine>, EngineError> {
        let label = self.name();
        let absent = |problem: &str, fix: &str| EngineError::Absent {
            engine: label.clone(),
            problem: problem.into(),
            fix: fix.into(),
        };
        let program = options.program.clone().or_else(own_program).ok_or_else(|| {
            absent(
                "it runs in a process of its own, and the porter command is not beside this program",
                "Set Options::program to the porter command, or Options::isolate to false",
            )
        })?;
        let engine = serde_json::to_string(self).map_err(|error| absent(&error.to_string(), ""))?;
        let arguments = ["worker", "--engine", &engine].map(String::from).to_vec();
        Ok(Box::new(Worker::start(&label, Start::Program(program, arguments), limits(options))?))
    }

    /// Whether there is a porter command that can run engines apart.
    pub fn has_command() -> bool {
        own_program().is_some()
    }

    fn name(&self) -> String {
        match self {
            Local::Tract => Tract.name(),
            Local::Ort(ort) => ort.name(),
            Local::Neuron(_) => neuron::NAME.into(),
        }
    }
}

/// What workers are held to.
pub(super) fn limits(options: &Options) -> Limits {
    let usual = Limits::default();
    let start = usual.start.min(options.time_limit);
    Limits { start, time: options.time_limit, memory: options.memory_limit, ..usual }
}

/// The program that runs, where it is the porter command whatever its file is called.
static COMMAND: OnceLock<PathBuf> = OnceLock::new();

/// Says that the program that runs is the porter command, so that engines in processes of their own can be started from
/// its file. The command says so when it begins.
pub fn this_is_the_command() {
    if let Ok(this) = std::env::current_exe() {
        let _ = COMMAND.set(this);
    }
}

/// The porter command: this program, or one beside it (programs that Cargo builds for tests lie a folder deeper).
fn own_program() -> Option<PathBuf> {
    if let Some(command) = COMMAND.get() {
        return Some(command.clone());
    }
    let this = std::env::current_exe().ok()?;
    let name = format!("porter{}", std::env::consts::EXE_SUFFIX);
    if this.file_name().is_some_and(|file| file == name.as_str()) {
        return Some(this);
    }
    let folder = this.parent()?;
    let mut places = vec![folder.join(&name)];
    if folder.ends_with("deps") {
        places.insert(0, folder.parent()?.join(&name));
    }
    places.into_iter().find(|place| place.is_file())
}
