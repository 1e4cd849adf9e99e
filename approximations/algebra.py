"""What an emitter of expressions must offer, and the one that uses Python's own operators."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, Protocol, TypeVar

from odp.approximations.errors import ApproximationError

__all__ = ["Algebra", "OperatorAlgebra", "filled", "operators_for", "real_argument"]

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
    """Operators whose constants keep the type and precision of `samples`: numbers or arrays.

    >>> operators_for([2]).constant(Fraction(1, 3))
    Fraction(1, 3)
    """
    elements = [element for sample in samples for element in _elements(sample)]
    packages = {type(element).__module__.partition(".")[0] for element in elements}
    if "sympy" in packages:
        import sympy

        return OperatorAlgebra(lambda value: sympy.Rational(value.numerator, value.denominator))
    if "mpmath" in packages:
        # Each of mpmath's contexts (mp, iv, a user's own) has a precision of its own.
        contexts = (getattr(e, "context", None) or getattr(e, "ctx", None) for e in elements)
        mpf = next(context for context in contexts if context is not None).mpf
        return OperatorAlgebra(lambda value: mpf(value.numerator) / value.denominator)
    if "flint" in packages:
        from flint import fmpq

        return OperatorAlgebra(lambda value: fmpq(value.numerator, value.denominator))
    if all(isinstance(element, (int, Fraction)) for element in elements):
        return OperatorAlgebra(_itself)
    # Python floats are weakly typed in numpy and torch: float32 stays float32.
    return OperatorAlgebra(float)


def _itself(value: Fraction) -> Fraction:
    return value


def _elements(sample: Any) -> Iterator[Any]:
    """The sample, or one of the objects that an array of objects holds."""
    if getattr(getattr(sample, "dtype", None), "kind", "") == "O" and sample.size:
        yield sample.flat[0]
    else:
        yield sample


def real_argument(value: Any) -> Any:
    """A value that the operations of an expression can be applied to.

    Arrays of integers would wrap around in ``x * x``, so they become floating-point numbers
    (float64 in numpy, the default type in torch); lists and tuples become numpy arrays.  Python's
    own integers stay: they are exact.

    Raises:
        ApproximationError: for text and None.

    >>> real_argument([1, 2])
    array([1., 2.])
    """
    if value is None or isinstance(value, (str, bytes)):
        raise ApproximationError(
            f"an expression is evaluated at numbers or arrays, not at {value!r}"
        )
    if isinstance(value, (list, tuple)):
        import numpy as np

        value = np.asarray(value)
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return value
    if getattr(dtype, "kind", "") in ("i", "u", "b"):
        return value.astype("float64")
    if getattr(dtype, "is_floating_point", True) is False and not dtype.is_complex:
        return value + 0.0
    return value


def filled(like: Any, value: Any) -> Any:
    """`value` in the shape of `like`: what a constant expression is on an array.

    >>> import numpy as np
    >>> filled(np.zeros(2, dtype=np.float32), 0.5)
    array([0.5, 0.5], dtype=float32)
    """
    if hasattr(like, "new_full"):
        return like.new_full(like.shape, value)
    if getattr(like, "shape", ()) and hasattr(like, "dtype"):
        import numpy as np

        return np.full_like(like, value)
    return value
