"""The neutral graph view: what a pass sees, whatever the model is written in.

Patterns and passes speak one vocabulary of operations (`VOCABULARY`), with attributes in one
normal form.  An adapter (`onnx_graph` for ONNX; torch.fx gets its own) shows its graph through the
three classes below and turns the same vocabulary back into its own nodes.  Nothing in a pass may
depend on which adapter it is looking at.

Normal form of attributes:

- `axes` is a tuple of non-negative ints, sorted, whenever the rank is known; `keepdims` is a bool.
- `softmax` and `log_softmax` have `axes`: the flattening semantics that ONNX had before opset 13
  are several axes here.
- An operation outside the vocabulary is called `domain::OpType`, with its native attributes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odp.approximations.expression import Expression

__all__ = ["VOCABULARY", "Builder", "Graph", "Node", "Value"]

VOCABULARY: frozenset[str] = frozenset(
    {
        # arithmetic and comparison
        *("add", "sub", "mul", "div", "neg", "abs", "relu", "max", "min", "clip"),
        *("where", "greater"),
        # elementary functions
        *("exp", "log", "sqrt", "rsqrt", "reciprocal", "pow", "erf", "sin", "cos", "tan"),
        *("sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh"),
        # activations
        *("tanh", "sigmoid", "silu", "gelu", "softplus", "mish", "elu", "selu", "celu"),
        # reductions
        *("reduce_mean", "reduce_sum", "reduce_max", "reduce_l2", "reduce_log_sum"),
        *("reduce_log_sum_exp", "reduce_sum_square"),
        # composites over axes
        *("softmax", "log_softmax", "layer_norm", "rms_norm", "group_norm", "instance_norm"),
        *("skip_layer_norm", "skip_rms_norm", "lp_norm", "local_response_norm"),
        *("lstm", "gru", "rnn", "lp_pool", "global_lp_pool"),
        # linear maps
        *("matmul", "conv"),
        # movement of data
        *("reshape", "transpose", "expand", "slice", "concat", "squeeze", "unsqueeze"),
        *("gather", "cast", "identity", "split", "tile"),
    }
)
"""Every operation name that patterns may use.  A `Builder` emits those that are no composites."""


_NARROW = ("float16", "bfloat16")
_FLOATING = (*_NARROW, "float32", "float64")


class Value(ABC):
    """An edge of the graph: the result of one node, an input of the graph, or a constant."""

    __slots__ = ()

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the value in its graph."""

    @property
    @abstractmethod
    def producer(self) -> Node | None:
        """The node that computes this value; None for inputs and stored constants."""

    @property
    @abstractmethod
    def consumers(self) -> Sequence[Node]:
        """The nodes that read this value, each once."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int | None, ...] | None:
        """Extents, None for a dynamic one; None where even the rank is unknown."""

    @property
    @abstractmethod
    def dtype(self) -> str | None:
        """Element type by its numpy name (`float32`, `bfloat16`, `int64`), or None if unknown."""

    @property
    @abstractmethod
    def constant(self) -> NDArray[Any] | None:
        """The array, if this value is stored in the model; None for anything computed."""

    @property
    @abstractmethod
    def is_output(self) -> bool:
        """Whether the value is an output of its graph or subgraph."""

    @property
    def rank(self) -> int | None:
        """Number of axes, or None if unknown."""
        return None if self.shape is None else len(self.shape)

    @property
    def is_floating(self) -> bool:
        """Whether the element type is a floating-point one; an unknown type counts as floating."""
        return self.dtype is None or "float" in self.dtype

    @property
    def scalar(self) -> float | None:
        """The number, if this is a stored constant with a single element, else None."""
        if self.shape is not None and any(extent != 1 for extent in self.shape):
            return None
        array = self.constant
        if array is None or array.size != 1 or array.dtype.kind in "OSU":
            return None
        return float(array.reshape(-1)[0])


class Node(ABC):
    """One operation of the graph, in the neutral vocabulary.

    Attributes:
        emitted: whether a builder made this node; passes leave such nodes alone.
    """

    __slots__ = ()
    emitted: bool

    @property
    @abstractmethod
    def op(self) -> str:
        """Name in `VOCABULARY`, or `domain::OpType` for anything else."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the native node; unique enough for a person to find it."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[Value | None, ...]:
        """Operands in the order of the vocabulary; None for an optional one that is absent."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[Value, ...]:
        """Results."""

    @property
    @abstractmethod
    def attributes(self) -> Mapping[str, Any]:
        """Attributes in normal form."""

    @property
    @abstractmethod
    def native_type(self) -> str:
        """The operation as its own framework calls it, for example `com.microsoft::FastGelu`."""

    @property
    @abstractmethod
    def module_path(self) -> str:
        """Dotted path of the module the node came from, or an empty string."""

    @property
    def module_type(self) -> str:
        """Class of the module the node came from (`LlamaRMSNorm`), or an empty string."""
        return ""

    @property
    @abstractmethod
    def graph_path(self) -> str:
        """Path of the subgraph that holds the node, or an empty string for the main graph."""

    @property
    @abstractmethod
    def is_alive(self) -> bool:
        """Whether the node is still part of a graph."""

    @property
    def output(self) -> Value:
        """The first result."""
        return self.outputs[0]


class Builder(ABC):
    """Emits operations in front of one node, all of them tagged with where they came from."""

    @abstractmethod
    def op(self, name: str, *inputs: Value | None, **attributes: Any) -> Value:
        """Emit one operation of the vocabulary and return its first result."""

    @abstractmethod
    def op_with_outputs(
        self, name: str, count: int, *inputs: Value | None, **attributes: Any
    ) -> tuple[Value, ...]:
        """Emit one operation with `count` results."""

    @abstractmethod
    def constant(self, array: Any, dtype: str) -> Value:
        """A stored constant; equal scalars are stored once."""

    @abstractmethod
    def expression(self, expression: Expression, x: Value) -> Value:
        """Emit an expression of one variable at `x`; float16 and bfloat16 are widened inside."""

    def number(self, number: float, like: Value) -> Value:
        """A scalar constant of the element type of `like`."""
        return self.constant(number, like.dtype or "float32")

    def add(self, a: Value, b: Value | float) -> Value:
        """`a + b`."""
        return self._binary("add", a, b)

    def sub(self, a: Value, b: Value | float) -> Value:
        """`a - b`."""
        return self._binary("sub", a, b)

    def mul(self, a: Value, b: Value | float) -> Value:
        """`a * b`."""
        return self._binary("mul", a, b)

    def div(self, a: Value, b: Value | float) -> Value:
        """`a / b`."""
        return self._binary("div", a, b)

    def rsub(self, a: float, b: Value) -> Value:
        """`a - b` with a number on the left."""
        return self.op("sub", self.number(a, b), b)

    def widened(self, x: Value) -> Value:
        """`x`, as float32 if it is float16 or bfloat16: sums of squares leave those ranges."""
        return self.op("cast", x, dtype="float32") if x.dtype in _NARROW else x

    def reduce(
        self, kind: str, x: Value, axes: Sequence[int] | Value, keepdims: bool = True
    ) -> Value:
        """`reduce_mean`, `reduce_sum` or `reduce_max` of `x` over `axes`, by `kind`.

        Axes that are only known at run time are a value.
        """
        if isinstance(axes, Value):
            return self.op(f"reduce_{kind}", x, axes, axes=None, keepdims=keepdims)
        return self.op(f"reduce_{kind}", x, axes=tuple(axes), keepdims=keepdims)

    def _binary(self, name: str, a: Value, b: Value | float) -> Value:
        if not isinstance(b, Value):
            return self.op(name, a, self.number(b, a))
        if a.dtype != b.dtype and a.dtype in _FLOATING and b.dtype in _FLOATING:
            # Patterns look through casts, so the two may come from either side of one.
            wide = max(a.dtype, b.dtype, "float32", key=_FLOATING.index)
            a, b = (x if x.dtype == wide else self.op("cast", x, dtype=wide) for x in (a, b))
        return self.op(name, a, b)


class Graph(ABC):
    """A model seen through the neutral vocabulary; rewriting changes the model in place.

    Attributes:
        scope: what stands before the pattern in the ids of sites, where one model is several
            graphs: `model.layers.3.mlp.act_fn.silu/`.
    """

    scope: str = ""

    @abstractmethod
    def nodes(self) -> Iterator[Node]:
        """Every node in topological order, bodies of If, Loop and Scan included."""

    @abstractmethod
    def clone(self) -> Graph:
        """An independent copy of the structure that shares the stored constants."""

    @abstractmethod
    def builder(self, before: Node, tags: Mapping[str, str]) -> Builder:
        """A builder that inserts in front of `before` and writes `tags` on every new node."""

    @abstractmethod
    def replace(self, old: Value, new: Value) -> None:
        """Let every reader of `old` read `new`; outputs of graphs keep their names."""

    @abstractmethod
    def replace_input(self, node: Node, index: int, new: Value) -> None:
        """Let one operand of one node be `new`."""

    @abstractmethod
    def remove_dead_nodes(self) -> None:
        """Drop every node whose results nobody reads."""

    @abstractmethod
    def evaluate(self, value: Value) -> NDArray[np.generic] | None:
        """The array that `value` always has because no input of the graph reaches it, or None."""

    @abstractmethod
    def transcendental(self) -> dict[str, int]:
        """Native operation type to count, for every operation that hides a transcendental."""
