"""The columns of a circuit: what keys, proofs and memory are made of.

A port of what EZKL's `configure` and halo2's keygen do: three groups of advice columns for the
operations, three more for sorting, six for Freivalds' algorithm; fixed columns for constants,
tables and selectors, of which halo2 packs simple ones together. The degree of the constraints
decides how far polynomials are extended: 4 times at degree 5, 8 times from 6 to 9 (sorting, or 4
inner columns), 16 times from 10 (8 inner columns).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from odp.backends.ezkl.cost_region import Region
from odp.backends.ezkl.run_arguments import RunArguments

__all__ = ["Columns", "columns_of", "commitment_columns", "table_columns"]

# Rows that halo2 needs for itself at the end of each column, and that EZKL reserves in tables.
_BLINDING = 6
_TABLE_RESERVE = 8


@dataclass(frozen=True)
class Columns:
    """What a circuit consists of.

    Attributes:
        advice: columns of the witness.
        instance: columns of public values.
        fixed: columns of constants, tables and packed selectors.
        selectors: before packing; the verifying key holds a bit for each row of each.
        permuted: columns in the permutation argument.
        lookups: lookup arguments.
        degree: of the constraints.
        advice_queries: evaluations of advice columns in a proof.
    """

    advice: int
    instance: int
    fixed: int
    selectors: int
    permuted: int
    lookups: int
    degree: int
    advice_queries: int

    @property
    def extension(self) -> int:
        """By what power of two the domain grows for the quotient."""
        return 1 << math.ceil(math.log2(self.degree - 1))

    @property
    def permutation_products(self) -> int:
        """Columns of running products of the permutation argument."""
        return math.ceil(self.permuted / (self.degree - 2))


@dataclass(frozen=True)
class _Selector:
    group: str
    gate: str
    block: int
    column: int
    degree: int
    used: bool


def columns_of(
    region: Region,
    arguments: RunArguments,
    logrows: int,
    instances: int,
    committed: Sequence[int] = (),
) -> Columns:
    """Work the columns of a circuit out.

    Args:
        region: after layout.
        arguments: the settings.
        logrows: log2 of the rows.
        instances: public values.
        committed: elements of each tensor that is committed to, in columns of its own.
    """
    inner = region.columns
    # EZKL makes the column of public values where anything is committed to, too.
    instance = 1 if instances or committed else 0
    usable = (1 << logrows) - _BLINDING
    blocks = _blocks(region.coordinate, usable * inner)
    dynamic = _blocks(region.shuffle_cells, usable) if region.shuffles else 0
    einsum = _blocks(region.einsum_capacity, usable * inner) if region.einsum_cells else 0
    advice = 3 * inner * blocks + 3 * dynamic + 6 * inner * einsum
    advice += sum(commitment_columns(size, logrows) for size in committed)
    constants = _blocks(len(region.constants), usable) if region.constants else 0
    low, high = arguments.lookup_range
    wide = table_columns(high - low, logrows)
    ranges = [table_columns(b - a, logrows) for a, b in region.range_checks]
    tables = (wide * (1 + len(region.lookups)) if region.lookups else 0) + sum(ranges)
    # One selector for each inner column, table and range check; those of lookups stay as they are.
    places = blocks * inner
    complex_ = places * (len(region.lookups) + len(ranges)) + dynamic * (1 + places)
    simple, wasted = _simple_selectors(region, inner, blocks, einsum)
    arguments_ = [wide] * len(region.lookups) * wide + [n for n in ranges for _ in range(n)]
    degree = _degree(arguments_, inner, bool(dynamic), bool(einsum))
    # Inputs of one table share an argument as far as the degree allows.
    lookups = sum(_chunks(places, 1, width + 1, degree) for width in arguments_)
    lookups += dynamic * _chunks(places, 2, 2, degree)
    return Columns(
        advice=advice,
        instance=instance,
        fixed=constants + tables + complex_ + wasted + _packed(simple, degree),
        selectors=complex_ + wasted + len(simple),
        permuted=advice + instance + constants,
        lookups=lookups,
        degree=degree,
        advice_queries=advice + blocks + 2 * einsum,
    )


def commitment_columns(elements: int, logrows: int) -> int:
    """Columns of a tensor that is committed to."""
    return math.ceil(elements / ((1 << logrows) - _BLINDING))


def table_columns(length: int, logrows: int) -> int:
    """Columns over which a table with these many entries is spread."""
    return length // max((1 << logrows) - _TABLE_RESERVE, 1) + 1


def _blocks(cells: int, size: int) -> int:
    """Blocks of columns for these many cells, with room for what is written twice at the seams."""
    blocks = cells // size + 1
    return (cells + blocks) // size + 1


def _degree(tables: list[int], inner: int, sorts: bool, einsums: bool) -> int:
    # A product over all inner columns, with what was before and a selector.
    degree = max(3, inner + 2)
    # A table over several columns is chosen by a polynomial in the column's index.
    for width in tables:
        degree = max(degree, 3 + width + 1, width + 1)
    # Both sides of a permutation carry a selector.
    return max(degree, 6) if sorts else degree


def _chunks(inputs: int, table_degree: int, input_degree: int, degree: int) -> int:
    """Lookup arguments for the inputs of one table, as many in each as the degree allows."""
    base = max(3, table_degree + 2)
    room = max(1, (degree - base) // input_degree)
    return math.ceil(inputs / room)


def _simple_selectors(
    region: Region, inner: int, blocks: int, einsum: int
) -> tuple[list[_Selector], int]:
    """Selectors of gates in halo2's order, and selectors that EZKL makes and never uses."""
    simple: list[_Selector] = []
    sums = (("DotInit", 3), ("Dot", 3), ("CumProd", inner + 2), ("CumProdInit", inner + 1),
            ("Sum", 2), ("SumInit", 2))  # fmt: skip
    for block in range(blocks):
        for column in range(inner):
            for gate, degree in (("Add", 2), ("Sub", 2), ("Mult", 3)):
                simple.append(_Selector("main", gate, block, column, degree, True))
    for block in range(blocks):
        for gate, degree in sums:
            simple.append(_Selector("main", gate, block, 0, degree, gate in region.gates))
    wasted = 0
    for phases in ("first", "mixed", "second") if einsum else ():
        used = phases == "second"
        for block in range(einsum):
            for column in range(inner):
                gate = f"Mult {phases}"
                simple.append(_Selector("einsum", gate, block, column, 3, phases == "first"))
            # EZKL makes the selectors of dot products once for every block, and keeps the last.
            for inside in range(einsum):
                if block < einsum - 1:
                    wasted += 2
                    continue
                for gate in (f"DotInit {phases}", f"Dot {phases}"):
                    simple.append(_Selector("einsum", gate, inside, 0, 3, used))
    products = (("SumInit", 2), ("Sum", 2), ("CumProdInit", inner + 1), ("CumProd", inner + 2))
    for phase in ("first", "second") if einsum else ():
        for block in range(einsum):
            for gate, degree in products:
                used = phase == "second" and gate == "CumProdInit"
                simple.append(_Selector("einsum", f"{gate} {phase}", block, 0, degree, used))
    for axis in range(region.einsum_axes if einsum else 0):
        for phase in ("first", "second"):
            for block in range(einsum):
                for gate in (f"{axis} {phase} init", f"{axis} {phase} next"):
                    simple.append(_Selector("einsum", gate, block, 0, 2, axis < 2))
    return simple, wasted


def _conflict(a: _Selector, b: _Selector) -> bool:
    """Whether two selectors are on in one row."""
    if not (a.used and b.used):
        return False
    if a.group != b.group or a.block != b.block:
        return True
    cells = ("Add", "Sub", "Mult")
    by_cell = a.gate.startswith(cells) and b.gate.startswith(cells)
    return by_cell and a.column != b.column


def _packed(selectors: list[_Selector], degree: int) -> int:
    """Columns that halo2 packs simple selectors into: greedily, in order, up to the degree."""
    left = list(selectors)
    columns = 0
    while left:
        group, rest = [left[0]], []
        highest = left[0].degree - 1
        for place, selector in enumerate(left[1:], 1):
            if highest + len(group) + 1 > degree:
                rest += left[place:]
                break
            together = max(highest, selector.degree - 1)
            if together + len(group) + 1 > degree or any(_conflict(selector, g) for g in group):
                rest.append(selector)
                continue
            group.append(selector)
            highest = together
        left = rest
        columns += 1
    return columns
