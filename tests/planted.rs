//! The check behind `prepare` lets a sound bundle pass and stops a broken one.

mod common;

use common::model;
use porter::graph::Model;
use porter::onnx::{DType, Tensor};
use porter::prepare::{Options, Prepared, check, prepare};
use porter::rewrite::RuleSet;
use porter::target::TargetSet;

fn prepared(name: &str, dtype: DType) -> Prepared {
    let targets = TargetSet::shipped();
    let target = targets.get("neuron").unwrap_or_else(|_| panic!("neuron is shipped"));
    let options = Options { dtype: Some(dtype), ..Default::default() };
    prepare(model(name), name, target, &RuleSet::shipped(), &options, &|_| {}).unwrap_or_else(|error| panic!("{error}"))
}

/// The parts with some values of one weight changed, in the weight's own type.
fn with_weight(parts: &[Model], node: &str, change: impl Fn(usize, f64) -> f64) -> Vec<Model> {
    let mut parts = parts.to_vec();
    for part in &mut parts {
        let Some(id) = part.graph.node_named(node) else { continue };
        let weight = part.graph.node(id).input(1).unwrap();
        let tensor = part.graph.constant(weight).unwrap();
        let values: Vec<f64> = tensor.to_f64s().unwrap().iter().enumerate().map(|(i, &x)| change(i, x)).collect();
        let changed = Tensor::from_f64s(tensor.name(), tensor.dtype(), tensor.dims(), &values).unwrap();
        part.graph.set_initializer(weight, changed);
        return parts;
    }
    panic!("no part has {node}");
}

fn passes(what: &str, prepared: &Prepared, parts: &[Model]) -> bool {
    let checked = check::check(prepared, parts).unwrap_or_else(|error| panic!("{error}"));
    println!("{what}: {} {} {:?}", checked.status, checked.story, checked.lines);
    checked.passed
}

const CONV: &str = "/model.2/cv1/conv/Conv";

#[test]
fn float32_bundles() {
    let prepared = prepared("yolo26n.onnx", DType::Float);
    assert!(passes("sound", &prepared, &prepared.parts));
    let wrong = with_weight(&prepared.parts, CONV, |i, x| if i < 64 { x * 1.05 } else { x });
    assert!(!passes("a channel 5 % too large", &prepared, &wrong));
}

#[test]
fn bfloat16_bundles() {
    let mut prepared = prepared("yolo26n.onnx", DType::Bfloat16);
    assert!(passes("sound", &prepared, &prepared.parts));
    let one = with_weight(&prepared.parts, CONV, |i, x| if i == 5 { x + 0.5 } else { x });
    assert!(!passes("one weight wrong in the file", &prepared, &one));
    // A rule that breaks the model before types are lowered hides in the type's noise afterwards.
    let wrong = |i: usize, x: f64| if i < 64 { -x } else { x };
    let parts = with_weight(&prepared.parts, CONV, wrong);
    prepared.float32_parts = with_weight(&prepared.float32_parts, CONV, wrong);
    assert!(!passes("a channel of the wrong sign since rewriting", &prepared, &parts));
}
