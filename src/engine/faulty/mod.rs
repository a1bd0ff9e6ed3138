//! Faults on purpose: an engine that does what a broken compiler would do, so that what looks for faults can be tried.
//!
//! [`Faulty`] changes the graph before it hands it to the engine that it wraps. A fault is looked for in *whatever* graph
//! is compiled, by operator, sizes, neighbours or name, so it strikes in a piece cut out of a model exactly where it would
//! strike in the model, and not where the piece lacks what triggers it. Compile errors, crashes and hangs are given back
//! as the errors they would be.
//!
//! Two kinds need more than a graph: a *stale* output is what the run before gave, and a *nondeterministic* one has other
//! noise each time. For these the graph gets an input more, which the session feeds.

mod fault;
mod plant;

use std::sync::Arc;

pub use fault::{Fault, Finder, Kind, Place};

use super::random::Random;
use super::{Engine, EngineError, Session, Tensors};
use crate::graph::{Dim, Model};
use crate::onnx::Tensor;
use plant::Planted;

/// An engine with faults planted.
pub struct Faulty {
    base: Arc<dyn Engine>,
    faults: Vec<Fault>,
    label: String,
}

impl Faulty {
    /// Plants faults in `base`. `label` names them in front of a reader: `N1, N3`.
    pub fn new(base: Arc<dyn Engine>, faults: Vec<Fault>, label: &str) -> Self {
        Self { base, faults, label: label.into() }
    }

    /// The nodes of a model at which the faults strike when it is compiled as it is, fault by fault.
    pub fn strikes(&self, model: &Model) -> Vec<Vec<String>> {
        let mut known = model.clone();
        let _ = crate::graph::shapes::infer(&mut known);
        let label = |id: &crate::graph::NodeId| known.graph.label(*id);
        self.faults.iter().map(|fault| fault.places(&known).iter().map(label).collect()).collect()
    }

    fn compile_fixed(&self, model: &Model) -> Result<FaultySession, EngineError> {
        let planted = plant::plant(model, &self.faults, &self.name())?;
        let session = self.base.compile(&planted.model)?;
        Ok(FaultySession { session, planted, runs: 0, name: self.name() })
    }
}

impl Engine for Faulty {
    fn name(&self) -> String {
        format!("faulty: {} (simulated, on {})", self.label, self.base.name())
    }

    fn version(&self) -> String {
        let faults: Vec<String> = self.faults.iter().map(|fault| format!("{fault:?}")).collect();
        format!("{} {}", self.base.version(), faults.join(";"))
    }

    fn compile(&self, model: &Model) -> Result<Box<dyn Session>, EngineError> {
        let fixed = model.graph.inputs.iter().all(|&id| model.graph.value(id).static_shape().is_some());
        if fixed {
            return Ok(Box::new(self.compile_fixed(model)?));
        }
        // Where a fault strikes depends on sizes, so it is decided when they are known.
        let lazy = Lazy {
            faulty: Faulty { base: self.base.clone(), faults: self.faults.clone(), label: self.label.clone() },
            model: model.clone(),
            made: None,
        };
        Ok(Box::new(lazy))
    }
}

struct FaultySession {
    session: Box<dyn Session>,
    planted: Planted,
    runs: u64,
    name: String,
}

impl Session for FaultySession {
    fn strikes(&self) -> Option<usize> {
        Some(self.planted.strikes)
    }

    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, EngineError> {
        self.runs += 1;
        if let Some(code) = &self.planted.run_fails {
            let problem = "simulated: the target ends here".to_string();
            return Err(EngineError::Run { engine: self.name.clone(), code: Some(code.clone()), problem });
        }
        if self.planted.noisy.is_empty() && self.planted.stale.is_empty() {
            return self.session.run(inputs);
        }
        let mut all = inputs.clone();
        for stale in &self.planted.stale {
            all.insert(stale.input.clone(), stale.last.clone());
        }
        for noise in &self.planted.noisy {
            let mut random = Random::new(self.runs, &noise.input);
            let count = noise.dims.iter().product::<i64>().max(0) as usize;
            let values: Vec<f32> = (0..count).map(|_| random.normal()).collect();
            all.insert(noise.input.clone(), Tensor::from_f32(&noise.input, &noise.dims, &values));
        }
        let mut outputs = self.session.run(&all)?;
        for stale in &mut self.planted.stale {
            if let Some(now) = outputs.shift_remove(&stale.output) {
                stale.last = now.renamed(stale.input.clone());
            }
        }
        Ok(outputs)
    }
}

