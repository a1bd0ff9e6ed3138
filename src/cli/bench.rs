//! `porter bench`: how fast a model or a bundle is on one target or several.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use serde::Serialize;

use super::run::{input_failure, program_failure, reach_failure, run_failure};
use super::worker::own_output;
use super::{Failure, Outcome, limits::Limits, overwrite, progress::Progress, screen};
use crate::bench::{self, Case, Measured, Row};
use crate::graph::freeze::Freeze;
use crate::inputs::{self, Plan};
use crate::reach;
use crate::run::{Choice, Crew, Program, RunError};
use crate::target::TargetSet;

/// What both the command and the processes it starts are told.
#[derive(clap::Args, Clone, Debug)]
struct Common {
    /// The model (.onnx; a stripped one is filled) or the bundle's folder
    model: PathBuf,
    /// The kind of device, such as trn2
    #[arg(long)]
    device: Option<String>,
    /// Folder or file with targets or overlays, over those that porter ships
    #[arg(long, value_name = "PATH")]
    targets: Option<PathBuf>,
    /// The shape of an input, such as images=1,3,640,640 (may be given for each input)
    #[arg(long = "shape", value_name = "NAME=SIZES", value_parser = super::sizes::parse_shape)]
    shapes: Vec<(String, Vec<i64>)>,
    /// Threads within an operator; as the engine chooses if left out
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Run ONNX Runtime behind the worker protocol as well, as other targets are
    #[arg(long)]
    isolate: bool,
    #[command(flatten)]
    limits: Limits,
    /// Runs that are not measured, before the first that is
    #[arg(long, default_value_t = 2, value_name = "N")]
    warm_up: usize,
}

/// Measure how fast a model or a bundle is: latency, throughput, compile time and memory, by target and batch
///
/// Each target and batch runs in a process of its own; they take turns in short rounds. Inputs are made up.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// The targets, separated by commas; for a bundle, what stands in for its own. What is installed if left out
    #[arg(short, long = "target", value_delimiter = ',', value_name = "TARGET")]
    targets_to_run: Vec<String>,
    /// The batch sizes, separated by commas; what the model fixes, or 1, if left out
    #[arg(long, value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Vec<u32>,
    /// Also measure this many sessions at once
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Seconds for each target, batch and number of jobs
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS")]
    duration: f64,
    /// Runs for each target, batch and job, in place of a duration
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    runs: Option<usize>,
    /// Write the figures as comma-separated values
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw throughput over batch size (.svg)
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

/// One case, in a process that `porter bench` starts; not for people.
#[derive(clap::Args)]
pub struct CaseArgs {
    #[command(flatten)]
    common: Common,
    #[arg(long)]
    target: Option<String>,
    #[arg(long)]
    batch: usize,
    #[arg(long)]
    jobs: usize,
}

#[derive(Serialize)]
struct Document<'a> {
    model: String,
    results: &'a [Row],
}

impl Common {
    fn targets(&self) -> Result<TargetSet, Failure> {
        match &self.targets {
            Some(path) => TargetSet::load(path).map_err(Failure::diagnostic),
            None => Ok(TargetSet::shipped()),
        }
    }

    fn open(&self, batch: Option<i64>) -> Result<Program, Failure> {
        let sizes = Freeze { shapes: self.shapes.clone(), batch };
        Program::open(&self.model, &sizes).map_err(program_failure)
    }

    fn choice(&self, program: &Program, target: Option<&str>) -> Choice {
        let target = target.map(str::to_string);
        let stand_in =
            target.clone().filter(|target| program.target.as_ref().is_some_and(|(made_for, _)| made_for != target));
        let mut options =
            reach::Options { device: self.device.clone(), threads: self.threads.unwrap_or(0), ..Default::default() };
        self.limits.apply(&mut options);
        let isolate = self.isolate || self.limits.any();
        Choice { target: target.filter(|_| stand_in.is_none()), stand_in, options, isolate }
    }
}

