//! Whether a difference is more than can be explained: measured noise in place of thresholds.
//!
//! # What a difference is held against
//!
//! No fixed threshold separates right from wrong. A healthy yolo26n differs by 30 pixels between two engines, because an
//! attention score sits on a tie and a rounding tips it; a faulty one differs by less. So the original model is run
//! several times with errors of the size that the element type makes anyway. These runs are the *draws*: in float32 with
//! every weight and input moved by a few units in the last place; in a 16-bit type with every tensor rounded to it. The
//! differences between the draws and the plain run say, tensor by tensor and part by part, what rounding does to *this*
//! model on *this* input. The result under judgement may be about as far from the plain run as they are.
//!
//! # Why by quantiles
//!
//! Where a tie tips, a handful of elements jump far; everywhere else the differences are tiny. A largest difference only
//! sees the handful, and would let a fault of that size pass anywhere; a mean sees neither. So each slice (a batch
//! element, or a channel of one) is held against the draws at several quantiles: half of its elements, 90 %, 99 %. A fault
//! that touches a whole channel or batch element shows at the half, be it ever so much smaller than the jumps. The
//! largest difference of all is held against the largest of all draws, since nobody knows where a tie tips next. A channel
//! of scores is a slice of its own, so that boxes in pixels do not drown it.
//!
//! Differences that the type itself makes on one value are always allowed: a few units in the last place of the slice's
//! largest value.
//!
//! # Where it sees nothing
//!
//! If the noise in a slice is as large as what the slice says, any value would pass. Such slices are counted as blind, and
//! a tensor that is blind in more than half of its slices makes the verdict [`Verdict::Unclear`] instead of the same.
//! Detections of which most are tied at the cut-off are unclear too.
//!
//! # A place that never moves
//!
//! The largest difference alone would let a fault pass anywhere that is as large as the jump where a tie tips. But a tie
//! has its place: the same few elements jump in every draw that tips it. An element that is away further than its slice's
//! noise, at a place where no draw moved, is *lone*. Lone elements may be a tie that happened not to tip in two draws, so
//! they count only once [`Expectation::loud`] is filled with draws of louder noise, in which ties do tip: what is lone
//! then is a fault. Louder noise moves everything further, which explains nothing; only where it moves an element much
//! further than it grew itself, something tipped.
//!
//! # Float64
//!
//! The reference is not always right: engines round, and some are wrong. Where [`Expectation::exact`] holds what the model
//! gives in float64 and a tensor differs from the reference, it is judged again by its distance from that: it may be as
//! far away as the reference is, besides what rounding explains.
//!
//! # Detections
//!
//! An end-to-end detector's output is a set, see [`Detections`]. Under bfloat16 scores move, so the order changes, rows
//! near the cut-off come and go, and boxes move by what the draws' boxes move. The rows that are lost, and the differences
//! of box, score and the rest between partners, are each held against the draws'.

use serde::Serialize;

use super::profile::{self, Held, SliceStrain, Ties};
use super::{Agreement, Detections, Metrics, Slice, metrics};
use crate::onnx::{DType, Tensor};
use indexmap::IndexMap;

/// A cosine between the reference and a draw of its own noise below which the noise explains any direction.
const TURNED: f64 = 0.9;

/// Rows that may be others at the cut-off although no draw changed any: two that change places.
const SWAPPED: f64 = 2.0;

/// What a model gives on some inputs, and how far rounding alone takes it from there.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// What the original gives.
    pub reference: IndexMap<String, Tensor>,
    /// What it gives with errors of the size that the type makes.
    pub draws: Vec<IndexMap<String, Tensor>>,
    /// What it gives with errors far larger: ties tip in them. Filled where it is needed, see the module's text.
    pub loud: Vec<IndexMap<String, Tensor>>,
    /// How many times louder than `draws` each of them is.
    pub loudness: Vec<f64>,
    /// What it gives in float64, as far as that is known.
    pub exact: Option<IndexMap<String, Tensor>>,
    /// The type whose errors these are.
    pub dtype: DType,
}

