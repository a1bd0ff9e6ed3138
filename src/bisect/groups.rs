//! Faults that are alike, told once: the same operators, the same kind, code and shape of error.
//!
//! A real engine that rounds an operator otherwise does so wherever the operator stands. Fifty entries that differ in a name
//! hide what matters; the machine's report lists every fault, the reader's tells such a group by its worst member.

use super::report::Fault;

/// Fewer than these are told one by one.
const LEAST: usize = 4;

/// Faults that are told together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The one that shows it best: the furthest off, over what noise explains.
    pub example: usize,
    /// All of them, in the report's order.
    pub members: Vec<usize>,
}

/// The faults by index, those that are alike together, in the order of each group's first.
pub fn groups(faults: &[Fault]) -> Vec<Group> {
    let apart = |set: Vec<usize>| match set.len() < LEAST {
        true => set.into_iter().map(|index| vec![index]).collect(),
        false => vec![set],
    };
    let mut sets: Vec<Vec<usize>> = sets(faults).into_iter().flat_map(apart).collect();
    sets.sort_by_key(|set| set[0]);
    // The first of those that are equally far off.
    let example =
        |set: &[usize]| set.iter().rev().copied().max_by(|&a, &b| strain(&faults[a]).total_cmp(&strain(&faults[b])));
    sets.into_iter().map(|members| Group { example: example(&members).unwrap_or(members[0]), members }).collect()
}

/// How many faults there are that are not alike.
pub fn kinds(faults: &[Fault]) -> usize {
    sets(faults).len()
}

/// Those that are alike together, by index.
fn sets(faults: &[Fault]) -> Vec<Vec<usize>> {
    let mut sets: Vec<Vec<usize>> = Vec::new();
    for (index, fault) in faults.iter().enumerate() {
        match sets.iter_mut().find(|set| alike(&faults[set[0]], fault)) {
            Some(set) => set.push(index),
            None => sets.push(vec![index]),
        }
    }
    sets
}

/// What the reader learns from both is the same.
fn alike(a: &Fault, b: &Fault) -> bool {
    let told = |fault: &Fault| (fault.kind, fault.fingerprint, fault.fused, fault.vanishes_when_observed);
    a.operators == b.operators && told(a) == told(b) && a.code == b.code && a.quirk == b.quirk && a.rewrite == b.rewrite
}

/// How far off a fault is, over what noise explains; 0 where nothing was measured.
fn strain(fault: &Fault) -> f64 {
    fault.metrics.as_ref().map_or(0.0, |metrics| metrics.max_abs / metrics.expected.max(f64::MIN_POSITIVE))
}

/// The least and the most that members of a group are off by; none where nothing was measured.
pub fn span(group: &Group, faults: &[Fault]) -> Option<(f64, f64)> {
    let off = group.members.iter().filter_map(|&index| Some(faults[index].metrics.as_ref()?.max_abs));
    off.fold(None, |span, x| Some(span.map_or((x, x), |(least, most): (f64, f64)| (least.min(x), most.max(x)))))
}

#[cfg(test)]
mod tests {
    use super::super::report::{FaultMetrics, Kind};
    use super::*;

    fn fault(name: &str, operator: &str, max_abs: f64) -> Fault {
        Fault {
            nodes: vec![name.into()],
            operators: vec![operator.into()],
            layer: String::new(),
            kind: Kind::WrongValues,
            code: None,
            fingerprint: None,
            confirmed: true,
            metrics: Some(FaultMetrics { cosine: 1.0, worst_cosine: 1.0, max_abs, expected: 1e-6 }),
            batch_elements: Vec::new(),
            batches: Vec::new(),
            outputs: Vec::new(),
            quirk: None,
            rewrite: None,
            repro: None,
            fused: false,
            vanishes_when_observed: false,
            from_exact: None,
            reason: String::new(),
        }
    }

    #[test]
    fn four_alike_are_told_together_by_the_worst() {
        let mut faults: Vec<Fault> =
            (0..5).map(|i| fault(&format!("c{i}"), "Conv", [1.0, 2.0, 9.0, 3.0, 4.0][i])).collect();
        faults.insert(1, fault("s", "Split", 5.0));
        let all = groups(&faults);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0], Group { example: 3, members: vec![0, 2, 3, 4, 5] });
        assert_eq!(all[1], Group { example: 1, members: vec![1] });
        assert_eq!(span(&all[0], &faults), Some((1.0, 9.0)));
    }

    #[test]
    fn three_are_told_one_by_one_in_the_models_order() {
        let faults =
            vec![fault("a", "Conv", 1.0), fault("s", "Split", 1.0), fault("b", "Conv", 2.0), fault("c", "Conv", 1.0)];
        let members: Vec<Vec<usize>> = groups(&faults).into_iter().map(|group| group.members).collect();
        assert_eq!(members, [[0], [1], [2], [3]]);
        assert_eq!(kinds(&faults), 2);
    }
}
