"""Kernels run in Triton's interpreter, in a process that was started for it."""

from __future__ import annotations

import os

# test_interpreter.py runs them.
collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]
