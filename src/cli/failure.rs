//! How a command fails: one message, what to do next, and the exit code that the kind of failure has.

use std::process::ExitCode;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use serde_json::json;

use super::screen;

/// A failure on its way to the user.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    report: miette::Report,
    /// The file that is at fault, with the place in it where one is known.
    place: Option<String>,
}

/// A message with an optional next step.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{message}")]
struct Plain {
    message: String,
    #[help]
    help: Option<String>,
}

impl Failure {
    fn plain(code: u8, message: impl std::fmt::Display, help: Option<&str>) -> Self {
        let plain = Plain { message: message.to_string(), help: help.map(str::to_string) };
        Self { code, report: miette::Report::new(plain), place: None }
    }

    /// The check failed: exit code 1.
    pub fn check(message: impl std::fmt::Display) -> Self {
        Self::plain(1, message, None)
    }

    /// Bad input: exit code 2.
    pub fn input(message: impl std::fmt::Display) -> Self {
        Self::plain(2, message, None)
    }

    /// Bad input that brings its own report, with the place underlined: exit code 2.
    pub fn diagnostic(diagnostic: impl Diagnostic + Send + Sync + 'static) -> Self {
        let report = miette::Report::new(diagnostic);
        let place = underlined(report.as_ref());
        Self { code: 2, report, place }
    }

    /// Something is missing around porter: exit code 3.
    pub fn environment(message: impl std::fmt::Display) -> Self {
        Self::plain(3, message, None)
    }

    /// What could not be written: the user named a place that cannot be (exit code 2), or the place is closed, full or
    /// broken (3).
    pub fn unwritten(message: impl std::fmt::Display, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{InvalidFilename, IsADirectory, NotADirectory, NotFound};
        match error.kind() {
            InvalidFilename | IsADirectory | NotADirectory | NotFound => Self::input(message),
            _ => Self::environment(message),
        }
    }

    /// The same failure with the next step said.
    pub fn help(self, help: impl std::fmt::Display) -> Self {
        Self { place: self.place, ..Self::plain(self.code, self.report, Some(&help.to_string())) }
    }

    /// The same failure with the file at fault, for those who read it as JSON.
    pub fn at(self, place: impl std::fmt::Display) -> Self {
        Self { place: Some(place.to_string()), ..self }
    }

    /// Tells the failure and gives its exit code: to standard error, and, where JSON was asked for, as one document on
    /// standard output.
    pub fn show(self, as_json: bool) -> ExitCode {
        let diagnostic: &dyn Diagnostic = self.report.as_ref();
        let help = diagnostic.help().map(|help| help.to_string());
        if as_json {
            screen::json(&json!({ "error": {
                "message": self.report.to_string(),
                "place": self.place,
                "help": help,
                "code": self.code,
            }}));
        }
        let theme =
            if screen::stderr_has_colour() { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(100).without_cause_chain();
        let mut text = String::new();
        if diagnostic.source_code().is_some() && handler.render_report(&mut text, diagnostic).is_ok() {
            screen::coloured_note(&text);
        } else {
            // Nothing to underline: a plain line reads better than a drawing around it, and scripts can grep it.
            let help = help.map(|help| format!("\n  help: {help}")).unwrap_or_default();
            screen::note(&format!("error: {}{help}", self.report));
        }
        ExitCode::from(self.code)
    }
}

/// `rules/mine.yaml:3`: the file and line that a report underlines.
fn underlined(diagnostic: &dyn Diagnostic) -> Option<String> {
    let (source, label) = (diagnostic.source_code()?, diagnostic.labels()?.next());
    let span = label.map_or_else(|| (0, 0).into(), |label| *label.inner());
    let contents = source.read_span(&span, 0, 0).ok()?;
    let name = contents.name()?;
    Some(if diagnostic.labels().is_some() { format!("{name}:{}", contents.line() + 1) } else { name.to_string() })
}

impl From<crate::onnx::OnnxError> for Failure {
    fn from(error: crate::onnx::OnnxError) -> Self {
        use crate::onnx::Problem;
        let inside = error.problem.place().map(|place| format!(": {place}")).unwrap_or_default();
        let place = format!("{}{inside}", error.file.display());
        // Names come from the file: one with a line break would make two lines of one.
        let told = screen::one_line(&error.to_string());
        match &error.problem {
            Problem::Unwritten(io) => Self::unwritten(told, io).at(place),
            Problem::Io(io) if io.kind() == std::io::ErrorKind::OutOfMemory => Self::environment(told).at(place),
            _ => Self::input(told).at(place),
        }
    }
}
