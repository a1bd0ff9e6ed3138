//! Shapes that the right tensor alone predicts.

use super::{Shape, View};

/// Every shape that explains all that is wrong in all views; views by run, then by output.
pub(super) fn matching(views: &[Vec<View>]) -> Vec<Shape> {
    let all: Vec<&View> = views.iter().flatten().filter(|view| !view.deviating.is_empty()).collect();
    if all.is_empty() {
        return Vec::new();
    }
    let every = |holds: &dyn Fn(&View) -> bool| all.iter().all(|view| holds(view));
    let mut found = Vec::new();
    if every(&is_zeroed) {
        return vec![Shape::Zeroed];
    }
    if every(&is_broadcast) {
        found.push(Shape::BatchBroadcast);
    }
    if some_way(&all, &transpositions, &transposed) {
        found.push(Shape::Transposed);
    }
    if is_shifted(&all) {
        found.push(Shape::Shifted);
    }
    if is_permuted(&all) {
        found.push(Shape::ChannelsPermuted);
    }
    if is_scaled(&all) {
        found.push(Shape::Scaled);
    }
    if every(&is_saturated) {
        found.push(Shape::Saturated);
    }
    if every(&|view| is_rounded(view, Narrow::Bfloat)) || every(&|view| is_rounded(view, Narrow::Half)) {
        found.push(Shape::Rounded);
    }
    found
}

/// From the second run on, what the run before should have given, and that was something else. None where it is not so; else
/// how many elements say so.
pub(super) fn stale(views: &[Vec<View>]) -> Option<usize> {
    let mut proved = 0;
    for pair in views.windows(2) {
        for (before, now) in pair[0].iter().zip(&pair[1]) {
            if before.right.len() != now.wrong.len() {
                return None;
            }
            if now.deviating.is_empty() {
                continue;
            }
            if !now.holds(&before.right) {
                return None;
            }
            proved += now.weight();
        }
    }
    // One tensor that happens to fit is not enough, unless there is no other.
    (proved > 0 && views.len() > 2).then_some(proved)
}

fn is_zeroed(view: &View) -> bool {
    view.deviating.iter().all(|&slice| view.slice(&view.wrong, slice).iter().all(|&x| x == 0.0))
}

fn is_broadcast(view: &View) -> bool {
    let batch = view.dims.first().copied().unwrap_or(1);
    if batch < 2 || view.right.is_empty() {
        return false;
    }
    let element = view.right.len() / batch;
    let predicted: Vec<f64> = (0..view.right.len()).map(|i| view.right[i % element]).collect();
    view.holds(&predicted)
}

/// One way that holds for every view.
fn some_way<W: Clone + PartialEq>(
    all: &[&View],
    ways: &dyn Fn(&View) -> Vec<W>,
    predict: &dyn Fn(&View, &W) -> Vec<f64>,
) -> bool {
    let Some(first) = all.first() else { return false };
    let fits = |view: &View, way: &W| ways(view).contains(way) && view.holds(&predict(view, way));
    ways(first).iter().any(|way| all.iter().all(|view| fits(view, way)))
}

fn transpositions(view: &View) -> Vec<(usize, usize)> {
    let rank = view.dims.len();
    let pairs = (0..rank).flat_map(|a| (a + 1..rank).map(move |b| (a, b)));
    pairs.filter(|&(a, b)| view.dims[a] > 1 && view.dims[b] > 1).take(10).collect()
}

/// The right tensor with two axes exchanged, laid out in the sizes it had.
fn transposed(view: &View, &(a, b): &(usize, usize)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..view.dims.len()).collect();
    order.swap(a, b);
    permuted(&view.right, &view.dims, &order)
}

