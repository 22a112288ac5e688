//! The workspace's own tools: `tidy` (rules a machine can hold), `golden` (expected SQL outputs), `demo` (the year of flights).
//!
//! In: the checked-out workspace. Out: findings, rewritten golden files, a running demo. Nothing here is part of the product.
#![forbid(unsafe_code)]

pub mod demo;
pub mod golden;
mod http;
pub mod tidy;

use std::path::PathBuf;

/// The workspace's root folder, whichever folder the tool was called from.
pub fn workspace_root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).expect("deploy/xtask lies two folders below the root").to_path_buf()
}
