//! The plan, on graphs small enough to see.

use std::collections::HashMap;

use super::*;
use crate::graph::builder::Build;
use crate::graph::{Model, Node};
use crate::onnx::DType;

const COST: Cost = Cost {
    border_us: 50.0,
    bytes_per_us: 8_000.0,
    target_flops_per_us: 1_000_000.0,
    cpu_flops_per_us: 30_000.0,
    cpu_node_us: 2.0,
    target_node_us: 2.0,
};

#[test]
fn an_output_that_is_a_constant_leaves_with_a_part() {
    let mut build = Build::new();
    let x = build.input("x", DType::Float, &[1, 4]);
    let y = op(&mut build, "Relu", "y", &[x], &[1, 4]);
    let anchors = build.weight("anchors", &[2, 2]);
    let model = build.finish(&[y, anchors]);
    let plan = plan(&model.graph, &HashMap::new(), COST, &|_| 1e9);
    assert_eq!(plan.parts.len(), 1);
    assert_eq!(plan.parts[0].outputs, [y, anchors]);
}

/// A value with a known shape from one operator.
fn op(build: &mut Build, op_type: &str, name: &str, inputs: &[ValueId], dims: &[i64]) -> ValueId {
    let value = build.op(op_type, name, inputs);
    typed(build, value, dims);
    value
}

fn typed(build: &mut Build, value: ValueId, dims: &[i64]) {
    let entry = build.graph.value_mut(value);
    entry.dtype = Some(DType::Float);
    entry.shape = Some(dims.iter().map(|&d| crate::graph::Dim::Fixed(d)).collect());
}

/// Convolutions take a lot, everything else a little.
fn plan_without(model: &Model, refused: &[&str]) -> Plan {
    let graph = &model.graph;
    let refusals: HashMap<NodeId, String> = graph
        .nodes()
        .filter(|(_, node)| refused.contains(&node.op_type.as_str()))
        .map(|(id, node)| (id, format!("{} is not on the target", node.op_type)))
        .collect();
    plan(graph, &refusals, COST, &|id| if graph.node(id).is("Conv") { 1e9 } else { 1e4 })
}

/// `target: Conv Conv | cpu: TopK`.
fn show(model: &Model, plan: &Plan) -> String {
    let parts = plan.parts.iter().map(|part| {
        let device = if part.device == Device::Target { "target" } else { "cpu" };
        let nodes: Vec<&str> = part.nodes.iter().map(|&id| model.graph.node(id).name.as_str()).collect();
        let names = |values: &[ValueId]| {
            values
                .iter()
                .map(|&v| model.graph.value(v).name.trim_end_matches("_output_0").to_string())
                .collect::<Vec<_>>()
                .join(",")
        };
        format!("{device}({} -> {}): {}", names(&part.inputs), names(&part.outputs), nodes.join(" "))
    });
    parts.collect::<Vec<_>>().join("\n")
}

/// A detector in small: boxes and scores, joined to the raw tensor, then a tail that ranks.
fn detector() -> Model {
    let mut b = Build::new();
    let images = b.input("images", DType::Float, &[1, 3, 64, 64]);
    let w = b.weight("w", &[84, 3, 1, 1]);
    let features = op(&mut b, "Conv", "conv", &[images, w], &[1, 84, 8400]);
    let boxes = op(&mut b, "Sub", "boxes", &[features, features], &[1, 4, 8400]);
    let scores = op(&mut b, "Sigmoid", "scores", &[features], &[1, 80, 8400]);
    let raw = op(&mut b, "Concat", "raw", &[boxes, scores], &[1, 84, 8400]);
    let turned = op(&mut b, "Transpose", "turned", &[raw], &[1, 8400, 84]);
    let left = op(&mut b, "Slice", "left", &[turned], &[1, 8400, 4]);
    let right = op(&mut b, "Slice", "right", &[turned], &[1, 8400, 80]);
    let best = op(&mut b, "ReduceMax", "best", &[right], &[1, 8400]);
    let ranked = op(&mut b, "TopK", "ranked", &[best], &[1, 300]);
    let scored = op(&mut b, "GatherElements", "scored", &[right, ranked], &[1, 300, 80]);
    let chosen = op(&mut b, "GatherElements", "chosen", &[left, ranked], &[1, 300, 4]);
    b.finish(&[chosen, scored])
}

