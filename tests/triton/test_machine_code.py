"""Kernels in the machine code of real GPUs: nothing transcendental, no spills, few instructions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import triton

from odp.approximations.errors import OdpError
from odp.kernels.machine_code import ARCHITECTURES, MachineCode, compile_kernel
from odp.kernels.rope import rope_kernel

from . import compiled_kernels
from .compiled_kernels import BUDGETS, KERNELS, compiled, kernel_named

WRITTEN = json.loads(BUDGETS.read_text())
TABLE = WRITTEN["instructions_per_element"]
QUICK = (90,)
EVERYWHERE = [
    pytest.param(name, sm, marks=() if sm in QUICK else pytest.mark.slow, id=f"{name}-sm_{sm}")
    for sm in ARCHITECTURES
    for name in KERNELS
]
# Division without any special function is asked for where there is a division.
DIVIDING = [name for name in KERNELS if any(term.op == "div" for term in kernel_named(name).terms)]


def check_special(name: str, code: MachineCode, division: str) -> None:
    """Only the reciprocal, and that only where something is divided."""
    kernel = kernel_named(name)
    allowed = {"RCP"} if division == "fast" and name in DIVIDING else set()
    if kernel.counts_rows or not (kernel.flat or kernel.reduces):
        # Integers are divided for the number of a row, once for each program.
        allowed.add("RCP")
        assert code.special.get("RCP", 0) <= 2
    assert set(code.special) <= allowed, f"{name}: {code.special}"


def check_no_spills(name: str, code: MachineCode) -> None:
    assert (code.stack, code.spills) == (0, 0), f"{name}: {code.stack} bytes, {code.spills} spills"


def check_vectors(name: str, code: MachineCode) -> None:
    """Rows and ranges go through memory by 16 bytes; what is one number a row need not."""
    kernel = kernel_named(name)
    # 8 elements a thread of a flat kernel, 16 of a row: so many vectors of 8 bfloat16.
    vectors = round(code.elements_per_thread / 8)
    loaded = [kind for kind in kernel.operands.values() if kind in ("elements", "column")]
    stored = [output for output in kernel.outputs if output.kind == "elements"]
    narrow = [output for output in stored if output.name == "quantised"]
    assert code.transfers.get("LDG.128", 0) == vectors * len(loaded), code.transfers
    # Sums of columns are float32: twice as many vectors.
    sums = sum(output.kind == "column_sum" for output in kernel.outputs)
    wide = vectors * (len(stored) - len(narrow) + 2 * sums) + len(narrow)
    assert code.transfers.get("STG.128", 0) == wide, code.transfers
    rest = sum(count for kind, count in code.transfers.items() if not kind.endswith(".128"))
    by_row = [kind for kind in kernel.operands.values() if kind.startswith("row")]
    by_row += [output.kind for output in kernel.outputs if output.kind == "row"]
    assert rest <= len(by_row), code.transfers


@pytest.mark.parametrize("name, capability", EVERYWHERE)
def test_instructions(name: str, capability: int) -> None:
    code = compiled(name, capability).code
    check_no_spills(name, code)
    check_special(name, code, "fast")
    # Or a test that there is none would say nothing.
    assert name not in DIVIDING or code.special["RCP"] >= 1
    check_vectors(name, code)
    if triton.__version__ == WRITTEN["triton"]:
        # Other versions of Triton schedule differently: a few percent, either way.
        budget = TABLE[name][str(capability)]
        assert code.per_element <= budget, f"{code.per_element:.2f} an element, {budget} allowed"
        # A table that nobody writes anew when kernels get better says nothing.
        assert code.per_element >= 0.9 * budget - 0.2, (
            f"{code.per_element:.2f} an element, {budget} in the table: measure again, with "
            "python -m tests.triton.compiled_kernels"
        )


def test_the_table_is_about_the_kernels_there_are() -> None:
    assert set(TABLE) == set(KERNELS)
    assert all(set(row) == {str(sm) for sm in ARCHITECTURES} for row in TABLE.values())


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n.endswith("_backward") else ()) for n in DIVIDING],
)
def test_newtons_division_takes_no_special_function(name: str) -> None:
    code = compiled(name, 90, "newton").code
    check_special(name, code, "newton")
    check_no_spills(name, code)


@pytest.mark.slow
@pytest.mark.parametrize("leading", [2, 3])
@pytest.mark.parametrize("name", KERNELS)
def test_slices_and_transposed_tensors(name: str, leading: int) -> None:
    code = compiled(name, 90, leading=leading).code
    check_no_spills(name, code)
    # Integers are divided by extents, once for each program.
    assert set(code.special) <= {"RCP"}
    assert code.transfers.get("LDG.128", 0) > 0


# The widest rows in one block have 16 elements in each of 1,024 threads, and 64 registers for them;
# sums over rows stay in registers, too, and do not fit from 16,384 columns on.
@pytest.mark.slow
@pytest.mark.parametrize("block, warps", [(1024, 2), (8192, 16), (16384, 32)])
@pytest.mark.parametrize("name", [n for n in KERNELS if not kernel_named(n).flat])
def test_rows_of_other_lengths_do_not_spill(
    name: str, block: int, warps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if block > 8192 and kernel_named(name).sums_columns:
        pytest.skip("spills")
    monkeypatch.setattr(compiled_kernels, "ROW_BLOCK", block)
    monkeypatch.setattr(compiled_kernels, "ROW_WARPS", warps)
    check_no_spills(name, compiled(name, 90).code)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("capability", [75, 90])
def test_rope(capability: int, interleaved: bool) -> None:
    numbers: dict[str, Any] = {
        name: "i32!16" if "stride" in name else "*bf16!16" if name.endswith("_ptr") else "i32"
        for name in rope_kernel.arg_names
    }
    constants = {"HALF": 64, "REST": 0, "INTERLEAVED": interleaved, "BACKWARD": False}
    blocks = {"HEADS": 16, "BLOCK": 64, "REST_BLOCK": 1}
    code = compile_kernel(
        rope_kernel,
        numbers | constants | blocks,
        capability=capability,
        warps=4,
        elements=2 * 16 * 128,
    )
    check_no_spills("rope", code)
    # The number of a token is an integer remainder.
    assert set(code.special) <= {"RCP"}
    if not interleaved:
        assert code.transfers.get("LDG.128", 0) >= 4
        assert code.transfers.get("STG.128", 0) >= 4


def test_what_spills_and_what_is_transcendental_would_be_seen(tmp_path: Any) -> None:
    """These tests could not fail otherwise."""
    source = tmp_path / "native.py"
    source.write_text(
        "import triton\nimport triton.language as tl\n\n"
        "@triton.jit\n"
        "def native(x_ptr, y_ptr, BLOCK: tl.constexpr):\n"
        "    place = tl.arange(0, BLOCK)\n"
        "    x = tl.load(x_ptr + place)\n"
        "    a = tl.exp(x) + tl.sqrt(x)\n"
        "    tl.store(y_ptr + place, a - tl.sum(a))\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        from native import native  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(tmp_path))
    arguments = {"x_ptr": "*fp32!16", "y_ptr": "*fp32!16", "BLOCK": 16384}
    code = compile_kernel(native, arguments, capability=90, warps=1, elements=16384)
    assert "EX2" in code.special
    assert set(code.special) & {"RSQ", "SQRT"}
    assert code.spills > 0
    assert code.stack > 0


def test_a_kernel_for_the_interpreter_is_not_compiled() -> None:
    program = (
        "from odp.kernels.machine_code import compile_kernel\n"
        "from odp.kernels.rope import rope_kernel\n"
        "compile_kernel(rope_kernel, {}, capability=90, warps=4, elements=1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert OdpError.__name__ in last
    assert "compile it in a process without TRITON_INTERPRET=1" in last
