//! XLA's HLO messages: the names and field numbers of the format, as far as porter writes them.
//!
//! Fields that stay away have the value 0 or empty, which is what a reader takes them for.

use crate::onnx::wire::message;

message! {
    /// The whole module.
    HloModuleProto {
        1 name: opt string,
        2 entry_computation_name: opt string,
        3 computations: rep message(HloComputationProto),
        4 host_program_shape: opt message(ProgramShapeProto),
        5 id: opt int64,
        6 entry_computation_id: opt int64,
    }
    /// Instructions with one of them as the result.
    HloComputationProto {
        1 name: opt string,
        2 instructions: rep message(HloInstructionProto),
        4 program_shape: opt message(ProgramShapeProto),
        5 id: opt int64,
        6 root_id: opt int64,
    }
    /// One instruction.
    HloInstructionProto {
        1 name: opt string,
        2 opcode: opt string,
        3 shape: opt message(ShapeProto),
        7 metadata: opt message(OpMetadata),
        8 literal: opt message(LiteralProto),
        9 parameter_number: opt int64,
        13 tuple_index: opt int64,
        14 dimensions: packed int64,
        15 window: opt message(WindowProto),
        16 convolution_dimension_numbers: opt message(ConvolutionDimensionNumbers),
        17 slice_dimensions: rep message(SliceDimensions),
        20 dynamic_slice_sizes: packed int64,
        21 padding_config: opt message(PaddingConfig),
        30 dot_dimension_numbers: opt message(DotDimensionNumbers),
        33 gather_dimension_numbers: opt message(GatherDimensionNumbers),
        34 gather_slice_sizes: packed int64,
        35 id: opt int64,
        36 operand_ids: packed int64,
        38 called_computation_ids: packed int64,
        48 scatter_dimension_numbers: opt message(ScatterDimensionNumbers),
        50 feature_group_count: opt int64,
        58 batch_group_count: opt int64,
        60 is_stable: opt int64,
        63 comparison_direction: opt string,
        72 comparison_type: opt string,
    }
    /// Where an instruction comes from.
    OpMetadata {
        1 op_type: opt string,
        2 op_name: opt string,
    }
    /// Type, sizes and order of a tensor, or the shapes of a tuple.
    ShapeProto {
        2 element_type: opt int32,
        3 dimensions: packed int64,
        4 tuple_shapes: rep message(ShapeProto),
        5 layout: opt message(LayoutProto),
        6 is_dynamic_dimension: packed int64,
    }
    /// The order of dimensions in memory.
    LayoutProto {
        1 minor_to_major: packed int64,
    }
    /// What a computation takes and gives.
    ProgramShapeProto {
        1 parameters: rep message(ShapeProto),
        2 result: opt message(ShapeProto),
        3 parameter_names: rep string,
    }
    /// A constant's elements. Fixed-width numbers are written as they stand in memory.
    LiteralProto {
        1 shape: opt message(ShapeProto),
        2 preds: opt payload,
        3 u8s: opt payload,
        4 s32s: packed int32,
        5 s64s: packed int64,
        6 u32s: packed uint64,
        7 u64s: packed uint64,
        8 f32s: opt payload,
        9 f64s: opt payload,
        11 f16s: opt payload,
        13 bf16s: opt payload,
        15 s8s: opt payload,
        16 u16s: opt payload,
        17 s16s: opt payload,
        19 f8e5m2s: opt payload,
        20 f8e4m3fns: opt payload,
        24 f8e5m2fnuzs: opt payload,
        25 f8e4m3fnuzs: opt payload,
        31 f8e8m0fnus: opt payload,
    }
    /// A window over every dimension that has one.
    WindowProto {
        1 dimensions: rep message(WindowDimension),
    }
    /// A window over one dimension.
    WindowDimension {
        1 size: opt int64,
        2 stride: opt int64,
        3 padding_low: opt int64,
        4 padding_high: opt int64,
        5 window_dilation: opt int64,
        6 base_dilation: opt int64,
    }
    /// Which dimension of a convolution is what.
    ConvolutionDimensionNumbers {
        3 kernel_input_feature_dimension: opt int64,
        4 kernel_output_feature_dimension: opt int64,
        6 kernel_spatial_dimensions: packed int64,
        7 input_batch_dimension: opt int64,
        8 input_feature_dimension: opt int64,
        9 output_batch_dimension: opt int64,
        10 output_feature_dimension: opt int64,
        11 input_spatial_dimensions: packed int64,
        12 output_spatial_dimensions: packed int64,
    }
    /// A slice along one dimension.
    SliceDimensions {
        1 start: opt int64,
        2 limit: opt int64,
        3 stride: opt int64,
    }
    /// Padding of every dimension.
    PaddingConfig {
        1 dimensions: rep message(PaddingConfigDimension),
    }
    /// Padding of one dimension.
    PaddingConfigDimension {
        1 edge_padding_low: opt int64,
        2 edge_padding_high: opt int64,
        3 interior_padding: opt int64,
    }
    /// Which dimensions of a product are summed over and which run along.
    DotDimensionNumbers {
        1 lhs_contracting_dimensions: packed int64,
        2 rhs_contracting_dimensions: packed int64,
        3 lhs_batch_dimensions: packed int64,
        4 rhs_batch_dimensions: packed int64,
    }
    /// How a gather reads.
    GatherDimensionNumbers {
        1 offset_dims: packed int64,
        2 collapsed_slice_dims: packed int64,
        3 start_index_map: packed int64,
        4 index_vector_dim: opt int64,
    }
    /// How a scatter writes.
    ScatterDimensionNumbers {
        1 update_window_dims: packed int64,
        2 inserted_window_dims: packed int64,
        3 scatter_dims_to_operand_dims: packed int64,
        4 index_vector_dim: opt int64,
    }
}
