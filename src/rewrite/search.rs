//! A pattern and predicates without a replacement: what a target's quirks look for.

use super::expr::{Expression, ExpressionError};
use super::matching::{Index, Match, Search};
use super::pattern::Pattern;
use super::rule::Predicate;
use crate::graph::{Graph, Model};
use crate::text::TextError;

/// Finds the places that a pattern and predicates describe.
#[derive(Debug)]
pub struct Matcher {
    pattern: Pattern,
    predicates: Vec<Predicate>,
}

/// Why a matcher cannot be made or used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum MatcherError {
    #[error("match: {0}")]
    Match(TextError),
    #[error("where, predicate {}: {error}", index + 1)]
    Where { index: usize, error: ExpressionError },
}

impl Matcher {
    /// Reads a pattern and predicates, in the language of rules.
    ///
    /// # Errors
    /// Which of them is wrong, with the place in its text.
    pub fn parse<S: AsRef<str>>(pattern: &str, predicates: &[S]) -> Result<Matcher, MatcherError> {
        let matcher = Matcher::parse_unchecked(pattern, predicates)?;
        let names = matcher.pattern.names();
        for (index, predicate) in matcher.predicates.iter().enumerate() {
            predicate.expression.check(&names).map_err(|error| MatcherError::Where { index, error })?;
        }
        Ok(matcher)
    }

    /// As [`Matcher::parse`], but predicates are looked at only when a pattern fits; for texts that tests have checked.
    ///
    /// # Errors
    /// A pattern that is wrong.
    pub fn parse_unchecked<S: AsRef<str>>(pattern: &str, predicates: &[S]) -> Result<Matcher, MatcherError> {
        let pattern = Pattern::parse(pattern).map_err(MatcherError::Match)?;
        let predicate = |text: &S| Predicate { expression: Expression::new(text.as_ref()) };
        Ok(Matcher { pattern, predicates: predicates.iter().map(predicate).collect() })
    }

    /// The places in one graph, in topological order.
    ///
    /// # Errors
    /// A predicate that makes no sense for what was captured.
    pub fn find(&self, graph: &Graph, opset: i64) -> Result<Vec<Match>, MatcherError> {
        let index = Index::new(graph);
        if !index.could_match(&self.pattern) {
            return Ok(Vec::new());
        }
        let search = Search { graph, opset, pattern: &self.pattern, predicates: &self.predicates, template: None };
        let mut all = Vec::new();
        for anchor in index.anchors(graph, &self.pattern) {
            all.extend(search.at(anchor).map_err(|(index, error)| MatcherError::Where { index, error })?);
        }
        Ok(all)
    }

    /// The names of the matched nodes of each place in a model, those in subgraphs included.
    ///
    /// # Errors
    /// As [`Matcher::find`].
    pub fn nodes(&self, model: &Model) -> Result<Vec<Vec<String>>, MatcherError> {
        let mut all = Vec::new();
        self.collect(&model.graph, model.opset(), &mut all)?;
        Ok(all)
    }

    fn collect(&self, graph: &Graph, opset: i64, all: &mut Vec<Vec<String>>) -> Result<(), MatcherError> {
        for found in self.find(graph, opset)? {
            all.push(found.nodes.iter().map(|id| graph.label(*id)).collect());
        }
        for (_, node) in graph.nodes() {
            for (_, inner) in node.subgraphs() {
                self.collect(inner, opset, all)?;
            }
        }
        Ok(())
    }
}
