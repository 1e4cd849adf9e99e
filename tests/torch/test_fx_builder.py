"""Everything that the torch builder can emit, in every floating-point type, against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odp.approximations import approximate
from odp.approximations.error_analysis import rounding_error
from odp.approximations.expression import Expression
from odp.rewriter import fx_builder
from odp.rewriter.fx_builder import FxBuilder
from odp.rewriter.graph import Builder, Value

from .small_graphs import TAGS, aten, call_of, emitted, run

Tensor = torch.Tensor
TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
X = torch.arange(1, 13, dtype=torch.float32).reshape(2, 6) / 16
Y = torch.tensor([0.25, 0.75, 0.5, 1.25, -0.5, 1.0]).expand(2, 6).clone()

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    **{
        name: getattr(torch, name)
        for name in (
            *("neg", "abs", "relu", "exp", "log", "sqrt", "rsqrt", "reciprocal", "erf", "sin"),
            *("cos", "tan", "sinh", "cosh", "asin", "acos", "atan", "asinh", "atanh", "tanh"),
            *("sigmoid", "acosh"),
        )
    },
    "softplus": torch.nn.functional.softplus,
    "identity": torch.clone,
}
BINARY: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "pow": torch.pow,
    "max": torch.maximum,
    "min": torch.minimum,
}
REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "mean": torch.mean,
    "sum": torch.sum,
    "max": torch.amax,
}


def _where(kind: str) -> Callable[[Builder, Value], Value]:
    def emit(b: Builder, x: Value) -> Value:
        large = b.op("greater", x, b.number(0.4, x))
        one = b.op("neg", x) if kind[0] == "t" else b.number(-1.0, x)
        other = x if kind[1] == "t" else b.number(2.0, x)
        return b.op("where", large, one, other)

    return emit


Case = tuple[Callable[[Builder, Value], Value], Callable[[Tensor], Tensor]]

CASES: dict[str, Case] = {
    "clip_both": (lambda b, x: b.op("clip", x, low=0.2, high=0.5), lambda x: x.clamp(0.2, 0.5)),
    "clip_low": (lambda b, x: b.op("clip", x, low=0.2), lambda x: x.clamp(min=0.2)),
    "clip_high": (lambda b, x: b.op("clip", x, high=0.5), lambda x: x.clamp(max=0.5)),
    "cast_wider": (lambda b, x: b.op("cast", x, dtype="float64"), lambda x: x.double()),
    "cast_narrower": (lambda b, x: b.op("cast", x, dtype="bfloat16"), lambda x: x.bfloat16()),
    "reshape": (lambda b, x: b.op("reshape", x, shape=(3, 4)), lambda x: x.reshape(3, 4)),
    "reshape_inferred": (lambda b, x: b.op("reshape", x, shape=(-1,)), lambda x: x.flatten()),
    "unsqueeze": (lambda b, x: b.op("unsqueeze", x, axes=(2, 0)), lambda x: x[None, :, None]),
    "squeeze": (
        lambda b, x: b.op("squeeze", b.op("reshape", x, shape=(2, 1, 6, 1)), axes=(1, 3)),
        lambda x: x.clone(),
    ),
    "gather": (
        lambda b, x: b.op("gather", x, b.constant([[1, 0], [0, 0]], "int64")),
        lambda x: x[torch.tensor([[1, 0], [0, 0]])],
    ),
    "greater": (lambda b, x: b.op("greater", x, b.number(0.4, x)), lambda x: x > 0.4),
    "greater_of_tensors": (
        lambda b, x: b.op("greater", x, b.op("mul", x, x)),
        lambda x: x > x * x,
    ),
    "where_tensors": (_where("tt"), lambda x: torch.where(x > 0.4, -x, x)),
    "where_number_last": (_where("tn"), lambda x: torch.where(x > 0.4, -x, 2.0)),
    "where_number_first": (_where("nt"), lambda x: torch.where(x > 0.4, -1.0, x)),
    "number_minus_tensor": (lambda b, x: b.rsub(1.0, x), lambda x: 1.0 - x),
    "number_over_tensor": (
        lambda b, x: b.op("div", b.number(3.0, x), x),
        lambda x: x.reciprocal() * 3.0,
    ),
    "one_over_tensor": (lambda b, x: b.op("div", b.number(1.0, x), x), lambda x: x.reciprocal()),
    "number_plus_tensor": (lambda b, x: b.op("add", b.number(3.0, x), x), lambda x: x + 3.0),
    "number_to_a_power": (lambda b, x: b.op("pow", b.number(2.0, x), x), lambda x: 2.0**x),
    "larger_number": (lambda b, x: b.op("max", b.number(0.4, x), x), lambda x: x.clamp(min=0.4)),
    "smaller_number": (lambda b, x: b.op("min", x, b.number(0.4, x)), lambda x: x.clamp(max=0.4)),
    "numbers_on_the_right": (
        lambda b, x: b.div(b.mul(b.sub(b.add(x, 3.0), 1.0), 2.0), 4.0),
        lambda x: (x + 3.0 - 1.0) * 2.0 / 4.0,
    ),
    "matmul": (
        lambda b, x: b.op("matmul", x, b.op("reshape", x, shape=(6, 2))),
        lambda x: x @ x.reshape(6, 2),
    ),
    "tensor_of_constants": (
        lambda b, x: b.op("mul", x, b.constant(np.arange(6.0), x.dtype or "")),
        lambda x: x * torch.arange(6.0, dtype=x.dtype),
    ),
    "widened": (lambda b, x: b.widened(x), lambda x: x.to(_wider(x.dtype))),
}


def _wider(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def same(value: Value, result: Tensor, expected: Tensor) -> None:
    """The operators are torch's own: equal to the last bit, and as the builder says."""
    assert result.dtype == expected.dtype
    assert torch.equal(result, expected)
    assert value.dtype == str(result.dtype).removeprefix("torch.")
    assert value.shape == result.shape


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_operand(name: str, dtype: torch.dtype) -> None:
    shift = 1.0 if name == "acosh" else 0.0
    x = (X + shift).to(dtype)
    graph, value = emitted(lambda b, a: b.op(name, a), x)
    same(value, run(graph, x), UNARY[name](x))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_operands(name: str, dtype: torch.dtype) -> None:
    x, y = X.to(dtype), Y.to(dtype)
    graph, value = emitted(lambda b, a, c: b.op(name, a, c), x, y)
    same(value, run(graph, x, y), BINARY[name](x, y))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_everything_else(name: str, dtype: torch.dtype) -> None:
    x = X.to(dtype)
    emit, expected = CASES[name]
    graph, value = emitted(emit, x)
    same(value, run(graph, x), expected(x))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("axes", [(1,), (0,), (0, 1)])
