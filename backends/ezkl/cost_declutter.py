"""What tract makes of a graph before EZKL sees it, as far as it changes what EZKL lays out.

tract rewrites until nothing changes: neutral operands go, x * x is a square, the reciprocal of a
root is one operation, a mean of squares is one operation, slices move up, equal operations merge.
Read in tract at the commit that EZKL 23 is locked to (37132e0), and confirmed on its log.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

import numpy as np

from odp.backends.ezkl.cost_declutter_einsum import absorb_axes, split_over_concat
from odp.backends.ezkl.cost_network import TABLES, Network, Operation

__all__ = ["declutter"]

_NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Pow": 1.0}
_COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min", "And", "Or", "Xor", "Equal"})
# Operations that tract does not compare, so that two equal ones stay two: einsum, reductions,
# concatenations, broadcasts, softmax, selections, comparisons.
_NEVER_MERGED = frozenset(
    {"Const", "Input", "EinSum", "Sum", "ReduceMax", "ReduceMin", "Prod", "MeanOfSquares"}
    | {"Concat", "Broadcast", "Softmax", "Iff", "Gather", "Pad", "Unknown"}
    | {"Less", "LessEqual", "Greater", "GreaterEqual", "Equal"}
)
_UNARY = frozenset({*TABLES, "Abs", "LeakyRelu", "Neg", "Not", "Recip", "Rsqrt", "Sign"}) | {
    "Floor",
    "Sqrt",
    "Square",
}
_NEED_READERS = _UNARY | {"Sum", "Slice"}
_SLICED_THROUGH = frozenset({"Add", "Sub", "Mul", "Max", "Min", "Pow", "And", "Or", "Xor"}) | {
    "EinSum",
    "Concat",
    "Less",
    "LessEqual",
    "Greater",
    "GreaterEqual",
    "Equal",
}


def declutter(network: Network) -> None:
    """Rewrite a network in place."""
    changed = True
    while changed:
        changed = _simplify(network)
        changed |= _slice_up(network)
        changed |= _merge(network)
        changed |= absorb_axes(network)


def _close(a: float, b: float) -> bool:
    # tract's notion of close enough in float32.
    return abs(a - b) <= 1e-7 + 1e-7 * abs(b)


def _simplify(network: Network) -> bool:
    changed = False
    again = True
    while again:
        again = False
        users: dict[int, list[int]] = {}
        for number in network.order():
            if not users and network[number].kind in _NEED_READERS:
                users = network.users()
            if _rewrite(network, number, users):
                users = {}
                again = changed = True
    return changed


def _rewrite(network: Network, number: int, users: dict[int, list[int]]) -> bool:
    operation = network[number]
    kind = operation.kind
    if kind in ("Add", "Sub", "Mul", "Pow", "Max", "Min", "And", "Or", "Xor", "Equal"):
        return _rewrite_binary(network, number)
    if kind == "EinSum":
        return split_over_concat(network, number)
    if kind in _UNARY and network[operation.inputs[0]].kind == "Axes":
        return _before_axes(network, number, users)
    if kind == "Recip":
        return _reciprocal_of_root(network, number, users)
    if kind == "Sum":
        return _mean_of_squares(network, number, users)
    if kind == "Slice":
        start, end, axis = (operation.attributes[k] for k in ("start", "end", "axis"))
        inner = network[operation.inputs[0]]
        if start == 0 and end == inner.shape[axis]:
            network.replace(number, operation.inputs[0])
            return True
        if inner.kind == "Slice" and inner.attributes["axis"] == axis:
            offset = inner.attributes["start"]
            operation.inputs = inner.inputs
            operation.attributes = {"axis": axis, "start": start + offset, "end": end + offset}
            return True
        if inner.kind == "Axes" and inner.attributes["to"][0] == "transpose":
            return _slice_before_transpose(network, number, users)
    if kind == "Cast" and network[operation.inputs[0]].category == operation.category:
        network.replace(number, operation.inputs[0])
        return True
    if kind == "Broadcast" and network[operation.inputs[0]].shape == operation.shape:
        network.replace(number, operation.inputs[0])
        return True
    return False


def _before_axes(network: Network, number: int, users: dict[int, list[int]]) -> bool:
    """Compute element by element first, and rename axes then."""
    operation = network[number]
    axes = network[operation.inputs[0]]
    if len(users.get(operation.inputs[0], [])) != 1:
        return False
    inner = network.add(
        Operation(
            operation.kind,
            axes.inputs,
            network[axes.inputs[0]].shape,
            operation.category,
            operation.source,
            operation.attributes,
        )
    )
    operation.kind, operation.inputs = "Axes", (inner,)
    operation.attributes = dict(axes.attributes)
    return True


def _slice_before_transpose(network: Network, number: int, users: dict[int, list[int]]) -> bool:
    """Slice first and transpose then, where nothing but slices reads the transposed."""
    operation = network[number]
    transposed = operation.inputs[0]
    readers = users.get(transposed, [])
    if transposed in network.outputs or any(network[r].kind != "Slice" for r in readers):
        return False
    inner = network[transposed]
    order = inner.attributes["to"][1]
    start, end, axis = (operation.attributes[k] for k in ("start", "end", "axis"))
    operation.inputs = (network.cut(inner.inputs[0], order[axis], start, end),)
    operation.kind, operation.attributes = "Axes", dict(inner.attributes)
    return True


def _rewrite_binary(network: Network, number: int) -> bool:
    operation = network[number]
    left, right = operation.inputs
    a, b = network[left], network[right]
    for uniform, other, on_the_left in ((a, right, True), (b, left, False)):
        value = uniform.uniform
        if value is None:
            continue
        neutral = _NEUTRAL.get(operation.kind)
        positioned = operation.kind in _COMMUTATIVE or not on_the_left
        whole = network[other].shape == operation.shape
        if neutral is not None and positioned and whole and _close(value, neutral):
            network.replace(number, other)
            return True
        break
    if operation.kind in _COMMUTATIVE and a.elements < b.elements:
        operation.inputs = (right, left)
        return True
    if operation.kind == "Mul":
        if left == right:
            operation.kind, operation.inputs = "Square", (left,)
            return True
        if a.uniform == 0 or b.uniform == 0:
            zero = a if a.uniform == 0 else b
            operation.value = np.zeros(
                operation.shape, (zero.value if zero.value is not None else np.zeros(1)).dtype
            )
            operation.kind, operation.inputs = "Const", ()
            return True
    if operation.kind == "Pow" and b.uniform in (2.0, 0.5):
        operation.kind = "Square" if b.uniform == 2 else "Sqrt"
        operation.inputs = (left,)
        return True
    return False


def _reciprocal_of_root(network: Network, number: int, users: dict[int, list[int]]) -> bool:
    operation = network[number]
    before = operation.inputs[0]
    inner = network[before]
    if network.only_reader(users, before) is None or inner.kind not in ("Sqrt", "Rsqrt"):
        return False
    operation.kind = "Rsqrt" if inner.kind == "Sqrt" else "Sqrt"
    operation.inputs = inner.inputs
    return True


def _mean_of_squares(network: Network, number: int, users: dict[int, list[int]]) -> bool:
    operation = network[number]
    square = operation.inputs[0]
    if network[square].kind != "Square" or network.only_reader(users, square) is None:
        return False
    product = network.only_reader(users, number)
    if product is None or network[product].kind != "Mul":
        return False
    factor = next((i for i in network[product].inputs if i != number), None)
    if factor is None:
        return False
    shape = network[square].shape
    norm = 1.0 / math.prod(shape[axis] for axis in operation.attributes["axes"])
    value = network[factor].uniform
    if value is None or not _close(value, norm) or network[product].shape != operation.shape:
        return False
    mean = network[product]
    mean.kind, mean.inputs = "MeanOfSquares", network[square].inputs
    mean.attributes = dict(operation.attributes)
    return True


def _slice_up(network: Network) -> bool:
    """Slice the operands instead of the result where nothing but slices reads the result."""
    users = network.users()
    for number in network.order():
        operation = network[number]
        readers = users[number]
        if operation.kind not in _SLICED_THROUGH or not readers:
            continue
        first = network[readers[0]]
        if first.kind != "Slice":
            continue
        axis = first.attributes["axis"]
        slices = [network[r] for r in readers]
        if any(s.kind != "Slice" or s.attributes["axis"] != axis for s in slices):
            continue
        bounds = sorted(
            {s.attributes[k] for s in slices for k in ("start", "end")} | {operation.shape[axis]}
        )
        bounds = [b for b in bounds if b > 0]
        if bounds == [operation.shape[axis]]:
            continue
        pieces = _pieces(network, operation, axis, bounds)
        if pieces is None:
            continue
        for reader in dict.fromkeys(readers):
            _rewire(network, reader, bounds, pieces)
        if number in network.outputs:
            # An output that is sliced is put together again.
            operation.kind, operation.inputs = "Concat", tuple(pieces)
            operation.attributes = {"axis": axis}
        return True
    return False


def _pieces(
    network: Network, operation: Operation, axis: int, bounds: list[int]
) -> list[int] | None:
    """The parts of a result between bounds, each computed from slices of the operands."""
    pieces = []
    start = 0
    for end in bounds:
        shape = tuple(end - start if i == axis else n for i, n in enumerate(operation.shape))
        if operation.kind == "Concat" and operation.attributes["axis"] == axis:
            piece = _part_of_concat(network, operation, axis, start, end)
            if piece is None:
                return None
        else:
            operands = tuple(
                _slice_operand(network, operation, i, axis, start, end)
                for i in range(len(operation.inputs))
            )
            piece = network.add(
                Operation(
                    operation.kind,
                    operands,
                    shape,
                    operation.category,
                    operation.source,
                    dict(operation.attributes),
                )
            )
        pieces.append(piece)
        start = end
    return pieces


def _part_of_concat(
    network: Network, operation: Operation, axis: int, start: int, end: int
) -> int | None:
    offset = 0
    for operand in operation.inputs:
        size = network[operand].shape[axis]
        if offset <= start and end <= offset + size:
            return network.cut(operand, axis, start - offset, end - offset)
        offset += size
    return None


def _slice_operand(
    network: Network, operation: Operation, index: int, axis: int, start: int, end: int
) -> int:
    operand = operation.inputs[index]
    if operation.kind == "EinSum":
        equation: str = operation.attributes["equation"]
        operands, output = equation.split("->")
        position = operands.split(",")[index].find(output[axis])
        if position < 0:
            return operand
    else:
        position = axis
    if network[operand].shape[position] == 1:
        return operand
    return network.cut(operand, position, start, end)


def _rewire(network: Network, reader: int, bounds: list[int], pieces: list[int]) -> None:
    slice_ = network[reader]
    low, high = slice_.attributes["start"], slice_.attributes["end"]
    wanted = [p for up, p in zip(bounds, pieces, strict=True) if low < up <= high]
    if len(wanted) == 1:
        network.replace(reader, wanted[0])
        return
    slice_.kind, slice_.inputs = "Concat", tuple(wanted)
    slice_.attributes = {"axis": slice_.attributes["axis"]}


def _merge(network: Network) -> bool:
    """Merge operations that read the same and do the same."""
    changed = False
    seen: dict[Hashable, int] = {}
    for number in network.order():
        operation = network[number]
        if operation.kind in _NEVER_MERGED or not operation.inputs:
            continue
        key = (
            operation.kind,
            operation.inputs,
            operation.shape,
            tuple(sorted((k, str(v)) for k, v in operation.attributes.items())),
        )
        other = seen.setdefault(key, number)
        if other != number and not {other, number} <= set(network.outputs):
            network.replace(number, other)
            changed = True
    return changed
