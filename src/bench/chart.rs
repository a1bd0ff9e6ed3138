//! A picture of a measurement: batch elements a second over the batch size, a line for each target.

use std::fmt::Write;

use super::Row;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 8] = ["#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4b5563"];

/// The rows as an SVG picture.
pub fn chart(title: &str, rows: &[Row]) -> String {
    let measured: Vec<(&Row, f64)> = rows.iter().filter_map(|row| Some((row, row.elements_per_second?))).collect();
    let mut batches: Vec<usize> = measured.iter().map(|(row, _)| row.case.batch).collect();
    batches.sort_unstable();
    batches.dedup();
    let most = measured.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let step = round_step(most / 5.0);
    let top = (most / step).ceil().max(1.0) * step;
    let x = |batch: usize| {
        let place = batches.iter().position(|&other| other == batch).unwrap_or(0) as f64;
        LEFT + (WIDTH - LEFT - RIGHT) * (place + 0.5) / batches.len().max(1) as f64
    };
    let y = |rate: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * rate / top;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    let mut line = |text: String| {
        let _ = writeln!(svg, "{text}");
    };
    let right = WIDTH - RIGHT;
    for count in 0..=(top / step).round() as usize {
        let (rate, y) = (count as f64 * step, y(count as f64 * step));
        line(format!("<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e5e7eb\"/>"));
        line(format!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 6.0, y + 4.0, plain(rate)));
    }
    for &batch in &batches {
        line(format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{batch}</text>",
            x(batch),
            HEIGHT - BOTTOM + 18.0
        ));
    }
    line(format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">batch</text>",
        (LEFT + right) / 2.0,
        HEIGHT - 12.0
    ));
    line(format!(
        "<text transform=\"translate(18 {:.1}) rotate(-90)\" text-anchor=\"middle\">elements a second</text>",
        (TOP + HEIGHT - BOTTOM) / 2.0
    ));
    let mut series: Vec<(&str, usize)> = Vec::new();
    for (row, _) in &measured {
        let one = (row.case.target.as_str(), row.case.jobs);
        if !series.contains(&one) {
            series.push(one);
        }
    }
    for (index, (target, jobs)) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let mut points: Vec<(usize, f64)> = measured
            .iter()
            .filter(|(row, _)| row.case.target == *target && row.case.jobs == *jobs)
            .map(|(row, rate)| (row.case.batch, *rate))
            .collect();
        points.sort_by_key(|(batch, _)| *batch);
        let path: Vec<String> = points.iter().map(|&(batch, rate)| format!("{:.1},{:.1}", x(batch), y(rate))).collect();
        line(format!("<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", path.join(" ")));
        for &(batch, rate) in &points {
            line(format!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>", x(batch), y(rate)));
        }
        let at = TOP + 18.0 * index as f64;
        let jobs = if *jobs > 1 { format!(", {jobs} jobs") } else { String::new() };
        line(format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>", right + 14.0, at));
        line(format!("<text x=\"{:.1}\" y=\"{:.1}\">{}{jobs}</text>", right + 32.0, at + 10.0, escaped(target)));
    }
    svg + "</svg>\n"
}

/// A step of 1, 2 or 5 times a power of ten, no smaller than `least`.
fn round_step(least: f64) -> f64 {
    if least <= 0.0 || !least.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|&step| step >= least * 0.999)
        .unwrap_or(10.0 * power)
}

fn plain(value: f64) -> String {
    if value.fract().abs() < 1e-9 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Case, Statistics};

    #[test]
    fn a_line_for_each_target() {
        let row = |target: &str, batch, rate| Row {
            case: Case { target: target.into(), batch, jobs: 1 },
            engine: None,
            times: Statistics::of(&[0.1]),
            elements_per_second: rate,
            compile_seconds: None,
            peak_bytes: None,
            error: None,
            exit: 0,
        };
        let rows = [row("a<b", 1, Some(10.0)), row("a<b", 4, Some(37.0)), row("c", 1, Some(20.0)), row("c", 4, None)];
        let svg = chart("yolo26n", &rows);
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (2, 3));
        assert!(svg.contains("a&lt;b") && !svg.contains("NaN"));
        assert!(chart("nothing", &[]).ends_with("</svg>\n"));
        assert_eq!([0.3, 7.0, 20.0, 1.0].map(round_step), [0.5, 10.0, 20.0, 1.0]);
    }
}
