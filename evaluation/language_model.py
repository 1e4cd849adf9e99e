"""Load a language model and its tokenizer from a folder, without a network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.evaluation.foreign_errors import first_line
from odp.evaluation.gguf_conversion import conversion_folder, convert_gguf
from odp.evaluation.offline import offline

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["LanguageModel", "check_weights", "load_language_model"]

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
# One of these holds the vocabulary of every tokenizer of transformers.
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece*.model",
    "tekken.json",
    "*.tiktoken",
)


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model, ready to run.

    Attributes:
        model: in evaluation mode.
        tokenizer: its tokenizer.
        folder: where both were loaded from; for a GGUF file, where its conversion is kept.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    folder: Path


def load_language_model(
    path: str | Path,
    *,
    dtype: str = "auto",
    device: str | None = None,
    attention: str | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> LanguageModel:
    """Load a causal language model from the disk.

    Args:
        path: a folder in the format of Hugging Face (`config.json`, weights, tokenizer), a GGUF
            file, or a folder with one GGUF file in it.
        dtype: type of the weights, such as `float32` or `bfloat16`; `auto` is that of the file.
        device: such as `cpu` or `cuda`; None is the CPU.
        attention: implementation of attention, such as `eager` or `sdpa`; None leaves it to
            transformers.
        progress: called as `progress(what, done, total)`, where `what` is `convert` or `load`.

    Raises:
        OdpError: torch or transformers is not installed; there is no model, no tokenizer or no
            weights; the model is not a causal language model; its weights do not fit, are
            incomplete, or hold nan or infinity.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise OdpError(
            f'language models need {error.name}: pip install "odp-rewrite[evaluate]"'
        ) from None
    del torch, transformers
    folder = _folder(Path(path), progress)
    _check_folder(folder)
    wanted, place = _dtype(dtype), _device(device)
    progress("load", 0, 1)
    with offline():
        tokenizer = _load_tokenizer(folder)
        # Its methods carry decorators without types.
        model: Any = _load_model(folder, wanted, attention)
    check_weights(model, str(folder))
    if place is not None:
        model = model.to(place)
    progress("load", 1, 1)
    return LanguageModel(model.eval(), tokenizer, folder)


def check_weights(model: PreTrainedModel, name: str) -> None:
    """Raise if a parameter or buffer is not finite.

    Raises:
        OdpError: it names the parameter and counts its bad entries.
    """
    for kind, tensors in (
        ("parameter", model.named_parameters()),
        ("buffer", model.named_buffers()),
    ):
        for key, tensor in tensors:
            if not tensor.is_floating_point():
                continue
            bad = tensor.numel() - int(tensor.isfinite().sum())
            if bad:
                raise OdpError(
                    f"{kind} '{key}' of '{name}' is not finite: {bad} of {tensor.numel()} numbers "
                    "are nan or infinite"
                )


def _folder(path: Path, progress: Callable[[str, int, int], None]) -> Path:
    if path.is_file() and path.suffix == ".gguf":
        return convert_gguf(path, conversion_folder(path), progress=progress)
    if path.is_file():
        raise OdpError(f"'{path}' is a file; name the folder of a model, or a GGUF file")
    if not path.is_dir():
        raise OdpError(
            f"there is no model at '{path}'; models are read from the disk, never from a hub"
        )
    if (path / "config.json").is_file():
        return path
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise OdpError(f"folder '{path}' has several GGUF files; name one of {names}")
    if files:
        return convert_gguf(files[0], conversion_folder(files[0]), progress=progress)
    raise OdpError(f"folder '{path}' holds no model: neither config.json nor a GGUF file")


def _check_folder(folder: Path) -> None:
    """Say what is missing before transformers says something about hubs and revisions."""
    if not any(True for pattern in _TOKENIZERS for _ in folder.glob(pattern)):
        raise OdpError(f"folder '{folder}' has no tokenizer, such as tokenizer.json")
    if not any(True for pattern in _WEIGHTS for _ in folder.glob(pattern)):
        raise OdpError(f"folder '{folder}' has no weights, such as model.safetensors")
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OdpError(f"cannot read '{file}': {error}") from None
    if not isinstance(config, dict):
        raise OdpError(f"'{file}' does not describe a model")
    architectures = config.get("architectures") or []
    causal = _causal_architectures()
    if architectures and not causal & set(architectures):
        raise OdpError(f"'{folder}' is a {architectures[0]}, which is not a causal language model")


def _causal_architectures() -> set[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    names: set[str] = set()
    for value in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        names.update([value] if isinstance(value, str) else value)
    return names


def _dtype(name: str) -> torch.dtype | str:
    import torch

    if name == "auto":
        return name
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise OdpError(f"'{name}' is no type of weights; use auto, float32, bfloat16 or float16")
    return dtype


def _device(name: str | None) -> torch.device | None:
    import torch

    if name is None:
        return None
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    # What torch raises for no such device, for a build without it, and for one without kernels.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OdpError(f"cannot use device '{name}': {first_line(error)}") from None
    return device


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True
        )
    except Exception as error:  # the many tokenizers raise whatever their files lead to
        raise OdpError(f"cannot load the tokenizer in '{folder}': {first_line(error)}") from None
    return tokenizer


def _load_model(folder: Path, dtype: torch.dtype | str, attention: str | None) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    load: Any = AutoModelForCausalLM.from_pretrained
    options = {} if attention is None else {"attn_implementation": attention}
    try:
        model, info = load(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True, **options
        )
    except Exception as error:  # configurations and weights raise whatever is wrong with them
        raise OdpError(f"cannot load the model in '{folder}': {first_line(error)}") from None
    # transformers fills them with random numbers and only warns.
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise OdpError(
            f"the weights in '{folder}' do not fit the model: {missing[0]} is missing or of "
            f"another shape{f', and {len(missing) - 1} more' if len(missing) > 1 else ''}"
        )
    loaded: PreTrainedModel = model
    return loaded
