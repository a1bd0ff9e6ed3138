//! Workers that fail, in every way and many times over: each failure has a name, and nothing is left behind.
#![cfg(unix)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use porter::engine::worker::{Limits, Start, Worker, write_tensors};
use porter::engine::{Engine, EngineError, Tensors, samples};
use porter::graph::Model;
use porter::onnx::{DType, Tensor};
use porter::reach::{self, Options};
use porter::target::TargetSet;

/// A worker in the shell's own words. `$1` says how it fails when asked to run; `$2` is a folder of prepared outputs.
const WORKER: &str = r#"
n=0
while read -r line; do
  n=$((n + 1))
  out=${line##*\"outputs\":\"}; out=${out%%\"*}
  case $line in
  *'"hello"'*) echo "{\"id\":$n,\"result\":{\"protocol\":1,\"name\":\"sh\",\"version\":\"1\",\"extra\":[]}}" ;;
  *'"compile"'*)
    case $1 in
    compile-crash) kill -ABRT $$ ;;
    compile-code) echo "{\"id\":$n,\"error\":{\"code\":\"NCC_EVRF029\",\"message\":\"no sort\"}}" ;;
    *) echo "{\"id\":$n,\"result\":{\"handle\":\"m1\",\"seconds\":0.1,\"placement\":{\"npu\":3}}}" ;;
    esac ;;
  *'"run"'*)
    case $1 in
    good) cp "$2/good" "$out"; echo "{\"id\":$n,\"result\":{\"seconds\":[0.5]}}" ;;
    crash) echo 'about to die' >&2; kill -SEGV $$ ;;
    killed) kill -KILL $$ ;;
    exit) exit 70 ;;
    hang) sleep 600 ;;
    garbage) echo 'Loading the model ...' ;;
    half-line) printf '{"id":%s,"res' $n; exit 3 ;;
    other-id) echo "{\"id\":7000,\"result\":{}}" ;;
    closes) exec >&-; sleep 600 ;;
    code) echo "{\"id\":$n,\"error\":{\"code\":\"NCC_INAS001\",\"message\":\"out of space\"}}" ;;
    *) [ -f "$2/$1" ] && cp "$2/$1" "$out"; echo "{\"id\":$n,\"result\":{\"seconds\":[0.5]}}" ;;
    esac ;;
  *'"release"'*) echo "{\"id\":$n,\"result\":{}}" ;;
  *'"quit"'*) exit 0 ;;
  esac
done
"#;

/// How it fails, the code that names it, and a word that the message has.
const FAILURES: &[(&str, &str, &str)] = &[
    ("crash", "signal:11", "segmentation fault"),
    ("killed", "signal:9", "killed"),
    ("exit", "exit:70", "exited with 70"),
    ("hang", "timeout", "no answer within"),
    ("garbage", "protocol", "no JSON"),
    ("half-line", "exit:3", "in the middle of its answer"),
    ("other-id", "protocol", "answered request 7000"),
    ("closes", "protocol", "closed its output"),
    ("nothing", "protocol", "wrote no file"),
    ("half-file", "protocol", "cannot be read"),
    ("names", "protocol", "'y' did not come back"),
    ("extra", "protocol", "'z' came back"),
    ("shape", "protocol", "float [3], and the model declares float [2]"),
    ("dtype", "protocol", "int64 [2], and the model declares float [2]"),
    ("code", "NCC_INAS001", "out of space"),
];

