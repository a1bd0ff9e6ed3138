//! Models lowered to HLO and run by XLA on the CPU: the same as ONNX Runtime, and as ONNX's own cases say.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{model, ort_library, snapshots};
use porter::compare::Verdict;
use porter::engine::noise::{self, Noise};
use porter::engine::ort::Ort;
use porter::engine::worker::Limits;
use porter::engine::xla::Xla;
use porter::engine::{Engine, Tensors, samples};
use porter::graph::{Dim, Model};
use porter::lower::{self, LowerError, Weights};
use porter::onnx::{DType, Tensor};
use prost::Message;

/// XLA on the CPU, with the tests' own Python.
fn xla(double: bool) -> Xla {
    let python = PathBuf::from(common::python("").get_program());
    Xla::with_python(python, double, Limits::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// The whole model on XLA, held against ONNX Runtime by what rounding does to it.
fn agrees(name: &str) {
    ort_library();
    let ort = Ort::reference().unwrap();
    let model = model(name);
    let inputs = samples::for_model(&model, 1);
    let expectation = noise::measure(&ort, &model, &inputs, &Noise::float32()).unwrap();
    let ours = xla(false).run_once(&model, &inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
    let report = expectation.judge(&ours);
    for finding in &report.findings {
        println!("{name} {}: {:?} strain {:.2} {}", finding.name, finding.verdict, finding.strain, finding.reason);
    }
    assert!(
        report.verdict < Verdict::Differs,
        "{name}: {:?}",
        report.findings.iter().map(|f| &f.reason).collect::<Vec<_>>()
    );
}

#[test]
fn detectors_run_on_xla_as_on_onnx_runtime() {
    for name in ["yolo26n.onnx", "yolo26n-raw-b4.onnx", "yolov8n-raw.onnx"] {
        agrees(name);
    }
}

#[test]
fn task_heads_run_on_xla_as_on_onnx_runtime() {
    for name in ["yolo26n-seg.onnx", "yolo26n-pose.onnx", "yolo26n-obb.onnx", "yolo26n-cls.onnx"] {
        agrees(name);
    }
}

#[test]
fn whole_models_run_in_float64() {
    ort_library();
    let model = model("yolo26n-cls.onnx");
    let inputs = samples::for_model(&model, 1);
    let exact = xla(true).run_once(&model, &inputs).unwrap();
    let single = xla(false).run_once(&model, &inputs).unwrap();
    let ort = Ort::reference().unwrap().run_once(&model, &inputs).unwrap();
    for (name, exact) in &exact {
        assert_eq!(exact.dtype(), DType::Double);
        let exact = exact.to_f64s().unwrap();
        let off =
            |other: &Tensor| exact.iter().zip(other.to_f64s().unwrap()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let (ours, theirs) = (off(&single[name]), off(&ort[name]));
        println!("{name}: XLA is {ours:e} from float64, ONNX Runtime {theirs:e}");
        assert!(ours < 1e-4 && theirs < 1e-4);
    }
}

#[test]
fn a_split_becomes_slices_with_bounds_on_every_dimension() {
    let mut model = model("yolo26l.onnx");
    lower::prepare(&mut model).unwrap();
    let splits = model.graph.nodes().filter(|(_, node)| node.is("Split")).count();
    let lowered = lower::lower_prepared(&model, Weights::Constants).unwrap();
    let text = lower::hlo::text::to_string(&lowered.module, lower::hlo::text::Constants::Elided);
    let mut from_split = 0;
    for instruction in &lowered.module.entry.instructions {
        let Some(origin) = instruction.origin.as_ref().filter(|origin| origin.op_type == "Split") else { continue };
        let lower::hlo::Kind::Slice { start, limit, stride } = &instruction.kind else {
            panic!("{}: a split became {:?}", origin.node, instruction.kind)
        };
        let whole = lowered.module.entry.shape(instruction.operands[0]);
        assert_eq!((start.len(), limit.len(), stride.len()), (whole.rank(), whole.rank(), whole.rank()));
        assert!(stride.iter().all(|&step| step == 1), "{}", origin.node);
        from_split += 1;
    }
    assert!(splits > 10 && from_split >= 2 * splits, "{splits} splits, {from_split} slices");
    assert!(text.contains("stablehlo.slice") && text.len() < 2_000_000, "{} bytes", text.len());
}

/// One of ONNX's cases: where it is and how near is near enough.
struct Case {
    name: String,
    folder: PathBuf,
    rtol: f64,
    atol: f64,
    others: bool,
}

fn cases() -> Vec<Case> {
    let root = common::node_cases();
    let index: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(root.join("cases.json")).unwrap()).unwrap();
    let mut cases: Vec<Case> = index["cases"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, case)| Case {
            name: name.clone(),
            folder: root.join(name),
            rtol: case["rtol"].as_f64().unwrap_or(0.0),
            atol: case["atol"].as_f64().unwrap_or(0.0),
            others: !case["others"].as_array().unwrap().is_empty(),
        })
        .collect();
    cases.retain(|case| case.name.starts_with("node/"));
    if let Ok(only) = std::env::var("CASES") {
        cases.retain(|case| only.split(',').any(|part| case.name.contains(part)));
    }
    cases
}

fn read_tensors(folder: &Path, what: &str) -> Vec<Tensor> {
    (0..)
        .map_while(|i| std::fs::read(folder.join(format!("{what}_{i}.pb"))).ok())
        .map(|bytes| Tensor::decode(bytes.as_slice()).unwrap())
        .collect()
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Passed,
    /// The operator, the element type or the opset is not one that is lowered: the case is not counted.
    NotListed(String),
    Failed(String),
}

/// Lowers a case's model. What decides sizes is an input in these cases: it becomes a constant, as it is in real models.
fn constant_sizes(model: &Model, inputs: &Tensors) -> Result<Model, String> {
    let mut model = model.clone();
    for (name, tensor) in inputs {
        let Some(id) = model.graph.value_named(name) else { continue };
        let value = model.graph.value_mut(id);
        value.dtype = Some(tensor.dtype());
        value.shape = Some(tensor.dims().iter().map(|&size| Dim::Fixed(size)).collect());
    }
    for _ in 0..8 {
        let mut tried = model.clone();
        let outcome = lower::prepare(&mut tried).and_then(|()| lower::lower_prepared(&tried, Weights::Constants));
        let fixed = match outcome {
            Ok(_) => return Ok(model),
            Err(LowerError::NotConstant { ref input, .. }) if inputs.contains_key(input) => {
                model.graph.value_named(input)
            }
            Err(ref error @ (LowerError::NotConstant { .. } | LowerError::Dynamic { .. })) => {
                let small = model.graph.inputs.iter().copied().find(|&id| {
                    inputs.get(&model.graph.value(id).name).is_some_and(|t| t.dims().len() < 2 && t.len() <= 16)
                });
                Some(small.ok_or_else(|| error.to_string())?)
            }
            Err(error) => return Err(error.to_string()),
        };
        let Some(id) = fixed else { return Err("an input is nowhere".into()) };
        let name = model.graph.value(id).name.clone();
        model.graph.inputs.retain(|&other| other != id);
        model.graph.set_initializer(id, inputs[&name].clone());
    }
    Err("it does not settle".into())
}

fn run_case(engine: &dyn Engine, case: &Case) -> Outcome {
    if case.others {
        return Outcome::NotListed("sequences, optionals and maps".into());
    }
    let failed = |problem: String| {
        let problem = problem.replace(&format!("{}/", case.folder.display()), "");
        let start = problem.find("is not lowered to HLO: ").map_or(0, |at| at + "is not lowered to HLO: ".len());
        Outcome::Failed(problem[start..].lines().next().unwrap_or_default().chars().take(140).collect())
    };
    let model = match porter::load(&case.folder.join("model.onnx")) {
        Ok(model) => model,
        Err(error) if error.to_string().contains("opset") => return Outcome::NotListed("opset 10 or older".into()),
        Err(error) => return failed(error.to_string()),
    };
    let foreign = model.graph.nodes().find(|(_, node)| {
        let function = model.functions.iter().any(|f| f.name.as_deref() == Some(node.op_type.as_str()));
        !function && (!node.is_standard() || !lower::is_lowered(&node.op_type))
    });
    if let Some((_, node)) = foreign {
        return Outcome::NotListed(node.op_type.clone());
    }
    let folder = case.folder.join("test_data_set_0");
    let names: Vec<String> = model.graph.inputs.iter().map(|&id| model.graph.value(id).name.clone()).collect();
    let inputs: Tensors =
        names.into_iter().zip(read_tensors(&folder, "input")).map(|(n, t)| (n.clone(), t.renamed(n))).collect();
    let wanted = read_tensors(&folder, "output");
    // Packed and eight-bit floats, packed integers and text are not among the types that are lowered.
    let small = inputs.values().chain(&wanted).map(Tensor::dtype).find(|&dtype| lower::hlo::element_number(dtype) == 0);
    if let Some(dtype) = small {
        return Outcome::NotListed(format!("type {dtype}"));
    }
    let ready = match constant_sizes(&model, &inputs) {
        Ok(ready) => ready,
        Err(problem) => return failed(problem),
    };
    let outputs = match engine.run_once(&ready, &inputs) {
        Ok(outputs) => outputs,
        Err(error) => return failed(error.to_string()),
    };
    for (&id, wanted) in model.graph.outputs.iter().zip(&wanted) {
        let name = &model.graph.value(id).name;
        let Some(got) = outputs.get(name) else { return failed(format!("output {name} is missing")) };
        if let Err(problem) = same(wanted, got, case) {
            return failed(format!("wrong: {problem}"));
        }
    }
    Outcome::Passed
}

/// As `numpy.testing.assert_allclose` does it; types of 16 bits may be off by a step, as their own kernels are.
fn same(wanted: &Tensor, got: &Tensor, case: &Case) -> Result<(), String> {
    if wanted.dtype() != got.dtype() || wanted.dims() != got.dims() {
        return Err(format!("{} {:?}, not {} {:?}", got.dtype(), got.dims(), wanted.dtype(), wanted.dims()));
    }
    let step = match wanted.dtype() {
        DType::Float16 => 2f64.powi(-10),
        DType::Bfloat16 => 2f64.powi(-7),
        _ => 0.0,
    };
    let (Ok(wanted), Ok(got)) = (wanted.to_f64s(), got.to_f64s()) else { return Err("no numbers".into()) };
    for (index, (&w, &g)) in wanted.iter().zip(&got).enumerate() {
        let allowed = case.atol.max(1e-6) + case.rtol.max(step) * w.abs();
        if !(w == g || (w.is_nan() && g.is_nan()) || (w - g).abs() <= allowed) {
            return Err(format!("element {index} is {g}, not {w}"));
        }
    }
    Ok(())
}

#[test]
fn nine_in_ten_of_onnx_cases_pass_through_hlo() {
    let cases = cases();
    let engine = xla(false);
    let (next, results) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |count| count.get()) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run_case(&engine, case);
                    results.lock().unwrap().insert(case.name.clone(), outcome);
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    let passed = results.values().filter(|outcome| **outcome == Outcome::Passed).count();
    let mut failed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut foreign: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, outcome) in &results {
        match outcome {
            Outcome::Passed => {}
            Outcome::NotListed(op_type) => *foreign.entry(op_type).or_default() += 1,
            Outcome::Failed(reason) => {
                failed.entry(reason).or_default().insert(name.trim_start_matches("node/"));
            }
        }
    }
    let listed = passed + failed.values().map(BTreeSet::len).sum::<usize>();
    let mut text = format!("{passed} of {listed} cases pass whose operators are lowered\n");
    for (reason, names) in &failed {
        text.push_str(&format!("\n{reason}: {}\n", names.len()));
        names.iter().for_each(|name| text.push_str(&format!("  {name}\n")));
    }
    text.push_str(&format!(
        "\nnot counted, for an operator, a type or an opset that is not lowered: {}\n",
        foreign.values().sum::<usize>()
    ));
    foreign.iter().for_each(|(op_type, count)| text.push_str(&format!("  {op_type}: {count}\n")));
    println!("{text}");
    if std::env::var_os("CASES").is_none() {
        assert!(passed * 10 >= listed * 9, "{text}");
        snapshots().bind(|| insta::assert_snapshot!("lowered-cases", text));
    }
}

