//! Logical plan → nodes of the plan: one function per kind of node, one file per function.

mod aggregate;
mod feature;
mod filter;
mod groups;
mod join;
mod lookup;
mod lowering;
mod output;
mod over;
mod predict;
mod project;
mod recursive;
mod scan;
mod set_operation;
mod temporal;
mod top;
mod union;
mod unnest;
mod values;
mod windows;

pub(crate) use feature::FeatureQuery;
pub(crate) use join::is_single_row;
pub(crate) use lowering::{AskedColumn, Lowering};
pub(crate) use output::storable;
pub(crate) use project::column;
pub(crate) use recursive::is_work_table;
pub(crate) use top::is_ordered;
