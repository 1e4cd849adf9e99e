"""Subclasses made on the fly: a module keeps its class, and computes something else."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["Rational", "become", "original_class"]

_CLASSES: dict[tuple[type, type], type[Rational]] = {}


class Rational(torch.nn.Module):
    """Base of the classes that rewritten modules get: they can be copied and pickled.

    `isinstance` still finds the original class, attributes and parameters stay what they were, and
    `odp_original` is the class whose forward was replaced.
    """

    odp_original: type[torch.nn.Module]
    odp_kind: type[Rational]

    @classmethod
    def odp_forward(cls, original: Callable[..., Any]) -> Callable[..., Any]:
        """The method that stands in for the forward of the original class."""
        raise TypeError(f"{cls.__name__} does not say what forward is")

    def __reduce_ex__(self, protocol: Any) -> Any:
        # pickle finds classes by name, and this one has no name in any module.
        return _rebuilt, (self.odp_original, self.odp_kind), self.__dict__

    def __deepcopy__(self, memo: dict[int, Any]) -> Rational:
        result = type(self).__new__(type(self))
        memo[id(self)] = result
        result.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return result


def become(module: torch.nn.Module, kind: type[Rational]) -> None:
    """Give a module a subclass of its class, with the methods of `kind` in front."""
    # A forward that was put on the instance would hide the one of the class.
    module.__dict__.pop("forward", None)
    module.__class__ = _class(original_class(module), kind)


def original_class(module: torch.nn.Module) -> type[torch.nn.Module]:
    """The class of a module before ODP, whether or not it was rewritten."""
    return module.odp_original if isinstance(module, Rational) else type(module)


def _class(original: type[torch.nn.Module], kind: type[Rational]) -> type[Rational]:
    made = _CLASSES.get((original, kind))
    if made is None:
        namespace = {
            "odp_original": original,
            "odp_kind": kind,
            "forward": kind.odp_forward(original.forward),
            "__module__": original.__module__,
            "__doc__": original.__doc__,
        }
        made = type(f"Rational{original.__name__}", (kind, original), namespace)
        _CLASSES[original, kind] = made
    return made


def _rebuilt(original: type[torch.nn.Module], kind: type[Rational]) -> torch.nn.Module:
    # A graph that is unpickled looks at this module, which torch 2.13 loads only when it traces.
    importlib.import_module("torch._higher_order_ops.triton_kernel_wrap")
    made = _class(original, kind)
    return made.__new__(made)