/// What was found about a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is no further from the reference than rounding explains.
    Same,
    /// Rounding alone makes so much of a difference that nothing can be said.
    Unclear,
    /// It is further away than rounding explains.
    Differs,
}

/// What was found about one tensor.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The tensor's name.
    pub name: String,
    /// The verdict on it.
    pub verdict: Verdict,
    /// Why, in words; empty when there is nothing to say.
    pub reason: String,
    /// How far it is from the reference; none where sizes or types are others.
    pub metrics: Option<Metrics>,
    /// The largest difference between a draw and the reference.
    pub expected: f64,
    /// How far the worst part of the tensor is from the reference, over how far it may be: above 1 is too far.
    pub strain: f64,
    /// For each batch element how the detections agree, where the tensor holds detections.
    pub detections: Vec<Agreement>,
    /// For each batch element how the worst draw's detections agree.
    pub expected_detections: Vec<Agreement>,
    /// Slices in which the noise is as large as the values, of how many.
    pub blind: (usize, usize),
    /// Elements away further than their slice's noise, at places where no draw moved. Without louder draws they do not
    /// count yet.
    pub lone: usize,
    /// Batch elements with a fault in them.
    pub batch_elements: Vec<usize>,
    /// Every slice; empty where the values are whole numbers or detections.
    #[serde(skip)]
    pub slices: Vec<SliceStrain>,
    /// How many elements are off by how many times the largest expected difference of their slice: not at all, below
    /// 1/32, then by factors of two up to 16 and more.
    pub histogram: Vec<usize>,
    /// The largest distance of the reference and of the result from float64, where it was asked.
    pub from_exact: Option<(f64, f64)>,
}

/// What was found about a result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The worst verdict of any tensor.
    pub verdict: Verdict,
    /// Tensor by tensor.
    pub findings: Vec<Finding>,
}

impl Report {
    /// What is left of it where tensors hang on random numbers: no two runs agree, so a difference says nothing.
    pub fn excusing_random(mut self, is_random: &dyn Fn(&str) -> bool) -> Self {
        for finding in self.findings.iter_mut().filter(|finding| is_random(&finding.name)) {
            // Sizes and types, where they are others, are no matter of chance.
            if finding.metrics.as_ref().is_some_and(|metrics| !metrics.equal) {
                finding.verdict = Verdict::Unclear;
                finding.reason = "it hangs on random numbers that the model draws: no two runs agree".into();
            }
        }
        self.verdict = self.findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Same);
        self
    }
}

impl Expectation {
    /// What a model gives, and what it gives in draws of a type's noise.
    pub fn new(reference: IndexMap<String, Tensor>, draws: Vec<IndexMap<String, Tensor>>, dtype: DType) -> Self {
        Self { reference, draws, loud: Vec::new(), loudness: Vec::new(), exact: None, dtype }
    }

