"""Float64 values of a formula, accurate to a few ulps: arrays with a running error bound.

Every operation carries a bound of its error along, to first order.  Where cancellation, overflow
or a quotient 0/0 leaves it above a few ulps of the result, ball arithmetic computes that one point.

Source of the running error analysis: N. J. Higham, Accuracy and Stability of Numerical Algorithms,
2nd ed., section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.functions.formula_program import Operation, program

__all__ = ["NumpyFormula"]

Array = NDArray[np.float64]

_UNIT = 2.0**-53
# The bounds are two to four times what happens: 10 ulps of bound are at most 5 of error.
_TOLERANCE = 20 * _UNIT
_UNDERFLOW = 2.0**-1074
# A result below this need not have all its digits.
_NEGLIGIBLE = 2.0**-1000
_MOST_REMEMBERED = 1 << 17


@dataclass(frozen=True)
class NumpyFormula:
    """A formula on float64 arrays; equal, hashed and pickled as its text.

    Attributes:
        source: the formula in ``x``, as `parsing.parse` reads it.
    """

    source: str

    def __call__(self, x: Array) -> Array:
        """The values; NaN where the formula is not real.

        Args:
            x: any shape.
        """
        points = np.asarray(x, dtype=np.float64)
        operations, remembered = _prepared(self.source)
        with np.errstate(all="ignore"):
            value, error = _run(operations, points)
            value, error = np.broadcast_arrays(value, error)
            good = error <= _TOLERANCE * np.abs(value) + _NEGLIGIBLE
        if good.all():
            return np.array(value)
        result = np.array(value)
        result[~good] = _exactly(self.source, points[~good], remembered)
        return result


@lru_cache(maxsize=256)
def _prepared(source: str) -> tuple[tuple[Operation, ...], dict[float, float]]:
    """The program of a formula, and the values that ball arithmetic has found so far."""
    from odp.approximations.functions.parsing import parse

    return program(parse(source)), {}


def _exactly(source: str, points: Array, remembered: dict[float, float]) -> list[float]:
    from odp.approximations.functions.arb_formula import arb_formula

    wanted = points.tolist()
    new = list({x for x in wanted if x not in remembered and np.isfinite(x)})
    if len(remembered) + len(new) > _MOST_REMEMBERED:
        remembered.clear()
        new = list({x for x in wanted if np.isfinite(x)})
    remembered.update(zip(new, arb_formula(source).at(new), strict=True))
    return [remembered.get(x, np.nan) for x in wanted]


def _run(operations: tuple[Operation, ...], x: Array) -> tuple[Any, Any]:
    """Values and error bounds of the last operation."""
    results: list[tuple[Any, Any]] = []
    for operation in operations:
        operands = [results[i] for i in operation.operands]
        results.append(_KINDS[operation.kind](operation, operands, x))
    return results[-1]


Operands = list[tuple[Any, Any]]


def _variable(operation: Operation, operands: Operands, x: Array) -> tuple[Any, Any]:
    return x, np.zeros_like(x)


def _number(operation: Operation, operands: Operands, x: Array) -> tuple[Any, Any]:
    value = np.float64(float(operation.value))
    return value, 0.0 if operation.value == value else _UNIT * np.abs(value)


def _constant(operation: Operation, operands: Operands, x: Array) -> tuple[Any, Any]:
    value = np.float64(np.pi if operation.name == "pi" else np.e)
    return value, _UNIT * value


def _sum(operation: Operation, operands: Operands, x: Array) -> tuple[Any, Any]:
    value, error = operands[0]
    for term, term_error in operands[1:]:
        value = value + term
        error = error + term_error + _UNIT * np.abs(value)
    return value, error


def _product(operation: Operation, operands: Operands, x: Array) -> tuple[Any, Any]:
    value, error = operands[0]
    for factor, factor_error in operands[1:]:
        error = np.abs(factor) * error + (np.abs(value) + error) * factor_error
        value = value * factor
        error = error + _UNIT * np.abs(value) + _UNDERFLOW
    return value, error


def _quotient(operation: Operation, operands: Operands, x: Array) -> tuple[Any, Any]:
    (above, above_error), (below, below_error) = operands
    value = above / below
    room = np.abs(below) - below_error
    error = np.where(room > 0, (above_error + np.abs(value) * below_error) / room, np.inf)
    return value, error + _UNIT * np.abs(value) + _UNDERFLOW


def _power(operation: Operation, operands: Operands, x: Array) -> tuple[Any, Any]:
    (base, base_error), exponent = operands[0], operation.value
    p = float(exponent)
    if exponent.denominator == 2 and exponent in (0.5, -0.5):
        value = np.sqrt(base) if p > 0 else 1 / np.sqrt(base)
    else:
        value = np.power(base, p)
    own = 2 * _UNIT * np.abs(value)
    if exponent != p:
        own = own * (1 + np.abs(np.where(value == 0, 0.0, np.log(np.abs(base))) * p))
    slope = np.abs(p) * np.power(np.abs(base), p - 1)
    return value, _scaled(slope, base_error) + own + _UNDERFLOW


def _call(operation: Operation, operands: Operands, x: Array) -> tuple[Any, Any]:
    if operation.name in ("Max", "Min"):
        pick = np.maximum if operation.name == "Max" else np.minimum
        value, error = operands[0]
        for other, other_error in operands[1:]:
            value, error = pick(value, other), np.maximum(error, other_error)
        return value, error
    (a, a_error) = operands[0]
    function, slope, roundings = _functions()[operation.name]
    value = function(a)
    return value, _scaled(np.abs(slope(a, value)), a_error) + roundings * _UNIT * (
        np.abs(value) + (operation.name == "loggamma")
    ) + _UNDERFLOW


def _scaled(slope: Any, error: Any) -> Any:
    """The product of both, 0 where there is no error whatever the slope."""
    return np.where(error == 0, 0.0, slope * error)


_KINDS: dict[str, Callable[[Operation, Operands, Array], tuple[Any, Any]]] = {
    "variable": _variable,
    "number": _number,
    "constant": _constant,
    "sum": _sum,
    "product": _product,
    "quotient": _quotient,
    "power": _power,
    "call": _call,
}

Slope = Callable[[Any, Any], Any]


@lru_cache(maxsize=1)
def _functions() -> dict[str, tuple[Callable[[Any], Any], Slope, float]]:
    """Each function, its derivative from argument and value, and the roundings of its value."""
    from scipy import special

    return {
        "exp": (np.exp, lambda a, y: y, 2),
        "expm1": (np.expm1, lambda a, y: y + 1, 2),
        "log": (np.log, lambda a, y: 1 / a, 2),
        "log1p": (np.log1p, lambda a, y: 1 / (1 + a), 2),
        "sin": (np.sin, lambda a, y: np.cos(a), 2),
        "cos": (np.cos, lambda a, y: np.sin(a), 2),
        "tan": (np.tan, lambda a, y: 1 + y * y, 4),
        "cot": (lambda a: 1 / np.tan(a), lambda a, y: 1 + y * y, 6),
        "sinh": (np.sinh, lambda a, y: np.cosh(a), 4),
        "cosh": (np.cosh, lambda a, y: np.sinh(a), 4),
        "tanh": (np.tanh, lambda a, y: 1 - y * y + _UNIT, 4),
        "asin": (np.arcsin, lambda a, y: 1 / np.sqrt((1 - a) * (1 + a)), 4),
        "acos": (np.arccos, lambda a, y: 1 / np.sqrt((1 - a) * (1 + a)), 4),
        "atan": (np.arctan, lambda a, y: 1 / (1 + a * a), 4),
        "asinh": (np.arcsinh, lambda a, y: 1 / np.sqrt(1 + a * a), 4),
        "acosh": (np.arccosh, lambda a, y: 1 / np.sqrt((a - 1) * (a + 1)), 4),
        "atanh": (np.arctanh, lambda a, y: 1 / ((1 - a) * (1 + a)), 4),
        "erf": (special.erf, lambda a, y: 2 / np.sqrt(np.pi) * np.exp(-a * a), 6),
        "erfc": (special.erfc, lambda a, y: 2 / np.sqrt(np.pi) * np.exp(-a * a), 10),
        "gamma": (special.gamma, lambda a, y: y * special.digamma(a), 12),
        "loggamma": (special.gammaln, lambda a, y: special.digamma(a), 6),
        "Abs": (np.abs, lambda a, y: 1.0, 0),
    }
