"""A formula as a sequence of operations, which is what every evaluator runs through.

Equal parts are computed once.  Forms that cancel are replaced by functions that do not:
``log(1 + a)`` by log1p, ``exp(a) - 1`` by expm1, ``1 - erf(a)`` by erfc, ``1 + tanh(a)`` by
``2/(1 + exp(-2a))``, wherever a common factor stands before both terms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

__all__ = ["Operation", "program", "stable"]

Kind = Literal["variable", "number", "constant", "sum", "product", "quotient", "power", "call"]


@dataclass(frozen=True)
class Operation:
    """One step of a program.

    Attributes:
        kind: what is done; ``power`` raises to a fixed rational exponent.
        operands: numbers of the steps whose results are taken.
        name: of the function of a ``call`` (Max and Min take several operands), or ``pi``, ``e``.
        value: of a ``number``, or the exponent of a ``power``.
        varies: whether the variable occurs in it.
    """

    kind: Kind
    operands: tuple[int, ...] = ()
    name: str = ""
    value: Fraction = Fraction(0)
    varies: bool = False


def program(expression: Any) -> tuple[Operation, ...]:
    """The operations of a sympy expression in ``x``, the result last.

    Args:
        expression: as `parsing.parse` makes it.
    """
    writer = _Writer()
    writer.write(stable(expression))
    return tuple(writer.operations)


def stable(expression: Any) -> Any:
    """The same expression with functions that do not cancel in the place of forms that do.

    Args:
        expression: as `parsing.parse` makes it.

    >>> from odp.approximations.functions.parsing import parse
    >>> stable(parse("(exp(x) - 1)/x"))
    expm1(x)/x
    """
    import sympy

    if expression.is_Atom:
        return expression
    arguments = [stable(argument) for argument in expression.args]
    if expression.is_Add:
        return sympy.Add(*_stable_terms(list(expression.args), arguments))
    if (
        expression.func == sympy.log
        and expression.args[0].is_Add
        and expression.args[0].args[0] == 1
    ):
        rest = stable(sympy.Add(*expression.args[0].args[1:]))
        return sympy.Function("log1p")(rest)
    # erfc(-a) would become 2 - erfc(a) again.
    function = sympy.Function("erfc") if expression.func == sympy.erfc else expression.func
    return function(*arguments)


def _stable_terms(terms: list[Any], changed: list[Any]) -> list[Any]:
    constant = terms[0]
    if not constant.is_Rational:
        return changed
    for index, term in enumerate(terms[1:], 1):
        factor, rest = term.as_coeff_Mul()
        rewrite = _STABLE.get(rest.func.__name__)
        better = rewrite(constant, factor, stable(rest.args[0])) if rewrite else None
        if better is not None:
            return [better, *changed[1:index], *changed[index + 1 :]]
    return changed


class _Writer:
    """Appends the operations of an expression after those of its parts."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._numbers: dict[Operation, int] = {}
        self._written: dict[Any, int] = {}

    def write(self, expression: Any) -> int:
        """The number of the step that computes `expression`."""
        if expression not in self._written:
            self._written[expression] = self._new(expression)
        return self._written[expression]

    def _emit(
        self, kind: Kind, *operands: int, name: str = "", value: Fraction = Fraction(0)
    ) -> int:
        varies = kind == "variable" or any(self.operations[i].varies for i in operands)
        operation = Operation(kind, operands, name, value, varies)
        if operation not in self._numbers:
            self._numbers[operation] = len(self.operations)
            self.operations.append(operation)
        return self._numbers[operation]

    def _number(self, value: Fraction) -> int:
        return self._emit("number", value=value)

    def _new(self, e: Any) -> int:
        import sympy

        if e.is_Symbol:
            return self._emit("variable")
        if e.is_Rational:
            return self._number(Fraction(int(e.p), int(e.q)))
        if e in (sympy.pi, sympy.E):
            return self._emit("constant", name="pi" if e == sympy.pi else "e")
        if e.is_Add:
            return self._emit("sum", *(self.write(term) for term in e.args))
        if e.is_Mul:
            return self._product(list(e.args))
        if e.is_Pow:
            return self._power(e)
        return self._emit("call", *(self.write(a) for a in e.args), name=e.func.__name__)

    def _product(self, factors: list[Any]) -> int:
        above, below = [], []
        for factor in factors:
            if factor.is_Pow and factor.exp.is_Integer and factor.exp < 0:
                below.append(self.write(factor.base ** (-factor.exp)))
            elif factor.is_Rational and factor.p in (1, -1) and factor.q != 1:
                # x/3 and not x*(1/3), which is rounded twice.
                below.append(self._number(Fraction(int(factor.q * factor.p))))
            else:
                above.append(self.write(factor))
        numerator = self._joined(above) if above else self._number(Fraction(1))
        return self._emit("quotient", numerator, self._joined(below)) if below else numerator

    def _joined(self, factors: list[int]) -> int:
        return factors[0] if len(factors) == 1 else self._emit("product", *factors)

    def _power(self, e: Any) -> int:
        base, exponent = e.base, e.exp
        if exponent.is_Integer and exponent < 0:
            return self._product([e])
        if exponent.is_Rational:
            value = Fraction(int(exponent.p), int(exponent.q))
            return self._emit("power", self.write(base), value=value)
        logarithm = self._emit("call", self.write(base), name="log")
        return self._emit(
            "call", self._emit("product", self.write(exponent), logarithm), name="exp"
        )


# Each is given c, k and a of ``c + k f(a)`` and returns the same without cancellation, or None.


def _of_exp(c: Any, k: Any, a: Any) -> Any:
    import sympy

    return k * sympy.Function("expm1")(a) if k == -c else None


def _of_erf(c: Any, k: Any, a: Any) -> Any:
    import sympy

    return c * sympy.Function("erfc")(-a * k / c) if abs(k) == abs(c) else None


def _of_erfc(c: Any, k: Any, a: Any) -> Any:
    import sympy

    if k == -c:
        return c * sympy.erf(a)
    return -k * sympy.Function("erfc")(-a) if 2 * k == -c else None


def _of_tanh(c: Any, k: Any, a: Any) -> Any:
    import sympy

    return 2 * c / (1 + sympy.exp(-2 * a * k / c)) if abs(k) == abs(c) else None


_STABLE: dict[str, Callable[[Any, Any, Any], Any]] = {
    "exp": _of_exp,
    "erf": _of_erf,
    "erfc": _of_erfc,
    "tanh": _of_tanh,
}
