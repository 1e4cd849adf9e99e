"""Blocks of language models as torch modules, with what the seed report and EZKL users prove."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

__all__ = ["BLOCKS", "export_block"]


class RMSNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(1.0 + 0.1 * torch.randn(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


class GatedMLP(nn.Module):
    """RMSNorm and SwiGLU: the seed's block."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.norm = RMSNorm(hidden)
        self.gate = nn.Linear(hidden, intermediate, bias=False)
        self.up = nn.Linear(hidden, intermediate, bias=False)
        self.down = nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        return self.down(nn.functional.silu(self.gate(h)) * self.up(h))


class Attention(nn.Module):
    """RMSNorm, rotary positions, a causal mask, softmax, a residual."""

    def __init__(self, hidden: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.heads, self.size = heads, hidden // heads
        self.norm = RMSNorm(hidden)
        self.query, self.key, self.value, self.output = (
            nn.Linear(hidden, hidden, bias=False) for _ in range(4)
        )
        frequencies = 10000.0 ** (-torch.arange(0, self.size, 2) / self.size)
        angles = (torch.arange(tokens).float()[:, None] * frequencies).repeat(1, 2)
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())
        self.register_buffer("mask", torch.full((tokens, tokens), -1e4).triu(1))

    def _rotated(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, -1)
        return x * self.cosine + torch.cat((-second, first), -1) * self.sine

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        shape = (*x.shape[:2], self.heads, self.size)
        q, k, v = (
            layer(h).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        scores = self._rotated(q) @ self._rotated(k).transpose(-1, -2) / math.sqrt(self.size)
        mixed = torch.softmax(scores + self.mask, -1) @ v
        return x + self.output(mixed.transpose(1, 2).reshape(x.shape))


class Encoder(nn.Module):
    """LayerNorm, GELU, a residual: half a layer of BERT."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.up, self.down = nn.Linear(hidden, intermediate), nn.Linear(intermediate, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class StateSpace(nn.Module):
    """The softplus and exp of Mamba: states that decay by what the input says."""

    def __init__(self, hidden: int, states: int, tokens: int) -> None:
        super().__init__()
        self.step, self.mixing = nn.Linear(hidden, hidden), nn.Linear(hidden, 2 * states)
        self.decay = nn.Parameter(-torch.arange(1.0, states + 1).repeat(hidden, 1) / states)
        self.skip = nn.Parameter(torch.ones(hidden))
        self.states, self.tokens = states, tokens

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        step = nn.functional.softplus(self.step(x))
        entering, leaving = self.mixing(x).split(self.states, -1)
        kept = torch.exp(step[..., None] * self.decay)
        added = step[..., None] * entering[:, :, None, :] * x[..., None]
        state, results = added[:, 0], []
        for token in range(self.tokens):
            state = state if token == 0 else kept[:, token] * state + added[:, token]
            results.append((state * leaving[:, token, None, :]).sum(-1))
        return torch.stack(results, 1) + x * self.skip


Make = Callable[[], nn.Module]
BLOCKS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "gated_mlp": (lambda: GatedMLP(256, 688), (1, 4, 256)),
    "gated_mlp_small": (lambda: GatedMLP(64, 172), (1, 4, 64)),
    "attention": (lambda: Attention(64, 4, 16), (1, 16, 64)),
    "encoder": (lambda: Encoder(64, 128), (1, 8, 64)),
    "state_space": (lambda: StateSpace(32, 8, 4), (1, 4, 32)),
}
"""Modules by name, and the shapes of their inputs."""


def export_block(name: str, folder: Path) -> tuple[Path, Path]:
    """Write a block as opset-12 ONNX and eight inputs as .npz; both paths."""
    make, shape = BLOCKS[name]
    torch.manual_seed(0)
    model, data = folder / f"{name}.onnx", folder / f"{name}.npz"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            make().eval(),
            (torch.randn(shape),),
            model,
            opset_version=12,
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
        )
    inputs = np.random.default_rng(1).standard_normal((8, *shape)).astype(np.float32)
    np.savez(data, x=inputs)
    return model, data
