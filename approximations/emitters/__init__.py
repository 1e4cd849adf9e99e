"""Expressions as text: Python, C, Triton and LaTeX."""
