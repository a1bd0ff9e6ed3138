//! `porter bisect`: the nodes at fault, with proof.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::{Failure, Outcome, overwrite, progress::Progress, screen, sizes::Sizes};
use crate::bisect::groups::{groups, kinds, span};
use crate::bisect::judge::Precision;
use crate::bisect::prepared::{Parts, bisect_parts};
use crate::bisect::reduce::reduce;
use crate::bisect::report::{Fault, Kind, Report, Verdict};
use crate::bisect::{self, BisectError, Options, Suspect, heal, html, repro};
use crate::engine::Tensors;
use crate::inputs::{self, Wanted};
use crate::onnx::DType;
use crate::prepare;
use crate::reach::{self, ReachError};
use crate::rewrite::RuleSet;
use crate::target::{self, Facts, TargetSet};

/// Find the nodes at which a target goes wrong, and prove it
///
/// Every node is run on the target with the reference's values, hundreds in one graph; layers and the whole model follow.
/// What differs by more than measured noise explains, does not compile, crashes, hangs or gives NaN is cut out, confirmed
/// on its own, and named. Exit code 0: healthy; 1: faulty; 4: a limit was reached before an answer.
#[derive(clap::Args)]
pub struct Args {
    /// The model (.onnx; a stripped one is filled), or the folder of a bundle
    model: PathBuf,
    /// The target: a name, ort, tract, worker:"COMMAND", or faulty:N1 for a simulated fault
    #[arg(short, long)]
    target: String,
    /// What is right
    #[arg(long, default_value = "ort:off", value_name = "TARGET")]
    reference: String,
    /// Your own inputs in place of made-up ones: npz, npy, safetensors, pictures, a folder or glob of them; NAME=FILE for
    /// one input of several
    #[arg(long = "input", value_name = "FILES")]
    inputs: Vec<String>,
    /// The element type whose rounding is no fault: float32, bfloat16, float16; the target's own where none is named
    #[arg(long, value_parser = super::prepare::parse_dtype, value_name = "TYPE")]
    dtype: Option<DType>,
    /// Prepare the model for the target first, and test what comes of it
    #[arg(long)]
    prepared: bool,
    /// How many sets of inputs to make up
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16), value_name = "N")]
    samples: u8,
    #[command(flatten)]
    sizes: Sizes,
    /// The kind of device; the target's own if left out
    #[arg(long)]
    device: Option<String>,
    /// The version of the target's toolchain
    #[arg(long, value_name = "VERSION")]
    toolchain: Option<String>,
    /// Probes at a time
    #[arg(long, default_value_t = 1, value_name = "N")]
    jobs: usize,
    /// The most models that the target is to compile while searching; the proof of each fault takes another
    #[arg(long, value_name = "N")]
    max_probes: Option<usize>,
    /// The longest that the search may take, in seconds
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<f64>,
    /// The longest that one compile or run of the target may take, in seconds
    #[arg(long, default_value_t = 600.0, value_name = "SECONDS")]
    request_limit: f64,
    /// Take answers from an earlier search also from a target that does not tell its version
    #[arg(long)]
    resume: bool,
    /// Neither read nor keep answers
    #[arg(long, conflicts_with = "resume")]
    no_cache: bool,
    /// Where answers are kept; PORTER_HOME or the user's cache folder if left out
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Folder for the report and, for each fault, a folder that shows it to others
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write a folder for every fault; of several that are alike only the worst gets one otherwise
    #[arg(long, requires = "output")]
    all_repros: bool,
    /// Try the rewrites that could answer the faults, and write what heals as an overlay of the target
    #[arg(long)]
    heal: bool,
    /// Folder or file with targets or overlays, over those that porter ships
    #[arg(long, value_name = "PATH")]
    targets: Option<PathBuf>,
    /// Print the report as one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Outcome {
    let progress = Progress::new(args.json);
    let folder = args.output.clone().unwrap_or_default();
    let reports = if args.output.is_some() { &["report.json", "report.html"][..] } else { &[] };
    for file in reports.iter().chain(args.heal.then_some(&"overlay.yaml")) {
        let read = [args.model.as_path()].into_iter().chain(args.targets.as_deref());
        overwrite::refuse(&folder.join(file), read)?;
    }
    let targets = match &args.targets {
        Some(path) => TargetSet::load(path).map_err(Failure::diagnostic)?,
        None => TargetSet::shipped(),
    };
    let seconds = |seconds: f64, name: &str| {
        Duration::try_from_secs_f64(seconds).map_err(|_| Failure::input(format!("--{name} {seconds} is no time")))
    };
    let settings = reach::Options {
        device: args.device.clone(),
        toolchain: args.toolchain.clone(),
        time_limit: seconds(args.request_limit, "request-limit")?,
        ..Default::default()
    };
    let reached = reach::open(&args.target, &targets, &settings).map_err(reach_failure)?;
    let reference = reach::open(&args.reference, &targets, &reach::Options { isolate: false, ..Default::default() })
        .map_err(reach_failure)?;
    progress.step("reading");
    let file = args.model.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let tested = tested(&args, &file, &reached, &progress)?;
    let versioned = !reached.engine.version().is_empty() || reached.simulated || reached.engine.name() == "tract";
    let options = Options {
        sizes: args.sizes.freeze(),
        samples: args.samples.into(),
        jobs: args.jobs.max(1),
        max_probes: args.max_probes,
        time_limit: args.time_limit.map(|limit| seconds(limit, "time-limit")).transpose()?,
        cache: if args.no_cache { None } else { args.cache.clone().or_else(cache_folder) },
        recall: args.resume || versioned,
        inputs: given(&args, &tested)?,
        ..Default::default()
    };
    let suspect = Suspect {
        engine: reached.engine.as_ref(),
        label: reached.label.clone(),
        simulated: reached.simulated,
        target: reached.target.as_ref(),
        precision: match (args.dtype, &tested) {
            (Some(rounds), _) => Precision { rounds, ..Precision::float32() },
            (None, Tested::Model(model)) => precision(&reached, model),
            (None, Tested::Parts(parts)) => {
                parts.models.first().map_or_else(Precision::float32, |model| precision(&reached, model))
            }
        },
    };
    let step = |step: &str| progress.step(step);
    let found = match &tested {
        Tested::Model(model) => bisect::bisect(model, &file, reference.engine.as_ref(), &suspect, &options, &step),
        Tested::Parts(parts) => bisect_parts(parts, &file, reference.engine.as_ref(), &suspect, &options, &step),
    };
    let (mut report, mut proofs) = found.map_err(|error| failure(&args.model, error))?;
    report.target_spec = args.target.clone();
    if args.heal && !report.faults.is_empty() {
        progress.step("healing");
        match &tested {
            Tested::Model(model) => {
                heal_all(&args, model, &mut report, &proofs, reference.engine.as_ref(), &suspect, &options)?;
            }
            Tested::Parts(_) => report.notes.push("--heal takes the model itself, without --prepared".into()),
        }
    }
    if let Some(folder) = &args.output {
        progress.step("writing");
        // Of faults that are alike one is shown, and stands for all.
        let groups = groups(&report.faults);
        let shown = |fault: usize| args.all_repros || groups.iter().any(|group| group.example == fault);
        for proof in proofs.iter_mut().filter(|proof| shown(proof.fault)) {
            let fault = &report.faults[proof.fault];
            let failed =
                matches!(fault.kind, Kind::CompileError | Kind::Crash).then(|| fault.code.as_deref()).flatten();
            if failed.is_some() || matches!(fault.kind, Kind::WrongValues | Kind::Nan) {
                reduce(proof, failed, reference.engine.as_ref(), &suspect);
            }
        }
        for proof in proofs.iter().filter(|proof| shown(proof.fault)) {
            let fault = report.faults[proof.fault].clone();
            let path = repro::write(folder, proof.fault + 1, &report, &fault, proof).map_err(Failure::environment)?;
            report.faults[proof.fault].repro = Some(path.display().to_string());
        }
        for group in &groups {
            let own = report.faults[group.example].repro.clone();
            for &member in &group.members {
                let repro = &mut report.faults[member].repro;
                *repro = repro.take().or_else(|| own.clone());
            }
        }
        write_report(folder, &report, &proofs)?;
    }
    progress.done();
    if args.json {
        screen::json(&report);
    } else {
        story(&report);
    }
    Ok(ExitCode::from(match report.verdict {
        Verdict::Healthy => 0,
        Verdict::Faulty | Verdict::Nondeterministic => 1,
        Verdict::Inconclusive => 4,
    }))
}

