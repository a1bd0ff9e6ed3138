//! A worker's process: one request at a time, each with a time limit; whatever goes wrong has a name.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::protocol::{Answer, Call, Fault, Hello, Request, VERSION};
use super::system;
use super::{leftover, log};

/// The longest line that a worker may answer, in bytes.
const LONGEST: u64 = 16 << 20;
/// How long a worker may take to leave after it was asked to, or after it closed its output.
const GRACE: Duration = Duration::from_secs(2);

/// What is started.
#[derive(Clone, Debug)]
pub enum Start {
    /// A command line, given to the shell.
    Shell {
        /// The line.
        line: String,
        /// Files that are laid into the scratch folder first: their names and what is in them.
        files: Vec<(&'static str, &'static str)>,
    },
    /// A program with arguments.
    Program(PathBuf, Vec<String>),
    /// A Python, with files (names, and what is in them) that are laid into the scratch folder; it runs the first.
    Python(PathBuf, Vec<(&'static str, &'static str)>),
}

impl Start {
    /// A command line, given to the shell.
    pub fn shell(line: impl Into<String>) -> Self {
        Start::Shell { line: line.into(), files: Vec::new() }
    }
}

/// What a worker is held to.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest that it may take to start and to answer the first question: Python packages load slowly.
    pub start: Duration,
    /// The longest that a request may take.
    pub time: Duration,
    /// The most address space, in bytes, that each of its processes may take (`RLIMIT_AS`; on Unix only). Libraries
    /// for GPUs reserve far more address space than memory: leave it open for them.
    pub memory: Option<u64>,
    /// Where its scratch folder is made.
    pub scratch: PathBuf,
    /// Where the logs of failed workers are kept.
    pub logs: PathBuf,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(120),
            time: Duration::from_secs(600),
            memory: None,
            scratch: std::env::temp_dir(),
            logs: crate::home::logs(),
        }
    }
}

/// How a worker failed: it is gone, and with it whatever it had compiled.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Death {
    /// `exit:70`, `signal:11`, `timeout`, `protocol`.
    pub code: String,
    /// What happened, with the end of its log and where the rest is.
    pub problem: String,
    /// What is missing and what to do about it, where the worker said so when it was greeted.
    pub absent: Option<(String, String)>,
}

/// A running worker. Dropped, it is ended, with its group and its folder.
pub(super) struct Process {
    child: Child,
    input: Option<Input>,
    lines: Receiver<Line>,
    through_shell: bool,
    next: u64,
    files: u64,
    limits: Limits,
    scratch: TempDir,
    /// Says that the scratch folder is in use, for as long as it is open.
    _claim: File,
    log_read: u64,
    pub hello: Hello,
}

/// A worker's standard input, written to by a thread of its own: one that does not read must not hold porter up.
struct Input {
    requests: SyncSender<Vec<u8>>,
    written: Receiver<std::io::Result<()>>,
}

impl Input {
    fn new(mut pipe: ChildStdin) -> Self {
        let (requests, waiting) = sync_channel::<Vec<u8>>(1);
        let (done, written) = sync_channel(1);
        // Ends, and with it the worker's input, when nobody has a request any more; or when the worker is gone.
        std::thread::spawn(move || {
            for request in waiting {
                let outcome = pipe.write_all(&request).and_then(|()| pipe.flush());
                if done.send(outcome).is_err() {
                    return;
                }
            }
        });
        Self { requests, written }
    }

