//! Differences of a tensor by slice and quantile, held against those of the draws.

use rayon::prelude::*;
use serde::Serialize;

use super::Slice;
use super::metrics::{AT_A_TIME, Layout};

/// Slices of fewer elements have no quantiles to speak of.
pub(super) const FEW: usize = 16;
/// More columns than this are no channels.
const MOST_COLUMNS: i64 = 256;
/// How many times the draws' differences a single element may be away before it is looked at on its own, whatever the
/// type: draws that make the errors of a type at its own places are few.
pub(super) const LONE: f64 = 8.0;
/// Steps of the histogram: no difference, then a factor of two each, the last one open.
pub const BINS: usize = 12;

/// One slice of a tensor: how far it is away, and how far it may be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SliceStrain {
    /// Which one.
    pub slice: Slice,
    /// The largest difference in it.
    pub max_abs: f64,
    /// The largest difference of a draw in it.
    pub expected: f64,
    /// Found over allowed, at the quantile where that is worst: above 1 is too far.
    pub strain: f64,
}

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
    pub slices: Vec<SliceStrain>,
    pub blind: usize,
    /// Elements that moved where no draw moved anything; how far the furthest of them did.
    pub lone: usize,
    pub lone_worst: f64,
    /// Its index.
    pub lone_at: usize,
    /// Differences by how many times the expected one they are.
    pub histogram: [usize; BINS],
}

impl Strains {
    /// Adds what was found in later slices.
    fn add(&mut self, more: Strains) {
        if let Some(worst) = more.worst {
            hold(self, worst);
        }
        self.slices.extend(more.slices);
        self.blind += more.blind;
        self.lone += more.lone;
        if more.lone_worst > self.lone_worst {
            (self.lone_worst, self.lone_at) = (more.lone_worst, more.lone_at);
        }
        self.histogram.iter_mut().zip(more.histogram).for_each(|(own, more)| *own += more);
    }
}

/// What is held against what: all of the same length.
pub(super) struct Held<'a> {
    pub dims: &'a [i64],
    /// What differences are counted from.
    pub base: &'a [f64],
    /// Under judgement.
    pub result: &'a [f64],
    /// Each draw, and what it is counted from: the reference.
    pub draws: &'a [Vec<f64>],
    /// Draws of louder noise: where they move anything, a tie may tip.
    pub loud: &'a [Vec<f64>],
    /// How many times louder each of these is.
    pub loudness: &'a [f64],
    /// What the draws are counted from. Where it is not the base, how far it is off is allowed once.
    pub reference: &'a [f64],
    /// How many times the draws' differences are allowed.
    pub factor: f64,
    /// The difference, relative to a slice's largest value, that is always allowed.
    pub least: f64,
}

impl Held<'_> {
    /// Whether the draws are counted from something else than the result.
    fn is_off(&self) -> bool {
        !std::ptr::eq(self.base, self.reference)
    }
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

impl Run {
    fn indices(&self) -> impl Iterator<Item = usize> + Clone + use<> {
        let (start, step) = (self.start, self.step);
        (0..self.count).map(move |i| start + i * step)
    }
}

/// Holds a result against draws, slice by slice.
pub(super) fn strains(held: &Held) -> Strains {
    let Held { base, result, draws, reference, factor, least, .. } = *held;
    let whole = base.iter().map(|&x| finite(x)).fold(0.0, f64::max);
    let runs = runs(held.dims);
    let together = (AT_A_TIME / runs.first().map_or(1, |run| run.count).max(1)).max(1);
    let part = |runs: &[Run]| {
        let (mut found, mut buffer) = (Strains::default(), Vec::new());
        runs.iter().for_each(|run| look_at_slice(held, run, whole, &mut buffer, &mut found));
        found
    };
    let parts: Vec<Strains> = runs.par_chunks(together).map(part).collect();
    let mut found = Strains::default();
    parts.into_iter().for_each(|part| found.add(part));
    let largest =
        |one: &[f64], other: &[f64]| one.iter().zip(other).map(|(&r, &o)| difference(r, o)).fold(0.0, f64::max);
    let explained = draws.iter().chain(held.loud).map(|draw| largest(reference, draw)).fold(0.0, f64::max);
    let own = largest(base, result);
    let once = if held.is_off() { largest(base, reference) } else { 0.0 };
    let strain = if own == 0.0 { 0.0 } else { own / (factor * explained + once + least * whole) };
    hold(&mut found, Strain { slice: None, share: "some elements", found: own, explained, strain });
    found
}

