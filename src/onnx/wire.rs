//! Declares protobuf messages that lose nothing.
//!
//! prost's derive drops the fields it does not know. A file that porter reads and writes must keep them (a newer ONNX,
//! a vendor's extension), so the messages are declared with the [`message!`] macro instead: the same encoding routines
//! of prost, plus an `unknown` buffer that holds every undeclared field exactly as it was read.

use bytes::{Buf, BufMut};
use prost::DecodeError;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

/// How deep an unknown group may nest before the file is refused. Groups died with proto2; depth is only an attack.
const MAX_GROUP_DEPTH: usize = 32;

/// Copies one undeclared field, key included, onto the end of `unknown`.
pub(crate) fn keep_unknown(
    tag: u32,
    wire_type: WireType,
    unknown: &mut Vec<u8>,
    buf: &mut impl Buf,
) -> Result<(), DecodeError> {
    copy_field(tag, wire_type, unknown, buf, 0)
}

fn copy_field(
    tag: u32,
    wire_type: WireType,
    out: &mut Vec<u8>,
    buf: &mut impl Buf,
    depth: usize,
) -> Result<(), DecodeError> {
    if depth > MAX_GROUP_DEPTH {
        return Err(error("groups are nested too deep"));
    }
    encode_key(tag, wire_type, out);
    let length = match wire_type {
        WireType::Varint => {
            encode_varint(decode_varint(buf)?, out);
            0
        }
        WireType::ThirtyTwoBit => 4,
        WireType::SixtyFourBit => 8,
        WireType::LengthDelimited => {
            let length = decode_varint(buf)?;
            encode_varint(length, out);
            length
        }
        WireType::StartGroup => loop {
            let (inner, inner_type) = decode_key(buf)?;
            if inner_type == WireType::EndGroup {
                if inner != tag {
                    return Err(error("a group ends with another field's number"));
                }
                encode_key(tag, WireType::EndGroup, out);
                break 0;
            }
            copy_field(inner, inner_type, out, buf, depth + 1)?;
        },
        WireType::EndGroup => return Err(error("a group ends that never began")),
    };
    if length > buf.remaining() as u64 {
        return Err(error("buffer underflow"));
    }
    let length = length as usize;
    out.reserve(length);
    out.put(buf.take(length));
    Ok(())
}

/// A decode error with words of our own.
#[allow(deprecated)] // prost keeps its constructor for generated code, which is what this module stands in for.
pub(crate) fn error(what: &'static str) -> DecodeError {
    DecodeError::new(what)
}