/// Tries rules, and writes those that heal as an overlay beside the report, or in the working folder.
fn heal_all(
    args: &Args,
    model: &crate::graph::Model,
    report: &mut Report,
    proofs: &[bisect::Proof],
    reference: &dyn crate::engine::Engine,
    suspect: &Suspect,
    options: &Options,
) -> Result<(), Failure> {
    let rules = RuleSet::shipped();
    let healed = heal::heal(model, report, proofs, reference, suspect, &rules, options);
    let Some(healed) = healed.map_err(|error| failure(&args.model, error))? else {
        report.notes.push("no rule heals any of it".into());
        return Ok(());
    };
    let folder = args.output.clone().unwrap_or_default();
    let path = folder.join("overlay.yaml");
    let text = serde_yaml::to_string(&healed.overlay).map_err(Failure::environment)?;
    let failed = |error: std::io::Error| Failure::unwritten(format!("{}: {error}", path.display()), &error);
    if !folder.as_os_str().is_empty() {
        std::fs::create_dir_all(&folder).map_err(failed)?;
    }
    std::fs::write(&path, text).map_err(failed)?;
    let whole = if healed.whole { "the whole model agrees with it" } else { "the whole model still differs with it" };
    let place = path.display();
    let next = match suspect.target {
        Some(target) => format!("porter prepare --target {} --targets {place} applies it", target.name),
        None => format!(
            "{} has no target file, so put the name of one that stands for it behind `overlay:` in its first line; then porter \
             prepare --targets {place} applies it",
            report.target
        ),
    };
    report.notes.push(format!("{place}: {whole}; {next}"));
    report.overlay = Some(path.display().to_string());
    Ok(())
}