/// Holds one slice against the draws. `whole` is the tensor's largest magnitude, `buffer` room to sort in.
fn look_at_slice(held: &Held, run: &Run, whole: f64, buffer: &mut Vec<f64>, found: &mut Strains) {
    let Held { base, result, draws, reference, factor, least, .. } = *held;
    // Engines approximate exponentials: a sigmoid that should be nothing is a few 1e-6 in some. Next to values of
    // hundreds in the same tensor that is no fault.
    let nothing = whole * 2f64.powi(-24);
    let apart = |one: &[f64], other: &[f64]| run.indices().map(|i| difference(one[i], other[i])).fold(0.0, f64::max);
    let scale = run.indices().map(|i| finite(base[i])).fold(0.0, f64::max);
    let always = least * scale + nothing;
    let mut slice = SliceStrain {
        slice: run.slice,
        max_abs: apart(base, result),
        expected: draws.iter().map(|draw| apart(reference, draw)).fold(0.0, f64::max),
        strain: 0.0,
    };
    // What an element may be away whatever moved in the draws right there.
    let mut anywhere = [0.0; 2];
    if run.count >= FEW {
        let mut measure =
            |one: &[f64], other: &[f64]| quantiles(buffer, run.indices().map(|i| difference(one[i], other[i])));
        let own = measure(base, result);
        let noise: Vec<[f64; 3]> = draws.iter().map(|draw| measure(reference, draw)).collect();
        let once = if held.is_off() { measure(base, reference) } else { [0.0; 3] };
        let explained = |index: usize| noise.iter().map(|noise| noise[index]).fold(0.0, f64::max);
        let blind = factor * explained(0) > deviation(run.indices().map(|i| base[i])) && scale > 0.0;
        found.blind += blind as usize;
        for (index, (_, share)) in SHARES.iter().enumerate() {
            let allowed = factor * explained(index) + once[index] + always;
            let strain = if own[index] == 0.0 { 0.0 } else { own[index] / allowed };
            slice.strain = slice.strain.max(strain);
            let (slice, own, explained) = (Some(run.slice), own[index], explained(index));
            hold(found, Strain { slice, share, found: own, explained, strain });
        }
        anywhere = [explained(2), once[2]];
    }
    look_at_elements(held, run, always, anywhere, slice.expected.max(always / factor), found);
    found.slices.push(slice);
}

/// Sorts a slice's elements into the histogram, and finds those that moved where nothing moves.
///
/// `far` is how far the draws move the slice's last hundredth, `once` how far the reference is off there.
fn look_at_elements(held: &Held, run: &Run, always: f64, [far, once]: [f64; 2], unit: f64, found: &mut Strains) {
    let lone_from = always + LONE * far + once;
    let mut ties: Option<Ties> = None;
    for i in run.indices() {
        let own = difference(held.base[i], held.result[i]);
        found.histogram[bin(own, unit)] += 1;
        if own <= lone_from {
            continue;
        }
        let moved = |draw: &Vec<f64>| difference(held.reference[i], draw[i]);
        let quiet = held.draws.iter().map(moved).fold(0.0, f64::max);
        let here = match held.loud {
            [] => quiet,
            loud => {
                let ties = ties.get_or_insert_with(|| Ties::of_slice(held, run));
                ties.explain(quiet, &loud.iter().map(moved).collect::<Vec<f64>>())
            }
        };
        let once = difference(held.base[i], held.reference[i]);
        if own > lone_from + LONE * here + once {
            found.lone += 1;
            if own > found.lone_worst {
                (found.lone_worst, found.lone_at) = (own, i);
            }
        }
    }
}

/// The step of the histogram for a difference, where `unit` is what is expected.
pub(super) fn bin(own: f64, unit: f64) -> usize {
    match own {
        0.0 => 0,
        _ if unit == 0.0 => BINS - 1,
        // The exponent of a float is its logarithm's whole part.
        _ => (((own / unit).to_bits() >> 52) as i64 - 1023 + 7).clamp(1, BINS as i64 - 1) as usize,
    }
}

/// Tells ties from what louder noise does everywhere.
///
/// Noise that is 64 times louder moves every element 64 times as far. That explains nothing: only where it moves one much
/// further than that, something tipped which may tip in the result as well.
pub(super) struct Ties {
    /// What is usual in the plain draws, at the far end.
    usual: f64,
    /// How many times further each louder draw moves what it moves.
    growth: Vec<f64>,
    /// So many times further than noise grows, and it is a tie.
    tipped: f64,
}

/// Where many elements tell how noise grows, so many times further is a tie.
const TIPPED: f64 = 3.0;
/// Of few elements nothing is measured: noise is taken to grow as it is louder, and a tie to jump much further.
const TIPPED_OF_FEW: f64 = 16.0;

