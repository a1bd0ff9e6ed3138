//! Shape and type inference: what can be told of every value without running the model.
//!
//! Nodes are visited in order; each has a rule for its outputs' sizes ([`rules`]) and element types ([`dtypes`]). Small
//! whole-number tensors are followed element by element ([`elements`]), as expressions where they must be, so that
//! shapes which the model computes while it runs come out too. Sizes that only running can tell get a name.
//!
//! Inference is lenient where ONNX Runtime is: what the file declares wrongly about sizes is corrected in silence, an
//! operator without rule leaves its outputs as declared, and only calls that cannot run are errors.

mod call;
mod control;
mod dtypes;
mod elements;
mod fact;
mod layout;
mod rules;
mod select;
mod signal;
mod size;
#[cfg(test)]
mod tests;
mod text;
mod window;

use std::sync::Arc;

use call::{Call, Names};
pub(in crate::graph) use fact::{Elements, Fact, TRACKED};
pub(in crate::graph) use size::Size;

use super::value::is_placeholder;
use super::{AttributeValue, Dim, Graph, GraphError, Model, Node, NodeId, ValueId, fold};
use crate::onnx::{DType, Tensor};

/// What inference found out beyond the shapes that it wrote to the graph's values.
#[derive(Debug, Default)]
pub struct Shapes {
    facts: Vec<Fact>,
}

impl Shapes {
    pub(in crate::graph) fn fact(&self, id: ValueId) -> Option<&Fact> {
        self.facts.get(id.0 as usize)
    }

    /// The tensor that a value always is, if it is a small one that could be computed.
    pub fn constant(&self, graph: &Graph, id: ValueId) -> Option<Arc<Tensor>> {
        Some(self.fact(id)?.array()?.clone().into_tensor(&graph.value(id).name))
    }
}

/// Infers element type and shape of every value of a model, subgraphs included, and writes them to the values.
///
/// # Errors
/// A node that cannot run on the inputs it gets, or a graph output whose declared element type is another one.
pub fn infer(model: &mut Model) -> Result<Shapes, GraphError> {
    let opset = model.opset();
    infer_graph(&mut model.graph, opset)
}

/// As [`infer`], for a graph in an opset of ai.onnx.
///
/// # Errors
/// As [`infer`].
pub fn infer_graph(graph: &mut Graph, opset: i64) -> Result<Shapes, GraphError> {
    let mut walk = Walk { opset, names: names_of(graph), lenient: false };
    let facts = walk.graph(graph, None, None)?;
    Ok(Shapes { facts })
}

/// As [`infer_graph`], for the body of a branch or loop on its own: nodes that cannot run are let pass, for they may
/// never be reached. Captured values are what their entries say.
pub(in crate::graph) fn infer_inner(graph: &mut Graph, opset: i64) -> Shapes {
    let mut walk = Walk { opset, names: names_of(graph), lenient: true };
    walk.graph(graph, None, None).map(|facts| Shapes { facts }).unwrap_or_default()
}

/// The names that a graph's inputs and what it captures have for sizes.
fn names_of(graph: &Graph) -> Names {
    let mut names = Names::default();
    for (_, value) in graph.values().filter(|(_, value)| value.producer.is_none()) {
        for dim in value.shape.iter().flatten() {
            Size::from(dim).names(&mut |name| {
                names.taken.insert(name.to_string());
            });
        }
    }
    names
}

/// The values of enclosing graphs that a subgraph can see.
struct Scope<'a> {
    graph: &'a Graph,
    facts: &'a [Fact],
    parent: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn lookup(&self, name: &str) -> Option<Fact> {
        match self.graph.value_named(name) {
            Some(id) => self.facts.get(id.0 as usize).cloned(),
            None => self.parent?.lookup(name),
        }
    }
}

/// One pass over a graph and its subgraphs.
struct Walk {
    opset: i64,
    names: Names,
    /// Whether calls that cannot run are let pass: a branch that is never taken may hold some.
    lenient: bool,
}

