"""GGUF files, the format of llama.cpp, as folders that transformers loads in seconds.

Turning quantised weights into floats takes from 20 seconds to some minutes, so it is done once and
kept.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from odp.approximations.errors import OdpError
from odp.evaluation.foreign_errors import first_line
from odp.evaluation.offline import offline

__all__ = ["conversion_folder", "convert_gguf"]


def conversion_folder(file: Path) -> Path:
    """Where the conversion of a file is kept, in the user's cache folder.

    A file that was replaced by another has another folder.
    """
    from platformdirs import user_cache_path

    state = file.stat()
    identity = f"{file.resolve()} {state.st_size} {state.st_mtime_ns}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return user_cache_path("odp") / "gguf" / f"{file.stem}-{digest}"


def convert_gguf(
    file: Path,
    folder: Path,
    *,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Path:
    """Convert a GGUF file to float32 safetensors, unless that is done already.

    Args:
        file: the GGUF file, with the tokenizer in it.
        folder: for `model.safetensors`, `config.json` and the tokenizer.  It appears under its
            name only when it is complete; if it is there, nothing is done.
        progress: called as `progress("convert", 0, 1)` before the conversion and with 1 after it.

    Returns:
        The folder.

    Raises:
        OdpError: the file is missing or cannot be converted, or the folder cannot be written.
    """
    if (folder / "config.json").is_file():
        return folder
    if not file.is_file():
        raise OdpError(f"GGUF file '{file}' does not exist")
    progress("convert", 0, 1)
    with offline():
        model, tokenizer = _read(file)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".odp-") as name:
                partial = Path(name) / "weights"
                model.save_pretrained(partial)
                tokenizer.save_pretrained(partial)
                partial.rename(folder)
        except OSError as error:
            # Somebody else may have been converting the same file.
            if not (folder / "config.json").is_file():
                reason = (error.strerror or str(error)).lower()
                raise OdpError(f"cannot keep the weights in '{folder}': {reason}") from None
    progress("convert", 1, 1)
    return folder


def _read(file: Path) -> tuple[Any, Any]:
    try:
        import gguf
    except ImportError:
        raise OdpError(f"reading '{file}' needs the package gguf: pip install gguf") from None
    del gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(
            file.parent, gguf_file=file.name, local_files_only=True
        )
    except Exception as error:  # the readers of a file raise whatever its bytes lead to
        raise OdpError(f"cannot read GGUF file '{file}': {first_line(error)}") from None
    # The weights are plain floats by now, but the model still carries the marks of a quantised one
    # and would refuse to be saved.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model, tokenizer
