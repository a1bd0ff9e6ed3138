//! A module as an HloModuleProto: ids from 1, layouts spelled out, a tuple as the entry's result.

use std::collections::HashSet;

use bytes::Bytes;
use prost::Message;

use super::proto::{
    ConvolutionDimensionNumbers, DotDimensionNumbers, GatherDimensionNumbers, HloComputationProto, HloInstructionProto,
    HloModuleProto, LayoutProto, LiteralProto, OpMetadata, PaddingConfig, PaddingConfigDimension, ProgramShapeProto,
    ScatterDimensionNumbers, ShapeProto, SliceDimensions, WindowDimension, WindowProto,
};
use super::{Computation, Inner, Instruction, Kind, Literal, Module, Op, Shape, Window};
use crate::onnx::DType;

/// The module as messages. Weights are shared, not copied.
pub fn to_proto(module: &Module) -> HloModuleProto {
    let mut loops = HashSet::new();
    for instruction in module.inner.iter().chain([&module.entry]).flat_map(|c| &c.instructions) {
        if let (Kind::While { condition, body }, true) = (&instruction.kind, instruction.shapes.len() > 1) {
            loops.extend([*condition, *body]);
        }
    }
    let mut ids = Ids { next: 1, inner: Vec::new() };
    let mut computations = Vec::new();
    for (index, computation) in module.inner.iter().enumerate() {
        let made = ids.computation(computation, loops.contains(&Inner(index as u32)), computation.results.len() > 1);
        ids.inner.push(made.id.unwrap_or_default());
        computations.push(made);
    }
    let entry = ids.computation(&module.entry, false, true);
    let made = HloModuleProto {
        name: Some(module.name.clone()),
        entry_computation_name: entry.name.clone(),
        entry_computation_id: entry.id,
        host_program_shape: entry.program_shape.clone(),
        ..Default::default()
    };
    computations.push(entry);
    HloModuleProto { computations, ..made }
}

/// The module as the bytes of its message.
pub fn to_bytes(module: &Module) -> Bytes {
    to_proto(module).encode_to_vec().into()
}

/// How many bytes the message takes.
pub fn encoded_len(module: &Module) -> usize {
    to_proto(module).encoded_len()
}

struct Ids {
    next: i64,
    inner: Vec<i64>,
}

impl Ids {
    fn take(&mut self) -> i64 {
        self.next += 1;
        self.next - 1
    }

    /// A computation. A loop's takes one tuple; `tuple` is whether it gives one.
    fn computation(&mut self, computation: &Computation, takes_tuple: bool, gives_tuple: bool) -> HloComputationProto {
        let mut instructions: Vec<HloInstructionProto> = Vec::with_capacity(computation.instructions.len() + 2);
        let mut ids: Vec<i64> = Vec::with_capacity(computation.instructions.len());
        let given: Vec<Shape> = computation.parameters().map(|p| p.shapes[0].clone()).collect();
        let whole = takes_tuple.then(|| {
            let id = self.take();
            instructions.push(HloInstructionProto {
                parameter_number: Some(0),
                ..blank("parameter", id, tuple_of(&given), Vec::new())
            });
            id
        });
        for instruction in &computation.instructions {
            let id = match (&instruction.kind, whole) {
                (Kind::Parameter { index, .. }, Some(whole)) => {
                    let id = self.take();
                    instructions.push(HloInstructionProto {
                        tuple_index: Some(*index as i64),
                        ..blank("get-tuple-element", id, shape_of(&instruction.shapes[0]), vec![whole])
                    });
                    id
                }
                (Kind::While { .. }, _) if instruction.shapes.len() > 1 => {
                    let carried = self.take();
                    let operands = instruction.operands.iter().map(|op| ids[op.0 as usize]).collect();
                    instructions.push(blank("tuple", carried, tuple_of(&instruction.shapes), operands));
                    let id = self.take();
                    instructions.push(self.instruction(instruction, id, vec![carried]));
                    id
                }
                _ => {
                    let id = self.take();
                    let operands = instruction.operands.iter().map(|op| ids[op.0 as usize]).collect();
                    instructions.push(self.instruction(instruction, id, operands));
                    id
                }
            };
            ids.push(id);
        }
        let results: Vec<Shape> = computation.results.iter().map(|&op| computation.shape(op).clone()).collect();
        let of = |op: &Op| ids[op.0 as usize];
        let (root, result) = match (gives_tuple, computation.results.as_slice()) {
            (false, [only]) => (of(only), shape_of(&results[0])),
            _ => {
                let id = self.take();
                let result = tuple_of(&results);
                instructions.push(blank("tuple", id, result.clone(), computation.results.iter().map(of).collect()));
                (id, result)
            }
        };
        let parameters = match takes_tuple {
            true => vec![tuple_of(&given)],
            false => given.iter().map(shape_of).collect(),
        };
        let names = computation.parameters().map(|p| match &p.kind {
            Kind::Parameter { name, .. } => name.clone(),
            _ => String::new(),
        });
        HloComputationProto {
            name: Some(computation.name.clone()),
            instructions,
            program_shape: Some(ProgramShapeProto {
                parameters,
                result: Some(result),
                parameter_names: if takes_tuple { vec!["carried".into()] } else { names.collect() },
                ..Default::default()
            }),
            id: Some(self.take()),
            root_id: Some(root),
            ..Default::default()
        }
    }

