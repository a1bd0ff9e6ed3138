//! A module as StableHLO text: MLIR that people read and tools load.
//!
//! Large constants stand in hexadecimal, or, for readers, are left out.

use std::fmt::Write;
use std::io;

use super::{Binary, Computation, DotDims, GatherDims, Inner, Instruction, Kind, Literal, Module, Op, ScatterDims};
use super::{Shape, Unary, Window};
use crate::onnx::DType;

/// How the text gives constants of more than [`LARGE`] elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constants {
    /// As they are, in hexadecimal: the text is the whole program, twice the size of its weights.
    Written,
    /// Left out and marked so: the text shows the program, and does not run.
    Elided,
}

/// Constants of up to this many elements are always written.
pub const LARGE: usize = 64;

/// Bytes turned into hexadecimal at a time.
const CHUNK: usize = 1 << 16;

/// Writes the module.
///
/// # Errors
/// What `out` says.
pub fn write(module: &Module, constants: Constants, out: &mut dyn io::Write) -> io::Result<()> {
    let mut printer = Printer { module, constants, out, depth: 1 };
    printer.module()
}

/// The module as one string.
pub fn to_string(module: &Module, constants: Constants) -> String {
    let mut out = Vec::new();
    // Writing to memory does not fail.
    let _ = write(module, constants, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

struct Printer<'a> {
    module: &'a Module,
    constants: Constants,
    out: &'a mut dyn io::Write,
    depth: usize,
}

impl Printer<'_> {
    fn module(&mut self) -> io::Result<()> {
        let module = self.module;
        let entry = &module.entry;
        let parameters: Vec<String> = entry
            .instructions
            .iter()
            .enumerate()
            .filter(|(_, instruction)| matches!(instruction.kind, Kind::Parameter { .. }))
            .map(|(i, instruction)| format!("%{i}: {}", tensor(&instruction.shapes[0])))
            .collect();
        let results: Vec<String> = entry.results.iter().map(|&op| tensor(entry.shape(op))).collect();
        writeln!(self.out, "module @{} {{", module.name)?;
        writeln!(self.out, "  func.func public @main({}) -> ({}) {{", parameters.join(", "), results.join(", "))?;
        self.depth = 2;
        self.body(entry, "", "func.return")?;
        writeln!(self.out, "  }}\n}}")
    }

    fn indent(&mut self) -> io::Result<()> {
        write!(self.out, "{:width$}", "", width = self.depth * 2)
    }

    fn body(&mut self, computation: &Computation, prefix: &str, end: &str) -> io::Result<()> {
        for (index, instruction) in computation.instructions.iter().enumerate() {
            if matches!(instruction.kind, Kind::Parameter { .. } | Kind::Element { .. }) {
                continue;
            }
            self.indent()?;
            let scope = Scope { computation, prefix };
            self.instruction(&scope, index, instruction)?;
            if let Some(origin) = &instruction.origin {
                write!(self.out, " loc(\"{}\")", escaped(&origin.node))?;
            }
            writeln!(self.out)?;
        }
        let scope = Scope { computation, prefix };
        self.indent()?;
        let types: Vec<String> = computation.results.iter().map(|&op| tensor(computation.shape(op))).collect();
        match computation.results.as_slice() {
            [] => writeln!(self.out, "{end}"),
            results => writeln!(self.out, "{end} {} : {}", scope.list(results), types.join(", ")),
        }
    }

    /// The block of an inner computation, in braces.
    fn block(&mut self, inner: Inner, prefix: &str) -> io::Result<()> {
        let module = self.module;
        let computation = module.inner(inner);
        let prefix = format!("{prefix}{}", char::from(b'a' + (self.depth % 26) as u8));
        let parameters: Vec<String> = computation
            .instructions
            .iter()
            .enumerate()
            .filter(|(_, instruction)| matches!(instruction.kind, Kind::Parameter { .. }))
            .map(|(i, instruction)| format!("%{prefix}{i}: {}", tensor(&instruction.shapes[0])))
            .collect();
        writeln!(self.out, "{{")?;
        self.indent()?;
        writeln!(self.out, "^bb0({}):", parameters.join(", "))?;
        self.depth += 1;
        self.body(computation, &prefix, "stablehlo.return")?;
        self.depth -= 1;
        self.indent()?;
        write!(self.out, "}}")
    }

    fn instruction(&mut self, scope: &Scope, index: usize, instruction: &Instruction) -> io::Result<()> {
        let many = instruction.shapes.len();
        let own = format!("%{}{index}", scope.prefix);
        match many {
            1 => write!(self.out, "{own} = ")?,
            _ => write!(self.out, "{own}:{many} = ")?,
        }
        let operands = &instruction.operands;
        let names = scope.list(operands);
        let result = tensor(&instruction.shapes[0]);
        let types: Vec<String> = operands.iter().map(|&op| tensor(scope.computation.shape(op))).collect();
        let given: Vec<String> = instruction.shapes.iter().map(tensor).collect();
        let given = if many == 1 { result.clone() } else { format!("({})", given.join(", ")) };
        let signature = format!("({}) -> {given}", types.join(", "));
        match &instruction.kind {
            Kind::Parameter { .. } | Kind::Element { .. } => Ok(()),
            Kind::Constant(literal) => self.constant(&instruction.shapes[0], literal),
            Kind::Iota { dim } => write!(self.out, "stablehlo.iota dim = {dim} : {result}"),
            Kind::Unary(Unary::IsFinite) => write!(self.out, "stablehlo.is_finite {names} : {signature}"),
            Kind::Unary(unary) => write!(self.out, "stablehlo.{} {names} : {result}", unary_name(*unary)),
            Kind::Binary(binary) => write!(self.out, "stablehlo.{} {names} : {result}", binary_name(*binary)),
            Kind::Compare(direction) => {
                let kind = match scope.computation.shape(operands[0]).dtype {
                    dtype if dtype.is_float() => "FLOAT",
                    DType::Bool | DType::Uint8 | DType::Uint16 | DType::Uint32 | DType::Uint64 => "UNSIGNED",
                    _ => "SIGNED",
                };
                write!(self.out, "stablehlo.compare {}, {names}, {kind} : {signature}", direction.name())
            }
            Kind::Select => {
                write!(self.out, "stablehlo.select {names} : {}, {result}", types[0])
            }
            Kind::Convert => write!(self.out, "stablehlo.convert {names} : {signature}"),
            Kind::BitcastConvert => write!(self.out, "stablehlo.bitcast_convert {names} : {signature}"),
            Kind::Broadcast { dims } => {
                write!(self.out, "stablehlo.broadcast_in_dim {names}, dims = {dims:?} : {signature}")
            }
            Kind::Reshape => write!(self.out, "stablehlo.reshape {names} : {signature}"),
            Kind::Transpose { perm } => write!(self.out, "stablehlo.transpose {names}, dims = {perm:?} : {signature}"),
            Kind::Slice { start, limit, stride } => {
                let ranges: Vec<String> = (0..start.len())
                    .map(|i| match stride[i] {
                        1 => format!("{}:{}", start[i], limit[i]),
                        step => format!("{}:{}:{step}", start[i], limit[i]),
                    })
                    .collect();
                write!(self.out, "stablehlo.slice {names} [{}] : {signature}", ranges.join(", "))
            }
            Kind::Pad { low, high, interior } => {
                write!(
                    self.out,
                    "stablehlo.pad {names}, low = {low:?}, high = {high:?}, interior = {interior:?} : {signature}"
                )
            }
            Kind::Concatenate { dim } => write!(self.out, "stablehlo.concatenate {names}, dim = {dim} : {signature}"),
            Kind::Reverse { dims } => write!(self.out, "stablehlo.reverse {names}, dims = {dims:?} : {result}"),
            Kind::Reduce { dims, reducer } => {
                let reducer = &self.module.inner(*reducer);
                let binary = reducer.instructions.iter().find_map(|instruction| match instruction.kind {
                    Kind::Binary(binary) => Some(binary_name(binary)),
                    _ => None,
                });
                let init = scope.name(operands[1]);
                write!(
                    self.out,
                    "stablehlo.reduce({} init: {init}) applies stablehlo.{} across dimensions = {dims:?} : {signature}",
                    scope.name(operands[0]),
                    binary.unwrap_or("add"),
                )
            }
            Kind::ReduceWindow { window, reducer } => {
                write!(self.out, "\"stablehlo.reduce_window\"({names}) <{{{}}}> (", window_attributes(window))?;
                self.block(*reducer, scope.prefix)?;
                write!(self.out, ") : {signature}")
            }
            Kind::Dot(dims) => write!(self.out, "stablehlo.dot_general {names}, {} : {signature}", dot(dims)),
            Kind::Convolution { window, groups } => {
                write!(self.out, "stablehlo.convolution({names}) {} : {signature}", convolution(window, *groups))
            }
            Kind::Gather(dims) => {
                write!(self.out, "\"stablehlo.gather\"({names}) <{{{}}}> : {signature}", gather(dims))
            }
            Kind::Scatter { dims, combine } => {
                write!(self.out, "\"stablehlo.scatter\"({names}) <{{{}}}> (", scatter(dims))?;
                self.block(*combine, scope.prefix)?;
                write!(self.out, ") : {signature}")
            }
            Kind::Sort { dim, comparator } => {
                write!(self.out, "\"stablehlo.sort\"({names}) <{{dimension = {dim} : i64, is_stable = true}}> (")?;
                self.block(*comparator, scope.prefix)?;
                write!(self.out, ") : {signature}")
            }
            Kind::DynamicSlice { sizes } => {
                write!(self.out, "stablehlo.dynamic_slice {names}, sizes = {sizes:?} : {signature}")
            }
            Kind::DynamicUpdateSlice => write!(self.out, "stablehlo.dynamic_update_slice {names} : {signature}"),
            Kind::While { condition, body } => {
                write!(self.out, "\"stablehlo.while\"({names}) (")?;
                self.block(*condition, scope.prefix)?;
                write!(self.out, ", ")?;
                self.block(*body, scope.prefix)?;
                write!(self.out, ") : {signature}")
            }
        }
    }

    fn constant(&mut self, shape: &Shape, literal: &Literal) -> io::Result<()> {
        let kind = tensor(shape);
        let count = shape.len() as usize;
        if count == 0 {
            return write!(self.out, "stablehlo.constant dense<> : {kind}");
        }
        if shape.dtype == DType::Bool {
            let bytes = literal.payload.to_bytes();
            let mut text = String::new();
            nested(&shape.dims, &mut bytes.iter(), &mut text);
            return write!(self.out, "stablehlo.constant dense<{text}> : {kind}");
        }
        if self.constants == Constants::Elided && count > LARGE {
            let comment = literal.weight.as_deref().map(|name| format!(" // {name:?}")).unwrap_or_default();
            return write!(self.out, "stablehlo.constant dense_resource<__elided__> : {kind}{comment}");
        }
        if count == 1 && literal.weight.is_none() {
            // A number of one element reads better in decimal, where that is exact.
            if let Some(text) = decimal(shape.dtype, &literal.payload.to_bytes()) {
                return write!(self.out, "stablehlo.constant dense<{text}> : {kind}");
            }
        }
        write!(self.out, "stablehlo.constant dense<\"0x")?;
        let mut outcome = Ok(());
        let mut buffer = Vec::with_capacity(CHUNK * 2);
        literal.payload.for_each_chunk(&mut |bytes| {
            for piece in bytes.chunks(CHUNK) {
                buffer.clear();
                buffer.extend(piece.iter().flat_map(|&byte| HEX[byte as usize]));
                if outcome.is_ok() {
                    outcome = self.out.write_all(&buffer);
                }
            }
        });
        outcome?;
        write!(self.out, "\"> : {kind}")
    }
}