/// A stand-in for the SDK: a compiler that checks its arguments and the module, and a runtime that checks every call.
mod stand_in {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use porter::engine::neuron::{Neuron, Settings};
    use porter::engine::{Engine, EngineError};

    /// What the target file's command becomes for trn2.
    const COMPILE: &str =
        "neuronx-cc compile {module} --framework XLA --target trn2 --lnc 1 --auto-cast none --output {output}";

    /// Takes the arguments that it should be given, else exits 2. `$1` ends the script as the test wants.
    const COMPILER: &str = r#"#!/bin/sh
if [ "$1" = "--version" ]; then echo "NeuronX Compiler version 2.22.12471.0+b4a00d10"; exit 0; fi
echo "$@" >> "FOLDER/compiler.log"
[ "$1" = compile ] && [ -s "$2" ] || { echo "no module" >&2; exit 2; }
[ "$3 $4 $5 $6 $7 $8 $9" = "--framework XLA --target trn2 --lnc 1 --auto-cast" ] || { echo "wrong arguments: $*" >&2; exit 2; }
shift 9
[ "$1 $2" = "none --output" ] || { echo "wrong arguments: $*" >&2; exit 2; }
END
echo neff > "$3"
"#;

    /// Two inputs as large as the test's, one output; every call is held against what came before it.
    const RUNTIME: &str = r#"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef struct { char name[256]; int usage; size_t size; int dtype; uint32_t *shape; uint32_t ndim; } info_t;
typedef struct { uint64_t count; info_t infos[3]; } infos_t;
typedef struct { char name[256]; size_t size; char *bytes; int core; } tensor_t;
typedef struct { tensor_t *tensors[4]; int count; } set_t;
static int started, loaded, sets, tensors;
static FILE *out;
static void say(const char *text) { if (!out) out = fopen(LOG, "a"); fprintf(out, "%s\n", text); fflush(out); }
static int need(int holds, const char *what) { if (!holds) { say(what); return 2; } return 0; }
int nrt_init(int framework, const char *a, const char *b) { say("init"); started = 1; return need(framework == 1 && a && b, "bad init"); }
void nrt_close(void) { say(loaded || sets || tensors ? "closed with things open" : "close"); started = 0; }
int nrt_get_visible_nc_count(uint32_t *count) { *count = 2; return need(started, "not started"); }
int nrt_load(const void *neff, size_t size, int32_t start, int32_t count, void **model) {
  if (need(started && size == 5 && !memcmp(neff, "neff\n", 5) && count == 1, "bad load")) return 2;
  char text[64]; sprintf(text, "load core %d", start); say(text);
  loaded++; int *core = malloc(sizeof(int)); *core = start; *model = core; return 0; }
int nrt_unload(void *model) { say("unload"); loaded--; free(model); return 0; }
int nrt_get_model_tensor_info(void *model, infos_t **infos) {
  infos_t *made = calloc(1, sizeof(infos_t)); made->count = 3;
  strcpy(made->infos[0].name, "output0"); made->infos[0].usage = 1; made->infos[0].size = 16;
  strcpy(made->infos[1].name, "input1"); made->infos[1].usage = 0; made->infos[1].size = 16;
  strcpy(made->infos[2].name, "input0"); made->infos[2].usage = 0; made->infos[2].size = 16;
  *infos = made; return need(model != 0, "no model"); }
int nrt_free_model_tensor_info(infos_t *infos) { free(infos); return 0; }
int nrt_allocate_tensor_set(set_t **set) { sets++; *set = calloc(1, sizeof(set_t)); return 0; }
void nrt_destroy_tensor_set(set_t **set) { sets--; free(*set); *set = 0; }
int nrt_tensor_allocate(int placement, int core, size_t size, const char *name, tensor_t **tensor) {
  tensors++; tensor_t *made = calloc(1, sizeof(tensor_t)); strcpy(made->name, name); made->size = size; made->core = core;
  made->bytes = calloc(1, size); *tensor = made; return need(placement == 0, "not on the device"); }
void nrt_tensor_free(tensor_t **tensor) { tensors--; free((*tensor)->bytes); free(*tensor); *tensor = 0; }
int nrt_add_tensor_to_tensor_set(set_t *set, const char *name, tensor_t *tensor) {
  set->tensors[set->count++] = tensor; return need(!strcmp(name, tensor->name), "another name"); }
int nrt_tensor_write(tensor_t *tensor, const void *bytes, size_t offset, size_t size) {
  if (need(offset + size <= tensor->size, "write beyond")) return 2; memcpy(tensor->bytes + offset, bytes, size); return 0; }
int nrt_tensor_read(const tensor_t *tensor, void *bytes, size_t offset, size_t size) {
  if (need(offset + size <= tensor->size, "read beyond")) return 2; memcpy(bytes, tensor->bytes + offset, size); return 0; }
int nrt_execute(void *model, set_t *inputs, set_t *outputs) {
  if (need(inputs->count == 2 && outputs->count == 1, "other sets")) return 1003;
  if (need(!strcmp(inputs->tensors[0]->name, "input0"), "another order")) return 1003;
  if (need(inputs->tensors[0]->core == *(int *)model, "another core")) return 1003;
  /* No model is run: the output shows that both inputs arrived. */
  for (int i = 0; i < 4; i++) ((float *)outputs->tensors[0]->bytes)[i] =
    ((float *)inputs->tensors[0]->bytes)[i] - ((float *)inputs->tensors[1]->bytes)[i];
  say("execute"); return STATUS; }
"#;

