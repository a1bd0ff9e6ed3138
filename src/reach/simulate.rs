//! Known faults of targets, planted: from the names behind `faulty:` to an engine that has them.
//!
//! A name is a quirk's (`N1`), a compiler's error code (`NCC_EVRF029`: every quirk and every refusal of a target file with
//! that code), or a file with planted faults (`.yaml` or `.json`: a list in the form of [`Fault`]).

use std::path::Path;
use std::sync::Arc;

use super::ReachError;
use crate::engine::Engine;
use crate::engine::faulty::{Fault, Faulty, Finder, Kind, Place};
use crate::rewrite::Matcher;
use crate::target::{Quirk, Target, TargetSet, assess};

/// An engine with these faults planted in `base`.
///
/// # Errors
/// A name that no target file has, or a fault whose values nobody knows.
pub fn faulty(names: &[String], base: Arc<dyn Engine>, targets: &TargetSet) -> Result<Faulty, ReachError> {
    let mut faults = Vec::new();
    for name in names {
        faults.extend(named(name, targets)?);
    }
    Ok(Faulty::new(base, faults, &names.join(", ")))
}

/// The target whose faults these are: that of the first that a target file names.
pub fn home<'a>(names: &[String], targets: &'a TargetSet) -> Option<&'a Target> {
    let has = |target: &&Target| {
        names.iter().any(|name| {
            let quirk = |quirk: &Quirk| {
                let coded = |codes: &String| codes.split(", ").any(|code| code == name);
                quirk.id == *name || quirk.symptom.code.as_ref().is_some_and(coded)
            };
            target.quirks.iter().any(quirk)
        })
    };
    targets.iter().find(has)
}

fn wrong(name: &str, problem: impl Into<String>) -> ReachError {
    ReachError::Spec { text: format!("faulty:{name}"), problem: problem.into() }
}

fn named(name: &str, targets: &TargetSet) -> Result<Vec<Fault>, ReachError> {
    if name.ends_with(".yaml") || name.ends_with(".json") {
        return from_file(name);
    }
    let all = || targets.iter().flat_map(|target| target.quirks.iter());
    if let Some(quirk) = all().find(|quirk| quirk.id == name) {
        return of_quirk(quirk).map(|fault| vec![fault]);
    }
    let coded = |code: &Option<String>| code.as_deref().is_some_and(|codes| codes.split(", ").any(|code| code == name));
    let mut faults = Vec::new();
    for quirk in all().filter(|quirk| coded(&quirk.symptom.code)) {
        faults.push(Fault { code: Some(name.into()), ..of_quirk(quirk)? });
    }
    faults.extend(targets.iter().filter_map(|target| refused_with(target, name)));
    match faults.is_empty() {
        true => Err(wrong(name, "no target file has a known fault or an error code of this name")),
        false => Ok(faults),
    }
}

fn from_file(name: &str) -> Result<Vec<Fault>, ReachError> {
    let text = std::fs::read_to_string(Path::new(name)).map_err(|error| wrong(name, error.to_string()))?;
    serde_yaml::from_str(&text).map_err(|error| wrong(name, format!("is no list of faults: {error}")))
}

