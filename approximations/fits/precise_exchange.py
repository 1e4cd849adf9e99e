"""Remez's exchange in several hundred bits, for fits that float64 cannot finish.

In float64 the exchange stalls where the basis is badly conditioned (many decades, high types) and
where the error is within some roundings of the function's values.  Here the function is evaluated
by ball arithmetic and coefficients are those of powers of u, exact when the exchange has finished.

On a reference of m + n + 2 points the numerator is eliminated by divided differences: they vanish
on polynomials of degree m.  With ``v_i = 1/prod(u_i - u_j)`` the denominators of level fits are
the eigenvectors of the symmetric pencil ``A + E B``, ``A_kj = sum v_i u_i^(k+j) f_i`` and ``B``
likewise of ``(-1)^i/w_i``; as ``B`` is definite, all eigenvalues are real (E. W. Cheney and
H. L. Loeb, On rational Chebyshev approximation, Numerische Mathematik 4, 1962).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.fits.fit_problem import FitProblem, TypeFit
from odp.approximations.fits.remez import alternation
from odp.approximations.functions.ball_precision import ball_precision, flint_installed

__all__ = ["precise_exchange"]

Array = NDArray[np.float64]

_EXCHANGES = 30
_LEVEL = 1e-5
_BITS = 256
_BITS_FOR_EACH_DEGREE = 24
_LARGEST_TYPE = 40


def precise_exchange(problem: FitProblem, fit: TypeFit, count: int) -> TypeFit:
    """A better fit of the same type, with exact coefficients and its bound.

    Args:
        problem: what was fitted; nothing of it fixed.
        fit: where to start.
        count: points.

    Returns:
        The better fit; the given one where there is none: python-flint is not installed, the
        function has no ball evaluator, or the type is degenerate.
    """
    if not flint_installed():
        return fit
    from odp.approximations.functions.arb_elementary import NoEnclosure

    if fit.m + fit.n > _LARGEST_TYPE or problem.fixed:
        return fit
    with ball_precision(_BITS + _BITS_FOR_EACH_DEGREE * (fit.m + fit.n)):
        try:
            samples = _sample(problem, fit, count)
            return fit if samples is None else _exchange(samples, fit)
        except (NoEnclosure, ZeroDivisionError, ValueError):
            return fit


@dataclass(frozen=True)
class _Samples:
    """Points, values and weights in ball arithmetic, and where the start alternates."""

    u: list[Any]
    target: list[Any]
    weight: list[Any]
    start: Array


def _sample(problem: FitProblem, fit: TypeFit, count: int) -> _Samples | None:
    from flint import arb, arb_series, fmpq

    from odp.approximations.functions.arb_functions import arb_evaluator

    evaluator = arb_evaluator(problem.function)
    system = problem.system(fit.m, fit.n, fit.scale, count)
    if evaluator is None or system is None:
        return None
    # The points are the float64 numbers x; their squares are exact here.
    x = [arb(value) for value in problem.points(fit, count).tolist()]
    shift, slope = (arb(fmpq(c.numerator, c.denominator)) for c in (problem.shift, problem.slope))
    target = [evaluator(arb_series([point], 1))[0] - shift - slope * point for point in x]
    if problem.odd:
        target = [value / point for value, point in zip(target, x, strict=True)]
    if not all(value.is_finite() for value in target):
        return None
    return _Samples(
        [point * point for point in x] if problem.symmetric else x,
        target,
        [arb(value) for value in np.abs(system.weight).tolist()],
        system.error(fit.numerator, fit.denominator),
    )


def _exchange(samples: _Samples, fit: TypeFit) -> TypeFit:
    size = fit.m + fit.n + 2
    start = samples.start if np.isfinite(samples.start).all() else np.zeros(len(samples.u))
    reference = alternation(start, size)
    if reference.size < size or fit.error < _LEVEL**2 * float(max(map(abs, samples.target))):
        # Rounding is all that alternates: the extrema of a Chebyshev polynomial are near enough.
        angles = np.pi * np.arange(size) / (size - 1)
        reference = np.round((len(samples.u) - 1) * (1 - np.cos(angles)) / 2).astype(np.intp)
    best, bound = fit, fit.bound
    for _ in range(_EXCHANGES):
        solved = _level(samples, reference, fit.m, fit.n)
        if solved is None:
            break
        p, q, error, level = solved
        largest = float(np.abs(error).max())
        bound = max(bound, level)
        if largest < best.error:
            exact = _fractions(p), _fractions(q)
            best = replace(fit, error=largest, exact=exact)
        if largest <= level * (1 + _LEVEL):
            break
        moved = alternation(error, size)
        if moved.size < size or np.array_equal(moved, reference):
            break
        reference = moved
    return replace(best, bound=min(bound, best.error))


def _level(
    samples: _Samples, reference: NDArray[np.intp], m: int, n: int
) -> tuple[list[Any], list[Any], Array, float] | None:
    """The fit that is level on the reference: coefficients, error at all points, level."""
    from flint import arb, arb_mat

    indices = reference.tolist()
    u, f, w = ([part[i] for i in indices] for part in (samples.u, samples.target, samples.weight))
    divided = []
    for i, point in enumerate(u):
        product = arb(1)
        for j, other in enumerate(u):
            if i != j:
                product *= point - other
        divided.append(1 / product)
    signs = [(-1) ** i / weight for i, weight in enumerate(w)]
    left, right = (_moments(divided, u, values, 2 * n) for values in (f, signs))
    for level, q in _eigenpairs(left, right, n):
        divisors = [_horner(q, point) for point in samples.u]
        if not (all(d > 0 for d in divisors) or all(d < 0 for d in divisors)):
            continue
        wanted = [
            (value + level * sign) * _horner(q, point)
            for value, sign, point in list(zip(f, signs, u, strict=True))[: m + 1]
        ]
        rows = arb_mat([[point**k for k in range(m + 1)] for point in u[: m + 1]])
        p = [row[0] for row in rows.solve(arb_mat([[v] for v in wanted])).tolist()]
        everything = zip(samples.u, samples.target, samples.weight, divisors, strict=True)
        error = [float(wt * (_horner(p, x) / d - v)) for x, v, wt, d in everything]
        return p, q, np.array(error), abs(float(level))
    return None


def _moments(divided: list[Any], u: list[Any], values: list[Any], count: int) -> list[Any]:
    terms = [v * value for v, value in zip(divided, values, strict=True)]
    moments = []
    for _ in range(count + 1):
        moments.append(sum(terms))
        terms = [term * point for term, point in zip(terms, u, strict=True)]
    return moments


def _eigenpairs(a: list[Any], b: list[Any], n: int) -> list[tuple[Any, list[Any]]]:
    """Levels E and denominators with ``(A + E B) q = 0``, the smallest levels first."""
    from flint import acb_mat, arb, arb_mat

    if n == 0:
        return [(-a[0] / b[0], [arb(1)])]
    left, right = (
        arb_mat([[c[i + j] for j in range(n + 1)] for i in range(n + 1)]) for c in (a, b)
    )
    values, vectors = acb_mat(right.solve(-left).mid()).eig(right=True, algorithm="approx")
    pairs = []
    for index, value in enumerate(values):
        column = [vectors[row, index] for row in range(n + 1)]
        # All are real; an eigenvector comes with an arbitrary complex factor.
        largest = max(column, key=lambda c: float(abs(c)))
        pairs.append((value.real.mid(), [(c / largest).real.mid() for c in column]))
    return sorted(pairs, key=lambda pair: abs(float(pair[0])))


def _horner(coefficients: list[Any], u: Any) -> Any:
    result = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        result = result * u + coefficient
    return result


def _fractions(balls: list[Any]) -> tuple[Fraction, ...]:
    result = []
    for ball in balls:
        mantissa, exponent = ball.mid().man_exp()
        result.append(Fraction(int(mantissa)) * Fraction(2) ** int(exponent))
    return tuple(result)
