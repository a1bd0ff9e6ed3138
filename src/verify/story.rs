//! What verifying came to, in sentences.

use super::outcome::{Outcome, Verification};
use super::subject::Subject;
use crate::compare::Verdict;

/// The outcome in at most a few sentences.
pub(super) fn tell(found: &Verification, subject: &Subject) -> Vec<String> {
    let mut story = Vec::new();
    let (target, reference) = (&found.target.name, &found.reference.name);
    let count = found.samples.len();
    let worst = found.worst();
    match found.verdict {
        Outcome::Broken => {
            if let Some(broken) = &found.broken {
                // The engine's own sentence names it, what it did not do, and the code.
                let at = if broken.sample.is_empty() { String::new() } else { format!("On {}: ", broken.sample) };
                story.push(format!("{at}{}.", broken.message.trim_end_matches('.')));
            }
        }
        Outcome::Differs => {
            let bad: Vec<_> = worst.iter().filter(|(judged, _)| judged.finding.verdict == Verdict::Differs).collect();
            for (judged, sample) in bad.iter().take(3) {
                story.push(format!("{} differs on {sample}: {}.", judged.finding.name, judged.finding.reason));
            }
            if bad.len() > 3 {
                story.push(format!("So do {} more tensors.", bad.len() - 3));
            }
            let samples = found.samples.iter().filter(|sample| sample.verdict == Outcome::Differs).count();
            story.push(format!("{samples} of {count} samples show it."));
            if let Some(by) = &found.decided_by {
                story.push(format!("Decided by {by}."));
            }
        }
        Outcome::Unclear => {
            for (judged, sample) in
                worst.iter().filter(|(judged, _)| judged.finding.verdict == Verdict::Unclear).take(3)
            {
                story.push(format!("{} is unclear on {sample}: {}.", judged.finding.name, judged.finding.reason));
            }
        }
        Outcome::Same => {
            let strain = worst.iter().map(|(judged, _)| judged.finding.strain).fold(0.0, f64::max);
            let equal = worst.iter().all(|(judged, _)| judged.finding.metrics.as_ref().is_some_and(|m| m.equal));
            story.push(match equal {
                true => format!("{target} gives what {reference} gives, bit for bit, on {count} samples."),
                false => format!(
                    "{target} gives what {reference} gives on {count} samples, as near as {} allows: the worst place takes {:.0} % of what is allowed.",
                    found.dtype,
                    100.0 * strain
                ),
            });
            let off = worst.iter().find(|(judged, _)| judged.finding.from_exact.is_some());
            if let Some((judged, sample)) = off {
                story.push(format!("On {sample} {}: {}.", judged.finding.name, judged.finding.reason));
            }
        }
    }
    let shaky: Vec<_> = found.samples.iter().filter(|sample| sample.unrepeatable.is_some_and(|by| by > 0.0)).collect();
    if let Some(sample) = shaky.first() {
        let by = sample.unrepeatable.unwrap_or_default();
        story.push(format!("{target} does not repeat itself: two runs on {} differ by {by:.1e}.", sample.name));
    }
    if let Some(dtype) = found.emulated {
        story.push(format!("{target} has no arithmetic in {}: it was emulated, each tensor rounded.", dtype.spelled()));
    }
    if subject.bundle.as_ref().is_some_and(|parts| parts.without_original) {
        story.push(
            "The original model was not at hand, so the bundle was held against its own parts: what preparing changed was not looked at."
                .into(),
        );
    }
    story
}
