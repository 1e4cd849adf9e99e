"""What a user gives as calibration, as example inputs and as text, in one form."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from odp.approximations.errors import OdpError
from odp.backends.torch.inputs import Batches, Inputs, as_inputs, batches_of
from odp.backends.torch.text_windows import TextWindows
from odp.rewriter.ranges import Ranges, read_ranges

__all__ = ["CalibrationData", "calibration_data", "example_of", "is_pretrained"]

_WINDOWS = 16
"""Windows of text, unless the user asks for more: ranges grow little after a few thousand tokens,
and a margin is added to them."""
_CONTEXT = 512


@dataclass
class CalibrationData:
    """Everything a rewrite runs a module on.

    Attributes:
        example: inputs to trace the module with.
        batches: inputs to calibrate and measure on.
        ranges: what sites saw on an earlier occasion, in which case `batches` only measure.
        warnings: what a person must know about the data.
    """

    example: Inputs
    batches: Batches
    ranges: Ranges | None = None
    warnings: list[str] = field(default_factory=list)


def calibration_data(
    module: torch.nn.Module,
    calibration: Any,
    example: Inputs | None,
    tokenizer: Any,
    *,
    context: int | None,
    samples: int | None,
    seed: int,
    static: bool,
) -> CalibrationData:
    """Sort out what was given.

    Args:
        module: the module, to know which inputs its forward takes.
        calibration: inputs, a list of inputs, texts, ranges, or the path of a text or of ranges.
        example: the example inputs, if there are any.
        tokenizer: of transformers, for texts.
        context: tokens in a window of text.
        samples: number of inputs to use.
        seed: of random tokens, where a language model comes without any data.
        static: whether all inputs must have the shapes of the example.

    Raises:
        OdpError: there is nothing to run the module on, or what there is cannot be used.
    """
    if samples is not None and samples < 1:
        raise OdpError(f"samples must be 1 or more, not {samples}")
    ranges: Ranges | None = None
    batches: Batches | None = None
    if isinstance(calibration, Ranges):
        ranges = calibration
    elif isinstance(calibration, str | Path) and Path(calibration).suffix == ".json":
        ranges = read_ranges(Path(calibration))
    elif (texts := _texts(calibration)) is not None:
        length = _length(module, example, context, static)
        maker = _Maker(module, example, static)
        windows = TextWindows(texts, tokenizer, length, maker, whole=not static)
        batches = Batches(_source(texts), windows, samples or _WINDOWS)
    elif calibration is not None:
        batches = batches_of(calibration, samples)
    warnings = []
    if batches is None:
        what = "tokens" if example is None else "example inputs alone"
        if example is None:
            example = _random_tokens(module, seed)
        if ranges is None:
            warnings.append(
                f"domains were calibrated on {'RANDOM ' * (what == 'tokens')}{what}, which real "
                "data may leave: give calibration=inputs, or texts with a tokenizer"
            )
        batches = Batches(what, [example])
    return CalibrationData(example or next(iter(batches)), batches, ranges, warnings)


def is_pretrained(module: torch.nn.Module) -> bool:
    """Whether a module is a model of transformers, found out without importing transformers."""
    return any(kind.__name__ == "PreTrainedModel" for kind in type(module).__mro__)


def _texts(calibration: Any) -> list[str | Path] | None:
    """Prompts and paths; a string by itself is a path, prompts come in a list."""
    if isinstance(calibration, str | Path):
        return [Path(calibration)]
    if not isinstance(calibration, list) or not calibration:
        return None
    return calibration if all(isinstance(item, str | Path) for item in calibration) else None


def _source(texts: list[str | Path]) -> str:
    names = [text.name if isinstance(text, Path) else "a prompt" for text in texts]
    return names[0] if len(names) == 1 else f"{len(names)} texts"


class _Maker:
    """Makes the inputs of a module from token ids of shape (1, tokens)."""

    def __init__(self, module: torch.nn.Module, example: Inputs | None, static: bool) -> None:
        self._example = example if static else None
        self._device = next((p.device for p in module.parameters()), torch.device("cpu"))
        self._extra = {"use_cache": False} if "use_cache" in _parameters(module) else {}

    def __call__(self, ids: torch.Tensor) -> Inputs:
        ids = ids.to(self._device)
        example = self._example
        if example is None:
            return Inputs((), {"input_ids": ids, **self._extra})
        ids = ids.expand(_example_ids(example).shape)
        kwargs = dict(example.kwargs or {})
        if "input_ids" in kwargs:
            return Inputs(example.args, {**kwargs, "input_ids": ids})
        return Inputs((ids, *example.args[1:]), kwargs)


def _length(
    module: torch.nn.Module, example: Inputs | None, context: int | None, static: bool
) -> int:
    longest = int(getattr(getattr(module, "config", None), "max_position_embeddings", 0) or 2048)
    if static:
        if example is None:
            raise OdpError(
                "calibration on text needs example_inputs that say how many tokens the graph takes"
            )
        return int(_example_ids(example).shape[-1])
    length = context or min(_CONTEXT, longest)
    if length > longest:
        raise OdpError(f"a context of {length} tokens is more than the {longest} of the model")
    return length


def _example_ids(example: Inputs) -> torch.Tensor:
    ids = (example.kwargs or {}).get("input_ids", example.args[0] if example.args else None)
    if not isinstance(ids, torch.Tensor) or ids.is_floating_point():
        raise OdpError("calibration on text needs token ids (input_ids) among the example inputs")
    return ids


def _random_tokens(module: torch.nn.Module, seed: int) -> Inputs:
    """64 random tokens of the vocabulary of a model of transformers."""
    config: Any = getattr(module, "config", None)
    vocabulary = getattr(config, "vocab_size", None)
    if not is_pretrained(module) or not isinstance(vocabulary, int):
        raise OdpError(
            f"rewriting {type(module).__name__} needs example_inputs (a tensor, a tuple of "
            "positional inputs or a dict of inputs by name), or calibration inputs"
        )
    generator = torch.Generator().manual_seed(seed)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    ids = torch.randint(vocabulary, (1, 64), generator=generator).to(device)
    inputs: dict[str, Any] = {"input_ids": ids}
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = ids
    if "use_cache" in _parameters(module):
        inputs["use_cache"] = False
    return Inputs((), inputs)


def _parameters(module: torch.nn.Module) -> Any:
    return inspect.signature(module.forward).parameters


def example_of(given: Any, program: torch.export.ExportedProgram | None) -> Inputs | None:
    """The example inputs that a user gave, or that an exported program remembers.

    Raises:
        OdpError: they are no inputs, or the program remembers none.
    """
    if given is not None:
        return as_inputs(given, "example_inputs")
    if program is None:
        return None
    if program.example_inputs is None:
        raise OdpError("the exported program has no example inputs; pass example_inputs")
    return Inputs(*program.example_inputs)
