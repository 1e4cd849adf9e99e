"""The peak memory of a step is its own, and not that of the process that started it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from odp.backends.ezkl.memory import machine_memory, peak_memory

ASK = "from odp.backends.ezkl.memory import peak_memory; print(peak_memory())"


def test_a_child_does_not_inherit_the_peak_of_its_parent() -> None:
    ballast = np.ones(100_000_000, np.float64)
    assert ballast.nbytes < peak_memory() < machine_memory()
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    assert 1e6 < int(done.stdout) < ballast.nbytes / 2
