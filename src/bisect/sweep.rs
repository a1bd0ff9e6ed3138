//! Where a fault lives: a small model tried over batch and sizes, its border found with few probes.
//!
//! The area, cut where the model's own sizes lie, is halved as long as the corners of a piece do not agree, each time along a size that the border crosses. What was tried is then said as a predicate, as a quirk's `where` takes it: one comparison, or two that must
//! both hold, that tells every point apart.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Suspect, judge};
use crate::engine::{Engine, Tensors, samples};
use crate::graph::{Dim, Model, shapes};

/// One size that is varied.
#[derive(Clone, Debug, Serialize)]
pub struct Axis {
    /// `batch`, `C`, `H` or `W`; for inputs of other ranks the number of the axis.
    pub name: String,
    /// The axis of every input.
    pub axis: usize,
    /// The first size.
    pub from: i64,
    /// The last size.
    pub to: i64,
}

/// What happened at a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Point {
    /// The target agrees with the reference.
    Right,
    /// It does not.
    Wrong(String),
    /// The model cannot take these sizes.
    Impossible,
}

/// The map.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    /// What was varied.
    pub axes: Vec<Axis>,
    /// Every point that was tried, by its sizes.
    pub points: Vec<(Vec<i64>, Point)>,
    /// Where the fault is, as a predicate over the first input; none where nothing simple tells the points apart.
    pub predicate: Option<String>,
    /// Other predicates of the same length that fit as well, over other sizes: more axes would tell them apart.
    pub alternatives: Vec<String>,
    /// Compiles on the target.
    pub probes: usize,
    /// The map, drawn: one row for each size of the first axis, `#` wrong, `.` right, `x` impossible, what was not tried in
    /// the same letters but small: `+` wrong, `,` right by what surrounds it.
    pub drawn: Vec<String>,
}

/// Tries sizes until the border is known. `shown` are inputs that showed the fault, at the model's own sizes.
pub fn sweep(
    model: &Model,
    axes: &[Axis],
    shown: &[Tensors],
    reference: &dyn Engine,
    suspect: &Suspect,
    step: &dyn Fn(&str),
) -> Sweep {
    let mut known: BTreeMap<Vec<i64>, Point> = BTreeMap::new();
    let mut probes = 0;
    let own = own_sizes(model, axes);
    // A box whose corners agree is looked into once, so that a fault at one size between is not passed by; the model's own
    // size is a corner, for that is where the fault was seen.
    let mut boxes: Vec<(Vec<i64>, Vec<i64>, bool)> =
        around(axes, &own).into_iter().map(|(a, b)| (a, b, true)).collect();
    while let Some((low, high, whole)) = boxes.pop() {
        let corners = corners(&low, &high);
        let states: Vec<Point> = corners
            .iter()
            .map(|at| {
                known
                    .entry(at.clone())
                    .or_insert_with(|| {
                        step(&format!("{at:?}"));
                        probes += 1;
                        let here = if own.as_ref() == Some(at) { shown } else { &[] };
                        try_point(model, axes, at, here, reference, suspect)
                    })
                    .clone()
            })
            .collect();
        let crossed = |axis: &usize| {
            let pairs =
                corners.iter().zip(&states).flat_map(|one| corners.iter().zip(&states).map(move |two| (one, two)));
            let along =
                |one: &[i64], two: &[i64]| (0..one.len()).all(|other| (other == *axis) == (one[other] != two[other]));
            pairs.into_iter().any(|((a, one), (b, two))| along(a, b) && one.is_wrong() != two.is_wrong())
        };
        let wide = (0..axes.len()).filter(|&axis| high[axis] - low[axis] > 1);
        let split = wide.filter(|axis| whole || crossed(axis)).max_by_key(|&axis| high[axis] - low[axis]);
        if let Some(axis) = split {
            let middle = (low[axis] + high[axis]) / 2;
            let (mut left, mut right) = (high.clone(), low.clone());
            left[axis] = middle;
            right[axis] = middle;
            boxes.push((low, left, false));
            boxes.push((right, high, false));
        }
    }
    let mut predicates = predicates(model, axes, &known).into_iter();
    let predicate = predicates.next();
    let alternatives = predicates.collect();
    let drawn = draw(axes, &known);
    Sweep { axes: axes.to_vec(), points: known.into_iter().collect(), predicate, alternatives, probes, drawn }
}

impl Point {
    fn is_wrong(&self) -> bool {
        matches!(self, Point::Wrong(_))
    }
}

/// The model's own sizes, where they are known and all axes have them.
fn own_sizes(model: &Model, axes: &[Axis]) -> Option<Vec<i64>> {
    let dims = model.graph.inputs.iter().filter_map(|&id| model.graph.value(id).static_shape()).collect::<Vec<_>>();
    let size = |axis: &Axis| dims.iter().find_map(|dims| dims.get(axis.axis)).copied();
    let own: Option<Vec<i64>> = axes.iter().map(size).collect();
    own.filter(|own| own.iter().zip(axes).all(|(&size, axis)| (axis.from..=axis.to).contains(&size)))
}

