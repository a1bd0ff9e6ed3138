//! What the screen is told, and how: everything that porter prints goes through here.
//!
//! Names come from models, and a name can hold a terminal's control sequences; they are shown as they are spelled. A reader
//! that went away (`| head`) is no error; a full disk behind standard output is one, which [`close`] tells at the end.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The first thing that went wrong with standard output.
static TROUBLE: Mutex<Option<io::Error>> = Mutex::new(None);
/// Whether a document was printed already.
static DOCUMENT: AtomicBool = AtomicBool::new(false);

/// Whether standard error may be coloured: a terminal, and `NO_COLOR` not set.
pub fn stderr_has_colour() -> bool {
    colour_wanted() && io::stderr().is_terminal()
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

/// Prints one JSON document to standard output, and nothing else. Only the first one of a command is printed: whoever
/// reads it expects one.
pub fn json(document: &impl serde::Serialize) {
    let text = match serde_json::to_string_pretty(document) {
        Ok(text) => text,
        Err(error) => return note(&format!("error: the result could not be written as JSON: {error}")),
    };
    if !DOCUMENT.swap(true, Ordering::Relaxed) {
        // What JSON lets stand as it is and a terminal does not stands in strings alone, where it can be escaped.
        let told: String = text
            .chars()
            .map(|c| if is_harmless(c) { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) })
            .collect();
        print(&told);
    }
}

/// Prints lines to standard output.
pub fn println(text: &str) {
    print(&printable(text));
}

/// Prints lines to standard error.
pub fn note(text: &str) {
    coloured_note(&printable(text));
}

/// Prints text with colours in it to standard error.
pub fn coloured_note(text: &str) {
    // Where nobody listens there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{}", text.trim_end_matches('\n'));
}

/// One line of text, whatever is in it: line breaks and control characters as they are spelled.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c == '\n' || c == '\t' { c.escape_default().to_string() } else { spelled(c) }).collect()
}

/// What is to be said of standard output when a command is done: nothing, or that not all of it was written.
pub fn close() -> Option<io::Error> {
    keep(io::stdout().lock().flush());
    let trouble = TROUBLE.lock().unwrap_or_else(PoisonError::into_inner).take();
    trouble.filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
}

fn print(text: &str) {
    keep(writeln!(io::stdout().lock(), "{text}"));
}

fn keep(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        TROUBLE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_harmless) { Cow::Borrowed(text) } else { text.chars().map(spelled).collect() }
}

fn spelled(c: char) -> String {
    if is_harmless(c) { c.to_string() } else { c.escape_default().to_string() }
}

/// Whether a terminal shows a character as a character: no control sequences, and nothing that turns the reading order.
fn is_harmless(c: char) -> bool {
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c == '\n' || c == '\t' || !(c.is_control() || turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_spelled() {
        assert_eq!(printable("a\u{1b}[31mb\u{9b}2J\u{202e}c\nd"), "a\\u{1b}[31mb\\u{9b}2J\\u{202e}c\nd");
        assert_eq!(one_line("a\nb\u{7}"), "a\\nb\\u{7}");
        assert!(matches!(printable("größer 你好"), Cow::Borrowed(_)));
    }
}
