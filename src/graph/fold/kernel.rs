//! One operator call on constants: which kernels there are, and what they all share.

use super::array::Array;
use crate::graph::Node;

/// A call with every given input at hand.
pub struct Call<'a> {
    /// The node.
    pub node: &'a Node,
    /// The inputs by position; `None` where one is left out.
    pub inputs: &'a [Option<Array>],
}

impl Call<'_> {
    /// The outputs by position, computed here; `None` where porter has no kernel for it or the call makes no sense.
    pub fn run(&self) -> Option<Vec<Array>> {
        if !self.node.is_standard() {
            return None;
        }
        self.layout().or_else(|| self.arithmetic()).or_else(|| self.reduction())
    }

    /// An input, if it is given.
    pub(super) fn input(&self, index: usize) -> Option<&Array> {
        self.inputs.get(index)?.as_ref()
    }
}
