"""ONNX files of models, written and read."""