/// What a test works with: its own folder, in which everything must land.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, tensors: &[Tensor]| {
            let named = tensors.iter().map(|tensor| (tensor.name(), tensor));
            write_tensors(&folder.path().join(name), named).unwrap();
        };
        let y = Tensor::from_f32("y", &[2], &[1.0, 2.0]);
        put("good", std::slice::from_ref(&y));
        put("names", &[y.clone().renamed("x")]);
        put("extra", &[y.clone(), y.renamed("z")]);
        put("shape", &[Tensor::from_f32("y", &[3], &[0.0; 3])]);
        put("dtype", &[Tensor::from_i64("y", &[2], &[1, 2])]);
        let whole = std::fs::read(folder.path().join("good")).unwrap();
        std::fs::write(folder.path().join("half-file"), &whole[..whole.len() - 3]).unwrap();
        std::fs::write(folder.path().join("worker.sh"), WORKER).unwrap();
        std::fs::create_dir(folder.path().join("scratch")).unwrap();
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn limits(&self, time: Duration) -> Limits {
        Limits { time, scratch: self.path().join("scratch"), logs: self.path().join("logs"), ..Limits::default() }
    }

    fn command(&self, how: &str) -> String {
        format!("exec sh {0}/worker.sh {how} {0}", self.path().display())
    }

    fn worker(&self, how: &str) -> Worker {
        let time = if how == "hang" || how == "closes" { 20 } else { 20_000 };
        Worker::start(how, Start::shell(self.command(how)), self.limits(Duration::from_millis(time))).unwrap()
    }

    /// Nothing is left in the scratch folder, and no process that was started from here.
    fn assert_clean(&self) {
        let left: Vec<_> = std::fs::read_dir(self.path().join("scratch")).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        // They have been killed; a busy machine takes a while to bury them.
        let until = Instant::now() + Duration::from_secs(5);
        while !self.processes().is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let still = self.processes();
        assert!(still.is_empty(), "{still:?}");
        // Another test of this process may be about to wait for a child of its own.
        let mut seen = zombies();
        let until = Instant::now() + Duration::from_secs(5);
        while !seen.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
            let now = zombies();
            seen.retain(|id| now.contains(id));
        }
        assert!(seen.is_empty(), "{seen:?}");
    }

    /// Processes whose scratch folder is in this place.
    fn processes(&self) -> Vec<u32> {
        let mark = format!("PORTER_WORKDIR={}", self.path().display()).into_bytes();
        let marked = |id: &u32| {
            let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
            environment.windows(mark.len()).any(|window| window == mark)
        };
        all_processes().into_iter().filter(marked).collect()
    }
}

fn all_processes() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Children of this process that ended and were not waited for.
fn zombies() -> Vec<u32> {
    let parent = std::process::id().to_string();
    let is_zombie = |id: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The name in parentheses may have spaces in it; state and parent follow.
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        after.split_whitespace().take(2).eq(["Z", parent.as_str()])
    };
    all_processes().into_iter().filter(is_zombie).collect()
}

fn model() -> Model {
    let text = r#"<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y) { y = Relu(x) }"#;
    porter::text::parse_model(text).unwrap()
}

fn inputs() -> Tensors {
    Tensors::from_iter([("x".to_string(), Tensor::from_f32("x", &[2], &[1.0, -1.0]))])
}

/// Runs a worker that fails, so many times.
fn fail(place: &Place, (how, code, word): &(&str, &str, &str), times: usize) {
    let (model, inputs) = (model(), inputs());
    let worker = place.worker(how);
    // On a busy machine even a compile may take longer than the limit of the one that is to hang.
    let mut session = (0..100).find_map(|_| worker.compile(&model).ok()).unwrap();
    assert_eq!(session.placement().unwrap()["npu"], 3);
    for _ in 0..times {
        let error = session.run(&inputs).unwrap_err();
        let told = error.to_string();
        // The same limit holds for the steps before the one that is to fail.
        if ["hang", "closes"].contains(how) && error.code() == Some("timeout") {
            continue;
        }
        assert!(matches!(error, EngineError::Run { .. }), "{how}: {told}");
        assert_eq!(error.code(), Some(*code), "{how}: {told}");
        assert!(told.contains(word), "{how}: {told}");
        assert!(*how != "crash" || told.contains("about to die") && told.contains("worker-"), "{told}");
    }
}

#[test]
fn a_thousand_failures_leave_nothing_behind() {
    let place = Place::new();
    let start = Instant::now();
    let each = 1000 / FAILURES.len() + 1;
    // Some at a time: what is waited for most is the time limit of those that hang.
    std::thread::scope(|scope| {
        for group in FAILURES.chunks(FAILURES.len().div_ceil(4)) {
            let place = &place;
            scope.spawn(move || group.iter().for_each(|failure| fail(place, failure, each)));
        }
    });
    println!("{} failures in {:?}", each * FAILURES.len(), start.elapsed());
    place.assert_clean();
    assert!(std::fs::read_dir(place.path().join("logs")).unwrap().count() <= 50);
}

