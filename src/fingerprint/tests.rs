//! Every shape is named where it is planted, and nothing is named where several would do or none does.

use super::{Evidence, Run, Shape, name};
use crate::engine::tract::Tract;
use crate::engine::{Engine, Tensors};
use crate::graph::builder::Build;
use crate::graph::{Model, Node};
use crate::onnx::{DType, Tensor};

const DIMS: [i64; 4] = [2, 6, 3, 5];

/// y = Relu(x), x [2,6,3,5]
fn relu() -> Model {
    let mut build = Build::new();
    let x = build.input("x", DType::Float, &DIMS);
    let y = build.op("Relu", "relu", &[x]);
    build.finish(&[y])
}

/// Values that are all different, of both signs where `x` is odd.
fn values(seed: usize) -> Vec<f32> {
    (0..180).map(|i| 0.5 + ((i * 7 + seed * 31) % 181) as f32 * 0.0371).collect()
}

fn tensors(name: &str, dims: &[i64], values: &[f32]) -> Tensors {
    Tensors::from_iter([(name.to_string(), Tensor::from_f32(name, dims, values))])
}

/// What is seen where every run's result is changed: two samples, and the first once more.
fn seen(change: impl Fn(&[f32], usize) -> Vec<f32>) -> Option<Shape> {
    let run = |(turn, seed): (usize, &usize)| {
        let right = values(*seed);
        Run {
            inputs: tensors("x", &DIMS, &right),
            wrong: tensors("relu_output_0", &DIMS, &change(&right, turn)),
            right: tensors("relu_output_0", &DIMS, &right),
        }
    };
    let runs = [0, 1, 0].iter().enumerate().map(run).collect();
    name(&Evidence { model: relu(), runs, outputs: vec!["relu_output_0".into()], rounds: DType::Float }, &Tract)
}

/// Index of an element: batch element, channel, row, column.
fn at(n: usize, c: usize, h: usize, w: usize) -> usize {
    ((n * 6 + c) * 3 + h) * 5 + w
}

fn each(change: impl Fn(usize, usize, usize, usize) -> f32) -> Vec<f32> {
    let mut all = Vec::new();
    for n in 0..2 {
        for c in 0..6 {
            for h in 0..3 {
                (0..5).for_each(|w| all.push(change(n, c, h, w)));
            }
        }
    }
    all
}

#[test]
fn what_the_right_values_predict_is_named() {
    let zero = |right: &[f32], _| vec![0.0; right.len()];
    assert_eq!(seen(zero), Some(Shape::Zeroed));
    assert_eq!(seen(|right, _| right.iter().map(|x| x * 1.02).collect()), Some(Shape::Scaled));
    assert_eq!(seen(|right, _| right.iter().map(|x| x.min(3.0)).collect()), Some(Shape::Saturated));
    let bfloat = |right: &[f32], _| right.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
    assert_eq!(seen(bfloat), Some(Shape::Rounded));
    let half = |right: &[f32], _| right.iter().map(|&x| half::f16::from_f32(x).to_f32()).collect();
    assert_eq!(seen(half), Some(Shape::Rounded));
    let first = |right: &[f32], _| each(|_, c, h, w| right[at(0, c, h, w)]);
    assert_eq!(seen(first), Some(Shape::BatchBroadcast));
    let shifted = |right: &[f32], _| each(|n, c, h, w| right[at(n, c, h, (w + 4) % 5)]);
    assert_eq!(seen(shifted), Some(Shape::Shifted));
    let turned = |right: &[f32], _| {
        each(|n, c, h, w| {
            let place = h * 5 + w; // the five columns of three rows, one after the other
            right[at(n, c, place % 3, place / 3)]
        })
    };
    assert_eq!(seen(turned), Some(Shape::Transposed));
    let order = [3, 5, 0, 1, 4, 2];
    let permuted = |right: &[f32], _| each(|n, c, h, w| right[at(n, order[c], h, w)]);
    assert_eq!(seen(permuted), Some(Shape::ChannelsPermuted));
    let nan = |right: &[f32], _| right.iter().map(|&x| if x > 3.0 { f32::NAN } else { x }).collect();
    assert_eq!(seen(nan), Some(Shape::Nan));
}

#[test]
fn one_channel_of_one_element_is_enough() {
    let only = |change: fn(f32) -> f32| {
        seen(move |right, _| {
            each(|n, c, h, w| {
                let x = right[at(n, c, h, w)];
                if n == 1 && c == 4 { change(x) } else { x }
            })
        })
    };
    assert_eq!(only(|_| 0.0), Some(Shape::Zeroed));
    assert_eq!(only(|x| x * 1.5), Some(Shape::Scaled));
}

