"""What an emitter of expressions must offer, and the one that uses Python's own operators."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, Protocol, TypeVar

__all__ = ["Algebra", "OperatorAlgebra", "operators_for"]

T = TypeVar("T")


class Algebra(Protocol[T]):
    """What an emitter must offer: how to write a constant and the four operations."""

    def constant(self, value: Fraction, /) -> T:
        """The exact rational `value`."""
        ...

    def add(self, a: T, b: T, /) -> T:
        """``a + b``."""
        ...

    def sub(self, a: T, b: T, /) -> T:
        """``a - b``."""
        ...

    def mul(self, a: T, b: T, /) -> T:
        """``a * b``."""
        ...

    def div(self, a: T, b: T, /) -> T:
        """``a / b``."""
        ...


class OperatorAlgebra:
    """Evaluates through Python's operators; only the type of the constants is chosen.

    Args:
        constant: turns an exact constant into something the operands can be combined with.
    """

    def __init__(self, constant: Callable[[Fraction], Any] = float) -> None:
        self.constant = constant

    add = staticmethod(operator.add)
    sub = staticmethod(operator.sub)
    mul = staticmethod(operator.mul)
    div = staticmethod(operator.truediv)


def operators_for(samples: Iterable[Any]) -> OperatorAlgebra:
    """Operators whose constants keep the type and precision of `samples`: numbers or arrays."""
    packages = {type(sample).__module__.partition(".")[0] for sample in samples}
    if "sympy" in packages:
        import sympy

        return OperatorAlgebra(lambda value: sympy.Rational(value.numerator, value.denominator))
    if "mpmath" in packages:
        import mpmath

        return OperatorAlgebra(lambda value: mpmath.mpf(value.numerator) / value.denominator)
    if all(isinstance(sample, (int, Fraction)) for sample in samples):
        return OperatorAlgebra(lambda value: value)
    # Python floats are weakly typed in numpy and torch: float32 stays float32.
    return OperatorAlgebra(float)
