//! The process that runs one case: it compiles, says so, and then answers each request for a round with its times.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::engine::Tensors;
use crate::run::{Line, RunError, said};

/// A round that is asked for: it ends after so long, or so many runs of each job, whichever is first.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Request {
    /// The longest it goes on, in seconds.
    pub seconds: f64,
    /// The most runs a job.
    pub runs: usize,
}

/// What a round gave.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Round {
    /// What each run took, in seconds, of all jobs.
    pub times: Vec<f64>,
    /// What the whole round took, in seconds.
    pub wall: f64,
}

/// Answers requests until there are no more: one JSON object a line, each way.
///
/// # Errors
/// A run that fails.
pub fn serve(
    lines: &mut [Line],
    inputs: &Tensors,
    requests: impl BufRead,
    mut answers: impl Write,
) -> Result<(), RunError> {
    for line in requests.lines() {
        let Some(request) = line.ok().and_then(|line| serde_json::from_str::<Request>(&line).ok()) else { break };
        let answer = serde_json::to_string(&round(lines, inputs, request)?).unwrap_or_default();
        if writeln!(answers, "{answer}").and_then(|()| answers.flush()).is_err() {
            break; // whoever asked is gone
        }
    }
    Ok(())
}

/// Runs a round; every line in a thread of its own.
fn round(lines: &mut [Line], inputs: &Tensors, request: Request) -> Result<Round, RunError> {
    let start = Instant::now();
    let limit = Duration::try_from_secs_f64(request.seconds).unwrap_or(Duration::from_secs(3600));
    let job = |line: &mut Line| -> Result<Vec<f64>, RunError> {
        let mut times = Vec::new();
        while times.len() < request.runs && (times.is_empty() || start.elapsed() < limit) {
            let begun = Instant::now();
            line.run(inputs.clone())?;
            times.push(begun.elapsed().as_secs_f64());
        }
        Ok(times)
    };
    let mut round = Round::default();
    if let [line] = lines {
        round.times = job(line)?;
    } else {
        let all: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = lines.iter_mut().map(|line| scope.spawn(|| job(line))).collect();
            threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
        });
        for times in all {
            round
                .times
                .extend(times.map_err(|panic| RunError::Crashed { part: "job".into(), panic: said(panic.as_ref()) })??);
        }
    }
    round.wall = start.elapsed().as_secs_f64();
    Ok(round)
}
