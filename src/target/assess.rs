//! Holds a model against a target: node by node, whether it runs there, and which known faults it hits.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::load::{MAIN_POSITION, expand};
use super::operators::{Entry, Limits};
use super::predicate::NodeScope;
use super::schema::{Mark, Refusal, Symptom, Target};
use super::{Answer, Setting, quirk};
use crate::graph::{Graph, Model, Node, NodeId, ValueId};
use crate::onnx::DType;

/// What a target makes of a model.
#[derive(Clone, Debug, Default)]
pub struct Assessment {
    refusals: BTreeMap<NodeId, Refusal>,
    /// Known faults that the model hits, in the order of the target file.
    pub quirks: Vec<QuirkHit>,
}

/// A known fault that a model hits.
#[derive(Clone, Debug, Serialize)]
pub struct QuirkHit {
    /// The quirk's name.
    pub id: String,
    /// What happens.
    pub what: String,
    /// What is seen.
    pub symptom: Symptom,
    /// What answers it.
    pub answer: Option<Answer>,
    /// Where it is reported.
    pub reference: String,
    /// How well it is known.
    pub mark: Mark,
    /// The nodes it strikes, as a reader knows them.
    pub nodes: Vec<String>,
    /// The nodes of the main graph that it strikes, or that hold a subgraph with such nodes.
    #[serde(skip)]
    pub ids: Vec<NodeId>,
}

impl Assessment {
    /// Whether a node runs on the target.
    pub fn runs(&self, node: NodeId) -> bool {
        !self.refusals.contains_key(&node)
    }

    /// Why a node does not run on the target.
    pub fn refusal(&self, node: NodeId) -> Option<&Refusal> {
        self.refusals.get(&node)
    }

    /// Every node that does not run on the target.
    pub fn refused(&self) -> impl Iterator<Item = (NodeId, &Refusal)> {
        self.refusals.iter().map(|(&node, refusal)| (node, refusal))
    }

    /// Quirks that nothing answers: warnings.
    pub fn unanswered(&self) -> impl Iterator<Item = &QuirkHit> {
        self.quirks.iter().filter(|hit| hit.answer.is_none())
    }
}

/// Holds a model against a target. Shapes must be inferred and frozen before, as far as they are to be.
pub fn assess(model: &Model, target: &Target, setting: &Setting) -> Assessment {
    let mut assessment = Assessment { quirks: quirk::find(model, target, setting), ..Default::default() };
    let check = Check { target, setting, opsets: model, types: TypeCache::default() };
    for (id, node) in model.graph.nodes() {
        if let Some(refusal) = check.node(&model.graph, node) {
            assessment.refusals.insert(id, refusal);
        }
    }
    for hit in assessment.quirks.iter().filter(|hit| hit.answer == Some(Answer::Cut)) {
        for &id in &hit.ids {
            assessment.refusals.entry(id).or_insert_with(|| Refusal {
                reason: format!("{} ({})", hit.what.trim_end_matches('.'), hit.id),
                code: hit.symptom.code.clone(),
            });
        }
    }
    assessment
}

/// Lists of names expanded to types, by the list's place in the table.
type TypeCache = std::cell::RefCell<HashMap<*const Vec<String>, Vec<DType>>>;

pub(super) struct Check<'a> {
    pub target: &'a Target,
    pub setting: &'a Setting,
    pub opsets: &'a Model,
    pub types: TypeCache,
}

fn refuse(reason: impl Into<String>, code: &Option<String>) -> Option<Refusal> {
    Some(Refusal { reason: reason.into(), code: code.clone() })
}

