"""Buckets of relative positions as exact tables: T5 floors the logarithm of each distance.

An approximated logarithm is off by 1e-5, and where the exact one is a whole number (at distances of
16, 32, 64, ...) its floor is off by one: another bucket, another bias.  But distances are whole
numbers, and all large ones share a bucket, so the module itself computes each bucket once.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from odp.approximations.errors import OdpError
from odp.rewriter.site import Outcome, Request

__all__ = ["BucketTable", "bucket_outcome", "tabulating_buckets"]

_BUCKETS = re.compile(r"_?relative_positions?_bucket")
"""How T5, mT5, UMT5, LongT5, Switch, Pix2Struct, MPNet, LayoutLM and WavLM call the method."""

_FARTHEST = 1 << 14
"""Distances that are looked at; the buckets of T5 end at 128, those of WavLM at 800."""

_Options = tuple[tuple[Any, ...], tuple[tuple[str, Any], ...]]


class BucketTable:
    """A function of relative positions (int64, any shape) that looks its results up.

    A distance beyond the table has the result of the farthest one in it, exactly.
    """

    def __init__(self, tables: Mapping[_Options, torch.Tensor], name: str) -> None:
        """Look up `tables` by the other arguments; each goes from -n to n, shape (2n + 1,)."""
        self._tables = dict(tables)
        self._name = name

    def __call__(self, positions: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The buckets of `positions`."""
        table = self._tables.get(_options(args, kwargs))
        if table is None:
            raise OdpError(f"{self._name} meets options that the example inputs did not: {kwargs}")
        farthest = (table.shape[0] - 1) // 2
        rows = positions.clamp(-farthest, farthest) + farthest
        return table.to(positions.device)[rows]


@contextlib.contextmanager
def tabulating_buckets(
    module: torch.nn.Module, requests: Sequence[Request]
) -> Iterator[list[torch.nn.Module]]:
    """Turn the bucket functions that a module calls inside into tables, when it has run.

    Args:
        module: it and its submodules are changed.
        requests: the passes; without one for logarithms nothing is done.

    Yields:
        The submodules that got a table, complete at the end.
    """
    wanted = any(request.rewrite.name == "log" for request in requests)
    listeners = [
        _Listener(owner, name)
        for owner in (module.modules() if wanted else ())
        for name in dir(type(owner))
        if _BUCKETS.fullmatch(name) and name not in owner.__dict__
    ]
    owners: list[torch.nn.Module] = []
    try:
        yield owners
    finally:
        for listener in listeners:
            if listener.settle():
                owners.append(listener.owner)


def bucket_outcome(owners: Sequence[torch.nn.Module]) -> Outcome:
    """What the pass for logarithms has to say about tables."""
    count = len(owners)
    note = "buckets of relative positions became exact tables"
    return Outcome(patterns={"relative_buckets": count}, folded=count, notes=[note])


class _Listener:
    """Stands in for a bucket function while it listens to how it is called."""

    def __init__(self, owner: torch.nn.Module, name: str) -> None:
        self.owner = owner
        self._name = name
        self._function: Callable[..., torch.Tensor] = getattr(owner, name)
        self._calls: dict[_Options, None] = {}
        owner.__dict__[name] = self

    def __call__(self, positions: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._calls[_options(args, kwargs)] = None
        return self._function(positions, *args, **kwargs)

    def settle(self) -> bool:
        """Leave a table behind, or what was there before."""
        del self.owner.__dict__[self._name]
        tables = {options: self._table(*options) for options in self._calls}
        complete = {options: table for options, table in tables.items() if table is not None}
        if not complete or len(complete) < len(tables):
            return False
        self.owner.__dict__[self._name] = BucketTable(complete, self._name)
        return True

    def _table(
        self, args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]
    ) -> torch.Tensor | None:
        """Results from -n to n, outside which they do not change; None if there is no such n."""
        with torch.no_grad():
            every = torch.arange(-_FARTHEST, _FARTHEST + 1)
            buckets = self._function(every, *args, **dict(kwargs))
        if not isinstance(buckets, torch.Tensor) or buckets.shape != every.shape:
            return None
        steps = torch.nonzero(buckets[1:] != buckets[:-1]).reshape(-1)
        if steps.numel() == 0:
            return None
        reach = int(torch.maximum(every[steps].abs(), every[steps + 1].abs()).max())
        # A function that still changes here is none of buckets.
        if 2 * reach > _FARTHEST:
            return None
        return buckets[_FARTHEST - reach : _FARTHEST + reach + 1].clone()


def _options(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Options:
    return args, tuple(sorted(kwargs.items()))
