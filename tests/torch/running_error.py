"""Running error analysis of torch graphs: how far a rewritten module may be from exact arithmetic.

The method is that of `tests/conformance/running_error.py`, for ATen: every tensor is carried as its
value in float64 and a bound on its error, element by element.  The graph is that of the recorder,
in which native functions stand at the sites; at each site the declared error of what was chosen for
it comes in, and every operator rounds to the type that its result has.

No constant in here is fitted to a result.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from odp.rewriter.fx_evaluation import attribute_of
from odp.rewriter.fx_graph import FxGraph
from odp.rewriter.selection import Choice
from odp.rewriter.site import Site

from ..conformance.running_error import Tensor as SiteTensor
from ..conformance.running_error import site_with_error

__all__ = ["Bound", "bounds_of", "roundoff"]


@dataclass(frozen=True)
class Bound:
    """A floating-point tensor in float64, and a bound on the absolute error of every element."""

    value: torch.Tensor
    error: torch.Tensor

    @property
    def smallest(self) -> torch.Tensor:
        """Magnitude without the error; zero where the value is not finite."""
        return torch.where(self.value.isfinite(), self.value.abs(), 0.0)

    @property
    def largest(self) -> torch.Tensor:
        return self.smallest + torch.where(self.value.isfinite(), self.error, 0.0)


# Operators that move numbers and round nothing.
_EXACT = frozenset(
    {
        *("view", "reshape", "_unsafe_view", "flatten", "transpose", "permute", "t", "numpy_T"),
        *("expand", "expand_as", "slice", "select", "cat", "stack", "squeeze", "unsqueeze", "roll"),
        *("alias", "clone", "contiguous", "detach", "detach_", "split", "split_with_sizes", "flip"),
        *("unbind", "chunk", "index", "index_select", "embedding", "where", "repeat", "gather"),
        *("masked_fill", "lift_fresh_copy", "copy", "tril", "constant_pad_nd", "pad", "unflatten"),
        *("select_scatter", "slice_scatter", "movedim", "unfold", "repeat_interleave", "dropout"),
    }
)
# Sums of products; with magnitudes in the place of values none of their terms cancel.
_SUMS = frozenset(
    {
        *("add", "sub", "rsub", "mul", "mm", "bmm", "matmul", "linear", "sum", "mean", "addmm"),
        *("avg_pool1d", "avg_pool2d", "avg_pool3d", "conv1d", "conv2d", "einsum", "square", "pow"),
    }
)
_NONEXPANSIVE = frozenset({"neg", "abs", "relu", "clamp", "clamp_min", "clamp_max", "hardtanh"})
_LARGEST = frozenset({"maximum", "minimum", "amax", "amin", "max"})
_COMPARISONS = frozenset({"gt", "lt", "ge", "le", "eq", "ne"})


def roundoff(dtype: torch.dtype) -> float:
    """Largest relative error of one rounding to a floating-point type."""
    return torch.finfo(dtype).eps / 2


def bounds_of(
    graph: FxGraph,
    inputs: Sequence[Any],
    sites: Mapping[str, Site],
    choices: Mapping[str, Choice],
) -> list[Any]:
    """The results of a graph, floating-point ones as `Bound`.

    Args:
        graph: with native functions at its sites, tagged as the recorder leaves them.
        inputs: what its placeholders stand for.
        sites: by id.
        choices: what stands at each site; a site without choice is exact up to a few roundings.
    """
    return _Analysis(sites, choices).run(graph.module, inputs)


class _Analysis:
    def __init__(self, sites: Mapping[str, Site], choices: Mapping[str, Choice]) -> None:
        self._sites = sites
        self._choices = choices

    def run(self, module: fx.GraphModule, inputs: Sequence[Any]) -> list[Any]:
        known: dict[fx.Node, Any] = {}
        remaining = iter(inputs)
        starts = _site_ends(module.graph)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                known[node] = _exact(next(remaining))
            elif node.op == "get_attr":
                known[node] = _exact(attribute_of(node))
            elif node.op == "output":
                return list(fx.map_arg(node.args[0], known.__getitem__))
            else:
                known[node] = self._node(node, known)
                if node in starts:
                    known[node] = self._site(node, known[starts[node]], known[node])
        raise AssertionError("a graph without output")

    def _site(self, node: fx.Node, x: Bound, native: Bound) -> Bound:
        site = self._sites[node.meta["custom"]["odp.site"]]
        operand = SiteTensor(x.value.numpy(), x.error.numpy())
        with np.errstate(all="ignore"):
            result = site_with_error(site, self._choices.get(site.id), operand)
        error = torch.from_numpy(np.asarray(result.error))
        # Sites compute in float32, and their results are rounded to the type of the graph.
        rounded = error + roundoff(node.meta["val"].dtype) * native.smallest
        return Bound(native.value, rounded)

    def _node(self, node: fx.Node, known: Mapping[fx.Node, Any]) -> Any:
        args = fx.map_arg(node.args, known.__getitem__)
        kwargs = fx.map_arg(node.kwargs, known.__getitem__)
        target: Any = node.target
        if target is operator.getitem:
            return args[0][args[1]]
        if isinstance(target, torch._ops.HigherOrderOperator):
            assert target._name == "cond", target
            body = args[1] if bool(args[0]) else args[2]
            return tuple(self.run(body, args[3]))
        if not isinstance(target, torch._ops.OpOverload):
            return target(*args, **kwargs)
        if target is torch.ops.aten._assert_tensor_metadata.default:
            return None
        call = _Call(node, target, args, kwargs)
        result = call.evaluated(lambda bound: bound.value)
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            return Bound(result, call.error(result))
        if isinstance(result, list | tuple):
            return call.parts(result)
        if isinstance(result, torch.Tensor):
            call.require_decided()
        return result


class _Call:
    """One call of an operator on bounds."""

    def __init__(
        self, node: fx.Node, target: torch._ops.OpOverload, args: Any, kwargs: Mapping[str, Any]
    ) -> None:
        self.node, self.target, self.args = node, target, args
        self.name = str(target._schema.name).partition("::")[2]
        wide = torch.float64 if _is_floating_type(kwargs.get("dtype")) else kwargs.get("dtype")
        self.kwargs = {**kwargs, "dtype": wide} if "dtype" in kwargs else dict(kwargs)

    @property
    def bounds(self) -> list[Bound]:
        """The floating-point operands."""
        found: list[Bound] = []
        _map((self.args, self.kwargs), found.append)
        return found

    def evaluated(
        self, change: Callable[[Bound], torch.Tensor], number: Callable[[float], float] = float
    ) -> Any:
        """The operator on a function of its operands; results of floating point in float64."""
        args, kwargs = _map((self.args, self.kwargs), change)
        if number is not float:
            args = [number(a) if isinstance(a, float) else a for a in args]
        result = self.target(*args, **kwargs)
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            return result.double()
        return result

    def error(self, value: torch.Tensor) -> torch.Tensor:
        """A bound on the error of the result."""
        unit = roundoff(self.node.meta["val"].dtype)
        size = torch.where(value.isfinite(), value.abs(), 0.0)
        bounds, name = self.bounds, self.name
        if not bounds:
            return torch.zeros_like(value)
        if name in ("_to_copy", "to"):
            narrower = unit > roundoff(self._source())
            return bounds[0].error.expand_as(value) + (unit * size if narrower else 0.0)
        if name in _EXACT:
            return self._grown("largest") - self._grown("smallest")
        if name in _SUMS:
            largest = self._magnitude("largest")
            return largest - self._magnitude("smallest") + self._terms(value) * unit * largest
        if name in _NONEXPANSIVE:
            return bounds[0].error.expand_as(value).clone()
        if name in _LARGEST:
            return self._largest_error(value)
        if name == "nll_loss_nd":
            # Minus the chosen elements, and their mean.
            return self._grown("largest").abs() - self._grown("smallest").abs() + 8 * unit * size
        if name in ("div", "reciprocal"):
            return self._quotient_error(value) + unit * size
        if name == "var":
            return self._variance_error(value, unit)
        if name == "batch_norm":
            return self._batch_norm_error(value, unit)
        # The native functions inside of a site end up here, and what nobody has thought about.
        return torch.full_like(value, torch.inf)

    def parts(self, results: Sequence[Any]) -> tuple[Any, ...]:
        """Several results: pieces of one operand, or a maximum and its indices."""
        if self.name == "max":
            return Bound(results[0].double(), self._largest_error(results[0])), results[1]
        assert self.name in _EXACT, self.target
        largest = self.evaluated(lambda bound: bound.largest)
        smallest = self.evaluated(lambda bound: bound.smallest)
        pairs = zip(results, largest, smallest, strict=True)
        return tuple(Bound(value.double(), a - b) for value, a, b in pairs)

    def require_decided(self) -> None:
        """A comparison whose operands may be equal within their errors has no bound."""
        bounds = self.bounds
        if self.name not in _COMPARISONS or not any(b.error.any() for b in bounds):
            return
        other = bounds[1].value if len(bounds) > 1 else self.args[1]
        error = sum(b.error for b in bounds)
        close = (bounds[0].value - other).abs() <= error
        if bool(close.any()):
            raise AssertionError(f"{self.node.name} may go either way within the error")

    def _source(self) -> torch.dtype:
        source = next(n for n in self.node.all_input_nodes)
        return source.meta["val"].dtype if source.meta["val"].is_floating_point() else torch.float64

    def _grown(self, what: str) -> torch.Tensor:
        return torch.nan_to_num(self.evaluated(lambda bound: getattr(bound, what)))

    def _magnitude(self, what: str) -> torch.Tensor:
        if self.name not in ("sub", "rsub"):
            return self.evaluated(lambda bound: getattr(bound, what), abs)
        a, b = (getattr(x, what) if isinstance(x, Bound) else abs(x) for x in self.args[:2])
        return a + b

    def _terms(self, value: torch.Tensor) -> int:
        """Roundings on the way to one element: each operand element meets it at most once."""
        if self.name in ("add", "sub", "rsub", "mul", "square"):
            return 1
        if self.name == "pow":
            return 8
        if self.name in ("mm", "bmm", "matmul", "linear", "addmm"):
            return int(self.bounds[0].value.shape[-1]) + 2
        if self.name.startswith("conv"):
            return int(self.bounds[1].value[0].numel()) + 2
        largest = max(bound.value.numel() for bound in self.bounds)
        return max(largest // max(value.numel(), 1), 1) + 2

    def _largest_error(self, value: torch.Tensor) -> torch.Tensor:
        found = self.target(*_map(self.args, lambda b: b.error), **self.kwargs)
        error = found[0] if isinstance(found, tuple) else found
        if self.name in ("minimum", "amin"):
            # The smaller error need not be that of the smaller operand.
            error = max(bound.error.max() for bound in self.bounds)
        return torch.as_tensor(error, dtype=torch.float64).expand_as(value).clone()

    def _quotient_error(self, value: torch.Tensor) -> torch.Tensor:
        a, b = (1.0, self.args[0]) if self.name == "reciprocal" else self.args[:2]
        error = a.error if isinstance(a, Bound) else 0.0
        if not isinstance(b, Bound):
            return error / abs(b)
        room = b.value.abs() - b.error
        quotient = (error + value.abs() * b.error) / torch.where(room > 0, room, torch.nan)
        return torch.nan_to_num(quotient, nan=torch.inf)

    def _variance_error(self, value: torch.Tensor, unit: float) -> torch.Tensor:
        """Of sum((x - mean)^2) / (n - 1): its terms change by 2|x - mean|*d + d^2."""
        (x,) = self.bounds
        axes = self.args[1]
        shift = x.error + x.error.mean(axes, keepdim=True)
        centred = (x.value - x.value.mean(axes, keepdim=True)).abs()
        change = (2.0 * centred * shift + shift * shift).sum(axes)
        count = x.value.numel() // max(value.numel(), 1)
        divisor = max(count - 1, 1)
        rounding = (count + 4) * unit * (value + x.largest.amax() * unit)
        return change.reshape(value.shape) / divisor + rounding

    def _batch_norm_error(self, value: torch.Tensor, unit: float) -> torch.Tensor:
        x, weight, bias, mean, variance = (None if a is None else a.value for a in self.args[:5])
        channels = (1, -1, *([1] * (x.dim() - 2)))
        scale = (variance + self.args[7]).rsqrt()
        scale = (scale if weight is None else scale * weight.abs()).view(channels)
        size = (x.abs() + mean.abs().view(channels)) * scale
        size = size if bias is None else size + bias.abs().view(channels)
        return self.args[0].error * scale + 8 * unit * size


def _site_ends(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """The last node of every evaluation of a site, to the copy of its operand that begins it."""
    ends: dict[fx.Node, fx.Node] = {}
    start: fx.Node | None = None
    last: fx.Node | None = None
    for node in graph.nodes:
        custom = node.meta.get("custom") or {}
        inside = "odp.function" in custom
        begins = inside and node.target is torch.ops.aten.alias.default
        if start is not None and last is not None and (begins or not inside):
            ends[last], start = start, None
        if begins:
            start = node
        last = node if inside else None
    return ends


def _exact(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        wide = value.detach().double()
        return Bound(wide, torch.zeros_like(wide))
    return value


def _is_floating_type(dtype: Any) -> bool:
    return isinstance(dtype, torch.dtype) and dtype.is_floating_point


def _map(value: Any, change: Callable[[Bound], Any]) -> Any:
    if isinstance(value, Bound):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(_map(item, change) for item in value)
    if isinstance(value, Mapping):
        return {name: _map(item, change) for name, item in value.items()}
    return value
