"""Reading `--passes "rsqrt{error=1e-5},exp,rope"` into passes."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from odp.approximations.errors import OdpError
from odp.approximations.interval import Interval
from odp.rewriter.rewrite_pass import Pass

__all__ = ["PassOptionError", "named_passes", "nearest", "parse_passes"]

_ITEM = re.compile(r"\s*(?P<name>[A-Za-z_][\w-]*)\s*(\{(?P<options>[^{}]*)\})?\s*")


class PassOptionError(OdpError):
    """The text of `--passes` names no pass, or an option that the pass does not have."""


def parse_passes(text: str, available: Mapping[str, type[Pass]]) -> list[Pass]:
    """Read a list of passes with their options.

    Args:
        text: names separated by commas, each with options in braces; `all` stands for every pass
            that needs nothing but + - * / in return, and takes options for all of them.
        available: the registry.

    Returns:
        The passes in the order typed, `all` in alphabetical order, none twice.

    Raises:
        PassOptionError: one line that says which name or option is wrong, and the nearest one.
    """
    chosen: dict[str, Pass] = {}
    named: set[str] = set()
    for name, options in _items(text):
        if name in named:
            raise PassOptionError(f"--passes names '{name}' twice: put all options in one place")
        named.add(name)
        if name == "all":
            if "formula" in options:
                raise PassOptionError(
                    "option 'formula' stands for one function: give it to the pass of that "
                    "function, as in exp{formula=...}, not to 'all'"
                )
            kinds = [kind for kind in available.values() if kind.in_all]
        elif name in available:
            kinds = [available[name]]
        else:
            raise PassOptionError(
                f"unknown pass '{name}'{nearest(name, [*available, 'all'])}; "
                "--list-passes shows all of them"
            )
        for kind in kinds:
            # A pass that is named wins over the same pass inside `all`.
            if name != "all" or kind.name not in chosen:
                chosen[kind.name] = _build(kind, options)
    if not chosen:
        raise PassOptionError("--passes is empty: give pass names separated by commas, or 'all'")
    return list(chosen.values())


def named_passes(text: str) -> set[str]:
    """The names in the text of `--passes`, `all` apart.

    >>> sorted(named_passes("all,exp{error=1e-6}"))
    ['exp']
    """
    return {name for name, _ in _items(text)} - {"all"}


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """`, did you mean 'x'?`, or an empty string when nothing is close."""
    spelled = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), spelled, n=1, cutoff=0.6)
    return f", did you mean '{spelled[close[0]]}'?" if close else ""


def _items(text: str) -> list[tuple[str, dict[str, str]]]:
    items: list[tuple[str, dict[str, str]]] = []
    position = 0
    text = text.strip()
    while position < len(text):
        found = _ITEM.match(text, position)
        if found is None:
            raise PassOptionError(
                f"cannot read --passes at '{text[position : position + 20]}': write "
                "name{option=value,option=value},name"
            )
        items.append((found["name"].replace("-", "_"), _options(found["name"], found["options"])))
        position = found.end()
        if position < len(text):
            if text[position] != ",":
                raise PassOptionError(
                    f"cannot read --passes after '{found['name']}': expected a comma, "
                    f"found '{text[position : position + 20]}'"
                )
            position += 1
    return items


def _options(name: str, text: str | None) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        key, separator, value = part.partition("=")
        if not separator or not key.strip() or not value.strip():
            raise PassOptionError(
                f"malformed option '{part.strip()}' of pass '{name}': write option=value"
            )
        key = key.strip().replace("-", "_")
        if key in options:
            raise PassOptionError(f"pass '{name}' has option '{key}' twice")
        options[key] = value.strip()
    return options


def _build(kind: type[Pass], options: Mapping[str, str]) -> Pass:
    hints = typing.get_type_hints(kind)
    known = {field.name: hints[field.name] for field in fields(kind)}
    values = {}
    for key, text in options.items():
        if key not in known:
            raise PassOptionError(
                f"pass '{kind.name}' has no option '{key}'{nearest(key, known)}; "
                f"it has {', '.join(known)}"
            )
        values[key] = _convert(kind.name, key, text, known[key])
    return kind(**values)


def _convert(name: str, key: str, text: str, hint: Any) -> Any:
    # The arguments of a Literal are its values, those of a union its kinds.
    alone = typing.get_origin(hint) is Literal or not typing.get_args(hint)
    kinds = [kind for kind in (hint,) * alone or typing.get_args(hint) if kind is not type(None)]
    for kind in kinds:
        if typing.get_origin(kind) is Literal:
            choices = typing.get_args(kind)
            if text in choices:
                return text
            raise PassOptionError(
                f"option '{key}' of pass '{name}' is one of {', '.join(choices)}, not '{text}'"
            )
    kind = kinds[0]
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind is Interval:
            return Interval.parse(text)
        value = kind(text)
    except (KeyError, ValueError, OdpError):
        words = {bool: "true or false", Interval: "an interval lo:hi", int: "a whole number"}
        raise PassOptionError(
            f"option '{key}' of pass '{name}' takes {words.get(kind, 'a number')}, not '{text}'"
        ) from None
    if isinstance(value, float | int) and not isinstance(value, bool):
        # A margin or a degree may be zero, an error may not.
        in_range = value > 0 if key == "error" else value >= 0
        if not in_range or value == float("inf"):
            raise PassOptionError(f"option '{key}' of pass '{name}' must be positive, not {text}")
    return value
