"""Functions: what is approximated, with its symmetry, natural domain and exact evaluators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from odp.approximations.errors import ApproximationError
from odp.approximations.interval import Interval

__all__ = ["Function"]

Parity = Literal["odd", "even"]
Monotonicity = Literal["increasing", "decreasing"]
Array = NDArray[np.float64]

_REAL_LINE = Interval(float("-inf"), float("inf"))
# Squares of bounds stay within float64.
_LARGEST = 1e100
_PRECISIONS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Function:
    """A real function of one variable.

    Attributes:
        name: the name that users type, for example ``rsqrt`` or ``pow(0.75)``.
        source: the formula in the variable ``x``, as `parsing.parse` reads it.
        evaluate: float64 numpy implementation, numerically stable and vectorised.
        domain: natural domain; closed, so `singularities` names bounds that do not belong to it.
        parity: ``odd``, ``even`` or None.
        relative: whether the relative error is the meaningful one.
        positive_scale: the function lives on x > 0 and its domains are widened multiplicatively
            (rsqrt, sqrt, log, reciprocal, powers).
        centre_value: c where ``f(x) - c`` is odd, for example 1/2 for sigmoid; 0 for odd functions.
        slope: s where ``f(x) - s*x`` is even, for example 1/2 for silu; None for even functions,
            whose parity says it, and for those without such a symmetry.
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
    slope: Fraction | None = None

    @property
    def centre(self) -> Fraction | None:
        """C where ``f(x) - c`` is odd; None for functions without such a symmetry."""
        return Fraction(0) if self.parity == "odd" else self.centre_value

    @property
    def content_key(self) -> str:
        """What the function is, as text that is the same in every process: a key for caches."""
        return f"{self.name} = {self.source} on {self.domain}"

    @property
    def sympy(self) -> Any:
        """The function as a sympy expression in the real symbol ``x``."""
        from odp.approximations.functions.parsing import parse

        return parse(self.source)

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
        precision, point = mpmath.mp.prec, mpmath.mpf(x)
        previous = None
        # Until two precisions agree: log(1 + exp(-x)) and the like cancel, and to 0 at once.
        for factor in _PRECISIONS:
            with mpmath.workprec(factor * precision + 64):
                value = _value_or_limit(evaluator, point)
                agrees = previous is not None and value != 0
                if agrees and abs(value - previous) <= mpmath.ldexp(abs(value), -precision - 4):
                    break
            previous = value
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
        if domain.magnitude > _LARGEST or domain.magnitude < 1 / _LARGEST:
            raise ApproximationError(
                f"{where}: bounds are between {1 / _LARGEST:g} and {_LARGEST:g} in magnitude; scale"
                " the variable"
            )
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
        self._check_inside(domain)
        ends = self.numpy([domain.lo, domain.hi])
        if not np.isfinite(ends).all():
            raise ApproximationError(
                f"{where}: the function overflows float64 at a bound; narrow the domain"
            )

    def _check_inside(self, domain: Interval) -> None:
        """Refuse a domain for what happens between its bounds; declared functions have told."""

    def monotonicity(self, domain: Interval) -> Monotonicity | None:
        """``increasing`` or ``decreasing`` where that is proven on `domain`, otherwise None.

        The derivative has to be free of zeros; python-flint has to be there.

        >>> from odp.approximations import get_function
        >>> get_function("exp").monotonicity(Interval(-1, 1))
        'increasing'
        """
        from odp.approximations.functions.analyticity import monotonicity

        return monotonicity(self, domain)


def _value_or_limit(evaluator: Callable[[Any], Any], point: Any) -> Any:
    """The value, or what it tends to where it is 0/0, as sin(x)/x at 0."""
    import mpmath

    try:
        # Maxima of whole numbers are whole numbers.
        value = mpmath.mpmathify(evaluator(point))
        if not mpmath.isnan(value):
            return value
    except ZeroDivisionError:
        pass
    step = mpmath.ldexp(1, -mpmath.mp.prec)
    # The difference quotients of a double zero take two thirds of the digits.
    with mpmath.workprec(4 * mpmath.mp.prec):
        value, check = evaluator(point + step), evaluator(point + 2 * step)
        close = abs(value - check) <= mpmath.sqrt(step) * (1 + abs(value))
    return value if close else mpmath.nan


@lru_cache(maxsize=1024)
def _mpmath_evaluator(source: str) -> Callable[[Any], Any]:
    import mpmath
    import sympy

    from odp.approximations.functions.formula_program import stable
    from odp.approximations.functions.formula_vocabulary import symbol
    from odp.approximations.functions.parsing import parse

    expression = stable(parse(source))
    # sympy prints functions it knows, but that are not its own here, with the module's name.
    modules = [{"mpmath": mpmath}, "mpmath"]
    evaluator: Callable[[Any], Any] = sympy.lambdify(symbol(), expression, modules=modules)
    return evaluator
