//! Gives free sizes a number: as the user says, or, where a target needs every size and nobody said, as can be assumed.

use std::collections::HashMap;

use super::shapes::Size;
use super::value::is_placeholder;
use super::{Dim, Graph, GraphError, Model, ValueId};

/// Sizes to freeze.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Freeze {
    /// Whole shapes by the input's name.
    pub shapes: Vec<(String, Vec<i64>)>,
    /// The first size of every input that is free there.
    pub batch: Option<i64>,
}

/// Height and width assumed for images of free size, the first that the model can run at: what detectors are most often
/// exported for, lines of text as recognisers take them, and what classifiers take.
const IMAGES: [[i64; 2]; 6] = [[640, 640], [48, 320], [32, 320], [224, 224], [320, 320], [256, 256]];
/// Width assumed for images of fixed height and free width: lines of text, as recognisers take them.
const LINE_WIDTH: i64 = 320;
/// Length assumed for a free dimension that is neither batch nor image: samples of a sound, tokens of a text.
const SEQUENCE: i64 = 512;

/// Freezes sizes. A named size takes the same number wherever the name stands.
///
/// # Errors
/// An input that is not there, or a size that contradicts the model.
pub fn freeze(model: &mut Model, sizes: &Freeze) -> Result<(), GraphError> {
    let mut names: HashMap<String, i64> = HashMap::new();
    for (name, shape) in &sizes.shapes {
        let graph = &mut model.graph;
        let Some(id) = graph.value_named(name).filter(|&id| graph.is_input(id)) else {
            let known: Vec<String> = graph.inputs.iter().map(|&id| spoken(graph, id)).collect();
            return Err(GraphError::new(
                format!("--shape {name}"),
                format!("is no input; the inputs are {}", known.join(", ")),
            ));
        };
        let said = spoken(graph, id);
        let wrong = |problem: String| GraphError::new(format!("--shape {name}"), problem);
        if let Some(dims) = &graph.value(id).shape {
            if dims.len() != shape.len() {
                return Err(wrong(format!("gives {} sizes, but the input is {said}", shape.len())));
            }
            for (dim, &size) in dims.iter().zip(shape) {
                match dim {
                    Dim::Fixed(fixed) if *fixed != size => {
                        return Err(wrong(format!("gives {size} where the model was exported with {fixed}: {said}")));
                    }
                    Dim::Symbol(symbol) if !is_placeholder(symbol) => {
                        if let Some(other) = known(symbol, &names).filter(|&other| other != size) {
                            return Err(wrong(format!("gives {size} for {symbol}, which is {other} already")));
                        }
                        learn(symbol, size, &mut names);
                    }
                    _ => {}
                }
            }
        }
        graph.value_mut(id).shape = Some(shape.iter().map(|&size| Dim::Fixed(size)).collect());
    }
    if let Some(batch) = sizes.batch {
        freeze_batch(&mut model.graph, batch, &mut names)?;
    }
    replace_names(&mut model.graph, &names);
    Ok(())
}

fn freeze_batch(graph: &mut Graph, batch: i64, names: &mut HashMap<String, i64>) -> Result<(), GraphError> {
    let mut free = 0;
    let mut fixed = None;
    for id in graph.inputs.clone() {
        let Some(first) = graph.value_mut(id).shape.as_mut().and_then(|shape| shape.first_mut()) else { continue };
        match first {
            Dim::Fixed(size) if *size == batch => free += 1,
            Dim::Fixed(_) => fixed = fixed.or(Some(id)),
            Dim::Symbol(name) if !is_placeholder(name) => {
                free += 1;
                match names.get(name) {
                    Some(&size) if size != batch => {
                        return Err(GraphError::new(
                            "--batch",
                            format!("gives {batch} where --shape gives {size} for {name}"),
                        ));
                    }
                    _ => names.insert(name.clone(), batch),
                };
                *first = Dim::Fixed(batch);
            }
            Dim::Symbol(_) | Dim::Unknown => {
                free += 1;
                *first = Dim::Fixed(batch);
            }
        }
    }
    match fixed {
        // Inputs such as a sample rate or a state have a first size that is no batch: they are left alone.
        Some(id) if free == 0 => Err(GraphError::new(
            format!("--batch {batch}"),
            format!(
                "the model was exported with a fixed batch: {}. Export it with a dynamic batch, or at this one",
                spoken(graph, id)
            ),
        )),
        _ => Ok(()),
    }
}

/// The number that a size's name or expression (`past + 1`) comes to, as far as the names in it are known.
fn known(symbol: &str, names: &HashMap<String, i64>) -> Option<i64> {
    names.get(symbol).copied().or_else(|| Size::parse(symbol).with(names).fixed().filter(|&size| size >= 0))
}

