"""The parameters of a forward: example inputs by name, and a method with the same signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from odp.approximations.errors import OdpError

__all__ = ["bind", "defaults_of", "forward_like", "named"]


def bind(
    forward: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    """Inputs bound to the parameters of `forward`, a bound method.

    Raises:
        OdpError: the inputs do not fit the signature.
    """
    signature = inspect.signature(forward)
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        names = ", ".join(signature.parameters)
        raise OdpError(
            f"the inputs do not fit forward({names}): {error}; give a tensor, a tuple of "
            "positional inputs or a dict of inputs by name"
        ) from None


def named(bound: inspect.BoundArguments) -> dict[str, Any]:
    """Inputs by name, in the order of the signature; those of `*args` are `args[0]`, ..."""
    arguments: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            arguments |= _indexed(name, value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            arguments |= value
        else:
            arguments[name] = value
    return arguments


def defaults_of(forward: Callable[..., Any]) -> dict[str, Any]:
    """The default of every parameter of `forward` that has one."""
    parameters = inspect.signature(forward).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def forward_like(original: Callable[..., Any]) -> Callable[..., Any]:
    """A method with the signature of `original` that hands its inputs to `self.odp_run`.

    Generated, because whoever inspects a forward (trainers look for columns of a data set in it)
    must find the same parameters, and torch.compile cannot trace `inspect.Signature.bind`.

    Args:
        original: an unbound forward, with `self` as its first parameter.

    Returns:
        A function that calls `self.odp_run(arguments)`, with arguments named as `named` does.
    """
    signature = inspect.signature(original)
    defaults: dict[str, Any] = {}
    declared, handed = [], []
    star = False
    for index, parameter in enumerate(signature.parameters.values()):
        name, text = parameter.name, parameter.name
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            text, star = f"*{name}", True
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            text = f"**{name}"
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY and not star:
            declared.append("*")
            star = True
        if parameter.default is not inspect.Parameter.empty:
            defaults[f"default_{name}"] = parameter.default
            text = f"{text}=default_{name}"
        declared.append(text)
        if index == 0:
            continue
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            handed.append(f"**indexed({name!r}, {name})")
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            handed.append(f"**{name}")
        else:
            handed.append(f"{name!r}: {name}")
    owner = next(iter(signature.parameters))
    source = (
        f"def forward({', '.join(declared)}):\n"
        f"    return {owner}.odp_run({{{', '.join(handed)}}})\n"
    )
    namespace: dict[str, Any] = {"indexed": _indexed, **defaults}
    exec(compile(source, f"<forward of {original.__qualname__}>", "exec"), namespace)
    method: Callable[..., Any] = namespace["forward"]
    method.__doc__ = original.__doc__
    method.__annotations__ = dict(getattr(original, "__annotations__", {}))
    return method


def _indexed(name: str, values: Sequence[Any]) -> dict[str, Any]:
    return {f"{name}[{index}]": value for index, value in enumerate(values)}
