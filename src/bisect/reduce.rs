//! A smaller repro: a convolution or product with few of its output channels, where that still shows the fault.
//!
//! The weights of one layer of a large model are megabytes that nobody needs to see that its result is wrong. The cut is
//! tried with one channel, then with eight; the first that the target still gets wrong, or still fails at with the same
//! code, takes the place of the cut.

use super::outcome::Failure;
use super::{Proof, Suspect, judge};
use crate::engine::{Engine, Tensors};
use crate::fingerprint::{Evidence, Run};
use crate::graph::{Dim, Model, NodeId, ValueId};
use crate::onnx::Tensor;

/// Weights of fewer elements are small already.
const SMALL: usize = 4096;
/// Numbers of output channels to try.
const CHANNELS: [i64; 2] = [1, 8];

/// Puts a smaller cut in the place of the proof's own, if there is one that shows the same. `failure` is how the target
/// failed, where that is the fault.
pub fn reduce(proof: &mut Proof, failure: Option<&str>, reference: &dyn Engine, suspect: &Suspect) {
    for channels in CHANNELS {
        let Some(model) = narrowed(&proof.model, channels) else { continue };
        if let Some(smaller) = shows(proof, model, failure, reference, suspect) {
            *proof = smaller;
            return;
        }
    }
}

/// The cut with only its first output channels; none where it is no single convolution or product, or is small.
fn narrowed(model: &Model, channels: i64) -> Option<Model> {
    let mut model = model.clone();
    let ids: Vec<NodeId> = model.graph.node_ids();
    let &[id] = ids.as_slice() else { return None };
    let node = model.graph.node(id).clone();
    let (weight, out) = (node.input(1)?, node.output(0)?);
    let tensor = model.graph.constant(weight)?;
    if tensor.len() < SMALL {
        return None;
    }
    let rank = tensor.dims().len();
    let out_rank = model.graph.value(out).shape.as_ref()?.len();
    // Which axis of the weights, and which of the result, are the output channels.
    let (axis, made) = match node.op_type.as_str() {
        "Conv" if node.int("group").unwrap_or(1) == 1 => (0, 1),
        "MatMul" if rank >= 2 => (rank - 1, out_rank.checked_sub(1)?),
        "Gemm" if node.int("transB").unwrap_or(0) == 1 => (0, 1),
        "Gemm" => (1, 1),
        _ => return None,
    };
    if *tensor.dims().get(axis)? <= channels {
        return None;
    }
    let full = tensor.dims()[axis];
    keep(&mut model, id, 1, weight, axis, channels)?;
    if let Some(bias) = node.input(2) {
        let last = model.graph.constant(bias)?.dims().len().checked_sub(1);
        // A bias of one value serves any number of channels.
        if let Some(last) = last.filter(|&last| model.graph.constant(bias).is_some_and(|b| b.dims()[last] == full)) {
            keep(&mut model, id, 2, bias, last, channels)?;
        }
    }
    let value = model.graph.value_mut(out);
    *value.shape.as_mut()?.get_mut(made)? = Dim::Fixed(channels);
    value.declared = None;
    model.graph.prune();
    Some(model)
}

/// Keeps the first indices along an axis of a constant operand.
fn keep(model: &mut Model, id: NodeId, input: usize, value: ValueId, axis: usize, count: i64) -> Option<()> {
    let tensor = model.graph.constant(value)?;
    let mut dims = tensor.dims().to_vec();
    let inner: usize = dims[axis + 1..].iter().product::<i64>() as usize;
    let run = dims[axis] as usize * inner;
    let kept = count as usize * inner;
    let values = tensor.to_f64s().ok()?;
    let values: Vec<f64> = values.chunks(run.max(1)).flat_map(|run| run[..kept].to_vec()).collect();
    dims[axis] = count;
    let smaller = Tensor::from_f64s(format!("{}_reduced", tensor.name()), tensor.dtype(), &dims, &values)?;
    let smaller = model.graph.add_initializer(smaller);
    model.graph.set_input(id, input, Some(smaller));
    Some(())
}

