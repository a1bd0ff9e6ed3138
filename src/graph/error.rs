//! What can be wrong with a graph, with the place.

/// A graph that makes no sense. The caller adds the file's name.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct GraphError {
    /// The node, value or tensor: `node '/model.0/conv/Conv'`.
    pub place: String,
    /// What is wrong with it.
    pub problem: String,
}

impl GraphError {
    /// An error at a place.
    pub fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}
