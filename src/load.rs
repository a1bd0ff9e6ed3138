//! Opens a model file as a graph: where files meet graphs, and errors get the file's name.

use std::path::Path;

use crate::graph::Model;
use crate::onnx::proto::ModelProto;
use crate::onnx::{self, ModelFile, OnnxError, Problem};

/// Reads a model file and makes its graph.
///
/// # Errors
/// As [`onnx::read`] and [`Model::from_proto`]; every message names the file and the place in it.
pub fn load(path: &Path) -> Result<Model, OnnxError> {
    load_open(&ModelFile::open(path)?)
}

/// As [`load`], from a file that is open already.
///
/// # Errors
/// As [`load`].
pub fn load_open(file: &ModelFile) -> Result<Model, OnnxError> {
    graph_of(file.read()?, file.path())
}

/// Reads a model file as messages, for commands that change no graph; refuses what [`load`] would refuse.
///
/// # Errors
/// As [`load`].
pub fn load_messages(path: &Path) -> Result<ModelProto, OnnxError> {
    let proto = onnx::read(path)?;
    graph_of(proto.clone(), path)?; // weights are shared, so the copy is small
    Ok(proto)
}

fn graph_of(proto: ModelProto, path: &Path) -> Result<Model, OnnxError> {
    Model::from_proto(proto)
        .map_err(|error| Problem::Graph { place: error.place, problem: error.problem }.in_file(path))
}
