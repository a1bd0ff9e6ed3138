//! A trial: where the target's engine is on this machine, it compiles the parts that were made for it; tract, which
//! refuses some types only while it runs, runs them once, too. What is refused, though the target's table says that it is
//! taken, goes to the host with the engine's own words as the reason.
//!
//! Tables are read from documentation and measured on one version; an engine knows better what it takes. Emulators of
//! devices can take minutes for what a device compiles in seconds, so a trial ends at a deadline, and says so.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::{PrepareError, Prepared, check};
use crate::engine::{Engine, EngineError, Tensors, samples};
use crate::graph::{Graph, Model, NodeId, ValueId, freeze};
use crate::onnx::DType;
use crate::reach;
use crate::target::{Reach, Target};

/// How often parts are made anew without what the target's engine refused.
const TRIALS: usize = 4;
/// The most nodes that are tried by themselves.
const TRIED: usize = 96;

/// How long trials of one bundle may take together.
const LIMIT: Duration = Duration::from_secs(90);

/// Nodes that an engine refused, by the name of the first value each makes, with its words.
pub type Refused = HashMap<String, String>;

/// What a trial came to.
enum Trial {
    /// Every part compiles, or nothing here can tell; with what the parts gave, where they were run.
    Fine(Option<Ran>),
    /// These nodes do not.
    Refused(Refused),
    /// A part does not compile, and no node of it is to blame.
    Failed(EngineError),
    /// The deadline came first: what the engine would say is not known.
    Late,
}

/// What a bundle gave on its target's own engine.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The engine.
    pub engine: String,
    /// Every tensor there is, on the first sample.
    pub tensors: Tensors,
    /// Operators that the engine approximates, with how far off it may be, relative to 1.
    pub approximated: Vec<(String, f64)>,
}

/// Tries a bundle's parts on the target's engine, and what `again` makes without the nodes that it refused. What is left is
/// a warning.
///
/// # Errors
/// What `again` gives.
pub fn settle(
    mut prepared: Prepared,
    target: &Target,
    again: &dyn Fn(&Refused) -> Result<Prepared, PrepareError>,
) -> Result<Prepared, PrepareError> {
    let deadline = Instant::now() + LIMIT;
    let mut refused = Refused::new();
    for trials in 0.. {
        let name = &target.name;
        let warning = match compile(&prepared, target, deadline) {
            Trial::Fine(ran) => {
                prepared.ran = ran;
                break;
            }
            Trial::Refused(found) if trials < TRIALS => {
                refused.extend(found);
                prepared = again(&refused)?;
                continue;
            }
            Trial::Refused(found) => goes_on_refusing(name, &found),
            Trial::Failed(error) => format!("the bundle does not run on {name}: {error}"),
            Trial::Late => format!(
                "whether {name} takes the bundle was not tried to the end: its engine was not done after {} s; \
                 `porter verify --target {name} --time-limit SECONDS` gives it longer",
                LIMIT.as_secs()
            ),
        };
        prepared.warnings.push(warning);
        break;
    }
    Ok(prepared)
}

/// What is said of an engine that refuses more each time it is tried.
fn goes_on_refusing(target: &str, found: &Refused) -> String {
    let mut told: Vec<String> = found.iter().map(|(value, said)| format!("what makes {value}: {said}")).collect();
    told.sort();
    let more = told.len().saturating_sub(3);
    told.truncate(3);
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("the bundle does not run on {target}: it goes on refusing nodes: {}{rest}", told.join("; "))
}

/// Tries the target's parts on its engine, if that is at hand, until the deadline.
fn compile(prepared: &Prepared, target: &Target, deadline: Instant) -> Trial {
    let parts = prepared.manifest.parts.iter().zip(&prepared.parts);
    // For a target that is the CPU itself, the name tells its parts from the host's.
    let own = parts.filter(|(part, _)| part.device == target.name && !part.name.starts_with("host"));
    let own: Vec<&Model> = own.map(|(_, model)| model).collect();
    if own.is_empty() {
        return Trial::Fine(None);
    }
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Trial::Late;
    }
    let Some(engine) = reach::at_hand(target, left) else { return Trial::Fine(None) };
    let mut refused = Refused::new();
    for part in own {
        if is_past(deadline) {
            return if refused.is_empty() { Trial::Late } else { Trial::Refused(refused) };
        }
        let Err(error) = engine.compile(part) else { continue };
        if is_past(deadline) && error.code() == Some("timeout") {
            return if refused.is_empty() { Trial::Late } else { Trial::Refused(refused) };
        }
        match culprits(&*engine, part, &error, deadline) {
            Some(found) if found.is_empty() => return Trial::Failed(error),
            Some(found) => refused.extend(found),
            None if refused.is_empty() => return Trial::Late,
            None => return Trial::Refused(refused),
        }
    }
    if refused.is_empty() && matches!(target.reach, Reach::Tract {}) {
        if is_past(deadline) {
            return Trial::Late;
        }
        return match in_a_run(&*engine, prepared, &target.name) {
            Ok(tensors) => {
                let approximated = target.approximates.iter().map(|(operator, most)| (operator.clone(), *most));
                let (engine, approximated) = (engine.name(), approximated.collect());
                Trial::Fine(tensors.map(|tensors| Ran { engine, tensors, approximated }))
            }
            Err(refused) => Trial::Refused(refused),
        };
    }
    if refused.is_empty() { Trial::Fine(None) } else { Trial::Refused(refused) }
}