#[test]
fn compile_failures_have_names_too_and_an_error_is_no_death() {
    let place = Place::new();
    let model = model();
    let crash = place.worker("compile-crash");
    for _ in 0..3 {
        let error = crash.compile(&model).err().unwrap();
        assert_eq!(error.code(), Some("signal:6"), "{error}");
    }
    let refusing = place.worker("compile-code");
    let error = refusing.compile(&model).err().unwrap();
    assert_eq!(error.to_string(), "compile-code did not compile the model: NCC_EVRF029: no sort");
    let process = place.processes();
    refusing.compile(&model).err().unwrap();
    assert_eq!(place.processes(), process, "the same process answered twice");
    drop((crash, refusing));
    place.assert_clean();
}

#[test]
fn a_good_worker_runs_and_is_used_again() {
    let place = Place::new();
    let worker = place.worker("good");
    assert_eq!((worker.version().as_str(), worker.name().as_str()), ("sh 1", "good"));
    for _ in 0..3 {
        let mut session = worker.compile(&model()).unwrap();
        assert_eq!(session.run(&inputs()).unwrap()["y"].to_f32s().unwrap(), [1.0, 2.0]);
        assert_eq!(session.seconds(), Some(0.5));
    }
    assert_eq!(place.processes().len(), 1);
    let text =
        Tensor { string_data: vec!["a".into(), "b".into()], ..Tensor::new("x", DType::String, &[2], Vec::new()) };
    let text = Tensors::from_iter([("x".to_string(), Tensor { raw_data: None, ..text })]);
    let mut session = worker.compile(&model()).unwrap();
    let told = session.run(&text).unwrap_err().to_string();
    assert_eq!(told, "good: input 'x' is string, which safetensors files do not have");
    assert_eq!(session.run(&Tensors::new()).unwrap_err().to_string(), "good: input 'x' is missing");
    drop((session, worker));
    place.assert_clean();
    assert!(!place.path().join("logs").exists());
}

#[test]
fn a_worker_that_does_not_read_is_not_waited_for() {
    let place = Place::new();
    let limits = Limits { start: Duration::from_secs(20), ..place.limits(Duration::from_millis(200)) };
    let deaf = r#"read -r line; echo '{"id":1,"result":{"protocol":1}}'; sleep 600; true"#;
    let worker = Worker::start("deaf", Start::shell(deaf), limits).unwrap();
    // The request names the output, and no pipe holds so long a name.
    let long = model();
    let (mut long, y) = (long.clone(), long.graph.value_named("y").unwrap());
    long.graph.rename(y, &"y".repeat(1 << 20));
    let error = worker.compile(&long).err().unwrap();
    assert_eq!(error.code(), Some("timeout"), "{error}");
    assert!(error.to_string().contains("did not read"), "{error}");
    drop(worker);
    place.assert_clean();
}

#[test]
fn memory_is_limited_where_asked() {
    let place = Place::new();
    let limits = Limits { memory: Some(1 << 20), ..place.limits(Duration::from_secs(20)) };
    let error = Worker::start("small", Start::shell(place.command("good")), limits).err().unwrap();
    assert!(error.is_absence(), "{error}");
    place.assert_clean();
}

#[test]
fn a_command_that_is_no_worker_is_told() {
    let place = Place::new();
    let told = |line: &str| {
        let limits = Limits { start: Duration::from_millis(300), ..place.limits(Duration::from_secs(1)) };
        Worker::start("it", Start::shell(line), limits).err().unwrap().to_string()
    };
    assert!(told("no-such-program-anywhere").contains("exit:127"), "{}", told("no-such-program-anywhere"));
    assert!(told("echo hello; sleep 600").contains("no JSON"));
    assert!(told("true").contains("exit:0"));
    assert!(told("cat").contains("neither result nor error") || told("cat").contains("protocol"));
    assert!(told("sleep 600; true").contains("timeout"));
    assert!(told("sh -c 'kill -SEGV $$'; exit $?").contains("signal:11"));
    let old = r#"echo '{"id":1,"result":{"protocol":9}}'; sleep 600"#;
    assert!(told(old).contains("version 9"), "{}", told(old));
    place.assert_clean();
}

