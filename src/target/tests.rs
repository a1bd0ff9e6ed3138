//! What targets make of real models: assessments and policies as a reader sees them, in `snapshots/`.

use std::collections::BTreeMap;
use std::path::Path;

use super::dtype::{Policy, Wishes, apply, policy};
use super::*;
use crate::graph::{Model, shapes};
use crate::onnx::DType;

/// A model of `tests/models` with its shapes, and with what they make constant.
fn model(name: &str) -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(format!("{name}.onnx"));
    let mut model = crate::load(&path).unwrap();
    let known = shapes::infer(&mut model).unwrap();
    let graph = &mut model.graph;
    let ids: Vec<_> = graph.values().map(|(id, _)| id).filter(|&id| !graph.is_output(id)).collect();
    for id in ids {
        if let (Some(maker), Some(tensor)) = (graph.producer(id), known.constant(graph, id))
            && graph.node(maker).writes().count() == 1
        {
            graph.remove_node(maker);
            graph.set_initializer(id, tensor);
        }
    }
    graph.prune();
    model
}

/// Nodes under what is said of them, in the order of the first.
fn grouped(pairs: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for (said, node) in pairs {
        match groups.iter_mut().find(|(other, _)| *other == said) {
            Some((_, nodes)) => nodes.push(node),
            None => groups.push((said, vec![node])),
        }
    }
    groups.into_iter().map(|(said, nodes)| format!("  {said}\n    {}", nodes.join("\n    "))).collect()
}

fn judged(model: &Model, target: &str, toolchain: Option<&str>) -> String {
    let target = Target::shipped(target).unwrap();
    let setting = target.setting(None, toolchain).unwrap();
    let assessment = assess(model, target, &setting);
    let mut lines = vec![format!("{} {} {}", target.name, setting.device.name, setting.toolchain)];
    lines.push("refused".into());
    lines.extend(grouped(assessment.refused().map(|(id, refusal)| {
        let code = refusal.code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
        (format!("{}{code}", refusal.reason), model.graph.label(id))
    })));
    lines.push("known faults".into());
    for hit in &assessment.quirks {
        let answer = hit.answer.as_ref().map_or("nothing answers it".into(), |answer| format!("{answer:?}"));
        lines.push(format!("  {} {}, {answer}\n    {}", hit.id, hit.symptom, hit.nodes.join("\n    ")));
    }
    let policy = policy(model, target, &setting, &assessment, Wishes::default()).unwrap();
    lines.push(format!("computes in {}, because: {}", policy.compute, policy.why));
    lines.extend(grouped(policy.float32.values().map(|kept| (kept.why.clone(), kept.node.clone()))));
    lines.join("\n")
}

fn snapshot(name: &str, text: String) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

fn decided(model: &Model, target: &str, wishes: Wishes) -> Policy {
    let target = Target::shipped(target).unwrap();
    let setting = target.setting(None, None).unwrap();
    let assessment = assess(model, target, &setting);
    policy(model, target, &setting, &assessment, wishes).unwrap()
}

#[test]
fn real_models_on_real_targets() {
    let end2end = model("yolo26l");
    snapshot("target-yolo26l-neuron", judged(&end2end, "neuron", None));
    snapshot("target-yolo26l-coreml", judged(&end2end, "coreml", Some("1.25")));
    snapshot("target-yolo26l-qnn", judged(&end2end, "qnn", None));
    let batch = model("yolo26n-b4");
    snapshot("target-yolo26n-b4-neuron", judged(&batch, "neuron", Some("2.28")));
    for target in ["cpu", "ort", "cuda", "tensorrt", "openvino"] {
        let target = Target::shipped(target).unwrap();
        let assessment = assess(&end2end, target, &target.setting(None, None).unwrap());
        // tract's maximum over nothing but minus infinity is wrong, and no graph shows that it will not meet that.
        let known = |id| target.name == "cpu" && end2end.graph.node(id).is("ReduceMax");
        let refused = assessment.refused().find(|(id, _)| !known(*id));
        assert_eq!(refused.map(|(_, refusal)| &refusal.reason), None, "{}", target.name);
    }
}

