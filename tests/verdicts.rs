//! Judging results of real detectors: healthy pairs pass, planted faults do not.

mod common;

use common::{model, ort_library};
use porter::compare::{Expectation, Report, Verdict};
use porter::engine::emulate::{self, Rounding};
use porter::engine::noise::{self, Noise};
use porter::engine::ort::Ort;
use porter::engine::tract::Tract;
use porter::engine::{Engine, Tensors, samples};
use porter::graph::{Model, Node};
use porter::onnx::{DType, Tensor};

/// Softmax and the box arithmetic behind the last convolutions stay in float32, as a policy would have it.
fn kept(node: &Node) -> bool {
    node.op_type == "Softmax" || (node.name.starts_with("/model.23/") && !node.name.contains("conv"))
}

fn told(what: &str, report: &Report) {
    for f in &report.findings {
        let found = f.metrics.as_ref().map_or(f64::NAN, |m| m.max_abs);
        println!(
            "{what} {}: {:?} strain {:.3}, found {found:.2e}, expected {:.2e}, blind {:?} {}",
            f.name, f.verdict, f.strain, f.expected, f.blind, f.reason
        );
        for (a, e) in f.detections.iter().zip(&f.expected_detections) {
            println!(
                "    {} agree of {}, {} at the cut, {} lost, box {:.3}, score {:.4}; expected {}, {}, {}, {:.3}, {:.4}",
                a.agree,
                a.count,
                a.at_cut,
                a.lost,
                a.worst_box,
                a.worst_score,
                e.agree,
                e.at_cut,
                e.lost,
                e.worst_box,
                e.worst_score
            );
        }
    }
}

/// The model with the first output channel of a convolution changed.
fn with_channel(model: &Model, node: &str, change: impl Fn(f32) -> f32) -> Model {
    let mut model = model.clone();
    let id = model.graph.node_named(node).unwrap_or_else(|| panic!("there is no {node}"));
    let weight = model.graph.node(id).input(1).unwrap();
    let tensor = model.graph.constant(weight).unwrap();
    let mut values = tensor.to_f32s().unwrap();
    let channel = values.len() / tensor.dims()[0] as usize;
    values[..channel].iter_mut().for_each(|x| *x = change(*x));
    let dims = tensor.dims().to_vec();
    model.graph.set_initializer(weight, Tensor::from_f32(tensor.name(), &dims, &values));
    model
}

/// Every tensor changed as a plain list, given with its name and the size of a batch element.
fn changed(outputs: &Tensors, change: impl Fn(&mut Vec<f32>, usize)) -> Tensors {
    let change = |(name, tensor): (&String, &Tensor)| {
        let mut values = tensor.to_f32s().unwrap();
        let element = values.len() / tensor.dims()[0] as usize;
        change(&mut values, element);
        (name.clone(), Tensor::from_f32(name, tensor.dims(), &values))
    };
    outputs.iter().map(change).collect()
}

fn run(model: &Model, inputs: &Tensors) -> Tensors {
    Tract.run_once(model, inputs).unwrap_or_else(|error| panic!("{error}"))
}

fn expect(model: &Model, inputs: &Tensors, noise: &Noise) -> Expectation {
    noise::measure(&Tract, model, inputs, noise).unwrap_or_else(|error| panic!("{error}"))
}

/// The model without its end-to-end tail, batch 4.
const RAW: &str = "yolo26n-raw-b4.onnx";
const CONV: &str = "/model.2/cv1/conv/Conv";

