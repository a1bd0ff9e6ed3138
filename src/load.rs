//! Opens a model file as a graph: where files meet graphs, and errors get the file's name.

use std::path::Path;

use crate::graph::Model;
use crate::onnx::{self, OnnxError, Problem};

/// Reads a model file and makes its graph.
///
/// # Errors
/// As [`onnx::read`] and [`Model::from_proto`]; every message names the file and the place in it.
pub fn load(path: &Path) -> Result<Model, OnnxError> {
    let proto = onnx::read(path)?;
    Model::from_proto(proto)
        .map_err(|error| Problem::Graph { place: error.place, problem: error.problem }.in_file(path))
}
