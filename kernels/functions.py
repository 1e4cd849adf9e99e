"""How a function is computed in a kernel: an approximant, and how every input gets into its domain.

A graph that is calibrated clips an input to the domain that was seen.  A kernel can do better: a
float is a significand and an exponent, and where the function says what an exponent does to it, one
short interval is enough for every float there is.  exp(x) is 2^k * 2^f with f in [-1/2, 1/2], and
2^k is made by adding k to an exponent (Cody and Waite, Software Manual for the Elementary
Functions, 1980); rsqrt(4^k m) is rsqrt(m) / 2^k with m in [1, 4); log(2^k m) is log(m) + k log(2).
These steps are exact, so the error proven on the short interval holds everywhere, up to rounding.
"""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, get_args

from odp.approximations.approximant import Approximant
from odp.approximations.choose import approximate
from odp.approximations.errors import ApproximationError, OdpError
from odp.approximations.expression import (
    Expression,
    expression_from_rows,
    expression_rows,
)
from odp.approximations.functions.registry import get_function
from odp.approximations.interval import Interval
from odp.approximations.proofs.divisors import vanishing_divisor
from odp.kernels.term import (
    Term,
    embed,
    exponent,
    greater,
    half_exponent,
    half_significand,
    maximum,
    minimum,
    round_half_even,
    scale_by_power,
    significand,
    where,
)

__all__ = [
    "FUNCTIONS",
    "KernelFunction",
    "Reduction",
    "from_approximant",
    "fused_instructions",
    "kernel_function",
]

Reduction = Literal["clip", "exponent", "logistic"]
"""How inputs get into the domain of the expression.

- ``clip``: they are clipped to it.
- ``exponent``: by the exponent of the float; for exp, rsqrt and log.
- ``logistic``: sigmoid(x) = 1 / (1 + exp(-x)), the exp by its exponent.
"""

# The smallest and the largest power of two that float32 has as a normal number.
_LOWEST, _HIGHEST = -126.0, 127.0
# Divisors above 2^126 are infinite to fast division; 1 / 2^125 is a normal number.
_HIGHEST_DIVISOR = 125.0


@dataclass(frozen=True)
class KernelFunction:
    """A function of the library as kernels compute it.

    Attributes:
        function: name in `odp.approximations.FUNCTIONS`.
        reduction: see `Reduction`.
        expression: of the function, or with a reduction by exponent of exp2, rsqrt or log, on
            [low, high].
        low: lower end of the domain of the expression.
        high: upper end.
        below: value for inputs below `low`, for a gate that goes to 0 there: what it multiplies has
            no bound.  None leaves them clipped.
        absolute_error: bound on the absolute error for every float, in real arithmetic; None if
            there is none (exp grows without one).
        relative_error: likewise.
        certified: whether these bounds are proven or measured.
        description: for a person.
        text: all of it in one string, which an operator of an exported graph takes along.
    """

    function: str
    reduction: Reduction
    expression: Expression
    low: float
    high: float
    below: float | None = None
    absolute_error: float | None = None
    relative_error: float | None = None
    certified: bool = True
    description: str = field(default="", compare=False)
    text: str = field(init=False, compare=False, repr=False)

    @property
    def inner(self) -> str:
        """Name of the function that the expression approximates."""
        if self.reduction == "clip":
            return self.function
        return _RECIPES[self.function].inner

    def __post_init__(self) -> None:
        """Write it down once: torch.compile reads an attribute, and cannot look into json."""
        fields: dict[str, Any] = {
            "function": self.function,
            "reduction": self.reduction,
            "expression": _written(self.expression),
            "domain": [self.low, self.high],
            "absolute_error": self.absolute_error,
            "relative_error": self.relative_error,
            "certified": self.certified,
        }
        given = {} if self.below is None else {"below": self.below}
        object.__setattr__(self, "text", json.dumps(fields | given))

    @staticmethod
    def parse(text: str) -> KernelFunction:
        """What `text` wrote.

        Raises:
            OdpError: it is something else.
        """
        return _parsed(text)

    def __call__(self, x: Term, *, at_most_zero: bool = False) -> Term:
        """The function at `x`.

        Args:
            x: operand.
            at_most_zero: whether x is never positive, as in a softmax: one clip less for exp.
        """
        if self.reduction == "clip":
            value = embed(self.expression, minimum(maximum(x, self.low), self.high))
            return value if self.below is None else where(greater(self.low, x), self.below, value)
        if self.reduction == "logistic":
            return 1 / (1 + self._power(x, -_LOG2_E, highest=_HIGHEST_DIVISOR))
        if self.function == "exp":
            return self._power(x, _LOG2_E, highest=None if at_most_zero else _HIGHEST)
        if self.function == "exp2":
            return self._power(x, 1.0)
        if self.function == "rsqrt":
            return scale_by_power(embed(self.expression, half_significand(x)), -half_exponent(x))
        return embed(self.expression, significand(x)) + exponent(x) * math.log(2)

    def _power(self, x: Term, factor: float, highest: float | None = _HIGHEST) -> Term:
        """2^(factor x), between the smallest and the largest normal float32."""
        # Not the product: then both of its sums are fused with it.
        low, high = sorted((_LOWEST / factor, (highest or 0.0) / factor))
        clipped = maximum(x, low)
        clipped = clipped if highest is None else minimum(clipped, high)
        power = clipped * factor
        whole = round_half_even(power)
        return scale_by_power(embed(self.expression, power - whole), whole)


