//! The user's inputs for a model: arrays, pictures, folders and globs of them, or made up.
//!
//! What the model takes is a [`Wanted`]; what the user gave, a list of [`Given`]; a [`Plan`] brings them together. It
//! checks everything that file headers tell before anything is run, and then loads one [`Feed`] at a time: the tensors
//! of one run, with as many pictures as the batch takes. The last batch is filled up with its last picture; a feed
//! says how many of its elements are real.

mod archive;
mod given;
mod npy;
mod picture;
mod plan;
mod wanted;

use std::path::{Path, PathBuf};

pub use archive::{Entry, Form, contents, read, write};
pub use given::{Given, expand};
pub use picture::{Fit, Fitting, PictureInput, read as read_picture};
pub use plan::{Feed, Frame, Options, Plan};
pub use wanted::{Slot, Wanted};

/// Inputs that do not fit.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each message says it
pub enum InputError {
    #[error("{}: {problem}", path.display())]
    File { path: PathBuf, problem: String },
    #[error("--input {given}: {problem}")]
    Given { given: String, problem: String },
    #[error("input '{input}' from {from}: {problem}")]
    Tensor { input: String, from: String, problem: String },
    #[error(
        "input '{input}' ({kind}) is not among what was given ({given}); give it with --input {input}=FILE, or --seed N makes it up"
    )]
    Missing { input: String, kind: String, given: String },
    #[error("input '{input}' ({kind}) cannot be made up; give it with --input {input}=FILE")]
    NoSample { input: String, kind: String },
    #[error("{problem}")]
    Counts { problem: String },
}

impl InputError {
    fn file(path: &Path, problem: String) -> Self {
        Self::File { path: path.to_path_buf(), problem }
    }
}
