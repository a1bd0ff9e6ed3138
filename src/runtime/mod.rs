//! Runtimes: the libraries of others that targets run on, got with pip into porter's own folder.
//!
//! A runtime is a file in `runtimes/`: packages with their versions and the hashes of every wheel that may be taken. pip does
//! the fetching, so a configured index or mirror is used, and a wheel with another hash is refused.

mod install;

pub use install::{Done, RuntimeError, install};

/// The runtimes that porter knows: name, what it is for, and its file.
const SHIPPED: &[(&str, &str, &str)] = &[
    ("ort", "ONNX Runtime, on the CPU and with Core ML", include_str!("../../runtimes/ort.txt")),
    ("openvino", "OpenVINO, with the plug-in for ONNX Runtime", include_str!("../../runtimes/openvino.txt")),
    ("qnn", "Qualcomm QNN with its emulator (under Qualcomm's own licence)", include_str!("../../runtimes/qnn.txt")),
    ("xla", "XLA on the CPU, the stand-in for AWS Neuron", include_str!("../../runtimes/xla.txt")),
];

/// A runtime and what it is made of.
#[derive(Clone, Copy, Debug)]
pub struct Runtime {
    /// What `porter runtime install` takes.
    pub name: &'static str,
    /// What it is for.
    pub what: &'static str,
    requirements: &'static str,
}

impl Runtime {
    /// Every runtime.
    pub fn all() -> impl Iterator<Item = Runtime> {
        SHIPPED.iter().map(|&(name, what, requirements)| Runtime { name, what, requirements })
    }

    /// The runtime of a name.
    pub fn named(name: &str) -> Option<Runtime> {
        Runtime::all().find(|runtime| runtime.name == name)
    }

    /// Its packages, `onnxruntime==1.31.1`; those for other platforms too.
    pub fn packages(&self) -> Vec<&'static str> {
        let lines = self.requirements.lines().filter(|line| line.contains("==") && !line.starts_with('#'));
        lines.filter_map(|line| line.split([' ', ';', '\\']).next()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_pinned_by_version_and_hash() {
        for runtime in Runtime::all() {
            assert!(!runtime.packages().is_empty(), "{}", runtime.name);
            let joined = runtime.requirements.replace("\\\n", " ");
            for line in joined.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
                assert!(line.contains("==") && line.contains("--hash=sha256:"), "{}: {line}", runtime.name);
            }
        }
        let ort = Runtime::named("ort").unwrap().packages();
        assert!(ort.contains(&format!("onnxruntime=={}", crate::engine::ort::TESTED).as_str()), "{ort:?}");
    }
}
