//! ONNX's file messages: the names and field numbers of the format, as far as porter reads them.
//!
//! What is not declared (sharding hints, training graphs, opaque types, whatever a later version adds) stays in each
//! message's `unknown` buffer and is written back untouched. Field numbers: the ONNX format, IR version 13.

use super::wire::message;

message! {
    /// The whole file.
    ModelProto {
        1 ir_version: opt int64,
        2 producer_name: opt string,
        3 producer_version: opt string,
        4 domain: opt string,
        5 model_version: opt int64,
        6 doc_string: opt string,
        7 graph: opt message(GraphProto),
        // After the graph, as its number says: OpenVINO takes no file with two of them anywhere else.
        8 opset_import: rep message(OperatorSetIdProto),
        14 metadata_props: rep message(StringStringEntryProto),
        25 functions: rep message(FunctionProto),
    }
    /// A graph: the model's, or one held by an attribute of If, Loop or Scan.
    GraphProto {
        1 node: rep message(NodeProto),
        2 name: opt string,
        5 initializer: rep message(TensorProto),
        15 sparse_initializer: rep message(SparseTensorProto),
        10 doc_string: opt string,
        11 input: rep message(ValueInfoProto),
        12 output: rep message(ValueInfoProto),
        13 value_info: rep message(ValueInfoProto),
        16 metadata_props: rep message(StringStringEntryProto),
    }
    /// One operator call. An empty input or output name is an omitted optional.
    NodeProto {
        1 input: rep string,
        2 output: rep string,
        3 name: opt string,
        4 op_type: opt string,
        7 domain: opt string,
        8 overload: opt string,
        5 attribute: rep message(AttributeProto),
        6 doc_string: opt string,
        9 metadata_props: rep message(StringStringEntryProto),
    }
    /// A named attribute; `kind` (the format's `type`) says which field holds the value.
    AttributeProto {
        1 name: opt string,
        21 ref_attr_name: opt string,
        13 doc_string: opt string,
        20 kind: opt int32,
        2 f: opt float,
        3 i: opt int64,
        4 s: opt bytes,
        5 t: opt message(TensorProto),
        6 g: opt message(GraphProto),
        22 sparse_tensor: opt message(SparseTensorProto),
        14 tp: opt message(TypeProto),
        7 floats: rep float,
        8 ints: rep int64,
        9 strings: rep bytes,
        10 tensors: rep message(TensorProto),
        11 graphs: rep message(GraphProto),
        23 sparse_tensors: rep message(SparseTensorProto),
        15 type_protos: rep message(TypeProto),
    }
    /// A tensor with its values: in `raw_data`, in a typed field, or in another file.
    TensorProto {
        1 dims: rep int64,
        2 data_type: opt int32,
        4 float_data: packed float,
        5 int32_data: packed int32,
        6 string_data: rep bytes,
        7 int64_data: packed int64,
        8 name: opt string,
        12 doc_string: opt string,
        9 raw_data: opt payload,
        13 external_data: rep message(StringStringEntryProto),
        14 data_location: opt int32,
        10 double_data: packed double,
        11 uint64_data: packed uint64,
        16 metadata_props: rep message(StringStringEntryProto),
    }
    /// A sparse tensor; carried, never computed with.
    SparseTensorProto {
        1 values: opt message(TensorProto),
        2 indices: opt message(TensorProto),
        3 dims: rep int64,
    }
    /// A named value and its type.
    ValueInfoProto {
        1 name: opt string,
        2 kind: opt message(TypeProto),
        3 doc_string: opt string,
        4 metadata_props: rep message(StringStringEntryProto),
    }
    /// A value's type. Only tensors are opened; sequences, maps and optionals stay as read.
    TypeProto {
        1 tensor_type: opt message(TensorTypeProto),
        6 denotation: opt string,
    }
    /// A tensor's element type and, if declared, its shape.
    TensorTypeProto {
        1 elem_type: opt int32,
        2 shape: opt message(TensorShapeProto),
    }
    /// A shape; a dimension with neither value nor name is unknown.
    TensorShapeProto {
        1 dim: rep message(DimensionProto),
    }
    /// One dimension: a number, or a name.
    DimensionProto {
        1 dim_value: opt int64,
        2 dim_param: opt string,
        3 denotation: opt string,
    }
    /// A key and its value, both text.
    StringStringEntryProto {
        1 key: opt string,
        2 value: opt string,
    }
    /// The version of one operator domain.
    OperatorSetIdProto {
        1 domain: opt string,
        2 version: opt int64,
    }
    /// A model-local function.
    FunctionProto {
        1 name: opt string,
        4 input: rep string,
        5 output: rep string,
        6 attribute: rep string,
        11 attribute_proto: rep message(AttributeProto),
        7 node: rep message(NodeProto),
        8 doc_string: opt string,
        9 opset_import: rep message(OperatorSetIdProto),
        10 domain: opt string,
        13 overload: opt string,
        12 value_info: rep message(ValueInfoProto),
        14 metadata_props: rep message(StringStringEntryProto),
    }
}

impl StringStringEntryProto {
    /// An entry from its two halves.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: Some(key.into()), value: Some(value.into()), unknown: Vec::new() }
    }
}

/// `TensorProto.data_location`: the values stand in another file.
pub const LOCATION_EXTERNAL: i32 = 1;

/// The numbers of `AttributeProto.type`.
pub mod attribute_type {
    #![allow(missing_docs)]
    pub const FLOAT: i32 = 1;
    pub const INT: i32 = 2;
    pub const STRING: i32 = 3;
    pub const TENSOR: i32 = 4;
    pub const GRAPH: i32 = 5;
    pub const FLOATS: i32 = 6;
    pub const INTS: i32 = 7;
    pub const STRINGS: i32 = 8;
    pub const TENSORS: i32 = 9;
    pub const GRAPHS: i32 = 10;
    pub const SPARSE_TENSOR: i32 = 11;
    pub const SPARSE_TENSORS: i32 = 12;
    pub const TYPE_PROTO: i32 = 13;
    pub const TYPE_PROTOS: i32 = 14;
}