/// What is tested.
enum Tested {
    Model(crate::graph::Model),
    Parts(Parts),
}

/// The model, a bundle's parts, or what prepare makes of the model.
fn tested(args: &Args, file: &str, reached: &reach::Reached, progress: &Progress) -> Result<Tested, Failure> {
    if args.model.is_dir() {
        return Ok(Tested::Parts(Parts::open(&args.model).map_err(Failure::input)?));
    }
    let model = crate::load(&args.model)?;
    if !args.prepared {
        return Ok(Tested::Model(model));
    }
    let Some(target) = &reached.target else {
        return Err(Failure::input(format!("--prepared needs a target file, and {} has none", args.target))
            .help("`porter targets` lists those that there are"));
    };
    progress.step("preparing");
    let options = prepare::Options {
        device: args.device.clone(),
        toolchain: args.toolchain.clone(),
        freeze: args.sizes.freeze(),
        ..Default::default()
    };
    let step = |step: &str| progress.step(step);
    let made = prepare::prepare(model, file, target, &RuleSet::shipped(), &options, &step);
    let made = made.map_err(|error| Failure::input(format!("{}: {error}", args.model.display())))?;
    // A 16-bit type's own rounding would hide small faults, so the parts are tested as they were before.
    let models = if made.float32_parts.is_empty() { made.parts } else { made.float32_parts };
    Ok(Tested::Parts(Parts { manifest: made.manifest, models }))
}

