//! What a part computes in: the policy that decides it node by node, and the pass that converts a part.

mod apply;
mod kinds;
mod opset;
mod policy;
#[cfg(test)]
mod tests;

pub use apply::{Applied, DtypeError, apply};
pub use opset::{OpsetError, raise as raise_opset};
pub use policy::{FLOAT16_MAX, NodeType, Policy, Wishes, policy};
