"""Proof by enumeration: a program run on every input, against proven values of its function."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from odp.approximations.errors import ApproximationError
from odp.approximations.fixed_point.digits import input_range
from odp.approximations.fixed_point.enclosed_values import enclosed_values
from odp.approximations.fixed_point.program import FixedPointProgram
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval

__all__ = ["ExhaustiveError", "enumerable", "exhaustive_error"]

_BLOCK = 1 << 18
# Values this much finer than a unit of the result do not show in the error.
_FINER = 2.0**-14
# Differences and quotients of float64 numbers are rounded a few times.
_UP = 1 + 2.0**-48


# About half a second in int64; wider integers are run one by one.
_MOST_INPUTS = 1 << 21
_MOST_WIDE_INPUTS = 1 << 16
_INT64 = 64


def enumerable(program: FixedPointProgram) -> bool:
    """Whether all inputs of a program can be run in about a second."""
    narrow = program.bits is not None and program.bits <= _INT64
    return program.inputs <= (_MOST_INPUTS if narrow else _MOST_WIDE_INPUTS)


@dataclass(frozen=True)
class ExhaustiveError:
    """The largest errors over all inputs.

    Attributes:
        absolute: largest |program - function|, an upper bound within a ten-thousandth of it.
        relative: likewise of |program / function - 1|; infinite where the function may be zero.
        inputs: number of inputs, all of which were run.
        worst_input: integer at which the absolute error is largest.
        worst_relative_input: integer at which the relative error is largest.
    """

    absolute: float
    relative: float
    inputs: int
    worst_input: int
    worst_relative_input: int


def exhaustive_error(
    program: FixedPointProgram,
    function: Function,
    domain: Interval | None = None,
) -> ExhaustiveError:
    """Run a program on every input that its domain represents, in exact integer arithmetic.

    Args:
        program: what to run.
        function: what it approximates, with a ball evaluator.
        domain: a part of the program's domain; None for all of it.

    Returns:
        Proven upper bounds of the largest errors.

    Raises:
        ApproximationError: if a divisor is zero for an input, or the function has no ball
            evaluator or no enclosure at an input.

    >>> from odp.approximations import get_function, variable
    >>> from odp.approximations.fixed_point import lower_expression
    >>> x = variable("x")
    >>> line = lower_expression(x * 0.25 + 0.5, Interval(-1, 1), scale=7, guard_bits=4)
    >>> error = exhaustive_error(line, get_function("sigmoid"))
    >>> error.inputs, 0.018 < error.absolute < 0.024
    (257, True)
    """
    lowest, highest = program.lowest, program.highest
    if domain is not None:
        lower, upper = input_range(domain, program.input_scale)
        lowest, highest = max(lowest, lower), min(highest, upper)
    if lowest > highest or max(abs(lowest), abs(highest)) >= 2**52:
        raise ApproximationError(
            f"{function.name}: there are no inputs from {lowest} to {highest} to enumerate"
        )
    worst = [(-1.0, lowest), (-1.0, lowest)]
    tolerance = math.ldexp(_FINER, -program.scale)
    for first in range(lowest, highest + 1, _BLOCK):
        n = np.arange(first, min(first + _BLOCK, highest + 1), dtype=np.int64)
        results = np.ldexp(program.integers(n).astype(np.float64), -program.scale)
        points = np.ldexp(n.astype(np.float64), -program.input_scale)
        runs = enclosed_values(function, points, tolerance)
        if runs is None:
            raise ApproximationError(
                f"{function.name}: its values cannot be enclosed, so nothing can be proven by"
                " enumeration"
            )
        for where, values, bound in runs:
            # Integers above 2^53 were rounded when they became float64.
            size = np.abs(values)
            error = np.abs(results[where] - values) * _UP + bound + size * 2.0**-52
            with np.errstate(all="ignore"):
                least = size * (1 - 2.0**-50) - bound
                ratio = np.where(least > 0, error / least * _UP, math.inf)
            for kind, errors in enumerate((error, ratio)):
                index = int(errors.argmax())
                if not errors[index] <= worst[kind][0]:
                    worst[kind] = (float(errors[index]), int(n[where][index]))
    absolute, relative = worst
    if not math.isfinite(absolute[0]):
        raise ApproximationError(
            f"{function.name}: its value at the input {absolute[1]} cannot be enclosed"
        )
    return ExhaustiveError(absolute[0], relative[0], highest - lowest + 1, absolute[1], relative[1])
