"""Derivatives of terms, as terms: a backward kernel comes from the emitter of forward ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from odp.approximations.errors import OdpError
from odp.kernels.term import (
    Term,
    constant,
    exponent,
    greater,
    half_exponent,
    is_row,
    nodes,
    row_sum,
    scale_by_power,
    where,
)

__all__ = ["gradients"]


def gradients(outputs: Sequence[tuple[Term, Term]], inputs: Sequence[Term]) -> list[Term]:
    """Derivatives of the sum of `output * weight` over all outputs: reverse mode on terms.

    These are derivatives of the very operations, clips and all.  Rounding to integers has none, and
    neither have the largest number of a row, which is only ever a shift, and conditions.

    Args:
        outputs: pairs of an output and of the derivative that comes in for it.
        inputs: leaves; that of a row gets the sum over its row, that of a column gets its summand
            for each row, which a kernel adds up.

    Raises:
        OdpError: an operation without a derivative.
    """
    order = nodes([output for output, _ in outputs])
    rows: dict[Term, bool] = {}
    found: dict[Term, Term] = {}

    def add(term: Term, derivative: Term) -> None:
        if is_row(term, rows) and not is_row(derivative, rows):
            derivative = row_sum(derivative)
        found[term] = found[term] + derivative if term in found else derivative

    for output, weight in outputs:
        add(output, weight)
    for term in reversed(order):
        if term in found and term.operands:
            rule = _RULES.get(term.op)
            if rule is None:
                raise OdpError(f"the operation {term.op} of a kernel has no derivative")
            for operand, derivative in zip(term.operands, rule(term, found[term]), strict=False):
                if derivative is not None and operand.op != "constant":
                    add(operand, derivative)
    return [found.get(term, constant(0)) for term in inputs]


Rule = Callable[[Term, Term], tuple[Term | None, ...]]
"""From a term and the derivative that comes in, the derivatives that go to its operands."""


def _quotient(term: Term, d: Term) -> tuple[Term, Term]:
    shared = d / term.operands[1]
    return shared, -(shared * term)


def _larger(term: Term, d: Term) -> tuple[Term, Term]:
    first = greater(*term.operands)
    return where(first, d, 0), where(first, 0, d)


def _smaller(term: Term, d: Term) -> tuple[Term, Term]:
    a, b = term.operands
    first = greater(b, a)
    return where(first, d, 0), where(first, 0, d)


def _power_of_two(power: Term) -> Term:
    return scale_by_power(constant(1), power)


_RULES: dict[str, Rule] = {
    "add": lambda term, d: (d, d),
    "sub": lambda term, d: (d, -d),
    "mul": lambda term, d: (d * term.operands[1], d * term.operands[0]),
    "div": _quotient,
    "max": _larger,
    "min": _smaller,
    "abs": lambda term, d: (where(greater(term.operands[0], 0), d, -d),),
    "where": lambda term, d: (
        None,
        where(term.operands[0], d, 0),
        where(term.operands[0], 0, d),
    ),
    "greater": lambda term, d: (),
    "equal": lambda term, d: (),
    "round": lambda term, d: (),
    "exponent": lambda term, d: (),
    "half_exponent": lambda term, d: (),
    "row_max": lambda term, d: (),
    "row_sum": lambda term, d: (d,),
    "scale_by_power": lambda term, d: (d * _power_of_two(term.operands[1]),),
    "significand": lambda term, d: (d * _power_of_two(-exponent(term.operands[0])),),
    "half_significand": lambda term, d: (d * _power_of_two(-half_exponent(term.operands[0]) * 2),),
}