#[test]
fn a_crash_of_a_provider_costs_one_request() {
    let (ort, targets) = (common::ort_library(), TargetSet::shipped());
    let place = Place::new();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_porter"));
    let options = Options { program: Some(program), ..Options::default() };
    let apart = reach::open("ort:off", &targets, &options).unwrap();
    let here = reach::open("ort:off", &targets, &Options { isolate: false, ..options }).unwrap();
    assert_eq!((apart.label.as_str(), here.label.as_str()), ("ort", "ort"));
    assert!(apart.engine.version().contains("1."), "{} {}", apart.engine.version(), ort.path.display());
    let model = common::model("yolo26n-cls.onnx");
    let inputs = samples::for_model(&model, 1);
    let expected = here.engine.run_once(&model, &inputs).unwrap();
    let mut session = apart.engine.compile(&model).unwrap();
    assert_eq!(session.run(&inputs).unwrap(), expected);
    // The process is found by the scratch folder that it was given.
    let scratch = std::env::temp_dir().join("porter-worker-").display().to_string();
    let mine = |id: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        let command = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        parent == Some(std::process::id().to_string().as_str())
            && String::from_utf8_lossy(&environment).contains(&scratch)
            && String::from_utf8_lossy(&command).contains("--engine")
    };
    let ids: Vec<u32> = all_processes().into_iter().filter(mine).collect();
    assert_eq!(ids.len(), 1);
    // Not a segmentation fault: Rust looks at the first of those and lets it pass if it came from outside.
    Command::new("sh").args(["-c", &format!("kill -ABRT {}", ids[0])]).status().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let error = session.run(&inputs).unwrap_err();
    assert_eq!(error.code(), Some("signal:6"), "{error}");
    assert_eq!(session.run(&inputs).unwrap(), expected);
    drop((session, apart));
    place.assert_clean();
}

/// The other half of the next test: starts a worker that hangs, in a process that is going to be killed.
#[test]
#[ignore = "started by an_interrupted_porter_takes_its_workers_with_it"]
fn waits_for_a_worker_that_hangs() {
    let folder = PathBuf::from(std::env::var("PORTER_TEST_PLACE").unwrap());
    let limits = Limits { scratch: folder.join("scratch"), logs: folder.join("logs"), ..Limits::default() };
    let command = format!("exec sh {0}/worker.sh hang {0}", folder.display());
    let worker = Worker::start("hang", Start::shell(command), limits).unwrap();
    // On a thread that ends: a worker must not die with the thread that asked for it.
    let mut session = std::thread::scope(|scope| scope.spawn(|| worker.compile(&model()).unwrap()).join().unwrap());
    let _ = session.run(&inputs());
}

#[test]
fn an_interrupted_porter_takes_its_workers_with_it() {
    let place = Place::new();
    for signal in ["INT", "TERM", "HUP", "KILL"] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "waits_for_a_worker_that_hangs", "--ignored", "--nocapture"])
            .env("PORTER_TEST_PLACE", place.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // The worker, and the sleep that it waits for.
        let until = Instant::now() + Duration::from_secs(20);
        while place.processes().len() < 2 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(place.processes().len() >= 2, "{signal}");
        let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
        assert!(sent.success());
        assert!(!child.wait().unwrap().success());
        let expected = if signal == "KILL" { 1 } else { 0 };
        let until = Instant::now() + Duration::from_secs(5);
        // Nothing can be done for the worker's own child when porter is killed outright; the worker itself is gone.
        while place.processes().len() > expected && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let still = place.processes();
        assert!(still.len() <= expected, "{signal}: {still:?}");
        for id in still {
            Command::new("sh").args(["-c", &format!("kill -KILL {id}")]).status().unwrap();
        }
        let scratch = place.path().join("scratch");
        let left = || std::fs::read_dir(&scratch).unwrap().count();
        if signal == "KILL" {
            // Nobody was there to remove it; the next porter does.
            assert_eq!(left(), 1);
            drop(place.worker("good"));
        }
        assert_eq!(left(), 0, "{signal}");
        std::fs::remove_dir_all(&scratch).unwrap();
        std::fs::create_dir(&scratch).unwrap();
    }
}
