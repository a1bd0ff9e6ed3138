//! Running 16-bit floats where no CPU engine computes in them: float32 arithmetic, each tensor rounded.
//!
//! An accelerator that computes in bfloat16 multiplies and adds in wider registers and rounds what it stores. That is
//! what is emulated: every tensor of the type becomes float32, and after each node that makes one stands a node
//! `porter.PorterRound`, which rounds to the nearest value of the type, ties to even. float16 also overflows to infinity
//! and has subnormals; bfloat16 has float32's range. Weights of the type convert exactly. Operators that only move or
//! pick values (Reshape, Concat, MaxPool, Relu, ...) get no rounding, since theirs would change nothing.
//!
//! - [`of`] takes a model that *is* in 16 bits, such as a part of a bundle, and gives the float32 model that computes
//!   what it would.
//! - [`lower`] takes a float32 model and gives what it would compute in 16 bits: the measure of what the type explains.
//! - [`Emulated`] wraps an engine so that it takes models in 16 bits as if it computed in them.
//! - [`Rounding::Weights`] and [`Unrounded`] round the weights alone, to tell a wrong model from a coarse type.
//!
//! tract has the rounding as an operator of its own; for ONNX Runtime [`with_casts`] writes it as two Casts.

mod lower;
mod round;
mod types;

use std::collections::HashMap;

pub use lower::{Rounding, lower, lowered, of, widened};
pub(crate) use round::round_op;
pub use round::{round_in_place, rounded};

use super::{Engine, EngineError, Session, Tensors};
use crate::graph::{Graph, Model, Node};
use crate::onnx::DType;

/// The operator that rounds float32 to a narrower type and keeps it float32; the attribute `to` says which.
pub const ROUND: &str = "PorterRound";
/// Its domain.
pub const DOMAIN: &str = "porter";

/// Whether this is one of the types that are emulated.
fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::Bfloat16 | DType::Float16)
}

/// The model with every rounding written as a Cast there and back, for engines without the operator; `None` where there
/// is none. Such an engine must not optimise: it might take the two Casts for nothing.
pub fn with_casts(model: &Model) -> Option<Model> {
    if !model.opsets.contains_key(DOMAIN) {
        return None;
    }
    let mut model = model.clone();
    model.opsets.shift_remove(DOMAIN);
    expand(&mut model.graph);
    Some(model)
}

fn expand(graph: &mut Graph) {
    for id in graph.node_ids() {
        graph.node_mut(id).subgraphs_mut().for_each(expand);
        let node = graph.node(id);
        if node.op_type != ROUND || node.domain != DOMAIN {
            continue;
        }
        let (Some(input), Some(output), Some(to)) = (node.input(0), node.output(0), node.int("to")) else { continue };
        let name = node.name.clone();
        graph.remove_node(id);
        let narrow = graph.add_value(&format!("{}_narrow", graph.value(output).name));
        graph.value_mut(narrow).dtype = DType::from_number(to as i32);
        graph.add_node(Node::new("Cast", [input], [narrow]).named(format!("{name}_narrow")).with("to", to));
        let float = i64::from(DType::Float.number());
        graph.add_node(Node::new("Cast", [narrow], [output]).named(name).with("to", float));
    }
    // The casts stand at the end; every graph that had a topological order still has one.
    let _ = graph.sort();
}

/// An engine that takes models in 16-bit floats: those it emulates, all others go through as they are.
pub struct Emulated<'a>(pub &'a dyn Engine);

/// As [`Emulated`], but with [`Rounding::Weights`]: the weights are the type's, the arithmetic and what it gives are not.
pub struct Unrounded<'a>(pub &'a dyn Engine);

impl Engine for Emulated<'_> {
    fn name(&self) -> String {
        self.0.name()
    }

    fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
        let Some(wide) = of(model) else { return self.0.compile(model) };
        let outputs = model.graph.outputs.iter().filter_map(|&id| {
            let value = model.graph.value(id);
            value.dtype.filter(|&dtype| is_half(dtype)).map(|dtype| (value.name.clone(), dtype))
        });
        let outputs = outputs.collect();
        Ok(Box::new(EmulatedSession { session: self.0.compile(&wide)?, outputs }))
    }
}

impl Engine for Unrounded<'_> {
    fn name(&self) -> String {
        self.0.name()
    }

    fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
        match widened(model, Rounding::Weights) {
            // Float32 comes out as it is: rounding it at the border would be the rounding that is not wanted.
            Some(wide) => Ok(Box::new(EmulatedSession { session: self.0.compile(&wide)?, outputs: HashMap::new() })),
            None => self.0.compile(model),
        }
    }
}

/// Takes and gives 16-bit tensors at the border of a session that computes in float32.
struct EmulatedSession {
    session: Box<dyn Session>,
    outputs: HashMap<String, DType>,
}

