//! The pipeline itself, step by step.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::trial::{self, Refused};
use super::{Options, PrepareError, Prepared, lowering, ranges, script, share};
use crate::bundle::manifest::{self, Manifest, TensorType};
use crate::engine::tract::Tract;
use crate::graph::{Graph, GraphError, Model, Node, NodeId, ValueId, flops, fold, freeze, inline, shapes};
use crate::onnx::DType;
use crate::partition::{self, Device, Plan};
use crate::postprocess;
use crate::rewrite::{self, Keeps, ProofError, Rule, RuleSet};
use crate::target::{self, Answer, Cost, Head, QuirkHit, Target};

/// Operators that choose among predictions: where a detector's own answer begins.
const SELECTION: [&str; 2] = ["TopK", "NonMaxSuppression"];
/// Operators that carry the weights of a network.
const CONTRACTIONS: [&str; 4] = ["Conv", "ConvTranspose", "MatMul", "Gemm"];

/// Makes a model ready for a target. `file` and `sha256` go into the manifest; `step` hears what is being done.
///
/// # Errors
/// A graph whose shapes contradict each other, a rule or target that makes no sense, a wish that the target does not
/// fulfil.
pub fn prepare(
    model: Model,
    file: &str,
    target: &Target,
    rules: &RuleSet,
    options: &Options,
    step: &dyn Fn(&str),
) -> Result<Prepared, PrepareError> {
    let attempt = |assume: bool, refused: &Refused| {
        let wishes = Wishes { file, target, rules, options, assume, refused };
        attempt(model.clone(), &wishes, step) // weights are shared
    };
    let none = Refused::new();
    let mut assume = target.static_shapes.is_some();
    let mut prepared = match attempt(assume, &none) {
        // What was assumed may contradict itself: a cache whose length is that of the mask less one, say.
        Err(PrepareError::Graph(_)) if assume => {
            assume = false;
            attempt(false, &none)?
        }
        outcome => outcome?,
    };
    // Sizes that nobody gave are a risk, taken so that the target can run the network. Where it cannot anyway (all of it
    // stands in the branches of an If, say), they are left to whoever runs the bundle.
    if !prepared.manifest.assumed.is_empty() && only_on_cpu(&prepared) {
        assume = false;
        prepared = attempt(false, &none)?;
    }
    if !options.prove {
        return Ok(prepared);
    }
    step("trying the target's engine");
    trial::settle(prepared, target, &|refused| attempt(assume, refused))
}

/// What a model is made ready with.
struct Wishes<'a> {
    file: &'a str,
    target: &'a Target,
    rules: &'a RuleSet,
    options: &'a Options,
    /// Whether sizes that nobody gave are assumed.
    assume: bool,
    /// Nodes that the target's engine refused when it was tried.
    refused: &'a Refused,
}

/// Whether the CPU has all the nodes that carry a network's weights, and there are some.
fn only_on_cpu(prepared: &Prepared) -> bool {
    let on_cpu = |part: &manifest::Part| part.device == "cpu";
    let mut parts = prepared.manifest.parts.iter().zip(&prepared.parts).filter(|(_, model)| contracts(&model.graph));
    parts.clone().next().is_some() && parts.all(|(part, _)| on_cpu(part))
}

/// Whether a graph, or a graph within it, contracts.
fn contracts(graph: &Graph) -> bool {
    let inside = |node: &Node| node.subgraphs().any(|(_, inner)| contracts(inner));
    graph.nodes().any(|(_, node)| CONTRACTIONS.iter().any(|op| node.is(op)) || inside(node))
}

