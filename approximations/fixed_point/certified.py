"""Programs with proven errors: lowered, bounded with all of their rounding, or refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression
from odp.approximations.fixed_point.coefficient_search import round_jointly
from odp.approximations.fixed_point.digits import extra_digits, sample_points
from odp.approximations.fixed_point.enumeration import enumerable, exhaustive_error
from odp.approximations.fixed_point.lowering import lower_expression
from odp.approximations.fixed_point.program import FixedPointProgram
from odp.approximations.fixed_point.refusal import FixedPointRefusal
from odp.approximations.fixed_point.rounding_analysis import RoundingAnalysis, analyse
from odp.approximations.functions.function import Function
from odp.approximations.interval import Interval
from odp.approximations.proofs.certify import certify

__all__ = [
    "NEAR_LIMIT",
    "CertifiedProgram",
    "FixedPointCertificate",
    "Proof",
    "lower",
    "rounding_limit",
]

Proof = Literal["analysis", "enumeration"]

NEAR_LIMIT = 1.1
"""Error asked for where the user names none, in units of `rounding_limit`: 1.05 is out of the reach
of most cheap programs."""

# A chain of squarings without guard bits loses up to 10 times; what is much worse is of no use.
_DIVERGED = 32.0


@dataclass(frozen=True)
class FixedPointCertificate:
    """What was proven of a program for every one of its inputs, all rounding included.

    Attributes:
        absolute: upper bound of |program - function|.
        relative: upper bound of |program / function - 1|; infinite if there is none.
        proof: ``analysis``, by ball arithmetic on parts of the domain, for any rule for ties; or
            ``enumeration``, by running the program on every input.
        inputs: number of inputs that it holds for.
    """

    absolute: float
    relative: float
    proof: Proof
    inputs: int

    def error(self, relative: bool) -> float:
        """The relative or the absolute bound."""
        return self.relative if relative else self.absolute


@dataclass(frozen=True)
class CertifiedProgram:
    """An integer program for a function, with its certificate.

    Attributes:
        program: the program.
        certificate: what was proven of it.
        function: what it approximates.
        domain: where; the certificate is for the multiples of 2^-input_scale in it.
        relative: whether it was made for the relative error.
    """

    program: FixedPointProgram
    certificate: FixedPointCertificate
    function: Function
    domain: Interval
    relative: bool

    @property
    def error(self) -> float:
        """The proven bound of the error that it was made for."""
        return self.certificate.error(self.relative)

    def __call__(self, x: Any) -> Any:
        """The program at real inputs; see `FixedPointProgram.__call__`."""
        return self.program(x)

    def __repr__(self) -> str:
        kind = "relative" if self.relative else "absolute"
        return (
            f"<CertifiedProgram {self.function.name} on {self.domain}, scale {self.program.scale}"
            f" + {self.program.guard_bits} guard bits: {kind} error {self.error:.3g}"
            f" by {self.certificate.proof}, {self.program.bits} bits>"
        )


def rounding_limit(function: Function, domain: Interval, scale: int, relative: bool) -> float:
    """What rounding the result alone costs: half a unit, relative to the smallest |f| if asked for.

    No program has a smaller error unless f happens to miss the middles between two integers.

    >>> from odp.approximations import get_function
    >>> rounding_limit(get_function("rsqrt"), Interval(0.0625, 16), 7, relative=True) * 2**8
    4.0
    """
    half = 2.0 ** -(scale + 1)
    if not relative:
        return half
    smallest = float(np.abs(function.numpy(sample_points(domain))).min())
    return half / smallest if smallest > 0 else math.inf


def lower(
    expression: Expression,
    function: Function,
    domain: Interval,
    *,
    scale: int,
    guard_bits: int,
    input_scale: int | None = None,
    uniform: bool = False,
    relative: bool | None = None,
    error: float | None = None,
    width: int | None = None,
    proof: Proof | None = None,
    search: bool = False,
) -> CertifiedProgram:
    """The integer program of an expression and the proof of its error, or why there is none.

    Args:
        expression: in the variable ``x``, approximating `function`.
        function: what it is for.
        domain: finite bounds.
        scale: the result is an integer at 2^scale.
        guard_bits: further binary digits of intermediate results.
        input_scale: of the input; None means `scale`.
        uniform: see `lower_expression`.
        relative: whether the relative error counts; None means as the function declares.
        error: largest error that is of use; None refuses only what is so large that the scheme
            does not work at this scale: 32 times the error in real arithmetic and of rounding the
            result, or the function itself.
        width: bits of the integers that the program will run in, with the sign; None for any.
        proof: None means analysis, and enumeration only where that does not prove `error` and
            there are at most 2^21 inputs.
        search: round all constants together (see `round_jointly`), which is closer than rounding
            each by itself; with enough guard bits that no longer shows.

    Raises:
        FixedPointRefusal: if the program diverges, may overflow or divide by zero, has too large
            an error, or nothing could be proven.
        ApproximationError: for a bad domain or scale.
    """
    kind = function.relative if relative is None else relative
    where = f"{function.name} on {domain} at scale {scale} with {guard_bits} guard bits"
    try:
        chosen = expression
        if search:
            extra = {} if uniform else extra_digits(expression, domain, relative=kind)
            chosen = round_jointly(
                expression, function, domain, scale + guard_bits, extra=extra, relative=kind
            ).expression
        program = lower_expression(
            chosen,
            domain,
            scale=scale,
            guard_bits=guard_bits,
            input_scale=input_scale,
            uniform=uniform,
            relative=kind,
            round_constants=not search,
        )
    except FixedPointRefusal as refusal:
        raise FixedPointRefusal(f"{where}: {refusal}", refusal.reason) from None
    analysis = analyse(program, relative=kind)
    if width is not None and analysis is not None and analysis.bits > width:
        raise FixedPointRefusal(
            f"{where}: intermediates need {analysis.bits} bits, more than {width}; use fewer guard"
            " bits or a smaller scale",
            "overflow",
        )
    real = sampled_error(expression, function, domain, relative=kind)
    limit = rounding_limit(function, domain, scale, kind)
    size = 1.0 if kind else float(np.abs(function.numpy(sample_points(domain))).max())
    diverged = min(_DIVERGED * (real + limit), size)
    allowed = diverged if error is None or math.isinf(error) else error
    certificate: FixedPointCertificate | None = None
    if proof != "enumeration" and analysis is not None:
        certificate = by_analysis(program, analysis, function, domain, relative=kind)
    proven = certificate is not None and certificate.error(kind) <= allowed
    if proof == "enumeration" or (proof is None and not proven and enumerable(program)):
        certificate = by_enumeration(program, function, where)
    if certificate is None:
        if analysis is None:
            raise FixedPointRefusal(
                f"{where}: a divisor may be rounded to zero, or the rounding errors grow without a"
                " bound; use more guard bits",
                "not proven",
            )
        raise FixedPointRefusal(f"{where}: the error could not be proven", "not proven")
    reached = certificate.error(kind)
    if not reached <= allowed:
        if reached > diverged:
            raise FixedPointRefusal(
                f"{where}: diverges: the error is {reached:.2g}, in real arithmetic {real:.2g}; use"
                " more guard bits or another scheme",
                "diverges",
            )
        raise FixedPointRefusal(
            f"{where}: the error is {reached:.3g}, more than {error:.3g}; use more guard bits, a"
            " closer approximation or a larger scale",
            "error too large",
        )
    if width is not None and analysis is None:
        raise FixedPointRefusal(
            f"{where}: no bound of the intermediates could be proven, so {width} bits may overflow",
            "overflow",
        )
    return CertifiedProgram(program, certificate, function, domain, kind)


def sampled_error(
    expression: Expression, function: Function, domain: Interval, *, relative: bool
) -> float:
    """The largest error in real arithmetic at about a thousand points: nothing is proven."""
    points = sample_points(domain)
    reference = function.numpy(points)
    with np.errstate(all="ignore"):
        value = expression(points) if expression.variables else float(expression.value)
        error = np.abs(value - reference)
        if relative:
            error = error / np.abs(reference)
    largest = float(error.max())
    return largest if math.isfinite(largest) else math.inf


def by_analysis(
    program: FixedPointProgram,
    analysis: RoundingAnalysis,
    function: Function,
    domain: Interval,
    *,
    relative: bool,
) -> FixedPointCertificate | None:
    """The rounding bound together with that of the expression with the program's constants.

    Returns:
        None where the latter could not be proven.
    """
    expression = program.expression
    absolute = sampled_error(expression, function, domain, relative=False)
    ratio = sampled_error(expression, function, domain, relative=True) if relative else None
    proof = certify(expression, function, domain, absolute=absolute, relative=ratio)
    if proof is None:
        return None
    total = math.inf
    if proof.relative is not None:
        # program/f - 1 = (program - expression)/expression * expression/f + expression/f - 1.
        total = analysis.relative * (1 + proof.relative) + proof.relative
    up = 1 + 2.0**-50
    return FixedPointCertificate(
        (analysis.absolute + proof.absolute) * up, total * up, "analysis", program.inputs
    )


def by_enumeration(
    program: FixedPointProgram, function: Function, where: str
) -> FixedPointCertificate:
    """The errors of all inputs.

    Raises:
        FixedPointRefusal: if a divisor is zero for an input, or nothing can be proven.
    """
    try:
        errors = exhaustive_error(program, function)
    except ApproximationError as error:
        zero = "divisor" in str(error)
        raise FixedPointRefusal(
            f"{where}: {error}", "divisor may be zero" if zero else "not proven"
        ) from None
    return FixedPointCertificate(errors.absolute, errors.relative, "enumeration", errors.inputs)