/// Each byte's two digits.
static HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789ABCDEF";
    let mut table = [[0; 2]; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = [digits[i >> 4], digits[i & 15]];
        i += 1;
    }
    table
};

struct Scope<'a> {
    computation: &'a Computation,
    prefix: &'a str,
}

impl Scope<'_> {
    fn name(&self, op: Op) -> String {
        let instruction = self.computation.get(op);
        match instruction.kind {
            Kind::Element { index } => format!("%{}{}#{index}", self.prefix, instruction.operands[0].0),
            _ => format!("%{}{}", self.prefix, op.0),
        }
    }

    fn list(&self, ops: &[Op]) -> String {
        ops.iter().map(|&op| self.name(op)).collect::<Vec<_>>().join(", ")
    }
}

/// MLIR's name of an element type.
fn element(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "i1",
        DType::Int8 => "i8",
        DType::Int16 => "i16",
        DType::Int32 => "i32",
        DType::Int64 => "i64",
        DType::Uint8 => "ui8",
        DType::Uint16 => "ui16",
        DType::Uint32 => "ui32",
        DType::Uint64 => "ui64",
        DType::Float16 => "f16",
        DType::Bfloat16 => "bf16",
        DType::Double => "f64",
        DType::Float8E4M3FN => "f8E4M3FN",
        DType::Float8E4M3FNUZ => "f8E4M3FNUZ",
        DType::Float8E5M2 => "f8E5M2",
        DType::Float8E5M2FNUZ => "f8E5M2FNUZ",
        DType::Float8E8M0 => "f8E8M0FNU",
        DType::Float4E2M1 => "f4E2M1FN",
        DType::Int2 => "i2",
        DType::Int4 => "i4",
        DType::Uint2 => "ui2",
        DType::Uint4 => "ui4",
        _ => "f32",
    }
}