/// Gives nodes that share a name names of their own; the first keeps it. ONNX means nothing by a node's name, but ONNX
/// Runtime refuses a model in which two are alike.
fn name_apart(graph: &mut Graph) {
    let mut taken: HashSet<String> = graph.nodes().map(|(_, node)| node.name.clone()).collect();
    let mut seen: HashSet<String> = HashSet::new();
    for id in graph.node_ids() {
        let name = graph.node(id).name.clone();
        if name.is_empty() || seen.insert(name.clone()) {
            continue;
        }
        let fresh = (2..).map(|index| format!("{name}_{index}")).find(|fresh| !taken.contains(fresh));
        let fresh = fresh.unwrap_or(name);
        taken.insert(fresh.clone());
        graph.node_mut(id).name = fresh;
    }
}

/// Inputs that have a default, which a caller may give from IR version 4 on. Where every weight is listed as an input, as some
/// exporters do, it means nothing.
fn defaults(model: &Model) -> Vec<String> {
    let graph = &model.graph;
    let listed = graph.inputs_with_default();
    match model.ir_version >= 4 && listed.len() < graph.initializers().count() {
        true => listed.iter().map(|&id| graph.value(id).name.clone()).collect(),
        false => Vec::new(),
    }
}

fn attempt(mut model: Model, wishes: &Wishes, step: &dyn Fn(&str)) -> Result<Prepared, PrepareError> {
    let Wishes { file, target, rules, options, assume, refused } = *wishes;
    let setting = target.setting(options.device.as_deref(), options.toolchain.as_deref())?;
    options.variant.as_deref().map_or(Ok(()), |variant| target.check_variant(variant))?;
    let original_nodes = model.graph.node_count();
    let (facts, _) = target.facts(&model, options.variant.as_deref());
    let metadata: BTreeMap<String, String> = model
        .metadata
        .iter()
        .map(|e| (e.key.clone().unwrap_or_default(), e.value.clone().unwrap_or_default()))
        .collect();

    step("sizes");
    if let Some(name) = model.graph.sparse_initializers.first().and_then(|one| one.values.as_ref()) {
        let (place, problem) =
            (format!("sparse initializer '{}'", name.name()), "cannot be prepared; make it dense first");
        return Err(GraphError::new(place, problem).into());
    }
    inline::inline_functions(&mut model)?;
    let fixed = defaults(&model);
    let assumed = match assume {
        true => freeze::settle(&mut model, &options.freeze)?,
        false => freeze::freeze(&mut model, &options.freeze).map(|()| Vec::new())?,
    };
    name_apart(&mut model.graph);
    let interface = |graph: &Graph, ids: &[ValueId]| ids.iter().map(|&id| TensorType::of(graph.value(id))).collect();
    shapes::infer(&mut model)?;
    let original = model.clone();
    let folded = fold::fold_constants(&mut model)?;

    step("rewriting");
    let met = target::assess(&model, target, &setting);
    let chosen = choose(rules, target, &met.quirks)?;
    let settings = rewrite::Options { record: options.prove, ..Default::default() };
    let applied = rewrite::apply(&mut model, &chosen, &settings)?;
    let mut rewrites = record(&applied, options.prove, step)?;

    step("partition");
    let assessment = target::assess(&model, target, &setting);
    let mut refusals: HashMap<NodeId, String> = assessment
        .refused()
        .map(|(node, refusal)| {
            let code = refusal.code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
            (node, format!("{}{code}", refusal.reason))
        })
        .collect();
    for (id, node) in model.graph.nodes() {
        let made = node.writes().next().map(|value| model.graph.value(value).name.as_str());
        if let Some(said) = made.and_then(|name| refused.get(name)) {
            refusals.entry(id).or_insert_with(|| said.clone());
        }
    }
    rewrites.extend(to_host(&chosen, &model, &mut refusals)?);
    let head = options.head.unwrap_or(target.head);
    if head == Head::Raw {
        refuse_selection(&model.graph, &mut refusals);
    }
    lowering::refuse(&model, target, &setting, &mut refusals);
    let mut plan = partition::plan(&model.graph, &refusals, cost(target, head), &|id| flops::of(&model.graph, id));
    if head == Head::Raw {
        drop_tail(&mut model.graph, &mut plan);
    }

    step("element types");
    let wishes = target::dtype::Wishes { dtype: options.dtype, variant: options.variant.as_deref() };
    let mut policy = target::dtype::policy(&model, target, &setting, &assessment, wishes)?;
    let mut warnings = Vec::new();
    if policy.compute == DType::Float16
        && !(options.prove && ranges::keep_what_overflows(&model, &options.samples, &mut policy))
    {
        let why = if options.prove { "no engine here runs the model" } else { "--no-check" };
        warnings.push(format!("whether float16 holds the model's numbers, up to 65504, was not measured: {why}"));
    }
    let mut parts = Vec::new();
    let mut models = Vec::new();
    let mut lowered = Vec::new();
    let mut float32_parts = Vec::new();
    let mut float32_nodes = Vec::new();
    let mut clamped = Vec::new();
    let names = part_names(&plan);
    for (part, name) in plan.parts.iter().zip(names) {
        let mut piece = model.with_graph(model.graph.extract(&part.nodes, &part.inputs, &part.outputs));
        let mut dtype = own_type(&piece.graph);
        if policy.compute != DType::Float {
            float32_parts.push(piece.clone()); // weights are shared
        }
        if part.device == Device::Target {
            clamped.extend(target::dtype::apply(&mut piece, &policy)?.clamped);
            dtype = own_type(&piece.graph);
            float32_nodes.extend(
                policy
                    .float32
                    .values()
                    .filter(|kept| is_in(&model.graph, part, &kept.node))
                    .map(|kept| manifest::Float32Node { node: kept.node.clone(), reason: kept.why.clone() }),
            );
        }
        list_types(&mut piece.graph);
        let mut forms = Vec::new();
        lowered.push(match part.device == Device::Target && lowering::takes_hlo(target) {
            true => {
                let (module, files) = lowering::lower_part(&piece, &name, target, options.weights)?;
                forms = files;
                Some(module)
            }
            false => None,
        });
        parts.push(manifest::Part {
            file: format!("{name}.onnx"),
            name,
            lowered: forms,
            device: if part.device == Device::Target { target.name.clone() } else { "cpu".into() },
            format: "onnx".into(),
            dtype,
            inputs: interface(&piece.graph, &piece.graph.inputs),
            outputs: interface(&piece.graph, &piece.graph.outputs),
            nodes: labels(&piece.graph),
        });
        models.push(piece);
    }

    let cut = plan.parts.iter().any(|part| part.device == Device::Cpu);
    let final_answer = head == Head::Host || facts.end2end.is_none() && !cut;
    let postprocess =
        postprocess::describe(&model.graph, &facts, &model.graph.outputs, final_answer && facts.end2end != Some(false));
    let quirks = quirk_records(&met.quirks, &assessment.quirks, &plan, &policy, &rewrites);
    let unanswered = quirks.iter().filter(|quirk| !quirk.answered).map(|quirk| {
        format!(
            "{}: {} ({}). Nodes: {}",
            quirk.id,
            quirk.what.trim_end_matches('.'),
            quirk.symptom,
            quirk.nodes.join(", ")
        )
    });
    warnings.extend(unanswered);
    if !fixed.is_empty() {
        warnings.push(format!(
            "inputs with a value of their own keep it and are no inputs of the bundle: {}",
            fixed.join(", ")
        ));
    }
    if !plan.parts.iter().any(|part| part.device == Device::Target) {
        let warning = match target.name.as_str() {
            "cpu" => "no part is left to tract: the host's engine runs everything".to_string(),
            name => format!("{name} takes no node of this model: everything runs on the CPU"),
        };
        warnings.push(warning);
    } else if let Some(warning) = share::little(&model.graph, &plan, &refusals, target) {
        warnings.push(warning);
    }

    // A model that is not in float32 stays what it is where nothing is lowered.
    let on_target = parts.iter().find(|part| part.device == target.name);
    let own = on_target.or(parts.first()).map_or(DType::Float, |part| part.dtype);
    let (dtype, dtype_reason) = match policy.compute {
        DType::Float if own != DType::Float && own.is_float() => (own, "as the model has it".to_string()),
        compute => (compute, policy.why.clone()),
    };
    let stems: Vec<String> = parts.iter().filter(|part| part.device != "cpu").map(|part| part.name.clone()).collect();
    let files = script::scripts(target, &setting, &stems);
    let named = |text: &str| (!text.is_empty()).then(|| text.to_string());
    let manifest = Manifest {
        porter: env!("CARGO_PKG_VERSION").into(),
        model: manifest::ModelOrigin {
            file: file.to_string(),
            sha256: String::new(),
            metadata,
            opset: original.opset(),
            parameters: facts.parameters,
        },
        target: target.name.clone(),
        device: named(&setting.device.name),
        toolchain: named(&setting.toolchain),
        variant: policy.variant.clone(),
        dtype,
        dtype_reason,
        inputs: interface(&model.graph, &model.graph.inputs),
        outputs: interface(&model.graph, &model.graph.outputs),
        parts,
        rewrites,
        folded: folded.nodes,
        assumed,
        quirks,
        cpu_reasons: cpu_reasons(&model.graph, &plan),
        float32_nodes,
        clamped,
        postprocess,
        files: Vec::new(),
        check: None,
    };
    Ok(Prepared {
        manifest,
        parts: models,
        lowered,
        float32_parts,
        original,
        samples: options.samples.clone(),
        ran: None,
        files,
        warnings,
        title: facts.title(),
        original_nodes,
    })
}

