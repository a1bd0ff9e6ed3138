//! Element types, numbered as in `TensorProto.DataType` and named as in ONNX's textual syntax.

use serde::{Deserialize, Serialize};

macro_rules! dtypes {
    ($($variant:ident $number:literal $name:literal $bits:literal),* $(,)?) => {
        /// The type of a tensor's elements.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)] // each variant is the format's own name
        pub enum DType { $($variant),* }

        impl DType {
            /// Every type, in the format's order.
            pub const ALL: &'static [DType] = &[$(DType::$variant),*];

            /// The type with this number in the file format.
            pub fn from_number(number: i32) -> Option<Self> {
                match number { $($number => Some(DType::$variant),)* _ => None }
            }

            /// The number in the file format.
            pub fn number(self) -> i32 {
                match self { $(DType::$variant => $number),* }
            }

            /// The name in ONNX's textual syntax: `float`, `int64`, `bfloat16`, ...
            pub fn name(self) -> &'static str {
                match self { $(DType::$variant => $name),* }
            }

            /// The type with this textual name; also `float32`, `float64` and `half`, as people write them.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(DType::$variant),)*
                    "float32" => Some(DType::Float),
                    "float64" => Some(DType::Double),
                    "half" => Some(DType::Float16),
                    _ => None,
                }
            }

            /// Bits an element takes in `raw_data`; 0 for strings, which have no fixed size.
            pub fn bits(self) -> usize {
                match self { $(DType::$variant => $bits),* }
            }
        }
    };
}

dtypes! {
    Float 1 "float" 32,
    Uint8 2 "uint8" 8,
    Int8 3 "int8" 8,
    Uint16 4 "uint16" 16,
    Int16 5 "int16" 16,
    Int32 6 "int32" 32,
    Int64 7 "int64" 64,
    String 8 "string" 0,
    Bool 9 "bool" 8,
    Float16 10 "float16" 16,
    Double 11 "double" 64,
    Uint32 12 "uint32" 32,
    Uint64 13 "uint64" 64,
    Complex64 14 "complex64" 64,
    Complex128 15 "complex128" 128,
    Bfloat16 16 "bfloat16" 16,
    Float8E4M3FN 17 "float8e4m3fn" 8,
    Float8E4M3FNUZ 18 "float8e4m3fnuz" 8,
    Float8E5M2 19 "float8e5m2" 8,
    Float8E5M2FNUZ 20 "float8e5m2fnuz" 8,
    Uint4 21 "uint4" 4,
    Int4 22 "int4" 4,
    Float4E2M1 23 "float4e2m1" 4,
    Float8E8M0 24 "float8e8m0" 8,
    Uint2 25 "uint2" 2,
    Int2 26 "int2" 2,
    Float6E2M3 27 "float6e2m3" 6,
    Float6E3M2 28 "float6e3m2" 6,
}

impl DType {
    /// The name with its width spelled out, as people and JSON take it: `float32` and `float64` for `float` and `double`.
    pub fn spelled(self) -> &'static str {
        match self {
            DType::Float => "float32",
            DType::Double => "float64",
            other => other.name(),
        }
    }

    /// Whether this is one of the floating-point types of 16 bits or more.
    pub fn is_float(self) -> bool {
        matches!(self, DType::Float | DType::Double | DType::Float16 | DType::Bfloat16)
    }

    /// Whether this is a whole-number type of 8 bits or more; bool is not one.
    pub fn is_integer(self) -> bool {
        use DType::*;
        matches!(self, Uint8 | Int8 | Uint16 | Int16 | Int32 | Int64 | Uint32 | Uint64)
    }

    /// Bytes that `count` elements take in `raw_data`; sub-byte types are packed and the last byte padded.
    /// `None` on overflow or for strings.
    pub fn byte_len(self, count: usize) -> Option<usize> {
        match self.bits() {
            0 => None,
            bits => Some(count.checked_mul(bits)?.div_ceil(8)),
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for DType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.spelled())
    }
}

impl<'de> Deserialize<'de> for DType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        DType::from_name(&name).ok_or_else(|| serde::de::Error::custom(format!("'{name}' is not an element type")))
    }
}

impl schemars::JsonSchema for DType {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DType".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let names: Vec<&str> = DType::ALL.iter().map(|dtype| dtype.spelled()).collect();
        schemars::json_schema!({ "type": "string", "enum": names })
    }
}
