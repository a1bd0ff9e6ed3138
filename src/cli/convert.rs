//! What commands that make one model file of another share: their arguments, and what they say at the end.

use std::path::PathBuf;

use super::{Failure, screen};
use crate::onnx;
use crate::onnx::proto::ModelProto;

/// From which file to which.
#[derive(clap::Args)]
pub struct Files {
    /// The model
    pub model: PathBuf,
    /// Where to write the new one
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Print one JSON document and nothing else on standard output
    #[arg(long)]
    json: bool,
}

impl Files {
    /// Writes the new model and says so: `done` in words, `facts` for those who read JSON.
    pub fn write(&self, model: &ModelProto, done: &str, facts: serde_json::Value) -> Result<(), Failure> {
        onnx::write(&self.output, model)?;
        let output = self.output.display();
        if self.json {
            let mut document = serde_json::json!({ "output": output.to_string() });
            if let (Some(all), serde_json::Value::Object(facts)) = (document.as_object_mut(), facts) {
                all.extend(facts);
            }
            screen::json(&document);
        } else {
            let size = std::fs::metadata(&self.output).map(|meta| meta.len() as usize).unwrap_or_default();
            screen::println(&format!("{done} -> {output} ({})", screen::bytes(size)));
        }
        Ok(())
    }
}