    fn instruction(&self, instruction: &Instruction, id: i64, operands: Vec<i64>) -> HloInstructionProto {
        let shape = match instruction.shapes.as_slice() {
            [only] => shape_of(only),
            several => tuple_of(several),
        };
        let called = |inner: Inner| vec![self.inner[inner.0 as usize]];
        let mut made = blank(instruction.kind.opcode(), id, shape, operands);
        made.metadata = instruction.origin.as_ref().map(|origin| OpMetadata {
            op_type: Some(origin.op_type.clone()),
            op_name: Some(origin.node.clone()),
            ..Default::default()
        });
        match &instruction.kind {
            Kind::Parameter { index, .. } => made.parameter_number = Some(*index as i64),
            Kind::Constant(literal) => made.literal = Some(literal_of(&instruction.shapes[0], literal)),
            Kind::Iota { dim } => made.dimensions = vec![*dim],
            Kind::Compare(direction) => made.comparison_direction = Some(direction.name().into()),
            Kind::Broadcast { dims } => made.dimensions = dims.clone(),
            Kind::Transpose { perm } => made.dimensions = perm.clone(),
            Kind::Slice { start, limit, stride } => {
                made.slice_dimensions = (0..start.len())
                    .map(|i| SliceDimensions {
                        start: Some(start[i]),
                        limit: Some(limit[i]),
                        stride: Some(stride[i]),
                        ..Default::default()
                    })
                    .collect();
            }
            Kind::Pad { low, high, interior } => {
                let dimensions = (0..low.len()).map(|i| PaddingConfigDimension {
                    edge_padding_low: Some(low[i]),
                    edge_padding_high: Some(high[i]),
                    interior_padding: Some(interior[i]),
                    ..Default::default()
                });
                made.padding_config = Some(PaddingConfig { dimensions: dimensions.collect(), ..Default::default() });
            }
            Kind::Concatenate { dim } => made.dimensions = vec![*dim],
            Kind::Reverse { dims } => made.dimensions = dims.clone(),
            Kind::Reduce { dims, reducer } => {
                made.dimensions = dims.clone();
                made.called_computation_ids = called(*reducer);
            }
            Kind::ReduceWindow { window, reducer } => {
                made.window = Some(window_of(window));
                made.called_computation_ids = called(*reducer);
            }
            Kind::Dot(dims) => {
                made.dot_dimension_numbers = Some(DotDimensionNumbers {
                    lhs_contracting_dimensions: dims.left_contracting.clone(),
                    rhs_contracting_dimensions: dims.right_contracting.clone(),
                    lhs_batch_dimensions: dims.left_batch.clone(),
                    rhs_batch_dimensions: dims.right_batch.clone(),
                    ..Default::default()
                });
            }
            Kind::Convolution { window, groups } => {
                let space: Vec<i64> = (2..window.len() as i64 + 2).collect();
                made.window = Some(window_of(window));
                made.feature_group_count = Some(*groups);
                made.batch_group_count = Some(1);
                made.convolution_dimension_numbers = Some(ConvolutionDimensionNumbers {
                    input_batch_dimension: Some(0),
                    input_feature_dimension: Some(1),
                    input_spatial_dimensions: space.clone(),
                    kernel_output_feature_dimension: Some(0),
                    kernel_input_feature_dimension: Some(1),
                    kernel_spatial_dimensions: space.clone(),
                    output_batch_dimension: Some(0),
                    output_feature_dimension: Some(1),
                    output_spatial_dimensions: space,
                    ..Default::default()
                });
            }
            Kind::Gather(dims) => {
                made.gather_dimension_numbers = Some(GatherDimensionNumbers {
                    offset_dims: dims.offset_dims.clone(),
                    collapsed_slice_dims: dims.collapsed_slice_dims.clone(),
                    start_index_map: dims.start_index_map.clone(),
                    index_vector_dim: Some(dims.index_vector_dim),
                    ..Default::default()
                });
                made.gather_slice_sizes = dims.slice_sizes.clone();
            }
            Kind::Scatter { dims, combine } => {
                made.scatter_dimension_numbers = Some(ScatterDimensionNumbers {
                    update_window_dims: dims.update_window_dims.clone(),
                    inserted_window_dims: dims.inserted_window_dims.clone(),
                    scatter_dims_to_operand_dims: dims.scatter_dims_to_operand_dims.clone(),
                    index_vector_dim: Some(dims.index_vector_dim),
                    ..Default::default()
                });
                made.called_computation_ids = called(*combine);
            }
            Kind::Sort { dim, comparator } => {
                made.dimensions = vec![*dim];
                made.is_stable = Some(1);
                made.called_computation_ids = called(*comparator);
            }
            Kind::DynamicSlice { sizes } => made.dynamic_slice_sizes = sizes.clone(),
            Kind::While { condition, body } => {
                // The format lists the body first.
                made.called_computation_ids = [called(*body), called(*condition)].concat();
            }
            Kind::Element { index } => made.tuple_index = Some(*index as i64),
            Kind::Unary(_) | Kind::Binary(_) | Kind::Select | Kind::Convert | Kind::BitcastConvert => {}
            Kind::Reshape | Kind::DynamicUpdateSlice => {}
        }
        made
    }
}

