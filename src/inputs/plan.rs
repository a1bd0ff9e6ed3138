//! From what the user gave to the runs it makes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use image::{DynamicImage, RgbImage};
use indexmap::IndexMap;

use super::given::is_picture;
use super::picture::{self, Fit, PictureInput};
use super::wanted::{Slot, Wanted};
use super::{Entry, Given, InputError, archive};
use crate::engine::{Tensors, samples};
use crate::graph::{Dim, Model};
use crate::onnx::{DType, Tensor};

/// What to do where the user gave nothing.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Makes up the inputs that were not given. Without it they are missing, unless nothing was given at all.
    pub seed: Option<u64>,
    /// Pictures a run, where the model leaves the batch free; 1 if not said.
    pub batch: Option<usize>,
}

/// The tensors of one run.
#[derive(Clone, Debug)]
pub struct Feed {
    /// By the inputs' names.
    pub tensors: Tensors,
    /// What each real batch element is; those that only fill up the batch are not listed.
    pub frames: Vec<Frame>,
    /// Batch elements, the filling included; 0 where the tensors share no batch.
    pub batch: usize,
    /// Width and height of the input that is a picture; 0 where none is.
    pub picture_size: [usize; 2],
    /// Inputs from files that hold NaN, as messages.
    pub warnings: Vec<String>,
}

/// One batch element: what it is, and how to get from the tensor's pixels to its own.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The file it came from, `frames.npz[2]`, or `seed 7`.
    pub name: String,
    /// Where the picture lies in the tensor; the identity where numbers were given.
    pub fit: Option<Fit>,
    /// The picture, kept only if it was asked for.
    pub picture: Option<RgbImage>,
}

/// An array that was given for an input.
#[derive(Clone, Debug)]
struct Array {
    path: PathBuf,
    /// Its name in the file.
    key: String,
    entry: Entry,
    /// The array itself, where every run takes it, or a part of it: read once, and a view of the file if it can be.
    held: Option<Tensor>,
    /// Whether NaN was found in the array that is held.
    nan: bool,
}

impl Array {
    fn read(&self) -> Result<Tensor, InputError> {
        let gone = || InputError::file(&self.path, format!("no longer holds '{}'", self.key));
        archive::read_one(&self.path, &self.key)?.ok_or_else(gone)
    }

    fn said(&self) -> String {
        match self.key.is_empty() || self.key == self.entry.name {
            true => self.path.display().to_string(),
            false => format!("{} ('{}')", self.path.display(), self.key),
        }
    }
}

/// The pictures for one input.
#[derive(Debug)]
struct Pictures {
    input: PictureInput,
    files: Vec<PathBuf>,
    /// How many go into a run.
    batch: usize,
}

/// The runs that the given inputs make.
#[derive(Debug)]
pub struct Plan {
    slots: Vec<Slot>,
    /// Arrays by input: one for all runs, or one for each.
    arrays: IndexMap<String, Vec<Array>>,
    /// Pictures by input.
    pictures: IndexMap<String, Pictures>,
    /// Whether the first size is a batch, see [`Wanted::batched`].
    batched: bool,
    /// Which input shows what the model sees, where arrays were given.
    shown: Option<PictureInput>,
    /// Elements of one array that are spread over the runs, and how many a run takes.
    split: Option<(usize, usize)>,
    batch: usize,
    runs: usize,
    seed: Option<u64>,
}

impl Plan {
    /// Brings together what a model wants and what was given.
    ///
    /// # Errors
    /// Whatever does not fit, as far as names, types and sizes in the files' headers tell.
    pub fn new(wanted: &Wanted, given: &[Given], options: &Options) -> Result<Self, InputError> {
        let mut plan = Self {
            slots: wanted.slots.clone(),
            arrays: IndexMap::new(),
            pictures: IndexMap::new(),
            batched: wanted.batched,
            shown: wanted.picture(),
            split: None,
            batch: options.batch.unwrap_or(1).max(1),
            runs: 1,
            seed: options.seed.or(given.is_empty().then_some(0)),
        };
        for one in given {
            for path in &one.files {
                match is_picture(path) {
                    true => plan.add_picture(wanted, one, path)?,
                    false => plan.add_arrays(wanted, one, path)?,
                }
            }
        }
        plan.count(options)?;
        plan.check_names_of_sizes()?;
        plan.check_missing(given)?;
        plan.hold()?;
        Ok(plan)
    }