/// The proof of a smaller cut: what the reference and the target give for the same inputs, if the fault is still there.
fn shows(
    proof: &Proof,
    model: Model,
    failure: Option<&str>,
    reference: &dyn Engine,
    suspect: &Suspect,
) -> Option<Proof> {
    let mut right = reference.compile(&model).ok()?;
    let expected: Vec<Tensors> =
        proof.inputs.iter().map(|inputs| right.run(inputs).ok()).collect::<Option<Vec<_>>>()?;
    let mut smaller = Proof {
        fault: proof.fault,
        evidence: None,
        model: model.clone(),
        inputs: proof.inputs.clone(),
        expected,
        nearby: proof.nearby.clone(),
    };
    let compiled = suspect.engine.compile(&model);
    if let Some(code) = failure {
        let ran = compiled.and_then(|mut session| session.run(proof.inputs.first().unwrap_or(&Tensors::new())));
        let same = ran.err().is_some_and(|error| Failure::of(&error).code.as_deref() == Some(code));
        return same.then_some(smaller);
    }
    let mut session = compiled.ok()?;
    let mut runs = Vec::new();
    for (inputs, right) in proof.inputs.iter().zip(&smaller.expected) {
        let wrong = session.run(inputs).ok()?;
        runs.push(Run { inputs: inputs.clone(), right: right.clone(), wrong });
    }
    let outputs: Vec<String> = smaller.expected.first()?.keys().cloned().collect();
    let expectation = judge::expectation(
        reference,
        &model,
        proof.inputs.first()?,
        smaller.expected.first().cloned(),
        &suspect.precision,
    )
    .ok()?;
    let setting = judge::Setting { engine: reference, model: &model, inputs: proof.inputs.first()? };
    let wrong = |name: &String| {
        let result = runs[0].wrong.get(name);
        result.is_none_or(|result| judge::judge(setting, &expectation, name, result, judge::Manner::Isolated).differs)
    };
    if !outputs.iter().any(wrong) {
        return None;
    }
    smaller.evidence = Some(Evidence { model, runs, outputs, rounds: suspect.precision.rounds });
    Some(smaller)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::faulty::{Fault, Faulty, Kind, Place};
    use crate::engine::tract::Tract;
    use crate::graph::Node;
    use crate::graph::builder::Build;
    use crate::onnx::DType;
    use std::sync::Arc;

    fn conv() -> Model {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[1, 16, 6, 6]);
        let values: Vec<f32> = (0..32 * 16 * 9).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect();
        let w = build.graph.add_initializer(Tensor::from_f32("w", &[32, 16, 3, 3], &values));
        let b = build.graph.add_initializer(Tensor::from_f32("b", &[32], &[0.5; 32]));
        let y = build.graph.add_typed_value("y", Some(DType::Float), Some([1, 32, 4, 4].map(Dim::Fixed).to_vec()));
        build.graph.add_node(Node::new("Conv", [x, w, b], [y]).named("conv"));
        build.finish(&[y])
    }

    fn proof(model: Model) -> Proof {
        let inputs = crate::engine::samples::for_model(&model, 0);
        let expected = Tract.run_once(&model, &inputs).unwrap();
        let nearby = Default::default();
        Proof { fault: 0, evidence: None, model, inputs: vec![inputs], expected: vec![expected], nearby }
    }

    fn suspect(engine: &dyn Engine) -> Suspect<'_> {
        Suspect {
            engine,
            label: "faulty".into(),
            simulated: true,
            target: None,
            precision: judge::Precision::float32(),
        }
    }

    #[test]
    fn a_fault_of_every_channel_needs_one() {
        let faulty = Faulty::new(Arc::new(Tract), vec![Fault::new(Kind::Scaled, Place::op("Conv"))], "test");
        let mut proof = proof(conv());
        reduce(&mut proof, None, &Tract, &suspect(&faulty));
        assert_eq!(proof.expected[0]["y"].dims(), [1, 1, 4, 4]);
    }

    #[test]
    fn one_that_needs_them_all_keeps_them() {
        let place = Place { shape: Some(vec![1, 32, 4, 4]), ..Place::op("Conv") };
        let faulty = Faulty::new(Arc::new(Tract), vec![Fault::new(Kind::Scaled, place)], "test");
        let mut proof = proof(conv());
        reduce(&mut proof, None, &Tract, &suspect(&faulty));
        assert_eq!(proof.expected[0]["y"].dims(), [1, 32, 4, 4]);
    }
}
