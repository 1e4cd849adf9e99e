"""Which calls hide a transcendental function: by name, by argument, and by what they run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from odp.rewriter.fx_transcendental import is_transcendental, is_transcendental_call

from .small_graphs import aten, call_of

X = torch.linspace(0.25, 2.0, 12).reshape(3, 4)
WEIGHT = torch.ones(4)
COMPLEX = torch.complex(X, X)
STATISTICS = (X, WEIGHT, WEIGHT, WEIGHT, WEIGHT)

HIDING: dict[str, tuple[Any, ...]] = {
    "exp": (aten.exp.default, X),
    "in_place": (aten.exp_.default, X),
    "into_a_tensor": (aten.exp.out, X, {"out": X.clone()}),
    "fractional_power": (aten.pow.Tensor_Scalar, X, 0.5),
    "negative_fractional_power": (aten.pow.Tensor_Scalar, X, -1.5),
    "power_of_a_number": (aten.pow.Scalar, 2, X),
    "power_of_tensors": (aten.pow.Tensor_Tensor, X, X),
    "float_power": (aten.float_power.Tensor_Scalar, X, 0.3),
    "norm_of_two": (aten.linalg_vector_norm.default, X),
    "norm_of_three": (aten.linalg_vector_norm.default, X, 3),
    "norm_of_a_half": (aten.norm.Scalar, X, 0.5),
    "older_norm": (aten.norm.ScalarOpt_dim, X, 2, [0]),
    "norm_of_none": (aten.norm.ScalarOpt_dim, X, None, [0]),
    "batch_norm_in_training": (aten.batch_norm.default, *STATISTICS, True, 0.1, 1e-5, False),
    "functional_batch_norm": (
        aten._native_batch_norm_legit_functional.default,
        *STATISTICS,
        True,
        0.1,
        1e-5,
    ),
    "batch_norm_without_statistics": (
        aten._native_batch_norm_legit.no_stats,
        X,
        WEIGHT,
        WEIGHT,
        True,
        0.1,
        1e-5,
    ),
    "batch_norm_with_update": (aten._batch_norm_with_update.default, *STATISTICS, 0.1, 1e-5),
    "instance_norm": (
        aten.instance_norm.default,
        X[None],
        None,
        None,
        None,
        None,
        True,
        0.1,
        1e-5,
        False,
    ),
    "absolute_value_of_complex": (aten.abs.default, COMPLEX),
    "softmax": (aten.softmax.int, X, -1),
    "deviation": (aten.std.correction, X, [0]),
    "attention": (aten.scaled_dot_product_attention.default, X[None], X[None], X[None]),
    "kl_divergence": (aten.kl_div.default, X, X),
}
RATIONAL: dict[str, tuple[Any, ...]] = {
    "whole_power": (aten.pow.Tensor_Scalar, X, 3),
    "whole_power_as_float": (aten.pow.Tensor_Scalar, X, 2.0),
    "negative_whole_power": (aten.pow.Tensor_Scalar, X, -2),
    "norm_of_one": (aten.linalg_vector_norm.default, X, 1),
    "largest": (aten.linalg_vector_norm.default, X, float("inf")),
    "smallest": (aten.linalg_vector_norm.default, X, float("-inf")),
    "count": (aten.norm.Scalar, X, 0),
    "batch_norm_in_inference": (aten.batch_norm.default, *STATISTICS, False, 0.1, 1e-5, False),
    "instance_norm_with_statistics": (
        aten.instance_norm.default,
        X[None],
        None,
        None,
        torch.ones(3),
        torch.ones(3),
        False,
        0.1,
        1e-5,
        False,
    ),
    "absolute_value": (aten.abs.default, X),
    "sign": (aten.sgn.default, X),
    "variance": (aten.var.correction, X, [0]),
    "division": (aten.div.Tensor, X, X),
    "relu": (aten.relu.default, X),
    "hard_sigmoid": (aten.hardsigmoid.default, X),
    "hard_swish": (aten.hardswish.default, X),
    "other_library": (torch.ops.prims.exp.default, X),
}


def parts(call: tuple[Any, ...]) -> tuple[Any, list[Any], dict[str, Any]]:
    target, *args = call
    kwargs = args.pop() if isinstance(args[-1], dict) else {}
    return target, args, kwargs


@pytest.mark.parametrize("name", HIDING)
def test_what_hides_a_transcendental_function(name: str) -> None:
    assert is_transcendental_call(*parts(HIDING[name]))


@pytest.mark.parametrize("name", RATIONAL)
def test_what_is_rational(name: str) -> None:
    assert not is_transcendental_call(*parts(RATIONAL[name]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [(name, True) for name in ("exp", "fractional_power", "norm_of_two", "kl_divergence")]
    + [(name, False) for name in ("whole_power", "norm_of_one", "absolute_value")],
)
def test_a_node_counts_as_its_call_does(name: str, expected: bool) -> None:
    target, args, kwargs = parts((HIDING | RATIONAL)[name])
    node = call_of(target, *args, **kwargs)
    assert is_transcendental(node.native) is expected
    assert node.graph.transcendental() == ({node.native_type: 1} if expected else {})


def test_a_node_with_a_complex_operand_counts() -> None:
    assert is_transcendental(call_of(aten.abs.default, COMPLEX).native)


class _Executed(TorchDispatchMode):
    """Whether anything that runs is transcendental."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if is_transcendental_call(func, args, kwargs or {}):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "name", [n for n in RATIONAL if n not in ("other_library", "norm_of_one", "count")]
)
def test_a_rational_call_runs_nothing_transcendental(name: str) -> None:
    target, args, kwargs = parts(RATIONAL[name])
    with _Executed() as executed:
        target(*args, **kwargs)
    assert executed.found == []