/// The type that a target computes in by itself, whatever the model says, and what it approximates.
pub(super) fn precision(reached: &reach::Reached, model: &crate::graph::Model) -> Precision {
    let by_policy = || {
        let target = reached.target.as_ref()?;
        let setting = target.setting(reached.device.as_deref(), None).ok()?;
        let mut typed = model.clone();
        let _ = crate::graph::shapes::infer(&mut typed);
        let assessment = target::assess(&typed, target, &setting);
        let wishes = target::dtype::Wishes { dtype: None, variant: None };
        let policy = target::dtype::policy(&typed, target, &setting, &assessment, wishes).ok()?;
        (policy.rounds != policy.compute).then_some(policy.rounds)
    };
    let approximates = reached.target.iter().flat_map(|target| &target.approximates);
    Precision {
        rounds: reached.rounds.or_else(by_policy).unwrap_or(DType::Float),
        approximates: approximates.map(|(operator, most)| (operator.clone(), *most)).collect(),
    }
}

/// The inputs that the user gave, a set for each run they make.
fn given(args: &Args, tested: &Tested) -> Result<Vec<Tensors>, Failure> {
    if args.inputs.is_empty() {
        return Ok(Vec::new());
    }
    let (wanted, models) = match tested {
        Tested::Model(model) => (Wanted::by(model), std::slice::from_ref(model)),
        Tested::Parts(parts) => {
            let first = parts.models.first().cloned().unwrap_or_default();
            (Wanted::listed(&parts.manifest, Facts::of(&first)), parts.models.as_slice())
        }
    };
    let batch = args.sizes.freeze().batch.and_then(|batch| usize::try_from(batch).ok());
    let options = inputs::Options { seed: Some(0), batch };
    // Every set is tried on every node: more than a few say nothing new.
    let samples = super::given::samples(&args.inputs, &wanted, &options, models, MOST_INPUTS, &[])?;
    Ok(samples.into_iter().map(|(_, tensors)| tensors).collect())
}

/// The most sets of inputs that are taken of what was given.
const MOST_INPUTS: usize = 16;

fn write_report(folder: &Path, report: &Report, proofs: &[bisect::Proof]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::unwritten(format!("{}: {error}", folder.display()), &error);
    std::fs::create_dir_all(folder).map_err(failed)?;
    let text = serde_json::to_string_pretty(report).unwrap_or_default();
    std::fs::write(folder.join("report.json"), text + "\n").map_err(failed)?;
    std::fs::write(folder.join("report.html"), html::html(report, proofs, &sentences)).map_err(failed)
}

/// `PORTER_HOME/probes`, or a folder in the user's cache.
fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = folder("PORTER_HOME").or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("porter")));
    let home = home.or_else(|| folder("HOME").map(|home| home.join(".cache").join("porter")));
    home.or_else(|| folder("LOCALAPPDATA").map(|data| data.join("porter"))).map(|home| home.join("probes"))
}

pub(super) fn reach_failure(error: ReachError) -> Failure {
    match error {
        ReachError::Target(error) => Failure::diagnostic(error),
        ReachError::Spec { .. } => Failure::input(error),
        ReachError::Engine(ref engine) if !engine.is_absence() => Failure::input(error),
        error => Failure::environment(error),
    }
}

fn failure(model: &Path, error: BisectError) -> Failure {
    match error {
        BisectError::Engine(error) if error.is_absence() => Failure::environment(error),
        error => Failure::input(format!("{}: {error}", model.display())),
    }
}

