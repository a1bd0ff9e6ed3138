//! What is verified: a model, or a bundle made from one.

use std::path::Path;

use super::VerifyError;
use crate::bundle::{self, Manifest};
use crate::engine::emulate::{self, Emulated};
use crate::engine::loose::Loose;
use crate::engine::{Engine, EngineError, Session, Tensors};
use crate::graph::Model;
use crate::graph::freeze::Freeze;
use crate::onnx::DType;
use crate::onnx::ModelFile;
use crate::reach::Reached;

/// Something to verify.
#[derive(Clone)]
pub struct Subject {
    /// What a reader calls it.
    pub name: String,
    /// What the reference runs.
    pub model: Model,
    /// What the target runs, where that is not the model itself.
    pub bundle: Option<Parts>,
}

/// A bundle's parts.
#[derive(Clone)]
pub struct Parts {
    /// What the bundle says of itself.
    pub manifest: Manifest,
    /// A model for each part of the manifest.
    pub models: Vec<Model>,
    /// Whether the reference runs the bundle's own parts, because the original is not at hand.
    pub without_original: bool,
}

impl Subject {
    /// A model file, or a bundle's folder. A bundle's original is `original`, or the file of that name beside the folder; where
    /// there is none, the bundle is held against its own parts on the reference, which shows what the target makes of them
    /// but not what preparing did.
    ///
    /// # Errors
    /// A file that cannot be read, or an original that the bundle was not made from.
    pub fn open(path: &Path, original: Option<&Path>) -> Result<Self, VerifyError> {
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into());
        if !path.is_dir() {
            return Ok(Self { name, model: crate::load(path)?, bundle: None });
        }
        let manifest = bundle::read(path)?;
        let models =
            manifest.parts.iter().map(|part| crate::load(&path.join(&part.file))).collect::<Result<Vec<_>, _>>()?;
        let beside = path.parent().map(|folder| folder.join(&manifest.model.file)).filter(|file| file.is_file());
        let file = original.map(Path::to_path_buf).or(beside);
        let right = |file: &Path| ModelFile::open(file).is_ok_and(|file| file.sha256() == manifest.model.sha256);
        let file = match file {
            Some(file) if right(&file) => Some(file),
            Some(file) if original.is_some() => {
                return Err(VerifyError::Original { file, bundle: name, made_from: manifest.model.file.clone() });
            }
            _ => None,
        };
        let (model, without_original) = match file {
            Some(file) => (crate::load(&file)?, false),
            None => (joined(&models, &manifest, &name)?, true),
        };
        Ok(Self { name, model, bundle: Some(Parts { manifest, models, without_original }) })
    }

    /// The 16-bit type that a bundle's parts are in, if they are in one.
    pub fn half(&self) -> Option<DType> {
        let models = self.bundle.iter().flat_map(|parts| &parts.models);
        let any = models.filter(|model| emulate::of(model).is_some()).count() > 0;
        self.bundle.as_ref().filter(|_| any).map(|parts| parts.manifest.dtype)
    }

    /// The sizes that the bundle was made for, for the original.
    pub(super) fn sizes(&self) -> Freeze {
        let Some(parts) = &self.bundle else { return Freeze::default() };
        let fixed = |input: &bundle::manifest::TensorType| {
            let sizes = input.shape.as_ref()?.iter().map(|size| match size {
                bundle::manifest::Size::Fixed(size) => Some(*size),
                bundle::manifest::Size::Named(_) => None,
            });
            Some((input.name.clone(), sizes.collect::<Option<Vec<_>>>()?))
        };
        Freeze { shapes: parts.manifest.inputs.iter().filter_map(fixed).collect(), batch: None }
    }
}

/// The parts as one model, for when the original is not at hand: values keep their names, so parts join by them.
fn joined(models: &[Model], manifest: &Manifest, bundle: &str) -> Result<Model, VerifyError> {
    let lost = || VerifyError::NoOriginal { bundle: bundle.into(), made_from: manifest.model.file.clone() };
    let first = models.first().ok_or_else(lost)?;
    let float32 = manifest.parts.iter().all(|part| part.dtype == crate::onnx::DType::Float);
    if !float32 || models.iter().any(|model| model.opsets != first.opsets) {
        return Err(lost());
    }
    let mut proto = first.to_proto();
    let whole = proto.graph.as_mut().ok_or_else(lost)?;
    for model in &models[1..] {
        let Some(part) = model.to_proto().graph else { continue };
        let had: std::collections::HashSet<String> =
            whole.initializer.iter().map(|tensor| tensor.name().to_string()).collect();
        whole.node.extend(part.node);
        whole.initializer.extend(part.initializer.into_iter().filter(|tensor| !had.contains(tensor.name())));
        whole.input.extend(part.input);
        whole.output.extend(part.output);
    }
    let mut seen = std::collections::HashSet::new();
    let given = |name: &str| manifest.inputs.iter().any(|input| input.name == name);
    whole.input.retain(|input| input.name.as_deref().is_some_and(|name| given(name) && seen.insert(name.to_string())));
    let wanted = |name: &str| manifest.outputs.iter().any(|output| output.name == name);
    whole.output.retain(|output| output.name.as_deref().is_some_and(wanted));
    Model::from_proto(proto).map_err(|_| lost())
}

/// The target's side, compiled: the model, or the parts one after the other.
pub(super) struct Running {
    parts: Vec<Box<dyn Session>>,
}

impl Running {
    /// Compiles the model, or the parts: the target's on the target, the CPU's on `host`.
    pub fn compile(
        model: &Model,
        parts: Option<&Parts>,
        target: &Reached,
        host: &dyn Engine,
    ) -> Result<Self, EngineError> {
        let Some(parts) = parts else { return Ok(Self { parts: vec![Loose(&*target.engine).compile(model)?] }) };
        let compile = |(part, model): (&bundle::manifest::Part, &Model)| {
            // A bundle for the CPU has the target's parts and the host's on the same device; the names tell them apart.
            let on_host = part.device == "cpu" && (parts.manifest.target != "cpu" || part.name.starts_with("host"));
            match part.device.as_str() {
                _ if on_host => Emulated(host).compile(model),
                // No CPU engine computes in 16 bits: what stands in for the target does so by emulation.
                _ if target.emulates => Emulated(&*target.engine).compile(model),
                _ => Loose(&*target.engine).compile(model),
            }
        };
        Ok(Self { parts: parts.manifest.parts.iter().zip(&parts.models).map(compile).collect::<Result<_, _>>()? })
    }

    /// At how many nodes faults are planted, where the target only plays them.
    pub fn strikes(&self) -> Option<usize> {
        self.parts.iter().filter_map(|part| part.strikes()).reduce(|all, more| all + more)
    }

    /// Runs it; gives every tensor that any part made.
    pub fn run(&mut self, inputs: &Tensors) -> Result<Tensors, EngineError> {
        let mut known = inputs.clone();
        let mut made = Tensors::new();
        for part in &mut self.parts {
            let outputs = part.run(&known)?;
            known.extend(outputs.clone());
            made.extend(outputs);
        }
        Ok(made)
    }
}
