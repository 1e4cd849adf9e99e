"""How far a rewritten model may be from its original, from what its report declares.

The sites of a case are perturbed by their declared errors, once with every combination of signs,
in a graph that is exact otherwise.  Where the output depends monotonically on every site (norms,
gates, powers) the largest deviation over the combinations is the bound.  A softmax depends on many
elements of one site in both directions, so its bound is written down in closed form.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from odp.approximations import get_function
from odp.passes import registry
from odp.rewriter.graph import Builder, Value
from odp.rewriter.manager import rewrite_graph, schedule
from odp.rewriter.native import emit_native
from odp.rewriter.pass_options import parse_passes
from odp.rewriter.report import ApproximantRecord, Report, SiteRecord
from odp.rewriter.site import Site

from .cases import prepared, run

__all__ = ["ROUNDING", "output_bound", "site_error", "softmax_bound"]

ROUNDING = 2.0**-23
"""Spacing of float32 numbers at 1."""


@dataclass(frozen=True)
class SiteError:
    """Largest error of one site, clipping included: one of the two parts is zero."""

    absolute: float
    relative: float


def site_error(site: SiteRecord, approximant: ApproximantRecord) -> SiteError:
    """What the report declares for one site, in float32, on what the site has seen."""
    function = get_function(approximant.function)
    low, high = site.domain
    clipped = 0.0
    if site.guard == "clip" and site.observed is not None:
        # Guarded sites may be narrower than what they saw, where the function is flat.
        inside = np.clip(site.observed, low, high)
        clipped = float(np.abs(function.numpy(site.observed) - function.numpy(inside)).max())
    if function.relative and approximant.relative_error is not None:
        operations = approximant.multiplications + approximant.divisions + approximant.additions + 1
        return SiteError(0.0, approximant.relative_error + operations * ROUNDING)
    declared = max(approximant.absolute_error, approximant.float32_error)
    return SiteError(declared + clipped, 0.0)


class _Perturbed:
    """Native functions, off by the declared error of their site in a given direction."""

    mask_value: float | None = None

    def __init__(self, errors: Mapping[str, SiteError], signs: Mapping[str, float]) -> None:
        self._errors, self._signs = errors, signs

    def function(self, site: Site, x: Value, builder: Builder) -> Value:
        exact = emit_native(builder, site.function, x)
        error = self._errors.get(site.id)
        if error is None:
            return exact
        sign = self._signs[site.id]
        return builder.add(builder.mul(exact, 1.0 + sign * error.relative), sign * error.absolute)


def output_bound(
    model: onnx.ModelProto, passes: str, report: Report, feed: Mapping[str, NDArray[Any]]
) -> NDArray[np.float64]:
    """Largest error of every element of the first output, for one input of the original model."""
    known = {record.key: record for record in report.approximants}
    errors = {site.id: site_error(site, known[site.approximant]) for site in report.sites}
    assert len(errors) <= 4, "too many combinations of signs"
    (exact, *_) = run(model, feed)
    bound = np.zeros(exact.shape)
    for signs in itertools.product((-1.0, 1.0), repeat=len(errors)):
        graph = prepared(model)
        typed = parse_passes(passes, registry())
        implementation = _Perturbed(errors, dict(zip(errors, signs, strict=True)))
        rewrite_graph(graph, schedule(typed, registry()), implementation)
        (perturbed, *_) = run(ir.to_proto(graph.model), feed)
        bound = np.maximum(bound, np.abs(perturbed.astype(np.float64) - exact))
    return bound


def softmax_bound(report: Report, count: int) -> float:
    """Largest error of softmax, log-softmax or log-sum-exp over `count` elements.

    With an error of at most `a` in each exponential the weights change by at most `a` and their
    sum, which is at least 1, by at most `count * a`.
    """
    known = {record.key: record for record in report.approximants}
    errors = {
        site.function: site_error(site, known[site.approximant]).absolute for site in report.sites
    }
    # Clipped at -32, where the exponential is at most exp(-32).
    a = errors["exp"] + math.exp(-32.0)
    if "log" in errors:
        return errors["log"] + count * a / (1.0 - count * a)
    return (1 + count) * a / (1.0 - count * a)
