"""Nodes and values of the torch.fx adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from odp.rewriter.fx_evaluation import attribute_of
from odp.rewriter.fx_rows import Operand, Reading, dtype_name
from odp.rewriter.fx_vocabulary import bound_arguments, is_item, native_type, read
from odp.rewriter.graph import Node, Value

if TYPE_CHECKING:
    from odp.rewriter.fx_graph import FxGraph

__all__ = ["FxLiteral", "FxNode", "FxValue", "as_array"]


class FxValue(Value):
    """The result of an fx node, a placeholder or a `get_attr`, seen through the neutral view."""

    __slots__ = ("graph", "native")

    def __init__(self, graph: FxGraph, native: fx.Node) -> None:
        self.graph = graph
        self.native = native

    def __repr__(self) -> str:
        return f"FxValue({self.name!r})"

    @property
    def tensor(self) -> torch.Tensor | None:
        """The fake tensor that export left on the node; None for numbers and tuples."""
        value = self.native.meta.get("val")
        return value if isinstance(value, torch.Tensor) else None

    @property
    def name(self) -> str:
        return self.native.name

    @property
    def producer(self) -> FxNode | None:
        source = self.native
        if is_item(source) and isinstance(source.args[0], fx.Node):
            source = source.args[0]
        return self.graph.node(source) if source.op == "call_function" else None

    @property
    def consumers(self) -> Sequence[FxNode]:
        return [self.graph.node(user) for user in self.native.users if user.op != "output"]

    @property
    def shape(self) -> tuple[int | None, ...] | None:
        tensor = self.tensor
        if tensor is None:
            return None
        if self.native.meta.get("odp.any_shape"):
            return (None,) * tensor.dim()
        return tuple(extent if isinstance(extent, int) else None for extent in tensor.shape)

    @property
    def dtype(self) -> str | None:
        tensor = self.tensor
        return None if tensor is None else dtype_name(tensor.dtype)

    @property
    def constant(self) -> NDArray[Any] | None:
        stored: Any = None
        if self.native.op == "get_attr":
            stored = attribute_of(self.native)
        elif self.native.op == "placeholder":
            binding = self.graph.bindings.get(self.native.name)
            # A buffer may be replaced by a state_dict, but what is read off it here, such as the
            # largest frequency of rotary positions, belongs to the architecture.
            if binding is not None and not isinstance(binding.tensor, torch.nn.Parameter):
                stored = binding.tensor
        return as_array(stored) if isinstance(stored, torch.Tensor) else None

    @property
    def is_output(self) -> bool:
        return any(user.op == "output" for user in self.native.users)


class FxLiteral(Value):
    """A number that stands directly among the arguments of a node."""

    __slots__ = ("number",)

    def __init__(self, number: float) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"FxLiteral({self.number!r})"

    @property
    def name(self) -> str:
        return f"{self.number:g}"

    @property
    def producer(self) -> None:
        return None

    @property
    def consumers(self) -> Sequence[FxNode]:
        return ()

    @property
    def shape(self) -> tuple[int | None, ...]:
        return ()

    @property
    def dtype(self) -> None:
        # A number takes the type of the tensor beside it.
        return None

    @property
    def constant(self) -> NDArray[Any]:
        return np.asarray(self.number, dtype=np.float64)

    @property
    def is_output(self) -> bool:
        return False


class FxNode(Node):
    """A `call_function` node seen through the neutral view."""

    __slots__ = ("_reading", "emitted", "graph", "native")

    def __init__(self, graph: FxGraph, native: fx.Node) -> None:
        self.graph = graph
        self.native = native
        self.emitted = "odp.emitted" in native.meta
        self._reading: Reading | None = None

    def __repr__(self) -> str:
        return f"FxNode({self.name!r}, {self.op})"

    @property
    def reading(self) -> Reading:
        """What the node says in the vocabulary; operands by where they stand."""
        if self._reading is None:
            self._reading = read(self.native)
        return self._reading

    @property
    def op(self) -> str:
        return self.reading.op

    @property
    def name(self) -> str:
        return self.native.name

    @property
    def inputs(self) -> tuple[Value | None, ...]:
        arguments = self._arguments()
        return tuple(
            self.graph.operand(_argument(arguments, place)) for place in self.reading.operands
        )

    @property
    def outputs(self) -> tuple[FxValue, ...]:
        items = {user.args[1]: user for user in self.native.users if is_item(user)}
        if not isinstance(self.native.meta.get("val"), list | tuple):
            return (self.graph.value(self.native),)
        count = len(self.native.meta["val"])
        return tuple(self.graph.value(items.get(i, self.native)) for i in range(count))

    @property
    def attributes(self) -> Mapping[str, Any]:
        return self.reading.attributes

    @property
    def native_type(self) -> str:
        return native_type(self.native)

    @property
    def module_path(self) -> str:
        stack = self.native.meta.get("nn_module_stack") or {}
        path = next((entry[0] for entry in reversed(list(stack.values()))), "")
        return path.removeprefix("L['self'].").removeprefix("L['self']")

    @property
    def module_type(self) -> str:
        stack = self.native.meta.get("nn_module_stack") or {}
        kind = next((entry[1] for entry in reversed(list(stack.values()))), "")
        return (kind if isinstance(kind, str) else kind.__qualname__).rpartition(".")[2]

    @property
    def graph_path(self) -> str:
        return self.graph.path_of(self.native)

    @property
    def is_alive(self) -> bool:
        return not self.native._erased

    def set_input(self, index: int, new: Any) -> None:
        """Let one operand be `new`, an fx node or a number."""
        place = self.reading.operands[index]
        arguments = self._arguments()
        changed: Any = new
        if place.index is not None:
            listed = list(arguments[place.argument])
            listed[place.index] = new
            changed = listed
        position = _position(self.native, place.argument)
        if position is not None and position < len(self.native.args):
            self.native.update_arg(position, changed)
        else:
            self.native.update_kwarg(place.argument, changed)
        self._reading = None

    def _arguments(self) -> dict[str, Any]:
        if isinstance(self.native.target, torch._ops.OpOverload):
            return bound_arguments(self.native)
        return {"args": self.native.args}


def as_array(tensor: torch.Tensor) -> NDArray[Any]:
    """A tensor on any device as a numpy array; bfloat16 by way of ml_dtypes."""
    host = tensor.detach().cpu()
    if host.dtype == torch.bfloat16:
        return host.float().numpy().astype(ml_dtypes.bfloat16)
    return host.numpy()


def _argument(arguments: Mapping[str, Any], place: Operand) -> Any:
    if not place.argument:
        return place.literal
    argument = arguments[place.argument]
    return argument if place.index is None else argument[place.index]


def _position(native: fx.Node, argument: str) -> int | None:
    names = [a.name for a in native.target._schema.arguments if not a.kwarg_only]  # type: ignore[union-attr]
    return names.index(argument) if argument in names else None
