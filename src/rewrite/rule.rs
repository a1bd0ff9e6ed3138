//! A rule: one YAML file that reads as its own documentation and carries its own tests.

use std::sync::Arc;

use miette::{Diagnostic, NamedSource, SourceSpan};
use serde::Deserialize;

use super::expr::{Expression, ExpressionError};
use super::locate::{Step, locate};
use super::pattern::Pattern;
use super::search::{Matcher, MatcherError};
use super::template::Template;
use crate::text::{self, Span, TextError};

/// A rule, ready to be applied.
#[derive(Debug)]
pub struct Rule {
    /// Its name, which is its file's name too.
    pub name: String,
    /// What it does, in a sentence.
    pub what: String,
    /// Why somebody needs that.
    pub why: String,
    /// Where the reason can be read.
    pub references: Vec<String>,
    /// What it does where that is no pattern.
    pub does: Option<Action>,
    /// The pattern and its replacement; several where several forms mean the same.
    pub cases: Vec<Case>,
    /// The nodes that it sends to the host, where it does that.
    pub moves: Option<Moves>,
    /// What it promises about values.
    pub keeps: Keeps,
    /// Examples, which are its tests.
    pub examples: Vec<Example>,
    /// The file as written.
    pub source: Arc<str>,
}

/// Something a rule does that is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Computes what depends on constants alone.
    FoldConstants,
    /// Cuts off what the target cannot take at the graph's end; done by the partition, which knows the target.
    CutTail,
    /// Sends the nodes of its pattern to the host; done by the partition too.
    ToHost,
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Action::FoldConstants => "fold-constants",
            Action::CutTail => "cut-tail",
            Action::ToHost => "to-host",
        })
    }
}

impl Action {
    /// Whether the partition carries it out: the graph stays what it is, and parts come out otherwise.
    pub fn is_of_the_partition(self) -> bool {
        matches!(self, Action::CutTail | Action::ToHost)
    }
}

/// What a rule sends to the host.
#[derive(Debug)]
pub struct Moves {
    /// Finds the nodes.
    pub matcher: Matcher,
    /// The pattern as written.
    pub match_text: String,
    /// The conditions as written.
    pub predicates: Vec<String>,
}

/// A pattern and what takes its place.
#[derive(Debug)]
pub struct Case {
    /// What to look for.
    pub pattern: Pattern,
    /// What must hold.
    pub predicates: Vec<Predicate>,
    /// What takes its place.
    pub template: Template,
    /// The pattern as written.
    pub match_text: String,
    /// The replacement as written.
    pub replace_text: String,
}

/// A condition on a match.
#[derive(Debug)]
pub struct Predicate {
    /// The condition.
    pub expression: Expression,
}

/// What a rule promises about the values it does not hide.
#[derive(Debug, Clone, PartialEq)]
pub enum Keeps {
    /// Bit for bit.
    Values,
    /// Up to rounding: the largest difference, relative to the largest value where that is above 1.
    Within(f64),
    /// Changes them on purpose; `answered_by` says what makes up for it.
    Changes {
        /// The host-side complement.
        answered_by: String,
    },
}

impl std::fmt::Display for Keeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Keeps::Values => f.write_str("values"),
            Keeps::Within(tolerance) => write!(f, "within {tolerance:e}"),
            Keeps::Changes { answered_by } => write!(f, "changes, answered by {answered_by}"),
        }
    }
}

/// An example of a rule, which is also a test of it.
#[derive(Debug, Clone)]
pub struct Example {
    /// The graph before.
    pub before: String,
    /// The graph after; none where the rule must leave it alone.
    pub after: Option<String>,
    /// What the example shows.
    pub shows: Option<String>,
    /// Operators that the example's target does not have, for a rule that the partition carries out.
    pub without: Vec<String>,
}

/// A rule file that cannot be used, with the place in the file.
#[derive(Debug, Clone, thiserror::Error, Diagnostic)]
#[error("rule {rule}: {message}")]
pub struct RuleError {
    /// The rule, or its file where the name is not known.
    pub rule: String,
    /// What is wrong.
    pub message: String,
    /// The file.
    #[source_code]
    pub file: NamedSource<String>,
    /// The place.
    #[label("{label}")]
    pub place: Option<SourceSpan>,
    /// What was expected there.
    pub label: String,
    /// What to do.
    #[help]
    pub help: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    rule: String,
    what: String,
    why: String,
    #[serde(default)]
    references: Vec<String>,
    does: Option<Action>,
    #[serde(rename = "match")]
    pattern: Option<String>,
    #[serde(rename = "where", default)]
    predicates: Vec<String>,
    replace: Option<String>,
    #[serde(default)]
    cases: Vec<CaseFile>,
    keeps: String,
    #[serde(default)]
    examples: Vec<ExampleFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    #[serde(rename = "match")]
    pattern: String,
    #[serde(rename = "where", default)]
    predicates: Vec<String>,
    replace: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExampleFile {
    shows: Option<String>,
    before: Option<String>,
    after: Option<String>,
    unchanged: Option<String>,
    #[serde(default)]
    without: Vec<String>,
}

/// A file being read, to make errors of.
struct Source<'a> {
    rule: String,
    name: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn error(&self, message: impl Into<String>, label: impl Into<String>, place: Option<Span>) -> Box<RuleError> {
        // A file so spoilt that the place is not found shows its first line, and with it its name.
        let first_line = 0..self.text.find('\n').unwrap_or(self.text.len());
        let place = Some(place.unwrap_or(first_line));
        Box::new(RuleError {
            rule: self.rule.clone(),
            message: message.into(),
            file: NamedSource::new(self.name, self.text.to_string()).with_language("yaml"),
            place: place.map(|span| SourceSpan::from((span.start, span.len()))),
            label: label.into(),
            help: None,
        })
    }