impl Walk {
    /// Infers a graph; `given` holds facts for its inputs, where the caller knows better than the declarations.
    fn graph(
        &mut self,
        graph: &mut Graph,
        outer: Option<&Scope>,
        given: Option<Vec<Fact>>,
    ) -> Result<Vec<Fact>, GraphError> {
        let mut facts = vec![Fact::default(); graph.values.len()];
        for (id, value) in graph.values() {
            let slot = &mut facts[id.0 as usize];
            if let Some(tensor) = &value.constant {
                *slot = Fact::of_tensor(tensor);
            } else if value.captured {
                *slot = outer.and_then(|outer| outer.lookup(&value.name)).unwrap_or_else(|| declared(value));
            } else if value.producer.is_none() {
                *slot = declared(value);
            }
        }
        if outer.is_none() {
            self.name_unknown(graph, &mut facts);
        }
        for (&id, given) in graph.inputs.iter().zip(given.into_iter().flatten()) {
            let slot = &mut facts[id.0 as usize];
            *slot = merge(given, slot);
        }
        for id in graph.node_ids() {
            let made = self.node(graph, &facts, id, outer);
            let made = match made {
                Ok(made) => made,
                Err(_) if self.lenient => Vec::new(),
                Err(problem) => return Err(GraphError::new(format!("node '{}'", graph.label(id)), problem)),
            };
            let mut made = made.into_iter();
            for output in &graph.node(id).outputs {
                let fact = made.next().unwrap_or_default();
                if let Some(output) = *output {
                    facts[output.0 as usize] = merge(fact, &declared(graph.value(output)));
                }
            }
        }
        self.write(graph, &facts)?;
        Ok(facts)
    }

    /// Names the sizes of the model's inputs that have none, so that what follows from them can be told: `x_2`.
    fn name_unknown(&mut self, graph: &Graph, facts: &mut [Fact]) {
        for &input in &graph.inputs {
            let sizes = facts[input.0 as usize].shape.iter_mut().flatten().enumerate();
            for (axis, size) in sizes.filter(|(_, size)| matches!(size, Size::Unknown)) {
                let name = format!("{}_{axis}", graph.value(input).name);
                if self.names.taken.insert(name.clone()) {
                    *size = Size::symbol(&name);
                }
            }
        }
    }

    /// What is known of a node's outputs.
    fn node(
        &mut self,
        graph: &mut Graph,
        facts: &[Fact],
        id: NodeId,
        outer: Option<&Scope>,
    ) -> Result<Vec<Fact>, String> {
        if graph.node(id).subgraphs().next().is_some() {
            return Ok(self.control(graph, facts, id, outer));
        }
        let node = graph.node(id);
        if node.is("Constant") {
            return Ok(vec![constant(node)]);
        }
        let inputs: Vec<Option<Fact>> =
            node.inputs.iter().map(|input| input.and_then(|input| facts.get(input.0 as usize).cloned())).collect();
        let dtypes = dtypes::dtypes(node, self.opset, &inputs);
        let mut call = Call { node, opset: self.opset, inputs: &inputs, names: &mut self.names };
        let shapes = rules::shapes(&mut call)?;
        let mut dtypes = dtypes.into_iter();
        let mut made: Vec<Fact> = shapes.into_iter().map(|shape| Fact::new(dtypes.next().flatten(), shape)).collect();
        if made.iter().flat_map(|fact| fact.shape.iter().flatten()).any(|size| size.fixed().is_some_and(|n| n < 0)) {
            return Err("its output would have a negative size".into());
        }
        self.compute(node, &inputs, &mut made);
        Ok(made)
    }

    /// Adds the elements of small outputs.
    fn compute(&mut self, node: &Node, inputs: &[Option<Fact>], made: &mut [Fact]) {
        let small = |fact: &Fact| {
            let count = fact.shape.as_deref().and_then(|shape| Size::product(shape).fixed());
            count.is_some_and(|count| count <= TRACKED as i64) || node.is("NonZero")
        };
        if !made.iter().all(small) {
            return;
        }
        let arrays: Option<Vec<_>> = inputs
            .iter()
            .map(|input| match input {
                Some(fact) => fact.array().map(|array| Some(array.clone())),
                None => Some(None),
            })
            .collect();
        if let Some(arrays) = arrays
            && let Some(results) = (fold::Call { node, inputs: &arrays }).run()
        {
            for (fact, array) in made.iter_mut().zip(results) {
                fact.dtype = Some(array.dtype);
                fact.shape = Some(array.dims_i64().into_iter().map(Size::Fixed).collect());
                fact.elements = Elements::Known(array);
            }
            return;
        }
        let Some(fact) = made.first_mut() else { return };
        let Some(shape) = &fact.shape else { return };
        let call = Call { node, opset: self.opset, inputs, names: &mut self.names };
        if let Some(sizes) = elements::elements(&call, shape) {
            fact.elements = settle(sizes, fact);
        }
    }

