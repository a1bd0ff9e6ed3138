//! Linear Resize in float64: along each axis the product with a matrix of weights, at most two of them in a row.

use super::convert::Write;
use crate::graph::{Node, ValueId};
use crate::onnx::{DType, Tensor};

impl Write<'_> {
    /// Writes a linear Resize of known sizes. `None` for what is not taken apart here: cubic, antialiased, by a region, or
    /// with sizes that nobody knows.
    pub(super) fn interpolated(&mut self, node: &Node, opset: i64) -> Option<()> {
        let (x, out) = (node.input(0)?, node.output(0)?);
        let plain = ["antialias", "exclude_outside"].iter().all(|name| node.int(name).unwrap_or(0) == 0);
        let stretched = matches!(node.string("keep_aspect_ratio_policy"), None | Some("stretch"));
        if opset < 11 || node.string("mode") != Some("linear") || !plain || !stretched || node.attr("axes").is_some() {
            return None;
        }
        let (from, to) = (self.graph.value(x).static_shape()?, self.graph.value(out).static_shape()?);
        let scales = match node.input(2) {
            Some(scales) => self.graph.constant(scales)?.to_f64s().ok()?,
            None => Vec::new(),
        };
        let mode = node.string("coordinate_transformation_mode").unwrap_or("half_pixel");
        let mut resized = x;
        for (axis, (&from_size, &to_size)) in from.iter().zip(&to).enumerate() {
            let scale = scales.get(axis).copied().unwrap_or(to_size as f64 / from_size as f64);
            if from_size == to_size && scale == 1.0 {
                continue;
            }
            let weights = weights(mode, from_size.try_into().ok()?, to_size.try_into().ok()?, scale)?;
            let tensor = Tensor::from_f64s("weights", DType::Double, &[from_size, to_size], &weights)?;
            let weights = self.graph.add_initializer(tensor);
            resized = self.product_along(resized, weights, axis, from.len());
        }
        self.last("Identity", &[resized], out);
        Some(())
    }

    /// The product with a matrix along an axis.
    fn product_along(&mut self, x: ValueId, matrix: ValueId, axis: usize, rank: usize) -> ValueId {
        if axis + 1 == rank {
            return self.op("MatMul", &[x, matrix]);
        }
        let mut order: Vec<i64> = (0..rank as i64).collect();
        order.swap(axis, rank - 1);
        let turned = self.with(Node::new("Transpose", [x], []).with("perm", order.clone()));
        let product = self.op("MatMul", &[turned, matrix]);
        self.with(Node::new("Transpose", [product], []).with("perm", order))
    }
}

/// What each of `to` places takes from each of `from`, as a matrix `[from, to]`.
fn weights(mode: &str, from: usize, to: usize, scale: f64) -> Option<Vec<f64>> {
    let mut weights = vec![0.0; from * to];
    let last = from.checked_sub(1)? as f64;
    for place in 0..to {
        let i = place as f64;
        let at = match mode {
            "half_pixel" => (i + 0.5) / scale - 0.5,
            "pytorch_half_pixel" if to > 1 => (i + 0.5) / scale - 0.5,
            "align_corners" if to > 1 => i * last / (to - 1) as f64,
            "pytorch_half_pixel" | "align_corners" => 0.0,
            "asymmetric" => i / scale,
            _ => return None,
        };
        let at = at.clamp(0.0, last);
        let (first, part) = (at.floor(), at - at.floor());
        weights[first as usize * to + place] += 1.0 - part;
        weights[(first + 1.0).min(last) as usize * to + place] += part;
    }
    Some(weights)
}