#[test]
fn a_fault_outside_the_toolchain_does_not_strike() {
    let model = model("yolo26n-raw-b4");
    let target = Target::shipped("neuron").unwrap();
    let struck = |toolchain: &str| {
        let hits = assess(&model, target, &target.setting(None, Some(toolchain)).unwrap()).quirks;
        hits.into_iter().map(|hit| hit.id).filter(|id| ["N1", "N2", "N3"].contains(&id.as_str())).collect::<Vec<_>>()
    };
    assert_eq!(struck("2.29"), ["N1", "N2"]);
    assert!(struck("2.33").is_empty());
}

#[test]
fn variants_follow_metadata_then_parameters_and_wishes_first() {
    let compute = |name: &str, wishes: Wishes| decided(&model(name), "neuron", wishes).compute;
    for (name, expected) in [("yolo26n", DType::Float), ("yolo26s", DType::Float), ("yolo26m", DType::Bfloat16)] {
        assert_eq!(compute(name, Wishes::default()), expected, "{name}");
    }
    assert_eq!(compute("yolo26n", Wishes { variant: Some("x"), ..Default::default() }), DType::Bfloat16);
    assert_eq!(compute("yolo26m", Wishes { dtype: Some(DType::Float), ..Default::default() }), DType::Float);
    let mut anonymous = model("yolo26m");
    anonymous.metadata.clear();
    let policy = decided(&anonymous, "neuron", Wishes::default());
    assert_eq!((policy.compute, policy.variant_from), (DType::Bfloat16, VariantFrom::Parameters));
    assert_eq!(policy.variant.as_deref(), Some("m"));
}

#[test]
fn a_converted_model_keeps_its_borders_and_names() {
    let model = model("yolo26l-pose");
    for (target, dtype) in [("neuron", DType::Bfloat16), ("cuda", DType::Float16)] {
        let policy = decided(&model, target, Wishes { dtype: Some(dtype), ..Default::default() });
        let mut part = model.clone();
        let applied = apply(&mut part, &policy).unwrap();
        assert_eq!(part.opset(), if dtype == DType::Bfloat16 { 22 } else { 18 });
        assert!(applied.nodes > 500 && applied.weights > 300 && applied.casts < 20, "{applied:?}");
        for (old, new) in [(&model.graph.inputs, &part.graph.inputs), (&model.graph.outputs, &part.graph.outputs)] {
            for (old, new) in old.iter().zip(new) {
                assert_eq!(model.graph.value(*old).name, part.graph.value(*new).name);
                assert_eq!(part.graph.value(*new).dtype, Some(DType::Float));
            }
        }
        // What the types are after the pass is what inference finds.
        let types = |model: &Model| -> BTreeMap<String, Option<DType>> {
            model.graph.values().map(|(_, value)| (value.name.clone(), value.dtype)).collect()
        };
        let claimed = types(&part);
        shapes::infer(&mut part).unwrap();
        assert_eq!(types(&part), claimed);
        assert!(model.graph.values().all(|(_, value)| claimed.contains_key(&value.name)));
    }
}

const SMALL: &str = "target: small
what: a target
reach: { via: tract }
devices: { a: {}, b: {} }
types:
  numbers: [float, int64]
dtype:
  available: [float]
  policy:
    - { compute: float, why: test }
operators:
  Add: { dtypes: [numbers] }
  Conv:
    requires:
      - { that: 'attrs.group == 1', else: no groups }
quirks:
  - id: Q1
    what: it fails
    match: y = Conv <...> (x, w)
    where: x.rank == 4
    symptom: { silent: zeroed }
    reference: none
    mark: measured
";

