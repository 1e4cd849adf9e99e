"""Low-rank adapters on a language model: attached, saved, and put back where they belong.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv:2106.09685), and Liu et al.,
"DoRA: Weight-Decomposed Low-Rank Adaptation" (arXiv:2402.09353), by the library peft.  A model that
`odp.rewrite` made in the structure `modules` keeps its submodules, so an adapter replaces its
linear layers and the rational functions around them stay.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.backends.whole_files import make_folder, write_bytes, write_text
from odp.healing.identity import Identity
from odp.healing.settings import HealingSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = [
    "attach_adapter",
    "check_healing_installed",
    "load_adapter",
    "parameter_groups",
    "save_adapter",
    "seeded",
    "sharing_copy",
    "trainable",
]

_MAGNITUDE = "lora_magnitude_vector"
WEIGHTS, CONFIGURATION, IDENTITY = "adapter_model.safetensors", "adapter_config.json", "odp.json"


def check_healing_installed() -> None:
    """Raise if a library that healing needs is missing.

    Raises:
        OdpError: it says what to install.
    """
    try:
        import accelerate
        import peft
        import safetensors
        import torch
        import transformers
    except ImportError as error:
        raise OdpError(f'healing needs {error.name}: pip install "odp-rewrite[heal]"') from None
    del accelerate, peft, safetensors, torch, transformers


def sharing_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy with the memory of the original's parameters, to put an adapter on."""
    import torch

    memo: dict[int, Any] = {
        id(parameter): torch.nn.Parameter(parameter.detach(), requires_grad=False)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, memo)


def attach_adapter(model: PreTrainedModel, settings: HealingSettings) -> Any:
    """Put a fresh adapter, which changes nothing yet, on a model; its own parameters are frozen.

    Args:
        model: rewritten or not; linear layers inside of it are replaced.
        settings: rank, alpha, dropout, targets, magnitudes and seed.

    Returns:
        A `peft.PeftModel`, in training or evaluation mode as the model was.  Models of one
        architecture get the same first numbers.

    Raises:
        OdpError: peft is missing, the model has an adapter already, or no layer has such a name.
    """
    check_healing_installed()
    import peft

    if isinstance(model, peft.PeftModel) or getattr(model, "peft_config", None):
        raise OdpError("the model has an adapter already: merge or unload it first")
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        use_dora=settings.magnitudes > 0,
        target_modules=list(settings.targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    from odp.healing.bit_linear import see_quantised

    # Quantised layers of BitNet get adapters that can be merged; there are none in other models.
    config = see_quantised(config)
    _check_targets(model, settings.targets)
    with seeded(settings.seed, 0, 0):
        try:
            adapted: Any = peft.get_peft_model(model, config)
        except ValueError as error:
            first = " ".join(str(error).split())[:200]
            raise OdpError(f"cannot adapt a {type(model).__name__}: {first}") from None
    # The model is as it was, and its new dropout like the rest of it.
    return adapted.train(model.training)


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that train, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def parameter_groups(
    parameters: Mapping[str, torch.nn.Parameter], magnitudes: float
) -> list[dict[str, Any]]:
    """The groups of an optimiser, each with its learning rate as a `share` of the common one.

    Args:
        parameters: by name; magnitudes as the adapter began with them.
        magnitudes: share of the magnitudes for one of size 1.  AdamW moves every number by the
            learning rate, whatever its size, so each layer's is that times its mean magnitude.
    """
    apart = {name for name in parameters if _MAGNITUDE in name}
    factors = [parameter for name, parameter in parameters.items() if name not in apart]
    groups: list[dict[str, Any]] = [{"params": factors, "share": 1.0}]
    for name in sorted(apart):
        size = float(parameters[name].detach().abs().mean())
        groups.append({"params": [parameters[name]], "share": magnitudes * size})
    return groups


@contextlib.contextmanager
def seeded(seed: int, step: int, process: int) -> Iterator[None]:
    """Random numbers that depend on seed, step and process alone; the caller's are left alone.

    So a run that goes on from a checkpoint draws what the uninterrupted one would have drawn,
    without a generator in the checkpoint, also where the number of processes has changed.
    """
    import random

    import torch

    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(random.Random(f"{seed}/{step}/{process}").getrandbits(63))
        yield


def save_adapter(model: Any, folder: Path, identity: Identity) -> None:
    """Write an adapter in the format of peft, and beside it which model it belongs to.

    Args:
        model: a `peft.PeftModel`.
        folder: made if it is missing; each file in it is written whole.
        identity: of the model without the adapter.

    Raises:
        OdpError: a file cannot be written.
    """
    import peft
    from safetensors.torch import save

    make_folder(folder)
    # "auto" would ask the hub whether the vocabulary has been resized.
    state = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    config = model.peft_config[model.active_adapter].to_dict()
    config = {key: sorted(v) if isinstance(v, set) else v for key, v in config.items()}
    config["inference_mode"] = True
    write_bytes(
        folder / WEIGHTS,
        save({k: t.detach().cpu().contiguous() for k, t in state.items()}, {"format": "pt"}),
    )
    write_text(folder / CONFIGURATION, json.dumps(config, indent=1, default=str))
    write_text(folder / IDENTITY, json.dumps(identity.to_dict(), indent=1))


def load_adapter(
    model: PreTrainedModel,
    folder: Path,
    *,
    tokenizer: Any = None,
    surgery: dict[str, Any] | None = None,
) -> Any:
    """Put an adapter that `save_adapter` wrote on the model that it was trained for.

    Args:
        model: the model, rewritten as it was for the training.
        folder: with the adapter.
        tokenizer: of the model; None does not check it.
        surgery: what was done to the model, as `Identity` has it.

    Returns:
        A `peft.PeftModel` in evaluation mode.

    Raises:
        OdpError: there is no adapter, it cannot be read, or it belongs to another model, tokenizer
            or rewriting.
    """
    check_healing_installed()
    import peft

    if not (folder / CONFIGURATION).is_file():
        raise OdpError(f"there is no adapter in '{folder}': {CONFIGURATION} is missing")
    try:
        identity = Identity.from_dict(json.loads((folder / IDENTITY).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise OdpError(
            f"cannot tell which model the adapter in '{folder}' belongs to: {IDENTITY}: {error}"
        ) from None
    identity.check(Identity.of(model, tokenizer, surgery), f"the adapter in '{folder}'")
    from odp.healing.bit_linear import see_quantised

    try:
        config = see_quantised(peft.LoraConfig.from_pretrained(str(folder)))
        return peft.PeftModel.from_pretrained(
            model, str(folder), config=config, local_files_only=True
        ).eval()
    except Exception as error:  # peft and safetensors raise whatever is wrong with their files
        first = " ".join(str(error).split())[:200]
        raise OdpError(f"cannot load the adapter in '{folder}': {first}") from None


def _check_targets(model: torch.nn.Module, targets: tuple[str, ...]) -> None:
    """Raise where a target is missing, in words that name what there is."""
    from transformers.pytorch_utils import Conv1D

    # Quantised layers are not of torch's class, and have the attributes that peft asks for.
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, Conv1D) or hasattr(module, "in_features")
    ]
    ends = sorted({name.rpartition(".")[2] for name in names})
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise OdpError(
                f"no linear layer of the {type(model).__name__} is named '{target}'; there are "
                f"{', '.join(ends) or 'none'}"
            )