/// Declares message structs: `message! { Name { number field: label kind, ... } }`.
///
/// Labels: `opt` (an `Option`), `rep` (a `Vec`), `packed` (a `Vec` of numbers, written packed).
/// Kinds: prost's scalar modules (`string`, `bytes`, `int64`, ...), `payload` and `message(Type)`.
macro_rules! message {
    (@type opt message $t:ty) => { Option<$t> };
    (@type rep message $t:ty) => { Vec<$t> };
    (@type opt $kind:ident) => { Option<message!(@scalar $kind)> };
    (@type rep $kind:ident) => { Vec<message!(@scalar $kind)> };
    (@type packed $kind:ident) => { Vec<message!(@scalar $kind)> };
    (@scalar string) => { String };
    (@scalar bytes) => { bytes::Bytes };
    (@scalar payload) => { crate::onnx::payload::Payload };
    (@scalar int32) => { i32 };
    (@scalar int64) => { i64 };
    (@scalar uint64) => { u64 };
    (@scalar float) => { f32 };
    (@scalar double) => { f64 };
    (@module payload) => { crate::onnx::payload };
    (@module $kind:ident) => { prost::encoding::$kind };

    (@encode opt string $tag:literal $v:expr, $buf:expr) => { if let Some(v) = &$v { prost::encoding::string::encode($tag, v, $buf) } };
    (@encode opt bytes $tag:literal $v:expr, $buf:expr) => { if let Some(v) = &$v { prost::encoding::bytes::encode($tag, v, $buf) } };
    (@encode opt payload $tag:literal $v:expr, $buf:expr) => { if let Some(v) = &$v { crate::onnx::payload::encode($tag, v, $buf) } };
    (@encode opt message $tag:literal $v:expr, $buf:expr) => { if let Some(v) = &$v { prost::encoding::message::encode($tag, v, $buf) } };
    (@encode opt $kind:ident $tag:literal $v:expr, $buf:expr) => { if let Some(v) = &$v { prost::encoding::$kind::encode($tag, v, $buf) } };
    (@encode rep $kind:ident $tag:literal $v:expr, $buf:expr) => { prost::encoding::$kind::encode_repeated($tag, &$v, $buf) };
    (@encode packed $kind:ident $tag:literal $v:expr, $buf:expr) => { prost::encoding::$kind::encode_packed($tag, &$v, $buf) };

    (@apart opt payload $tag:literal $v:expr, $out:expr) => { if let Some(v) = &$v { $out.weight($tag, v) } };
    (@apart opt message $tag:literal $v:expr, $out:expr) => { if let Some(v) = &$v { $out.message($tag, v) } };
    (@apart rep message $tag:literal $v:expr, $out:expr) => { for v in &$v { $out.message($tag, v) } };
    (@apart $label:ident $kind:ident $tag:literal $v:expr, $out:expr) => { message!(@encode $label $kind $tag $v, $out.bytes()) };

    (@len opt payload $tag:literal $v:expr) => { $v.as_ref().map_or(0, |v| crate::onnx::payload::encoded_len($tag, v)) };
    (@len opt $kind:ident $tag:literal $v:expr) => { $v.as_ref().map_or(0, |v| prost::encoding::$kind::encoded_len($tag, v)) };
    (@len rep $kind:ident $tag:literal $v:expr) => { prost::encoding::$kind::encoded_len_repeated($tag, &$v) };
    (@len packed $kind:ident $tag:literal $v:expr) => { prost::encoding::$kind::encoded_len_packed($tag, &$v) };

    (@merge opt payload $v:expr, $wire:expr, $buf:expr, $ctx:expr) => { crate::onnx::payload::merge($wire, $v.get_or_insert_with(Default::default), $buf) };
    (@merge opt $kind:ident $v:expr, $wire:expr, $buf:expr, $ctx:expr) => { prost::encoding::$kind::merge($wire, $v.get_or_insert_with(Default::default), $buf, $ctx) };
    (@merge $label:ident $kind:ident $v:expr, $wire:expr, $buf:expr, $ctx:expr) => { prost::encoding::$kind::merge_repeated($wire, &mut $v, $buf, $ctx) };

    ($( $(#[$meta:meta])* $name:ident { $( $(#[$fmeta:meta])* $tag:literal $field:ident : $label:ident $kind:ident $(($t:ty))? ),* $(,)? } )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $( $(#[$fmeta])* pub $field: message!(@type $label $kind $($t)?), )*
            /// Fields with a number not declared here, key and value as they were read.
            pub unknown: Vec<u8>,
        }

        impl prost::Message for $name {
            fn encode_raw(&self, buf: &mut impl bytes::BufMut) {
                $( message!(@encode $label $kind $tag self.$field, buf); )*
                bytes::BufMut::put_slice(buf, &self.unknown);
            }
            fn merge_field(
                &mut self,
                tag: u32,
                wire_type: prost::encoding::WireType,
                buf: &mut impl bytes::Buf,
                ctx: prost::encoding::DecodeContext,
            ) -> Result<(), prost::DecodeError> {
                let _ = &ctx;
                match tag {
                    $( $tag => message!(@merge $label $kind self.$field, wire_type, buf, ctx).map_err(|mut error| {
                        error.push(stringify!($name), stringify!($field));
                        error
                    }), )*
                    _ => crate::onnx::wire::keep_unknown(tag, wire_type, &mut self.unknown, buf),
                }
            }
            fn encoded_len(&self) -> usize {
                let mut total = self.unknown.len();
                $( total += message!(@len $label $kind $tag self.$field); )*
                total
            }
            fn clear(&mut self) {
                *self = Self::default();
            }
        }

        impl crate::onnx::TakeApart for $name {
            fn take_apart<'a>(&'a self, out: &mut crate::onnx::Apart<'a>) {
                $( message!(@apart $label $kind $tag self.$field, out); )*
                out.bytes().extend_from_slice(&self.unknown);
            }
        }
    )* };
}
pub(crate) use message;
