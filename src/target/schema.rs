//! The form of a target file. Every key is documented here, and `porter targets schema` prints it as a JSON Schema.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::operators::Entry;
use super::predicate::Predicate;
use super::version::Versions;
use crate::onnx::DType;

/// A target: what it can run, how it is reached, what is known to go wrong on it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Target {
    /// The name on the command line.
    #[serde(rename = "target")]
    pub name: String,
    /// What it is, in a sentence.
    pub what: String,
    /// Where the facts in this file come from.
    #[serde(default)]
    pub source: Vec<String>,
    /// How a part is compiled and run.
    pub reach: Reach,
    /// Kinds of device, with what is known of each.
    #[serde(default)]
    pub devices: IndexMap<String, IndexMap<String, serde_json::Value>>,
    /// The device that is meant when none is named.
    #[serde(default)]
    pub device: Option<String>,
    /// Versions of the toolchain that this file knows about, oldest first.
    #[serde(default)]
    pub toolchains: Vec<String>,
    /// The version that is meant when none is named.
    #[serde(default)]
    pub toolchain: Option<String>,
    /// How the variant of a model is told from its number of parameters where nothing names it: the first whose
    /// bound the model stays under.
    #[serde(default)]
    pub variants: Vec<VariantRule>,
    /// Which element type a part computes in.
    pub dtype: DtypeRules,
    /// The command that compiles a part ahead of time, with `{module}`, `{device}`, `{output}` and the like in it.
    #[serde(default)]
    pub compile: Option<String>,
    /// The layout that its convolutions take.
    #[serde(default)]
    pub layout: Layout,
    /// Whether every size must be known when a part is compiled.
    #[serde(default)]
    pub static_shapes: Option<StaticShapes>,
    /// The largest number of dimensions a tensor may have.
    #[serde(default)]
    pub max_rank: Option<usize>,
    /// Element types that no tensor of a part may have.
    #[serde(default)]
    pub forbidden_types: IndexMap<DType, Refusal>,
    /// Operators that the target approximates, with the most that their results are off besides rounding.
    #[serde(default)]
    pub approximates: IndexMap<String, f64>,
    /// Names for sets of element types that the operator table uses.
    #[serde(default, deserialize_with = "unique")]
    pub types: IndexMap<String, Vec<String>>,
    /// Element types that it computes in another one where an operator does not take them, with casts of its own.
    #[serde(default)]
    pub casts: IndexMap<DType, DType>,
    /// What it can run, by operator (`domain:Operator` outside ai.onnx).
    #[serde(deserialize_with = "unique")]
    pub operators: IndexMap<String, Entry>,
    /// What holds for operators that are not listed.
    #[serde(default)]
    pub unlisted: Entry,
    /// What a border between parts costs, to decide which parts pay.
    #[serde(default)]
    pub cost: Cost,
    /// Rules that `prepare` applies, in order.
    #[serde(default)]
    pub rewrites: Vec<String>,
    /// What becomes of the end of a model that the target cannot run.
    #[serde(default)]
    pub head: Head,
    /// Known faults, stated on the graph.
    #[serde(default)]
    pub quirks: Vec<Quirk>,
    /// Known faults that cannot be stated on a graph, and what answers them.
    #[serde(default)]
    pub notes: Vec<Note>,
}

/// How a target is reached.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "via", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
#[allow(clippy::large_enum_variant)] // there is one a target, and a box would only hide it
pub enum Reach {
    /// tract, in process.
    Tract {},
    /// A provider of ONNX Runtime.
    Onnxruntime {
        /// The provider's name, such as `CUDAExecutionProvider`.
        provider: String,
        /// The provider's options.
        #[serde(default)]
        options: BTreeMap<String, String>,
        /// Other ways to run it, by a name that follows the target's after a colon (`cuda:tf32`): options that are set
        /// over those above, or left out where they are empty.
        #[serde(default)]
        modes: IndexMap<String, BTreeMap<String, String>>,
        /// Modes in which less than float32 is computed, with the type whose rounding that is like (`tf32: float16`).
        #[serde(default)]
        mode_rounds: IndexMap<String, DType>,
        /// Set where the provider is a library of its own.
        #[serde(default)]
        plugin: Option<Plugin>,
        /// What `porter runtime install` takes to get it.
        #[serde(default)]
        runtime: Option<String>,
        /// The one operating system that has it, as Rust names them (`macos`).
        #[serde(default)]
        system: Option<String>,
        /// The worker that runs the target where the plug-in is there and offers no device.
        #[serde(default)]
        otherwise: Option<String>,
    },
    /// A program that speaks the worker protocol.
    Worker {
        /// The command line. `{python}` is the Python of the runtime, `{workers}` the folder with the worker scripts that
        /// porter ships.
        command: String,
        /// What `porter runtime install` takes to get what the worker needs.
        #[serde(default)]
        runtime: Option<String>,
    },
    /// Lowered to a compiler's input and compiled ahead of time.
    Lowering {
        /// The form: `hlo`.
        format: String,
        /// The worker that compiles and runs it on the device.
        run: String,
        /// The target that runs the same form here, for its numbers.
        #[serde(default)]
        stand_in: Option<String>,
    },
}

