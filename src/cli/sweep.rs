//! `porter sweep`: where a fault lives, over batch and sizes.

use std::path::PathBuf;
use std::process::ExitCode;

use super::bisect::{precision, reach_failure};
use super::{Failure, Outcome, progress::Progress, screen};
use crate::bisect::sweep::{self, Axis, Point};
use crate::bisect::{Suspect, repro};
use crate::engine::Tensors;
use crate::reach;
use crate::target::TargetSet;

/// Find the sizes at which a fault shows, and say them as a predicate
///
/// Takes a folder that `porter bisect -o` wrote, or a small model. Exit code 0: it shows nowhere; 1: it shows somewhere.
#[derive(clap::Args)]
pub struct Args {
    /// The folder of a fault, or a model
    repro: PathBuf,
    /// The target, as for bisect
    #[arg(short, long)]
    target: String,
    /// What is right
    #[arg(long, default_value = "ort:off", value_name = "TARGET")]
    reference: String,
    /// Batch sizes, such as 1..16
    #[arg(long, value_parser = parse_range, value_name = "FROM..TO")]
    batch: Option<(i64, i64)>,
    /// Sizes of a dimension of every input: C, H, W, or its number, such as H=8..40
    #[arg(long = "dim", value_parser = parse_dim, value_name = "DIM=FROM..TO")]
    dims: Vec<(String, usize, (i64, i64))>,
    /// Folder or file with targets or overlays, over those that porter ships
    #[arg(long, value_name = "PATH")]
    targets: Option<PathBuf>,
    /// Print the map as one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

fn parse_range(text: &str) -> Result<(i64, i64), String> {
    let form = || "expected FROM..TO, such as 1..16".to_string();
    let (from, to) = text.split_once("..").ok_or_else(form)?;
    match (from.trim().parse::<i64>(), to.trim_start_matches('=').trim().parse::<i64>()) {
        (Ok(from), Ok(to)) if 1 <= from && from <= to && to - from < 4096 => Ok((from, to)),
        _ => Err(form()),
    }
}

fn parse_dim(text: &str) -> Result<(String, usize, (i64, i64)), String> {
    let (name, range) = text.split_once('=').ok_or("expected DIM=FROM..TO, such as H=8..40")?;
    let axis = match name {
        "N" => 0,
        "C" => 1,
        "H" => 2,
        "W" => 3,
        number => number.parse().map_err(|_| format!("'{number}' is not N, C, H, W or a number"))?,
    };
    Ok((name.to_string(), axis, parse_range(range)?))
}

/// Runs the command.
pub fn run(args: Args) -> Outcome {
    let progress = Progress::new(args.json);
    let targets = match &args.targets {
        Some(path) => TargetSet::load(path).map_err(Failure::diagnostic)?,
        None => TargetSet::shipped(),
    };
    let batch = args.batch.map(|(from, to)| Axis { name: "batch".into(), axis: 0, from, to });
    let others =
        args.dims.iter().map(|(name, axis, (from, to))| Axis { name: name.clone(), axis: *axis, from: *from, to: *to });
    let axes: Vec<Axis> = batch.into_iter().chain(others).collect();
    if axes.is_empty() {
        return Err(Failure::input("nothing to vary").help("give --batch 1..16, or --dim H=8..40"));
    }
    let file = if args.repro.is_dir() { args.repro.join("model.onnx") } else { args.repro.clone() };
    let model = crate::load(&file)?;
    let options = reach::Options::default();
    let target = reach::open(&args.target, &targets, &options).map_err(reach_failure)?;
    let reference =
        reach::open(&args.reference, &targets, &reach::Options { isolate: false, ..options }).map_err(reach_failure)?;
    let suspect = Suspect {
        engine: target.engine.as_ref(),
        label: target.label.clone(),
        simulated: target.simulated,
        target: target.target.as_ref(),
        precision: precision(&target, &model),
    };
    let shown: Vec<Tensors> = (0..)
        .map(|sample| args.repro.join(format!("sample{sample}")).join("inputs"))
        .take_while(|folder| folder.is_dir())
        .map(|folder| repro::load(&folder).map_err(Failure::input))
        .collect::<Result<_, _>>()?;
    let found = sweep::sweep(&model, &axes, &shown, reference.engine.as_ref(), &suspect, &|step| progress.step(step));
    progress.done();
    let wrong = found.points.iter().filter(|(_, state)| matches!(state, Point::Wrong(_))).count();
    if args.json {
        screen::json(&found);
    } else {
        found.drawn.iter().for_each(|line| screen::println(line));
        screen::println("# wrong, . right, x the model cannot have these sizes; + and , what surrounds says so");
        match (&found.predicate, wrong) {
            (_, 0) => screen::println("it shows nowhere here"),
            (Some(predicate), _) => {
                screen::println(&format!("where: {predicate}"));
                found.alternatives.iter().for_each(|other| screen::println(&format!("   or: {other}")));
            }
            (None, _) => screen::println("no simple predicate tells these points apart"),
        }
        screen::println(&format!("{} probes on {}", found.probes, target.label));
    }
    Ok(ExitCode::from((wrong > 0) as u8))
}
