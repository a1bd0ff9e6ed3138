//! Rewrite rules.
pub mod expr;
mod functions;
