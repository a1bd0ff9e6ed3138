//! The intermediate form: a module of typed instructions, one level below ONNX and independent of either output form.
//!
//! An instruction is an operation of XLA's HLO, with static sizes. [`Builder`] makes instructions and works out their
//! shapes; [`proto`] writes a module as an HloModuleProto, [`text`] as StableHLO.

mod build;
mod element;
mod encode;
pub mod packed;
pub mod proto;
mod structure;
pub mod text;
mod window;

use bytes::Bytes;

pub use build::{Builder, broadcast_dims};
pub use encode::{element_number, encoded_len, to_bytes, to_proto};

use crate::onnx::{DType, Payload};

/// The type and the sizes of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Element type; bool is HLO's `pred`.
    pub dtype: DType,
    /// Sizes, outermost first.
    pub dims: Vec<i64>,
}

impl Shape {
    /// A shape.
    pub fn new(dtype: DType, dims: impl Into<Vec<i64>>) -> Self {
        Self { dtype, dims: dims.into() }
    }

    /// How many elements it has.
    pub fn len(&self) -> i64 {
        self.dims.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }
}

/// An instruction of the computation that is being built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Op(pub(crate) u32);

/// One of a module's inner computations: a reducer, a comparator, a loop's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inner(pub(crate) u32);

/// A program: what is run, and the small computations that its instructions call.
#[derive(Clone, Debug)]
pub struct Module {
    /// A name that is an identifier in both forms.
    pub name: String,
    /// What is run.
    pub entry: Computation,
    /// What instructions call, callees before callers.
    pub inner: Vec<Computation>,
}

/// Instructions in order, each after its operands.
#[derive(Clone, Debug, Default)]
pub struct Computation {
    /// Its name.
    pub name: String,
    /// Its instructions; parameters come first, in order.
    pub instructions: Vec<Instruction>,
    /// What it gives. The entry gives a tuple of these; an inner computation with one result gives it as it is.
    pub results: Vec<Op>,
}

/// An instruction.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// What it does.
    pub kind: Kind,
    /// What it reads.
    pub operands: Vec<Op>,
    /// What it gives: one shape, or several for what gives a tuple.
    pub shapes: Vec<Shape>,
    /// The node it comes from.
    pub origin: Option<std::sync::Arc<Origin>>,
}

/// The ONNX node that an instruction comes from, for the reader of the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The operator.
    pub op_type: String,
    /// The node's name.
    pub node: String,
}

/// Functions of one tensor, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is HLO's own name
pub enum Unary {
    Abs,
    Ceil,
    Cosine,
    Exponential,
    ExponentialMinusOne,
    Floor,
    IsFinite,
    Log,
    LogPlusOne,
    Logistic,
    Negate,
    Not,
    RoundNearestEven,
    Rsqrt,
    Sign,
    Sine,
    Sqrt,
    Tanh,
}

/// Functions of two tensors of one shape, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is HLO's own name
pub enum Binary {
    Add,
    And,
    Atan2,
    Divide,
    Maximum,
    Minimum,
    Multiply,
    Or,
    Power,
    Remainder,
    ShiftLeft,
    ShiftRightArithmetic,
    ShiftRightLogical,
    Subtract,
    Xor,
}

/// How two elements are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is HLO's own name
pub enum Direction {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

/// A constant's elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Literal {
    /// Little-endian, row-major.
    pub payload: Payload,
    /// The initializer it is, where it is one.
    pub weight: Option<String>,
}

impl Literal {
    /// A literal that is no weight.
    pub fn anonymous(bytes: impl Into<Bytes>) -> Self {
        Self { payload: Payload::Bytes(bytes.into()), weight: None }
    }
}

/// One dimension of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Elements in it.
    pub size: i64,
    /// Step from one place of the window to the next.
    pub stride: i64,
    /// Padding before; may be negative.
    pub low: i64,
    /// Padding behind; may be negative.
    pub high: i64,
    /// Step from one element of the window to the next.
    pub dilation: i64,
    /// Step from one element of the input to the next: above 1, zeros stand between.
    pub base_dilation: i64,
}

