"""Expressions for circuits: no division, and of the lowest degree, because degrees cost bits.

In a scheduled circuit a product costs about a row, and what is dear is to rescale.  A polynomial of
degree d needs d times the bits of its input, so degree decides, and the chains of squarings that
are cheap elsewhere (degree 2^k) are the dearest.  Where a function is taken of one value a row
only, as in norms, any form will do.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from odp.approximations import approximate
from odp.approximations.approximant import Approximant
from odp.approximations.errors import ApproximationError
from odp.approximations.functions.registry import get_function
from odp.approximations.interval import Interval
from odp.backends.ezkl.homogeneous import HOMOGENEOUS, approximate_homogeneous
from odp.rewriter.calibration import Observation
from odp.rewriter.report import Skipped
from odp.rewriter.selection import Choice, Defaults, Selection, domain_of, mask_value_for
from odp.rewriter.site import Site

__all__ = ["FEW", "lowest_degree", "select_for_circuit"]

_HIGHEST_DEGREE = 24
# Below so many values the rows of an expression do not matter beside those of the matrices.
FEW = 256
# exp of a softmax: its weights are compared with the largest one, which is 1.
_WEIGHTS = "exp"


def select_for_circuit(
    sites: Mapping[str, Site],
    observations: Mapping[str, Observation],
    defaults: Defaults,
    native: Collection[str] = (),
) -> Selection:
    """Choose expressions for all sites; nothing is clipped, because ranges are checked outside.

    Args:
        sites: by id.
        observations: what each site saw, by id.
        defaults: error and margin.
        native: functions that stay as they are.

    Returns:
        Choices, and what has no expression without a division within the degrees allowed.
    """
    selection = Selection({}, {}, [], mask_value_for(sites, observations))
    for site_id, site in sites.items():
        if site.function in native:
            continue
        seen = observations[site_id]
        options = site.request.rewrite
        budget = options.error if options.error is not None else defaults.error
        try:
            domain = domain_of(site, seen, defaults)
            approximant = _chosen(site.function, domain, budget, seen.elements)
        except ApproximationError as error:
            selection.skipped[site_id] = Skipped(site.node, site.function, str(error))
            continue
        selection.choices[site_id] = Choice(approximant, "none", None, None)
    return selection


def _chosen(name: str, domain: Interval, error: float, elements: int) -> Approximant:
    function = get_function(name)
    relative = function.relative or (name == _WEIGHTS and domain.hi > 1.0)
    if elements > FEW:
        return lowest_degree(name, domain, error, relative)
    if relative and name in HOMOGENEOUS:
        return approximate_homogeneous(name, domain, error)
    return approximate(name, domain, error=error, relative=relative, target="fhe")


def lowest_degree(name: str, domain: Interval, error: float, relative: bool) -> Approximant:
    """The minimax polynomial of the lowest degree within an error.

    Args:
        name: a function.
        domain: where the error must hold.
        error: absolute, or relative if `relative`.
        relative: see there.

    Raises:
        ApproximationError: no degree up to 24 reaches the error.
    """
    for degree in range(1, _HIGHEST_DEGREE + 1):
        try:
            return approximate(
                name,
                domain,
                error=error,
                relative=relative,
                scheme="minimax",
                degree=degree,
                target="float64",
            )
        except ApproximationError:
            continue
    width = "" if math.isinf(domain.width) else f" on [{domain.lo:g}, {domain.hi:g}]"
    raise ApproximationError(
        f"{name}{width}: no polynomial of degree {_HIGHEST_DEGREE} or less has an error of "
        f"{error:g}; allow a larger error, or calibrate on inputs of a smaller range"
    )
