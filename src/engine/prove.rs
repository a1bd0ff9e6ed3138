//! Proof by running: two models that should be the same, on the same random inputs.
//!
//! This is how a rewrite shows that it kept the values: the piece of graph it matched and the piece it put there run on
//! the same inputs, and their outputs are compared in order.

use serde::Serialize;

use super::{Engine, EngineError, Tensors, samples};
use crate::compare::{Mismatch, metrics};
use crate::graph::Model;

/// How far two models came apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proof {
    /// Every output is the same, bit for bit.
    pub equal: bool,
    /// The largest difference in any output.
    pub max_abs: f64,
    /// The largest difference over the largest magnitude of that output.
    pub relative: f64,
    /// The worst cosine of any output.
    pub cosine: f64,
}

/// Why there is no proof.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum ProveError {
    #[error("before: {0}")]
    Before(EngineError),
    #[error("after: {0}")]
    After(EngineError),
    #[error("output {index} '{name}': {problem}")]
    Output { index: usize, name: String, problem: Mismatch },
    #[error("output {index} '{name}' is NaN or infinite at {count} places where it was not, or the other way round")]
    NonFinite { index: usize, name: String, count: usize },
    #[error("there are {after} outputs, not {before}")]
    Count { before: usize, after: usize },
}

/// Runs both models on inputs for the first one, once for each seed, and tells the largest differences.
///
/// # Errors
/// One of them does not run, or the outputs are of other types or sizes, or are NaN at other places.
pub fn prove(engine: &dyn Engine, before: &Model, after: &Model, seeds: &[u64]) -> Result<Proof, ProveError> {
    let mut first = engine.compile(before).map_err(ProveError::Before)?;
    let mut second = engine.compile(after).map_err(ProveError::After)?;
    let mut proof = Proof { equal: true, max_abs: 0.0, relative: 0.0, cosine: 1.0 };
    for &seed in seeds {
        let inputs = samples::for_model(before, seed);
        let reference = first.run(&inputs).map_err(ProveError::Before)?;
        let other = second.run(&inputs).map_err(ProveError::After)?;
        proof.add(&reference, &other)?;
    }
    Ok(proof)
}

impl Proof {
    fn add(&mut self, reference: &Tensors, other: &Tensors) -> Result<(), ProveError> {
        if reference.len() != other.len() {
            return Err(ProveError::Count { before: reference.len(), after: other.len() });
        }
        for (index, ((name, reference), other)) in reference.iter().zip(other.values()).enumerate() {
            let name = name.clone();
            let found = match metrics(reference, other) {
                Ok(found) => found,
                Err(problem) => return Err(ProveError::Output { index, name, problem }),
            };
            if found.non_finite_apart > 0 {
                return Err(ProveError::NonFinite { index, name, count: found.non_finite_apart });
            }
            self.equal &= found.equal;
            self.max_abs = self.max_abs.max(found.max_abs);
            self.relative = self.relative.max(found.relative);
            self.cosine = self.cosine.min(found.cosine);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tract::Tract;
    use crate::graph::Node;
    use crate::graph::builder::Build;
    use crate::onnx::DType;

    fn split(slices: &[[i64; 2]]) -> Model {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[2, 6]);
        let axes = build.ints("axes", &[1]);
        let mut outputs = Vec::new();
        for (i, [begin, end]) in slices.iter().enumerate() {
            let begin = build.ints(&format!("begin{i}"), &[*begin]);
            let end = build.ints(&format!("end{i}"), &[*end]);
            outputs.push(build.op("Slice", &format!("slice{i}"), &[x, begin, end, axes]));
        }
        build.finish(&outputs)
    }

    #[test]
    fn a_true_rewrite_is_proved_and_a_wrong_one_is_not() {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[2, 6]);
        let sizes = build.ints("sizes", &[2, 4]);
        let (a, b) = (build.graph.add_value("a"), build.graph.add_value("b"));
        build.graph.add_node(Node::new("Split", [x, sizes], [a, b]).with("axis", 1));
        let before = build.finish(&[a, b]);
        let proof = prove(&Tract, &before, &split(&[[0, 2], [2, 6]]), &[1, 2]).unwrap();
        assert!(proof.equal && proof.max_abs == 0.0 && proof.cosine == 1.0);
        let error = prove(&Tract, &before, &split(&[[0, 2], [2, 5]]), &[1]).unwrap_err();
        assert_eq!(error.to_string(), "output 1 'b': the sizes are [2, 3], not [2, 4]");
        let proof = prove(&Tract, &before, &split(&[[1, 3], [2, 6]]), &[1]).unwrap();
        assert!(!proof.equal && proof.max_abs > 0.01);
    }
}
