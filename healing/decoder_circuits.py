"""Circuits in the place of a language model's decoder layers, and what they are made of.

A circuit has one number of tokens.  So each layer is taken out of the model with what the model
gives it for so many tokens (mask, rotary positions), exported, and put back as a module that has
the layer's calling convention and computes what the circuit's integers stand for.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from odp.approximations.errors import OdpError
from odp.backends.ezkl.torch_circuit import TorchCircuit
from odp.evaluation.layers import decoder_blocks
from odp.healing.adapters import sharing_copy
from odp.healing.bit_linear import is_bit_linear
from odp.healing.circuit_layers import without_activation_quantisers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "INPUT",
    "OUTPUT",
    "CircuitLayer",
    "StaticLayer",
    "circuit_ready",
    "layer_inputs",
    "put_circuits",
    "refused_windows",
    "static_layers",
    "write_layer",
]

INPUT, OUTPUT = "x", "y"
_OPSET, _BATCH = 12, 64
# Finite: EZKL cannot quantise the -3.4e38 of transformers.
_MASK = -1e4


class StaticLayer(nn.Module):
    """A decoder layer for one number of tokens: all that it is given but hidden states is constant.

    Attributes:
        layer: the decoder layer.
        tokens: their number.
        returns_tuple: whether the layer returns a tuple that begins with hidden states.
    """

    def __init__(self, layer: nn.Module, tokens: int, given: dict[str, Any]) -> None:
        """Keep the tensors of a call.

        Args:
            layer: the decoder layer.
            tokens: their number.
            given: keyword arguments of a call; tensors and tuples of tensors are kept.
        """
        super().__init__()
        self.layer, self.tokens = layer, tokens
        self.returns_tuple = False
        self._given: dict[str, int | None] = {}
        for name, value in given.items():
            if isinstance(value, torch.Tensor):
                self._given[name] = None
                self.register_buffer(f"given_{name}", _finite(value))
            elif isinstance(value, tuple) and all(isinstance(v, torch.Tensor) for v in value):
                self._given[name] = len(value)
                for index, one in enumerate(value):
                    self.register_buffer(f"given_{name}_{index}", _finite(one))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Hidden states (windows, tokens, channels) after the layer."""
        given: dict[str, Any] = {}
        for name, count in self._given.items():
            if count is None:
                given[name] = getattr(self, f"given_{name}")
            else:
                given[name] = tuple(getattr(self, f"given_{name}_{i}") for i in range(count))
        found = self.layer(x, **given)
        self.returns_tuple = isinstance(found, tuple)
        hidden: torch.Tensor = found[0] if isinstance(found, tuple) else found
        return hidden


