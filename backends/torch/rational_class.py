"""Subclasses made on the fly: a module keeps its class, and computes something else."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

__all__ = ["Rational", "TracedModule", "become", "original_class"]

_CLASSES: dict[tuple[type, type, str], type[Rational]] = {}


class TracedModule(torch.nn.Module):
    """Stands for the class of a module that came as a graph (`torch.fx.GraphModule`).

    torch.export and torch.compile look past the forward of a GraphModule and run its graph, and
    pickle finds no class of one.
    """


class Rational(torch.nn.Module):
    """Base of the classes that rewritten modules get: they can be copied and pickled.

    `isinstance` still finds the original class, attributes and parameters stay what they were, and
    `odp_original` is the class whose forward was replaced; `odp_signature` is that of forward where
    the class does not know it.
    """

    odp_original: type[torch.nn.Module]
    odp_kind: type[Rational]
    odp_signature: inspect.Signature | None

    @classmethod
    def odp_forward(cls, original: Callable[..., Any]) -> Callable[..., Any]:
        """The method that stands in for the forward of the original class."""
        raise TypeError(f"{cls.__name__} does not say what forward is")

    def __reduce_ex__(self, protocol: Any) -> Any:
        # pickle finds classes by name, and this one has no name in any module.
        return _rebuilt, (self.odp_original, self.odp_kind, self.odp_signature), self.__dict__

    def __deepcopy__(self, memo: dict[int, Any]) -> Rational:
        result = type(self).__new__(type(self))
        memo[id(self)] = result
        result.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return result


def become(module: torch.nn.Module, kind: type[Rational]) -> None:
    """Give a module a subclass of its class, with the methods of `kind` in front."""
    # A forward that was put on the instance would hide the one of the class.
    module.__dict__.pop("forward", None)
    if isinstance(module, fx.GraphModule):
        signature = inspect.signature(type(module).forward)
        bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        _strip(module)
        made = _class(TracedModule, kind, inspect.Signature(bare))
        # mypy takes it for a GraphModule still, which is what it stops to be.
        object.__setattr__(module, "__class__", made)
        return
    known = module.odp_signature if isinstance(module, Rational) else None
    module.__class__ = _class(original_class(module), kind, known)


def _strip(module: fx.GraphModule) -> None:
    """Take from a GraphModule what only served its graph, much of which cannot be pickled."""
    ordinary = torch.nn.Module().__dict__
    for name in [name for name in module.__dict__ if name not in ordinary]:
        del module.__dict__[name]
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        # torch.export checks inputs in hooks; what a rewritten graph relies on it checks itself.
        for key in [k for k, hook in hooks.items() if hook.__module__.startswith("torch.")]:
            del hooks[key]


def original_class(module: torch.nn.Module) -> type[torch.nn.Module]:
    """The class of a module before ODP, whether or not it was rewritten."""
    return module.odp_original if isinstance(module, Rational) else type(module)


def _class(
    original: type[torch.nn.Module], kind: type[Rational], signature: inspect.Signature | None
) -> type[Rational]:
    key = (original, kind, str(signature))
    if (made := _CLASSES.get(key)) is None:
        namespace = {
            "odp_original": original,
            "odp_kind": kind,
            "odp_signature": signature,
            "forward": kind.odp_forward(_declared(original, signature)),
            "__module__": original.__module__,
            "__doc__": original.__doc__,
        }
        made = type(f"Rational{original.__name__}", (kind, original), namespace)
        _CLASSES[key] = made
    return made


def _declared(
    original: type[torch.nn.Module], signature: inspect.Signature | None
) -> Callable[..., Any]:
    """A forward with the wanted signature."""
    if signature is None:
        return original.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Only its signature is ever read: `odp_forward` generates the method that runs.
        raise AssertionError("a declaration was called")

    forward.__signature__ = signature  # type: ignore[attr-defined]
    return forward


def _rebuilt(
    original: type[torch.nn.Module],
    kind: type[Rational],
    signature: inspect.Signature | None = None,
) -> torch.nn.Module:
    # A graph that is unpickled looks at this module, which torch 2.13 loads only when it traces.
    importlib.import_module("torch._higher_order_ops.triton_kernel_wrap")
    made = _class(original, kind, signature)
    return made.__new__(made)