/// The story: layers in order with both errors, the culprits, three sentences, the counts.
fn story(report: &Report) {
    let say = screen::println;
    let batches: Vec<String> = report.batches.iter().map(i64::to_string).collect();
    let batches = if batches.is_empty() { String::new() } else { format!(", batch {}", batches.join(", ")) };
    say(&format!(
        "{} on {}, against {}: {} samples{batches}, {} nodes{}",
        report.model,
        report.target,
        report.reference,
        report.samples,
        report.nodes,
        if report.rounds == DType::Float { String::new() } else { format!(", {} rounding allowed", report.rounds) }
    ));
    table(report);
    for (number, group) in groups(&report.faults).into_iter().enumerate() {
        say("");
        let fault = &report.faults[group.example];
        let name = |&index: &usize| report.faults[index].nodes.join(", ");
        match group.members.len() {
            1 => say(&format!("{}. {}", number + 1, fault.nodes.join(", "))),
            alike => {
                let first = fault.nodes.join(", ");
                let first =
                    if fault.metrics.is_some() { format!("{first} the worst") } else { format!("such as {first}") };
                say(&format!("{}. {alike} places alike, {first}", number + 1));
                let others: Vec<&usize> = group.members.iter().filter(|&&index| index != group.example).collect();
                others.iter().take(NAMED).for_each(|index| say(&format!("   also       {}", name(index))));
                if others.len() > NAMED {
                    say(&format!("   and {} more, which --json lists", others.len() - NAMED));
                }
                if let Some((least, most)) = span(&group, &report.faults) {
                    say(&format!("   Off by {least:.1e} to {most:.1e}. Of the worst, over what noise explains:"));
                }
            }
        }
        sentences(fault).iter().for_each(|said| say(&format!("   {said}")));
        if let Some(repro) = &fault.repro {
            say(&format!("   repro      {repro}/"));
        }
    }
    if !report.faults.is_empty() {
        say("");
    }
    for (node, why) in report.not_tested.iter().take(8) {
        say(&format!("not tested: {node}: {why}"));
    }
    report.notes.iter().for_each(|note| say(&format!("note: {note}")));
    if let Some(stopped) = &report.stopped {
        say(&format!("stopped early: {stopped}; --resume goes on from here"));
    }
    let verdict = match report.verdict {
        Verdict::Healthy => "healthy: no node, no layer and no output is further off than noise explains".to_string(),
        Verdict::Faulty => {
            let (faults, kinds) = (report.faults.len(), kinds(&report.faults));
            let of = if kinds < faults { format!(" of {}", count(kinds, "kind")) } else { String::new() };
            format!("faulty: {}{of}", count(faults, "fault"))
        }
        Verdict::Nondeterministic => "nondeterministic: each run gives something else".to_string(),
        Verdict::Inconclusive => "inconclusive".to_string(),
    };
    let probes = &report.probes;
    say(&format!(
        "{verdict}   ({} compiles, {} runs, {} cached, {:.1} s)",
        probes.compiles, probes.runs, probes.cached, probes.seconds
    ));
}

/// How much of what a target says is shown on the terminal, in characters.
const REASON: usize = 200;
/// How many of the faults that are like another one are named on the terminal.
const NAMED: usize = 5;

