//! Convolutions.
//!
//! | ONNX (opset 1 and later) | HLO |
//! | --- | --- |
//! | Conv: any number of space dimensions, groups, dilations, strides, pads, auto_pad | convolution over `[batch, feature, space]` as it is, add of the bias |
//! | ConvTranspose: the same, with output_padding and output_shape | convolution of the input dilated by the strides with the kernel turned round; negative padding is cut off behind |
//! | ConvInteger, QLinearConv | convolution in int32 after the zero points are taken away |
//!
//! The layout is left to the compiler: the dimension numbers say what is what. No convolution has both an input dilation
//! and a stride, which the Neuron compiler refuses (NCC_EVRF011).

use super::Problem;
use super::matmul::centred;
use super::quantize::requantize;
use crate::lower::call::{Call, Lowered};
use crate::lower::hlo::{Binary, Op, Window};
use crate::onnx::{DType, Tensor};

/// What the attributes say of a window, one entry a space dimension.
pub struct Geometry {
    /// Sizes of the window.
    pub kernel: Vec<i64>,
    /// Steps of the window.
    pub strides: Vec<i64>,
    /// Steps inside the window.
    pub dilations: Vec<i64>,
    /// Padding before.
    pub low: Vec<i64>,
    /// Padding behind.
    pub high: Vec<i64>,
}

impl Geometry {
    /// Reads the attributes. `space` are the input's sizes, `kernel` those of the window where no attribute says them.
    pub fn of(call: &Call, space: &[i64], kernel: Option<&[i64]>) -> Result<Self, Problem> {
        let n = space.len();
        let list = |name: &str, default: i64| match call.node.ints(name) {
            Some(list) if list.len() == n => Ok(list.to_vec()),
            Some([]) | None => Ok(vec![default; n]),
            Some(list) => Err(format!("{name} has {} entries for {n} dimensions", list.len())),
        };
        let kernel = match kernel {
            Some(kernel) => kernel.to_vec(),
            None => call.node.ints("kernel_shape").ok_or("its kernel_shape is missing")?.to_vec(),
        };
        let (strides, dilations) = (list("strides", 1)?, list("dilations", 1)?);
        if kernel.len() != n || strides.iter().chain(&dilations).any(|&size| size < 1) {
            return Err(format!("kernel {kernel:?}, strides {strides:?}, dilations {dilations:?} of {space:?}").into());
        }
        let (mut low, mut high) = (vec![0; n], vec![0; n]);
        match call.text("auto_pad", "NOTSET").as_str() {
            "SAME_UPPER" | "SAME_LOWER" => {
                let lower = call.text("auto_pad", "NOTSET") == "SAME_LOWER";
                for i in 0..n {
                    let places = (space[i] + strides[i] - 1) / strides[i];
                    let reach = (kernel[i] - 1) * dilations[i] + 1;
                    let total = ((places - 1) * strides[i] + reach - space[i]).max(0);
                    let (small, large) = (total / 2, total - total / 2);
                    (low[i], high[i]) = if lower { (large, small) } else { (small, large) };
                }
            }
            "VALID" => {}
            _ => match call.node.ints("pads") {
                Some(pads) if pads.len() == 2 * n => (low, high) = (pads[..n].to_vec(), pads[n..].to_vec()),
                Some([]) | None => {}
                Some(pads) => return Err(format!("{} pads for {n} dimensions", pads.len()).into()),
            },
        }
        Ok(Self { kernel, strides, dilations, low, high })
    }

    /// The window of a convolution.
    pub fn window(&self) -> Vec<Window> {
        (0..self.kernel.len())
            .map(|i| Window {
                size: self.kernel[i],
                stride: self.strides[i],
                low: self.low[i],
                high: self.high[i],
                dilation: self.dilations[i],
                base_dilation: 1,
            })
            .collect()
    }
}

/// Conv.
pub fn conv(call: &mut Call) -> Lowered {
    let (x, kernel, bias) = (call.input(0)?, call.input(1)?, call.optional(2)?);
    let made = convolve(call, x, kernel)?;
    Ok(vec![with_bias(call, made, bias)])
}

