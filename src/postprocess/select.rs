//! The best scores of a raw tensor, `[classes, anchors]`, in little more than one pass over it.

/// Scores whose largest is taken together.
const BLOCK: usize = 512;
/// Scores of a block that are compared side by side, so that loops vectorise. Every so many of them make a lane.
const LANES: usize = 16;

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
    /// A number that orders picks: best first; among equals the first anchor, and its first class.
    fn place(&self) -> (u64, u32) {
        (u64::from(!rising(self.score)) << 32 | u64::from(self.anchor), self.class)
    }
}

/// The number's bits as a whole number that grows as the number does: comparing those takes no branch.
fn rising(score: f32) -> u32 {
    let bits = score.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// The `count` best of `scores`, `anchors` in a row and a row for each class, best first; only those above `floor`.
/// NaN is above nothing. An anchor is picked once for every class with which it is among the best.
///
/// The largest of each lane of each block of scores is found in one pass. Of the blocks' largest, the one at place `count`
/// is a bound: so many scores at least are as large. Only the lanes that reach it are looked into.
pub fn top_k(scores: &[f32], anchors: usize, count: usize, floor: f32) -> Vec<Pick> {
    if anchors == 0 || count == 0 {
        return Vec::new();
    }
    let (blocks, rest) = scores.as_chunks::<BLOCK>();
    let mut last = [f32::NEG_INFINITY; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    let blocks = || blocks.iter().chain((!rest.is_empty()).then_some(&last));
    let lanes: Vec<[f32; LANES]> = blocks().map(highest).collect();
    let largest: Vec<f32> = lanes.iter().map(highest_of).collect();
    let mut bound = f32::NEG_INFINITY;
    if largest.len() > count {
        let mut order: Vec<u32> = largest.iter().map(|&score| !rising(score)).collect();
        let (_, &mut at, _) = order.select_nth_unstable(count - 1);
        bound = largest.iter().copied().find(|&score| !rising(score) == at).unwrap_or(bound);
    }
    let mut picks: Vec<Pick> = Vec::with_capacity(4 * count.min(scores.len()));
    // Scores at the bound itself may be any number: the list is cut to the best of them whenever it has grown enough.
    let most = picks.capacity().max(LANES);
    let reaches = |score: f32| score >= bound && score > floor;
    for (index, block) in blocks().enumerate().filter(|(index, _)| reaches(largest[*index])) {
        for lane in (0..LANES).filter(|&lane| reaches(lanes[index][lane])) {
            for (step, group) in block.as_chunks::<LANES>().0.iter().enumerate() {
                let score = group[lane];
                if reaches(score) {
                    let (class, anchor) = row_and_column(index * BLOCK + step * LANES + lane, anchors);
                    picks.push(Pick { score, class, anchor });
                    if picks.len() == most {
                        picks.select_nth_unstable_by_key(count - 1, Pick::place);
                        picks.truncate(count);
                    }
                }
            }
        }
    }
    best_first(&mut picks, count);
    picks
}

/// Where a place lies in rows of so many.
fn row_and_column(place: usize, columns: usize) -> (u32, u32) {
    match (u32::try_from(place), u32::try_from(columns)) {
        (Ok(place), Ok(columns)) => (place / columns, place % columns), // several times faster than with 64 bits
        _ => ((place / columns) as u32, (place % columns) as u32),
    }
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
    // Of a few more than are wanted, sorting all is the least work.
    if picks.len() / 2 > most && most > 0 {
        picks.select_nth_unstable_by_key(most - 1, Pick::place);
        picks.truncate(most);
    }
    picks.sort_unstable_by_key(Pick::place);
    picks.truncate(most);
}

/// The largest of each lane, NaN aside.
fn highest(block: &[f32; BLOCK]) -> [f32; LANES] {
    let mut most = [f32::NEG_INFINITY; LANES];
    for group in block.as_chunks::<LANES>().0 {
        for (most, &value) in most.iter_mut().zip(group) {
            *most = larger(*most, value);
        }
    }
    most
}

/// The largest of a block, from its lanes.
fn highest_of(lanes: &[f32; LANES]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|lane| larger(lanes[lane], lanes[lane + 8]));
    let four: [f32; 4] = std::array::from_fn(|lane| larger(eight[lane], eight[lane + 4]));
    larger(larger(four[0], four[1]), larger(four[2], four[3]))
}

/// The larger of two, NaN aside if it comes second.
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
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
    fn equal_scores_are_as_many_as_asked_for() {
        let picks = top_k(&[1.0; 84_000], 8400, 300, f32::NEG_INFINITY);
        // The first anchors, each with all its classes.
        let right: Vec<(u32, u32)> = (0..30).flat_map(|anchor| (0..10).map(move |class| (anchor, class))).collect();
        assert_eq!(picks.iter().map(|pick| (pick.anchor, pick.class)).collect::<Vec<_>>(), right);
        let mut two = [0.0; 1024]; // two classes of 512 anchors
        (two[300], two[512]) = (1.0, 1.0);
        let first = top_k(&two, 512, 1, 0.5)[0];
        assert_eq!((first.class, first.anchor), (1, 0), "the first anchor, whatever its class");
        let negative: Vec<f32> = (0..84_000).map(|i| -1.0 - i as f32).collect();
        assert_eq!(top_k(&negative, 8400, 2, f32::NEG_INFINITY).iter().map(|p| p.anchor).collect::<Vec<_>>(), [0, 1]);
        assert!(top_k(&[f32::NAN; 84_000], 8400, 300, f32::NEG_INFINITY).is_empty());
    }

    #[test]
    fn rising_scores_do_not_grow_the_list() {
        let rising: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
        let picks = top_k(&rising, 1000, 300, f32::NEG_INFINITY);
        assert_eq!((picks[0].score, picks[299].score), (99_999.0, 99_700.0));
    }
}
