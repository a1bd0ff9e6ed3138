//! The report as one HTML file that needs nothing else: tensors in order, each with its error against what was expected.

use std::fmt::Write;

use super::outcome::{Judged, Outcome, Sampled, Verification};
use crate::compare::Verdict;

/// Cells of a heat map; tensors with more slices show the worst of neighbours together.
const CELLS: usize = 256;

/// The report's text.
pub fn html(found: &Verification) -> String {
    let mut page = String::new();
    let title = format!("{} on {}: {}", found.model, found.target.name, found.verdict.name());
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title><style>{STYLE}</style></head><body>\n",
        escape(&title)
    );
    let _ = writeln!(
        page,
        "<h1>{} on {} <span class=\"{v}\">{v}</span></h1>",
        escape(&found.model),
        escape(&found.target.name),
        v = found.verdict.name()
    );
    for sentence in &found.story {
        let _ = writeln!(page, "<p>{}</p>", escape(sentence));
    }
    facts(&mut page, found);
    page.push_str("<h2>Tensors, in the model's order, each where it is worst</h2>\n");
    table(
        &mut page,
        &found.worst().into_iter().map(|(judged, sample)| (judged, sample.to_string())).collect::<Vec<_>>(),
    );
    for sample in &found.samples {
        sampled(&mut page, sample);
    }
    page.push_str(LEGEND);
    page.push_str("</body></html>\n");
    page
}

fn facts(page: &mut String, found: &Verification) {
    let side = |side: &super::Side| {
        let version = if side.version.is_empty() { String::new() } else { format!(" {}", side.version) };
        let simulated = if side.simulated { " (simulated)" } else { "" };
        format!("{}{version}{simulated}", side.name)
    };
    let mut rows = vec![
        ("Target", side(&found.target)),
        ("Reference", side(&found.reference)),
        ("Rounding allowed", format!("{}: {}", found.dtype, found.dtype_reason)),
        ("Samples", found.samples.iter().map(|one| one.name.clone()).collect::<Vec<_>>().join("; ")),
    ];
    if let Some(by) = &found.decided_by {
        rows.push(("Decided by", by.clone()));
    }
    if let Some(dtype) = found.emulated {
        rows.push(("Emulated", format!("arithmetic in {}", dtype.spelled())));
    }
    if let Some(broken) = &found.broken {
        rows.push(("Broken", format!("{} {}", broken.stage, broken.code.clone().unwrap_or_default())));
    }
    for said in &found.assumed {
        rows.push(("Assumed", said.clone()));
    }
    page.push_str("<table class=\"facts\">");
    for (name, value) in rows {
        let _ = write!(page, "<tr><th>{name}</th><td>{}</td></tr>", escape(&value));
    }
    page.push_str("</table>\n");
}

fn table(page: &mut String, rows: &[(&Judged, String)]) {
    page.push_str(
        "<table class=\"tensors\"><tr><th>tensor</th><th>sizes</th><th>verdict</th><th>largest error</th><th>expected</th>\
         <th>of what is allowed</th><th>relative</th><th>cosine</th><th>worst cosine</th><th>norm ratio</th><th>NaN, Inf</th>\
         <th>errors over expected</th><th>worst on</th></tr>\n",
    );
    for (judged, sample) in rows {
        let finding = &judged.finding;
        let verdict = verdict_name(finding.verdict);
        let class = if judged.output { "output" } else { "" };
        let _ = write!(
            page,
            "<tr class=\"{class}\"><td class=\"name\">{}</td><td>{:?}</td><td><span class=\"{verdict}\">{verdict}</span></td>",
            escape(&finding.name),
            judged.dims
        );
        match &finding.metrics {
            Some(m) => {
                let place = m.worst.map(|slice| format!(" <small>{slice}</small>")).unwrap_or_default();
                let _ = write!(
                    page,
                    "<td>{:.2e}</td><td>{:.2e}</td><td>{}</td><td>{:.2e}</td><td>{:.9}</td><td>{:.9}{place}</td><td>{:.7}</td><td>{} / {}</td>",
                    m.max_abs,
                    finding.expected,
                    bar(finding.strain),
                    m.relative,
                    m.cosine,
                    m.worst_cosine,
                    m.norm_ratio,
                    m.non_finite,
                    m.reference_non_finite
                );
            }
            None => page.push_str("<td colspan=\"8\"></td>"),
        }
        let _ = writeln!(page, "<td>{}</td><td>{}</td></tr>", histogram(&finding.histogram), escape(sample));
        if !finding.reason.is_empty() {
            let _ = writeln!(page, "<tr><td></td><td colspan=\"12\">{}</td></tr>", escape(&finding.reason));
        }
        for block in &judged.blocks {
            let m = &block.metrics;
            let _ = writeln!(
                page,
                "<tr class=\"block\"><td>{}</td><td>{}..{}</td><td></td><td>{:.2e}</td><td></td><td>{}</td><td>{:.2e}</td><td>{:.9}</td><td>{:.9}</td><td>{:.7}</td><td>{} / {}</td><td></td><td></td></tr>",
                escape(&block.block.name),
                block.block.begin,
                block.block.end,
                m.max_abs,
                block.strain.map(bar).unwrap_or_default(),
                m.relative,
                m.cosine,
                m.worst_cosine,
                m.norm_ratio,
                m.non_finite,
                m.reference_non_finite
            );
        }
    }
    page.push_str("</table>\n");
}