_LOG2_E = math.log2(math.e)

SMALLEST_ERROR = 2.0**-24
"""Below it float32 itself decides how far a result is off."""


@dataclass(frozen=True)
class _Recipe:
    """How a function is computed unless an approximant is given."""

    reduction: Reduction
    inner: str
    domain: tuple[float, float]
    relative: bool
    below: float | None = None


_RECIPES = {
    "exp": _Recipe("exponent", "exp2", (-0.5, 0.5), True),
    "exp2": _Recipe("exponent", "exp2", (-0.5, 0.5), True),
    "sigmoid": _Recipe("logistic", "exp2", (-0.5, 0.5), True),
    "rsqrt": _Recipe("exponent", "rsqrt", (1.0, 4.0), True),
    "log": _Recipe("exponent", "log", (0.707, 1.4143), False),
    # Beyond 5.5 the normal distribution is within 2e-8 of 0 and 1.
    "normal_cdf": _Recipe("clip", "normal_cdf", (-5.5, 5.5), False, below=0.0),
}

_REDUCED = {"exponent": ("exp", "exp2", "rsqrt", "log"), "logistic": ("sigmoid",)}

FUNCTIONS = tuple(_RECIPES)
"""Functions that kernels compute for every float without calibration."""


@lru_cache(maxsize=256)
def kernel_function(name: str, error: float = 1e-6) -> KernelFunction:
    """A function for every float, within an error.

    Args:
        name: one of `FUNCTIONS`.
        error: in real arithmetic: relative for exp, exp2, sigmoid and rsqrt, absolute for log and
            normal_cdf.

    Raises:
        OdpError: kernels know no reduction for it, or the error cannot be kept.

    >>> exp = kernel_function("exp", 1e-4)
    >>> exp.expression.counts.multiplications, exp.relative_error < 1e-4
    (3, True)
    """
    recipe = _RECIPES.get(name)
    if recipe is None:
        raise OdpError(
            f"kernels know no reduction that makes {name} hold for every float; they do for "
            f"{', '.join(FUNCTIONS)}, and take an approximant on an interval for the others"
        )
    if not error >= SMALLEST_ERROR:
        raise OdpError(
            f"{name}: kernels compute in float32, whose own rounding is {SMALLEST_ERROR:.2g}; ask "
            f"for no less than that, not {error:g}"
        )
    logistic = recipe.reduction == "logistic"
    asked = 1 / (1 + 1 / error) if logistic else error
    found = min(_candidates(recipe, asked), key=lambda one: fused_instructions(one.expression))
    bound = found.certified_error if found.certified_error is not None else found.error
    tail = 2e-8 if name == "normal_cdf" else 0.0
    absolute = None if name in ("exp", "exp2", "rsqrt") else bound + tail
    if logistic:
        # With E = exp(-x) a sigmoid is off by e E / (1 + E) / (1 + E (1 - e)) for an error e of E:
        # at most e / 4 / (1 - e), and relatively at most e / (1 - e).
        bound = bound / (1 - bound)
        absolute = bound / 4
    return KernelFunction(
        name,
        recipe.reduction,
        found.expression,
        *recipe.domain,
        recipe.below,
        absolute,
        bound if recipe.relative else None,
        found.error_kind == "certified",
        _described(found, recipe),
    )


def _described(found: Approximant, recipe: _Recipe) -> str:
    """One line for a person."""
    how = {
        "clip": "clipped",
        "exponent": "every float by its exponent",
        "logistic": "1/(1 + exp(-x)), every float by its exponent",
    }
    return f"{found.description} on {found.domain}, {how[recipe.reduction]}"


def _candidates(recipe: _Recipe, error: float) -> list[Approximant]:
    """The expression with the fewest products, and the polynomial by Horner's rule.

    The first saves products by additions, which on a GPU cost as much unless one is fused with the
    other: exp2 within 3e-6 has 3 products and 6 fused instructions, by Horner's rule 4 and 4.
    """
    asked: dict[str, Any] = {"error": error, "relative": recipe.relative, "target": "triton"}
    found = [approximate(recipe.inner, recipe.domain, **asked)]
    with contextlib.suppress(ApproximationError):
        found.append(
            approximate(recipe.inner, recipe.domain, scheme="minimax", form="raw", **asked)
        )
    return found


