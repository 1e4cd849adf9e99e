"""Triton source for fused kernels; empty until the GPU backend is built (docs/design.md)."""
