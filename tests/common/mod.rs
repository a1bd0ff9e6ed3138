<<<<<<< HEAD
//! What the integration tests share.
#![allow(dead_code)] // each test file uses a part
=======
//! What integration tests share: where models and engines are, the built binary, and small models made by hand.

#![allow(dead_code)] // every test binary uses its own part of this

pub mod build;
pub mod generate;
>>>>>>> 08f1303 (Refuse bad files with one clear message, keep every declaration as read, and test both)

use std::path::{Path, PathBuf};

use porter::engine::ort::{self, Library};
use porter::graph::Model;

/// The folder of the stripped test models.
pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models")
}

/// One of the stripped test models.
pub fn model(name: &str) -> Model {
    porter::load(&models().join(name)).unwrap_or_else(|error| panic!("{error}"))
}

/// ONNX Runtime's library. A missing one fails the test: a test that skips itself proves nothing.
pub fn ort_library() -> Library {
    ort::locate().unwrap_or_else(|error| panic!("these tests compare with ONNX Runtime; {error}"))
}