#[test]
fn what_changes_from_run_to_run_is_named() {
    let moving = |right: &[f32], turn: usize| right.iter().map(|x| x + 0.1 * (turn as f32 + 1.0)).collect();
    assert_eq!(seen(moving), Some(Shape::Nondeterministic));
    let stale = |_: &[f32], turn: usize| match turn {
        0 => vec![0.0; 180],
        1 => values(0),
        _ => values(1),
    };
    assert_eq!(seen(stale), Some(Shape::Stale));
}

#[test]
fn what_no_shape_explains_has_no_name() {
    assert_eq!(seen(|right, _| right.iter().map(|x| x * x + 0.3).collect()), None);
    let mixed =
        |right: &[f32], _| right.iter().enumerate().map(|(i, x)| if i % 7 == 0 { 1.9 } else { x * 1.1 }).collect();
    assert_eq!(seen(mixed), None);
    // A handful of numbers proves nothing.
    let few = |right: &[f32], _| right.iter().enumerate().map(|(i, x)| if i < 3 { 0.0 } else { *x }).collect();
    assert_eq!(seen(few), None);
}

/// Runs a graph rightly and as `wrong`, on two samples and the first once more.
fn compared(right: Model, wrong: Model, dims: &[i64]) -> Option<Shape> {
    let outputs: Vec<String> = right.graph.outputs.iter().map(|&id| right.graph.value(id).name.clone()).collect();
    let run = |seed: &usize| {
        let count = dims.iter().product::<i64>() as usize;
        let values: Vec<f32> = (0..count).map(|i| ((i * 13 + seed * 17) % 97) as f32 * 0.11 - 3.0).collect();
        let inputs = tensors("x", dims, &values);
        Run { right: Tract.run_once(&right, &inputs).unwrap(), wrong: Tract.run_once(&wrong, &inputs).unwrap(), inputs }
    };
    let runs = [0, 1, 0].iter().map(run).collect();
    name(&Evidence { model: right, runs, outputs, rounds: DType::Float }, &Tract)
}

#[test]
fn a_split_without_strides_is_told_from_the_input() {
    let split = |dropped: bool| {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[2, 6, 4]);
        let (a, b) = (build.graph.add_value("a"), build.graph.add_value("b"));
        if dropped {
            let flat = build.ints("flat", &[-1]);
            let run = build.op("Reshape", "run", &[x, flat]);
            // From where each output begins in a batch element, as many values as it has.
            for (out, begin, end, dims) in [(a, 0, 16, [2, 2, 4]), (b, 8, 40, [2, 4, 4])] {
                let name = format!("part from {begin}");
                let (begin, end) = (build.ints("begin", &[begin]), build.ints("end", &[end]));
                let part = build.op("Slice", &name, &[run, begin, end]);
                let dims = build.ints("dims", &dims);
                build.graph.add_node(Node::new("Reshape", [part, dims], [out]));
            }
        } else {
            let sizes = build.ints("sizes", &[2, 4]);
            build.graph.add_node(Node::new("Split", [x, sizes], [a, b]).named("split").with("axis", 1));
        }
        let mut model = build.finish(&[a, b]);
        crate::graph::shapes::infer(&mut model).unwrap();
        model
    };
    assert_eq!(compared(split(false), split(true), &[2, 6, 4]), Some(Shape::StrideDrop));
}

#[test]
fn another_mode_of_the_operator_and_a_constant_turned_round_are_told_by_running_it() {
    let pool = |counted: i64| {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[1, 3, 6, 6]);
        let node = Node::new("AveragePool", [x], []).named("pool");
        let node =
            node.with("kernel_shape", vec![3i64, 3]).with("pads", vec![1i64; 4]).with("count_include_pad", counted);
        let y = build.node(node);
        build.finish(&[y])
    };
    assert_eq!(compared(pool(0), pool(1), &[1, 3, 6, 6]), Some(Shape::WrongMode));
    let product = |turned: bool| {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[5, 4]);
        let values: Vec<f32> = (0..16)
            .map(|i| if turned { i % 4 * 4 + i / 4 } else { i })
            .map(|i| ((i * 5 % 16) as f32 - 7.0) * 0.2)
            .collect();
        let w = build.graph.add_initializer(Tensor::from_f32("w", &[4, 4], &values));
        let y = build.op("MatMul", "product", &[x, w]);
        build.finish(&[y])
    };
    assert_eq!(compared(product(false), product(true), &[5, 4]), Some(Shape::Transposed));
}