/// A model with free sizes: compiled for those that a run brings.
struct Lazy {
    faulty: Faulty,
    model: Model,
    made: Option<(Vec<Vec<i64>>, FaultySession)>,
}

impl Session for Lazy {
    fn run(&mut self, inputs: &Tensors) -> Result<Tensors, EngineError> {
        let graph = &self.model.graph;
        let names: Vec<String> = graph.inputs.iter().map(|&id| graph.value(id).name.clone()).collect();
        let given = super::in_order(&self.faulty.name(), &names, inputs)?;
        let sizes: Vec<Vec<i64>> = given.iter().map(|tensor| tensor.dims().to_vec()).collect();
        if self.made.as_ref().is_none_or(|(made_for, _)| *made_for != sizes) {
            let mut fixed = self.model.clone();
            for (&id, dims) in graph.inputs.iter().zip(&sizes) {
                fixed.graph.value_mut(id).shape = Some(dims.iter().map(|&size| Dim::Fixed(size)).collect());
            }
            let session = match self.faulty.compile_fixed(&fixed) {
                // A branch that is not taken may not allow these sizes; where nothing is planted they are not needed.
                Err(error) if self.faulty.strikes(&fixed).iter().all(Vec::is_empty) => {
                    let session = self.faulty.base.compile(&self.model).map_err(|_| error)?;
                    let planted =
                        Planted { model: fixed, stale: Vec::new(), noisy: Vec::new(), run_fails: None, strikes: 0 };
                    FaultySession { session, planted, runs: 0, name: self.faulty.name() }
                }
                outcome => outcome?,
            };
            self.made = Some((sizes, session));
        }
        match &mut self.made {
            Some((_, session)) => session.run(inputs),
            None => Ok(Tensors::new()),
        }
    }

