//! The rules that ship with porter, and rules from a folder.

use std::path::Path;
use std::sync::OnceLock;

use super::rule::{Rule, RuleError};

/// Rule files that ship, by name.
const SHIPPED: &[(&str, &str)] = &include!("shipped.in");

/// A set of rules, each read when it is first asked for.
#[derive(Debug)]
pub struct RuleSet {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    source: Text,
    parsed: OnceLock<Result<Rule, Box<RuleError>>>,
}

#[derive(Debug)]
enum Text {
    Shipped(&'static str),
    Read,
}

/// Why a folder of rules cannot be used.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[allow(missing_docs)] // each message says it
pub enum RuleSetError {
    #[error("{path}: {error}")]
    Io { path: String, error: std::io::Error },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Rule(#[from] Box<RuleError>),
}

impl RuleSet {
    /// The rules that ship with porter.
    pub fn shipped() -> RuleSet {
        let entry = |(name, text): &(&str, &'static str)| Entry {
            name: (*name).to_string(),
            source: Text::Shipped(text),
            parsed: OnceLock::new(),
        };
        RuleSet { entries: SHIPPED.iter().map(entry).collect() }
    }

    /// The rules that ship, with those of a folder added and put in the place of shipped ones of the same name.
    ///
    /// # Errors
    /// A folder that cannot be read; a rule file that cannot be used, with its place.
    pub fn load(folder: &Path) -> Result<RuleSet, RuleSetError> {
        let io = |path: &Path| {
            let path = path.display().to_string();
            move |error| RuleSetError::Io { path, error }
        };
        let mut set = RuleSet::shipped();
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .map_err(io(folder))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"))
            .collect();
        files.sort();
        for path in files {
            let text = std::fs::read_to_string(&path).map_err(io(&path))?;
            let rule = Rule::parse(&path.display().to_string(), &text, true)?;
            let entry = Entry { name: rule.name.clone(), source: Text::Read, parsed: OnceLock::from(Ok(rule)) };
            match set.entries.iter_mut().find(|known| known.name == entry.name) {
                Some(known) => *known = entry,
                None => set.entries.push(entry),
            }
        }
        Ok(set)
    }

    /// The names of the rules.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// The rule of this name; none where there is none or, which tests rule out, where a shipped one is broken.
    pub fn get(&self, name: &str) -> Option<&Rule> {
        self.entries.iter().find(|entry| entry.name == name).and_then(|entry| entry.rule().ok())
    }

    /// Every rule, by name.
    ///
    /// # Errors
    /// The first broken one.
    pub fn all(&self) -> Result<Vec<&Rule>, &RuleError> {
        self.entries.iter().map(Entry::rule).collect()
    }
}

impl Entry {
    fn rule(&self) -> Result<&Rule, &RuleError> {
        let parse = || match self.source {
            Text::Shipped(text) => Rule::parse(&format!("rewrites/{}.yaml", self.name), text, false),
            Text::Read => unreachable_rule(&self.name),
        };
        self.parsed.get_or_init(parse).as_ref().map_err(AsRef::as_ref)
    }
}

/// A rule that was read is there from the start, so this is only what the types ask for.
fn unreachable_rule(name: &str) -> Result<Rule, Box<RuleError>> {
    Rule::parse(name, "", false)
}
