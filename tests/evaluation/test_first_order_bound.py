"""First-order bounds: equal to what pen and paper give, kept, and wrong only to second order."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import odp
from odp.approximations.errors import OdpError
from odp.evaluation.first_order_bound import OutputBound, first_order_bounds

INPUTS = torch.linspace(-2.0, 2.0, 24, dtype=torch.float64).reshape(4, 6)
STRUCTURES = ("graph", "modules")


class Sum(torch.nn.Module):
    """A weighted sum of exponentials, in which nothing is of second order."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Linear(6, 3, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.exp(x))


class Chain(Sum):
    """The same with a function behind it and a norm before it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-2)
        return torch.sigmoid(self.head(torch.exp(x)))


class WithoutGradients(Sum):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            weights = torch.exp(x)
        return self.head(weights)


def rewritten(module: torch.nn.Module, structure: str = "graph", **options: Any) -> Any:
    return odp.rewrite(module, calibration=(INPUTS,), structure=structure, measure=False, **options)


def bounds(result: Any, inputs: torch.Tensor = INPUTS) -> list[OutputBound]:
    elements = range(result.model(inputs).numel())
    return first_order_bounds(result.model, result.report, lambda: result.model(inputs), elements)


def errors(module: torch.nn.Module, result: Any, inputs: torch.Tensor = INPUTS) -> torch.Tensor:
    with torch.no_grad():
        return (module(inputs) - result.model(inputs)).reshape(-1)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_bound_of_a_sum_is_the_sum_of_the_errors(structure: str) -> None:
    module = Sum()
    result = rewritten(module, structure)
    (chosen,) = result.report.approximants
    assert chosen.relative_error is not None
    share = chosen.relative_error / (1 - chosen.relative_error)
    with torch.no_grad():
        y = result.model(INPUTS).reshape(-1)
        exponentials = torch.exp(INPUTS)
        each = torch.minimum(
            torch.full_like(exponentials, chosen.absolute_error), share * exponentials
        )
        expected = (each @ module.head.weight.abs().T).reshape(-1)
    found = bounds(result)
    for index, one in enumerate(found):
        assert one.value == pytest.approx(float(y[index]), rel=1e-12)
        # e^x and its expression differ by 1e-5, and so do the bounds that are made of them.
        assert one.bound == pytest.approx(float(expected[index]), rel=1e-4)
        assert one.by_site.keys() == {site.id for site in result.report.sites}
    difference = errors(module, result)
    for one, error in zip(found, difference.tolist(), strict=True):
        assert one.correction == pytest.approx(error, abs=1e-14)
        assert abs(error) <= one.bound


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_chain_keeps_its_bound_and_the_rest_is_of_second_order(structure: str) -> None:
    module = Chain()
    rests = {}
    for budget in (1e-2, 1e-4):
        result = rewritten(module, structure, error=budget)
        assert len(result.report.sites) == 3
        found = bounds(result)
        difference = errors(module, result).tolist()
        assert all(abs(e) <= b.bound for e, b in zip(difference, found, strict=True))
        rest = max(abs(e - b.correction) for e, b in zip(difference, found, strict=True))
        rests[budget] = rest / max(abs(e) for e in difference)
    assert rests[1e-4] < rests[1e-2] / 10
    assert rests[1e-4] < 1e-3


def test_the_shares_of_the_sites_add_up() -> None:
    for one in bounds(rewritten(Chain())):
        assert len(one.by_site) == 3
        assert all(share > 0 for share in one.by_site.values())
        assert sum(one.by_site.values()) == pytest.approx(one.bound, rel=1e-12)


@pytest.mark.parametrize("guard", ["clip", "none"])
def test_outside_the_domain_the_error_itself_counts(guard: str) -> None:
    module = Sum()
    result = rewritten(module, guard=guard)
    far = INPUTS + 4.0
    assert float(far.max()) > result.report.sites[0].domain[1]
    inside, outside = bounds(result), bounds(result, far)
    difference = errors(module, result, far).tolist()
    for before, after, error in zip(inside, outside, difference, strict=True):
        assert after.bound > 10 * before.bound
        assert abs(error) <= after.bound * (1 + 1e-12)


def test_a_site_that_was_left_alone_has_no_share() -> None:
    module = Chain()
    result = rewritten(module, passes="exp{error=1e-30},sigmoid")
    assert [site.function for site in result.report.sites] == ["sigmoid"]
    for one in bounds(result):
        shares = {name.rpartition("/")[2]: share for name, share in one.by_site.items()}
        assert shares["exp"] == 0.0 and shares["sigmoid"] > 0.0


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_module_is_the_same_afterwards(structure: str) -> None:
    result = rewritten(Chain(), structure)
    graphs = [part for part in result.model.modules() if isinstance(part, torch.fx.GraphModule)]
    before = [(graph.code, [name for name, _ in graph.named_modules()]) for graph in graphs]
    with torch.no_grad():
        expected = result.model(INPUTS)
    bounds(result)
    assert [(g.code, [name for name, _ in g.named_modules()]) for g in graphs] == before
    with torch.no_grad():
        assert torch.equal(result.model(INPUTS), expected)


def test_a_site_without_gradients_is_no_site_without_error() -> None:
    result = rewritten(WithoutGradients(), "modules")
    with pytest.raises(OdpError, match="runs without gradients"):
        bounds(result)
    # In a graph there is no such thing.
    assert all(one.bound > 0 for one in bounds(rewritten(WithoutGradients())))


def test_a_module_that_nobody_rewrote() -> None:
    result = rewritten(Sum())
    module = Sum()
    with pytest.raises(OdpError, match="Sum has no sites"):
        first_order_bounds(module, result.report, lambda: module(INPUTS), [0])
