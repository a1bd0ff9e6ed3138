//! The page of rules in `docs/`, made from the rule files.

use std::fmt::Write;

use super::rule::{Action, Rule};

/// The page as Markdown.
pub fn page(rules: &[&Rule]) -> String {
    let mut text = String::from(
        "# Rewrite rules\n\n\
         Made from the files in `rewrites/`; a test keeps it current (`porter rules docs` prints it). Every rule is one such file: \
         a pattern in ONNX's textual syntax, conditions in CEL, a replacement, and examples that are its tests. \
         `porter rules show NAME` prints one, `porter rules test` runs the examples, and `prepare` proves every place where a \
         rule was applied by running the piece before and the piece after.\n\n",
    );
    let _ = writeln!(text, "| rule | what it does | keeps |\n| --- | --- | --- |");
    for rule in rules {
        let _ = writeln!(text, "| [{0}](#{0}) | {1} | {2} |", rule.name, rule.what, rule.keeps);
    }
    text.push_str(LANGUAGE);
    for rule in rules {
        text.push_str(&section(rule));
    }
    text
}

/// How rules are written, for somebody who writes one.
const LANGUAGE: &str = r#"
## How a rule is written

A rule is a YAML file whose name is the rule's, here `square-to-mul.yaml`. `porter rules test --rules DIR` runs its examples; a
target applies it once its `rewrites` list it; an overlay given with `--targets` adds to that list (docs/targets.md).

```yaml
rule: square-to-mul
what: Writes a square as a product.
why: The target has no Pow.
references: [a page that says so]       # may be left out
match: |
  y = Pow (x, {2.0})
where:                                  # all of them must hold; may be left out
  - x.dtype in ["float", "float16"]
replace: |
  y = Mul (x, x)
keeps: within 1e-6
examples:                               # at least one
  - shows: a whole tensor
    before: |
      (float[2,3] x) => (float[2,3] y) <float two = {2.0}> { y = Pow (x, two) }
    after: |
      (float[2,3] x) => (float[2,3] y) { y = Mul (x, x) }
  - shows: a cube
    unchanged: |
      (float[2,3] x) => (float[2,3] y) <float three = {3.0}> { y = Pow (x, three) }
```

Several forms that mean the same stand in a list `cases`, each with a `match`, `where` and `replace` of its own.

**match** holds the nodes to look for. A name captures a value and is the same value everywhere; `b?` may be left out;
`parts...` takes all that are left; `_` matches anything. `{2.0}` is a constant of that value, up to rounding. Operands of
Add, Mul and others that commute are tried both ways. `<axis = axis>` captures an attribute, `<mode = "reflect">` asks for a
value; an attribute that is not named must be at its default, unless `<...>` says that any will do. `[c]` captures the node.
Operators are seen as in the newest opset: what became an input (the sizes of Split, the axes of Squeeze and of reductions)
is an input here, whatever the opset of the model.

**where** holds conditions in CEL. A captured value has `shape`, `rank`, `size`, `dtype`, `value`, `scalar`, `min`, `max`,
`is_constant`, `is_input`, `is_output`, `uses`, `name` and `present`; `opset` is the model's. Lists take Python's indices and
slices (`x.shape[-1]`, `x.shape[:axis]`). CEL's own `all exists filter map size` are there, and the functions below. What hangs
on a size that is not known is not proven, and the rule does not apply.

| function | gives |
| --- | --- |
| `prod(list)`, `sum(list)`, `min(list)`, `max(list)`, `gcd(list)` | one number of many |
| `len(list)`, `reverse(list)`, `concat(list, list, ...)`, `repeat(value, count)` | about lists |
| `range(end)`, `range(begin, end)` | whole numbers, the end left out |
| `enumerate(list)`, `zip(a, b)` | a list of pairs: index and element, or an element of each; of two lists only |
| `offsets(sizes)` | where each piece begins |
| `pieces(parts, sizes)`, `pieces(parts, sizes?, total)` | `[part, begin, end]` for each, as Split shares out |
| `outer(x, axis)`, `along(x, axis)`, `inner(x, axis)` | the product of the sizes before an axis, the size at it, the product behind it |
| `wrap(axis, rank)` | an axis counted from the front |
| `all_equal(list)`, `all_equal(list, value)`, `unequal(list)` | whether all are the same, or that value; whether some are not |
| `near(a, b)`, `near(a, b, relative)` | whether they are equal up to rounding, of 1e-3 where it is not said |
| `abs(x)`, `sqrt(x)`, `infinity()`, `ceil_div(a, b)`, `floor_div(a, b)`, `is_power_of_two(x)` | arithmetic |
| `broadcasts_to(shape, shape)` | whether the first, broadcast with the second, leaves the second as it is |
| `is_permutation_identity(perm)` | whether nothing changes its place |
| `type_number(dtype)` | the number of an element type, as Cast's `to` wants it |