@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize("kind", REDUCTIONS)
def test_reductions(kind: str, axes: tuple[int, ...], keepdims: bool, dtype: torch.dtype) -> None:
    x = X.to(dtype)
    graph, value = emitted(lambda b, a: b.reduce(kind, a, axes, keepdims), x)
    same(value, run(graph, x), REDUCTIONS[kind](x, axes, keepdim=keepdims))


def test_every_emitter_is_tried() -> None:
    """A new `_emit_` method of the builder, or a new operator, needs a case above."""
    emitters = {name.removeprefix("_emit_") for name in dir(FxBuilder) if name.startswith("_emit_")}
    tried = {name.split("_")[0] for name in CASES} | set(BINARY)
    tried |= {f"reduce_{kind}" for kind in REDUCTIONS}
    assert emitters <= tried
    assert set(fx_builder._OPERATORS) <= set(UNARY) | set(BINARY) | tried


FUNCTIONS = [("exp", (0.0, 1.0)), ("rsqrt", (0.03, 1.0)), ("sigmoid", (-1.0, 1.0))]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("function", "domain"), FUNCTIONS)
def test_expressions(function: str, domain: tuple[float, float], dtype: torch.dtype) -> None:
    approximant = approximate(function, domain, error=1e-3)
    x = X.to(dtype)
    graph, value = emitted(lambda b, a: b.expression(approximant.expression, a), x)
    result = run(graph, x)
    assert result.dtype == dtype
    assert value.shape == (2, 6)
    inner = torch.promote_types(dtype, torch.float32)
    numbers = x.double().numpy()
    exact = torch.from_numpy(np.asarray(approximant(numbers)))
    # Every operation rounds to the type that the expression computes in, the result to that of x.
    unit = torch.finfo(inner).eps / 2
    bound = torch.from_numpy(rounding_error(approximant.expression, numbers, unit))
    bound += exact.abs() * torch.finfo(dtype).eps / 2
    assert ((result.double() - exact).abs() <= bound).all()


