//! Comparing tensors: how far apart two results are, and whether that is more than can be explained.
//!
//! - [`metrics`]: the distance of a tensor from a reference, as a whole and in its worst slice.
//! - [`Detections`]: a detector's list of boxes, compared as a set.
//! - [`Expectation`]: what rounding alone explains, and the verdict on a result.

mod detections;
mod expectation;
mod metrics;
mod profile;

pub use detections::{Agreement, Detections};
pub use expectation::{Expectation, Finding, Report, Verdict};
pub(crate) use metrics::of_values;
pub use metrics::{Metrics, Mismatch, Slice, metrics};
pub use profile::{BINS, SliceStrain};
