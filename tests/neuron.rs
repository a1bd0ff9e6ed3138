//! The Neuron engine against stand-ins for the SDK: a compiler that checks its arguments, a runtime that checks every call,
//! a command that lists devices. Nothing here runs on a device.

mod common;

use std::path::{Path, PathBuf};

use porter::engine::neuron::{Neuron, Settings};
use porter::engine::{Engine, Tensors, worker};
use porter::graph::Model;
use porter::onnx::Tensor;
use prost::Message;

/// A stand-in for the SDK: a compiler that checks its arguments and the module, and a runtime that checks every call.
mod stand_in {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use porter::engine::EngineError;

    use super::{Engine, Neuron, Settings};

    /// What the target file's command becomes for trn2.
    const COMPILE: &str =
        "neuronx-cc compile {module} --framework XLA --target trn2 --lnc 1 --auto-cast none --output {output}";

    /// Takes the arguments that it should be given, else exits 2. `$1` ends the script as the test wants.
    const COMPILER: &str = r#"#!/bin/sh
if [ "$1" = "--version" ]; then echo "NeuronX Compiler version 2.22.12471.0+b4a00d10"; exit 0; fi
echo "$@" >> "FOLDER/compiler.log"
[ "$1" = compile ] && [ -s "$2" ] || { echo "no module" >&2; exit 2; }
cp "$2" FOLDER/module.pb
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
int nrt_init(int framework, const char *a, const char *b) {
  const char *visible = getenv("NEURON_RT_VISIBLE_CORES"), *logical = getenv("NEURON_LOGICAL_NC_CONFIG");
  char text[64]; sprintf(text, "init%s%s", visible ? " on core " : "", visible ? visible : ""); say(text); started = 1;
  return need(framework == 1 && a && b && logical && !strcmp(logical, "1"), "bad init"); }
void nrt_close(void) { say(loaded || sets || tensors ? "closed with things open" : "close"); started = 0; }
int nrt_get_visible_nc_count(uint32_t *count) { *count = getenv("NEURON_RT_VISIBLE_CORES") ? 1 : 2; return need(started, "not started"); }
int nrt_load(const void *neff, size_t size, int32_t start, int32_t count, void **model) {
  if (need(started && size == 5 && !memcmp(neff, "neff\n", 5) && count == -1, "bad load")) return 2;
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
  if (need(inputs->count == 2 && outputs->count == 1, "other sets")) return 1002;
  if (need(!strcmp(inputs->tensors[0]->name, "input0"), "another order")) return 1002;
  if (need(inputs->tensors[0]->core == *(int *)model, "another core")) return 1002;
  /* No model is run: the output shows that both inputs arrived. */
  for (int i = 0; i < 4; i++) ((float *)outputs->tensors[0]->bytes)[i] =
    ((float *)inputs->tensors[0]->bytes)[i] - ((float *)inputs->tensors[1]->bytes)[i];
  say("execute"); return STATUS; }
"#;