class CircuitLayer(nn.Module):
    """A circuit with the calling convention of the decoder layer that it was made of.

    A window in which a tensor leaves its range is one that the prover refuses.  There the layer in
    floats answers instead: beyond their domain polynomials reach 1e250 within a layer, and one such
    window would be all that a training sees.

    Attributes:
        circuit: what answers.
        static: the layer.
        refused: of the last call, for each window; bool, (windows,).
    """

    def __init__(self, circuit: TorchCircuit, static: StaticLayer) -> None:
        super().__init__()
        self.circuit, self.static = circuit, static
        self.refused = torch.zeros(0, dtype=torch.bool)
        # Models ask their layers what kind of attention they have.
        if hasattr(static.layer, "attention_type"):
            self.attention_type = static.layer.attention_type

    def forward(self, hidden_states: torch.Tensor, *args: Any, **given: Any) -> Any:
        """Hidden states (windows, tokens, channels) after the circuit; all else is ignored.

        Raises:
            OdpError: another number of tokens than the circuit has.
        """
        if hidden_states.shape[1] != self.static.tokens:
            raise OdpError(
                f"the circuit of a layer has {self.static.tokens} tokens, and the model was given "
                f"{hidden_states.shape[1]}"
            )
        found = self._answered(hidden_states).to(hidden_states.dtype)
        return (found,) if self.static.returns_tuple else found

    def _answered(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            found, self.refused = self.circuit.checked({INPUT: x})
            made = found[OUTPUT].reshape(x.shape)
            if not self.refused.any():
                return made
            exact = self._exact(x)
            return torch.where(self.refused[:, None, None], exact, made)
        # Checked before, since gradients of what is not chosen would be nan where it overflows.
        with torch.no_grad():
            self.refused = self.circuit.checked({INPUT: x})[1]
        kept = ~self.refused
        if kept.all():
            return self.circuit.forward({INPUT: x})[OUTPUT].reshape(x.shape)
        made = self._exact(x)
        if not kept.any():
            return made
        part = self.circuit.forward({INPUT: x[kept]})[OUTPUT].reshape(-1, *x.shape[1:])
        return made.index_put((kept.nonzero()[:, 0],), part)

    def _exact(self, x: torch.Tensor) -> torch.Tensor:
        """What the layer in floats makes of hidden states, in float64."""
        return self.static.forward(x).to(torch.float64)


def circuit_ready(model: PreTrainedModel) -> PreTrainedModel:
    """A copy, in the memory of the original's parameters, whose layers a circuit can have.

    Attention is spelled out (eager), and BitNet layers lose the quantisers of their activations:
    the integers of a circuit take their place.

    Raises:
        OdpError: adapters that are not merged.
    """
    copied = sharing_copy(model)
    copied.set_attn_implementation("eager")
    if any(is_bit_linear(module) for module in copied.modules()):
        without_activation_quantisers(copied)
    copied.train(False)
    return copied


def static_layers(model: PreTrainedModel, tokens: int) -> list[StaticLayer]:
    """The decoder layers with what the model gives them.

    Args:
        model: as `circuit_ready` made it.
        tokens: of a window.

    Raises:
        OdpError: the model has no list of decoder layers, or too few positions.
    """
    blocks = decoder_blocks(model)
    if not blocks:
        raise OdpError(f"a {type(model).__name__} has no list of decoder layers")
    known = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if known is not None and tokens > known:
        raise OdpError(f"{tokens} tokens are more than the {known} positions of the model")
    given: list[dict[str, Any]] = [{} for _ in blocks]

    def watch(index: int) -> Any:
        def hook(module: Any, arguments: Any, named: dict[str, Any]) -> None:
            given[index] = {k: v for k, v in named.items() if k != "hidden_states"}

        return hook

    handles = [
        block.register_forward_pre_hook(watch(index), with_kwargs=True)
        for index, block in enumerate(blocks)
    ]
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return [StaticLayer(b, tokens, g).eval() for b, g in zip(blocks, given, strict=True)]


def layer_inputs(model: PreTrainedModel, windows: torch.Tensor) -> list[torch.Tensor]:
    """What each decoder layer reads.

    Args:
        model: any causal language model.
        windows: token ids, int64, (windows, tokens).

    Returns:
        For each layer float32, (windows, tokens, channels).
    """
    blocks = decoder_blocks(model)
    found: list[list[torch.Tensor]] = [[] for _ in blocks]

    def watch(index: int) -> Any:
        def hook(module: Any, arguments: Any, named: dict[str, Any]) -> None:
            hidden = arguments[0] if arguments else named["hidden_states"]
            found[index].append(hidden.detach().float())

        return hook

    handles = [
        block.register_forward_pre_hook(watch(index), with_kwargs=True)
        for index, block in enumerate(blocks)
    ]
    try:
        with torch.no_grad():
            for part in torch.split(windows, _BATCH):
                model(input_ids=part, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return [torch.cat(parts) for parts in found]


def write_layer(static: StaticLayer, inputs: torch.Tensor, path: Path) -> None:
    """Export a layer as ONNX, and inputs for its calibration beside it, as .npz.

    Args:
        static: the layer.
        inputs: hidden states, (samples, tokens, channels).
        path: of the model, which ends with .onnx.

    Raises:
        OdpError: torch cannot export the layer.
    """
    import numpy as np

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                static.float(),
                (inputs[:1],),
                str(path),
                opset_version=_OPSET,
                dynamo=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
            )
    except Exception as error:  # the exporter raises whatever its many parts do
        first = " ".join(str(error).split())[:200]
        raise OdpError(f"cannot export a {type(static.layer).__name__}: {first}") from None
    finally:
        logger.setLevel(level)
    arrays: Any = {INPUT: inputs[:, None].numpy()}
    np.savez(path.with_suffix(".npz"), **arrays)


def put_circuits(
    model: PreTrainedModel, circuits: Sequence[TorchCircuit], statics: Sequence[StaticLayer]
) -> PreTrainedModel:
    """A copy of a model with circuits in the place of its decoder layers; nothing in it trains.

    Args:
        model: as `circuit_ready` made it; embeddings, last norm and head are shared.
        circuits: one for each layer.
        statics: of `static_layers`.
    """
    copied = sharing_copy(model)
    paths = {id(block): path for path, block in copied.named_modules()}
    for block, circuit, static in zip(decoder_blocks(copied), circuits, statics, strict=True):
        copied.set_submodule(paths[id(block)], CircuitLayer(circuit, static))
    copied.train(False)
    return copied


def refused_windows(model: nn.Module) -> torch.Tensor:
    """Which windows of the last call any of the circuits would not prove: bool, (windows,)."""
    layers = [module for module in model.modules() if isinstance(module, CircuitLayer)]
    return torch.stack([layer.refused for layer in layers]).any(0)


def _finite(value: torch.Tensor) -> torch.Tensor:
    value = value.detach()
    return value.clamp_min(_MASK) if value.is_floating_point() else value
