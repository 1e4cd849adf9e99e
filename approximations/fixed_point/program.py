"""Integer programs: what an expression becomes where every number is an integer at a scale.

A register holds an integer n and stands for ``n 2^-scale``.  Every product and every quotient is
rounded to nearest once; sums are exact, because operands are first shifted left to the finer of
their scales.  Multiplication by a power of two moves no bit: it only changes the scale.

Ties go up: ``round(v) = floor(v + 1/2)``.  That is one addition and one arithmetic shift, in C and
in hardware.  EZKL rounds to nearest too, with ties away from zero (``const_div`` of its
``tensor/ops.rs`` is Rust's ``f64::round``), so its integers can differ by one where a negative
number is exactly between two others.  A proof by analysis holds for any rule for ties (every
rounding moves a value by at most half a unit); one by enumeration is of this rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np

from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression

__all__ = ["FixedPointProgram", "Step", "divide_to_nearest", "shift_to_nearest"]

StepName = Literal["input", "constant", "add", "sub", "mul", "div", "round"]


def shift_to_nearest(n: int, bits: int) -> int:
    """The integer nearest to ``n / 2^bits``, ties up; ``n 2^-bits`` exactly for negative `bits`.

    >>> [shift_to_nearest(n, 1) for n in (-3, -1, 1, 3)]
    [-1, 0, 1, 2]
    """
    return (n + (1 << (bits - 1))) >> bits if bits > 0 else n << -bits


def divide_to_nearest(a: int, b: int) -> int:
    """The integer nearest to ``a / b``, ties up.

    Raises:
        ZeroDivisionError: if b is 0.

    >>> divide_to_nearest(7, 2), divide_to_nearest(-7, 2), divide_to_nearest(7, -2)
    (4, -3, -3)
    """
    return (2 * a + b) // (2 * b)


@dataclass(frozen=True)
class Step:
    """One register of a program and how it is computed.

    Attributes:
        op: ``input``; ``constant``; ``add`` and ``sub`` of shifted registers; ``mul``, the product
            shifted right by `right_shift` to nearest; ``div``, the shifted left register divided by
            the shifted right one to nearest; ``round``, the left register shifted right to nearest.
        scale: the register stands for its integer times ``2^-scale``.
        left: number of the left operand's register.
        right: number of the right operand's register.
        left_shift: bits that the left operand is shifted left by.
        right_shift: bits that the right operand is shifted left by; of ``mul`` and ``round``, bits
            that the result is shifted right by.
        value: the integer of a constant.
    """

    op: StepName
    scale: int
    left: int = 0
    right: int = 0
    left_shift: int = 0
    right_shift: int = 0
    value: int = 0

    @property
    def rounds(self) -> bool:
        """Whether the step can round."""
        return self.op == "div" or (self.op in ("mul", "round") and self.right_shift > 0)

    def __str__(self) -> str:
        left = f"r{self.left} << {self.left_shift}" if self.left_shift else f"r{self.left}"
        right = f"r{self.right} << {self.right_shift}" if self.right_shift else f"r{self.right}"
        if self.op == "input":
            return "input"
        if self.op == "constant":
            return str(self.value)
        if self.op == "mul":
            product = f"r{self.left} * r{self.right}"
            return f"round(({product}) >> {self.right_shift})" if self.right_shift else product
        if self.op == "round":
            return f"round(r{self.left} >> {self.right_shift})" if self.right_shift else left
        if self.op == "div":
            return f"round(({left}) / ({right}))"
        return f"({left}) {'+' if self.op == 'add' else '-'} ({right})"


@dataclass(frozen=True)
class FixedPointProgram:
    """A rational expression as a straight line of integer operations.

    Build one with `odp.approximations.fixed_point.lower_expression`.

    Attributes:
        expression: what the program computes but for the rounding of products, quotients and the
            result: its constants are the program's integers.
        steps: the registers in order; the last one is the result.
        scale: the result is an integer at scale ``2^scale``.
        guard_bits: further binary digits of intermediate results.
        input_scale: the input is an integer at scale ``2^input_scale``.
        lowest: smallest input that the program was made for.
        highest: largest one.
    """

    expression: Expression
    steps: tuple[Step, ...]
    scale: int
    guard_bits: int
    input_scale: int
    lowest: int
    highest: int

    def integers(self, n: Any) -> Any:
        """The integer result for an integer input.

        Args:
            n: an integer at scale ``2^input_scale``, or an integer numpy array of any shape.

        Returns:
            The integer at scale ``2^scale``, a Python int or an array of that shape (int64, or
            Python ints where the result does not fit).

        Raises:
            ApproximationError: if a divisor is zero there, or an array is not of integers.
        """
        if isinstance(n, np.ndarray):
            from odp.approximations.fixed_point.vectorised import evaluate

            return evaluate(self, n)
        try:
            return self.registers(int(n))[-1]
        except ZeroDivisionError:
            raise ApproximationError(
                f"a divisor of the fixed-point program is zero at the input {int(n)}"
            ) from None

    def registers(self, n: int) -> list[int]:
        """All registers for one integer input.

        Raises:
            ZeroDivisionError: if a divisor is zero.
        """
        values: list[int] = []
        for step in self.steps:
            if step.op == "input":
                values.append(n)
            elif step.op == "constant":
                values.append(step.value)
            elif step.op == "mul":
                product = values[step.left] * values[step.right]
                values.append(shift_to_nearest(product, step.right_shift))
            elif step.op == "round":
                shift = step.right_shift - step.left_shift
                values.append(shift_to_nearest(values[step.left], shift))
            else:
                a = values[step.left] << step.left_shift
                b = values[step.right] << step.right_shift
                if step.op == "div":
                    values.append(divide_to_nearest(a, b))
                else:
                    values.append(a + b if step.op == "add" else a - b)
        return values

    def __call__(self, x: Any) -> Any:
        """The result for real inputs, which are first rounded to the input's scale.

        Args:
            x: a number (a Fraction is taken exactly) or a numpy array of any shape.

        Returns:
            A Fraction for a Fraction or an int, otherwise float64 of the shape of `x`.
        """
        if isinstance(x, (int, Fraction)):
            n = shift_to_nearest_fraction(Fraction(x), self.input_scale)
            return Fraction(int(self.integers(n))) / 2**self.scale
        points = np.asarray(x, dtype=np.float64)
        nearest = np.asarray(np.floor(np.ldexp(points, self.input_scale) + 0.5))
        if not np.isfinite(nearest).all() or (np.abs(nearest) >= 2.0**62).any():
            raise ApproximationError("an input of the fixed-point program is not a finite number")
        result = self.integers(nearest.astype(np.int64)).astype(np.float64)
        value = np.ldexp(result, -self.scale)
        return float(value) if points.ndim == 0 else value

    @property
    def inputs(self) -> int:
        """How many inputs the program was made for."""
        return self.highest - self.lowest + 1

    @cached_property
    def bits(self) -> int | None:
        """Bits, with the sign, that hold every intermediate of every input it was made for.

        Proven by ball arithmetic on parts of the domain; None where that proves no bound.  The
        products before they are shifted count, and so does what is added to round them.
        """
        from odp.approximations.fixed_point.rounding_analysis import analyse

        analysis = analyse(self)
        return None if analysis is None else analysis.bits

    def listing(self) -> Iterator[str]:
        """The steps as text, one line each."""
        for number, step in enumerate(self.steps):
            yield f"r{number} = {step}    # 2^-{step.scale}"

    def to_c(self, name: str = "f") -> str:
        """Source text of a C function of one integer; see `emission.c_source`."""
        from odp.approximations.fixed_point.emission import c_source

        return c_source(self, name)

    def to_python(self, name: str = "f") -> str:
        """Source text of a Python function of one integer; see `emission.python_source`."""
        from odp.approximations.fixed_point.emission import python_source

        return python_source(self, name)

    def __str__(self) -> str:
        return "\n".join(self.listing())


def shift_to_nearest_fraction(x: Fraction, bits: int) -> int:
    """The integer nearest to ``x 2^bits``, ties up."""
    scaled = x * 2**bits if bits >= 0 else x / 2**-bits
    return divide_to_nearest(scaled.numerator, scaled.denominator)
