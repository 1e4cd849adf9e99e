"""Roots and reciprocals of large and small numbers, from expressions near 1.

``f(4**m * u) = 4**(p * m) * f(u)`` for ``f(x) = x**p``, so an expression on a domain around 1 will
do everywhere: products by powers of two change scales and no integer.  Polynomials in x itself have
coefficients like ``max(x)**-degree``: for the squared activations of BitNet, of 1e11, these leave
the range of float32.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

from odp.approximations import approximate
from odp.approximations.approximant import Approximant
from odp.approximations.expression import constant, variable
from odp.approximations.interval import Interval

__all__ = ["HOMOGENEOUS", "approximate_homogeneous"]

HOMOGENEOUS = {"rsqrt": Fraction(-1, 2), "sqrt": Fraction(1, 2), "reciprocal": Fraction(-1)}
"""Functions x**p by name, and p."""


def approximate_homogeneous(name: str, domain: Interval, error: float) -> Approximant:
    """An expression without division for a power on a positive or negative domain.

    Args:
        name: one of `HOMOGENEOUS`.
        domain: on which zero does not lie.
        error: relative.

    Raises:
        ApproximationError: no expression has the error on the domain.
    """
    middle = math.log2(abs(domain.lo)) + math.log2(abs(domain.hi))
    # The geometric mean of the bounds, 2**(middle / 2), in octaves of 4.
    m = round(middle / 4)
    down, factor = Fraction(4) ** -m, Fraction(2) ** int(2 * m * HOMOGENEOUS[name])
    if domain.hi < 0.0:
        # Only 1/x is there below zero, and it is odd.
        down, factor = -down, -factor
    bounds = sorted((domain.lo * float(down), domain.hi * float(down)))
    near = approximate(name, (bounds[0], bounds[1]), error=error, relative=True, target="fhe")
    if down == 1:
        return near
    inner = near.expression.substitute(x=variable("x") * constant(down))
    safe = sorted((near.safe_interval.lo / float(down), near.safe_interval.hi / float(down)))
    return dataclasses.replace(
        near,
        domain=domain,
        expression=constant(factor) * inner,
        description=f"{near.description}, of {'-' if down < 0 else ''}x / 4^{m}",
        absolute_error=near.absolute_error * abs(float(factor)),
        float32_error=near.float32_error * abs(float(factor)),
        safe_interval=Interval(*safe),
    )
