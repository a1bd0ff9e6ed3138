//! The user's own inputs where a command takes samples: files read, one sample for each run they make.

use std::path::Path;

use super::{Failure, overwrite, screen};
use crate::engine::Tensors;
use crate::graph::Model;
use crate::inputs::{self, Plan, Wanted};

/// Reads what the user named into samples, each with its name, `most` of them at the most. `models` are what runs on them;
/// `writes` are what the command writes, which must be none of the files.
///
/// # Errors
/// A file that cannot be read, does not fit the model's inputs, or would be written over.
pub(super) fn samples(
    texts: &[String],
    wanted: &Wanted,
    options: &inputs::Options,
    models: &[Model],
    most: usize,
    writes: &[&Path],
) -> Result<Vec<(String, Tensors)>, Failure> {
    let names: Vec<&str> = wanted.slots.iter().map(|slot| slot.name.as_str()).collect();
    let files = texts.iter().map(|text| inputs::expand(text, &names)).collect::<Result<Vec<_>, _>>();
    let plan = Plan::new(wanted, &files.map_err(Failure::input)?, options).map_err(Failure::input)?;
    writes.iter().try_for_each(|path| overwrite::refuse(path, plan.files()))?;
    let load = |run: usize| {
        let feed = plan.load(run, models, false).map_err(Failure::input)?;
        feed.warnings.iter().for_each(|said| screen::note(&format!("warning: {said}")));
        let name = match feed.frames.as_slice() {
            [] => format!("given {}", run + 1),
            [only] => only.name.clone(),
            [first, rest @ ..] => format!("{} and {} more", first.name, rest.len()),
        };
        Ok((name, feed.tensors))
    };
    (0..plan.runs().min(most)).map(load).collect()
}