#[test]
fn a_broken_target_file_is_shown_at_its_place() {
    let mut told = Vec::new();
    for (what, from, to) in [
        ("an unknown key", "what: a target", "what: a target\nwhere: here"),
        ("a wrong value", "mark: measured", "mark: guessed"),
        ("unknown types", "dtypes: [numbers]", "dtypes: [numbers, quads]"),
        ("an unknown name in a predicate", "attrs.group == 1", "groups == 1"),
        ("a predicate that is no CEL", "attrs.group == 1", "attrs.group =="),
        ("a broken pattern", "y = Conv <...> (x, w)", "y = Conv <... (x, w)"),
        ("a name the pattern does not capture", "where: x.rank == 4", "where: z.rank == 4"),
        ("no symptom", "symptom: { silent: zeroed }", "symptom: {}"),
        ("a broken range of versions", "symptom: {", "versions: '>=two'\n    symptom: {"),
        ("an unknown device", "symptom: {", "devices: [c]\n    symptom: {"),
        ("no rule for the rest", "compute: float, why: test", "when: 'model.end2end', compute: float, why: test"),
        ("no rule for the rest of the versions", "compute: float, why", "versions: '<2', compute: float, why"),
        ("not YAML", "types:", "types: ["),
        ("a name that is none", "target: small", "target: ../small"),
        ("a name that is taken", "target: small", "target: worker"),
        ("an operator that stands there twice", "  Add: {", "  Add: any\n  Add: {"),
        ("a negative cost", "operators:", "cost: { border-us: -3 }\noperators:"),
        ("a cost to divide by", "operators:", "cost: { bytes-per-us: 0 }\noperators:"),
    ] {
        assert!(SMALL.contains(from), "{from}");
        let error = parse("small.yaml", &SMALL.replacen(from, to, 1)).expect_err(what);
        let mut text = String::new();
        let theme = miette::GraphicalTheme::unicode_nocolor();
        let handler = miette::GraphicalReportHandler::new_themed(theme).with_width(100).without_cause_chain();
        handler.render_report(&mut text, &error).unwrap();
        told.push(format!("## {what}\n{text}"));
    }
    parse("small.yaml", SMALL).unwrap();
    snapshot("broken-target-files", told.join("\n"));
}

#[test]
fn toolchains_and_variants_that_nobody_knows_are_refused() {
    let target = Target::shipped("neuron").unwrap();
    for version in ["99", "2.34", "2.24.9", "new", ""] {
        assert!(target.setting(None, Some(version)).is_err(), "{version}");
    }
    for version in ["2.25", "2.29.4", "2.33.1"] {
        assert_eq!(target.setting(None, Some(version)).unwrap().toolchain, version);
    }
    assert!(target.check_variant("zz").is_err() && target.check_variant("").is_err());
    assert!(target.check_variant("L").is_ok() && target.check_variant("e").is_ok());
    let own = SMALL.replacen(
        "{ compute",
        "{ when: 'model.variant == \"huge\"', compute: float, why: w }\n    - { compute",
        1,
    );
    assert!(parse("small.yaml", &own).unwrap().check_variant("huge").is_ok());
}

#[test]
fn what_a_fault_forces_is_forced_only_where_the_fault_strikes() {
    let target = Target::shipped("neuron").unwrap();
    let model = model("yolo26l");
    let computes = |version: &str| {
        let setting = target.setting(None, Some(version)).unwrap();
        let assessment = assess(&model, target, &setting);
        let policy = policy(&model, target, &setting, &assessment, Wishes::default()).unwrap();
        (policy.compute, policy.why.contains("N8"))
    };
    assert_eq!(computes("2.27"), (DType::Float, true));
    assert_eq!(computes("2.28"), (DType::Bfloat16, true));
}

#[test]
fn onnx_runtime_takes_trees() {
    let mut build = crate::graph::builder::Build::new();
    let x = build.input("x", DType::Float, &[3, 2]);
    let y = build.op("TreeEnsemble", "trees", &[x]);
    let id = build.graph.producer(y).unwrap();
    build.graph.node_mut(id).domain = "ai.onnx.ml".into();
    let model = build.finish(&[y]);
    let refused = |name: &str| {
        let target = Target::shipped(name).unwrap();
        assess(&model, target, &target.setting(None, None).unwrap()).refused().count()
    };
    assert_eq!((refused("ort"), refused("coreml")), (0, 1));
}

#[test]
fn an_overlay_adds_to_a_target() {
    let folder = tempfile::tempdir().unwrap();
    let overlay = folder.path().join("overlay.yaml");
    let quirk = "quirks:\n  - id: found-1\n    what: seen by bisect\n    match: y = Relu (x)\n    symptom: { silent: zeroed }\n    \
                 answer: split-to-slices\n    reference: bisect\n    mark: measured\n    measured: { before: 3.1, after: 0.0 }\n";
    std::fs::write(&overlay, format!("overlay: ort\nrewrites: [split-to-slices]\n{quirk}")).unwrap();
    let set = TargetSet::load(&overlay).unwrap();
    let target = set.get("ort").unwrap();
    assert_eq!(target.quirks.last().unwrap().id, "found-1");
    assert_eq!(target.rewrites.last().unwrap(), "split-to-slices");
    assert!(set.get("neuron").is_ok());
    // A folder may hold a target and an overlay over it, in any order of names.
    std::fs::write(folder.path().join("small.yaml"), SMALL).unwrap();
    std::fs::write(&overlay, format!("overlay: small\n{quirk}")).unwrap();
    let set = TargetSet::load(folder.path()).unwrap();
    assert_eq!(set.get("small").unwrap().quirks.len(), 2);
    std::fs::write(&overlay, "overlay: smal\n").unwrap();
    let told = TargetSet::load(folder.path()).unwrap_err().to_string();
    assert!(told.ends_with("overlay.yaml:1: there is no target 'smal'"), "{told}");
    assert!(TargetSet::load(&folder.path().join("nothing.yaml")).is_err());
}

