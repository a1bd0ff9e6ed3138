//! Finds targets: those that ship inside the binary, and those of a folder or an overlay.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use indexmap::IndexMap;

use super::error::{Text, io};
use super::operators::{Entry, MAIN};
use super::predicate::{ModelScope, NodeScope, Predicate};
use super::schema::{Cost, Overlay, Quirk, Target};
use super::version::Version;
use super::{Answer, TargetError};
use crate::onnx::DType;
use crate::rewrite::expr::ExpressionError;

/// The files of the shipped targets, by name.
const SHIPPED: &[(&str, &str)] = &[
    ("cpu", include_str!("../../targets/cpu.yaml")),
    ("ort", include_str!("../../targets/ort.yaml")),
    ("cuda", include_str!("../../targets/cuda.yaml")),
    ("tensorrt", include_str!("../../targets/tensorrt.yaml")),
    ("coreml", include_str!("../../targets/coreml.yaml")),
    ("openvino", include_str!("../../targets/openvino.yaml")),
    ("qnn", include_str!("../../targets/qnn.yaml")),
    ("neuron", include_str!("../../targets/neuron.yaml")),
    ("xla", include_str!("../../targets/xla.yaml")),
];

/// Words that `--target` takes for engines, which no target file may have for a name.
const RESERVED: [&str; 3] = ["tract", "worker", "faulty"];

/// Targets by name. A shipped one is only read when it is asked for.
#[derive(Clone, Debug, Default)]
pub struct TargetSet {
    own: IndexMap<String, Target>,
}

impl TargetSet {
    /// The shipped targets.
    pub fn shipped() -> Self {
        TargetSet::default()
    }

    /// The shipped targets with those of `path` before them: a folder of target files and overlays, or one such file.
    ///
    /// # Errors
    /// A file that cannot be read, or that makes no sense.
    pub fn load(path: &Path) -> Result<Self, TargetError> {
        let mut set = TargetSet::shipped();
        let mut files: Vec<PathBuf> = if path.is_dir() {
            let entries = std::fs::read_dir(path).map_err(|error| io(path, error))?;
            let files: Result<Vec<PathBuf>, std::io::Error> = entries.map(|entry| entry.map(|e| e.path())).collect();
            let yaml = |file: &PathBuf| file.extension().is_some_and(|ext| ext == "yaml" || ext == "yml");
            files.map_err(|error| io(path, error))?.into_iter().filter(yaml).collect()
        } else {
            vec![path.to_path_buf()]
        };
        files.sort();
        let mut overlays = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(&file).map_err(|error| io(&file, error))?;
            let name = file.display().to_string();
            // Overlays come after every target, whatever their files are called.
            if text.lines().any(|line| line.starts_with("overlay:")) {
                overlays.push((name, text));
            } else {
                let target = parse(&name, &text)?;
                set.own.insert(target.name.clone(), target);
            }
        }
        for (name, text) in overlays {
            set.overlay(&name, &text)?;
        }
        Ok(set)
    }

    fn overlay(&mut self, name: &str, text: &str) -> Result<(), TargetError> {
        let place = Text { name, text };
        let overlay: Overlay = serde_yaml::from_str(text).map_err(|error| place.yaml(&error))?;
        let mut target = match self.get(&overlay.overlay) {
            Ok(target) => target.clone(),
            Err(TargetError::Unknown { known, .. }) => {
                let span = place.find("overlay:", &overlay.overlay);
                return Err(place.error(
                    format!("there is no target '{}'", overlay.overlay),
                    span,
                    format!("expected one of {known}"),
                ));
            }
            Err(other) => return Err(other),
        };
        for quirk in &overlay.quirks {
            check_quirk(&place, &target, quirk)?;
        }
        for (op, entry) in &overlay.operators {
            check_entry(&place, &target, op, entry)?;
        }
        for quirk in overlay.quirks {
            match target.quirks.iter_mut().find(|old| old.id == quirk.id) {
                Some(old) => *old = quirk,
                None => target.quirks.push(quirk),
            }
        }
        for rule in overlay.rewrites {
            if !target.rewrites.contains(&rule) {
                target.rewrites.push(rule);
            }
        }
        target.operators.extend(overlay.operators);
        self.own.insert(target.name.clone(), target);
        Ok(())
    }

    /// The target of a name.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> Result<&Target, TargetError> {
        if let Some(target) = self.own.get(name) {
            return Ok(target);
        }
        match SHIPPED.iter().position(|(shipped, _)| *shipped == name) {
            Some(index) => shipped_at(index),
            None => Err(TargetError::Unknown { name: name.to_string(), known: self.names().join(", ") }),
        }
    }

    /// Every target, the shipped ones first.
    pub fn iter(&self) -> impl Iterator<Item = &Target> {
        self.names().into_iter().filter_map(|name| self.get(name).ok())
    }

    /// Every name, the shipped ones first.
    pub fn names(&self) -> Vec<&str> {
        let shipped = SHIPPED.iter().map(|(name, _)| *name);
        let own = self.own.keys().map(String::as_str).filter(|name| SHIPPED.iter().all(|(shipped, _)| shipped != name));
        shipped.chain(own).collect()
    }
}

