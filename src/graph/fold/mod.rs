//! Constant folding: what does not depend on the inputs is computed once, here.

mod arithmetic;
mod array;
mod branch;
mod constants;
mod kernel;
mod layout;
mod reduction;

pub(in crate::graph) use arithmetic::cast;
pub(in crate::graph) use array::{Array, axis};
pub use constants::{Folded, fold_constants, fold_outside_branches, fold_whole_numbers};
pub(in crate::graph) use kernel::Call;
pub(in crate::graph) use layout::{shape_range, slice_bounds};