/// Runs the command.
pub fn run(args: Args) -> Outcome {
    let progress = Progress::new(args.json);
    if !(args.duration.is_finite() && args.duration > 0.0) || args.runs == Some(0) {
        return Err(Failure::input("--duration and --runs want a number above 0"));
    }
    let read = || [args.common.model.as_path()].into_iter().chain(args.common.targets.as_deref());
    args.csv.iter().chain(&args.plot).try_for_each(|path| overwrite::refuse(path, read()))?;
    progress.step("reading");
    let program = args.common.open(None)?;
    let targets = args.common.targets()?;
    let fixed = program.batch().and_then(|batch| usize::try_from(batch).ok());
    let asked: Vec<usize> = args.batch.iter().map(|&batch| batch as usize).collect();
    if let (Some(fixed), Some(other)) = (fixed, asked.iter().find(|&&batch| Some(batch) != fixed)) {
        return Err(Failure::input(format!(
            "{}: --batch {other}: its batch is fixed at {fixed}; it takes {}",
            args.common.model.display(),
            program.wanted.list()
        ))
        .help("export it with a dynamic batch to measure several"));
    }
    let batches = if asked.is_empty() { vec![fixed.unwrap_or(1)] } else { asked };
    let specs: Vec<Option<String>> = match args.targets_to_run.as_slice() {
        [] => vec![None],
        list => list.iter().cloned().map(Some).collect(),
    };
    // A word that means nothing is said at once, and not by each process.
    for spec in specs.iter().flatten() {
        if let reach::Spec::Named(name) = reach::Spec::parse(spec).map_err(|error| reach_failure(error, &program))? {
            targets.get(&name).map_err(Failure::diagnostic)?;
        }
    }
    let mut jobs = vec![1, usize::from(args.jobs)];
    jobs.dedup();
    let mut cases = Vec::new();
    for spec in &specs {
        for &batch in &batches {
            for &jobs in &jobs {
                cases.push(Case { target: spec.clone().unwrap_or_else(|| default_name(&program)), batch, jobs });
            }
        }
    }
    let porter =
        std::env::current_exe().map_err(|error| Failure::environment(format!("porter's own file: {error}")))?;
    let command = |case: &Case| case_command(&porter, &args, case);
    let plan = bench::Plan {
        seconds: if args.runs.is_some() { 1e6 } else { args.duration },
        runs: args.runs.unwrap_or(usize::MAX),
        rounds: if cases.len() > 1 { 5 } else { 1 },
    };
    let rows = bench::measure(&cases, plan, command, &|step| progress.step(step));
    progress.done();
    let write = |path: &PathBuf, text: String| {
        std::fs::write(path, text)
            .map_err(|error| Failure::unwritten(format!("{}: cannot be written: {error}", path.display()), &error))
    };
    if let Some(path) = &args.csv {
        write(path, bench::csv(&rows))?;
    }
    if let Some(path) = &args.plot {
        let title = args.common.model.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        write(path, bench::chart(&title, &rows))?;
    }
    if args.json {
        screen::json(&Document { model: args.common.model.display().to_string(), results: &rows });
    } else {
        table(&args, &rows).iter().for_each(|line| screen::println(line));
    }
    for row in rows.iter().filter(|row| row.error.is_some()) {
        let error = row.error.as_deref().unwrap_or_default();
        screen::note(&format!("error: {}, batch {}, jobs {}: {error}", row.case.target, row.case.batch, row.case.jobs));
    }
    Ok(ExitCode::from(rows.iter().map(|row| row.exit).max().unwrap_or(0)))
}

/// What runs where no target is named.
fn default_name(program: &Program) -> String {
    program.target.as_ref().map_or_else(|| "default".to_string(), |(target, _)| target.clone())
}

