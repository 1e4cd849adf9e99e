"""Attention in machine code: no special functions, no spills, and how many instructions a score."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import triton

from odp.approximations import approximate
from odp.backends.triton.attention_blocks import Blocks, Pass, attention_blocks
from odp.backends.triton.precision import default_error
from odp.kernels.attention_backward_keys import attention_keys_backward_kernel
from odp.kernels.attention_backward_queries import attention_queries_backward_kernel
from odp.kernels.attention_forward import attention_forward_kernel
from odp.kernels.device_function import power_of_two
from odp.kernels.functions import KernelFunction, from_approximant, kernel_function
from odp.kernels.machine_code import ARCHITECTURES, MachineCode, compile_kernel

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing"
)

KNOWN_COMPILER = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9)
"""Whether registers are allocated as blocks were chosen for: Triton 3.6 spills a few of them."""

KERNELS = {
    "forward": attention_forward_kernel,
    "queries": attention_queries_backward_kernel,
    "keys": attention_keys_backward_kernel,
}
TYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
SHARED = {75: 64, 80: 99, 90: 227, 100: 227}
"""KiB of shared memory that a program can have, of 80 that of the smaller GPUs of its kind, too."""

BUDGETS: dict[tuple[Pass, int, int], float] = {
    ("forward", 64, 80): 17.0,
    ("forward", 64, 90): 14.5,
    ("forward", 64, 100): 10.5,
    ("forward", 128, 80): 23.0,
    ("forward", 128, 90): 19.5,
    ("forward", 128, 100): 15.0,
    ("forward", 256, 90): 36.0,
    ("queries", 64, 80): 18.0,
    ("queries", 64, 90): 17.0,
    ("queries", 64, 100): 12.5,
    ("queries", 128, 80): 25.0,
    ("queries", 128, 90): 19.5,
    ("queries", 128, 100): 14.0,
    ("queries", 256, 90): 82.0,
    ("keys", 64, 80): 27.0,
    ("keys", 64, 90): 20.5,
    ("keys", 64, 100): 17.0,
    ("keys", 128, 80): 36.5,
    ("keys", 128, 90): 30.0,
    ("keys", 128, 100): 28.0,
    ("keys", 256, 90): 104.0,
}
"""Instructions a score of a step without hidden keys, bfloat16, by pass, channels, capability."""


def compiled(
    which: Pass,
    channels: int,
    capability: int,
    dtype: torch.dtype = torch.bfloat16,
    *,
    exp: KernelFunction | None = None,
    causal: bool = False,
    mask: str = "none",
    division: str = "fast",
    blocks: Blocks | None = None,
) -> MachineCode:
    kernel = KERNELS[which]
    power = power_of_two(exp or kernel_function("exp", default_error(dtype)))
    blocks = blocks or attention_blocks(which, channels, dtype, capability, mask != "none")
    arguments: dict[str, Any] = {}
    for name in kernel.arg_names:
        if name.endswith("_ptr"):
            row = name in ("shift_ptr", "reciprocal_ptr", "delta_ptr")
            arguments[name] = f"*{'fp32' if row else TYPES[dtype]}!16"
        elif name.endswith("_stride"):
            arguments[name] = "i32!16"
        else:
            arguments[name] = "i32" if name in ("queries", "keys") else "fp32"
    arguments |= {
        "mask_key_stride": 1,
        "FUNCTION": power.function,
        "REDUCED": power.reduced,
        "DIVISION": division,
        "GROUP": 2,
        "CAUSAL": causal,
        "MASK": mask,
        "WIDE": False,
        "INTERPRETED": False,
        "CHANNELS": channels,
        "BLOCK_CHANNELS": max(16, 1 << (channels - 1).bit_length()),
        "BLOCK_QUERIES": blocks.queries,
        "BLOCK_KEYS": blocks.keys,
    }
    if mask == "none":
        arguments["mask_ptr"] = None
    return compile_kernel(
        kernel,
        arguments,
        capability=capability,
        warps=blocks.warps,
        stages=blocks.stages,
        elements=blocks.queries * blocks.keys,
    )


def slow_to_compile(case: Any) -> Any:
    """Mark cases for B200 and T4, which take the compiler several times as long as others."""
    capability = case[2] if isinstance(case, tuple) else case
    marks = [pytest.mark.slow] if capability in (75, 100) else []
    return pytest.param(case, marks=marks)


def check(code: MachineCode, capability: int, reciprocal: bool) -> None:
    if KNOWN_COMPILER:
        assert (code.stack, code.spills) == (0, 0)
    assert code.shared <= SHARED[capability] * 1024
    assert set(code.special) <= ({"RCP"} if reciprocal else set())
    # One reciprocal a row is behind the loops; within them there is none.
    assert not any(name.startswith("MUFU") for loop in code.loops for name in loop)


@pytest.mark.parametrize("capability", map(slow_to_compile, ARCHITECTURES))
@pytest.mark.parametrize("channels", [64, 128])
@pytest.mark.parametrize("which", KERNELS)
def test_no_special_functions_and_no_spills(which: Pass, channels: int, capability: int) -> None:
    # Of the types the one with the longest polynomial that the tensor cores take.
    code = compiled(which, channels, capability, torch.float16, causal=True)
    check(code, capability, reciprocal=which == "forward")


@pytest.mark.slow
@pytest.mark.parametrize("which", KERNELS)
def test_masks(which: Pass) -> None:
    for channels, capability in ((64, 90), (128, 90), (128, 80)):
        code = compiled(which, channels, capability, torch.float16, causal=True, mask="full")
        check(code, capability, reciprocal=which == "forward")
    code = compiled(which, 80, 80, torch.float16, mask="keys")
    check(code, 80, reciprocal=which == "forward")


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("which", KERNELS)
def test_heads_of_256_channels(which: Pass, capability: int) -> None:
    code = compiled(which, 256, capability, torch.float16, causal=True)
    check(code, capability, reciprocal=which == "forward")


@pytest.mark.slow
@pytest.mark.parametrize("which", KERNELS)
def test_float32(which: Pass) -> None:
    check(compiled(which, 64, 80, torch.float32, causal=True), 80, reciprocal=which == "forward")


def test_with_newton_steps_there_is_no_special_function_at_all() -> None:
    code = compiled("forward", 64, 90, causal=True, division="newton")
    check(code, 90, reciprocal=False)
    rational = from_approximant(
        approximate("exp", (-8.0, 0.0), error=1e-4, scheme="minimax", form="raw")
    )
    assert rational.expression.counts.divisions == 1
    for which in KERNELS:
        code = compiled(which, 64, 90, exp=rational, division="newton")
        check(code, 90, reciprocal=False)


def test_a_rational_exp_has_one_reciprocal_a_score() -> None:
    rational = from_approximant(
        approximate("exp", (-8.0, 0.0), error=1e-4, scheme="minimax", form="raw")
    )
    code = compiled("forward", 64, 90, exp=rational)
    assert set(code.special) == {"RCP"}
    reciprocals = code.loops[0]["MUFU.RCP"] / code.elements_per_thread
    assert reciprocals == 1


@pytest.mark.skipif(not KNOWN_COMPILER, reason="counts are those of Triton 3.9")
@pytest.mark.parametrize("key", [slow_to_compile(key) for key in BUDGETS], ids=str)
def test_instructions_a_score(key: tuple[Pass, int, int]) -> None:
    code = compiled(*key)
    # The other loop looks whether keys are hidden or beyond the last.
    assert min(code.per_element_of_loops) <= BUDGETS[key]


def test_exp_takes_five_instructions_and_one_for_each_degree() -> None:
    # Scale, shift, clip and exp, besides the largest and the sum of a row and a half of a rounding.
    blocks = attention_blocks("forward", 64, torch.bfloat16, 90)
    loops = {
        error: compiled("forward", 64, 90, exp=kernel_function("exp", error), blocks=blocks)
        for error in (1e-4, 1e-5)
    }
    scores = loops[1e-4].elements_per_thread
    per_score = {name: n / scores for name, n in loops[1e-4].loops[0].items()}
    # The cubic: 3, and 2 for the whole part and the fraction.
    assert 5 <= per_score["FFMA"] <= 5.1
    # The whole part from the fraction; and the sum of a row.
    assert 2 <= per_score["FADD"] <= 2.3
    # The clip; and the largest of a row.
    assert 2 <= per_score["FMNMX"] <= 2.1
    # The exponent.
    assert 1 <= per_score["LEA"] + per_score.get("IADD3", 0) <= 1.4
    quartic = {name: n / scores for name, n in loops[1e-5].loops[0].items()}
    assert 6 <= quartic["FFMA"] <= 6.1