/// Text inside of MLIR's quotes: what is not plain ASCII as two hexadecimal digits a byte.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | 0..=31 | 127.. => {
                let _ = write!(out, "\\{byte:02X}");
            }
            plain => out.push(char::from(plain)),
        }
    }
    out
}

fn tensor(shape: &Shape) -> String {
    let mut text = String::from("tensor<");
    for size in &shape.dims {
        let _ = write!(text, "{size}x");
    }
    text + element(shape.dtype) + ">"
}

/// One number, where decimal says it exactly.
fn decimal(dtype: DType, bytes: &[u8]) -> Option<String> {
    let float = |x: f64| {
        let text = format!("{x:?}");
        // MLIR wants a point before an exponent.
        let text = if text.contains('.') { text } else { text.replacen('e', ".0e", 1) };
        x.is_finite().then_some(text)
    };
    Some(match dtype {
        DType::Float => float(f64::from(f32::from_le_bytes(bytes.try_into().ok()?)))?,
        DType::Double => float(f64::from_le_bytes(bytes.try_into().ok()?))?,
        DType::Float16 => float(half::f16::from_le_bytes(bytes.try_into().ok()?).to_f64())?,
        DType::Bfloat16 => float(half::bf16::from_le_bytes(bytes.try_into().ok()?).to_f64())?,
        DType::Int8 => i8::from_le_bytes(bytes.try_into().ok()?).to_string(),
        DType::Int16 => i16::from_le_bytes(bytes.try_into().ok()?).to_string(),
        DType::Int32 => i32::from_le_bytes(bytes.try_into().ok()?).to_string(),
        DType::Int64 => i64::from_le_bytes(bytes.try_into().ok()?).to_string(),
        DType::Uint8 => bytes.first()?.to_string(),
        DType::Uint16 => u16::from_le_bytes(bytes.try_into().ok()?).to_string(),
        DType::Uint32 => u32::from_le_bytes(bytes.try_into().ok()?).to_string(),
        DType::Uint64 => u64::from_le_bytes(bytes.try_into().ok()?).to_string(),
        _ => return None,
    })
}

