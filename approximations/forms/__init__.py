"""Forms of evaluation: Horner, Estrin, blocks, Paterson-Stockmeyer, preprocessed coefficients."""
