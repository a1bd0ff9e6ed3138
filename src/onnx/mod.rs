//! ONNX files: reading them mapped and whole, writing them streamed and atomically, and the tensors in them.
//!
//! Nothing here interprets a graph. A model is the format's own message tree ([`proto`]), in which weights are views
//! into the mapped file ([`Payload`]) until somebody changes them, and in which what porter does not know survives.

mod apart;
mod dtype;
mod error;
pub mod external;
pub mod fill;
mod look;
mod mapped;
pub mod payload;
pub mod proto;
mod read;
pub mod safetensors;
mod small;
pub mod strip;
mod tensor;
mod together;
pub(crate) mod wire;
mod write;

pub use apart::{Apart, TakeApart};
pub use dtype::DType;
pub use error::{OnnxError, Problem};
pub use mapped::give_back;
pub use payload::Payload;
pub(crate) use read::map;
pub use read::{Digest, ModelFile, NEWEST_OPSET, OLDEST_OPSET, decode, read};
pub use tensor::{Tensor, TensorError};
pub use write::{encode, encode_into, write, write_message, write_together, write_with, write_with_limit};
