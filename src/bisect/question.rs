//! What a probe asks: on which samples it runs, how often, and how its outputs are held against the reference.

use super::judge::Manner;

/// What a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// How outputs are held against the reference.
    pub manner: Manner,
    /// Which samples, and how often.
    pub turns: Turns,
}

/// Which samples a probe runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// Every one; where there is one and pieces are asked for, twice.
    Each,
    /// Every one, and the first once more.
    All,
    /// The first, once.
    First,
    /// The first, once; what is seen is measured and not judged.
    Once,
    /// The first, once; what is seen is looked at, and noise is not measured.
    Look,
}

/// Every sample; every element in its place. Whether runs agree is asked of the whole model, and of each fault's proof.
pub const PIECES: Question = Question { manner: Manner::Isolated, turns: Turns::Each };
/// The first sample; every element in its place. What is found is tried with [`PIECES`] before it is told.
pub const REGIONS: Question = Question { manner: Manner::Isolated, turns: Turns::First };
/// Every sample, and the first one twice; what the model's caller gets.
pub const WHOLE: Question = Question { manner: Manner::Whole, turns: Turns::All };
/// Every sample; what the model's caller gets once the faults that are known are fed from the reference.
pub const REST: Question = Question { manner: Manner::Whole, turns: Turns::Each };
/// The first sample, layer by layer.
pub const LAYERS: Question = Question { manner: Manner::Whole, turns: Turns::Once };
/// The same, where what noise makes of the whole model is too much to measure.
pub const LARGE_LAYERS: Question = Question { manner: Manner::Whole, turns: Turns::Look };