    fn at(&self, path: &[Step], span: Option<&Span>) -> Option<Span> {
        let found = locate(self.text, path)?;
        Some(span.map_or(found.whole.clone(), |span| found.place(span)))
    }

    fn text_error(&self, part: &str, path: &[Step], error: &TextError) -> Box<RuleError> {
        let label = format!("expected {}", error.expected);
        self.error(
            format!("in {part}, expected {}, found {}", error.expected, error.found),
            label,
            self.at(path, Some(&error.span)),
        )
    }

    fn expression_error(
        &self,
        part: &str,
        path: &[Step],
        span: Option<Span>,
        error: &ExpressionError,
    ) -> Box<RuleError> {
        // The label is the gist; the message above it has the rest.
        let gist = error.message.split([';', '\n']).next().unwrap_or_default();
        let gist = gist.split(" expecting ").next().unwrap_or_default();
        self.error(format!("in {part}: {}", error.message), gist, self.at(path, span.as_ref()))
    }
}

impl Rule {
    /// Reads a rule file. With `check`, expressions and examples are checked too, which a file that ships with porter
    /// does not need at every start.
    ///
    /// # Errors
    /// The file, the place in it and what was expected.
    pub fn parse(name: &str, text: &str, check: bool) -> Result<Rule, Box<RuleError>> {
        let stem = name.rsplit(['/', '\\']).next().unwrap_or(name).trim_end_matches(".yaml").to_string();
        let mut source = Source { rule: stem.clone(), name, text };
        let file: RuleFile = serde_yaml::from_str(text).map_err(|error| yaml_error(&source, &error))?;
        source.rule.clone_from(&file.rule);
        if file.rule != stem {
            let message = format!("the file is called {stem}.yaml, the rule {}", file.rule);
            return Err(source.error(message, format!("expected `{stem}`"), source.at(&[Step::Key("rule")], None)));
        }
        let keeps = keeps(&file.keeps).ok_or_else(|| {
            let expected = "`values`, `within 1e-6` or `changes, answered by <host part>`";
            source.error(
                format!("keeps: expected {expected}, found `{}`", file.keeps),
                format!("expected {expected}"),
                source.at(&[Step::Key("keeps")], None),
            )
        })?;
        let moves = moves(&source, &file, check)?;
        let cases = if moves.is_some() { Vec::new() } else { cases(&source, &file, check)? };
        let examples = examples(&source, &file, check)?;
        Ok(Rule {
            name: file.rule,
            what: file.what.trim().to_string(),
            why: file.why.trim().to_string(),
            references: file.references,
            does: file.does,
            cases,
            moves,
            keeps,
            examples,
            source: Arc::from(text),
        })
    }

    /// An error in a predicate or an expression of this rule that shows only on a real graph.
    pub(super) fn error(&self, part: &str, path: &[Step], error: &ExpressionError) -> Box<RuleError> {
        let name = format!("{}.yaml", self.name);
        let source = Source { rule: self.name.clone(), name: &name, text: &self.source };
        source.expression_error(part, path, error.span.clone(), error)
    }
}

fn keeps(text: &str) -> Option<Keeps> {
    let text = text.trim();
    if text == "values" {
        return Some(Keeps::Values);
    }
    if let Some(tolerance) = text.strip_prefix("within ") {
        return tolerance.trim().parse().ok().filter(|tolerance: &f64| *tolerance > 0.0).map(Keeps::Within);
    }
    let answered_by = text.strip_prefix("changes, answered by ")?.trim();
    (!answered_by.is_empty()).then(|| Keeps::Changes { answered_by: answered_by.to_string() })
}

fn yaml_error(source: &Source, error: &serde_yaml::Error) -> Box<RuleError> {
    let place = error.location().map(|location| {
        let at = location.index().min(source.text.len());
        let line_end = source.text[at..].find('\n').map_or(source.text.len(), |length| at + length);
        at..line_end.max(at)
    });
    let message = error.to_string();
    let gist = message.split(", expected one of").next().unwrap_or_default().to_string();
    let mut shown = source.error(message, gist, place);
    shown.help = Some(
        "a rule has the keys rule, what, why, references, match, where, replace (or cases, or does), keeps, examples"
            .into(),
    );
    shown
}

