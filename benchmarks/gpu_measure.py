"""Measures one operator at one size: times, bytes and errors of ours and of its rivals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch._dynamo
from gpu_cases import Case, Make, Tensors
from gpu_liger import liger
from gpu_timing import Stopwatch, first_line

__all__ = ["VARIANTS", "contenders", "measure"]

VARIANTS: dict[str, dict[str, Any]] = {
    "ours, division full": {"division": "full"},
    "ours, division newton": {"division": "newton"},
    "ours, exact gradients": {"exact": True},
}
"""Options of ours that may be timed, too."""

_NATIVE = ("eager", "compiled")


@dataclass(frozen=True)
class Contender:
    """One way to compute an operator."""

    name: str
    run: Callable[..., Any]


def contenders(case: Case, on_gpu: bool, variants: bool) -> list[Contender]:
    """Ours and its rivals.

    Args:
        case: the operator.
        on_gpu: whether torch.compile may take the time to generate code, and Liger can run.
        variants: whether ours is wanted with other options, too.
    """
    found = [Contender("eager", case.native)]
    if case.is_compiled:
        backend = "inductor" if on_gpu else "aot_eager"
        compiled = torch.compile(case.native, dynamic=False, fullgraph=True, backend=backend)
        found.append(Contender("compiled", compiled))
    rival = liger(case.name) if on_gpu else None
    if rival is not None:
        found.append(Contender("liger", rival))
    found.append(Contender("ours", case.ours))
    for name, options in VARIANTS.items():
        if variants and set(options) <= set(case.options):
            found.append(Contender(name, lambda *x, o=options: case.ours(*x, **o)))
    return found


def measure(
    case: Case,
    size: tuple[int, ...],
    dtype: torch.dtype,
    watch: Stopwatch,
    wanted: Sequence[Contender],
) -> list[dict[str, Any]]:
    """One row for the forward and one for the backward."""
    with watch.stream():
        return _measure(case, size, dtype, watch, wanted)


def _measure(
    case: Case,
    size: tuple[int, ...],
    dtype: torch.dtype,
    watch: Stopwatch,
    wanted: Sequence[Contender],
) -> list[dict[str, Any]]:
    inputs = case.inputs(Make(dtype, watch.device), size)
    with torch.no_grad():
        outputs = _tuple(case.native(*inputs))
    upstream = _upstream(outputs, dtype, watch.device)
    sizes = {"forward": sum(x.nbytes for x in (*inputs, *outputs))}
    if case.differentiable:
        sizes["backward"] = case.backward_bytes(inputs, outputs)
    del outputs
    exact = _Exact(case, inputs, upstream)
    rows: dict[str, dict[str, Any]] = {direction: {} for direction in sizes}
    for contender in wanted:
        runs = {"forward": _forward, "backward": _backward}
        for direction in sizes:
            try:
                found = runs[direction](case, contender, inputs, upstream, watch, exact)
            except Exception as failure:
                found = {"failure": first_line(failure)}
            rows[direction][contender.name] = found
        # Compiled code holds on to memory, and to the number of its recompilations.
        torch._dynamo.reset()
        if watch.device.type == "cuda":
            torch.cuda.empty_cache()
    common = {"operator": case.name, "size": list(size), "dtype": str(dtype).removeprefix("torch.")}
    described = []
    for direction, found in rows.items():
        products = case.products(size) if case.products else None
        if products is not None and direction == "backward":
            products *= 2.5
        described.append(
            {
                **common,
                "direction": direction,
                **_described(found, sizes[direction], products, watch),
            }
        )
    return described


def _forward(
    case: Case,
    contender: Contender,
    inputs: Tensors,
    upstream: Tensors,
    watch: Stopwatch,
    exact: _Exact,
) -> dict[str, Any]:
    own = tuple(x.clone() for x in inputs)
    with torch.no_grad():
        outputs = _tuple(contender.run(*own))
        error = exact.forward_error(outputs)
        del outputs
        return {**watch.time(lambda: contender.run(*own)), "error": error}


def _backward(
    case: Case,
    contender: Contender,
    inputs: Tensors,
    upstream: Tensors,
    watch: Stopwatch,
    exact: _Exact,
) -> dict[str, Any]:
    own, outputs = _with_graph(case, contender.run, inputs)
    leaves = [own[position] for position in case.differentiable]
    incoming = _in_the_layout_of(outputs, upstream)

    def run() -> Tensors:
        return torch.autograd.grad(outputs, leaves, incoming, retain_graph=True)

    gradients = dict(zip(case.differentiable, run(), strict=True))
    if contender.name != "compiled" and set(case.shared) & set(gradients):
        # Sums over all rows are compared on the rows that float64 has seen; see `_Exact`.
        part, results = _with_graph(case, contender.run, exact.inputs)
        shared = [p for p in case.differentiable if p in case.shared]
        found = torch.autograd.grad(
            results, [part[p] for p in shared], _in_the_layout_of(results, exact.upstream)
        )
        gradients.update(zip(shared, found, strict=True))
    else:
        gradients = {p: g for p, g in gradients.items() if p not in case.shared}
    error = exact.backward_error(gradients)
    del gradients
    # Some of Liger's backwards write over what comes in.
    incoming = [x.clone() for x in incoming]
    return {**watch.time(run), "error": error}


def _with_graph(
    case: Case, run: Callable[..., Any], inputs: Sequence[torch.Tensor]
) -> tuple[Tensors, Tensors]:
    own = tuple(
        x.clone().requires_grad_(position in case.differentiable)
        for position, x in enumerate(inputs)
    )
    return own, _tuple(run(*own))


def _upstream(outputs: Tensors, dtype: torch.dtype, device: torch.device) -> Tensors:
    """Incoming gradients, which are the same numbers for every contender."""
    generator = torch.Generator(device).manual_seed(1)
    return tuple(
        torch.randn(x.shape, generator=generator, device=device).to(dtype) for x in outputs
    )


def _in_the_layout_of(outputs: Tensors, upstream: Tensors) -> list[torch.Tensor]:
    pairs = zip(outputs, upstream, strict=True)
    return [torch.empty_like(output).copy_(given) for output, given in pairs]


def _tuple(found: Any) -> Tensors:
    return (found,) if isinstance(found, torch.Tensor) else tuple(found)


class _Exact:
    """Results and gradients in float64, of a part of the rows; weights get sums over that part."""

    def __init__(self, case: Case, inputs: Tensors, upstream: Tensors) -> None:
        self._case = case
        self._index = case.index(inputs)
        self.inputs = tuple(
            x.clone() if position in case.shared else x[self._index].clone()
            for position, x in enumerate(inputs)
        )
        self.upstream = tuple(x[self._index].clone() for x in upstream)
        wide = tuple(x.double() if x.is_floating_point() else x for x in self.inputs)
        own, outputs = _with_graph(case, case.reference or case.native, wide)
        self._outputs = tuple(x.detach() for x in outputs)
        self._gradients: dict[int, torch.Tensor] = {}
        if case.differentiable:
            leaves = [own[position] for position in case.differentiable]
            incoming = [x.double() for x in self.upstream]
            found = torch.autograd.grad(outputs, leaves, incoming)
            self._gradients = dict(zip(case.differentiable, found, strict=True))

    def forward_error(self, outputs: Tensors) -> dict[str, float | None]:
        """The largest error of all results, and the largest relative one in the 2-norm."""
        pairs = zip(outputs, self._outputs, strict=True)
        return _worst([_error(found[self._index], exact) for found, exact in pairs])

    def backward_error(self, gradients: Mapping[int, torch.Tensor]) -> dict[str, float | None]:
        """Likewise, of gradients by position of their operand; those of weights are of the part."""
        return _worst(
            [
                _error(g if p in self._case.shared else g[self._index], self._gradients[p])
                for p, g in gradients.items()
            ]
        )


def _error(found: torch.Tensor, exact: torch.Tensor) -> tuple[float, float]:
    difference = found.double() - exact.double()
    size = float(exact.double().norm())
    return float(difference.abs().max()), float(difference.norm()) / (size or 1.0)


def _worst(errors: Sequence[tuple[float, float]]) -> dict[str, float | None]:
    """None for what is not finite, which JSON has no word for."""
    found = {}
    for name, values in zip(("largest", "relative"), zip(*errors, strict=True), strict=True):
        found[name] = max(values) if all(map(math.isfinite, values)) else None
    return found


def _described(
    found: dict[str, Any], size: int, products: float | None, watch: Stopwatch
) -> dict[str, Any]:
    """Speeds and ratios, from times of one kind: CUDA graphs if ours and the native have them."""
    timed = {name: one for name, one in found.items() if "failure" not in one}
    compared = [one for name, one in timed.items() if name in (*_NATIVE, "ours")]
    basis = "graph" if compared and all(one["graph"] for one in compared) else "call"
    speed = watch.copy_speed()
    for one in timed.values():
        microseconds = (one[basis] or one["call"])["median"]
        one["microseconds"] = microseconds
        one["gigabytes_per_second"] = size / microseconds / 1e3
        one["share_of_copy"] = size / microseconds / speed
        if products is not None:
            one["teraflops"] = products / microseconds / 1e6
    native = {name: timed[name]["microseconds"] for name in _NATIVE if name in timed}
    best = min(native, key=native.__getitem__, default=None)
    ratio = timed["ours"]["microseconds"] / native[best] if best and "ours" in timed else None
    return {
        "bytes": size,
        "basis": basis,
        "copy_of_as_many_bytes": watch.copy(size),
        "contenders": found,
        "best_native": best,
        "ratio_to_best_native": ratio,
    }
