//! External data: tensors whose values stand in a file beside the model.
//!
//! A location is a path relative to the model's folder. One that leads out of it, by `..`, as an absolute path or through
//! a link, is refused: a model from somewhere else must not be able to read any file of the machine.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;

/// The folder of a model, with the data files mapped so far.
pub struct Folder {
    folder: PathBuf,
    /// The folder as named, and the folder of the file that a link leads to: a model cache links both into one store.
    roots: Vec<PathBuf>,
    mapped: Mutex<HashMap<String, Bytes>>,
}

impl Folder {
    /// The folder in which `model` stands.
    pub fn of(model: &Path) -> Self {
        let folder = match model.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let linked = model.canonicalize().ok().and_then(|real| real.parent().map(Path::to_path_buf));
        let roots = folder.canonicalize().into_iter().chain(linked).collect();
        Self { folder, roots, mapped: Mutex::default() }
    }

    /// `length` bytes from `offset` of a data file, as a view into it. The error completes "its data file 'x' ...".
    pub(super) fn view(&self, location: &str, offset: usize, length: usize) -> Result<Bytes, String> {
        let file = self.open(location)?;
        match offset.checked_add(length) {
            Some(end) if end <= file.len() => Ok(file.slice(offset..end)),
            _ => Err(format!("is too short: {length} bytes from {offset} are needed, but it has {}", file.len())),
        }
    }

    fn open(&self, location: &str) -> Result<Bytes, String> {
        let mut mapped = self.mapped.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(file) = mapped.get(location) {
            return Ok(file.clone());
        }
        let relative = Path::new(location);
        if location.is_empty() {
            return Err("has no name: external_data gives no location".into());
        }
        let outside = || "lies outside the model's folder, which is not allowed".to_string();
        if relative.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err(outside());
        }
        let path = self.folder.join(relative);
        let real = path.canonicalize().map_err(|error| format!("cannot be opened: {error}"))?;
        if !self.roots.iter().any(|root| real.starts_with(root)) {
            return Err(outside());
        }
        // A pipe would be waited for without end.
        if !real.is_file() {
            return Err("is not a file".into());
        }
        let file = super::read::map(&real).map_err(|error| format!("cannot be opened: {error}"))?;
        mapped.insert(location.to_string(), file.clone());
        Ok(file)
    }
}
