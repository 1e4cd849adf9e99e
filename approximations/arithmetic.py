"""The number systems that an expression is evaluated in, and its constants rounded to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from odp.approximations.algebra import Algebra, OperatorAlgebra
from odp.approximations.expression import Expression, constant, variable

__all__ = [
    "FLOAT32",
    "FLOAT64",
    "Arithmetic",
    "CoefficientRangeError",
    "FixedPointArithmetic",
    "FloatArithmetic",
    "round_constants",
]


class CoefficientRangeError(ArithmeticError):
    """A constant is not a normal number of an arithmetic: the form cannot be used there."""


@dataclass(frozen=True)
class FloatArithmetic:
    """Binary floating point with rounding to nearest.

    Attributes:
        bits: 24 for float32, 53 for float64.
    """

    bits: int

    @property
    def unit_roundoff(self) -> float:
        """Half the spacing of the numbers next to 1."""
        return 2.0**-self.bits

    def nearest(self, value: Fraction) -> Fraction:
        """The number nearest to `value`; of float32, nearest to the nearest float64.

        Raises:
            CoefficientRangeError: if it overflows or is subnormal.
        """
        import numpy as np

        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        largest = (2 - 2.0**-23) * 2.0**127 if self.bits == 24 else 1.7e308
        smallest = 2.0**-126 if self.bits == 24 else 2.3e-308
        if abs(number) > largest or 0 < abs(number) < smallest or (number == 0) != (value == 0):
            raise CoefficientRangeError(f"{number:g} is not a normal number of {self.bits} bits")
        return Fraction(float(np.float32(number)) if self.bits == 24 else number)


@dataclass(frozen=True)
class FixedPointArithmetic:
    """Integers at a scale: a value v is the integer nearest to ``v 2^(scale + guard_bits)``.

    Attributes:
        scale: binary digits after the point of inputs and outputs.
        guard_bits: further digits of coefficients and intermediate results; None means as many as
            the error asks for.
    """

    scale: int
    guard_bits: int | None = None

    @property
    def unit_roundoff(self) -> float:
        """Half the spacing of the outputs."""
        return 2.0 ** -(self.scale + 1)


Arithmetic = FloatArithmetic | FixedPointArithmetic

FLOAT32 = FloatArithmetic(24)
FLOAT64 = FloatArithmetic(53)


def round_constants(expression: Expression, arithmetic: FloatArithmetic) -> Expression:
    """The expression with every constant rounded to the nearest number of an arithmetic.

    Raises:
        CoefficientRangeError: if a constant overflows or is subnormal there.
    """
    algebra: Algebra[Expression] = OperatorAlgebra(
        lambda value: constant(arithmetic.nearest(value))
    )
    return expression.emit(algebra, **{name: variable(name) for name in expression.variables})
