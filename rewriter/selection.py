"""From what a site has seen to the expression that replaces it there."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from odp.approximations.approximant import Approximant
from odp.approximations.choose import approximate
from odp.approximations.errors import ApproximationError
from odp.approximations.functions.function import Function
from odp.approximations.functions.registry import get_function
from odp.approximations.interval import Interval
from odp.approximations.schemes import SCHEMES
from odp.approximations.search import check_parameters, find_scheme
from odp.approximations.tolerance import Histogram
from odp.rewriter.calibration import Observation
from odp.rewriter.formula_option import check_formula_option, check_formula_sites
from odp.rewriter.graph import Builder, Value
from odp.rewriter.native import emit_native
from odp.rewriter.report import Skipped
from odp.rewriter.rewrite_pass import Guard, Pass
from odp.rewriter.site import Site

__all__ = [
    "Approximating",
    "Choice",
    "Defaults",
    "Selection",
    "check_options",
    "domain_of",
    "mask_value_for",
    "select",
]

SOFTMAX_CUTOFF = -32.0
"""Where a guarded softmax clips x - max: exp(-32) = 1.3e-14, so even 10,000 masked keys together
weigh less than float32 can see beside the 1 of the maximum."""

_SHORT_ROW = 16
"""Sums of up to this many approximated values keep the budget; a longer row adds up more errors, so
each gets a proportionally smaller one.  The softmax over the 6,623 characters of an OCR model lost
1.6e-3 of its output at 1e-5 for each; the rows of 32 in MiniLM lost 1.0e-4 of it to an expression
that does not vanish where exp does, for one multiplication less than one that loses 2e-6."""

_RELAXATIONS = (1.0, 10.0, 100.0, 1000.0)
_UNBOUNDED = 1e30
_BINS = 32


@dataclass(frozen=True)
class Defaults:
    """Options for all passes that do not set their own.

    Attributes:
        error: largest error at a site.
        margin: share of its width (of its octaves, for positive functions) by which a calibrated
            range grows on each side.
        guard: `clip` or `none`.
    """

    error: float = 1e-5
    margin: float = 0.25
    guard: Guard = "clip"

    def __post_init__(self) -> None:
        if not 0.0 < self.error < math.inf:
            raise ApproximationError(f"error must be a positive number, not {self.error:g}")
        if not 0.0 <= self.margin < math.inf:
            raise ApproximationError(
                f"margin must be zero or a positive number, not {self.margin:g}"
            )


@dataclass(frozen=True)
class Choice:
    """The expression for one site and the bounds its input is clipped to (None: not clipped).

    Attributes:
        approximant: the expression.
        guard: as it is in force.
        low: lower bound of a clip.
        high: upper bound of a clip.
        mask_low: lower bound of a clip for masks that could not be made finite.
    """

    approximant: Approximant
    guard: Guard
    low: float | None
    high: float | None
    mask_low: float | None = None


@dataclass
class Selection:
    """Choices by site id, what was left native and why, and what a person must know."""

    choices: dict[str, Choice]
    skipped: dict[str, Skipped]
    warnings: list[str]
    mask_value: float | None


def check_options(rewrite: Pass) -> None:
    """Refuse a scheme that does not exist, or a parameter that it does not have, before any work.

    Likewise a formula that cannot be read.

    Raises:
        ApproximationError: one line that says which, and what there is.
    """
    check_formula_option(rewrite)
    parameters = rewrite.scheme_parameters()
    if rewrite.scheme is not None:
        check_parameters(find_scheme(rewrite.scheme), parameters)
    elif parameters:
        name = next(iter(parameters))
        raise ApproximationError(
            f"option '{name}' of pass '{rewrite.name}' needs a scheme; "
            f"name one of {', '.join(SCHEMES)}"
        )


def select(
    sites: Mapping[str, Site], observations: Mapping[str, Observation], defaults: Defaults
) -> Selection:
    """Choose the cheapest expression that meets the error budget for every site.

    A budget that the user did not type may be relaxed, tenfold each time and with a warning, where
    float32 cannot reach it; a typed one is kept, and the site is left as it was.

    Raises:
        ApproximationError: a pass would use its formula for two functions.
    """
    check_formula_sites(sites)
    selection = Selection({}, {}, [], mask_value_for(sites, observations))
    if _has_undefined_rows(sites, observations):
        selection.warnings.append(
            "a softmax has rows that are -inf altogether, so its masks stay infinite"
        )
    for site_id, site in sites.items():
        observation = observations[site_id]
        try:
            selection.choices[site_id] = _choose(site, observation, defaults, selection)
        except ApproximationError as error:
            selection.skipped[site_id] = Skipped(site.node, site.function, str(error))
    return selection


def _choose(
    site: Site, observation: Observation, defaults: Defaults, selection: Selection
) -> Choice:
    options = site.request.rewrite
    function = get_function(site.function)
    guard = options.guard or defaults.guard
    # Masks that stay infinite are clipped, far enough below the scores to weigh nothing.
    mask_value = SOFTMAX_CUTOFF if selection.mask_value is None else selection.mask_value
    wide = domain_of(site, observation, defaults, mask_value)
    budget = options.error if options.error is not None else defaults.error
    relaxations = (1.0,) if options.error is not None else _RELAXATIONS
    if options.error is None and (options.scheme_parameters() or options.formula is not None):
        # An expression that is spelled out is wanted whatever its error.
        budget, relaxations = math.inf, (1.0,)
    if site.summed > _SHORT_ROW:
        relaxations = (_SHORT_ROW / site.summed, *relaxations)
    failure: ApproximationError | None = None
    parameters: dict[str, Any] = dict(options.scheme_parameters())
    for relaxation in relaxations:
        for domain in dict.fromkeys((wide, _narrow(wide, site, observation))):
            relative = _is_relative(site, function, domain)
            # Of weights that are all far below 1 only their size relative to the largest counts.
            small = function.name == "exp" and not relative and options.relative is None
            scale = math.exp(min(domain.hi, 0.0)) if small else 1.0
            try:
                approximant = approximate(
                    function,
                    domain,
                    error=budget * relaxation * scale,
                    relative=relative,
                    histogram=_histogram(site, observation, function, domain),
                    scheme=options.scheme,
                    formula=options.formula,
                    **parameters,
                )
            except ApproximationError as error:
                failure = failure or error
                continue
            if relaxation > 1.0:
                text = (
                    f"{site.id}: error {budget:g} is out of reach, {budget * relaxation:g} is met"
                )
                selection.warnings.append(text)
            return _guarded(approximant, site, guard, observation.masked)
    assert failure is not None
    raise failure


def domain_of(
    site: Site, observation: Observation, defaults: Defaults, mask_value: float | None = None
) -> Interval:
    """The interval that a site needs: what it saw, widened, within what mathematics allows.

    Raises:
        ApproximationError: calibration never reached the site and nothing else bounds it.
    """
    options = site.request.rewrite
    if options.domain is not None:
        return options.domain
    function = get_function(site.function)
    guard = options.guard or defaults.guard
    margin = options.margin if options.margin is not None else defaults.margin
    if site.maskable and guard == "clip":
        return Interval(SOFTMAX_CUTOFF, 0.0)
    if observation.is_empty:
        if site.cover is not None:
            return site.cover
        if site.hint.is_finite:
            return site.hint
        raise ApproximationError(
            f"{site.function} at '{site.node}' "
            f"{observation.unseen or 'was never reached by the calibration data'}; "
            f"give a domain with {site.request.typed}{{domain=lo:hi}}"
        )
    budget = options.error if options.error is not None else defaults.error
    vanishing = -math.inf
    if function.name == "exp" and guard == "clip":
        # Where even the largest input is a mask, as in the first step of RWKV, all are zeros.
        largest = min(max(observation.high, SOFTMAX_CUTOFF), 0.0)
        vanishing = largest + math.log(min(budget, 1.0) / 8)
    low, high = _widened(observation, margin, function, vanishing)
    if function.centre is not None or function.parity is not None:
        low, high = -max(-low, high), max(-low, high)
    if guard == "clip":
        low, high = _within_saturation(low, high, function, budget)
    if site.maskable and observation.masked and mask_value is not None:
        low += mask_value
    low, high = _outward(low, -1), _outward(high, 1)
    bound = _intersection(site.hint, function.domain)
    low, high = max(low, bound.lo), min(high, bound.hi)
    if function.positive_scale and low <= 0.0:
        low = high * 2.0**-40
    if site.cover is not None:
        low, high = min(low, site.cover.lo), max(high, site.cover.hi)
    if low >= high:
        low, high = min(low, high - 1e-3), max(high, low + 1e-3)
    return Interval(low, high)


def _widened(
    observation: Observation, margin: float, function: Function, vanishing: float
) -> tuple[float, float]:
    """The range that was seen, with its margin, down to where the function is as good as zero.

    -inf stands for a mask, or for the part of a matrix of decays that is not used: clipped at the
    smallest finite input, its exp would come out as anything but zero.
    """
    low, high = max(observation.low, vanishing), max(observation.high, vanishing)
    if observation.minus_infinity and vanishing > -math.inf:
        low = vanishing
    if function.positive_scale and low > 0.0:
        # At least an octave: a range seen on few samples says little about its ends.
        factor = 2.0 ** max(1.0, margin * math.log2(high / low))
        return low / factor, high * factor
    extent = high - low if high > low else max(abs(high), 1.0)
    return max(low - margin * extent, vanishing), high + margin * extent


def _within_saturation(
    low: float, high: float, function: Function, budget: float
) -> tuple[float, float]:
    """Cut off where the function is flat to within the budget: a clip there changes nothing."""
    limits = function.numpy([-1e4, 1e4])
    for sign, index in ((-1.0, 0), (1.0, 1)):
        limit = float(limits[index])
        if not math.isfinite(limit) or abs(limit) > 2.0 or function.name in ("sin", "cos", "exp"):
            continue
        reach = 1.0
        while reach < 64.0 and abs(float(function.numpy(sign * reach)) - limit) > budget / 8:
            reach *= 1.125
        if reach < 64.0:
            low, high = (max(low, -reach), high) if sign < 0 else (low, min(high, reach))
    return low, high


def _narrow(wide: Interval, site: Site, observation: Observation) -> Interval:
    """The range that was seen, without margin: a pole may lie just outside it (tan, atanh)."""
    if site.request.rewrite.domain is not None or site.maskable or observation.is_empty:
        return wide
    low, high = max(observation.low, wide.lo), min(observation.high, wide.hi)
    if site.cover is not None:
        low, high = min(low, site.cover.lo), max(high, site.cover.hi)
    return Interval(low, high) if low < high else wide


def _outward(x: float, direction: int) -> float:
    """The next number with four significant bits: sites that differ little share an approximant."""
    if x == 0.0 or not math.isfinite(x):
        return x
    mantissa, exponent = math.frexp(x)
    steps = mantissa * 16
    return math.ldexp((math.ceil if direction > 0 else math.floor)(steps) / 16, exponent)


def _intersection(a: Interval, b: Interval) -> Interval:
    return Interval(max(a.lo, b.lo), min(a.hi, b.hi))


def _is_relative(site: Site, function: Function, domain: Interval) -> bool:
    options = site.request.rewrite
    if options.relative is not None:
        return options.relative
    if function.name == "exp":
        # Up to 1 the exponential is a weight beside others; above, only its digits count.
        return domain.hi > 1.0
    return function.relative


def _histogram(
    site: Site, observation: Observation, function: Function, domain: Interval
) -> Histogram | None:
    """How the inputs of a site spread over its domain, if its pass is to be weighted by that."""
    inside = observation.samples[
        (observation.samples >= domain.lo) & (observation.samples <= domain.hi)
    ]
    if not site.request.rewrite.weighted or inside.size == 0:
        return None
    decades = function.positive_scale and domain.lo > 0
    spread = np.geomspace if decades else np.linspace
    edges = spread(domain.lo, domain.hi, _BINS + 1)
    counts, _ = np.histogram(inside, bins=edges)
    return Histogram(tuple(edges.tolist()), tuple(counts.astype(float).tolist()))


def _guarded(approximant: Approximant, site: Site, guard: Guard, masked: bool) -> Choice:
    domain, safe = approximant.domain, approximant.safe_interval
    if guard == "none":
        return Choice(approximant, guard, None, None, domain.lo if masked else None)
    low = None if site.hint.lo >= domain.lo or safe.lo <= -_UNBOUNDED else domain.lo
    high = None if site.hint.hi <= domain.hi or safe.hi >= _UNBOUNDED else domain.hi
    if site.maskable:
        # A mask may be -inf, which no expression survives.
        low = domain.lo
    clipped: Guard = "none" if low is None and high is None else "clip"
    return Choice(approximant, clipped, low, high)


def mask_value_for(
    sites: Mapping[str, Site], observations: Mapping[str, Observation]
) -> float | None:
    """A power of two far enough below all scores to stand in for every mask.

    Returns:
        The number; None without masks, and where a row is masked altogether with -inf: what the
        model makes of its NaN (torch writes Where(IsNaN(softmax), 0, softmax)) must stay.
    """
    if _has_undefined_rows(sites, observations):
        return None
    spans = [
        -observations[site_id].low
        for site_id, site in sites.items()
        if site.maskable and observations[site_id].masked and not observations[site_id].is_empty
    ]
    if not spans:
        return None
    return -(2.0 ** math.ceil(math.log2(2.0 * max(spans) - 2.0 * SOFTMAX_CUTOFF)))


def _has_undefined_rows(sites: Mapping[str, Site], observations: Mapping[str, Observation]) -> bool:
    return any(observations[site_id].undefined for site_id, site in sites.items() if site.maskable)


class Approximating:
    """The implementation of sites that emits the chosen expressions."""

    def __init__(self, selection: Selection, enabled: Collection[str] | None = None) -> None:
        """Emit the choices of `selection`; other passes than the `enabled` ones stay native."""
        self._choices = selection.choices
        self._enabled = enabled
        self.mask_value = selection.mask_value

    def function(self, site: Site, x: Value, builder: Builder) -> Value:
        """Emit the chosen expression, behind a clip where the guard asks for it."""
        choice = self._choices.get(site.id)
        disabled = self._enabled is not None and site.request.typed not in self._enabled
        if choice is None or disabled:
            return emit_native(builder, site.function, x)
        low = choice.mask_low if choice.low is None and not site.masks_finite else choice.low
        if low is not None or choice.high is not None:
            x = builder.op("clip", x, low=low, high=choice.high)
        return builder.expression(choice.approximant.expression, x)
