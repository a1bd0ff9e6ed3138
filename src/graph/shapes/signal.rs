//! Shapes of operators over images, sequences and spectra.

use super::call::{Call, Outcome, resolve, shown, unknown};
use super::size::Size;

impl Call<'_> {
    /// Resize, and Upsample with its scales at input 1.
    pub(super) fn resize(&self) -> Outcome {
        let old = self.node.op_type == "Upsample" || self.opset < 11;
        let (scales_at, sizes_at) = if old { (1, usize::MAX) } else { (2, 3) };
        let Some(x) = self.shape(0) else {
            return Ok(vec![self.length(sizes_at).or(self.length(scales_at)).filter(|&n| n > 0).map(unknown)]);
        };
        let axes: Vec<usize> = match self.node.ints("axes") {
            Some(axes) => axes.iter().map(|&at| resolve(at, x.len())).collect::<Result<_, _>>()?,
            None => (0..x.len()).collect(),
        };
        let mut out = x.to_vec();
        let given = |index: usize| self.shape(index).is_some_and(|list| !matches!(list, [Size::Fixed(0)]));
        if given(sizes_at) {
            let Some(sizes) = self.sizes(sizes_at) else {
                axes.iter().for_each(|&at| out[at] = Size::Unknown);
                return Ok(vec![Some(out)]);
            };
            if sizes.len() != axes.len() {
                return Err(format!("it has {} sizes for {} axes", sizes.len(), axes.len()));
            }
            let policy = self.node.string("keep_aspect_ratio_policy").unwrap_or("stretch");
            if policy != "stretch" {
                return Ok(vec![Some(keep_aspect(x, &axes, &sizes, policy))]);
            }
            axes.iter().zip(sizes).for_each(|(&at, size)| out[at] = size);
            return Ok(vec![Some(out)]);
        }
        if self.input(sizes_at).is_some() && self.shape(sizes_at).is_none() {
            axes.iter().for_each(|&at| out[at] = Size::Unknown); // sizes, of which nothing is known
            return Ok(vec![Some(out)]);
        }
        let attribute = self.node.attr("scales").and_then(|value| match value {
            crate::graph::AttributeValue::Floats(scales) => Some(scales.clone()),
            _ => None,
        });
        let scales = self.input(scales_at).and_then(|fact| fact.array()?.elements::<f32>());
        let scales = scales.filter(|list| !list.is_empty()).or(attribute);
        let Some(scales) = scales else {
            axes.iter().for_each(|&at| out[at] = Size::Unknown);
            return Ok(vec![Some(out)]);
        };
        if scales.len() != axes.len() {
            return Err(format!("it has {} scales for {} axes", scales.len(), axes.len()));
        }
        // What part of an axis `tf_crop_and_resize` takes.
        let crops = self.node.string("coordinate_transformation_mode") == Some("tf_crop_and_resize");
        let roi = self.input(1).and_then(|fact| fact.array()?.elements::<f32>()).filter(|_| crops);
        for (i, (&at, scale)) in axes.iter().zip(&scales).enumerate() {
            let part = match (&roi, crops) {
                (Some(roi), _) => roi.get(i + axes.len()).zip(roi.get(i)).map(|(end, start)| end - start),
                (None, true) => None,
                (None, false) => Some(1.0),
            };
            out[at] = part.map_or(Size::Unknown, |part| scaled(&x[at], *scale, part));
        }
        Ok(vec![Some(out)])
    }

    pub(super) fn grid_sample(&self) -> Outcome {
        let (Some(x), Some(grid)) = (self.shape(0), self.shape(1)) else { return Ok(vec![None]) };
        if x.len() < 3 || grid.len() != x.len() {
            return Err(format!("its input {} and grid {} do not fit", shown(x), shown(grid)));
        }
        Ok(vec![Some([&x[..2], &grid[1..grid.len() - 1]].concat())])
    }

    pub(super) fn affine_grid(&self) -> Outcome {
        let Some(sizes) = self.sizes(1) else { return Ok(vec![self.length(1).map(unknown)]) };
        let Some((n, spatial)) = sizes.first().zip(sizes.get(2..)) else { return Err("its size has no axes".into()) };
        let last = Size::Fixed(spatial.len() as i64);
        Ok(vec![Some([std::slice::from_ref(n), spatial, &[last]].concat())])
    }

    pub(super) fn roi_align(&self) -> Outcome {
        let rois = self.shape(1).and_then(|rois| rois.first().cloned()).unwrap_or(Size::Unknown);
        let channels = self.shape(0).and_then(|x| x.get(1).cloned()).unwrap_or(Size::Unknown);
        let side = |name: &str| Size::Fixed(self.int(name, 1));
        Ok(vec![Some(vec![rois, channels, side("output_height"), side("output_width")])])
    }

    pub(super) fn max_roi_pool(&self) -> Outcome {
        let rois = self.shape(1).and_then(|rois| rois.first().cloned()).unwrap_or(Size::Unknown);
        let channels = self.shape(0).and_then(|x| x.get(1).cloned()).unwrap_or(Size::Unknown);
        let Some(&[height, width]) = self.node.ints("pooled_shape") else {
            return Err("its pooled_shape is not two numbers".into());
        };
        Ok(vec![Some(vec![rois, channels, Size::Fixed(height), Size::Fixed(width)])])
    }

    pub(super) fn col2im(&self) -> Outcome {
        let (Some(x), Some(image), Some(block)) = (self.shape(0), self.sizes(1), self.sizes(2)) else {
            return Ok(vec![self.length(1).map(|spatial| unknown(spatial + 2))]);
        };
        let [n, columns, ..] = x else { return Err(format!("its input {} has no channels", shown(x))) };
        Ok(vec![Some([&[n.clone(), columns.over(&Size::product(&block))], &image[..]].concat())])
    }

    /// LSTM, GRU and RNN.
    pub(super) fn recurrent(&self) -> Outcome {
        let directions = Size::Fixed(if self.node.string("direction") == Some("bidirectional") { 2 } else { 1 });
        let hidden = match (self.node.int("hidden_size"), self.shape(2)) {
            (Some(size), _) => Size::Fixed(size),
            (None, Some(weight)) => weight.get(2).cloned().unwrap_or(Size::Unknown),
            (None, None) => Size::Unknown,
        };
        let batch_first = self.int("layout", 0) == 1;
        let (length, batch) = match self.shape(0) {
            Some([a, b, _]) => {
                if batch_first {
                    (b.clone(), a.clone())
                } else {
                    (a.clone(), b.clone())
                }
            }
            Some(x) => return Err(format!("its input {} is not of rank 3", shown(x))),
            None => (Size::Unknown, Size::Unknown),
        };
        let (all, last) = if batch_first {
            (vec![batch.clone(), length, directions.clone(), hidden.clone()], vec![batch, directions, hidden])
        } else {
            (vec![length, directions.clone(), batch.clone(), hidden.clone()], vec![directions, batch, hidden])
        };
        Ok(vec![Some(all), Some(last.clone()), Some(last)])
    }

    pub(super) fn non_max_suppression(&mut self) -> Outcome {
        Ok(vec![Some(vec![self.names.fresh("selected"), Size::Fixed(3)])])
    }

    pub(super) fn stft(&self) -> Outcome {
        let Some(x) = self.shape(0) else { return Ok(vec![Some(unknown(4))]) };
        let scalar = |index: usize| self.sizes(index).and_then(|list| list.into_iter().next());
        let window = self.shape(2).and_then(|window| window.first().cloned());
        let frame = scalar(3).or(window).unwrap_or(Size::Unknown);
        let step = scalar(1).unwrap_or(Size::Unknown);
        let (batch, length) = match x {
            [batch, length, ..] => (batch.clone(), length),
            _ => return Err(format!("its signal {} has no length", shown(x))),
        };
        let (one, two) = (Size::Fixed(1), Size::Fixed(2));
        let frames = length.minus(&frame).over(&step).plus(&one);
        let bins = if self.int("onesided", 1) != 0 { frame.over(&two).plus(&one) } else { frame };
        Ok(vec![Some(vec![batch, frames, bins, two])])
    }

    pub(super) fn dft(&self) -> Outcome {
        let Some(x) = self.shape(0) else { return Ok(vec![None]) };
        if x.len() < 2 {
            return Err(format!("its input {} is no signal", shown(x)));
        }
        let at = match (self.has(2), self.node.int("axis")) {
            (true, _) => match self.ints(2).and_then(|list| list.first().copied()) {
                Some(at) => at,
                None => return Ok(vec![Some(unknown(x.len()))]),
            },
            (false, Some(at)) => at,
            (false, None) => {
                if self.opset < 20 {
                    1
                } else {
                    -2
                }
            }
        };
        let at = resolve(at, x.len())?;
        let (one, two) = (Size::Fixed(1), Size::Fixed(2));
        let onesided = self.int("onesided", 0) != 0;
        let back = onesided && self.int("inverse", 0) != 0;
        let length = match self.has(1) {
            true => self.sizes(1).and_then(|list| list.into_iter().next()).unwrap_or(Size::Unknown),
            false if back => x[at].minus(&one).times(&two),
            false => x[at].clone(),
        };
        let mut out = x.to_vec();
        out[at] = if onesided && !back { length.over(&two).plus(&one) } else { length };
        let last = out.len() - 1;
        out[last] = if back { one } else { two };
        Ok(vec![Some(out)])
    }

    pub(super) fn mel_weights(&self) -> Outcome {
        let scalar = |index: usize| self.sizes(index).and_then(|list| list.into_iter().next()).unwrap_or(Size::Unknown);
        Ok(vec![Some(vec![scalar(1).over(&Size::Fixed(2)).plus(&Size::Fixed(1)), scalar(0)])])
    }

    /// ai.onnx's Attention of opset 23.
    pub(super) fn attention(&self) -> Outcome {
        let (Some(q), Some(k), Some(v)) = (self.shape(0), self.shape(1), self.shape(2)) else {
            return Ok(vec![None; self.outputs()]);
        };
        let heads = |name: &str| self.node.int(name).map(Size::Fixed);
        let past = self.shape(4).and_then(|past| past.get(2).cloned());
        let total = |new: &Size| past.as_ref().map_or_else(|| new.clone(), |past| past.plus(new));
        Ok(match (q, k, v) {
            ([n, q_heads, q_len, _], [_, k_heads, k_len, size], [_, _, _, v_size]) => {
                let total = total(k_len);
                vec![
                    Some(vec![n.clone(), q_heads.clone(), q_len.clone(), v_size.clone()]),
                    Some(vec![n.clone(), k_heads.clone(), total.clone(), size.clone()]),
                    Some(vec![n.clone(), k_heads.clone(), total.clone(), v_size.clone()]),
                    Some(vec![n.clone(), q_heads.clone(), q_len.clone(), total]),
                ]
            }
            ([n, q_len, _], [_, k_len, k_width], [_, _, v_width]) => {
                let (Some(q_heads), Some(kv_heads)) = (heads("q_num_heads"), heads("kv_num_heads")) else {
                    return Err("its inputs are of rank 3, and it does not say how many heads they hold".into());
                };
                let (size, v_size) = (k_width.over(&kv_heads), v_width.over(&kv_heads));
                let total = total(k_len);
                vec![
                    Some(vec![n.clone(), q_len.clone(), q_heads.times(&v_size)]),
                    Some(vec![n.clone(), kv_heads.clone(), total.clone(), size]),
                    Some(vec![n.clone(), kv_heads, total.clone(), v_size]),
                    Some(vec![n.clone(), q_heads, q_len.clone(), total]),
                ]
            }
            _ => return Err(format!("its inputs {}, {} and {} do not fit", shown(q), shown(k), shown(v))),
        })
    }
}

