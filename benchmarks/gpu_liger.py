"""Operators of Liger-Kernel, where it is installed and has one (`pip install liger-kernel`).

Some write gradients over their operands, so they get copies.  Its cross-entropy makes the gradient
in the forward, so its backward is next to nothing; its forward is timed without a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["liger"]

_EPS = 1e-6


@cache
def _operators() -> dict[str, Callable[..., Any]]:
    try:
        from liger_kernel import ops
    except ImportError:
        return {}
    calls: dict[str, tuple[str, Callable[[Any], Callable[..., Any]]]] = {
        "swiglu": ("LigerSiLUMulFunction", lambda f: f.apply),
        "geglu_tanh": ("LigerGELUMulFunction", lambda f: f.apply),
        "relu_squared": ("LigerReLUSquaredFunction", lambda f: f.apply),
        "softmax": ("LigerSoftmaxFunction", lambda f: f.apply),
        "rms_norm": ("LigerRMSNormFunction", lambda f: lambda x, w: f.apply(x, w, _EPS)),
        "add_rms_norm": (
            "LigerFusedAddRMSNormFunction",
            lambda f: lambda x, r, w: f.apply(x, r, w, _EPS),
        ),
        "layer_norm": ("LigerLayerNormFunction", lambda f: lambda x, w, b: f.apply(x, w, b, _EPS)),
        "rope": ("LigerRopeFunction", lambda f: f.apply),
        "cross_entropy": (
            "LigerCrossEntropyFunction",
            lambda f: lambda x, t: f.apply(x, t, None, -100, 0.0, 0.0, "none")[0],
        ),
    }
    return {
        name: call(getattr(ops, function))
        for name, (function, call) in calls.items()
        if hasattr(ops, function)
    }


def liger(name: str) -> Callable[..., Any] | None:
    """Liger's function for one of our operators, None where there is none."""
    return _operators().get(name)
