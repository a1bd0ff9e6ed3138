//! porter moves ONNX models to accelerators.
//!
//! The layers point one way: [`onnx`] (files) to [`graph`], then rules and targets, then partition and bundle; engines
//! stand beside them, and the command line on top is the only place that prints. See `docs/architecture.md`.

pub mod bench;
pub mod bisect;
pub mod bundle;
pub mod cli;
pub mod compare;
pub mod draw;
pub mod engine;
pub mod fingerprint;
pub mod graph;
mod home;
pub mod inputs;
pub mod inspect;
mod interrupt;
mod load;
pub mod lower;
pub mod onnx;
pub mod partition;
pub mod postprocess;
pub mod prepare;
pub mod reach;
pub mod rewrite;
pub mod run;
pub mod runtime;
mod scratch;
pub mod target;
pub mod text;
pub mod verify;

pub use load::{load, load_messages, load_open};
