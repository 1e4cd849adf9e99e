"""Spending a budget of operations over sites: cheap where it does not matter, sharp where it does.

With s_i the sensitivity of site i (`sensitivity`), and for each site a front of expressions j of
cost c_ij and error e_ij, choose one for each site so that

    sum s_i e_ij^2   is smallest   and   sum n_i c_ij <= budget,

n_i being how often the site is evaluated for each token: a multiple-choice knapsack, solved exactly
as an integer linear program (scipy's HiGHS).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_array

from odp.approximations.errors import OdpError
from odp.rewriter.selection import Choice

__all__ = ["Allocation", "Candidate", "allocate"]


@dataclass(frozen=True)
class Candidate:
    """One expression that a site could get.

    Attributes:
        choice: the expression, and the bounds its input is clipped to.
        error: its declared error in the measure of the site.
        operations: multiplications and divisions of one evaluation, in units of a multiplication.
    """

    choice: Choice
    error: float
    operations: float


@dataclass(frozen=True)
class Allocation:
    """One expression for every site.

    Attributes:
        chosen: by site id.
        operations: of all sites together, for each token.
        predicted_kl: divergence that the sensitivities predict, in nats.
    """

    chosen: Mapping[str, Candidate]
    operations: float
    predicted_kl: float


def allocate(
    fronts: Mapping[str, Sequence[Candidate]],
    coefficients: Mapping[str, float],
    per_token: Mapping[str, float],
    budget: float,
) -> Allocation:
    """Choose an expression for every site.

    Args:
        fronts: what each site could get, by site id; at least one candidate each.
        coefficients: divergence per squared error, by site id.
        per_token: evaluations for each token, by site id.
        budget: operations for each token, of all sites together.

    Returns:
        The allocation with the smallest predicted divergence within the budget.

    Raises:
        OdpError: even the cheapest candidates cost more than the budget.
    """
    places = [(s, j) for s, front in fronts.items() for j in range(len(front))]
    costs = np.array([per_token[s] * fronts[s][j].operations for s, j in places])
    divergences = np.array([coefficients[s] * fronts[s][j].error ** 2 for s, j in places])
    least = sum(min(c.operations for c in front) * per_token[s] for s, front in fronts.items())
    if least > budget:
        raise OdpError(
            f"a budget of {budget:,.0f} operations a token is too small: the cheapest expressions "
            f"of all {len(fronts)} sites take {least:,.0f}"
        )
    rows = {s: i for i, s in enumerate(fronts)}
    one_each = lil_array((len(fronts), len(places)))
    for column, (s, _) in enumerate(places):
        one_each[rows[s], column] = 1.0
    # HiGHS works with absolute tolerances of 1e-7: both sums are scaled to about one.
    scale = float(divergences.max()) or 1.0
    floor = min((d for d in divergences if d > 0), default=1.0)
    solution = milp(
        divergences / min(scale, floor * 1e6),
        constraints=[
            LinearConstraint(one_each.tocsr(), 1.0, 1.0),
            LinearConstraint(costs[None] / budget, -np.inf, 1.0),
        ],
        integrality=np.ones(len(places)),
        bounds=Bounds(0.0, 1.0),
        # Nodes, not seconds: the same allocation on every machine.
        options={"mip_rel_gap": 1e-3, "node_limit": 2000},
    )
    if solution.x is None:
        raise OdpError(f"no allocation was found within {budget:,.0f} operations a token")
    taken = [place for place, x in zip(places, solution.x, strict=True) if x > 0.5]
    chosen = {s: fronts[s][j] for s, j in taken}
    return Allocation(
        chosen,
        sum(per_token[s] * c.operations for s, c in chosen.items()),
        sum(coefficients[s] * c.error**2 for s, c in chosen.items()),
    )