/// The shipped target at an index, read once.
fn shipped_at(index: usize) -> Result<&'static Target, TargetError> {
    static READ: [OnceLock<Target>; SHIPPED.len()] = [const { OnceLock::new() }; SHIPPED.len()];
    if let Some(target) = READ[index].get() {
        return Ok(target);
    }
    let (name, text) = SHIPPED[index];
    let target = parse(&format!("targets/{name}.yaml"), text)?;
    Ok(READ[index].get_or_init(|| target))
}

impl Target {
    /// A shipped target.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn shipped(name: &str) -> Result<&'static Target, TargetError> {
        match SHIPPED.iter().position(|(shipped, _)| *shipped == name) {
            Some(index) => shipped_at(index),
            None => {
                let known: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
                Err(TargetError::Unknown { name: name.to_string(), known: known.join(", ") })
            }
        }
    }
}

/// Reads and checks a target file.
///
/// # Errors
/// What makes no sense in it, with its line.
pub fn parse(name: &str, text: &str) -> Result<Target, TargetError> {
    let place = Text { name, text };
    let target: Target = serde_yaml::from_str(text).map_err(|error| place.yaml(&error))?;
    check(&place, &target)?;
    Ok(target)
}

fn check(place: &Text, target: &Target) -> Result<(), TargetError> {
    let unknown = |key: &str, what: &str, name: &str, known: Vec<String>| {
        let span = place.find(&format!("\n{key}:"), name);
        place.error(format!("there is no {what} '{name}'"), span, format!("expected one of {}", known.join(", ")))
    };
    check_name(place, &target.name)?;
    check_cost(place, &target.cost)?;
    if let Some(device) = target.device.as_ref().filter(|device| !target.devices.contains_key(*device)) {
        return Err(unknown("device", "device", device, target.devices.keys().cloned().collect()));
    }
    if let Some(toolchain) = target.toolchain.as_ref().filter(|version| !target.toolchains.contains(version)) {
        return Err(unknown("toolchain", "toolchain", toolchain, target.toolchains.clone()));
    }
    for version in &target.toolchains {
        if Version::parse(version).is_none() {
            let span = place.find("\ntoolchains:", version);
            return Err(place.error(
                format!("'{version}' is no version"),
                span,
                "expected numbers between dots, such as 2.28",
            ));
        }
    }
    for (set, types) in &target.types {
        for name in types {
            if DType::from_name(name).is_none() {
                let span = place.find(&format!("\n  {set}:"), name);
                return Err(place.error(
                    format!("'{name}' is no element type"),
                    span,
                    "expected a name such as float or int64",
                ));
            }
        }
    }
    for rule in &target.dtype.policy {
        if let Some(when) = &rule.when {
            check_predicate(place, "policy:", when, ModelScope::knows, ModelScope::NAMES)?;
        }
        if !target.dtype.available.contains(&rule.compute) {
            let span = place.find("policy:", rule.compute.name());
            return Err(place.error(format!("{} is not available", rule.compute), span, "expected one of `available`"));
        }
    }
    if target.dtype.policy.last().is_none_or(|rule| rule.when.is_some() || !rule.versions.is_all()) {
        let span = place.find("\ndtype:", "policy:");
        return Err(place.error(
            "no rule of the dtype policy holds for every model",
            span,
            "expected a last rule without `when` and `versions`",
        ));
    }
    for rule in &target.dtype.keep_float32 {
        check_predicate(place, "keep-float32:", &rule.when, NodeScope::knows, NodeScope::NAMES)?;
    }
    for (op, entry) in &target.operators {
        check_entry(place, target, op, entry)?;
    }
    for quirk in &target.quirks {
        check_quirk(place, target, quirk)?;
    }
    Ok(())
}

/// A name becomes a word of `--target` and a part of folders' names.
fn check_name(place: &Text, name: &str) -> Result<(), TargetError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let (problem, expected) = match name {
        _ if RESERVED.contains(&name) => (format!("'{name}' means something else after --target"), "another name"),
        _ if !starts || !name.chars().all(plain) => {
            (format!("'{name}' is no name for a target"), "lower-case letters, digits, - and _")
        }
        _ => return Ok(()),
    };
    let span = place.find("target:", name);
    Err(place.error(problem, span, format!("expected {expected}")))
}

