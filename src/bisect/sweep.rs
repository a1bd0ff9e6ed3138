//! Where a fault lives: a small model tried over batch and sizes, its border found with few probes.
//!
//! The area is split into quarters as long as the corners of a piece do not agree; within a row the border is found by
//! halving. What was tried is then said as a predicate, as a quirk's `where` takes it: one comparison, or two that must
//! both hold, that tells every point apart.

use std::collections::BTreeMap;

use serde::Serialize;

use super::report::Kind;
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

/// Tries sizes until the border is known.
pub fn sweep(model: &Model, axes: &[Axis], reference: &dyn Engine, suspect: &Suspect, step: &dyn Fn(&str)) -> Sweep {
    let mut known: BTreeMap<Vec<i64>, Point> = BTreeMap::new();
    let mut probes = 0;
    let lows: Vec<i64> = axes.iter().map(|axis| axis.from).collect();
    let highs: Vec<i64> = axes.iter().map(|axis| axis.to).collect();
    let mut boxes = vec![(lows.clone(), highs.clone())];
    while let Some((low, high)) = boxes.pop() {
        let corners = corners(&low, &high);
        let states: Vec<Point> = corners
            .iter()
            .map(|at| {
                known
                    .entry(at.clone())
                    .or_insert_with(|| {
                        step(&format!("{at:?}"));
                        probes += 1;
                        try_point(model, axes, at, reference, suspect)
                    })
                    .clone()
            })
            .collect();
        let wide =
            (0..axes.len()).filter(|&axis| high[axis] - low[axis] > 1).max_by_key(|&axis| high[axis] - low[axis]);
        let agree = states.iter().all(|state| state.is_wrong() == states[0].is_wrong());
        // A box whose corners agree is looked into once, so that a fault at one size between is not passed by.
        let whole = low == lows && high == highs;
        if let Some(axis) = wide.filter(|_| !agree || whole) {
            let middle = (low[axis] + high[axis]) / 2;
            let (mut left, mut right) = (high.clone(), low.clone());
            left[axis] = middle;
            right[axis] = middle;
            boxes.push((low, left));
            boxes.push((right, high));
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

fn try_point(model: &Model, axes: &[Axis], at: &[i64], reference: &dyn Engine, suspect: &Suspect) -> Point {
    let Some(model) = resized(model, axes, at) else { return Point::Impossible };
    let inputs: Tensors = samples::for_model(&model, 1);
    let Ok(right) = reference.run_once(&model, &inputs) else { return Point::Impossible };
    let outputs = match suspect.engine.run_once(&model, &inputs) {
        Ok(outputs) => outputs,
        Err(error) => return Point::Wrong(error.code().map_or_else(|| "error".to_string(), str::to_string)),
    };
    let near = |(name, right): (&String, &crate::onnx::Tensor)| {
        outputs.get(name).is_some_and(|result| judge::look(right, result).nothing)
    };
    if right.iter().all(near) {
        return Point::Right;
    }
    let Ok(expectation) = judge::expectation(reference, &model, &inputs, Some(right.clone()), &suspect.precision)
    else {
        return Point::Impossible;
    };
    let setting = judge::Setting { engine: reference, model: &model, inputs: &inputs };
    let differs = right.keys().any(|name| {
        let judge = |result| judge::judge(setting, &expectation, name, result, judge::Manner::Isolated).differs;
        outputs.get(name).is_none_or(judge)
    });
    if differs {
        Point::Wrong(
            serde_json::to_value(Kind::WrongValues)
                .ok()
                .and_then(|v| v.as_str().map(str::to_string))
                .unwrap_or_default(),
        )
    } else {
        Point::Right
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
