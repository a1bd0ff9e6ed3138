//! What the Neuron compiler refuses, looked for in the module before the compiler sees it.
//!
//! Each finding carries the code that the compiler would give and what answers it. porter's own lowering of a prepared part
//! gives none; a module made elsewhere, or a target file that allows what it should not, may. [`silent`] finds what compiles
//! and is known to be computed wrongly by some versions; which versions, the target file says.

use std::collections::HashMap;

use super::hlo::proto::{HloInstructionProto, HloModuleProto, ShapeProto};

/// Ids above this crash the compiler (N46).
const LARGEST_ID: i64 = 1 << 31;

/// Something that does not compile.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The compiler's error, or the name of the fault where it has none.
    pub code: String,
    /// The instruction's name.
    pub instruction: String,
    /// The ONNX node it comes from; empty where that is not known.
    pub node: String,
    /// What is wrong.
    pub problem: String,
    /// What answers it: a rule of porter's, or what to do.
    pub answer: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let node = if self.node.is_empty() { String::new() } else { format!(" (node '{}')", self.node) };
        write!(f, "{}: {}{node}: {}. {}", self.code, self.instruction, self.problem, self.answer)
    }
}

/// XLA's numbers of element types.
mod element {
    pub const INTEGERS: std::ops::RangeInclusive<i32> = 2..=9;
    pub const U64: i32 = 9;
    pub const F64: i32 = 12;
    pub const C64: i32 = 15;
    pub const C128: i32 = 18;
}

/// Everything in a module that the Neuron compiler would refuse, in the module's order.
pub fn check(module: &HloModuleProto) -> Vec<Finding> {
    let mut found = Vec::new();
    for computation in &module.computations {
        let types: HashMap<i64, i32> = computation
            .instructions
            .iter()
            .map(|one| (one.id.unwrap_or_default(), element_of(one.shape.as_ref())))
            .collect();
        for instruction in &computation.instructions {
            look(instruction, &types, &mut found);
        }
    }
    found
}

/// What compiles, and some versions of the compiler are known to compute wrongly. The code is the fault's name in the
/// target file, whose versions say whether it strikes.
pub fn silent(module: &HloModuleProto) -> Vec<Finding> {
    let mut found = Vec::new();
    for instruction in module.computations.iter().flat_map(|computation| &computation.instructions) {
        let element = element_of(instruction.shape.as_ref());
        let (code, problem) = match instruction.opcode.as_deref() {
            Some("reverse") => ("N39-reverse", "a copy with a negative step gives wrong values"),
            Some("divide") if element::INTEGERS.contains(&element) => {
                ("N39-division", "a division of integers gives wrong values")
            }
            _ => continue,
        };
        found.push(Finding {
            code: code.into(),
            instruction: instruction.name.clone().unwrap_or_default(),
            node: instruction.metadata.as_ref().and_then(|from| from.op_name.clone()).unwrap_or_default(),
            problem: problem.into(),
            answer: "Upgrade, or leave it to the CPU".into(),
        });
    }
    found
}

