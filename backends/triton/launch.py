"""Launches: which form of a kernel, over how many programs, on which tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from odp.approximations.errors import OdpError
from odp.backends.triton.devices import interpreted, multiprocessors, runs_kernels
from odp.backends.triton.strides import is_one_range, rows_of
from odp.kernels.generated_module import generated_function
from odp.kernels.kernel import Kernel, Layout
from odp.kernels.torch_evaluation import evaluate
from odp.kernels.triton_source import triton_kernel

__all__ = ["DIVISIONS", "Blocks", "result_like", "row_blocks", "run_kernel"]

DIVISIONS = ("fast", "full", "newton")
"""How kernels divide; see `odp.kernels.arithmetic.divide`."""

_FLAT_BLOCK, _FLAT_WARPS = 1024, 4
# Where a program finds its row by dividing integers, 16 elements a thread: 23 instead of 28
# instructions an element of the derivative of cross-entropy (sm_90).
_PART_BLOCK, _PART_WARPS = 2048, 4
# Half of what 32-bit indices reach, so that no sum of them overflows.
_LARGEST_RANGE = 1 << 30
# In the interpreter an operation costs 15 us a program, and 0.6 ns an element.
_INTERPRETED_BLOCK = 1 << 16
# 32 floats a thread of 512; QuACK measured Liger's softmax to spill from 65,536 columns on.
_LONGEST_ROW = 16384
_LOOPED_BLOCK = 4096
_LONGEST_SUMMED_ROW = 65536
_PROGRAMS_PER_MULTIPROCESSOR = 4

Blocks = tuple[int, int, bool]
"""Columns of a block, warps of a program, and whether a row takes several blocks."""


def row_blocks(columns: int) -> Blocks:
    """How a row is gone through: 512 elements a warp, 16 a thread."""
    block = 1 << max(columns - 1, 0).bit_length()
    if block > _LONGEST_ROW:
        return _LOOPED_BLOCK, 8, True
    return block, min(max(block // 512, 1), 32), False


def run_kernel(
    kernel: Kernel,
    operands: Mapping[str, Any],
    shape: Sequence[int],
    dtypes: Sequence[torch.dtype],
    division: str = "fast",
) -> list[torch.Tensor]:
    """The results of a kernel.

    Args:
        kernel: what to compute.
        operands: by name: tensors that broadcast to `shape` for elements, to `shape[:-1]` for rows,
            of `shape[-1:]` for columns; numbers for scalars.
        shape: of element-wise results.
        dtypes: of the results; sums of columns are added up in float32.
        division: one of `DIVISIONS`.
    """
    given = {name: operands[name] for name in kernel.operands}
    tensors = [value for value in given.values() if isinstance(value, torch.Tensor)]
    device = tensors[0].device
    rows = 1
    for extent in shape[:-1]:
        rows *= extent
    if rows == 0 or shape[-1] == 0:
        return [
            _empty(o.kind, shape, t, device) for o, t in zip(kernel.outputs, dtypes, strict=True)
        ]
    if not runs_kernels(device):
        return _by_torch(kernel, given, shape, dtypes)
    for name, kind in kernel.operands.items():
        if kind == "elements":
            given[name] = given[name].expand(shape)
        elif kind in ("row", "row_integer"):
            given[name] = given[name].expand(shape[:-1])
        elif kind == "column":
            given[name] = given[name].contiguous()
    # libdevice is not in the interpreter.
    division = "full" if interpreted() and division == "fast" else division
    elements = [given[name] for name, kind in kernel.operands.items() if kind == "elements"]
    if kernel.flat and is_one_range(elements):
        like = result_like(kernel, given, shape)
        results = [
            torch.empty(tuple(shape), dtype=dtype, device=device)
            if like is None
            else torch.empty_like(like, dtype=dtype)
            for dtype in dtypes
        ]
        _flat(kernel, given, results, division)
        return results
    return _by_rows(kernel, given, shape, rows, dtypes, division)


def result_like(
    kernel: Kernel, operands: Mapping[str, Any], shape: Sequence[int]
) -> torch.Tensor | None:
    """An operand whose strides element-wise results have; None where they are contiguous.

    Args:
        kernel: what is computed.
        operands: as of `run_kernel`; of fake tensors, too.
        shape: of the results.
    """
    if not kernel.flat:
        return None
    names = (name for name, kind in kernel.operands.items() if kind == "elements")
    elements: list[torch.Tensor] = [operands[name].expand(shape) for name in names]
    if all(x.is_contiguous() for x in elements) or not is_one_range(elements):
        return None
    return elements[0]


def _empty(
    kind: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    if kind == "column_sum":
        return torch.zeros(shape[-1:], dtype=dtype, device=device)
    # A row of nothing has a sum of nothing.
    extents = shape if kind == "elements" else shape[:-1]
    return torch.zeros(tuple(extents), dtype=dtype, device=device)


def _by_torch(
    kernel: Kernel,
    given: Mapping[str, Any],
    shape: Sequence[int],
    dtypes: Sequence[torch.dtype],
) -> list[torch.Tensor]:
    """The same terms in torch: in float64 if an operand is, otherwise in float32 like a kernel."""
    operands = {
        name: value.unsqueeze(-1) if kernel.operands[name].startswith("row") else value
        for name, value in given.items()
    }
    doubles = any(
        isinstance(value, torch.Tensor) and value.dtype == torch.float64 for value in given.values()
    )
    precision = torch.float64 if doubles else torch.float32
    like = result_like(kernel, given, shape)
    terms = [output.term for output in kernel.outputs]
    with torch.no_grad():
        values = evaluate(terms, operands, shape, precision)
        results = []
        for output, value, dtype in zip(kernel.outputs, values, dtypes, strict=True):
            if output.kind == "row":
                found = value.expand((*shape[:-1], 1)).squeeze(-1)
            else:
                found = value.expand(tuple(shape))
            if output.kind == "column_sum":
                found = found.reshape(-1, shape[-1]).sum(0)
            if like is None:
                results.append(found.to(dtype).contiguous())
            else:
                results.append(torch.empty_like(like, dtype=dtype).copy_(found))
    return results


def _flat(
    kernel: Kernel, given: Mapping[str, Any], results: Sequence[torch.Tensor], division: str
) -> None:
    elements = results[0].numel()
    function = _compiled(kernel, Layout(0))
    block = _INTERPRETED_BLOCK if interpreted() else _FLAT_BLOCK
    flat = {
        name: _range(value) if isinstance(value, torch.Tensor) else value
        for name, value in given.items()
    }
    flat_results = [_range(result) for result in results]
    for start in range(0, elements, _LARGEST_RANGE):
        count = min(_LARGEST_RANGE, elements - start)
        part = slice(start, start + count)
        pointers = [value[part] for value in flat.values() if isinstance(value, torch.Tensor)]
        scalars = [value for value in flat.values() if not isinstance(value, torch.Tensor)]
        arguments = [*pointers, *(result[part] for result in flat_results), 1, count, *scalars]
        warps = {} if interpreted() else {"num_warps": _FLAT_WARPS}
        function[(-(-count // block),)](*arguments, BLOCK=block, DIVISION=division, **warps)


def _range(x: torch.Tensor) -> torch.Tensor:
    """The memory of a tensor without gaps as one range."""
    return x.as_strided((x.numel(),), (1,), x.storage_offset())


def _by_rows(
    kernel: Kernel,
    given: Mapping[str, Any],
    shape: Sequence[int],
    rows: int,
    dtypes: Sequence[torch.dtype],
    division: str,
) -> list[torch.Tensor]:
    columns = shape[-1]
    names = [n for n, kind in kernel.operands.items() if kind in ("elements", "row", "row_integer")]
    placed = rows_of(
        [given[name] for name in names], [kernel.operands[name] == "elements" for name in names]
    )
    ready = {**given, **dict(zip(names, placed.tensors, strict=True))}
    block, warps, looped = row_blocks(columns)
    by_row = kernel.reduces or kernel.sums_columns
    programs = rows
    if kernel.sums_columns:
        if looped:
            block, warps, looped = _summed_row(kernel, columns)
        device = placed.tensors[0].device
        programs = min(rows, multiprocessors(device) * _PROGRAMS_PER_MULTIPROCESSOR)
    elif not by_row:
        looped = False
        block, warps = (_PART_BLOCK, _PART_WARPS) if columns > _PART_BLOCK else (block, warps)
        programs = rows * -(-columns // block)
    layout = Layout(len(placed.extents), looped)
    device = placed.tensors[0].device
    results = [
        torch.empty((programs, columns), dtype=torch.float32, device=device)
        if output.kind == "column_sum"
        else torch.empty(
            tuple(shape if output.kind == "elements" else shape[:-1]), dtype=dtype, device=device
        )
        for output, dtype in zip(kernel.outputs, dtypes, strict=True)
    ]
    pointers = [value for value in ready.values() if isinstance(value, torch.Tensor)]
    scalars = [value for value in ready.values() if not isinstance(value, torch.Tensor)]
    strides = [stride for tensor in placed.strides for stride in tensor]
    group = [shape[-2] if len(shape) > 1 else 1] if kernel.counts_rows else []
    options = {} if interpreted() else {"num_warps": warps}
    _compiled(kernel, layout)[(programs,)](
        *(*pointers, *results, rows, columns, *placed.extents[1:], *strides, *group, *scalars),
        **{"BLOCK": block, "DIVISION": division, **options},
    )
    return [
        result.sum(0).to(dtype) if output.kind == "column_sum" else result
        for output, result, dtype in zip(kernel.outputs, results, dtypes, strict=True)
    ]


def _summed_row(kernel: Kernel, columns: int) -> Blocks:
    if columns > _LONGEST_SUMMED_ROW:
        raise OdpError(
            f"{kernel.name}: gradients of weights are made for rows of up to "
            f"{_LONGEST_SUMMED_ROW:,} columns, not {columns:,}"
        )
    return 1 << (columns - 1).bit_length(), 32, False


@lru_cache(maxsize=4096)
def _compiled(kernel: Kernel, layout: Layout) -> Any:
    description = f"{kernel.name.replace('_', ' ')}, {layout.leading} leading indices"
    return generated_function(triton_kernel(kernel, layout, description), kernel.name)