#[test]
fn a_ranking_tail_is_cut_at_the_raw_tensor() {
    let model = detector();
    let plan = plan_without(&model, &["TopK", "GatherElements"]);
    insta::assert_snapshot!(show(&model, &plan), @r"
    target(images -> raw): conv boxes scores raw
    cpu(raw -> chosen,scored): turned left right best ranked scored chosen
    ");
    let reasons: Vec<&str> = plan.cpu_reasons.iter().map(|r| r.reason.as_str()).collect();
    assert_eq!(reasons.len(), 7);
    assert!(reasons[0].contains("fewer bytes cross") && reasons[4] == "TopK is not on the target");
}

#[test]
fn a_target_that_takes_everything_gets_one_part() {
    let model = detector();
    let plan = plan_without(&model, &[]);
    assert_eq!(plan.parts.len(), 1);
    assert!(plan.cpu_reasons.is_empty());
}

#[test]
fn a_refused_node_in_the_middle_makes_three_parts_when_both_sides_pay() {
    let mut b = Build::new();
    let x = b.input("x", DType::Float, &[1, 8, 64, 64]);
    let w = b.weight("w", &[8, 8, 1, 1]);
    let one = op(&mut b, "Conv", "one", &[x, w], &[1, 8, 64, 64]);
    let odd = op(&mut b, "GridSample", "odd", &[one], &[1, 8, 64, 64]);
    let two = op(&mut b, "Conv", "two", &[odd, w], &[1, 8, 64, 64]);
    let model = b.finish(&[two]);
    insta::assert_snapshot!(show(&model, &plan_without(&model, &["GridSample"])), @r"
    target(x -> one): one
    cpu(one -> odd): odd
    target(odd -> two): two
    ");
}

#[test]
fn a_trivial_part_behind_the_cpu_is_merged_away() {
    let mut b = Build::new();
    let x = b.input("x", DType::Float, &[1, 8, 64, 64]);
    let w = b.weight("w", &[8, 8, 1, 1]);
    let one = op(&mut b, "Conv", "one", &[x, w], &[1, 8, 64, 64]);
    let odd = op(&mut b, "GridSample", "odd", &[one], &[1, 8, 64, 64]);
    let tiny = op(&mut b, "Relu", "tiny", &[odd], &[1, 8, 64, 64]);
    let model = b.finish(&[tiny]);
    let plan = plan_without(&model, &["GridSample"]);
    insta::assert_snapshot!(show(&model, &plan), @r"
    target(x -> one): one
    cpu(one -> tiny): odd tiny
    ");
    assert!(plan.cpu_reasons[1].reason.starts_with("a part of 1 node would cost"), "{:?}", plan.cpu_reasons);
}

#[test]
fn cpu_work_that_only_the_tail_needs_runs_with_the_tail() {
    let mut b = Build::new();
    let x = b.input("x", DType::Float, &[1, 8, 64, 64]);
    let mask = b.input("mask", DType::Float, &[1, 8, 64, 64]);
    let w = b.weight("w", &[8, 8, 1, 1]);
    let early = op(&mut b, "NonZero", "early", &[mask], &[1, 8, 64, 64]);
    let one = op(&mut b, "Conv", "one", &[x, w], &[1, 8, 64, 64]);
    let odd = op(&mut b, "GridSample", "odd", &[one, early], &[1, 8, 64, 64]);
    let model = b.finish(&[odd]);
    insta::assert_snapshot!(show(&model, &plan_without(&model, &["GridSample", "NonZero"])), @r"
    target(x -> one): one
    cpu(mask,one -> odd): early odd
    ");
}

#[test]
fn a_model_that_the_target_refuses_whole_is_one_cpu_part() {
    let mut b = Build::new();
    let x = b.input("x", DType::Float, &[4]);
    let y = b.node(Node::new("TopK", [x], []).named("top"));
    let model = b.finish(&[y]);
    insta::assert_snapshot!(show(&model, &plan_without(&model, &["TopK"])), @"cpu(x -> top): top");
}
