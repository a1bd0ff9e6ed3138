//! Rules, targets and textual graphs are written by people: whatever they write is read or refused with a place that can
//! be shown, and never ends porter.

mod common;

use std::fs;
use std::path::PathBuf;

use common::generate::Choices;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use porter::rewrite::{Rule, RuleSet};
use porter::target::TargetSet;
use proptest::prelude::*;

fn shipped(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(common::repository().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(files.len() >= 8, "{folder} has too few files");
    files
}

/// A file as a person spoils it: characters, words and lines gone, doubled, swapped or mistyped.
fn spoil(text: &str, choices: &mut Choices) -> String {
    let mut out: Vec<char> = text.chars().collect();
    for _ in 0..1 + choices.below(4) {
        let at = choices.below(out.len());
        let end = (at + choices.below(30)).min(out.len());
        match choices.below(6) {
            0 => drop(out.drain(at..end)),
            1 => {
                let piece: Vec<char> = out[at..end].to_vec();
                out.splice(at..at, piece);
            }
            2 => out.insert(
                at,
                ['{', '}', '(', ')', '<', '>', '=', ',', ':', '"', '\'', '-', '\n', 'é', '\t'][choices.below(15)],
            ),
            3 => out[at] = ['0', '9', 'x', ' ', '\n', '[', '|', '#', '&', '*', '𝄞', '\u{0}'][choices.below(12)],
            4 => out.truncate(at.max(1)),
            _ => {
                let lines: Vec<String> = out.iter().collect::<String>().lines().map(str::to_string).collect();
                let (one, other) = (choices.below(lines.len()), choices.below(lines.len()));
                let mut lines = lines;
                lines.swap(one, other);
                out = lines.join("\n").chars().collect();
            }
        }
        if out.is_empty() {
            break;
        }
    }
    out.into_iter().collect()
}

/// The error as the command line shows it.
fn shown(error: &dyn Diagnostic) -> String {
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(100);
    let mut text = String::new();
    handler.render_report(&mut text, error).unwrap_or_else(|_| panic!("{error} cannot be shown"));
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..Default::default() })]

    #[test]
    fn spoilt_rules_are_read_or_refused_with_a_place(seed: u64) {
        let mut choices = Choices::new(seed);
        let files = shipped("rewrites");
        let file = &files[choices.below(files.len())];
        let text = spoil(&fs::read_to_string(file).unwrap(), &mut choices);
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if let Err(error) = Rule::parse(&name, &text, true) {
            prop_assert!(shown(&*error).contains(&name), "{}", shown(&*error));
        }
    }

    #[test]
    fn spoilt_targets_are_read_or_refused_with_a_place(seed: u64) {
        let mut choices = Choices::new(seed);
        let files = shipped("targets");
        let file = &files[choices.below(files.len())];
        let text = spoil(&fs::read_to_string(file).unwrap(), &mut choices);
        let folder = tempfile::tempdir().unwrap();
        let name = file.file_name().unwrap();
        fs::write(folder.path().join(name), text).unwrap();
        if let Err(error) = TargetSet::load(folder.path()) {
            prop_assert!(!shown(&error).is_empty());
        }
    }

    #[test]
    fn spoilt_graphs_are_read_or_refused(seed: u64) {
        let mut choices = Choices::new(seed);
        let rules = RuleSet::shipped();
        let examples: Vec<String> = shipped("rewrites")
            .iter()
            .filter_map(|path| rules.get(&path.file_stem()?.to_string_lossy()))
            .flat_map(|rule| rule.examples.iter().map(|example| example.before.clone()))
            .collect();
        let text = spoil(&examples[choices.below(examples.len())], &mut choices);
        if let Err(error) = porter::text::parse_model(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
