"""No network, no chatter: how the Hugging Face libraries are called here."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["offline"]

_VARIABLES = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
# The libraries read the variables once, when they are imported; these are their copies.
_COPIES = (
    ("huggingface_hub.constants", "HF_HUB_OFFLINE"),
    ("datasets.config", "HF_HUB_OFFLINE"),
    ("datasets.config", "HF_DATASETS_OFFLINE"),
)


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Within it transformers and datasets neither ask the network nor print progress or advice.

    Everything is as before afterwards, so that a program that uses ODP keeps its network.  A
    library that is imported within it for the first time stays offline.
    """
    import tqdm
    from transformers.utils import logging as chatter

    with contextlib.ExitStack() as afterwards:
        for module_name, name in _COPIES:
            module = sys.modules.get(module_name)
            if module is not None and hasattr(module, name):
                afterwards.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, True)
        # For what is imported later, and for processes that are started.
        for name, value in _VARIABLES.items():
            afterwards.callback(_set_variable, name, os.environ.get(name))
            os.environ[name] = value
        afterwards.callback(chatter.set_verbosity, chatter.get_verbosity())
        chatter.set_verbosity(logging.ERROR)
        # The libraries make bars in many places, and few of those ask for a setting.
        initialise = tqdm.tqdm.__init__
        afterwards.callback(setattr, tqdm.tqdm, "__init__", initialise)

        @functools.wraps(initialise)
        def without_bar(self: Any, *arguments: Any, **options: Any) -> None:
            initialise(self, *arguments, **{**options, "disable": True})

        setattr(tqdm.tqdm, "__init__", without_bar)  # noqa: B010  (mypy: no method assignment)
        yield


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
