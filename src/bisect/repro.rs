//! The folder that shows a fault to somebody else: the cut as a model, its inputs, what should come out, a page that says
//! what it is, and a script that needs only ONNX Runtime and numpy.

use std::io;
use std::path::{Path, PathBuf};

use super::Proof;
use super::report::{Fault, Report};
use crate::engine::Tensors;
use crate::onnx::{self, DType, Tensor};

/// Why a folder was not written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct ReproError {
    /// The folder or file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: String,
}

/// Writes the folder of one fault under `folder` and returns its path.
///
/// # Errors
/// The disk says no.
pub fn write(
    folder: &Path,
    number: usize,
    report: &Report,
    fault: &Fault,
    proof: &Proof,
) -> Result<PathBuf, ReproError> {
    let own = folder.join(format!("{number}-{}", file_name(fault)));
    let failed = |path: &Path, problem: String| ReproError { path: path.to_path_buf(), problem };
    std::fs::create_dir_all(&own).map_err(|error| failed(&own, error.to_string()))?;
    let model = own.join("model.onnx");
    let mut cut = proof.model.clone();
    list_types(&mut cut.graph);
    onnx::write(&model, &cut.to_proto()).map_err(|error| failed(&model, error.to_string()))?;
    for (sample, (inputs, expected)) in proof.inputs.iter().zip(&proof.expected).enumerate() {
        for (kind, tensors) in [("inputs", inputs), ("expected", expected)] {
            let folder = own.join(format!("sample{sample}")).join(kind);
            save(&folder, tensors).map_err(|error| failed(&folder, error.to_string()))?;
        }
    }
    if let Some(evidence) = &proof.evidence {
        for (sample, run) in evidence.runs.iter().take(proof.inputs.len()).enumerate() {
            let folder = own.join(format!("sample{sample}")).join("target");
            save(&folder, &run.wrong).map_err(|error| failed(&folder, error.to_string()))?;
        }
    }
    let put = |name: &str, text: String| {
        let path = own.join(name);
        std::fs::write(&path, text).map_err(|error| failed(&path, error.to_string()))
    };
    put("README.md", readme(report, fault, proof))?;
    put("repro.py", SCRIPT.into())?;
    Ok(own)
}

/// `model.10.m.m.0.attn.Split`.
fn file_name(fault: &Fault) -> String {
    let name = fault.nodes.first().cloned().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '_' || c == '-' { c } else { '.' };
    let name: String = name.chars().map(plain).collect();
    let name = name.trim_matches('.').chars().take(80).collect::<String>();
    if name.is_empty() { "fault".into() } else { name }
}

fn list_types(graph: &mut crate::graph::Graph) {
    let ids: Vec<_> = graph.values().map(|(id, _)| id).collect();
    for id in ids {
        let known = graph.initializer(id).is_none();
        let value = graph.value_mut(id);
        value.listed = value.dtype.is_some() && value.shape.is_some() && known;
    }
}

/// Every tensor as `0.npy`, `1.npy`, ... with `names.txt` beside them: names hold characters that files cannot.
fn save(folder: &Path, tensors: &Tensors) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut names = String::new();
    for (index, (name, tensor)) in tensors.iter().enumerate() {
        if let Some(bytes) = npy(tensor) {
            std::fs::write(folder.join(format!("{index}.npy")), bytes)?;
            names.push_str(&format!("{index}.npy {name}\n"));
        }
    }
    std::fs::write(folder.join("names.txt"), names)
}

/// Reads what [`write`] saved.
///
/// # Errors
/// The folder is not there, or a file in it is no array.
pub fn load(folder: &Path) -> Result<Tensors, ReproError> {
    let failed = |path: &Path, problem: String| ReproError { path: path.to_path_buf(), problem };
    let list = folder.join("names.txt");
    let text = std::fs::read_to_string(&list).map_err(|error| failed(&list, error.to_string()))?;
    let mut tensors = Tensors::new();
    for line in text.lines() {
        let Some((file, name)) = line.split_once(' ') else { continue };
        let path = folder.join(file);
        let bytes = std::fs::read(&path).map_err(|error| failed(&path, error.to_string()))?;
        let tensor = from_npy(name, &bytes).ok_or_else(|| failed(&path, "is no array that porter reads".into()))?;
        tensors.insert(name.to_string(), tensor);
    }
    Ok(tensors)
}

const DESCRIPTIONS: [(DType, &str); 12] = [
    (DType::Float, "<f4"),
    (DType::Double, "<f8"),
    (DType::Float16, "<f2"),
    (DType::Int8, "|i1"),
    (DType::Int16, "<i2"),
    (DType::Int32, "<i4"),
    (DType::Int64, "<i8"),
    (DType::Uint8, "|u1"),
    (DType::Uint16, "<u2"),
    (DType::Uint32, "<u4"),
    (DType::Uint64, "<u8"),
    (DType::Bool, "|b1"),
];

