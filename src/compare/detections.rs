//! Detections as sets: a detector's answer is a list cut off at the best N, and two right answers may list it in another
//! order.
//!
//! A tensor `[batch, N, 6 or more]` whose rows are box, score, class and whatever hangs on it (an angle, keypoints, mask
//! coefficients), best score first, is compared row by row with the *nearest* row of the same class, not the row at the
//! same place. Rows that find no partner are of two kinds. Near the cut-off a row may just have been crowded out by
//! another of the same score: that is no error, and with saturated scores (hundreds of exact ties) it is the rule. A
//! row well above the cut-off that has no partner is lost, and that is one.

use serde::Serialize;

use crate::onnx::Tensor;

const SCORE: usize = 4;
const CLASS: usize = 5;
/// A class that was computed with is a hair off: some accelerators give 8.000001.
const SAME_CLASS: f64 = 0.01;
/// Rows are no longer than this: 6, and 51 of keypoints, or 32 of mask coefficients.
const MOST_COLUMNS: i64 = 256;

/// A tensor seen as detections: for each batch element its rows.
#[derive(Clone, Debug)]
pub struct Detections {
    columns: usize,
    rows: usize,
    values: Vec<f64>,
}

/// How two sets of detections agree.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Agreement {
    /// Rows of the reference.
    pub count: usize,
    /// Rows that have a partner of the same class nearby.
    pub agree: usize,
    /// Rows of either side without one, whose score is so near the cut-off that another may have taken the place.
    pub at_cut: usize,
    /// Rows of either side without one that nothing explains.
    pub lost: usize,
    /// The largest difference of a box coordinate between partners, in the tensor's unit (pixels).
    pub worst_box: f64,
    /// The least intersection over union of partners' boxes, taken as upright; 1 where there are none.
    pub worst_iou: f64,
    /// The largest difference of a score between partners.
    pub worst_score: f64,
    /// The largest difference of anything behind the class between partners, over the largest value of its column in the
    /// reference: an angle is no pixel.
    pub worst_rest: f64,
    /// Every partners' box difference, ascending.
    #[serde(skip)]
    pub boxes: Vec<f64>,
    /// Every partners' score difference, ascending.
    #[serde(skip)]
    pub scores: Vec<f64>,
    /// Every partners' difference behind the class, ascending.
    #[serde(skip)]
    pub rest: Vec<f64>,
    /// For each row of the reference how far its partner is: box, score, the rest; none where it has no partner.
    #[serde(skip)]
    pub partners: Vec<Option<[f64; 3]>>,
}

impl Detections {
    /// Sees a tensor as detections, if that is what it holds: scores from 0 to 1, best first, and whole classes.
    pub fn of(tensor: &Tensor) -> Option<Self> {
        let &[_, rows, columns] = tensor.dims() else { return None };
        if !tensor.dtype().is_float() || !(6..=MOST_COLUMNS).contains(&columns) || rows < 1 {
            return None;
        }
        let detections = Self { columns: columns as usize, rows: rows as usize, values: tensor.to_f64s().ok()? };
        let plausible =
            |row: &[f64]| (0.0..=1.0).contains(&row[SCORE]) && row[CLASS] >= 0.0 && row[CLASS].fract() == 0.0;
        let sorted = |rows: Vec<&[f64]>| rows.windows(2).all(|pair| pair[0][SCORE] >= pair[1][SCORE]);
        let right = detections.elements().all(|rows| rows.iter().all(|row| plausible(row)) && sorted(rows));
        (right && !detections.values.is_empty()).then_some(detections)
    }

    /// The same reading of another tensor of these sizes, whatever its values.
    fn alike(&self, tensor: &Tensor) -> Option<Self> {
        let values = tensor.to_f64s().ok()?;
        (values.len() == self.values.len()).then_some(Self { values, ..*self })
    }

    /// Rows of one batch element against other ones, each as many as there are: box, score, class and what is behind it.
    /// Rows that score within `slack` of `cut` may be on one side only.
    pub fn agreement_of(ours: &[Vec<f64>], theirs: &[Vec<f64>], cut: f64, slack: f64) -> Agreement {
        let columns = ours.iter().chain(theirs).map(Vec::len).max().unwrap_or(CLASS + 1);
        let form = Self { columns, rows: 0, values: Vec::new() };
        fn whole(list: &[Vec<f64>], columns: usize) -> Vec<&[f64]> {
            list.iter().map(Vec::as_slice).filter(|row| row.len() == columns && columns > CLASS).collect()
        }
        form.agreement(&whole(ours, columns), &whole(theirs, columns), Some(cut), slack)
    }