fn blank(opcode: &str, id: i64, shape: ShapeProto, operand_ids: Vec<i64>) -> HloInstructionProto {
    HloInstructionProto {
        name: Some(format!("{opcode}.{id}")),
        opcode: Some(opcode.into()),
        shape: Some(shape),
        id: Some(id),
        operand_ids,
        ..Default::default()
    }
}

/// XLA's number of an element type; 0, the invalid one, for types that no lowering makes.
pub fn element_number(dtype: DType) -> i32 {
    match dtype {
        DType::Bool => 1,
        DType::Int8 => 2,
        DType::Int16 => 3,
        DType::Int32 => 4,
        DType::Int64 => 5,
        DType::Uint8 => 6,
        DType::Uint16 => 7,
        DType::Uint32 => 8,
        DType::Uint64 => 9,
        DType::Float16 => 10,
        DType::Float => 11,
        DType::Double => 12,
        DType::Bfloat16 => 16,
        DType::Float8E5M2 => 19,
        DType::Float8E4M3FN => 20,
        DType::Int4 => 21,
        DType::Uint4 => 22,
        DType::Float8E5M2FNUZ => 24,
        DType::Float8E4M3FNUZ => 25,
        DType::Int2 => 26,
        DType::Uint2 => 27,
        DType::Float4E2M1 => 32,
        DType::Float8E8M0 => 33,
        _ => 0,
    }
}

const TUPLE: i32 = 13;

fn shape_of(shape: &Shape) -> ShapeProto {
    let rank = shape.rank() as i64;
    ShapeProto {
        element_type: Some(element_number(shape.dtype)),
        dimensions: shape.dims.clone(),
        is_dynamic_dimension: vec![0; shape.rank()],
        layout: Some(LayoutProto { minor_to_major: (0..rank).rev().collect(), ..Default::default() }),
        ..Default::default()
    }
}

fn tuple_of(shapes: &[Shape]) -> ShapeProto {
    ShapeProto { element_type: Some(TUPLE), tuple_shapes: shapes.iter().map(shape_of).collect(), ..Default::default() }
}

fn window_of(window: &[Window]) -> WindowProto {
    let dimensions = window.iter().map(|w| WindowDimension {
        size: Some(w.size),
        stride: Some(w.stride),
        padding_low: Some(w.low),
        padding_high: Some(w.high),
        window_dilation: Some(w.dilation),
        base_dilation: Some(w.base_dilation),
        ..Default::default()
    });
    WindowProto { dimensions: dimensions.collect(), ..Default::default() }
}

fn literal_of(shape: &Shape, literal: &Literal) -> LiteralProto {
    let mut made = LiteralProto { shape: Some(shape_of(shape)), ..Default::default() };
    let payload = || Some(literal.payload.clone());
    let bytes = || literal.payload.to_bytes();
    match shape.dtype {
        DType::Bool => made.preds = payload(),
        DType::Uint8 => made.u8s = payload(),
        DType::Int8 => made.s8s = payload(),
        DType::Uint16 => made.u16s = payload(),
        DType::Int16 => made.s16s = payload(),
        DType::Float16 => made.f16s = payload(),
        DType::Bfloat16 => made.bf16s = payload(),
        DType::Double => made.f64s = payload(),
        DType::Float8E5M2 => made.f8e5m2s = payload(),
        DType::Float8E4M3FN => made.f8e4m3fns = payload(),
        DType::Float8E5M2FNUZ => made.f8e5m2fnuzs = payload(),
        DType::Float8E4M3FNUZ => made.f8e4m3fnuzs = payload(),
        DType::Float8E8M0 => made.f8e8m0fnus = payload(),
        DType::Int32 => made.s32s = bytes().as_chunks().0.iter().map(|&e| i32::from_le_bytes(e)).collect(),
        DType::Int64 => made.s64s = bytes().as_chunks().0.iter().map(|&e| i64::from_le_bytes(e)).collect(),
        DType::Uint32 => {
            made.u32s = bytes().as_chunks().0.iter().map(|&e| u64::from(u32::from_le_bytes(e))).collect();
        }
        DType::Uint64 => made.u64s = bytes().as_chunks().0.iter().map(|&e| u64::from_le_bytes(e)).collect(),
        _ => made.f32s = payload(),
    }
    made
}
