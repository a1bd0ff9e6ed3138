//! Random graphs: whatever the shipped rules do to them, the answer stays, and so do the names of the outputs.

use proptest::prelude::*;

use super::*;
use crate::engine::tract::Tract;
use crate::text;

/// One piece of a random graph: reads values of shape [2,4,6], makes one of the same shape.
fn piece(kind: usize, number: usize, a: &str, b: &str) -> String {
    let y = format!("v{number}");
    match kind {
        0 => format!("{y} = Relu ({a})"),
        1 => format!("{y} = Identity ({a})"),
        2 => format!("{y} = Dropout ({a})"),
        3 => format!("{y} = Add ({a}, {b})"),
        4 => format!("g{number} = Sigmoid ({a}) {y} = Mul (g{number}, {a})"),
        5 => format!(
            "p{number}, q{number} = Split <axis = 1> ({a}, {{1, 3}}) {y} = Concat <axis = 1> (q{number}, p{number})"
        ),
        6 => format!(
            "p{number}, q{number} = Split <axis = -1, num_outputs = 2> ({a}) {y} = Concat <axis = 2> (q{number}, p{number})"
        ),
        7 => format!(
            "p{number} = Pad <mode = \"reflect\"> ({a}, {{0, 1, 2, 0, 0, 1}}) {y} = Slice (p{number}, {{1, 0}}, {{5, 6}}, {{1, 2}})"
        ),
        8 => format!(
            "s{number} = Gather <axis = 1> ({a}, int64 {{2}}) u{number} = Unsqueeze (s{number}, {{1}}) {y} = Add (u{number}, {b})"
        ),
        9 => format!(
            "{y} = LayerNormalization <axis = -1> ({a}, float[6] {{1, 2, 3, 1, 2, 3}}, float[6] {{0, 1, 0, 1, 0, 1}})"
        ),
        10 => format!("{y} = InstanceNormalization ({a}, float[4] {{1, 2, 3, 4}}, float[4] {{0, 1, 2, 3}})"),
        11 => format!("{y} = HardSwish ({a})"),
        12 => format!(
            "c{number} = Conv ({a}, float[4,4,1] {{1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 1}}) \
             {y} = BatchNormalization (c{number}, float[4] {{1, 2, 1, 2}}, float[4] {{0, 1, 0, 1}}, float[4] {{1, 0, 1, 0}}, float[4] {{1, 2, 3, 4}})"
        ),
        13 => format!(
            "m{number} = MaxPool <kernel_shape = [2], dilations = [2], pads = [1, 1]> ({a}) {y} = Tanh (m{number})"
        ),
        14 => format!("{y} = Softmax <axis = 1> ({a})"),
        15 => format!(
            "[if{number}] e{number} = If (c) <then_branch = t{number} () => (float[2,4,6] w{number}) {{ k{number} = Identity ({a}) w{number} = Neg (k{number}) }}, \
             else_branch = f{number} () => (float[2,4,6] z{number}) {{ z{number} = Mul ({a}, {b}) }}> {y} = Abs (e{number})"
        ),
        16 => format!(
            "i{number} = Cast <to = 6> ({a}) r{number} = Cast <to = 1> (i{number}) f{number} = Floor (r{number}) {y} = Add (f{number}, {b})"
        ),
        _ => format!("{y} = Gather <axis = 2> ({a}, {{5, 4, 3, 2, 1, 0}})"),
    }
}

fn graph() -> impl Strategy<Value = (String, usize)> {
    let step = (0usize..18, any::<prop::sample::Index>(), any::<prop::sample::Index>());
    (prop::collection::vec(step, 1..10), prop::collection::vec(any::<prop::sample::Index>(), 0..3)).prop_map(
        |(steps, extra)| {
            let mut body = String::new();
            let mut names: Vec<String> = vec!["x".to_string(), "y".to_string()];
            for (number, (kind, a, b)) in steps.iter().enumerate() {
                let (a, b): (&String, &String) = (a.get(&names), b.get(&names));
                body.push_str(&format!("  {}\n", piece(*kind, number, a, b)));
                names.push(format!("v{number}"));
            }
            let made = &names[2..];
            let mut outputs: Vec<&String> = extra.iter().map(|index: &prop::sample::Index| index.get(made)).collect();
            outputs.extend(made.last());
            outputs.sort();
            outputs.dedup();
            let outputs: Vec<String> = outputs.iter().map(|name| format!("float[2,4,6] {name}")).collect();
            (
                format!("(float[2,4,6] x, float[2,4,6] y, bool[] c) => ({}) {{\n{body}}}", outputs.join(", ")),
                steps.len(),
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_rules_do_the_answer_stays((source, _) in graph()) {
        let before = text::parse_model(&source).unwrap();
        let mut after = before.clone();
        let set = RuleSet::shipped();
        let rules: Vec<&Rule> = set
            .all()
            .unwrap()
            .into_iter()
            .filter(|rule| !rule.name.starts_with("fuse-") && !matches!(rule.keeps, Keeps::Changes { .. }))
            .collect();
        let applied = apply(&mut after, &rules, &Options::default()).unwrap();
        let names = |model: &Model| model.graph.outputs.iter().map(|id| model.graph.value(*id).name.clone()).collect::<Vec<_>>();
        prop_assert_eq!(names(&before), names(&after));
        let proof = match compare(&before, &after, &Tract) {
            // tract does not take every graph, two conditionals in a row for one; then there is nothing to compare.
            Err(ProofError::Run { side: "before", .. }) => return Ok(()),
            Err(error) => {
                let changed = text::print_model(&after, text::Style::default());
                return Err(TestCaseError::fail(format!("{error}\n{source}\n{changed}")));
            }
            Ok(proof) => proof,
        };
        prop_assert!(proof.relative < 1e-4, "{proof:?}\n{source}");
        for (one, proof) in applied.iter().zip(prove(&applied, &Tract)) {
            if let Ok(proof) = proof {
                prop_assert!(proof.is_within(&one.keeps), "{}: {proof:?}\n{source}", one.rule);
            }
        }
    }
}
