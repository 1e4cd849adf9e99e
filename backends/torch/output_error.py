"""How far the outputs of a rewritten module are from those of the original, pass by pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils import _pytree as pytree

from odp.backends.torch.inputs import Batches, Inputs, run
from odp.rewriter.measurement import Comparison
from odp.rewriter.report import Metrics

__all__ = ["Variant", "errors_by_pass", "named_outputs"]

Variant = Callable[[Collection[str]], AbstractContextManager[Callable[[Inputs], Any]]]
"""Gives the module with the expressions of some passes only, as a function of its inputs."""

ByPass = dict[str, dict[str, Metrics]]


def errors_by_pass(
    original: torch.nn.Module,
    variant: Variant,
    passes: Sequence[str],
    batches: Batches,
    limit: int,
    progress: Callable[[int, int], None],
) -> tuple[ByPass, ByPass]:
    """Metrics of every pass alone, and together with all passes before it.

    One variant at a time goes through the data, and the outputs of the original are computed again
    for each: holding the logits of all batches would take gigabytes.

    Args:
        original: the module before.
        variant: see `Variant`.
        passes: names of the passes that have sites, in order.
        batches: inputs to compare on.
        limit: how many of them.
        progress: called with the number of variants that are done, and of all.

    Returns:
        Pass name to output name to metrics: isolated and cumulative.
    """
    alone = [frozenset({name}) for name in passes]
    together = [frozenset(passes[: index + 1]) for index in range(len(passes))]
    wanted = list(dict.fromkeys([*alone, *together]))
    known: dict[frozenset[str], dict[str, Metrics]] = {}
    for index, enabled in enumerate(wanted):
        progress(index, len(wanted))
        with variant(enabled) as rewritten:
            known[enabled] = _compared(original, rewritten, batches, limit)
    progress(len(wanted), len(wanted))
    isolated = {name: known[enabled] for name, enabled in zip(passes, alone, strict=True)}
    cumulative = {name: known[enabled] for name, enabled in zip(passes, together, strict=True)}
    return isolated, cumulative


def _compared(
    original: torch.nn.Module, rewritten: Callable[[Inputs], Any], batches: Batches, limit: int
) -> dict[str, Metrics]:
    comparisons: dict[str, Comparison] = {}
    for number, inputs in enumerate(batches):
        if number >= limit:
            break
        before = named_outputs(run(original, inputs))
        after = named_outputs(rewritten(inputs))
        for name, tensor in before.items():
            comparison = comparisons.setdefault(name, Comparison(name))
            comparison.add(_array(tensor), _array(after[name]))
    return {name: comparison.metrics() for name, comparison in comparisons.items()}


def named_outputs(result: Any) -> dict[str, torch.Tensor]:
    """The floating-point tensors among the results of a module, by where they are.

    A lone tensor is called `output`; caches of keys and values are left out.
    """
    if isinstance(result, torch.Tensor):
        return {"output": result} if result.is_floating_point() else {}
    found = {}
    for path, leaf in pytree.tree_flatten_with_path(result)[0]:
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
            name = pytree.keystr(path).replace("['", ".").replace("']", "").lstrip(".")
            if "past_key_values" not in name and "cache" not in name:
                found[name] = leaf
    return found


def _array(tensor: torch.Tensor) -> Any:
    values = tensor.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
