"""What rounding does to an expression, and what it divides by: two algebras on numpy arrays."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.algebra import OperatorAlgebra
from odp.approximations.expression import Expression

__all__ = ["DenominatorAlgebra", "RoundingErrorAlgebra", "denominators", "rounding_error"]

Array = NDArray[np.float64]


class RoundingErrorAlgebra:
    """Running error bound of floating-point evaluation: pairs (value, bound on its error).

    The bound of every operation is the propagated error of its operands plus one rounding of the
    result (N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.3).

    Args:
        unit_roundoff: half the spacing of the numbers next to 1; 2**-24 for float32.
        smallest: absolute rounding error of results that underflow; 2**-150 for float32.
    """

    def __init__(self, unit_roundoff: float = 2.0**-24, smallest: float = 2.0**-150) -> None:
        self.unit_roundoff = unit_roundoff
        self.smallest = smallest

    def _rounded(self, value: Any, error: Any) -> tuple[Any, Any]:
        return value, error + self.unit_roundoff * (np.abs(value) + error) + self.smallest

    def constant(self, value: Fraction) -> tuple[Any, Any]:
        """A constant; exact where float32 represents it."""
        number = float(value)
        with np.errstate(over="ignore"):
            exact = Fraction(number) == value and float(np.float32(number)) == number
        return np.float64(number), np.float64(0.0 if exact else self.unit_roundoff * abs(number))

    def add(self, a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
        """``a + b``."""
        return self._rounded(a[0] + b[0], a[1] + b[1])

    def sub(self, a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
        """``a - b``."""
        return self._rounded(a[0] - b[0], a[1] + b[1])

    def mul(self, a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
        """``a * b``."""
        error = np.abs(a[0]) * b[1] + np.abs(b[0]) * a[1] + a[1] * b[1]
        return self._rounded(a[0] * b[0], error)

    def div(self, a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
        """``a / b``; infinite where the rounded divisor may be zero."""
        value = a[0] / b[0]
        margin = np.maximum(np.abs(b[0]) - b[1], 0.0)
        return self._rounded(value, (a[1] + np.abs(value) * b[1]) / margin)


def rounding_error(expression: Expression, x: Array, unit_roundoff: float = 2.0**-24) -> Array:
    """Running bound of the rounding error of evaluating `expression` at `x` pointwise.

    Args:
        expression: in one variable.
        x: points, float64 array of any shape; taken as exact, so for float32 evaluation they must
            be representable in float32.
        unit_roundoff: of the arithmetic; 2**-24 is float32 with rounding to nearest.

    Returns:
        float64 array of the shape of `x`: |computed - exact value of the expression| is at most
        this, unless an intermediate result overflows.

    >>> from odp.approximations.expression import variable
    >>> x = variable("x")
    >>> float(rounding_error(x * x, np.array([2.0]))[0]) < 2.0 ** -21
    True
    """
    (name,) = expression.variables or ("x",)
    points = np.asarray(x, dtype=np.float64)
    algebra = RoundingErrorAlgebra(unit_roundoff)
    with np.errstate(all="ignore"):
        _, error = expression.emit(algebra, **{name: (points, np.zeros_like(points))})
    return np.broadcast_to(np.asarray(error, dtype=np.float64), points.shape).copy()


class DenominatorAlgebra(OperatorAlgebra):
    """Evaluates in numpy and keeps every value that something was divided by."""

    def __init__(self) -> None:
        super().__init__(float)
        self.denominators: list[Any] = []

    def div(self, a: Any, b: Any) -> Any:
        """``a / b``, recording ``b``."""
        self.denominators.append(b)
        return a / b


def denominators(expression: Expression, x: Array) -> tuple[Array, list[Array]]:
    """The value of `expression` at `x` in float64, and the values of all its divisors there."""
    (name,) = expression.variables or ("x",)
    algebra = DenominatorAlgebra()
    with np.errstate(all="ignore"):
        value = expression.emit(algebra, **{name: x})
        shape = np.shape(x)
        return np.broadcast_to(value, shape), [
            np.broadcast_to(d, shape) for d in algebra.denominators
        ]
