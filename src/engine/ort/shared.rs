//! Large weights handed to ONNX Runtime beside the model, so that the message that goes over is small.
//!
//! A model from memory is there three times while ONNX Runtime reads it: the bytes, the message read from them, and the
//! weights. With the large ones declared as external and given as values over porter's own bytes, which it takes as they
//! are, all of these go. It never opens the file that the declaration names, but it wants one to be there: an empty one, in
//! a folder of its own.

use std::collections::HashSet;

use bytes::Bytes;
use ort::session::builder::SessionBuilder;
use tempfile::TempDir;

use super::value::{self, Input};
use crate::onnx::proto::{GraphProto, LOCATION_EXTERNAL, ModelProto, StringStringEntryProto, TensorProto};
use crate::onnx::{self, Payload};

/// Weights of fewer bytes stay in the message.
const LARGE: usize = 1 << 16;
/// Where numbers of any type may start.
const ALIGNMENT: usize = 8;
/// Models with less in large weights go over whole: they are little anyway.
const WORTH_IT: usize = 1 << 24;

/// The file that declarations name.
const FILE: &str = "beside";
/// ONNX Runtime's name for the folder in which such files lie.
const FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// What a session reads of porter's own memory, and what it wants to see while it is made.
#[derive(Default)]
pub(super) struct Shared {
    /// The weights: they must outlive the session.
    pub weights: Vec<Bytes>,
    /// Needed until the session is made.
    pub folder: Option<TempDir>,
}

/// Takes the large weights out of a message and gives them to the builder.
///
/// # Errors
/// ONNX Runtime does not take a value, or there is no room for an empty file.
pub(super) fn share(model: &mut ModelProto, mut builder: SessionBuilder) -> Result<(SessionBuilder, Shared), String> {
    let mut shared = Shared::default();
    let Some(graph) = &mut model.graph else { return Ok((builder, shared)) };
    // What is also an input may be given by whoever runs the model.
    let inputs: Vec<&str> = graph.input.iter().filter_map(|input| input.name.as_deref()).collect();
    // What nothing reads, ONNX Runtime drops before it looks for it.
    let mut read: HashSet<&str> = HashSet::new();
    reads(graph, &mut read);
    let large = |tensor: &TensorProto| {
        let bytes = tensor.raw_data.as_ref().map_or(0, |data| data.len());
        let fits = bytes >= LARGE && !inputs.contains(&tensor.name()) && read.contains(tensor.name());
        if fits { bytes } else { 0 }
    };
    if graph.initializer.iter().map(large).sum::<usize>() < WORTH_IT {
        return Ok((builder, shared));
    }
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    std::fs::write(folder.path().join(FILE), []).map_err(|error| error.to_string())?;
    let place = folder.path().to_string_lossy().into_owned();
    builder = builder.with_config_entry(FOLDER, place).map_err(|error| error.to_string())?;
    shared.folder = Some(folder);
    let chosen: Vec<bool> = graph.initializer.iter().map(|tensor| large(tensor) > 0).collect();
    for (tensor, _) in graph.initializer.iter_mut().zip(chosen).filter(|(_, chosen)| *chosen) {
        // What lies in a mapped file may start anywhere, and ONNX Runtime takes no value here that is not over our bytes.
        let placed = aligned(tensor);
        let Ok(Input { value, bytes }) = value::to_ort(placed.as_ref().unwrap_or(tensor)) else { continue };
        if bytes.is_empty() {
            continue; // a type that stays in the message
        }
        builder = builder.with_initializer(tensor.name(), value).map_err(|error| error.to_string())?;
        let length = tensor.raw_data.take().map_or(0, |data| data.len());
        let entry = |key: &str, value: String| StringStringEntryProto::new(key, value);
        tensor.data_location = Some(LOCATION_EXTERNAL);
        tensor.external_data =
            vec![entry("location", FILE.into()), entry("offset", "0".into()), entry("length", length.to_string())];
        shared.weights.push(bytes);
    }
    // What was copied for its place is not needed in the mapped file any more.
    onnx::give_back();
    Ok((builder, shared))
}

/// The names that the nodes of a graph and of those within it read, and those that it gives.
fn reads<'a>(graph: &'a GraphProto, names: &mut HashSet<&'a str>) {
    names.extend(graph.output.iter().filter_map(|output| output.name.as_deref()));
    for node in &graph.node {
        names.extend(node.input.iter().map(String::as_str));
        node.attribute.iter().flat_map(|one| one.g.iter().chain(&one.graphs)).for_each(|inner| reads(inner, names));
    }
}

/// The tensor with its bytes at such a place; none where they are already, or are not at hand.
fn aligned(tensor: &TensorProto) -> Option<TensorProto> {
    let Some(Payload::Bytes(data)) = &tensor.raw_data else { return None };
    if data.as_ptr().addr().is_multiple_of(ALIGNMENT) {
        return None;
    }
    let mut room = vec![0; data.len() + ALIGNMENT];
    let start = room.as_ptr().addr().next_multiple_of(ALIGNMENT) - room.as_ptr().addr();
    room[start..start + data.len()].copy_from_slice(data);
    let placed = Bytes::from(room).slice(start..start + data.len());
    Some(TensorProto { raw_data: Some(Payload::Bytes(placed)), ..tensor.clone() })
}