fn sampled(page: &mut String, sample: &Sampled) {
    let _ = write!(
        page,
        "<h2>{} <span class=\"{v}\">{v}</span></h2>\n<p>{:.3} s on the target.</p>\n",
        escape(&sample.name),
        sample.seconds,
        v = sample.verdict.name()
    );
    table(page, &sample.outputs.iter().map(|judged| (judged, String::new())).collect::<Vec<_>>());
    for judged in sample.outputs.iter().filter(|judged| judged.output || judged.finding.verdict == Verdict::Differs) {
        heat(page, judged);
        detections(page, judged);
    }
    answers(page, sample);
}

/// What is found with raw predictions, on both sides.
fn answers(page: &mut String, sample: &Sampled) {
    if sample.answers.is_empty() {
        return;
    }
    page.push_str(
        "<table class=\"tensors\"><tr><th>found with the predictions</th><th>agree</th><th>at the confidence</th><th>lost</th>\
         <th>worst box, pixels</th><th>expected</th><th>worst IoU</th><th>worst score</th><th>expected</th></tr>",
    );
    for one in &sample.answers {
        let (agreed, expected) = (&one.agreement, &one.expected);
        let _ = write!(
            page,
            "<tr><td>batch element {}</td><td>{} of {}</td><td>{}</td><td>{}</td><td>{:.3}</td><td>{:.3}</td><td>{:.4}</td><td>{:.2e}</td><td>{:.2e}</td></tr>",
            one.element,
            agreed.agree,
            agreed.count,
            agreed.at_cut,
            agreed.lost,
            agreed.worst_box,
            expected.worst_box,
            agreed.worst_iou,
            agreed.worst_score,
            expected.worst_score
        );
    }
    page.push_str("</table>\n");
}

/// A row a batch element, a cell a channel: how much of what is allowed its error takes.
fn heat(page: &mut String, judged: &Judged) {
    let slices = &judged.finding.slices;
    let batch = slices.iter().map(|one| one.slice.batch).max().map_or(0, |last| last + 1);
    if batch == 0 {
        return;
    }
    let channels = slices.len() / batch;
    let together = channels.div_ceil(CELLS).max(1);
    let cells = channels.div_ceil(together);
    let (width, height) = (cells * 4, batch * 12);
    let _ = write!(
        page,
        "<p class=\"name\">{}, by batch element (down) and channel (across{})</p><svg width=\"{width}\" height=\"{height}\">",
        escape(&judged.finding.name),
        if together > 1 { format!(", {together} to a cell") } else { String::new() }
    );
    for (row, line) in slices.chunks(channels.max(1)).enumerate() {
        for (column, cell) in line.chunks(together).enumerate() {
            let strain = cell.iter().map(|one| one.strain).fold(0.0, f64::max);
            let worst = cell.iter().map(|one| one.max_abs).fold(0.0, f64::max);
            let _ = write!(
                page,
                "<rect x=\"{}\" y=\"{}\" width=\"4\" height=\"11\" fill=\"{}\"><title>{row}, {}: {worst:.2e}, {strain:.2} of what is allowed</title></rect>",
                column * 4,
                row * 12,
                colour(strain),
                column * together
            );
        }
    }
    page.push_str("</svg>\n");
}

