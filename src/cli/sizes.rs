//! The arguments that freeze a model's sizes, the same on every command that takes a model.

use crate::graph::freeze::Freeze;

/// Sizes to freeze.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Sizes {
    /// The shape of an input, such as images=1,3,640,640 (may be given for each input)
    #[arg(long = "shape", value_name = "NAME=SIZES", value_parser = parse_shape)]
    shapes: Vec<(String, Vec<i64>)>,
    /// The batch, for every input whose first size is free
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    batch: Option<i64>,
}

impl Sizes {
    /// As the graph's pass takes them.
    pub fn freeze(&self) -> Freeze {
        Freeze { shapes: self.shapes.clone(), batch: self.batch }
    }
}

pub(super) fn parse_shape(text: &str) -> Result<(String, Vec<i64>), String> {
    let form = || "expected NAME=SIZES, such as images=1,3,640,640".to_string();
    let (name, sizes) = text.rsplit_once('=').ok_or_else(form)?;
    if name.is_empty() {
        return Err(form());
    }
    let size = |text: &str| match text.trim().parse::<i64>() {
        Ok(size) if size >= 0 => Ok(size),
        _ => Err(format!("'{text}' is not a size; {}", form())),
    };
    let sizes = if sizes.trim().is_empty() { Ok(Vec::new()) } else { sizes.split(',').map(size).collect() };
    Ok((name.to_string(), sizes?))
}