impl Session for EmulatedSession {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, EngineError> {
        let widened = inputs.iter().map(|(name, tensor)| {
            let wide = is_half(tensor.dtype()).then(|| tensor.convert(DType::Float)).flatten();
            (name.clone(), wide.unwrap_or_else(|| tensor.clone()))
        });
        let mut outputs = self.session.run(&widened.collect())?;
        for (name, &dtype) in &self.outputs {
            if let Some(tensor) = outputs.get_mut(name)
                && let Some(narrow) = tensor.convert(dtype)
            {
                *tensor = narrow;
            }
        }
        Ok(outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tract::Tract;
    use crate::graph::builder::Build;
    use crate::onnx::Tensor;

    const BFLOAT16: i64 = 16;

    fn inputs(values: &[f32]) -> Tensors {
        let tensor = Tensor::from_f32("x", &[1, values.len() as i64], values);
        Tensors::from_iter([("x".to_string(), tensor)])
    }

    /// x -> Cast to bfloat16 -> MatMul with bfloat16 weights -> Add -> Cast to float32
    fn part() -> Model {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[1, 8]);
        let weight = build.weight("weight", &[8, 4]);
        let bias = build.weight("bias", &[4]);
        for id in [weight, bias] {
            let narrow = build.graph.constant(id).and_then(|tensor| tensor.convert(DType::Bfloat16)).unwrap();
            build.graph.set_initializer(id, narrow);
        }
        let cast = build.node(Node::new("Cast", [x], []).named("in").with("to", BFLOAT16));
        let product = build.op("MatMul", "mul", &[cast, weight]);
        let sum = build.op("Add", "add", &[product, bias]);
        let y = build.node(Node::new("Cast", [sum], []).named("out").with("to", 1));
        build.finish(&[y])
    }

    #[test]
    fn a_bfloat16_part_gives_the_values_of_bfloat16() {
        let values: Vec<f32> = (0..8).map(|i| 0.1 + i as f32 * 0.37).collect();
        let part = part();
        assert!(Tract.compile(&part).is_err(), "tract has no bfloat16; if it learns it, emulation can go");
        let got = Emulated(&Tract).run_once(&part, &inputs(&values)).unwrap()["out_output_0"].to_f32s().unwrap();
        let narrow = |x: f32| half::bf16::from_f32(x).to_f32();
        let read = |name: &str| part.graph.constant(part.graph.value_named(name).unwrap()).unwrap().to_f32s().unwrap();
        let (weight, bias) = (read("weight"), read("bias"));
        for column in 0..4 {
            let product: f32 = (0..8).map(|row| narrow(values[row]) * weight[row * 4 + column]).sum();
            assert_eq!(got[column], narrow(narrow(product) + bias[column]), "column {column}");
        }
    }

    #[test]
    fn lowering_a_float32_model_gives_what_the_part_gives() {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[1, 8]);
        let weight = build.weight("weight", &[8, 4]);
        let bias = build.weight("bias", &[4]);
        let product = build.op("MatMul", "mul", &[x, weight]);
        let sum = build.op("Add", "add", &[product, bias]);
        let model = build.finish(&[sum]);
        let inputs = inputs(&[0.3, -1.7, 2.2, 0.01, 5.5, -0.2, 1.1, 0.9]);
        let lowered = lower(&model, DType::Bfloat16, &|_| false);
        let got = Tract.run_once(&lowered, &inputs).unwrap()["add_output_0"].to_f32s().unwrap();
        let want = Emulated(&Tract).run_once(&part(), &inputs).unwrap()["out_output_0"].to_f32s().unwrap();
        assert_eq!(got, want);
        // Kept in float32, nothing is rounded.
        let kept = lower(&model, DType::Bfloat16, &|_| true);
        assert_eq!(Tract.run_once(&kept, &inputs).unwrap(), Tract.run_once(&model, &inputs).unwrap());
    }

    #[test]
    fn roundings_turn_into_casts_for_others() {
        let wide = of(&part()).unwrap();
        let cast = with_casts(&wide).unwrap();
        assert!(wide.graph.nodes().any(|(_, node)| node.op_type == ROUND));
        assert!(cast.graph.nodes().all(|(_, node)| node.is_standard()));
        assert_eq!(cast.graph.outputs.len(), 1);
        assert!(with_casts(&cast).is_none() && of(&wide).is_none());
    }

    #[test]
    fn float16_ends_at_its_largest_and_bfloat16_goes_on() {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[1, 2]);
        let y = build.op("Mul", "square", &[x, x]);
        let model = build.finish(&[y]);
        let run = |to| {
            let lowered = lower(&model, to, &|_| false);
            Tract.run_once(&lowered, &inputs(&[300.0, 1e-4])).unwrap()["square_output_0"].to_f32s().unwrap()
        };
        assert_eq!(run(DType::Float16), [65504.0, 0.0]);
        let narrow = run(DType::Bfloat16);
        assert!((narrow[0] - 90000.0).abs() < 500.0 && narrow[1] > 0.0, "{narrow:?}");
    }
}
