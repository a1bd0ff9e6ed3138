//! Shows what is being done while it takes time: a spinner on standard error, nothing where that is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A spinner with a word beside it.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A spinner; hidden if `quiet`, or where standard error is no terminal.
    pub fn new(quiet: bool) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { bar }
    }

    /// Says what is being done now.
    pub fn step(&self, what: &str) {
        if !self.bar.is_hidden() {
            self.bar.set_message(what.to_string());
        }
    }

    /// Takes the spinner away.
    pub fn done(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done();
    }
}
