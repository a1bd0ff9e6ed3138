//! What is wrong with a target file, shown with its line and what was expected there.

use std::ops::Range;
use std::path::Path;

use miette::{Diagnostic, NamedSource, SourceSpan};

/// A target that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum TargetError {
    /// No target has this name.
    #[error("there is no target '{name}'")]
    #[diagnostic(help("there are {known}; `--targets DIR` adds others"))]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A target has no such device, toolchain or element type.
    #[error("{target} has no {kind} '{name}'")]
    #[diagnostic(help("it has {known}"))]
    NotThere {
        /// The target.
        target: String,
        /// `device`, `toolchain`, `variant` or `element type`.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file says something that makes no sense.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(Box<FileError>),
}

/// A mistake in a target file, with its place.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct FileError {
    /// What is wrong, the file's name first.
    pub message: String,
    /// The file.
    #[source_code]
    pub source_code: NamedSource<String>,
    /// The place.
    #[label("{expected}")]
    pub span: Option<SourceSpan>,
    /// What was expected there.
    pub expected: String,
}

impl From<FileError> for TargetError {
    fn from(error: FileError) -> Self {
        TargetError::File(Box::new(error))
    }
}

/// A target file's text, to make errors with a place in it.
pub struct Text<'a> {
    /// The file's name for the reader.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}

impl Text<'_> {
    /// An error at a place.
    pub fn error(
        &self,
        problem: impl AsRef<str>,
        span: Option<Range<usize>>,
        expected: impl Into<String>,
    ) -> TargetError {
        let place = span.as_ref().map(|span| format!(":{}", self.line(span.start))).unwrap_or_default();
        FileError {
            message: format!("{}{place}: {}", self.name, problem.as_ref()),
            source_code: NamedSource::new(self.name, self.text.to_string()).with_language("YAML"),
            span: span.map(SourceSpan::from),
            expected: expected.into(),
        }
        .into()
    }

    /// An error of the YAML reader, with the rest of its line underlined.
    pub fn yaml(&self, error: &serde_yaml::Error) -> TargetError {
        let message = error.to_string();
        // The place stands in the error too; it is shown by the line and the underline.
        let problem = message.split(" at line ").next().unwrap_or(&message).to_string();
        let span = error.location().map(|place| {
            let start = place.index().min(self.text.len());
            let start = (start..=self.text.len()).find(|&at| self.text.is_char_boundary(at)).unwrap_or(self.text.len());
            // A value that was read as text is reported where its mapping starts; the message quotes it.
            let quoted = problem.split('\'').nth(1).and_then(|quoted| word(self.text, start, quoted));
            quoted.unwrap_or_else(|| {
                let rest = self.text[start..].lines().next().unwrap_or_default().trim_end();
                start..(start + rest.len().max(1)).min(self.text.len())
            })
        });
        // A short hint stands under the line, a long one in the message alone.
        let hint = problem.split_once("expected ").map(|(_, rest)| format!("expected {rest}"));
        self.error(&problem, span, hint.filter(|hint| hint.len() < 60).unwrap_or("here".into()))
    }

    /// Where a piece of the file stands: `needle` after the first place of `after`.
    pub fn find(&self, after: &str, needle: &str) -> Option<Range<usize>> {
        let from = self.text.find(after).unwrap_or(0);
        word(self.text, from, needle.lines().next().unwrap_or(needle).trim())
    }

    fn line(&self, at: usize) -> usize {
        self.text.get(..at).map_or(1, |before| before.matches('\n').count() + 1)
    }
}

/// Where `needle` stands as a word of its own, from a place on.
fn word(text: &str, from: usize, needle: &str) -> Option<Range<usize>> {
    let inside = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let stands_alone = |at: &usize| {
        let (before, after) = (&text[..*at], &text[at + needle.len()..]);
        let longer_before = needle.starts_with(inside) && before.ends_with(inside);
        let longer_after = needle.ends_with(inside) && after.starts_with(inside);
        !longer_before && !longer_after
    };
    let places = text.get(from..)?.match_indices(needle).map(|(at, _)| from + at);
    let at = places.filter(|_| !needle.is_empty()).find(stands_alone)?;
    Some(at..at + needle.len())
}

/// A path for a message.
pub fn io(path: &Path, source: std::io::Error) -> TargetError {
    TargetError::Io { path: path.display().to_string(), source }
}