    /// Both, built in a folder. `end` is shell that runs before the compiler writes its file, `status` what execute gives.
    pub fn sdk(folder: &Path, end: &str, status: i32) -> Settings {
        let compiler = folder.join("neuronx-cc");
        let script = COMPILER.replace("FOLDER", &folder.display().to_string()).replace("END", end);
        std::fs::write(&compiler, script).unwrap();
        std::process::Command::new("chmod").arg("+x").arg(&compiler).status().unwrap();
        let (source, library) = (folder.join("nrt.c"), folder.join("libnrt.so"));
        std::fs::write(&source, RUNTIME).unwrap();
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-w", "-o"])
            .arg(&library)
            .arg(&source)
            .arg(format!("-DLOG=\"{}\"", folder.join("runtime.log").display()))
            .arg(format!("-DSTATUS={status}"))
            .status()
            .expect("a C compiler: Rust needs one too");
        assert!(built.success());
        Settings {
            compile: COMPILE.into(),
            lnc: 1,
            known: [("NCC_EVRF029".to_string(), "Known as N4.".to_string())].into_iter().collect(),
            compiler: Some(compiler),
            library: Some(library),
            cache: Some(folder.join("cache")),
        }
    }

    pub fn log(folder: &Path, name: &str) -> Vec<String> {
        let path: PathBuf = folder.join(name);
        std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_string).collect()
    }

    /// What compiling on such an SDK ends with.
    pub fn failure(end: &str) -> EngineError {
        let folder = tempfile::tempdir().unwrap();
        let neuron = Neuron::open(sdk(folder.path(), end, 0)).unwrap();
        neuron.compile(&super::difference()).err().expect("it does not compile")
    }
}