    /// Writes what was found to the values.
    fn write(&self, graph: &mut Graph, facts: &[Fact]) -> Result<(), GraphError> {
        let outputs = graph.outputs.clone();
        for id in (0..graph.values.len() as u32).map(ValueId) {
            let (value, fact) = (&mut graph.values[id.0 as usize], &facts[id.0 as usize]);
            if value.removed || value.constant.is_some() {
                continue;
            }
            let is_output = outputs.contains(&id);
            if let (true, false, Some(found), Some(told)) = (is_output, self.lenient, fact.dtype, value.dtype)
                && found != told
                && value.producer.is_some()
            {
                return Err(GraphError::new(
                    format!("graph output '{}'", value.name),
                    format!("is declared as {told}, but its node makes {found}"),
                ));
            }
            value.dtype = fact.dtype.or(value.dtype);
            let Some(sizes) = &fact.shape else { continue };
            let old = value.shape.take().filter(|old| old.len() == sizes.len());
            let mut dims: Vec<Dim> = sizes.iter().map(Dim::from).collect();
            if value.producer.is_none() || is_output {
                // The border keeps the names that it was declared with.
                for (dim, old) in dims.iter_mut().zip(old.into_iter().flatten()) {
                    if matches!((&*dim, &old), (Dim::Symbol(_), Dim::Symbol(name)) if !is_placeholder(name)) {
                        *dim = old;
                    }
                }
            }
            value.shape = Some(dims);
        }
        Ok(())
    }
}

/// What a value's own entry tells.
fn declared(value: &super::Value) -> Fact {
    let mut fact = Fact::new(value.dtype, value.shape.as_ref().map(|dims| dims.iter().map(Size::from).collect()));
    if value.shape.as_ref().is_some_and(|dims| dims.iter().any(|dim| dim.fixed().is_some_and(|size| size < 0))) {
        fact.shape = None;
    }
    fact
}

/// What was found, completed by what is declared where nothing was.
fn merge(mut found: Fact, declared: &Fact) -> Fact {
    found.dtype = found.dtype.or(declared.dtype);
    match (&mut found.shape, &declared.shape) {
        (Some(sizes), Some(told)) if sizes.len() == told.len() => {
            for (size, told) in sizes.iter_mut().zip(told) {
                if matches!(size, Size::Unknown) {
                    *size = told.clone();
                }
            }
        }
        (None, told) => found.shape = told.clone(),
        _ => {}
    }
    found
}

/// Sizes as elements: an array once every one is known.
fn settle(sizes: Vec<Size>, fact: &Fact) -> Elements {
    let numbers: Option<Vec<i64>> = sizes.iter().map(Size::fixed).collect();
    let array = numbers.and_then(|numbers| {
        let dims = fact.static_shape()?.into_iter().map(|size| usize::try_from(size).ok()).collect::<Option<_>>()?;
        fold::cast(&fold::Array::ints(&numbers).reshaped(dims)?, fact.dtype?)
    });
    array.map_or(Elements::Sizes(sizes), Elements::Known)
}

fn constant(node: &Node) -> Fact {
    if let Some(tensor) = super::from_proto::constant_of(node) {
        return Fact::of_tensor(&tensor);
    }
    let strings = |dims: Vec<Size>| Fact::new(Some(DType::String), Some(dims));
    match node.attributes.first().map(|attribute| &attribute.value) {
        Some(AttributeValue::String(_)) => strings(vec![]),
        Some(AttributeValue::Strings(list)) => strings(vec![Size::Fixed(list.len() as i64)]),
        Some(AttributeValue::SparseTensor(sparse)) => {
            let dims = sparse.dims.iter().map(|&size| Size::Fixed(size)).collect();
            Fact::new(sparse.values.as_ref().map(|values| values.dtype()), Some(dims))
        }
        _ => Fact::default(),
    }
}
