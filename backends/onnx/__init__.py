"""ONNX: loading, static shapes, opset-12 legalisation, checking and saving of `onnx_ir.Model`."""
