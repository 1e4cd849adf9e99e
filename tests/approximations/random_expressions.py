"""Random rational expressions in x without a pole, for property tests."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from odp.approximations import Expression, constant, variable

X = variable("x")


def expressions(
    constants: st.SearchStrategy[Fraction], *, max_leaves: int
) -> st.SearchStrategy[Expression]:
    """Sums, differences, products, squares, and quotients by what is 7/5 at least."""
    leaves = st.one_of(st.just(X), st.just(X), constants.map(constant))

    def extend(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
        pairs = st.tuples(inner, inner)
        return st.one_of(
            pairs.map(lambda ab: ab[0] + ab[1]),
            pairs.map(lambda ab: ab[0] - ab[1]),
            pairs.map(lambda ab: ab[0] * ab[1]),
            pairs.map(lambda ab: ab[0] / (ab[1] * ab[1] + Fraction(7, 5))),
            inner.map(lambda a: a * a),
        )

    return st.recursive(leaves, extend, max_leaves=max_leaves)
