"""Nothing in this room may ask the network."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import torch


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"something connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    # Models this small only lose time to a second one.
    torch.set_num_threads(1)
