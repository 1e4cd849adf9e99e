"""Symmetries of formulas, proven: odd, even, odd about a value, even about a line through 0.

Values in 40 digits say which symmetry there may be; the proof is that a difference vanishes.  It
vanishes if it is zero as a rational function of its exponentials and of everything else in it that
is not rational, taken as independent unknowns.  What cannot be shown that way is not claimed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

__all__ = ["Symmetry", "symmetry", "vanishes"]

_POINTS = (0.013, 0.0717, 0.173, 0.413, 0.61, 0.937, 1.37, 2.903, 5.11, 11.7)
_LEAST_POINTS = 4
_DIGITS = 40
_LARGEST_DENOMINATOR = 10**6
# Beyond these, expanding takes more than a fraction of a second.
_MOST_OPERATIONS = 300
_MOST_TERMS = 3000


@dataclass(frozen=True)
class Symmetry:
    """What was proven of a formula around 0; all None for one without a symmetry.

    Attributes:
        parity: ``odd``, ``even`` or None.
        centre: c where ``f(x) - c`` is odd, c not 0.
        slope: s where ``f(x) - s*x`` is even, s not 0.
    """

    parity: Literal["odd", "even"] | None = None
    centre: Fraction | None = None
    slope: Fraction | None = None


def symmetry(expression: Any, evaluate: Callable[[float], Any]) -> Symmetry:
    """The symmetry of a formula.

    Irrational centres and slopes are given as the nearest float64, as the registry does for acos.

    Args:
        expression: in the variable ``x``, as `parsing.parse` makes it.
        evaluate: its values as mpmath numbers of 40 digits, or None.
    """
    import mpmath

    from odp.approximations.functions.formula_vocabulary import symbol

    x = symbol()
    with mpmath.workdps(_DIGITS):
        pairs = list(_pairs(evaluate))
        if len(pairs) < _LEAST_POINTS:
            return Symmetry()
        sums = [right + left for _, right, left in pairs]
        differences = [right - left for _, right, left in pairs]
        slopes = [d / (2 * point) for d, (point, _, _) in zip(differences, pairs, strict=True)]
        size = max(abs(right) + abs(left) for _, right, left in pairs)
        close = size * mpmath.mpf(10) ** (8 - _DIGITS)
        mirrored = expression.xreplace({x: -x})
        if _constant(sums, close):
            found = _number(sums[0] / 2, expression, close)
            if found and vanishes(expression + mirrored - 2 * found[0]):
                return Symmetry("odd") if found[1] == 0 else Symmetry(centre=found[1])
        if _constant(slopes, close):
            found = _number(slopes[0], expression.diff(x), close)
            if found and vanishes(expression - mirrored - 2 * found[0] * x):
                return Symmetry("even") if found[1] == 0 else Symmetry(slope=found[1])
    return Symmetry()


def _pairs(evaluate: Callable[[float], Any]) -> Iterator[tuple[Any, Any, Any]]:
    """Points with the values there and at their mirror images, where both are known."""
    import mpmath

    for point in _POINTS:
        right, left = evaluate(point), evaluate(-point)
        if right is not None and left is not None:
            yield mpmath.mpf(point), right, left


def _constant(values: list[Any], close: Any) -> bool:
    return all(abs(value - values[0]) <= close for value in values)


def _number(value: Any, formula: Any, close: Any) -> tuple[Any, Fraction] | None:
    """The number that `value` shows: a short fraction, or what `formula` is at 0."""
    import mpmath
    import sympy

    from odp.approximations.functions.formula_vocabulary import symbol

    guess = Fraction(str(mpmath.nstr(value, 30))).limit_denominator(_LARGEST_DENOMINATOR)
    if abs(value - mpmath.mpf(guess.numerator) / guess.denominator) <= close:
        return sympy.Rational(guess.numerator, guess.denominator), guess
    exact = formula.subs(symbol(), 0)
    if exact.is_number and exact.is_finite and exact.is_real:
        return exact, Fraction(float(exact))
    return None


def vanishes(expression: Any) -> bool:
    """Whether a formula is proven to be zero wherever it is defined; False says nothing.

    >>> from odp.approximations.functions.parsing import parse
    >>> vanishes(parse("1/(1 + exp(-x))") + parse("1/(1 + exp(x))") - 1)
    True
    """
    import sympy

    expression = sympy.sympify(expression)
    if expression == 0:
        return True
    if expression.count_ops() > _MOST_OPERATIONS:
        return False
    if _rationally_zero(expression):
        return True
    expression, units = _with_units(_exponentials(expression))
    return _rationally_zero(_split_logarithms(expression, units))


def _rationally_zero(expression: Any) -> bool:
    import sympy

    numerator, _ = sympy.fraction(sympy.together(_with_unknowns(expression, {})))
    return _terms(numerator) <= _MOST_TERMS and bool(sympy.expand(numerator) == 0)


def _terms(e: Any) -> int:
    """An upper bound of the number of terms after expansion."""
    if e.is_Add:
        return sum(_terms(a) for a in e.args)
    if e.is_Mul:
        return math.prod(_terms(a) for a in e.args)
    if e.is_Pow and e.exp.is_Integer and e.exp > 0:
        terms = _terms(e.base)
        return math.comb(terms + int(e.exp) - 1, terms - 1)
    return 1


def _with_unknowns(e: Any, unknowns: dict[Any, Any]) -> Any:
    """Everything that is not made of + - * / and whole powers becomes a symbol."""
    import sympy

    if e.is_Add or e.is_Mul or (e.is_Pow and e.exp.is_Integer):
        return e.func(*(_with_unknowns(a, unknowns) for a in e.args))
    if e.is_Symbol or e.is_number:
        return e
    if e not in unknowns:
        unknowns[e] = sympy.Dummy(real=True)
    return unknowns[e]


def _exponentials(e: Any) -> Any:
    """Fewer functions: hyperbolic ones by exp, erfc by erf, maxima by |a - b|, exp of a sum."""
    import sympy

    exp = sympy.exp
    e = e.replace(sympy.tanh, lambda a: 1 - 2 / (exp(2 * a) + 1))
    e = e.replace(sympy.sinh, lambda a: (exp(a) - exp(-a)) / 2)
    e = e.replace(sympy.cosh, lambda a: (exp(a) + exp(-a)) / 2)
    e = e.replace(sympy.erfc, lambda a: 1 - sympy.erf(a))
    e = e.replace(sympy.acos, lambda a: sympy.pi / 2 - sympy.asin(a))
    e = e.replace(sympy.Max, lambda *a: _larger(a, 1))
    e = e.replace(sympy.Min, lambda *a: _larger(a, -1))
    return e.replace(exp, lambda a: exp(sympy.expand(a)).expand(power_exp=True))


def _larger(arguments: tuple[Any, ...], sign: int) -> Any:
    import sympy

    result = arguments[0]
    for other in arguments[1:]:
        result = (result + other + sign * sympy.Abs(result - other)) / 2
    return result


def _with_units(e: Any) -> tuple[Any, dict[Any, Any]]:
    """exp(a), exp(-a/2) and the like as whole powers of one positive symbol; with its logarithm."""
    import sympy

    groups: dict[Any, list[tuple[Any, Fraction]]] = {}
    for part in e.atoms(sympy.exp, sympy.Pow):
        is_exp = part.func == sympy.exp
        if not is_exp and not (
            part.base.is_number and part.base.is_positive and part.exp.free_symbols
        ):
            continue
        factor, rest = (part.args[0] if is_exp else part.exp).as_coeff_Mul()
        if rest.free_symbols and factor.is_Rational:
            logarithm = rest if is_exp else rest * sympy.log(part.base)
            groups.setdefault(logarithm, []).append((part, Fraction(int(factor.p), int(factor.q))))
    powers, units = {}, {}
    for logarithm, members in groups.items():
        common = Fraction(
            math.gcd(*(abs(f.numerator) for _, f in members)),
            math.lcm(*(f.denominator for _, f in members)),
        )
        unit = sympy.Dummy(positive=True)
        units[unit] = logarithm * sympy.Rational(common.numerator, common.denominator)
        for part, factor in members:
            powers[part] = unit ** int(factor / common)
    return e.xreplace(powers), units


def _split_logarithms(e: Any, units: dict[Any, Any]) -> Any:
    """log(P/Q) as log P - log Q, and log(u^k P) as k log u + log P, where P and Q are positive."""
    import sympy

    def split(polynomial: Any) -> Any:
        present = [unit for unit in units if polynomial.has(unit)]
        if not present:
            return sympy.log(polynomial) if polynomial.is_positive else None
        try:
            poly = sympy.Poly(polynomial, *present, domain="QQ")
        except sympy.PolynomialError:
            return None
        if not all(c > 0 for c in poly.coeffs()):
            return None
        content, poly = poly.primitive()
        lowest = [min(monomial[i] for monomial in poly.monoms()) for i in range(len(present))]
        whole = sympy.prod(unit**k for unit, k in zip(present, lowest, strict=True))
        rest = sympy.cancel(poly.as_expr() / whole)
        known = sum(k * units[unit] for unit, k in zip(present, lowest, strict=True))
        return sympy.log(content) + known + sympy.log(rest)

    def replaced(argument: Any) -> Any:
        above, below = (split(part) for part in sympy.fraction(sympy.together(argument)))
        return sympy.log(argument) if above is None or below is None else above - below

    return e.replace(sympy.log, replaced)
