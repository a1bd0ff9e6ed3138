//! An engine that gets a model with bodies (If, Loop) with free sizes where it refuses the fixed ones.

use super::{Engine, EngineError, Session};
use crate::graph::{Dim, Graph, Model, ValueId};

/// An engine with that second chance.
pub struct Loose<'a>(pub &'a dyn Engine);

impl Engine for Loose<'_> {
    fn name(&self) -> String {
        self.0.name()
    }

    fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
        match self.0.compile(model) {
            Err(error) if !error.is_absence() => {
                let free = loosened(model).map(|free| self.0.compile(&free));
                free.and_then(Result::ok).ok_or(error)
            }
            outcome => outcome,
        }
    }
}

/// The same graph with the sizes of its inputs left free, where nodes have bodies; none where no node has.
///
/// Sizes that were chosen here fit the branch that is taken. The other branch may not allow them, and some engines refuse
/// the whole graph then, though they take it with free sizes.
pub fn loosened(model: &Model) -> Option<Model> {
    let has_body = model.graph.nodes().any(|(_, node)| node.subgraphs().next().is_some());
    let free = |dims: &Vec<Dim>| dims.iter().map(|_| Dim::Unknown).collect();
    let mut model = has_body.then(|| model.clone())?;
    for id in model.graph.inputs.clone() {
        let value = model.graph.value_mut(id);
        value.shape = value.shape.as_ref().map(free);
    }
    forget_sizes(&mut model.graph);
    Some(model)
}

/// Leaves it to the engine what sizes the values inside have, in bodies too.
fn forget_sizes(graph: &mut Graph) {
    let ids: Vec<ValueId> = graph.values().map(|(id, _)| id).collect();
    for id in ids {
        if !graph.is_input(id) && graph.initializer(id).is_none() {
            let value = graph.value_mut(id);
            (value.shape, value.declared) = (None, value.declared.take().filter(|_| value.dtype.is_none()));
        }
    }
    for id in graph.node_ids() {
        graph.node_mut(id).subgraphs_mut().for_each(forget_sizes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Tensors;
    use crate::engine::tract::Tract;
    use crate::text::parse_model;

    /// tract, but only for inputs of free sizes.
    struct FreeOnly;

    impl Engine for FreeOnly {
        fn name(&self) -> String {
            "free only".into()
        }

        fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
            let graph = &model.graph;
            let fixed = |id: &ValueId| graph.value(*id).static_shape().is_some_and(|shape| !shape.is_empty());
            if graph.inputs.iter().any(fixed) {
                let problem = "sizes are fixed".into();
                return Err(EngineError::Compile { engine: self.name(), code: None, problem });
            }
            Ok(Box::new(Nothing))
        }
    }

    struct Nothing;

    impl Session for Nothing {
        fn run(&mut self, _: &Tensors) -> Result<Tensors, EngineError> {
            Ok(Tensors::new())
        }
    }

    #[test]
    fn free_sizes_are_tried_where_nodes_have_bodies() {
        let with = "(bool c, float[2] x) => (float[2] y) {
            y = If <then_branch = a () => (float[2] p) { p = Abs (x) }, else_branch = b () => (float[2] q) { q = Neg (x) }> (c)
        }";
        let (with, without) =
            (parse_model(with).unwrap(), parse_model("(float[2] x) => (float[2] y) { y = Abs (x) }").unwrap());
        assert!(FreeOnly.compile(&with).is_err() && Loose(&FreeOnly).compile(&with).is_ok());
        assert!(Loose(&FreeOnly).compile(&without).is_err() && Loose(&Tract).compile(&without).is_ok());
    }
}
