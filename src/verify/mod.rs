//! Verify: the same model on two engines, and an honest verdict on every output.
//!
//! [`Judge`] is the part that others build on: any model or piece of one, on any inputs, with what rounding does to it
//! measured on the spot:
//!
//! ```no_run
//! # use porter::{engine::{Engine, noise::Noise, samples, tract::Tract}, graph::Model, verify::Judge};
//! # fn example(piece: &Model, target: &dyn Engine) -> Result<(), porter::engine::EngineError> {
//! let inputs = samples::for_model(piece, 0);
//! let judge = Judge::new(&Tract, piece, &inputs, &Noise::float32())?;
//! let report = judge.judge(&target.run_once(piece, &inputs)?);
//! for finding in &report.findings {
//!     println!("{}: {:?} {} in batch elements {:?}", finding.name, finding.verdict, finding.reason, finding.batch_elements);
//! }
//! # Ok(()) }
//! ```

mod answer;
pub mod blocks;
mod html;
mod judge;
mod outcome;
mod run;
pub mod sample;
mod story;
mod subject;

use std::path::PathBuf;

pub use answer::Found;
pub use html::html;
pub use judge::Judge;
pub use outcome::{Breakage, Judged, Outcome, Sampled, Side, Verification};
pub use run::{BATCHES, Options, Others, verify};
pub use subject::{Parts, Subject};

use crate::bundle::BundleError;
use crate::engine::EngineError;
use crate::graph::GraphError;
use crate::onnx::OnnxError;
use crate::target::TargetError;

/// Something that cannot be verified.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each is said by its source
pub enum VerifyError {
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the reference cannot be had: {0}")]
    Reference(EngineError),
    #[error("{bundle} was made from another {made_from} than {}", file.display())]
    Original { file: PathBuf, bundle: String, made_from: String },
    #[error(
        "{bundle} was made from {made_from}, which is not beside it, and its parts alone do not make a reference; give the model with --model"
    )]
    NoOriginal { bundle: String, made_from: String },
}