impl Window {
    /// A window of one element that changes nothing.
    pub const ONE: Window = Window { size: 1, stride: 1, low: 0, high: 0, dilation: 1, base_dilation: 1 };

    /// How many places it has over `size` elements.
    pub fn places(&self, size: i64) -> i64 {
        let base = if size == 0 { 0 } else { (size - 1) * self.base_dilation + 1 };
        let padded = base + self.low + self.high;
        let window = (self.size - 1) * self.dilation + 1;
        if padded < window { 0 } else { (padded - window) / self.stride + 1 }
    }
}

/// Which dimensions of a product are summed over and which run along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DotDims {
    /// Summed over, left.
    pub left_contracting: Vec<i64>,
    /// Summed over, right, in the same order.
    pub right_contracting: Vec<i64>,
    /// Run along, left.
    pub left_batch: Vec<i64>,
    /// Run along, right, in the same order.
    pub right_batch: Vec<i64>,
}

/// How a gather reads its operand. The fields are HLO's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // each is HLO's own name
pub struct GatherDims {
    pub offset_dims: Vec<i64>,
    pub collapsed_slice_dims: Vec<i64>,
    pub start_index_map: Vec<i64>,
    pub index_vector_dim: i64,
    pub slice_sizes: Vec<i64>,
}

/// How a scatter writes its operand. The fields are HLO's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // each is HLO's own name
pub struct ScatterDims {
    pub update_window_dims: Vec<i64>,
    pub inserted_window_dims: Vec<i64>,
    pub scatter_dims_to_operand_dims: Vec<i64>,
    pub index_vector_dim: i64,
}

/// What an instruction does.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // each is HLO's own name
pub enum Kind {
    Parameter {
        index: usize,
        name: String,
    },
    Constant(Literal),
    Iota {
        dim: i64,
    },
    Unary(Unary),
    Binary(Binary),
    Compare(Direction),
    Select,
    Convert,
    /// The same bits as another type of the same width.
    BitcastConvert,
    Broadcast {
        dims: Vec<i64>,
    },
    Reshape,
    Transpose {
        perm: Vec<i64>,
    },
    Slice {
        start: Vec<i64>,
        limit: Vec<i64>,
        stride: Vec<i64>,
    },
    Pad {
        low: Vec<i64>,
        high: Vec<i64>,
        interior: Vec<i64>,
    },
    Concatenate {
        dim: i64,
    },
    Reverse {
        dims: Vec<i64>,
    },
    Reduce {
        dims: Vec<i64>,
        reducer: Inner,
    },
    ReduceWindow {
        window: Vec<Window>,
        reducer: Inner,
    },
    Dot(DotDims),
    /// Input and output batch, feature, space; kernel output feature, input feature, space.
    Convolution {
        window: Vec<Window>,
        groups: i64,
    },
    Gather(GatherDims),
    Scatter {
        dims: ScatterDims,
        combine: Inner,
    },
    Sort {
        dim: i64,
        comparator: Inner,
    },
    DynamicSlice {
        sizes: Vec<i64>,
    },
    DynamicUpdateSlice,
    While {
        condition: Inner,
        body: Inner,
    },
    /// One of the results of a sort or a loop.
    Element {
        index: usize,
    },
}

