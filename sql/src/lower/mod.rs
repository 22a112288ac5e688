//! Logical plan → nodes of the plan: one function per kind of node, one file per function.

mod aggregate;
mod feature;
mod filter;
mod join;
mod lookup;
mod lowering;
mod output;
mod predict;
mod project;
mod scan;
mod union;

pub(crate) use feature::FeatureQuery;
pub(crate) use lowering::{AskedColumn, Lowering};
pub(crate) use output::storable;
