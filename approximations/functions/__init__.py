"""Functions, registered or read from formulas, with symmetry, poles and exact evaluators."""