    /// Judges a result: every tensor of the reference must be there and no further away than explained.
    pub fn judge(&self, result: &IndexMap<String, Tensor>) -> Report {
        let findings: Vec<Finding> =
            self.reference.iter().map(|(name, _)| self.judge_one(name, result.get(name))).collect();
        let verdict = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Same);
        Report { verdict, findings }
    }

    /// Judges one tensor of the reference. Where it differs and float64 knows better, float64 decides.
    ///
    /// A name that the reference does not have is a mistake of the caller's and told as missing.
    pub fn judge_one(&self, name: &str, result: Option<&Tensor>) -> Finding {
        let finding = self.judge_by_reference(name, result);
        match result {
            Some(result) => self.ask_exact(finding, result),
            None => finding,
        }
    }

    /// Asks float64, where it knows the tensor, about one that differs from the reference; others stay as they were found.
    pub fn ask_exact(&self, finding: Finding, result: &Tensor) -> Finding {
        let exact = self.exact.as_ref().and_then(|exact| exact.get(&finding.name));
        let (Some(exact), Some(reference)) = (exact, self.reference.get(&finding.name)) else { return finding };
        if finding.verdict != Verdict::Differs || finding.metrics.is_none() {
            return finding;
        }
        self.judge_by_exact(finding, exact, reference, result)
    }

    fn judge_by_exact(&self, mut finding: Finding, exact: &Tensor, reference: &Tensor, result: &Tensor) -> Finding {
        let distance = |tensor: &Tensor| metrics(exact, tensor).ok();
        let (Some(own), Some(theirs)) = (distance(result), distance(reference)) else { return finding };
        finding.from_exact = Some((theirs.max_abs, own.max_abs));
        let mut again = finding.clone();
        (again.verdict, again.reason, again.strain) = (Verdict::Same, String::new(), 0.0);
        (again.lone, again.batch_elements) = (0, Vec::new());
        let draws: Vec<&Tensor> = self.draws.iter().filter_map(|draw| draw.get(&finding.name)).collect();
        let loud: Vec<&Tensor> = self.loud.iter().filter_map(|draw| draw.get(&finding.name)).collect();
        if own.non_finite_apart > theirs.non_finite_apart {
            return finding;
        }
        if !reference.dtype().is_float() {
            if unlike(exact, result) > unlike(exact, reference) {
                return finding;
            }
        } else if let Some(detections) = Detections::of(exact) {
            let others: Vec<&Tensor> = draws.iter().copied().chain([reference]).collect();
            self.judge_detections(&mut again, &detections, result, &others, &loud);
        } else {
            self.judge_values(&mut again, exact, result, reference, &draws, &loud);
        }
        if again.verdict == Verdict::Unclear {
            return again;
        }
        if again.verdict == Verdict::Differs {
            again.reason = format!("{} (from float64; from the reference: {})", again.reason, finding.reason);
            return again;
        }
        again.reason = format!(
            "the reference is {:.3e} from float64, this is {:.3e}: it is not further off than rounding explains",
            theirs.max_abs, own.max_abs
        );
        again
    }

    fn judge_by_reference(&self, name: &str, result: Option<&Tensor>) -> Finding {
        let mut finding = Finding {
            name: name.into(),
            verdict: Verdict::Same,
            reason: String::new(),
            metrics: None,
            expected: 0.0,
            strain: 0.0,
            detections: Vec::new(),
            expected_detections: Vec::new(),
            blind: (0, 0),
            lone: 0,
            batch_elements: Vec::new(),
            slices: Vec::new(),
            histogram: Vec::new(),
            from_exact: None,
        };
        let differs = |mut finding: Finding, reason: String| {
            finding.verdict = Verdict::Differs;
            finding.strain = f64::INFINITY;
            finding.reason = reason;
            finding
        };
        let (Some(reference), Some(result)) = (self.reference.get(name), result) else {
            return differs(finding, "it is missing".into());
        };
        let measured = match metrics(reference, result) {
            Ok(measured) => measured,
            Err(problem) => return differs(finding, problem.to_string()),
        };
        let draws: Vec<&Tensor> = self.draws.iter().filter_map(|draw| draw.get(name)).collect();
        let loud: Vec<&Tensor> = self.loud.iter().filter_map(|draw| draw.get(name)).collect();
        let noise: Vec<Metrics> = draws.iter().filter_map(|draw| metrics(reference, draw).ok()).collect();
        finding.expected = noise.iter().map(|noise| noise.max_abs).fold(0.0, f64::max);
        finding.metrics = Some(measured.clone());
        if measured.equal {
            return finding;
        }
        let lost = no_longer_finite(reference, result);
        if lost > 0 {
            finding.batch_elements = elements_apart(reference, result);
            return differs(finding, format!("{lost} elements are NaN or infinite that the reference has as numbers"));
        }
        let apart = noise.iter().map(|noise| noise.non_finite_apart).max().unwrap_or(0);
        if measured.non_finite_apart as f64 > self.factor() * apart as f64 {
            let count = measured.non_finite_apart;
            finding.batch_elements = elements_apart(reference, result);
            return differs(finding, format!("{count} elements are NaN or infinite on one side only"));
        }
        if !reference.dtype().is_float() {
            self.judge_whole_numbers(&mut finding, reference, result, &draws);
        } else if let Some(detections) = Detections::of(reference) {
            self.judge_detections(&mut finding, &detections, result, &draws, &loud);
        } else {
            self.judge_values(&mut finding, reference, result, reference, &draws, &loud);
            let turned = noise.iter().map(|noise| noise.cosine).fold(1.0, f64::min);
            if finding.verdict == Verdict::Same && turned < TURNED && finding.expected > measured.scale / 4.0 {
                finding.verdict = Verdict::Unclear;
                finding.reason = format!(
                    "{} alone turns the tensor (cosine {turned:.3}), so that almost anything would pass; inputs nearer to the \
                     model's own may say more",
                    self.dtype
                );
            }
        }
        finding
    }

    /// Whole numbers are the same or they are not; ties may tip in as many places as in the draws.
    fn judge_whole_numbers(&self, finding: &mut Finding, reference: &Tensor, result: &Tensor, draws: &[&Tensor]) {
        let found = unlike(reference, result);
        let explained = draws.iter().map(|draw| unlike(reference, draw)).max().unwrap_or(0);
        let allowed = self.factor() * explained as f64;
        finding.strain = found as f64 / allowed.max(0.5);
        if 2.0 * allowed >= reference.len() as f64 {
            finding.verdict = Verdict::Unclear;
            finding.reason =
                format!("noise changes {explained} of {} elements, so that any value would pass", reference.len());
        } else if found as f64 > allowed {
            finding.verdict = Verdict::Differs;
            finding.batch_elements = unlike_elements(reference, result);
            finding.reason = format!("{found} of {} elements differ, {explained} explained", reference.len());
        }
    }

    /// How many times the draws' differences a result may be away. A 16-bit draw makes the errors that the result makes, at
    /// the same places; a float32 one stands for errors of unknown places.
    fn factor(&self) -> f64 {
        match self.dtype {
            DType::Bfloat16 | DType::Float16 => 3.0,
            _ => 8.0,
        }
    }

    /// What one rounding to the type makes of the largest value, and a few times that.
    fn least(&self) -> f64 {
        least_of(self.dtype)
    }

    fn judge_values(
        &self,
        finding: &mut Finding,
        base: &Tensor,
        result: &Tensor,
        reference: &Tensor,
        draws: &[&Tensor],
        loud: &[&Tensor],
    ) {
        let read = |tensor: &Tensor| tensor.to_f64s().unwrap_or_default();
        let fits = |values: &Vec<f64>| values.len() == base.len();
        let all = |tensors: &[&Tensor]| -> Vec<Vec<f64>> { tensors.iter().map(|one| read(one)).filter(fits).collect() };
        let (base_values, result) = (read(base), read(result));
        let other = (!std::ptr::eq(base, reference)).then(|| read(reference));
        let held = Held {
            dims: base.dims(),
            base: &base_values,
            result: &result,
            draws: &all(draws),
            loud: &all(loud),
            loudness: &self.loudness,
            reference: other.as_ref().unwrap_or(&base_values),
            factor: self.factor(),
            least: least_of(reference.dtype()).max(self.least()),
        };
        let strains = profile::strains(&held);
        finding.blind = (strains.blind, strains.slices.len());
        finding.lone = strains.lone;
        finding.histogram = strains.histogram.to_vec();
        let Some(worst) = &strains.worst else { return };
        finding.strain = worst.strain;
        let mut elements: Vec<usize> =
            strains.slices.iter().filter(|one| one.strain > 1.0).map(|one| one.slice.batch).collect();
        if worst.strain > 1.0 {
            finding.verdict = Verdict::Differs;
            finding.reason = format!(
                "{}: {} differ by {:.3e} or more, {} explains {:.3e}",
                place(worst.slice),
                worst.share,
                worst.found,
                self.dtype,
                worst.explained
            );
            if elements.is_empty() {
                let most = strains.slices.iter().map(|one| one.max_abs).fold(0.0, f64::max);
                elements
                    .extend(strains.slices.iter().filter(|one| one.max_abs > most / 2.0).map(|one| one.slice.batch));
            }
        } else if strains.lone > 0 && !held.loud.is_empty() {
            let slice = profile::slice_at(base.dims(), strains.lone_at);
            finding.verdict = Verdict::Differs;
            finding.strain = f64::max(finding.strain, 1.0 + f64::EPSILON);
            finding.reason = format!(
                "{}: {} elements differ, by up to {:.3e}, at places that no noise moves",
                place(slice),
                strains.lone,
                strains.lone_worst
            );
            elements.extend(slice.map(|slice| slice.batch));
        } else if 2 * strains.blind > strains.slices.len() {
            finding.verdict = Verdict::Unclear;
            finding.reason = format!(
                "in {} of {} slices {} alone makes as much of a difference as the values are apart",
                strains.blind,
                strains.slices.len(),
                self.dtype
            );
        }
        elements.sort_unstable();
        elements.dedup();
        finding.batch_elements = elements;
        finding.slices = strains.slices;
    }

    fn judge_detections(
        &self,
        finding: &mut Finding,
        reference: &Detections,
        result: &Tensor,
        draws: &[&Tensor],
        loud: &[&Tensor],
    ) {
        let size = finding.metrics.as_ref().map_or(0.0, |metrics| metrics.scale);
        let least = self.least();
        // How far a score may move decides who stands at the cut-off.
        let moved: Vec<Vec<Agreement>> = draws.iter().filter_map(|draw| reference.compare(draw, 0.0)).collect();
        let slack =
            self.factor() * moved.iter().flatten().map(|a| quantile(&a.scores, 0.99)).fold(0.0, f64::max) + least;
        let noise: Vec<Vec<Agreement>> = draws.iter().filter_map(|draw| reference.compare(draw, slack)).collect();
        let Some(found) = reference.compare(result, slack) else { return };
        let mut worst: (f64, String) = (0.0, String::new());
        let mut guilty: Vec<usize> = Vec::new();
        // Noise loses half of the list; more rows than in any draw are crowded out at the cut-off.
        let (mut shaky, mut crowded) = (false, false);
        let mut hold = |element: usize, strain: f64, reason: &dyn Fn() -> String| {
            if (strain > 1.0 || strain.is_nan()) && guilty.last() != Some(&element) {
                guilty.push(element);
            }
            if strain > worst.0 || strain.is_nan() {
                worst = (if strain.is_nan() { f64::INFINITY } else { strain }, reason());
            }
        };
        for (element, agreement) in found.iter().enumerate() {
            let others: Vec<&Agreement> = noise.iter().filter_map(|draw| draw.get(element)).collect();
            let explained = others.iter().map(|other| other.lost).max().unwrap_or(0);
            let allowed = self.factor() * explained as f64;
            shaky |= explained > 0 && 2.0 * allowed >= agreement.count as f64;
            let tied = others.iter().map(|other| other.at_cut).max().unwrap_or(0);
            crowded |=
                agreement.at_cut as f64 > self.factor() * tied as f64 + SWAPPED.max(0.02 * agreement.count as f64);
            let lost = agreement.lost as f64 / allowed.max(0.5);
            hold(element, lost, &|| {
                format!("batch element {element}: {} detections have no partner, {explained} explained", agreement.lost)
            });
            type List = fn(&Agreement) -> &Vec<f64>;
            let lists: [(&str, List, f64); 3] =
                [("box", |a| &a.boxes, size), ("score", |a| &a.scores, 1.0), ("rest", |a| &a.rest, 1.0)];
            for (what, list, scale) in lists {
                for share in [0.5, 0.9, 1.0] {
                    let own = quantile(list(agreement), share);
                    // The last tie may tip anywhere, so the largest is held against every element's.
                    let pool: Vec<&Agreement> =
                        if share == 1.0 { noise.iter().flatten().collect() } else { others.clone() };
                    let explained = pool.iter().map(|other| quantile(list(other), share)).fold(0.0, f64::max);
                    hold(element, own / (self.factor() * explained + least * scale), &|| {
                        let least =
                            if share == 1.0 { "the worst".into() } else { format!("{:.0} %", 100.0 - share * 100.0) };
                        format!(
                            "batch element {element}: {what}: {least} differ by {own:.3e} or more, {} explains {explained:.3e}",
                            self.dtype
                        )
                    });
                }
            }
        }
        finding.strain = worst.0;
        finding.batch_elements = guilty;
        let loud: Vec<Vec<Agreement>> = loud.iter().filter_map(|draw| reference.compare(draw, slack)).collect();
        let lone = self.lone_rows(&found, &noise, &loud, size);
        finding.lone = lone.len();
        let (tied, all) = found.iter().fold((0, 0), |(tied, all), a| (tied + a.at_cut / 2, all + a.count));
        if worst.0 > 1.0 {
            finding.verdict = Verdict::Differs;
            finding.reason = worst.1;
        } else if let Some(row) = lone.iter().max_by(|a, b| a.strain.total_cmp(&b.strain)).filter(|_| !loud.is_empty())
        {
            finding.verdict = Verdict::Differs;
            finding.strain = f64::max(finding.strain, 1.0 + f64::EPSILON);
            finding.batch_elements = lone.iter().map(|row| row.element).collect();
            finding.batch_elements.dedup();
            finding.reason = format!(
                "batch element {}: {} of {} detections differ, {} by up to {:.3e}, that no noise moves",
                row.element,
                lone.len(),
                all,
                row.what,
                row.found
            );
        } else if 2 * tied > all {
            finding.verdict = Verdict::Unclear;
            finding.reason =
                format!("{tied} of {all} detections are tied at the cut-off, so any of them may be listed");
        } else if shaky {
            finding.verdict = Verdict::Unclear;
            finding.reason = "noise alone loses so many detections that any list would pass".into();
        } else if crowded {
            finding.verdict = Verdict::Unclear;
            finding.reason = format!(
                "{tied} of {all} detections at the cut-off are others than the reference lists, more than noise makes so: scores \
                 tie there, and what is listed cannot be judged"
            );
        }
        finding.histogram = box_histogram(&found, &noise, least * size);
        finding.detections = found;
        let worst_draw = noise.into_iter().max_by_key(|draw| draw.iter().map(|a| a.count - a.agree).sum::<usize>());
        finding.expected_detections = worst_draw.unwrap_or_default();
    }
}

