//! Opens a model file: maps it, decodes the messages around the weights, and checks every tensor before anyone uses it.

use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use super::external::Folder;
use super::proto::{
    AttributeProto, GraphProto, LOCATION_EXTERNAL, ModelProto, NodeProto, SparseTensorProto, TensorProto,
};
use super::{DType, OnnxError, Payload, Problem, TensorError, fill, look, mapped};

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
    ModelFile::open(path)?.read()
}

/// An open model file: what is hashed is what is read, even when somebody replaces the file meanwhile. Clones share the
/// map, so the pages that one of them touches are there for the others.
#[derive(Clone, Debug)]
pub struct ModelFile {
    path: PathBuf,
    bytes: Bytes,
}

impl ModelFile {
    /// Maps a file.
    ///
    /// # Errors
    /// The file is missing, or is no file.
    pub fn open(path: &Path) -> Result<Self, OnnxError> {
        let bytes = map(path).map_err(|error| Problem::from(error).in_file(path))?;
        Ok(Self { path: path.to_path_buf(), bytes })
    }

    /// Where it stands.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The messages in it, as [`read`] gives them.
    ///
    /// # Errors
    /// As [`read`].
    pub fn read(&self) -> Result<ModelProto, OnnxError> {
        let folder = Folder::of(&self.path);
        decode_with(self.bytes.clone(), Some(&folder)).map_err(|problem| problem.in_file(&self.path))
    }

    /// SHA-256 of the file itself (not of external data), in hexadecimal.
    pub fn sha256(&self) -> String {
        self.hash(&mut |_| ())
    }

    /// Starts to hash the file in a thread of its own: hashing a large model takes longer than preparing it.
    pub fn digest(&self) -> Digest {
        let (hashed, pieces) = std::sync::mpsc::channel();
        let file = self.clone();
        let thread = std::thread::spawn(move || file.hash(&mut |piece| drop(hashed.send(piece))));
        Digest { thread, pieces }
    }

