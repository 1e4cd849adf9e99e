"""One torch function in the forward of one module, traced into a small graph and rewritten.

A module that keeps its class cannot be one graph: caches, adapters and hooks run between its parts.
But each transcendental function in it can: `torch.softmax(x, -1)` is a graph of one node, on which
the same passes work as on a whole model.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx

from odp.approximations.errors import OdpError
from odp.backends.torch.attention import attention
from odp.backends.torch.decompositions import decomposition_table
from odp.backends.torch.functional import make_functional, operator_name
from odp.backends.torch.graph_call import call_graph
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

# By function and kind of call, as these are the same in every layer.
_ANY_SIZE: dict[Any, bool] = {}


class FunctionCall:
    """Calls a torch function through a rewritten graph.

    One graph serves every size of tensors of the same rank and type, unless the function is made of
    operators that depend on sizes.

    Attributes:
        scope: where the call is: the path of the module and the name of the function.
        finish: what is done to each graph; None to call the function as it is.
        untraceable: kinds of calls that have no graph and stay as they are, and why.
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
        # Every variant of a rewrite begins with what was traced once.
        self._captures: dict[Any, fx.GraphModule] = {}
        self._sized: set[Any] = set()
        self.untraceable: dict[Any, str] = {}

    def use(self, finish: Finish | None) -> None:
        """Rewrite all graphs anew."""
        self.finish = finish
        self._variants.clear()
        if finish is not None:
            for key, (args, kwargs) in self._examples.items():
                if key not in self._captures:
                    self._captures[key] = self._captured(args, kwargs)
                self._variants[key] = self._rewritten(key)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, by its graph."""
        if self.finish is None:
            return self.function(*args, **kwargs)
        kwargs = self._in_order(kwargs)
        key = self._key(args, kwargs)
        graph = self._variants.get(key)
        if graph is None and key[0] not in self.untraceable:
            graph = self._prepared(args, kwargs)
        if graph is None:
            return self.function(*args, **kwargs)
        return call_graph(graph, _tensors(args, kwargs))

    @property
    def graphs(self) -> list[fx.GraphModule]:
        """The rewritten graphs, one for each combination of ranks, types and options so far."""
        return list(self._variants.values())

    def retype(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Prepare graphs for another type or device, before torch.compile needs them.

        Args:
            change: what is done to every parameter of the module.
        """
        for args, kwargs in list(self._examples.values()):
            other = (
                _map(args, lambda x: _changed(x, change)),
                _map(kwargs, lambda x: _changed(x, change)),
            )
            is_meta = any(tensor.is_meta for tensor in _tensors(*other))
            if not is_meta and self._key(*other) not in self._variants:
                # A function that does not exist for a type fails when it is called with it.
                with contextlib.suppress(RuntimeError, TypeError, ValueError):
                    self._prepared(*other)

    def __getstate__(self) -> dict[str, Any]:
        # Copies and files need no more than the rewritten graphs, and what to trace again.
        return self.__dict__ | {"_captures": {}}

    def _in_order(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Keywords in the order of the signature, in which the graph takes their tensors."""
        known = [(name, kwargs[name]) for name in self._names if name in kwargs]
        rest = [(name, value) for name, value in kwargs.items() if name not in self._names]
        return dict([*known, *sorted(rest, key=_first)])

    def _key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What decides which graph a call needs: its kind, and the sizes where they matter."""
        kind = self._kind(args, kwargs)
        return kind, _sizes(args, kwargs) if kind in self._sized else None

    def _kind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Ranks, types and devices of tensors, every option, and whether autocast changes types.

        The same call looks different in eager mode, where torch.nn.functional hands on every option
        by name, and under torch.compile, which hands on what the user wrote.
        """
        options = [(self._names[i], value) for i, value in enumerate(args[: len(self._names)])]
        options += list(kwargs.items())
        parts = [(name, _part(value)) for name, value in options if self._counts(name, value)]
        rest = tuple(_part(value) for value in args[len(self._names) :])
        return (*rest, *sorted(parts, key=_first), _autocast(_tensors(args, kwargs)))

    def _counts(self, name: str, value: Any) -> bool:
        if isinstance(value, torch.Tensor):
            return True
        return name != "_stacklevel" and not (
            name in self._defaults and self._defaults[name] == value
        )

    def _prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.GraphModule | None:
        """A graph for a call of a new kind; None if it cannot be traced."""
        if torch.compiler.is_compiling():
            raise OdpError(
                f"{self.scope} meets types or options that calibration did not; run the module "
                "once before compiling it"
            )
        kind = self._kind(args, kwargs)
        try:
            captured = self._captured(args, kwargs)
        except Exception as error:
            # Functions that look at values (gaussian_nll_loss, packed sequences) have no graph.
            self.untraceable[kind] = " ".join(str(error).split())[:120]
            return None
        if not self._holds_for_any_size(captured, kind, args, kwargs):
            self._sized.add(kind)
        key = self._key(args, kwargs)
        # Of an example only types and shapes are wanted, not the memory.
        self._examples[key] = _map(args, _emptied), _map(kwargs, _emptied)
        self._captures[key] = captured
        self._variants[key] = graph = self._rewritten(key)
        return graph

    def _holds_for_any_size(
        self,
        captured: fx.GraphModule,
        kind: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> bool:
        """Whether a graph is the same for tensors of other sizes.

        Sizes are arguments of some operators; others are numbers by the time they are traced, such
        as the divisor of a mean over the batch.
        """
        if any(operator_name(node) in _SIZED for node in captured.graph.nodes):
            return False
        known = _ANY_SIZE.get((self.function, kind))
        if known is None:
            known = all(
                self._agrees(captured, _map(args, change), _map(kwargs, change))
                for change in (_doubled, _enlarged)
            )
            _ANY_SIZE[self.function, kind] = known
        return known

    def _agrees(self, captured: fx.GraphModule, args: Any, kwargs: Any) -> bool:
        try:
            return self._captured(args, kwargs).code == captured.code
        except Exception:
            # Sizes that an option (normalized_shape) or a broadcast fixes are no other ones.
            return True

    def _captured(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.GraphModule:
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
        module.graph.eliminate_dead_code()
        module.recompile()
        return module

    def _rewritten(self, key: Any) -> fx.GraphModule:
        _, sizes = key
        capture = self._captures[key]
        module = fx.GraphModule(capture, copy.deepcopy(capture.graph))
        for node in module.graph.nodes:
            node.meta["nn_module_stack"] = self._stack
            if sizes is None:
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

    @property
    def graphs(self) -> list[fx.GraphModule]:
        """The rewritten graphs of the softmax."""
        return self.softmax.graphs

    def retype(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Prepare the softmax for another type or device."""
        self.softmax.retype(change)


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
        return (value.dtype, value.dim(), value.device)
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


def _emptied(x: torch.Tensor) -> torch.Tensor:
    """A tensor of the same shape, type and device that takes no memory."""
    return _one(x).expand(x.shape)


def _doubled(x: torch.Tensor) -> torch.Tensor:
    """Another size along every axis; a size of one stays, because it broadcasts."""
    return _one(x).expand([extent if extent == 1 else 2 * extent for extent in x.shape])


def _enlarged(x: torch.Tensor) -> torch.Tensor:
    """Another size along every axis."""
    return _one(x).expand([2 * extent for extent in x.shape])


def _changed(x: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    return change(_one(x)).expand(x.shape)


def _one(x: torch.Tensor) -> torch.Tensor:
    return torch.empty((1,) * x.dim(), dtype=x.dtype, device=x.device)


def _autocast(tensors: Sequence[torch.Tensor]) -> torch.dtype | None:
    """The type that autocast computes in, if it is enabled where the tensors are."""
    kind = tensors[0].device.type if tensors else "cpu"
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def _without_gradient(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
