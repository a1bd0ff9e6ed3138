//! The dtype pass and the raising of opsets on small graphs.

use indexmap::IndexMap;

use super::*;
use crate::graph::builder::Build;
use crate::graph::{Model, Node, shapes};
use crate::onnx::{DType, Tensor};
use crate::target::{Assessment, Setting, Target, VariantFrom, assess, parse};

const TARGET: &str = "
target: small
what: a target for tests
reach: { via: tract }
dtype:
  available: [float, float16, bfloat16]
  policy: [{ compute: float, why: test }]
  keep-float32: [{ when: 'op == \"Softmax\"', why: the sum }]
operators: {}
unlisted: any
";

fn converted(mut model: Model, dtype: DType) -> (Model, Policy, Result<Applied, DtypeError>) {
    shapes::infer(&mut model).unwrap();
    let target: Target = parse("small.yaml", TARGET).unwrap();
    let setting = Setting::default();
    let assessment: Assessment = assess(&model, &target, &setting);
    let wishes = Wishes { dtype: Some(dtype), variant: None };
    let policy = policy(&model, &target, &setting, &assessment, wishes).unwrap();
    let applied = apply(&mut model, &policy);
    (model, policy, applied)
}

fn dtype_of(model: &Model, name: &str) -> Option<DType> {
    model.graph.value(model.graph.value_named(name)?).dtype
}

fn operators(model: &Model) -> Vec<String> {
    model.graph.nodes().map(|(_, node)| node.op_type.clone()).collect()
}

#[test]
fn casts_stand_only_where_types_meet() {
    let mut build = Build::new();
    let x = build.input("x", DType::Float, &[1, 4, 8, 8]);
    let w = build.weight("w", &[4, 4, 1, 1]);
    let conv = build.op("Conv", "conv", &[x, w]);
    let soft = build.op("Softmax", "soft", &[conv]);
    let relu = build.op("Relu", "relu", &[conv]);
    let sum = build.op("Add", "sum", &[soft, relu]);
    let (model, policy, applied) = converted(build.finish(&[sum]), DType::Float16);
    assert_eq!(operators(&model), ["Cast", "Conv", "Cast", "Softmax", "Relu", "Cast", "Add", "Cast"]);
    assert_eq!(applied.unwrap(), Applied { nodes: 3, weights: 1, casts: 4, ..Default::default() });
    assert_eq!(policy.float32["soft_output_0"].why, "the sum");
    for (name, dtype) in [
        ("x", DType::Float),
        ("x_float16", DType::Float16),
        ("w", DType::Float16),
        ("conv_output_0", DType::Float16),
        ("soft_output_0", DType::Float),
        ("sum_output_0_float16", DType::Float16),
        ("sum_output_0", DType::Float),
    ] {
        assert_eq!(dtype_of(&model, name), Some(dtype), "{name}");
    }
}

#[test]
fn shared_weights_and_parameters_keep_what_each_reader_needs() {
    let mut build = Build::new();
    let x = build.input("x", DType::Float, &[1, 1, 4, 4]);
    let bias = build.graph.add_initializer(Tensor::from_f32("bias", &[1], &[0.5]));
    let scales = build.graph.add_initializer(Tensor::from_f32("scales", &[4], &[1.0, 1.0, 2.0, 2.0]));
    let add = build.op("Add", "add", &[x, bias]);
    let mut resize = Node::new("Resize", [add], []).named("resize");
    resize.inputs.extend([None, Some(scales)]);
    let big = build.node(resize);
    let soft = build.op("Softmax", "soft", &[big]);
    let last = build.op("Mul", "last", &[soft, bias]);
    let kept = build.op("Softmax", "kept", &[bias]);
    let (model, _, applied) = converted(build.finish(&[last, kept]), DType::Float16);
    assert_eq!(dtype_of(&model, "scales"), Some(DType::Float));
    assert_eq!(dtype_of(&model, "bias"), Some(DType::Float));
    assert_eq!(dtype_of(&model, "bias_float16"), Some(DType::Float16));
    assert!(applied.is_ok());
}

#[test]
fn integers_and_what_becomes_one_are_left_alone() {
    let mut build = Build::new();
    let x = build.input("x", DType::Float, &[4]);
    let step = build.graph.add_initializer(Tensor::from_f32("step", &[1], &[1000.0]));
    let scaled = build.op("Mul", "scaled", &[x, step]);
    let index = build.node(Node::new("Cast", [scaled], []).named("index").with("to", 7i64));
    let table = build.weight("table", &[4000, 2]);
    let rows = build.op("Gather", "rows", &[table, index]);
    let back = build.node(Node::new("Cast", [index], []).named("back").with("to", 1i64));
    let (model, policy, applied) = converted(build.finish(&[rows, back]), DType::Bfloat16);
    assert!(policy.float32["scaled_output_0"].why.contains("exactly only to 256"));
    assert_eq!(dtype_of(&model, "index_output_0"), Some(DType::Int64));
    assert_eq!(dtype_of(&model, "table"), Some(DType::Bfloat16));
    assert_eq!(dtype_of(&model, "back_output_0"), Some(DType::Float));
    assert_eq!(applied.unwrap().raised_to, None); // Gather and Cast have bfloat16 in opset 18
}