    /// The hash, where `done` is given each piece behind which it is.
    fn hash(&self, done: &mut dyn FnMut(Bytes)) -> String {
        use sha2::Digest;
        let mut hash = sha2::Sha256::new();
        for start in (0..self.bytes.len()).step_by(HASHED) {
            let piece = self.bytes.slice(start..self.bytes.len().min(start + HASHED));
            hash.update(&piece);
            done(piece);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Bytes that are hashed at a time.
const HASHED: usize = 1 << 23;

/// A hash that is being made.
#[derive(Debug)]
pub struct Digest {
    thread: std::thread::JoinHandle<String>,
    pieces: std::sync::mpsc::Receiver<Bytes>,
}

impl Digest {
    /// The hash, once it is there; none where its thread ended early. Who asks is done with the file: while the hash goes
    /// on, the memory is given back that it is done with, which would cost as much time afterwards.
    pub fn finish(self) -> Option<String> {
        self.pieces.iter().for_each(|piece| mapped::give_back_of(&piece));
        self.thread.join().ok()
    }
}

/// Decodes a model held in memory. Tensors may not stand in external files.
pub fn decode(bytes: Bytes) -> Result<ModelProto, Problem> {
    decode_with(bytes, None)
}

/// Maps a file into memory; an empty one, which cannot be mapped, is empty bytes.
pub(crate) fn map(path: &Path) -> std::io::Result<Bytes> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(std::io::Error::new(std::io::ErrorKind::IsADirectory, "is a folder, not a model file"));
    }
    #[cfg(unix)]
    if std::os::unix::fs::FileTypeExt::is_char_device(&meta.file_type()) {
        return Err(std::io::Error::other("is a device, not a model file")); // some of them never end
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
    Ok(super::mapped::bytes(map))
}

fn decode_with(bytes: Bytes, folder: Option<&Folder>) -> Result<ModelProto, Problem> {
    if bytes.is_empty() {
        return Err(Problem::NotOnnx("the file is empty".into()));
    }
    // Every exporter writes `ir_version`, field 1, first: one byte of key, one of a small number.
    let looks_like_onnx = bytes[0] == 0x08 && bytes.get(1).is_none_or(|&version| version < 0x40);
    let model = ModelProto::decode(bytes.clone()).map_err(|error| match missing_bytes(&bytes) {
        _ if !looks_like_onnx => Problem::NotOnnx(look::seems(&bytes).into()),
        Some(missing) => Problem::CutShort { missing },
        None => Problem::Damaged(plain(&error)),
    })?;
    drop(bytes);
    let Some(graph) = &model.graph else {
        return Err(match looks_like_onnx {
            true => Problem::Incomplete("there is no graph".into()),
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

/// A decoder's message without its preamble, and in the words of a model where it has words of its own.
fn plain(error: &prost::DecodeError) -> String {
    let told = error.to_string();
    let told = told.strip_prefix("failed to decode Protobuf message: ").unwrap_or(&told);
    if told.contains("recursion limit") {
        return "graphs are nested in graphs too deep (more than 33 levels, or 100 messages)".into();
    }
    // `ModelProto.graph: GraphProto.node: what is wrong`
    let mut fields = Vec::new();
    let mut what = told;
    while let Some((place, rest)) = what.split_once(": ") {
        let Some((_, field)) = place.split_once('.').filter(|(message, _)| message.ends_with("Proto")) else { break };
        fields.push(field);
        what = rest;
    }
    if fields.is_empty() { what.to_string() } else { format!("{what}, in its {}", fields.join(".")) }
}

/// How many bytes the last field of the outermost message lacks; `None` when the file's end is not the problem.
fn missing_bytes(mut bytes: &[u8]) -> Option<u64> {
    use prost::encoding::{WireType, decode_key, decode_varint};
    while !bytes.is_empty() {
        let varint_cut = |rest: &[u8]| (rest.len() < 10 && rest.iter().all(|byte| byte & 0x80 != 0)).then_some(1);
        if let Some(missing) = varint_cut(bytes) {
            return Some(missing);
        }
        let (_, wire_type) = decode_key(&mut bytes).ok()?;
        let length = match wire_type {
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::Varint | WireType::LengthDelimited => {
                if let Some(missing) = varint_cut(bytes) {
                    return Some(missing);
                }
                let number = decode_varint(&mut bytes).ok()?;
                match wire_type {
                    WireType::Varint => 0,
                    _ => number,
                }
            }
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        let present = bytes.len() as u64;
        if length > present {
            return Some(length - present);
        }
        bytes = bytes.get(length as usize..)?;
    }
    None
}

fn check_opsets(model: &ModelProto) -> Result<(), Problem> {
    let mut default = None;
    for import in &model.opset_import {
        let domain = import.domain.as_deref().unwrap_or_default();
        if domain.is_empty() || domain == "ai.onnx" {
            let version = import.version.unwrap_or(0);
            if let Some(other) = default.filter(|&other| other != version) {
                let problem = format!("is imported twice, as {other} and as {version}");
                return Err(Problem::Graph { place: "opset of ai.onnx".into(), problem });
            }
            default = Some(version);
        }
    }
    let Some(found) = default else {
        // A model may be made of other domains' operators alone.
        return match model.opset_import.is_empty() {
            true => Err(Problem::Incomplete("no opset is imported".into())),
            false => Ok(()),
        };
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
    if dtype == DType::String {
        return Err(at(TensorError::StringBytes));
    }
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

/// Visits every tensor of a model: initializers and attribute values, sparse ones too, in subgraphs and functions.
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
    fn sparse<'a>(all: impl IntoIterator<Item = &'a SparseTensorProto>, visit: &mut dyn FnMut(&TensorProto)) {
        all.into_iter().flat_map(|sparse| sparse.values.iter().chain(&sparse.indices)).for_each(&mut *visit);
    }
    fn attribute(attribute: &AttributeProto, visit: &mut dyn FnMut(&TensorProto)) {
        attribute.t.iter().chain(&attribute.tensors).for_each(&mut *visit);
        sparse(attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors), visit);
        attribute.g.iter().chain(&attribute.graphs).for_each(|sub| graph(sub, visit));
    }
    fn graph(graph: &GraphProto, visit: &mut dyn FnMut(&TensorProto)) {
        graph.initializer.iter().for_each(&mut *visit);
        sparse(&graph.sparse_initializer, visit);
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
    sparse_tensors(&mut graph.sparse_initializer, visit)?;
    graph.node.iter_mut().try_for_each(|node| node_tensors(node, visit))
}

fn node_tensors<E>(node: &mut NodeProto, visit: Visit<E>) -> Result<(), E> {
    node.attribute.iter_mut().try_for_each(|attribute| attribute_tensors(attribute, visit))
}

fn sparse_tensors<'a, E>(all: impl IntoIterator<Item = &'a mut SparseTensorProto>, visit: Visit<E>) -> Result<(), E> {
    all.into_iter().flat_map(|sparse| sparse.values.iter_mut().chain(&mut sparse.indices)).try_for_each(&mut *visit)
}

fn attribute_tensors<E>(attribute: &mut AttributeProto, visit: Visit<E>) -> Result<(), E> {
    attribute.t.iter_mut().try_for_each(&mut *visit)?;
    attribute.tensors.iter_mut().try_for_each(&mut *visit)?;
    sparse_tensors(attribute.sparse_tensor.iter_mut().chain(&mut attribute.sparse_tensors), visit)?;
    attribute.g.iter_mut().try_for_each(|graph| graph_tensors(graph, visit))?;
    attribute.graphs.iter_mut().try_for_each(|graph| graph_tensors(graph, visit))
}