fn convolve(call: &mut Call, x: Op, kernel: Op) -> Result<Op, Problem> {
    let (dims, filter) = (call.b.dims(x), call.b.dims(kernel));
    if dims.len() < 3 || filter.len() != dims.len() {
        return Err(format!("an input of {dims:?} with a kernel of {filter:?}").into());
    }
    let geometry = Geometry::of(call, &dims[2..], Some(&filter[2..]))?;
    let groups = call.int("group", 1);
    Ok(call.b.convolution(x, kernel, &geometry.window(), groups))
}

fn with_bias(call: &mut Call, made: Op, bias: Option<Op>) -> Op {
    let Some(bias) = bias else { return made };
    let dims = call.b.dims(made);
    let bias = call.b.along(bias, &dims, 1);
    call.b.binary(Binary::Add, made, bias)
}

/// ConvTranspose.
pub fn conv_transpose(call: &mut Call) -> Lowered {
    let x = call.input(0)?;
    let dims = call.b.dims(x);
    let filter = call.dims(1)?;
    let (n, groups) = (dims.len().saturating_sub(2), call.int("group", 1));
    if dims.len() < 3 || filter.len() != dims.len() || groups < 1 || filter[0] % groups != 0 {
        return Err(format!("an input of {dims:?} with a kernel of {filter:?} in {groups} groups").into());
    }
    let geometry = Geometry::of(call, &dims[2..], Some(&filter[2..]))?;
    let out = call.output(0)?.dims;
    let extra = call.node.ints("output_padding").map_or_else(|| vec![0; n], <[i64]>::to_vec);
    if extra.len() != n || out.len() != n + 2 {
        return Err(format!("an output padding of {extra:?} for {n} dimensions").into());
    }
    let auto = call.text("auto_pad", "NOTSET");
    let explicit = call.node.ints("output_shape").is_some_and(|sizes| !sizes.is_empty());
    let kernel = turned(call, &filter, groups)?;
    let mut window = Vec::new();
    let mut cut = vec![(0, 0); n];
    for i in 0..n {
        let reach = (geometry.kernel[i] - 1) * geometry.dilations[i];
        let full = geometry.strides[i] * (dims[2 + i] - 1) + reach + 1 + extra[i];
        let (mut low, mut high) = (geometry.low[i], geometry.high[i]);
        if explicit || auto.starts_with("SAME") {
            let total = full - out[2 + i];
            // What does not halve goes in front only where the padding is SAME_LOWER's or an explicit shape's.
            // A shape of its own that is larger gets the rest behind; padding of SAME halves towards zero.
            let small = if explicit { total.div_euclid(2) } else { total / 2 };
            (low, high) = if auto == "SAME_UPPER" { (small, total - small) } else { (total - small, small) };
        }
        // The output is the full one less the padding; what the window cannot take as padding is cut off behind.
        let (before, behind) = (reach - low, reach - high + extra[i]);
        cut[i] = ((-before).max(0), (-behind).max(0));
        window.push(Window {
            size: geometry.kernel[i],
            stride: 1,
            low: before.max(0),
            high: behind.max(0),
            dilation: geometry.dilations[i],
            base_dilation: geometry.strides[i],
        });
    }
    let mut made = call.b.convolution(x, kernel, &window, groups);
    let whole = call.b.dims(made);
    if cut.iter().any(|&(low, high)| low != 0 || high != 0) {
        let start: Vec<i64> = [0, 0].into_iter().chain(cut.iter().map(|c| c.0)).collect();
        let limit: Vec<i64> =
            whole.iter().zip([0, 0].into_iter().chain(cut.iter().map(|c| c.1))).map(|(size, cut)| size - cut).collect();
        made = call.b.slice(made, &start, &limit, &vec![1; whole.len()]);
    }
    let bias = call.optional(2)?;
    Ok(vec![with_bias(call, made, bias)])
}

