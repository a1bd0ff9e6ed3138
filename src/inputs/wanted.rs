//! What a model takes: its inputs, and which of them is a picture.

use super::picture::{Fitting, PictureInput};
use crate::bundle::manifest::{Manifest, Size, TensorType};
use crate::graph::{Dim, Model};
use crate::onnx::DType;
use crate::target::Facts;

/// An input of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// The element type; unknown only for what is no tensor.
    pub dtype: Option<DType>,
    /// The sizes, where the rank is known.
    pub dims: Option<Vec<Dim>>,
}

/// What a model takes.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its inputs, in its order.
    pub slots: Vec<Slot>,
    /// Whether the first size of everything that goes in and comes out is one fixed number: a batch, whose elements can
    /// go into several runs. A first size that is not everywhere may be time, along which nothing can be cut.
    pub batched: bool,
    facts: Facts,
}

/// Whether all of these begin with the same fixed size; what is a single number does not count.
fn begin_alike(shapes: &[Option<&[Dim]>]) -> bool {
    let first = |dims: &Option<&[Dim]>| dims.map(|dims| dims.first().map(Dim::fixed));
    let mut sizes = shapes.iter().map(first).filter(|size| !matches!(size, Some(None)));
    let Some(Some(Some(Some(size)))) = sizes.next() else { return false };
    sizes.all(|other| other == Some(Some(Some(size))))
}

impl Slot {
    /// Type and sizes in a reader's words: `float32[1,3,640,640]`.
    pub fn kind(&self) -> String {
        let dtype = self.dtype.map_or("?", DType::spelled);
        match &self.dims {
            None => dtype.to_string(),
            Some(dims) => format!("{dtype}[{}]", dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(",")),
        }
    }

    /// The batch that the model fixes for it.
    pub fn batch(&self) -> Option<i64> {
        self.dims.as_ref()?.first()?.fixed()
    }
}

impl Wanted {
    /// What a model takes.
    pub fn by(model: &Model) -> Self {
        let slot = |&id| {
            let value = model.graph.value(id);
            Slot { name: value.name.clone(), dtype: value.dtype, dims: value.shape.clone() }
        };
        let ends = model.graph.inputs.iter().chain(&model.graph.outputs);
        let shapes: Vec<Option<&[Dim]>> = ends.map(|&id| model.graph.value(id).shape.as_deref()).collect();
        let slots = model.graph.inputs.iter().map(slot).collect();
        Self { slots, batched: begin_alike(&shapes), facts: Facts::of(model) }
    }

    /// The same, with pictures of this height and width where the model leaves both free.
    pub fn with_sides(mut self, sides: Option<[i64; 2]>) -> Self {
        self.facts.imgsz = self.facts.imgsz.or(sides);
        self
    }

    /// What a bundle takes: the inputs its manifest lists, with the facts of the model it was made from.
    pub fn listed(manifest: &Manifest, facts: Facts) -> Self {
        let Manifest { inputs, outputs, .. } = manifest;
        let dim = |size: &Size| match size {
            Size::Fixed(size) => Dim::Fixed(*size),
            Size::Named(name) if name == "?" => Dim::Unknown,
            Size::Named(name) => Dim::Symbol(name.clone()),
        };
        let dims = |tensor: &TensorType| -> Option<Vec<Dim>> {
            tensor.shape.as_ref().map(|sizes| sizes.iter().map(dim).collect())
        };
        let slot = |input: &TensorType| Slot { name: input.name.clone(), dtype: input.dtype, dims: dims(input) };
        let all: Vec<Option<Vec<Dim>>> = inputs.iter().chain(outputs).map(dims).collect();
        let shapes: Vec<Option<&[Dim]>> = all.iter().map(Option::as_deref).collect();
        Self { slots: inputs.iter().map(slot).collect(), batched: begin_alike(&shapes), facts }
    }

    /// The input of that name.
    pub fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.name == name)
    }

    /// Every input with its type, for a message.
    pub fn list(&self) -> String {
        let each = |slot: &Slot| format!("{} ({})", slot.name, slot.kind());
        self.slots.iter().map(each).collect::<Vec<_>>().join(", ")
    }

    /// The input that is a picture, if there is just one that can be.
    pub fn picture(&self) -> Option<PictureInput> {
        let mut pictures = self.slots.iter().filter_map(|slot| self.as_picture(slot));
        let first = pictures.next()?;
        pictures.next().is_none().then_some(first)
    }

    /// An input as a picture, if its sizes are those of one: four, with 1, 3 or 4 channels first or last.
    pub fn as_picture(&self, slot: &Slot) -> Option<PictureInput> {
        let dtype = slot.dtype.filter(|dtype| dtype.is_float() || *dtype == DType::Uint8)?;
        let [_, a, b, c] = slot.dims.as_deref()? else { return None };
        let channels = |dim: &Dim| dim.fixed().filter(|size| [1, 3, 4].contains(size));
        let named = |dim: &Dim| dim.fixed().is_none();
        let large = |dim: &Dim| named(dim) || dim.fixed().is_some_and(|size| size >= 8);
        let (channels, last) = match (channels(a), channels(c)) {
            (Some(count), _) if large(b) && large(c) => (count, false),
            (_, Some(count)) if large(a) && large(b) => (count, true),
            // Nothing is fixed: as the metadata says, or in colour.
            _ if named(a) && named(b) && named(c) => {
                (self.facts.channels.filter(|n| [1, 3, 4].contains(n)).unwrap_or(3), false)
            }
            _ => return None,
        };
        let (height, width) = if last { (a, b) } else { (b, c) };
        let [metadata_height, metadata_width] = match self.facts.imgsz {
            Some(sides) => sides.map(|side| usize::try_from(side).ok()),
            None => [None, None],
        };
        let side = |dim: &Dim| dim.fixed().and_then(|size| usize::try_from(size).ok());
        Some(PictureInput {
            name: slot.name.clone(),
            dtype,
            channels: channels as usize,
            channels_last: last,
            height: side(height).or(metadata_height),
            width: side(width).or(metadata_width),
            stride: self.facts.stride.and_then(|stride| usize::try_from(stride).ok()).unwrap_or(32).clamp(1, 1024),
            fitting: match self.facts.task.as_deref() {
                Some("classify") => Fitting::CentreCrop,
                _ => Fitting::Letterbox,
            },
        })
    }
}
