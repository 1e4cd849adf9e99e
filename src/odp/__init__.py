"""ODP: swap every transcendental operation of a network for a rational expression.

    import odp

    result = odp.rewrite("model.onnx", passes="rsqrt,exp,rope", calibration="inputs.npz")
    result.save("rational.onnx")
    print(result.report.total)

Names are loaded when they are first used, so that `import odp` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from odp.approximations import (
        Approximant,
        Function,
        Histogram,
        Interval,
        OdpError,
        Target,
        Tolerance,
        approximate,
        minimax,
        pareto,
    )
    from odp.budgeting import Budget, allocate_operations, sensitivity
    from odp.healed_model import load_healed
    from odp.healing_comparison import compare_healed
    from odp.healing_rows import heal_rows
    from odp.healing_run import Healed, heal
    from odp.rewriter.ranges import Ranges
    from odp.rewriter.report import Report
    from odp.rewriting import RewriteResult, calibrate, find_sites, rewrite

__version__ = "0.1.0"

__all__ = [
    "Approximant",
    "Budget",
    "Function",
    "Healed",
    "Histogram",
    "Interval",
    "OdpError",
    "Ranges",
    "Report",
    "RewriteResult",
    "Target",
    "Tolerance",
    "__version__",
    "allocate_operations",
    "approximate",
    "calibrate",
    "compare_healed",
    "find_sites",
    "heal",
    "heal_rows",
    "load_healed",
    "minimax",
    "pareto",
    "rewrite",
    "sensitivity",
]

_HOMES = {
    "Approximant": "odp.approximations",
    "Function": "odp.approximations",
    "Histogram": "odp.approximations",
    "Interval": "odp.approximations",
    "OdpError": "odp.approximations",
    "Target": "odp.approximations",
    "Tolerance": "odp.approximations",
    "approximate": "odp.approximations",
    "minimax": "odp.approximations",
    "pareto": "odp.approximations",
    "Report": "odp.rewriter.report",
    "RewriteResult": "odp.rewriting",
    "Budget": "odp.budgeting",
    "allocate_operations": "odp.budgeting",
    "sensitivity": "odp.budgeting",
    "compare_healed": "odp.healing_comparison",
    "Healed": "odp.healing_run",
    "heal": "odp.healing_run",
    "heal_rows": "odp.healing_rows",
    "load_healed": "odp.healed_model",
    "Ranges": "odp.rewriter.ranges",
    "calibrate": "odp.rewriting",
    "find_sites": "odp.rewriting",
    "rewrite": "odp.rewriting",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'odp' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
