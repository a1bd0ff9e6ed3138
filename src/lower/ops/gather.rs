//! Reading and writing at places that are computed.
//!
//! | ONNX (opset 11 and later) | HLO |
//! | --- | --- |
//! | GatherElements | iota, concatenate, gather of single elements |
//! | GatherND | gather; iota for batch dimensions |
//! | ScatterElements | iota, concatenate, scatter of single elements |
//! | ScatterND | scatter |
//!
//! A scatter's reduction is none (the new value replaces), add, mul, max or min.

use super::Problem;
use super::slice::from_the_front;
use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Binary, Builder, GatherDims, Op, ScatterDims};

/// GatherElements.
pub fn gather_elements(call: &mut Call) -> Lowered {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let rank = call.b.dims(x).len();
    let axis = call.axis("axis", 0, rank)?;
    let b = &mut *call.b;
    let vectors = element_vectors(b, x, indices, axis);
    Ok(vec![gather_points(b, x, vectors, rank)])
}

/// For each element of `indices` the place it means: its own, but for `axis`, where it is what `indices` says.
fn element_vectors(b: &mut Builder, x: Op, indices: Op, axis: usize) -> Op {
    let size = b.dims(x)[axis];
    let indices = from_the_front(b, indices, size);
    let dims = b.dims(indices);
    let mut column = dims.clone();
    column.push(1);
    let dtype = b.dtype(indices);
    let parts: Vec<Op> = (0..dims.len())
        .map(|i| {
            let place = if i == axis { indices } else { b.iota(dtype, &dims, i) };
            b.reshape(place, &column)
        })
        .collect();
    b.concatenate(&parts, dims.len())
}

/// The slices of `x` that `vectors` (`[..., depth]`) point at with their leading `depth` coordinates.
pub fn gather_points(b: &mut Builder, x: Op, vectors: Op, depth: usize) -> Op {
    let dims = b.dims(x);
    let batch = b.dims(vectors).len() as i64 - 1;
    let numbers = GatherDims {
        offset_dims: (batch..batch + (dims.len() - depth) as i64).collect(),
        collapsed_slice_dims: (0..depth as i64).collect(),
        start_index_map: (0..depth as i64).collect(),
        index_vector_dim: batch,
        slice_sizes: dims.iter().enumerate().map(|(i, &size)| if i < depth { 1 } else { size }).collect(),
    };
    b.gather(x, vectors, numbers)
}

/// GatherND.
pub fn gather_nd(call: &mut Call) -> Lowered {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let batch = call.int("batch_dims", 0) as usize;
    let b = &mut *call.b;
    let vectors = point_vectors(b, x, indices, batch)?;
    let depth = *b.dims(vectors).last().unwrap_or(&0) as usize;
    Ok(vec![gather_points(b, x, vectors, depth)])
}

/// Index vectors with the batch dimensions put before them, counted from the front.
fn point_vectors(b: &mut Builder, x: Op, indices: Op, batch: usize) -> Result<Op, Problem> {
    let (dims, index_dims) = (b.dims(x), b.dims(indices));
    let Some((&depth, lead)) = index_dims.split_last() else { return Err("its indices are a scalar".into()) };
    if batch + depth as usize > dims.len() || batch > lead.len() {
        return Err(format!("{depth} coordinates point into {} dimensions", dims.len()).into());
    }
    let dtype = b.dtype(indices);
    let sizes: Vec<i64> = dims[batch..batch + depth as usize].to_vec();
    let limits = b.integers(dtype, &[depth], &sizes);
    let behind = b.add(indices, limits);
    let zero = b.full_like(indices, 0.0);
    let below = b.compare(crate::lower::hlo::Direction::Lt, indices, zero);
    let counted = b.select(below, behind, indices);
    let mut column = lead.to_vec();
    column.push(1);
    let mut parts: Vec<Op> = (0..batch)
        .map(|i| {
            let own = b.iota(dtype, lead, i);
            b.reshape(own, &column)
        })
        .collect();
    parts.push(counted);
    Ok(b.concatenate(&parts, lead.len()))
}

fn reduction(call: &Call) -> Result<Option<Binary>, Problem> {
    match call.text("reduction", "none").as_str() {
        "none" => Ok(None),
        "add" => Ok(Some(Binary::Add)),
        "mul" => Ok(Some(Binary::Multiply)),
        "max" => Ok(Some(Binary::Maximum)),
        "min" => Ok(Some(Binary::Minimum)),
        other => Err(format!("reduction '{other}' is not one that ONNX defines").into()),
    }
}

/// ScatterElements and Scatter.
pub fn scatter_elements(call: &mut Call) -> Lowered {
    let (x, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let rank = call.b.dims(x).len();
    let axis = call.axis("axis", 0, rank)?;
    let combine = reduction(call)?;
    let b = &mut *call.b;
    let vectors = element_vectors(b, x, indices, axis);
    Ok(vec![scatter_points(b, x, vectors, updates, rank, combine)])
}

/// ScatterND.
pub fn scatter_nd(call: &mut Call) -> Lowered {
    let (x, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let combine = reduction(call)?;
    let b = &mut *call.b;
    let vectors = point_vectors(b, x, indices, 0)?;
    let depth = *b.dims(vectors).last().unwrap_or(&0) as usize;
    Ok(vec![scatter_points(b, x, vectors, updates, depth, combine)])
}

fn scatter_points(b: &mut Builder, x: Op, vectors: Op, updates: Op, depth: usize, combine: Option<Binary>) -> Op {
    let rank = b.dims(x).len() as i64;
    let batch = b.dims(vectors).len() as i64 - 1;
    let depth = depth as i64;
    let numbers = ScatterDims {
        update_window_dims: (batch..batch + rank - depth).collect(),
        inserted_window_dims: (0..depth).collect(),
        scatter_dims_to_operand_dims: (0..depth).collect(),
        index_vector_dim: batch,
    };
    b.scatter(x, vectors, updates, numbers, combine)
}
