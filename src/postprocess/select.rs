//! The best scores of a raw tensor, `[classes, anchors]`, in little more than one pass over it.

use std::cmp::Ordering;

/// Scores looked at together: one comparison tells whether any of them counts.
const BLOCK: usize = 64;

/// A score that was picked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pick {
    /// The score.
    pub score: f32,
    /// The class: the row.
    pub class: u32,
    /// The anchor: the column.
    pub anchor: u32,
}

impl Pick {
    /// Best first; among equals the first anchor, and its first class.
    fn order(&self, other: &Self) -> Ordering {
        let scores = other.score.total_cmp(&self.score);
        scores.then(self.anchor.cmp(&other.anchor)).then(self.class.cmp(&other.class))
    }
}

/// The `count` best of `scores`, `anchors` in a row and a row for each class, best first; only those above `floor`.
/// NaN is above nothing. An anchor is picked once for every class with which it is among the best.
pub fn top_k(scores: &[f32], anchors: usize, count: usize, floor: f32) -> Vec<Pick> {
    if anchors == 0 || count == 0 {
        return Vec::new();
    }
    let full = 2 * count + BLOCK;
    let mut picks: Vec<Pick> = Vec::with_capacity(full + BLOCK);
    let mut above = floor;
    for (class, row) in scores.chunks_exact(anchors).enumerate() {
        for (block, values) in row.chunks(BLOCK).enumerate() {
            if highest(values) <= above {
                continue;
            }
            for (i, &score) in values.iter().enumerate() {
                if score > above {
                    picks.push(Pick { score, class: class as u32, anchor: (block * BLOCK + i) as u32 });
                }
            }
            if picks.len() >= full {
                picks.select_nth_unstable_by(count - 1, Pick::order);
                picks.truncate(count);
                above = picks[count - 1].score;
            }
        }
    }
    picks.sort_unstable_by(Pick::order);
    picks.truncate(count);
    picks
}

/// The best class of each anchor, where it scores above `floor`, in the order of anchors.
pub fn best_classes(scores: &[f32], anchors: usize, floor: f32) -> Vec<Pick> {
    if anchors == 0 {
        return Vec::new();
    }
    let mut best = vec![f32::NEG_INFINITY; anchors];
    for row in scores.chunks_exact(anchors) {
        for (best, &score) in best.iter_mut().zip(row) {
            *best = if score > *best { score } else { *best };
        }
    }
    let classes = scores.len() / anchors;
    let class_of = |anchor: usize, score: f32| (0..classes).find(|class| scores[class * anchors + anchor] == score);
    let picked = best.iter().enumerate().filter(|(_, score)| **score > floor).filter_map(|(anchor, &score)| {
        Some(Pick { score, class: class_of(anchor, score)? as u32, anchor: anchor as u32 })
    });
    picked.collect()
}

/// Sorts picks best first and keeps at most `most`.
pub fn best_first(picks: &mut Vec<Pick>, most: usize) {
    if picks.len() > most && most > 0 {
        picks.select_nth_unstable_by(most - 1, Pick::order);
    }
    picks.truncate(most);
    picks.sort_unstable_by(Pick::order);
}

/// The largest value, NaN aside; eight running maxima, so that the loop vectorises.
fn highest(values: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (groups, rest) = values.as_chunks::<LANES>();
    let mut most = [f32::NEG_INFINITY; LANES];
    for group in groups {
        for (most, &value) in most.iter_mut().zip(group) {
            *most = if value > *most { value } else { *most };
        }
    }
    let pick = |most: f32, &value: &f32| if value > most { value } else { most };
    rest.iter().fold(most.iter().fold(f32::NEG_INFINITY, pick), pick)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores without order, many of them equal.
    fn scores(count: usize, steps: u32) -> Vec<f32> {
        let mut state = 12345u32;
        let mut next = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 8) % steps
        };
        (0..count).map(|_| next() as f32 / steps as f32).collect()
    }

    #[test]
    fn the_best_are_those_that_sorting_gives() {
        for (anchors, classes, steps) in [(100, 3, 1 << 20), (8400, 80, 1 << 24), (77, 5, 1 << 24), (1, 9, 1 << 20)] {
            let scores = scores(anchors * classes, steps);
            let mut all: Vec<f32> = scores.clone();
            all.sort_by(|a, b| b.total_cmp(a));
            for count in [1, 10, 300, 100_000] {
                let picks = top_k(&scores, anchors, count, f32::NEG_INFINITY);
                let got: Vec<f32> = picks.iter().map(|pick| pick.score).collect();
                assert_eq!(got, all[..count.min(all.len())], "{anchors} {classes} {count}");
                let right = |pick: &Pick| scores[pick.class as usize * anchors + pick.anchor as usize] == pick.score;
                assert!(picks.iter().all(right));
            }
        }
    }

    #[test]
    fn a_floor_and_nan_leave_out() {
        let scores = [0.1, f32::NAN, 0.9, 0.5, f32::NAN, 0.2];
        let picks = top_k(&scores, 3, 10, 0.2);
        assert_eq!(picks.iter().map(|p| (p.score, p.class, p.anchor)).collect::<Vec<_>>(), [(0.9, 0, 2), (0.5, 1, 0)]);
        let best = best_classes(&scores, 3, 0.15);
        assert_eq!(best.iter().map(|p| (p.score, p.class, p.anchor)).collect::<Vec<_>>(), [(0.5, 1, 0), (0.9, 0, 2)]);
        assert!(top_k(&[], 0, 5, 0.0).is_empty() && best_classes(&[], 0, 0.0).is_empty());
    }

    #[test]
    fn rising_scores_do_not_grow_the_list() {
        let rising: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
        let picks = top_k(&rising, 1000, 300, f32::NEG_INFINITY);
        assert_eq!((picks[0].score, picks[299].score), (99_999.0, 99_700.0));
    }
}