/// The kernel `[in, out / groups, space]` as a convolution takes it: `[out, in / groups, space]`, turned round in space.
/// A constant one is turned now.
fn turned(call: &mut Call, filter: &[i64], groups: i64) -> Result<Op, Problem> {
    let space = &filter[2..];
    let (inputs, outputs) = (filter[0] / groups, filter[1]);
    let whole: Vec<i64> = [groups * outputs, inputs].into_iter().chain(space.iter().copied()).collect();
    if let Ok(tensor) = call.tensor(1) {
        let value = call.node.input(1).map(|id| call.graph.value(id).name.clone()).unwrap_or_default();
        if let Some(turned) = turn_constant(&tensor, groups as usize, &whole) {
            let shape = crate::lower::hlo::Shape::new(tensor.dtype(), whole);
            return Ok(call.b.weight(&value, shape, crate::onnx::Payload::Bytes(turned.into())));
        }
    }
    let kernel = call.input(1)?;
    let b = &mut *call.b;
    let mut split = vec![groups, inputs, outputs];
    split.extend(space);
    let split = b.reshape(kernel, &split);
    let perm: Vec<i64> = [0, 2, 1].into_iter().chain(3..3 + space.len() as i64).collect();
    let swapped = b.transpose(split, &perm);
    let joined = b.reshape(swapped, &whole);
    Ok(b.reverse(joined, &(2..2 + space.len() as i64).collect::<Vec<_>>()))
}

fn turn_constant(tensor: &Tensor, groups: usize, whole: &[i64]) -> Option<Vec<u8>> {
    let bytes = tensor.to_bytes().ok()?;
    let width = tensor.dtype().bits() / 8;
    let space: usize = whole[2..].iter().product::<i64>() as usize;
    let (outputs, inputs) = (whole[0] as usize / groups, whole[1] as usize);
    let mut out = Vec::with_capacity(bytes.len());
    for group in 0..groups {
        for o in 0..outputs {
            for i in 0..inputs {
                let start = ((group * inputs + i) * outputs + o) * space;
                for place in (start..start + space).rev() {
                    out.extend_from_slice(bytes.get(place * width..(place + 1) * width)?);
                }
            }
        }
    }
    Some(out)
}

/// ConvInteger.
pub fn conv_integer(call: &mut Call) -> Lowered {
    let (x, kernel) = (call.input(0)?, call.input(1)?);
    let (x_zero, kernel_zero) = (call.optional(2)?, call.optional(3)?);
    Ok(vec![integer_convolution(call, (x, x_zero), (kernel, kernel_zero))?])
}

/// A convolution in int32. Padding stands for the zero point, as it would for 0.
fn integer_convolution(call: &mut Call, x: (Op, Option<Op>), kernel: (Op, Option<Op>)) -> Result<Op, Problem> {
    let left = centred(call.b, x.0, x.1, false);
    let right = centred_kernel(call, kernel);
    convolve(call, left, right)
}

fn centred_kernel(call: &mut Call, (kernel, zero): (Op, Option<Op>)) -> Op {
    let b = &mut *call.b;
    let wide = b.convert(kernel, DType::Int32);
    let Some(zero) = zero else { return wide };
    let zero = b.convert(zero, DType::Int32);
    let (dims, like) = (b.dims(zero), b.dims(kernel));
    let zero = match dims.as_slice() {
        [] => zero,
        [1] => b.reshape(zero, &[]),
        _ => b.along(zero, &like, 0),
    };
    b.sub(wide, zero)
}

/// QLinearConv.
pub fn qlinear_conv(call: &mut Call) -> Lowered {
    let (x, x_scale, x_zero) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let (kernel, scale, zero) = (call.input(3)?, call.input(4)?, call.input(5)?);
    let (y_scale, y_zero) = (call.input(6)?, call.input(7)?);
    let mut sum = integer_convolution(call, (x, Some(x_zero)), (kernel, Some(zero)))?;
    if let Some(bias) = call.optional(8)? {
        sum = with_bias(call, sum, Some(bias));
    }
    let b = &mut *call.b;
    let dims = b.dims(sum);
    let number = |b: &mut crate::lower::hlo::Builder, x: Op| {
        let count: i64 = b.dims(x).iter().product();
        if count == 1 {
            let one = b.reshape(x, &[]);
            b.broadcast(one, &dims, &[])
        } else {
            b.along(x, &dims, 1)
        }
    };
    let (left, right, below) = (number(b, x_scale), number(b, scale), number(b, y_scale));
    let both = b.mul(left, right);
    let factor = b.div(both, below);
    let y_zero = number(b, y_zero);
    Ok(vec![requantize(b, sum, factor, y_zero)])
}
