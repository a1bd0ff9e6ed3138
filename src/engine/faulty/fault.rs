//! The language of planted faults: what happens, and where.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::graph::{Model, NodeId};
use crate::onnx::DType;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// What a Split, Slice or Concat moves is moved as contiguous runs, as if the stride of its axis were forgotten.
    StrideDrop,
    /// The last two axes are read the other way round; the sizes stay.
    Transposed,
    /// Everything stands one place further along `axis`, the last by default; what falls off comes in at the front.
    Shifted,
    /// Nothing but zeros.
    Zeroed,
    /// Every batch element is the first.
    BatchBroadcast,
    /// The channels (axis 1, or `axis`) stand in another order.
    ChannelsPermuted,
    /// Every value is `amount` times itself.
    Scaled,
    /// No value is further from zero than `amount`, or half the largest it meets where that is left out.
    Saturated,
    /// Every value is rounded to `dtype`, bfloat16 where that is left out.
    Rounded,
    /// A Resize picks other pixels, a Round rounds towards zero, a pool counts its padding.
    WrongMode,
    /// What the run before should have given; zeros at first.
    Stale,
    /// NaN.
    Nan,
    /// A constant operand is read with its last two axes the other way round.
    ConstantTransposed,
    /// Noise of deviation `amount`, other noise at each run.
    Nondeterministic,
    /// The compiler refuses with `code`.
    CompileError,
    /// The compiler's process ends with `code` (`exit:70`, `signal:11`).
    Crash,
    /// The program ends while it runs, with `code`.
    RunCrash,
    /// The compiler never ends: `timeout`, given back at once.
    Hang,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 18] = [
        Kind::StrideDrop,
        Kind::Transposed,
        Kind::Shifted,
        Kind::Zeroed,
        Kind::BatchBroadcast,
        Kind::ChannelsPermuted,
        Kind::Scaled,
        Kind::Saturated,
        Kind::Rounded,
        Kind::WrongMode,
        Kind::Stale,
        Kind::Nan,
        Kind::ConstantTransposed,
        Kind::Nondeterministic,
        Kind::CompileError,
        Kind::Crash,
        Kind::RunCrash,
        Kind::Hang,
    ];

    /// Whether it shows in values and not as an error.
    pub fn changes_values(self) -> bool {
        !matches!(self, Kind::CompileError | Kind::Crash | Kind::RunCrash | Kind::Hang)
    }
}

/// The nodes of a model, shapes known, that a rule of its own finds.
pub type Find = Arc<dyn Fn(&Model) -> Vec<NodeId> + Send + Sync>;

/// Finds nodes by a rule of its own.
#[derive(Clone)]
pub struct Finder {
    /// What it looks for, told apart from other finders.
    pub name: String,
    /// The nodes of a model, shapes known.
    pub find: Find,
}

impl std::fmt::Debug for Finder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// Where it happens: at every node for which all that is given holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Place {
    /// The node's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// The sizes of its first output; -1 stands for any size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<i64>>,
    /// The operator of a node right before it, whose output nobody else reads and nobody outside sees: the two would be
    /// fused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Its first output has at least so many batch elements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_batch: Option<i64>,
    /// Another rule.
    #[serde(skip)]
    pub finder: Option<Finder>,
}

impl Place {
    /// The node of this name.
    pub fn node(name: &str) -> Self {
        Self { node: Some(name.into()), ..Default::default() }
    }

    /// Every node of this operator.
    pub fn op(op_type: &str) -> Self {
        Self { op: Some(op_type.into()), ..Default::default() }
    }
}

/// A fault.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fault {
    /// What happens.
    pub kind: Kind,
    /// Where.
    pub at: Place,
    /// Only this batch element.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// Only this index of axis 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<usize>,
    /// Only this output of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<usize>,
    /// The factor, bound or deviation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<f64>,
    /// The type that is rounded to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<DType>,
    /// The axis that is shifted or permuted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis: Option<i64>,
    /// The code of an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

impl Fault {
    /// A fault of a kind at a place, with nothing else said.
    pub fn new(kind: Kind, at: Place) -> Self {
        Self { kind, at, batch: None, channel: None, output: None, amount: None, dtype: None, axis: None, code: None }
    }

    /// The nodes of a model where it strikes. Shapes must be known.
    pub fn places(&self, model: &Model) -> Vec<NodeId> {
        let graph = &model.graph;
        let found = self.at.finder.as_ref().map(|finder| (finder.find)(model));
        let strikes = |id: NodeId| {
            let node = graph.node(id);
            let at = &self.at;
            let dims = || node.output(0).and_then(|value| graph.value(value).static_shape());
            let fits = |want: &Vec<i64>| {
                dims().is_some_and(|dims| {
                    dims.len() == want.len() && dims.iter().zip(want).all(|(have, want)| *want < 0 || have == want)
                })
            };
            let batch =
                |least: &i64| dims().and_then(|dims| dims.first().copied()).is_some_and(|batch| batch >= *least);
            let fused = |before: &String| {
                node.inputs.iter().flatten().any(|&value| {
                    graph.producer(value).is_some_and(|producer| graph.node(producer).op_type == *before)
                        && graph.consumers(value).len() == 1
                        && !graph.is_output(value)
                })
            };
            at.node.as_ref().is_none_or(|name| graph.label(id) == *name)
                && at.op.as_ref().is_none_or(|op| node.op_type == *op)
                && at.shape.as_ref().is_none_or(fits)
                && at.min_batch.as_ref().is_none_or(batch)
                && at.after.as_ref().is_none_or(fused)
                && found.as_ref().is_none_or(|found| found.contains(&id))
        };
        let cheap = |id: &NodeId| {
            self.at.node.as_ref().is_none_or(|name| {
                let own = &graph.node(*id).name;
                own == name || own.is_empty()
            })
        };
        graph.node_ids().into_iter().filter(cheap).filter(|&id| strikes(id)).collect()
    }
}
