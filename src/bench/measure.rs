//! The cases of a measurement, each in a process of its own, taking turns.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::{Deserialize, Serialize};

use super::serve::{Request, Round};
use super::{Statistics, memory};

/// One thing to measure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Case {
    /// The target.
    pub target: String,
    /// Batch elements a run.
    pub batch: usize,
    /// Sessions that run at once.
    pub jobs: usize,
}

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Seconds for each case.
    pub seconds: f64,
    /// Runs of each job and case, at most.
    pub runs: usize,
    /// Turns that the cases take.
    pub rounds: usize,
}

/// What was measured of a case.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The case.
    #[serde(flatten)]
    pub case: Case,
    /// What it really ran on, as the engines call themselves.
    pub engine: Option<String>,
    /// What runs took.
    pub times: Option<Statistics>,
    /// Batch elements a second, all jobs together.
    pub elements_per_second: Option<f64>,
    /// What compiling one session took.
    pub compile_seconds: Option<f64>,
    /// The most memory that the process which ran it held.
    pub peak_bytes: Option<u64>,
    /// Why there are no figures, or no more of them.
    pub error: Option<String>,
    /// The exit code of that failure.
    #[serde(skip)]
    pub exit: u8,
}

/// What a case's process says when it is ready, or that it is not.
#[derive(Debug, Deserialize, Serialize)]
pub struct Measured {
    /// What each part runs on.
    pub engine: String,
    /// What compiling took, in seconds.
    pub compile_seconds: f64,
}

/// A case on its way.
struct Running {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    times: Vec<f64>,
    wall: f64,
    row: Row,
}

/// Measures the cases; `command` makes the process that runs one, `step` hears what is being done.
pub fn measure(cases: &[Case], plan: Plan, command: impl Fn(&Case) -> Command, step: &dyn Fn(&str)) -> Vec<Row> {
    let mut all: Vec<Result<Running, Box<Row>>> = Vec::with_capacity(cases.len());
    for case in cases {
        step(&format!("compiling for {}, batch {}", case.target, case.batch));
        all.push(Running::start(case, command(case)));
    }
    let rounds = plan.rounds.clamp(1, plan.runs.max(1));
    for round in 0..rounds {
        // The runs are shared out so that their sum is what was asked for.
        let runs = plan.runs / rounds + usize::from(round < plan.runs % rounds);
        let request = Request { seconds: plan.seconds / rounds as f64, runs };
        for one in &mut all {
            let Ok(running) = one else { continue };
            let Case { target, batch, jobs } = &running.row.case;
            step(&format!("round {} of {rounds}: {target}, batch {batch}, jobs {jobs}", round + 1));
            if let Err(row) = running.round(request) {
                *one = Err(row);
            }
        }
    }
    all.into_iter().map(|one| one.map_or_else(|row| *row, Running::finish)).collect()
}

impl Running {
    fn start(case: &Case, mut command: Command) -> Result<Self, Box<Row>> {
        let row = Row {
            case: case.clone(),
            engine: None,
            times: None,
            elements_per_second: None,
            compile_seconds: None,
            peak_bytes: None,
            error: None,
            exit: 3,
        };
        let failed = |error: String| Box::new(Row { error: Some(error), ..row.clone() });
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(format!("its process does not start: {error}")))?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("its process does not answer".into()));
        };
        let mut running = Self { child, requests, answers: BufReader::new(answers), times: Vec::new(), wall: 0.0, row };
        match running.answer::<Measured>() {
            Some(ready) => {
                running.row.engine = Some(ready.engine);
                running.row.compile_seconds = Some(ready.compile_seconds);
                Ok(running)
            }
            None => Err(running.failed()),
        }
    }

    fn answer<T: for<'a> Deserialize<'a>>(&mut self) -> Option<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    fn round(&mut self, request: Request) -> Result<(), Box<Row>> {
        let asked = serde_json::to_string(&request).unwrap_or_default();
        let sent = writeln!(self.requests, "{asked}").and_then(|()| self.requests.flush());
        match sent.ok().and_then(|()| self.answer::<Round>()) {
            Some(round) => {
                self.times.extend(round.times);
                self.wall += round.wall;
                self.row.peak_bytes = memory::peak(self.child.id()).max(self.row.peak_bytes);
                Ok(())
            }
            None => Err(self.failed()),
        }
    }

    /// What the process said before it ended, or how it ended.
    fn failed(&mut self) -> Box<Row> {
        let mut said = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.take(1 << 16).read_to_string(&mut said);
        }
        let ended = self.child.wait().ok();
        let told = said.lines().filter_map(|line| line.strip_prefix("error: ")).next_back().map(str::to_string);
        let told = told.unwrap_or_else(|| match ended {
            Some(status) => format!("its process ended with {status}"),
            None => "its process is gone".into(),
        });
        self.row.exit = ended.and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        self.row.error = Some(told);
        Box::new(self.summary())
    }

    fn summary(&self) -> Row {
        let mut row = self.row.clone();
        row.times = Statistics::of(&self.times);
        let elements = (self.times.len() * row.case.batch) as f64;
        row.elements_per_second = (self.wall > 0.0).then(|| elements / self.wall);
        row
    }

    fn finish(self) -> Row {
        let mut row = self.summary();
        row.exit = 0;
        let Self { mut child, requests, .. } = self;
        drop(requests); // no more requests: it ends
        let _ = child.wait();
        row
    }
}
