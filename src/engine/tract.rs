//! The embedded engine: tract, in process, nothing to install.
//!
//! A model goes over as its own messages. Large weights do not travel inside them: the messages say "external data
//! number i", and [`Weights`] answers with the tensor's bytes, one at a time, so that a model never stands in memory
//! as protobuf *and* as tensors.
//!
//! tract compiles for the sizes it is told. A model with free sizes is compiled when a run shows what they are, and
//! again when they change. tract looks operators up by name alone, without their domain, so operators of foreign
//! domains are refused here before it takes them for something else. It has no bfloat16: see [`super::emulate`].
//!
//! Seen against ONNX Runtime 1.31 on the test models: where a sigmoid should vanish, something near 6e-6 is left (the
//! prototypes of yolo26n-seg have a channel of it); float32 detectors agree otherwise within what rounding explains.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tract_onnx::data_resolver::ModelDataResolver;
use tract_onnx::prelude::{
    DatumType, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, IntoTValue, TypedRunnableModel,
};
use tract_onnx::tract_core::internal::{TVec, TractResult};
use tract_onnx::tract_hir::internal::{ElementWiseIntoHir, bail, format_err};

use super::{Engine, EngineError, Session, Tensors, double, emulate, in_order, quiet};
use crate::graph::{Graph, Model};
use crate::onnx::proto::{LOCATION_EXTERNAL, ModelProto, StringStringEntryProto};
use crate::onnx::{DType, Tensor};

/// Weights of at least this many bytes go over by number.
const LARGE: usize = 4096;
const NAME: &str = "tract";

/// tract on the CPU, one thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tract;

impl Engine for Tract {
    fn name(&self) -> String {
        NAME.into()
    }

    fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
        let fixed = model.graph.inputs.iter().all(|&id| model.graph.value(id).static_shape().is_some());
        let proto = model.to_proto();
        let graph = proto.graph.as_ref();
        let initializers: std::collections::HashSet<&str> =
            graph.iter().flat_map(|graph| &graph.initializer).map(|tensor| tensor.name()).collect();
        let inputs: Vec<String> = graph
            .iter()
            .flat_map(|graph| &graph.input)
            .filter_map(|info| info.name.clone())
            .filter(|name| !initializers.contains(name.as_str()))
            .collect();
        let outputs = model.graph.outputs.iter().map(|&id| model.graph.value(id).name.clone()).collect();
        let parsed = guarded(compile_error, || parse(&model.graph, proto))??;
        let mut session = TractSession { parsed, inputs, outputs, plan: None };
        if fixed {
            let facts: Option<Vec<Shape>> = session
                .inputs
                .iter()
                .map(|name| {
                    let value = model.graph.value(model.graph.value_named(name)?);
                    Some((datum_type(value.dtype?)?, sizes(&value.static_shape()?)?))
                })
                .collect();
            if let Some(facts) = facts {
                session.prepare(facts)?;
            }
        }
        Ok(Box::new(session))
    }
}

/// Type and sizes of one input.
type Shape = (DatumType, Vec<usize>);

struct TractSession {
    parsed: InferenceModel,
    inputs: Vec<String>,
    outputs: Vec<String>,
    plan: Option<(Vec<Shape>, Arc<TypedRunnableModel>)>,
}

impl TractSession {
    /// The plan for these inputs: the one at hand, or a new one.
    fn prepare(&mut self, facts: Vec<Shape>) -> Result<Arc<TypedRunnableModel>, EngineError> {
        if let Some((_, plan)) = self.plan.as_ref().filter(|(made_for, _)| *made_for == facts) {
            return Ok(plan.clone());
        }
        let plan = guarded(compile_error, || -> TractResult<_> {
            let mut model = self.parsed.clone();
            for (index, (dtype, shape)) in facts.iter().enumerate() {
                model.set_input_fact(index, InferenceFact::dt_shape(*dtype, shape))?;
            }
            model.into_optimized()?.into_runnable()
        })?
        .map_err(|error| compile_error(told(&error)))?;
        self.plan = Some((facts, plan.clone()));
        Ok(plan)
    }
}

