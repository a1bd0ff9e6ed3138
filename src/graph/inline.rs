//! Puts the bodies of model-local functions in the place of the nodes that call them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{Attribute, AttributeValue, Graph, GraphError, Model, Node, NodeId, ValueId, from_proto, rename_captures};
use crate::onnx::proto::{FunctionProto, GraphProto, ValueInfoProto};

/// Operators of ai.onnx whose form or meaning changed since opset 11, and the opset that changed it: attributes that
/// became inputs, other defaults (ONNX's changelog of operators).
const CHANGED: &[(&str, i64)] = &[
    ("Clip", 11),
    ("Pad", 11),
    ("TopK", 11),
    ("Dropout", 12),
    ("Hardmax", 13),
    ("LogSoftmax", 13),
    ("ReduceSum", 13),
    ("Softmax", 13),
    ("Split", 13),
    ("Squeeze", 13),
    ("Unsqueeze", 13),
    ("Resize", 13),
    ("BatchNormalization", 14),
    ("Reshape", 14),
    ("RoiAlign", 16),
    ("ReduceL1", 18),
    ("ReduceL2", 18),
    ("ReduceLogSum", 18),
    ("ReduceLogSumExp", 18),
    ("ReduceMax", 18),
    ("ReduceMean", 18),
    ("ReduceMin", 18),
    ("ReduceProd", 18),
    ("ReduceSumSquare", 18),
    ("Split", 18),
    ("AveragePool", 19),
    ("Resize", 19),
    ("DFT", 20),
    ("GridSample", 20),
    ("GroupNormalization", 21),
];

/// How deep functions may call each other; deeper is a recursion.
const MAX_DEPTH: usize = 64;
/// How many nodes calls may come to: functions that call each other twice grow without end in a file of nothing.
const MAX_NODES: usize = 500_000;

/// Inlines every call of a model-local function, in subgraphs too, and drops the functions.
///
/// # Errors
/// A function that calls itself, a call with more inputs or outputs than the function has, a body that makes no sense.
pub fn inline_functions(model: &mut Model) -> Result<(), GraphError> {
    if model.functions.is_empty() {
        return Ok(());
    }
    let functions: HashMap<(String, String, String), FunctionProto> = std::mem::take(&mut model.functions)
        .into_iter()
        .map(|function| {
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            ((text(&function.domain), text(&function.name), text(&function.overload)), function)
        })
        .collect();
    for function in functions.values() {
        for import in &function.opset_import {
            let domain = import.domain.clone().unwrap_or_default();
            let version = import.version.unwrap_or(1);
            let known = *model.opsets.entry(domain.clone()).or_insert(version);
            // Read by the model's version its operators could mean something else.
            if domain.is_empty() && known != version && !reads_alike(function, version, known) {
                return Err(GraphError::new(
                    format!("function '{}'", function.name.as_deref().unwrap_or_default()),
                    format!(
                        "is written in opset {version} and the model in opset {known}, where its operators mean \
                         something else; convert the model to one opset first"
                    ),
                ));
            }
        }
    }
    let mut made = 0;
    inline_graph(&mut model.graph, &functions, 0, &mut made)?;
    model.graph.sort()
}

/// Whether every operator of a function is the same in both opsets of ai.onnx: none of those that changed what their
/// inputs or attributes mean.
fn reads_alike(function: &FunctionProto, one: i64, other: i64) -> bool {
    let (low, high) = (one.min(other), one.max(other));
    let changed = |operator: &str| CHANGED.iter().any(|&(name, at)| name == operator && low < at && at <= high);
    let standard = |domain: &Option<String>| domain.as_deref().is_none_or(|domain| matches!(domain, "" | "ai.onnx"));
    !function.node.iter().any(|node| standard(&node.domain) && changed(node.op_type.as_deref().unwrap_or_default()))
}

type Functions = HashMap<(String, String, String), FunctionProto>;

fn inline_graph(graph: &mut Graph, functions: &Functions, depth: usize, made: &mut usize) -> Result<(), GraphError> {
    // An unnamed node is named by its place, which is another once calls before it are gone.
    let labels: Vec<(NodeId, String)> = graph.node_ids().into_iter().map(|id| (id, graph.label(id))).collect();
    for (id, label) in labels {
        let node = graph.node(id);
        let key = (node.domain.clone(), node.op_type.clone(), node.overload.clone().unwrap_or_default());
        match functions.get(&key) {
            Some(function) => inline_call(graph, (id, label), function, functions, depth, made)?,
            None => {
                if graph.node(id).subgraphs().next().is_some() {
                    let mut result = Ok(());
                    for inner in graph.node_mut(id).subgraphs_mut() {
                        result = result
                            .and_then(|()| inline_graph(inner, functions, depth, made))
                            .and_then(|()| inner.sort());
                    }
                    result?;
                    graph.refresh_captures(id);
                }
            }
        }
    }
    Ok(())
}

