//! Subqueries that depend on a row of the query around them, where DataFusion's rules do not take them apart: they are computed for all rows
//! at once, grouped by the columns they depend on, and joined to the rows.

mod apply;
mod domain;
mod first;
mod lateral;
mod pulled;
mod questions;
mod scope;
mod unnest;

pub(crate) use lateral::unfolded;