/// Bools as a nested list, the only form in which MLIR takes them one by one.
fn nested(dims: &[i64], values: &mut std::slice::Iter<u8>, text: &mut String) {
    let Some((&size, rest)) = dims.split_first() else {
        text.push_str(if values.next().is_some_and(|&value| value != 0) { "true" } else { "false" });
        return;
    };
    text.push('[');
    for i in 0..size {
        if i > 0 {
            text.push_str(", ");
        }
        nested(rest, values, text);
    }
    text.push(']');
}

fn array(values: impl IntoIterator<Item = i64>) -> String {
    let list: Vec<String> = values.into_iter().map(|x| x.to_string()).collect();
    if list.is_empty() { "array<i64>".into() } else { format!("array<i64: {}>", list.join(", ")) }
}

fn window_attributes(window: &[Window]) -> String {
    let padding: Vec<String> = window.iter().map(|w| format!("[{}, {}]", w.low, w.high)).collect();
    let padding = if padding.is_empty() { "dense<>".to_string() } else { format!("dense<[{}]>", padding.join(", ")) };
    format!(
        "window_dimensions = {}, window_strides = {}, base_dilations = {}, window_dilations = {}, padding = {padding} : tensor<{}x2xi64>",
        array(window.iter().map(|w| w.size)),
        array(window.iter().map(|w| w.stride)),
        array(window.iter().map(|w| w.base_dilation)),
        array(window.iter().map(|w| w.dilation)),
        window.len(),
    )
}

