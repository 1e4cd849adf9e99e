"""Kernels run in Triton's interpreter, in a process that was started for it."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("TRITON_INTERPRET") != "1":
        for item in items:
            if "interpreted" in item.path.parts:
                item.add_marker(pytest.mark.skip(reason="runs in test_interpreter.py"))
