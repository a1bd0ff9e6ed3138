//! Which engine runs which part: the user's choice, the bundle's target, a stand-in for it, or what is there.

use super::{Line, Program, RunError};
use crate::engine::emulate::{self, Emulated};
use crate::engine::ort::{Optimisation, Ort};
use crate::engine::{Engine, EngineError, Session};
use crate::reach::{self, ReachError, Reached, Spec};
use crate::target::{Reach, TargetSet};

/// What the user chose.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// The target that runs a model; the first engine there is, where none is named.
    pub target: Option<String>,
    /// What runs a bundle's parts in place of their target.
    pub stand_in: Option<String>,
    /// How targets are reached.
    pub options: reach::Options,
    /// Whether ONNX Runtime on the CPU runs in a process of its own as well.
    pub isolate: bool,
}

/// An engine with the parts it runs.
struct Member {
    spec: String,
    /// Whether it emulates 16-bit floats.
    emulated: bool,
    engine: Box<dyn Engine>,
    label: String,
    /// Whether it computes on the CPU, with as many threads as porter told it.
    on_cpu: bool,
}

/// Engines for the parts of a program.
pub struct Crew {
    members: Vec<Member>,
    /// For each part, its member.
    seats: Vec<usize>,
}

impl Crew {
    /// Finds an engine for each part.
    ///
    /// # Errors
    /// A target that cannot be reached from here.
    pub fn gather(program: &Program, targets: &TargetSet, choice: &Choice) -> Result<Self, ReachError> {
        let mut crew = Self { members: Vec::new(), seats: Vec::new() };
        for piece in &program.pieces {
            // What the target does not take runs on what is there; the rest of a bundle for the CPU is tract's.
            let for_cpu = program.target.as_ref().is_some_and(|(name, _)| name == "cpu");
            let host = piece.device == "cpu" && (!for_cpu || piece.name.starts_with("host"));
            let spec = match (&choice.target, &choice.stand_in) {
                _ if host => default_spec().to_string(),
                (_, Some(stand_in)) => stand_in.clone(),
                (Some(target), None) => target.clone(),
                (None, None) if piece.device.is_empty() => default_spec().to_string(),
                (None, None) => piece.device.clone(),
            };
            let half = emulate::of(&piece.model).is_some();
            let (spec, emulated) = emulation(&spec, half, targets)?;
            let seat = match crew.members.iter().position(|one| one.spec == spec && one.emulated == emulated) {
                Some(seat) => seat,
                None => {
                    let own = piece.device == "cpu" || is_cpu(&spec, targets)?;
                    let mut options = choice.options.clone();
                    options.isolate = choice.isolate || !own;
                    if let Some((_, device)) = program.target.as_ref().filter(|(name, _)| *name == spec) {
                        options.device = options.device.or_else(|| device.clone());
                    }
                    let Reached { engine, label, .. } = reach::open(&spec, targets, &options)?;
                    let engine: Box<dyn Engine> = if emulated { Box::new(Widened(engine)) } else { engine };
                    crew.members.push(Member { spec, emulated, engine, label, on_cpu: own });
                    crew.members.len() - 1
                }
            };
            crew.seats.push(seat);
        }
        Ok(crew)
    }

    /// What each part runs on, as a reader knows it.
    pub fn labels(&self) -> Vec<&str> {
        self.seats.iter().map(|&seat| self.members[seat].label.as_str()).collect()
    }

    /// Whether every core is an engine's while it computes; `threads` is how many it was told to take, 0 for all.
    pub fn takes_every_core(&self, threads: usize) -> bool {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        self.members.iter().any(|member| member.on_cpu) && (threads == 0 || threads >= cores)
    }

    /// Compiles the program.
    ///
    /// # Errors
    /// An engine that does not take its part.
    pub fn compile(&self, program: &Program) -> Result<Line, RunError> {
        Line::compile(program, |index| self.members[self.seats[index]].engine.as_ref())
    }
}

/// The engine for what no target is named for: ONNX Runtime if it is there, else tract.
fn default_spec() -> &'static str {
    if Ort::new(Optimisation::All).is_ok() { "ort" } else { "tract" }
}

/// Whether a target is one of the engines on the CPU that porter itself reaches.
fn is_cpu(spec: &str, targets: &TargetSet) -> Result<bool, ReachError> {
    Ok(match Spec::parse(spec)? {
        Spec::Tract | Spec::Ort(_) => true,
        Spec::Named(name) => match &targets.get(&name)?.reach {
            Reach::Tract {} => true,
            Reach::Onnxruntime { provider, .. } => provider == "CPUExecutionProvider",
            _ => false,
        },
        _ => false,
    })
}

/// CPU engines do not compute in 16 bits: for a part that does, they emulate it. ONNX Runtime must not optimise then.
fn emulation(spec: &str, half: bool, targets: &TargetSet) -> Result<(String, bool), ReachError> {
    let parsed = Spec::parse(spec)?;
    let simulated = matches!(parsed, Spec::Faulty { .. });
    if !half || !(simulated || is_cpu(spec, targets)?) {
        return Ok((spec.to_string(), false));
    }
    let plain = match parsed {
        Spec::Ort(_) => "ort:off".to_string(),
        Spec::Named(name) if !matches!(targets.get(&name)?.reach, Reach::Tract {}) => "ort:off".to_string(),
        _ => spec.to_string(),
    };
    Ok((plain, true))
}

/// An engine that takes models in 16-bit floats by emulating them.
struct Widened(Box<dyn Engine>);

impl Engine for Widened {
    fn name(&self) -> String {
        self.0.name()
    }

    fn version(&self) -> String {
        self.0.version()
    }

    fn compile(&self, model: &crate::graph::Model) -> Result<Box<dyn Session>, EngineError> {
        Emulated(self.0.as_ref()).compile(model)
    }
}