fn inline_call(
    graph: &mut Graph,
    (id, prefix): (NodeId, String),
    function: &FunctionProto,
    functions: &Functions,
    depth: usize,
    made: &mut usize,
) -> Result<(), GraphError> {
    let place = format!("node '{prefix}'");
    let name = function.name.as_deref().unwrap_or_default();
    if depth > MAX_DEPTH {
        return Err(GraphError::new(place, format!("function '{name}' calls itself")));
    }
    *made += function.node.len();
    if *made > MAX_NODES {
        return Err(GraphError::new(place, format!("calls of functions come to more than {MAX_NODES} nodes")));
    }
    let call = graph.remove_node(id);
    if call.inputs.len() > function.input.len() || call.outputs.len() > function.output.len() {
        return Err(GraphError::new(place, format!("gives function '{name}' more inputs or outputs than it has")));
    }
    let mut body = body_of(function)
        .map_err(|e| GraphError::new(format!("{place}, function '{name}', {}", e.place), e.problem))?;
    bind_attributes(&mut body, &call, function);
    inline_graph(&mut body, functions, depth + 1, made)?;
    body.sort()?;

    // Inputs are the caller's values, outputs keep the caller's names, everything between gets the call's name in front.
    let mut map: HashMap<ValueId, Option<ValueId>> = HashMap::new();
    for (index, &input) in body.inputs.iter().enumerate() {
        map.insert(input, call.inputs.get(index).copied().flatten());
    }
    let mut aliases = Vec::new();
    for (index, &output) in body.outputs.iter().enumerate() {
        let Some(outer) = call.outputs.get(index).copied().flatten() else { continue };
        match map.entry(output) {
            Entry::Occupied(_) => aliases.push((output, outer)), // an output that is an input, or given twice
            Entry::Vacant(free) => drop(free.insert(Some(outer))),
        }
    }
    for (id, value) in body.values() {
        map.entry(id).or_insert_with(|| {
            let new = graph.add_typed_value(&format!("{prefix}/{}", value.name), value.dtype, value.shape.clone());
            if let Some(tensor) = &value.constant {
                graph.set_initializer(new, tensor.clone());
            }
            Some(new)
        });
    }
    for (inner, node) in body.nodes() {
        let mut node = node.clone();
        let renamed =
            |ids: &[Option<ValueId>]| ids.iter().map(|id| id.and_then(|id| map.get(&id).copied().flatten())).collect();
        node.inputs = renamed(&node.inputs);
        node.outputs = renamed(&node.outputs);
        let renamed: Vec<(String, String)> = std::mem::take(&mut node.captures)
            .into_iter()
            .filter_map(|capture| Some((capture, (*map.get(&capture)?)?)))
            .map(|(capture, outer)| (body.value(capture).name.clone(), graph.value(outer).name.clone()))
            .collect();
        rename_captures(&mut node, &renamed);
        node.name = format!("{prefix}/{}", body.label(inner));
        graph.add_node(node);
    }
    for (inner, outer) in aliases {
        if let Some(Some(source)) = map.get(&inner) {
            graph.add_node(Node::new("Identity", [*source], [outer]).named(format!("{prefix}/Identity")));
        }
    }
    Ok(())
}

/// The function's body as a graph.
fn body_of(function: &FunctionProto) -> Result<Graph, GraphError> {
    let info = |name: &String| ValueInfoProto { name: Some(name.clone()), ..Default::default() };
    from_proto::graph(
        GraphProto {
            node: function.node.clone(),
            input: function.input.iter().map(info).collect(),
            output: function.output.iter().map(info).collect(),
            value_info: function.value_info.clone(),
            ..Default::default()
        },
        &HashMap::new(),
    )
}

/// Replaces references to the function's attributes by the call's values, or the function's defaults; a reference to
/// neither leaves the attribute out.
fn bind_attributes(graph: &mut Graph, call: &Node, function: &FunctionProto) {
    let default = |name: &str| {
        let found = function.attribute_proto.iter().find(|attribute| attribute.name.as_deref() == Some(name))?;
        from_proto::attribute(found.clone(), &HashMap::new()).ok().map(|attribute| attribute.value)
    };
    let lookup = |name: &str| call.attr(name).cloned().or_else(|| default(name));
    bind(graph, &lookup);
}

