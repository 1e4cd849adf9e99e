"""Which torch functions hide a transcendental operation, in the forward of which module."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn.modules import module as module_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from odp.backends.torch.eager import eagerly
from odp.rewriter.fx_transcendental import is_transcendental_call

__all__ = ["Discovery", "Operations"]


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that run inside, by name; transcendental ones apart.

    What counts is what is executed: nothing that runs on tensors can hide from a dispatch mode.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.all: collections.Counter[str] = collections.Counter()
        self.transcendental: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if isinstance(func, torch._ops.OpOverload):
            name = str(func._schema.name)
            self.all[name] += 1
            if is_transcendental_call(func, args, kwargs or {}):
                self.transcendental[name] += 1
            return func(*args, **(kwargs or {}))
        # torch.cond and its kin: what counts is what their bodies run.
        self.all[f"higher_order::{func._name}"] += 1
        return func(*(self._watched(argument) for argument in args), **(kwargs or {}))

    def _watched(self, argument: Any) -> Any:
        if not callable(argument) or isinstance(argument, torch.Tensor):
            return argument

        def body(*args: Any, **kwargs: Any) -> Any:
            with self:
                return argument(*args, **kwargs)

        return body


class Discovery(TorchFunctionMode):
    """Watches a module run: every outermost torch function, and the innermost module around it.

    Attributes:
        found: modules to their functions, in the order of execution.
    """

    def __init__(self, root: torch.nn.Module) -> None:
        """Watch `root` and the modules in it.

        A module that is none of its submodules, such as an activation that a library keeps for all
        models, counts as part of the one that calls it.
        """
        super().__init__()
        self._known = set(root.modules())
        self.found: dict[torch.nn.Module, dict[Callable[..., Any], None]] = {}
        self._stack: list[torch.nn.Module] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        with Operations() as operations:
            result = func(*args, **(kwargs or {}))
        if operations.transcendental and self._stack:
            self.found.setdefault(self._stack[-1], {})[func] = None
        return result

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Run modules inside; they must not be compiled."""
        enter = module_hooks.register_module_forward_pre_hook(self._enter)
        leave = module_hooks.register_module_forward_hook(self._leave, always_call=True)
        try:
            with torch.no_grad(), eagerly(), self:
                yield
        finally:
            enter.remove()
            leave.remove()
            self._stack.clear()

    def _enter(self, module: torch.nn.Module, args: Any) -> None:
        del args
        if module in self._known:
            self._stack.append(module)

    def _leave(self, module: torch.nn.Module, args: Any, result: Any) -> None:
        del args, result
        if module in self._known:
            self._stack.pop()
