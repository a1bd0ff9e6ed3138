//! Attention as one operator, and rotary embeddings.
//!
//! ONNX: Attention (opset 23 and later: 3 and 4 dimensions, fewer key heads than query heads, masks of bool and float, causal,
//! caches inside and outside, windows to both sides (25 and later), softcap, all four forms of the scores); RotaryEmbedding (opset 23 and later: whole and in part,
//! halves and interleaved, with and without positions). HLO: dot, select, reduce, exponential, divide; slices and gather.
//!
//! Types under 32 bits compute in float32, scores included.

use super::softmax::softmax_along;
use super::{Problem, wide};
use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Binary, Builder, Direction, DotDims, GatherDims, Op};
use crate::onnx::DType;

/// The tensor as `[batch, heads, length, size]`: from three dimensions, in which each place holds its heads in a row.
fn by_head(b: &mut Builder, x: Op, heads: Option<i64>) -> Result<Op, Problem> {
    match (b.dims(x).as_slice(), heads) {
        (&[_, _, _, _], _) => Ok(x),
        (&[batch, length, width], Some(heads)) if heads > 0 && width % heads == 0 => {
            let split = b.reshape(x, &[batch, length, heads, width / heads]);
            Ok(b.transpose(split, &[0, 2, 1, 3]))
        }
        (dims, heads) => Err(format!("{dims:?} does not hold {} heads", heads.unwrap_or(0)).into()),
    }
}

