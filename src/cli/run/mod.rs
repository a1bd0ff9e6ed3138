//! `porter run`: a model or a bundle on the user's inputs.

mod report;
mod save;
mod tensor;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::{Failure, Outcome, limits::Limits, progress::Progress, screen, sizes::Sizes};
use crate::engine::EngineError;
use crate::inputs::{self, InputError, Plan};
use crate::postprocess::{RotatedOverlap, Settings, Task};
use crate::reach::{self, ReachError};
use crate::run::{
    Answers, Choice, Crew, FoundIn, Gathered, Pace, Program, ProgramError, RunError, pipeline, read_answers,
    undeclared, without_filling,
};
use crate::target::TargetSet;

use report::Story;
use save::{Drawing, Output};

/// Run a model or a bundle on pictures or arrays, and show what it finds
///
/// A bundle's parts run one after the other, each on its own engine. Pictures are fitted into the size that the model
/// wants, and boxes are given in the pictures' own pixels. Without --input the inputs are made up.
#[derive(clap::Args)]
pub struct Args {
    /// The model (.onnx; a stripped one is filled) or the bundle's folder
    model: PathBuf,
    /// A file (png, jpg, webp, npz, npy, safetensors), a folder or a glob of them; NAME=FILE for one input
    #[arg(short, long = "input", value_name = "[NAME=]FILE")]
    inputs: Vec<String>,
    /// Make up the inputs that are not given; another number gives others
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where to write what comes out: tensors (.npz, .npy, .safetensors) or what was found (.json); may be repeated
    #[arg(short, long = "output", value_name = "FILE")]
    outputs: Vec<PathBuf>,
    /// Draw what was found onto the picture; a folder where there are several
    #[arg(long, value_name = "FILE")]
    draw: Option<PathBuf>,
    /// What runs the model; ONNX Runtime where it is installed, else tract, if left out
    #[arg(short, long)]
    target: Option<String>,
    /// What runs a bundle's parts in place of the target they were made for, such as ort or xla
    #[arg(long, value_name = "TARGET")]
    stand_in: Option<String>,
    /// The kind of device, such as trn2
    #[arg(long)]
    device: Option<String>,
    /// Folder or file with targets or overlays, over those that porter ships
    #[arg(long, value_name = "PATH")]
    targets: Option<PathBuf>,
    #[command(flatten)]
    sizes: Sizes,
    /// Runs that go on at once, each in a session of its own
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Threads within an operator; as the engine chooses if left out
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Run ONNX Runtime in a process of its own as well, as other targets are
    #[arg(long)]
    isolate: bool,
    #[command(flatten)]
    limits: Limits,
    /// Leave out what the model is less sure of
    #[arg(long, default_value_t = 0.25, value_name = "SCORE")]
    conf: f32,
    /// Boxes that overlap by more than this share are one thing, where the model leaves that to be decided
    #[arg(long, default_value_t = 0.7, value_name = "SHARE")]
    iou: f32,
    /// The most boxes a picture
    #[arg(long, default_value_t = 300, value_name = "N")]
    max_boxes: usize,
    /// Let boxes of different classes suppress each other
    #[arg(long)]
    agnostic: bool,
    /// How the overlap of rotated boxes is measured
    #[arg(long, default_value = "gaussian", value_parser = ["gaussian", "exact"], value_name = "HOW")]
    rotated_iou: String,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

impl Args {
    fn settings(&self) -> Settings {
        Settings {
            confidence: self.conf,
            iou: self.iou,
            most: self.max_boxes,
            agnostic: self.agnostic,
            rotated: if self.rotated_iou == "exact" { RotatedOverlap::Exact } else { RotatedOverlap::Gaussian },
            ..Settings::default()
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> Outcome {
    let progress = Progress::new(args.json);
    let targets = match &args.targets {
        Some(path) => TargetSet::load(path).map_err(Failure::diagnostic)?,
        None => TargetSet::shipped(),
    };
    progress.step("reading");
    let mut sizes = args.sizes.freeze();
    let batch = sizes.batch.and_then(|batch| usize::try_from(batch).ok());
    if args.model.is_dir() {
        sizes.batch = None; // a bundle's free batch is chosen by what goes in
    }
    let program = Program::open(&args.model, &sizes).map_err(program_failure)?;
    refuse_target(&args, &program)?;
    let names: Vec<&str> = program.wanted.slots.iter().map(|slot| slot.name.as_str()).collect();
    let given = args.inputs.iter().map(|text| inputs::expand(text, &names)).collect::<Result<Vec<_>, _>>();
    let options = inputs::Options { seed: args.seed, batch };
    let plan = Plan::new(&program.wanted, &given.map_err(input_failure)?, &options).map_err(input_failure)?;
    let read: Vec<&Path> = plan.files().chain([args.model.as_path()]).chain(args.targets.as_deref()).collect();
    let outputs = args.outputs.iter().map(|path| Output::new(path, &read)).collect::<Result<Vec<_>, _>>()?;
    let drawing = args.draw.as_ref().map(|path| Drawing::new(path, &program, &plan, &read)).transpose()?;

    progress.step("compiling");
    let mut options =
        reach::Options { device: args.device.clone(), threads: args.threads.unwrap_or(0), ..Default::default() };
    args.limits.apply(&mut options);
    let isolate = args.isolate || args.limits.any();
    let choice = Choice { target: args.target.clone(), stand_in: args.stand_in.clone(), options, isolate };
    let crew = Crew::gather(&program, &targets, &choice).map_err(|error| reach_failure(error, &program))?;
    let jobs = usize::from(args.jobs).min(plan.runs().max(1));
    let started = Instant::now();
    let mut lines = (0..jobs).map(|_| crew.compile(&program)).collect::<Result<Vec<_>, _>>().map_err(run_failure)?;
    let compiled = started.elapsed();

    progress.step("running");
    let settings = args.settings();
    let (models, keep) = (program.models(plan.is_made_up()), drawing.is_some());
    let listed = args.json || outputs.iter().any(Output::is_json);
    let (masks, alone) = (keep || listed, plan.pictures() == 1);
    let mut story = Story::new(&args.model, &program, &crew, args.stand_in.is_some(), compiled, jobs);
    let mut gathered = Gathered::default();
    let started = Instant::now();
    let load = |run| plan.load(run, &models, keep).map_err(RunError::from);
    // Pictures that are decoded or drawn take longer than what their thread takes from the engine.
    let light = plan.is_held() && !keep;
    let pace = if light && crew.takes_every_core(args.threads.unwrap_or(0)) { Pace::InTurn } else { Pace::Beside };
    pipeline(&mut lines, plan.runs(), pace, load, |mut done| -> Result<(), Failed> {
        progress.step(&format!("running {} of {}", done.run + 1, plan.runs()));
        done.feed.warnings.iter().for_each(|said| screen::note(&format!("warning: {said}")));
        if done.run == 0 {
            let said = undeclared(&done.outputs, &program.declared);
            said.iter().for_each(|said| screen::note(&format!("warning: {said}")));
        }
        story.ran(&done);
        if outputs.iter().any(|output| !output.is_json()) {
            gathered.add(&done);
        }
        if program.head.is_none() {
            story.tensors(&without_filling(&done));
        }
        if let Some(head) = &program.head {
            for found in read_answers(&program, head, &mut done, &settings, masks && head.task == Task::Segment)? {
                if let Some(drawing) = &drawing {
                    drawing.draw(&found)?;
                }
                story.found(kept(found, alone || listed));
            }
        }
        Ok(())
    })
    .map_err(|failed| failed.0)?;
    story.took(started.elapsed());
    story.placed(&lines);
    if lines.iter().all(|line| line.strikes() == Some(0)) {
        screen::note("warning: no node of the model meets the simulated fault: nothing was planted");
    }
    let tensors = gathered.tensors();
    for output in &outputs {
        output.write(&tensors, &story)?;
    }
    progress.done();
    if args.json {
        screen::json(&story.document());
    } else {
        story.text().iter().for_each(|line| screen::println(line));
        let written = args.outputs.iter().chain(&args.draw);
        written.for_each(|path| screen::println(&format!("  {:<10}{}", "wrote", path.display())));
    }
    Ok(ExitCode::SUCCESS)
}

/// What is still needed once a picture is drawn; there may be many.
fn kept(mut found: FoundIn, masks: bool) -> FoundIn {
    found.frame.picture = None;
    if let Answers::Things(things) = &mut found.answers {
        things.iter_mut().for_each(|one| if masks { one.pack() } else { one.mask = None });
    }
    found
}

fn refuse_target(args: &Args, program: &Program) -> Result<(), Failure> {
    match (&program.target, &args.target, &args.stand_in) {
        (None, _, Some(_)) => {
            Err(Failure::input("--stand-in runs a bundle's parts, and this is a model").help("say it with --target"))
        }
        (Some((made_for, _)), Some(asked), _) if made_for != asked => {
            Err(Failure::input(format!("{}: was made for {made_for}, not for {asked}", args.model.display()))
                .help(format!("--stand-in {asked} runs its parts on {asked} all the same")))
        }
        _ => Ok(()),
    }
}

/// A failure on its way out of the pipeline.
struct Failed(Failure);

impl From<RunError> for Failed {
    fn from(error: RunError) -> Self {
        Self(run_failure(error))
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

pub(super) fn program_failure(error: ProgramError) -> Failure {
    match error {
        ProgramError::Model(error) => Failure::from(error),
        error => Failure::input(error),
    }
}

pub(super) fn input_failure(error: InputError) -> Failure {
    Failure::input(error)
}

pub(super) fn reach_failure(error: ReachError, program: &Program) -> Failure {
    match error {
        ReachError::Target(error) => Failure::diagnostic(error),
        ReachError::Spec { .. } => Failure::input(error),
        error if program.target.is_some() => {
            Failure::environment(error).help("--stand-in ort runs the target's parts on ONNX Runtime in its place")
        }
        error => Failure::environment(error),
    }
}

pub(super) fn engine_failure(error: &EngineError, said: String) -> Failure {
    match error {
        EngineError::Absent { .. } => Failure::environment(said),
        EngineError::Input { .. } => Failure::input(said),
        _ => Failure::check(said),
    }
}

pub(super) fn run_failure(error: RunError) -> Failure {
    let said = error.to_string();
    match &error {
        RunError::Input(_) => Failure::input(said),
        RunError::Engine(engine) | RunError::Part { source: engine, .. } => engine_failure(engine, said),
        RunError::Decode(_) | RunError::Crashed { .. } => Failure::check(said),
    }
}

/// `41.2 ms`, `1.3 s`.
fn spoken(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 1e-3 => format!("{:.0} us", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}