/// Times are at least 0, and what is divided by is more than that.
fn check_cost(place: &Text, cost: &Cost) -> Result<(), TargetError> {
    let wrong = [
        ("border-us", cost.border_us, false),
        ("bytes-per-us", cost.bytes_per_us, true),
        ("target-flops-per-us", cost.target_flops_per_us, true),
        ("cpu-flops-per-us", cost.cpu_flops_per_us, true),
        ("cpu-node-us", cost.cpu_node_us, false),
        ("target-node-us", cost.target_node_us, false),
    ]
    .into_iter()
    .find(|(_, value, divides)| !value.is_finite() || *value < 0.0 || (*divides && *value == 0.0));
    let Some((key, value, divides)) = wrong else { return Ok(()) };
    let expected = if divides { "expected a number above 0" } else { "expected 0 or more" };
    let span = place.find("\ncost:", key);
    Err(place.error(format!("{key} of {value} is no cost"), span, expected))
}

fn check_entry(place: &Text, target: &Target, op: &str, entry: &Entry) -> Result<(), TargetError> {
    let Entry::Limits(limits) = entry else { return Ok(()) };
    let after = format!("\n  {op}:");
    for limit in limits {
        for name in limit.dtypes.0.values().flatten() {
            if DType::from_name(name).is_none() && !target.types.contains_key(name) {
                let sets: Vec<&str> = target.types.keys().map(String::as_str).collect();
                let expected = format!("expected an element type or one of the sets {}", sets.join(", "));
                return Err(place.error(
                    format!("{op}: there are no types '{name}'"),
                    place.find(&after, name),
                    expected,
                ));
            }
        }
        for requirement in &limit.requires {
            check_predicate(place, &after, &requirement.that, NodeScope::knows, NodeScope::NAMES)?;
        }
    }
    Ok(())
}

fn check_predicate(
    place: &Text,
    after: &str,
    predicate: &Predicate,
    known: fn(&str) -> bool,
    expected: &str,
) -> Result<(), TargetError> {
    predicate.check(known, expected).map_err(|error| expression(place, after, predicate.source(), error))
}

/// An error inside an expression, underlined there.
fn expression(place: &Text, after: &str, source: &str, error: ExpressionError) -> TargetError {
    let span = place.find(after, source).map(|whole| match error.span {
        Some(part) if whole.start + part.end <= whole.end => whole.start + part.start..whole.start + part.end,
        _ => whole,
    });
    place.error(&error.message, span, "expected a CEL predicate that makes sense here")
}

fn check_quirk(place: &Text, target: &Target, quirk: &Quirk) -> Result<(), TargetError> {
    let after = format!("id: {}", quirk.id);
    let symptom = &quirk.symptom;
    if [&symptom.silent, &symptom.code, &symptom.slow, &symptom.crash].into_iter().flatten().next().is_none() {
        let span = place.find(&after, "symptom");
        return Err(place.error(format!("{}: no symptom", quirk.id), span, "expected silent, code, slow or crash"));
    }
    for device in &quirk.devices {
        if !target.devices.contains_key(device) {
            let known: Vec<&str> = target.devices.keys().map(String::as_str).collect();
            let span = place.find(&after, device);
            return Err(place.error(
                format!("{}: there is no device '{device}'", quirk.id),
                span,
                format!("expected one of {}", known.join(", ")),
            ));
        }
    }
    if let Some(answer) = &quirk.answer
        && let Answer::Rule(rule) = Answer::of(answer)
        && !rule.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    {
        let span = place.find(&after, answer);
        return Err(place.error(
            format!("{}: '{answer}' is no answer", quirk.id),
            span,
            "expected a rule's name, cut, dtype, freeze-shapes, flags or upgrade",
        ));
    }
    super::quirk::compile(quirk).map(|_| ()).map_err(|error| {
        let span = place.find(&after, &error.text).map(|whole| match &error.span {
            Some(part) if whole.start + part.end <= whole.end => whole.start + part.start..whole.start + part.end,
            _ => whole,
        });
        place.error(format!("{}: {}", quirk.id, error.message), span, error.expected)
    })
}

/// The element types that a list of names means.
pub(super) fn expand(target: &Target, names: &[String]) -> Vec<DType> {
    let mut all = Vec::new();
    for name in names {
        match DType::from_name(name) {
            Some(dtype) => all.push(dtype),
            None => all.extend(target.types.get(name).into_iter().flatten().filter_map(|name| DType::from_name(name))),
        }
    }
    all
}

/// The position of a table that means the first input, or the first output of a node without inputs.
pub(super) const MAIN_POSITION: &str = MAIN;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_target_is_right() {
        for (name, _) in SHIPPED {
            let target = Target::shipped(name).unwrap_or_else(|error| panic!("{:?}", miette::Report::new(error)));
            assert_eq!(target.name, *name);
            assert!(!target.source.is_empty(), "{name} says no source");
        }
    }
}
