"""What tract does to matrix products: axes are absorbed, sums over a concatenation are split."""

from __future__ import annotations

import string

from odp.backends.ezkl.cost_network import Network, Operation

__all__ = ["absorb_axes", "split_over_concat"]


def split_over_concat(network: Network, number: int) -> bool:
    """Turn a sum over a concatenated axis into a sum of products: [a, b] W = a W1 + b W2.

    At EZKL's defaults each of these products is rescaled, so it doubles the cost.
    """
    operation = network[number]
    equation: str = operation.attributes["equation"]
    operands, output = equation.split("->")
    axes_of = operands.split(",")
    for index, operand in enumerate(operation.inputs):
        concat = network[operand]
        if concat.kind != "Concat":
            continue
        axis = axes_of[index][concat.attributes["axis"]]
        if axis in output or any(axes.count(axis) > 1 for axes in axes_of):
            continue
        sizes = [network[i].shape[concat.attributes["axis"]] for i in concat.inputs]
        parts = []
        start = 0
        for size in sizes:
            cut = tuple(
                network.cut(o, axes.index(axis), start, start + size) if axis in axes else o
                for o, axes in zip(operation.inputs, axes_of, strict=True)
            )
            parts.append(
                network.add(
                    Operation(
                        "EinSum",
                        cut,
                        operation.shape,
                        operation.category,
                        operation.source,
                        {"equation": equation},
                    )
                )
            )
            start += size
        total = parts[0]
        for part in parts[1:]:
            total = network.add(
                Operation(
                    "Add",
                    (total, part),
                    operation.shape,
                    operation.category,
                    operation.source,
                )
            )
        network.replace(number, total)
        return True
    return False


def absorb_axes(network: Network) -> bool:
    """Let a matrix product read and write its axes in any order, and with axes of size 1.

    What only renames axes costs nothing by itself, but a label above the threshold is rescaled at
    the first operation that meets it, and that is no longer the one that is gone. The order of
    axes is also the order in which Freivalds' algorithm combines them.
    """
    users = network.users()
    for number in network.order():
        operation = network[number]
        if operation.kind != "EinSum":
            continue
        left, output = operation.attributes["equation"].split("->")
        operands = left.split(",")
        reader = network.only_reader(users, number)
        if reader is not None:
            after = _after(network[reader], operation, output, left)
            if after is not None:
                network[reader].attributes = {"equation": f"{left}->{after}"}
                network[reader].kind, network[reader].inputs = "EinSum", operation.inputs
                return True
        for index, operand in enumerate(operation.inputs):
            if network.only_reader(users, operand) is None:
                continue
            before = _before(network, operand, operands[index], left + output)
            if before is None:
                continue
            operands[index] = before
            operation.attributes = {"equation": f"{','.join(operands)}->{output}"}
            operation.inputs = tuple(
                network[operand].inputs[0] if i == index else o
                for i, o in enumerate(operation.inputs)
            )
            return True
    return False


def _after(axes: Operation, product: Operation, output: str, taken: str) -> str | None:
    """The axes of a product's result when what follows is part of the product."""
    if axes.kind != "Axes":
        return None
    how, target = axes.attributes["to"]
    if how == "transpose":
        return "".join(output[axis] for axis in target)
    # A new axis of size 1 in a result is a letter that no operand has.
    return _renamed(product.shape, target, output, taken + output)


def _before(network: Network, operand: int, letters: str, taken: str) -> str | None:
    """The axes of an operand when what precedes is part of the product."""
    axes = network[operand]
    if axes.kind != "Axes":
        return None
    how, target = axes.attributes["to"]
    if how == "transpose":
        # The axis at position i was at target[i] before.
        return "".join(axis for _, axis in sorted(zip(target, letters, strict=True)))
    return _renamed(target, network[axes.inputs[0]].shape, letters, taken)


def _renamed(old: tuple[int, ...], new: tuple[int, ...], letters: str, taken: str) -> str | None:
    """Letters for a shape that differs in axes of size 1; None where it differs in others."""
    kept = [letter for letter, size in zip(letters, old, strict=True) if size > 1]
    if [size for size in old if size > 1] != [size for size in new if size > 1]:
        return None
    free = iter(letter for letter in string.ascii_letters if letter not in taken)
    names = iter(kept)
    return "".join(next(names) if size > 1 else next(free) for size in new)
