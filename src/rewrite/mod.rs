//! Rewrite rules.
pub mod expr;
mod functions;
pub mod operators;
pub mod pattern;
