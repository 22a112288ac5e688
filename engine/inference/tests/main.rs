//! Models against a real ONNX Runtime. The model files and the expected scores are made by `make_models.py`, once a test process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod binding;
mod refused;
mod rig;
mod scores;
