//! The named parts of a detector's output: boxes, scores and what hangs on them stand in one tensor, in units that have
//! nothing to do with each other, so each is measured on its own.

use serde::Serialize;

use crate::compare::{Finding, Metrics, SliceStrain, of_values};
use crate::onnx::Tensor;
use crate::target::Facts;

/// A range of rows (or columns) of a tensor that means one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Block {
    /// `boxes`, `scores`, `class`, `keypoints`, `angle`, `masks`.
    pub name: String,
    /// The axis it is a range of.
    pub axis: usize,
    /// The first index.
    pub begin: usize,
    /// Behind the last index.
    pub end: usize,
}

/// A block with what was measured in it.
#[derive(Clone, Debug, Serialize)]
pub struct BlockMetrics {
    /// Which one.
    #[serde(flatten)]
    pub block: Block,
    /// Its distance from the reference.
    pub metrics: Metrics,
    /// How far its worst slice is away, over how far that may be; none where the block is not judged by slices.
    pub strain: Option<f64>,
}

impl BlockMetrics {
    /// Takes over what was found about the slices that lie in the block.
    pub fn judge(&mut self, finding: &Finding) {
        let Block { begin, end, .. } = self.block;
        let inside = |slice: &&SliceStrain| slice.slice.channel.is_some_and(|channel| (begin..end).contains(&channel));
        self.strain = finding.slices.iter().filter(inside).map(|slice| slice.strain).reduce(f64::max);
    }
}

/// The blocks of an output of these sizes: raw predictions `[batch, box + classes + rest, anchors]`, or detections
/// `[batch, N, box, score, class, rest]`. Empty where the tensor is neither.
pub fn blocks(facts: &Facts, dims: &[i64]) -> Vec<Block> {
    let &[_, rows, columns] = dims else { return Vec::new() };
    let detects = matches!(facts.task.as_deref(), Some("detect" | "segment" | "pose" | "obb"));
    if !detects {
        return Vec::new();
    }
    let rest = match facts.task.as_deref() {
        Some("pose") => "keypoints",
        Some("obb") => "angle",
        Some("segment") => "masks",
        _ => "rest",
    };
    let cut = |axis: usize, sizes: &[(&str, i64)]| {
        let mut begin = 0;
        let mut list = Vec::new();
        for &(name, size) in sizes.iter().filter(|(_, size)| *size > 0) {
            list.push(Block { name: name.into(), axis, begin, end: begin + size as usize });
            begin += size as usize;
        }
        list
    };
    let classes = facts.names.len() as i64;
    if classes > 0 && rows >= 4 + classes && columns > rows {
        return cut(1, &[("boxes", 4), ("scores", classes), (rest, rows - 4 - classes)]);
    }
    if (6..=256).contains(&columns) && rows > columns {
        return cut(2, &[("boxes", 4), ("scores", 1), ("class", 1), (rest, columns - 6)]);
    }
    Vec::new()
}

/// Measures every block of a tensor on its own.
pub fn measure(blocks: &[Block], reference: &Tensor, other: &Tensor) -> Vec<BlockMetrics> {
    if reference.dims() != other.dims() || blocks.is_empty() {
        return Vec::new();
    }
    let (Ok(ours), Ok(theirs)) = (reference.to_f64s(), other.to_f64s()) else { return Vec::new() };
    let measure = |block: &Block| {
        let dims = reference.dims();
        let inner: usize = dims[block.axis + 1..].iter().product::<i64>() as usize;
        let size = dims[block.axis] as usize;
        let pick = |values: &[f64]| -> Vec<f64> {
            values
                .chunks_exact((size * inner).max(1))
                .flat_map(|rows| rows[block.begin * inner..block.end * inner].iter().copied())
                .collect()
        };
        let mut sizes = dims.to_vec();
        sizes[block.axis] = (block.end - block.begin) as i64;
        BlockMetrics { block: block.clone(), metrics: of_values(&sizes, &pick(&ours), &pick(&theirs)), strain: None }
    };
    blocks.iter().map(measure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(task: &str, classes: i64) -> Facts {
        let names = (0..classes).map(|class| (class, format!("class {class}"))).collect();
        Facts { task: Some(task.into()), names, ..Default::default() }
    }

    #[test]
    fn heads_fall_into_their_parts() {
        let told = |task: &str, classes: i64, dims: &[i64]| {
            let list = blocks(&facts(task, classes), dims);
            list.iter().map(|b| format!("{} {}..{}", b.name, b.begin, b.end)).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(told("detect", 80, &[1, 84, 8400]), "boxes 0..4, scores 4..84");
        assert_eq!(told("pose", 1, &[1, 56, 8400]), "boxes 0..4, scores 4..5, keypoints 5..56");
        assert_eq!(told("detect", 80, &[1, 300, 6]), "boxes 0..4, scores 4..5, class 5..6");
        assert_eq!(told("segment", 80, &[1, 300, 38]), "boxes 0..4, scores 4..5, class 5..6, masks 6..38");
        assert_eq!(told("segment", 80, &[1, 32, 160, 160]), "");
        assert_eq!(told("classify", 80, &[1, 84, 8400]), "");
    }

    #[test]
    fn zeroed_scores_show_in_their_block() {
        let values: Vec<f32> = (0..6 * 100).map(|i| if i < 400 { i as f32 } else { 0.5 }).collect();
        let mut zeroed = values.clone();
        zeroed[400..].fill(0.0);
        let tensor = |values: &[f32]| Tensor::from_f32("t", &[1, 6, 100], values);
        let found = measure(&blocks(&facts("detect", 2), &[1, 6, 100]), &tensor(&values), &tensor(&zeroed));
        assert!(found[0].metrics.equal && found[0].block.name == "boxes");
        assert_eq!(found[1].metrics.cosine, 0.0);
    }
}
