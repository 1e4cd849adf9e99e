"""Every cell of the minimax tables: our error, its proof, the bound that nothing goes below."""

import json
import math
from pathlib import Path
from typing import NamedTuple

import pytest

from odp.approximations import minimax
from odp.approximations.measure import measure

TABLES = json.loads((Path(__file__).parent / "minimax_tables.json").read_text())

HALF_PI, HALF_LN2 = math.pi / 2, math.log(2) / 2


class Subject(NamedTuple):
    """A name of the tables: function, domain, and what the table's function is times ours."""

    function: str
    lo: float
    hi: float
    scale: float = 1.0


SUBJECTS = {
    "cos_hpi": Subject("cos", -HALF_PI, HALF_PI),
    "cos_pi": Subject("cos", -math.pi, math.pi),
    # erf(x/sqrt 2) = 2 normal_cdf(x) - 1.
    "erf_g6": Subject("normal_cdf", -6, 6, 2.0),
    "exp_hl2": Subject("exp", -HALF_LN2, HALF_LN2),
    "exp_m10_0": Subject("exp", -10, 0),
    "exp_m1_0": Subject("exp", -1, 0),
    # The even parts: ours add x/2, which changes no error.
    "gelu6": Subject("gelu", -6, 6),
    "silu10": Subject("silu", -10, 10),
    "softplus8": Subject("softplus", -8, 8),
    "log_001_100": Subject("log", 0.01, 100),
    "log_1_2": Subject("log", 1, 2),
    "recip_001_100": Subject("reciprocal", 0.01, 100),
    "recip_1_2": Subject("reciprocal", 1, 2),
    "recip_1_256": Subject("reciprocal", 1, 256),
    "rsqrt_001_100": Subject("rsqrt", 0.01, 100),
    "rsqrt_1_4": Subject("rsqrt", 1, 4),
    "rsqrt_2m10_2p6": Subject("rsqrt", 2.0**-10, 64),
    "sigmoid8": Subject("sigmoid", -8, 8),
    "sin_hpi": Subject("sin", -HALF_PI, HALF_PI),
    "sin_pi": Subject("sin", -math.pi, math.pi),
    "sqrt_001_100": Subject("sqrt", 0.01, 100),
    "sqrt_1_4": Subject("sqrt", 1, 4),
    "tanh4": Subject("tanh", -4, 4),
    "tanh8": Subject("tanh", -8, 8),
}

# Where the table's solver stopped early, ours is below the table by more than its rounding.
BETTER = {
    ("rsqrt_2m10_2p6:rel", "0,2"): 0.6727,
    ("rsqrt_2m10_2p6:rel", "5,5"): 2.0e-3,
    ("sqrt_001_100:rel", "0,2"): 0.9192,
    ("sqrt_001_100:rel", "0,3"): 0.8896,
    ("sqrt_001_100:rel", "0,5"): 0.8337,
    ("gelu6:abs", "6,4"): 2.37e-3,
    ("erf_g6:abs", "5,4"): 3.69e-3,
    ("erf_g6:abs", "3,6"): 2.76e-3,
}

CELLS = [
    (key, cell, entry)
    for table in ("polynomials", "rational_types")
    for key, cells in TABLES[table].items()
    for cell, entry in cells.items()
]


def largest(entry: str) -> float:
    """What rounds to a table's entry at two digits, or is below its limit."""
    if entry.startswith("<"):
        return float(entry[1:])
    digits, exponent = entry.rstrip("*").split("e")
    return (float(digits) + 0.05) * 10.0 ** int(exponent)


def check_cell(key: str, cell: str, entry: str) -> None:
    name, kind = key.split(":")
    subject = SUBJECTS[name]
    m, _, n = cell.partition(",")
    a = minimax(
        subject.function,
        (subject.lo, subject.hi),
        (int(m), int(n or 0)),
        relative=kind == "rel",
    )
    where = f"{key} ({cell})"
    expected = BETTER.get((key, cell), largest(entry))
    measured = measure(a.expression, a.function, a.domain).error(a.relative)
    assert measured * subject.scale <= 1.005 * expected, where
    assert a.certified_error is not None, where
    # 2**-50: smaller errors are float64's own rounding where they are measured.
    assert a.certified_error <= 1.02 * max(measured, 2.0**-50), where
    assert a.fit.error <= 1.001 * a.fit.bound, where


@pytest.mark.parametrize("key", dict.fromkeys(key for key, _, _ in CELLS))
def test_the_errors_of_the_tables_are_reached_and_proven(key: str) -> None:
    for cell, entry in (c[1:] for c in CELLS if c[0] == key):
        check_cell(key, cell, entry)
