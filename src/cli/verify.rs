//! `porter verify`: runs a model or a bundle on a target and a reference, and says whether they agree.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::progress::Progress;
use super::{Failure, Outcome, overwrite, screen};
use crate::compare::{Metrics, Verdict};
use crate::engine::Tensors;
use crate::graph::freeze::{self, Freeze};
use crate::inputs::{self, Wanted};
use crate::onnx::DType;
use crate::reach::{self, ReachError, Reached};
use crate::target::{Facts, TargetSet};
use crate::verify::{self, Judged, Others, Subject, Verification, VerifyError};

/// Run a model on a target and on a reference, and judge every output by what rounding explains
///
/// Exit code 0 where every output agrees, 1 where one differs or the target did not run the model, 4 where nothing can be
/// said because rounding alone makes as much of a difference as the values are apart.
#[derive(clap::Args)]
pub struct Args {
    /// The model, or the folder of a bundle
    model: PathBuf,
    /// What to verify: cpu, ort, a target file's name, worker:COMMAND, faulty:ID
    #[arg(long)]
    target: String,
    /// What to hold it against; ort:off where ONNX Runtime is installed, else tract
    #[arg(long)]
    reference: Option<String>,
    /// The model that a bundle was made from, where it does not lie beside it
    #[arg(long = "model", value_name = "MODEL")]
    original: Option<PathBuf>,
    /// Your own inputs in place of samples: npz, npy, safetensors, pictures, a folder or glob of them; NAME=FILE for one
    /// input of several
    #[arg(long = "input", value_name = "FILE")]
    inputs: Vec<String>,
    /// Samples of the first batch size: structured, white noise, constant, then more structured ones
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    samples: u64,
    /// Another seed gives other samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Batch sizes to try where the batch is free [default: 1,2,4]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(i64).range(1..))]
    batch: Vec<i64>,
    /// The shape of an input, such as images=1,3,640,640 (may be given for each input)
    #[arg(long = "shape", value_name = "NAME=SIZES", value_parser = super::sizes::parse_shape)]
    shapes: Vec<(String, Vec<i64>)>,
    /// The element type whose rounding is allowed: float32, bfloat16, float16; the target's own where none is named
    #[arg(long, value_parser = super::prepare::parse_dtype)]
    dtype: Option<DType>,
    /// Compare every tensor inside of the model too, by making it an output (can change how a target fuses)
    #[arg(long)]
    all_tensors: bool,
    /// A target file, or a folder of them, over the shipped ones
    #[arg(long, value_name = "PATH")]
    targets: Option<PathBuf>,
    /// The kind of device
    #[arg(long)]
    device: Option<String>,
    /// Seconds that one request to a target in a process of its own may take
    #[arg(long, default_value_t = 600)]
    time_limit: u64,
    /// Write the result as JSON to standard output, and nothing else
    #[arg(long)]
    json: bool,
    /// Write a report that needs nothing else to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the result as JSON to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> Outcome {
    let start = Instant::now();
    let read = [Some(args.model.as_path()), args.original.as_deref(), args.targets.as_deref()];
    refuse_to_overwrite(&args, read.into_iter().flatten())?;
    let progress = Progress::new(args.json);
    let targets = match &args.targets {
        Some(path) => TargetSet::load(path).map_err(Failure::diagnostic)?,
        None => TargetSet::shipped(),
    };
    let reaching = reach::Options {
        device: args.device.clone(),
        time_limit: Duration::from_secs(args.time_limit),
        ..Default::default()
    };
    let open = |spec: &str| reach::open(spec, &targets, &reaching).map_err(reach_failure);
    progress.step("reading");
    let subject = Subject::open(&args.model, args.original.as_deref()).map_err(|error| failure(&args.model, error))?;
    // Engines on the CPU emulate a bundle in 16 bits, and what they emulate they must not optimise away.
    let half = subject.half().is_some();
    let plain = |spec: &str| match half {
        true => reach::unoptimised(spec).map_err(reach_failure),
        false => Ok(spec.to_string()),
    };
    let target = open(&plain(&args.target)?)?;
    let reference = reference(args.reference.as_deref(), &open)?;
    let host = open(&plain("ort:basic")?).or_else(|_| open("tract"))?;
    let others = Others {
        reference: &*reference.engine,
        label: reference.label.clone(),
        simulated: reference.simulated,
        host: &*host.engine,
        decider: None,
    };
    let options = verify::Options {
        samples: args.samples as usize,
        seed: args.seed,
        batches: args.batch.clone(),
        freeze: Freeze { shapes: args.shapes.clone(), batch: None },
        dtype: args.dtype,
        given: given(&args, &subject)?,
        all_tensors: args.all_tensors,
        ..Default::default()
    };
    let found = verify::verify(&subject, &target, &others, &options, &|step| progress.step(step))
        .map_err(|error| failure(&args.model, error))?;
    progress.done();
    if let Some(path) = &args.html {
        write(path, &verify::html(&found))?;
    }
    if let Some(path) = &args.output {
        let text = serde_json::to_string_pretty(&found).map_err(Failure::environment)?;
        write(path, &(text + "\n"))?;
    }
    match args.json {
        true => screen::json(&found),
        false => tell(&args, &found, start),
    }
    Ok(ExitCode::from(match found.verdict {
        verify::Outcome::Same => 0,
        verify::Outcome::Differs | verify::Outcome::Broken => 1,
        verify::Outcome::Unclear => 4,
    }))
}

