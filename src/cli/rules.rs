//! `porter rules`: the rewrite rules, shown and tested.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, Outcome, screen};
use crate::engine::tract::Tract;
use crate::partition;
use crate::rewrite::{self, Rule, RuleSet, RuleSetError, document};

/// List, show and test the rewrite rules
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// A folder of rule files; they come on top of those that ship, in the place of one of the same name
    #[arg(long, value_name = "DIR", global = true)]
    rules: Option<PathBuf>,
    /// Print one JSON document and nothing else on standard output
    #[arg(long, global = true)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Every rule with what it does
    List,
    /// One rule: what it does, why, its pattern, its examples
    Show {
        /// The rule
        name: String,
    },
    /// Run the examples of every rule, or of some: apply, compare as text, and compare by running
    Test {
        /// The rules; all of them where none is named
        names: Vec<String>,
    },
    /// Print the page that docs/rules.md holds
    #[command(hide = true)]
    Docs,
}

impl From<RuleSetError> for Failure {
    fn from(error: RuleSetError) -> Self {
        match error {
            RuleSetError::Rule(error) => Failure::diagnostic(*error),
            other => Failure::input(other),
        }
    }
}

/// The rules of a folder over those that ship, as `--rules` says.
pub(super) fn load(folder: Option<&Path>) -> Result<RuleSet, Failure> {
    Ok(folder.map_or_else(|| Ok(RuleSet::shipped()), RuleSet::load)?)
}

/// Runs the command.
pub fn run(args: Args) -> Outcome {
    let set = load(args.rules.as_deref())?;
    let all = set.all().map_err(|error| Failure::diagnostic(error.clone()))?;
    match &args.command {
        Command::List => list(&all, args.json),
        Command::Show { name } => show(find(&all, name)?, args.json),
        Command::Docs => screen::println(document::page(&all).trim_end()),
        Command::Test { names } if names.is_empty() => return test(&all, args.json),
        Command::Test { names } => {
            let chosen = names.iter().map(|name| find(&all, name)).collect::<Result<Vec<_>, _>>()?;
            return test(&chosen, args.json);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn find<'r>(all: &[&'r Rule], name: &str) -> Result<&'r Rule, Failure> {
    all.iter().find(|rule| rule.name == name).copied().ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|rule| rule.name.as_str()).collect();
        Failure::input(format!("there is no rule '{name}'")).help(format!("there are {}", names.join(", ")))
    })
}

fn list(all: &[&Rule], as_json: bool) {
    if as_json {
        let entry = |rule: &&Rule| json!({ "rule": rule.name, "what": rule.what, "keeps": rule.keeps.to_string() });
        screen::json(&all.iter().map(entry).collect::<Vec<_>>());
        return;
    }
    let width = all.iter().map(|rule| rule.name.len()).max().unwrap_or(0);
    for rule in all {
        screen::println(&format!("{:width$}  {}", rule.name, rule.what));
    }
}

fn show(rule: &Rule, as_json: bool) {
    if !as_json {
        screen::println(rule.source.trim_end());
        return;
    }
    let cases = rule.cases.iter().map(|case| {
        let predicates: Vec<&str> = case.predicates.iter().map(|predicate| predicate.expression.source()).collect();
        json!({ "match": case.match_text, "where": predicates, "replace": case.replace_text })
    });
    let examples = rule.examples.iter().map(|example| match &example.after {
        Some(after) => {
            json!({ "shows": example.shows, "without": example.without, "before": example.before, "after": after })
        }
        None => json!({ "shows": example.shows, "without": example.without, "unchanged": example.before }),
    });
    screen::json(&json!({
        "rule": rule.name,
        "what": rule.what,
        "why": rule.why,
        "references": rule.references,
        "does": rule.does.map(|does| does.to_string()),
        "cases": cases.collect::<Vec<_>>(),
        "moves": rule.moves.as_ref().map(|moves| json!({ "match": moves.match_text, "where": moves.predicates })),
        "keeps": rule.keeps.to_string(),
        "examples": examples.collect::<Vec<_>>(),
    }));
}

fn test(rules: &[&Rule], as_json: bool) -> Outcome {
    let width = rules.iter().map(|rule| rule.name.len()).max().unwrap_or(0);
    let (mut examples, mut failed) = (0, 0);
    let mut documents = Vec::new();
    let mut unproven = Vec::new();
    for rule in rules {
        let mut results = rewrite::check(rule, &Tract);
        results.extend(partition::example::check(rule, &Tract));
        if results.is_empty() {
            unproven.push(rule.name.as_str());
        }
        let mut entries = Vec::new();
        let worst = results.iter().filter_map(|one| one.proof.as_ref()).map(|proof| proof.max_abs).fold(0.0, f64::max);
        for one in &results {
            examples += 1;
            if let Some(problem) = &one.problem {
                failed += 1;
                if !as_json {
                    screen::note(&format!("{}, example {}: {problem}", rule.name, one.number));
                }
            }
            entries.push(json!({
                "example": one.number,
                "shows": one.shows,
                "passed": one.problem.is_none(),
                "problem": one.problem,
                "unproven": one.unproven,
                "max_abs": one.proof.as_ref().map(|proof| proof.max_abs),
                "cosine": one.proof.as_ref().map(|proof| proof.cosine),
            }));
        }
        if as_json {
            documents.push(json!({ "rule": rule.name, "keeps": rule.keeps.to_string(), "examples": entries }));
        } else {
            let passed = results.iter().filter(|one| one.problem.is_none()).count();
            let outcome = match results.len() {
                0 => "no example: nothing shows what it does, or that it is right".to_string(),
                count => {
                    let text = results.iter().filter(|one| one.unproven.is_some()).count();
                    let unrun = if text > 0 { format!(", {text} compared as text alone") } else { String::new() };
                    format!("{passed} of {count}, largest difference {worst:.1e}{unrun}")
                }
            };
            screen::println(&format!("{:width$}  {outcome}", rule.name));
        }
    }
    if as_json {
        let counts = json!({
            "passed": examples - failed, "failed": failed, "without_examples": unproven, "rules": documents,
        });
        screen::json(&counts);
    } else {
        screen::println(&format!("{} of {examples} examples hold", examples - failed));
        if !unproven.is_empty() {
            screen::note(&format!("without an example, which a rule needs: {}", unproven.join(", ")));
        }
    }
    Ok(if failed == 0 && unproven.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
