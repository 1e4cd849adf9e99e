"""What the sites of a rewritten module see and give, and how its outputs depend on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx

from odp.approximations.errors import OdpError
from odp.backends.torch.rational_calls import RationalCalls
from odp.rewriter.fx_evaluation import attribute_of

__all__ = ["SiteReading", "probed"]


@dataclass(frozen=True)
class SiteReading:
    """One evaluation of the expression of one site.

    Attributes:
        site: id of the site.
        x: what the site was given, floating point, any shape.
        y: what its expression made of it, of the same shape.
        disturbance: zeros that were added to `y`: an output has gradients with respect to them.
    """

    site: str
    x: torch.Tensor
    y: torch.Tensor
    disturbance: torch.Tensor


@contextlib.contextmanager
def probed(module: torch.nn.Module) -> Iterator[list[SiteReading]]:
    """Read the sites of a rewritten module, of either structure, while it runs inside.

    Args:
        module: from `odp.rewrite`; it must have run once on inputs of the same types and ranks, and
            must run with gradients enabled and uncompiled.  Afterwards it is what it was.

    Yields:
        The readings, in the order of execution; clear the list between two runs.

    Raises:
        OdpError: no site is left in the module; or, while it runs, a site has no gradient.
    """
    readings: list[SiteReading] = []
    probes = [
        _insert(owner, native, readings)
        for owner in _graph_modules(module)
        for native in list(owner.graph.nodes)
        if _is_result(native)
    ]
    if not probes:
        raise OdpError(
            f"{type(module).__name__} has no sites: give what odp.rewrite returned, not a copy "
            "that went through pickle or torch.export"
        )
    owners = {owner for owner, _ in probes}
    try:
        for owner in owners:
            owner.recompile()
        yield readings
    finally:
        for owner, probe in probes:
            result = probe.args[1]
            assert isinstance(result, fx.Node)
            probe.replace_all_uses_with(result)
            owner.graph.erase_node(probe)
            delattr(owner, str(probe.target))
        for owner in owners:
            owner.recompile()


class _Probe(torch.nn.Module):
    """Hands on the result of a site, with zeros added to it."""

    def __init__(self, site: str, readings: list[SiteReading]) -> None:
        super().__init__()
        self._site = site
        self._readings = readings

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            raise OdpError(
                f"site {self._site} runs without gradients, in which its share of the error of the "
                "outputs would be missing"
            )
        zeros = torch.zeros_like(y, requires_grad=True)
        self._readings.append(SiteReading(self._site, x.detach(), y.detach(), zeros))
        return y + zeros


def _graph_modules(module: torch.nn.Module) -> list[fx.GraphModule]:
    """Every graph that runs when a rewritten module does, bodies of higher-order ones included."""
    found = [part for part in module.modules() if isinstance(part, fx.GraphModule)]
    for part in module.modules():
        if isinstance(part, RationalCalls):
            for call in part.odp_calls.values():
                found.extend(call.graphs)
    return found


def _insert(
    owner: fx.GraphModule, result: fx.Node, readings: list[SiteReading]
) -> tuple[fx.GraphModule, fx.Node]:
    site = _site_of(result)
    assert site is not None
    number = sum(1 for name, _ in owner.named_children() if name.startswith("odp_probe_"))
    name = f"odp_probe_{number}"
    owner.add_module(name, _Probe(site, readings))
    with owner.graph.inserting_after(result):
        probe = owner.graph.call_module(name, (_operand_of(result), result))
    for user in list(result.users):
        if user is not probe:
            user.replace_input_with(result, probe)
    return owner, probe


def _site_of(native: fx.Node) -> str | None:
    """Id of the site whose expression a node is part of."""
    tags = native.meta.get("custom", {})
    return tags.get("odp.site") if "odp.function" in tags else None


def _is_result(native: fx.Node) -> bool:
    """Whether a node is the last one of the expression of a site."""
    site = _site_of(native)
    return site is not None and any(_site_of(user) != site for user in native.users)


def _operand_of(result: fx.Node) -> fx.Node:
    """What the expression that ends in `result` was given."""
    site = _site_of(result)
    pending, seen = [result], {result}
    operands: dict[fx.Node, None] = {}
    while pending:
        for operand in pending.pop().all_input_nodes:
            if operand in seen:
                continue
            seen.add(operand)
            if _site_of(operand) == site:
                pending.append(operand)
            elif operand.op != "get_attr" or not isinstance(attribute_of(operand), torch.Tensor):
                operands[operand] = None
    assert len(operands) == 1, (result, operands)
    return next(iter(operands))
