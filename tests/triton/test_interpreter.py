"""Numbers of kernels in Triton's interpreter: in a process of its own, as imports decide on it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "interpreted"


@pytest.mark.parametrize(
    "selected", ["not slow", pytest.param("slow", marks=pytest.mark.slow)], ids=["quick", "slow"]
)
def test_kernels_compute_what_they_should_in_the_interpreter(selected: str, tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "ODP_KERNELS": str(tmp_path)}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-m",
            selected,
            str(FOLDER),
        ],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    assert re.search(r"\d{2,} passed", done.stdout), done.stdout
    assert "skipped" not in done.stdout, done.stdout
    assert any(tmp_path.glob("silu_forward_*.py")), "no kernel ran"