fn is_past(deadline: Instant) -> bool {
    Instant::now() >= deadline
}

/// Everything that the parts give, run one after the other; nothing where no inputs can be made up, or where a part for the
/// host does not run: what the model computes is the check's business.
///
/// # Errors
/// The first node of a part that the engine compiles and does not run on what the parts before it give, and those like it.
fn in_a_run(engine: &dyn Engine, prepared: &Prepared, target: &str) -> Result<Option<Tensors>, Refused> {
    let mut refused = Refused::new();
    let mut sized = prepared.original.clone();
    let (sizes, _) = freeze::assumed(&sized);
    if freeze::freeze(&mut sized, &sizes).is_err() || samples::too_large(&sized).is_some() {
        return Ok(None);
    }
    let mut known = samples::given_or_made(&prepared.samples, &sized, 0);
    let hosts = check::engines(&mut Vec::new());
    for (part, model) in prepared.manifest.parts.iter().zip(&prepared.parts) {
        let own = part.device == target && !part.name.starts_with("host");
        let outcome = match own {
            true => engine.run_once(model, &known).ok(),
            false => hosts.iter().find_map(|host| host.run_once(model, &known).ok()),
        };
        if let Some(outputs) = outcome {
            known.extend(outputs);
            continue;
        }
        let runs = |nodes: &[NodeId]| engine.run_once(&alone(model, nodes), &known).err();
        if let Some((id, error)) = own.then(|| first_that_breaks(model, &runs)).flatten() {
            let graph = &model.graph;
            let alike = graph.nodes().filter(|(other, _)| kind(graph, *other) == kind(graph, id));
            alike.for_each(|(id, _)| note(graph, id, &error, &mut refused));
        }
        return if refused.is_empty() { Ok(None) } else { Err(refused) };
    }
    Ok(Some(known))
}

/// The nodes of a part that the engine does not take: the one that it names, and those that it does not take alone; else
/// the first node with which the part no longer compiles. None where the deadline comes before one is found.
fn culprits(engine: &dyn Engine, part: &Model, error: &EngineError, deadline: Instant) -> Option<Refused> {
    let graph = &part.graph;
    let mut refused = Refused::new();
    if let EngineError::Unsupported { node, .. } = error
        && let Some((id, _)) = graph.nodes().find(|(id, other)| other.name == *node || graph.label(*id) == *node)
    {
        note(graph, id, error, &mut refused);
    }
    let mut seen: HashMap<String, Option<EngineError>> = HashMap::new();
    for (id, _) in graph.nodes().filter(|(_, node)| !node.is("Constant")) {
        let kind = kind(graph, id);
        if !seen.contains_key(&kind) && (seen.len() >= TRIED || is_past(deadline)) {
            continue;
        }
        // Some are taken only beside others: a DequantizeLinear in front of a Conv. (The error is that of the node alone.)
        let outcome = seen.entry(kind).or_insert_with(|| {
            let error = engine.compile(&alone(part, &[id])).err()?;
            engine.compile(&alone(part, &with_neighbours(graph, id))).err().map(|_| error)
        });
        // What took too long is not refused.
        if let Some(error) = outcome.as_ref().filter(|error| error.code() != Some("timeout")) {
            note(graph, id, error, &mut refused);
        }
    }
    if refused.is_empty() {
        let breaks = |nodes: &[NodeId]| match is_past(deadline) {
            true => None,
            false => engine.compile(&alone(part, nodes)).err(),
        };
        let first = first_that_breaks(part, &breaks);
        if is_past(deadline) {
            return None; // what was not tried looked as if it compiled
        }
        if let Some((id, error)) = first {
            note(graph, id, &error, &mut refused);
        }
    }
    Some(refused)
}

/// Nodes of one operator on the same types and ranks are taken or refused alike.
fn kind(graph: &Graph, id: NodeId) -> String {
    let node = graph.node(id);
    let types: Vec<Option<DType>> = node.reads().map(|value| graph.value(value).dtype).collect();
    let ranks: Vec<Option<usize>> = node.reads().map(|value| graph.value(value).rank()).collect();
    format!("{}:{} {types:?} {ranks:?} {:?}", node.domain, node.op_type, node.attributes.len())
}

