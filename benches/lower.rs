//! How long yolo26x takes from the ONNX file to the HLO module on disk, and how much larger the module is than its weights.
//!
//! ```text
//! cargo bench --bench lower            # or: cargo bench --bench lower -- some-other-model.onnx
//! ```
//!
//! To hold: under 1 s; no larger than the weights plus 2 %. The weights are those that the module holds: constants that
//! decide sizes alone are folded away.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use porter::lower::{self, Weights, hlo};
use porter::onnx;

fn main() {
    let named = std::env::args().skip(1).find(|word| !word.starts_with('-')).map(PathBuf::from);
    let stripped = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/models/yolo26x.onnx");
    let folder = tempfile::tempdir().expect("a folder for what is written");
    let module = folder.path().join("model.hlo_module.pb");
    let timed = |what: &str, work: &mut dyn FnMut()| -> Duration {
        let mut times: Vec<Duration> = (0..5)
            .map(|_| {
                let start = Instant::now();
                work();
                start.elapsed()
            })
            .collect();
        times.sort();
        println!("{what:<34} {:>6.0} ms   (best of {}, worst {:.0} ms)", ms(times[0]), times.len(), ms(times[4]));
        times[0]
    };
    // A stripped model's weights are made up, which is no part of the work: they are put into a file first.
    let model = named.unwrap_or(stripped);
    let filled = folder.path().join("model.onnx");
    let read = porter::load(&model).unwrap_or_else(|error| panic!("{error}"));
    onnx::write(&filled, &read.to_proto()).unwrap_or_else(|error| panic!("{error}"));
    let mut lowered = None;
    let lowering = timed("read, fold, lower", &mut || {
        let model = porter::load(&filled).unwrap_or_else(|error| panic!("{error}"));
        lowered = Some(lower::lower(&model, Weights::Constants).unwrap_or_else(|error| panic!("{error}")));
    });
    let lowered = lowered.expect("it was lowered just now");
    let writing = timed("write the HloModuleProto", &mut || {
        onnx::write_message(&module, &hlo::to_proto(&lowered.module)).unwrap_or_else(|error| panic!("{error}"));
    });
    let size = std::fs::metadata(&module).map(|data| data.len()).unwrap_or_default();
    let weights = lowered.module.weight_bytes() as u64;
    println!("both                               {:>6.0} ms", ms(lowering + writing));
    println!(
        "module {size} bytes, weights {weights} bytes: {:.2} % more",
        (size as f64 / weights as f64 - 1.0) * 100.0
    );
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
