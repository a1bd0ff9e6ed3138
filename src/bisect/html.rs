//! The report as one HTML file that needs nothing else: the layers with both errors, and for each fault the graph around it
//! and its error by batch element and channel.

use std::fmt::Write;

use super::Proof;
use super::groups::{Group, groups, span};
use super::nearby::Nearby;
use super::report::{Fault, Report, Verdict};
use crate::onnx::Tensor;

/// Cells of a heat map; tensors with more channels show the worst of neighbours together.
const CELLS: usize = 256;

/// The report's text. `said` are the sentences that tell each fault, as the terminal shows them.
pub fn html(report: &Report, proofs: &[Proof], said: &dyn Fn(&Fault) -> Vec<String>) -> String {
    let verdict = match report.verdict {
        Verdict::Healthy => "healthy",
        Verdict::Faulty => "faulty",
        Verdict::Nondeterministic => "nondeterministic",
        Verdict::Inconclusive => "inconclusive",
    };
    let mut page = String::new();
    let title = format!("{} on {}", report.model, report.target);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}: {verdict}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title} <span class=\"{verdict}\">{verdict}</span></h1>\n",
        title = escape(&title)
    );
    facts(&mut page, report);
    layers(&mut page, report);
    for group in groups(&report.faults) {
        let (index, fault) = (group.example, &report.faults[group.example]);
        let _ = writeln!(page, "<h2>{}. {}</h2>", index + 1, escape(&fault.nodes.join(", ")));
        alike(&mut page, &group, &report.faults);
        for sentence in said(fault) {
            let _ = writeln!(page, "<p>{}</p>", escape(&sentence));
        }
        let _ = writeln!(page, "<p><small>{}</small></p>", escape(&fault.reason));
        for proof in proofs.iter().filter(|proof| proof.fault == index) {
            drawing(&mut page, &proof.nearby);
            maps(&mut page, proof, fault);
        }
    }
    page.push_str(LEGEND);
    page.push_str("</body></html>\n");
    page
}

/// The places that the one shown stands for.
fn alike(page: &mut String, group: &Group, faults: &[Fault]) {
    if group.members.len() < 2 {
        return;
    }
    let off =
        span(group, faults).map(|(least, most)| format!(", off by {least:.1e} to {most:.1e}")).unwrap_or_default();
    let told = format!("{} places alike{off}; this one stands for them.", group.members.len());
    let _ = write!(page, "<p>{told}</p><details><summary>All of them</summary><ol>");
    for &member in &group.members {
        let _ = write!(page, "<li class=\"name\">{}</li>", escape(&faults[member].nodes.join(", ")));
    }
    page.push_str("</ol></details>\n");
}

fn facts(page: &mut String, report: &Report) {
    let list = |batches: &[i64]| batches.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    let mut rows = vec![
        ("Target", format!("{} {}", report.target, if report.simulated { "" } else { &report.target_version })),
        ("Reference", format!("{} {}", report.reference, report.reference_version)),
        ("Tried", format!("{} nodes on {} sets of inputs", report.nodes, report.samples)),
        (
            "Cost",
            format!(
                "{} compiles and {} runs of the target, {} answers kept from before, {:.1} s",
                report.probes.compiles, report.probes.runs, report.probes.cached, report.probes.seconds
            ),
        ),
    ];
    if !report.batches.is_empty() {
        rows.push(("Batch", list(&report.batches)));
    }
    rows.extend(report.not_tested.iter().map(|(node, why)| ("Not tested", format!("{node}: {why}"))));
    rows.extend(report.notes.iter().map(|note| ("Note", note.clone())));
    rows.extend(report.stopped.iter().map(|why| ("Stopped early", why.clone())));
    page.push_str("<table>");
    for (name, value) in rows {
        let _ = write!(page, "<tr><th>{name}</th><td>{}</td></tr>", escape(&value));
    }
    page.push_str("</table>\n");
}

