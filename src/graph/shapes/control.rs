//! Inference through If, Loop and Scan.

use super::call::resolve;
use super::fact::{Elements, Fact, Shape};
use super::size::Size;
use super::{Scope, Walk};
use crate::graph::{Attribute, AttributeValue, Graph, NodeId};
use crate::onnx::DType;

/// Rounds until the shapes that a loop carries must have settled; then they are taken for unknown.
const ROUNDS: usize = 3;

impl Walk {
    /// What is known of the outputs of a node with subgraphs. Its subgraphs are inferred on the way.
    pub(super) fn control(
        &mut self,
        graph: &mut Graph,
        facts: &[Fact],
        id: NodeId,
        outer: Option<&Scope>,
    ) -> Vec<Fact> {
        // The subgraphs stand aside while they are walked, for they look up values in this graph.
        let mut attributes = std::mem::take(&mut graph.node_mut(id).attributes);
        let scope = Scope { graph, facts, parent: outer };
        let node = graph.node(id);
        let inputs: Vec<Option<Fact>> =
            node.inputs.iter().map(|input| input.and_then(|input| facts.get(input.0 as usize).cloned())).collect();
        let lenient = std::mem::replace(&mut self.lenient, true);
        let made = match node.op_type.as_str() {
            "If" if node.is_standard() => self.branches(&mut attributes, &inputs, &scope),
            "Loop" if node.is_standard() => self.iterations(&mut attributes, &inputs, &scope),
            "Scan" if node.is_standard() => self.scan(&mut attributes, &inputs, &scope),
            _ => {
                for sub in attributes.iter_mut().filter_map(subgraph) {
                    self.body(sub, None, &scope);
                }
                Vec::new()
            }
        };
        self.lenient = lenient;
        graph.node_mut(id).attributes = attributes;
        made
    }

    /// Facts of a subgraph's outputs.
    fn body(&mut self, sub: &mut Graph, given: Option<Vec<Fact>>, scope: &Scope) -> Vec<Fact> {
        match self.graph(sub, Some(scope), given) {
            Ok(facts) => sub.outputs.iter().map(|id| facts.get(id.0 as usize).cloned().unwrap_or_default()).collect(),
            Err(_) => vec![Fact::default(); sub.outputs.len()],
        }
    }

    fn branches(&mut self, attributes: &mut [Attribute], inputs: &[Option<Fact>], scope: &Scope) -> Vec<Fact> {
        let mut named = |name: &str| {
            let sub = attributes.iter_mut().filter(|attribute| attribute.name == name).find_map(subgraph);
            sub.map(|sub| self.body(sub, None, scope)).unwrap_or_default()
        };
        let (yes, no) = (named("then_branch"), named("else_branch"));
        let chosen = inputs.first().and_then(|input| input.as_ref()?.ints()?.first().copied());
        match chosen {
            Some(0) => no,
            Some(_) => yes,
            None => yes.into_iter().zip(no).map(|(a, b)| either(a, &b)).collect(),
        }
    }

    fn iterations(&mut self, attributes: &mut [Attribute], inputs: &[Option<Fact>], scope: &Scope) -> Vec<Fact> {
        let Some(sub) = attributes.iter_mut().find_map(subgraph) else { return Vec::new() };
        let mut carried: Vec<Fact> =
            inputs.iter().skip(2).map(|fact| forget(fact.clone().unwrap_or_default())).collect();
        let (count, flag) = (Fact::new(Some(DType::Int64), Some(vec![])), Fact::new(Some(DType::Bool), Some(vec![])));
        let mut made = Vec::new();
        let fresh = sub.clone(); // what a round writes into the body is not what the body declares
        for round in 0..=ROUNDS {
            sub.clone_from(&fresh);
            let given = [count.clone(), flag.clone()].into_iter().chain(carried.iter().cloned()).collect();
            made = self.body(sub, Some(given), scope);
            if !widen(&mut carried, made.get(1..).unwrap_or_default(), round) {
                break;
            }
        }
        let length = self.names.fresh("iterations");
        let collected = made.split_off((1 + carried.len()).min(made.len()));
        carried.into_iter().chain(collected.into_iter().map(|fact| stacked(fact, &length, 0))).collect()
    }

