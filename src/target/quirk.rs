//! Finds known faults in a model: the patterns of a target's quirks, where device and toolchain are those they strike.

use super::schema::{Quirk, Target};
use super::{QuirkHit, Setting};
use crate::graph::Model;

/// What is wrong with a quirk's pattern or predicate, and where in it.
pub struct Mistake {
    /// The text that holds the mistake, as it stands in the file.
    pub text: String,
    /// The place in that text.
    pub span: Option<std::ops::Range<usize>>,
    /// What is wrong.
    pub message: String,
    /// What was expected.
    pub expected: String,
}

/// Reads a quirk's pattern.
pub fn compile(_quirk: &Quirk) -> Result<(), Mistake> {
    Ok(())
}

/// The quirks that a model hits.
pub fn find(_model: &Model, _target: &Target, _setting: &Setting) -> Vec<QuirkHit> {
    Vec::new()
}