/// What a target says of a model in ONNX's textual syntax: why it refuses nodes, and the known faults that it meets.
fn said_of(target: &str, text: &str) -> Vec<String> {
    let mut model = crate::text::parse_model(text).unwrap();
    shapes::infer(&mut model).unwrap();
    let target = Target::shipped(target).unwrap();
    let assessment = assess(&model, target, &target.setting(None, None).unwrap());
    let refused = assessment.refused().map(|(_, refusal)| refusal.reason.clone());
    refused.chain(assessment.quirks.iter().map(|hit| hit.id.clone())).collect()
}

#[test]
fn pools_that_openvino_averages_wrongly_are_refused() {
    let pool = |more: &str| {
        format!(
            "<ir_version: 10, opset_import: [\"\" : 21]> g (float[1,2,10,10] x) => (float[1,2,a,b] y) {{ \
             y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], {more}> (x) }}"
        )
    };
    let wrong = said_of("openvino", &pool("pads = [1, 1, 1, 1], ceil_mode = 1, count_include_pad = 1"));
    assert!(wrong[0].contains("beyond the padding"), "{wrong:?}");
    for right in [
        "pads = [1, 1, 1, 1], ceil_mode = 1, count_include_pad = 0",
        "pads = [1, 1, 1, 1], count_include_pad = 1",
        "ceil_mode = 1, count_include_pad = 1",
    ] {
        assert_eq!(said_of("openvino", &pool(right)), Vec::<String>::new(), "{right}");
    }
}

#[test]
fn whole_numbers_that_openvino_cannot_hold_are_refused() {
    let gather = |last: i64| {
        format!(
            "<ir_version: 10, opset_import: [\"\" : 21]> g (int64[3] i) => (int64[3] y) \
             <int64[2] table = {{7, {last}}}> {{ y = Gather (table, i) }}"
        )
    };
    assert!(said_of("openvino", &gather(1 << 31))[0].contains("OV-INT64"));
    assert!(said_of("openvino", &gather(-(1 << 31) - 1))[0].contains("OV-INT64"));
    assert_eq!(said_of("openvino", &gather((1 << 31) - 1)), Vec::<String>::new());
}

#[test]
fn casts_that_qnn_takes_for_bool_are_refused() {
    let cast = |to: &str, number: i32| {
        format!(
            "<ir_version: 10, opset_import: [\"\" : 21]> g (uint8[8] x) => ({to}[8] y) {{ y = Cast <to = {number}> (x) }}"
        )
    };
    assert!(said_of("qnn", &cast("float", 1))[0].contains("becomes 1"));
    assert_eq!(said_of("qnn", &cast("int32", 6)), Vec::<String>::new());
    assert_eq!(said_of("qnn", &cast("float16", 10)), Vec::<String>::new());
}

#[test]
fn a_sigmoid_right_after_a_conv_is_known_on_qnn() {
    let silu = |outputs: &str, first: &str| {
        format!(
            "<ir_version: 10, opset_import: [\"\" : 21]> g (float[1,1,8,8] x) => (float[1,1,8,8] y{outputs}) \
             <float[1,1,1,1] w = {{1}}> {{ c = {first} s = Sigmoid (c) y = Mul (c, s) }}"
        )
    };
    assert_eq!(said_of("qnn", &silu("", "Conv (x, w)")), ["QNN-CONV-SIGMOID"]);
    assert_eq!(said_of("qnn", &silu("", "Relu (x)")), Vec::<String>::new());
    assert_eq!(said_of("qnn", &silu(", float[1,1,8,8] c", "Conv (x, w)")), Vec::<String>::new());
}