/// Keeps the number of a size's name, and, where it is an expression of one name that grows with it, that name's number.
fn learn(symbol: &str, size: i64, names: &mut HashMap<String, i64>) {
    names.insert(symbol.to_string(), size);
    let expression = Size::parse(symbol);
    let mut inside: Vec<String> = Vec::new();
    expression.names(&mut |name| inside.push(name.to_string()));
    inside.retain(|name| !names.contains_key(name));
    inside.dedup();
    let [unknown] = inside.as_slice() else { return };
    let at = |number: i64| {
        let mut tried = names.clone();
        tried.insert(unknown.clone(), number);
        expression.with(&tried).fixed()
    };
    if let (Some(none), Some(one)) = (at(0), at(1))
        && one > none
        && let number = (size - none) / (one - none)
        && number >= 0
        && at(number) == Some(size)
    {
        names.insert(unknown.clone(), number);
    }
}

/// Puts numbers for names on every value, in subgraphs too.
fn replace_names(graph: &mut Graph, names: &HashMap<String, i64>) {
    if names.is_empty() {
        return;
    }
    let ids: Vec<ValueId> = graph.values().map(|(id, _)| id).collect();
    for id in ids {
        for dim in graph.value_mut(id).shape.iter_mut().flatten() {
            if let Dim::Symbol(symbol) = dim
                && let Some(size) = known(symbol, names)
            {
                *dim = Dim::Fixed(size);
            }
        }
    }
    for id in graph.node_ids() {
        graph.node_mut(id).subgraphs_mut().for_each(|inner| replace_names(inner, names));
    }
}

/// Freezes the sizes that are given and assumes the others, with a sentence about each for the report. What an input's
/// dimensions are is told from the model as it was exported: a batch that is given makes no sequence a batch.
///
/// # Errors
/// As [`freeze`].
pub fn settle(model: &mut Model, given: &Freeze) -> Result<Vec<String>, GraphError> {
    let roles = Roles::of(model, given.batch);
    freeze(model, given)?;
    let (sizes, said) = assumed_in(model, &roles);
    freeze(model, &sizes)?;
    Ok(said)
}

/// Sizes for every input that has free ones, with a sentence about each for the report: the first guess at which every
/// node can run, else the first. Inputs of unknown rank are left alone.
pub fn assumed(model: &Model) -> (Freeze, Vec<String>) {
    assumed_in(model, &Roles::of(model, None))
}

/// What the inputs' dimensions are.
struct Roles {
    /// The dimension of each input that counts what is computed at once.
    batch: HashMap<ValueId, usize>,
    /// How much that is.
    at_once: i64,
}

impl Roles {
    fn of(model: &Model, batch: Option<i64>) -> Self {
        let axis = |dims: &[Dim]| usize::from(is_layered(dims));
        let shape = |id: ValueId| model.graph.value(id).shape.as_deref();
        let inputs = model.graph.inputs.iter();
        let batches = inputs.filter_map(|&id| Some((id, axis(shape(id)?)))).collect();
        Self { batch: batches, at_once: batch.unwrap_or(1) }
    }
}

/// Whether the batch stands behind the layers of a recurrent state: `[2, batch, hidden]`.
fn is_layered(dims: &[Dim]) -> bool {
    dims.len() == 3 && dims[0].fixed().is_some_and(|size| size > 1)
}

fn assumed_in(model: &Model, roles: &Roles) -> (Freeze, Vec<String>) {
    let runs = |sizes: &Freeze| {
        let mut trial = model.clone();
        freeze(&mut trial, sizes).is_ok() && super::shapes::infer(&mut trial).is_ok()
    };
    let guesses = IMAGES.iter().map(|image| guess_all(model, roles, *image));
    let first = guess_all(model, roles, IMAGES[0]);
    if first.0.shapes.is_empty() || runs(&first.0) {
        return first;
    }
    guesses.skip(1).find(|(sizes, _)| runs(sizes)).unwrap_or(first)
}

