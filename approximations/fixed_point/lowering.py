"""From an expression to integer steps: scales, shifts and the rounding of constants.

The scale of an intermediate is ``scale + guard_bits + e``.  In a uniform program e is 0 for all of
them.  In an adapted one e is such that a rounding there moves the result by at most half a unit of
``2^-(scale + guard_bits)``: e is the binary logarithm of the largest derivative of the result with
respect to the intermediate.  Coefficients of x on a wide domain so get the digits that a
normalised variable ``x / 2^j`` would give them, the polynomial under a chain of k squarings gets
its k digits more, and a large divisor fewer, without an operation at run time: only shifts differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from odp.approximations.algebra import Algebra, OperatorAlgebra
from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression, constant, variable
from odp.approximations.fixed_point.digits import extra_digits, input_range
from odp.approximations.fixed_point.program import (
    FixedPointProgram,
    Step,
    StepName,
    shift_to_nearest_fraction,
)
from odp.approximations.fixed_point.refusal import FixedPointRefusal
from odp.approximations.interval import Interval

__all__ = ["lower_expression", "replace_constants", "round_to_scale", "shift_constants"]


def round_to_scale(
    expression: Expression, digits: int, extra: Mapping[Expression, int] | None = None
) -> Expression:
    """The expression with every constant rounded to a multiple of ``2^-(digits + e)``, ties up.

    Powers of two that something is multiplied or divided by stay as they are: they are shifts.

    Args:
        expression: in the variable ``x``.
        digits: binary digits after the point.
        extra: e of every constant; None for 0.

    Raises:
        FixedPointRefusal: if a divisor becomes the constant zero.

    >>> round_to_scale(variable("x") * 0.3, 4)
    Expression(x * 0.3125)
    """
    shifts = shift_constants(expression)
    replacements = {
        node.value: _nearest(node.value, digits + (extra or {}).get(node, 0))
        for node in expression.nodes()
        if node.op == "constant" and node not in shifts
    }
    return replace_constants(expression, replacements)


def shift_constants(expression: Expression) -> set[Expression]:
    """The powers of two that something is multiplied or divided by."""
    return {
        operand
        for node in expression.nodes()
        for position, operand in enumerate(node.operands)
        if operand.op == "constant" and _power_of_two(operand.value) is not None
        if node.op == "mul" or (node.op == "div" and position == 1)
    }


def _nearest(value: Fraction, digits: int) -> Fraction:
    unit = Fraction(2) ** -digits
    return shift_to_nearest_fraction(value, digits) * unit


def replace_constants(
    expression: Expression, replacements: Mapping[Fraction, Fraction]
) -> Expression:
    """The expression with the values of some of its constants replaced.

    Raises:
        FixedPointRefusal: if a divisor becomes the constant zero.
    """
    algebra: Algebra[Expression] = OperatorAlgebra(
        lambda value: constant(replacements.get(value, value))
    )
    try:
        return expression.emit(algebra, **{name: variable(name) for name in expression.variables})
    except ApproximationError:
        raise FixedPointRefusal(
            "a constant divisor rounds to zero; use more guard bits", "divisor may be zero"
        ) from None


def lower_expression(
    expression: Expression,
    domain: Interval,
    *,
    scale: int,
    guard_bits: int = 0,
    input_scale: int | None = None,
    uniform: bool = False,
    relative: bool = False,
    round_constants: bool = True,
) -> FixedPointProgram:
    """The integer program of an expression, in the expression's own order of operations.

    Constants are rounded to their scale; those that are exact there stay so.  Nothing is proven
    here: `lower` also says what the program's error is, or why it cannot be used.

    Args:
        expression: in the variable ``x``.
        domain: the real inputs; the program is for the multiples of 2^-input_scale among them.
        scale: the result is an integer at 2^scale.
        guard_bits: further binary digits of intermediate results.
        input_scale: of the input; None means `scale`.
        uniform: every product, quotient and constant at scale + guard_bits; otherwise each of them
            has as many digits as its effect on the result asks for.
        relative: for programs that are not uniform: whether relative errors count.
        round_constants: False if the constants have been rounded already.

    Raises:
        ApproximationError: for scales that are negative, an expression that is not one in x or not
            finite on the domain.

    >>> x = variable("x")
    >>> print(lower_expression(x * x + 0.5, Interval(-1, 1), scale=8))
    r0 = input    # 2^-8
    r1 = round((r0 * r0) >> 8)    # 2^-8
    r2 = 128    # 2^-8
    r3 = (r1) + (r2)    # 2^-8
    """
    own_scale = scale if input_scale is None else input_scale
    for name, number in (("scale", scale), ("guard_bits", guard_bits), ("input_scale", own_scale)):
        if not isinstance(number, int) or not 0 <= number <= 120:
            raise ApproximationError(
                f"fixed point: {name} must be a whole number from 0 to 120, not {number!r}"
            )
    if expression.variables not in ((), ("x",)):
        raise ApproximationError("fixed point: only expressions in the variable x can be lowered")
    lowest, highest = input_range(domain, own_scale)
    digits = scale + guard_bits
    rounded = expression
    if round_constants:
        extra = {} if uniform else extra_digits(expression, domain, relative=relative)
        rounded = round_to_scale(expression, digits, extra)
    elif any(c.value.denominator & (c.value.denominator - 1) for c in expression.nodes()):
        raise ApproximationError("fixed point: a constant is not an integer at any scale 2^s")
    # A constant that rounds to 0 or 1 takes its operation with it: nodes are others now.
    extra = {} if uniform else extra_digits(rounded, domain, relative=relative)
    lowering = _Lowering(digits, own_scale, extra)
    lowering.write(rounded, scale)
    return FixedPointProgram(
        rounded, tuple(lowering.steps), scale, guard_bits, own_scale, lowest, highest
    )


class _Lowering:
    """Steps written so far; a value is (register, scale, sign) or a dyadic constant."""

    def __init__(self, digits: int, input_scale: int, extra: Mapping[Expression, int]) -> None:
        self.digits, self.extra = digits, extra
        self.steps: list[Step] = [Step("input", input_scale)]
        self.numbers: dict[Step, int] = {self.steps[0]: 0}

    def write(self, expression: Expression, scale: int) -> None:
        """Write all steps, and the rounding of the result to `scale`."""
        registers: dict[Expression, tuple[int, int]] = {}
        for node in expression.nodes():
            if node.op == "variable":
                registers[node] = (0, self.steps[0].scale)
            elif node.op != "constant":
                registers[node] = self.operation(node, registers)
        if expression.op == "constant":
            number, own = self.literal(expression.value)
        else:
            number, own = registers[expression]
        shift = own - scale
        last = number == len(self.steps) - 1
        if shift or not last:
            self.steps.append(Step("round", scale, number, 0, max(0, -shift), max(0, shift)))

    def operation(
        self, node: Expression, registers: Mapping[Expression, tuple[int, int]]
    ) -> tuple[int, int]:
        """Register and scale of an operation."""
        left, right = node.operands
        if node.op in ("mul", "div") and right.op == "constant":
            exponent = _power_of_two(right.value)
            if exponent is not None:
                number, own = registers[left]
                return number, own - exponent if node.op == "mul" else own + exponent
        if node.op == "mul" and left.op == "constant":
            exponent = _power_of_two(left.value)
            if exponent is not None:
                number, own = registers[right]
                return number, own - exponent
        goal = max(0, self.digits + self.extra.get(node, 0))
        if node.op in ("add", "sub"):
            return self.sum(node, registers)
        a, a_scale = registers[left] if left in registers else self.literal(left.value)
        b, b_scale = registers[right] if right in registers else self.literal(right.value)
        if node.op == "mul":
            shift = max(0, a_scale + b_scale - goal)
            own = a_scale + b_scale - shift
            return self.step(Step("mul", own, a, b, 0, shift)), own
        shift = goal + b_scale - a_scale
        return self.step(Step("div", goal, a, b, max(0, shift), max(0, -shift))), goal

    def sum(
        self, node: Expression, registers: Mapping[Expression, tuple[int, int]]
    ) -> tuple[int, int]:
        """A sum at the finer scale of its operands; constants are shifted when it is written."""
        scales = [
            registers[operand][1] if operand in registers else _fractional_bits(operand.value)
            for operand in node.operands
        ]
        own = max(scales)
        numbers, shifts = [], []
        for operand, its in zip(node.operands, scales, strict=True):
            if operand in registers:
                numbers.append(registers[operand][0])
                shifts.append(own - its)
            else:
                value = int(operand.value * Fraction(2) ** own)
                numbers.append(self.step(Step("constant", own, value=value)))
                shifts.append(0)
        op: StepName = "add" if node.op == "add" else "sub"
        return self.step(Step(op, own, numbers[0], numbers[1], shifts[0], shifts[1])), own

    def literal(self, value: Fraction) -> tuple[int, int]:
        """A constant as the smallest integer there is for it, and its scale."""
        own = _fractional_bits(value)
        return self.step(Step("constant", own, value=int(value * Fraction(2) ** own))), own

    def step(self, step: Step) -> int:
        """The number of a step, written once."""
        if step not in self.numbers:
            self.numbers[step] = len(self.steps)
            self.steps.append(step)
        return self.numbers[step]


def _power_of_two(value: Fraction) -> int | None:
    """K for 2^k, otherwise None."""
    p, q = value.numerator, value.denominator
    if p > 0 and p & (p - 1) == 0 and q & (q - 1) == 0:
        return p.bit_length() - q.bit_length()
    return None


def _fractional_bits(value: Fraction) -> int:
    """The smallest scale at which a dyadic number is an integer; negative for even integers."""
    if value == 0:
        return 0
    if value.denominator == 1:
        n = value.numerator
        return -((n & -n).bit_length() - 1)
    return value.denominator.bit_length() - 1