/// The user's own inputs, one sample for each run they make.
fn given(args: &Args, subject: &Subject) -> Result<Vec<(String, Tensors)>, Failure> {
    if args.inputs.is_empty() {
        return Ok(Vec::new());
    }
    if args.batch.len() > 1 {
        return Err(Failure::input(
            "--batch with --input wants one number: your own files are put together in batches of that",
        )
        .help("run it once for each batch size"));
    }
    let mut model = subject.model.clone();
    freeze::freeze(&mut model, &Freeze { shapes: args.shapes.clone(), batch: None }).map_err(Failure::input)?;
    let wanted = match &subject.bundle {
        Some(parts) => Wanted::listed(&parts.manifest, Facts::of(&subject.model)),
        None => Wanted::by(&model),
    };
    let batch = args.batch.first().and_then(|&batch| usize::try_from(batch).ok());
    let options = inputs::Options { seed: Some(args.seed), batch };
    let writes: Vec<&Path> = args.html.iter().chain(&args.output).map(PathBuf::as_path).collect();
    super::given::samples(&args.inputs, &wanted, &options, &[model], usize::MAX, &writes)
}

fn refuse_to_overwrite<'a>(args: &Args, read: impl Iterator<Item = &'a Path>) -> Result<(), Failure> {
    let read: Vec<&Path> = read.collect();
    args.html.iter().chain(&args.output).try_for_each(|path| overwrite::refuse(path, read.iter().copied()))
}

/// ONNX Runtime with its optimisation off, or where that is not installed, tract.
fn reference(asked: Option<&str>, open: &dyn Fn(&str) -> Result<Reached, Failure>) -> Result<Reached, Failure> {
    match asked {
        Some(spec) => open(spec),
        None => open("ort:off").or_else(|_| open("tract")),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| Failure::unwritten(format!("{}: {error}", path.display()), &error))
}

fn reach_failure(error: ReachError) -> Failure {
    match error {
        ReachError::Target(error) => Failure::diagnostic(error),
        ReachError::Engine(error) => Failure::environment(error),
        ReachError::NoEngine { .. } => Failure::environment(error).help("`porter targets` lists them"),
        error => Failure::input(error),
    }
}

fn failure(model: &Path, error: VerifyError) -> Failure {
    match error {
        VerifyError::Onnx(error) => error.into(),
        VerifyError::Target(error) => Failure::diagnostic(error),
        VerifyError::Engine(error) => Failure::environment(error),
        VerifyError::Reference(error) if error.is_absence() => Failure::environment(error),
        VerifyError::Reference(_) => Failure::input(format!("{}: {error}", model.display()))
            .help("`--reference tract` or `--reference ort` takes another one"),
        error => Failure::input(format!("{}: {error}", model.display())),
    }
}