/// Values with their axes in another order.
pub(super) fn permuted(values: &[f64], dims: &[usize], order: &[usize]) -> Vec<f64> {
    let mut strides = vec![1; dims.len()];
    for axis in (0..dims.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * dims[axis + 1];
    }
    let sizes: Vec<usize> = order.iter().map(|&axis| dims[axis]).collect();
    let steps: Vec<usize> = order.iter().map(|&axis| strides[axis]).collect();
    let mut index = vec![0; dims.len()];
    let mut out = Vec::with_capacity(values.len());
    let mut at = 0;
    for _ in 0..values.len() {
        out.push(values[at]);
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            at += steps[axis];
            if index[axis] < sizes[axis] {
                break;
            }
            at -= steps[axis] * sizes[axis];
            index[axis] = 0;
        }
    }
    out
}

/// One place along one axis, one way; what comes in at the edge may be anything.
fn is_shifted(all: &[&View]) -> bool {
    let rank = all[0].dims.len();
    let fits = |view: &View, axis: usize, forward: bool| {
        if view.dims.len() != rank || view.dims[axis] < 2 {
            return false;
        }
        // Two or three channels that take each other's places are channels in another order.
        if axis == 1 && rank > 2 && view.dims[axis] <= 3 {
            return false;
        }
        let inner: usize = view.dims[axis + 1..].iter().product();
        let size = view.dims[axis];
        let mut moved = 0;
        for &slice in &view.deviating {
            for i in slice * view.run..(slice + 1) * view.run {
                let at = i / inner % size;
                let from = match forward {
                    true if at == 0 => continue,
                    true => i - inner,
                    false if at + 1 == size => continue,
                    false => i + inner,
                };
                if !view.near(view.right[from], view.wrong[i]) {
                    return false;
                }
                moved += !view.near(view.right[i], view.wrong[i]) as usize;
            }
        }
        moved >= 4
    };
    // Along the batch that would be a copy of the first element, which has a name of its own.
    let ways = (usize::from(rank > 1)..rank).flat_map(|axis| [(axis, true), (axis, false)]);
    ways.into_iter().any(|(axis, forward)| all.iter().all(|view| fits(view, axis, forward)))
}

/// Whether the slices along an axis after the first stand in another order, the same in every view and batch element.
fn is_permuted(all: &[&View]) -> bool {
    let rank = all[0].dims.len();
    let fits = |axis: usize| {
        let mut known: Option<Vec<usize>> = None;
        for view in all {
            if view.dims.len() != rank {
                return false;
            }
            let size = view.dims[axis];
            if !(2..=4096).contains(&size) {
                return false;
            }
            // The axis first, so that a slice lies together.
            let mut order: Vec<usize> = (0..rank).collect();
            order.remove(axis);
            order.insert(0, axis);
            let (right, wrong) = (permuted(&view.right, &view.dims, &order), permuted(&view.wrong, &view.dims, &order));
            let Some(map) = mapping(view, &right, &wrong, size) else { return false };
            if known.as_ref().is_some_and(|known| *known != map) {
                return false;
            }
            known = Some(map);
        }
        known.is_some()
    };
    (0..rank).any(|axis| (axis > 0 || rank == 1) && fits(axis))
}

/// Which right slice each wrong one is: a permutation that is not the identity, and the only one.
fn mapping(view: &View, right: &[f64], wrong: &[f64], size: usize) -> Option<Vec<usize>> {
    let run = right.len() / size;
    if run < 2 {
        return None;
    }
    // Only parts of the slices may be wrong (one batch element): all of the others are where they belong.
    let part = |values: &[f64], index: usize| values[index * run..(index + 1) * run].to_vec();
    let mut map = Vec::with_capacity(size);
    for to in 0..size {
        let target = part(wrong, to);
        let alike = |from: &usize| part(right, *from).iter().zip(&target).all(|(a, b)| view.near(*a, *b));
        let own = alike(&to).then_some(to);
        let mut fitting = (0..size).filter(alike);
        let first = fitting.next()?;
        if fitting.next().is_some() && own.is_none() {
            return None; // two slices are the same: nobody can tell
        }
        map.push(own.unwrap_or(first));
    }
    let mut seen = vec![false; size];
    map.iter().for_each(|&from| seen[from] = true);
    let identity = map.iter().enumerate().all(|(to, &from)| to == from);
    (!identity && seen.iter().all(|&seen| seen)).then_some(map)
}

