//! The facts of a model as text, for a screen 100 columns wide.

use super::{Border, Facts, Layer};

const WIDTH: usize = 100;
/// Where the second column begins.
const INDENT: usize = 14;

/// All facts of a model, in lines.
pub fn text(file: &str, facts: &Facts) -> String {
    let mut lines = Vec::new();
    let about = facts.metadata.get("description").map(|text| format!("   {}", text.trim())).unwrap_or_default();
    lines.push(format!("{file}{about}"));
    let opsets: Vec<String> = facts.opsets.iter().map(|(domain, version)| format!("{domain} {version}")).collect();
    let producer = if facts.producer.is_empty() { "an unnamed program" } else { &facts.producer };
    field(&mut lines, "made by", &format!("{producer}, opset {}, IR version {}", opsets.join(", "), facts.ir_version));
    let told: Vec<String> = facts
        .metadata
        .iter()
        .filter(|(key, value)| *key != "description" && !value.is_empty() && value.len() <= 40)
        .map(|(key, value)| format!("{key} {value}"))
        .collect();
    if !told.is_empty() {
        field(&mut lines, "says", &told.join("; "));
    }
    borders(&mut lines, "inputs", &facts.inputs);
    borders(&mut lines, "outputs", &facts.outputs);
    let operators: Vec<String> = facts.operators.iter().map(|(name, count)| format!("{name} {count}")).collect();
    field(&mut lines, "nodes", &format!("{}: {}", facts.nodes, operators.join(", ")));
    if facts.functions > 0 {
        field(&mut lines, "functions", &format!("{} model-local, counted where they are called", facts.functions));
    }
    field(&mut lines, "weights", &weights(facts));
    field(&mut lines, "work", &work(facts));
    if !facts.layers.is_empty() {
        lines.push(String::new());
        layers(&mut lines, facts);
    }
    // A name with a line break in it makes no second line.
    lines.iter().map(|line| line.replace('\n', "\\n")).collect::<Vec<_>>().join("\n")
}

fn weights(facts: &Facts) -> String {
    let weights = &facts.weights;
    let dtypes: Vec<String> = weights.dtypes.keys().cloned().collect();
    let kinds = if dtypes.is_empty() { String::new() } else { format!(" of {}", dtypes.join(", ")) };
    let stripped = match weights.stripped {
        0 => String::new(),
        1 => "; 1 tensor is stripped, its values made up".into(),
        count => format!("; {count} tensors are stripped, their values made up"),
    };
    format!(
        "{} parameters{kinds}, {}B{stripped}",
        short(weights.parameters as f64).trim_end(),
        short(weights.bytes as f64)
    )
}

fn work(facts: &Facts) -> String {
    match facts.flops {
        Some(flops) if facts.uncounted == 0 => format!("{}FLOPs at these sizes", short(flops)),
        Some(flops) => format!(
            "{}FLOPs at these sizes, without {} nodes whose sizes show when it runs",
            short(flops),
            facts.uncounted
        ),
        None => match facts
            .inputs
            .iter()
            .find(|input| input.shape.as_ref().is_none_or(|dims| !dims.iter().all(|d| d.is_i64())))
        {
            Some(input) => format!("not known at free sizes; --shape {}=... fixes them", input.name),
            None => format!("not known: the sizes of {} nodes show when it runs", facts.uncounted),
        },
    }
}

fn layers(lines: &mut Vec<String>, facts: &Facts) {
    let layers = &facts.layers;
    let name = |layer: &Layer| if layer.name.is_empty() { "(no scope)".to_string() } else { layer.name.clone() };
    let widest = layers.iter().map(|layer| name(layer).chars().count()).max().unwrap_or(0).clamp(5, 44);
    lines.push(format!("  {:<widest$}  {:>5}  {:>10}  {:>8}  {}", "layer", "nodes", "parameters", "FLOPs", "output"));
    for layer in layers {
        lines.push(format!(
            "  {:<widest$}  {:>5}  {:>10}  {:>8}  {}",
            middle(&name(layer), widest),
            layer.nodes,
            if layer.parameters == 0 { "-".to_string() } else { short(layer.parameters as f64).trim_end().to_string() },
            if layer.flops == 0.0 || facts.flops.is_none() {
                "-".to_string()
            } else {
                short(layer.flops).trim_end().to_string()
            },
            middle(layer.output.as_deref().unwrap_or("-"), WIDTH - widest - 33),
        ));
    }
}

