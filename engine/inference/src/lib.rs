//! Models on ONNX Runtime, and the registry of their versions. In: files. Out: `freshet_core::Model`.
#![forbid(unsafe_code)]