/// `x - y` of four numbers.
fn difference() -> Model {
    let text =
        "<ir_version: 8, opset_import: [\"\" : 18]> g (float[4] x, float[4] y) => (float[4] z) { z = Sub (x, y) }";
    porter::text::parse_model(text).unwrap()
}

#[test]
fn a_neuron_device_is_driven_as_its_sdk_documents() {
    use porter::engine::neuron::Neuron;
    let folder = tempfile::tempdir().unwrap();
    let neuron = Neuron::open(stand_in::sdk(folder.path(), "", 0)).unwrap();
    assert_eq!(neuron.version(), "2.22.12471.0+b4a00d10");
    let tensor = |name: &str, values: [f32; 4]| (name.to_string(), Tensor::from_f32(name, &[4], &values));
    let inputs: Tensors = [tensor("y", [1.0; 4]), tensor("x", [1.0, 2.0, 3.0, 4.0])].into_iter().collect();
    let mut first = neuron.compile(&difference()).unwrap();
    let mut second = neuron.compile(&difference()).unwrap();
    for session in [&mut first, &mut second] {
        assert_eq!(session.run(&inputs).unwrap()["z"].to_f32s().unwrap(), [0.0, 1.0, 2.0, 3.0]);
    }
    drop((first, second, neuron));
    // One compile for both sessions, a core for each, and nothing left open.
    assert_eq!(stand_in::log(folder.path(), "compiler.log").len(), 1);
    let calls = stand_in::log(folder.path(), "runtime.log");
    assert_eq!(calls, ["init", "load core 0", "load core 1", "execute", "execute", "unload", "unload", "close"]);
}