impl Session for TractSession {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, EngineError> {
        let given = in_order(NAME, &self.inputs, inputs)?;
        let mut facts = Vec::with_capacity(given.len());
        let mut values = TVec::new();
        for (name, tensor) in self.inputs.iter().zip(given) {
            let bad = |problem: String| EngineError::Input { engine: NAME.into(), input: name.clone(), problem };
            let value = to_tract(tensor).map_err(bad)?;
            facts.push((value.datum_type(), value.shape().to_vec()));
            values.push(value.into_tvalue());
        }
        let plan = self.prepare(facts)?;
        let results = guarded(run_error, || plan.run(values))?.map_err(|error| run_error(told(&error)))?;
        let mut outputs = Tensors::with_capacity(self.outputs.len());
        for (name, value) in self.outputs.iter().zip(results) {
            let tensor =
                from_tract(name, &value).map_err(|problem| run_error(format!("output '{name}': {problem}")))?;
            outputs.insert(name.clone(), tensor);
        }
        Ok(outputs)
    }
}

fn compile_error(problem: String) -> EngineError {
    EngineError::Compile { engine: NAME.into(), code: None, problem }
}

fn run_error(problem: String) -> EngineError {
    EngineError::Run { engine: NAME.into(), code: None, problem }
}

fn guarded<T>(kind: fn(String) -> EngineError, work: impl FnOnce() -> T) -> Result<T, EngineError> {
    quiet::catch(work).map_err(kind)
}

