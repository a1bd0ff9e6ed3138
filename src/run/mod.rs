//! Running a model or a bundle on the user's inputs: its parts one after the other, each on its own engine.
//!
//! A [`Program`] is what is to be run, opened from a file or a folder. Compiled, it is a [`Line`] of sessions, through
//! which tensors pass by reference; what no later part reads is let go. [`pipeline`] feeds one or several lines with
//! every run of a [`Plan`](crate::inputs::Plan): while a part works on one batch, the part before it works on the next.

mod answers;
mod crew;
mod line;
mod outputs;
mod pipeline;
mod program;

use crate::engine::EngineError;
use crate::inputs::InputError;
use crate::postprocess::DecodeError;

pub use answers::{Answers, Found, FoundIn, read_answers};
pub use crew::{Choice, Crew};
pub use line::Line;
pub use outputs::{Gathered, batch_element, undeclared, without_filling};
pub(crate) use pipeline::said;
pub use pipeline::{Done, Pace, pipeline};
pub use program::{Piece, Program, ProgramError};

/// A run that failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each is said by its source
pub enum RunError {
    #[error(transparent)]
    Input(#[from] InputError),
    #[error("part '{part}': {source}")]
    Part { part: String, source: EngineError },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("part '{part}' met a fault of porter's own: {panic}; please report it")]
    Crashed { part: String, panic: String },
}
