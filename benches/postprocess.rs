//! What reading a raw head costs, beside one plain pass over the same tensor, on one core.
//!
//! ```text
//! cargo bench --bench postprocess
//! ```
//!
//! To hold: the best 300 of [1,84,8400] within twice a plain pass; suppression of a realistic frame under 1 ms.

use std::hint::black_box;
use std::time::{Duration, Instant};

use porter::postprocess::{best_classes, best_first, overlap_more_than, suppress, top_k};

const ANCHORS: usize = 8400;
const CLASSES: usize = 80;

/// A sequence of numbers in [0, 1).
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// The middle of many times of each; they take turns, so that a machine that slows down slows all of them down.
fn medians<const N: usize>(mut works: [&mut dyn FnMut(); N]) -> [Duration; N] {
    let mut times: [Vec<Duration>; N] = std::array::from_fn(|_| Vec::new());
    for round in 0..1020 {
        for (work, times) in works.iter_mut().zip(&mut times) {
            let start = Instant::now();
            work();
            if round >= 20 {
                times.push(start.elapsed());
            }
        }
    }
    times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    })
}

/// One plain pass: the largest of the numbers, as fast as the machine reads them.
fn plain_pass(values: &[f32]) -> f32 {
    let (groups, rest) = values.as_chunks::<16>();
    let mut most = [f32::NEG_INFINITY; 16];
    for group in groups {
        for (most, &value) in most.iter_mut().zip(group) {
            *most = if value > *most { value } else { *most };
        }
    }
    most.iter().chain(rest).fold(f32::NEG_INFINITY, |most, &value| if value > most { value } else { most })
}

/// A frame as a detector sees it: `objects` things, each predicted by `each` anchors around it, and faint noise.
fn frame(objects: usize, each: usize) -> Vec<f32> {
    let mut random = Random(7);
    let mut values = vec![0f32; (4 + CLASSES) * ANCHORS];
    for (row, line) in values.chunks_exact_mut(ANCHORS).enumerate() {
        for value in line {
            *value = if row < 4 { 20.0 + random.unit() * 600.0 } else { random.unit() * random.unit() * 0.02 };
        }
    }
    for _ in 0..objects {
        let class = (random.unit() * CLASSES as f32) as usize;
        let place = [
            100.0 + random.unit() * 440.0,
            100.0 + random.unit() * 440.0,
            20.0 + random.unit() * 160.0,
            20.0 + random.unit() * 160.0,
        ];
        for _ in 0..each {
            let anchor = (random.unit() * ANCHORS as f32) as usize;
            for (row, &at) in place.iter().enumerate() {
                values[row * ANCHORS + anchor] = at + (random.unit() - 0.5) * 8.0;
            }
            values[(4 + class) * ANCHORS + anchor] = 0.3 + random.unit() * 0.65;
        }
    }
    values
}

fn nms(values: &[f32], confidence: f32) -> usize {
    let mut picks = best_classes(&values[4 * ANCHORS..], ANCHORS, confidence);
    best_first(&mut picks, 30_000);
    let classes: Vec<u32> = picks.iter().map(|pick| pick.class).collect();
    let corners: Vec<[f32; 4]> = picks
        .iter()
        .map(|pick| {
            let [x, y, w, h] = [0, 1, 2, 3].map(|row| values[row * ANCHORS + pick.anchor as usize]);
            [x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0]
        })
        .collect();
    suppress(&classes, 300, |a, b| overlap_more_than(&corners[a], &corners[b], 0.7)).len()
}

fn main() {
    let us = |time: Duration| format!("{:.0} us", time.as_secs_f64() * 1e6);
    let mut random = Random(1);
    let noise: Vec<f32> = (0..(4 + CLASSES) * ANCHORS).map(|_| random.unit()).collect();
    let real = frame(30, 15);
    for (what, values) in [("uniform noise", &noise), ("a frame of 30 things", &real)] {
        let [pass, best, sure] = medians([
            &mut || {
                black_box(plain_pass(black_box(values)));
            },
            &mut || {
                black_box(top_k(black_box(&values[4 * ANCHORS..]), ANCHORS, 300, f32::NEG_INFINITY));
            },
            &mut || {
                black_box(top_k(black_box(&values[4 * ANCHORS..]), ANCHORS, 300, 0.25));
            },
        ]);
        println!(
            "{what:<22} plain pass {:>7}   best 300 {:>7} ({:.2} passes)   best 300 above 0.25 {:>7}",
            us(pass),
            us(best),
            best.as_secs_f64() / pass.as_secs_f64(),
            us(sure)
        );
    }
    for (objects, each) in [(10, 10), (30, 15), (100, 20)] {
        let values = frame(objects, each);
        let kept = nms(&values, 0.25);
        let [took] = medians([&mut || {
            black_box(nms(black_box(&values), 0.25));
        }]);
        println!("class-aware suppression, {objects} things in {} boxes: {kept} kept, {}", objects * each, us(took));
    }
}