#[test]
fn what_float16_cannot_hold_stays_or_is_clamped() {
    let mut build = Build::new();
    let x = build.input("x", DType::Float, &[2]);
    let mask = build.graph.add_initializer(Tensor::from_f32("mask", &[2], &[0.0, -1e9]));
    let low = build.graph.add_initializer(Tensor::from_f32("low", &[], &[f32::MIN]));
    let high = build.graph.add_initializer(Tensor::from_f32("high", &[], &[6.0]));
    let added = build.op("Add", "added", &[x, mask]);
    let clip = build.op("Clip", "clip", &[x, low, high]);
    let (model, policy, applied) = converted(build.finish(&[added, clip]), DType::Float16);
    assert_eq!(policy.float32["added_output_0"].why, "mask holds -1e9, which float16 does not");
    assert_eq!(applied.unwrap().clamped, ["low"]);
    let low = model.graph.constant(model.graph.value_named("low").unwrap()).unwrap();
    assert_eq!(low.to_f32s().unwrap(), [-65504.0]);
}

#[test]
fn subgraphs_keep_their_float32_and_what_they_read() {
    let mut then = crate::graph::Graph::new("then");
    let inner = then.add_captured("a_output_0", Some(DType::Float), None);
    let out = then.add_value("inner");
    then.add_node(Node::new("Neg", [inner], [out]).named("neg"));
    then.outputs = vec![out];
    let mut build = Build::new();
    let c = build.input("c", DType::Bool, &[]);
    let x = build.input("x", DType::Float, &[4]);
    let a = build.op("Relu", "a", &[x]);
    let b = build.op("Relu", "b", &[x]);
    let branch = |graph: &crate::graph::Graph| crate::graph::AttributeValue::Graph(Box::new(graph.clone()));
    let choice = Node::new("If", [c], []).named("choice");
    let mut choice = choice.with("then_branch", branch(&then));
    choice.set_attr("else_branch", branch(&then));
    let y = build.node(choice);
    let last = build.op("Add", "last", &[y, b]);
    let _ = a;
    let (model, policy, applied) = converted(build.finish(&[last]), DType::Float16);
    applied.unwrap();
    assert_eq!(policy.float32["a_output_0"].why, "a subgraph that stays float32 reads it");
    assert_eq!(dtype_of(&model, "a_output_0"), Some(DType::Float));
    assert_eq!(dtype_of(&model, "b_output_0"), Some(DType::Float16));
}

#[test]
fn an_old_opset_is_raised_or_told() {
    let build = |softmax_axis: i64| {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[2, 4, 6]);
        let w = build.weight("w", &[4, 4, 1]);
        let y = build.op("Conv", "conv", &[x, w]);
        let y = build.node(Node::new("ReduceMean", [y], []).named("mean").with("axes", vec![1i64]));
        let y = build.node(Node::new("Squeeze", [y], []).named("squeeze").with("axes", vec![1i64]));
        let y = build.node(Node::new("LogSoftmax", [y], []).named("soft").with("axis", softmax_axis));
        let mut model = build.finish(&[y]);
        model.opsets = IndexMap::from([(String::new(), 11)]);
        model
    };
    let (model, _, applied) = converted(build(1), DType::Bfloat16);
    assert_eq!(applied.unwrap().raised_to, Some(22));
    let mut again = model.clone();
    shapes::infer(&mut again).unwrap();
    let squeeze = model.graph.node(model.graph.node_named("squeeze").unwrap());
    assert!(squeeze.attr("axes").is_none());
    let axes = model.graph.constant(squeeze.input(1).unwrap()).unwrap();
    assert_eq!(axes.to_i64s().unwrap(), [1]);
    // Several axes at once are one axis between two reshapes.
    let (model, _, applied) = converted(build(0), DType::Bfloat16);
    assert_eq!(applied.unwrap().raised_to, Some(22));
    let soft = model.graph.node(model.graph.node_named("soft").unwrap());
    assert_eq!(soft.int("axis"), Some(-1));
    let flat = model.graph.value_named("soft_flat_in").unwrap();
    assert_eq!(model.graph.value(flat).static_shape(), Some(vec![1, 12]));
    assert_eq!(model.graph.value(model.graph.outputs[0]).static_shape(), Some(vec![2, 6]));
}

#[test]
fn a_cast_to_bool_stays_one() {
    let mut build = Build::new();
    let x = build.input("x", DType::Float, &[1, 4, 4, 4]);
    let mask = build.node(Node::new("Cast", [x], []).named("mask").with("to", i64::from(DType::Bool.number())));
    let w = build.weight("w", &[4, 4, 1, 1]);
    let other = build.op("Neg", "other", &[x]);
    let kept = build.op("Where", "kept", &[mask, x, other]);
    let y = build.op("Conv", "conv", &[kept, w]);
    let (model, _, applied) = converted(build.finish(&[y]), DType::Float16);
    applied.unwrap();
    let cast = model.graph.node(model.graph.node_named("mask").unwrap());
    assert_eq!(cast.int("to"), Some(i64::from(DType::Bool.number())));
    assert_eq!(dtype_of(&model, "mask_output_0"), Some(DType::Bool));
}

#[test]
fn types_a_target_has_not_got_are_refused() {
    let mut build = Build::new();
    let x = build.input("x", DType::Float, &[1]);
    let y = build.op("Relu", "relu", &[x]);
    let model = build.finish(&[y]);
    let target = Target::shipped("neuron").unwrap();
    let setting = target.setting(None, None).unwrap();
    let assessment = assess(&model, target, &setting);
    let wishes = Wishes { dtype: Some(DType::Float16), variant: None };
    let told = policy(&model, target, &setting, &assessment, wishes).unwrap_err().to_string();
    assert_eq!(told, "neuron has no element type 'float16'");
    let float = policy(&model, target, &setting, &assessment, Wishes::default()).unwrap();
    // The letters are those of networks on images, and this has no convolution.
    assert_eq!((float.compute, float.variant_from), (DType::Float, VariantFrom::Nothing));
}