/// Attention.
pub fn attention(call: &mut Call) -> Lowered {
    let (q, k, v) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let (mask, past_key, past_value) = (call.optional(3)?, call.optional(4)?, call.optional(5)?);
    let valid = call.optional(6)?;
    let (q_heads, kv_heads) = (call.node.int("q_num_heads"), call.node.int("kv_num_heads"));
    let (causal, softcap) = (call.int("is_causal", 0) != 0, call.float("softcap", 0.0));
    let window = (call.int("left_window_size", -1), call.int("right_window_size", -1));
    let (mode, scale) = (call.int("qk_matmul_output_mode", 0), call.node.float("scale").map(f64::from));
    let (wants_key, wants_value, wants_scores) = (call.wants(1), call.wants(2), call.wants(3));
    let b = &mut *call.b;
    let flat = b.dims(q).len() == 3;
    let (q, k, v) = (by_head(b, q, q_heads)?, by_head(b, k, kv_heads)?, by_head(b, v, kv_heads)?);
    let joined = |b: &mut Builder, past: Option<Op>, new: Op| match past {
        Some(past) => b.concatenate(&[past, new], 2),
        None => new,
    };
    let (key, value) = (joined(b, past_key, k), joined(b, past_value, v));
    let ((q, narrow), (k, _), (v, _)) = (wide(b, q), wide(b, key), wide(b, value));
    let (q_dims, k_dims) = (b.dims(q), b.dims(k));
    let (&[batch, heads, length, size], &[_, kv_heads, total, _]) = (q_dims.as_slice(), k_dims.as_slice()) else {
        return Err("its inputs need 3 or 4 dimensions".into());
    };
    if kv_heads == 0 || heads % kv_heads != 0 {
        return Err(format!("{heads} heads of queries do not share {kv_heads} heads of keys").into());
    }
    let shared = heads / kv_heads;
    let (k, v) = (repeated(b, k, shared), repeated(b, v, shared));
    // Both sides carry half of the scale, as the operator says, so that nothing overflows on the way.
    let half = scale.unwrap_or_else(|| 1.0 / (size as f64).sqrt()).sqrt();
    let (q, k) = (b.scale(q, half), b.scale(k, half));
    let over = |right: i64| DotDims {
        left_contracting: vec![3],
        right_contracting: vec![right],
        left_batch: vec![0, 1],
        right_batch: vec![0, 1],
    };
    let mut scores = b.dot(q, k, over(3));
    let mut shown = scores;
    if softcap != 0.0 {
        let part = b.scale(scores, 1.0 / softcap);
        let part = b.tanh(part);
        scores = b.scale(part, softcap);
    }
    if mode == 1 {
        shown = scores;
    }
    let dims = [batch, heads, length, total];
    let mut allowed: Option<Op> = None;
    let allow = |b: &mut Builder, allowed: &mut Option<Op>, more: Op| {
        *allowed = Some(match *allowed {
            Some(before) => b.binary(Binary::And, before, more),
            None => more,
        });
    };
    if let Some(mask) = mask {
        let known = b.dims(mask);
        let short = total - known.last().copied().unwrap_or(total);
        let mask = match b.dtype(mask) {
            DType::Bool => mask,
            _ => wide(b, mask).0,
        };
        let rest = match b.dtype(mask) {
            DType::Bool => b.scalar(DType::Bool, 0.0),
            dtype => b.scalar(dtype, f64::NEG_INFINITY),
        };
        let (none, mut behind) = (vec![0; known.len()], vec![0; known.len()]);
        // A mask that ends early allows nothing behind its end.
        if let Some(last) = behind.last_mut().filter(|_| short > 0 && known.last() != Some(&1)) {
            *last = short;
        }
        let mask = b.pad(mask, rest, &none, &behind, &none);
        let mask = b.expand(mask, &dims);
        match b.dtype(mask) {
            DType::Bool => allow(b, &mut allowed, mask),
            _ => scores = b.add(scores, mask),
        }
    }
    let lengths = valid.map(|valid| {
        let valid = b.convert(valid, DType::Int32);
        b.along(valid, &dims, 0)
    });
    let places = b.iota(DType::Int32, &dims, 3);
    if causal || window != (-1, -1) {
        let own = b.iota(DType::Int32, &dims, 2);
        let before = match (lengths, past_key) {
            (Some(lengths), None) => {
                let queries = b.full_like(lengths, length as f64);
                b.sub(lengths, queries)
            }
            _ => b.full_like(own, past_key.map_or(0, |past| b.dims(past)[2]) as f64),
        };
        // Where each query stands among the keys, and how far it sees from there.
        let own = b.add(own, before);
        let (left, mut right) = (Some(window.0).filter(|&size| size >= 0), Some(window.1).filter(|&size| size >= 0));
        if causal {
            right = Some(0);
        }
        if let Some(size) = right {
            let last = b.add_number(own, size as f64);
            let seen = b.compare(Direction::Le, places, last);
            allow(b, &mut allowed, seen);
        }
        if let Some(size) = left {
            let first = b.add_number(own, -(size as f64));
            let seen = b.compare(Direction::Ge, places, first);
            allow(b, &mut allowed, seen);
        }
    }
    if let Some(lengths) = lengths {
        let there = b.compare(Direction::Lt, places, lengths);
        allow(b, &mut allowed, there);
    }
    if let Some(allowed) = allowed {
        let none = b.full_like(scores, f64::NEG_INFINITY);
        scores = b.select(allowed, scores, none);
    }
    if mode == 2 {
        shown = scores;
    }
    let weights = guarded(b, scores);
    if mode == 3 {
        shown = weights;
    }
    let made = b.dot(weights, v, over(2));
    let mut made = b.convert(made, narrow);
    if flat {
        let width = heads * b.dims(made)[3];
        made = b.transpose(made, &[0, 2, 1, 3]);
        made = b.reshape(made, &[batch, length, width]);
    }
    // Outputs that nobody wants stand for those before them.
    let mut outputs = vec![made];
    if wants_key || wants_value || wants_scores {
        outputs.extend([key, value]);
    }
    if wants_scores {
        let shown = b.convert(shown, narrow);
        outputs.push(shown);
    }
    Ok(outputs)
}

/// Each head `times` times, one behind the other.
fn repeated(b: &mut Builder, x: Op, times: i64) -> Op {
    let dims = b.dims(x);
    if times == 1 {
        return x;
    }
    let double = b.broadcast(x, &[dims[0], dims[1], times, dims[2], dims[3]], &[0, 1, 3, 4]);
    b.reshape(double, &[dims[0], dims[1] * times, dims[2], dims[3]])
}

