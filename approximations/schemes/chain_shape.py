"""Chains of squarings with free constants: their shape, their values, and what they are to be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from odp.approximations.expression import Expression
from odp.approximations.forms.polynomials import coefficient

__all__ = ["Chain", "ChainGoal", "knuth_constants"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Chain:
    """The shape of a chain: how it starts, and how often it squares.

    ``z = a x + b``; for a quartic start then ``y = z z + g``, ``z = (y + z + h) y + g``; and at
    last `squarings` times ``z = z z + g``, with a constant g of its own each time.

    Attributes:
        quartic: whether it starts with the quartic.
        squarings: squarings with a free constant.
    """

    quartic: bool
    squarings: int

    @property
    def parameters(self) -> int:
        """Number of free constants."""
        return self.squarings + (5 if self.quartic else 2)

    @property
    def multiplications(self) -> int:
        """Multiplications, one of them by a constant, all in sequence."""
        return self.squarings + (3 if self.quartic else 1)

    @property
    def start(self) -> str:
        """The start's name."""
        return "quartic" if self.quartic else "linear"

    def __str__(self) -> str:
        start = "a quartic" if self.quartic else "a line"
        if self.squarings < 2:
            return f"{start} and a squaring" if self.squarings else f"{start} with fewer products"
        return f"{start} and {self.squarings} squarings"

    def values(self, parameters: Array, x: Array) -> Array:
        """The values at `x`."""
        z, used = parameters[0] * x + parameters[1], 2
        if self.quartic:
            y = z * z + parameters[2]
            z, used = (y + z + parameters[3]) * y + parameters[4], 5
        for constant in parameters[used:]:
            z = z * z + constant
        return np.asarray(z, dtype=np.float64)

    def evaluate(self, parameters: Array, x: Array) -> tuple[Array, Array]:
        """The values at `x`, and their derivatives by the parameters, one column each."""
        jacobian = np.zeros((x.size, self.parameters))
        jacobian[:, 0], jacobian[:, 1] = x, 1.0
        z, used = parameters[0] * x + parameters[1], 2
        if self.quartic:
            y, slope = z * z + parameters[2], jacobian * (2 * z)[:, None]
            slope[:, 2] += 1.0
            factor = y + z + parameters[3]
            jacobian = (slope + jacobian) * y[:, None] + slope * factor[:, None]
            jacobian[:, 3] += y
            jacobian[:, 4] += 1.0
            z, used = factor * y + parameters[4], 5
        for index in range(used, self.parameters):
            jacobian *= (2 * z)[:, None]
            jacobian[:, index] += 1.0
            z = z * z + parameters[index]
        return z, jacobian

    def moved(self, parameters: Array, shift: float, scale: float, slope: float = 1.0) -> Array:
        """Constants for ``scale * chain(slope * x + shift)``; scale is positive."""
        # One scaling at the end is a smaller one before every squaring.
        root = scale ** (1 / 2**self.squarings)
        tail = [root ** (2 ** (i + 1)) for i in range(self.squarings)]
        inner = Polynomial([parameters[1] + parameters[0] * shift, parameters[0] * slope])
        if not self.quartic:
            head = np.asarray([inner.coef[1], inner.coef[0]]) * root
        else:
            y = inner * inner + parameters[2]
            head = knuth_constants(root * ((y + inner + parameters[3]) * y + parameters[4]).coef)
        return np.concatenate([head, parameters[len(head) :] * np.array(tail)])

    def expression(self, parameters: Array, x: Expression) -> Expression:
        """The chain as an expression in `x`.

        Raises:
            CoefficientRangeError: for a constant that is not a finite number.
        """
        constants = [coefficient(float(value)) for value in parameters]
        z = x * constants[0] + constants[1]
        used = 2
        if self.quartic:
            y = z * z + constants[2]
            z = (y + z + constants[3]) * y + constants[4]
            used = 5
        for constant in constants[used:]:
            z = z * z + constant
        return z


def knuth_constants(coefficients: Array) -> Array:
    """Constants (a, b, g1, h, g2) of the quartic start for ascending `coefficients`, the last > 0.

    The leading coefficient is scaled into the variable: three multiplications, Horner has four.
    Source: D. E. Knuth, The Art of Computer Programming 2, section 4.6.4, formula (9).
    """
    a = float(coefficients[4]) ** 0.25
    c = coefficients / a ** np.arange(5)
    first = (c[3] - 1) / 2
    rest = c[2] - first * (first + 1)
    second = c[1] - first * rest
    third = rest - 2 * second
    # Knuth's (u + first) u + second, with u = a x, as a completed square.
    b = first / 2
    return np.array([a, b, second - b * b, third - b, c[0] - second * (second + third)])


class ChainGoal(Enum):
    """What a chain C is to be, on which interval, and which error counts.

    The first four are exp on an interval of t: C itself on [-width, 0], by absolute or relative
    error; 1/C = exp(-t) on [0, width]; 1/(1 + C), the logistic function of -t, on [-width, width].
    COSINE is C = cos(sqrt(t)) for sqrt(t) up to the width.
    """

    ABSOLUTE = "absolute"
    RELATIVE = "relative"
    INVERSE = "inverse"
    LOGISTIC = "logistic"
    COSINE = "cosine"

    def points(self, width: float, count: int) -> Array:
        """Points of the interval: Chebyshev's, and half as many that are dense where it bends."""
        unit = (1 - np.cos(np.linspace(0.0, np.pi, count))) / 2
        near = np.geomspace(1e-3, 1.0, count // 2)
        if self in (ChainGoal.ABSOLUTE, ChainGoal.RELATIVE):
            return np.unique(np.concatenate([-unit, -near])) * width
        if self is ChainGoal.INVERSE:
            return np.unique(np.concatenate([unit, near])) * width
        if self is ChainGoal.LOGISTIC:
            return np.unique(np.concatenate([2 * unit - 1, near, -near])) * width
        # Dense in the angle, of which the variable is the square.
        return np.unique(np.concatenate([unit, np.linspace(0.0, 1.0, count // 2)]) * width) ** 2

    def inner(self, x: Array) -> Array:
        """What C is at best."""
        if self is ChainGoal.COSINE:
            return np.asarray(np.cos(np.sqrt(x)), dtype=np.float64)
        return np.asarray(np.exp(x), dtype=np.float64)

    def outer(self, value: Array) -> tuple[Array, Array]:
        """What is made of C, and the derivative by C."""
        if self in (ChainGoal.INVERSE, ChainGoal.LOGISTIC):
            inverse = 1 / (value + (1.0 if self is ChainGoal.LOGISTIC else 0.0))
            return inverse, -inverse * inverse
        return value, np.ones_like(value)

    def wanted(self, x: Array) -> Array:
        """The function that `outer` is to be."""
        return self.outer(self.inner(x))[0]

    def weight(self, x: Array) -> Array:
        """Weights of the error."""
        return np.exp(-x) if self is ChainGoal.RELATIVE else np.ones_like(x)

    @property
    def doubling(self) -> tuple[float, float, float]:
        """(p, s, g) of the rule ``C(t) = (s C(p t))^2 + g``."""
        if self is ChainGoal.COSINE:
            return 0.25, 2.0**0.5, -1.0
        return 0.5, 1.0, 0.0
