"""One direction of a recurrent layer: its weights, in pieces, and the loop over its time steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from odp.passes.recurrent_activations import Activation
from odp.rewriter.graph import Value
from odp.rewriter.site import SiteBuilder

__all__ = ["Layer", "Parameters", "State", "Step", "run_direction"]

State = tuple[Value | None, ...]
"""Hidden state and, for an LSTM, cell state, each (1, batch, hidden); None stands for zeros."""


class Parameters:
    """The stored tensors of one layer, sliced for one direction.

    Stored constants are sliced now, so that no node is left for it; computed weights (quantised
    ones, for example) are sliced in the graph.
    """

    def __init__(self, build: SiteBuilder, inputs: Sequence[Value | None], direction: int) -> None:
        self._build = build
        self._inputs = (*inputs, *(None,) * (8 - len(inputs)))
        self._direction = direction

    def matrix(self, index: int, first: int | None = None, last: int | None = None) -> Value:
        """Rows `first` to `last` of a weight (gates * hidden, n), transposed for `x @ w`."""
        value = self._value(index)
        stored = value.constant
        if stored is not None:
            rows = np.ascontiguousarray(stored[self._direction][first:last].T)
            return self._constant(rows, value)
        rows_value = self._sliced(value, first, last)
        return self._build.op("transpose", rows_value, perm=[1, 0])

    def vector(self, index: int, first: int, last: int) -> Value | None:
        """Entries `first` to `last` of an optional (directions, n) input; None if it is absent."""
        value = self._inputs[index]
        if value is None:
            return None
        stored = value.constant
        if stored is not None:
            return self._constant(stored[self._direction][first:last], value)
        return self._sliced(value, first, last)

    def bias_sum(self, gates: int, hidden: int) -> Value | None:
        """The biases of the input and of the recurrence added up, for the first `gates` gates."""
        value = self._inputs[3]
        if value is None:
            return None
        both = 2 * self.gates * hidden
        stored = value.constant
        if stored is not None:
            first, second = np.split(stored[self._direction][:both], 2)
            total = first.copy()
            total[: gates * hidden] += second[: gates * hidden]
            return self._constant(total, value)
        first_value = self._sliced(value, 0, both // 2)
        if gates == self.gates:
            return self._build.add(first_value, self._sliced(value, both // 2, both))
        cut = gates * hidden
        shared = self._build.add(
            self._sliced(value, 0, cut), self._sliced(value, both // 2, both // 2 + cut)
        )
        return self._concat([shared, self._sliced(value, cut, both // 2)])

    @property
    def gates(self) -> int:
        """Number of gates that the weights are stacked of: 4 for LSTM, 3 for GRU, 1 for RNN."""
        weights, recurrence = self._value(1).shape, self._value(2).shape
        assert weights is not None and recurrence is not None
        assert weights[1] is not None and recurrence[2] is not None
        return weights[1] // recurrence[2]

    def initial(self, index: int, axis: int) -> Value | None:
        """The initial state (1, batch, hidden); `axis` is the one that counts the directions."""
        value = self._inputs[index]
        if value is None or _is_zero(value):
            return None
        if axis:
            value = self._build.op("transpose", value, perm=[1, 0, 2])
        directions = value.shape[0] if value.shape is not None else None
        if directions == 1:
            return value
        here = self._direction
        return self._build.op("slice", value, start=here, stop=here + 1, axis=0)

    def _value(self, index: int) -> Value:
        value = self._inputs[index]
        assert value is not None
        return value

    def _sliced(self, value: Value, first: int | None, last: int | None) -> Value:
        here = self._direction
        one = self._build.op("slice", value, start=here, stop=here + 1, axis=0)
        one = self._build.op("squeeze", one, axes=(0,))
        if last is None:
            return one
        return self._build.op("slice", one, start=first or 0, stop=last, axis=0)

    def _concat(self, values: list[Value]) -> Value:
        return self._build.op("concat", *values, axis=0)

    def _constant(self, array: np.ndarray, like: Value) -> Value:
        return self._build.constant(array, like.dtype or "float32")


@dataclass(frozen=True)
class Layer:
    """What a cell needs to take one step.

    Attributes:
        build: emits the operations.
        parameters: weights of this direction.
        hidden: size of the hidden state.
        activations: of this direction, in the order of the operator (f, g, h).
        clip: bound on the absolute value of everything that enters an activation of a gate.
        label: `forward` or `reverse`, for the names of the sites.
    """

    build: SiteBuilder
    parameters: Parameters
    hidden: int
    activations: Sequence[Activation]
    clip: float | None
    label: str

    def activate(self, which: int, x: Value, site: str, *, clipped: bool = True) -> Value:
        """Apply one of the activations at a site that all time steps share."""
        if clipped and self.clip is not None:
            x = self.build.op("clip", x, low=-self.clip, high=self.clip)
        return self.activations[which].emit(x, self.build, f"{self.label}_{site}")

    def plus(self, a: Value | None, b: Value | None) -> Value:
        """`a + b`, where None is zero."""
        if a is None or b is None:
            result = b if a is None else a
            assert result is not None
            return result
        total: Value = self.build.add(a, b)
        return total

    def times(self, a: Value, b: Value | None) -> Value | None:
        """`a * b`, where None is zero."""
        return None if b is None else self.build.mul(a, b)

    def recurrence(self, state: Value | None, weight: Value) -> Value | None:
        """`state @ weight`, where None is zero."""
        return None if state is None else self.build.op("matmul", state, weight)

    def split(self, x: Value, *parts: int) -> tuple[Value, ...]:
        """Cut the last axis into pieces of so many gates each."""
        sizes = [part * self.hidden for part in parts]
        outputs: tuple[Value, ...] = self.build.op_with_outputs(
            "split", len(sizes), x, axis=2, sizes=sizes
        )
        return outputs


Step = Callable[[Value, State], State]
"""From the input of the gates at one time, x @ w + bias, and the state to the next state."""


def run_direction(
    build: SiteBuilder,
    inputs: Sequence[Value],
    state: State,
    step: Step,
    masks: Sequence[Value | None],
    reverse: bool,
) -> tuple[list[Value], State]:
    """Take all time steps of one direction.

    Args:
        build: emits the operations.
        inputs: x @ w + bias for each time, (1, batch, gates * hidden).
        state: the initial state.
        step: the cell.
        masks: for each time, 1 where the sequence is still running and 0 where it is padding,
            (1, batch, 1); None where no sequence has ended.
        reverse: whether to walk from the last time to the first.

    Returns:
        The hidden states in the order of time, zero on padding, and the last state.
    """
    order = range(len(inputs))
    hidden: dict[int, Value] = {}
    for time in reversed(order) if reverse else order:
        mask = masks[time]
        following = step(inputs[time], state)
        if mask is None:
            state = following
            assert state[0] is not None
            hidden[time] = state[0]
            continue
        kept = [None if part is None else build.mul(part, mask) for part in following]
        assert kept[0] is not None
        hidden[time] = kept[0]
        padding = build.rsub(1.0, mask)
        # On padding the state stays what it was.
        state = tuple(
            new if old is None or new is None else build.add(new, build.mul(old, padding))
            for new, old in zip(kept, state, strict=True)
        )
    return [hidden[time] for time in order], state


def _is_zero(value: Value) -> bool:
    stored = value.constant
    return stored is not None and not stored.any()
