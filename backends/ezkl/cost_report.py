"""What a prediction says: costs of nodes, totals of the circuit, resources."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from odp.backends.ezkl.cost_columns import Columns
from odp.backends.ezkl.cost_network import Source
from odp.backends.ezkl.cost_region import Table
from odp.backends.ezkl.run_arguments import RunArguments

__all__ = ["CostReport", "NodeCost", "Resources", "Unknown"]


@dataclass(frozen=True)
class NodeCost:
    """What one operation of the circuit costs.

    Attributes:
        name: of the ONNX node, or of an input or output.
        op_type: as in ONNX; "Input" and "Output" for the checks of these.
        module_path: of the torch module, where the exporter wrote it down.
        operation: what EZKL makes of the node; one ONNX node can be several operations.
        rows: rows, in steps of one cell (1 / num_inner_cols).
        rescale_rows: how many of these are a division by EZKL.
        elements: of the output.
        shape: of the output.
        labels_in: bits after the point of the operands.
        label_before: bits after the point of the result as computed.
        label_after: the same after a rescale.
        table: name of the table of a function, if one is needed.
    """

    name: str
    op_type: str
    module_path: str
    operation: str
    rows: float
    rescale_rows: float
    elements: int
    shape: tuple[int, ...]
    labels_in: tuple[int, ...]
    label_before: int
    label_after: int
    table: str | None = None

    @property
    def rescaled_bits(self) -> int:
        """Bits that EZKL divides away; 0 where it does not."""
        return self.label_before - self.label_after


@dataclass(frozen=True)
class Unknown:
    """An operation that is not in the totals.

    Attributes:
        source: the ONNX node.
        reason: why it is unknown.
    """

    source: Source
    reason: str


@dataclass(frozen=True)
class Resources:
    """What proving takes at one number of rows.

    Sizes follow from the columns of the circuit; memory and time are fitted to measurements, and
    times are those of one machine (2 shared cores of a server), good for comparing circuits.

    Attributes:
        logrows: log2 of the rows.
        columns: of the circuit.
        proving_key: bytes of the file.
        verifying_key: bytes of the file.
        proof: bytes of the proof itself.
        proof_file: bytes of EZKL's JSON file, with the proof twice and the public values.
        setup_memory: peak resident bytes of `setup`.
        proof_memory: peak resident bytes of `prove`.
        setup_seconds: of `setup`, machine-dependent.
        proof_seconds: of `prove`, machine-dependent.
    """

    logrows: int
    columns: Columns
    proving_key: int
    verifying_key: int
    proof: int
    proof_file: int
    setup_memory: int
    proof_memory: int
    setup_seconds: float
    proof_seconds: float

    @property
    def peak_memory(self) -> int:
        """Bytes that have to be there for both."""
        return max(self.setup_memory, self.proof_memory)


@dataclass(frozen=True)
class CostReport:
    """What `gen_settings` will say about a model, and what that means.

    Attributes:
        arguments: the settings that were assumed.
        nodes: in the order of the circuit.
        rows: of the main columns, as `num_rows` of the settings.
        assignments: cells of the main columns, as `total_assignments`.
        constants: distinct constants, as `total_const_size`.
        einsum_cells: cells of Freivalds' columns, as `total_einsum_col_size`.
        shuffles: permutation arguments.
        shuffle_cells: cells of their columns.
        lookups: tables of functions.
        range_checks: intervals of range checks.
        instances: public values.
        logrows: log2 of the rows that `calibrate` would choose at the lookup range that is given.
            More or fewer work too: what does not fit goes to further columns.
        output_labels: bits after the point of each output.
        unknown: what is missing from all of this.
        resources: at these logrows, or at those that were asked for.
        alternatives: at other numbers of rows; the least memory is not always at the fewest.
    """

    arguments: RunArguments
    nodes: tuple[NodeCost, ...]
    rows: int
    assignments: int
    constants: int
    einsum_cells: int
    shuffles: int
    shuffle_cells: int
    lookups: tuple[Table, ...]
    range_checks: tuple[tuple[int, int], ...]
    instances: int
    logrows: int
    output_labels: tuple[int, ...]
    unknown: tuple[Unknown, ...]
    resources: Resources
    alternatives: tuple[Resources, ...]

    @property
    def table_entries(self) -> int:
        """Entries of all tables of functions together."""
        low, high = self.arguments.lookup_range
        return len(self.lookups) * (high - low + 1)

    def summary(self) -> dict[str, int]:
        """What a manifest says of it: rows, their log2, and bytes of key and memory."""
        return {
            "rows": self.rows,
            "logrows": self.resources.logrows,
            "proving_key": self.resources.proving_key,
            "peak_memory": self.resources.peak_memory,
        }

    @property
    def rescale_rows(self) -> float:
        """Rows that are divisions by EZKL."""
        return sum(node.rescale_rows for node in self.nodes)

    @property
    def rescaled_elements(self) -> int:
        """Elements that EZKL divides."""
        return sum(node.elements for node in self.nodes if node.rescaled_bits > 0)

    def rows_by_operation(self) -> dict[str, float]:
        """Rows by what EZKL does, rescales apart; the largest first."""
        rows: Counter[str] = Counter()
        for node in self.nodes:
            rows[node.operation] += node.rows - node.rescale_rows  # type: ignore[assignment]
            if node.rescale_rows:
                rows["rescale"] += node.rescale_rows  # type: ignore[assignment]
        return dict(sorted(rows.items(), key=lambda item: -item[1]))
