//! Shapes of operators that move a window: convolutions and pools.

use super::call::{Call, Outcome, shown, unknown};
use super::size::Size;

/// One spatial axis of a window operator.
struct Axis {
    kernel: Size,
    stride: i64,
    dilation: i64,
    begin: i64,
    end: i64,
}

/// How the borders are padded.
#[derive(Clone, Copy, PartialEq)]
enum Padding {
    Given,
    Same,
    Valid,
}

impl Call<'_> {
    fn padding(&self) -> Result<Padding, String> {
        match self.node.string("auto_pad").unwrap_or("NOTSET") {
            "NOTSET" | "" => Ok(Padding::Given),
            "VALID" => Ok(Padding::Valid),
            "SAME_UPPER" | "SAME_LOWER" => Ok(Padding::Same),
            other => Err(format!("auto_pad '{other}' is none that ONNX defines")),
        }
    }

    /// Attributes for each spatial axis, defaults filled in; an attribute of the wrong length is an error.
    fn axes(&self, kernel: Vec<Size>) -> Result<Vec<Axis>, String> {
        let rank = kernel.len();
        let list = |name: &str, default: i64, length: usize| match self.node.ints(name) {
            Some(values) if values.len() == length => Ok(values.to_vec()),
            Some([]) | None => Ok(vec![default; length]),
            Some(values) => Err(format!("{name} has {} numbers where {length} are due", values.len())),
        };
        let (strides, dilations) = (list("strides", 1, rank)?, list("dilations", 1, rank)?);
        let pads = list("pads", 0, 2 * rank)?;
        if let Some(bad) = strides.iter().chain(&dilations).find(|&&n| n < 1) {
            return Err(format!("strides and dilations must be at least 1, and one is {bad}"));
        }
        let axis = |(i, kernel)| Axis {
            kernel,
            stride: strides[i],
            dilation: dilations[i],
            begin: pads[i],
            end: pads[rank + i],
        };
        Ok(kernel.into_iter().enumerate().map(axis).collect())
    }

    /// Kernel sizes: the attribute's, or those of a weight.
    fn kernel(&self, weight: Option<&[Size]>, spatial: usize) -> Result<Vec<Size>, String> {
        match (self.node.ints("kernel_shape"), weight) {
            (Some(sizes), _) if sizes.len() == spatial => Ok(sizes.iter().map(|&size| Size::Fixed(size)).collect()),
            (Some(sizes), _) => Err(format!("kernel_shape has {} numbers for {spatial} spatial axes", sizes.len())),
            (None, Some(weight)) => Ok(weight.get(2..).map(<[Size]>::to_vec).unwrap_or_default()),
            (None, None) => Ok(unknown(spatial)),
        }
    }

    /// Conv and its quantized forms, with data and weight at these positions.
    pub(super) fn conv(&self, data: usize, weight: usize) -> Outcome {
        let weight_shape = self.shape(weight);
        let Some(x) = self.shape(data) else {
            // The weight has the data's rank, and its first size is the number of channels.
            return Ok(vec![weight_shape.map(|weight| {
                let mut out = unknown(weight.len());
                if let (Some(slot), Some(size)) = (out.get_mut(1), weight.first()) {
                    *slot = size.clone();
                }
                out
            })]);
        };
        if x.len() < 3 {
            return Err(format!("its input {} has no spatial axis", shown(x)));
        }
        if let Some(weight) = weight_shape {
            if weight.len() != x.len() {
                return Err(format!("its input {} and weight {} differ in rank", shown(x), shown(weight)));
            }
            let group = Size::Fixed(self.int("group", 1));
            if let (Some(channels), Some(due)) = (x[1].fixed(), weight[1].times(&group).fixed())
                && channels != due
            {
                return Err(format!("its input has {channels} channels, its weight {} asks for {due}", shown(weight)));
            }
        }
        let axes = self.axes(self.kernel(weight_shape, x.len() - 2)?)?;
        let padding = self.padding()?;
        let mut out = vec![x[0].clone(), weight_shape.map_or(Size::Unknown, |weight| weight[0].clone())];
        for (size, axis) in x[2..].iter().zip(&axes) {
            out.push(axis.windows(size, padding, false)?);
        }
        Ok(vec![Some(out)])
    }

    pub(super) fn conv_transpose(&self) -> Outcome {
        let (Some(x), Some(weight)) = (self.shape(0), self.shape(1)) else { return Ok(vec![None]) };
        if x.len() < 3 || weight.len() != x.len() {
            return Err(format!("its input {} and weight {} do not fit", shown(x), shown(weight)));
        }
        let spatial = x.len() - 2;
        let axes = self.axes(self.kernel(Some(weight), spatial)?)?;
        let mut out = vec![x[0].clone(), weight[1].times(&Size::Fixed(self.int("group", 1)))];
        if let Some(sizes) = self.node.ints("output_shape").filter(|sizes| !sizes.is_empty()) {
            let sizes = if sizes.len() == x.len() { &sizes[2..] } else { sizes };
            if sizes.len() != spatial {
                return Err(format!("output_shape has {} numbers for {spatial} spatial axes", sizes.len()));
            }
            out.extend(sizes.iter().map(|&size| Size::Fixed(size)));
            return Ok(vec![Some(out)]);
        }
        let extra = self.node.ints("output_padding").unwrap_or_default();
        let padding = self.padding()?;
        for (i, (size, axis)) in x[2..].iter().zip(&axes).enumerate() {
            let stride = Size::Fixed(axis.stride);
            if padding == Padding::Same {
                out.push(size.times(&stride));
                continue;
            }
            let pads = if padding == Padding::Valid { 0 } else { axis.begin.saturating_add(axis.end) };
            let spread = size.minus(&Size::Fixed(1)).times(&stride);
            let more = Size::Fixed(extra.get(i).copied().unwrap_or(0));
            out.push(spread.plus(&more).plus(&axis.span()).minus(&Size::Fixed(pads)));
        }
        Ok(vec![Some(out)])
    }

    /// Pools with a window: every output has the same shape.
    pub(super) fn pool(&self) -> Outcome {
        let Some(x) = self.shape(0) else { return Ok(vec![None; self.outputs()]) };
        if x.len() < 3 {
            return Err(format!("its input {} has no spatial axis", shown(x)));
        }
        let axes = self.axes(self.kernel(None, x.len() - 2)?)?;
        let (padding, ceil) = (self.padding()?, self.int("ceil_mode", 0) != 0);
        let mut out = x[..2].to_vec();
        for (size, axis) in x[2..].iter().zip(&axes) {
            out.push(axis.windows(size, padding, ceil)?);
        }
        Ok(vec![Some(out); self.outputs()])
    }

    pub(super) fn global_pool(&self) -> Outcome {
        Ok(vec![self.shape(0).map(|x| {
            x.iter().enumerate().map(|(i, size)| if i < 2 { size.clone() } else { Size::Fixed(1) }).collect()
        })])
    }

    pub(super) fn max_unpool(&self) -> Outcome {
        let Some(x) = self.shape(0) else { return Ok(vec![None]) };
        if self.has(2) {
            return Ok(vec![Some(self.sizes(2).unwrap_or_else(|| unknown(x.len())))]);
        }
        let axes = self.axes(self.kernel(None, x.len().saturating_sub(2))?)?;
        let mut out: Vec<Size> = x.iter().take(2).cloned().collect();
        for (size, axis) in x.iter().skip(2).zip(&axes) {
            let spread = size.minus(&Size::Fixed(1)).times(&Size::Fixed(axis.stride));
            out.push(spread.plus(&axis.kernel).minus(&Size::Fixed(axis.begin.saturating_add(axis.end))));
        }
        Ok(vec![Some(out)])
    }
}

