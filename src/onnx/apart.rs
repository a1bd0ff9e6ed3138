//! A message taken apart for writing: the bytes around its weights, and the weights with the places where they go.
//!
//! prost encodes a message front to back. Files that share weights are better written weight by weight, so that each is
//! converted or drawn once, and with their length known before the first byte. [`message!`](super::wire::message) declares
//! both ways.

use bytes::BufMut;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::Payload;

/// Weights of fewer bytes than this are written with what stands around them.
const SMALL: usize = 4096;

/// What can be taken apart.
pub trait TakeApart {
    /// Appends its fields, in the order of their encoding.
    fn take_apart<'a>(&'a self, out: &mut Apart<'a>);
}

/// The bytes of a message without its larger weights, which are not read yet.
#[derive(Debug, Default)]
pub struct Apart<'a> {
    /// Everything but the weights.
    bytes: Vec<u8>,
    /// The weights in order, each with the number of `bytes` in front of it.
    weights: Vec<(usize, &'a Payload)>,
}

impl<'a> Apart<'a> {
    /// A message, taken apart.
    pub fn of(message: &'a dyn TakeApart) -> Self {
        let mut apart = Self::default();
        message.take_apart(&mut apart);
        apart
    }

    /// How many bytes the whole message has.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.weights.iter().map(|(_, weight)| weight.len()).sum::<usize>()
    }

    /// The weights in order: the bytes between the one before and this one, the weight, and where in the whole it begins.
    pub fn weights(&self) -> impl Iterator<Item = (&[u8], &'a Payload, u64)> {
        let (mut from, mut before) = (0, 0);
        self.weights.iter().map(move |&(at, weight)| {
            let place = (at + before) as u64;
            let between = &self.bytes[from..at];
            (from, before) = (at, before + weight.len());
            (between, weight, place)
        })
    }

    /// The bytes behind the last weight.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.weights.last().map_or(0, |&(at, _)| at)..]
    }

    /// Where fields that are no weights go.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends a message as a field.
    pub(crate) fn message(&mut self, tag: u32, message: &'a (impl Message + TakeApart)) {
        encode_key(tag, WireType::LengthDelimited, &mut self.bytes);
        encode_varint(message.encoded_len() as u64, &mut self.bytes);
        message.take_apart(self);
    }

    /// Appends a weight as a field.
    pub(crate) fn weight(&mut self, tag: u32, weight: &'a Payload) {
        encode_key(tag, WireType::LengthDelimited, &mut self.bytes);
        encode_varint(weight.len() as u64, &mut self.bytes);
        match weight.len() {
            0..SMALL => weight.for_each_chunk(&mut |chunk| self.bytes.put_slice(chunk)),
            _ => self.weights.push((self.bytes.len(), weight)),
        }
    }
}
