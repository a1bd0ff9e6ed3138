//! What is to be run: a model, or the parts of a bundle.

use std::path::Path;

use crate::bundle::manifest::{Manifest, Size, TensorType};
use crate::bundle::{self, BundleError};
use crate::graph::freeze::{self, Freeze};
use crate::graph::{Dim, GraphError, Model, shapes};
use crate::inputs::Wanted;
use crate::onnx::OnnxError;
use crate::onnx::proto::StringStringEntryProto;
use crate::postprocess::{Head, describe};
use crate::target::Facts;

/// A part of what is to be run.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its name; empty for a model that is not in parts.
    pub name: String,
    /// Where it is to run: a target's name, or `cpu`; empty for a model that is not in parts.
    pub device: String,
    /// What it computes.
    pub model: Model,
}

/// A model or a bundle, opened.
#[derive(Clone, Debug)]
pub struct Program {
    /// The parts, in the order they run.
    pub pieces: Vec<Piece>,
    /// What it takes.
    pub wanted: Wanted,
    /// What it gives, as far as can be told.
    pub outputs: Vec<TensorType>,
    /// What its file says that it gives, which need not be so.
    pub declared: Vec<TensorType>,
    /// What is known of the model.
    pub facts: Facts,
    /// How its outputs are read as an answer; none where nothing is known of them.
    pub head: Option<Head>,
    /// The target and the kind of device that a bundle was made for.
    pub target: Option<(String, Option<String>)>,
}

/// What cannot be opened to be run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum ProgramError {
    #[error(transparent)]
    Model(#[from] OnnxError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("{place}: {source}")]
    Graph { place: String, source: GraphError },
    #[error("{place}: {said}; prepare it again with --shape or --batch for other sizes")]
    Frozen { place: String, said: String },
    #[error("{place}: --shape {name} is no input; the inputs are {inputs}")]
    NoInput { place: String, name: String, inputs: String },
}

impl Program {
    /// Opens a model file or a bundle's folder. Of a bundle only those sizes can be frozen that are free in it.
    ///
    /// # Errors
    /// Nothing that can be read is there, or sizes that the model or the bundle does not take.
    pub fn open(path: &Path, sizes: &Freeze) -> Result<Self, ProgramError> {
        if path.is_dir() {
            return Self::open_bundle(path, sizes);
        }
        let mut model = crate::load(path)?;
        freeze::freeze(&mut model, sizes).map_err(|source| ProgramError::Graph { place: said(path), source })?;
        Ok(Self::of(model))
    }

    /// A model, not in parts.
    pub fn of(model: Model) -> Self {
        let facts = Facts::of(&model);
        let wanted = Wanted::by(&model);
        let wanted = match wanted.picture() {
            Some(input) if input.height.is_none() && !takes_any_size(&model, &wanted) => {
                wanted.with_sides(sides(&model))
            }
            _ => wanted,
        };
        // Types are inferred in a copy: the model is run as its file has it.
        let mut known = model.clone();
        let _ = shapes::infer(&mut known); // where it fails, the engine says what is wrong
        let outputs = |model: &Model| -> Vec<TensorType> {
            model.graph.outputs.iter().map(|&id| TensorType::of(model.graph.value(id))).collect()
        };
        let (interface, declared) = (outputs(&known), outputs(&model));
        let finished = facts.end2end != Some(false);
        let post = describe(&known.graph, &facts, &known.graph.outputs, finished);
        let head = post.and_then(|post| Head::of(&post, &facts, &interface)).filter(|head| head.reads(&interface));
        let piece = Piece { name: String::new(), device: String::new(), model };
        Self { pieces: vec![piece], wanted, outputs: interface, declared, facts, head, target: None }
    }

    fn open_bundle(folder: &Path, sizes: &Freeze) -> Result<Self, ProgramError> {
        let mut manifest = bundle::read(folder)?;
        fix_sizes(&mut manifest, sizes, folder)?;
        let mut pieces = Vec::with_capacity(manifest.parts.len());
        for part in &manifest.parts {
            let mut model = crate::load(&folder.join(&part.file))?;
            let own = |(name, _): &&(String, Vec<i64>)| {
                model.graph.inputs.iter().any(|&id| model.graph.value(id).name == *name)
            };
            let own = Freeze { shapes: sizes.shapes.iter().filter(own).cloned().collect(), batch: None };
            freeze::freeze(&mut model, &own).map_err(|source| ProgramError::Graph { place: said(folder), source })?;
            pieces.push(Piece { name: part.name.clone(), device: part.device.clone(), model });
        }
        let mut origin = pieces.first().map(|piece| piece.model.clone()).unwrap_or_default();
        let property = |(key, value): (&String, &String)| StringStringEntryProto::new(key, value.clone());
        origin.metadata = manifest.model.metadata.iter().map(property).collect();
        let facts = Facts::of(&origin);
        let head = manifest.postprocess.as_ref().and_then(|post| Head::of(post, &facts, &manifest.outputs));
        Ok(Self {
            pieces,
            wanted: Wanted::listed(&manifest, facts.clone()),
            head: head.filter(|head| head.reads(&manifest.outputs)),
            declared: manifest.outputs.clone(),
            outputs: manifest.outputs,
            facts,
            target: Some((manifest.target, manifest.device)),
        })
    }