impl Axis {
    /// Elements from the window's first to its last.
    fn span(&self) -> Size {
        let one = Size::Fixed(1);
        self.kernel.minus(&one).times(&Size::Fixed(self.dilation)).plus(&one)
    }

    /// How many places the window takes on an axis of this size.
    fn windows(&self, size: &Size, padding: Padding, ceil: bool) -> Result<Size, String> {
        let (one, stride) = (Size::Fixed(1), Size::Fixed(self.stride));
        let (begin, end) = match padding {
            Padding::Same => return Ok(size.over_ceil(&stride)),
            Padding::Valid => (0, 0),
            Padding::Given => (self.begin, self.end),
        };
        let padded = size.plus(&Size::Fixed(begin.saturating_add(end)));
        let room = padded.minus(&self.span());
        if room.fixed().is_some_and(|room| room < 0) {
            return Err(format!(
                "its window spans {} elements, its padded input only {}",
                shown(&[self.span()]),
                shown(&[padded])
            ));
        }
        if !ceil {
            return Ok(room.over(&stride).plus(&one));
        }
        let places = room.over_ceil(&stride).plus(&one);
        // A window that would begin in the padding at the end does not count.
        let last = size.plus(&Size::Fixed(begin)).minus(&one).over(&stride).plus(&one);
        Ok(places.at_most(&last))
    }
}
