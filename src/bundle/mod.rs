//! A bundle: the folder that holds a prepared model, whole or not at all.
//!
//! ```text
//! yolo26l.neuron/
//!   manifest.json     what is in here and where it came from (docs/manifest.schema.json)
//!   model.onnx        the target's part; model-2.onnx, ... where there are several
//!   host.onnx         the CPU's part, where the target does not take the whole model
//!   compile.sh        for targets that compile ahead of time
//!   run.sh            runs it there, a session on each core
//!   report.md         the same for people
//! ```
//!
//! The same input and options give the same bytes: no times, no paths, no order that depends on a hash.

pub mod manifest;
mod write;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

pub use manifest::Manifest;
pub use write::{Draft, TextFile};

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";

/// A bundle that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum BundleError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: exists and is not a bundle that porter wrote, so it is not replaced; choose another folder with -o", path.display())]
    NotOurs { path: PathBuf },
    #[error(
        "{}: replacing this bundle would take away files that porter did not write: {files}. Move them away, or choose another folder with -o",
        path.display()
    )]
    Foreign { path: PathBuf, files: String },
    #[error("{}: its manifest is broken: {problem}", path.display())]
    Manifest { path: PathBuf, problem: String },
    #[error(transparent)]
    Onnx(#[from] crate::onnx::OnnxError),
}

impl BundleError {
    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }
}

/// Reads a bundle's manifest.
///
/// # Errors
/// No manifest, or one that does not have the form.
pub fn read(folder: &Path) -> Result<Manifest, BundleError> {
    let path = folder.join(MANIFEST);
    let text = std::fs::read_to_string(&path).map_err(|source| BundleError::io(&path, source))?;
    serde_json::from_str(&text).map_err(|error| BundleError::Manifest { path, problem: error.to_string() })
}

/// What stands in a bundle's folder and is not the bundle's: notes of its user, compiled parts. Sorted by name.
///
/// # Errors
/// As [`read`], or the folder cannot be listed.
pub fn foreign_files(folder: &Path) -> Result<Vec<String>, BundleError> {
    let manifest = read(folder)?;
    let own: HashSet<String> = manifest.files.into_iter().chain([MANIFEST.to_string()]).collect();
    let entries = std::fs::read_dir(folder).map_err(|source| BundleError::io(folder, source))?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut foreign: Vec<String> = names.filter(|name| !own.contains(name)).collect();
    foreign.sort();
    Ok(foreign)
}

/// Whether a folder is a bundle.
pub fn is_bundle(folder: &Path) -> bool {
    folder.is_dir() && read(folder).is_ok()
}
