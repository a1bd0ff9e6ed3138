//! Figures of many runs, and a table of them for other programs.

use serde::Serialize;

use super::Row;

/// Figures of many runs, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Statistics {
    /// How many runs.
    pub runs: usize,
    /// The middle one.
    pub median: f64,
    /// 95 of 100 took no longer.
    pub p95: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// The fastest.
    pub least: f64,
    /// The mean.
    pub mean: f64,
}

impl Statistics {
    /// Figures of times in seconds; none of no times.
    pub fn of(seconds: &[f64]) -> Option<Self> {
        let mut sorted = seconds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        // The nearest rank: a time that was really measured.
        let rank =
            |share: f64| Some(1e3 * sorted.get(((share * count as f64).ceil() as usize).clamp(1, count.max(1)) - 1)?);
        Some(Self {
            runs: count,
            median: rank(0.5)?,
            p95: rank(0.95)?,
            p99: rank(0.99)?,
            least: 1e3 * sorted.first()?,
            mean: 1e3 * sorted.iter().sum::<f64>() / count as f64,
        })
    }
}

/// The rows as comma-separated values.
pub fn csv(rows: &[Row]) -> String {
    let mut text = String::from(
        "target,engine,batch,jobs,runs,median_ms,p95_ms,p99_ms,least_ms,mean_ms,elements_per_second,compile_s,peak_mb,error\n",
    );
    for row in rows {
        let figure =
            |pick: fn(&Statistics) -> f64| row.times.as_ref().map(|t| format!("{:.4}", pick(t))).unwrap_or_default();
        let cells = [
            quoted(&row.case.target),
            quoted(row.engine.as_deref().unwrap_or_default()),
            row.case.batch.to_string(),
            row.case.jobs.to_string(),
            row.times.as_ref().map_or(0, |times| times.runs).to_string(),
            figure(|t| t.median),
            figure(|t| t.p95),
            figure(|t| t.p99),
            figure(|t| t.least),
            figure(|t| t.mean),
            row.elements_per_second.map(|rate| format!("{rate:.3}")).unwrap_or_default(),
            row.compile_seconds.map(|seconds| format!("{seconds:.4}")).unwrap_or_default(),
            row.peak_bytes.map(|bytes| format!("{:.1}", bytes as f64 / 1e6)).unwrap_or_default(),
            quoted(row.error.as_deref().unwrap_or_default()),
        ];
        text += &cells.join(",");
        text.push('\n');
    }
    text
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let seconds: Vec<f64> = (1..=100).rev().map(|i| f64::from(i) / 1e3).collect();
        let figures = Statistics::of(&seconds).unwrap();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(figures.median, 50.0) && near(figures.p95, 95.0) && near(figures.p99, 99.0), "{figures:?}");
        assert!(near(figures.least, 1.0) && near(figures.mean, 50.5) && figures.runs == 100);
        assert_eq!(Statistics::of(&[]), None);
        assert!(near(Statistics::of(&[0.25]).unwrap().p99, 250.0));
    }
}
