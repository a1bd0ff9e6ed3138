//! How applying rules behaves, on small graphs and small rules of its own.

use super::*;
use crate::engine::tract::Tract;
use crate::text::{self, Style};

fn rule(pattern: &str, predicates: &[&str], replace: &str) -> Rule {
    let indent = |text: &str| text.lines().map(|line| format!("  {line}\n")).collect::<String>();
    let conditions: String = predicates.iter().map(|text| format!("  - '{text}'\n")).collect();
    let conditions = if predicates.is_empty() { String::new() } else { format!("where:\n{conditions}") };
    let yaml = format!(
        "rule: test\nwhat: w\nwhy: y\nmatch: |\n{}{conditions}replace: |\n{}keeps: values\n",
        indent(pattern),
        indent(replace)
    );
    Rule::parse("test.yaml", &yaml, true).unwrap_or_else(|error| panic!("{:?}", miette::Report::new(*error)))
}

fn applied(source: &str, rules: &[&Rule]) -> (Model, Vec<Applied>) {
    let mut model = text::parse_model(source).unwrap();
    let applied = apply(&mut model, rules, &Options::default()).unwrap();
    (model, applied)
}

fn printed(model: &Model) -> String {
    text::print_graph(&model.graph, Style::default())
}

#[test]
fn new_nodes_are_named_after_the_old_one_and_outputs_keep_their_names() {
    let set = RuleSet::shipped();
    let (model, applied) = applied(
        "(float[2,6] x) => (float[2,2] y, float[2,4] \"/m/Split_output_1\") {
           [\"/m/Split\"] \"/m/Split_output_0\", \"/m/Split_output_1\" = Split <axis = 1> (x, {2, 4})
           [relu] y = Relu (\"/m/Split_output_0\")
         }",
        &[set.get("split-to-slices").unwrap()],
    );
    assert_eq!(
        printed(&model),
        "graph (float[2,6] x) => (float[2,2] y, float[2,4] \"/m/Split_output_1\")\n{\n  \
           [\"/m/Split_slice_0\"] \"/m/Split_output_0\" = Slice (x, {0}, {2}, {1})\n  \
           [\"/m/Split_slice_1\"] \"/m/Split_output_1\" = Slice (x, {2}, {6}, {1})\n  \
           [relu] y = Relu (\"/m/Split_output_0\")\n}"
    );
    assert_eq!(applied[0].nodes, ["/m/Split"]);
    assert_eq!(applied[0].new_nodes, ["/m/Split_slice_0", "/m/Split_slice_1"]);
    let proof = prove(&applied, &Tract).remove(0).unwrap();
    assert_eq!((proof.max_abs, proof.compared), (0.0, 12));
}

#[test]
fn a_match_swallows_nothing_that_others_need() {
    let pair = rule("a = Relu (x)\ny = Neg (a)", &[], "y = Abs (x)");
    let (_, none) = applied("(float[2] x) => (float[2] y, float[2] a) { a = Relu (x)  y = Neg (a) }", &[&pair]);
    assert!(none.is_empty(), "an inner value is an output of the graph");
    let (_, none) =
        applied("(float[2] x) => (float[2] y, float[2] z) { a = Relu (x)  y = Neg (a)  z = Exp (a) }", &[&pair]);
    assert!(none.is_empty(), "another node reads an inner value");
    let (_, none) = applied(
        "(float[2] x, bool c) => (float[2] y, float[2] z) {
           a = Relu (x)  y = Neg (a)
           z = If (c) <then_branch = t () => (float[2] u) { u = Exp (a) }, else_branch = e () => (float[2] v) { v = Neg (x) }>
         }",
        &[&pair],
    );
    assert!(none.is_empty(), "a subgraph captures an inner value");
    let again = rule("a = Relu (x)\ny = Neg (a)", &[], "a = Abs (x)\ny = Exp (a)");
    let (_, one) =
        applied("(float[2] x) => (float[2] y, float[2] z) { a = Relu (x)  y = Neg (a)  z = Exp (a) }", &[&again]);
    assert_eq!(one.len(), 1, "the replacement makes it again");
}