    fn elements(&self) -> impl Iterator<Item = Vec<&[f64]>> {
        self.values.chunks_exact(self.rows * self.columns).map(|element| element.chunks_exact(self.columns).collect())
    }

    /// How far apart two boxes may be and still be of one thing: half of the larger one's size.
    fn reach(&self, row: &[f64]) -> f64 {
        let (width, height) = match self.columns {
            7 => (row[2], row[3]), // centre, size, score, class, angle
            _ => (row[2] - row[0], row[3] - row[1]),
        };
        0.5 * width.abs().max(height.abs()).max(2.0)
    }

    /// A box's two corners; an oriented one's before it is turned.
    fn corners(&self, row: &[f64]) -> [f64; 4] {
        match self.columns {
            7 => [row[0] - row[2] / 2.0, row[1] - row[3] / 2.0, row[0] + row[2] / 2.0, row[1] + row[3] / 2.0],
            _ => [row[0], row[1], row[2], row[3]],
        }
    }

    /// Compares with another tensor, batch element by batch element. Rows within `slack` of the other side's lowest
    /// score count as at the cut-off.
    pub fn compare(&self, other: &Tensor, slack: f64) -> Option<Vec<Agreement>> {
        let other = self.alike(other)?;
        Some(
            self.elements()
                .zip(other.elements())
                .map(|(ours, theirs)| self.agreement(&ours, &theirs, None, slack))
                .collect(),
        )
    }

    /// `cut` is the score below which nothing is listed; the lowest of the other side where it is not known.
    fn agreement(&self, ours: &[&[f64]], theirs: &[&[f64]], cut: Option<f64>, slack: f64) -> Agreement {
        let mut found = Agreement { count: ours.len(), worst_iou: 1.0, ..Default::default() };
        let distance = |a: &[f64], b: &[f64]| largest(&a[..SCORE], &b[..SCORE]);
        let mut pairs: Vec<(f64, usize, usize)> = Vec::new();
        for (i, a) in ours.iter().enumerate() {
            let reach = self.reach(a);
            for (j, b) in theirs.iter().enumerate().filter(|(_, b)| (b[CLASS] - a[CLASS]).abs() < SAME_CLASS) {
                let apart = distance(a, b);
                if apart <= reach.max(self.reach(b)) {
                    pairs.push((apart, i, j));
                }
            }
        }
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        found.partners = vec![None; ours.len()];
        let scales = scales(ours);
        let (mut taken, mut given) = (vec![false; ours.len()], vec![false; theirs.len()]);
        for (apart, i, j) in pairs {
            if taken[i] || given[j] {
                continue;
            }
            (taken[i], given[j]) = (true, true);
            let score = (ours[i][SCORE] - theirs[j][SCORE]).abs();
            let rest = largest_of(&ours[i][CLASS + 1..], &theirs[j][CLASS + 1..], &scales);
            found.worst_iou = found.worst_iou.min(iou(self.corners(ours[i]), self.corners(theirs[j])));
            found.boxes.push(apart);
            found.scores.push(score);
            found.rest.push(rest);
            found.partners[i] = Some([apart, score, rest]);
        }
        found.agree = found.boxes.len();
        let lowest =
            |rows: &[&[f64]]| cut.unwrap_or_else(|| rows.iter().map(|row| row[SCORE]).fold(f64::INFINITY, f64::min));
        let mut count = |rows: &[&[f64]], partnered: &[bool], cut: f64| {
            for (row, _) in rows.iter().zip(partnered).filter(|(_, partnered)| !**partnered) {
                // A NaN score is above every cut-off.
                if row[SCORE] <= cut + slack { found.at_cut += 1 } else { found.lost += 1 }
            }
        };
        count(ours, &taken, lowest(theirs));
        count(theirs, &given, lowest(ours));
        for list in [&mut found.boxes, &mut found.scores, &mut found.rest] {
            list.sort_by(f64::total_cmp);
        }
        let last = |list: &[f64]| list.last().copied().unwrap_or(0.0);
        (found.worst_box, found.worst_score) = (last(&found.boxes), last(&found.scores));
        found.worst_rest = last(&found.rest);
        found
    }
}