impl Ties {
    fn of_slice(held: &Held, run: &Run) -> Self {
        let furthest = |draws: &[Vec<f64>], i: usize| {
            draws.iter().map(|draw| difference(held.reference[i], draw[i])).fold(0.0, f64::max)
        };
        if run.count < FEW {
            let usual = run.indices().map(|i| furthest(held.draws, i)).fold(0.0, f64::max);
            let growth = (0..held.loud.len()).map(|index| held.loudness.get(index).copied().unwrap_or(1.0)).collect();
            return Self { usual, growth, tipped: TIPPED_OF_FEW };
        }
        let mut buffer = Vec::with_capacity(run.count);
        let mut measure = |draws: &[Vec<f64>]| quantiles(&mut buffer, run.indices().map(|i| furthest(draws, i)));
        let plain = measure(held.draws);
        let loud: Vec<[f64; 3]> = held.loud.iter().map(|draw| measure(std::slice::from_ref(draw))).collect();
        Self::of(plain, &loud)
    }

    /// From the [quantiles] of how far the plain draws (the furthest at each place) and each louder one move elements.
    pub(super) fn of(plain: [f64; 3], loud: &[[f64; 3]]) -> Self {
        // Half of the elements tell best, unless they do not move at all.
        let share = plain.iter().position(|&moved| moved > 0.0);
        let growth = |loud: &[f64; 3]| share.map_or(1.0, |share| (loud[share] / plain[share]).max(1.0));
        Self { usual: plain[2], growth: loud.iter().map(growth).collect(), tipped: TIPPED }
    }

    /// How far noise takes an element that the plain draws move so far and the louder ones so: all the way where
    /// something tipped, else as far as noise of the usual loudness would.
    pub(super) fn explain(&self, quiet: f64, loud: &[f64]) -> f64 {
        let usual = self.usual.max(quiet);
        let one = |(&moved, &growth): (&f64, &f64)| match moved / growth {
            scaled if scaled > self.tipped * usual => moved,
            scaled => scaled,
        };
        loud.iter().zip(&self.growth).map(one).fold(quiet, f64::max)
    }
}

fn hold(found: &mut Strains, one: Strain) {
    if found.worst.as_ref().is_none_or(|worst| one.strain > worst.strain) {
        found.worst = Some(one);
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
    if total == 0 {
        return Vec::new();
    }
    let count = total / batch;
    (0..batch).map(|i| Run { start: i * count, step: 1, count, slice: Slice { batch: i, channel: None } }).collect()
}

/// Which slice an element lies in.
pub(super) fn slice_at(dims: &[i64], index: usize) -> Option<Slice> {
    runs(dims).into_iter().find(|run| run.indices().any(|i| i == index)).map(|run| run.slice)
}
/// The difference; infinite ones count where the two are not the same, and are held apart elsewhere.
fn difference(a: f64, b: f64) -> f64 {
    if a == b || (a.is_nan() && b.is_nan()) || !a.is_finite() || !b.is_finite() {
        return 0.0; // whether they are NaN at the same places is looked at before
    }
    (a - b).abs()
}

fn finite(x: f64) -> f64 {
    if x.is_finite() { x.abs() } else { 0.0 }
}

/// The values at [`SHARES`] of a list; zeros where it is empty. `buffer` is room to sort in.
pub(super) fn quantiles(buffer: &mut Vec<f64>, values: impl Iterator<Item = f64>) -> [f64; 3] {
    buffer.clear();
    buffer.extend(values);
    if buffer.is_empty() {
        return [0.0; 3];
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// 64 elements: plain draws move each by a millionth or so, louder ones by 64 times that.
    fn ties() -> Ties {
        let moved =
            |loudness: f64| quantiles(&mut Vec::new(), (0..64).map(|i| loudness * 1e-6 * (1.0 + f64::from(i) / 64.0)));
        Ties::of(moved(1.0), &[moved(64.0)])
    }

    #[test]
    fn louder_noise_explains_no_more_than_its_share() {
        let ties = ties();
        assert!((ties.explain(1e-6, &[64e-6]) - 1e-6).abs() < 1e-9);
        assert!((ties.explain(1e-6, &[150e-6]) - 150e-6 / 64.0).abs() < 1e-9, "twice as sensitive is no tie");
    }

    #[test]
    fn where_something_tips_the_whole_jump_is_explained() {
        assert_eq!(ties().explain(1e-6, &[0.5]), 0.5);
        assert_eq!(Ties::of([0.0; 3], &[[0.0; 3]]).explain(0.0, &[0.5]), 0.5, "nothing else moves at all");
    }
}