    /// Writes a line; an error of kind `TimedOut` where the worker does not read it in time.
    fn write(&self, line: Vec<u8>, limit: Duration) -> std::io::Result<()> {
        let gone = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        self.requests.try_send(line).map_err(|_| gone())?;
        match self.written.recv_timeout(limit) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => Err(std::io::ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }
}

enum Line {
    Whole(Vec<u8>),
    /// The output ended in the middle of it.
    Cut,
    TooLong,
}

impl Process {
    /// Starts a worker and greets it.
    pub fn start(start: &Start, limits: &Limits) -> Result<Self, Death> {
        let failed = |problem: String| Death { code: "start".into(), problem, absent: None };
        leftover::sweep(&limits.scratch);
        let scratch = tempfile::Builder::new()
            .prefix(leftover::PREFIX)
            .tempdir_in(&limits.scratch)
            .map_err(|error| failed(format!("no scratch folder: {error}")))?;
        let claim = leftover::claim(scratch.path()).map_err(|error| failed(format!("no scratch folder: {error}")))?;
        if let Start::Shell { files, .. } | Start::Python(_, files) = start {
            for (name, text) in files {
                std::fs::write(scratch.path().join(name), text).map_err(|error| failed(format!("{name}: {error}")))?;
            }
        }
        let log = File::create(scratch.path().join(log::NAME)).map_err(|error| failed(error.to_string()))?;
        let mut command = match start {
            Start::Shell { line, .. } if cfg!(windows) => arguments("cmd", ["/C", line]),
            Start::Shell { line, .. } => arguments("sh", ["-c", line]),
            Start::Program(program, list) => arguments(program, list),
            Start::Python(python, files) => arguments(python, files.first().map(|(name, _)| scratch.path().join(name))),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).env("PORTER_WORKDIR", scratch.path());
        let mut child = system::start(command, limits.memory, scratch.path())
            .map_err(|error| failed(format!("it could not be started: {error}")))?;
        let (sender, lines) = sync_channel(16);
        let (input, output) = (child.stdin.take(), child.stdout.take());
        std::thread::spawn(move || {
            let Some(output) = output else { return };
            let mut output = BufReader::new(output);
            // Ends with the worker's output, or when nobody listens any more.
            while let Some(line) = read_line(&mut output) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut process = Self {
            child,
            input: input.map(Input::new),
            lines,
            through_shell: matches!(start, Start::Shell { .. }),
            next: 0,
            files: 0,
            limits: limits.clone(),
            scratch,
            _claim: claim,
            log_read: 0,
            hello: Hello::default(),
        };
        match process.request_within(limits.start, Call::Hello { protocol: VERSION })? {
            Ok(told) => {
                let hello: Hello = serde_json::from_value(told)
                    .map_err(|error| process.broke(format!("its answer to hello makes no sense: {error}")))?;
                if hello.protocol != VERSION {
                    let theirs = hello.protocol;
                    return Err(process.broke(format!("it speaks version {theirs} of the protocol, not {VERSION}")));
                }
                process.hello = hello;
                Ok(process)
            }
            Err(fault) => {
                let absent = fault.fix.map(|fix| (fault.message.clone(), fix));
                Err(Death { code: fault.code.unwrap_or_else(|| "hello".into()), problem: fault.message, absent })
            }
        }
    }

    /// Its scratch folder.
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// A name that no file of its folder has yet.
    pub fn fresh(&mut self, what: &str) -> String {
        self.files += 1;
        format!("{what}-{}", self.files)
    }

    /// Whether it is still there; it may have died since its last answer.
    pub fn is_alive(&mut self) -> bool {
        !system::has_exited(&mut self.child)
    }

    /// Asks and waits for the answer. After a [`Death`] it is good for nothing and must be dropped.
    pub fn request(&mut self, call: Call) -> Result<Result<Value, Fault>, Death> {
        self.request_within(self.limits.time, call)
    }

    fn request_within(&mut self, limit: Duration, call: Call) -> Result<Result<Value, Fault>, Death> {
        self.next += 1;
        let id = self.next;
        let mut text = serde_json::to_string(&Request { id, call }).map_err(|error| Death {
            code: "protocol".into(),
            problem: error.to_string(),
            absent: None,
        })?;
        text.push('\n');
        let asked = Instant::now();
        let late = |told: &str| format!("{told} within {}", seconds(limit));
        match self.input.as_ref().map(|input| input.write(text.into_bytes(), limit)) {
            Some(Ok(())) => {}
            Some(Err(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
                return Err(self.death("timeout".into(), late("it did not read what it was asked")));
            }
            _ => return Err(self.gone("before it was asked")),
        }
        let line = match self.lines.recv_timeout(limit.saturating_sub(asked.elapsed())) {
            Ok(Line::Whole(line)) => line,
            Ok(Line::Cut) => return Err(self.gone("in the middle of its answer")),
            Ok(Line::TooLong) => return Err(self.broke(format!("it answered with a line of over {LONGEST} bytes"))),
            Err(RecvTimeoutError::Disconnected) => return Err(self.gone("before it answered")),
            Err(RecvTimeoutError::Timeout) => {
                return Err(self.death("timeout".into(), late("no answer")));
            }
        };
        let answer: Value = match serde_json::from_slice(&line) {
            Ok(answer) => answer,
            Err(_) => return Err(self.broke(format!("it answered with a line that is no JSON: {}", shown(&line)))),
        };
        let answer: Answer = match serde_json::from_value(answer) {
            Ok(answer) => answer,
            Err(error) => return Err(self.broke(format!("its answer makes no sense ({error}): {}", shown(&line)))),
        };
        if answer.id != id {
            return Err(self.broke(format!("it answered request {} when asked request {id}", answer.id)));
        }
        match (answer.result, answer.error) {
            (_, Some(mut fault)) => {
                self.keep_fault_log(&mut fault);
                Ok(Err(fault))
            }
            (Some(result), None) => {
                self.log_read = log::length(&self.log());
                Ok(Ok(result))
            }
            (None, None) => Err(self.broke(format!("its answer has neither result nor error: {}", shown(&line)))),
        }
    }

    /// Asks it to leave, and sees to it that it does.
    pub fn quit(mut self) {
        if let Some(input) = &self.input {
            let text = format!("{{\"id\":{},\"method\":\"quit\",\"params\":{{}}}}\n", self.next + 1);
            let _ = input.write(text.into_bytes(), GRACE);
        }
        self.input = None; // the end of its input says the same
        self.wait(GRACE);
    }

    fn log(&self) -> PathBuf {
        self.scratch.path().join(log::NAME)
    }

    /// What the worker wrote about a fault, out of the scratch folder and into the folder of logs.
    fn keep_fault_log(&mut self, fault: &mut Fault) {
        let named = fault.log.take().map(|path| if path.is_relative() { self.folder().join(path) } else { path });
        fault.log = match named.filter(|path| path.is_file()) {
            // A log outside the scratch folder is the worker's own to keep.
            Some(path) if !path.starts_with(self.folder()) => Some(path),
            Some(path) => log::keep(&path, 0, &self.limits.logs).map(|kept| kept.path),
            None => log::keep(&self.log(), self.log_read, &self.limits.logs).map(|kept| kept.path),
        };
        self.log_read = log::length(&self.log());
    }

    /// It does not keep to the protocol.
    pub fn broke(&mut self, problem: String) -> Death {
        self.death("protocol".into(), problem)
    }

    /// Its output has ended, or its input: it has exited, or soon will.
    fn gone(&mut self, when: &str) -> Death {
        if !self.wait(GRACE.min(self.limits.time)) {
            return self.death("protocol".into(), format!("it closed its output {when} and stayed"));
        }
        let code = self.code();
        let told = match code.split_once(':') {
            Some(("signal", number)) => format!("it was killed by signal {number}{} {when}", signal_name(number)),
            Some((_, number)) => format!("it exited with {number} {when}"),
            None => format!("it ended {when}"),
        };
        self.death(code, told)
    }

    /// Waits until it has exited; whether it has.
    fn wait(&mut self, limit: Duration) -> bool {
        let start = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            if system::has_exited(&mut self.child) {
                return true;
            }
            if start.elapsed() >= limit {
                return false;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// How it ended; ends the rest of its group.
    fn code(&mut self) -> String {
        system::end(&mut self.child);
        self.child.wait().map_or_else(|_| "exit:unknown".into(), |status| code_of(status, self.through_shell))
    }

    fn death(&mut self, code: String, problem: String) -> Death {
        system::end(&mut self.child);
        let problem = match log::keep(&self.log(), self.log_read, &self.limits.logs) {
            Some(kept) => format!("{problem}; its log ends with {:?} and is kept in {}", kept.end, kept.path.display()),
            None => problem,
        };
        Death { code, problem, absent: None }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.input = None;
        system::end(&mut self.child);
    }
}

fn arguments<I: AsRef<std::ffi::OsStr>>(
    program: impl AsRef<std::ffi::OsStr>,
    list: impl IntoIterator<Item = I>,
) -> Command {
    let mut command = Command::new(program);
    command.args(list);
    command
}

/// The next line, without its end; `None` where the output ends.
fn read_line(output: &mut impl BufRead) -> Option<Line> {
    let mut line = Vec::new();
    let read = output.by_ref().take(LONGEST).read_until(b'\n', &mut line).ok()?;
    match (read, line.last()) {
        (0, _) => None,
        (_, Some(b'\n')) => {
            line.pop();
            Some(Line::Whole(line))
        }
        _ if read as u64 == LONGEST => Some(Line::TooLong),
        _ => Some(Line::Cut),
    }
}

/// The name of how a process ended. A shell says `128 + n` for a command of its that died of signal n.
fn code_of(status: ExitStatus, through_shell: bool) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("signal:{signal}");
    }
    match status.code() {
        Some(code @ 129..=192) if through_shell => format!("signal:{}", code - 128),
        Some(code) => format!("exit:{code}"),
        None => "exit:unknown".into(),
    }
}

fn signal_name(number: &str) -> &'static str {
    match number {
        "4" => " (illegal instruction)",
        "6" => " (abort)",
        "7" | "10" => " (bus error)",
        "8" => " (arithmetic)",
        "9" => " (killed, as for want of memory)",
        "11" => " (segmentation fault)",
        "15" => " (terminated)",
        _ => "",
    }
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) { format!("{} ms", time.as_millis()) } else { format!("{} s", time.as_secs_f32()) }
}

/// The start of a line, for a message.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let short: String = text.chars().take(80).collect();
    if short.len() < text.len() { format!("{short:?}...") } else { format!("{short:?}") }
}
