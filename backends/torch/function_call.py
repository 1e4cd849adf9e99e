"""One torch function in the forward of one module, traced into a small graph and rewritten.

A module that keeps its class cannot be one graph: caches, adapters and hooks run between its parts.
But each transcendental function in it can: `torch.softmax(x, -1)` is a graph of one node, on which
the same passes work as on a whole model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx

from odp.approximations.errors import OdpError
from odp.backends.torch.attention import attention
from odp.backends.torch.decompositions import decomposition_table
from odp.backends.torch.functional import make_functional, operator_name
from odp.rewriter.fx_graph import FxGraph

__all__ = ["AttentionCall", "Finish", "FunctionCall", "function_name"]

Finish = Callable[[FxGraph], None]
"""Rewrites the graph of a call in place."""

# Operators whose arguments or results tell the sizes of tensors; a graph with one of them holds
# for the sizes it was traced with and no others.
_SIZED = frozenset(
    {
        *("view", "reshape", "_unsafe_view", "expand", "slice", "split", "split_with_sizes"),
        *("ones", "zeros", "full", "empty", "arange", "repeat", "as_strided", "group_norm"),
        *("unflatten", "unfold", "chunk", "select", "native_group_norm", "repeat_interleave"),
        *("new_zeros", "new_ones", "new_full", "eye", "tril_indices", "lstm", "gru"),
    }
)


class FunctionCall:
    """Calls a torch function through a rewritten graph.

    One graph serves every size of tensors of the same rank and type, unless the function is made of
    operators that depend on sizes.

    Attributes:
        scope: where the call is: the path of the module and the name of the function.
        finish: what is done to each graph; None to call the function as it is.
        tracing: whether a call is being traced, so that the modules around it must not intercept.
    """

    tracing: ClassVar[bool] = False

    def __init__(self, function: Callable[..., Any], path: str, kind: str) -> None:
        """Prepare calls of `function` from the module at `path`, of class `kind`."""
        self.function = function
        self.scope = f"{path}.{function_name(function)}".lstrip(".")
        self.finish: Finish | None = None
        self._stack = {path: (path, kind)}
        self._names, self._defaults = _parameters(function)
        self._variants: dict[Any, fx.GraphModule] = {}
        self._examples: dict[Any, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self._sized: set[Any] = set()

    def use(self, finish: Finish | None) -> None:
        """Rewrite all graphs anew."""
        self.finish = finish
        self._variants.clear()
        if finish is not None:
            for key, (args, kwargs) in self._examples.items():
                self._variants[key] = self._traced(args, kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, by its graph."""
        if self.finish is None:
            return self.function(*args, **kwargs)
        key = self._key(args, kwargs)
        if key in self._sized:
            key = (key, _sizes(args, kwargs))
        graph = self._variants.get(key)
        if graph is None:
            graph = self._prepared(key, args, kwargs)
        return graph(*_tensors(args, kwargs))

    @property
    def graphs(self) -> list[fx.GraphModule]:
        """The rewritten graphs, one for each combination of ranks, types and options so far."""
        return list(self._variants.values())

    def retype(self, dtypes: Iterable[torch.dtype]) -> None:
        """Prepare graphs for other floating-point types, before torch.compile needs them."""
        for args, kwargs in list(self._examples.values()):
            for dtype in dtypes:
                other = _retyped(args, dtype), _retyped(kwargs, dtype)
                key = self._key(*other)
                if key not in self._variants and key not in self._sized:
                    self._prepared(key, *other)

    def _key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What decides which graph a call needs: ranks and types of tensors, and every option.

        The same call looks different in eager mode, where torch.nn.functional hands on every option
        by name, and under torch.compile, which hands on what the user wrote.
        """
        options = [(self._names[i], value) for i, value in enumerate(args[: len(self._names)])]
        options += list(kwargs.items())
        parts = [(name, _part(value)) for name, value in options if self._counts(name, value)]
        rest = tuple(_part(value) for value in args[len(self._names) :])
        return (*rest, *sorted(parts, key=_first))

    def _counts(self, name: str, value: Any) -> bool:
        if isinstance(value, torch.Tensor):
            return True
        return name != "_stacklevel" and not (
            name in self._defaults and self._defaults[name] == value
        )

    def _prepared(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.GraphModule:
        if torch.compiler.is_compiling():
            raise OdpError(
                f"{self.scope} meets types or options that calibration did not; run the module "
                "once before compiling it"
            )
        graph = self._traced(args, kwargs)
        if any(operator_name(node) in _SIZED for node in graph.graph.nodes):
            self._sized.add(self._key(args, kwargs))
            key = (self._key(args, kwargs), _sizes(args, kwargs))
        # Of an example only types and shapes are wanted, not the memory.
        self._examples[key] = _emptied(args), _emptied(kwargs)
        self._variants[key] = graph
        return graph

    def _traced(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.GraphModule:
        function = self.function

        def call(*tensors: torch.Tensor) -> Any:
            remaining = iter(tensors)
            return function(*_filled(args, remaining), **_filled(kwargs, remaining))

        tensors = [_without_gradient(tensor) for tensor in _tensors(args, kwargs)]
        FunctionCall.tracing = True
        try:
            with torch.no_grad():
                module = make_fx(
                    call, decomposition_table(), tracing_mode="fake", pre_dispatch=True
                )(*tensors)
        finally:
            FunctionCall.tracing = False
        for node in list(module.graph.nodes):
            make_functional(node)
        any_size = not any(operator_name(node) in _SIZED for node in module.graph.nodes)
        for node in module.graph.nodes:
            node.meta["nn_module_stack"] = self._stack
            if any_size:
                node.meta["odp.any_shape"] = True
        graph = FxGraph(module)
        graph.scope = f"{self.scope}/"
        assert self.finish is not None
        self.finish(graph)
        graph.recompile()
        return module


class AttentionCall:
    """Calls scaled dot-product attention, with a softmax that is a call of its own."""

    def __init__(self, path: str, kind: str) -> None:
        """Prepare calls from the module at `path`, of class `kind`."""
        self.softmax = FunctionCall(torch.softmax, path, kind)

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute what `torch.nn.functional.scaled_dot_product_attention` does."""
        return attention(*args, **kwargs, softmax=self.softmax)