    /// Both, built in a folder. `end` is shell that runs before the compiler writes its file, `status` what execute gives.
    pub fn sdk(folder: &Path, end: &str, status: i32) -> Settings {
        let text = COMPILER.replace("FOLDER", &folder.display().to_string()).replace("END", end);
        let compiler = script(&folder.join("neuronx-cc"), &text);
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
            lister: Some(lister(folder, r#"echo '[{"neuron_device": 0, "nc_count": 2, "neuron_processes": []}]'"#)),
            one_core: false,
            cache: Some(folder.join("cache")),
        }
    }

    /// A command in the place of `neuron-ls`: it wants its argument, then does as `then` says.
    pub fn lister(folder: &Path, then: &str) -> PathBuf {
        script(&folder.join("neuron-ls"), &format!("#!/bin/sh\n[ \"$*\" = --json-output ] || exit 2\n{then}\n"))
    }

    /// A script that may be run.
    fn script(path: &Path, text: &str) -> PathBuf {
        std::fs::write(path, text).unwrap();
        std::process::Command::new("chmod").arg("+x").arg(path).status().unwrap();
        path.to_path_buf()
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
    // What the compiler was given: a module whose ids count from 1 and whose entry is a subtraction of two parameters.
    let module = std::fs::read(folder.path().join("module.pb")).unwrap();
    let module = porter::lower::hlo::proto::HloModuleProto::decode(module.as_slice()).unwrap();
    let entry = module.computations.iter().find(|one| one.id == module.entry_computation_id).unwrap();
    let opcodes: Vec<&str> = entry.instructions.iter().filter_map(|one| one.opcode.as_deref()).collect();
    assert_eq!(opcodes, ["parameter", "parameter", "subtract", "tuple"]);
    assert_eq!(entry.instructions.iter().map(|one| one.id).collect::<Vec<_>>(), [Some(1), Some(2), Some(3), Some(4)]);
}

#[test]
fn a_neuron_compiler_fails_with_its_code() {
    let told = stand_in::failure("echo 'ERROR [NCC_EVRF029] sort is not supported' >&2; exit 70");
    assert_eq!(told.code(), Some("NCC_EVRF029"));
    assert!(told.to_string().contains("Known as N4"), "{told}");
    // However much is said after it.
    let wordy = "echo '[NCC_EVRF035] dot' ; for i in $(seq 400); do echo 'a line of advice'; done; exit 1";
    assert_eq!(stand_in::failure(wordy).code(), Some("NCC_EVRF035"));
    assert_eq!(stand_in::failure("exit 70").code(), Some("exit:70"));
    assert_eq!(stand_in::failure("kill -SEGV $$").code(), Some("signal:11"));
    assert_eq!(stand_in::failure("exit 0").code(), Some("no-output"));
    let logged = stand_in::failure("echo 'NCC_IGCA030' > log-neuron-cc.txt; exit 1");
    assert_eq!(logged.code(), Some("NCC_IGCA030"));
}

#[test]
fn a_neuron_runtime_fails_with_its_status() {
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

#[test]
fn cores_are_those_that_neuron_ls_lists() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = stand_in::sdk(folder.path(), "", 0);
    assert_eq!(Neuron::open(settings.clone()).unwrap().cores(), 2);
    let list = r#"echo '{"instance_type": "inf2.xlarge", "neuron_devices": [{"neuron_device": 0, "nc_count": 1}]}'"#;
    settings.lister = Some(stand_in::lister(folder.path(), list));
    assert_eq!(Neuron::open(settings.clone()).unwrap().cores(), 1);
    settings.lister = Some(stand_in::lister(folder.path(), "echo 'error: no neuron device found' >&2; exit 1"));
    let told = Neuron::open(settings.clone()).err().unwrap();
    assert!(told.is_absence() && told.to_string().contains("no neuron device found"), "{told}");
    // Without the command the runtime's own count holds.
    settings.lister = Some(folder.path().join("none"));
    assert_eq!(Neuron::open(settings).unwrap().cores(), 2);
}

/// The command, with the stand-ins where it looks for the SDK.
fn porter(folder: &Path) -> std::process::Command {
    let mut command = common::porter();
    command.env("PORTER_NEURONX_CC", folder.join("neuronx-cc")).env("PORTER_LIBNRT", folder.join("libnrt.so"));
    command.env("PORTER_NEURON_LS", folder.join("neuron-ls")).env("PORTER_HOME", folder.join("home"));
    command
}

/// A bundle of [`difference`] for neuron, and a folder with two inputs for it.
fn bundle(folder: &Path) -> (PathBuf, PathBuf) {
    let (file, made, inputs) = (folder.join("difference.onnx"), folder.join("made"), folder.join("inputs"));
    porter::onnx::write(&file, &difference().to_proto()).unwrap();
    common::run_fine(porter(folder).arg("prepare").arg(&file).args(["--target", "neuron", "-o"]).arg(&made));
    std::fs::create_dir(&inputs).unwrap();
    for (name, first) in [("one", 1.0), ("two", 2.0)] {
        let tensors = [("x", [first; 4]), ("y", [0.5; 4])].map(|(name, x)| Tensor::from_f32(name, &[4], &x));
        let path = inputs.join(format!("{name}.safetensors"));
        worker::write_tensors(&path, tensors.iter().map(|tensor| (tensor.name(), tensor))).unwrap();
    }
    (made, inputs)
}

#[test]
fn the_scripts_of_a_bundle_work_as_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    stand_in::sdk(folder.path(), "", 0);
    let (made, inputs) = bundle(folder.path());
    // The compiler is found on the path, as on a host with the SDK.
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut script = std::process::Command::new("sh");
    common::run_fine(script.arg(made.join("compile.sh")).env("PATH", &path).current_dir("/"));
    assert_eq!(std::fs::read_to_string(made.join("model.neff")).unwrap(), "neff\n");
    // Two sessions, each in a process with a core of its own, whatever the device has.
    let mut script = std::process::Command::new(made.join("run.sh"));
    let given = porter(folder.path());
    script.envs(given.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.env("PORTER", given.get_program()).env("JOBS", "2").current_dir("/");
    let said = common::run_fine(script.arg("--input").arg(&inputs).arg("--output").arg(folder.path().join("out.npz")));
    let calls = stand_in::log(folder.path(), "runtime.log");
    let count = |call: &str| calls.iter().filter(|one| *one == call).count();
    assert_eq!((count("init on core 0"), count("init on core 1")), (1, 1), "{calls:?}\n{said}");
    assert_eq!((count("load core 0"), count("execute")), (2, 2), "{calls:?}");
    // Compiled by the script once, and by porter once for both sessions.
    assert_eq!(stand_in::log(folder.path(), "compiler.log").len(), 2);
}

#[test]
fn more_sessions_than_cores_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    stand_in::sdk(folder.path(), "", 0);
    stand_in::lister(folder.path(), r#"echo '[{"neuron_device": 0, "nc_count": 1}]'"#);
    let (made, inputs) = bundle(folder.path());
    let (code, _, told) =
        common::run(porter(folder.path()).arg("run").arg(&made).arg("--input").arg(&inputs).args(["--jobs", "2"]));
    assert!(code != 0 && told.contains("all 1 cores are taken"), "{code} {told}");
}

#[test]
fn doctor_says_that_neuron_was_not_run_on_a_device() {
    let folder = tempfile::tempdir().unwrap();
    stand_in::sdk(folder.path(), "", 0);
    let (_, said, _) = common::run(porter(folder.path()).args(["doctor", "neuron"]));
    // The stand-in runs nothing, and doctor tries a sum.
    assert!(said.contains("2.22.12471") && said.contains("does not compute"), "{said}");
    assert!(said.contains("not run on a device"), "{said}");
    let (code, said, _) = common::run(common::porter().args(["doctor", "neuron"]).env("PORTER_NEURONX_CC", "/none"));
    assert!(code == 3 && said.contains("missing") && said.contains("not run on a device"), "{said}");
}