fn detections(page: &mut String, judged: &Judged) {
    let finding = &judged.finding;
    if finding.detections.is_empty() {
        return;
    }
    page.push_str(
        "<table class=\"tensors\"><tr><th>detections of</th><th>agree</th><th>at the cut-off</th><th>lost</th><th>worst box</th>\
         <th>expected</th><th>worst IoU</th><th>worst score</th><th>expected</th></tr>",
    );
    for (element, found) in finding.detections.iter().enumerate() {
        let expected = finding.expected_detections.get(element);
        let of = |pick: fn(&crate::compare::Agreement) -> f64| expected.map_or(0.0, pick);
        let _ = write!(
            page,
            "<tr><td>batch element {element}</td><td>{} of {}</td><td>{}</td><td>{}</td><td>{:.3}</td><td>{:.3}</td><td>{:.4}</td><td>{:.2e}</td><td>{:.2e}</td></tr>",
            found.agree,
            found.count,
            found.at_cut,
            found.lost,
            found.worst_box,
            of(|a| a.worst_box),
            found.worst_iou,
            found.worst_score,
            of(|a| a.worst_score)
        );
    }
    page.push_str("</table>\n");
}

fn verdict_name(verdict: Verdict) -> &'static str {
    Outcome::from(verdict).name()
}

/// A bar with a mark where what is allowed ends.
fn bar(strain: f64) -> String {
    // From a hundredth of what is allowed to a hundred times it, by powers of ten.
    let width = ((strain.max(1e-9).log10() + 2.0) / 4.0 * 80.0).clamp(0.0, 80.0);
    format!(
        "<svg width=\"80\" height=\"10\"><rect width=\"{width:.0}\" height=\"10\" fill=\"{}\"/><line x1=\"40\" x2=\"40\" y1=\"0\" y2=\"10\" stroke=\"#444\"/></svg> {}",
        colour(strain),
        if strain.is_finite() { format!("{:.3}", strain) } else { "&infin;".into() }
    )
}

/// Counts by powers of two, as bars of their logarithm.
fn histogram(counts: &[usize]) -> String {
    if counts.iter().all(|&count| count == 0) {
        return String::new();
    }
    let most = counts.iter().map(|&count| (count as f64).ln_1p()).fold(0.0, f64::max);
    let mut svg = format!("<svg width=\"{}\" height=\"20\">", counts.len() * 7);
    for (bin, &count) in counts.iter().enumerate() {
        let height = 20.0 * (count as f64).ln_1p() / most;
        let says = match bin {
            0 => "no error".to_string(),
            _ => format!("up to {} of the expected error", 2f64.powi(bin as i32 - 6)),
        };
        let fill = if bin > 9 { "#c33" } else { "#58a" };
        let _ = write!(
            svg,
            "<rect x=\"{}\" y=\"{:.1}\" width=\"6\" height=\"{height:.1}\" fill=\"{fill}\"><title>{says}: {count}</title></rect>",
            bin * 7,
            20.0 - height
        );
    }
    svg + "</svg>"
}

/// White for nothing, through yellow, to red beyond what is allowed.
fn colour(strain: f64) -> String {
    if strain.is_nan() || strain > 1.0 {
        return "#b00020".into();
    }
    let light = (255.0 - 155.0 * strain.max(0.0).sqrt()) as u8; // 100 to 255
    format!("rgb(255,{},{light})", 200 + (light - 100) / 3)
}

/// Text that cannot be taken for markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:110em;color:#222}h1{font-size:1.5em}\
h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse}td,th{padding:2px 8px;text-align:left;vertical-align:top;\
font-variant-numeric:tabular-nums}.tensors th{border-bottom:1px solid #999;font-weight:600}.tensors tr:hover{background:#f4f4f4}\
.name,.output .name{font-family:ui-monospace,monospace}.output .name{font-weight:600}.block td{color:#555;font-size:90%}\
.block td:first-child{padding-left:2em}small{color:#777}span.same,span.differs,span.broken,span.unclear{padding:0 .5em;\
border-radius:3px;color:#fff}.same{background:#2a7d46}.differs,.broken{background:#b00020}.unclear{background:#8a6d00}";

const LEGEND: &str = "<h2>How to read this</h2><p>Expected is the largest error that the element type's own rounding made on \
this model and this sample, measured by running the reference with its weights and inputs moved by single units, or with every \
tensor rounded to the type. Of what is allowed: the place of a tensor that is worst, by batch element, channel and share of \
elements, over what is allowed there; the mark in the bar is 1. The histogram counts elements by their error over the slice's \
expected one, in powers of two.</p>\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_a_model_is_no_markup() {
        assert_eq!(escape("<b>&\"</b>"), "&lt;b&gt;&amp;&quot;&lt;/b&gt;");
    }

    #[test]
    fn colours_and_bars_take_any_number() {
        for strain in [0.0, 1e-12, 0.5, 1.0, 1e9, f64::INFINITY, f64::NAN] {
            assert!(bar(strain).contains("svg") && !colour(strain).is_empty());
        }
        assert!(histogram(&[0, 0]).is_empty() && histogram(&[5, 0, 1]).contains("rect"));
    }
}
