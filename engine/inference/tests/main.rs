//! Models against a real ONNX Runtime. The model files and the expected scores are made by `make_models.py`, once a test process.

mod binding;
mod refused;
mod rig;
mod scores;
