//! Models on ONNX Runtime, and the registry of their versions. In: files. Out: `freshet_core::Model`.
//!
//! | file | what it is |
//! |---|---|
//! | `runtime.rs` | the shared library, loaded once a process: [`OnnxRuntime`] |
//! | `model.rs` | one loaded version: [`OnnxModel`] |
//! | `sessions.rs` | its sessions, one per thread that scores |
//! | `binding.rs` | how columns meet a file's inputs and outputs |
//! | `tensors.rs` | Arrow arrays to tensors and back |
//! | `invariance.rs` | whether a row's bits depend on its batch (C7) |
//! | `registry.rs` | numbered versions on disk: [`Registry`] |
//! | `version.rs` | what is written about a version: [`VersionInfo`] |
#![forbid(unsafe_code)]

mod binding;
mod invariance;
mod model;
mod registry;
mod runtime;
mod sessions;
mod tensors;
mod version;

pub use model::OnnxModel;
pub use registry::{REFERENCE_FILE, Registry};
pub use runtime::OnnxRuntime;
pub use version::{CreatedBy, Registration, RunLineage, Signature, TensorSignature, TrainingLineage, VersionInfo};
