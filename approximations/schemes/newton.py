"""Steps towards x^(-1/q) from a seed centred on the domain: reciprocal, rsqrt, sqrt and roots.

``y <- y P(w)``, ``w = x y^q``, evaluated as ``(x y) y``: Newton's step for P of degree 1, and steps
of order 3 and 5.  With the best constants in every step (`root_steps`) a seed ``s + c/(x + g)`` and
three steps of order 2 have 1.3e-10 on a domain of ratio 100 and 2.1e-5 on one of ratio 1e4, where
``2/(1 + x)`` and Newton's own constants have 8e-3 and 0.4.  Without a division the seed is a
polynomial.

Source of the composition: arXiv 2505.16932; of the steps: A. S. Householder, The Numerical
Treatment of a Single Nonlinear Equation (1970), section 4.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cache
from typing import ClassVar

from odp.approximations.approximant import Parameters
from odp.approximations.arithmetic import FixedPointArithmetic
from odp.approximations.expression import Expression, variable
from odp.approximations.function import Function
from odp.approximations.interval import Interval
from odp.approximations.polynomials import CoefficientRangeError
from odp.approximations.schemes.root_plan import (
    RootPlan,
    Sequence,
    absolute_error,
    root_plan,
    sequences,
    working_interval,
)
from odp.approximations.schemes.root_seeds import SEEDS, SeedKind, best_seed
from odp.approximations.schemes.root_steps import (
    apply_polynomial,
    best_steps,
    normalised,
    plain_steps,
    polynomial_products,
)
from odp.approximations.schemes.scheme import Candidate, Request, Scheme

__all__ = ["NewtonScheme", "newton_step", "rounding_margin"]

# Multiplications from y to w = x y^q.
_PRODUCTS = {1: 1, 2: 2, 3: 3, 4: 3}
# Roundings that may carry z above the interval of a step, with room to spare.
_ROUNDINGS = 64


@cache
def newton_step(root: int) -> tuple[Fraction, Fraction]:
    """(a, b) of Newton's step y (a - b x y^root) for x^(-1/root), derived by sympy.

    >>> newton_step(2)
    (Fraction(3, 2), Fraction(1, 2))
    """
    import sympy

    x, y = sympy.symbols("x y", positive=True)
    equation = y**-root - x
    step = sympy.expand(sympy.simplify((y - equation / sympy.diff(equation, y)) / y))
    a, b = step.coeff(x, 0), -step.coeff(x, 1) / y**root
    return Fraction(int(a.p), int(a.q)), Fraction(int(b.p), int(b.q))


def rounding_margin(request: Request) -> float:
    """How far above its interval rounding may carry z on the target, as a share."""
    arithmetic = request.target.arithmetic
    guard = arithmetic.guard_bits or 0 if isinstance(arithmetic, FixedPointArithmetic) else 0
    return _ROUNDINGS * arithmetic.unit_roundoff * 2.0**-guard


class NewtonScheme(Scheme):
    """Seeds and steps of order 2, 3 and 5, with the best constants for the domain in each."""

    name = "newton"
    summary = "Newton steps, and steps of order 3 and 5, from a seed centred on the domain"
    parameters: ClassVar[Mapping[str, str]] = {
        "steps": "number of iterations",
        "seed": "shifted s+c/(x+g), rational c/(x+g), constant, linear, quadratic or quartic",
        "order": "2 (Newton), 3 or 5 for every step; left out, steps of several orders may follow",
        "scaled": "whether the constants of each step are optimised for the domain",
    }

    def applies(self, function: Function, domain: Interval) -> bool:
        """Powers n - m/q with q at most 4 and small n and m, on positive numbers."""
        return root_plan(function) is not None and domain.lo >= 0

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Seeds and sequences of steps, by cost."""
        plan = root_plan(request.function)
        interval = None if plan is None else working_interval(request, plan)
        if plan is None or interval is None:
            return
        ratio, centre = interval.hi / interval.lo, (interval.hi * interval.lo) ** 0.5
        scaled = request.parameters.get("scaled", True) is not False
        margin = rounding_margin(request)
        for option in _options(request, plan, ratio, scaled=scaled):
            order = option.orders[0] if len(set(option.orders)) == 1 else "mixed"
            parameters = Parameters(
                steps=len(option.orders), seed=option.seed, order=order, scaled=scaled
            )
            if not request.wants(option.cost, **parameters):
                continue
            seed = best_seed(plan.root, option.seed, ratio)
            if scaled:
                upper, polynomials, error = best_steps(plan.root, option.orders, seed.rho, margin)
            else:
                upper, polynomials, error = plain_steps(plan.root, option.orders, seed.rho)
            if not request.accepts(absolute_error(request, plan, error)):
                continue
            scale, polynomials = normalised(plan.root, polynomials)
            try:
                y = seed.expression(centre, scale * upper / seed.peak * centre ** (-1 / plan.root))
                expression = _steps(plan, y, polynomials)
            except CoefficientRangeError:
                continue
            yield Candidate(expression, parameters, _description(request, option, scaled=scaled))


