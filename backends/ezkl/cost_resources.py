"""From columns to bytes and seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from odp.backends.ezkl.cost_columns import Columns, columns_of, table_columns
from odp.backends.ezkl.cost_region import Region
from odp.backends.ezkl.cost_report import Resources
from odp.backends.ezkl.run_arguments import RunArguments

__all__ = ["calibrated_logrows", "estimate_resources"]

# EZKL's own limits: at least 2 ** 6 rows, at most what the public ceremony supports.
_SMALLEST, _LARGEST = 6, 26
_MOST_TABLE_COLUMNS = 12
_RESERVED = 8

# Fitted to 30 setups and proofs from 2 ** 13 to 2 ** 19 rows: bytes of a process that does
# nothing, the proving key with what makes it, extended columns of a proof that live at one time.
_PROCESS = 60e6
_SETUP_MEMORY = 1.35
_PROOF_MEMORY = 1.8
# Seconds for a cell of a column: commitments, and transforms for each time it is extended. On 2
# shared cores; other machines differ by a factor, the same for all circuits.
_SETUP_TIME = (3.0e-6, 0.5e-6)
_PROOF_TIME = (5.1e-6, 0.45e-6)


def _bits(count: float) -> int:
    return math.ceil(math.log2(count)) if count > 0 else 0


def calibrated_logrows(region: Region, arguments: RunArguments, instances: int) -> int:
    """Work out what `calibrate` would set at this lookup range.

    Rows, the largest table, constants and Freivalds' cells all have to fit; constants and cells
    are spread over the inner columns.
    """
    inner = region.columns
    low, high = arguments.lookup_range if region.lookups else (0, 0)
    widest = max([high - low, *(b - a for a, b in region.range_checks)], default=0)
    smallest = max(_SMALLEST, _bits(max(instances, 2)), _bits(region.shuffle_cells))
    wanted = max(
        _bits(region.rows + _RESERVED),
        _bits(widest + _RESERVED + 1),
        _bits(len(region.constants) / inner),
        _bits(region.einsum_cells / inner),
    )
    logrows = max(smallest, min(wanted, _LARGEST))
    while logrows > smallest and table_columns(widest, logrows) > _MOST_TABLE_COLUMNS:
        logrows -= 1
    return logrows


def proving_key_bytes(columns: Columns, logrows: int) -> int:
    """Size of the proving key: values, coefficients and extended values of each fixed column."""
    each = 2 + columns.extension
    polynomials = each * (columns.fixed + columns.permuted) + 3 * columns.extension
    return verifying_key_bytes(columns, logrows) + (polynomials << (logrows + 5))


def verifying_key_bytes(columns: Columns, logrows: int) -> int:
    """Size of the verifying key: commitments, and selectors as they were, a bit for each row."""
    return 7 + 64 * (columns.fixed + columns.permuted) + (columns.selectors << logrows) // 8


def proof_bytes(columns: Columns) -> int:
    """Size of a proof: points of 64 bytes, evaluations of 32."""
    products = columns.permutation_products
    points = columns.advice + 2 * columns.lookups + products + columns.degree - 1 + 1 + 2
    evaluations = (
        columns.advice_queries
        + columns.fixed
        + 1
        + columns.permuted
        + 3 * products
        - 1
        + 3 * columns.lookups
    )
    return 64 * points + 32 * evaluations


def estimate_resources(
    region: Region,
    arguments: RunArguments,
    instances: int,
    logrows: int,
    committed: Sequence[int] = (),
) -> Resources:
    """Estimate what setup and proof take.

    Args:
        region: after layout.
        arguments: the settings.
        instances: public values.
        logrows: log2 of the rows.
        committed: elements of each tensor that is committed to.
    """
    columns = columns_of(region, arguments, logrows, instances, committed)
    rows = 1 << logrows
    key = proving_key_bytes(columns, logrows)
    proof = proof_bytes(columns)
    # What the prover interpolates: witness, two columns for each lookup argument, and products.
    witness = columns.advice + 2 * columns.lookups + columns.permutation_products
    extension = columns.extension
    return Resources(
        logrows=logrows,
        columns=columns,
        proving_key=key,
        verifying_key=verifying_key_bytes(columns, logrows),
        proof=proof,
        # The bytes as decimal numbers, again in hexadecimal; a public value three times.
        proof_file=round(5.6 * proof + 147 * instances),
        setup_memory=round(_PROCESS + _SETUP_MEMORY * key),
        proof_memory=round(_PROCESS + key + _PROOF_MEMORY * 32 * rows * extension * witness),
        setup_seconds=_seconds(_SETUP_TIME, columns.fixed + columns.permuted, rows, extension),
        proof_seconds=_seconds(_PROOF_TIME, witness, rows, extension),
    )


def _seconds(fit: tuple[float, float], columns: int, rows: int, extension: int) -> float:
    return columns * rows * (fit[0] + fit[1] * extension)
