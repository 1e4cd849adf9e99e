"""What each operation of EZKL lays out, in the order in which EZKL does it.

Cells for an element at `legs` digits; a row holds `num_inner_cols` cells:

    addition, multiplication, negation, identity, slice, table    1
    power e                                                       e - 1
    range check (decomposition) D                                 2 legs + 4 + dot, D = 10 at 2 legs
    ... with the sign of 0 forced S                               D + 6
    comparison                                                    S + 6
    magnitude                                                     D + 1
    rectifier                                                     D + 6
    maximum, minimum                                              S + 15
    division by a constant (a rescale)                            2 D + S + 10, 46 at 2 legs
    square root                                                   4 D + 2 S + 32
    reciprocal                                                    4 D + 2 S + 48

where dot is legs rounded up to full rows. Derived from `layouts.rs`, checked against
`gen_settings` in tests/ezkl.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from odp.backends.ezkl.cost_region import Region

__all__ = [
    "divide",
    "floor",
    "larger",
    "leaky_rectify",
    "maximum",
    "negate",
    "output",
    "reciprocal",
    "reciprocal_root",
    "rectify",
    "reduce_slices",
    "reduce_squares",
    "rescale_up",
    "softmax",
    "square_root",
]

# e as EZKL stores it, in float32.
_E = 2.7182817459106445


def divide(region: Region, n: int, divisor: float) -> None:
    """Divide by a constant: the prover claims quotients, |x - quotient * divisor| < divisor.

    This is what a rescale costs. Quotient and divisor must each be below base ** legs, because the
    one is decomposed and the other compared.
    """
    if divisor == 1:
        return
    region.decompose(n)
    region.constants.add(divisor)
    region.pairwise(n)
    region.distance(n)
    region.greater(n)
    region.constants.add(1.0)
    region.enforce_equality(n)


def rescale_up(region: Region, n: int, factor: float) -> None:
    """Multiply an operand whose label is smaller than that of the other one."""
    region.constants.add(factor)
    region.pairwise(n)


def square_root(region: Region, n: int, scale: float) -> None:
    """Claim y with |y * y - scale * x| smallest."""
    region.abs(n)
    region.constants.add(scale)
    region.pairwise(n)

    def error() -> None:
        region.pairwise(n)
        region.distance(n)

    region.minimum_at(n, error)
    region.enforce_equality(n)


def reciprocal(region: Region, n: int, input_scale: float, output_scale: float) -> None:
    """Claim y with |y * x - input_scale * output_scale| smallest, or a huge constant for x = 0."""
    region.decompose(n)
    region.equals_zero(n)
    region.invert(n)
    huge = output_scale * (1.0 / region.epsilon)
    region.constants.add(math.floor(huge + 0.5) if huge < 2**52 else huge)
    region.equals(n)
    region.constants.add(input_scale * output_scale)
    region.pairwise(n)
    region.enforce_equality(n)

    def error() -> None:
        region.pairwise(n)
        region.distance(n)

    region.minimum_at(n, error)
    region.pairwise(n)
    region.enforce_equality(n)


def reciprocal_root(region: Region, n: int, input_scale: float, output_scale: float) -> None:
    """A square root, then a reciprocal."""
    square_root(region, n, input_scale)
    reciprocal(region, n, input_scale, output_scale)


def rectify(region: Region, n: int) -> None:
    """max(x, 0): the sign compared with 1 is the mask."""
    region.sign(n, zero_sign_matters=False)
    region.constants.add(1.0)
    region.equals(n)
    region.pairwise(n)


def leaky_rectify(region: Region, n: int, slope: float, scale: int) -> None:
    """max(x, 0) + slope * min(x, 0) at a label that is `scale` higher."""
    rectify(region, n)
    if slope == 0:
        return
    region.constants.add(2.0**scale)
    region.pairwise(n)
    region.invert(n)
    region.constants.add(math.floor(slope * 2.0**scale + 0.5))
    region.pairwise(3 * n)


def larger(region: Region, n: int) -> None:
    """The larger, or the smaller, of two elements."""
    region.greater(n)
    region.invert(n)
    region.pairwise(3 * n)


def negate(region: Region, n: int) -> None:
    """Subtract from 0."""
    region.constants.add(0.0)
    region.pairwise(n)


def _sort(region: Region, n: int) -> None:
    """Claim a sorted copy: a permutation by a shuffle argument, each element above the last."""
    if n == 1:
        return
    region.advance(n)
    # In a loop over slices EZKL numbers every shuffle 0.
    region.write_constants((0.0, *map(float, range(n))))
    region.shuffle_cells += n
    region.shuffles += 1
    region.advance(n)
    region.constants.add(1.0)
    region.greater_equal(n - 1)
    region.enforce_equality(n - 1)


def maximum(region: Region, n: int) -> None:
    """The largest, or the smallest, of n elements: the end of a sorted copy."""
    _sort(region, n)


def reduce_slices(region: Region, count: int, n: int, body: Callable[[int], None]) -> None:
    """Reduce `count` slices of n elements."""
    region.repeat(count, lambda: body(n))


def reduce_squares(region: Region, count: int, n: int) -> None:
    """The mean of squares of each of `count` slices of n elements, divided by n as it is."""
    region.pairwise(count * n)
    reduce_slices(region, count, n, region.sum)
    divide(region, count, float(n))


def softmax(region: Region, count: int, n: int, input_scale: float, output_scale: float) -> None:
    """Maximum, difference, table of the exponential, sum, one reciprocal, product.

    Args:
        region: where.
        count: slices.
        n: elements of one.
        input_scale: 2 ** label of the input.
        output_scale: 2 ** label that the reciprocal gets.
    """
    region.advance(count * n)

    def slice_() -> None:
        maximum(region, n)
        region.pairwise(n)
        region.lookup(n, "Exp", scale=input_scale, base=_E)
        region.advance(n)
        region.sum(n)
        reciprocal(region, 1, input_scale, output_scale)
        region.pairwise(n)

    region.repeat(count, slice_)


def floor(region: Region, n: int, scale: float) -> None:
    """Cut the digits below the point off, at a radix that is the scale itself."""
    base = int(scale)
    region.decompose(n, zero_sign_matters=True, base=base)
    region.write_constants((-1.0, 0.0))
    region.advance(1)

    def element() -> None:
        region.equals_zero(1)
        region.invert(1)
        region.equals(1)
        region.both(1)
        region.pairwise(1)

    region.repeat(n, element)
    region.advance(n * (region.legs + 1))
    region.recombine(n)


def output(region: Region, n: int, range_checked: bool) -> None:
    """Tie an output to the public value that stands for it; both are range-checked."""
    if range_checked:
        region.decompose(n)
        region.decompose(n)
    region.enforce_equality(n)
