//! The best classes of a classifier.

use serde::Serialize;

/// A class with its share.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ranked {
    /// The class.
    pub class: usize,
    /// Its probability.
    pub score: f32,
}

/// The `count` best of a row of scores, best first. Scores that are no probabilities are taken for logits.
pub fn best(scores: &[f32], count: usize) -> Vec<Ranked> {
    let mut order: Vec<usize> = (0..scores.len()).filter(|&class| !scores[class].is_nan()).collect();
    let known = || order.iter().map(|&class| scores[class]);
    let probabilities =
        (known().sum::<f32>() - 1.0).abs() < 0.02 && known().all(|score| (-1e-6..=1.001).contains(&score));
    let most = known().fold(f32::NEG_INFINITY, f32::max);
    // The largest stands for 1 even where it is infinite.
    let weight = |score: f32| if score == most { 1.0 } else { (score - most).exp() };
    let total: f32 = known().map(weight).sum();
    let share = |score: f32| if probabilities { score } else { weight(score) / total };
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.into_iter().take(count).map(|class| Ranked { class, score: share(scores[class]) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_stay_and_logits_become_some() {
        let ranked = best(&[0.1, 0.7, 0.2], 2);
        assert_eq!(ranked.iter().map(|r| r.class).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(ranked[0].score, 0.7);
        let ranked = best(&[1.0, 3.0, f32::NAN, 2.0], 9);
        assert_eq!(ranked.iter().map(|r| r.class).collect::<Vec<_>>(), [1, 3, 0]);
        assert!((ranked.iter().map(|r| r.score).sum::<f32>() - 1.0).abs() < 1e-6, "NaN has no share");
        assert_eq!(best(&[f32::INFINITY, 1.0], 1)[0].score, 1.0);
        let ranked = best(&[0.0, 2f32.ln()], 1);
        assert!((ranked[0].score - 2.0 / 3.0).abs() < 1e-6);
        assert!(best(&[], 5).is_empty());
    }
}