fn cost(target: &Target, head: Head) -> Cost {
    if head == Head::Raw {
        // For the raw tensor's sake: one tensor that means something, rather than three that are smaller together.
        return Cost {
            border_us: 1e6,
            bytes_per_us: 8_000.0,
            target_flops_per_us: 30_000.0,
            // So slow that no border is worth moving the network itself.
            cpu_flops_per_us: 30.0,
            cpu_node_us: 2.0,
            target_node_us: 2.0,
        };
    }
    target.cost
}

/// Makes the final selection of a detector count as refused, so that the cut falls in front of it on any target.
fn refuse_selection(graph: &Graph, refusals: &mut HashMap<NodeId, String>) {
    let mut feeds_contraction: HashMap<NodeId, bool> = HashMap::new();
    for (id, node) in graph.nodes().rev() {
        let mut later = node.writes().flat_map(|value| graph.consumers(value));
        let feeds = later.any(|reader| feeds_contraction.get(reader).copied().unwrap_or(false));
        let contracts = CONTRACTIONS.iter().any(|op| node.is(op));
        feeds_contraction.insert(id, feeds || contracts);
        if !feeds && SELECTION.iter().any(|op| node.is(op)) {
            refusals.entry(id).or_insert_with(|| "--head raw leaves the selection out".into());
        }
    }
}

