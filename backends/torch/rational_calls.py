"""A module in whose forward some torch functions are others, and which is otherwise what it was."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import fx
from torch.overrides import TorchFunctionMode

from odp.backends.torch.function_call import FunctionCall
from odp.backends.torch.rational_class import Rational, become

__all__ = ["Call", "Calls", "RationalCalls", "intercept"]


class Call(Protocol):
    """What stands for a torch function."""

    @property
    def graphs(self) -> list[fx.GraphModule]:
        """The graphs that it runs, if it runs graphs."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what the function does."""

    def retype(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Prepare for another type or device; see `FunctionCall.retype`."""


Calls = dict[Callable[..., Any], Call]


class _Interception(TorchFunctionMode):
    """Calls other functions in the place of some."""

    def __init__(self, calls: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        call = self.calls.get(func)
        if call is None or FunctionCall.tracing:
            return func(*args, **(kwargs or {}))
        return call(*args, **(kwargs or {}))


class RationalCalls(Rational):
    """A module that calls rational expressions where its code says softmax, rsqrt or silu.

    Its code, parameters, submodules and hooks are those of the original: a key-value cache, LoRA
    adapters and gradient checkpointing work as before.  torch.compile and torch.export see the
    expressions.
    """

    odp_calls: Calls

    @classmethod
    def odp_forward(cls, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def forward(self: RationalCalls, *args: Any, **kwargs: Any) -> Any:
            with _Interception(self.odp_calls):
                return original(self, *args, **kwargs)

        return forward

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for call in self.odp_calls.values():
            call.retype(fn)
        return self


def intercept(
    module: torch.nn.Module, calls: Calls, kind: type[RationalCalls] = RationalCalls
) -> None:
    """Let `module` use `calls`, besides those that it uses already.

    Its class becomes a subclass of what it was: a `kind`, unless it is one of these already.
    """
    if isinstance(module, RationalCalls):
        module.odp_calls = {**module.odp_calls, **calls}
        return
    become(module, kind)
    assert isinstance(module, RationalCalls)
    module.odp_calls = calls