/// The whole area, cut where the model's own sizes lie.
fn around(axes: &[Axis], own: &Option<Vec<i64>>) -> Vec<(Vec<i64>, Vec<i64>)> {
    let mut boxes = vec![(Vec::new(), Vec::new())];
    for (index, axis) in axes.iter().enumerate() {
        let cut = own.as_ref().map(|own| own[index]).filter(|&size| axis.from < size && size < axis.to);
        let ranges = match cut {
            Some(size) => vec![(axis.from, size), (size, axis.to)],
            None => vec![(axis.from, axis.to)],
        };
        let longer = |(low, high): &(Vec<i64>, Vec<i64>)| {
            let (low, high) = (low.clone(), high.clone());
            ranges.iter().map(move |&(a, b)| ([low.clone(), vec![a]].concat(), [high.clone(), vec![b]].concat()))
        };
        boxes = boxes.iter().flat_map(|one| longer(one).collect::<Vec<_>>()).collect();
    }
    boxes
}

fn corners(low: &[i64], high: &[i64]) -> Vec<Vec<i64>> {
    let mut all = vec![Vec::new()];
    for (low, high) in low.iter().zip(high) {
        let ends: Vec<i64> = if low == high { vec![*low] } else { vec![*low, *high] };
        all = all
            .iter()
            .flat_map(|start: &Vec<i64>| {
                ends.iter().map(|end| [start.clone(), vec![*end]].concat()).collect::<Vec<_>>()
            })
            .collect();
    }
    all
}

/// The model at other sizes; none where it cannot have them.
fn resized(model: &Model, axes: &[Axis], at: &[i64]) -> Option<Model> {
    let mut model = model.clone();
    for id in model.graph.inputs.clone() {
        let mut shape = model.graph.value(id).shape.clone()?;
        for (axis, &size) in axes.iter().zip(at) {
            if let Some(dim) = shape.get_mut(axis.axis) {
                *dim = Dim::Fixed(size);
            }
        }
        model.graph.value_mut(id).shape = Some(shape);
    }
    let inputs = model.graph.inputs.clone();
    let ids: Vec<_> = model.graph.values().map(|(id, _)| id).collect();
    for id in ids {
        if !inputs.contains(&id) && model.graph.initializer(id).is_none() {
            let value = model.graph.value_mut(id);
            value.shape = None;
            value.declared = None;
        }
    }
    shapes::infer(&mut model).ok()?;
    Some(model)
}

/// What happens at some sizes, on inputs that are made up and on those that are `shown`.
fn try_point(
    model: &Model,
    axes: &[Axis],
    at: &[i64],
    shown: &[Tensors],
    reference: &dyn Engine,
    suspect: &Suspect,
) -> Point {
    let Some(model) = resized(model, axes, at) else { return Point::Impossible };
    let made_up = samples::for_model(&model, 1);
    let points = shown.iter().chain([&made_up]).map(|inputs| try_inputs(&model, inputs, reference, suspect));
    let mut found = Point::Impossible;
    for point in points {
        match point {
            Point::Wrong(_) => return point,
            Point::Right => found = Point::Right,
            Point::Impossible => {}
        }
    }
    found
}

fn try_inputs(model: &Model, inputs: &Tensors, reference: &dyn Engine, suspect: &Suspect) -> Point {
    let Ok(right) = reference.run_once(model, inputs) else { return Point::Impossible };
    let outputs = match suspect.engine.run_once(model, inputs) {
        Ok(outputs) => outputs,
        Err(error) => return Point::Wrong(error.code().map_or_else(|| "error".to_string(), str::to_string)),
    };
    let near = |(name, right): (&String, &crate::onnx::Tensor)| {
        outputs.get(name).is_some_and(|result| judge::look(right, result).nothing)
    };
    if right.iter().all(near) {
        return Point::Right;
    }
    let Ok(expectation) = judge::expectation(reference, model, inputs, Some(right.clone()), &suspect.precision) else {
        return Point::Impossible;
    };
    let setting = judge::Setting { engine: reference, model, inputs };
    let differs = right.keys().any(|name| {
        let judge = |result| judge::judge(setting, &expectation, name, result, judge::Manner::Isolated).differs;
        outputs.get(name).is_none_or(judge)
    });
    match differs {
        true => Point::Wrong("wrong-values".into()),
        false => Point::Right,
    }
}

/// A comparison of something that a point has with a number.
struct Term {
    text: String,
    values: Vec<i64>,
}