/// Sends to the host what rules say belongs there; one entry for the manifest a place.
fn to_host(
    chosen: &[&Rule],
    model: &Model,
    refusals: &mut HashMap<NodeId, String>,
) -> Result<Vec<manifest::Rewrite>, PrepareError> {
    let mut entries = Vec::new();
    for rule in chosen {
        let Some(moves) = &rule.moves else { continue };
        let found = moves.matcher.find(&model.graph, model.opset());
        let found = found.map_err(|error| PrepareError::Moves { rule: rule.name.clone(), error })?;
        for place in found {
            let nodes = place.nodes.iter().map(|&node| model.graph.label(node)).collect();
            for node in place.nodes {
                refusals.entry(node).or_insert_with(|| format!("the rule {} sends it to the host", rule.name));
            }
            // Nothing is computed otherwise, so there is nothing to be shown but the check of the whole.
            let unproven = Some("nothing is rewritten; the check of the bundle covers it".to_string());
            let rule = rule.name.clone();
            entries.push(manifest::Rewrite { rule, nodes, max_abs: None, cosine: None, unproven, answered_by: None });
        }
    }
    Ok(entries)
}

/// Takes the CPU part at the end away; what it read becomes the model's output, beside what earlier parts give.
fn drop_tail(graph: &mut Graph, plan: &mut Plan) {
    if plan.parts.len() < 2 || plan.parts.last().is_none_or(|part| part.device != Device::Cpu) {
        return;
    }
    let Some(tail) = plan.parts.pop() else { return };
    let mut outputs: Vec<ValueId> = tail.inputs.iter().copied().filter(|&value| !graph.is_input(value)).collect();
    for &value in &graph.outputs {
        if !tail.outputs.contains(&value) && !outputs.contains(&value) {
            outputs.push(value);
        }
    }
    graph.outputs = outputs;
    plan.cpu_reasons.retain(|reason| !tail.nodes.contains(&reason.node));
}