fn dot(dims: &DotDims) -> String {
    let batch = match dims.left_batch.is_empty() {
        true => String::new(),
        false => format!("batching_dims = {:?} x {:?}, ", dims.left_batch, dims.right_batch),
    };
    format!("{batch}contracting_dims = {:?} x {:?}", dims.left_contracting, dims.right_contracting)
}

fn convolution(window: &[Window], groups: i64) -> String {
    let space: Vec<String> = (0..window.len()).map(|i| format!(", {i}")).collect();
    let space = space.concat();
    let list = |f: fn(&Window) -> i64| format!("{:?}", window.iter().map(f).collect::<Vec<i64>>());
    let pads: Vec<String> = window.iter().map(|w| format!("[{}, {}]", w.low, w.high)).collect();
    format!(
        "dim_numbers = [b, f{space}]x[o, i{space}]->[b, f{space}], window = {{stride = {}, pad = [{}], lhs_dilate = {}, rhs_dilate = {}}} {{batch_group_count = 1 : i64, feature_group_count = {groups} : i64}}",
        list(|w| w.stride),
        pads.join(", "),
        list(|w| w.base_dilation),
        list(|w| w.dilation),
    )
}

fn gather(dims: &GatherDims) -> String {
    format!(
        "dimension_numbers = #stablehlo.gather<offset_dims = {:?}, collapsed_slice_dims = {:?}, start_index_map = {:?}, index_vector_dim = {}>, indices_are_sorted = false, slice_sizes = {}",
        dims.offset_dims,
        dims.collapsed_slice_dims,
        dims.start_index_map,
        dims.index_vector_dim,
        array(dims.slice_sizes.iter().copied()),
    )
}

fn scatter(dims: &ScatterDims) -> String {
    format!(
        "indices_are_sorted = false, scatter_dimension_numbers = #stablehlo.scatter<update_window_dims = {:?}, inserted_window_dims = {:?}, scatter_dims_to_operand_dims = {:?}, index_vector_dim = {}>, unique_indices = false",
        dims.update_window_dims, dims.inserted_window_dims, dims.scatter_dims_to_operand_dims, dims.index_vector_dim,
    )
}

fn unary_name(unary: Unary) -> &'static str {
    match unary {
        Unary::ExponentialMinusOne => "exponential_minus_one",
        Unary::IsFinite => "is_finite",
        Unary::LogPlusOne => "log_plus_one",
        Unary::RoundNearestEven => "round_nearest_even",
        other => other.opcode(),
    }
}

fn binary_name(binary: Binary) -> &'static str {
    match binary {
        Binary::ShiftLeft => "shift_left",
        Binary::ShiftRightArithmetic => "shift_right_arithmetic",
        Binary::ShiftRightLogical => "shift_right_logical",
        other => other.opcode(),
    }
}