fn layers(page: &mut String, report: &Report) {
    page.push_str(
        "<h2>Layers</h2><table><tr><th>layer</th><th>cumulative</th><th>isolated</th><th>expected</th><th></th></tr>\n",
    );
    for layer in &report.layers {
        let expected = layer.expected.unwrap_or(super::judge::LEAST);
        let cell = |error: Option<f64>| match error {
            None => "<td>-</td>".to_string(),
            Some(error) => {
                let bar = bar(error, expected);
                let told = if error.is_finite() { format!("{error:.1e}") } else { "not finite".into() };
                format!("<td>{bar} {told}</td>")
            }
        };
        let (class, mark) = if layer.faults > 0 { ("fault", "fault") } else { ("", "") };
        let _ = writeln!(
            page,
            "<tr class=\"{class}\"><td class=\"name\">{}</td>{}{}<td>{expected:.1e}</td><td>{mark}</td></tr>",
            escape(&layer.name),
            cell(layer.cumulative),
            cell(layer.isolated),
        );
    }
    page.push_str("</table>\n");
}

/// An error on a scale of powers of ten, from a hundredth of what is expected to ten thousand times it.
fn bar(error: f64, expected: f64) -> String {
    let ratio = (error / expected.max(f64::MIN_POSITIVE)).max(1e-9);
    let width = ((ratio.log10() + 2.0) / 6.0 * 120.0).clamp(0.0, 120.0);
    let width = if width.is_nan() { 120.0 } else { width };
    format!(
        "<svg width=\"120\" height=\"10\"><rect width=\"{width:.0}\" height=\"10\" fill=\"{}\"/>\
         <line x1=\"40\" x2=\"40\" y1=\"0\" y2=\"10\" stroke=\"#444\"/></svg>",
        colour(ratio / 10.0)
    )
}

const WIDE: usize = 250;
const HIGH: usize = 64;

/// The nodes in rows, with lines from what makes a value to what reads it.
fn drawing(page: &mut String, nearby: &Nearby) {
    let rows = nearby.nodes.iter().map(|spot| spot.row + 1).max().unwrap_or(0);
    let mut filled = vec![0usize; rows];
    let places: Vec<(usize, usize)> = nearby
        .nodes
        .iter()
        .map(|spot| {
            filled[spot.row] += 1;
            ((filled[spot.row] - 1) * WIDE, spot.row * HIGH)
        })
        .collect();
    let width = filled.iter().max().copied().unwrap_or(0) * WIDE;
    let _ = write!(page, "<svg class=\"graph\" width=\"{}\" height=\"{}\">", width.max(1), (rows * HIGH).max(1));
    for &(from, to) in &nearby.edges {
        let ((x1, y1), (x2, y2)) = (places[from], places[to]);
        let _ = write!(
            page,
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{y2}\" stroke=\"#888\"/>",
            x1 + WIDE / 2 - 10,
            y1 + 40,
            x2 + WIDE / 2 - 10
        );
    }
    for (spot, (x, y)) in nearby.nodes.iter().zip(places) {
        let (fill, ink) = if spot.fault { ("#b00020", "#fff") } else { ("#eef2f6", "#222") };
        let name: String = match spot.name.chars().count() {
            0..=36 => spot.name.clone(),
            long => format!("...{}", spot.name.chars().skip(long - 33).collect::<String>()),
        };
        let _ = write!(
            page,
            "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"40\" rx=\"4\" fill=\"{fill}\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"{ink}\"><tspan font-weight=\"600\">{}</tspan> {}</text>\
             <text x=\"{}\" y=\"{}\" fill=\"{ink}\" font-size=\"10\">{}</text></g>",
            escape(&spot.name),
            WIDE - 20,
            x + 8,
            y + 16,
            escape(&spot.operator),
            escape(&spot.makes),
            x + 8,
            y + 32,
            escape(&name)
        );
    }
    page.push_str("</svg>\n");
}

