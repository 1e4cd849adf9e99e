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
# A jump, and the label that it goes to or that is set.
_JUMP = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?BRA\b.*\((\.L_\w+)\)")
_LABEL = re.compile(r"^(\.L_\w+):")
_RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)")
_TRANSFER = re.compile(r"(LDG|STG)\.E(?:\.[A-Z]+)*(?:\.[US]?(8|16|32|64|128|256))?")
_IDLE = ("NOP", "BRA", "EXIT")
_SPILLS = ("LDL", "STL")
# Instructions of a loop that does nothing else but wait.
_WAITING = 16


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
        loops: the instructions of every innermost loop, in the order of the code.
    """

    instructions: Mapping[str, int]
    registers: int
    stack: int
    shared: int
    elements_per_thread: float
    transfers: Mapping[str, int] = field(default_factory=dict)
    loops: tuple[Mapping[str, int], ...] = ()

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
        return _work(self.instructions) / self.elements_per_thread

    @property
    def per_element_of_loops(self) -> tuple[float, ...]:
        """Likewise, of each of `loops`; for kernels whose elements are what one step computes."""
        return tuple(_work(loop) / self.elements_per_thread for loop in self.loops)


def _work(instructions: Mapping[str, int]) -> int:
    return sum(count for name, count in instructions.items() if name not in _IDLE)


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
    # The disassembler knows of no shared memory that a launch asks for.
    shared = int(compiled.metadata.shared)
    return _disassembled(compiled.asm["cubin"], elements / (warps * 32), shared)


def _disassembled(cubin: bytes, elements_per_thread: float, shared: int) -> MachineCode:
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory(prefix="odp-kernel-") as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        code = _run(tools / "nvdisasm", "-c", path)
        usage = _RESOURCES.search(_run(tools / "cuobjdump", "--dump-resource-usage", path))
    registers, stack, fixed = map(int, usage.groups()) if usage else (0, 0, 0)
    return MachineCode(
        _counted(code),
        registers,
        stack,
        max(shared, fixed),
        elements_per_thread,
        _transfers(code),
        tuple(map(_counted, _innermost_loops(code))),
    )


def _counted(code: str) -> dict[str, int]:
    names = _INSTRUCTION.findall(code)
    return dict(Counter(n if n.startswith("MUFU") else n.partition(".")[0] for n in names))


def _transfers(code: str) -> dict[str, int]:
    found = map(_TRANSFER.match, _INSTRUCTION.findall(code))
    return dict(Counter(f"{one[1]}.{one[2] or 32}" for one in found if one))


def _innermost_loops(code: str) -> list[str]:
    """What lies between a label and a jump back to it, and holds no other such part."""
    lines = code.splitlines()
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for number, line in enumerate(lines):
        if label := _LABEL.match(line):
            labels[label[1]] = number
        elif (jump := _JUMP.match(line)) and labels.get(jump[1], number) < number:
            loops.append((labels[jump[1]], number))
    inner = [
        (start, end)
        for start, end in loops
        if not any(start <= a and b <= end and (a, b) != (start, end) for a, b in loops)
    ]
    parts = ("\n".join(lines[start : end + 1]) for start, end in sorted(inner))
    # Besides the jump to itself at the end of the code, waiting for a barrier is a loop, too.
    return [part for part in parts if _work(_counted(part)) > _WAITING]


def _run(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
