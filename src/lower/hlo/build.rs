//! Makes instructions one after another, each with its shape worked out.
//!
//! What does not fit together is kept as the first [`Builder::fault`] instead of being returned by each call, so that a
//! lowering reads as arithmetic; the caller asks for the fault after each node.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Binary, Computation, Direction, Inner, Instruction, Kind, Literal, Module, Op, Origin, Shape, Unary};
use crate::onnx::{DType, Payload, Tensor};

/// A module in the making.
pub struct Builder {
    pub(super) current: Computation,
    pub(super) inner: Vec<Computation>,
    scalars: HashMap<(DType, Vec<u8>), Op>,
    reducers: HashMap<(Binary, DType), Inner>,
    pub(super) comparators: HashMap<(Vec<DType>, bool), Inner>,
    pub(super) seconds: HashMap<DType, Inner>,
    origin: Option<Arc<Origin>>,
    fault: Option<String>,
}

impl Builder {
    /// A module without instructions.
    pub fn new() -> Self {
        Self {
            current: Computation { name: "main".into(), ..Default::default() },
            inner: Vec::new(),
            scalars: HashMap::new(),
            reducers: HashMap::new(),
            comparators: HashMap::new(),
            seconds: HashMap::new(),
            origin: None,
            fault: None,
        }
    }

    /// The module, giving these values.
    pub fn finish(mut self, name: &str, results: Vec<Op>) -> Module {
        self.current.results = results;
        Module { name: name.to_string(), entry: self.current, inner: self.inner }
    }

    /// What the following instructions come from.
    pub fn set_origin(&mut self, op_type: &str, node: &str) {
        self.origin = Some(Arc::new(Origin { op_type: op_type.into(), node: node.into() }));
    }

    /// What first went wrong, if something did; forgets it.
    pub fn take_fault(&mut self) -> Option<String> {
        self.fault.take()
    }

    /// Keeps what went wrong, unless something did before.
    pub fn fail(&mut self, what: impl FnOnce() -> String) {
        self.fault.get_or_insert_with(what);
    }

    /// The shape of what an instruction gives.
    pub fn shape(&self, op: Op) -> &Shape {
        self.current.shape(op)
    }

    /// The sizes of what an instruction gives.
    pub fn dims(&self, op: Op) -> Vec<i64> {
        self.shape(op).dims.clone()
    }

    /// The element type of what an instruction gives.
    pub fn dtype(&self, op: Op) -> DType {
        self.shape(op).dtype
    }

    pub(super) fn push(&mut self, kind: Kind, operands: &[Op], shape: Shape) -> Op {
        self.push_many(kind, operands, vec![shape])
    }

    pub(super) fn push_many(&mut self, kind: Kind, operands: &[Op], shapes: Vec<Shape>) -> Op {
        let id = Op(self.current.instructions.len() as u32);
        let origin = self.origin.clone();
        self.current.instructions.push(Instruction { kind, operands: operands.to_vec(), shapes, origin });
        id
    }

    /// The next parameter. Parameters are made before anything else.
    pub fn parameter(&mut self, name: &str, shape: Shape) -> Op {
        let index = self.current.parameters().count();
        self.push(Kind::Parameter { index, name: name.into() }, &[], shape)
    }

    /// A constant with these elements, little-endian and row-major.
    pub fn constant(&mut self, shape: Shape, literal: Literal) -> Op {
        if shape.dtype.byte_len(shape.len() as usize) != Some(literal.payload.len()) {
            let found = literal.payload.len();
            self.fail(|| format!("a constant of {shape:?} has {found} bytes"));
        }
        if shape.dims.is_empty() && literal.weight.is_none() {
            let key = (shape.dtype, literal.payload.to_bytes().to_vec());
            if let Some(&op) = self.scalars.get(&key) {
                return op;
            }
            let op = self.push(Kind::Constant(literal), &[], shape);
            self.scalars.insert(key, op);
            return op;
        }
        self.push(Kind::Constant(literal), &[], shape)
    }

    /// A weight: a constant that keeps its name.
    pub fn weight(&mut self, name: &str, shape: Shape, payload: Payload) -> Op {
        self.constant(shape, Literal { payload, weight: Some(name.to_string()) })
    }