/// tract's chain of causes on one line, without the dumps of whole operators some of them carry.
fn told(error: &tract_onnx::prelude::TractError) -> String {
    let mut text = format!("{error:#}").replace('\n', " ");
    if let Some((end, _)) = text.char_indices().nth(600) {
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

fn parse(graph: &Graph, mut proto: ModelProto) -> Result<InferenceModel, EngineError> {
    let mut framework = tract_onnx::onnx().with_ignore_value_info(true);
    framework.op_register.insert(emulate::ROUND, |_, node| {
        let to = node.get_attr_opt::<i64>("to")?.and_then(|number| DType::from_number(number as i32));
        let to = to.ok_or_else(|| format_err!("no type to round to"))?;
        Ok((emulate::round_op(to).into_hir(), vec![]))
    });
    framework.op_register.insert(double::FUNCTION, |_, node| {
        let number = |name: &str| -> TractResult<f64> {
            let text = node.get_attr::<String>(name)?;
            text.parse().map_err(|_| format_err!("'{text}' is no number"))
        };
        let op = double::function_op(&node.get_attr::<String>("of")?, number("alpha")?, number("beta")?);
        Ok((op.into_hir(), vec![]))
    });
    check_operators(graph, &framework.op_register.0)?;
    let weights = Arc::new(Weights(take_weights(&mut proto)));
    framework.provider = weights;
    let bytes = crate::onnx::encode(&proto);
    drop(proto);
    let parse = || -> TractResult<InferenceModel> {
        let proto = tract_onnx::pb::ModelProto::decode(bytes)?;
        // Weights are asked for as data files, so tract wants a folder that is there.
        let parsed = framework.parse(&proto, Some("."))?;
        if let Some(name) = parsed.unresolved_inputs.first() {
            bail!("'{name}' is produced by no node");
        }
        Ok(parsed.model)
    };
    parse().map_err(|error| compile_error(told(&error)))
}

/// Refuses operators that tract does not have, and those it would take for others.
fn check_operators<T>(graph: &Graph, known: &std::collections::HashMap<String, T>) -> Result<(), EngineError> {
    for (id, node) in graph.nodes() {
        let refuse = |problem: String| {
            Err(EngineError::Unsupported {
                engine: NAME.into(),
                node: graph.label(id),
                op_type: node.op_type.clone(),
                problem,
            })
        };
        if !node.is_standard() && !["ai.onnx.ml", emulate::DOMAIN].contains(&node.domain.as_str()) {
            return refuse(format!("it has no operators of domain {}", node.domain));
        }
        if !known.contains_key(&node.op_type) {
            return refuse("it has no such operator".into());
        }
        // It would compute Swish without looking at alpha.
        if node.is("Swish") && node.float("alpha").is_some_and(|alpha| alpha != 1.0) {
            return refuse("it takes only alpha 1".into());
        }
        for (_, subgraph) in node.subgraphs() {
            check_operators(subgraph, known)?;
        }
    }
    Ok(())
}

/// Replaces every large weight's values by a number and returns the weights by number.
fn take_weights(proto: &mut ModelProto) -> Vec<Tensor> {
    let mut taken = Vec::new();
    let initializers = proto.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    for tensor in initializers {
        if tensor.raw_data.as_ref().is_none_or(|payload| payload.len() < LARGE) {
            continue;
        }
        let entry = |key: &str, value: String| StringStringEntryProto::new(key, value);
        let stub = Tensor {
            raw_data: None,
            data_location: Some(LOCATION_EXTERNAL),
            external_data: vec![entry("location", ".".into()), entry("offset", taken.len().to_string())],
            ..tensor.clone()
        };
        taken.push(std::mem::replace(tensor, stub));
    }
    taken
}

/// Answers tract's request for "the data file at offset i" with weight number i.
struct Weights(Vec<Tensor>);

impl ModelDataResolver for Weights {
    fn read_bytes_from_path(&self, buf: &mut Vec<u8>, _: &Path, offset: usize, _: Option<usize>) -> TractResult<()> {
        let payload = self.0.get(offset).and_then(|tensor| tensor.raw_data.as_ref());
        let payload = payload.ok_or_else(|| format_err!("there is no weight number {offset}"))?;
        buf.reserve(payload.len());
        payload.for_each_chunk(&mut |chunk| buf.extend_from_slice(chunk));
        Ok(())
    }
}

fn datum_type(dtype: DType) -> Option<DatumType> {
    Some(match dtype {
        DType::Float => DatumType::F32,
        DType::Double => DatumType::F64,
        DType::Float16 => DatumType::F16,
        DType::Int8 => DatumType::I8,
        DType::Int16 => DatumType::I16,
        DType::Int32 => DatumType::I32,
        DType::Int64 => DatumType::I64,
        DType::Uint8 => DatumType::U8,
        DType::Uint16 => DatumType::U16,
        DType::Uint32 => DatumType::U32,
        DType::Uint64 => DatumType::U64,
        DType::Bool => DatumType::Bool,
        DType::String => DatumType::String,
        _ => return None,
    })
}

fn sizes(dims: &[i64]) -> Option<Vec<usize>> {
    dims.iter().map(|&size| usize::try_from(size).ok()).collect()
}

fn to_tract(tensor: &Tensor) -> Result<tract_onnx::prelude::Tensor, String> {
    let dtype = tensor.dtype();
    tensor.check().map_err(|error| error.to_string())?;
    let datum = datum_type(dtype).ok_or_else(|| format!("is {dtype}, which tract does not have"))?;
    let shape = sizes(tensor.dims()).ok_or("has a negative size")?;
    if dtype == DType::String {
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).map_err(|_| "is not UTF-8".to_string());
        let texts = tensor.string_data.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let array = tract_onnx::prelude::tract_ndarray::ArrayD::from_shape_vec(shape, texts);
        return Ok(array.map_err(|error| error.to_string())?.into());
    }
    let bytes = tensor.to_bytes().map_err(|error| error.to_string())?;
    // SAFETY: plain numbers, and `check` made sure there are as many bytes as the sizes say.
    let mut value = unsafe { tract_onnx::prelude::Tensor::uninitialized_dt(datum, &shape) }.map_err(|e| told(&e))?;
    match dtype {
        // Any other byte in a Rust bool is undefined behaviour; files may hold one.
        DType::Bool => value.as_bytes_mut().iter_mut().zip(&bytes).for_each(|(to, &from)| *to = (from != 0) as u8),
        _ => value.as_bytes_mut().copy_from_slice(&bytes),
    }
    Ok(value)
}

fn from_tract(name: &str, value: &tract_onnx::prelude::Tensor) -> Result<Tensor, String> {
    // Sizes that tract computed symbolically are whole numbers to everybody else.
    let value = match value.datum_type() {
        DatumType::TDim => value.cast_to_dt(DatumType::I64).map_err(|error| told(&error))?,
        _ => std::borrow::Cow::Borrowed(value),
    };
    let dtype = DType::ALL.iter().copied().find(|&dtype| datum_type(dtype) == Some(value.datum_type()));
    let dtype = dtype.ok_or_else(|| format!("is {:?}, which ONNX does not have", value.datum_type()))?;
    let dims: Vec<i64> = value.shape().iter().map(|&size| size as i64).collect();
    if dtype == DType::String {
        let texts = value.to_plain_array_view::<String>().map_err(|error| told(&error))?;
        let texts = texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
        let tensor = Tensor { string_data: texts, raw_data: None, ..Tensor::new(name, dtype, &dims, Vec::new()) };
        return Ok(tensor);
    }
    Ok(Tensor::new(name, dtype, &dims, value.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;
    use crate::graph::builder::Build;

    fn tensors(list: Vec<Tensor>) -> Tensors {
        list.into_iter().map(|tensor| (tensor.name().to_string(), tensor)).collect()
    }

    #[test]
    fn large_and_small_weights_arrive() {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[1, 64]);
        let large = build.weight("large", &[64, 64]);
        let small = build.weight("small", &[64]);
        let y = build.op("MatMul", "mul", &[x, large]);
        let z = build.op("Add", "add", &[y, small]);
        let model = build.finish(&[z]);
        let ones = Tensor::from_f32("x", &[1, 64], &[1.0; 64]);
        let out = Tract.run_once(&model, &tensors(vec![ones])).unwrap();
        let weight =
            |name: &str| model.graph.constant(model.graph.value_named(name).unwrap()).unwrap().to_f32s().unwrap();
        let (large, small) = (weight("large"), weight("small"));
        let got = out["add_output_0"].to_f32s().unwrap();
        for column in 0..64 {
            let want: f32 = (0..64).map(|row| large[row * 64 + column]).sum::<f32>() + small[column];
            assert!((got[column] - want).abs() < 1e-5, "{column}: {} {want}", got[column]);
        }
    }

    #[test]
    fn free_sizes_are_compiled_as_they_come() {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[-1, 2]);
        let y = build.op("Relu", "relu", &[x]);
        let model = build.finish(&[y]);
        let mut session = Tract.compile(&model).unwrap();
        for rows in [1usize, 3, 1] {
            let values: Vec<f32> = (0..rows * 2).map(|i| i as f32 - 1.0).collect();
            let out = session.run(&tensors(vec![Tensor::from_f32("x", &[rows as i64, 2], &values)])).unwrap();
            let want: Vec<f32> = values.iter().map(|x| x.max(0.0)).collect();
            assert_eq!(out["relu_output_0"].to_f32s().unwrap(), want);
        }
    }

    #[test]
    fn every_plain_type_goes_through_unchanged() {
        use DType::*;
        for dtype in [Float, Double, Float16, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64, Bool] {
            for dims in [&[][..], &[3]] {
                let mut build = Build::new();
                let x = build.input("x", dtype, dims);
                let y = build.op("Identity", "same", &[x]);
                let model = build.finish(&[y]);
                let count = dims.iter().product::<i64>();
                let values: Vec<f64> = (0..count).map(|i| (i % 2) as f64).collect();
                let tensor = Tensor::from_f64s("x", dtype, dims, &values).unwrap();
                let out = Tract.run_once(&model, &tensors(vec![tensor.clone()])).unwrap();
                assert_eq!(out["same_output_0"], tensor.renamed("same_output_0"), "{dtype} {dims:?}");
            }
        }
    }

    #[test]
    fn failures_have_kinds() {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[2]);
        let y = build.op("NoSuchThing", "odd", &[x]);
        let error = Tract.compile(&build.finish(&[y])).err().unwrap();
        assert!(matches!(&error, EngineError::Unsupported { node, .. } if node == "odd"), "{error}");

        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[2]);
        let mut foreign = Node::new("Relu", [x], []).named("foreign");
        foreign.domain = "com.example".into();
        let y = build.node(foreign);
        let error = Tract.compile(&build.finish(&[y])).err().unwrap();
        assert_eq!(
            error.to_string(),
            "tract cannot run node 'foreign' (Relu): it has no operators of domain com.example"
        );

        let mut build = Build::new();
        let (x, y) = (build.input("x", DType::Float, &[2]), build.input("y", DType::Float, &[3]));
        let z = build.op("MatMul", "mul", &[x, y]);
        let error = Tract.compile(&build.finish(&[z])).err().unwrap();
        assert!(matches!(error, EngineError::Compile { .. }), "{error}");

        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[2]);
        let y = build.op("Relu", "relu", &[x]);
        let error = Tract.run_once(&build.finish(&[y]), &Tensors::new()).unwrap_err();
        assert_eq!(error.to_string(), "tract: input 'x' is missing");
    }
}