#[test]
fn a_replacement_in_one_place_makes_no_cycle() {
    let both = rule("a = Relu (x)\ny = Neg (x)", &["y.uses == 1"], "a = Abs (x)\ny = Exp (x)");
    // Between the two matched nodes stands one that is not matched; here no path comes back.
    let (_, one) = applied(
        "(float[2] x) => (float[2] p, float[2] q) { a = Relu (x)  b = Neg (x)  p = Exp (a)  q = Abs (b) }",
        &[&both],
    );
    assert_eq!(one.len(), 1);
    let chain = rule("a = Relu (x)\ny = Add (a, z)", &[], "a = Abs (x)\ny = Sub (a, z)");
    let (_, none) =
        applied("(float[2] x) => (float[2] y, float[2] z) { a = Relu (x)  z = Exp (a)  y = Add (a, z) }", &[&chain]);
    assert!(none.is_empty(), "the path from a through z comes back into the match");
}

#[test]
fn subgraphs_are_rewritten_too() {
    let set = RuleSet::shipped();
    let (model, applied) = applied(
        "(float[2,6] x, bool c) => (float[2,2] y) {
           y = If (c) <
             then_branch = t () => (float[2,2] u) { [s] u, v = Split <axis = 1> (x, {2, 4}) },
             else_branch = e () => (float[2,2] w) { i = Identity (x)  w = Slice (i, {0}, {2}, {1}) }>
         }",
        &[set.get("split-to-slices").unwrap(), set.get("drop-identity-and-dropout").unwrap()],
    );
    assert_eq!(applied.len(), 2);
    let text = printed(&model);
    assert!(
        text.contains("[s_slice_0] u = Slice (x, {0}, {2}, {1})") && text.contains("w = Slice (x, {0}, {2}, {1})"),
        "{text}"
    );
}

#[test]
fn a_rule_that_does_not_settle_is_named() {
    let endless = rule("y = Neg (x)", &[], "a = Neg (x)\nb = Neg (a)\ny = Neg (b)");
    let mut model = text::parse_model("(float[2] x) => (float[2] y) { y = Neg (x) }").unwrap();
    let error = apply(&mut model, &[&endless], &Options::default()).unwrap_err();
    assert!(error.to_string().starts_with("rule test does not settle: after"), "{error}");
    let there = rule("y = Neg (x)", &[], "y = Abs (x)");
    let back = rule("y = Abs (x)", &[], "y = Neg (x)");
    let mut model = text::parse_model("(float[2] x) => (float[2] y) { y = Neg (x) }").unwrap();
    assert!(matches!(apply(&mut model, &[&there, &back], &Options::default()), Err(ApplyError::Unsettled { .. })));
}

#[test]
fn a_predicate_that_makes_no_sense_is_shown_with_its_place() {
    let wrong = rule("y = Neg (x)", &["x.rank + x.dtype == 2"], "y = Abs (x)");
    let mut model = text::parse_model("(float[2] x) => (float[2] y) { y = Neg (x) }").unwrap();
    let error = apply(&mut model, &[&wrong], &Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "rule test: in where: `+`: expected numbers, found the text \"float\"");
}

#[test]
fn attributes_that_a_pattern_does_not_name_must_be_at_their_default() {
    let pool = rule("y = MaxPool <kernel_shape = k> (x)", &[], "y = AveragePool <kernel_shape = k> (x)");
    let found = |attributes: &str| {
        let source = format!("(float[1,1,4,4] x) => (y) {{ y = MaxPool <kernel_shape = [2, 2]{attributes}> (x) }}");
        applied(&source, &[&pool]).1.len()
    };
    assert_eq!(found(""), 1);
    assert_eq!(found(", strides = [1, 1], pads = [0, 0, 0, 0], auto_pad = \"NOTSET\", ceil_mode = 0"), 1);
    assert_eq!(found(", strides = [2, 2]"), 0);
    assert_eq!(found(", ceil_mode = 1"), 0);
    assert_eq!(found(", auto_pad = \"SAME_UPPER\""), 0);
}

#[test]
fn softmax_before_opset_13_is_another_operator() {
    let softmax = rule("y = Softmax <axis = axis> (x)", &[], "y = LogSoftmax <axis = axis> (x)");
    let found = |opset: i64, axis: i64| {
        let source = format!(
            "<opset_import: [\"\" : {opset}]> (float[2,3,4] x) => (float[2,3,4] y) {{ y = Softmax <axis = {axis}> (x) }}"
        );
        applied(&source, &[&softmax]).1.len()
    };
    assert_eq!((found(12, 1), found(12, 2), found(12, -1), found(13, 1)), (0, 1, 1, 1));
}

