"""The exp of attention as a device function, which hand-written kernels take as a constant.

A kernel that is generated has its functions written out in it.  One that is written by hand is
given them, as `FUNCTION: tl.constexpr`: a `@triton.jit` function in a file of its own, whose name
has the digest of its text.  Triton's caches go by the source of such a function, so two of them
never share a kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from odp.approximations.errors import OdpError
from odp.kernels.functions import KernelFunction
from odp.kernels.generated_module import generated_function
from odp.kernels.term import Term, embed, input_elements
from odp.kernels.triton_source import triton_function

__all__ = ["PowerOfTwo", "exp_of_scores", "power_of_two"]


@dataclass(frozen=True)
class PowerOfTwo:
    """2^x for x <= 0, as a kernel of attention computes it.

    Attributes:
        term: of one operand called ``x``: 2^x for x in [-1/2, 1/2] if `reduced`, otherwise for
            every x <= 0.
        reduced: whether the kernel takes the whole part of an exponent off, and adds it to the
            exponent of the result.
    """

    term: Term
    reduced: bool

    @property
    def function(self) -> Any:
        """The device function of ``x``, a block of float32, and the constant ``DIVISION``."""
        return _device_function(self.term, self.reduced)


def exp_of_scores(exp: KernelFunction) -> KernelFunction:
    """The function for scores from the largest of their row, which is 0 where it was clipped.

    Below the domain of an expression exp is less than at its lower end, and a hidden score must not
    come back as that.

    Args:
        exp: for every float, or on a domain that ends at 0 or above.

    Raises:
        OdpError: another function, or a domain without 0.
    """
    if exp.function != "exp":
        raise OdpError(
            f"attention: a function for exp is wanted, and this is one for {exp.function}"
        )
    if exp.reduction == "clip" and not exp.low < 0 <= exp.high:
        raise OdpError(
            f"attention: exp is wanted for numbers up to 0, and this one is made for [{exp.low:g}, "
            f"{exp.high:g}]; choose a domain such as [-32, 0]"
        )
    return replace(exp, below=0.0) if exp.reduction == "clip" and exp.below is None else exp


@lru_cache(maxsize=256)
def power_of_two(exp: KernelFunction) -> PowerOfTwo:
    """A function for exp in units of powers of two: 2^x = exp(x log(2)).

    With the exponent of the float taken care of, that is the polynomial alone, and the logarithm is
    folded into the scale of the scores; an expression behind a clip gets x log(2).

    Args:
        exp: see `exp_of_scores`.

    Raises:
        OdpError: likewise.
    """
    ready = exp_of_scores(exp)
    x = input_elements("x")
    if ready.reduction == "exponent":
        return PowerOfTwo(embed(ready.expression, x), True)
    return PowerOfTwo(ready(x * math.log(2)), False)


@lru_cache(maxsize=256)
def _device_function(term: Term, reduced: bool) -> Any:
    name = "power_of_fraction" if reduced else "power_of_two"
    domain = "x in [-1/2, 1/2]" if reduced else "x <= 0"
    text = triton_function(name, input_elements("x"), term, f"2^x for {domain}.")
    return generated_function(text, name)