/// `model` for the target's only part, `host` for the CPU's; numbered where there are several.
fn part_names(plan: &Plan) -> Vec<String> {
    let mut seen: HashMap<Device, usize> = HashMap::new();
    let mut name = |device: Device| {
        let stem = if device == Device::Target { "model" } else { "host" };
        let count = seen.entry(device).or_default();
        *count += 1;
        if *count == 1 { stem.to_string() } else { format!("{stem}-{count}") }
    };
    plan.parts.iter().map(|part| name(part.device)).collect()
}

fn is_in(graph: &Graph, part: &partition::Part, label: &str) -> bool {
    part.nodes
        .iter()
        .any(|&id| graph.node(id).name == label || graph.node(id).name.is_empty() && graph.label(id) == label)
}

/// What most of a part's nodes compute in: the float type that is made most often, or, where none is, the most frequent type.
/// Nodes that carry a network's weights decide, where there are some.
fn own_type(graph: &Graph) -> DType {
    let mut counts: HashMap<(bool, bool, DType), usize> = HashMap::new();
    for (_, node) in graph.nodes() {
        let contracts = CONTRACTIONS.iter().any(|op| node.is(op));
        for dtype in node.writes().filter_map(|value| graph.value(value).dtype) {
            *counts.entry((dtype.is_float(), contracts, dtype)).or_default() += 1;
        }
    }
    let most = counts.into_iter().max_by_key(|((float, contracts, dtype), count)| {
        (*float, *contracts, *count, std::cmp::Reverse(dtype.number()))
    });
    most.map_or(DType::Float, |((.., dtype), _)| dtype)
}

fn labels(graph: &Graph) -> Vec<String> {
    graph
        .nodes()
        .enumerate()
        .map(|(index, (_, node))| match node.name.as_str() {
            "" => format!("{}_{index}", node.op_type),
            name => name.to_string(),
        })
        .collect()
}

/// Writes every known type into the part's file: engines and people want them.
fn list_types(graph: &mut Graph) {
    let ids: Vec<ValueId> = graph.values().map(|(id, _)| id).collect();
    for id in ids {
        let initializer = graph.initializer(id).is_some();
        let value = graph.value_mut(id);
        value.listed = value.dtype.is_some() && value.shape.is_some() && !initializer;
    }
}

fn cpu_reasons(graph: &Graph, plan: &Plan) -> Vec<manifest::CpuReason> {
    plan.cpu_reasons
        .iter()
        .map(|reason| manifest::CpuReason {
            node: graph.label(reason.node),
            operator: graph.node(reason.node).op_type.clone(),
            reason: reason.reason.clone(),
        })
        .collect()
}