**replace** holds the nodes to put in their place, with CEL in braces: `{begin}` is an int64 vector, `float {expr}` a scalar,
`x.dtype {expr}` a scalar of the type of `x`. `for a, b in list:`, `if condition:`, `else:` and `let name = expr` do what they
say. An output that the pattern captured keeps its name. `[c]` keeps the matched node's name, `<...c>` its attributes. A
matched value that something outside uses must be made again, or the rule does not apply.

**keeps** says what holds afterwards: `values` (bit for bit), `within 1e-5` (the largest difference, relative to the largest
value), or `changes, answered by ...` and what makes up for it, which the report of a bundle repeats.

**does** stands where a rule is more than a replacement: `fold-constants`, `cut-tail` (the cut in front of what a target cannot
take at the graph's end) and `to-host` (what `match` finds runs on the host). The parts of the last two are made by the
partition; the `after` of their examples is the part that the target keeps, where it is `without` some operators.
"#;

/// One rule as Markdown.
pub fn section(rule: &Rule) -> String {
    let mut text = format!("\n## {}\n\n{}\n\n{}\n\n", rule.name, rule.what, rule.why.trim());
    let _ = writeln!(text, "Keeps: {}.", rule.keeps);
    if !rule.references.is_empty() {
        let _ = writeln!(text, "\nReferences: {}.", rule.references.join(", "));
    }
    for (index, case) in rule.cases.iter().enumerate() {
        if rule.cases.len() > 1 {
            let _ = writeln!(text, "\nForm {}:", index + 1);
        }
        let _ = write!(text, "\n```text\n{}", block(&case.match_text));
        for predicate in &case.predicates {
            let _ = writeln!(text, "where {}", predicate.expression.source());
        }
        let _ = write!(text, "=>\n{}```\n", block(&case.replace_text));
    }
    if let Some(moves) = &rule.moves {
        let _ = write!(text, "\n```text\n{}", block(&moves.match_text));
        for predicate in &moves.predicates {
            let _ = writeln!(text, "where {predicate}");
        }
        text.push_str("=> runs on the host\n```\n");
    }
    if let Some(example) = rule.examples.iter().find(|example| example.after.is_some()) {
        let becomes = if rule.does.is_some_and(Action::is_of_the_partition) { "leaves the target" } else { "becomes" };
        let shows = example.shows.as_ref().map(|shows| format!(" ({shows})")).unwrap_or_default();
        let after = example.after.as_deref().unwrap_or_default();
        let _ = write!(
            text,
            "\nExample{shows}:\n\n```text\n{}```\n\n{becomes}\n\n```text\n{}```\n",
            block(&example.before),
            block(after)
        );
    }
    let refused: Vec<&str> = rule
        .examples
        .iter()
        .filter(|example| example.after.is_none())
        .filter_map(|example| example.shows.as_deref())
        .collect();
    if !refused.is_empty() {
        let _ = writeln!(text, "\nLeft alone: {}.", refused.join("; "));
    }
    text
}

fn block(text: &str) -> String {
    format!("{}\n", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::super::RuleSet;

    #[test]
    fn the_page_in_docs_is_current() {
        let set = RuleSet::shipped();
        let page = super::page(&set.all().unwrap());
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rules.md");
        if std::env::var_os("PORTER_UPDATE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == page, "docs/rules.md is not current: run `porter rules docs > docs/rules.md`");
    }

    #[test]
    fn what_the_page_teaches_is_so() {
        let text = super::LANGUAGE.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
        let rule = super::Rule::parse("square-to-mul.yaml", text, true).unwrap();
        let checked = crate::rewrite::check(&rule, &crate::engine::tract::Tract);
        assert_eq!(checked.iter().map(|one| one.problem.clone()).collect::<Vec<_>>(), [None, None]);
        let missing: Vec<&str> = super::super::functions::names()
            .into_iter()
            .filter(|name| !super::LANGUAGE.contains(&format!("`{name}(")))
            .collect();
        assert!(missing.is_empty(), "not on the page: {missing:?}");
    }
}
