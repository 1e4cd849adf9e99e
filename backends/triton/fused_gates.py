"""Gated layers: act(gate(x)) * up(x) becomes one operator between the linear layers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from odp.backends.torch.rational_class import Rational, become, original_class
from odp.backends.triton import functional
from odp.backends.triton.requested import Requested
from odp.kernels.functions import KernelFunction

__all__ = ["FusedGate", "fuse_gates"]

_OPERATORS: dict[str, Callable[..., torch.Tensor]] = {
    "swiglu": functional.swiglu,
    "geglu": functional.geglu,
    "geglu_tanh": lambda gate, up, **given: functional.geglu(gate, up, "tanh", **given),
    "relu_squared_gate": functional.relu_squared_gate,
}


class FusedGate(Rational):
    """A gated layer that calls one operator between its linear layers.

    Its submodules are called as before, so that adapters and hooks work.

    Attributes:
        odp_operator: what stands between them.
        odp_gate: names of submodules that the input of the gate goes through.
        odp_up: likewise of the other factor.
        odp_after: likewise of the product.
        odp_functions: how functions are computed.
    """

    odp_operator: str
    odp_gate: tuple[str, ...]
    odp_up: tuple[str, ...]
    odp_after: tuple[str, ...]
    odp_functions: Mapping[str, KernelFunction]

    @classmethod
    def odp_forward(cls, original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(self: FusedGate, x: torch.Tensor) -> torch.Tensor:
            return self.odp_gated(x)

        forward.__doc__ = original.__doc__
        return forward

    def odp_gated(self, x: torch.Tensor) -> torch.Tensor:
        """What the layer computes."""
        gate, up = self._through(self.odp_gate, x), self._through(self.odp_up, x)
        product = _OPERATORS[self.odp_operator](gate, up, **self.odp_functions)
        return self._through(self.odp_after, product)

    def _through(self, names: Sequence[str], x: torch.Tensor) -> torch.Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x


class _Layers(fx.Tracer):
    """Traces a layer down to its submodules; only what has no parameters is looked into."""

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        """Whether a submodule is called as it is: it has parameters, or parts of its own."""
        del module_qualified_name
        return any(True for _ in m.parameters()) or any(True for _ in m.children())


def fuse_gates(module: torch.nn.Module, requested: Requested) -> None:
    """Let every gated layer in a module use one operator."""
    for path, part in list(module.named_modules()):
        found = None if isinstance(part, Rational) else _recognised(part)
        if found is None:
            continue
        name, gate, up, after = found
        functions = requested.functions(name)
        if functions is None:
            continue
        kind = original_class(part).__name__
        become(part, FusedGate)
        assert isinstance(part, FusedGate)
        part.odp_operator, part.odp_functions = name, functions
        part.odp_gate, part.odp_up, part.odp_after = gate, up, after
        requested.add(name, path, kind, functions)


_Found = tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def _recognised(module: torch.nn.Module) -> _Found | None:
    """Operator, and the submodules on the way to the gate, to the other factor, and after them."""
    if len(list(module.children())) < 2:
        return None
    try:
        graph = _Layers().trace(module)
    except Exception:
        # Most modules decide by shapes and options: no gated layer does.
        return None
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    result = next(node for node in graph.nodes if node.op == "output").args[0]
    if len(inputs) != 1 or not isinstance(result, fx.Node):
        return None
    after, product = _chain(result)
    if not _calls(product, operator.mul, torch.mul, "mul"):
        return None
    for first, second in (product.args[:2], product.args[1::-1]):
        name_and_argument = _activation(first)
        if name_and_argument is None or not isinstance(second, fx.Node):
            continue
        name, argument = name_and_argument
        (gate, gate_source), (up, up_source) = _chain(argument), _chain(second)
        if gate_source is inputs[0] and up_source is inputs[0]:
            # Nothing else may happen in the layer.
            calls = sum(node.op == "call_module" for node in graph.nodes)
            if calls == len(gate) + len(up) + len(after):
                return name, gate, up, after
    return None


def _chain(node: fx.Node) -> tuple[tuple[str, ...], fx.Node]:
    """Submodules that a value went through one after the other, and what it was before."""
    names: list[str] = []
    while node.op == "call_module" and len(node.args) == 1 and not node.kwargs:
        names.append(str(node.target))
        before = node.args[0]
        assert isinstance(before, fx.Node)
        node = before
    return tuple(reversed(names)), node


def _activation(node: Any) -> tuple[str, fx.Node] | None:
    """The gated operator of an activation, and the activation's argument."""
    if not isinstance(node, fx.Node):
        return None
    found: tuple[str, Any] | None = None
    if _calls(node, torch.nn.functional.silu):
        found = "swiglu", node.args[0]
    elif _calls(node, torch.nn.functional.gelu):
        form = node.kwargs.get("approximate", "none")
        if len(node.args) == 1 and form in ("none", "tanh"):
            found = ("geglu" if form == "none" else "geglu_tanh"), node.args[0]
    elif _calls(node, operator.mul, torch.mul, "mul"):
        found = _sigmoid_gate(node)
    if found is None:
        found = _relu_squared(node)
    if found is None or not isinstance(found[1], fx.Node):
        return None
    return found


def _sigmoid_gate(node: fx.Node) -> tuple[str, Any] | None:
    for x, gate in (node.args[:2], node.args[1::-1]):
        if not isinstance(gate, fx.Node) or not _calls(gate, torch.sigmoid, "sigmoid"):
            continue
        if gate.args[0] is x:
            return "swiglu", x
    return None


def _relu_squared(node: fx.Node) -> tuple[str, Any] | None:
    product = _calls(node, operator.mul, torch.mul, "mul")
    power = _calls(node, torch.pow, operator.pow, "pow")
    is_square = (
        _calls(node, torch.square, "square")
        or (power and node.args[1] == 2)
        or (product and node.args[0] is node.args[1])
    )
    base = node.args[0] if is_square else None
    if isinstance(base, fx.Node) and _calls(base, torch.nn.functional.relu, torch.relu, "relu"):
        return "relu_squared_gate", base.args[0]
    return None


def _calls(node: fx.Node, *targets: Any) -> bool:
    return node.op in ("call_function", "call_method") and node.target in targets