/// A detection that is further off than any noise takes it or those beside it.
struct LoneRow {
    element: usize,
    what: &'static str,
    found: f64,
    strain: f64,
}

impl Expectation {
    /// Detections that moved where no draw moves anything: see the module's text, on a place that never moves.
    fn lone_rows(
        &self,
        found: &[Agreement],
        noise: &[Vec<Agreement>],
        loud: &[Vec<Agreement>],
        size: f64,
    ) -> Vec<LoneRow> {
        type List = fn(&Agreement) -> &Vec<f64>;
        let kinds: [(&str, List, f64); 3] =
            [("box", |a| &a.boxes, size), ("score", |a| &a.scores, 1.0), ("rest", |a| &a.rest, 1.0)];
        let mut lone = Vec::new();
        for (element, agreement) in found.iter().enumerate() {
            let of = |draws: &[Vec<Agreement>]| -> Vec<Agreement> {
                draws.iter().filter_map(|draw| draw.get(element).cloned()).collect()
            };
            let (plain, loud) = (of(noise), of(loud));
            for (kind, &(what, list, scale)) in kinds.iter().enumerate() {
                let widest = plain.iter().map(list).max_by(|a, b| quantile(a, 0.5).total_cmp(&quantile(b, 0.5)));
                let (Some(widest), true) = (widest, plain.iter().all(|draw| list(draw).len() >= profile::FEW)) else {
                    continue;
                };
                let measure = |list: &Vec<f64>| profile::quantiles(&mut Vec::new(), list.iter().copied());
                let ties = Ties::of(measure(widest), &loud.iter().map(|draw| measure(list(draw))).collect::<Vec<_>>());
                let usual = plain.iter().map(|draw| quantile(list(draw), 0.9)).fold(0.0, f64::max);
                let anywhere = profile::LONE * usual + self.least() * scale;
                for (row, partner) in agreement.partners.iter().enumerate() {
                    let Some(own) = partner.map(|apart| apart[kind]).filter(|&own| own > anywhere) else { continue };
                    let moved = |draws: &[Agreement]| -> Option<Vec<f64>> {
                        draws.iter().map(|draw| Some((*draw.partners.get(row)?)?[kind])).collect()
                    };
                    // A row that some noise loses is nobody's to judge.
                    let (Some(quiet), Some(loud)) = (moved(&plain), moved(&loud)) else { continue };
                    let here = ties.explain(quiet.into_iter().fold(0.0, f64::max), &loud);
                    let allowed = anywhere + profile::LONE * here;
                    if own > allowed {
                        lone.push(LoneRow { element, what, found: own, strain: own / allowed });
                    }
                }
            }
        }
        lone
    }
}