#[test]
fn operands_commute_and_the_same_name_is_the_same_value() {
    let square = rule("s = Sigmoid (x)\ny = Mul (s, x)", &[], "y = Abs (x)");
    let found =
        |nodes: &str| applied(&format!("(float[2] x, float[2] z) => (float[2] y) {{ {nodes} }}"), &[&square]).1.len();
    assert_eq!(found("s = Sigmoid (x)  y = Mul (s, x)"), 1);
    assert_eq!(found("s = Sigmoid (x)  y = Mul (x, s)"), 1);
    assert_eq!(found("s = Sigmoid (x)  y = Mul (s, z)"), 0);
    assert_eq!(found("s = Sigmoid (x)  y = Div (x, s)"), 0);
}

#[test]
fn an_old_attribute_is_an_input_and_is_written_back_as_an_attribute() {
    let pair = rule(
        "s = Squeeze (x, axes)\ny = Unsqueeze (s, axes2)",
        &["axes.value == axes2.value"],
        "t = Neg (x)\nu = Squeeze (t, axes)\ny = Unsqueeze (u, axes2)",
    );
    let (model, applied) = {
        let mut model = text::parse_model(
            "<opset_import: [\"\" : 11]> (float[2,1] x) => (float[2,1] y) { s = Squeeze <axes = [1]> (x)  y = Unsqueeze <axes = [1]> (s) }",
        )
        .unwrap();
        // One pass is enough to see it: the replacement holds the pattern again.
        let error = apply(&mut model, &[&pair], &Options::default()).unwrap_err();
        (model, error)
    };
    assert!(matches!(applied, ApplyError::Unsettled { .. }));
    let text = printed(&model);
    assert!(text.contains("Squeeze <axes = [1]>") && text.contains("Unsqueeze <axes = [1]>"), "{text}");
}

#[test]
fn a_proof_finds_a_rule_that_lies() {
    let lie = rule("y = Split <axis = 0, num_outputs = 1> (x)", &[], "y = Neg (x)");
    let _ = lie;
    let wrong = rule("y = Exp (x)", &[], "y = Sqrt (x)");
    let (_, all) = applied("(float[8] x) => (float[8] y) { y = Exp (x) }", &[&wrong]);
    let proof = prove(&all, &Tract).remove(0).unwrap();
    assert!(!proof.is_within(&all[0].keeps) && proof.max_abs > 1.0, "{proof:?}");
}

#[test]
fn a_proof_gives_values_by_name_whatever_the_order_they_are_read_in() {
    let set = RuleSet::shipped();
    let names = ["drop-identity-and-dropout", "scalar-gather-to-rank-1"];
    let rules: Vec<&Rule> = names.iter().map(|name| set.get(name).unwrap()).collect();
    let (_, all) = applied(
        "(float[1,4] x, int64[] i) => (float[4] y, float[1,4] z) {
           n = Neg (x)
           z = Identity (n)
           y = Gather <axis = 0> (n, i)
         }",
        &rules,
    );
    assert_eq!(all.len(), 2);
    for proof in prove(&all, &Tract) {
        assert_eq!(proof.unwrap().max_abs, 0.0);
    }
}

#[test]
fn equal_places_are_proven_once_and_different_ones_apart() {
    let set = RuleSet::shipped();
    let (_, all) = applied(
        "(float[2,6] x, float[2,6] z) => (float[2,2] a, float[2,4] b, float[2,2] c, float[2,4] d) {
           a, b = Split <axis = 1> (x, {2, 4})
           c, d = Split <axis = 1> (z, {2, 4})
         }",
        &[set.get("split-to-slices").unwrap()],
    );
    let proofs = prove(&all, &Tract);
    assert!(proofs.iter().all(|proof| proof.as_ref().is_ok_and(|proof| proof.max_abs == 0.0 && proof.compared == 12)));
}

