"""The `recurrent` pass: LSTM, GRU and RNN taken apart into time steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from odp.passes.recurrent_activations import Activation, activations_of
from odp.passes.recurrent_layer import Layer, Parameters, State, Step, run_direction
from odp.rewriter.graph import Node, Value
from odp.rewriter.pattern import Match, Pattern, op, variable
from odp.rewriter.rewrite_pass import EXPANSION, Pass, Refusal, Replacement
from odp.rewriter.site import SiteBuilder

__all__ = ["Recurrent"]


@dataclass(frozen=True, kw_only=True)
class Recurrent(Pass):
    """Unroll LSTM, GRU and RNN over a static sequence length and replace their activations.

    The product of the input with its weights is taken once for all time steps.  Every activation
    has one site for each gate and direction that all time steps share.
    """

    name: ClassVar[str] = "recurrent"
    stage: ClassVar[int] = EXPANSION
    patterns: ClassVar[Mapping[str, Pattern]] = {
        kind: op(kind, variable("x"), variable("w"), variable("r"))
        for kind in ("lstm", "gru", "rnn")
    }
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "lstm": ("sigmoid", "tanh"),
        "gru": ("sigmoid", "tanh"),
        "rnn": ("tanh",),
    }
    anchors: ClassVar[frozenset[str]] = frozenset({"lstm", "gru", "rnn"})

    def rewrite(self, match: Match, build: SiteBuilder) -> Replacement:
        root, attributes = match.root, match.root.attributes
        batch_first = bool(attributes["layout"])
        hidden = _hidden_size(match)
        length = _length(match["x"], 1 if batch_first else 0)
        x = match["x"]
        if batch_first:
            x = build.op("transpose", x, perm=[1, 0, 2])
        masks = _masks(root, length, x, build)
        labels = _DIRECTIONS.get(attributes["direction"])
        if labels is None:
            raise Refusal(f"the direction {attributes['direction']} is not known")
        activations = _activations(root, len(labels))
        sequences, finals = [], []
        for number, label in enumerate(labels):
            parameters = Parameters(build, root.inputs, number)
            own = activations[number]
            layer = Layer(build, parameters, hidden, own, attributes["clip"] or None, label)
            bias, step = _CELLS[root.op](layer, root)
            projected = build.op("matmul", x, parameters.matrix(1))
            if bias is not None:
                projected = build.add(projected, bias)
            steps: tuple[Value, ...] = (projected,)
            if length > 1:
                steps = build.op_with_outputs(
                    "split", length, projected, axis=0, sizes=[1] * length
                )
            states = 2 if root.op == "lstm" else 1
            initial: State = tuple(
                parameters.initial(5 + i, 1 if batch_first else 0) for i in range(states)
            )
            reverse = label == "reverse"
            outputs, final = run_direction(build, steps, initial, step, masks, reverse)
            sequences.append(outputs)
            finals.append(final)
        return _results(root, build, sequences, finals, batch_first)


_DIRECTIONS: dict[str, tuple[str, ...]] = {
    "forward": ("forward",),
    "reverse": ("reverse",),
    "bidirectional": ("forward", "reverse"),
}
_DEFAULT_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "lstm": ("Sigmoid", "Tanh", "Tanh"),
    "gru": ("Sigmoid", "Tanh"),
    "rnn": ("Tanh",),
}


def _hidden_size(match: Match) -> int:
    shape = match["r"].shape
    if shape is None or shape[2] is None or match["w"].shape is None:
        raise Refusal("the shapes of the weights are not known at rewriting time")
    return shape[2]


def _length(x: Value, axis: int) -> int:
    length = None if x.shape is None else x.shape[axis]
    if length is None:
        raise Refusal(
            f"the sequence length (axis {axis} of '{x.name}') is dynamic, so the time steps cannot "
            "be unrolled; give it with --shape"
        )
    if length == 0:
        raise Refusal("the sequence is empty")
    return length


def _activations(root: Node, directions: int) -> list[list[Activation]]:
    default = _DEFAULT_ACTIVATIONS[root.op]
    names = root.attributes["activations"] or default * directions
    if len(names) != len(default) * directions:
        raise Refusal(f"{len(names)} activations, expected {len(default) * directions}")
    alphas, betas = root.attributes["activation_alpha"], root.attributes["activation_beta"]
    flat = activations_of(names, alphas, betas)
    return [flat[i : i + len(default)] for i in range(0, len(flat), len(default))]


def _masks(root: Node, length: int, x: Value, build: SiteBuilder) -> list[Value | None]:
    """For each time step which sequences of the batch still run; see `run_direction`."""
    lengths = root.inputs[4] if len(root.inputs) > 4 else None
    if lengths is None:
        return [None] * length
    dtype = x.dtype or "float32"
    stored = lengths.constant
    if stored is not None:
        running = [(stored > time).astype(np.float64)[None, :, None] for time in range(length)]
        return [None if mask.all() else build.constant(mask, dtype) for mask in running]
    # Whole numbers: clip(length - t, 0, 1) is 1 while t < length and 0 afterwards, exactly.
    column = build.op("unsqueeze", build.op("cast", lengths, dtype=dtype), axes=(0, 2))
    rest = [column if t == 0 else build.sub(column, float(t)) for t in range(length)]
    return [build.op("clip", remaining, low=0.0, high=1.0) for remaining in rest]


def _lstm(layer: Layer, root: Node) -> tuple[Value | None, Step]:
    """The cell of Hochreiter and Schmidhuber with peepholes; gates stacked as i, o, f, c."""
    hidden, parameters, build = layer.hidden, layer.parameters, layer.build
    weight = parameters.matrix(2)
    peepholes = [parameters.vector(7, i * hidden, (i + 1) * hidden) for i in range(3)]
    coupled = bool(root.attributes["input_forget"])

    def gates_apart(x: Value, cell: Value | None) -> tuple[Value, Value]:
        raw_input, raw_output, raw_forget, raw_cell = layer.split(x, 1, 1, 1, 1)
        on_input, on_output, on_forget = peepholes
        if on_input is not None and on_forget is not None:
            raw_input = layer.plus(raw_input, layer.times(on_input, cell))
            raw_forget = layer.plus(raw_forget, layer.times(on_forget, cell))
        entry = layer.activate(0, raw_input, "gate")
        if coupled:
            forget = build.rsub(1.0, entry)
        else:
            forget = entry if cell is None else layer.activate(0, raw_forget, "gate")
        candidate = layer.activate(1, raw_cell, "candidate")
        following = layer.plus(build.mul(entry, candidate), layer.times(forget, cell))
        if on_output is not None:
            raw_output = layer.plus(raw_output, layer.times(on_output, following))
        return following, layer.activate(0, raw_output, "gate")

    def gates_together(x: Value, cell: Value | None) -> tuple[Value, Value]:
        # The gates have one activation: one site of three times the width, and fewer nodes.
        raw_gates, raw_cell = layer.split(x, 3, 1)
        entry, exit_, forget = layer.split(layer.activate(0, raw_gates, "gate"), 1, 1, 1)
        candidate = layer.activate(1, raw_cell, "candidate")
        following = layer.plus(build.mul(entry, candidate), layer.times(forget, cell))
        return following, exit_

    gates = gates_apart if coupled or peepholes[0] is not None else gates_together

    def step(x: Value, state: State) -> State:
        total = layer.plus(x, layer.recurrence(state[0], weight))
        cell, exit_ = gates(total, state[1])
        # ONNX Runtime clips what enters the gates, not the cell that leaves through h.
        output = layer.activate(2, cell, "state", clipped=False)
        return build.mul(exit_, output), cell

    return parameters.bias_sum(4, hidden), step


def _gru(layer: Layer, root: Node) -> tuple[Value | None, Step]:
    """The gated recurrent unit (Cho et al., arXiv 1406.1078); gates stacked as z, r, h."""
    hidden, parameters, build = layer.hidden, layer.parameters, layer.build
    linear_first = bool(root.attributes["linear_before_reset"])
    candidate_bias = parameters.vector(3, 5 * hidden, 6 * hidden) if linear_first else None
    gate_weight = parameters.matrix(2, 0, 2 * hidden)
    candidate_weight = parameters.matrix(2, 2 * hidden, 3 * hidden)

    def step(x: Value, state: State) -> State:
        (old,) = state
        raw_gates, raw_candidate = layer.split(x, 2, 1)
        raw_gates = layer.plus(raw_gates, layer.recurrence(old, gate_weight))
        update, reset = layer.split(layer.activate(0, raw_gates, "gate"), 1, 1)
        if linear_first:
            memory = layer.recurrence(old, candidate_weight)
            if memory is not None or candidate_bias is not None:
                memory = build.mul(reset, layer.plus(memory, candidate_bias))
        else:
            memory = layer.recurrence(layer.times(reset, old), candidate_weight)
        candidate = layer.activate(1, layer.plus(raw_candidate, memory), "candidate")
        fresh = build.mul(build.rsub(1.0, update), candidate)
        return (layer.plus(fresh, layer.times(update, old)),)

    return parameters.bias_sum(2 if linear_first else 3, hidden), step


def _rnn(layer: Layer, root: Node) -> tuple[Value | None, Step]:
    """The simple recurrent network (Elman, 1990)."""
    del root
    weight = layer.parameters.matrix(2)

    def step(x: Value, state: State) -> State:
        total = layer.plus(x, layer.recurrence(state[0], weight))
        return (layer.activate(0, total, "state"),)

    return layer.parameters.bias_sum(1, layer.hidden), step


_CELLS: dict[str, Callable[[Layer, Node], tuple[Value | None, Step]]] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn": _rnn,
}


def _results(
    root: Node,
    build: SiteBuilder,
    sequences: list[list[Value]],
    finals: list[State],
    batch_first: bool,
) -> list[Value | None]:
    """Y (time, directions, batch, hidden) and the last states (directions, batch, hidden)."""

    def concat(values: list[Value], axis: int) -> Value:
        return values[0] if len(values) == 1 else build.op("concat", *values, axis=axis)

    results: list[Value | None] = []
    for index, output in enumerate(root.outputs):
        if not (output.is_output or output.consumers):
            results.append(None)
            continue
        if index == 0:
            columns = [build.op("unsqueeze", concat(steps, 0), axes=(1,)) for steps in sequences]
            result, order = concat(columns, 1), [2, 0, 1, 3]
        else:
            states = [state for final in finals if (state := final[index - 1]) is not None]
            result, order = concat(states, 0), [1, 0, 2]
        results.append(build.op("transpose", result, perm=order) if batch_first else result)
    return results