fn borders(lines: &mut Vec<String>, label: &str, values: &[Border]) {
    let widest = values.iter().map(|value| value.name.chars().count()).max().unwrap_or(0).min(40);
    for (index, value) in values.iter().enumerate() {
        let label = if index == 0 { label } else { "" };
        let text = middle(&value.text, WIDTH.saturating_sub(INDENT + widest + 2).max(24));
        lines.push(format!("  {label:<12}{:<widest$}  {text}", value.name));
    }
}

/// A label with text that goes on below itself where it is long.
fn field(lines: &mut Vec<String>, label: &str, text: &str) {
    for (index, line) in wrapped(text, WIDTH - INDENT).into_iter().enumerate() {
        let label = if index == 0 { label } else { "" };
        lines.push(format!("  {label:<12}{line}"));
    }
}

/// Names below a label, at most a few lines of them.
pub fn list(names: &[&str]) -> Vec<String> {
    const LINES: usize = 4;
    let all = wrapped(&names.join(", "), WIDTH - INDENT);
    let mut shown: Vec<String> = all.iter().take(LINES).map(|line| format!("{:INDENT$}{line}", "")).collect();
    if all.len() > LINES {
        let told: usize = all.iter().take(LINES).map(|line| line.matches(',').count()).sum();
        shown.push(format!("{:INDENT$}and {} more; --json shows them", "", names.len().saturating_sub(told)));
    }
    shown
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let long = lines
            .last()
            .is_some_and(|line| !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width);
        if long {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// A name that is too long, without its middle.
fn middle(name: &str, width: usize) -> String {
    let count = name.chars().count();
    if count <= width {
        return name.to_string();
    }
    let head: String = name.chars().take(width / 2 - 1).collect();
    let tail: String = name.chars().skip(count - (width - width / 2 - 2)).collect();
    format!("{head}...{tail}")
}

/// A count with three digits and a letter: `2.41 M`.
fn short(count: f64) -> String {
    let (scaled, unit) = match count {
        c if c >= 999.5e9 => (c / 1e12, "T"),
        c if c >= 999.5e6 => (c / 1e9, "G"),
        c if c >= 999.5e3 => (c / 1e6, "M"),
        c if c >= 1e4 => (c / 1e3, "k"),
        c => return format!("{c:.0} "),
    };
    let digits = if scaled < 9.995 {
        2
    } else if scaled < 99.95 {
        1
    } else {
        0
    };
    format!("{scaled:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_three_digits() {
        let told: Vec<String> =
            [0.0, 512.0, 9999.0, 12_345.0, 999_600.0, 2_408_932.0, 5.41e9].into_iter().map(short).collect();
        assert_eq!(told, ["0 ", "512 ", "9999 ", "12.3 k", "1.00 M", "2.41 M", "5.41 G"]);
    }

    #[test]
    fn models_are_told_in_a_hundred_columns() {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"));
        settings.set_prepend_module_to_snapshot(false);
        for name in ["yolo26n", "yolo26n-dynamic", "yolo26n-cls"] {
            let path = format!("{}/tests/models/{name}.onnx", env!("CARGO_MANIFEST_DIR"));
            let mut model = crate::load(path.as_ref()).unwrap();
            let text = text(&format!("{name}.onnx"), &crate::inspect::inspect(&mut model).unwrap());
            settings.bind(|| insta::assert_snapshot!(format!("inspect-{name}"), text));
        }
    }
}
