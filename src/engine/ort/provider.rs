//! Execution providers: what computes in place of ONNX Runtime's own CPU kernels, built in or as a plug-in library.
//!
//! ONNX Runtime drops options that it cannot place without a word: those of a plug-in must carry the provider's name
//! before a dot, which is seen to here.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use indexmap::IndexMap;
use ort::session::builder::SessionBuilder;
use serde::{Deserialize, Serialize};

use super::{builtin, library};
use crate::engine::EngineError;

/// A provider and how it is to be used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Provider {
    /// What to call it in front of a reader: the target's name.
    pub label: String,
    /// Its name, such as `CUDAExecutionProvider`.
    pub name: String,
    /// Its options.
    pub options: IndexMap<String, String>,
    /// Set where it is a library of its own.
    pub plugin: Option<Plugin>,
    /// Whether nodes that it does not take may run on ONNX Runtime's CPU provider; otherwise they are an error.
    pub partial: bool,
    /// What `porter runtime install` takes to get it.
    pub runtime: Option<String>,
    /// The one operating system that has it, where it is bound to one.
    pub system: Option<String>,
}

/// A provider's own library.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plugin {
    /// The name that it is registered under.
    pub name: String,
    /// The Python package that brings it.
    pub package: String,
    /// The file's name in the package.
    pub library: String,
    /// The kind of device, where the plug-in offers several: `cpu`, `gpu`, `npu`.
    pub device: Option<String>,
}

impl Provider {
    /// Whether its library is there, loads, and has a device.
    ///
    /// # Errors
    /// [`EngineError::Absent`], with what to do about it.
    pub fn check(&self) -> Result<(), EngineError> {
        if let Some(system) = self.elsewhere() {
            return Err(
                self.absent(format!("it exists on {system} only, and this machine runs {}", std::env::consts::OS))
            );
        }
        let lacking = |error: EngineError| match error {
            EngineError::Absent { problem, .. } => self.absent(format!("ONNX Runtime: {problem}")),
            other => other,
        };
        let environment = library::environment(self.runtime.as_deref()).map_err(lacking)?;
        match &self.plugin {
            Some(plugin) => self.devices(environment, plugin).map(|_| ()),
            None => match builtin::available() {
                Ok(names) if names.contains(&self.name) => Ok(()),
                Ok(names) => Err(self.absent(format!(
                    "this build of ONNX Runtime does not have the {}; it has {}",
                    self.name,
                    names.join(", ")
                ))),
                Err(problem) => Err(self.absent(problem)),
            },
        }
    }

    /// The system it is bound to, where that is not this one.
    fn elsewhere(&self) -> Option<&str> {
        self.system.as_deref().filter(|&system| system != std::env::consts::OS)
    }

    /// The version of what computes, where it says one.
    pub fn version(&self) -> String {
        let options: Vec<String> = self.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let own = self.plugin.as_ref().and_then(|plugin| {
            let environment = library::environment(self.runtime.as_deref()).ok()?;
            library::metadata(self.devices(environment, plugin).ok()?.first()?, c"version")
        });
        [self.name.clone(), own.unwrap_or_default(), options.join(" ")].join(" ").trim().to_string()
    }

    /// Gives the session to the provider.
    pub(super) fn register(&self, builder: SessionBuilder) -> Result<SessionBuilder, EngineError> {
        let refused = |error: String| self.absent(format!("the provider does not start: {}", one_line(&error)));
        let Some(plugin) = &self.plugin else {
            let mut builder = builder;
            return builtin::append(&mut builder, &self.name, &self.options).map(|()| builder).map_err(refused);
        };
        let environment = library::environment(self.runtime.as_deref())?;
        let devices = self.devices(environment, plugin)?;
        let device = devices.into_iter().next();
        let prefix = device.as_ref().and_then(|device| device.ep().ok()).unwrap_or_default().to_string();
        let options: Vec<(String, String)> =
            self.options.iter().map(|(key, value)| (format!("{prefix}.{key}"), value.clone())).collect();
        builder.with_devices(device, Some(&options)).map_err(|error| refused(error.to_string()))
    }

    /// The plug-in's devices of the wanted kind, at least one. Loads the plug-in the first time.
    fn devices<'e>(
        &self,
        environment: &'e ort::environment::Environment,
        plugin: &Plugin,
    ) -> Result<Vec<ort::device::Device<'e>>, EngineError> {
        static LOADED: Mutex<Option<HashSet<String>>> = Mutex::new(None);
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = loaded.get_or_insert_default();
        if !loaded.contains(&plugin.name) {
            let path = self.library(plugin)?;
            let done = environment.register_ep_library(&plugin.name, &path);
            let told = |error: ort::Error| {
                self.absent(format!("{} does not load: {}", path.display(), one_line(error.message())))
            };
            done.map_err(told)?;
            loaded.insert(plugin.name.clone());
        }
        let own = |device: &ort::device::Device| device.ep().is_ok_and(|ep| ep == plugin.name || ep == self.name);
        let all: Vec<_> = environment.devices().filter(own).collect();
        let kind = |device: &ort::device::Device| format!("{:?}", device.hardware_device().ty()).to_lowercase();
        let wanted = plugin.device.as_deref().filter(|wanted| ["cpu", "gpu", "npu"].contains(wanted));
        let offered: Vec<String> = all.iter().map(kind).collect();
        let chosen: Vec<_> =
            all.into_iter().filter(|device| wanted.is_none_or(|wanted| kind(device) == wanted)).collect();
        if !chosen.is_empty() {
            return Ok(chosen);
        }
        let vendor = environment.devices().next().and_then(|device| device.hardware_device().vendor().ok());
        Err(self.absent(match offered.as_slice() {
            [] => format!(
                "the plug-in offers no device on this machine, whose processor is by {}",
                vendor.filter(|vendor| !vendor.is_empty()).unwrap_or("a maker that is not named")
            ),
            _ => format!("the plug-in offers {} and no {}", offered.join(", "), wanted.unwrap_or("device")),
        }))
    }

    /// The plug-in's file.
    ///
    /// # Errors
    /// It is not on this machine.
    pub fn library(&self, plugin: &Plugin) -> Result<PathBuf, EngineError> {
        let found = library::in_package(&plugin.package, &plugin.library, self.runtime.as_deref());
        found.ok_or_else(|| self.absent(format!("its package {} is not on this machine", plugin.package)))
    }

    pub(super) fn absent(&self, problem: String) -> EngineError {
        EngineError::Absent {
            engine: self.label.clone(),
            problem,
            fix: match self.runtime.as_deref() {
                _ if self.elsewhere().is_some() => {
                    "There is nothing to install here. `porter prepare` writes its bundle on any machine".into()
                }
                Some("ort-gpu") => format!(
                    "It needs the package onnxruntime-gpu with CUDA 13 and cuDNN 9, PORTER_ORT set to its library, and \
                     an NVIDIA GPU; `porter doctor {}` shows what is there",
                    self.label
                ),
                Some(runtime) => {
                    format!("`porter runtime install {runtime}` gets it; `porter doctor` shows what is there")
                }
                None => "`porter doctor` shows what is there".into(),
            },
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
