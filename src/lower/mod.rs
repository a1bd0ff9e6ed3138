//! Lowering: an ONNX graph with static sizes becomes an HLO module, which XLA and the Neuron compiler take.
//!
//! [`lower`] walks the graph node by node; each operator family has a file under `ops`, whose doc says which operators
//! and opsets it takes and which instructions it makes. The result is a [`hlo::Module`], written as an HloModuleProto
//! ([`hlo::to_proto`]) or as StableHLO text ([`hlo::text`]). A split becomes one slice an output, with its own bounds and
//! strides on every dimension: there is no instruction in the result that could forget a stride.
//!
//! What is not lowered is an error that names the node and the operator.

mod call;
mod error;
pub mod hlo;
pub mod neuron;
mod ops;
mod weights;
mod widen;

use std::collections::HashMap;
use std::sync::Arc;

use call::Call;
pub use error::LowerError;
use error::Problem;
use hlo::{Builder, Module, Op, Shape};
pub use ops::is_lowered;
pub use weights::write_weights;
pub use widen::widen;

use crate::graph::{Graph, Model, NodeId, ValueId, fold, inline, shapes};
use crate::onnx::Tensor;

/// Where weights go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// Into the module, as constants.
    #[default]
    Constants,
    /// Out of it: each is a parameter behind the inputs. Kernels of transposed convolutions stay constants: the module
    /// has them turned round.
    Separate,
}

/// Weights of up to this many elements are constants even where weights are separate: bounds, scales, steps.
const SMALL: usize = 16;

/// A lowered model.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The module. Its parameters are the graph's inputs, in order, then the separate weights; its results are the
    /// graph's outputs, in order.
    pub module: Module,
    /// Names of the inputs, in order.
    pub inputs: Vec<(String, Shape)>,
    /// Names of the outputs, in order.
    pub outputs: Vec<(String, Shape)>,
    /// Weights that are parameters, in order.
    pub weights: Vec<(String, Arc<Tensor>)>,
}

/// Lowers a model. Its sizes must be fixed.
///
/// # Errors
/// A node that has no lowering, a size that is not known, a graph whose shapes contradict each other.
pub fn lower(model: &Model, weights: Weights) -> Result<Lowered, LowerError> {
    let mut model = model.clone(); // weights are shared
    prepare(&mut model)?;
    lower_prepared(&model, weights)
}

/// What must have happened before [`lower_prepared`]: functions inlined, shapes inferred, constants folded.
///
/// # Errors
/// A graph whose shapes contradict each other.
pub fn prepare(model: &mut Model) -> Result<(), LowerError> {
    inline::inline_functions(model)?;
    shapes::infer(model)?;
    fold::fold_constants(model)?;
    Ok(())
}

/// As [`lower`], for a model that went through [`prepare`] or the pipeline of `porter prepare`.
///
/// # Errors
/// As [`lower`].
pub fn lower_prepared(model: &Model, weights: Weights) -> Result<Lowered, LowerError> {
    let graph = &model.graph;
    let mut b = Builder::new();
    let mut done = HashMap::new();
    let mut inputs = Vec::new();
    // An input with a value of its own is a constant.
    for &input in graph.inputs.iter().filter(|&&input| graph.initializer(input).is_none()) {
        let shape = shape_of(graph, input)?;
        let name = &graph.value(input).name;
        done.insert(input, b.parameter(name, shape.clone()));
        inputs.push((name.clone(), shape));
    }
    let mut separate = HashMap::new();
    let mut listed = Vec::new();
    if weights == Weights::Separate {
        for (id, tensor) in graph.initializers().filter(|(id, tensor)| tensor.len() > SMALL && !graph.is_unused(*id)) {
            if !tensor.dtype().is_float() {
                continue; // whole numbers decide places and sizes more often than they are weights
            }
            if is_turned(graph, id) {
                continue; // the module has it turned round, which no parameter is
            }
            let name = graph.value(id).name.clone();
            separate.insert(id, b.parameter(&name, Shape::new(tensor.dtype(), tensor.dims())));
            listed.push((name, tensor.clone()));
        }
    }
    for id in graph.node_ids() {
        lower_node(&mut b, graph, model.opset(), id, &mut done, &separate)?;
    }
    let mut results = Vec::new();
    let mut outputs = Vec::new();
    for &output in &graph.outputs {
        let name = graph.value(output).name.clone();
        let op = match (done.get(&output).or_else(|| separate.get(&output)), graph.constant(output)) {
            (Some(&op), _) => op,
            (None, Some(tensor)) => call::constant(&mut b, &name, &tensor)
                .map_err(|problem| place(problem, &name, "Constant", graph, &[]))?,
            (None, None) => {
                let problem = format!("nothing gives the output '{name}'");
                return Err(LowerError::Unsupported { node: name, op_type: "output".into(), problem });
            }
        };
        outputs.push((name, b.shape(op).clone()));
        results.push(op);
    }
    let module = b.finish(&identifier(&graph.name), results);
    Ok(Lowered { module, inputs, outputs, weights: listed })
}