    /// A scalar.
    pub fn scalar(&mut self, dtype: DType, value: f64) -> Op {
        self.numbers(dtype, &[], &[value])
    }

    /// A constant from numbers, rounded to the type.
    pub fn numbers(&mut self, dtype: DType, dims: &[i64], values: &[f64]) -> Op {
        match Tensor::from_f64s("", dtype, dims, values).and_then(|tensor| tensor.to_bytes().ok()) {
            Some(bytes) => self.constant(Shape::new(dtype, dims), Literal::anonymous(bytes)),
            None if super::element_number(dtype) != 0 => {
                let wide = self.numbers(DType::Float, dims, values);
                self.convert(wide, dtype)
            }
            None => {
                self.fail(|| format!("there are no numbers of type {dtype}"));
                self.constant(Shape::new(DType::Float, []), Literal::anonymous(vec![0; 4]))
            }
        }
    }

    /// A constant from whole numbers.
    pub fn integers(&mut self, dtype: DType, dims: &[i64], values: &[i64]) -> Op {
        match Tensor::from_i64s("", dtype, dims, values).and_then(|tensor| tensor.to_bytes().ok()) {
            Some(bytes) => self.constant(Shape::new(dtype, dims), Literal::anonymous(bytes)),
            None => self.numbers(dtype, dims, &values.iter().map(|&x| x as f64).collect::<Vec<_>>()),
        }
    }

    /// A number in every place of a tensor shaped like `like`.
    pub fn full_like(&mut self, like: Op, value: f64) -> Op {
        let shape = self.shape(like).clone();
        self.full(shape, value)
    }

    /// A number in every place.
    pub fn full(&mut self, shape: Shape, value: f64) -> Op {
        let scalar = self.scalar(shape.dtype, value);
        self.broadcast(scalar, &shape.dims, &[])
    }

    /// The largest (or smallest) number of a type; infinity for floats.
    pub fn extreme(&mut self, dtype: DType, largest: bool) -> Op {
        use DType::*;
        let bits = dtype.bits();
        if dtype.is_float() {
            return self.scalar(dtype, if largest { f64::INFINITY } else { f64::NEG_INFINITY });
        }
        let value = match (dtype, largest) {
            (Bool, _) => largest as i64,
            (Uint8 | Uint16 | Uint32, true) => (1i64 << bits) - 1,
            (Uint64, true) => -1,
            (Uint8 | Uint16 | Uint32 | Uint64, false) => 0,
            (_, true) => i64::MAX >> (64 - bits),
            (_, false) => i64::MIN >> (64 - bits),
        };
        self.integers(dtype, &[], &[value])
    }

    /// Counts up along one dimension.
    pub fn iota(&mut self, dtype: DType, dims: &[i64], dim: usize) -> Op {
        self.push(Kind::Iota { dim: dim as i64 }, &[], Shape::new(dtype, dims))
    }

    /// A function of one tensor.
    pub fn unary(&mut self, unary: Unary, x: Op) -> Op {
        let mut shape = self.shape(x).clone();
        if !unary.takes(shape.dtype) {
            self.fail(|| format!("there is no {} of {}", unary.opcode(), shape.dtype));
        }
        if unary == Unary::IsFinite {
            shape.dtype = DType::Bool;
        }
        self.push(Kind::Unary(unary), &[x], shape)
    }

    /// A function of two tensors of one shape.
    pub fn binary(&mut self, binary: Binary, x: Op, y: Op) -> Op {
        let shape = self.same(x, y, binary.opcode());
        self.push(Kind::Binary(binary), &[x, y], shape)
    }

    /// A function of two tensors, sizes broadcast as numpy does.
    pub fn binary_across(&mut self, binary: Binary, x: Op, y: Op) -> Op {
        let (x, y) = self.align(x, y);
        self.binary(binary, x, y)
    }

    /// Compares two tensors, sizes broadcast as numpy does.
    pub fn compare(&mut self, direction: Direction, x: Op, y: Op) -> Op {
        let (x, y) = self.align(x, y);
        let mut shape = self.same(x, y, "compare");
        shape.dtype = DType::Bool;
        self.push(Kind::Compare(direction), &[x, y], shape)
    }

