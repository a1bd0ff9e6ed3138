//! What a model's outputs say: the last steps of a detector that its file leaves undone, done here.
//!
//! [`describe`] reads off a graph what its outputs mean; [`Head`] makes detections of them. A head may be finished
//! (rows of box, score, class), one-to-one (the best scores are the answer) or one-to-many (overlapping boxes are
//! suppressed), with masks, keypoints or rotated boxes; or the model may name one class for the whole picture.

mod classify;
mod describe;
mod detections;
mod head;
mod mask;
mod overlap;
mod select;

pub use classify::{Ranked, best};
pub use describe::describe;
pub use detections::{Answer, Detection, Keypoint, Settings};
pub use head::{BoxForm, Head, Step, Task};
pub use mask::{Mask, PackedMask, Prototypes};
pub use overlap::{Corners, Oriented, RotatedOverlap, overlap_more_than, suppress};
pub use select::{Pick, best_classes, best_first, top_k};

/// Outputs that are not what the head says.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum DecodeError {
    #[error("the model gave no tensor '{tensor}', which its predictions are in")]
    Missing { tensor: String },
    #[error("tensor '{tensor}' is {dims:?}, which is not the form of the model's predictions")]
    Form { tensor: String, dims: Vec<i64> },
}

impl DecodeError {
    fn form(tensor: &str, dims: &[i64]) -> Self {
        Self::Form { tensor: tensor.into(), dims: dims.to_vec() }
    }
}