    fn strikes(&self) -> Option<usize> {
        self.made.as_ref()?.1.strikes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tract::Tract;
    use crate::graph::Node;
    use crate::graph::builder::Build;
    use crate::onnx::DType;

    /// x [2,3,4] -> Split on axis 1 into 1 and 2 -> Relu of the second
    fn split() -> Model {
        let mut build = Build::new();
        let x = build.input("x", DType::Float, &[2, 3, 4]);
        let sizes = build.ints("sizes", &[1, 2]);
        let (a, b) = (build.graph.add_value("a"), build.graph.add_value("b"));
        build.graph.add_node(Node::new("Split", [x, sizes], [a, b]).named("split").with("axis", 1));
        let y = build.op("Relu", "relu", &[b]);
        build.finish(&[a, y])
    }

    fn counting(dims: &[i64]) -> Tensors {
        let count = dims.iter().product::<i64>();
        let values: Vec<f32> = (0..count).map(|i| i as f32).collect();
        Tensors::from_iter([("x".to_string(), Tensor::from_f32("x", dims, &values))])
    }

    fn faulty(fault: Fault) -> Faulty {
        Faulty::new(Arc::new(Tract), vec![fault], "test")
    }

    fn run(fault: Fault, name: &str) -> Vec<f32> {
        let out = faulty(fault).run_once(&split(), &counting(&[2, 3, 4])).unwrap();
        out[name].to_f32s().unwrap()
    }

    #[test]
    fn a_stride_drop_reads_contiguous_runs() {
        let fault = Fault::new(Kind::StrideDrop, Place::op("Split"));
        let a = run(fault.clone(), "a");
        assert_eq!(a, (0..8).map(|i| i as f32).collect::<Vec<_>>());
        let y = run(fault, "relu_output_0");
        assert_eq!(y, (4..20).map(|i| i as f32).collect::<Vec<_>>());
    }

    #[test]
    fn a_fault_may_keep_to_one_batch_element_and_channel() {
        let fault = Fault { batch: Some(1), channel: Some(0), ..Fault::new(Kind::Zeroed, Place::node("relu")) };
        let y = run(fault, "relu_output_0");
        assert_eq!(y[..8], (4..12).map(|i| i as f32).collect::<Vec<_>>());
        assert_eq!(y[8..], [0.0, 0.0, 0.0, 0.0, 20.0, 21.0, 22.0, 23.0]);
    }

    #[test]
    fn every_kind_of_value_fault_runs_and_changes_something() {
        let right = Tract.run_once(&split(), &counting(&[2, 3, 4])).unwrap()["relu_output_0"].to_f32s().unwrap();
        for kind in Kind::ALL.iter().filter(|kind| kind.changes_values()) {
            if matches!(kind, Kind::StrideDrop | Kind::WrongMode | Kind::ConstantTransposed) {
                continue; // not for a Relu
            }
            let fault =
                Fault { dtype: Some(DType::Bfloat16), amount: Some(1.5), ..Fault::new(*kind, Place::op("Relu")) };
            let mut session = faulty(fault).compile(&split()).unwrap();
            let input = Tensors::from_iter([(
                "x".to_string(),
                Tensor::from_f32("x", &[2, 3, 4], &(0..24).map(|i| i as f32 * 1.01).collect::<Vec<_>>()),
            )]);
            let wrong = session.run(&input).unwrap()["relu_output_0"].to_f32s().unwrap();
            assert!(wrong.len() == right.len() && wrong.iter().zip(&right).any(|(a, b)| a != b), "{kind:?}");
        }
    }

    #[test]
    fn stale_gives_what_the_run_before_should_have_given() {
        let mut session = faulty(Fault::new(Kind::Stale, Place::op("Relu"))).compile(&split()).unwrap();
        let first = session.run(&counting(&[2, 3, 4])).unwrap()["relu_output_0"].to_f32s().unwrap();
        assert!(first.iter().all(|&x| x == 0.0));
        let second = session.run(&counting(&[2, 3, 4])).unwrap()["relu_output_0"].to_f32s().unwrap();
        assert_eq!(second[0], 4.0);
    }

    #[test]
    fn a_fusion_fault_needs_both_nodes_and_what_is_between_them_hidden() {
        let after = Place { after: Some("Split".into()), ..Place::op("Relu") };
        let fault = Fault::new(Kind::Zeroed, after);
        assert!(run(fault.clone(), "relu_output_0").iter().all(|&x| x == 0.0));
        let mut model = split();
        let between = model.graph.value_named("b").unwrap();
        model.graph.outputs.push(between);
        let shown = faulty(fault).run_once(&model, &counting(&[2, 3, 4])).unwrap();
        assert!(shown["relu_output_0"].to_f32s().unwrap().iter().any(|&x| x != 0.0));
    }

    #[test]
    fn errors_come_with_their_code_and_only_where_they_strike() {
        let place = Place { min_batch: Some(2), ..Place::op("Split") };
        let fault = Fault { code: Some("exit:70".into()), ..Fault::new(Kind::Crash, place) };
        let error = faulty(fault.clone()).compile(&split()).err().unwrap();
        assert_eq!(error.code(), Some("exit:70"));
        let mut small = split();
        let x = small.graph.inputs[0];
        small.graph.value_mut(x).shape = Some([1, 3, 4].map(Dim::Fixed).to_vec());
        assert!(faulty(fault).run_once(&small, &counting(&[1, 3, 4])).is_ok());
    }
}