def fused_instructions(expression: Expression) -> int:
    """Floating-point instructions of an expression with fused multiply-add; a division counts 3.

    >>> from odp.approximations.expression import variable
    >>> x = variable("x")
    >>> fused_instructions((2 * x + 1) * x + 3), fused_instructions((x + 1) * (x + 2) + x)
    (2, 3)
    """
    uses: dict[Expression, int] = {}
    order = expression.nodes()
    for node in order:
        for operand in node.operands:
            uses[operand] = uses.get(operand, 0) + 1
    fused = set()
    count = 0
    for node in order:
        if node.op in ("add", "sub"):
            products = (o for o in node.operands if o.op == "mul" and uses[o] == 1)
            fused.update([next(products, node)])
        count += {"div": 3}.get(node.op, 1) if node.operands else 0
    return count - len(fused & {node for node in order if node.op == "mul"})


def from_approximant(approximant: Approximant, below: float | None = None) -> KernelFunction:
    """An approximant as it is, behind a clip to its domain: + - * / only.

    Args:
        approximant: from a circuit, a graph or `odp.approximations.approximate`.
        below: see `KernelFunction`; None takes 0 for a sigmoid or a normal distribution whose
            domain reaches so far that it is below the error there.

    Raises:
        OdpError: a division in it could have a divisor of 0 on its domain.
    """
    name, domain = approximant.function.name, approximant.domain
    _check_divisors(name, approximant.expression, domain)
    if below is None and name in ("sigmoid", "normal_cdf"):
        at_the_end = float(get_function(name).numpy(_array(domain.lo)))
        below = 0.0 if at_the_end <= approximant.absolute_error else None
    return KernelFunction(
        name,
        "clip",
        approximant.expression,
        domain.lo,
        domain.hi,
        below,
        approximant.absolute_error,
        approximant.relative_error,
        approximant.error_kind == "certified",
        f"{approximant.description} on {domain}, clipped",
    )


def _array(x: float) -> Any:
    import numpy as np

    return np.asarray(x)


def _check_divisors(name: str, expression: Expression, domain: Interval) -> None:
    point = vanishing_divisor(expression, domain)
    if point is not None:
        raise OdpError(
            f"the expression for {name} divides by 0 next to {point:.6g}, within {domain}, to "
            "which the kernel clips; choose another scheme or a shorter domain"
        )


@lru_cache(maxsize=1024)
def _parsed(text: str) -> KernelFunction:
    try:
        fields = json.loads(text)
        low, high = (float(bound) for bound in fields["domain"])
        name, reduction = fields["function"], fields["reduction"]
        expression = _read(fields["expression"])
        if reduction not in get_args(Reduction):
            raise ValueError(f"no reduction {reduction!r}")
        if reduction != "clip" and name not in _REDUCED[reduction]:
            raise ValueError(f"no reduction {reduction!r} of {name!r}")
        if len(expression.variables) > 1:
            raise ValueError(f"variables {', '.join(sorted(expression.variables))}")
    except (ValueError, KeyError, TypeError, IndexError, ZeroDivisionError, OdpError) as error:
        raise OdpError(
            f"this is no function of a kernel ({error}); take the text of odp.kernels."
            "functions.kernel_function or from_approximant"
        ) from None
    _check_divisors(name, expression, Interval(low, high))
    return KernelFunction(
        name,
        reduction,
        expression,
        low,
        high,
        fields.get("below"),
        fields.get("absolute_error"),
        fields.get("relative_error"),
        bool(fields.get("certified")),
    )


def _written(expression: Expression) -> list[list[Any]]:
    """An expression as a table for JSON, its constants exact."""
    table: list[list[Any]] = []
    for op, operands, name, value in expression_rows(expression):
        if op == "variable":
            table.append([op, name])
        elif op == "constant":
            table.append([op, str(value)])
        else:
            table.append([op, *operands])
    return table


def _read(table: list[list[Any]]) -> Expression:
    rows: list[Any] = []
    for op, *rest in table:
        if op == "variable":
            rows.append((op, (), str(rest[0]), Fraction(0)))
        elif op == "constant":
            rows.append((op, (), "", Fraction(rest[0])))
        elif op in ("add", "sub", "mul", "div") and all(0 <= int(i) < len(rows) for i in rest):
            rows.append((op, (int(rest[0]), int(rest[1])), "", Fraction(0)))
        else:
            raise ValueError(f"no operation {op!r}")
    return expression_from_rows(rows)