fn look(instruction: &HloInstructionProto, types: &HashMap<i64, i32>, found: &mut Vec<Finding>) {
    let opcode = instruction.opcode.as_deref().unwrap_or_default();
    let mut tell = |code: &str, problem: String, answer: &str| {
        found.push(Finding {
            code: code.into(),
            instruction: instruction.name.clone().unwrap_or_default(),
            node: instruction.metadata.as_ref().and_then(|from| from.op_name.clone()).unwrap_or_default(),
            problem,
            answer: answer.into(),
        });
    };
    let windows = || instruction.window.iter().flat_map(|window| &window.dimensions);
    let above = |size: Option<i64>| size.is_some_and(|size| size > 1);
    match opcode {
        "sort" | "topk" => tell(
            "NCC_EVRF029",
            format!("a {opcode} does not compile"),
            "Cut: `porter prepare --target neuron` leaves the selection to a part on the host (N4)",
        ),
        "convolution" if windows().any(|w| above(w.base_dilation) && above(w.stride)) => tell(
            "NCC_EVRF011",
            "a convolution has a stride and an input dilation".into(),
            "Make it two steps: the dilation first, the strided convolution after it (N30)",
        ),
        "convolution" if windows().any(|w| above(w.base_dilation) && above(w.window_dilation)) => tell(
            "NCC_EVRF010",
            "a convolution has an input dilation and a kernel dilation".into(),
            "Make it two steps, or leave the transposed convolution undilated (N30)",
        ),
        "reduce-window" if windows().any(|w| above(w.window_dilation) || above(w.base_dilation)) => tell(
            "NCC_EVRF018",
            "a pool has a dilation".into(),
            "Rule dilated-max-pool-to-slices makes slices and maxima of it (N31)",
        ),
        "dot" | "convolution" => {
            let operand = instruction.operand_ids.first().and_then(|id| types.get(id)).copied().unwrap_or_default();
            if element::INTEGERS.contains(&operand) {
                tell(
                    "NCC_EVRF035",
                    format!("a {opcode} of whole numbers does not compile"),
                    "Cast to float32, which is exact below 2^24 (N32)",
                );
            }
        }
        "while" | "conditional" | "call" => tell(
            "NCC_EUOC002",
            format!("'{opcode}' is control flow"),
            "Write the loop out: porter does for recurrent layers of up to 64 steps (N36)",
        ),
        _ => {}
    }
    if let Some(shape) = &instruction.shape {
        if is_dynamic(shape) {
            tell("NCC_EMOD025", "a size is not fixed".into(), "Freeze it with --shape or --batch (N33)");
        }
        match shape.element_type.unwrap_or_default() {
            element::F64 => tell("NCC_ESPP004", "it is a float64".into(), "Compute in float32: --dtype float32 (N16)"),
            element::U64 if opcode == "constant" => {
                tell("NCC_ESFH002", "a constant is a uint64".into(), "Use uint32 (N35)");
            }
            element::C64 | element::C128 => {
                tell("NCC_EVRF004", "it is a complex number".into(), "Write it as two real tensors (N34)");
            }
            _ => {}
        }
    }
    if instruction.id.is_some_and(|id| id > LARGEST_ID) {
        tell("N46", "its id is above 2^31, which crashes the compiler".into(), "Number instructions from 1");
    }
}

fn element_of(shape: Option<&ShapeProto>) -> i32 {
    shape.and_then(|shape| shape.element_type).unwrap_or_default()
}