/// The pattern of a rule that sends nodes to the host; it has no replacement.
fn moves(source: &Source, file: &RuleFile, check: bool) -> Result<Option<Moves>, Box<RuleError>> {
    if file.does != Some(Action::ToHost) {
        return Ok(None);
    }
    let (Some(pattern), None, []) = (&file.pattern, &file.replace, file.cases.as_slice()) else {
        let message =
            "a rule that does to-host has match, and neither replace nor cases: what it matches stays what it is";
        return Err(source.error(message, "expected `match` alone", source.at(&[Step::Key("does")], None)));
    };
    let parse = if check { Matcher::parse::<String> } else { Matcher::parse_unchecked::<String> };
    let matcher = parse(pattern, &file.predicates).map_err(|error| match error {
        MatcherError::Match(error) => source.text_error("match", &[Step::Key("match")], &error),
        MatcherError::Where { index, error } => {
            let path = [Step::Key("where"), Step::Item(index)];
            source.expression_error("where", &path, error.span.clone(), &error)
        }
    })?;
    Ok(Some(Moves { matcher, match_text: pattern.clone(), predicates: file.predicates.clone() }))
}

fn cases(source: &Source, file: &RuleFile, check: bool) -> Result<Vec<Case>, Box<RuleError>> {
    let mut cases = Vec::new();
    match (&file.pattern, &file.replace) {
        (Some(pattern), Some(replace)) => cases.push(case(source, &[], pattern, &file.predicates, replace, check)?),
        (Some(_), None) => {
            return Err(source.error(
                "match without replace",
                "expected a `replace` too",
                source.at(&[Step::Key("match")], None),
            ));
        }
        (None, Some(_)) => {
            return Err(source.error(
                "replace without match",
                "expected a `match` too",
                source.at(&[Step::Key("replace")], None),
            ));
        }
        (None, None) => {}
    }
    for (index, one) in file.cases.iter().enumerate() {
        let path = [Step::Key("cases"), Step::Item(index)];
        cases.push(case(source, &path, &one.pattern, &one.predicates, &one.replace, check)?);
    }
    if cases.is_empty() == file.does.is_none() {
        let message = "a rule has either match and replace, or cases, or does";
        return Err(source.error(message, message, source.at(&[Step::Key("rule")], None)));
    }
    Ok(cases)
}

fn case(
    source: &Source,
    path: &[Step],
    pattern: &str,
    predicates: &[String],
    replace: &str,
    check: bool,
) -> Result<Case, Box<RuleError>> {
    let under = |steps: &[Step<'static>]| -> Vec<Step> { path.iter().copied().chain(steps.iter().copied()).collect() };
    let match_text = pattern.to_string();
    let replace_text = replace.to_string();
    let pattern =
        Pattern::parse(pattern).map_err(|error| source.text_error("match", &under(&[Step::Key("match")]), &error))?;
    let template = Template::parse(replace, &pattern)
        .map_err(|error| source.text_error("replace", &under(&[Step::Key("replace")]), &error))?;
    let predicates: Vec<Predicate> =
        predicates.iter().map(|text| Predicate { expression: Expression::new(text.clone()) }).collect();
    if check {
        let names = pattern.names();
        for (index, predicate) in predicates.iter().enumerate() {
            predicate.expression.check(&names).map_err(|error| {
                let path = under(&[Step::Key("where"), Step::Item(index)]);
                source.expression_error("where", &path, error.span.clone(), &error)
            })?;
        }
        template.check(&pattern).map_err(|(span, error)| {
            source.expression_error("replace", &under(&[Step::Key("replace")]), Some(span), &error)
        })?;
    }
    Ok(Case { pattern, predicates, template, match_text, replace_text })
}

fn examples(source: &Source, file: &RuleFile, check: bool) -> Result<Vec<Example>, Box<RuleError>> {
    let mut examples = Vec::new();
    for (index, example) in file.examples.iter().enumerate() {
        let path = |key| [Step::Key("examples"), Step::Item(index), Step::Key(key)];
        let read = |key, text: &str| -> Result<(), Box<RuleError>> {
            if check {
                text::parse_model(text)
                    .map_err(|error| source.text_error(&format!("example {}", index + 1), &path(key), &error))?;
            }
            Ok(())
        };
        let (shows, without) = (example.shows.clone(), example.without.clone());
        match (&example.before, &example.after, &example.unchanged) {
            (Some(before), Some(after), None) => {
                read("before", before)?;
                read("after", after)?;
                examples.push(Example { before: before.clone(), after: Some(after.clone()), shows, without });
            }
            (None, None, Some(unchanged)) => {
                read("unchanged", unchanged)?;
                examples.push(Example { before: unchanged.clone(), after: None, shows, without });
            }
            _ => {
                let message = "an example has before and after, or unchanged";
                let place = source.at(&[Step::Key("examples"), Step::Item(index)], None);
                return Err(source.error(message, message, place));
            }
        }
    }
    Ok(examples)
}
