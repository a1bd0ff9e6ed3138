//! `porter doctor`: for every target, whether it can be run from here, and what to do if not.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::{Failure, Outcome, screen};
use crate::engine::{Engine, EngineError, Tensors, neuron};
use crate::onnx::Tensor;
use crate::reach::{self, ReachError};
use crate::target::{Reach, Target, TargetSet};
use crate::text;

/// Show for every target whether it is ready, or what is missing and the command that gets it
#[derive(clap::Args)]
pub struct Args {
    /// Only these targets
    names: Vec<String>,
    /// Folder or file with targets or overlays, over those that porter ships
    #[arg(long, value_name = "PATH")]
    targets: Option<PathBuf>,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Finding {
    target: String,
    what: String,
    ready: bool,
    /// What computes, with its version.
    version: Option<String>,
    problem: Option<String>,
    /// What to do about it.
    fix: Option<String>,
    /// What its readiness does not say.
    note: Option<&'static str>,
}

/// What holds of devices that porter's authors do not have.
const NOT_ON_A_DEVICE: &str =
    "porter's part was not run on a device, only against stand-ins: docs/neuron.md says what was";

/// Runs the command. Exit code 0, whatever is missing: that something is missing is what it was asked. With names, 3 if one of
/// them is not ready.
pub fn run(args: Args) -> Outcome {
    let set = match &args.targets {
        Some(path) => TargetSet::load(path).map_err(Failure::diagnostic)?,
        None => TargetSet::shipped(),
    };
    let names: Vec<&str> = match args.names.as_slice() {
        [] => set.names(),
        names => names.iter().map(String::as_str).collect(),
    };
    let mut findings = Vec::new();
    for name in names {
        findings.push(examine(set.get(name).map_err(Failure::diagnostic)?, &set));
    }
    if args.json {
        screen::json(&findings);
    } else {
        findings.iter().for_each(|finding| screen::println(&line(finding)));
    }
    let lacking = !args.names.is_empty() && findings.iter().any(|finding| !finding.ready);
    Ok(if lacking { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

/// Reaches a target as a run would.
fn examine(target: &Target, set: &TargetSet) -> Finding {
    let options = reach::Options { time_limit: Duration::from_secs(60), ..reach::Options::default() };
    let finding = |version, problem: Option<String>, fix| Finding {
        target: target.name.clone(),
        what: target.what.clone(),
        ready: problem.is_none(),
        version,
        problem,
        fix,
        note: matches!(&target.reach, Reach::Lowering { run, .. } if run == neuron::NAME).then_some(NOT_ON_A_DEVICE),
    };
    match reach::open(&target.name, set, &options) {
        Ok(reached) => {
            let version = reached.engine.version();
            let version = if version.is_empty() { "built in".into() } else { version };
            match computes(reached.engine.as_ref()) {
                Ok(()) => finding(Some(version), None, None),
                Err(problem) => {
                    finding(None, Some(format!("{version} is there and does not compute: {problem}")), None)
                }
            }
        }
        Err(ReachError::Engine(EngineError::Absent { problem, fix, .. })) => finding(None, Some(problem), Some(fix)),
        Err(ReachError::NoEngine { .. }) => match &target.reach {
            Reach::Lowering { format, stand_in, .. } => {
                let stand_in = stand_in.as_ref().map(|name| format!("; {name} stands in for its numbers"));
                let problem =
                    format!("not run on a device: porter writes its {format}{}", stand_in.unwrap_or_default());
                finding(
                    None,
                    Some(problem),
                    target.compile.clone().map(|line| format!("On a machine with the toolchain: {line}")),
                )
            }
            _ => finding(None, Some("porter has no engine for it".into()), None),
        },
        Err(error) => finding(None, Some(error.to_string()), None),
    }
}

/// Whether an engine really computes: a library that loads may still lack its device.
fn computes(engine: &dyn Engine) -> Result<(), String> {
    let model =
        text::parse_model("(float[1,4] x) => (float[1,4] y) { y = Relu (x) }").map_err(|error| error.to_string())?;
    let inputs = Tensors::from_iter([("x".to_string(), Tensor::from_f32("x", &[1, 4], &[-1.0, 0.0, 0.5, 2.0]))]);
    let outputs =
        engine.compile(&model).and_then(|mut session| session.run(&inputs)).map_err(|error| error.to_string())?;
    let near = |(&found, wanted): (&f32, f32)| (found - wanted).abs() <= wanted / 100.0; // some compute in 16 bits
    match outputs.get("y").and_then(|y| y.to_f32s().ok()) {
        Some(values) if values.len() == 4 && values.iter().zip([0.0, 0.0, 0.5, 2.0]).all(near) => Ok(()),
        other => Err(format!("Relu of -1, 0, 0.5, 2 came back as {other:?}")),
    }
}

fn line(finding: &Finding) -> String {
    let name = &finding.target;
    let note = finding.note.map(|note| format!("\n{:<10}          {note}", "")).unwrap_or_default();
    match (&finding.version, &finding.problem) {
        (Some(version), _) => format!("{name:<10} ready    {version}{note}"),
        (None, problem) => {
            let fix = finding.fix.as_ref().map(|fix| format!("\n{:<10}          {fix}", "")).unwrap_or_default();
            format!("{name:<10} missing  {}{fix}{note}", problem.clone().unwrap_or_default())
        }
    }
}
