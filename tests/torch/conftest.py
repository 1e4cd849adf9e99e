"""What all tests of the torch half share: no network, one thread, the same random numbers."""

from __future__ import annotations

import os
import socket
import warnings
from typing import Any

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"something connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    # Models this small only lose time to a second one.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """What torch tells its own developers is no business of these tests."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch\..*")
        yield
