//! porter moves ONNX models to accelerators.