    /// `yes` where `condition` holds, else `no`; sizes broadcast as numpy does.
    pub fn select(&mut self, condition: Op, yes: Op, no: Op) -> Op {
        let (condition, yes) = self.align(condition, yes);
        let (yes, no) = self.align(yes, no);
        let (condition, no) = self.align(condition, no);
        let (condition, yes) = self.align(condition, yes);
        let shape = self.same(yes, no, "select");
        if self.dtype(condition) != DType::Bool {
            self.fail(|| "a select needs a bool to choose by".into());
        }
        self.push(Kind::Select, &[condition, yes, no], shape)
    }

    fn same(&mut self, x: Op, y: Op, what: &str) -> Shape {
        let (left, right) = (self.shape(x).clone(), self.shape(y).clone());
        if left != right {
            self.fail(|| format!("{what} of {}{:?} and {}{:?}", left.dtype, left.dims, right.dtype, right.dims));
        }
        left
    }

    /// Both tensors in the sizes that numpy's broadcasting gives them.
    pub fn align(&mut self, x: Op, y: Op) -> (Op, Op) {
        let (left, right) = (self.dims(x), self.dims(y));
        if left == right {
            return (x, y);
        }
        let Some(dims) = broadcast_dims(&left, &right) else {
            self.fail(|| format!("sizes {left:?} and {right:?} do not broadcast"));
            return (x, x);
        };
        (self.expand(x, &dims), self.expand(y, &dims))
    }

    /// A tensor of another element type. What is that type already is given back.
    pub fn convert(&mut self, x: Op, dtype: DType) -> Op {
        if self.dtype(x) == dtype {
            return x;
        }
        let shape = Shape::new(dtype, self.dims(x));
        self.push(Kind::Convert, &[x], shape)
    }

    /// The same bits as another type of the same width.
    pub fn bitcast(&mut self, x: Op, dtype: DType) -> Op {
        let from = self.dtype(x);
        if from.bits() != dtype.bits() {
            self.fail(|| format!("the bits of {from} are not as many as those of {dtype}"));
        }
        let shape = Shape::new(dtype, self.dims(x));
        self.push(Kind::BitcastConvert, &[x], shape)
    }

    /// The computation that combines two numbers.
    pub(super) fn reducer(&mut self, binary: Binary, dtype: DType) -> Inner {
        if let Some(&inner) = self.reducers.get(&(binary, dtype)) {
            return inner;
        }
        let shape = Shape::new(dtype, []);
        let name = format!("{}_{dtype}", binary.opcode());
        let inner = self.nested(&name, &[shape.clone(), shape], |b, given| vec![b.binary(binary, given[0], given[1])]);
        self.reducers.insert((binary, dtype), inner);
        inner
    }

    /// A computation of its own, made by `make` from its parameters.
    pub fn nested(&mut self, name: &str, given: &[Shape], make: impl FnOnce(&mut Self, &[Op]) -> Vec<Op>) -> Inner {
        let fresh = Computation { name: name.to_string(), ..Default::default() };
        let outer = std::mem::replace(&mut self.current, fresh);
        let scalars = std::mem::take(&mut self.scalars);
        let parameters: Vec<Op> =
            given.iter().enumerate().map(|(i, shape)| self.parameter(&format!("arg{i}"), shape.clone())).collect();
        let results = make(self, &parameters);
        self.scalars = scalars;
        let mut made = std::mem::replace(&mut self.current, outer);
        made.results = results;
        let id = Inner(self.inner.len() as u32);
        made.name = format!("{name}_{}", id.0);
        self.inner.push(made);
        id
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

/// The sizes that two tensors have together; `None` where they do not fit.
pub fn broadcast_dims(left: &[i64], right: &[i64]) -> Option<Vec<i64>> {
    let rank = left.len().max(right.len());
    let at = |dims: &[i64], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    (0..rank)
        .map(|i| match (at(left, i), at(right, i)) {
            (a, b) if a == b => Some(a),
            (1, b) => Some(b),
            (a, 1) => Some(a),
            _ => None,
        })
        .collect()
}
