//! Decides which type every node computes in, with the reason for each that stays float32.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;
use serde::Serialize;

use super::kinds;
use crate::graph::{Graph, Model, Node, NodeId, ValueId};
use crate::onnx::DType;
use crate::target::assess::{Check, spoken};
use crate::target::predicate::{ModelScope, NodeScope};
use crate::target::schema::ComputeRule;
use crate::target::{Assessment, Setting, Target, TargetError, VariantFrom};

/// What a model computes in on a target.
#[derive(Clone, Debug, Serialize)]
pub struct Policy {
    /// The type that parts on the target compute in.
    pub compute: DType,
    /// The type whose rounding the answer shows: `compute`, unless the target computes in less than it is given.
    pub rounds: DType,
    /// Why: the id of a quirk or note of the target, or a sentence.
    pub why: String,
    /// The model's variant, where it is known.
    pub variant: Option<String>,
    /// How the variant is known.
    pub variant_from: VariantFrom,
    /// Nodes that stay float32 although the target computes in less, by the name of their first output.
    pub float32: IndexMap<String, NodeType>,
}

/// A node that stays float32.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeType {
    /// The node, as a reader knows it.
    pub node: String,
    /// Why it stays.
    pub why: String,
}

impl Policy {
    /// The type that a node computes in.
    pub fn of(&self, graph: &Graph, node: &Node) -> DType {
        match key(graph, node) {
            Some(key) if !self.float32.contains_key(key) => self.compute,
            _ => DType::Float,
        }
    }

    /// Lets a node stay float32, if nothing keeps it already.
    pub fn keep(&mut self, graph: &Graph, id: NodeId, why: impl Into<String>) {
        if let Some(key) = key(graph, graph.node(id)) {
            let kept = || NodeType { node: graph.label(id), why: why.into() };
            self.float32.entry(key.to_string()).or_insert_with(kept);
        }
    }
}

/// A node's name in the policy, the same in the model and in every part of it.
fn key<'a>(graph: &'a Graph, node: &Node) -> Option<&'a str> {
    node.writes().next().map(|id| graph.value(id).name.as_str())
}

/// What the user asked for, over what the target file says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes<'a> {
    /// The type to compute in.
    pub dtype: Option<DType>,
    /// The model's variant.
    pub variant: Option<&'a str>,
}

/// Decides what the model computes in. The graph's element types must be known; nodes that the assessment refuses stay
/// float32, as does everything a rule of the target or ONNX itself keeps.
///
/// # Errors
/// The target does not compute in the type that is asked for, or a rule cannot be evaluated.
pub fn policy(
    model: &Model,
    target: &Target,
    setting: &Setting,
    assessment: &Assessment,
    wishes: Wishes,
) -> Result<Policy, TargetError> {
    let (facts, variant_from) = target.facts(model, wishes.variant);
    let scope = ModelScope { facts: &facts, device: &setting.device };
    let version = setting.version();
    let holds = |rule: &&ComputeRule| {
        version.as_ref().is_none_or(|version| rule.versions.contains(version))
            && rule.when.as_ref().is_none_or(|when| matches!(when.holds(&scope), Ok(Some(true))))
    };
    let rule = target.dtype.policy.iter().find(holds);
    let (compute, why) = match wishes.dtype {
        Some(dtype) if !target.dtype.available.contains(&dtype) => {
            let known: Vec<&str> = target.dtype.available.iter().map(|dtype| dtype.name()).collect();
            return Err(target.not_there("element type", dtype.name(), known.join(", ")));
        }
        Some(dtype) => (dtype, "asked for".to_string()),
        None => rule.map_or((DType::Float, String::new()), |rule| (rule.compute, rule.why.clone())),
    };
    let rounds = match compute {
        DType::Float => rule.and_then(|rule| rule.rounds).unwrap_or(DType::Float),
        other => other,
    };
    let variant = facts.variant;
    let mut policy = Policy { compute, rounds, why, variant, variant_from, float32: IndexMap::new() };
    if compute != DType::Float {
        Decide { model, graph: &model.graph, target, setting, assessment, compute }.run(&mut policy);
    }
    Ok(policy)
}

struct Decide<'a> {
    model: &'a Model,
    graph: &'a Graph,
    target: &'a Target,
    setting: &'a Setting,
    assessment: &'a Assessment,
    compute: DType,
}