fn bind(graph: &mut Graph, lookup: &dyn Fn(&str) -> Option<AttributeValue>) {
    for id in graph.node_ids() {
        let node = graph.node_mut(id);
        let attributes = std::mem::take(&mut node.attributes);
        node.attributes = attributes
            .into_iter()
            .filter_map(|attribute| match &attribute.value {
                AttributeValue::Reference { to, .. } => Some(Attribute { value: lookup(to)?, ..attribute }),
                _ => Some(attribute),
            })
            .collect();
        node.subgraphs_mut().for_each(|inner| bind(inner, lookup));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::{AttributeProto, ModelProto, NodeProto, OperatorSetIdProto, attribute_type};

    fn node(op: &str, domain: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        let names = |list: &[&str]| list.iter().map(|name| name.to_string()).collect();
        NodeProto {
            op_type: Some(op.into()),
            domain: Some(domain.into()),
            input: names(inputs),
            output: names(outputs),
            ..Default::default()
        }
    }

    fn model(functions: Vec<FunctionProto>, nodes: Vec<NodeProto>) -> Model {
        let info = |name: &str| ValueInfoProto { name: Some(name.into()), ..Default::default() };
        let graph = GraphProto { node: nodes, input: vec![info("x")], output: vec![info("y")], ..Default::default() };
        let opset = OperatorSetIdProto { version: Some(18), ..Default::default() };
        Model::from_proto(ModelProto { graph: Some(graph), functions, opset_import: vec![opset], ..Default::default() })
            .unwrap()
    }

    fn function(name: &str, nodes: Vec<NodeProto>) -> FunctionProto {
        FunctionProto {
            name: Some(name.into()),
            domain: Some("own".into()),
            input: vec!["a".into()],
            output: vec!["b".into()],
            node: nodes,
            ..Default::default()
        }
    }

    #[test]
    fn nested_calls_become_their_bodies_with_attributes_bound() {
        let mut leaky = node("LeakyRelu", "", &["a"], &["b"]);
        leaky.attribute.push(AttributeProto {
            name: Some("alpha".into()),
            ref_attr_name: Some("slope".into()),
            kind: Some(attribute_type::FLOAT),
            ..Default::default()
        });
        let inner = FunctionProto { attribute: vec!["slope".into()], ..function("Inner", vec![leaky]) };
        let mut call = node("Inner", "own", &["a"], &["t"]);
        call.attribute.push(AttributeProto {
            name: Some("slope".into()),
            f: Some(0.25),
            kind: Some(attribute_type::FLOAT),
            ..Default::default()
        });
        let outer = function("Outer", vec![call, node("Neg", "", &["t"], &["b"])]);
        let mut model = model(vec![inner, outer], vec![node("Outer", "own", &["x"], &["y"])]);
        inline_functions(&mut model).unwrap();
        let shown: Vec<String> =
            model.graph.nodes().map(|(_, n)| format!("{} {:?}", n.op_type, n.float("alpha"))).collect();
        assert_eq!(shown, ["LeakyRelu Some(0.25)", "Neg None"]);
        assert!(model.functions.is_empty() && model.graph.value_named("y").is_some());
    }

    /// `If(c) then Sub(a, b) else Sub(a, b)`, called with its arguments in any order of the caller's own `a` and `b`.
    #[test]
    fn what_a_branch_captures_may_trade_names() {
        let branch = |name: &str| AttributeProto {
            name: Some(name.into()),
            kind: Some(attribute_type::GRAPH),
            g: Some(GraphProto {
                node: vec![node("Sub", "", &["a", "b"], &["d"])],
                output: vec![ValueInfoProto { name: Some("d".into()), ..Default::default() }],
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut choice = node("If", "", &["c"], &["r"]);
        choice.attribute = vec![branch("then_branch"), branch("else_branch")];
        let function = FunctionProto {
            input: vec!["c".into(), "a".into(), "b".into()],
            output: vec!["r".into()],
            ..function("Choose", vec![choice])
        };
        let nodes = vec![
            node("Neg", "", &["x"], &["a"]),
            node("Abs", "", &["x"], &["b"]),
            node("Neg", "", &["x"], &["d"]),
            node("Choose", "own", &["x", "b", "a"], &["y"]),
            node("Choose", "own", &["x", "b", "d"], &["z"]),
        ];
        let mut model = model(vec![function], nodes);
        inline_functions(&mut model).unwrap();
        let captures = |node: &Node| -> Vec<Vec<String>> {
            let names = |graph: &Graph| {
                let (_, sub) = graph.nodes().next().unwrap();
                sub.inputs.iter().flatten().map(|&id| graph.value(id).name.clone()).collect()
            };
            node.subgraphs().map(|(_, graph)| names(graph)).collect()
        };
        let told: Vec<_> =
            model.graph.nodes().filter(|(_, node)| node.is("If")).map(|(_, node)| captures(node)).collect();
        assert_eq!(told, [[["b", "a"], ["b", "a"]], [["b", "d"], ["b", "d"]]]);
    }

    #[test]
    fn a_function_that_calls_itself_is_refused() {
        let mut model = model(
            vec![function("Loop", vec![node("Loop", "own", &["a"], &["b"])])],
            vec![node("Loop", "own", &["x"], &["y"])],
        );
        assert!(inline_functions(&mut model).unwrap_err().to_string().contains("calls itself"));
    }
}