    /// How many runs there are.
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// The files that the inputs are read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let arrays = self.arrays.values().flatten().map(|array| array.path.as_path());
        arrays.chain(self.pictures.values().flat_map(|pictures| &pictures.files).map(PathBuf::as_path))
    }

    /// How many pictures, or other batch elements, go in altogether.
    pub fn pictures(&self) -> usize {
        match (self.pictures.values().next(), self.split) {
            (Some(pictures), _) => pictures.files.len(),
            (None, Some((elements, _))) => elements,
            (None, None) => {
                let given = self.shown.as_ref().and_then(|shown| self.arrays.get(&shown.name)?.first());
                let batch = given.and_then(|array| usize::try_from(*array.entry.dims.first()?).ok());
                let fixed = self.shown.as_ref().and_then(|shown| {
                    let slot = self.slots.iter().find(|slot| slot.name == shown.name)?;
                    slot.batch().and_then(|batch| usize::try_from(batch).ok())
                });
                batch.or(fixed).unwrap_or(self.batch) * self.runs
            }
        }
    }

    /// Whether every input is in memory before the first run, so that a run's tensors are but views of it.
    pub fn is_held(&self) -> bool {
        let held =
            |slot: &Slot| self.arrays.get(&slot.name).is_some_and(|list| list.iter().all(|one| one.held.is_some()));
        self.slots.iter().all(held)
    }

    /// Whether every input is made up.
    pub fn is_made_up(&self) -> bool {
        self.arrays.is_empty() && self.pictures.is_empty()
    }

    fn add_picture(&mut self, wanted: &Wanted, given: &Given, path: &Path) -> Result<(), InputError> {
        let failed = |problem: String| InputError::Given { given: given.text.clone(), problem };
        let input = match &given.name {
            Some(name) => wanted.slot(name).and_then(|slot| wanted.as_picture(slot)).ok_or_else(|| {
                let kind = wanted.slot(name).map(Slot::kind).unwrap_or_default();
                failed(format!("input '{name}' takes {kind}, which is no picture"))
            })?,
            None => wanted.picture().ok_or_else(|| {
                let several = wanted.slots.iter().filter(|slot| wanted.as_picture(slot).is_some()).count() > 1;
                failed(match several {
                    true => format!("several inputs take pictures, say which with NAME=FILE: {}", wanted.list()),
                    false => format!("{} is a picture, and no input takes one: {}", path.display(), wanted.list()),
                })
            })?,
        };
        let name = input.name.clone();
        let pictures = self.pictures.entry(name);
        let pictures = pictures.or_insert_with(|| Pictures { input, files: Vec::new(), batch: 1 });
        pictures.files.push(path.to_path_buf());
        Ok(())
    }

    fn add_arrays(&mut self, wanted: &Wanted, given: &Given, path: &Path) -> Result<(), InputError> {
        let entries = archive::contents(path)?;
        let mut taken = 0;
        let sole = entries.len() == 1;
        for entry in &entries {
            // One array alone needs no name where there is one input, or one that was named.
            let anonymous = sole && (entry.name.is_empty() || wanted.slot(&entry.name).is_none());
            let slot = match &given.name {
                Some(name) if sole || entry.name == *name => wanted.slot(name),
                Some(_) => continue,
                None if anonymous && wanted.slots.len() == 1 => wanted.slots.first(),
                None => wanted.slot(&entry.name),
            };
            let Some(slot) = slot else { continue };
            check_type(slot, entry, path)?;
            let named = Entry { name: slot.name.clone(), ..entry.clone() };
            let array =
                Array { path: path.to_path_buf(), key: entry.name.clone(), entry: named, held: None, nan: false };
            self.arrays.entry(slot.name.clone()).or_default().push(array);
            taken += 1;
        }
        if taken > 0 {
            return Ok(());
        }
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        Err(InputError::file(
            path,
            match names.as_slice() {
                [] => "holds no array".into(),
                [""] => format!(
                    "has no name for its array: give it as NAME={}; the inputs are {}",
                    path.display(),
                    wanted.list()
                ),
                names => format!(
                    "holds {}, and the model's inputs are {}",
                    names.iter().take(8).copied().collect::<Vec<_>>().join(", "),
                    wanted.list()
                ),
            },
        ))
    }

    fn check_missing(&self, given: &[Given]) -> Result<(), InputError> {
        if self.seed.is_some() {
            return Ok(());
        }
        let has = |name: &str| self.arrays.contains_key(name) || self.pictures.contains_key(name);
        match self.slots.iter().find(|slot| !has(&slot.name)) {
            None => Ok(()),
            Some(slot) => Err(InputError::Missing {
                input: slot.name.clone(),
                kind: slot.kind(),
                given: given.iter().map(|one| one.text.as_str()).collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// Counts the runs, and decides which arrays are spread over them.
    fn count(&mut self, options: &Options) -> Result<(), InputError> {
        let mut counts: Vec<(String, usize)> = Vec::new();
        for (name, Pictures { files, batch: taken, .. }) in &mut self.pictures {
            let fixed = self.slots.iter().find(|slot| slot.name == *name).and_then(Slot::batch);
            let batch = match (fixed, options.batch) {
                (Some(fixed), Some(asked)) if fixed != asked as i64 => {
                    return Err(InputError::Counts {
                        problem: format!("--batch {asked}: the model's input '{name}' has a batch of {fixed}, fixed"),
                    });
                }
                (Some(fixed), _) => usize::try_from(fixed).unwrap_or(1).max(1),
                (None, asked) => asked.unwrap_or(1).max(1),
            };
            *taken = batch;
            self.batch = batch;
            counts.push((format!("{} pictures for '{name}'", files.len()), files.len().div_ceil(batch)));
        }
        for (name, arrays) in &self.arrays {
            if arrays.len() > 1 {
                counts.push((format!("{} arrays for '{name}'", arrays.len()), arrays.len()));
            }
        }
        self.split = self.spread()?;
        if let Some((elements, batch)) = self.split {
            counts.push((format!("{elements} batch elements in an array"), elements.div_ceil(batch)));
            self.batch = batch;
        }
        self.runs = counts.first().map_or(1, |(_, runs)| *runs);
        match counts.iter().find(|(_, runs)| *runs != self.runs) {
            None => Ok(()),
            Some((said, runs)) => Err(InputError::Counts {
                problem: format!("{} make {} runs, but {said} make {runs}", counts[0].0, self.runs),
            }),
        }
    }

    /// Whether arrays hold more batch elements than a run takes: how many, and how many a run takes.
    fn spread(&self) -> Result<Option<(usize, usize)>, InputError> {
        let mut found: Option<(usize, usize)> = None;
        for (slot, array) in self.every_array() {
            let (Some(dims), [elements, rest @ ..]) = (&slot.dims, array.entry.dims.as_slice()) else { continue };
            let Some(batch) = dims.first().and_then(Dim::fixed).filter(|batch| batch != elements) else { continue };
            let alone = self.arrays.get(&slot.name).is_some_and(|list| list.len() == 1);
            let fits =
                rest.len() + 1 == dims.len() && rest.iter().zip(&dims[1..]).all(|(size, dim)| accepts(dim, *size));
            if !self.batched || !alone || !fits || *elements < batch || batch < 1 {
                continue; // the check of sizes says what is wrong with it
            }
            let spread = (*elements as usize, batch as usize);
            if found.is_some_and(|other| other != spread) {
                return Err(wrong_size(slot, array));
            }
            found = Some(spread);
        }
        for (slot, array) in self.every_array() {
            let dims = array.entry.dims.as_slice();
            let fits = slot.dims.as_ref().is_none_or(|wanted| {
                let whole =
                    wanted.len() == dims.len() && wanted.iter().zip(dims).all(|(dim, &size)| accepts(dim, size));
                let spread = found.is_some_and(|(elements, _)| dims.first() == Some(&(elements as i64)));
                whole
                    || spread
                        && wanted.len() == dims.len()
                        && wanted.iter().zip(dims).skip(1).all(|(dim, &size)| accepts(dim, size))
            });
            if !fits {
                return Err(wrong_size(slot, array));
            }
        }
        Ok(found)
    }

    fn every_array(&self) -> impl Iterator<Item = (&Slot, &Array)> {
        let slot = |name: &str| self.slots.iter().find(|slot| slot.name == name);
        self.arrays
            .iter()
            .filter_map(move |(name, arrays)| Some((slot(name)?, arrays)))
            .flat_map(|(slot, arrays)| arrays.iter().map(move |array| (slot, array)))
    }

    /// Reads the arrays that every run needs, and looks through them.
    fn hold(&mut self) -> Result<(), InputError> {
        for arrays in self.arrays.values_mut() {
            if let [array] = arrays.as_mut_slice() {
                let tensor = array.read()?;
                array.nan = holds_nan(&tensor);
                array.held = Some(tensor);
            }
        }
        Ok(())
    }

    /// A size that has a name is the same wherever the name stands.
    fn check_names_of_sizes(&self) -> Result<(), InputError> {
        for run in 0..self.runs {
            let mut sizes: HashMap<&str, (i64, &Array)> = HashMap::new();
            for (name, arrays) in &self.arrays {
                let Some(slot) = self.slots.iter().find(|slot| slot.name == *name) else { continue };
                let array = &arrays[run.min(arrays.len() - 1)];
                for (dim, &size) in slot.dims.iter().flatten().zip(&array.entry.dims) {
                    let Some(symbol) = dim.name() else { continue };
                    let (other, from) = *sizes.entry(symbol).or_insert((size, array));
                    if other != size {
                        return Err(InputError::Tensor {
                            input: slot.name.clone(),
                            from: array.said(),
                            problem: format!(
                                "its size '{symbol}' is {size}, but in {} ({}) it is {other}",
                                from.said(),
                                from.entry.name
                            ),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Loads the tensors of a run. What nobody gave is made up for whichever of `models` takes it; `keep` keeps the
    /// pictures as well.
    ///
    /// # Errors
    /// A file that cannot be read, or that is not what its header said.
    pub fn load(&self, run: usize, models: &[Model], keep: bool) -> Result<Feed, InputError> {
        let mut tensors = Tensors::new();
        let mut frames: Vec<Frame> = Vec::new();
        let mut warnings = Vec::new();
        for (name, arrays) in &self.arrays {
            let array = &arrays[run.min(arrays.len() - 1)];
            let (tensor, nan) = match &array.held {
                Some(tensor) => (tensor.clone(), array.nan && run == 0), // said once
                None => {
                    let tensor = array.read()?;
                    let nan = holds_nan(&tensor);
                    (tensor, nan)
                }
            };
            let tensor = match self.split {
                Some((elements, batch)) if tensor.dims().first() == Some(&(elements as i64)) => {
                    part_of(&tensor, run * batch, batch).map_err(|problem| InputError::file(&array.path, problem))?
                }
                _ => tensor,
            };
            if nan {
                warnings.push(format!("input '{name}' from {} holds NaN", array.said()));
            }
            tensors.insert(name.clone(), tensor.renamed(name));
        }
        for (name, Pictures { input, files: all, batch }) in &self.pictures {
            let mine = &all[run * batch..((run + 1) * batch).min(all.len())];
            let mut pictures = mine.iter().map(|path| picture::read(path)).collect::<Result<Vec<DynamicImage>, _>>()?;
            while pictures.len() < *batch {
                pictures.push(pictures[pictures.len() - 1].clone());
            }
            let wrong = |problem: String| InputError::Tensor {
                input: name.clone(),
                from: mine[0].display().to_string(),
                problem,
            };
            let (tensor, fits) = input.tensor(&pictures).map_err(wrong)?;
            if frames.is_empty() {
                let kept = |picture: &DynamicImage| keep.then(|| picture.to_rgb8());
                frames = mine
                    .iter()
                    .zip(fits)
                    .zip(&pictures)
                    .map(|((path, fit), picture)| Frame {
                        name: path.display().to_string(),
                        fit: Some(fit),
                        picture: kept(picture),
                    })
                    .collect();
            }
            tensors.insert(name.clone(), tensor);
        }
        self.make_up(&mut tensors, models)?;
        tensors.sort_by_cached_key(|name, _| self.slots.iter().position(|slot| slot.name == *name));
        let batch = self.batch_of(&tensors);
        let pictured = self.pictures.values().next().map(|pictures| &pictures.input).or(self.shown.as_ref());
        let picture_size = pictured.and_then(|input| input.size_of(tensors.get(&input.name)?)).unwrap_or_default();
        if frames.is_empty() {
            frames = self.frames(run, &tensors, batch.max(1), picture_size, keep);
        }
        Ok(Feed { tensors, frames, batch, picture_size, warnings })
    }

    /// What nobody gave, where that is wanted.
    fn make_up(&self, tensors: &mut Tensors, models: &[Model]) -> Result<(), InputError> {
        let missing: Vec<&Slot> = self.slots.iter().filter(|slot| !tensors.contains_key(&slot.name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let sizes = self.slots.iter().filter_map(|slot| Some((slot.dims.as_ref()?, tensors.get(&slot.name)?)));
        let sizes: HashMap<String, i64> = sizes
            .flat_map(|(dims, tensor)| dims.iter().zip(tensor.dims().to_vec()))
            .filter_map(|(dim, size)| dim.name().map(|name| (name.to_string(), size)))
            .collect();
        let options = samples::Options { seed: self.seed.unwrap_or(0), batch: Some(self.batch as i64), sizes };
        let made: Tensors = models.iter().rev().flat_map(|model| samples::with_options(model, &options)).collect();
        for slot in missing {
            let tensor = made.get(&slot.name).cloned();
            let tensor = tensor.ok_or_else(|| InputError::NoSample { input: slot.name.clone(), kind: slot.kind() })?;
            tensors.insert(slot.name.clone(), tensor);
        }
        Ok(())
    }

    /// The first size of the input that is a picture, or of all inputs if it is the same.
    fn batch_of(&self, tensors: &Tensors) -> usize {
        let first = |tensor: &Tensor| tensor.dims().first().and_then(|&size| usize::try_from(size).ok());
        if let Some(tensor) = self.shown.as_ref().and_then(|shown| tensors.get(&shown.name)) {
            return first(tensor).unwrap_or(0);
        }
        let mut sizes = tensors.values().filter(|tensor| !tensor.dims().is_empty()).map(first);
        let size = sizes.next().flatten();
        if sizes.all(|other| other == size) { size.unwrap_or(0) } else { 0 }
    }

    /// The batch elements of a run that was given as numbers, or made up.
    fn frames(&self, run: usize, tensors: &Tensors, batch: usize, picture_size: [usize; 2], keep: bool) -> Vec<Frame> {
        let real = match self.split {
            Some((elements, batch)) => batch.min(elements - run * batch),
            None => batch,
        };
        let source = match self.arrays.values().max_by_key(|arrays| arrays.len()) {
            Some(arrays) => arrays[run.min(arrays.len() - 1)].path.display().to_string(),
            None => format!("seed {}", self.seed.unwrap_or(0)),
        };
        let several = batch > 1 || self.split.is_some();
        let name =
            |element: usize| if several { format!("{source}[{}]", run * batch + element) } else { source.clone() };
        let image = self.shown.as_ref().and_then(|shown| Some((shown, tensors.get(&shown.name)?)));
        let frame = |element: usize| {
            let picture = image.filter(|_| keep).and_then(|(shown, tensor)| shown.picture_of(tensor, element));
            let [width, height] = picture_size.map(|side| side as u32);
            let fit = (width > 0).then(|| Fit::identity(width, height));
            Frame { name: name(element), fit, picture }
        };
        (0..real).map(frame).collect()
    }
}

fn holds_nan(tensor: &Tensor) -> bool {
    /// Whether any of them is, asked of many at once: a loop that may end at each does not vectorise.
    fn any<const N: usize>(bytes: &[u8], is: impl Fn([u8; N]) -> bool) -> bool {
        let mut blocks = bytes.as_chunks().0.chunks(4096);
        blocks.any(|block| block.iter().fold(false, |any, &element| any | is(element)))
    }
    let Ok(bytes) = tensor.to_bytes() else { return false };
    match tensor.dtype() {
        DType::Float => any(&bytes, |element| f32::from_le_bytes(element).is_nan()),
        DType::Double => any(&bytes, |element| f64::from_le_bytes(element).is_nan()),
        DType::Float16 => any(&bytes, |element| u16::from_le_bytes(element) & 0x7fff > 0x7c00),
        DType::Bfloat16 => any(&bytes, |element| u16::from_le_bytes(element) & 0x7fff > 0x7f80),
        dtype => dtype.is_float() && tensor.to_f32s().is_ok_and(|values| values.iter().any(|value| value.is_nan())),
    }
}

fn accepts(dim: &Dim, size: i64) -> bool {
    dim.fixed().is_none_or(|fixed| fixed == size)
}

fn check_type(slot: &Slot, entry: &Entry, path: &Path) -> Result<(), InputError> {
    match slot.dtype.filter(|&wanted| wanted != entry.dtype) {
        None => Ok(()),
        Some(wanted) => Err(InputError::Tensor {
            input: slot.name.clone(),
            from: path.display().to_string(),
            problem: format!("is {}, and the model takes {}", entry.dtype.spelled(), spelled(wanted, slot)),
        }),
    }
}

fn spelled(wanted: DType, slot: &Slot) -> String {
    if slot.dims.is_some() { slot.kind() } else { wanted.spelled().into() }
}

fn wrong_size(slot: &Slot, array: &Array) -> InputError {
    let sizes: Vec<String> = array.entry.dims.iter().map(i64::to_string).collect();
    InputError::Tensor {
        input: slot.name.clone(),
        from: array.said(),
        problem: format!("is [{}], and the model takes {}", sizes.join(","), slot.kind()),
    }
}

/// `count` rows of a tensor from row `first` on; the last row again where there are no more.
fn part_of(tensor: &Tensor, first: usize, count: usize) -> Result<Tensor, String> {
    let rows = tensor.dims().first().copied().unwrap_or(0) as usize;
    let bytes = tensor.to_bytes().map_err(|error| error.to_string())?;
    let length = bytes.len() / rows.max(1);
    let mut dims = tensor.dims().to_vec();
    dims[0] = count as i64;
    if first + count <= rows {
        return Ok(Tensor::new(
            tensor.name(),
            tensor.dtype(),
            &dims,
            bytes.slice(first * length..(first + count) * length),
        ));
    }
    let row = |index: usize| &bytes[index.min(rows - 1) * length..][..length];
    let filled: Vec<u8> = (first..first + count).flat_map(row).copied().collect();
    Ok(Tensor::new(tensor.name(), tensor.dtype(), &dims, filled))
}

#[cfg(test)]
mod tests;