#[test]
fn a_hundred_thousand_nodes_take_a_moment() {
    let mut source = String::from("(float[2] x0) => (y) {\n");
    for i in 0..100_000 {
        source.push_str(&format!("x{} = {} (x{i})\n", i + 1, if i % 100 == 0 { "Identity" } else { "Neg" }));
    }
    source.push_str("y = Relu (x100000) }");
    let mut model = text::parse_model(&source).unwrap();
    let set = RuleSet::shipped();
    let start = std::time::Instant::now();
    let names: Vec<&Rule> = set.all().unwrap();
    let rules: Vec<&Rule> =
        names.into_iter().filter(|rule| !rule.name.starts_with("fuse") && rule.does.is_none()).collect();
    let all = apply(&mut model, &rules, &Options { record: false, ..Options::default() }).unwrap();
    assert_eq!(all.len(), 1000);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn matchers_find_what_a_quirk_describes() {
    let model = text::parse_model(
        "(float[2,6] x) => (float[2,2] a, float[2,4] b, float[1,6] c, float[1,6] d) {
           [one] a, b = Split <axis = 1> (x, {2, 4})
           [two] c, d = Split (x, {1, 1})
         }",
    )
    .unwrap();
    let matcher =
        Matcher::parse("parts... = Split <axis = axis> (x, sizes)", &["outer(x, axis) > 1 && unequal(sizes.value)"])
            .unwrap();
    assert_eq!(matcher.nodes(&model).unwrap(), [["one"]]);
    let error = Matcher::parse("y = Relu (x)", &["z.rank > 1"]).unwrap_err();
    assert!(error.to_string().starts_with("where, predicate 1: `z` is not captured"), "{error}");
}

/// A broken file as the user sees it, without colour.
fn shown(yaml: &str) -> String {
    let error = Rule::parse("rewrites/broken.yaml", yaml, true).unwrap_err();
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor()).with_width(100);
    let mut text = String::new();
    handler.render_report(&mut text, &*error).unwrap();
    text
}

#[test]
fn broken_files_are_shown_with_line_and_span() {
    let good = "rule: broken\nwhat: w\nwhy: y\nmatch: |\n  y = Relu (x)\nwhere:\n  - x.rank > 1\nreplace: |\n  y = Neg (x)\nkeeps: values\n";
    assert!(Rule::parse("rewrites/broken.yaml", good, true).is_ok());
    let cases = [
        ("an unknown key", good.replace("keeps: values", "keep: values")),
        ("a pattern that does not parse", good.replace("Relu (x)", "Relu <axis 1> (x)")),
        ("a predicate that does not parse", good.replace("x.rank > 1", "x.rank > ")),
        ("a predicate over a name that is not captured", good.replace("x.rank > 1", "outer(z, 1) > 1")),
        ("a replacement that reads what nothing makes", good.replace("Neg (x)", "Neg (w)")),
        ("an expression in a replacement", good.replace("Neg (x)", "Slice (x, {0}, {x.shap[0]})")),
        (
            "an example that does not parse",
            format!("{good}examples:\n  - unchanged: |\n      (float[2 x) => (y) {{ y = Neg (x) }}\n"),
        ),
        ("a promise that is none", good.replace("keeps: values", "keeps: most values")),
        ("a name that is not the file's", good.replace("rule: broken", "rule: other")),
    ];
    let all: String = cases.iter().map(|(what, yaml)| format!("## {what}\n\n{}\n", shown(yaml))).collect();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("broken-rule-files", all));
}

#[test]
fn a_real_detector_loses_its_splits_and_answers_the_same() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/yolo26n-simplified.onnx");
    let mut model = crate::load(std::path::Path::new(path)).unwrap();
    let original = model.clone();
    let set = RuleSet::shipped();
    let names = [
        "drop-identity-and-dropout",
        "fold-batch-norm",
        "split-to-slices",
        "dilated-max-pool-to-slices",
        "scalar-gather-to-rank-1",
        "drop-integer-floor",
    ];
    let rules: Vec<&Rule> = names.iter().map(|name| set.get(name).unwrap()).collect();
    let applied = apply(&mut model, &rules, &Options { record: false, ..Options::default() }).unwrap();
    let count = |model: &Model, op: &str| model.graph.nodes().filter(|(_, node)| node.is(op)).count();
    assert_eq!((count(&model, "Split"), applied.len()), (0, count(&original, "Split")));
    assert_eq!(count(&model, "Slice") - count(&original, "Slice"), {
        let splits = original.graph.nodes().filter(|(_, node)| node.is("Split"));
        splits.map(|(_, node)| node.outputs.len()).sum::<usize>()
    });
}