fn guess_all(model: &Model, roles: &Roles, free_image: [i64; 2]) -> (Freeze, Vec<String>) {
    let graph = &model.graph;
    let image = model.property("imgsz").and_then(image_size);
    let free = |id: &ValueId| {
        let dims = graph.value(*id).shape.as_deref()?;
        let batch = roles.batch.get(id).copied().unwrap_or(0);
        let guesses = guess(dims, batch, roles.at_once, image, free_image);
        dims.iter().any(|dim| dim.fixed().is_none()).then_some((*id, dims, guesses))
    };
    let free: Vec<(ValueId, &[Dim], Vec<i64>)> = graph.inputs.iter().filter_map(free).collect();
    // Names first: what is an expression of them follows.
    let mut names: HashMap<String, i64> = HashMap::new();
    for plain in [true, false] {
        for (dim, &guess) in free.iter().flat_map(|(_, dims, guesses)| dims.iter().zip(guesses)) {
            if let Dim::Symbol(symbol) = dim
                && !is_placeholder(symbol)
                && plain == Size::parse(symbol).name().is_some()
                && known(symbol, &names).is_none()
            {
                learn(symbol, guess, &mut names);
            }
        }
    }
    let mut sizes = Freeze::default();
    let mut said = Vec::new();
    for (id, dims, guesses) in free {
        let value = graph.value(id);
        let shape: Vec<i64> = dims
            .iter()
            .zip(guesses)
            .map(|(dim, guess)| match dim {
                Dim::Fixed(size) => *size,
                Dim::Symbol(symbol) if !is_placeholder(symbol) => known(symbol, &names).unwrap_or(guess),
                Dim::Symbol(_) | Dim::Unknown => guess,
            })
            .collect();
        let list = shape.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
        let source = if image.is_some() && dims.len() == 4 { "image size from its metadata" } else { "assumed" };
        said.push(format!(
            "{} taken as [{list}] ({source}); --shape {}=... says otherwise",
            spoken(graph, id),
            value.name
        ));
        sizes.shapes.push((value.name.clone(), shape));
    }
    (sizes, said)
}

/// A guess for each dimension, of which one is the batch.
fn guess(dims: &[Dim], batch: usize, at_once: i64, image: Option<[i64; 2]>, free_image: [i64; 2]) -> Vec<i64> {
    let mut guesses = vec![SEQUENCE; dims.len()];
    if let Some(guess) = guesses.get_mut(batch) {
        *guess = at_once;
    }
    if dims.len() == 4 {
        let few = |dim: &Dim| dim.fixed().is_some_and(|size| size <= 4);
        // Channels last only where the last size says so; free channels are taken as colours.
        let (channels, height, width) = if few(&dims[3]) && !few(&dims[1]) { (3, 1, 2) } else { (1, 2, 3) };
        guesses[channels] = 3;
        let line = dims[height].fixed().is_some() && dims[width].fixed().is_none();
        [guesses[height], guesses[width]] = match image {
            Some(size) => size,
            None if line => [0, LINE_WIDTH],
            None => free_image,
        };
    }
    guesses
}

/// The two numbers of `[640, 640]`, or one for both.
fn image_size(text: &str) -> Option<[i64; 2]> {
    let numbers: Option<Vec<i64>> =
        text.trim_matches(|c: char| "[]() ".contains(c)).split(',').map(|part| part.trim().parse().ok()).collect();
    match *numbers?.as_slice() {
        [side] if side > 0 => Some([side, side]),
        [height, width] if height > 0 && width > 0 => Some([height, width]),
        _ => None,
    }
}

