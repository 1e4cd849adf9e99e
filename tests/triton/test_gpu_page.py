"""docs/gpu.md says what is true: its table of functions, its sums, and its examples."""

from __future__ import annotations

import doctest
import json
import os
import re
from functools import lru_cache
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

from odp.approximations.expression import Expression
from odp.kernels.functions import (
    FUNCTIONS,
    KernelFunction,
    fused_instructions,
    kernel_function,
)

PATH = Path(__file__).parents[2] / "docs" / "gpu.md"
PAGE = PATH.read_text(encoding="utf-8")
ERRORS = (1e-4, 1e-5, 3e-7)
# Assumed of an H200; see the page.
BANDWIDTH, MULTIPROCESSORS, CLOCK = 4.3e12, 132, 1.98e9
ISSUED, SPECIAL = 128, 16


@lru_cache(maxsize=1024)
def degrees(expression: Expression) -> tuple[int, int]:
    """Degrees of numerator and denominator, if no leading terms cancel."""
    if expression.op == "variable":
        return 1, 0
    if expression.op == "constant":
        return 0, 0
    (a, b), (c, d) = map(degrees, expression.operands)
    if expression.op == "mul":
        return a + c, b + d
    if expression.op == "div":
        return a + d, b + c
    return max(a + d, c + b), b + d


def row(name: str, asked: float, function: KernelFunction) -> str:
    """A function as the page should have it."""
    top, bottom = degrees(function.expression)
    is_relative = name not in ("log", "normal_cdf")
    bound = function.relative_error if is_relative else function.absolute_error
    assert bound is not None and function.certified
    # Rounded upward, so that the page claims no more than is proven.
    cells = (
        name,
        f"{asked:.0e}".replace("e-0", "e-"),
        f"{bound * 1.005:.2e}".replace("e-0", "e-") + (" relative" if is_relative else " absolute"),
        f"{top}/{bottom}" if bottom else str(top),
        fused_instructions(function.expression),
        function.expression.counts.divisions,
    )
    return f"| {' | '.join(map(str, cells))} |"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_table_of_functions_is_what_kernels_use(name: str) -> None:
    expected = [row(name, error, kernel_function(name, error)) for error in ERRORS]
    assert re.findall(rf"^\| {name} \| \de-\d .*$", PAGE, re.MULTILINE) == expected


def test_the_sums_are_right() -> None:
    per_clock = BANDWIDTH / MULTIPROCESSORS / CLOCK
    assert f"{per_clock:.2f}\nbytes a clock" in PAGE
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| (\d+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    assert [int(size) for size, _, _ in rows] == [4, 6, 8, 10]
    for size, instructions, special in rows:
        assert int(instructions) == round(int(size) * ISSUED / per_clock)
        assert float(special) == round(int(size) * SPECIAL / per_clock, 1)
    budget = 4 * ISSUED / per_clock
    assert (
        f"are {17.8 / budget:.2f} of what fits, with Newton's division {22.8 / budget:.2f}" in PAGE
    )


def test_the_table_of_instructions_is_that_of_the_budgets() -> None:
    counted = json.loads((Path(__file__).parent / "instruction_budgets.json").read_text())
    table = counted["instructions_per_element"]
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE, re.MULTILINE)
    listed: dict[str, str] = {}
    for name, rest in rows:
        if f"{name}_forward" not in table:
            continue
        cells = [cell.strip() for cell in rest.split("|")]
        for which, (number, size, share) in (
            ("forward", cells[:3]),
            ("backward", cells[3:6]),
        ):
            if number:
                listed[f"{name}_{which}"] = number
                fit = int(size) * ISSUED * MULTIPROCESSORS * CLOCK / BANDWIDTH
                assert share == f"{float(number) / fit:.2f}", name
    assert listed == {name: str(by_card["90"]) for name, by_card in table.items()}


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="compiles for a GPU")
def test_the_examples_run() -> None:
    outcome = doctest.testfile(str(PATH), module_relative=False, encoding="utf-8")
    assert outcome.attempted > 20 and outcome.failed == 0
