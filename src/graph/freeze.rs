//! Gives free sizes a number: as the user says, or, where a target needs every size and nobody said, as can be assumed.

use std::collections::HashMap;

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
                        if let Some(&other) = names.get(symbol).filter(|&&other| other != size) {
                            return Err(wrong(format!("gives {size} for {symbol}, which is {other} already")));
                        }
                        names.insert(symbol.clone(), size);
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

/// Puts numbers for names on every value, in subgraphs too.
fn replace_names(graph: &mut Graph, names: &HashMap<String, i64>) {
    if names.is_empty() {
        return;
    }
    let ids: Vec<ValueId> = graph.values().map(|(id, _)| id).collect();
    for id in ids {
        for dim in graph.value_mut(id).shape.iter_mut().flatten() {
            if let Dim::Symbol(name) = dim
                && let Some(&size) = names.get(name)
            {
                *dim = Dim::Fixed(size);
            }
        }
    }
    for id in graph.node_ids() {
        graph.node_mut(id).subgraphs_mut().for_each(|inner| replace_names(inner, names));
    }
}

/// Sizes for every input that has free ones, with a sentence about each for the report: the first guess at which every
/// node can run, else the first. Inputs of unknown rank are left alone.
pub fn assumed(model: &Model) -> (Freeze, Vec<String>) {
    let runs = |sizes: &Freeze| {
        let mut trial = model.clone();
        freeze(&mut trial, sizes).is_ok() && super::shapes::infer(&mut trial).is_ok()
    };
    let guesses = IMAGES.iter().map(|image| guess_all(model, *image));
    let first = guess_all(model, IMAGES[0]);
    if first.0.shapes.is_empty() || runs(&first.0) {
        return first;
    }
    guesses.skip(1).find(|(sizes, _)| runs(sizes)).unwrap_or(first)
}

fn guess_all(model: &Model, free_image: [i64; 2]) -> (Freeze, Vec<String>) {
    let graph = &model.graph;
    let image = model.property("imgsz").and_then(image_size);
    let mut names: HashMap<String, i64> = HashMap::new();
    let mut sizes = Freeze::default();
    let mut said = Vec::new();
    for &id in &graph.inputs {
        let value = graph.value(id);
        let Some(dims) = value.shape.as_ref().filter(|dims| dims.iter().any(|dim| dim.fixed().is_none())) else {
            continue;
        };
        let guesses = guess(dims, image, free_image);
        let shape: Vec<i64> = dims
            .iter()
            .zip(guesses)
            .map(|(dim, guess)| match dim {
                Dim::Fixed(size) => *size,
                Dim::Symbol(name) if !is_placeholder(name) => *names.entry(name.clone()).or_insert(guess),
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

/// A guess for each dimension.
fn guess(dims: &[Dim], image: Option<[i64; 2]>, free_image: [i64; 2]) -> Vec<i64> {
    let mut guesses = vec![SEQUENCE; dims.len()];
    // The batch stands first, or, behind the layers of a recurrent state [2, batch, hidden], second.
    let layers = dims.len() == 3 && dims[0].fixed().is_some_and(|size| size > 1);
    if let Some(batch) = guesses.get_mut(layers as usize) {
        *batch = 1;
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