fn case_command(porter: &std::path::Path, args: &Args, case: &Case) -> Command {
    let common = &args.common;
    let mut command = Command::new(porter);
    command.arg("bench-case").arg(&common.model);
    command.args(["--batch", &case.batch.to_string(), "--jobs", &case.jobs.to_string()]);
    if !args.targets_to_run.is_empty() {
        command.args(["--target", &case.target]);
    }
    if let Some(device) = &common.device {
        command.args(["--device", device]);
    }
    if let Some(targets) = &common.targets {
        command.arg("--targets").arg(targets);
    }
    for (name, sizes) in &common.shapes {
        let sizes: Vec<String> = sizes.iter().map(i64::to_string).collect();
        command.args(["--shape", &format!("{name}={}", sizes.join(","))]);
    }
    if let Some(threads) = common.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    if common.isolate {
        command.arg("--isolate");
    }
    command.args(common.limits.arguments());
    command.args(["--warm-up", &common.warm_up.to_string()]);
    command
}

/// Runs one case: says when it is ready, and then answers requests.
pub fn run_case(args: CaseArgs) -> Outcome {
    let mut output = own_output().map_err(|error| Failure::environment(format!("standard output: {error}")))?;
    let common = &args.common;
    let free = common.open(None)?.batch().is_none() && !common.model.is_dir();
    let program = common.open(free.then_some(args.batch as i64))?;
    let targets = common.targets()?;
    let crew = Crew::gather(&program, &targets, &common.choice(&program, args.target.as_deref()))
        .map_err(|error| reach_failure(error, &program))?;
    let start = Instant::now();
    let mut lines = vec![crew.compile(&program).map_err(run_failure)?];
    let compile_seconds = start.elapsed().as_secs_f64();
    for _ in 1..args.jobs {
        lines.push(crew.compile(&program).map_err(run_failure)?);
    }
    let options = inputs::Options { seed: Some(0), batch: Some(args.batch) };
    let plan = Plan::new(&program.wanted, &[], &options).map_err(input_failure)?;
    let feed = plan.load(0, &program.models(true), false).map_err(input_failure)?;
    for line in &mut lines {
        for _ in 0..common.warm_up {
            line.run(feed.tensors.clone()).map_err(run_failure)?;
        }
    }
    let ready = Measured { engine: crew.labels().join(", "), compile_seconds };
    let ready = serde_json::to_string(&ready).map_err(Failure::environment)?;
    writeln!(output, "{ready}").and_then(|()| output.flush()).map_err(Failure::environment)?;
    let outcome = bench::serve(&mut lines, &feed.tensors, std::io::stdin().lock(), output);
    outcome.map_err(|error: RunError| run_failure(error))?;
    Ok(ExitCode::SUCCESS)
}

/// The figures as a table.
fn table(args: &Args, rows: &[Row]) -> Vec<String> {
    let wide = rows.iter().map(|row| row.case.target.chars().count()).max().unwrap_or(0).max(6);
    let mut lines = vec![
        args.common.model.display().to_string(),
        format!(
            "  {:<wide$} {:>5} {:>4} {:>6} {:>10} {:>10} {:>10} {:>10} {:>9} {:>9}",
            "target", "batch", "jobs", "runs", "median", "p95", "p99", "images/s", "compile", "memory"
        ),
    ];
    for row in rows {
        let Case { target, batch, jobs } = &row.case;
        let start = format!("  {target:<wide$} {batch:>5} {jobs:>4}");
        let Some(times) = row.times.as_ref().filter(|_| row.error.is_none()) else {
            lines.push(format!("{start}   {}", row.error.as_deref().unwrap_or("no figures")));
            continue;
        };
        let ms = |value: f64| format!("{value:.2} ms");
        lines.push(format!(
            "{start} {:>6} {:>10} {:>10} {:>10} {:>10.1} {:>9} {:>9}",
            times.runs,
            ms(times.median),
            ms(times.p95),
            ms(times.p99),
            row.elements_per_second.unwrap_or_default(),
            format!("{:.2} s", row.compile_seconds.unwrap_or_default()),
            row.peak_bytes.map_or_else(|| "?".to_string(), |bytes| screen::bytes(bytes as usize)),
        ));
    }
    for path in args.csv.iter().chain(&args.plot) {
        lines.push(format!("  wrote   {}", path.display()));
    }
    lines
}