impl Check<'_> {
    /// Why the node does not run on the target, if it does not.
    pub fn node(&self, graph: &Graph, node: &Node) -> Option<Refusal> {
        // Constants belong to whoever reads them.
        if node.is("Constant") {
            return None;
        }
        let entry = self.entry(node);
        let opset = self.opset(node);
        self.entry_refusal(entry, graph, node, opset)
            .or_else(|| self.tensors(graph, node))
            .or_else(|| self.subgraphs(node))
    }

    fn opset(&self, node: &Node) -> i64 {
        if node.is_standard() {
            return self.opsets.opset();
        }
        self.opsets.opsets.get(&node.domain).copied().unwrap_or(1)
    }

    fn entry(&self, node: &Node) -> &Entry {
        let entry = if node.is_standard() {
            self.target.operators.get(node.op_type.as_str())
        } else {
            self.target.operators.get(format!("{}:{}", node.domain, node.op_type).as_str())
        };
        entry.unwrap_or(&self.target.unlisted)
    }

    fn entry_refusal(&self, entry: &Entry, graph: &Graph, node: &Node, opset: i64) -> Option<Refusal> {
        let limits = match entry {
            Entry::Any => return None,
            Entry::None => {
                return refuse(format!("{} does not run {}", self.target.name, spoken(node)), &None);
            }
            Entry::Limits(limits) => limits,
        };
        let Some(limits) = limits.iter().find(|limits| limits.opsets.contains(opset)) else {
            let known: Vec<String> = limits.iter().map(|limits| limits.opsets.to_string()).collect();
            return refuse(format!("{} of opset {opset} is not known; {} are", spoken(node), known.join(", ")), &None);
        };
        if let Some(reason) = &limits.none {
            return refuse(reason.as_str(), &limits.code);
        }
        self.dtypes(limits, graph, node)
            .or_else(|| self.ranks(limits, graph, node))
            .or_else(|| self.requirements(limits, graph, node, opset))
    }

    fn dtypes(&self, limits: &Limits, graph: &Graph, node: &Node) -> Option<Refusal> {
        for (position, names) in &limits.dtypes.0 {
            let Some(id) = at(node, position) else { continue };
            let Some(dtype) = graph.value(id).dtype else { continue };
            let mut cache = self.types.borrow_mut();
            let allowed = cache.entry(std::ptr::from_ref(names)).or_insert_with(|| expand(self.target, names));
            let cast = self.target.casts.get(&dtype).is_some_and(|wider| allowed.contains(wider));
            if !allowed.contains(&dtype) && !cast {
                // A type that the whole target is without has a code of its own.
                let forbidden = self.target.forbidden_types.get(&dtype).and_then(|refusal| refusal.code.as_ref());
                let code = limits.code.as_ref().or(forbidden).cloned();
                return refuse(format!("{} does not take {dtype} ({})", spoken(node), graph.value(id).name), &code);
            }
        }
        None
    }

    fn ranks(&self, limits: &Limits, graph: &Graph, node: &Node) -> Option<Refusal> {
        let rank = graph.value(node.input(0)?).rank()?;
        if limits.ranks.contains(rank as i64) {
            return None;
        }
        refuse(format!("{} takes {} dimensions, here are {rank}", spoken(node), limits.ranks), &limits.code)
    }

    fn requirements(&self, limits: &Limits, graph: &Graph, node: &Node, opset: i64) -> Option<Refusal> {
        let scope = NodeScope { graph, node, opset, device: &self.setting.device, tail: None };
        for requirement in &limits.requires {
            let code = requirement.code.as_ref().or(limits.code.as_ref()).cloned();
            match requirement.that.holds(&scope) {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return refuse(requirement.otherwise.as_str(), &code),
                Ok(None) => {
                    let reason = format!(
                        "{}: that it is not so cannot be shown, a size or value is not known",
                        requirement.otherwise
                    );
                    return refuse(reason, &code);
                }
                Err(error) => {
                    return refuse(format!("`{}` cannot be judged: {error}", requirement.that.source()), &code);
                }
            }
        }
        None
    }

    /// What holds for every tensor on the target.
    fn tensors(&self, graph: &Graph, node: &Node) -> Option<Refusal> {
        for id in node.reads().chain(node.writes()) {
            let value = graph.value(id);
            if let Some(refusal) = value.dtype.and_then(|dtype| self.target.forbidden_types.get(&dtype)) {
                return refuse(format!("{}: {}", value.name, refusal.reason), &refusal.code);
            }
            if let (Some(most), Some(rank)) = (self.target.max_rank, value.rank())
                && rank > most
            {
                let reason = format!("{} has {rank} dimensions, {} takes {most}", value.name, self.target.name);
                return refuse(reason, &None);
            }
            if let Some(rule) = &self.target.static_shapes
                && graph.constant(id).is_none()
                && value.static_shape().is_none()
            {
                return refuse(
                    format!("{} has no fixed size ({}): {}", value.name, value.type_text(), rule.reason),
                    &rule.code,
                );
            }
        }
        None
    }

    /// A node with subgraphs runs where everything in them does.
    fn subgraphs(&self, node: &Node) -> Option<Refusal> {
        node.subgraphs().find_map(|(name, graph)| {
            graph.nodes().find_map(|(id, inner)| {
                let refusal = self.node(graph, inner)?;
                refuse(format!("{name} holds {}: {}", graph.label(id), refusal.reason), &refusal.code)
            })
        })
    }
}

fn at(node: &Node, position: &str) -> Option<ValueId> {
    if position == MAIN_POSITION {
        return node.input(0).or_else(|| node.output(0));
    }
    if let Some(index) = position.strip_prefix("in") {
        return node.input(index.parse().ok()?);
    }
    node.output(position.strip_prefix("out")?.parse().ok()?)
}

/// What to call an operator in front of a reader.
pub(super) fn spoken(node: &Node) -> String {
    if node.is_standard() { node.op_type.clone() } else { format!("{}:{}", node.domain, node.op_type) }
}

impl Check<'_> {
    /// Why the target does not compute this node in `dtype`, if it does not, though it may in float32.
    pub fn takes(&self, graph: &Graph, node: &Node, dtype: DType) -> Option<String> {
        let Entry::Limits(limits) = self.entry(node) else { return None };
        let limits = limits.iter().find(|limits| limits.opsets.contains(self.opset(node)))?;
        for (position, names) in &limits.dtypes.0 {
            let float = |id: &ValueId| graph.value(*id).dtype == Some(DType::Float);
            if at(node, position).filter(float).is_some() && !expand(self.target, names).contains(&dtype) {
                return Some(format!("{} does not run {} in {dtype}", self.target.name, spoken(node)));
            }
        }
        None
    }
}
