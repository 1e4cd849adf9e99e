"""What all tests of the GPU backend share: one thread, the same numbers, a folder for kernels."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def kernels_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder of its own for generated kernels, unless the process was given one."""
    given = os.environ.get("ODP_KERNELS")
    folder = Path(given) if given else tmp_path_factory.mktemp("kernels")
    os.environ["ODP_KERNELS"] = str(folder)
    yield folder
    if given is None:
        del os.environ["ODP_KERNELS"]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    # Tensors this small only lose time to a second one.
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
