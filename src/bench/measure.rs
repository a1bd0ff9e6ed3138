//! The cases of a measurement, each in a process of its own, taking turns.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::serve::{Request, Round};
use super::{Statistics, memory};

/// The longest that compiling may take, and a round beyond the time it was given. Targets behind the worker protocol have
/// limits of their own, which are shorter.
const LONGEST: Duration = Duration::from_secs(3600);
/// Bytes of a process's standard error that are kept.
const MOST_SAID: usize = 1 << 16;

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
    /// Closed to say that there is nothing more to do.
    requests: Option<ChildStdin>,
    /// The lines it answers, read beside, so that one that never comes does not keep porter waiting for ever.
    answers: Receiver<String>,
    /// The end of what it writes to standard error.
    errors: Option<JoinHandle<Vec<u8>>>,
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
        let (Some(answers), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed("its process does not answer".into()));
        };
        let (told, heard) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(answers).lines().map_while(Result::ok) {
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = Some(thread::spawn(move || last_of(errors, MOST_SAID)));
        let requests = child.stdin.take();
        let mut running = Self { child, requests, answers: heard, errors, times: Vec::new(), wall: 0.0, row };
        match running.answer::<Measured>(LONGEST) {
            Ok(ready) => {
                running.row.engine = Some(ready.engine);
                running.row.compile_seconds = Some(ready.compile_seconds);
                Ok(running)
            }
            Err(why) => Err(running.failed(why)),
        }
    }

    fn answer<T: for<'a> Deserialize<'a>>(&mut self, within: Duration) -> Result<T, Option<String>> {
        match self.answers.recv_timeout(within) {
            Ok(line) => serde_json::from_str(&line).map_err(|_| Some(format!("its process answers nonsense: {line}"))),
            Err(RecvTimeoutError::Timeout) => Err(Some(format!("no answer within {} s", within.as_secs()))),
            Err(RecvTimeoutError::Disconnected) => Err(None), // it ended, and will have said why
        }
    }

    fn round(&mut self, request: Request) -> Result<(), Box<Row>> {
        let asked = serde_json::to_string(&request).unwrap_or_default();
        // One that is gone cannot be asked; that it does not answer tells so, too.
        let _ = self.requests.as_mut().map(|to| writeln!(to, "{asked}").and_then(|()| to.flush()));
        let within = LONGEST + Duration::try_from_secs_f64(request.seconds).unwrap_or(LONGEST).min(30 * LONGEST);
        match self.answer::<Round>(within) {
            Ok(round) => {
                self.times.extend(round.times);
                self.wall += round.wall;
                self.row.peak_bytes = memory::peak(self.child.id()).max(self.row.peak_bytes);
                Ok(())
            }
            Err(why) => Err(self.failed(why)),
        }
    }

    /// Why there are no figures: `why`, or what the process said before it ended, or how it ended.
    fn failed(&mut self, why: Option<String>) -> Box<Row> {
        drop(self.requests.take());
        if why.is_some() {
            let _ = self.child.kill(); // it has had its time, or its answers mean nothing
        }
        let ended = self.child.wait().ok();
        if let Some(why) = why {
            (self.row.exit, self.row.error) = (1, Some(why));
            return Box::new(self.summary());
        }
        let said = self.errors.take().and_then(|errors| errors.join().ok()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
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

/// Reads to the end and keeps the last `most` bytes.
fn last_of(mut from: impl Read, most: usize) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), [0; 1 << 12]);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..count]);
        let over = kept.len().saturating_sub(most);
        if over > most {
            kept.drain(..over);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row_of(script: &str) -> Row {
        let shell = |_: &Case| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let case = Case { target: "t".into(), batch: 1, jobs: 1 };
        measure(&[case], Plan { seconds: 0.1, runs: 2, rounds: 1 }, shell, &|_| {}).remove(0)
    }

    #[test]
    fn a_process_that_talks_much_or_nonsense_is_told_from_one_that_measures() {
        let ready = r#"echo '{"engine":"e","compile_seconds":0.5}'; read request"#;
        let good = row_of(&format!(r#"{ready}; echo '{{"times":[0.001,0.003],"wall":0.004}}'; read end"#));
        assert_eq!((good.exit, good.times.unwrap().runs, good.engine.as_deref()), (0, 2, Some("e")));
        // More on standard error than a pipe holds, and the reason last.
        let loud = row_of("yes noise | head -n 200000 >&2; echo 'error: out of luck' >&2; exit 3");
        assert_eq!((loud.exit, loud.error.as_deref()), (3, Some("out of luck")));
        let nonsense = row_of(&format!("{ready}; echo hello; sleep 60"));
        assert!(nonsense.error.unwrap().contains("hello"));
    }
}
