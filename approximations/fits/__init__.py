"""Minimax fits of polynomials and rational functions: Remez's exchange, linear programs."""
