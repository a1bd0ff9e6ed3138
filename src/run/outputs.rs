//! The outputs of several runs, put together: batch elements one after the other, the filling left out.

use super::Done;
use crate::bundle::manifest::{Size, TensorType};
use crate::engine::Tensors;
use crate::onnx::Tensor;

/// The outputs of the runs so far.
#[derive(Default)]
pub struct Gathered {
    runs: Vec<Tensors>,
}

impl Gathered {
    /// Adds the outputs of a run.
    pub fn add(&mut self, done: &Done) {
        self.runs.push(without_filling(done));
    }

    /// All outputs by name. Where those of several runs do not fit together, each is called `NAME.0`, `NAME.1`, ...
    pub fn tensors(&self) -> Tensors {
        let Some(first) = self.runs.first() else { return Tensors::new() };
        if self.runs.len() == 1 {
            return first.clone();
        }
        let mut all = Tensors::new();
        for name in first.keys() {
            let each: Vec<&Tensor> = self.runs.iter().filter_map(|run| run.get(name)).collect();
            match joined(&each) {
                Some(tensor) => {
                    all.insert(name.clone(), tensor.renamed(name));
                }
                None => all.extend(each.iter().enumerate().map(|(run, tensor)| {
                    let name = format!("{name}.{run}");
                    (name.clone(), (*tensor).clone().renamed(name))
                })),
            }
        }
        all
    }
}

/// What came out in other sizes than the model declares, each as a message. The engine gives what it computed, so it is
/// the declaration that is wrong, or an engine that does not compute what the model says.
pub fn undeclared(outputs: &Tensors, declared: &[TensorType]) -> Vec<String> {
    let said = |declared: &TensorType| {
        let tensor = outputs.get(&declared.name)?;
        let fits = |(size, &dim): (&Size, &i64)| matches!(size, Size::Named(_)) || *size == Size::Fixed(dim);
        let shape = declared.shape.as_ref()?;
        let fit = shape.len() == tensor.dims().len() && shape.iter().zip(tensor.dims()).all(fits);
        let dims: Vec<String> = tensor.dims().iter().map(i64::to_string).collect();
        (!fit).then(|| format!("output {declared} by the model's declaration came out as [{}]", dims.join(",")))
    };
    declared.iter().filter_map(said).collect()
}

/// The outputs of a run, the batch elements that only fill it up left out.
pub fn without_filling(done: &Done) -> Tensors {
    let (real, batch) = (done.feed.frames.len(), done.feed.batch);
    let cut = |tensor: &Tensor| match tensor.dims().first() {
        Some(&size) if size == batch as i64 && real < batch => rows(tensor, real).unwrap_or_else(|| tensor.clone()),
        _ => tensor.clone(),
    };
    done.outputs.iter().map(|(name, tensor)| (name.clone(), cut(tensor))).collect()
}

/// The first rows of a tensor.
fn rows(tensor: &Tensor, count: usize) -> Option<Tensor> {
    let bytes = tensor.to_bytes().ok()?;
    let all = usize::try_from(*tensor.dims().first()?).ok()?;
    let length = (bytes.len() / all.max(1)) * count;
    let mut dims = tensor.dims().to_vec();
    dims[0] = count as i64;
    Some(Tensor::new(tensor.name(), tensor.dtype(), &dims, bytes.slice(..length)))
}

/// One batch element of a tensor, still with a batch of 1; none where there is no such element.
pub fn batch_element(tensor: &Tensor, element: usize) -> Option<Tensor> {
    let all = usize::try_from(*tensor.dims().first()?).ok().filter(|&all| element < all)?;
    let bytes = tensor.to_bytes().ok()?;
    let length = bytes.len() / all;
    let mut dims = tensor.dims().to_vec();
    dims[0] = 1;
    Some(Tensor::new(tensor.name(), tensor.dtype(), &dims, bytes.slice(element * length..(element + 1) * length)))
}

/// Tensors one after the other along their first axis.
fn joined(each: &[&Tensor]) -> Option<Tensor> {
    let first = each.first()?;
    let rest = first.dims().get(1..)?;
    if !each.iter().all(|tensor| tensor.dims().get(1..) == Some(rest) && tensor.dtype() == first.dtype()) {
        return None;
    }
    let mut dims = first.dims().to_vec();
    dims[0] = each.iter().map(|tensor| tensor.dims()[0]).sum();
    let mut bytes = Vec::new();
    for tensor in each {
        bytes.extend_from_slice(&tensor.to_bytes().ok()?);
    }
    Some(Tensor::new(first.name(), first.dtype(), &dims, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::{Feed, Frame};

    fn done(run: usize, real: usize, values: &[f32]) -> Done {
        let frame = Frame { name: String::new(), fit: None, picture: None };
        let tensor = Tensor::from_f32("y", &[2, 1], values);
        Done {
            run,
            feed: Feed {
                tensors: Tensors::new(),
                frames: vec![frame; real],
                batch: 2,
                picture_size: [0, 0],
                warnings: Vec::new(),
            },
            outputs: Tensors::from_iter([("y".to_string(), tensor)]),
            took: Vec::new(),
        }
    }

    #[test]
    fn runs_are_joined_without_the_filling() {
        let mut gathered = Gathered::default();
        gathered.add(&done(0, 2, &[1.0, 2.0]));
        gathered.add(&done(1, 1, &[3.0, 3.0]));
        let all = gathered.tensors();
        assert_eq!((all["y"].dims(), all["y"].to_f32s().unwrap().as_slice()), (&[3, 1][..], &[1.0, 2.0, 3.0][..]));
        assert_eq!(batch_element(&all["y"], 1).unwrap().to_f32s().unwrap(), [2.0]);
        assert!(batch_element(&all["y"], 3).is_none());
    }
}