/// The outcome for the screen.
fn tell(args: &Args, found: &Verification, start: Instant) {
    let say = screen::println;
    say(&format!("{}   {} against {}", args.model.display(), found.target.name, found.reference.name));
    let line = |label: &str, text: &str| say(&format!("  {label:<11}{text}"));
    found.assumed.iter().for_each(|said| line("assumed", said));
    line("rounding", &format!("{}: {}", found.dtype.spelled(), found.dtype_reason.trim_end_matches('.')));
    for sample in &found.samples {
        line("sample", &format!("{:<28}{}", sample.name, sample.verdict.name()));
    }
    let worst = found.worst();
    if !worst.is_empty() {
        say("");
        say(&format!(
            "  {:<34} {:>10} {:>10} {:>10} {:>12}   {}",
            "tensor", "error", "expected", "allowed", "worst cosine", "verdict"
        ));
    }
    // A model's inside has hundreds of tensors: those that differ, and the outputs.
    let shown = |judged: &Judged| judged.output || judged.finding.verdict != Verdict::Same;
    let mut hidden = 0;
    for (judged, _) in worst {
        if !shown(judged) {
            hidden += 1;
            continue;
        }
        row(judged);
    }
    let samples = found.samples.iter().filter(|sample| !sample.answers.is_empty());
    for sample in samples {
        sample.answers.iter().for_each(|one| answer(&sample.name, one));
    }
    if hidden > 0 {
        say(&format!("  and {hidden} tensors inside of the model that agree"));
    }
    say("");
    found.story.iter().for_each(|sentence| say(sentence));
    say(&format!("{}   ({:.1} s)", found.verdict.name(), start.elapsed().as_secs_f64()));
}

/// The largest error, or that there are no numbers to speak of.
fn error_of(metrics: &Metrics) -> String {
    match metrics.non_finite_apart {
        0 => format!("{:.1e}", metrics.max_abs),
        count => format!("{count} NaN"),
    }
}

/// `12.5 %`, `x 770`: how much of what is allowed is taken.
fn share_of(strain: f64) -> String {
    match strain {
        strain if !strain.is_finite() => "-".into(),
        strain if strain >= 10.0 => format!("x {strain:.0}"),
        strain => format!("{:.1} %", 100.0 * strain),
    }
}

/// What is found with the predictions of one batch element.
fn answer(sample: &str, one: &verify::Found) {
    let (agreed, expected) = (&one.agreement, &one.expected);
    let element = if one.element > 0 { format!(", element {}", one.element) } else { String::new() };
    let place = format!("{sample}{element}");
    if agreed.count == 0 && one.found == 0 {
        return;
    }
    let lost = if agreed.lost > 0 { format!(", {} lost", agreed.lost) } else { String::new() };
    screen::println(&format!(
        "    found on {place}: {} of {} agree{lost}; worst box {:.3} px ({:.3} expected), IoU {:.4}, score {:.1e}",
        agreed.agree, agreed.count, agreed.worst_box, expected.worst_box, agreed.worst_iou, agreed.worst_score
    ));
}

fn row(judged: &Judged) {
    let finding = &judged.finding;
    let verdict = verify::Outcome::from(finding.verdict).name();
    let Some(m) = &finding.metrics else {
        screen::println(&format!("  {:<34}{verdict}: {}", finding.name, finding.reason));
        return;
    };
    let share = if m.non_finite_apart > 0 { "-".into() } else { share_of(finding.strain) };
    screen::println(&format!(
        "  {:<34} {:>10} {:>10.1e} {share:>10} {:>12.9}   {verdict}",
        finding.name,
        error_of(m),
        finding.expected,
        m.worst_cosine
    ));
    for block in &judged.blocks {
        let m = &block.metrics;
        screen::println(&format!(
            "    {:<32} {:>10} {:>10} {:>10} {:>12.9}",
            block.block.name,
            error_of(m),
            "",
            block.strain.map(share_of).unwrap_or_default(),
            m.worst_cosine
        ));
    }
    for (element, one) in finding.detections.iter().enumerate() {
        let element = if finding.detections.len() > 1 { format!(" of batch element {element}") } else { String::new() };
        let lost = if one.lost > 0 { format!(", {} lost", one.lost) } else { String::new() };
        screen::println(&format!(
            "    {} of {} detections{element} agree{lost}; worst box {:.2} px, IoU {:.4}, score {:.1e}",
            one.agree, one.count, one.worst_box, one.worst_iou, one.worst_score
        ));
    }
}
