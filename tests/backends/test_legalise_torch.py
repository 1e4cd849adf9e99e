"""Blocks exported by torch.onnx (dynamo, opset 18 and 20) become true opset 12."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import onnx_ir as ir
import pytest

from odp.backends.onnx.check import check_model
from odp.backends.onnx.freeze import simplify
from odp.backends.onnx.legalise import legalise

torch = pytest.importorskip("torch")
functional = torch.nn.functional

_SCOPES = "pkg.torch.onnx.name_scopes"


class _PreNorm(torch.nn.Module):
    """RMSNorm by rsqrt, causal softmax attention, SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(16))
        self.qkv = torch.nn.Linear(16, 48)
        self.gate, self.up = torch.nn.Linear(16, 24), torch.nn.Linear(16, 24)
        self.down = torch.nn.Linear(24, 16)

    def forward(self, x):
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight
        q, k, v = self.qkv(y).chunk(3, -1)
        mask = torch.full((x.shape[1], x.shape[1]), -1e4).triu(1)
        x = x + torch.softmax(q @ k.transpose(-1, -2) / 4 + mask, -1) @ v
        return x + self.down(functional.silu(self.gate(x)) * self.up(x))


class _PostNorm(torch.nn.Module):
    """Scaled dot product attention, GELU, LayerNorm, and a log-softmax that is not last."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.inner = torch.nn.Linear(16, 48), torch.nn.Linear(16, 16)
        self.norm = torch.nn.LayerNorm(16)

    def forward(self, x):
        q, k, v = (t.unsqueeze(1) for t in self.qkv(x).chunk(3, -1))
        y = functional.scaled_dot_product_attention(q, k, v).squeeze(1)
        y = self.norm(x + functional.gelu(self.inner(y)))
        return torch.log_softmax(y, 1) + functional.gelu(y, approximate="tanh")


class _Convolutional(torch.nn.Module):
    """Convolution, batch, group and instance norms, hardswish, mish, pooling, upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(8, 8, 3, padding=1)
        self.batch, self.group = torch.nn.BatchNorm1d(8), torch.nn.GroupNorm(2, 8)
        self.instance = torch.nn.InstanceNorm1d(8, affine=True)

    def forward(self, x):
        x = functional.hardswish(self.batch(self.conv(x)))
        x = functional.mish(self.group(x))
        x = functional.max_pool1d(self.instance(x), 2)
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return functional.pad(x, (1, 1)).cumsum(-1).clamp(-3, 3)


@pytest.mark.parametrize("opset", [18, 20])
@pytest.mark.parametrize("block", [_PreNorm, _PostNorm, _Convolutional])
def test_exported_block(block, opset, run_model) -> None:
    torch.manual_seed(0)
    module = block().eval()
    x = torch.randn(2, 8, 16)
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(module, (x,), dynamo=True, opset_version=opset, verbose=False)
        expected = module(x).numpy()
    proto = program.model_proto
    # The exporter itself leaves the Split of a chunk without a scope.
    untagged = sum(_SCOPES not in node.metadata_props for node in ir.from_proto(proto).graph)

    model = legalise(simplify(ir.from_proto(proto)))

    check_model(model)
    assert model.opset_imports == {"": 12}
    assert model.ir_version == 7
    assert sum(_SCOPES not in node.metadata_props for node in model.graph) <= untagged
    (name,) = [value.name for value in model.graph.inputs]
    (got,) = run_model(model, {name: x.numpy()})
    # Same float32 arithmetic in another order; values reach 10.
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    (source,) = run_model(proto, {name: x.numpy()})
    np.testing.assert_allclose(got, source, rtol=5e-6, atol=5e-6)