fn count(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Layers with a fault in full; runs of layers without one on one line.
fn table(report: &Report) {
    let error = |error: Option<f64>| match error {
        None => "-".to_string(),
        Some(x) if x.is_infinite() => "not finite".into(),
        Some(x) => format!("{x:.0e}"),
    };
    let width = report.layers.iter().map(|layer| layer.name.len()).max().unwrap_or(5).clamp(5, 60);
    screen::println(&format!("  {:<width$}  {:>10}  {:>10}  {:>10}", "layer", "cumulative", "isolated", "expected"));
    let mut faulty_before = false;
    for layer in &report.layers {
        let off = layer.cumulative.is_some_and(|x| x > 10.0 * layer.expected.unwrap_or(1e-6).max(1e-6));
        let mark = if layer.faults > 0 {
            "   <- fault"
        } else if faulty_before && off {
            "   propagated"
        } else {
            ""
        };
        faulty_before |= layer.faults > 0;
        let name: String = layer.name.chars().take(60).collect();
        let (cumulative, isolated) = (error(layer.cumulative), error(layer.isolated));
        let expected = error(layer.expected.or(Some(1e-6)));
        screen::println(&format!("  {name:<width$}  {cumulative:>10}  {isolated:>10}  {expected:>10}{mark}"));
    }
}

fn sentences(fault: &Fault) -> Vec<String> {
    let mut said = Vec::new();
    let several = fault.operators.len() > 1;
    let what = match (fault.kind, several) {
        (Kind::WrongValues, false) => "gives wrong values",
        (Kind::WrongValues, true) => "together give wrong values",
        (Kind::Nan, false) => "gives NaN or infinity where numbers belong",
        (Kind::Nan, true) => "together give NaN or infinity where numbers belong",
        (Kind::CompileError, false) => "does not compile",
        (Kind::CompileError, true) => "do not compile together",
        (Kind::Crash, false) => "makes the target crash",
        (Kind::Crash, true) => "together make the target crash",
        (Kind::Timeout, false) => "makes the target hang",
        (Kind::Timeout, true) => "together make the target hang",
    };
    let operators = fault.operators.join(" and ");
    let code = fault.code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
    let elements = match fault.batch_elements.is_empty() {
        true => String::new(),
        false => format!(", in batch elements {}", list(&fault.batch_elements)),
    };
    match fault.kind {
        Kind::WrongValues | Kind::Nan => {
            said.push(format!("{operators} {what}{code}{elements}, on the inputs that the reference computes."));
            if fault.kind == Kind::Nan {
                said.push(format!("Seen at {}.", fault.reason));
            }
        }
        _ => {
            let alone = if fault.confirmed { ", and does so again on its own" } else { "" };
            said.push(format!("{operators} {what}{code}{alone}."));
            let reason: String = fault.reason.lines().next().unwrap_or_default().chars().take(REASON).collect();
            said.push(format!("In the target's words: {reason}"));
        }
    }
    // Of what is no number there is no distance.
    let measured = fault.kind != Kind::Nan;
    match fault.fingerprint {
        Some(shape) if measured => said.push(format!("Fingerprint {}: {}.", shape.name(), shape.says())),
        None if fault.kind == Kind::WrongValues => {
            said.push("Fingerprint unknown: no shape of faults that porter knows explains every wrong value.".into());
        }
        _ => {}
    }
    if let Some(metrics) = fault.metrics.as_ref().filter(|_| measured) {
        said.push(format!(
            "Cosine {:.4}, {:.4} in the worst channel; off by {:.2e} where noise explains {:.0e}.",
            metrics.cosine, metrics.worst_cosine, metrics.max_abs, metrics.expected
        ));
    }
    if let Some((reference, own)) = fault.from_exact.filter(|_| measured) {
        said.push(format!("Float64 was asked: the reference is {reference:.1e} from it, the target {own:.1e}."));
    }
    if !fault.confirmed {
        said.push("Not confirmed: cut out and run on its own it could not be shown again.".into());
    }
    if fault.fused {
        said.push("Each node alone is right: it shows only while they are compiled together.".into());
    }
    if fault.vanishes_when_observed {
        said.push("It vanishes when the values between them are shown.".into());
    }
    if !fault.batches.is_empty() {
        let batches: Vec<usize> = fault.batches.iter().map(|&batch| batch as usize).collect();
        said.push(format!("Seen at batch {}.", list(&batches)));
    }
    if let Some(quirk) = &fault.quirk {
        said.push(format!("Known as {quirk}."));
    }
    if let Some(rule) = &fault.rewrite {
        said.push(format!("The rule {rule} answers it: with it, the region agrees."));
    }
    said
}

fn list(numbers: &[usize]) -> String {
    let all: Vec<String> = numbers.iter().map(usize::to_string).collect();
    all.join(", ")
}