#[test]
fn another_engine_passes_in_float32_and_planted_faults_do_not() {
    ort_library();
    let ort = Ort::reference().unwrap();
    for name in [RAW, "yolo26n.onnx", "yolo26n-pose.onnx"] {
        let model = model(name);
        let inputs = samples::for_model(&model, 5);
        let expectation = expect(&model, &inputs, &Noise::float32());
        let judge = |what: &str, result: &Tensors| {
            let report = expectation.judge(result);
            told(&format!("{name}, {what}"), &report);
            report.verdict
        };
        assert_eq!(judge("another engine", &ort.run_once(&model, &inputs).unwrap()), Verdict::Same);
        let faulty = run(&with_channel(&model, CONV, |x| x * 1.01), &inputs);
        assert_eq!(judge("a channel 1 % too large", &faulty), Verdict::Differs);
        if name == RAW {
            let zeroed = changed(&expectation.reference, |values, element| {
                for element in values.chunks_exact_mut(element) {
                    element[4 * 8400..].fill(0.0);
                }
            });
            assert_eq!(judge("class scores zeroed", &zeroed), Verdict::Differs);
            let turned = changed(&expectation.reference, |values, element| values.rotate_left(element));
            assert_eq!(judge("batch elements swapped", &turned), Verdict::Differs);
            let one = changed(&expectation.reference, |values, _| values[12345] += 100.0);
            assert_eq!(judge("one box 100 px off", &one), Verdict::Differs);
        }
    }
}

#[test]
fn roundings_at_other_places_pass_in_bfloat16_and_planted_faults_do_not() {
    let model = model(RAW);
    let inputs = samples::for_model(&model, 5);
    let noise = Noise { dtype: DType::Bfloat16, keep: &kept, draws: 2, seed: 0, approximated: &[] };
    let expectation = expect(&model, &inputs, &noise);
    let judge = |what: &str, result: &Tensors| {
        let report = expectation.judge(result);
        told(what, &report);
        report.verdict
    };
    let more = |node: &Node| kept(node) || node.op_type == "Sigmoid" || node.op_type == "Mul";
    let other = run(&emulate::lower(&model, DType::Bfloat16, &more), &inputs);
    assert_eq!(judge("roundings at other places", &other), Verdict::Same);
    assert_eq!(judge("no rounding at all", &run(&model, &inputs)), Verdict::Same);
    let turned = changed(&other, |values, element| values.rotate_left(element));
    assert_eq!(judge("batch elements swapped", &turned), Verdict::Differs);
    let zeroed = changed(&other, |values, _| values[4 * 8400..84 * 8400].fill(0.0));
    assert_eq!(judge("class scores zeroed", &zeroed), Verdict::Differs);

    // A fault that hides in the type's noise does not hide once only the weights are rounded.
    let only_weights = |model: &Model| emulate::lowered(model, DType::Bfloat16, &kept, Rounding::Weights);
    let sharp = expect(&only_weights(&model), &inputs, &Noise::float32());
    let broken = with_channel(&model, CONV, |x| -x);
    let report = sharp.judge(&run(&only_weights(&broken), &inputs));
    told("a channel with the wrong sign, only weights rounded", &report);
    assert_eq!(report.verdict, Verdict::Differs);
}

#[test]
#[ignore = "measures"]
fn strains() {
    let names = "yolo26n.onnx,yolo26n-b4.onnx,yolo26n-obb.onnx,yolo26n-pose.onnx,yolo26n-seg.onnx,yolo26n-cls.onnx,yolov8n-raw.onnx";
    let names = std::env::var("MODELS").unwrap_or(names.into());
    let ort = Ort::reference().unwrap();
    for name in names.split(',') {
        let model = model(name);
        for seed in [1, 2] {
            let inputs = samples::for_model(&model, seed);
            let expectation = expect(&model, &inputs, &Noise::float32());
            told(&format!("{name} float32, ort"), &expectation.judge(&ort.run_once(&model, &inputs).unwrap()));
            let noise = Noise { dtype: DType::Bfloat16, keep: &kept, draws: 2, seed: 0, approximated: &[] };
            let expectation = expect(&model, &inputs, &noise);
            let more = |node: &Node| kept(node) || node.op_type == "Sigmoid" || node.op_type == "Mul";
            let other = run(&emulate::lower(&model, DType::Bfloat16, &more), &inputs);
            told(&format!("{name} bfloat16, other roundings"), &expectation.judge(&other));
        }
    }
}
