//! The command line of a target's worker: `{python}` and `{workers}` in it, and the scripts that porter ships.

use crate::engine::worker::{self, Start};
use crate::home;

/// The worker scripts that porter ships, by file name.
const SCRIPTS: &[(&str, &str)] =
    &[("openvino_worker.py", include_str!("../../workers/openvino_worker.py")), worker::PYTHON_MODULE];

/// What to start for a target's command; `runtime` is where its packages are, `words` are further placeholders.
pub(super) fn start(command: &str, runtime: Option<&str>, words: &[(&str, &str)]) -> Start {
    let filled = |line: String, (name, value): &(&str, &str)| line.replace(&format!("{{{name}}}"), &quoted(value));
    let mut line = words.iter().fold(command.replace("{python}", &python(runtime)), filled);
    let mut files = Vec::new();
    if line.contains("{workers}") {
        // The scratch folder holds them, so that they are always those of this porter and go away with it.
        line = line.replace("{workers}", "\"$PORTER_WORKDIR\"");
        files = SCRIPTS.to_vec();
    }
    Start::Shell { line, files }
}

/// The Python that has a runtime's packages, as the shell takes it: the installed runtime's; that of `PORTER_PYTHON`; the one
/// on the path.
fn python(runtime: Option<&str>) -> String {
    let installed = runtime.map(home::runtime).filter(|folder| folder.join("installed.json").is_file());
    if let Some(folder) = installed {
        let text = std::fs::read_to_string(folder.join("installed.json")).unwrap_or_default();
        let told: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let python = told.get("python").and_then(|python| python.as_str()).unwrap_or("python3");
        return format!(
            "PYTHONPATH={} PYTHONDONTWRITEBYTECODE=1 exec {}",
            quoted(&folder.display().to_string()),
            quoted(python)
        );
    }
    match std::env::var_os("PORTER_PYTHON").filter(|python| !python.is_empty()) {
        Some(python) => format!("exec {}", quoted(&python.to_string_lossy())),
        None => "exec python3".into(),
    }
}

/// A text as one word of the shell's.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_go_along_and_paths_stay_whole() {
        let Start::Shell { line, files } = start("{python} {workers}/a.py {device}", None, &[("device", "x y")]) else {
            panic!()
        };
        assert!(line.starts_with("exec ") && line.ends_with(" \"$PORTER_WORKDIR\"/a.py 'x y'"), "{line}");
        assert_eq!(files, SCRIPTS);
        assert_eq!(quoted("a b'c"), r"'a b'\''c'");
    }
}
