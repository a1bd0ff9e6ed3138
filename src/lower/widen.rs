//! A model computing in float64 throughout: the reference that decides when two float32 results differ.

use crate::graph::{AttributeValue, Model};
use crate::onnx::{DType, Tensor};

/// Operators whose attribute of this name is an element type.
const TYPES: [&str; 2] = ["to", "dtype"];

/// Makes every float of a model a float64: inputs, weights, attributes, casts. Weights are converted when they are read.
/// The model must have gone through [`super::prepare`].
pub fn widen(model: &mut Model) {
    let graph = &mut model.graph;
    let narrow = |dtype: DType| dtype.is_float() && dtype != DType::Double;
    let ids: Vec<_> = graph.values().map(|(id, _)| id).collect();
    for id in ids {
        let narrow_weight = graph.initializer(id).filter(|tensor| narrow(tensor.dtype()));
        if let Some(wide) = narrow_weight.and_then(|tensor| tensor.convert(DType::Double)) {
            graph.set_initializer(id, wide);
        }
        let value = graph.value_mut(id);
        if value.dtype.is_some_and(narrow) {
            value.dtype = Some(DType::Double);
        }
    }
    for id in graph.node_ids() {
        for attribute in &mut graph.node_mut(id).attributes {
            match &mut attribute.value {
                AttributeValue::Tensor(tensor) if narrow(tensor.dtype()) => {
                    if let Some(wide) = Tensor::convert(tensor, DType::Double) {
                        **tensor = wide;
                    }
                }
                AttributeValue::Int(number)
                    if TYPES.contains(&attribute.name.as_str())
                        && i32::try_from(*number).ok().and_then(DType::from_number).is_some_and(narrow) =>
                {
                    *number = i64::from(DType::Double.number());
                }
                _ => {}
            }
        }
    }
}
