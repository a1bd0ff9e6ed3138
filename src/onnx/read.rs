//! Opens a model file: maps it, decodes the messages around the weights, and checks every tensor before anyone uses it.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use prost::Message;

use super::external::Folder;
use super::proto::{AttributeProto, GraphProto, LOCATION_EXTERNAL, ModelProto, NodeProto, TensorProto};
use super::{DType, OnnxError, Payload, Problem, TensorError, fill};

/// The oldest opset of ai.onnx that porter reads.
pub const OLDEST_OPSET: i64 = 11;
/// The newest opset of ai.onnx that porter knows: that of onnx 1.23.
pub const NEWEST_OPSET: i64 = 28;

/// Reads a model file. Weights stay in the mapped file (or its external data files) until they are used.
///
/// # Errors
/// A file that is missing, is not ONNX, is cut short, has an opset out of range, or has a tensor whose values are
/// missing or do not match its dims.
pub fn read(path: &Path) -> Result<ModelProto, OnnxError> {
    let at = |problem: Problem| problem.in_file(path);
    let bytes = map(path).map_err(|error| at(error.into()))?;
    let folder = Folder::of(path);
    decode_with(bytes, Some(&folder)).map_err(at)
}

/// Decodes a model held in memory. Tensors may not stand in external files.
pub fn decode(bytes: Bytes) -> Result<ModelProto, Problem> {
    decode_with(bytes, None)
}

/// Maps a file into memory; an empty one, which cannot be mapped, is empty bytes.
pub(super) fn map(path: &Path) -> std::io::Result<Bytes> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(std::io::Error::new(std::io::ErrorKind::IsADirectory, "is a folder, not a model file"));
    }
    if !meta.is_file() {
        return Ok(Bytes::from(std::fs::read(path)?)); // a pipe cannot be mapped
    }
    if meta.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the map is read-only. Another process that truncates the file under us can end this one with a signal,
    // as with any mapped file; porter itself only ever replaces files by renaming.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}

fn decode_with(bytes: Bytes, folder: Option<&Folder>) -> Result<ModelProto, Problem> {
    if bytes.is_empty() {
        return Err(Problem::NotOnnx("the file is empty".into()));
    }
    // Every exporter writes `ir_version`, field 1, first: one byte of key, one of a small number.
    let looks_like_onnx = bytes[0] == 0x08 && bytes.get(1).is_none_or(|&version| version < 0x40);
    let model = ModelProto::decode(bytes).map_err(|error| {
        let told = error.to_string();
        if looks_like_onnx { Problem::Truncated(told) } else { Problem::NotOnnx(told) }
    })?;
    let Some(graph) = &model.graph else {
        return Err(match looks_like_onnx {
            true => Problem::Truncated("there is no graph".into()),
            false => Problem::NotOnnx("there is no graph in it".into()),
        });
    };
    if graph.node.is_empty() && graph.output.is_empty() {
        return Err(Problem::NotOnnx("its graph has neither nodes nor outputs".into()));
    }
    check_opsets(&model)?;
    let mut model = model;
    try_for_each_tensor(&mut model, &mut |tensor| settle(tensor, folder))?;
    Ok(model)
}

fn check_opsets(model: &ModelProto) -> Result<(), Problem> {
    let mut default = None;
    for import in &model.opset_import {
        let domain = import.domain.as_deref().unwrap_or_default();
        if domain.is_empty() || domain == "ai.onnx" {
            default = Some(import.version.unwrap_or(0));
        }
    }
    let Some(found) = default else {
        return Err(Problem::Truncated("no opset is imported for ai.onnx".into()));
    };
    if !(OLDEST_OPSET..=NEWEST_OPSET).contains(&found) {
        return Err(Problem::Opset { domain: "ai.onnx".into(), found, oldest: OLDEST_OPSET, newest: NEWEST_OPSET });
    }
    Ok(())
}

/// Brings a tensor's values within reach and checks that they are as many as its dims say.
fn settle(tensor: &mut TensorProto, folder: Option<&Folder>) -> Result<(), Problem> {
    resolve(tensor, folder)?;
    tensor.check().map_err(|problem| Problem::Tensor { name: tensor.name().to_string(), problem })
}

