//! Corners of operators, lowered and run by XLA on the CPU: as ONNX Runtime gives them, or as the format says where ONNX
//! Runtime refuses; and what cannot be lowered, told in words.

mod common;

use std::path::PathBuf;

use common::ort_library;
use porter::engine::ort::Ort;
use porter::engine::worker::Limits;
use porter::engine::xla::Xla;
use porter::engine::{Engine, Tensors, samples};
use porter::graph::Model;
use porter::lower::{self, Weights};
use porter::onnx::{DType, Tensor};

fn xla(double: bool) -> Xla {
    let python = PathBuf::from(common::python("").get_program());
    Xla::with_python(python, double, Limits::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// A model of opset 18 from its graph in ONNX's text.
fn graph(text: &str) -> Model {
    of_opset(18, text)
}

fn of_opset(opset: i64, text: &str) -> Model {
    let text = format!("<ir_version: 8, opset_import: [\"\" : {opset}]> {text}");
    porter::text::parse_model(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> Tensor {
    Tensor::from_f32(name, dims, values)
}

fn given(tensors: impl IntoIterator<Item = Tensor>) -> Tensors {
    tensors.into_iter().map(|tensor| (tensor.name().to_string(), tensor)).collect()
}

/// The outputs are the same: bit for bit where they are whole numbers, to a few last places where they are floats.
fn assert_same(what: &str, wanted: &Tensors, got: &Tensors) {
    assert_eq!(wanted.len(), got.len(), "{what}");
    for (name, wanted) in wanted {
        let got = &got[name];
        assert_eq!((wanted.dtype(), wanted.dims()), (got.dtype(), got.dims()), "{what}: {name}");
        let (wanted, got) = (wanted.to_f64s().unwrap(), got.to_f64s().unwrap());
        for (place, (w, g)) in wanted.iter().zip(&got).enumerate() {
            let near = w == g || (w.is_nan() && g.is_nan()) || (w - g).abs() <= 2e-6 + 2e-5 * w.abs();
            assert!(near, "{what}: {name}[{place}] is {g}, not {w}\nall: {got:?}\nnot: {wanted:?}");
        }
    }
}

/// Graphs that ONNX Runtime runs too, on inputs made up.
#[test]
fn corners_are_as_in_onnx_runtime() {
    ort_library();
    let (ort, xla) = (Ort::reference().unwrap(), xla(false));
    let graphs = [
        // Padding: where the odd one goes, what ceil_mode adds, what negative pads cut off.
        "g (float[1,2,7,7] x, float[3,2,3,3] w) => (float[1,3,4,4] y) { y = Conv <auto_pad = \"SAME_LOWER\", strides = [2, 2]> (x, w) }",
        "g (float[1,2,6,6] x, float[3,2,4,4] w) => (float[1,3,3,3] y) { y = Conv <auto_pad = \"SAME_LOWER\", strides = [2, 2]> (x, w) }",
        "g (float[1,1,7,7] x) => (float[1,1,N,M] y) { y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 0, 0, 1], ceil_mode = 1> (x) }",
        "g (float[1,1,7,7] x) => (float[1,1,N,M] y) { y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 0, 0, 1], ceil_mode = 1> (x) }",
        "g (float[1,1,6,6] x) => (float[1,1,N,M] y) { y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], count_include_pad = 1> (x) }",
        "g (float[2,5,6] x) => (float[N,M,K] y) <int64[6] pads = {0, -1, 2, 0, 3, -2}> { y = Pad (x, pads) }",
        "g (float[1,4,5] x) => (float[N,M,K] y) <int64[6] pads = {0, 2, -1, 0, 3, 2}> { y = Pad <mode = \"reflect\"> (x, pads) }",
        "g (float[1,4,5] x) => (float[N,M,K] y) <int64[6] pads = {0, 2, -1, 0, 3, 2}> { y = Pad <mode = \"edge\"> (x, pads) }",
        // Slices that go down.
        "g (float[3,8] x) => (float[N,M] y) <int64[1] a = {-1}, int64[1] e = {-9}, int64[1] d = {1}, int64[1] s = {-3}> { y = Slice (x, a, e, d, s) }",
        "g (float[3,8] x) => (float[N,M] y) <int64[1] a = {-20}, int64[1] e = {-30}, int64[1] d = {1}, int64[1] s = {-1}> { y = Slice (x, a, e, d, s) }",
        "g (float[3,8] x) => (float[N,M] y) <int64[1] a = {1}, int64[1] e = {9223372036854775807}, int64[1] d = {1}, int64[1] s = {9223372036854775807}> { y = Slice (x, a, e, d, s) }",
        // Resize from scales and from sizes.
        "g (float[1,1,4,5] x) => (float[1,1,N,M] y) <float[4] s = {1, 1, 0.6, 1.7}> { y = Resize <mode = \"linear\"> (x, , s) }",
        "g (float[1,1,4,5] x) => (float[1,1,N,M] y) <int64[4] s = {1, 1, 7, 3}> { y = Resize <mode = \"cubic\", coordinate_transformation_mode = \"align_corners\"> (x, , , s) }",
        "g (float[1,1,4,5] x) => (float[1,1,N,M] y) <int64[4] s = {1, 1, 7, 3}> { y = Resize <mode = \"nearest\", nearest_mode = \"ceil\"> (x, , , s) }",
        // Transposed convolutions.
        "g (float[1,4,3,3] x, float[4,3,3,2] w, float[6] b) => (float[1,6,N,M] y) { y = ConvTranspose <group = 2, strides = [2, 3], output_padding = [1, 2], pads = [1, 0, 2, 1]> (x, w, b) }",
        "g (float[1,2,4] x, float[2,3,3] w) => (float[1,3,N] y) { y = ConvTranspose <strides = [2], auto_pad = \"SAME_UPPER\"> (x, w) }",
        // No elements, no dimensions, many dimensions.
        "g (float[0,3] x, float[3,2] w) => (float[0,2] y) { y = MatMul (x, w) }",
        "g (float[2,0] x, float[0,3] w) => (float[2,3] y) { y = MatMul (x, w) }",
        "g (float[2,0] x) => (float[2,1] y) <int64[1] a = {1}> { y = ReduceSum (x, a) }",
        "g (float x) => (float y) { a = Exp (x)  y = Add (a, x) }",
        "g (float[2,1,3,1,2,1,2] x) => (float[2,2,1,1,3,1,2] y) { t = Transpose <perm = [0, 4, 1, 3, 2, 5, 6]> (x)  y = Softmax <axis = 4> (t) }",
        // Equations.
        "g (float[2,3,4] x, float[2,4,5] y) => (float[2,3,5] z) { z = Einsum <equation = \"...ij,...jk->...ik\"> (x, y) }",
        "g (float[2,3,3] x) => (float[2,3] z) { z = Einsum <equation = \"bii->bi\"> (x) }",
        "g (float[3,4] x, float[5,4] y) => (float[3,5] z) { z = Einsum <equation = \"ij, kj -> ik\"> (x, y) }",
    ];
    for text in graphs {
        let model = graph(text);
        let inputs = samples::for_model(&model, 3);
        let wanted = ort.run_once(&model, &inputs).unwrap_or_else(|error| panic!("{text}\n{error}"));
        let got = xla.run_once(&model, &inputs).unwrap_or_else(|error| panic!("{text}\n{error}"));
        assert_same(text, &wanted, &got);
    }
}

/// Layers that run backwards over sequences of their own lengths, written out and in a loop.
#[test]
fn recurrent_layers_run_backwards_over_their_own_lengths() {
    ort_library();
    let (ort, xla) = (Ort::reference().unwrap(), xla(false));
    for (steps, direction, directions) in
        [(5, "reverse", 1), (5, "bidirectional", 2), (70, "reverse", 1), (70, "bidirectional", 2)]
    {
        for (op, gates) in [("LSTM", 4), ("GRU", 3)] {
            let text = format!(
                "g (float[{steps},2,3] x, float[{directions},{wide},3] w, float[{directions},{wide},4] r, int32[2] n) \
                 => (float[{steps},{directions},2,4] y, float[{directions},2,4] h) \
                 {{ y, h = {op} <hidden_size = 4, direction = \"{direction}\"> (x, w, r, , n) }}",
                wide = gates * 4
            );
            let model = graph(&text);
            let mut inputs = samples::for_model(&model, 5);
            inputs.insert("n".into(), Tensor::from_i64s("n", DType::Int32, &[2], &[steps, steps - 3]).unwrap());
            let wanted = ort.run_once(&model, &inputs).unwrap_or_else(|error| panic!("{text}\n{error}"));
            let got = xla.run_once(&model, &inputs).unwrap_or_else(|error| panic!("{text}\n{error}"));
            assert_same(&text, &wanted, &got);
        }
    }
}

/// Values that ONNX Runtime has no kernel for, or that are worth writing down.
#[test]
fn values_are_as_the_format_says() {
    let xla = xla(false);
    let run = |text: &str, inputs: Tensors| {
        let outputs = xla.run_once(&graph(text), &inputs).unwrap_or_else(|error| panic!("{text}\n{error}"));
        outputs.into_iter().map(|(_, tensor)| tensor.to_f64s().unwrap()).collect::<Vec<_>>()
    };
    let whole = |dtype, dims: &[i64], values: &[i64]| Tensor::from_i64s("x", dtype, dims, values).unwrap();
    // A linear Resize of whole numbers averages them as floats and cuts.
    let text = "g (uint8[1,1,1,2] x) => (uint8[1,1,1,4] y) <float[4] s = {1, 1, 1, 2}> { y = Resize <mode = \"linear\"> (x, , s) }";
    assert_eq!(run(text, given([whole(DType::Uint8, &[1, 1, 1, 2], &[10, 20])])), [[10.0, 12.0, 17.0, 20.0]]);
    // Logarithms of whole numbers are cut as well.
    let text = "g (int32[2] x) => (int32[1] y) { y = ReduceLogSumExp (x) }";
    assert_eq!(run(text, given([whole(DType::Int32, &[2], &[5, 5])])), [[5.0]]);
    // An exponent with a fraction, over numbers that float32 does not hold.
    let text = "g (int64[2] x, float[2] e) => (int64[2] y) { y = Pow (x, e) }";
    let inputs = given([whole(DType::Int64, &[2], &[16777217, 7]), floats("e", &[2], &[1.0, 9.0])]);
    assert_eq!(run(text, inputs), [[16777217.0, 40353607.0]]);
    // Places of maxima are never in the padding.
    let text = "g (uint8[1,1,2] x) => (uint8[1,1,3] y, int64[1,1,3] i) { y, i = MaxPool <kernel_shape = [2], pads = [1, 1]> (x) }";
    assert_eq!(run(text, given([whole(DType::Uint8, &[1, 1, 2], &[0, 0])]))[1], [0.0, 0.0, 1.0]);
    // SAME padding of a stride longer than the kernel: the format halves towards zero.
    let text = "g (float[1,1,2] x, float[1,1,1] w) => (float[1,1,8] y) { y = ConvTranspose <strides = [4], auto_pad = \"SAME_UPPER\"> (x, w) }";
    let inputs = given([floats("x", &[1, 1, 2], &[1.0, 2.0]), floats("w", &[1, 1, 1], &[1.0])]);
    assert_eq!(run(text, inputs)[0].iter().sum::<f64>(), 3.0);
}

/// Hyperbolic functions as far as their results are finite.
#[test]
fn hyperbolic_functions_do_not_overflow_on_the_way() {
    let xla = xla(false);
    let values = [1e20f32, -1e20, 89.0, -89.0, 0.5, 1e-5, 3.0, 40.0, 1.0];
    type Exact = fn(f64) -> f64;
    let all: [(&str, Exact); 6] = [
        ("Asinh", f64::asinh),
        ("Acosh", f64::acosh),
        ("Sinh", f64::sinh),
        ("Cosh", f64::cosh),
        ("Atanh", f64::atanh),
        ("Tan", f64::tan),
    ];
    for (op, exact) in all {
        let text = format!("g (float[9] x) => (float[9] y) {{ y = {op} (x) }}");
        let outputs = xla.run_once(&graph(&text), &given([floats("x", &[9], &values)])).unwrap();
        for (x, got) in values.iter().zip(outputs["y"].to_f32s().unwrap()) {
            // A tangent of what is large is the engine's own affair.
            if op == "Tan" && x.abs() > 100.0 {
                continue;
            }
            let wanted = exact(f64::from(*x)) as f32;
            let near = wanted == got || (wanted.is_nan() && got.is_nan()) || ((wanted - got) / wanted).abs() < 4e-6;
            assert!(near, "{op}({x}) is {got}, not {wanted}");
        }
    }
}

/// What cannot be lowered is an error in words, never a panic.
#[test]
fn what_cannot_be_lowered_is_told() {
    let cases = [
        ("g (float[N,3] x) => (float[N,3] y) { y = Relu (x) }", "has no fixed size (N x 3)"),
        ("g (float[2,3] x, int64[2] s) => (float[N,M] y) { y = Reshape (x, s) }", "must be a constant"),
        (
            "g (float[3] x) => (float[N] y) <int64[2] p = {-3, 2}> { y = Pad <mode = \"edge\"> (x, p) }",
            "nothing is left to pad",
        ),
        (
            "g (float[3] x) => (float[N] y) <int64[2] p = {-3, 2}> { y = Pad <mode = \"wrap\"> (x, p) }",
            "nothing is left to pad",
        ),
        (
            "g (float[1,1,3,3] x, float[1,1,2,2] w) => (float[1,1,N,M] y) { y = ConvTranspose <output_padding = [1]> (x, w) }",
            "output",
        ),
        ("g (string[2] x) => (string[2] y) { y = Identity (x) }", "string"),
    ];
    for (text, told) in cases {
        let problem = match lower::lower(&graph(text), Weights::Constants) {
            Ok(_) => panic!("{text} was lowered"),
            Err(error) => error.to_string(),
        };
        assert!(problem.contains(told), "{text}\n{problem}");
    }
    // Of nothing, a Resize makes nothing.
    let text = "g (float[0,1,4,4] x) => (float[0,1,8,8] y) <float[4] s = {1, 1, 2, 2}> { y = Resize <mode = \"linear\"> (x, , s) }";
    lower::lower(&graph(text), Weights::Constants).unwrap();
}

/// Old forms of operators: sizes and axes as attributes.
#[test]
fn forms_of_old_opsets_are_lowered() {
    ort_library();
    let (ort, xla) = (Ort::reference().unwrap(), xla(false));
    for text in [
        "g (float[2,6] x) => (float[2,2] a, float[2,4] b) { a, b = Split <axis = 1, split = [2, 4]> (x) }",
        "g (float[2,1,3] x) => (float[2,3] y) { y = Squeeze <axes = [1]> (x) }",
        "g (float[2,3] x) => (float[2,1,3] y) { y = Unsqueeze <axes = [1]> (x) }",
        "g (float[2,3,4] x) => (float[2,3,4] y) { y = Softmax <axis = 1> (x) }",
        "g (float[2,3,4] x) => (float[2,1,1] y) { y = ReduceSum <axes = [1, 2]> (x) }",
        "g (float[2,3,4] x) => (float[2,3,4] y) { y = LogSoftmax (x) }",
    ] {
        let model = of_opset(11, text);
        let inputs = samples::for_model(&model, 3);
        let wanted = ort.run_once(&model, &inputs).unwrap_or_else(|error| panic!("{text}\n{error}"));
        let got = xla.run_once(&model, &inputs).unwrap_or_else(|error| panic!("{text}\n{error}"));
        assert_same(text, &wanted, &got);
    }
}

/// The text is MLIR that XLA's own reader takes, whatever the numbers and the names are.
#[test]
fn small_numbers_and_odd_names_are_written_as_mlir() {
    let mut model = graph("g (double[3] x) => (double[3] y) <double e = {0.000001}> { y = Add (x, e) }");
    let id = model.graph.node_ids()[0];
    model.graph.node_mut(id).name = "a\"b\\c\u{e9}\n".into();
    let lowered = lower::lower(&model, Weights::Constants).unwrap();
    let text = lower::hlo::text::to_string(&lowered.module, lower::hlo::text::Constants::Written);
    assert!(text.contains("dense<1.0e-6>"), "{text}");
    assert!(text.contains(r#"loc("a\22b\5Cc\C3\A9\0A")"#), "{text}");
}

#[test]
fn separate_weights_are_used_and_turned_kernels_stay_inside() {
    let text = "g (float[1,2,4,4] x) => (float[1,2,8,8] y)
        <float[2,2,2,2] up = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
         float[1,2,4,4] bias = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
                                1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}>
        { a = Add (x, bias)  y = ConvTranspose <strides = [2, 2]> (a, up) }";
    let lowered = lower::lower(&graph(text), Weights::Separate).unwrap();
    assert_eq!(lowered.weights.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["bias"]);
    let entry = &lowered.module.entry;
    assert_eq!(entry.parameters().count(), 2);
    for place in 0..2 {
        let read = entry
            .instructions
            .iter()
            .flat_map(|one| &one.operands)
            .any(|op| format!("{op:?}") == format!("Op({place})"));
        assert!(read, "parameter {place} is dead");
    }
}

#[test]
fn lowering_writes_weights_only_where_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let (file, foreign) = (folder.path().join("m.onnx"), folder.path().join("m.safetensors"));
    let text = "g (float[2,20] x) => (float[2,20] y) { y = Relu (x) }";
    porter::onnx::write(&file, &graph(text).to_proto()).unwrap();
    std::fs::write(&foreign, "mine").unwrap();
    let (code, _, told) = common::run(common::porter().arg("lower").arg(&file).args(["--weights", "separate"]));
    assert!(code == 2 && told.contains("say where with --output"), "{code} {told}");
    assert_eq!(std::fs::read_to_string(&foreign).unwrap(), "mine");
}