/// A node with those that make what it reads and read what it makes, in order.
fn with_neighbours(graph: &Graph, id: NodeId) -> Vec<NodeId> {
    let node = graph.node(id);
    let makers = node.reads().filter_map(|value| graph.producer(value));
    let near: HashSet<NodeId> =
        makers.chain(node.writes().flat_map(|value| graph.consumers(value).to_vec())).chain([id]).collect();
    graph.nodes().map(|(id, _)| id).filter(|id| near.contains(id)).collect()
}

/// The node with which the part, grown node by node, breaks: `breaks` gives the error of some of its nodes.
fn first_that_breaks(part: &Model, breaks: &dyn Fn(&[NodeId]) -> Option<EngineError>) -> Option<(NodeId, EngineError)> {
    let nodes: Vec<NodeId> = part.graph.nodes().map(|(id, _)| id).collect();
    let (mut good, mut bad) = (0, nodes.len());
    let mut last = breaks(&nodes)?;
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        match breaks(&nodes[..middle]) {
            None => good = middle,
            Some(error) => (bad, last) = (middle, error),
        }
    }
    Some((nodes[bad - 1], last))
}

/// Some nodes of a part as a model, which gives all that they make and nobody among them reads.
fn alone(part: &Model, nodes: &[NodeId]) -> Model {
    let graph = &part.graph;
    let inside: HashSet<NodeId> = nodes.iter().copied().collect();
    let made: HashSet<ValueId> = nodes.iter().flat_map(|&id| graph.node(id).writes()).collect();
    let mut inputs: Vec<ValueId> = Vec::new();
    let mut outputs: Vec<ValueId> = Vec::new();
    for &id in nodes {
        for value in graph.node(id).reads() {
            if !made.contains(&value) && graph.initializer(value).is_none() && !inputs.contains(&value) {
                inputs.push(value);
            }
        }
        for value in graph.node(id).writes() {
            let leaves = graph.consumers(value).iter().any(|reader| !inside.contains(reader));
            if leaves || graph.is_output(value) || graph.consumers(value).is_empty() {
                outputs.push(value);
            }
        }
    }
    part.with_graph(graph.extract(nodes, &inputs, &outputs))
}

fn note(graph: &Graph, id: NodeId, error: &EngineError, refused: &mut Refused) {
    if let Some(value) = graph.node(id).writes().next() {
        refused.entry(graph.value(value).name.clone()).or_insert_with(|| error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Session;
    use crate::engine::tract::Tract;
    use crate::graph::builder::Build;

    /// tract, without models in which all of these operators stand.
    struct Without(&'static [&'static str]);

    impl Engine for Without {
        fn name(&self) -> String {
            "small".into()
        }

        fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
            let has = |op: &&str| model.graph.nodes().any(|(_, node)| node.is(op));
            if self.0.iter().all(has) {
                let problem = format!("no {}", self.0.join(" with "));
                return Err(EngineError::Compile { engine: self.name(), code: None, problem });
            }
            Tract.compile(model)
        }
    }

    fn model() -> Model {
        let mut b = Build::new();
        let x = b.input("x", DType::Float, &[2, 3]);
        let mut y = x;
        for op in ["Abs", "Relu", "Neg", "Relu", "Abs"] {
            y = b.op(op, &format!("{op}_{}", b.graph.node_count()), &[y]);
        }
        let mut model = b.finish(&[y]);
        crate::graph::shapes::infer(&mut model).unwrap();
        model
    }

    fn refused(without: &'static [&'static str]) -> Vec<String> {
        let (engine, model) = (Without(without), model());
        let error = engine.compile(&model).err().unwrap();
        let found = culprits(&engine, &model, &error, Instant::now() + LIMIT).unwrap();
        let mut names: Vec<String> = found.into_keys().collect();
        names.sort();
        names
    }

    /// tract, without models of one node.
    struct NoneAlone;

    impl Engine for NoneAlone {
        fn name(&self) -> String {
            "small".into()
        }

        fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
            match model.graph.node_count() {
                1 => Err(EngineError::Compile { engine: self.name(), code: None, problem: "alone".into() }),
                _ => Tract.compile(model),
            }
        }
    }

    #[test]
    fn a_node_that_is_refused_only_alone_is_not_to_blame() {
        let error = EngineError::Compile { engine: "small".into(), code: None, problem: "something".into() };
        assert!(culprits(&NoneAlone, &model(), &error, Instant::now() + LIMIT).unwrap().is_empty());
    }

    #[test]
    fn a_search_that_the_deadline_ends_blames_nobody() {
        let (engine, model) = (Without(&["Relu", "Neg"]), model());
        let error = engine.compile(&model).err().unwrap();
        assert!(culprits(&engine, &model, &error, Instant::now()).is_none());
    }

    #[test]
    fn nodes_that_are_refused_alone_are_found_and_else_the_first_that_breaks() {
        assert_eq!(refused(&["Relu"]), ["Relu_1_output_0", "Relu_3_output_0"]);
        assert_eq!(refused(&["Relu", "Neg"]), ["Neg_2_output_0"]);
    }
}
