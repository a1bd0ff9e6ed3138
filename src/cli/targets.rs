//! `porter targets`: what each target can run, what goes wrong there, and what it computes in.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{Failure, Outcome, screen};
use crate::target::{Entry, Limits, Target, TargetSet};

/// Show targets: what they run, their known faults, what they compute in
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// A folder of target files, or an overlay, to use before the shipped ones
    #[arg(long, global = true, value_name = "DIR")]
    targets: Option<PathBuf>,
    /// Print one JSON document and nothing else on standard output
    #[arg(long, global = true)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Every target in a line
    List,
    /// All that is known of one
    Show {
        /// The target
        name: String,
        /// Only the operators that are not simply taken
        #[arg(long)]
        limits: bool,
    },
    /// The form of a target file, as a JSON Schema
    Schema,
}

/// Targets and overlays of a folder or file over those that ship, as `--targets` says.
pub(super) fn load(path: Option<&Path>) -> Result<TargetSet, Failure> {
    path.map_or_else(|| Ok(TargetSet::shipped()), TargetSet::load).map_err(Failure::diagnostic)
}

/// Runs the command.
pub fn run(args: Args) -> Outcome {
    let set = load(args.targets.as_deref())?;
    match args.command {
        Command::List => list(&set, args.json),
        Command::Show { name, limits } => {
            let target = set.get(&name).map_err(Failure::diagnostic)?;
            if args.json {
                screen::json(target);
            } else {
                screen::println(&text(target, limits));
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Schema => {
            screen::json(&Target::json_schema());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn list(set: &TargetSet, json: bool) -> Outcome {
    let mut lines = Vec::new();
    let mut entries = Vec::new();
    for name in set.names() {
        let target = set.get(name).map_err(Failure::diagnostic)?;
        let operators = target.operators.values().filter(|entry| takes(entry)).count();
        lines.push(format!("{name:<10} {:<70} {operators:>4} operators, {} quirks", target.what, target.quirks.len()));
        entries.push(serde_json::json!({
            "target": name,
            "what": target.what,
            "operators": operators,
            "quirks": target.quirks.len(),
            "devices": target.devices.keys().collect::<Vec<_>>(),
            "toolchains": target.toolchains,
        }));
    }
    if json {
        screen::json(&entries);
    } else {
        screen::println(&lines.join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether any form of the operator is taken.
fn takes(entry: &Entry) -> bool {
    match entry {
        Entry::Any => true,
        Entry::None => false,
        Entry::Limits(limits) => limits.iter().any(|limits| limits.none.is_none()),
    }
}

/// A target for a reader.
fn text(target: &Target, limits_only: bool) -> String {
    let mut lines = vec![format!("{}: {}", target.name, target.what)];
    lines.extend(target.source.iter().map(|source| format!("  source      {}", one_line(source))));
    if !target.devices.is_empty() {
        let own = |name: &String| {
            if Some(name) == target.device.as_ref() { format!("{name} (default)") } else { name.clone() }
        };
        lines.push(format!("  devices     {}", target.devices.keys().map(own).collect::<Vec<_>>().join(", ")));
    }
    if !target.toolchains.is_empty() {
        let default =
            target.toolchain.as_ref().map(|version| format!("; {version} where none is named")).unwrap_or_default();
        lines.push(format!("  toolchains  {}{default}", target.toolchains.join(", ")));
    }
    lines.push(String::new());
    lines.push("computes in, by the first that holds".into());
    for rule in &target.dtype.policy {
        let when = rule.when.as_ref().map_or("always".to_string(), |when| format!("where {}", when.source()));
        let versions = if rule.versions.is_all() { String::new() } else { format!(" (toolchain {})", rule.versions) };
        lines.push(format!("  {:<9} {when}{versions}: {}", rule.compute.name(), rule.why));
    }
    for rule in &target.dtype.keep_float32 {
        lines.push(format!("  float stays where {}: {}", one_line(rule.when.source()), rule.why));
    }
    lines.push(String::new());
    lines.push("operators".into());
    let mut plain: Vec<&str> = Vec::new();
    for (op, entry) in &target.operators {
        match entry {
            Entry::Any => plain.push(op),
            Entry::None => lines.push(format!("  {op}: not taken")),
            Entry::Limits(limits) => match limits.as_slice() {
                [one] if is_plain(one) => plain.push(op),
                all => lines.extend(all.iter().map(|limits| format!("  {op}: {}", limited(limits)))),
            },
        }
    }
    if !limits_only {
        lines.push(format!("  taken in every form: {}", plain.join(", ")));
    }
    lines.push(String::new());
    lines.push("known faults".into());
    for quirk in &target.quirks {
        let answer = quirk.answer.as_deref().unwrap_or("none: a warning");
        lines.push(format!("  {:<18} {}", quirk.id, one_line(&quirk.what)));
        lines.push(format!(
            "  {:<18} {}; versions {}; answer {answer}; {}",
            "", quirk.symptom, quirk.versions, quirk.reference
        ));
    }
    for note in &target.notes {
        lines.push(format!("  {:<18} {} ({})", note.id, one_line(&note.what), note.reference));
    }
    lines.join("\n")
}

fn is_plain(limits: &Limits) -> bool {
    limits.opsets.is_all()
        && limits.none.is_none()
        && limits.dtypes.is_any()
        && limits.ranks.is_all()
        && limits.requires.is_empty()
}

fn limited(limits: &Limits) -> String {
    if let Some(reason) = &limits.none {
        let code = limits.code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
        return format!("not taken: {reason}{code}");
    }
    let mut said = Vec::new();
    if !limits.opsets.is_all() {
        said.push(format!("opset {}", limits.opsets));
    }
    for (position, types) in &limits.dtypes.0 {
        let position = if position == "main" { String::new() } else { format!("{position} ") };
        said.push(format!("{position}{}", types.join("|")));
    }
    if !limits.ranks.is_all() {
        said.push(format!("rank {}", limits.ranks));
    }
    said.extend(limits.requires.iter().map(|requirement| format!("where {}", requirement.that.source())));
    said.extend(limits.note.clone());
    said.join("; ")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
