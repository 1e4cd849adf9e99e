"""Generated source becomes a module: a file whose name says what is in it.

Triton reads the source of a kernel from its file.  The name has the digest of the text, so a file
is written once, by whichever process is first, and never changed; editors and debuggers find it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from odp.approximations.errors import OdpError

__all__ = ["generated_function", "kernel_folder"]


def kernel_folder() -> Path:
    """Where generated kernels are: ``$ODP_KERNELS``, or ``kernels`` in the user's cache."""
    named = os.environ.get("ODP_KERNELS")
    return Path(named) if named else user_cache_path("odp") / "kernels"


@cache
def generated_function(source: str, name: str) -> Any:
    """The function `name` of a module with this source.

    Args:
        source: text of a Python module.
        name: of a function in it, which also begins the name of the file.

    Raises:
        OdpError: the folder cannot be written to.
    """
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    module_name = f"odp_kernel_{name}_{digest}"
    path = kernel_folder() / f"{name}_{digest}.py"
    try:
        if not path.is_file() or path.read_text() != source:
            _write(path, source)
    except OSError as error:
        raise OdpError(
            f"cannot write the kernel {path} ({error.strerror}); set ODP_KERNELS to a folder that "
            "can be written to"
        ) from None
    specification = importlib.util.spec_from_file_location(module_name, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[module_name] = module
    specification.loader.exec_module(module)
    return getattr(module, name)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(temporary).replace(path)
