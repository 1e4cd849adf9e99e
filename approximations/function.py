"""Functions: what is approximated, with its symmetry, natural domain and exact evaluators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from odp.approximations.errors import ApproximationError
from odp.approximations.interval import Interval

__all__ = ["Function"]

Parity = Literal["odd", "even"]
Array = NDArray[np.float64]

_REAL_LINE = Interval(float("-inf"), float("inf"))


@dataclass(frozen=True)
class Function:
    """A real function of one variable.

    Attributes:
        name: the name that users type, for example ``rsqrt`` or ``pow(0.75)``.
        source: sympy source text in the variable ``x``.
        evaluate: float64 numpy implementation, numerically stable and vectorised.
        domain: natural domain; closed, so `singularities` names bounds that do not belong to it.
        parity: ``odd``, ``even`` or None.
        relative: whether the relative error is the meaningful one.
        positive_scale: the function lives on x > 0 and its domains are widened multiplicatively
            (rsqrt, sqrt, log, reciprocal, powers).
        centre_value: c where ``f(x) - c`` is odd, for example 1/2 for sigmoid; 0 for odd functions.
        singularities: points of the closed natural domain at which the function is not finite.
        exponent: p for ``x**p``, otherwise None.
    """

    name: str
    source: str
    evaluate: Callable[[Array], Array] = field(repr=False, compare=False)
    domain: Interval = _REAL_LINE
    parity: Parity | None = None
    relative: bool = False
    positive_scale: bool = False
    centre_value: Fraction | None = None
    singularities: tuple[float, ...] = ()
    exponent: Fraction | None = None

    @property
    def centre(self) -> Fraction | None:
        """C where ``f(x) - c`` is odd; None for functions without such a symmetry."""
        return Fraction(0) if self.parity == "odd" else self.centre_value

    @property
    def sympy(self) -> Any:
        """The function as a sympy expression in the real symbol ``x``."""
        return _sympy_expression(self.source)

    @property
    def latex(self) -> str:
        """The definition in LaTeX."""
        import sympy

        return str(sympy.latex(self.sympy))

    def mpmath(self, x: Any) -> Any:
        """The value at `x` as an mpmath number, correct to about the working precision.

        Args:
            x: a number; floats are taken exactly.
        """
        import mpmath

        evaluator = _mpmath_evaluator(self.source)
        # Twice the precision and a bit: log(1 + exp(-x)) and the like cancel.
        with mpmath.workprec(2 * mpmath.mp.prec + 64):
            value = evaluator(mpmath.mpf(x))
        return +value

    def numpy(self, x: Any) -> Array:
        """The value at `x` in float64, accurate to a few ulps (array of any shape)."""
        points = np.asarray(x, dtype=np.float64)
        with np.errstate(all="ignore"):
            return np.asarray(self.evaluate(points), dtype=np.float64)

    def check_domain(self, domain: Interval) -> None:
        """Refuse a domain on which the function cannot be approximated.

        Args:
            domain: where an approximation is wanted.

        Raises:
            ApproximationError: if the domain is a single point, has an infinite bound, leaves the
                natural domain or contains a point where the function is not finite.
        """
        where = f"{self.name} on {domain}"
        if not domain.is_finite:
            raise ApproximationError(
                f"{where}: an infinite bound cannot be approximated; give finite bounds"
            )
        if domain.lo == domain.hi:
            raise ApproximationError(f"{where}: the domain is a single point; widen it")
        if not self.domain.contains_interval(domain):
            raise ApproximationError(
                f"{where}: the function is real only on {self.domain}; narrow the domain"
            )
        for point in self.singularities:
            if domain.contains(point):
                raise ApproximationError(
                    f"{where}: the function has a pole or branch point at {point:g};"
                    " choose a domain without it"
                )
        ends = self.numpy([domain.lo, domain.hi])
        if not np.isfinite(ends).all():
            raise ApproximationError(
                f"{where}: the function overflows float64 at a bound; narrow the domain"
            )


@cache
def _sympy_expression(source: str) -> Any:
    import sympy

    # Registry sources only, never text from a user: sympify evaluates what it is given.
    return sympy.sympify(source, locals={"x": sympy.Symbol("x", real=True)})


@cache
def _mpmath_evaluator(source: str) -> Callable[[Any], Any]:
    import sympy

    expression = _sympy_expression(source)
    x = sympy.Symbol("x", real=True)
    evaluator: Callable[[Any], Any] = sympy.lambdify(x, expression, modules="mpmath")
    return evaluator
