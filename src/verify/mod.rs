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

pub mod blocks;
mod judge;
pub mod sample;

pub use judge::Judge;
