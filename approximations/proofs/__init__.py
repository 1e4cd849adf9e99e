"""Proofs of error bounds: Taylor models on boxes, ball arithmetic where float64 is too coarse."""
