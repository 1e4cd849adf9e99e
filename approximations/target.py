"""Targets: what each operation costs where an expression will run, and what is possible there."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, replace
from numbers import Real
from types import MappingProxyType

from odp.approximations.arithmetic import (
    FLOAT32,
    FLOAT64,
    Arithmetic,
    FixedPointArithmetic,
)
from odp.approximations.errors import ApproximationError
from odp.approximations.expression import OperationCounts

__all__ = ["TARGETS", "Target", "get_target"]


@dataclass(frozen=True)
class Target:
    """Where an expression will run.

    Costs are in units of one multiplication of two values, unless the summary says otherwise.

    Attributes:
        name: what users type.
        summary: one line for a person, with the source of the costs.
        multiplication: of two values.
        constant_multiplication: of a value and a constant.
        division: None where the target cannot divide.
        addition: of two values, or of a value and a constant.
        depth: for each level of multiplications or divisions on the longest path.
        arithmetic: what its numbers are.
        bit_operations: whether the target can reach into exponent and mantissa.
    """

    name: str
    summary: str
    multiplication: float = 1.0
    constant_multiplication: float = 1.0
    division: float | None = 3.0
    addition: float = 0.0
    depth: float = 0.0
    arithmetic: Arithmetic = FLOAT32
    bit_operations: bool = False

    def __post_init__(self) -> None:
        for name in ("multiplication", "constant_multiplication", "division", "addition", "depth"):
            value = getattr(self, name)
            known = value is None if name == "division" else False
            if not known and not (isinstance(value, Real) and 0 <= float(value) < math.inf):
                raise ApproximationError(
                    f"target {self.name}: the cost of a {name} must be zero or a positive number,"
                    f" not {value!r}"
                )

    def cost(self, counts: OperationCounts) -> float:
        """What an expression with these operations costs; infinite if it is not possible."""
        if counts.divisions and self.division is None:
            return math.inf
        variable = counts.multiplications - counts.constant_multiplications
        return (
            self.multiplication * variable
            + self.constant_multiplication * counts.constant_multiplications
            + (self.division or 0.0) * counts.divisions
            + self.addition * counts.additions
            + self.depth * counts.multiplicative_depth
        )


_TARGETS = (
    Target("float32", "ordinary float32: a division is worth about three multiplications"),
    Target(
        "float64",
        "ordinary float64, for mathematics and for tables",
        arithmetic=FLOAT64,
    ),
    Target(
        "ezkl",
        "EZKL, rows for each element as measured on 23.0.5: every product is rescaled",
        multiplication=25.0,
        constant_multiplication=23.5,
        division=80.0,
        addition=0.5,
    ),
    Target(
        "fhe",
        "CKKS: no division; a level of depth is dear, a multiplication by a constant is not",
        multiplication=1.0,
        constant_multiplication=0.1,
        division=None,
        addition=0.02,
        depth=2.0,
        arithmetic=FLOAT64,
    ),
    Target(
        "mpc",
        "secret sharing: constants multiply locally, a division is an iteration of its own",
        multiplication=1.0,
        constant_multiplication=0.1,
        division=20.0,
        depth=0.5,
    ),
    Target(
        "hardware",
        "fixed-function units: area of a multiplier; constants are shifts and adds",
        multiplication=1.0,
        constant_multiplication=0.5,
        division=4.0,
        addition=0.1,
        arithmetic=FixedPointArithmetic(16),
    ),
    Target(
        "triton",
        "GPU: fused multiply-add, division by reciprocal",
        division=4.0,
        addition=0.05,
        bit_operations=True,
    ),
    Target(
        "fixed",
        "integers at a scale, rounded to nearest: fixed{scale=13,guard=6}",
        arithmetic=FixedPointArithmetic(13),
    ),
)

TARGETS: MappingProxyType[str, Target] = MappingProxyType({t.name: t for t in _TARGETS})
"""Every target by name."""

_OPTIONS = re.compile(r"(?P<name>[a-z0-9_]+)(\{(?P<options>[^{}]*)\})?")
_MOST_BITS = 60


def get_target(target: str | Target) -> Target:
    """The target called `target`.

    Args:
        target: a name, with ``{scale=S,guard=G}`` for integers at scale 2^S with G guard bits
            (G may be left out); or a Target, which is returned as it is.

    Raises:
        ApproximationError: for an unknown name or option.

    >>> get_target("ezkl{scale=13,guard=6}").arithmetic
    FixedPointArithmetic(scale=13, guard_bits=6)
    """
    if isinstance(target, Target):
        return target
    match = _OPTIONS.fullmatch(str(target).replace(" ", ""))
    name = match["name"] if match else str(target)
    if match is None or name not in TARGETS:
        near = difflib.get_close_matches(name, TARGETS, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(TARGETS)}"
        raise ApproximationError(f"unknown target {target!r}: {hint}")
    known = TARGETS[name]
    if match["options"] is None:
        return known
    bits: dict[str, int] = {}
    for option in match["options"].split(","):
        key, _, value = option.partition("=")
        if key not in ("scale", "guard") or not value.isdecimal() or int(value) > _MOST_BITS:
            raise ApproximationError(
                f"target {name}: options are scale=S and guard=G, whole numbers of binary digits up"
                f" to {_MOST_BITS}, not {option!r}"
            )
        bits[key] = int(value)
    if "scale" not in bits:
        raise ApproximationError(
            f"target {name}: guard bits need a scale, as in {name}{{scale=13}}"
        )
    return replace(known, arithmetic=FixedPointArithmetic(bits["scale"], bits.get("guard")))
