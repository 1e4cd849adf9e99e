"""Kernels of the registry in machine code, and the table of their instructions.

`python -m tests.triton.compiled_kernels` measures again and writes `instruction_budgets.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from odp.backends.triton import launch
from odp.backends.triton.precision import error_of
from odp.kernels.functions import kernel_function
from odp.kernels.generated_module import generated_function
from odp.kernels.kernel import Kernel, Layout
from odp.kernels.machine_code import ARCHITECTURES, MachineCode, compile_kernel
from odp.kernels.registry import OPERATORS
from odp.kernels.triton_source import parameters, triton_kernel

__all__ = ["BUDGETS", "KERNELS", "Compiled", "compiled", "kernel_named"]

BUDGETS = Path(__file__).with_name("instruction_budgets.json")
KERNELS = tuple(
    f"{name}_{way}"
    for name, operator in OPERATORS.items()
    for way in ("forward", "backward")
    if way == "forward" or operator.backward is not None
)
"""Names of kernels, each an operator forward or backward with all operands."""

# What a launch takes.
FLAT = launch._FLAT_BLOCK, launch._FLAT_WARPS
PART = launch._PART_BLOCK, launch._PART_WARPS
ROW_BLOCK, ROW_WARPS, _ = launch.row_blocks(4096)
_HEADROOM = 1.05

_POINTERS = {"row": "*fp32", "row_integer": "*i64", "column_sum": "*fp32"}
_NUMBERS = {"eps": "fp32", "scale": "fp32", "offset": "i32", "ignored": "i32", "rows": "i32"}


@dataclass(frozen=True)
class Compiled:
    """A kernel and its machine code."""

    kernel: Kernel
    code: MachineCode


@cache
def kernel_named(name: str) -> Kernel:
    """One of `KERNELS`, with the functions that bfloat16 takes."""
    operator = OPERATORS[name.rpartition("_")[0]]
    functions = {f: kernel_function(f, error_of(f, 1e-4)) for f in operator.functions}
    given = frozenset(operand.name for operand in operator.operands)
    if name.endswith("_forward"):
        return operator.forward_kernel(functions, given)
    wanted = frozenset(operand.name for operand in operator.operands if operand.differentiable)
    return operator.backward_kernel(functions, given, wanted, exact=False)


def compiled(name: str, capability: int, division: str = "fast", leading: int = 1) -> Compiled:
    """A kernel on bfloat16, flat if it can be, otherwise on rows of 4,096 columns."""
    kernel = kernel_named(name)
    flat = kernel.flat and leading < 2
    layout = Layout(0 if flat else leading)
    by_row = kernel.reduces or kernel.sums_columns
    if by_row:
        block, warps = ROW_BLOCK, ROW_WARPS
    else:
        block, warps = FLAT if flat else PART
    kinds: dict[str, str] = {output.name: output.kind for output in kernel.outputs}
    kinds |= kernel.operands
    arguments: dict[str, Any] = {"BLOCK": block, "DIVISION": division}
    for parameter in parameters(kernel, layout):
        argument = parameter.partition(":")[0]
        if argument.endswith("_ptr"):
            operand = argument.removesuffix("_ptr")
            pointer = "*i8" if operand == "quantised" else _POINTERS.get(kinds[operand], "*bf16")
            arguments[argument] = f"{pointer}!16"
        elif argument not in arguments:
            arguments[argument] = _NUMBERS.get(argument, "i32!16")
    function = generated_function(triton_kernel(kernel, layout), kernel.name)
    code = compile_kernel(function, arguments, capability=capability, warps=warps, elements=block)
    return Compiled(kernel, code)


def _measure() -> None:
    import triton

    table: dict[str, Any] = {}
    for name in KERNELS:
        found = {str(sm): compiled(name, sm).code.per_element for sm in ARCHITECTURES}
        table[name] = {sm: round(_HEADROOM * number + 0.05, 1) for sm, number in found.items()}
        print(f"{name:30s}", {sm: round(number, 2) for sm, number in found.items()}, flush=True)
    written = {"triton": triton.__version__, "instructions_per_element": table}
    BUDGETS.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    _measure()