def _options(request: Request, plan: RootPlan, ratio: float, *, scaled: bool) -> Iterator[Sequence]:
    def cost(seed: SeedKind, orders: tuple[int, ...]) -> float:
        products, constants, divisions = SEEDS[seed]
        additions = {"shifted": 2, "quartic": 5}.get(seed, max(products, divisions))
        steps = [polynomial_products(order) for order in orders]
        total = products + sum(_PRODUCTS[plan.root] + k + 1 for k in steps)
        total += plan.products if orders else plan.x_power + plan.y_power - 1
        additions += sum({0: 1, 1: 2, 2: 5}[k] for k in steps)
        depth = products + divisions + sum(_PRODUCTS[plan.root] + k + 1 for k in steps)
        return request.cost(total, constants, divisions, additions, depth)

    if scaled:
        yield from sequences(request, plan, ratio, cost)
        return
    # Newton's own constants, for comparison: every seed, one order.
    most = request.parameters.get("steps", 40)
    counts = range(int(most) + 1) if isinstance(most, int) else ()
    kinds = [kind for kind in SEEDS if plan.root > 1 or not SEEDS[kind][2]]
    listed = [(cost(kind, (2,) * n), kind, n) for kind in kinds for n in counts]
    for price, kind, n in sorted(listed):
        if price < request.cost_limit:
            yield Sequence(price, kind, (2,) * n, 0.0)


def _steps(plan: RootPlan, y: Expression, polynomials: list[tuple[float, ...]]) -> Expression:
    """The steps, and the power of x and y that is wanted."""
    x = variable("x")
    product: Expression | None = None
    for polynomial in polynomials:
        if plan.root == 4:
            square = y * y
            factor = apply_polynomial(polynomial, x * square * square)
        else:
            product = x * y
            w = product
            for _ in range(plan.root - 1):
                w = w * y
            factor = apply_polynomial(polynomial, w)
        # For sqrt and the like x y is wanted: the last step multiplies it instead of y.
        product = None if product is None else product * factor
        y = y * factor
    result: Expression | None = product if plan.x_power else None
    x_power, y_power = plan.x_power, plan.y_power
    if result is not None and plan.root in (2, 3):
        x_power, y_power = x_power - 1, y_power - 1
    else:
        result = None
    for part, power in ((x, x_power), (y, y_power)):
        for _ in range(power):
            result = part if result is None else part * result
    assert result is not None
    return result


def _description(request: Request, option: Sequence, *, scaled: bool) -> str:
    orders = "+".join(map(str, option.orders))
    kind = f"best steps of order {orders}" if scaled else f"{len(option.orders)} Newton steps"
    after = f"{kind} after" if option.orders else "only"
    return f"{request.function.name}: {after} a {option.seed} seed"
