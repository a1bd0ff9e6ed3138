//! How a command fails: one message, what to do next, and the exit code that the kind of failure has.

use std::process::ExitCode;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

use super::screen;

/// A failure on its way to the user.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    report: miette::Report,
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
        Self { code, report: miette::Report::new(plain) }
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
        Self { code: 2, report: miette::Report::new(diagnostic) }
    }

    /// Something is missing around porter: exit code 3.
    pub fn environment(message: impl std::fmt::Display) -> Self {
        Self::plain(3, message, None)
    }

    /// The same failure with the next step said.
    pub fn help(self, help: impl std::fmt::Display) -> Self {
        Self::plain(self.code, self.report, Some(&help.to_string()))
    }

    /// Prints the failure to standard error and gives its exit code.
    pub fn show(self) -> ExitCode {
        let theme =
            if screen::stderr_has_colour() { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(100).without_cause_chain();
        let mut text = String::new();
        let diagnostic: &dyn Diagnostic = self.report.as_ref();
        if diagnostic.source_code().is_none() {
            // Nothing to underline: a plain line reads better than a drawing around it, and scripts can grep it.
            text = format!("error: {}\n", self.report);
            if let Some(help) = diagnostic.help() {
                text.push_str(&format!("  help: {help}\n"));
            }
        } else if handler.render_report(&mut text, diagnostic).is_err() {
            text = format!("error: {}\n", self.report);
        }
        eprint!("{text}");
        ExitCode::from(self.code)
    }
}

impl From<crate::onnx::OnnxError> for Failure {
    fn from(error: crate::onnx::OnnxError) -> Self {
        use std::io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull};
        // Names come from the file: one with a line break or a terminal's control sequence is shown as it is spelled.
        let spelled = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        let told: String = error.to_string().chars().map(spelled).collect();
        match &error.problem {
            crate::onnx::Problem::Io(io) if matches!(io.kind(), StorageFull | QuotaExceeded | OutOfMemory) => {
                Self::environment(told)
            }
            _ => Self::input(told),
        }
    }
}