/// The fault that a quirk describes.
fn of_quirk(quirk: &Quirk) -> Result<Fault, ReachError> {
    let symptom = &quirk.symptom;
    let (kind, code) = if let Some(silent) = &symptom.silent {
        let kind = match silent.as_str() {
            // The quirk's own words say what is read transposed: the constant that the last node takes.
            "transposed" => Some(Kind::ConstantTransposed),
            other => serde_yaml::from_str::<Kind>(other).ok().filter(|kind| kind.changes_values()),
        };
        let unknown = || wrong(&quirk.id, format!("what values it gives is not known ('{silent}')"));
        (kind.ok_or_else(unknown)?, None)
    } else if let Some(codes) = &symptom.code {
        (Kind::CompileError, codes.split(", ").next().map(str::to_string))
    } else if let Some(crash) = &symptom.crash {
        match crash.strip_prefix("exit ") {
            Some(number) => (Kind::Crash, Some(format!("exit:{number}"))),
            None if crash.contains("runtime") => (Kind::RunCrash, Some("signal:6".into())),
            None => (Kind::Crash, Some("signal:11".into())),
        }
    } else {
        return Err(wrong(&quirk.id, format!("it is no fault that can be planted: {symptom}")));
    };
    let conditions: Vec<String> = quirk.conditions.iter().map(str::to_string).collect();
    let matcher = Matcher::parse_unchecked(quirk.pattern.trim_end(), &conditions)
        .map_err(|error| wrong(&quirk.id, error.to_string()))?;
    let find = move |model: &crate::graph::Model| {
        let found = matcher.find(&model.graph, model.opset()).unwrap_or_default();
        found.iter().filter_map(|found| found.nodes.last().copied()).collect()
    };
    let finder = Finder { name: format!("quirk {}", quirk.id), find: Arc::new(find) };
    let place = Place { finder: Some(finder), ..Default::default() };
    Ok(Fault { code, ..Fault::new(kind, place) })
}

/// The refusals of a target's operator table that carry this code.
fn refused_with(target: &Target, code: &str) -> Option<Fault> {
    if !serde_json::to_string(&target.operators).unwrap_or_default().contains(&format!("\"{code}\"")) {
        return None;
    }
    let (own, wanted) = (target.clone(), code.to_string());
    let find = move |model: &crate::graph::Model| {
        let setting = own.setting(None, None).unwrap_or_default();
        let assessment = assess(model, &own, &setting);
        let has = |refusal: &crate::target::Refusal| refusal.code.as_deref() == Some(wanted.as_str());
        assessment.refused().filter(|(_, refusal)| has(refusal)).map(|(id, _)| id).collect()
    };
    let finder = Finder { name: format!("{code} of {}", target.name), find: Arc::new(find) };
    let place = Place { finder: Some(finder), ..Default::default() };
    Some(Fault { code: Some(code.into()), ..Fault::new(Kind::CompileError, place) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tract::Tract;
    use crate::graph::Node;
    use crate::graph::builder::Build;
    use crate::onnx::DType;

    fn strikes(name: &str, dims: &[i64], sizes: &[i64]) -> usize {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, dims);
        let sizes = build.ints("sizes", sizes);
        let (a, b) = (build.graph.add_value("a"), build.graph.add_value("b"));
        build.graph.add_node(Node::new("Split", [x, sizes], [a, b]).named("split").with("axis", 1));
        let model = build.finish(&[a, b]);
        let faulty = faulty(&[name.to_string()], Arc::new(Tract), &TargetSet::shipped()).unwrap();
        faulty.strikes(&model).concat().len()
    }

    #[test]
    fn quirks_strike_where_their_file_says() {
        assert_eq!(strikes("N1", &[2, 6, 4], &[2, 4]), 1);
        assert_eq!(strikes("N1", &[1, 6, 4], &[2, 4]), 0);
        assert_eq!(strikes("N2", &[2, 6, 4], &[3, 3]), 1);
        assert_eq!(strikes("N2", &[1, 6, 4], &[3, 3]), 0);
        assert_eq!(strikes("N3", &[4, 6, 16, 16], &[3, 3]), 1);
        assert_eq!(strikes("N3", &[4, 6, 16, 17], &[3, 3]), 0);
    }

    #[test]
    fn what_cannot_be_planted_is_refused() {
        let told =
            |name: &str| faulty(&[name.to_string()], Arc::new(Tract), &TargetSet::shipped()).err().unwrap().to_string();
        assert!(told("N999").contains("no target file has"));
        assert!(told("N14").contains("not known"));
        assert!(told("N11").contains("no fault that can be planted"));
    }
}