/// numpy's format, version 1: a magic, the header's length, the header, the values.
fn npy(tensor: &Tensor) -> Option<Vec<u8>> {
    // numpy has no bfloat16; float32 holds every value of it.
    let wide = if tensor.dtype() == DType::Bfloat16 { tensor.convert(DType::Float)? } else { tensor.clone() };
    let (_, description) = DESCRIPTIONS.iter().find(|(dtype, _)| *dtype == wide.dtype())?;
    let dims: Vec<String> = wide.dims().iter().map(i64::to_string).collect();
    let shape = if dims.len() == 1 { format!("({},)", dims[0]) } else { format!("({})", dims.join(", ")) };
    let mut header = format!("{{'descr': '{description}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(wide.to_bytes().ok()?.iter());
    Some(bytes)
}

fn from_npy(name: &str, bytes: &[u8]) -> Option<Tensor> {
    let length = u16::from_le_bytes([*bytes.get(8)?, *bytes.get(9)?]) as usize;
    let header = std::str::from_utf8(bytes.get(10..10 + length)?).ok()?;
    let between = |start: &str, end: char| {
        let rest = &header[header.find(start)? + start.len()..];
        Some(rest[..rest.find(end)?].to_string())
    };
    let description = between("'descr': '", '\'')?;
    let dims = between("'shape': (", ')')?;
    let dims: Option<Vec<i64>> =
        dims.split(',').map(str::trim).filter(|size| !size.is_empty()).map(|size| size.parse().ok()).collect();
    let (dtype, _) = DESCRIPTIONS.iter().find(|(_, known)| *known == description)?;
    let tensor = Tensor::new(name, *dtype, &dims?, bytes.get(10 + length..)?.to_vec());
    tensor.check().ok().map(|()| tensor)
}

fn readme(report: &Report, fault: &Fault, proof: &Proof) -> String {
    let mut text = format!("# {}\n\n", fault.nodes.join(", "));
    let mut line = |said: String| {
        text.push_str(&said);
        text.push('\n');
    };
    line(format!("Found by porter {} in {} on {}.", env!("CARGO_PKG_VERSION"), report.model, report.target));
    if report.simulated {
        line("**The target was simulated: this fault was planted to try porter, it is no bug report.**".into());
    }
    line(String::new());
    line(format!("- operators: {}", fault.operators.join(", ")));
    line(format!("- what happens: {}", fault.reason));
    if let Some(code) = &fault.code {
        line(format!("- code: {code}"));
    }
    if let Some(shape) = fault.fingerprint {
        line(format!("- shape of the fault: {}: {}", shape.name(), shape.says()));
    }
    if let Some(metrics) = &fault.metrics {
        line(format!(
            "- cosine {:.6}, worst batch element and channel {:.6}, largest difference {:.4e}; noise explains {:.1e}",
            metrics.cosine, metrics.worst_cosine, metrics.max_abs, metrics.expected
        ));
    }
    if !fault.batch_elements.is_empty() {
        line(format!("- wrong in batch elements {:?}", fault.batch_elements));
    }
    if fault.fused {
        line("- it shows only while these nodes are compiled together".into());
    }
    if let Some(quirk) = &fault.quirk {
        line(format!("- known as {quirk}"));
    }
    let graph = &proof.model.graph;
    let spoken = |ids: &[crate::graph::ValueId]| {
        let all: Vec<String> =
            ids.iter().map(|&id| format!("`{}` {}", graph.value(id).name, graph.value(id).type_text())).collect();
        all.join(", ")
    };
    line(format!(
        "- model.onnx: opset {}, in {}; out {}",
        proof.model.opset(),
        spoken(&graph.inputs),
        spoken(&graph.outputs)
    ));
    line(format!("- reference: {} {}", report.reference, report.reference_version));
    if !report.simulated {
        line(format!("- target: {} {}", report.target, report.target_version));
    }
    if let Some((reference, own)) = fault.from_exact {
        line(format!("- from float64: the reference {reference:.3e}, the target {own:.3e}"));
    }
    line(format!("- machine: {} {}", std::env::consts::OS, std::env::consts::ARCH));
    line(String::new());
    line("`inputs` holds what the whole model feeds these nodes with, `expected` what the reference gives,".into());
    line("`target` what the target gave, each as .npy files with `names.txt` beside them.".into());
    line(String::new());
    line("    pip install onnxruntime numpy".into());
    line(
        "    python3 repro.py                 # the reference, and how far the target's saved outputs are from it"
            .into(),
    );
    line(format!("    porter verify model.onnx --target '{}' --reference ort", report.target_argument()));
    text
}

/// Runs the reference side, and compares the target's saved outputs with it.
const SCRIPT: &str = r#""""Runs model.onnx on ONNX Runtime's CPU provider without graph optimisation, and compares.

Needs onnxruntime and numpy. With a folder as argument, outputs saved there (as in sample0/target) are compared instead.
"""
import pathlib
import sys

import numpy as np
import onnxruntime as ort

here = pathlib.Path(__file__).resolve().parent


def load(folder):
    names = (folder / "names.txt").read_text().splitlines()
    return {name: np.load(folder / file) for file, name in (line.split(" ", 1) for line in names)}


options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
session = ort.InferenceSession(str(here / "model.onnx"), options, providers=["CPUExecutionProvider"])
wanted = [value.name for value in session.get_outputs()]
for sample in sorted(here.glob("sample*")):
    got = dict(zip(wanted, session.run(wanted, load(sample / "inputs"))))
    others = {"expected": sample / "expected", "target": pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else sample / "target"}
    for kind, folder in others.items():
        if not (folder / "names.txt").exists():
            print(f"{sample.name} {kind:9} no outputs were saved: the target failed")
            continue
        for name, value in load(folder).items():
            right = got[name].astype(np.float64)
            apart = np.abs(right - value.astype(np.float64))
            print(f"{sample.name} {kind:9} {name}: largest difference {np.nanmax(apart, initial=0):.6g}")
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_come_back() {
        let tensor = Tensor::from_f32("a b", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, f32::NAN]);
        let bytes = npy(&tensor).unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let back = from_npy("a b", &bytes).unwrap();
        assert_eq!((back.dims(), back.to_bytes().unwrap()), (tensor.dims(), tensor.to_bytes().unwrap()));
        let scalar = Tensor::from_i64("s", &[], &[7]);
        assert_eq!(from_npy("s", &npy(&scalar).unwrap()).unwrap().to_i64s().unwrap(), [7]);
    }
}