/// A provider that comes as a library of its own.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Plugin {
    /// The name it is registered under; its options take it as a prefix.
    pub name: String,
    /// The package that holds it.
    pub package: String,
    /// The library's file name in the package.
    pub library: String,
}

/// A variant and the number of parameters that it stays under.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VariantRule {
    /// The variant's letter.
    pub variant: String,
    /// The number of parameters it stays under; none for the last.
    #[serde(default)]
    pub under: Option<u64>,
}

/// The rules for element types.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DtypeRules {
    /// Tried in order; the first that holds gives the type to compute in.
    pub policy: Vec<ComputeRule>,
    /// What `--dtype` may ask for.
    pub available: Vec<DType>,
    /// What stays float32 in a part that computes in less.
    #[serde(default)]
    pub keep_float32: Vec<KeepRule>,
}

/// One rule of the policy.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ComputeRule {
    /// A predicate over `model` and `device`; always true where it is left out.
    #[serde(default)]
    pub when: Option<Predicate>,
    /// The versions of the toolchain it is for.
    #[serde(default)]
    pub versions: Versions,
    /// The type that parts are written in.
    pub compute: DType,
    /// The type that the target computes in whatever its parts are written in, where that is another one.
    #[serde(default)]
    pub rounds: Option<DType>,
    /// Why: the id of a quirk or note, or a sentence.
    pub why: String,
}

/// Nodes that stay float32.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KeepRule {
    /// A predicate over a node.
    pub when: Predicate,
    /// Only where the part computes in one of these; in any, if empty.
    #[serde(default)]
    pub computing: Vec<DType>,
    /// Why it stays.
    pub why: String,
}

/// The order of an image's dimensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Layout {
    /// Channels before the image's sizes, as in ONNX.
    #[default]
    #[serde(rename = "NCHW")]
    ChannelsFirst,
    /// Channels last.
    #[serde(rename = "NHWC")]
    ChannelsLast,
    /// The target's compiler chooses.
    #[serde(rename = "free")]
    Free,
}

/// Why sizes must be known, and the error the compiler gives where they are not.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StaticShapes {
    /// Why.
    pub reason: String,
    /// The compiler's error.
    #[serde(default)]
    pub code: Option<String>,
}

/// Why something is refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Refusal {
    /// Why.
    pub reason: String,
    /// The error the target gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// What borders between parts cost.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Cost {
    /// Microseconds for entering and leaving a part.
    pub border_us: f64,
    /// Bytes that cross a border in a microsecond.
    pub bytes_per_us: f64,
    /// Operations a microsecond on the target.
    pub target_flops_per_us: f64,
    /// Operations a microsecond on the CPU.
    pub cpu_flops_per_us: f64,
    /// Microseconds that starting one operator costs on the CPU.
    pub cpu_node_us: f64,
    /// Microseconds that starting one operator costs on the target.
    pub target_node_us: f64,
}

impl Default for Cost {
    fn default() -> Self {
        Cost {
            border_us: 50.0,
            bytes_per_us: 8_000.0,
            target_flops_per_us: 1_000_000.0,
            cpu_flops_per_us: 30_000.0,
            cpu_node_us: 2.0,
            target_node_us: 2.0,
        }
    }
}

/// What becomes of a model's end that the target cannot run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// It becomes a part on the CPU, so that the bundle answers what the model answers.
    #[default]
    Host,
    /// It is left out; the bundle gives the raw tensor.
    Raw,
}

