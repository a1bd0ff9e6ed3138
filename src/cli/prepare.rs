//! `porter prepare`: from a model to a bundle that a target takes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use super::{Failure, Outcome, progress::Progress, rules, screen, sizes::Sizes, targets};
use crate::bundle::manifest::Part;
use crate::bundle::{BundleError, Draft, Manifest, TextFile};
use crate::compare::Verdict;
use crate::engine::Tensors;
use crate::graph::{Model, freeze};
use crate::inputs::{self, Wanted};
use crate::lower::Weights;
use crate::onnx::{DType, ModelFile};
use crate::prepare::{self, Options, PrepareError, Prepared, check, report};
use crate::target::Head;

/// Make a model ready for a target: rewrite, choose element types, cut, check, and write a bundle
///
/// The bundle is a folder with a model file for each part, a manifest, a report, and for targets that compile ahead of
/// time a compile script. The original model and the bundle are run on the CPU and every output compared.
#[derive(clap::Args)]
pub struct Args {
    /// The model (.onnx; a stripped one is filled)
    model: PathBuf,
    /// The target; `porter targets list` shows them
    #[arg(short, long)]
    target: String,
    /// The bundle's folder; MODEL.TARGET in the working folder if left out
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The kind of device, such as trn2; the target's first if left out
    #[arg(long)]
    device: Option<String>,
    /// The version of the target's toolchain, for which known faults are chosen
    #[arg(long, value_name = "VERSION")]
    toolchain: Option<String>,
    /// The model's variant, such as l, over what its metadata says
    #[arg(long)]
    variant: Option<String>,
    /// The type to compute in, over the target's policy
    #[arg(long, value_parser = parse_dtype, value_name = "TYPE")]
    dtype: Option<DType>,
    /// What becomes of the model's end that the target cannot run: a part on the host, or left out (raw)
    #[arg(long, value_parser = ["host", "raw"], value_name = "HEAD")]
    head: Option<String>,
    /// Where a lowered part's weights go: into its module as constants, or into a safetensors file (separate)
    #[arg(long, value_parser = ["constants", "separate"], value_name = "WHERE", default_value = "constants")]
    weights: String,
    #[command(flatten)]
    sizes: Sizes,
    /// What the bundle is checked on: .npz, .npy, .safetensors, pictures, folders or globs; made up where none is given
    #[arg(long = "input", value_name = "FILE", num_args = 1..)]
    inputs: Vec<String>,
    /// Do not prove the rewrites and do not run the result against the original
    #[arg(long)]
    no_check: bool,
    /// Show every node on the CPU with the reason, every rewrite and every node that stays float32
    #[arg(long)]
    explain: bool,
    /// Folder with rewrite rules, over those that porter ships
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// Folder or file with targets or overlays, over those that porter ships
    #[arg(long, value_name = "PATH")]
    targets: Option<PathBuf>,
    /// Print the manifest as one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

pub(super) fn parse_dtype(text: &str) -> Result<DType, String> {
    match DType::from_name(text) {
        Some(dtype @ (DType::Float | DType::Bfloat16 | DType::Float16)) => Ok(dtype),
        _ => Err("expected float32, bfloat16 or float16".into()),
    }
}

/// Runs the command.
pub fn run(args: Args) -> Outcome {
    let start = Instant::now();
    let progress = Progress::new(args.json);
    let file = ModelFile::open(&args.model)?;
    let digest = file.digest(); // goes on beside everything else
    let targets = targets::load(args.targets.as_deref())?;
    let target = targets.get(&args.target).map_err(Failure::diagnostic)?;
    let rules = rules::load(args.rules.as_deref())?;
    let mut options = Options {
        device: args.device.clone(),
        toolchain: args.toolchain.clone(),
        variant: args.variant.clone(),
        dtype: args.dtype,
        head: args.head.as_deref().map(|head| if head == "raw" { Head::Raw } else { Head::Host }),
        freeze: args.sizes.freeze(),
        prove: !args.no_check,
        weights: if args.weights == "separate" { Weights::Separate } else { Weights::Constants },
        samples: Vec::new(),
    };
    let folder = args.output.clone().unwrap_or_else(|| default_folder(&args.model, &args.target));
    let name = args.model.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();

    let real = |path: &Path| path.canonicalize().ok();
    if real(&folder).is_some_and(|folder| real(&args.model).is_some_and(|model| model.starts_with(folder))) {
        return Err(Failure::input(format!(
            "{} lies in the folder that the bundle would replace",
            args.model.display()
        ))
        .at(folder.display())
        .help("choose another folder with -o"));
    }

    progress.step("reading");
    let model = crate::load_open(&file)?;
    options.samples = samples(&args, &model, &options)?;
    let mut prepared = prepare::prepare(model, &name, target, &rules, &options, &|step| progress.step(step))
        .map_err(|error| failure(&args.model, error))?;
    progress.step("writing");
    let draft = Draft::new(&folder).map_err(bundle_failure)?;
    for index in 0..prepared.parts.len() {
        prepare::write_part(&draft, &prepared, index).map_err(bundle_failure)?;
    }
    let mut checked = None;
    if !args.no_check {
        progress.step("checking against the original");
        let parts = prepared.manifest.parts.iter().map(|part| draft.read_part(part)).collect::<Result<Vec<_>, _>>();
        let outcome =
            check::check(&prepared, &parts.map_err(bundle_failure)?).map_err(|error| failure(&args.model, error))?;
        if !outcome.passed {
            return Err(Failure::check(format!("{}: {}", args.model.display(), outcome.story))
                .at(args.model.display())
                .help(
                    "nothing was written; `--dtype float32` tells whether the element type is at fault, \
                 `--no-check --explain` shows what was changed",
                ));
        }
        prepared.manifest.check = serde_json::to_value(&outcome).ok();
        if outcome.status == "not-run" {
            // What did not run did not pass.
            if let Some(passed) = prepared.manifest.check.as_mut().and_then(|check| check.get_mut("passed")) {
                *passed = serde_json::Value::Null;
            }
            prepared.warnings.push(format!("the bundle was not run against the model: {}", outcome.story));
        }
        if let Some(itself) = outcome.itself.as_ref().filter(|itself| itself.status == "differs") {
            let bad = itself.outputs.iter().find(|finding| finding.verdict == Verdict::Differs);
            prepared.warnings.push(format!(
                "run by {} itself the bundle gives other values than the model{}; `porter bisect {} --target {}` finds where",
                itself.engine,
                bad.map_or(String::new(), |finding| format!(": {}: {}", finding.name, finding.reason)),
                args.model.display(),
                args.target
            ));
        }
        if outcome.status != "not-run" && !outcome.refused.is_empty() {
            let refused = outcome.refused.join("; ");
            prepared.warnings.push(format!("model and bundle were compared on {} alone: {refused}", outcome.engine));
        }
        checked = Some(outcome);
    }
    prepared.manifest.model.sha256 =
        digest.finish().ok_or_else(|| Failure::environment("the thread that hashes the model ended early"))?;
    let mut files = prepared.files.clone();
    files.push(TextFile { name: "report.md".into(), text: report::markdown(&prepared.manifest), executable: false });
    draft.finish(&mut prepared.manifest, &files).map_err(bundle_failure)?;
    progress.done();
    if args.json {
        screen::json(&prepared.manifest);
        prepared.manifest.assumed.iter().for_each(|said| screen::note(&format!("warning: {said}")));
    } else {
        summary(&args, &folder, &prepared, checked.as_ref(), start);
    }
    for warning in &prepared.warnings {
        screen::note(&format!("warning: {warning}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// More of the user's own inputs than this are not run: each is run several times for its noise.
const MOST_SAMPLES: usize = 16;

/// What the user gave to check the bundle on.
fn samples(args: &Args, model: &Model, options: &Options) -> Result<Vec<Tensors>, Failure> {
    if args.inputs.is_empty() {
        return Ok(Vec::new());
    }
    let mut model = model.clone(); // weights are shared
    freeze::freeze(&mut model, &options.freeze).map_err(|error| failure(&args.model, error.into()))?;
    let wanted = Wanted::by(&model);
    let samples =
        super::given::samples(&args.inputs, &wanted, &inputs::Options::default(), &[model], MOST_SAMPLES, &[])?;
    Ok(samples.into_iter().map(|(_, tensors)| tensors).collect())
}

fn bundle_failure(error: BundleError) -> Failure {
    match error {
        BundleError::Io { ref source, .. } => Failure::unwritten(&error, source),
        BundleError::Onnx(error) => Failure::from(error),
        BundleError::NotOurs { ref path } | BundleError::Foreign { ref path, .. } => {
            let place = path.display().to_string();
            Failure::input(error).at(place)
        }
        _ => Failure::input(error),
    }
}

/// `yolo26l.onnx` for `neuron` becomes `yolo26l.neuron`.
fn default_folder(model: &Path, target: &str) -> PathBuf {
    let stem = model.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_else(|| "model".into());
    PathBuf::from(format!("{stem}.{target}"))
}

fn failure(model: &Path, error: PrepareError) -> Failure {
    let place = model.display();
    match error {
        error @ PrepareError::Disproved { .. } => Failure::check(format!("{place}: {error}")).at(place),
        PrepareError::Target(error) => Failure::diagnostic(error),
        PrepareError::Engine(error) if error.is_absence() => {
            Failure::environment(error).help("`--no-check` writes the bundle without running it")
        }
        error => Failure::input(screen::one_line(&format!("{place}: {error}"))).at(place),
    }
}

/// The story on the screen: what the model is, what was changed, what runs where, what the check showed.
fn summary(args: &Args, folder: &Path, prepared: &Prepared, checked: Option<&check::Checked>, start: Instant) {
    let m = &prepared.manifest;
    let line = |label: &str, text: &str| screen::println(&format!("  {label:<11}{text}"));
    screen::println(&format!("{}   {}", args.model.display(), describe(prepared)));
    m.assumed.iter().for_each(|said| line("assumed", said));
    if !m.folded.is_empty() {
        line("folded", &format!("{} nodes of constant arithmetic", m.folded.len()));
    }
    for (rule, applied) in report::by_rule(&m.rewrites) {
        let known = answers(m, rule);
        let proof = if args.no_check { String::new() } else { format!("   {}", report::proof(&applied)) };
        line("rewritten", &format!("{rule} x {}{known}{proof}", applied.len()));
        if args.explain {
            applied.iter().for_each(|one| line("", &one.nodes.join(", ")));
        }
    }
    let kept = m.float32_nodes.len();
    let kept = if kept > 0 { format!("; {kept} nodes stay float32") } else { String::new() };
    line("dtype", &format!("{}: {}{kept}", m.dtype.spelled(), m.dtype_reason.trim_end_matches('.')));
    if args.explain {
        m.float32_nodes.iter().for_each(|one| line("", &format!("{}   {}", one.node, one.reason)));
    }
    for (index, part) in m.parts.iter().enumerate() {
        let outputs: Vec<String> = part.outputs.iter().map(ToString::to_string).collect();
        let inputs: Vec<String> = part.inputs.iter().map(|input| input.name.clone()).collect();
        let label = if index == 0 { "parts" } else { "" };
        line(
            label,
            &format!(
                "{} {}   {} nodes   {} -> {}",
                index + 1,
                runs_on(m, part),
                part.nodes.len(),
                shortened(&inputs, args.explain),
                shortened(&outputs, args.explain)
            ),
        );
    }
    if args.explain {
        m.cpu_reasons.iter().for_each(|r| line("", &format!("cpu   {} ({})   {}", r.node, r.operator, r.reason)));
    } else if !m.cpu_reasons.is_empty() && m.target != "cpu" {
        line("on cpu", &refused_operators(m));
    }
    for quirk in m.quirks.iter().filter(|quirk| quirk.answered) {
        let answer = quirk.answer.as_deref().unwrap_or("the changes above");
        line("avoided", &format!("{}: {}   by {answer}, {} nodes", quirk.id, quirk.symptom, quirk.nodes.len()));
    }
    match checked {
        Some(checked) => checked.lines.iter().for_each(|said| line("checked", said)),
        None => line("checked", "no (--no-check): neither the rewrites nor the result"),
    }
    let size = folder_size(folder);
    line(
        "wrote",
        &format!("{}/   ({}, {:.1} s)", folder.display(), screen::bytes(size), start.elapsed().as_secs_f64()),
    );
}

/// Where a part runs. For a target that is the CPU itself, tract's parts and the host's are told apart.
fn runs_on<'a>(m: &Manifest, part: &'a Part) -> &'a str {
    match (m.target.as_str(), part.name.starts_with("host")) {
        ("cpu", true) => "host",
        ("cpu", false) => "tract",
        _ => &part.device,
    }
}

/// The names, of many only the first, unless `all` are asked for.
fn shortened(names: &[String], all: bool) -> String {
    const SHOWN: usize = 6;
    match names.len().saturating_sub(SHOWN) {
        more if all || more < 2 => names.join(", "),
        more => format!("{} and {more} more", names[..SHOWN].join(", ")),
    }
}

/// `YOLO26l, detect, 671 nodes, 26.3 M parameters, images 1x3x640x640`.
fn describe(prepared: &Prepared) -> String {
    let m = &prepared.manifest;
    let mut words: Vec<String> = prepared.title.iter().cloned().collect();
    words.extend(m.postprocess.as_ref().and_then(|post| post.task.clone()));
    words.push(format!("{} nodes", prepared.original_nodes));
    words.push(match m.model.parameters {
        count @ 0..1_000_000 => format!("{:.1} k parameters", count as f64 / 1e3),
        count => format!("{:.1} M parameters", count as f64 / 1e6),
    });
    words.push(shortened(&m.inputs.iter().map(ToString::to_string).collect::<Vec<_>>(), false));
    words.join(", ")
}

/// `, answers N1 (3 nodes), N3 (1 nodes)` for a rule that known faults call for.
fn answers(m: &Manifest, rule: &str) -> String {
    let answered = m.quirks.iter().filter(|quirk| quirk.answer.as_deref() == Some(rule));
    let told: Vec<String> = answered.map(|quirk| format!("{} ({} nodes)", quirk.id, quirk.nodes.len())).collect();
    if told.is_empty() { String::new() } else { format!(", answers {}", told.join(", ")) }
}

/// The operators that were refused, each once, with the reason.
fn refused_operators(m: &Manifest) -> String {
    let mut seen: indexmap::IndexMap<&str, usize> = indexmap::IndexMap::new();
    for reason in &m.cpu_reasons {
        *seen.entry(reason.operator.as_str()).or_default() += 1;
    }
    let list: Vec<String> =
        seen.iter().map(|(op, n)| if *n > 1 { format!("{op} x {n}") } else { op.to_string() }).collect();
    format!("{}   (--explain says why)", list.join(", "))
}

fn folder_size(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len() as usize).sum()
}
