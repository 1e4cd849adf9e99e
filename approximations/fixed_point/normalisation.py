"""Expressions in quantities of size about one, for programs that have one scale for everything."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from odp.approximations.expression import Expression, constant, variable
from odp.approximations.fixed_point.digits import sample_points, sensitivities
from odp.approximations.interval import Interval

__all__ = ["normalised"]


def normalised(expression: Expression, domain: Interval) -> Expression:
    """The same function with every intermediate divided by a power of two to at most about 1.

    A polynomial in x on a wide domain becomes one in ``x / 2^j``, its coefficients multiplied by
    powers of ``2^j``; a quotient of large numbers one of small numbers.  The powers of two are
    explicit multiplications, which integer programs do by reading a register at another scale;
    nothing is rounded and the order of operations stays.

    Args:
        expression: in the variable ``x``; finite on the domain.
        domain: where intermediates are to be small.

    >>> x = variable("x")
    >>> normalised(x * x * 0.01 + x, Interval(-8, 8))(3.0) == (x * x * 0.01 + x)(3.0)
    True
    """
    values, _ = sensitivities(expression, sample_points(domain))
    exponents: dict[Expression, int] = {}
    results: dict[Expression, Expression] = {}
    for node in expression.nodes():
        size = float(np.abs(values[node]).max())
        own = math.ceil(math.log2(size)) if 0 < size < math.inf else 0
        exponents[node] = own
        if node.op == "variable":
            results[node] = variable(node.name) * _power(-own)
        elif node.op == "constant":
            results[node] = constant(node.value * _power(-own))
        else:
            left, right = node.operands
            a, b = results[left], results[right]
            m, n = exponents[left], exponents[right]
            if node.op == "add":
                results[node] = a * _power(m - own) + b * _power(n - own)
            elif node.op == "sub":
                results[node] = a * _power(m - own) - b * _power(n - own)
            elif node.op == "mul":
                # The shift is not to be folded into a constant: it would lose digits there.
                shift = _power(m + n - own)
                results[node] = a * (b * shift) if left.op == "constant" else (a * shift) * b
            elif left.op == "constant":
                results[node] = a / (b * _power(own + n - m))
            else:
                results[node] = (a * _power(m - n - own)) / b
    return results[expression] * _power(exponents[expression])


def _power(exponent: int) -> Fraction:
    return Fraction(2) ** exponent
