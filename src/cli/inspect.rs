//! `porter inspect`: what a model is, and what a target would make of it.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::{Failure, Outcome, screen, sizes::Sizes, targets};
use crate::graph::fold;
use crate::graph::freeze::{self, Freeze};
use crate::inspect::{Facts, inspect, table};
use crate::target::{QuirkHit, assess};

/// Show what a model is: inputs, outputs, operators, weights, work, layers, and what a target would not take
///
/// Sizes follow from the model's inputs; `--shape` and `--batch` fix those that are free, so that the work can be
/// counted.
#[derive(clap::Args)]
pub struct Args {
    /// The model (.onnx; a stripped one is fine)
    model: PathBuf,
    #[command(flatten)]
    sizes: Sizes,
    /// Also show what this target would not take, and which of its known faults the model hits
    #[arg(short, long)]
    target: Option<String>,
    /// The target's kind of device, such as trn2; its first if left out
    #[arg(long, requires = "target")]
    device: Option<String>,
    /// The version of the target's toolchain
    #[arg(long, value_name = "VERSION", requires = "target")]
    toolchain: Option<String>,
    /// Folder or file with targets or overlays, over those that porter ships
    #[arg(long, value_name = "PATH", requires = "target")]
    targets: Option<PathBuf>,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

/// The most reasons that the screen shows.
const REASONS: usize = 12;

#[derive(Serialize)]
struct Document {
    file: String,
    #[serde(flatten)]
    facts: Facts,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Findings>,
}

/// What a target makes of the model.
#[derive(Serialize)]
struct Findings {
    name: String,
    device: String,
    toolchain: String,
    /// Sizes that were assumed because the target needs them and nobody gave them.
    assumed: Vec<String>,
    /// Nodes that it does not run, with the reason; constants and shape arithmetic folded before.
    refused: Vec<Refused>,
    quirks: Vec<QuirkHit>,
}

#[derive(Serialize)]
struct Refused {
    node: String,
    operator: String,
    reason: String,
}

/// Runs the command.
pub fn run(args: Args) -> Outcome {
    let mut model = crate::load(&args.model)?;
    let shown = args.model.display();
    let refused = |error: crate::graph::GraphError| {
        Failure::input(screen::one_line(&format!("{shown}: {error}"))).at(shown.to_string())
    };
    freeze::freeze(&mut model, &args.sizes.freeze()).map_err(refused)?;
    let facts = inspect(&mut model).map_err(refused)?;
    let mut findings = None;
    if let Some(name) = &args.target {
        let set = targets::load(args.targets.as_deref())?;
        let target = set.get(name).map_err(Failure::diagnostic)?;
        let setting = target.setting(args.device.as_deref(), args.toolchain.as_deref()).map_err(Failure::diagnostic)?;
        // A target that needs every size would refuse every node for the same reason.
        let mut assumed = Vec::new();
        if let Some(rule) = &target.static_shapes {
            let mut sized = model.clone();
            if let Ok(said) = freeze::settle(&mut sized, &Freeze::default())
                && !said.is_empty()
                && crate::graph::shapes::infer(&mut sized).is_ok()
            {
                assumed.push(format!("it needs every size: {}", rule.reason));
                assumed.extend(said);
                model = sized;
            }
        }
        fold::fold_constants(&mut model).map_err(refused)?;
        let assessment = assess(&model, target, &setting);
        let refused = assessment.refused().map(|(id, refusal)| Refused {
            node: model.graph.label(id),
            operator: model.graph.node(id).op_type.clone(),
            reason: refusal.reason.clone(),
        });
        findings = Some(Findings {
            name: name.clone(),
            device: setting.device.name.clone(),
            toolchain: setting.toolchain.clone(),
            assumed,
            refused: refused.collect(),
            quirks: assessment.quirks.clone(),
        });
    }
    if args.json {
        screen::json(&Document { file: shown.to_string(), facts, target: findings });
        return Ok(ExitCode::SUCCESS);
    }
    let file = args.model.file_name().map_or_else(|| shown.to_string(), |name| name.to_string_lossy().into_owned());
    screen::println(&table::text(&file, &facts));
    if let Some(findings) = findings {
        screen::println(&findings.text());
    }
    Ok(ExitCode::SUCCESS)
}

impl Findings {
    fn text(&self) -> String {
        let place = [&self.device, &self.toolchain].into_iter().filter(|part| !part.is_empty());
        let mut title = vec![self.name.clone()];
        title.extend(place.cloned());
        let mut lines = vec![format!("on {}", title.join(" "))];
        lines.extend(self.assumed.iter().map(|said| format!("  assumed     {said}")));
        if self.refused.is_empty() {
            lines.push("  every node runs there".into());
        }
        // One line a reason, with the nodes that it holds for; reasons that differ in a shape or a number alone are one.
        let mut reasons: indexmap::IndexMap<String, (&str, Vec<&str>)> = indexmap::IndexMap::new();
        for refused in &self.refused {
            let kind = format!("{} {}", refused.operator, without_numbers(&refused.reason));
            reasons.entry(kind).or_insert_with(|| (&refused.reason, Vec::new())).1.push(&refused.node);
        }
        let more = reasons.len().saturating_sub(REASONS);
        for (reason, nodes) in reasons.values().take(REASONS) {
            lines.push(format!("  not taken   {reason}"));
            lines.extend(table::list(nodes));
        }
        if more > 0 {
            lines.push(format!("  not taken   for {more} more reasons; --json shows them"));
        }
        for quirk in &self.quirks {
            lines.push(format!("  {:<11} {} ({})", quirk.id, quirk.what.trim(), quirk.reference));
            let nodes: Vec<&str> = quirk.nodes.iter().map(String::as_str).collect();
            lines.extend(table::list(&nodes));
        }
        lines.iter().map(|line| screen::one_line(line)).collect::<Vec<_>>().join("\n")
    }
}

/// What stays of a reason when brackets with sizes and numbers are taken out of it.
fn without_numbers(reason: &str) -> String {
    let mut depth = 0;
    let mut kept = String::new();
    for c in reason.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ if depth > 0 || c.is_ascii_digit() => {}
            _ => kept.push(c),
        }
    }
    kept
}