/// Intersection over union; boxes without area that are the same agree.
fn iou(a: [f64; 4], b: [f64; 4]) -> f64 {
    let area = |x: [f64; 4]| (x[2] - x[0]).max(0.0) * (x[3] - x[1]).max(0.0);
    let both = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let any = area(a) + area(b) - both;
    if a == b || any <= 0.0 { (a == b) as u8 as f64 } else { both / any }
}

fn largest(a: &[f64], b: &[f64]) -> f64 {
    // `max` would drop a NaN; here it is the largest difference there is.
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |most, x| if x.is_nan() || x > most { x } else { most })
}

/// The largest value in each column behind the class, at least 1: what is smaller is a probability, and one that is nowhere
/// near 1 is not to be told by its last digits.
fn scales(rows: &[&[f64]]) -> Vec<f64> {
    let columns = rows.first().map_or(0, |row| row.len());
    let scale = |column: usize| rows.iter().map(|row| row[column].abs()).filter(|x| x.is_finite()).fold(1.0, f64::max);
    (CLASS + 1..columns).map(scale).collect()
}

/// As [`largest`], each difference over its column's scale.
fn largest_of(a: &[f64], b: &[f64], scales: &[f64]) -> f64 {
    let over = |values: &[f64]| values.iter().zip(scales).map(|(x, scale)| x / scale).collect::<Vec<f64>>();
    largest(&over(a), &over(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(list: &[[f32; 6]]) -> Tensor {
        Tensor::from_f32("d", &[1, list.len() as i64, 6], &list.concat())
    }

    const A: [f32; 6] = [10.0, 10.0, 50.0, 50.0, 0.9, 1.0];
    const B: [f32; 6] = [100.0, 10.0, 150.0, 50.0, 0.8, 2.0];
    const C: [f32; 6] = [200.0, 10.0, 250.0, 50.0, 0.5, 2.0];

    #[test]
    fn order_does_not_matter() {
        let (mut a, mut b) = (A, B);
        (a[4], b[4]) = (0.79, 0.81);
        let found = &Detections::of(&rows(&[A, B, C])).unwrap().compare(&rows(&[b, a, C]), 0.0).unwrap()[0];
        assert_eq!((found.agree, found.lost, found.at_cut, found.worst_box), (3, 0, 0, 0.0));
        assert!((found.worst_score - 0.11).abs() < 1e-6);
    }

    #[test]
    fn a_row_crowded_out_at_the_cut_is_no_loss_and_one_above_it_is() {
        let reference = Detections::of(&rows(&[A, B, C])).unwrap();
        let other = [300.0, 10.0, 350.0, 50.0, 0.5, 7.0];
        let found = &reference.compare(&rows(&[A, B, other]), 0.0).unwrap()[0];
        assert_eq!((found.agree, found.at_cut, found.lost), (2, 2, 0));
        let found = &reference.compare(&rows(&[A, C, other]), 0.0).unwrap()[0];
        assert_eq!((found.agree, found.at_cut, found.lost), (2, 1, 1), "B is lost: it stood well above the cut");
    }

    #[test]
    fn saturated_scores_are_all_at_the_cut() {
        let tied = |x: f32| [x, 0.0, x + 20.0, 20.0, 1.0, 0.0];
        let reference = Detections::of(&rows(&[tied(0.0), tied(100.0)])).unwrap();
        let found = &reference.compare(&rows(&[tied(100.0), tied(200.0)]), 0.0).unwrap()[0];
        assert_eq!((found.agree, found.at_cut, found.lost), (1, 2, 0));
    }

    #[test]
    fn other_tensors_are_not_taken_for_detections() {
        assert!(Detections::of(&rows(&[C, A, B])).is_none(), "not sorted");
        let mut odd = A;
        odd[5] = 1.5;
        assert!(Detections::of(&rows(&[odd])).is_none(), "no such class");
        assert!(Detections::of(&Tensor::from_f32("d", &[1, 4, 400], &[0.0; 1600])).is_none(), "no table of rows");
    }
}