/// Lowers one node by itself, its inputs as parameters; none where a size of its inputs is not known yet, or it is not
/// looked at (it has subgraphs, or only constants).
///
/// # Errors
/// Why it has no lowering, in words.
pub fn lower_alone(model: &Model, id: NodeId) -> Result<Option<Module>, String> {
    let graph = &model.graph;
    let node = graph.node(id);
    let mut b = Builder::new();
    let mut done = HashMap::new();
    for input in node.reads().filter(|&input| graph.constant(input).is_none()) {
        if let std::collections::hash_map::Entry::Vacant(entry) = done.entry(input) {
            let Ok(shape) = shape_of(graph, input) else { return Ok(None) };
            entry.insert(b.parameter(&graph.value(input).name, shape));
        }
    }
    match lower_node(&mut b, graph, model.opset(), id, &mut done, &HashMap::new()) {
        Ok(()) => {
            let results = node.writes().filter_map(|output| done.get(&output).copied()).collect();
            Ok(Some(b.finish("node", results)))
        }
        Err(LowerError::Dynamic { .. }) => Ok(None),
        Err(LowerError::Unsupported { problem, .. }) => Err(problem),
        Err(other) => Err(other.to_string()),
    }
}

fn lower_node(
    b: &mut Builder,
    graph: &Graph,
    opset: i64,
    id: NodeId,
    done: &mut HashMap<ValueId, Op>,
    separate: &HashMap<ValueId, Op>,
) -> Result<(), LowerError> {
    let node = graph.node(id);
    let label = graph.label(id);
    let told = |problem: Problem| place(problem, &label, &node.op_type, graph, &node.inputs);
    b.set_origin(&node.op_type, &label);
    let mut call = Call { b, node, graph, opset, done, separate };
    let made = ops::lower(&mut call).map_err(told)?;
    if let Some(fault) = b.take_fault() {
        return Err(told(Problem::Unsupported(fault)));
    }
    for (output, op) in node.outputs.iter().zip(made) {
        let Some(output) = *output else { continue };
        let (value, found) = (graph.value(output), b.shape(op));
        let declared = value.static_shape();
        if declared.as_ref().is_some_and(|dims| *dims != found.dims) || value.dtype.is_some_and(|d| d != found.dtype) {
            let problem = format!(
                "'{}' should be {} and became {}{:?}, which is a fault of porter",
                value.name,
                value.type_text(),
                found.dtype,
                found.dims
            );
            return Err(told(Problem::Unsupported(problem)));
        }
        done.insert(output, op);
    }
    for output in node.writes() {
        if !done.contains_key(&output) && !graph.is_unused(output) {
            let problem = format!("its output '{}' is not lowered", graph.value(output).name);
            return Err(told(Problem::Unsupported(problem)));
        }
    }
    Ok(())
}

/// Whether a weight is the kernel of a transposed convolution.
fn is_turned(graph: &Graph, id: ValueId) -> bool {
    graph
        .consumers(id)
        .iter()
        .any(|&node| graph.node(node).is("ConvTranspose") && graph.node(node).input(1) == Some(id))
}

fn shape_of(graph: &Graph, id: ValueId) -> Result<Shape, LowerError> {
    let value = graph.value(id);
    let unsupported =
        |problem: String| LowerError::Unsupported { node: value.name.clone(), op_type: "input".into(), problem };
    let dtype = value.dtype.ok_or_else(|| unsupported("its element type is not known".into()))?;
    if hlo::element_number(dtype) == 0 {
        return Err(unsupported(format!("there is no {dtype} in HLO")));
    }
    let dims = call::fixed(graph, id).map_err(|problem| place(problem, &value.name, "input", graph, &[]))?;
    Ok(Shape::new(dtype, dims))
}

fn place(problem: Problem, label: &str, op_type: &str, graph: &Graph, inputs: &[Option<ValueId>]) -> LowerError {
    let (node, op_type) = (label.to_string(), op_type.to_string());
    match problem {
        Problem::Unsupported(problem) => LowerError::Unsupported { node, op_type, problem },
        Problem::NotConstant { index } => {
            let input = inputs.get(index).copied().flatten().map(|id| graph.value(id).name.clone()).unwrap_or_default();
            LowerError::NotConstant { node, op_type, index, input }
        }
        Problem::Dynamic { value, found } => LowerError::Dynamic { value, found },
    }
}

/// A graph's name as both forms take it.
fn identifier(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(64).collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("model_{name}") }
}