/// One factor for everything that is wrong.
fn is_scaled(all: &[&View]) -> bool {
    let values = |view: &View| -> Vec<(f64, f64)> {
        let slices = view.deviating.iter();
        slices
            .flat_map(|&slice| {
                let (a, b) = (view.slice(&view.right, slice).to_vec(), view.slice(&view.wrong, slice).to_vec());
                a.into_iter().zip(b).collect::<Vec<_>>()
            })
            .collect()
    };
    let (mut dot, mut square, mut distinct) = (0.0, 0.0, std::collections::BTreeSet::new());
    for (right, wrong) in all.iter().flat_map(|view| values(view)) {
        dot += right * wrong;
        square += right * right;
        if distinct.len() < 16 {
            distinct.insert(right.to_bits());
        }
    }
    let factor = dot / square;
    if !factor.is_finite() || (factor - 1.0).abs() < 1e-5 || factor.abs() < 1e-6 || distinct.len() < 8 {
        return false;
    }
    all.iter().all(|view| {
        // Held against the value itself where that is sharper: a small factor hides in the tolerance of a large tensor.
        let tolerance = view.tolerance.min(0.05 * (factor - 1.0).abs() * 2.0 * view.tolerance / 3e-6);
        values(view).iter().all(|(right, wrong)| (factor * right - wrong).abs() <= tolerance + 2e-6 * wrong.abs())
    })
}

/// Everything beyond two bounds is the bound, and everything within is right.
fn is_saturated(view: &View) -> bool {
    let mut low = f64::INFINITY;
    let mut high = f64::NEG_INFINITY;
    for &slice in &view.deviating {
        for &x in view.slice(&view.wrong, slice) {
            low = low.min(x);
            high = high.max(x);
        }
    }
    if low >= high {
        return false;
    }
    let (mut inside, mut beyond) = (0, 0);
    for &slice in &view.deviating {
        for (&right, &wrong) in view.slice(&view.right, slice).iter().zip(view.slice(&view.wrong, slice)) {
            if !view.near(right.clamp(low, high), wrong) {
                return false;
            }
            let out = !view.near(right, wrong);
            beyond += out as usize;
            inside += (!out && right != 0.0) as usize;
        }
    }
    beyond >= 1 && inside >= 4
}

#[derive(Clone, Copy)]
enum Narrow {
    Bfloat,
    Half,
}

/// Every wrong value is one of the narrower type, next to the right one.
fn is_rounded(view: &View, narrow: Narrow) -> bool {
    let (mut own, mut others, mut moved) = (0, 0, 0);
    for &slice in &view.deviating {
        for (&right, &wrong) in view.slice(&view.right, slice).iter().zip(view.slice(&view.wrong, slice)) {
            let x = wrong as f32;
            let (nearest, digits, least) = match narrow {
                Narrow::Bfloat => (half::bf16::from_f32(x).to_f32(), 2f64.powi(-7), 1e-38),
                Narrow::Half => (half::f16::from_f32(x).to_f32(), 2f64.powi(-10), 6.2e-8),
            };
            let representable = nearest == x;
            if !representable || (right - wrong).abs() > digits * right.abs() * 1.001 + least + 1e-7 * right.abs() {
                return false;
            }
            let right = right as f32;
            let was = match narrow {
                Narrow::Bfloat => half::bf16::from_f32(right).to_f32() == right,
                Narrow::Half => half::f16::from_f32(right).to_f32() == right,
            };
            if was {
                own += 1
            } else {
                others += 1
            }
            moved += (right as f64 != wrong) as usize;
        }
    }
    others > own / 50 && others >= 8 && moved >= 8
}