def function_name(function: Callable[..., Any]) -> str:
    """The name that a person knows a torch function by."""
    return str(getattr(function, "__name__", function)).strip("_")


def _parameters(function: Callable[..., Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Names of the parameters of a function written in Python, and their defaults."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return (), {}
    names = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    return names, {p.name: p.default for p in parameters if p.default is not p.empty}


def _first(pair: tuple[str, Any]) -> str:
    return pair[0]


def _part(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (value.dtype, value.dim())
    if isinstance(value, list | tuple):
        return tuple(_part(item) for item in value)
    return value


def _sizes(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return tuple(tuple(tensor.shape) for tensor in _tensors(args, kwargs))


def _tensors(args: Any, kwargs: Mapping[str, Any] | None = None) -> list[torch.Tensor]:
    """The tensors among arguments, nested ones included, in order."""
    found: list[torch.Tensor] = []
    for value in (*args, *(kwargs or {}).values()):
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found.extend(_tensors(value))
    return found


def _map(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _map(item, change) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_map(item, change) for item in value)
    return value


def _filled(value: Any, tensors: Any) -> Any:
    return _map(value, lambda _: next(tensors))


def _emptied(value: Any) -> Any:
    return _map(value, lambda x: torch.empty(x.shape, dtype=x.dtype, device="meta"))


def _retyped(value: Any, dtype: torch.dtype) -> Any:
    return _map(value, lambda x: x.to(dtype) if x.is_floating_point() else x)


def _without_gradient(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