def test_a_constant_expression_has_a_value_for_each_element() -> None:
    graph, value = emitted(lambda b, a: b.expression(Expression.constant(0.5), a), X)
    assert value.shape == (2, 6)
    assert torch.equal(run(graph, X), torch.full_like(X, 0.5))


@given(number=st.floats(allow_nan=False, width=32), x=st.floats(-1e3, 1e3, width=32))
@settings(max_examples=40, deadline=None)
def test_numbers_stay_what_they_are(number: float, x: float) -> None:
    tensor = torch.tensor([x, -x, 0.0])
    graph, _ = emitted(lambda b, a: b.add(b.mul(a, number), number), tensor)
    expected = tensor * number + number
    assert torch.equal(run(graph, tensor).nan_to_num(), expected.nan_to_num())


def test_every_node_carries_the_tags_and_is_marked() -> None:
    graph, value = emitted(lambda b, a: b.op("clip", b.mul(a, 2.0), low=0.0), X)
    nodes = list(graph.nodes())
    assert len(nodes) == 2
    for node in nodes:
        assert node.emitted
        assert node.native.meta["custom"] == TAGS
    assert value.producer is not None and value.producer.name == nodes[-1].name


def test_new_nodes_belong_to_the_module_of_the_node_they_stand_before() -> None:
    anchor = call_of(aten.neg.default, X)
    stack = {"a": ("layers.0.norm", torch.nn.LayerNorm)}
    anchor.native.meta["nn_module_stack"] = stack
    anchor.native.meta["stack_trace"] = "line 3"
    operand = anchor.inputs[0]
    assert operand is not None
    node = anchor.graph.builder(anchor, TAGS).op("exp", operand).producer
    assert node is not None
    assert (node.module_path, node.module_type) == ("layers.0.norm", "LayerNorm")
    assert node.native.meta["stack_trace"] == "line 3"  # type: ignore[attr-defined]


def test_tensors_of_constants_are_no_part_of_a_state_dict() -> None:
    def emit(b: Builder, x: Value) -> Value:
        first = b.op("mul", x, b.constant(np.ones(6), "float32"))
        return b.op("add", first, b.constant(np.zeros((2, 1)), "float32"))

    graph, _ = emitted(emit, X)
    assert dict(graph.module.state_dict()) == {}
    assert [name for name, _ in graph.module.named_buffers()] == [
        "odp_constant_0",
        "odp_constant_1",
    ]
    assert torch.equal(run(graph, X), X)


def test_scalars_are_arguments_of_nodes_and_no_tensors() -> None:
    graph, value = emitted(lambda b, a: b.mul(a, 0.5), X)
    assert list(graph.module.buffers()) == []
    assert value.native.args[1] == 0.5


def test_operators_with_several_results_are_not_emitted() -> None:
    anchor = call_of(aten.neg.default, X)
    build: Any = anchor.graph.builder(anchor, TAGS)
    with pytest.raises(AssertionError):
        build.op_with_outputs("split", 2, anchor.inputs[0])


def test_unknown_operations_are_a_mistake_of_the_pass() -> None:
    anchor = call_of(aten.neg.default, X)
    with pytest.raises(KeyError):
        anchor.graph.builder(anchor, TAGS).op("conv", anchor.inputs[0])
