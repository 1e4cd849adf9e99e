"""How far an output can be from the original's, to first order in the errors of the sites.

Let `F(d)` be the outputs of the rewritten model when `d[i]` is added to the result `a(x[i])` of
site element `i`, whose exact function is `g`.  The original is `F(d)` for the `d[i] = g(x) - a(x)`
at the inputs `x` that the sites have in the original, so

    original - rewritten = F(d) - F(0) = sum_i (dF/dd[i])(0) * d[i] + O(d^2)

and an output is at most

    bound = sum_i |dF/dd[i]| * e[i]

away, where `|d[i]| <= e[i]` is the error that was declared for the expression of the site: the
absolute one, or `r * |g(x)|` for the relative one `r`, whichever is smaller.  The gradients are
those of the rewritten model, by one backward pass for each output element of interest; all the
influence that a site has through the sites behind it is in them.

Outside its domain nothing is declared for an expression.  There `e[i]` is the error itself,
`|g(x) - a(x)|` at the input that was seen: of a softmax, about 1e-14 for every masked key.

What is left out is of second order: products of two site errors, hence about 1e-10 for errors of
1e-5; and what happens where a ReLU, a maximum or the choice of an expert lies on one side of its
kink before and on the other side after.  `correction`, the first-order estimate of the error with
its sign, tells how good first order is: `rewritten + correction` is the original up to that rest.
Rounding is left out, too: in float64 it is nothing, in float32 it comes on top.

Source: the same linearisation with worst-case signs as in Higham, Accuracy and Stability of
Numerical Algorithms, 2nd ed., section 3.4 (forward error from backward errors); the gradients are
adjoints, as in Griewank and Walther, Evaluating Derivatives, 2nd ed., section 3.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from odp.approximations.functions.registry import get_function

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from odp.backends.torch.site_probes import SiteReading
    from odp.rewriter.report import Report

__all__ = ["OutputBound", "first_order_bounds"]


@dataclass(frozen=True)
class OutputBound:
    """One element of the output of a rewritten model.

    Attributes:
        value: of the rewritten model.
        bound: largest distance from the original, to first order.
        correction: what must be added to `value` to get the original's, to first order.
        by_site: the share of each site in `bound`, by id.
    """

    value: float
    bound: float
    correction: float
    by_site: dict[str, float]


def first_order_bounds(
    model: torch.nn.Module,
    report: Report,
    run: Callable[[], torch.Tensor],
    elements: Sequence[int],
) -> list[OutputBound]:
    """Bounds on the error of some elements of the output of a rewritten model.

    Args:
        model: what `odp.rewrite` made of a torch module, in eager mode.
        report: the report that came with it.
        run: runs `model` on inputs of interest and returns the output of interest, floating point,
            any shape.
        elements: indices of elements in the flattened output.

    Returns:
        One bound for each of `elements`.

    Raises:
        OdpError: the module has no sites, or runs one of them without gradients.
    """
    import torch

    from odp.backends.torch.site_probes import probed

    with torch.no_grad():
        run()
    with torch.enable_grad(), probed(model) as readings:
        output = run().reshape(-1)
        disturbances = [reading.disturbance for reading in readings]
        gradients = [
            torch.autograd.grad(output[index], disturbances, retain_graph=True, allow_unused=True)
            for index in elements
        ]
    errors = [_SiteErrors.of(reading, report) for reading in readings]
    return [
        _bound(float(output[index].detach()), readings, errors, gradient)
        for index, gradient in zip(elements, gradients, strict=True)
    ]


@dataclass(frozen=True)
class _SiteErrors:
    """Errors of one evaluation of one site, both of the shape of its result.

    Attributes:
        declared: largest possible |g(x) - a(x)|.
        actual: g(x) - a(x).
    """

    declared: NDArray[np.float64]
    actual: NDArray[np.float64]

    @classmethod
    def of(cls, reading: SiteReading, report: Report) -> _SiteErrors:
        y = _array(reading.y)
        site = next((record for record in report.sites if record.id == reading.site), None)
        if site is None:
            # It was left as it was.
            return cls(np.zeros_like(y), np.zeros_like(y))
        chosen = next(a for a in report.approximants if a.key == site.approximant)
        x = _array(reading.x)
        with np.errstate(all="ignore"):
            actual = get_function(site.function).numpy(x) - y
        declared = np.full_like(y, chosen.absolute_error)
        if chosen.relative_error is not None and chosen.relative_error < 1.0:
            # |a - g| <= r*|g| makes |g| <= |a|/(1 - r).
            share = chosen.relative_error / (1.0 - chosen.relative_error)
            declared = np.minimum(declared, share * np.abs(y))
        inside = (x >= site.domain[0]) & (x <= site.domain[1])
        return cls(np.where(inside, declared, np.abs(actual)), actual)


def _bound(
    value: float,
    readings: Sequence[SiteReading],
    errors: Sequence[_SiteErrors],
    gradients: Sequence[torch.Tensor | None],
) -> OutputBound:
    by_site: dict[str, float] = {}
    correction = 0.0
    for reading, error, gradient in zip(readings, errors, gradients, strict=True):
        if gradient is None:
            continue
        slope = _array(gradient)
        # A site whose function is not finite, such as one of a row of masks alone, has no say
        # where its gradient is zero.
        felt = slope != 0.0
        share = float(np.sum(np.abs(slope[felt]) * error.declared[felt]))
        by_site[reading.site] = by_site.get(reading.site, 0.0) + share
        correction += float(np.sum(slope[felt] * error.actual[felt]))
    return OutputBound(value, sum(by_site.values()), correction, by_site)


def _array(tensor: torch.Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.detach().double().cpu().numpy()
    return array
