//! Comparing tensors: how far apart two results are, and whether that is more than can be explained.

mod metrics;

pub use metrics::{Metrics, Mismatch, Slice, metrics};
