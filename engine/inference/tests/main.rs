//! Models against a real ONNX Runtime.
