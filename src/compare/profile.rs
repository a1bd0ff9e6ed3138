//! Differences of a tensor by slice and quantile, held against those of the draws.

use super::Slice;
use super::metrics::Layout;

/// Slices of fewer elements have no quantiles to speak of.
const FEW: usize = 16;
/// More columns than this are no channels.
const MOST_COLUMNS: i64 = 256;

/// Where a result is furthest from what is explained.
#[derive(Clone, Debug)]
pub(super) struct Strain {
    /// The slice; `None` for the whole tensor.
    pub slice: Option<Slice>,
    /// Which part of the slice's elements, in words.
    pub share: &'static str,
    /// Their least difference.
    pub found: f64,
    /// That of the draws.
    pub explained: f64,
    /// Found over allowed: above 1 is too much.
    pub strain: f64,
}

/// Every slice's outcome, and the worst.
#[derive(Clone, Debug, Default)]
pub(super) struct Strains {
    pub worst: Option<Strain>,
    pub slices: usize,
    pub blind: usize,
}

/// Quantiles looked at, with the share of elements beyond them in words.
const SHARES: [(f64, &str); 3] =
    [(0.5, "half of its elements"), (0.9, "10 % of its elements"), (0.99, "1 % of its elements")];

struct Run {
    start: usize,
    step: usize,
    count: usize,
    slice: Slice,
}

/// Holds `result` against `draws`, each as a difference from `reference`. `least` is the difference, relative to a slice's
/// largest value, that is always allowed.
pub(super) fn strains(
    dims: &[i64],
    reference: &[f32],
    result: &[f32],
    draws: &[Vec<f32>],
    factor: f64,
    least: f64,
) -> Strains {
    let mut found = Strains::default();
    let mut buffer = Vec::new();
    let whole = reference.iter().map(|&x| finite(x)).fold(0.0, f64::max);
    // Engines approximate exponentials: a sigmoid that should be nothing is a few 1e-6 in some. Next to values of
    // hundreds in the same tensor that is no fault.
    let nothing = whole * 2f64.powi(-24);
    for run in runs(dims) {
        let indices = || (0..run.count).map(|i| run.start + i * run.step);
        let own = quantiles(&mut buffer, indices().map(|i| difference(reference[i], result[i])));
        let noise: Vec<[f64; 3]> = draws
            .iter()
            .map(|draw| quantiles(&mut buffer, indices().map(|i| difference(reference[i], draw[i]))))
            .collect();
        let scale = indices().map(|i| finite(reference[i])).fold(0.0, f64::max);
        let explained = |index: usize| noise.iter().map(|noise| noise[index]).fold(0.0, f64::max);
        found.slices += 1;
        found.blind +=
            (factor * explained(0) > deviation(indices().map(|i| reference[i] as f64)) && scale > 0.0) as usize;
        for (index, (_, share)) in SHARES.iter().enumerate() {
            let allowed = factor * explained(index) + least * scale + nothing;
            let strain = if own[index] == 0.0 { 0.0 } else { own[index] / allowed };
            hold(&mut found, Some(run.slice), share, own[index], explained(index), strain);
        }
    }
    let largest = |other: &[f32]| reference.iter().zip(other).map(|(&r, &o)| difference(r, o)).fold(0.0, f64::max);
    let explained = draws.iter().map(|draw| largest(draw)).fold(0.0, f64::max);
    let own = largest(result);
    let strain = if own == 0.0 { 0.0 } else { own / (factor * explained + least * whole) };
    hold(&mut found, None, "some elements", own, explained, strain);
    found
}

fn hold(found: &mut Strains, slice: Option<Slice>, share: &'static str, own: f64, explained: f64, strain: f64) {
    if found.worst.as_ref().is_none_or(|worst| strain > worst.strain) {
        found.worst = Some(Strain { slice, share, found: own, explained, strain });
    }
}

/// How a tensor is cut: channels that lie together, else columns of a table, else batch elements.
fn runs(dims: &[i64]) -> Vec<Run> {
    let layout = Layout::of(dims);
    let total = dims.iter().product::<i64>().max(0) as usize;
    let batch = dims.first().copied().unwrap_or(1).max(1) as usize;
    if let &[_, rows, columns] = dims {
        // Fewer columns than rows: the rows are places, the columns are channels.
        if columns <= MOST_COLUMNS && rows > columns && rows as usize >= FEW {
            let (rows, columns) = (rows as usize, columns as usize);
            return (0..batch * columns)
                .map(|i| Run {
                    start: i / columns * rows * columns + i % columns,
                    step: columns,
                    count: rows,
                    slice: Slice { batch: i / columns, channel: Some(i % columns) },
                })
                .collect();
        }
    }
    if layout.channels > 0 && layout.run >= FEW {
        let runs = total / layout.run;
        return (0..runs)
            .map(|i| Run { start: i * layout.run, step: 1, count: layout.run, slice: layout.slice(i) })
            .collect();
    }
    let count = total / batch;
    match count >= FEW {
        true => (0..batch)
            .map(|i| Run { start: i * count, step: 1, count, slice: Slice { batch: i, channel: None } })
            .collect(),
        false => Vec::new(),
    }
}

/// The difference; infinite ones count where the two are not the same, and are held apart elsewhere.
fn difference(a: f32, b: f32) -> f64 {
    if a == b || (a.is_nan() && b.is_nan()) || !a.is_finite() || !b.is_finite() {
        return 0.0; // whether they are NaN at the same places is looked at before
    }
    (a as f64 - b as f64).abs()
}

fn finite(x: f32) -> f64 {
    if x.is_finite() { x.abs() as f64 } else { 0.0 }
}

fn quantiles(buffer: &mut Vec<f64>, values: impl Iterator<Item = f64>) -> [f64; 3] {
    buffer.clear();
    buffer.extend(values);
    let mut rest = 0; // what is below is known to be smaller
    SHARES.map(|(share, _)| {
        let index = ((buffer.len() - 1) as f64 * share).round() as usize;
        let (_, value, _) = buffer[rest..].select_nth_unstable_by(index - rest, f64::total_cmp);
        let value = *value;
        rest = index;
        value
    })
}

/// How far values are from each other: the standard deviation, or their size where they are all alike.
fn deviation(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let finite = values.filter(|x| x.is_finite());
    let count = finite.clone().count().max(1) as f64;
    let mean = finite.clone().sum::<f64>() / count;
    let spread = (finite.map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt();
    spread.max(mean.abs() * 1e-3)
}