/// Elements that are numbers in the reference and none in the result. No noise excuses that: an answer that is NaN because
/// its type overflows is no answer.
fn no_longer_finite(reference: &Tensor, result: &Tensor) -> usize {
    let (Ok(ours), Ok(theirs)) = (reference.to_f64s(), result.to_f64s()) else { return 0 };
    ours.iter().zip(&theirs).filter(|(ours, theirs)| ours.is_finite() && !theirs.is_finite()).count()
}

/// Batch elements in which one side has a NaN or an infinity and the other does not.
fn elements_apart(reference: &Tensor, result: &Tensor) -> Vec<usize> {
    let (Ok(ours), Ok(theirs)) = (reference.to_f32s(), result.to_f32s()) else { return Vec::new() };
    let batch = reference.dims().first().map_or(1, |&size| size.max(1) as usize);
    let count = (ours.len() / batch).max(1);
    let apart = |(a, b): (&f32, &f32)| !(a.is_finite() && b.is_finite() || a == b || a.is_nan() && b.is_nan());
    (0..batch)
        .filter(|element| {
            let range = element * count..((element + 1) * count).min(ours.len());
            ours[range.clone()].iter().zip(&theirs[range]).any(apart)
        })
        .collect()
}

/// Detections by how far their box is off over the furthest in a draw, in the steps of [`Finding::histogram`].
fn box_histogram(found: &[Agreement], noise: &[Vec<Agreement>], least: f64) -> Vec<usize> {
    let unit = noise.iter().flatten().map(|draw| draw.worst_box).fold(least, f64::max);
    let mut bins = vec![0; profile::BINS];
    found.iter().flat_map(|one| &one.boxes).for_each(|&apart| bins[profile::bin(apart, unit)] += 1);
    bins
}

