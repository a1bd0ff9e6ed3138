//! Targets: what a device and its compiler can run, what is known to go wrong there, and which types to compute in.
//!
//! A target is a file in `targets/`, read into [`Target`]. [`assess`] holds a model against it: for every node, whether
//! it runs there and which known faults it hits. [`dtype`] decides what a part computes in and converts it.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = porter::load("yolo26l.onnx".as_ref())?;
//! let target = porter::target::Target::shipped("neuron")?;
//! let setting = target.setting(None, Some("2.29"))?;
//! for (node, refusal) in porter::target::assess(&model, target, &setting).refused() {
//!     println!("{}: {}", model.graph.label(node), refusal.reason);
//! }
//! # Ok(()) }
//! ```

mod assess;
mod attributes;
pub mod dtype;
mod error;
mod facts;
mod literal;
mod load;
mod operators;
mod predicate;
mod quirk;
mod schema;
#[cfg(test)]
mod tests;
mod version;

pub use assess::{Assessment, QuirkHit, assess};
pub use error::{FileError, TargetError};
pub use facts::{Assignment, Facts};
pub use literal::Literal;
pub use load::{TargetSet, parse};
pub use operators::{Entry, Limits, Requirement, Span, Types};
pub use predicate::{Device, ModelScope, NodeScope, Predicate};
pub use schema::{
    ComputeRule, Conditions, Cost, DtypeRules, Head, KeepRule, Layout, Mark, Measured, Note, Overlay, Plugin, Quirk,
    Reach, Refusal, StaticShapes, Symptom, Target, VariantRule,
};
pub use version::{Version, Versions};

use serde::Serialize;

/// What answers a quirk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// A rewrite rule of this name.
    Rule(String),
    /// The node goes to the CPU.
    Cut,
    /// The dtype policy computes in less.
    Dtype,
    /// Sizes are frozen.
    FreezeShapes,
    /// The compile command carries the right flags.
    Flags,
    /// A newer toolchain.
    Upgrade,
}

impl Answer {
    /// The answer that a target file names.
    pub fn of(text: &str) -> Answer {
        match text {
            "cut" => Answer::Cut,
            "dtype" => Answer::Dtype,
            "freeze-shapes" => Answer::FreezeShapes,
            "flags" => Answer::Flags,
            "upgrade" => Answer::Upgrade,
            rule => Answer::Rule(rule.to_string()),
        }
    }
}

/// The letters that families of detectors have for their sizes.
const SIZES: [&str; 9] = ["t", "n", "s", "m", "b", "c", "l", "e", "x"];

/// The device and toolchain of a target that are meant.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// The device, with its facts.
    pub device: Device,
    /// The toolchain's version as written; empty where the target has none.
    pub toolchain: String,
}

impl Setting {
    /// The toolchain's version.
    pub fn version(&self) -> Option<Version> {
        Version::parse(&self.toolchain)
    }
}

impl Target {
    /// The named device and toolchain, or the target's own where none is named. A toolchain need not be one that the
    /// file lists: those between the oldest and the newest, and their patches, are known by the ranges of the quirks.
    ///
    /// # Errors
    /// There is no such device, or the toolchain is no version that the file knows of.
    pub fn setting(&self, device: Option<&str>, toolchain: Option<&str>) -> Result<Setting, TargetError> {
        let name =
            device.map(str::to_string).or_else(|| self.device.clone()).or_else(|| self.devices.keys().next().cloned());
        let device = match name {
            None => Device::default(),
            Some(name) => match self.devices.get(&name) {
                Some(facts) => Device { name, facts: facts.clone() },
                None => {
                    let known = self.devices.keys().cloned().collect::<Vec<_>>().join(", ");
                    return Err(self.not_there(
                        "device",
                        &name,
                        if known.is_empty() { "no devices".into() } else { known },
                    ));
                }
            },
        };
        let toolchain = match toolchain {
            Some(version) if !self.knows_toolchain(version) => {
                return Err(self.not_there("toolchain", version, self.toolchains.join(", ")));
            }
            Some(version) => version.to_string(),
            None => self.toolchain.clone().or_else(|| self.toolchains.last().cloned()).unwrap_or_default(),
        };
        Ok(Setting { device, toolchain })
    }

    /// Whether a version lies among those that the file lists. Where it lists none, any version is taken.
    fn knows_toolchain(&self, version: &str) -> bool {
        let Some(version) = Version::parse(version) else { return false };
        let range = |bound: &String, sign: &str| Versions::parse(&format!("{sign}{bound}"));
        let within = |bound: Option<&String>, sign: &str| {
            bound.is_none_or(|bound| range(bound, sign).is_ok_and(|range| range.contains(&version)))
        };
        within(self.toolchains.first(), ">=") && within(self.toolchains.last(), "<=")
    }

    /// Whether a variant means something: a size letter of a family of detectors, or one that the target's policy names.
    ///
    /// # Errors
    /// It is none.
    pub fn check_variant(&self, asked: &str) -> Result<(), TargetError> {
        let asked = asked.to_ascii_lowercase();
        let named = self.dtype.policy.iter().filter_map(|rule| rule.when.as_ref()).any(|when| {
            let source = when.source();
            !asked.is_empty()
                && source.contains("model.variant")
                && [format!("\"{asked}\""), format!("'{asked}'")].iter().any(|q| source.contains(q))
        });
        let ruled = self.variants.iter().any(|rule| rule.variant == asked);
        if named || ruled || SIZES.contains(&asked.as_str()) {
            return Ok(());
        }
        let more = self.variants.iter().map(|rule| rule.variant.as_str()).filter(|variant| !SIZES.contains(variant));
        let known: Vec<&str> = SIZES.into_iter().chain(more).collect();
        Err(self.not_there("variant", &asked, known.join(", ")))
    }

    fn not_there(&self, kind: &'static str, name: &str, known: String) -> TargetError {
        TargetError::NotThere { target: self.name.clone(), kind, name: name.to_string(), known }
    }

    /// The facts of a model, with the variant settled: as asked for, as its metadata says, or by its parameters.
    pub fn facts(&self, model: &crate::graph::Model, variant: Option<&str>) -> (Facts, VariantFrom) {
        let mut facts = Facts::of(model);
        let from = match (variant, &facts.variant) {
            (Some(asked), _) => {
                facts.variant = Some(asked.to_ascii_lowercase());
                VariantFrom::Asked
            }
            (None, Some(_)) => VariantFrom::Metadata,
            // The letters are those of networks on images; what a transformer of so many parameters is called is not known.
            (None, None) if !facts.convolutional => VariantFrom::Nothing,
            (None, None) => {
                let rule = self.variants.iter().find(|rule| rule.under.is_none_or(|under| facts.parameters < under));
                facts.variant = rule.map(|rule| rule.variant.clone());
                if rule.is_some() { VariantFrom::Parameters } else { VariantFrom::Nothing }
            }
        };
        (facts, from)
    }

    /// The JSON Schema of target files.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Target).to_value()
    }
}

/// How the variant of a model is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VariantFrom {
    /// The user named it.
    Asked,
    /// The model's metadata names it.
    Metadata,
    /// By the number of parameters.
    Parameters,
    /// It is not known.
    Nothing,
}