impl Decide<'_> {
    fn run(&self, policy: &mut Policy) {
        let graph = self.graph;
        let tail = tail(graph);
        let counted = feeds_integers(graph);
        let check = Check { target: self.target, setting: self.setting, opsets: self.model, types: Default::default() };
        let mut constants = HashMap::new();
        for (id, node) in graph.nodes() {
            if !computes(graph, node) {
                continue;
            }
            let why = self
                .by_nature(id, node)
                .or_else(|| counted.contains(&id).then(|| self.counting()))
                .or_else(|| check.takes(graph, node, self.compute))
                .or_else(|| self.by_rule(node, tail.contains(&id)))
                .or_else(|| self.beyond(node, &mut constants))
                .or_else(|| moves_kept(graph, node, policy));
            if let Some(why) = why {
                policy.keep(graph, id, why);
            }
        }
    }

    /// What keeps a node float32 whatever the target says.
    fn by_nature(&self, id: NodeId, node: &Node) -> Option<String> {
        if let Some(refusal) = self.assessment.refusal(id) {
            return Some(format!("on the CPU: {}", refusal.reason));
        }
        if node.subgraphs().next().is_some() {
            return Some("its subgraphs stay float32, and it with them".into());
        }
        let read_inside = |value: ValueId| {
            self.graph.consumers(value).iter().any(|&reader| self.graph.node(reader).captures.contains(&value))
        };
        if node.writes().any(read_inside) {
            return Some("a subgraph that stays float32 reads it".into());
        }
        if kinds::is_quantised(&node.op_type) {
            return Some("its scales say in float32 what the integers mean".into());
        }
        if kinds::is_source(&node.op_type) {
            return Some("it makes its numbers anew, in the type its definition says".into());
        }
        if !node.is_standard() {
            return Some(format!("what types {} takes is not known", spoken(node)));
        }
        if kinds::since(&node.op_type, self.compute).is_none() {
            return Some(format!("ONNX defines no {} {}", self.compute, node.op_type));
        }
        None
    }

    fn counting(&self) -> String {
        let exact = if self.compute == DType::Float16 { 2048 } else { 256 };
        format!("becomes a whole number, and {} counts exactly only to {exact}", self.compute)
    }

    fn by_rule(&self, node: &Node, tail: bool) -> Option<String> {
        let opset = self.model.opset();
        let scope = NodeScope { graph: self.graph, node, opset, device: &self.setting.device, tail: Some(tail) };
        let rules = self.target.dtype.keep_float32.iter();
        rules
            .filter(|rule| rule.computing.is_empty() || rule.computing.contains(&self.compute))
            .find(|rule| matches!(rule.when.holds(&scope), Ok(Some(true))))
            .map(|rule| rule.why.clone())
    }

    /// Constants that the type cannot hold. Bounds and fills may be clamped to the largest number there is; anything
    /// else would compute something else.
    fn beyond(&self, node: &Node, seen: &mut HashMap<ValueId, Option<f32>>) -> Option<String> {
        if self.compute != DType::Float16 || clamps(&node.op_type) {
            return None;
        }
        let inputs = node.inputs.iter().enumerate().filter(|(at, _)| !kinds::is_parameter(&node.op_type, *at));
        for id in inputs.filter_map(|(_, id)| *id) {
            let odd = *seen.entry(id).or_insert_with(|| self.beyond_float16(id));
            if let Some(odd) = odd {
                return Some(format!("{} holds {odd:e}, which float16 does not", self.graph.value(id).name));
            }
        }
        None
    }

    /// A number of a constant that float16 would make infinite or zero.
    fn beyond_float16(&self, id: ValueId) -> Option<f32> {
        let tensor = self.graph.constant(id).filter(|tensor| tensor.dtype() == DType::Float)?;
        if kinds::is_filled(&tensor) {
            return None; // made from a mean and a deviation: nothing unusual in it
        }
        let few = tensor.len() <= 16; // among many weights a tiny one does not matter, a lone epsilon does
        let odd = |x: &f32| x.is_finite() && (x.abs() > FLOAT16_MAX || (few && *x != 0.0 && x.abs() < FLOAT16_LEAST));
        tensor.to_f32s().ok()?.into_iter().find(odd)
    }
}

