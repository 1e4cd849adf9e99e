"""The machine and the versions that a measurement belongs to."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["environment"]

_PACKAGES = (
    "odp-rewrite",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "onnxsim",
    "torch",
    "transformers",
    "numpy",
    "scipy",
    "mpmath",
    "python-flint",
    "triton",
    "liger-kernel",
    "baryrat",
)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def environment() -> dict[str, object]:
    """Processor, number of cores, load, operating system, Python and package versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in _PACKAGES},
    }