/// An axis times a scale, rounded down as the format says; computed in float as runtimes do.
fn scaled(size: &Size, scale: f32, part: f32) -> Size {
    match size {
        Size::Fixed(size) => {
            let out = (*size as f32 * part * scale).floor();
            if (0.0..1e15).contains(&out) { Size::Fixed(out as i64) } else { Size::Unknown }
        }
        size if part != 1.0 => {
            let _ = size;
            Size::Unknown
        }
        size if scale.fract() == 0.0 && (1.0..1e6).contains(&scale) => size.times(&Size::Fixed(scale as i64)),
        size if (1.0 / scale).fract() == 0.0 && (1.0..1e6).contains(&(1.0 / scale)) => {
            size.over(&Size::Fixed((1.0 / scale) as i64))
        }
        _ => Size::Unknown,
    }
}

/// Sizes under `not_larger` or `not_smaller`: one scale for all axes.
fn keep_aspect(x: &[Size], axes: &[usize], sizes: &[Size], policy: &str) -> Vec<Size> {
    let mut out = x.to_vec();
    let scales: Option<Vec<f32>> = axes
        .iter()
        .zip(sizes)
        .map(|(&at, size)| Some(size.fixed()? as f32 / x[at].fixed().filter(|&size| size > 0)? as f32))
        .collect();
    let pick = if policy == "not_larger" { f32::min } else { f32::max };
    let scale = scales.and_then(|scales| scales.into_iter().reduce(pick));
    for &at in axes {
        out[at] = match (scale, x[at].fixed()) {
            (Some(scale), Some(size)) => Size::Fixed((scale * size as f32).round() as i64),
            _ => Size::Unknown,
        };
    }
    out
}