fn resolve(tensor: &mut TensorProto, folder: Option<&Folder>) -> Result<(), Problem> {
    if tensor.data_location != Some(LOCATION_EXTERNAL) && tensor.external("location").is_none() {
        return Ok(());
    }
    let name = tensor.name().to_string();
    let at = |problem: TensorError| Problem::Tensor { name: name.clone(), problem };
    let number = tensor.data_type.unwrap_or(0);
    let dtype = DType::from_number(number).ok_or_else(|| at(TensorError::UnknownType(number)))?;
    let count = tensor.checked_len().map_err(at)?;
    let expected = dtype.byte_len(count).ok_or_else(|| at(TensorError::TooLarge { dims: tensor.dims.clone() }))?;
    let payload = if let Some(fill) = fill::Fill::of(tensor, dtype, count).map_err(at)? {
        Payload::Fill(fill)
    } else {
        let location = tensor.external("location").unwrap_or_default().to_string();
        let told = |problem: String| Problem::External { name: name.clone(), location: location.clone(), problem };
        let folder = folder.ok_or_else(|| told("cannot be opened: the model is not a file".into()))?;
        let number = |key: &str| -> Result<Option<usize>, Problem> {
            match tensor.external(key) {
                None => Ok(None),
                Some(text) => {
                    text.parse().map(Some).map_err(|_| told(format!("has {key} '{text}', which is no number")))
                }
            }
        };
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        if let Some(length) = length.filter(|&length| length != expected) {
            return Err(at(TensorError::WrongLength { dtype, dims: tensor.dims.clone(), expected, found: length }));
        }
        Payload::Bytes(folder.view(&location, offset, expected).map_err(told)?)
    };
    tensor.raw_data = Some(payload);
    tensor.external_data.clear();
    tensor.data_location = None;
    Ok(())
}

/// Visits every tensor of a model: initializers and attribute values, in subgraphs and functions too.
pub(super) fn try_for_each_tensor<E>(
    model: &mut ModelProto,
    visit: &mut dyn FnMut(&mut TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    if let Some(graph) = &mut model.graph {
        graph_tensors(graph, visit)?;
    }
    for function in &mut model.functions {
        function.attribute_proto.iter_mut().try_for_each(|attribute| attribute_tensors(attribute, visit))?;
        function.node.iter_mut().try_for_each(|node| node_tensors(node, visit))?;
    }
    Ok(())
}

/// Visits every tensor of a model without changing it.
pub(super) fn for_each_tensor(model: &ModelProto, visit: &mut dyn FnMut(&TensorProto)) {
    fn nodes(list: &[NodeProto], visit: &mut dyn FnMut(&TensorProto)) {
        list.iter().flat_map(|node| &node.attribute).for_each(|a| attribute(a, visit));
    }
    fn attribute(attribute: &AttributeProto, visit: &mut dyn FnMut(&TensorProto)) {
        attribute.t.iter().chain(&attribute.tensors).for_each(&mut *visit);
        attribute.g.iter().chain(&attribute.graphs).for_each(|sub| graph(sub, visit));
    }
    fn graph(graph: &GraphProto, visit: &mut dyn FnMut(&TensorProto)) {
        graph.initializer.iter().for_each(&mut *visit);
        nodes(&graph.node, visit);
    }
    model.graph.iter().for_each(|main| graph(main, visit));
    for function in &model.functions {
        function.attribute_proto.iter().for_each(|a| attribute(a, visit));
        nodes(&function.node, visit);
    }
}

type Visit<'a, E> = &'a mut dyn FnMut(&mut TensorProto) -> Result<(), E>;

fn graph_tensors<E>(graph: &mut GraphProto, visit: Visit<E>) -> Result<(), E> {
    graph.initializer.iter_mut().try_for_each(&mut *visit)?;
    graph.node.iter_mut().try_for_each(|node| node_tensors(node, visit))
}

fn node_tensors<E>(node: &mut NodeProto, visit: Visit<E>) -> Result<(), E> {
    node.attribute.iter_mut().try_for_each(|attribute| attribute_tensors(attribute, visit))
}

fn attribute_tensors<E>(attribute: &mut AttributeProto, visit: Visit<E>) -> Result<(), E> {
    attribute.t.iter_mut().try_for_each(&mut *visit)?;
    attribute.tensors.iter_mut().try_for_each(&mut *visit)?;
    attribute.g.iter_mut().try_for_each(|graph| graph_tensors(graph, visit))?;
    attribute.graphs.iter_mut().try_for_each(|graph| graph_tensors(graph, visit))
}

/// SHA-256 of a file, in hexadecimal. Read through a buffer, not a map, so that it does not count as memory in use.
///
/// # Errors
/// The file cannot be read.
pub fn sha256(path: &Path) -> std::io::Result<String> {
    use sha2::Digest;
    use std::io::Read;
    let mut file = File::open(path)?;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => hash.update(&buffer[..count]),
        }
    }
}