#[test]
fn a_neuron_compiler_fails_with_its_code() {
    let told = stand_in::failure("echo 'ERROR [NCC_EVRF029] sort is not supported' >&2; exit 70");
    assert_eq!(told.code(), Some("NCC_EVRF029"));
    assert!(told.to_string().contains("Known as N4"), "{told}");
    assert_eq!(stand_in::failure("exit 70").code(), Some("exit:70"));
    assert_eq!(stand_in::failure("kill -SEGV $$").code(), Some("signal:11"));
    assert_eq!(stand_in::failure("exit 0").code(), Some("it wrote no file"));
    let logged = stand_in::failure("echo 'NCC_IGCA030' > log-neuron-cc.txt; exit 1");
    assert_eq!(logged.code(), Some("NCC_IGCA030"));
}

#[test]
fn a_neuron_runtime_fails_with_its_status() {
    use porter::engine::neuron::Neuron;
    let folder = tempfile::tempdir().unwrap();
    let neuron = Neuron::open(stand_in::sdk(folder.path(), "", 1002)).unwrap();
    let inputs: Tensors =
        ["x", "y"].map(|name| (name.to_string(), Tensor::from_f32(name, &[4], &[0.0; 4]))).into_iter().collect();
    let told = neuron.run_once(&difference(), &inputs).unwrap_err().to_string();
    assert!(told.contains("nrt_execute: status 1002"), "{told}");
    let mut missing = stand_in::sdk(folder.path(), "", 0);
    missing.library = Some(folder.path().join("none.so"));
    assert!(Neuron::open(missing).err().unwrap().is_absence());
}