/// A row a batch element, a cell a channel: the largest error in it, over what noise explains.
fn maps(page: &mut String, proof: &Proof, fault: &Fault) {
    let Some(evidence) = &proof.evidence else { return };
    let Some(run) = evidence.runs.first() else { return };
    let expected = fault.metrics.as_ref().map_or(0.0, |metrics| metrics.expected);
    for (name, right) in &run.right {
        let Some(wrong) = run.wrong.get(name) else { continue };
        let Some((batch, errors)) = errors(right, wrong) else { continue };
        let channels = errors.len() / batch;
        let together = channels.div_ceil(CELLS).max(1);
        let cell = if channels <= 32 { 16 } else { 5 };
        let _ = write!(
            page,
            "<p class=\"name\">{}: batch elements down, channels across{}</p><svg width=\"{}\" height=\"{}\">",
            escape(name),
            if together > 1 { format!(", {together} to a cell") } else { String::new() },
            channels.div_ceil(together) * cell,
            batch * 14
        );
        let scale = right.to_f64s().unwrap_or_default().iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        let unit = expected.max(scale * super::judge::LEAST).max(f64::MIN_POSITIVE);
        for (row, line) in errors.chunks(channels.max(1)).enumerate() {
            for (column, some) in line.chunks(together).enumerate() {
                let worst = some.iter().copied().fold(0.0, |most: f64, x| if x.is_nan() { x } else { most.max(x) });
                let _ = write!(
                    page,
                    "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"13\" fill=\"{}\"><title>element {row}, channel {}: {worst:.2e}</title></rect>",
                    column * cell,
                    row * 14,
                    cell - 1,
                    colour(worst / unit / 10.0),
                    column * together
                );
            }
        }
        page.push_str("</svg>\n");
    }
}

/// How many batch elements there are, and the largest error of each channel of each.
fn errors(right: &Tensor, wrong: &Tensor) -> Option<(usize, Vec<f64>)> {
    if right.dims() != wrong.dims() || right.is_empty() {
        return None;
    }
    let (a, b) = (right.to_f64s().ok()?, wrong.to_f64s().ok()?);
    let size = |axis: usize| right.dims().get(axis).map_or(1, |&size| size.max(1) as usize);
    // A vector is one batch element whose values are channels.
    let (batch, channels) = if right.dims().len() < 2 { (1, size(0)) } else { (size(0), size(1)) };
    let run = a.len() / (batch * channels);
    let worst = |(a, b): (&[f64], &[f64])| {
        let apart = |(a, b): (&f64, &f64)| if a == b || a.is_nan() && b.is_nan() { 0.0 } else { (a - b).abs() };
        a.iter().zip(b).map(apart).fold(0.0, |most: f64, x| if x.is_nan() { f64::INFINITY } else { most.max(x) })
    };
    Some((batch, a.chunks(run.max(1)).zip(b.chunks(run.max(1))).map(worst).collect()))
}

/// White for nothing, through yellow, to red for more than can be explained.
fn colour(strain: f64) -> String {
    if strain.is_nan() || strain > 1.0 {
        return "#b00020".into();
    }
    let light = (245.0 - 145.0 * strain.max(0.0).sqrt()) as u8;
    format!("rgb(245,{},{light})", 190 + (light - 100) / 3)
}

/// Text that cannot be taken for markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:110em;color:#222}h1{font-size:1.5em}\
h2{font-size:1.15em;margin-top:2em}p{margin:.2em 0}table{border-collapse:collapse}td,th{padding:2px 8px;text-align:left;\
vertical-align:top;font-variant-numeric:tabular-nums}.name{font-family:ui-monospace,monospace}.fault td{font-weight:600;\
color:#b00020}small{color:#777}h1 span{padding:0 .5em;border-radius:3px;color:#fff}.healthy{background:#2a7d46}\
.faulty,.nondeterministic{background:#b00020}.inconclusive{background:#8a6d00}.graph{margin:1em 0;font-size:11px}";

const LEGEND: &str = "<h2>How to read this</h2><p>Cumulative is the error at the layer's end in the whole model, isolated that \
of its worst node or of the layer fed with what the reference computes; both are the largest difference over the largest \
magnitude. Expected is what rounding made of the reference's own result; the mark in a bar is there. A node whose inputs \
agree and whose output does not is the cause; what follows is propagation. In the maps red is more than ten times what \
rounding explains.</p>\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_by_batch_element_and_channel() {
        let right = Tensor::from_f32("t", &[2, 2, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        let wrong = Tensor::from_f32("t", &[2, 2, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.5, f32::NAN, 7.0]);
        assert_eq!(errors(&right, &wrong), Some((2, vec![0.0, 0.0, 0.5, f64::INFINITY])));
    }

    #[test]
    fn any_number_has_a_colour_and_a_bar() {
        for x in [0.0, 1e-12, 0.5, 1.0, 1e9, f64::INFINITY, f64::NAN] {
            assert!(!colour(x).is_empty() && bar(x, 1e-6).contains("svg"));
        }
        assert!(bar(1.0, 0.0).contains("width=\"120\""));
    }
}
