"""What a kernel becomes in machine code, without a GPU.

Triton's wheel brings NVIDIA's assembler and disassemblers, so a kernel can be compiled for any GPU
on any machine, and its instructions counted: a special-function unit that is not in the machine
code was not used, and a spill that is not there cost nothing.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from odp.approximations.errors import OdpError

__all__ = ["ARCHITECTURES", "MachineCode", "compile_kernel"]

ARCHITECTURES = {75: "T4", 80: "A100", 90: "H100, H200", 100: "B200"}
"""Compute capabilities that kernels are checked for, and a card of each."""

_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.M)
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)")
_TRANSFER = re.compile(r"(LDG|STG)\.E(?:\.[A-Z]+)*(?:\.[US]?(8|16|32|64|128|256))?")
_IDLE = ("NOP", "BRA", "EXIT")
_SPILLS = ("LDL", "STL")


@dataclass(frozen=True)
class MachineCode:
    """The instructions of a kernel.

    Attributes:
        instructions: how often each stands in the code, by name without modifiers; those of the
            special-function unit with theirs: ``MUFU.EX2``.
        registers: of a thread.
        stack: bytes of a thread; what does not fit into registers is spilled to it.
        shared: bytes of shared memory.
        elements_per_thread: that one run of the code computes.
        transfers: loads and stores of global memory, by name and bits: ``LDG.128``.
    """

    instructions: Mapping[str, int]
    registers: int
    stack: int
    shared: int
    elements_per_thread: float
    transfers: Mapping[str, int] = field(default_factory=dict)

    @property
    def special(self) -> dict[str, int]:
        """Instructions of the special-function unit, by what they compute."""
        found: Counter[str] = Counter()
        for name, count in self.instructions.items():
            if name.startswith("MUFU"):
                found[name.split(".")[1]] += count
        return dict(found)

    @property
    def spills(self) -> int:
        """Loads and stores of spilled registers."""
        return sum(self.instructions.get(name, 0) for name in _SPILLS)

    @property
    def per_element(self) -> float:
        """Instructions for one element, everything but jumps counted."""
        work = (count for name, count in self.instructions.items() if name not in _IDLE)
        return sum(work) / self.elements_per_thread


def compile_kernel(
    function: Any,
    arguments: Mapping[str, Any],
    *,
    capability: int,
    warps: int,
    elements: int,
    stages: int | None = None,
) -> MachineCode:
    """Compile a `@triton.jit` function for a GPU that need not be there.

    Args:
        function: not decorated under TRITON_INTERPRET=1.
        arguments: for each parameter a type of Triton (``*bf16``, ``i32``, ``fp32``; with ``!16``
            at its end for what is a multiple of 16, as Triton sees at a launch) or the value of a
            constant: numbers, and functions.
        capability: compute capability times ten, as in `ARCHITECTURES`.
        warps: of a program.
        elements: that a program computes.
        stages: of software pipelining; None for Triton's own choice.

    Raises:
        OdpError: the kernel was decorated for the interpreter.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if not isinstance(function, triton.JITFunction):
        raise OdpError(
            "this kernel was made for Triton's interpreter; compile it in a process without "
            "TRITON_INTERPRET=1"
        )
    signature: dict[str, str] = {}
    constants: dict[Any, Any] = {}
    attributes: dict[Any, Any] = {}
    for position, name in enumerate(function.arg_names):
        given = arguments[name]
        if isinstance(given, str) and (given.startswith("*") or given[:2] in ("i3", "i6", "fp")):
            signature[name] = given.removesuffix("!16")
            if given.endswith("!16"):
                attributes[(position,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "constexpr"
            constants[(position,)] = given
    options: dict[str, Any] = {"num_warps": warps, "enable_fp_fusion": True}
    if stages is not None:
        options["num_stages"] = stages
    compiled = triton.compile(
        ASTSource(function, signature, constants, attributes),
        target=GPUTarget("cuda", capability, 32),
        options=options,
    )
    return _disassembled(compiled.asm["cubin"], elements / (warps * 32))


def _disassembled(cubin: bytes, elements_per_thread: float) -> MachineCode:
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory(prefix="odp-kernel-") as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        code = _run(tools / "nvdisasm", "-c", path)
        usage = _RESOURCES.search(_run(tools / "cuobjdump", "--dump-resource-usage", path))
    names = _INSTRUCTION.findall(code)
    found = (_TRANSFER.match(name) for name in names)
    transfers = Counter(f"{one[1]}.{one[2] or 32}" for one in found if one)
    short = (n if n.startswith("MUFU") else n.partition(".")[0] for n in names)
    registers, stack, shared = map(int, usage.groups()) if usage else (0, 0, 0)
    counts = dict(Counter(short))
    return MachineCode(counts, registers, stack, shared, elements_per_thread, dict(transfers))


def _run(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