/// What one rounding to a type makes of the largest value, and a few times that.
fn least_of(dtype: DType) -> f64 {
    match dtype {
        DType::Bfloat16 => 2f64.powi(-8),
        DType::Float16 => 2f64.powi(-10),
        _ => 2f64.powi(-20),
    }
}

fn place(slice: Option<Slice>) -> String {
    slice.map_or_else(|| "the whole".into(), |slice| slice.to_string())
}

fn unlike(a: &Tensor, b: &Tensor) -> usize {
    if a.dtype() == DType::String {
        return a.string_data.iter().zip(&b.string_data).filter(|(a, b)| a != b).count();
    }
    match (a.to_i64s(), b.to_i64s()) {
        (Ok(a), Ok(b)) if a.len() == b.len() => a.iter().zip(&b).filter(|(a, b)| a != b).count(),
        _ if metrics(a, b).is_ok_and(|found| found.equal) => 0,
        _ => a.len(),
    }
}

fn unlike_elements(a: &Tensor, b: &Tensor) -> Vec<usize> {
    let (Ok(ours), Ok(theirs)) = (a.to_i64s(), b.to_i64s()) else { return Vec::new() };
    let batch = a.dims().first().map_or(1, |&size| size.max(1) as usize);
    let count = (ours.len() / batch).max(1);
    let pairs = ours.chunks(count).zip(theirs.chunks(count));
    pairs.enumerate().filter(|(_, (a, b))| a != b).map(|(element, _)| element).collect()
}

/// The value below which `share` of an ascending list lies; 0 for an empty one.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    match sorted.len() {
        0 => 0.0,
        count => sorted[(((count - 1) as f64) * share).round() as usize],
    }
}
