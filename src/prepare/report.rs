//! `report.md`: the manifest as a page for people.

use std::fmt::Write;

use crate::bundle::manifest::{Manifest, Rewrite, Suppression};

/// How many node names a line lists before it only counts.
const LISTED: usize = 6;

/// The report of a bundle.
pub fn markdown(manifest: &Manifest) -> String {
    let mut page = String::new();
    let _ = write_page(&mut page, manifest); // writing to a string does not fail
    page
}

fn write_page(page: &mut String, m: &Manifest) -> std::fmt::Result {
    writeln!(page, "# {} for {}\n", m.model.file, m.target)?;
    let device = m.device.as_deref().map(|d| format!(", device {d}")).unwrap_or_default();
    let toolchain =
        m.toolchain.as_deref().filter(|t| !t.is_empty()).map(|t| format!(", toolchain {t}")).unwrap_or_default();
    writeln!(
        page,
        "Prepared by porter {} for {}{device}{toolchain}. SHA-256 of the model: `{}`.\n",
        m.porter, m.target, m.model.sha256
    )?;
    writeln!(page, "Target parts compute in {}: {}.\n", m.dtype.spelled(), m.dtype_reason.trim_end_matches('.'))?;
    if !m.assumed.is_empty() {
        writeln!(page, "## Assumed\n")?;
        m.assumed.iter().try_for_each(|line| writeln!(page, "- {line}"))?;
        writeln!(page)?;
    }
    writeln!(
        page,
        "## Parts\n\n| part | runs on | nodes | computes in | reads | gives |\n| --- | --- | --- | --- | --- | --- |"
    )?;
    for part in &m.parts {
        let list = |types: &[crate::bundle::manifest::TensorType]| {
            types.iter().map(|t| format!("`{t}`")).collect::<Vec<_>>().join(", ")
        };
        let (reads, gives) = (list(&part.inputs), list(&part.outputs));
        writeln!(
            page,
            "| {} | {} | {} | {} | {reads} | {gives} |",
            part.name,
            part.device,
            part.nodes.len(),
            part.dtype
        )?;
    }
    writeln!(page, "\n## Changes\n")?;
    if !m.folded.is_empty() {
        writeln!(page, "- {} computed ahead: {}", count(m.folded.len(), "constant node"), names(&m.folded))?;
    }
    for (rule, applied) in by_rule(&m.rewrites) {
        writeln!(page, "- `{rule}` x {}: {}", applied.len(), proof(&applied))?;
        for one in applied {
            writeln!(page, "  - {}", names(&one.nodes))?;
        }
    }
    if m.rewrites.is_empty() && m.folded.is_empty() {
        writeln!(page, "None.")?;
    }
    writeln!(page, "\n## Known faults of the target that this model meets\n")?;
    if m.quirks.is_empty() {
        writeln!(page, "None.")?;
    }
    for quirk in &m.quirks {
        let state = match (&quirk.answer, quirk.answered) {
            (Some(answer), true) => format!("answered by `{answer}`"),
            (Some(answer), false) => format!("**not answered**; the answer would be `{answer}`"),
            (None, true) => "no longer met after the changes above".to_string(),
            (None, false) => "**no answer is known**".to_string(),
        };
        writeln!(
            page,
            "- **{}** ({}): {} {state}. {} Reference: {}.",
            quirk.id,
            quirk.symptom,
            sentence(&quirk.what),
            names(&quirk.nodes),
            quirk.reference
        )?;
    }
    writeln!(page, "\n## On the CPU, and why\n")?;
    if m.cpu_reasons.is_empty() {
        writeln!(page, "Nothing.")?;
    }
    for reason in &m.cpu_reasons {
        writeln!(page, "- `{}` ({}): {}", reason.node, reason.operator, reason.reason)?;
    }
    if !m.float32_nodes.is_empty() {
        writeln!(page, "\n## In float32, and why\n")?;
        m.float32_nodes.iter().try_for_each(|one| writeln!(page, "- `{}`: {}", one.node, one.reason))?;
    }
    if !m.clamped.is_empty() {
        let dtype = m.dtype.spelled();
        writeln!(page, "\nNumbers beyond the largest of {dtype} became that: {}.", names(&m.clamped))?;
    }
    if let Some(post) = &m.postprocess {
        writeln!(page, "\n## What the outputs mean\n")?;
        match post.step.as_str() {
            "none" => writeln!(page, "They are the model's own, nothing is left to do.")?,
            step => {
                let boxes = post.boxes.as_deref().unwrap_or("not known");
                let assignment = post.assignment.as_deref().unwrap_or("not known");
                writeln!(
                    page,
                    "`{}` holds raw predictions {}: boxes {boxes}, assignment {assignment}, strides {:?}. Left to do: {step}.",
                    post.tensor,
                    post.layout.as_deref().unwrap_or_default(),
                    post.strides
                )?;
                if let Some(scores) = &post.scores {
                    writeln!(page, "\n`{scores}` holds the scores [batch, classes, boxes].")?;
                }
                if let Some(Suppression { max_per_class, iou, score }) = &post.suppression {
                    let told = [("boxes a class", max_per_class.map(|most| most.to_string()))].into_iter();
                    let told =
                        told.chain([("IoU", iou.map(|x| x.to_string())), ("score", score.map(|x| x.to_string()))]);
                    let told: Vec<String> =
                        told.filter_map(|(what, number)| Some(format!("{what} {}", number?))).collect();
                    writeln!(page, "The model's own NonMaxSuppression was given: {}.", told.join(", "))?;
                }
            }
        }
    }
    writeln!(page, "\n## Check against the original\n")?;
    match &m.check {
        None => writeln!(page, "Not done (`--no-check`)."),
        Some(check) => write_check(page, check),
    }
}

