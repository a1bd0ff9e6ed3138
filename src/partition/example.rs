//! The examples of rules that the partition carries out: the cut is made as `prepare` makes it, the part that the target
//! keeps must be the graph that the example shows, and all parts together must compute what the whole computes.

use std::collections::HashMap;

use super::{Device, Plan, plan};
use crate::engine::{Engine, EngineError, Tensors, samples};
use crate::graph::{Model, NodeId, flops, shapes};
use crate::rewrite::{self, Checked, Compared, Example, Proof, Rule};
use crate::target::Cost;
use crate::text::{self, Style};

/// Examples are small: no border is dear, and the host is so slow that it gets only what it must.
const COST: Cost = Cost {
    border_us: 0.0,
    bytes_per_us: 8_000.0,
    target_flops_per_us: 1_000_000.0,
    cpu_flops_per_us: 1e-3,
    cpu_node_us: 2.0,
    target_node_us: 0.0,
};

/// Runs the examples of a rule that the partition carries out; none come back for any other.
pub fn check(rule: &Rule, engine: &dyn Engine) -> Vec<Checked> {
    match rule.does.is_some_and(rewrite::Action::is_of_the_partition) {
        true => rewrite::each(rule, &|example| one(rule, example, engine)),
        false => Vec::new(),
    }
}

fn one(rule: &Rule, example: &Example, engine: &dyn Engine) -> Result<Compared, String> {
    let mut model = text::parse_model(&example.before).map_err(|error| format!("before: {error}"))?;
    shapes::infer(&mut model).map_err(|error| format!("before: {error}"))?;
    let refusals = refusals(rule, example, &model)?;
    let plan = plan(&model.graph, &refusals, COST, &|node| flops::of(&model.graph, node));
    let pieces = pieces(&model, &plan);
    let kept: Vec<&Model> =
        pieces.iter().filter(|(device, _)| *device == Device::Target).map(|(_, piece)| piece).collect();
    let style = Style { labels: false, ..Style::default() };
    let Some(after) = &example.after else {
        return match plan.parts.iter().all(|part| part.device == Device::Target) {
            true => Ok(Compared::Unchanged),
            false => Err("the rule must leave all of this to the target, and does not".to_string()),
        };
    };
    let after = text::parse_model(after).map_err(|error| format!("after: {error}"))?;
    let [kept] = kept[..] else { return Err(format!("the target keeps {} parts", kept.len())) };
    rewrite::same(&kept.graph, &after.graph).map_err(|difference| {
        let (got, wanted) = (text::print_graph(&kept.graph, style), text::print_graph(&after.graph, style));
        format!("{difference}\nthe target keeps\n{got}\nthe example says\n{wanted}")
    })?;
    match run(engine, &model, &pieces) {
        // Bit for bit: nothing was rewritten.
        Ok(Some(compared)) => Ok(Compared::Run(Proof { max_abs: 0.0, relative: 0.0, cosine: 1.0, compared })),
        Ok(None) => Err("the parts together do not compute what the whole computes".to_string()),
        Err(error @ EngineError::Unsupported { .. }) => Ok(Compared::AsText(error.to_string())),
        Err(error) => Err(error.to_string()),
    }
}

/// What goes to the host: what the rule's pattern finds, and what the example's target is without.
fn refusals(rule: &Rule, example: &Example, model: &Model) -> Result<HashMap<NodeId, String>, String> {
    let mut refusals: HashMap<NodeId, String> = HashMap::new();
    match &rule.moves {
        Some(moves) => {
            let found = moves.matcher.find(&model.graph, model.opset()).map_err(|error| error.to_string())?;
            refusals.extend(found.into_iter().flat_map(|one| one.nodes).map(|node| (node, rule.what.clone())));
        }
        None if example.without.is_empty() => {
            return Err("it does not say what the target is `without`, a list of operators".to_string());
        }
        None => {
            let refused = model.graph.nodes().filter(|(_, node)| example.without.contains(&node.op_type));
            refusals.extend(refused.map(|(id, node)| (id, format!("no {}", node.op_type))));
        }
    }
    Ok(refusals)
}

fn pieces(model: &Model, plan: &Plan) -> Vec<(Device, Model)> {
    let extract = |part: &super::Part| model.graph.extract(&part.nodes, &part.inputs, &part.outputs);
    plan.parts.iter().map(|part| (part.device, model.with_graph(extract(part)))).collect()
}

/// How many values all parts, one after the other, give bit for bit as the whole gives them; none where one differs.
fn run(engine: &dyn Engine, model: &Model, pieces: &[(Device, Model)]) -> Result<Option<usize>, EngineError> {
    let mut known: Tensors = samples::for_model(model, 0);
    let whole = engine.run_once(model, &known)?;
    for (_, piece) in pieces {
        let outputs = engine.run_once(piece, &known)?;
        known.extend(outputs);
    }
    let same = whole.iter().all(|(name, tensor)| known.get(name) == Some(tensor));
    Ok(same.then(|| whole.values().map(|tensor| tensor.len()).sum()))
}