/// Softmax over the last dimension; zeros for a row that attends to nothing.
fn guarded(b: &mut Builder, scores: Op) -> Op {
    let dims = b.dims(scores);
    let top = b.largest(scores, &[3]);
    let none = b.full_like(top, f64::NEG_INFINITY);
    let empty = b.compare(Direction::Eq, top, none);
    let empty = b.spread(empty, &dims, &[3]);
    let zero = b.full_like(scores, 0.0);
    let finite = b.select(empty, zero, scores);
    let weights = softmax_along(b, finite, 3);
    b.select(empty, zero, weights)
}

/// RotaryEmbedding.
pub fn rotary_embedding(call: &mut Call) -> Lowered {
    let (x, cosines, sines, places) = (call.input(0)?, call.input(1)?, call.input(2)?, call.optional(3)?);
    let (heads, interleaved) = (call.int("num_heads", 0), call.int("interleaved", 0) != 0);
    let part = call.int("rotary_embedding_dim", 0);
    let b = &mut *call.b;
    let (x, narrow) = wide(b, x);
    let given = b.dims(x);
    // As `[batch, length, heads, size]`.
    let x = match given.as_slice() {
        [_, _, _, _] => b.transpose(x, &[0, 2, 1, 3]),
        &[batch, length, width] if heads > 0 && width % heads == 0 => {
            b.reshape(x, &[batch, length, heads, width / heads])
        }
        other => return Err(format!("{other:?} does not hold {heads} heads").into()),
    };
    let dims = b.dims(x);
    let turned = if part == 0 { dims[3] } else { part };
    if turned < 0 || turned > dims[3] || turned % 2 != 0 {
        return Err(format!("{turned} of {} numbers cannot be turned in pairs", dims[3]).into());
    }
    let pairs = turned / 2;
    let angle = |b: &mut Builder, table: Op| -> Result<Op, Problem> {
        let (table, _) = wide(b, table);
        let rows = match places {
            Some(places) => {
                let width = b.dims(table).last().copied().unwrap_or(0);
                let spec = GatherDims {
                    offset_dims: vec![2],
                    collapsed_slice_dims: vec![0],
                    start_index_map: vec![0],
                    index_vector_dim: 2,
                    slice_sizes: vec![1, width],
                };
                b.gather(table, places, spec)
            }
            None => table,
        };
        let whole = [dims[0], dims[1], dims[2], pairs];
        if b.dims(rows) != [dims[0], dims[1], pairs] {
            return Err(format!("its angles are {:?}, for {pairs} pairs", b.dims(rows)).into());
        }
        Ok(b.broadcast(rows, &whole, &[0, 1, 3]))
    };
    let (cosine, sine) = (angle(b, cosines)?, angle(b, sines)?);
    let all: Vec<i64> = vec![0; 4];
    let cut = |b: &mut Builder, from: i64, to: i64, step: i64| {
        let (mut start, mut limit, mut stride) = (all.clone(), dims.clone(), vec![1; 4]);
        (start[3], limit[3], stride[3]) = (from, to, step);
        b.slice(x, &start, &limit, &stride)
    };
    let (left, right) = match interleaved {
        true => (cut(b, 0, turned, 2), cut(b, 1, turned, 2)),
        false => (cut(b, 0, pairs, 1), cut(b, pairs, turned, 1)),
    };
    let (a, c) = (b.mul(cosine, left), b.mul(sine, right));
    let real = b.sub(a, c);
    let (a, c) = (b.mul(sine, left), b.mul(cosine, right));
    let imaginary = b.add(a, c);
    let mut made = match interleaved {
        true => {
            let apart = [dims[0], dims[1], dims[2], pairs, 1];
            let both = [b.reshape(real, &apart), b.reshape(imaginary, &apart)];
            let together = b.concatenate(&both, 4);
            b.reshape(together, &[dims[0], dims[1], dims[2], turned])
        }
        false => b.concatenate(&[real, imaginary], 3),
    };
    if turned < dims[3] {
        let rest = cut(b, turned, dims[3], 1);
        made = b.concatenate(&[made, rest], 3);
    }
    made = match given.len() {
        4 => b.transpose(made, &[0, 2, 1, 3]),
        _ => b.reshape(made, &given),
    };
    Ok(vec![b.convert(made, narrow)])
}
