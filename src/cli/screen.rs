//! What the screen can show, and how sizes are said.

use std::io::IsTerminal;

/// Whether standard error may be coloured: a terminal, and `NO_COLOR` not set.
pub fn stderr_has_colour() -> bool {
    colour_wanted() && std::io::stderr().is_terminal()
}

fn colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A size in bytes as people say it: `53 MB`, `4.0 kB`, `12 B`; decimal units.
pub fn bytes(count: usize) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..10_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        10_000_000..1_000_000_000 => format!("{:.0} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}

/// Prints one JSON document to standard output, and nothing else.
pub fn json(document: &impl serde::Serialize) {
    match serde_json::to_string_pretty(document) {
        Ok(text) => println(&text),
        Err(error) => eprintln!("error: the result could not be written as JSON: {error}"),
    }
}

/// Prints a line to standard output; a reader that went away (`| head`) is no error.
pub fn println(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
