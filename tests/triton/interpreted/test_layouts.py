"""Operands as they lie in memory: slices, transposed, broadcast, empty, long, in parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from odp.backends.triton import functional, launch
from odp.backends.triton.operators import defined
from odp.backends.triton.strides import is_one_range, rows_of
from odp.kernels.registry import OPERATORS

from ..checks import assert_within, check_case, check_gradients
from ..references import Case, case_of

Tensor = torch.Tensor


def _every_second(x: Tensor) -> Tensor:
    return torch.stack([x, -x], -1).flatten(-2)[..., ::2]


def _expanded(x: Tensor) -> Tensor:
    return x[:, :1].expand(x.shape)


# Views of the numbers of a contiguous tensor [a, b, c, n].
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed rows": lambda x: x.transpose(0, 2).contiguous().transpose(0, 2),
    "transposed columns": lambda x: x.transpose(1, -1).contiguous().transpose(1, -1),
    "all reversed": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "slice of columns": lambda x: torch.cat([x, x, x], -1)[..., x.shape[-1] : 2 * x.shape[-1]],
    "second of two chunks": lambda x: torch.cat([x + 1, x], -1).chunk(2, -1)[1],
    "slice of rows": lambda x: torch.cat([x, x, x], 1)[:, x.shape[1] : 2 * x.shape[1]],
    "every second column": _every_second,
    "every second row": lambda x: torch.stack([x, -x], 2).flatten(1, 2)[:, ::2],
    "expanded rows": _expanded,
    "expanded columns": lambda x: x[..., :1].expand(x.shape),
    "an offset": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
}


def laid_out(case: Case, change: Callable[[Tensor], Tensor], only_first: bool = False) -> Case:
    """The case with other strides."""
    tensors = dict(case.tensors)
    elements = [o.name for o in OPERATORS[case.name].operands if o.kind == "elements"]
    for name in elements[:1] if only_first else elements:
        x = tensors[name]
        assert x is not None
        tensors[name] = change(x).detach()
    return replace(case, tensors=tensors)


# One of each shape of kernel: flat, of two operands, of a row, of a row with sums over rows.
QUICK = {"silu", "swiglu", "softmax", "rms_norm"}
EACH = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in OPERATORS]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", EACH)
def test_strides_of_operands(name: str, layout: str) -> None:
    case = laid_out(case_of(name, (2, 3, 2, 5)), LAYOUTS[layout])
    check_case(case)


@pytest.mark.parametrize("layout", ["all reversed", "expanded rows", "second of two chunks"])
@pytest.mark.parametrize(
    "name",
    [n for n, o in OPERATORS.items() if sum(x.kind == "elements" for x in o.operands) > 1],
)
def test_operands_of_different_strides(name: str, layout: str) -> None:
    case = laid_out(case_of(name, (2, 3, 2, 5)), LAYOUTS[layout], only_first=True)
    check_gradients(case)


@pytest.mark.parametrize("name", OPERATORS)
def test_more_leading_indices_than_kernels_have(name: str) -> None:
    case = laid_out(case_of(name, (2, 1, 2, 2, 5)), lambda x: x.permute(3, 0, 2, 1, 4))
    if "target" in case.tensors:
        target = case.tensors["target"]
        assert target is not None
        case = replace(case, tensors={**case.tensors, "target": target.permute(3, 0, 2, 1)})
    check_case(case)


@pytest.mark.parametrize("shapes", [((2, 3, 9), (9,)), ((2, 1, 9), (3, 1)), ((1,), (2, 3, 9))])
@pytest.mark.parametrize(
    "name", ["swiglu", "geglu", "relu_squared_gate", "softmax", "add_rms_norm"]
)
def test_operands_that_broadcast(name: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    case = case_of(name, (2, 3, 9))
    names = [o.name for o in OPERATORS[name].operands if o.kind == "elements"]
    made = {n: torch.randn(shape) for n, shape in zip(names, shapes, strict=True)}
    case = replace(case, tensors={**case.tensors, **made})
    check_gradients(case)


@pytest.mark.parametrize(
    "change", [lambda t: t.t().contiguous().t(), lambda t: t[:, :1].expand(2, 3)]
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_strides_and_types_of_targets(
    dtype: torch.dtype, change: Callable[[Tensor], Tensor]
) -> None:
    case = case_of("cross_entropy", (2, 3, 9))
    target = case.tensors["target"]
    assert target is not None
    changed = change(target).to(dtype)
    outputs = replace(case, tensors={**case.tensors, "target": changed}).outputs()
    wide = replace(case, tensors={**case.tensors, "target": changed.long()})
    bounds = wide.forward_bounds()["loss"]
    assert_within(outputs["loss"], bounds.value, bounds.error)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (2, 0, 5), (0,)])
@pytest.mark.parametrize("name", [n for n in OPERATORS if n != "causal_softmax"])
def test_empty_tensors(name: str, shape: tuple[int, ...]) -> None:
    case = case_of(name, (1, 4) if len(shape) > 1 else (4,))
    tensors: dict[str, Tensor | None] = {}
    for operand in OPERATORS[name].operands:
        x = case.tensors[operand.name]
        assert x is not None
        extents = {"column": shape[-1:], "row_integer": shape[:-1]}.get(operand.kind, shape)
        tensors[operand.name] = x.new_zeros(extents)
    case = replace(case, tensors=tensors)
    leaves = [x.requires_grad_() for n in case.differentiable if (x := tensors[n]) is not None]
    for (output, kind), found in zip(OPERATORS[name].outputs, case.run(), strict=True):
        assert found.shape == (shape if kind == "elements" else shape[:-1]), output
    if leaves:
        found = case.run()[: OPERATORS[name].results]
        for leaf, gradient in zip(
            leaves, torch.autograd.grad([x.sum() for x in found], leaves), strict=True
        ):
            assert gradient.shape == leaf.shape
            assert not gradient.any()


@pytest.mark.parametrize("name", [n for n in OPERATORS if defined[n].backward is not None])
def test_a_derivative_that_is_one_number_for_all(name: str) -> None:
    case = case_of(name, (2, 3, 9))
    x = next(iter(case.tensors.values()))
    assert x is not None
    x.requires_grad_()
    y = case.run()[0]
    (summed,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    (dense,) = torch.autograd.grad(y, x, torch.ones_like(y).contiguous())
    assert torch.equal(summed, dense)


@pytest.mark.parametrize("name", ["silu", "geglu", "relu_squared"])
def test_a_flat_range_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = case_of(name, (7, 13))
    expected = whole.outputs()["y"]
    monkeypatch.setattr(launch, "_LARGEST_RANGE", 16)
    monkeypatch.setattr(launch, "_INTERPRETED_BLOCK", 8)
    assert torch.equal(whole.outputs()["y"], expected)
    check_gradients(whole)


@pytest.mark.parametrize("name", ["silu", "geglu"])
def test_long_rows_of_a_slice_in_parts(name: str) -> None:
    case = laid_out(case_of(name, (2, 5000)), lambda x: torch.cat([x, x], -1)[:, 2500:7500])
    check_gradients(case)


def test_a_flat_result_has_the_strides_of_its_operand() -> None:
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert is_one_range([x])
    y = functional.silu(x)
    assert y.stride() == x.stride()
    torch.testing.assert_close(y, torch.nn.functional.silu(x), rtol=1e-5, atol=1e-6)


def test_softmax_along_every_extent() -> None:
    x = torch.randn(3, 4, 5)
    mask = torch.rand(3, 4, 5) > 0.3
    mask[..., 0], mask[:, 0], mask[0] = True, True, True
    for dim in (0, 1, 2, -1, -2, -3):
        expected = x.masked_fill(~mask, -torch.inf).softmax(dim)
        torch.testing.assert_close(
            functional.softmax(x, dim, mask=mask), expected, rtol=2e-6, atol=1e-7
        )


@pytest.mark.parametrize("rows, columns", [(4, 4), (2, 5), (5, 3)])
def test_causal_softmax_of_more_columns_or_more_rows(rows: int, columns: int) -> None:
    x = torch.randn(2, rows, columns)
    seen = torch.ones(rows, columns, dtype=torch.bool).tril(columns - rows)
    expected = x.masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num(0.0)
    found = functional.softmax(x, causal=True)
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-7)
    assert (found[:, ~seen] == 0).all()


def test_a_causal_row_knows_its_number_in_any_layout() -> None:
    x = torch.randn(3, 4, 2, 6).permute(2, 0, 1, 3)
    expected = functional.softmax(x.contiguous(), causal=True)
    assert torch.equal(functional.softmax(x, causal=True), expected)


def test_leading_indices_are_joined_where_memory_allows() -> None:
    x = torch.randn(2, 3, 4, 5)
    assert rows_of([x], [True]).extents == (24,)
    assert rows_of([x.transpose(0, 1)], [True]).extents == (3, 2, 4)
    assert rows_of([x, x[:1].expand(x.shape)], [True, True]).extents == (2, 12)
    assert rows_of([x[..., ::2]], [True]).extents == (24,)
    assert rows_of([x[0, 0, 0]], [True]).extents == (1,)
    deep = torch.randn(2, 3, 2, 3, 2).permute(3, 2, 1, 0, 4)
    placed = rows_of([deep], [True])
    assert placed.extents == (36,)
    assert torch.equal(placed.tensors[0], deep)


@pytest.mark.parametrize("name", EACH)
def test_strides_are_as_torch_was_told(name: str) -> None:
    """Of results and gradients; a compiled graph relies on what fake tensors said."""
    for layout in ("transposed rows", "transposed columns"):
        case = laid_out(case_of(name, (2, 2, 2, 3)), LAYOUTS[layout])
        for operand in case.differentiable:
            x = case.tensors[operand]
            assert x is not None
            x.requires_grad_()
        torch.library.opcheck(
            defined[name].forward,
            case.arguments,
            test_utils=("test_faketensor", "test_aot_dispatch_dynamic"),
        )
