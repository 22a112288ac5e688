//! Models on ONNX Runtime, and the registry of their versions. In: files. Out: `freshet_core::Model`.
//!
//! | file | what it is |
//! |---|---|
//! | `runtime.rs` | the shared library, loaded once a process: [`OnnxRuntime`] |
//! | `model.rs` | one loaded version: sessions, batches, NULLs: [`OnnxModel`] |
//! | `binding.rs` | how columns meet a file's inputs and outputs |
//! | `tensors.rs` | Arrow arrays to tensors and back |
//! | `invariance.rs` | whether a row's bits depend on its batch (C7) |
//! | `registry.rs` | numbered versions on disk: [`Registry`] |
//! | `version.rs` | what is written about a version: [`VersionInfo`] |
#![forbid(unsafe_code)]

mod registry;
mod version;

pub use registry::{REFERENCE_FILE, Registry};
pub use version::{CreatedBy, Registration, RunLineage, Signature, TensorSignature, TrainingLineage, VersionInfo};
