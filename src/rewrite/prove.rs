//! Proving applications of rules: the piece before and the piece after run on the same random inputs, and every output
//! is compared. Pieces that are the same but for names are proven once.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::apply::Applied;
use super::rule::Keeps;
use crate::compare::{Mismatch, metrics};
use crate::engine::{Engine, EngineError, Tensors};
use crate::graph::{AttributeValue, Dim, Graph, Model};
use crate::onnx::{DType, Tensor};

/// What comparing before and after came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Proof {
    /// The largest absolute difference over all outputs.
    pub max_abs: f64,
    /// The largest absolute difference, relative to the largest value where that is above 1.
    pub relative: f64,
    /// The worst cosine between an output before and after; 1 where both are zero.
    pub cosine: f64,
    /// How many values were compared.
    pub compared: usize,
}

impl Proof {
    /// Whether the difference is what the rule promises.
    pub fn is_within(&self, keeps: &Keeps) -> bool {
        match keeps {
            Keeps::Values => self.max_abs == 0.0,
            Keeps::Within(tolerance) => self.relative <= *tolerance,
            Keeps::Changes { .. } => true,
        }
    }
}

/// Why nothing was proven.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum ProofError {
    #[error("input {name} has no fixed shape, so it cannot be given values")]
    Open { name: String },
    #[error("input {name} of type {dtype} cannot be given random values")]
    Untyped { name: String, dtype: String },
    #[error("input {name} is too large to be given random values")]
    Large { name: String },
    #[error("the graph {side} does not run: {error}")]
    Run { side: &'static str, error: EngineError },
    #[error("output {name}: {problem}")]
    Output { name: String, problem: Mismatch },
    #[error("there are {before} outputs before and {after} after")]
    Count { before: usize, after: usize },
    #[error("the pieces were not recorded")]
    NotRecorded,
}

/// Proves each application; the result has one entry for each.
pub fn prove(applied: &[Applied], engine: &dyn Engine) -> Vec<Result<Proof, ProofError>> {
    let mut known: HashMap<u64, Proof> = HashMap::new();
    applied
        .iter()
        .map(|one| {
            let (Some(before), Some(after)) = (&one.before, &one.after) else { return Err(ProofError::NotRecorded) };
            let key = fingerprint(&before.graph) ^ fingerprint(&after.graph).rotate_left(1);
            if let Some(proof) = known.get(&key) {
                return Ok(proof.clone());
            }
            let proof = compare(before, after, engine)?;
            known.insert(key, proof.clone());
            Ok(proof)
        })
        .collect()
}

/// Runs both models on the same random inputs and compares what they have in common of outputs, by position.
///
/// # Errors
/// Inputs without shape, a graph that does not run, outputs that differ in shape.
pub fn compare(before: &Model, after: &Model, engine: &dyn Engine) -> Result<Proof, ProofError> {
    let run = |model: &Model, inputs: &Tensors, side| {
        engine.run_once(model, inputs).map_err(|error| ProofError::Run { side, error })
    };
    let mut inputs = random_inputs(&before.graph, 4.0)?;
    let first = match run(before, &inputs, "before") {
        // A whole number may be an index that is out of range; 0 never is.
        Err(ProofError::Run { error: EngineError::Run { .. }, .. }) => {
            inputs = random_inputs(&before.graph, 1.0)?;
            run(before, &inputs, "before")?
        }
        result => result?,
    };
    let second = run(after, &inputs, "after")?;
    let mut proof = Proof { max_abs: 0.0, relative: 0.0, cosine: 1.0, compared: 0 };
    if first.len() != second.len() {
        return Err(ProofError::Count { before: first.len(), after: second.len() });
    }
    for ((name, before), after) in first.iter().zip(second.values()) {
        let (reference, other) = (before.dtype(), after.dtype());
        if reference != other {
            return Err(ProofError::Output { name: name.clone(), problem: Mismatch::Type { reference, other } });
        }
        let found = metrics(before, after).map_err(|problem| ProofError::Output { name: name.clone(), problem })?;
        proof.compared += before.len();
        if found.equal {
            continue;
        }
        // NaN on one side alone is no small difference.
        let largest = if found.non_finite_apart > 0 { f64::INFINITY } else { found.max_abs };
        proof.max_abs = proof.max_abs.max(largest);
        proof.relative = proof.relative.max(largest / found.scale.max(1.0));
        proof.cosine = proof.cosine.min(found.cosine);
    }
    Ok(proof)
}