    /// The models of its parts; `made_up` gives free sizes a number at which the model can run, as inputs that are made
    /// up should have.
    pub fn models(&self, made_up: bool) -> Vec<Model> {
        let mut models: Vec<Model> = self.pieces.iter().map(|piece| piece.model.clone()).collect(); // weights are shared
        if let ([model], true) = (models.as_mut_slice(), made_up) {
            let (sizes, _) = freeze::assumed(model);
            let _ = freeze::freeze(model, &sizes); // a guess that does not fit is no guess
        }
        models
    }

    /// The batch that the model fixes, if it fixes one.
    pub fn batch(&self) -> Option<i64> {
        let picture = self.wanted.picture().and_then(|input| self.wanted.slot(&input.name));
        let slot =
            picture.or_else(|| self.wanted.slots.iter().find(|slot| slot.dims.as_ref().is_some_and(|d| !d.is_empty())));
        slot?.dims.as_ref()?.first().and_then(Dim::fixed)
    }

    /// The name of a class: the model's own, or its number.
    pub fn class_name(&self, class: usize) -> String {
        let known = i64::try_from(class).ok().and_then(|class| self.facts.names.get(&class));
        // A number is no name: exporters write one where the names were not known.
        let named = known.filter(|name| name.parse::<f64>().is_err() && !name.is_empty());
        named.cloned().unwrap_or_else(|| format!("class {class}"))
    }
}

/// Fixes sizes of a bundle's inputs, if they are free or are so already.
fn fix_sizes(manifest: &mut Manifest, sizes: &Freeze, folder: &Path) -> Result<(), ProgramError> {
    let place = || said(folder);
    let shown = |shape: &[i64]| shape.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    for (name, shape) in &sizes.shapes {
        let inputs = || manifest.inputs.iter().map(TensorType::to_string).collect::<Vec<_>>().join(", ");
        let Some(index) = manifest.inputs.iter().position(|input| input.name == *name) else {
            return Err(ProgramError::NoInput { place: place(), name: name.clone(), inputs: inputs() });
        };
        let input = &mut manifest.inputs[index];
        let fits = |(free, &size): (&Size, &i64)| matches!(free, Size::Named(_)) || *free == Size::Fixed(size);
        let fit = |free: &Vec<Size>| free.len() == shape.len() && free.iter().zip(shape).all(fits);
        if !input.shape.as_ref().is_none_or(fit) {
            let said = format!("--shape {name}={}: it was prepared for {input}", shown(shape));
            return Err(ProgramError::Frozen { place: place(), said });
        }
        input.shape = Some(shape.iter().map(|&size| Size::Fixed(size)).collect());
    }
    let fixed = |input: &&TensorType| match (input.shape.as_ref().and_then(|shape| shape.first()), sizes.batch) {
        (Some(Size::Fixed(fixed)), Some(batch)) => *fixed != batch,
        _ => false,
    };
    match (manifest.inputs.iter().find(fixed), sizes.batch) {
        (Some(input), Some(batch)) => {
            Err(ProgramError::Frozen { place: place(), said: format!("--batch {batch}: it was prepared for {input}") })
        }
        _ => Ok(()),
    }
}

/// Whether pictures of a size of their own can go in, as against those of one that the model does not say.
fn takes_any_size(model: &Model, wanted: &Wanted) -> bool {
    let Some(input) = wanted.picture() else { return true };
    let (width, height) = input.size_for(160, 96);
    let (channels, width, height) = (input.channels as i64, width as i64, height as i64);
    let shape = if input.channels_last { [1, height, width, channels] } else { [1, channels, height, width] };
    let mut trial = model.clone();
    let sizes = Freeze { shapes: vec![(input.name, shape.to_vec())], batch: None };
    freeze::freeze(&mut trial, &sizes).is_ok() && shapes::infer(&mut trial).is_ok()
}

/// Height and width of the first picture size at which the model can run.
fn sides(model: &Model) -> Option<[i64; 2]> {
    let mut trial = model.clone();
    freeze::freeze(&mut trial, &freeze::assumed(model).0).ok()?;
    Facts::of(&trial).imgsz
}

fn said(path: &Path) -> String {
    path.display().to_string()
}