/// The target's rules, in its order.
fn choose<'a>(rules: &'a RuleSet, target: &Target, met: &[QuirkHit]) -> Result<Vec<&'a Rule>, PrepareError> {
    let find = |name: &String| {
        rules.get(name).ok_or_else(|| PrepareError::NoRule { target: target.name.clone(), rule: name.clone() })
    };
    // What answers a fault of this toolchain alone is no rule of the target; what is merely slow is told, not changed.
    let answers = met.iter().filter(|hit| hit.symptom.slow.is_none()).filter_map(|hit| match &hit.answer {
        Some(Answer::Rule(rule)) if !target.rewrites.contains(rule) => Some(rule),
        _ => None,
    });
    target.rewrites.iter().chain(answers).map(find).collect()
}

/// Applications of rules for the manifest, each proven on its own shapes if wanted.
fn record(
    applied: &[rewrite::Applied],
    prove: bool,
    step: &dyn Fn(&str),
) -> Result<Vec<manifest::Rewrite>, PrepareError> {
    let entry = |one: &rewrite::Applied| manifest::Rewrite {
        rule: one.rule.clone(),
        nodes: one.nodes.clone(),
        max_abs: None,
        cosine: None,
        unproven: None,
        answered_by: match &one.keeps {
            Keeps::Changes { answered_by } => Some(answered_by.clone()),
            _ => None,
        },
    };
    if !prove || applied.is_empty() {
        return Ok(applied.iter().map(entry).collect());
    }
    step("proving rewrites");
    let proofs = rewrite::prove(applied, &Tract);
    applied
        .iter()
        .zip(proofs)
        .map(|(one, proof)| match proof {
            Ok(proof) if !proof.is_within(&one.keeps) => Err(PrepareError::Disproved {
                rule: one.rule.clone(),
                nodes: one.nodes.join(", "),
                max_abs: proof.max_abs,
            }),
            Ok(proof) => {
                Ok(manifest::Rewrite { max_abs: Some(proof.max_abs), cosine: Some(proof.cosine), ..entry(one) })
            }
            Err(why @ (ProofError::Output { .. } | ProofError::Count { .. })) => Err(PrepareError::Misshapen {
                rule: one.rule.clone(),
                nodes: one.nodes.join(", "),
                why: why.to_string(),
            }),
            Err(why) => Ok(manifest::Rewrite { unproven: Some(why.to_string()), ..entry(one) }),
        })
        .collect()
}

/// Known faults met before the rewrites, with whether they are still met after all that was done.
fn quirk_records(
    before: &[QuirkHit],
    after: &[QuirkHit],
    plan: &Plan,
    policy: &target::dtype::Policy,
    rewrites: &[manifest::Rewrite],
) -> Vec<manifest::QuirkHit> {
    let on_cpu = |id: &NodeId| plan.cpu_reasons.iter().any(|reason| reason.node == *id);
    let record = |hit: &QuirkHit, answered: bool| manifest::QuirkHit {
        id: hit.id.clone(),
        what: hit.what.clone(),
        nodes: hit.nodes.clone(),
        symptom: hit.symptom.to_string(),
        answer: hit.answer.as_ref().map(|answer| match answer {
            // A rule that was not applied avoided nothing: the nodes went to the CPU.
            Answer::Rule(rule) if answered && rewrites.iter().all(|one| one.rule != *rule) => "cut".into(),
            Answer::Rule(rule) => rule.clone(),
            Answer::Cut => "cut".into(),
            Answer::Dtype => "dtype".into(),
            Answer::FreezeShapes => "freeze-shapes".into(),
            Answer::Flags => "flags".into(),
            Answer::Upgrade => "upgrade".into(),
        }),
        answered,
        reference: hit.reference.clone(),
    };
    let still = |hit: &QuirkHit| {
        let Some(now) = after.iter().find(|other| other.id == hit.id) else { return false };
        match &hit.answer {
            Some(Answer::Dtype) => policy.compute == DType::Float,
            Some(Answer::Flags) => false,
            _ => !now.ids.iter().all(on_cpu),
        }
    };
    let new = after.iter().filter(|hit| before.iter().all(|other| other.id != hit.id));
    before.iter().chain(new).map(|hit| record(hit, !still(hit))).collect()
}