/// Inputs of more elements than this are not made up: a proof on less says as much.
const MOST_VALUES: i64 = 1 << 27;

/// Random values for every input: floats around zero, whole numbers from 0 to below `top`.
fn random_inputs(graph: &Graph, top: f64) -> Result<Tensors, ProofError> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut inputs = Tensors::new();
    for id in &graph.inputs {
        let value = graph.value(*id);
        let name = value.name.clone();
        let open = || ProofError::Open { name: name.clone() };
        // A size with a name may be any; a small one will do.
        let dims: Vec<i64> = value
            .shape
            .as_ref()
            .ok_or_else(open)?
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(size) => Ok(*size),
                Dim::Symbol(_) => Ok(3),
                Dim::Unknown => Err(open()),
            })
            .collect::<Result<_, _>>()?;
        let dtype = value.dtype.ok_or_else(open)?;
        let count = dims.iter().try_fold(1i64, |count, &size| count.checked_mul(size.max(0)));
        let count =
            count.filter(|&count| count <= MOST_VALUES).ok_or_else(|| ProofError::Large { name: name.clone() })?;
        let tensor = if dtype.is_float() {
            Tensor::from_f64s(&name, dtype, &dims, &(0..count).map(|_| next() * 8.0 - 4.0).collect::<Vec<_>>())
        } else {
            let top = if dtype == DType::Bool { 2.0 } else { top };
            Tensor::from_i64s(&name, dtype, &dims, &(0..count).map(|_| (next() * top) as i64).collect::<Vec<_>>())
        };
        let tensor =
            tensor.ok_or_else(|| ProofError::Untyped { name: name.clone(), dtype: dtype.name().to_string() })?;
        inputs.insert(name, tensor);
    }
    Ok(inputs)
}

/// A number for a graph's structure, shapes and constants, names left out.
fn fingerprint(graph: &Graph) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut places: HashMap<crate::graph::ValueId, usize> = HashMap::new();
    let mut place = |id: crate::graph::ValueId, hasher: &mut DefaultHasher| {
        let next = places.len();
        let fresh = !places.contains_key(&id);
        places.entry(id).or_insert(next).hash(hasher);
        if fresh {
            let value = graph.value(id);
            value.dtype.map(DType::number).hash(hasher);
            value.shape.hash(hasher);
            if let Some(tensor) = graph.initializer(id) {
                tensor.dims().hash(hasher);
                // Filled weights are as good as any; others are told apart by their bytes.
                if let Ok(bytes) = tensor.to_bytes() {
                    bytes.hash(hasher);
                }
            }
        }
    };
    graph.inputs.iter().for_each(|id| place(*id, &mut hasher));
    for (_, node) in graph.nodes() {
        (&node.op_type, &node.domain).hash(&mut hasher);
        for attribute in &node.attributes {
            attribute.name.hash(&mut hasher);
            match &attribute.value {
                AttributeValue::Tensor(tensor) => tensor.to_bytes().ok().hash(&mut hasher),
                other => format!("{other:?}").hash(&mut hasher),
            }
        }
        for id in node.inputs.iter().chain(&node.outputs) {
            match id {
                Some(id) => place(*id, &mut hasher),
                None => usize::MAX.hash(&mut hasher),
            }
        }
    }
    graph.outputs.iter().for_each(|id| place(*id, &mut hasher));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tract::Tract;
    use crate::graph::Node;
    use crate::graph::builder::Build;

    fn slices(slices: &[[i64; 2]]) -> Model {
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
        let proof = compare(&before, &slices(&[[0, 2], [2, 6]]), &Tract).unwrap();
        assert!(proof.is_within(&Keeps::Values) && proof.cosine == 1.0 && proof.compared == 12);
        let told = |after: &Model| compare(&before, after, &Tract).unwrap_err().to_string();
        assert_eq!(told(&slices(&[[0, 2], [2, 5]])), "output b: the sizes are [2, 3], not [2, 4]");
        assert_eq!(told(&slices(&[[0, 2]])), "there are 2 outputs before and 1 after");
        let proof = compare(&before, &slices(&[[1, 3], [2, 6]]), &Tract).unwrap();
        assert!(!proof.is_within(&Keeps::Within(0.01)) && proof.max_abs > 0.01);
    }
}