fn spoken(graph: &Graph, id: ValueId) -> String {
    let value = graph.value(id);
    format!("{} {}", value.name, value.type_text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::builder::Build;
    use crate::onnx::DType;

    /// `images [N1, 3, N2, N2]` and `other [N1]`.
    fn model() -> Model {
        let mut b = Build::new();
        let images = b.input("images", DType::Float, &[-1, 3, -2, -2]);
        b.input("other", DType::Float, &[-1]);
        let y = b.op("Relu", "y", &[images]);
        b.finish(&[y])
    }

    fn shape(model: &Model, name: &str) -> String {
        model.graph.value(model.graph.value_named(name).unwrap()).type_text()
    }

    #[test]
    fn a_name_takes_the_same_number_everywhere() {
        let mut model = model();
        freeze(&mut model, &Freeze { shapes: vec![("images".into(), vec![2, 3, 64, 64])], batch: None }).unwrap();
        assert_eq!(
            (shape(&model, "images").as_str(), shape(&model, "other").as_str()),
            ("float[2,3,64,64]", "float[2]")
        );
    }

    #[test]
    fn contradictions_are_told() {
        let told = |shapes: &[(&str, &[i64])], batch| {
            let shapes = shapes.iter().map(|(name, sizes)| (name.to_string(), sizes.to_vec())).collect();
            freeze(&mut model(), &Freeze { shapes, batch }).unwrap_err().to_string()
        };
        let all = [
            told(&[("image", &[1])], None),
            told(&[("images", &[1, 3, 64])], None),
            told(&[("images", &[1, 4, 64, 64])], None),
            told(&[("images", &[1, 3, 64, 32])], None),
            told(&[("other", &[2])], Some(4)),
        ];
        insta::assert_snapshot!(all.join("\n"), @r"
        --shape image: is no input; the inputs are images float[N1,3,N2,N2], other float[N1]
        --shape images: gives 3 sizes, but the input is images float[N1,3,N2,N2]
        --shape images: gives 4 where the model was exported with 3: images float[N1,3,N2,N2]
        --shape images: gives 32 for N2, which is 64 already
        --batch: gives 4 where --shape gives 2 for N1
        ");
    }

    #[test]
    fn a_fixed_batch_is_not_changed_in_silence() {
        let mut b = Build::new();
        let x = b.input("x", DType::Float, &[1, 3]);
        let y = b.op("Relu", "y", &[x]);
        let mut model = b.finish(&[y]);
        assert!(freeze(&mut model, &Freeze { batch: Some(1), ..Default::default() }).is_ok());
        let told = freeze(&mut model, &Freeze { batch: Some(4), ..Default::default() }).unwrap_err().to_string();
        assert!(told.contains("fixed batch: x float[1,3]"), "{told}");
    }

    /// Some exporters name every size that they do not know `?`.
    #[test]
    fn a_placeholder_is_no_name() {
        let mut b = Build::new();
        let x = b.input("x", DType::Float, &[1, 3, 4, 4]);
        let y = b.op("Relu", "y", &[x]);
        let mut model = b.finish(&[y]);
        model.graph.value_mut(x).shape = Some(vec![Dim::Symbol("?".into()); 4]);
        freeze(&mut model, &Freeze { shapes: vec![("x".into(), vec![1, 3, 48, 192])], batch: None }).unwrap();
        assert_eq!(shape(&model, "x"), "float[1,3,48,192]");
    }

    #[test]
    fn a_state_has_its_batch_behind_the_layers() {
        let mut b = Build::new();
        let state = b.input("state", DType::Float, &[2, -1, 128]);
        let y = b.op("Relu", "y", &[state]);
        assert_eq!(assumed(&b.finish(&[y])).0.shapes, [("state".to_string(), vec![2, 1, 128])]);
    }

    /// Gives inputs their sizes by name: `-1` is `N1` elsewhere in these tests.
    fn named(inputs: &[(&str, &[&str])]) -> Model {
        let mut b = Build::new();
        let ids: Vec<ValueId> =
            inputs.iter().map(|(name, dims)| b.input(name, DType::Float, &vec![1; dims.len()])).collect();
        let y = b.op("Relu", "y", &[ids[0]]);
        let mut model = b.finish(&[y]);
        for (id, (_, dims)) in ids.into_iter().zip(inputs) {
            let dim = |text: &&str| text.parse().map_or_else(|_| Dim::Symbol(text.to_string()), Dim::Fixed);
            model.graph.value_mut(id).shape = Some(dims.iter().map(dim).collect());
        }
        model
    }

    #[test]
    fn a_batch_that_is_given_makes_no_sequence_a_batch() {
        let inputs: &[(&str, &[&str])] = &[("sound", &["batch", "frames", "80"]), ("state", &["2", "n", "64"])];
        let mut model = named(inputs);
        settle(&mut model, &Freeze { batch: Some(2), ..Default::default() }).unwrap();
        assert_eq!(
            (shape(&model, "sound").as_str(), shape(&model, "state").as_str()),
            ("float[2,512,80]", "float[2,2,64]")
        );
    }

    #[test]
    fn a_size_that_is_an_expression_follows_its_names() {
        let inputs: &[(&str, &[&str])] = &[("mask", &["batch", "past + 1"]), ("cache", &["batch", "4", "past", "64"])];
        let mut model = named(inputs);
        assert_eq!(assumed(&model).0.shapes[0].1, [1, assumed(&model).0.shapes[1].1[2] + 1]);
        let given = Freeze { shapes: vec![("mask".into(), vec![1, 17])], batch: None };
        freeze(&mut model, &given).unwrap();
        assert_eq!(shape(&model, "cache"), "float[1,4,16,64]");
        let wrong = Freeze { shapes: vec![given.shapes[0].clone(), ("cache".into(), vec![1, 4, 9, 64])], batch: None };
        let told = freeze(&mut named(inputs), &wrong).unwrap_err().to_string();
        assert!(told.contains("gives 9 for past, which is 16 already"), "{told}");
    }

    #[test]
    fn what_is_assumed_is_said() {
        let (sizes, said) = assumed(&model());
        assert_eq!(sizes.shapes, [("images".to_string(), vec![1, 3, 640, 640]), ("other".to_string(), vec![1])]);
        assert_eq!(
            said[0],
            "images float[N1,3,N2,N2] taken as [1,3,640,640] (assumed); --shape images=... says otherwise"
        );
    }
}