/// The simplest predicates that tell every tried point apart, one for each choice of what is compared.
fn predicates(model: &Model, axes: &[Axis], known: &BTreeMap<Vec<i64>, Point>) -> Vec<String> {
    let points: Vec<(&Vec<i64>, bool)> = known
        .iter()
        .filter(|(_, state)| **state != Point::Impossible)
        .map(|(at, state)| (at, state.is_wrong()))
        .collect();
    let wrong = points.iter().filter(|(_, wrong)| *wrong).count();
    if wrong == 0 {
        return Vec::new();
    }
    if wrong == points.len() {
        return vec!["true".into()];
    }
    let mut terms: Vec<Term> = axes
        .iter()
        .enumerate()
        .map(|(index, axis)| Term {
            text: format!("x.shape[{}]", axis.axis),
            values: points.iter().map(|(at, _)| at[index]).collect(),
        })
        .collect();
    // Height times width, as compilers tile it; a side that is not varied is what the model has.
    let dims = model.graph.inputs.first().and_then(|&id| model.graph.value(id).static_shape()).unwrap_or_default();
    if dims.len() == 4 && axes.iter().any(|axis| axis.axis >= 2) {
        let side = |at: &Vec<i64>, wanted: usize| {
            axes.iter().position(|axis| axis.axis == wanted).map_or(dims[wanted], |index| at[index])
        };
        terms.push(Term {
            text: "x.shape[2] * x.shape[3]".into(),
            values: points.iter().map(|(at, _)| side(at, 2) * side(at, 3)).collect(),
        });
    }
    let mut comparisons: Vec<(usize, String, Vec<bool>)> = Vec::new();
    for (index, term) in terms.iter().enumerate() {
        let mut numbers = term.values.clone();
        numbers.sort_unstable();
        numbers.dedup();
        for &number in &numbers {
            type Test = fn(i64, i64) -> bool;
            let tests: [(&str, Test); 3] = [(">=", |a, b| a >= b), ("<=", |a, b| a <= b), ("==", |a, b| a == b)];
            for (sign, test) in tests {
                let holds = term.values.iter().map(|&value| test(value, number)).collect();
                comparisons.push((index, format!("{} {sign} {number}", term.text), holds));
            }
        }
    }
    let exact =
        |holds: &dyn Fn(usize) -> bool| points.iter().enumerate().all(|(index, (_, wrong))| holds(index) == *wrong);
    // One for each set of terms: several numbers may fit where not every size was tried.
    let mut fitting: BTreeMap<Vec<usize>, String> = BTreeMap::new();
    for (term, text, holds) in &comparisons {
        if exact(&|index| holds[index]) {
            fitting.entry(vec![*term]).or_insert_with(|| text.clone());
        }
    }
    if fitting.is_empty() {
        for (place, (first, text, a)) in comparisons.iter().enumerate() {
            for (second, other, b) in &comparisons[place + 1..] {
                if exact(&|index| a[index] && b[index]) {
                    fitting.entry(vec![*first, *second]).or_insert_with(|| format!("{text} && {other}"));
                }
            }
        }
    }
    fitting.into_values().collect()
}

/// Rows for the first axis, columns for the second; a single axis is one row.
fn draw(axes: &[Axis], known: &BTreeMap<Vec<i64>, Point>) -> Vec<String> {
    let (rows, columns) = match axes {
        [only] => (None, only),
        [first, second, ..] => (Some(first), second),
        [] => return Vec::new(),
    };
    let at = |row: Option<i64>, column: i64| -> Vec<i64> {
        let mut at: Vec<i64> = row.into_iter().chain([column]).collect();
        at.extend(axes.iter().skip(at.len()).map(|axis| axis.from));
        at
    };
    let nearest = |point: &Vec<i64>| {
        let distance = |other: &&Vec<i64>| other.iter().zip(point).map(|(a, b)| (a - b).abs()).sum::<i64>();
        known.keys().min_by_key(distance).and_then(|key| known.get(key))
    };
    let letter = |point: Vec<i64>| match known.get(&point) {
        Some(Point::Right) => '.',
        Some(Point::Wrong(_)) => '#',
        Some(Point::Impossible) => 'x',
        None => match nearest(&point) {
            Some(Point::Wrong(_)) => '+',
            _ => ',',
        },
    };
    let line = |row: Option<i64>| -> String {
        let name = match (rows, row) {
            (Some(axis), Some(size)) => format!("{:>8} {size:>5}  ", axis.name),
            _ => String::new(),
        };
        name + &(columns.from..=columns.to).map(|column| letter(at(row, column))).collect::<String>()
    };
    let mut lines: Vec<String> = match rows {
        Some(axis) => (axis.from..=axis.to).map(|row| line(Some(row))).collect(),
        None => vec![line(None)],
    };
    lines.push(format!("{} from {} to {}", columns.name, columns.from, columns.to));
    lines
}