/// The largest finite float16.
pub const FLOAT16_MAX: f32 = 65504.0;
/// Half the smallest float16 above zero: what is less becomes zero.
const FLOAT16_LEAST: f32 = 2.98e-8;

/// Operators whose constants are bounds or fills: clamping one to the type's range changes nothing that the type
/// could tell.
fn clamps(op: &str) -> bool {
    matches!(op, "Clip" | "Min" | "Max" | "Where" | "Pad")
}

/// Whether a node has float32 numbers to compute with.
pub(super) fn computes(graph: &Graph, node: &Node) -> bool {
    let float = |id: ValueId| graph.value(id).dtype == Some(DType::Float);
    let looks_at_form = node.is_standard() && kinds::looks_at_form(&node.op_type);
    !node.is("Constant")
        && !looks_at_form
        && (node.inputs.iter().flatten().any(|&id| float(id)) || node.writes().any(float))
}

/// Nodes after which no weighted operator comes.
fn tail(graph: &Graph) -> HashSet<NodeId> {
    let mut before_weights: HashSet<NodeId> = HashSet::new();
    let nodes: Vec<(NodeId, &Node)> = graph.nodes().collect();
    for &(id, node) in nodes.iter().rev() {
        let weighted = kinds::is_weighted(&node.op_type) || node.subgraphs().next().is_some();
        let leads_there =
            node.writes().flat_map(|value| graph.consumers(value)).any(|next| before_weights.contains(next));
        if weighted || leads_there {
            before_weights.insert(id);
        }
    }
    nodes.into_iter().map(|(id, _)| id).filter(|id| !before_weights.contains(id)).collect()
}

/// Nodes whose float numbers become whole numbers, or sizes: from each Cast to an integer type, and from scales and
/// limits, back to the last operator that is not plain arithmetic.
fn feeds_integers(graph: &Graph) -> HashSet<NodeId> {
    let float = |id: &ValueId| graph.value(*id).dtype == Some(DType::Float);
    let to_integer = |node: &Node| {
        node.is("Cast") && node.output(0).and_then(|id| graph.value(id).dtype).is_some_and(DType::is_integer)
    };
    let mut found = HashSet::new();
    let mut open: Vec<NodeId> = graph.nodes().filter(|(_, node)| to_integer(node)).map(|(id, _)| id).collect();
    for (_, node) in graph.nodes().filter(|(_, node)| node.is_standard()) {
        let sizes = |index: usize| kinds::is_parameter(&node.op_type, index) || node.op_type == "Range";
        let inputs = node.inputs.iter().enumerate().filter(|(index, _)| sizes(*index)).filter_map(|(_, input)| *input);
        open.extend(inputs.filter(&float).filter_map(|value| graph.producer(value)));
    }
    while let Some(id) = open.pop() {
        let node = graph.node(id);
        if !node.inputs.iter().flatten().any(&float) || !found.insert(id) {
            continue;
        }
        let makers = node.inputs.iter().flatten().filter(|id| float(id)).filter_map(|&value| graph.producer(value));
        open.extend(makers.filter(|&maker| kinds::is_pointwise(&graph.node(maker).op_type)));
    }
    found
}

/// A node that only moves numbers stays float32 after one that does: rounding them now would lose what was kept.
fn moves_kept(graph: &Graph, node: &Node, policy: &Policy) -> Option<String> {
    let moves = matches!(
        node.op_type.as_str(),
        "Concat"
            | "Reshape"
            | "Transpose"
            | "Slice"
            | "Split"
            | "Gather"
            | "GatherElements"
            | "GatherND"
            | "Squeeze"
            | "Unsqueeze"
            | "Flatten"
            | "Expand"
            | "Tile"
            | "Identity"
            | "Pad"
            | "DepthToSpace"
            | "SpaceToDepth"
            | "Where"
    );
    let kept = |id: ValueId| {
        let maker = graph.producer(id)?;
        let float = graph.value(id).dtype == Some(DType::Float);
        let maker = graph.node(maker);
        (float && policy.of(graph, maker) == DType::Float && computes(graph, maker)).then_some(id)
    };
    let from = node.inputs.iter().flatten().find_map(|&id| kept(id)).filter(|_| moves)?;
    Some(format!("hands on {} as it is, which is float32", graph.value(from).name))
}
