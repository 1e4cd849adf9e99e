"""RWKV's first norm sees variances of 1e-5, where constants are smaller than an exporter's zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import odp

from .onnx_route import export_to_onnx, run_onnx


class Root(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.rsqrt(x)


SMALL = torch.linspace(1e-5, 2e-5, 16)
WIDE = torch.linspace(0.5, 1.0, 16)
CASES: list[tuple[torch.nn.Module, str, torch.Tensor]] = [
    (Root(), "rsqrt{scheme=minimax,numerator=2,denominator=2}", SMALL),
    *(
        (Root(), f"rsqrt{{formula={formula}}}", x)
        for formula, x in [
            ("x + 3e-9", 1e-9 * WIDE),
            ("x - 3e-9", 1e-9 * WIDE),
            ("3e-9 - x", 1e-9 * WIDE),
            ("1.000008*x", WIDE),
            ("x/1.000008", WIDE),
            ("0.999992*(1e-25 + x*1e-23)", WIDE),
            ("x + 1e-25", 1e18 * WIDE),
        ]
    ),
]


@pytest.mark.parametrize(("module", "passes", "x"), CASES, ids=[case[1] for case in CASES])
def test_no_constant_is_taken_for_zero_or_one(
    module: Any, passes: str, x: torch.Tensor, tmp_path: Path
) -> None:
    result = odp.rewrite(
        module, passes, calibration=(x,), structure="graph", guard="none", measure=False
    )
    path = tmp_path / "rewritten.onnx"
    export_to_onnx(result.model, {"x": x}, path)
    expected = result.model(x).detach().double().numpy()
    # A dozen roundings, and the wrong constants are off by at least 5e-6.
    np.testing.assert_allclose(run_onnx(path, {"x": x}), expected, rtol=2e-6, atol=0.0)
    formula = passes.partition("formula=")[2].removesuffix("}")
    if formula:
        with np.errstate(all="ignore"):
            exact = eval(formula, {"x": x.double().numpy()})
        np.testing.assert_allclose(expected, exact, rtol=2e-6, atol=0.0)