fn is_dynamic(shape: &ShapeProto) -> bool {
    shape.is_dynamic_dimension.iter().any(|&dynamic| dynamic != 0)
        || shape.dimensions.iter().any(|&size| size < 0)
        || shape.tuple_shapes.iter().any(is_dynamic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;
    use crate::graph::builder::Build;
    use crate::lower::{Weights, hlo, lower};
    use crate::onnx::{DType, Tensor};

    fn codes(module: &HloModuleProto) -> Vec<String> {
        let mut codes: Vec<String> = check(module).into_iter().map(|finding| finding.code).collect();
        codes.dedup();
        codes
    }

    fn lowered(build: Build, outputs: &[crate::graph::ValueId]) -> HloModuleProto {
        hlo::to_proto(&lower(&build.finish(outputs), Weights::Constants).unwrap().module)
    }

    #[test]
    fn a_sort_is_found_with_its_node() {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[1, 8]);
        let k = build.ints("k", &[3]);
        let best = build.op("TopK", "choose", &[x, k]);
        let module = lowered(build, &[best]);
        let found = check(&module);
        assert_eq!((found[0].code.as_str(), found[0].node.as_str()), ("NCC_EVRF029", "choose"));
    }

    #[test]
    fn products_of_integers_and_dilated_pools_are_found() {
        let mut build = Build::new();
        let x = build.input("x", DType::Int64, &[2, 3]);
        let y = build.input("y", DType::Int64, &[3, 2]);
        let product = build.op("MatMul", "product", &[x, y]);
        assert_eq!(codes(&lowered(build, &[product])), ["NCC_EVRF035"]);

        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[1, 1, 8, 8]);
        let pool = Node::new("MaxPool", [x], []).named("pool");
        let pool = build.node(pool.with("kernel_shape", vec![2, 2]).with("dilations", vec![2, 2]));
        assert_eq!(codes(&lowered(build, &[pool])), ["NCC_EVRF018"]);
    }

    #[test]
    fn what_a_foreign_module_may_hold_is_found() {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[1, 4]);
        let y = build.op("Relu", "relu", &[x]);
        let mut module = lowered(build, &[y]);
        assert_eq!(codes(&module), [""; 0]);
        let instructions = &mut module.computations.last_mut().unwrap().instructions;
        instructions[0].id = Some((1 << 31) + 1);
        let mut shapes = instructions.iter_mut().rev().filter_map(|one| one.shape.as_mut());
        shapes.find(|shape| !shape.is_dynamic_dimension.is_empty()).unwrap().is_dynamic_dimension[0] = 1;
        assert_eq!(codes(&module), ["N46", "NCC_EMOD025"]);
    }

    #[test]
    fn a_transposed_convolution_has_no_stride_beside_its_dilation() {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[1, 2, 5, 5]);
        let w = build.weight("w", &[2, 3, 2, 2]);
        let node = Node::new("ConvTranspose", [x, w], []).named("up").with("strides", vec![2, 2]);
        let up = build.node(node);
        assert_eq!(codes(&lowered(build, &[up])), [""; 0]);
    }

    #[test]
    fn what_is_silently_wrong_is_found_in_whatever_it_becomes() {
        let silent_codes =
            |module: &HloModuleProto| silent(module).into_iter().map(|found| found.code).collect::<Vec<_>>();
        let mut build = Build::new();
        let x = build.input("x", DType::Int32, &[2, 6]);
        let axes = build.ints("axes", &[1]);
        let y = build.op("ReduceMean", "mean", &[x, axes]);
        assert_eq!(silent_codes(&lowered(build, &[y])), ["N39-division"]);

        let pad = |size: i64| {
            let mut build = Build::new();
            let x = build.input("x", DType::Float, &[1, 40]);
            let pads = build.ints("pads", &[0, size, 0, size]);
            let y = build.node(Node::new("Pad", [x, pads], []).named("pad").with("mode", "reflect"));
            silent_codes(&lowered(build, &[y]))
        };
        assert_eq!(pad(3), [""; 0], "a narrow border needs nothing turned round");
        assert_eq!(pad(20), ["N39-reverse", "N39-reverse"]);
    }

    /// What is found in a module whose entry has one instruction changed by hand, as another lowering might write it.
    fn changed(change: impl FnOnce(&mut HloInstructionProto)) -> Vec<Finding> {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[1, 2, 9, 9]);
        let w = build.weight("w", &[3, 2, 3, 3]);
        let y = build.op("Conv", "conv", &[x, w]);
        let mut module = lowered(build, &[y]);
        let mut all = module.computations.iter_mut().flat_map(|computation| &mut computation.instructions);
        change(all.find(|one| one.opcode.as_deref() == Some("convolution")).unwrap());
        check(&module)
    }

    fn window(instruction: &mut HloInstructionProto) -> &mut crate::lower::hlo::proto::WindowDimension {
        &mut instruction.window.as_mut().unwrap().dimensions[0]
    }

    #[test]
    fn each_refusal_has_its_code_and_what_answers_it() {
        let cases: [(&str, &str, Vec<Finding>); 5] = [
            (
                "NCC_EVRF011",
                "two steps",
                changed(|one| {
                    window(one).base_dilation = Some(2);
                    window(one).stride = Some(2);
                }),
            ),
            (
                "NCC_EVRF010",
                "two steps",
                changed(|one| {
                    window(one).base_dilation = Some(2);
                    window(one).window_dilation = Some(2);
                }),
            ),
            (
                "NCC_EVRF004",
                "two real tensors",
                changed(|one| one.shape.as_mut().unwrap().element_type = Some(element::C64)),
            ),
            (
                "NCC_ESPP004",
                "--dtype float32",
                changed(|one| one.shape.as_mut().unwrap().element_type = Some(element::F64)),
            ),
            (
                "NCC_EVRF029",
                "leaves the selection to a part on the host",
                changed(|one| one.opcode = Some("sort".into())),
            ),
        ];
        for (code, answer, found) in cases {
            let told = found.iter().find(|finding| finding.code == code).unwrap_or_else(|| panic!("{code}: {found:?}"));
            assert!(told.answer.contains(answer), "{told}");
            assert_eq!(told.node, "conv", "{told}");
        }
        assert_eq!(changed(|_| {}), []);
    }

    #[test]
    fn loops_and_wide_unsigned_constants_are_found() {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[80, 1, 2]);
        let (w, r) = (build.weight("w", &[1, 3, 2]), build.weight("r", &[1, 3, 3]));
        let layer = Node::new("RNN", [x, w, r], []).named("rnn").with("hidden_size", 3i64);
        let y = build.node(layer);
        let module = lowered(build, &[y]);
        assert_eq!(codes(&module), ["NCC_EUOC002"], "80 steps are not written out");

        let mut build = Build::new();
        let x = build.input("x", DType::Uint64, &[3]);
        let one = build.graph.add_initializer(Tensor::from_i64s("one", DType::Uint64, &[3], &[1, 2, 3]).unwrap());
        let y = build.op("Add", "add", &[x, one]);
        assert_eq!(codes(&lowered(build, &[y])), ["NCC_ESFH002"]);
    }
}
