"""The processes and devices that a training runs on, by accelerate."""

from __future__ import annotations

from typing import Any

from odp.approximations.errors import OdpError
from odp.healing.adapters import check_healing_installed

__all__ = ["accelerator_of", "process_state"]

_PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def process_state(device: str | None = None) -> Any:
    """Which of how many processes this is, and its device: an `accelerate.PartialState`.

    Args:
        device: `cpu` to leave GPUs alone; None for what there is.

    Raises:
        OdpError: accelerate is missing.
    """
    check_healing_installed()
    import accelerate

    return accelerate.PartialState(cpu=device == "cpu")


def accelerator_of(dtype: str, device: str | None = None) -> Any:
    """An `accelerate.Accelerator` for one training.

    Args:
        dtype: in which matrix products are computed: float32, bfloat16 or float16.
        device: `cpu` to leave GPUs alone; None for what there is.

    Raises:
        OdpError: accelerate is missing, or the device has no such arithmetic.
    """
    check_healing_installed()
    import accelerate
    from accelerate.state import AcceleratorState

    wanted = _PRECISIONS[dtype]
    state: Any = AcceleratorState
    # It is one for the whole program and keeps the precision of whoever came first.
    if state._shared_state and state._shared_state.get("_mixed_precision") != wanted:
        state._reset_state()
    try:
        return accelerate.Accelerator(
            mixed_precision=wanted, cpu=device == "cpu", step_scheduler_with_optimizer=False
        )
    except ValueError as error:
        first = " ".join(str(error).split())[:200]
        raise OdpError(f"cannot train in {dtype} here: {first}") from None
