"""From labelled operations to rows: each one is laid out on a region that counts."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from odp.backends.ezkl import cost_operations as layouts
from odp.backends.ezkl.cost_einsum import Einsum, lay_out_einsum
from odp.backends.ezkl.cost_labels import Labelled, label_network, quantise
from odp.backends.ezkl.cost_network import TABLES, Network
from odp.backends.ezkl.cost_region import Region
from odp.backends.ezkl.cost_report import NodeCost, Unknown
from odp.backends.ezkl.run_arguments import RunArguments

__all__ = ["lay_out"]

_PAIRWISE = frozenset({"Add", "Sub", "Mul"})
# No cell is written for these: EZKL only looks at the same cells in another order.
_FREE = frozenset({"Axes", "Concat", "Gather", "Pad"})


def lay_out(
    network: Network, arguments: RunArguments
) -> tuple[Region, list[NodeCost], list[Unknown], list[int]]:
    """Lay a network out.

    Returns:
        The region, the cost of each operation, what could not be laid out, the outputs' labels.
    """
    region = Region.of(arguments)
    entries = label_network(network, arguments)
    by_number = {entry.number: entry for entry in entries}
    nodes: list[NodeCost] = []
    unknown: list[Unknown] = []
    for entry in entries:
        before = region.coordinate
        tables = set(region.lookups)
        region.shape = entry.operation.shape
        rescale = 0
        try:
            _lay_out_entry(region, entry, by_number, arguments)
            middle = region.coordinate
            layouts.divide(region, entry.operation.elements, entry.divisor)
            rescale = region.coordinate - middle
        except ValueError as error:
            unknown.append(Unknown(entry.operation.source, str(error)))
        added = sorted(region.lookups - tables)
        # A table that an earlier operation already needs is named all the same.
        table = TABLES.get(entry.form) or (added[0].name if added else None)
        nodes.append(_cost(entry, region, region.coordinate - before, rescale, table))
    labels = []
    for number in network.outputs:
        entry = by_number[number]
        labels.append(entry.label)
        if arguments.output_visibility in ("public", "fixed"):
            nodes.append(_output(region, entry, arguments))
    return region, nodes, unknown, labels


def _cost(entry: Labelled, region: Region, cells: int, rescale: int, table: str | None) -> NodeCost:
    operation = entry.operation
    return NodeCost(
        name=operation.source.name,
        op_type=operation.source.op_type,
        module_path=operation.source.module_path,
        operation=entry.form,
        rows=cells / region.columns,
        rescale_rows=rescale / region.columns,
        elements=operation.elements,
        shape=operation.shape,
        labels_in=entry.labels_in,
        label_before=entry.label_before,
        label_after=entry.label,
        table=table,
    )


def _output(region: Region, entry: Labelled, arguments: RunArguments) -> NodeCost:
    operation = entry.operation
    before = region.coordinate
    region.shape = operation.shape
    if arguments.param_visibility == "fixed":
        _write(region, entry)
    layouts.output(region, operation.elements, not arguments.ignore_range_check_inputs_outputs)
    return NodeCost(
        name=operation.source.name,
        op_type="Output",
        module_path=operation.source.module_path,
        operation="Output",
        rows=(region.coordinate - before) / region.columns,
        rescale_rows=0.0,
        elements=operation.elements,
        shape=operation.shape,
        labels_in=(entry.label,),
        label_before=entry.label,
        label_after=entry.label,
    )


def _lay_out_entry(
    region: Region, entry: Labelled, by_number: dict[int, Labelled], arguments: RunArguments
) -> None:
    operation = entry.operation
    form, n = entry.form, operation.elements
    if form == "Const":
        _constant(region, entry, arguments)
        return
    if form == "Input":
        if operation.category == "bool":
            region.boolean(n)
        elif arguments.ignore_range_check_inputs_outputs:
            region.advance(n)
        else:
            region.decompose(n)
        return
    if form not in _FREE and arguments.param_visibility == "fixed":
        for number in entry.operands:
            _write(region, by_number[number])
    for number, factor in zip(entry.operands, entry.multipliers, strict=True):
        if factor > 1:
            layouts.rescale_up(region, by_number[number].operation.elements, factor)
    rule = _RULES.get(form)
    if form in _FREE:
        return
    if form in _PAIRWISE:
        region.pairwise(n)
    elif form in TABLES:
        region.lookup(n, TABLES[form], **_table_parameters(entry))
    elif rule is not None:
        rule(region, entry, [by_number[o] for o in entry.operands], arguments)
    else:
        raise ValueError(f"no rule for {operation.source.op_type or form}")


def _table_parameters(entry: Labelled) -> dict[str, float]:
    parameters = {"scale": 2.0 ** entry.labels_in[0]}
    if entry.form == "Exp":
        parameters["base"] = float(np.float32(math.e))
    return parameters


def _write(region: Region, entry: Labelled) -> None:
    value = entry.operation.value
    if entry.operation.kind == "Const" and value is not None:
        region.write_constants(np.unique(quantise(value, entry.label)))


def _constant(region: Region, entry: Labelled, arguments: RunArguments) -> None:
    # A constant with one reader is written where it is read. One with several is written on its
    # own, and EZKL passes the flag about inputs and outputs on upside down: with their range
    # checks ignored, shared constants are range-checked.
    if entry.uses == 1:
        return
    if arguments.param_visibility == "fixed":
        _write(region, entry)
    if arguments.ignore_range_check_inputs_outputs:
        region.decompose(entry.operation.elements)
    else:
        region.advance(entry.operation.elements)


Rule = Callable[[Region, Labelled, list[Labelled], RunArguments], None]


def _n(entry: Labelled) -> int:
    return entry.operation.elements


def _slices(entry: Labelled, operands: list[Labelled]) -> tuple[int, int]:
    """Number and length of what a reduction reduces."""
    axes = entry.operation.attributes["axes"]
    shape = operands[0].operation.shape
    length = math.prod(shape[axis] for axis in axes)
    return operands[0].operation.elements // max(length, 1), length


def _scales(entry: Labelled, arguments: RunArguments) -> tuple[float, float]:
    label = entry.labels_in[0]
    return 2.0**label, 2.0 ** max(arguments.input_scale, arguments.param_scale, label)


def _einsum(
    region: Region, entry: Labelled, operands: list[Labelled], arguments: RunArguments
) -> None:
    shapes = tuple(operand.operation.shape for operand in operands)
    lay_out_einsum(region, Einsum.of(entry.operation.attributes["equation"], shapes))


def _power(
    region: Region, entry: Labelled, operands: list[Labelled], arguments: RunArguments
) -> None:
    exponent = entry.parameters.get("exponent")
    if exponent is None:
        raise ValueError("a power of a variable by a variable")
    if exponent < 1:
        # EZKL takes the exponent as unsigned: x ** -1 would come out as x.
        raise ValueError(f"exponent {exponent:g}: EZKL computes the wrong thing without a word")
    region.pairwise(_n(entry) * (int(exponent) - 1))


def _power_table(
    region: Region, entry: Labelled, operands: list[Labelled], arguments: RunArguments
) -> None:
    scale = 2.0 ** entry.labels_in[0]
    region.lookup(_n(entry), "Pow", scale=scale, a=entry.parameters["exponent"])


def _exponential(
    region: Region, entry: Labelled, operands: list[Labelled], arguments: RunArguments
) -> None:
    scale = 2.0 ** entry.labels_in[0]
    region.lookup(_n(entry), "Exp", scale=scale, base=entry.parameters["base"])


def _softmax(
    region: Region, entry: Labelled, operands: list[Labelled], arguments: RunArguments
) -> None:
    length = entry.operation.shape[entry.operation.attributes["axis"]]
    count = _n(entry) // length
    layouts.softmax(region, count, length, *_scales(entry, arguments))


def _extreme(
    region: Region, entry: Labelled, operands: list[Labelled], arguments: RunArguments
) -> None:
    count, length = _slices(entry, operands)
    layouts.reduce_slices(region, count, length, lambda n: layouts.maximum(region, n))


def _product(
    region: Region, entry: Labelled, operands: list[Labelled], arguments: RunArguments
) -> None:
    count, length = _slices(entry, operands)
    layouts.reduce_slices(region, count, length, lambda n: region.accumulate(n, "CumProd"))


def _sum(
    region: Region, entry: Labelled, operands: list[Labelled], arguments: RunArguments
) -> None:
    count, length = _slices(entry, operands)
    layouts.reduce_slices(region, count, length, region.sum)


def _choose(
    region: Region, entry: Labelled, operands: list[Labelled], arguments: RunArguments
) -> None:
    mask, a, b = (operand.operation.shape for operand in operands)
    region.constants.add(1.0)
    region.boolean(math.prod(mask))
    region.pairwise(math.prod(mask))
    for branch in (a, b):
        region.pairwise(math.prod(np.broadcast_shapes(branch, mask)))
    region.pairwise(_n(entry))


def _greater_equal(
    region: Region, entry: Labelled, operands: list[Labelled], arguments: RunArguments
) -> None:
    left = operands[0 if entry.form == "GreaterEqual" else 1]
    region.greater_equal(_n(entry), left.operation.elements)


def _exclusive(
    region: Region, entry: Labelled, operands: list[Labelled], arguments: RunArguments
) -> None:
    for operand in operands:
        region.invert(operand.operation.elements)
    region.both(_n(entry))
    region.both(_n(entry))
    region.pairwise(_n(entry))


_RULES: dict[str, Rule] = {
    "Abs": lambda r, e, o, a: r.abs(_n(e)),
    "And": lambda r, e, o, a: r.both(_n(e)),
    "Broadcast": lambda r, e, o, a: r.advance(_n(e)),
    "EinSum": _einsum,
    "Equal": lambda r, e, o, a: r.equals(_n(e)),
    "Exponential": _exponential,
    "Floor": lambda r, e, o, a: layouts.floor(r, _n(e), 2.0 ** e.labels_in[0]),
    "Greater": lambda r, e, o, a: r.greater(_n(e)),
    "GreaterEqual": _greater_equal,
    "Identity": lambda r, e, o, a: r.advance(_n(e)),
    "Iff": _choose,
    "LeakyRelu": lambda r, e, o, a: layouts.leaky_rectify(
        r, _n(e), e.operation.attributes["slope"], a.param_scale
    ),
    "Less": lambda r, e, o, a: r.greater(_n(e)),
    "LessEqual": _greater_equal,
    "Max": lambda r, e, o, a: layouts.larger(r, _n(e)),
    "MeanOfSquares": lambda r, e, o, a: layouts.reduce_squares(r, *_slices(e, o)),
    "Min": lambda r, e, o, a: layouts.larger(r, _n(e)),
    "Neg": lambda r, e, o, a: layouts.negate(r, _n(e)),
    "Not": lambda r, e, o, a: r.invert(_n(e)),
    "Or": lambda r, e, o, a: r.either(_n(e)),
    "Pow": _power,
    "PowerTable": _power_table,
    "Prod": _product,
    "Recip": lambda r, e, o, a: layouts.reciprocal(r, _n(e), *_scales(e, a)),
    "Rectify": lambda r, e, o, a: layouts.rectify(r, _n(e)),
    "ReduceMax": _extreme,
    "ReduceMin": _extreme,
    "Rsqrt": lambda r, e, o, a: layouts.reciprocal_root(r, _n(e), *_scales(e, a)),
    "Sign": lambda r, e, o, a: r.sign(_n(e)),
    "Slice": lambda r, e, o, a: r.advance(_n(o[0])),
    "Softmax": _softmax,
    "Sqrt": lambda r, e, o, a: layouts.square_root(r, _n(e), 2.0 ** e.labels_in[0]),
    "Square": lambda r, e, o, a: r.pairwise(_n(e)),
    "Sum": _sum,
    "Xor": _exclusive,
}