/// A known fault: where it strikes, what happens, what answers it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Quirk {
    /// Its name in reports.
    pub id: String,
    /// What happens, in a sentence.
    pub what: String,
    /// The pattern it strikes, in the language of rules.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Predicates over what the pattern captures; all must hold.
    #[serde(default, rename = "where")]
    pub conditions: Conditions,
    /// The devices it strikes; all, if empty.
    #[serde(default)]
    pub devices: Vec<String>,
    /// The versions of the toolchain it strikes.
    #[serde(default)]
    pub versions: Versions,
    /// What is seen.
    pub symptom: Symptom,
    /// What answers it: a rule's name, or `cut` (the node goes to the CPU), `dtype` (the policy computes in less),
    /// `freeze-shapes`, `flags` (the compile command), `upgrade`.
    #[serde(default)]
    pub answer: Option<String>,
    /// Where it is reported.
    pub reference: String,
    /// How well it is known.
    pub mark: Mark,
    /// The errors measured with and without the answer, where porter wrote this entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

/// One predicate or several.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Conditions {
    /// Nothing more than the pattern.
    #[default]
    None,
    /// One.
    One(String),
    /// Several, all of which must hold.
    All(Vec<String>),
}

impl Conditions {
    /// The predicates as written.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let list: Vec<&str> = match self {
            Conditions::None => Vec::new(),
            Conditions::One(one) => vec![one],
            Conditions::All(all) => all.iter().map(String::as_str).collect(),
        };
        list.into_iter()
    }
}

/// What is seen when a quirk strikes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Symptom {
    /// Wrong values without an error; the name of the shape of the fault, such as `stride-drop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<String>,
    /// An error, by its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// It works, slowly: by how much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<String>,
    /// The program dies: how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crash: Option<String>,
}

impl std::fmt::Display for Symptom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = [
            self.silent.as_ref().map(|s| format!("silently wrong ({s})")),
            self.code.as_ref().map(|s| format!("error {s}")),
            self.slow.as_ref().map(|s| format!("slow ({s})")),
            self.crash.as_ref().map(|s| format!("crash ({s})")),
        ];
        let said: Vec<String> = said.into_iter().flatten().collect();
        f.write_str(&said.join(", "))
    }
}

/// How well a fault is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// Read in the project's own documentation or code.
    Read,
    /// Reported in an issue.
    Issue,
    /// A third party's report.
    ThirdParty,
    /// Measured by porter or its authors.
    Measured,
}

/// Errors with and without an answer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Measured {
    /// Worst error without the answer.
    pub before: f64,
    /// Worst error with it.
    pub after: f64,
}

/// A known fault that no graph shows.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Note {
    /// Its name in reports.
    pub id: String,
    /// What happens, and what porter does about it.
    pub what: String,
    /// The versions of the toolchain it strikes.
    #[serde(default)]
    pub versions: Versions,
    /// Where it is reported.
    pub reference: String,
    /// How well it is known.
    pub mark: Mark,
}

/// A file that adds to a target instead of replacing it, as `bisect --heal` writes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Overlay {
    /// The target it adds to.
    pub overlay: String,
    /// Why it was written.
    #[serde(default)]
    pub what: Option<String>,
    /// Rules to apply besides the target's own, after them.
    #[serde(default)]
    pub rewrites: Vec<String>,
    /// Quirks to add; one with the id of an existing quirk replaces it.
    #[serde(default)]
    pub quirks: Vec<Quirk>,
    /// Operators to add or replace.
    #[serde(default, deserialize_with = "unique")]
    pub operators: IndexMap<String, Entry>,
}

/// A mapping in which no key stands twice: of two entries for an operator one would be lost without a word.
fn unique<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<IndexMap<String, T>, D::Error> {
    struct Reader<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
        type Value = IndexMap<String, T>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a mapping")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut read = IndexMap::new();
            while let Some((key, value)) = map.next_entry::<String, T>()? {
                if read.contains_key(&key) {
                    return Err(serde::de::Error::custom(format!(
                        "'{key}' stands here twice; expected one entry for each"
                    )));
                }
                read.insert(key, value);
            }
            Ok(read)
        }
    }
    deserializer.deserialize_map(Reader(PhantomData))
}
