//! Measuring how fast targets are: several of them in one run, taking turns.
//!
//! Each [`Case`] (a target, a batch, a number of jobs) runs in a process of its own, porter itself started as
//! [`serve`] says: what it costs in memory is its own, and a target that crashes takes no other with it. The cases take
//! turns in short rounds, so that what else the machine does hits all of them alike.

mod chart;
mod measure;
mod memory;
mod serve;
mod table;

pub use chart::chart;
pub use measure::{Case, Measured, Plan, Row, measure};
pub use serve::{Request, Round, serve};
pub use table::{Statistics, csv};
