//! Inputs and outputs of less than a byte, which the worker's files do not have: they cross as the next wider type, and
//! the module casts.

use crate::engine::{EngineError, Placement, Session, Tensors};
use crate::graph::{Model, Node, ValueId};
use crate::lower::hlo::packed;
use crate::onnx::DType;

/// The names of what crosses in a wider type, with the type that the model gives it.
#[derive(Debug, Default)]
pub struct Borders {
    outputs: Vec<(String, DType)>,
    inputs: Vec<String>,
}

/// Gives each packed input and output of a model a wider type, with a Cast behind or before it; `None` where it has none.
pub fn widen(model: &mut Model) -> Option<Borders> {
    let graph = &mut model.graph;
    let packed_type = |graph: &crate::graph::Graph, id: ValueId| {
        let dtype = graph.value(id).dtype?;
        Some((dtype, packed::wider(dtype)?))
    };
    let mut borders = Borders::default();
    for id in graph.inputs.clone() {
        let Some((dtype, wide)) = packed_type(graph, id) else { continue };
        let (name, shape) = (graph.value(id).name.clone(), graph.value(id).shape.clone());
        let own = graph.add_typed_value(&format!("{name}_packed"), Some(dtype), shape);
        graph.replace_uses(id, own);
        graph.value_mut(id).dtype = Some(wide);
        graph.add_node(Node::new("Cast", [id], [own]).with("to", i64::from(dtype.number())));
        // An input that is given back as it is has no Cast of its own.
        graph.outputs.iter_mut().filter(|output| **output == id).for_each(|output| *output = own);
        borders.inputs.push(name);
    }
    for index in 0..graph.outputs.len() {
        let id = graph.outputs[index];
        let Some((dtype, wide)) = packed_type(graph, id) else { continue };
        let (name, shape) = (graph.value(id).name.clone(), graph.value(id).shape.clone());
        graph.rename(id, &format!("{name}_packed"));
        let shown = graph.add_typed_value(&name, Some(wide), shape);
        graph.add_node(Node::new("Cast", [id], [shown]).with("to", i64::from(wide.number())));
        graph.outputs[index] = shown;
        borders.outputs.push((name, dtype));
    }
    // The casts stand at the end; every graph that had a topological order still has one.
    let _ = graph.sort();
    (!borders.inputs.is_empty() || !borders.outputs.is_empty()).then_some(borders)
}

/// A session of a model that went through [`widen`].
pub struct Crossing {
    /// Runs the widened model.
    pub inner: Box<dyn Session>,
    /// What crosses in a wider type.
    pub borders: Borders,
}

impl Session for Crossing {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, EngineError> {
        let mut inputs = inputs.clone();
        for name in &self.borders.inputs {
            if let Some(wide) = inputs.get(name).and_then(packed::unpack) {
                inputs.insert(name.clone(), wide);
            }
        }
        let mut outputs = self.inner.run(&inputs)?;
        for (name, dtype) in &self.borders.outputs {
            if let Some(narrow) = outputs.get(name).and_then(|wide| packed::pack(wide, *dtype)) {
                outputs.insert(name.clone(), narrow);
            }
        }
        Ok(outputs)
    }

    fn placement(&self) -> Option<&Placement> {
        self.inner.placement()
    }

    fn seconds(&self) -> Option<f64> {
        self.inner.seconds()
    }
}
