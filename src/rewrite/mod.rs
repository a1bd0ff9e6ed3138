//! Rewrite rules: pieces of a graph to look for, and what to put in their place.
//!
//! A rule is a YAML file (see `rewrites/`). Its pattern and its replacement are written in ONNX's textual syntax, what
//! must hold in CEL, and its examples are its tests. [`RuleSet`] holds rules, [`apply()`] applies them and notes every
//! application, [`prove()`] runs the pieces before and after and compares them.
//!
//! ```text
//! match: |
//!   parts... = Split <axis = axis> (x, sizes?)
//! where:
//!   - outer(x, axis) > 1
//! replace: |
//!   for part, begin, end in pieces(parts, sizes, along(x, axis)):
//!     part = Slice (x, {begin}, {end}, {axis})
//! ```

mod apply;
#[cfg(test)]
mod behaviour;
mod check;
pub mod document;
mod emit;
pub mod expr;
mod functions;
mod locate;
mod matching;
mod names;
pub mod operators;
pub mod pattern;
mod place;
mod prove;
#[cfg(test)]
mod random;
mod rule;
mod rules;
mod search;
pub mod template;

pub use apply::{Applied, ApplyError, Options, apply};
pub use check::{Checked, Compared, check, each, same};
pub use locate::{Located, Step, locate};
pub use matching::{Bound, Match};
pub use prove::{Proof, ProofError, compare, prove};
pub use rule::{Action, Case, Example, Keeps, Moves, Rule, RuleError};
pub use rules::{RuleSet, RuleSetError};
pub use search::{Matcher, MatcherError};

use crate::graph::Model;

/// Makes known what can be known of shapes; says what does not fit together.
fn know_shapes(model: &mut Model) -> Result<(), String> {
    crate::graph::shapes::infer(model).map(|_| ()).map_err(|error| error.to_string())
}

/// Computes what depends on constants alone.
fn fold_constants(model: &mut Model) {
    let _ = crate::graph::fold::fold_constants(model); // what does not fold stays
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tract::Tract;
    use crate::partition::example;

    #[test]
    fn every_shipped_rule_is_sound_and_its_examples_hold() {
        let mut problems = String::new();
        for name in RuleSet::shipped().names() {
            let path = format!("{}/rewrites/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(&path).unwrap();
            match Rule::parse(&format!("{name}.yaml"), &text, true) {
                Err(error) => problems.push_str(&format!("{:?}\n", miette::Report::new(*error))),
                Ok(rule) => {
                    let results: Vec<Checked> =
                        check(&rule, &Tract).into_iter().chain(example::check(&rule, &Tract)).collect();
                    if results.is_empty() {
                        problems.push_str(&format!("{name}: no example\n\n"));
                    }
                    for checked in results {
                        if let Some(problem) = checked.problem {
                            problems.push_str(&format!("{name}, example {}: {problem}\n\n", checked.number));
                        }
                    }
                }
            }
        }
        assert!(problems.is_empty(), "{problems}");
    }
}