impl Kind {
    /// HLO's name for it.
    pub fn opcode(&self) -> &'static str {
        match self {
            Kind::Parameter { .. } => "parameter",
            Kind::Constant(_) => "constant",
            Kind::Iota { .. } => "iota",
            Kind::Unary(unary) => unary.opcode(),
            Kind::Binary(binary) => binary.opcode(),
            Kind::Compare(_) => "compare",
            Kind::Select => "select",
            Kind::Convert => "convert",
            Kind::BitcastConvert => "bitcast-convert",
            Kind::Broadcast { .. } => "broadcast",
            Kind::Reshape => "reshape",
            Kind::Transpose { .. } => "transpose",
            Kind::Slice { .. } => "slice",
            Kind::Pad { .. } => "pad",
            Kind::Concatenate { .. } => "concatenate",
            Kind::Reverse { .. } => "reverse",
            Kind::Reduce { .. } => "reduce",
            Kind::ReduceWindow { .. } => "reduce-window",
            Kind::Dot(_) => "dot",
            Kind::Convolution { .. } => "convolution",
            Kind::Gather(_) => "gather",
            Kind::Scatter { .. } => "scatter",
            Kind::Sort { .. } => "sort",
            Kind::DynamicSlice { .. } => "dynamic-slice",
            Kind::DynamicUpdateSlice => "dynamic-update-slice",
            Kind::While { .. } => "while",
            Kind::Element { .. } => "get-tuple-element",
        }
    }
}

impl Unary {
    /// Whether HLO has it for an element type: only signs and bits are for more than floats.
    pub fn takes(self, dtype: DType) -> bool {
        match self {
            Unary::Abs | Unary::Negate | Unary::Sign => dtype.is_float() || dtype.is_integer(),
            Unary::Not => dtype.is_integer() || dtype == DType::Bool,
            _ => dtype.is_float(),
        }
    }

    /// HLO's name for it.
    pub fn opcode(self) -> &'static str {
        match self {
            Unary::Abs => "abs",
            Unary::Ceil => "ceil",
            Unary::Cosine => "cosine",
            Unary::Exponential => "exponential",
            Unary::ExponentialMinusOne => "exponential-minus-one",
            Unary::Floor => "floor",
            Unary::IsFinite => "is-finite",
            Unary::Log => "log",
            Unary::LogPlusOne => "log-plus-one",
            Unary::Logistic => "logistic",
            Unary::Negate => "negate",
            Unary::Not => "not",
            Unary::RoundNearestEven => "round-nearest-even",
            Unary::Rsqrt => "rsqrt",
            Unary::Sign => "sign",
            Unary::Sine => "sine",
            Unary::Sqrt => "sqrt",
            Unary::Tanh => "tanh",
        }
    }
}

impl Binary {
    /// HLO's name for it.
    pub fn opcode(self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::And => "and",
            Binary::Atan2 => "atan2",
            Binary::Divide => "divide",
            Binary::Maximum => "maximum",
            Binary::Minimum => "minimum",
            Binary::Multiply => "multiply",
            Binary::Or => "or",
            Binary::Power => "power",
            Binary::Remainder => "remainder",
            Binary::ShiftLeft => "shift-left",
            Binary::ShiftRightArithmetic => "shift-right-arithmetic",
            Binary::ShiftRightLogical => "shift-right-logical",
            Binary::Subtract => "subtract",
            Binary::Xor => "xor",
        }
    }
}

impl Direction {
    /// The name that both forms use.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Eq => "EQ",
            Direction::Ne => "NE",
            Direction::Lt => "LT",
            Direction::Le => "LE",
            Direction::Gt => "GT",
            Direction::Ge => "GE",
        }
    }
}

impl Computation {
    /// An instruction.
    pub fn get(&self, op: Op) -> &Instruction {
        &self.instructions[op.0 as usize]
    }

    /// What an instruction with one result gives.
    pub fn shape(&self, op: Op) -> &Shape {
        &self.get(op).shapes[0]
    }

    /// Its parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &Instruction> {
        self.instructions.iter().filter(|instruction| matches!(instruction.kind, Kind::Parameter { .. }))
    }
}

impl Module {
    /// Bytes of all constants that are weights of the model.
    pub fn weight_bytes(&self) -> usize {
        let weight = |instruction: &Instruction| match &instruction.kind {
            Kind::Constant(literal) if literal.weight.is_some() => literal.payload.len(),
            _ => 0,
        };
        self.entry.instructions.iter().map(weight).sum()
    }

    /// One of the inner computations.
    pub fn inner(&self, id: Inner) -> &Computation {
        &self.inner[id.0 as usize]
    }
}