/// What the check found, output by output.
fn write_check(page: &mut String, check: &serde_json::Value) -> std::fmt::Result {
    let text = |value: &serde_json::Value, key: &str| value[key].as_str().unwrap_or_default().to_string();
    let number = |value: &serde_json::Value| value.as_f64().map_or("-".to_string(), |number| format!("{number:.3e}"));
    writeln!(page, "{}: {}.", text(check, "status"), text(check, "story").trim_end_matches('.'))?;
    let outputs = check["outputs"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !outputs.is_empty() {
        writeln!(
            page,
            "\n| output | verdict | largest difference | explained | cosine |\n| --- | --- | --- | --- | --- |"
        )?;
    }
    for output in outputs {
        let metrics = &output["metrics"];
        let (difference, cosine) = (number(&metrics["max_abs"]), number(&metrics["cosine"]));
        let (name, verdict, explained) = (text(output, "name"), text(output, "verdict"), number(&output["expected"]));
        writeln!(page, "| `{name}` | {verdict} | {difference} | {explained} | {cosine} |")?;
    }
    for refused in check["refused"].as_array().into_iter().flatten().filter_map(|said| said.as_str()) {
        writeln!(page, "\nNot run: {refused}")?;
    }
    Ok(())
}

/// Rewrites grouped by rule, in the order of their first application.
pub fn by_rule(rewrites: &[Rewrite]) -> indexmap::IndexMap<&str, Vec<&Rewrite>> {
    let mut groups: indexmap::IndexMap<&str, Vec<&Rewrite>> = indexmap::IndexMap::new();
    for rewrite in rewrites {
        groups.entry(&rewrite.rule).or_default().push(rewrite);
    }
    groups
}

/// What was shown of a rule's applications: `proven, difference 0`.
pub fn proof(applied: &[&Rewrite]) -> String {
    match applied.iter().find_map(|one| one.answered_by.as_deref()) {
        Some(answer) => format!("changes values on purpose; to be answered by {answer} ({})", shown(applied)),
        None => shown(applied),
    }
}

fn shown(applied: &[&Rewrite]) -> String {
    if let Some(why) = applied.iter().find_map(|one| one.unproven.as_deref()) {
        return format!("not proven: {why}");
    }
    match applied.iter().map(|one| one.max_abs).collect::<Option<Vec<f64>>>() {
        None => "not proven".into(),
        Some(all) => match all.into_iter().fold(0.0, f64::max) {
            0.0 => "proven, difference 0".into(),
            worst => format!("proven, largest difference {worst:.1e}"),
        },
    }
}

fn names(list: &[String]) -> String {
    let shown: Vec<String> = list.iter().take(LISTED).map(|name| format!("`{name}`")).collect();
    let more = list.len().saturating_sub(LISTED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &rest
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.ends_with('.') { text.to_string() } else { format!("{text}.") }
}
