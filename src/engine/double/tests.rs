use super::*;
use crate::compare::metrics;
use crate::engine::samples;
use crate::graph::builder::Build;
use crate::graph::{Node, ValueId};
use crate::onnx::Tensor;

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_f64s().unwrap()
}

/// One operator on `[2, 3, 4, 5]` in float64 stays near float32 and is not float32.
fn check(name: &str, make: impl Fn(&mut Build, ValueId) -> ValueId) {
    let mut build = Build::new();
    let x = build.input("x", DType::Float, &[2, 3, 4, 5]);
    let y = make(&mut build, x);
    let mut model = build.finish(&[y]);
    model.opsets.insert(String::new(), 24);
    let inputs = samples::for_model(&model, 1);
    let exact = Double.run_once(&model, &inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
    let rounded = Tract.run_once(&model, &inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (exact, rounded) = (&exact[0], &rounded[0]);
    assert_eq!(exact.dtype(), DType::Double, "{name}");
    let found = metrics(exact, rounded).unwrap();
    assert!(found.max_abs < 1e-5 * found.scale.max(1.0), "{name}: {found:?}");
    let narrow = values(exact).iter().filter(|&&x| x == x as f32 as f64).count();
    assert!(2 * narrow < exact.len(), "{name}: {narrow} of {} values are float32's", exact.len());
}

#[test]
fn functions_are_computed_in_float64() {
    for name in [
        "Sigmoid",
        "Erf",
        "Softplus",
        "Softsign",
        "Mish",
        "HardSwish",
        "HardSigmoid",
        "LeakyRelu",
        "Elu",
        "Celu",
        "Selu",
        "Gelu",
        "Tanh",
        "Exp",
        "Sqrt",
    ] {
        check(name, |build, x| {
            let x = if name == "Sqrt" { build.op("Mul", "square", &[x, x]) } else { x };
            let half = build.graph.add_initializer(Tensor::from_f32("half", &[], &[0.37]));
            let x = build.op("Mul", "less", &[x, half]);
            build.op(name, "it", &[x])
        });
    }
    check("Gelu tanh", |build, x| {
        let mut node = Node::new("Gelu", [x], []).named("it");
        node.set_attr("approximate", crate::graph::AttributeValue::String("tanh".as_bytes().to_vec().into()));
        build.node(node)
    });
}

#[test]
fn what_is_taken_apart_gives_the_same() {
    check("Softmax", |build, x| build.node(Node::new("Softmax", [x], []).named("it").with("axis", 1)));
    check("LogSoftmax", |build, x| build.op("LogSoftmax", "it", &[x]));
    check("LayerNormalization", |build, x| {
        let (scale, bias) = (build.weight("scale", &[5]), build.weight("bias", &[5]));
        build.op("LayerNormalization", "it", &[x, scale, bias])
    });
    check("InstanceNormalization", |build, x| {
        let (scale, bias) = (build.weight("scale", &[3]), build.weight("bias", &[3]));
        build.op("InstanceNormalization", "it", &[x, scale, bias])
    });
    check("BatchNormalization", |build, x| {
        let list = ["scale", "bias", "mean"].map(|name| build.weight(name, &[3]));
        let variance = build.graph.add_initializer(Tensor::from_f32("variance", &[3], &[0.5, 1.0, 2.0]));
        build.op("BatchNormalization", "it", &[x, list[0], list[1], list[2], variance])
    });
    check("Resize", |build, x| {
        let third = build.graph.add_initializer(Tensor::from_f32("third", &[], &[3.0]));
        let x = build.op("Div", "div", &[x, third]);
        let scales = build.graph.add_initializer(Tensor::from_f32("scales", &[4], &[1.0, 1.0, 2.0, 2.0]));
        let mut node = Node::new("Resize", [x], []).named("it");
        node.inputs = vec![Some(x), None, Some(scales)];
        build.node(node)
    });
    check("Conv", |build, x| {
        let weight = build.weight("weight", &[4, 3, 2, 2]);
        build.op("Conv", "it", &[x, weight])
    });
    check("depthwise Conv", |build, x| {
        let weight = build.weight("weight", &[3, 1, 3, 3]);
        build.node(Node::new("Conv", [x, weight], []).named("it").with("group", 3))
    });
    check("MatMul", |build, x| {
        let weight = build.weight("weight", &[5, 7]);
        build.op("MatMul", "it", &[x, weight])
    });
    check("Pow", |build, x| {
        let two = build.graph.add_initializer(Tensor::from_f32("two", &[], &[2.0]));
        build.op("Pow", "it", &[x, two])
    });
    check("ReduceMean", |build, x| build.op("ReduceMean", "it", &[x]));
    check("AveragePool", |build, x| {
        build.node(Node::new("AveragePool", [x], []).named("it").with("kernel_shape", vec![2i64, 3]))
    });
}

#[test]
fn an_interpolation_is_a_product() {
    for mode in ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"] {
        for factors in [[2.0, 2.0], [0.75, 1.4]] {
            check(mode, |build, x| {
                let third = build.graph.add_initializer(Tensor::from_f32("third", &[], &[3.0]));
                let x = build.op("Div", "div", &[x, third]);
                let scales = [1.0, 1.0, factors[0], factors[1]];
                let scales = build.graph.add_initializer(Tensor::from_f32("scales", &[4], &scales));
                let mut node = Node::new("Resize", [x], []).named("it");
                node.inputs = vec![Some(x), None, Some(scales)];
                for (name, value) in [("mode", "linear"), ("coordinate_transformation_mode", mode)] {
                    node.set_attr(name, crate::graph::AttributeValue::String(value.as_bytes().to_vec().into()));
                }
                build.node(node)
            });
        }
    }
}

/// tract does not turn sequences round: the other directions are held against ONNX Runtime, in `tests/engines.rs`.
#[test]
fn recurrent_layers_are_written_out() {
    for (name, gates, late) in [("LSTM", 4, None), ("GRU", 3, Some(0)), ("GRU", 3, Some(1))] {
        check(&format!("{name} {late:?}"), |build, x| {
            let sizes = build.graph.add_initializer(Tensor::from_i64("sizes", &[3], &[6, 4, 5]));
            let x = build.op("Reshape", "reshape", &[x, sizes]);
            let weight = build.weight("w", &[1, gates * 3, 5]);
            let recurrent = build.weight("r", &[1, gates * 3, 3]);
            let bias = build.weight("b", &[1, 2 * gates * 3]);
            let node = Node::new(name, [x, weight, recurrent, bias], []).named("it").with("hidden_size", 3);
            build.node(match late {
                Some(late) => node.with("linear_before_reset", late),
                None => node,
            })
        });
    }
}

#[test]
fn what_would_be_float32_is_refused() {
    let mut build = Build::new();
    let x = build.input("x", DType::Float, &[1, 8]);
    let y = build.op("LpNormalization", "it", &[x]);
    let error = Double.compile(&build.finish(&[y])).err().unwrap();
    assert_eq!(
        error.to_string(),
        "tract in float64 cannot run node 'it' (LpNormalization): it is computed in float32 only"
    );
}