    fn scan(&mut self, attributes: &mut [Attribute], inputs: &[Option<Fact>], scope: &Scope) -> Vec<Fact> {
        let ints = |name: &str| {
            attributes.iter().find(|a| a.name == name).and_then(|a| match &a.value {
                AttributeValue::Ints(values) => Some(values.clone()),
                _ => None,
            })
        };
        let (in_axes, out_axes) = (ints("scan_input_axes"), ints("scan_output_axes"));
        let scanned = attributes.iter().find_map(|a| match (a.name.as_str(), &a.value) {
            ("num_scan_inputs", AttributeValue::Int(count)) => usize::try_from(*count).ok(),
            _ => None,
        });
        let states = inputs.len().saturating_sub(scanned.unwrap_or(0));
        let Some(sub) = attributes.iter_mut().find_map(subgraph) else { return Vec::new() };
        let fact = |input: &Option<Fact>| forget(input.clone().unwrap_or_default());
        let mut carried: Vec<Fact> = inputs.iter().take(states).map(fact).collect();
        let mut length = Size::Unknown;
        let mut slices = Vec::new();
        for (index, input) in inputs.iter().skip(states).enumerate() {
            let mut slice = fact(input);
            let at = in_axes.as_ref().and_then(|axes| axes.get(index).copied()).unwrap_or(0);
            slice.shape = slice.shape.and_then(|mut shape| {
                let removed = shape.remove(resolve(at, shape.len()).ok()?);
                if !matches!(length, Size::Fixed(_)) {
                    length = removed;
                }
                Some(shape)
            });
            slices.push(slice);
        }
        let mut made = Vec::new();
        let fresh = sub.clone();
        for round in 0..=ROUNDS {
            sub.clone_from(&fresh);
            let given = carried.iter().chain(&slices).cloned().collect();
            made = self.body(sub, Some(given), scope);
            if !widen(&mut carried, &made, round) {
                break;
            }
        }
        let collected = made.split_off(carried.len().min(made.len()));
        let at = |index: usize| out_axes.as_ref().and_then(|axes| axes.get(index).copied()).unwrap_or(0);
        let stacked = collected.into_iter().enumerate().map(|(i, fact)| stacked(fact, &length, at(i)));
        carried.into_iter().chain(stacked).collect()
    }
}

fn subgraph(attribute: &mut Attribute) -> Option<&mut Graph> {
    match &mut attribute.value {
        AttributeValue::Graph(graph) => Some(graph),
        _ => None,
    }
}

/// Without the elements, which change from round to round.
fn forget(mut fact: Fact) -> Fact {
    fact.elements = Elements::Unknown;
    fact
}

/// What holds of a value that is one or the other.
fn either(a: Fact, b: &Fact) -> Fact {
    let dtype = if a.dtype == b.dtype { a.dtype } else { a.dtype.xor(b.dtype) };
    Fact::new(dtype, common(&a.shape, &b.shape))
}

fn common(a: &Shape, b: &Shape) -> Shape {
    let (a, b) = (a.as_ref()?, b.as_ref()?);
    let both = |(a, b): (&Size, &Size)| if a == b { a.clone() } else { Size::Unknown };
    (a.len() == b.len()).then(|| a.iter().zip(b).map(both).collect())
}

/// Makes what a loop carries hold after another round too; whether that changed anything.
fn widen(carried: &mut [Fact], made: &[Fact], round: usize) -> bool {
    let mut changed = false;
    for (fact, made) in carried.iter_mut().zip(made) {
        fact.dtype = fact.dtype.or(made.dtype);
        let known = |shape: &Shape| shape.as_ref().map(|s| s.iter().filter(|s| !matches!(s, Size::Unknown)).count());
        let wide = if round == ROUNDS - 1 { None } else { common(&fact.shape, &made.shape) };
        if known(&wide) != known(&fact.shape) {
            changed = true;
            fact.shape = wide;
        }
    }
    changed
}

/// Outputs of all rounds in one tensor.
fn stacked(fact: Fact, length: &Size, at: i64) -> Fact {
    let shape = fact.shape.and_then(|mut shape| {
        let at = resolve(at, shape.len() + 1).ok()?;
        shape.insert(at, length.clone());
        Some(shape)
    });
    Fact::new(fact.dtype, shape)
}
