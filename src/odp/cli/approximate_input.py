"""What `odp approximate` reads from its options: domain, budget, parameters, histogram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import ApproximationError

if TYPE_CHECKING:
    from odp.approximations import Histogram, Interval

__all__ = ["Setting", "read_domain", "read_histogram", "read_settings", "read_shape"]

Setting = int | float | str | bool


def read_domain(text: str) -> Interval:
    """The interval that `--domain` means: ``LO:HI``, ``LO,HI`` or ``[LO, HI]``.

    Bounds are numbers or constant formulas.

    Raises:
        ApproximationError: if it is no interval, or its bounds are reversed.

    >>> print(read_domain("-10:0"), read_domain("[2**-10, 2**6]"))
    [-10, 0] [0.0009765625, 64]
    """
    from odp.approximations import Interval

    inner = text.strip()
    if inner.startswith("[") and inner.endswith("]"):
        inner = inner[1:-1]
    bounds = inner.split(":" if ":" in inner else ",")
    if len(bounds) != 2 or not all(bound.strip() for bound in bounds):
        raise ApproximationError(
            f"--domain '{text}' is not an interval: write LO:HI, for example -10:0"
        )
    return Interval(*(_number(bound.strip(), text) for bound in bounds))


def _number(bound: str, text: str) -> float:
    try:
        return float(bound)
    except ValueError:
        pass
    sign, word = (-1.0, bound[1:]) if bound.startswith("-") else (1.0, bound)
    if word == "oo":
        return sign * math.inf
    from odp.approximations.functions.parsing import parse

    try:
        # A formula has a variable, which a bound has not.
        with_square = parse(f"x*x + ({bound})")
        (x,) = with_square.free_symbols
        return float(with_square - x * x)
    except (ApproximationError, TypeError, ValueError, OverflowError):
        raise ApproximationError(
            f"--domain '{text}': cannot read the bound '{bound}'; write a number such as -10, 1e-3,"
            " pi/2 or 2**-10"
        ) from None


def read_settings(texts: Sequence[str]) -> dict[str, Setting]:
    """The parameters that `--set NAME=VALUE` fixes.

    Raises:
        ApproximationError: if one is malformed, or given twice.

    >>> read_settings(["degree=5", "form=estrin"])
    {'degree': 5, 'form': 'estrin'}
    """
    settings: dict[str, Setting] = {}
    for text in (part for given in texts for part in given.split(",")):
        name, separator, value = (part.strip() for part in text.partition("="))
        if not separator or not name or not value:
            raise ApproximationError(f"--set '{text}': write NAME=VALUE, for example degree=5")
        if name in settings:
            raise ApproximationError(f"--set gives '{name}' twice")
        settings[name] = _setting(value)
    return settings


def _setting(text: str) -> Setting:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def read_histogram(path: Path, domain: Interval) -> Histogram:
    """The frequencies of the inputs in an ``.npy`` file, or in the one array of an ``.npz`` file.

    Inputs outside the domain are not counted.

    Raises:
        ApproximationError: if it cannot be read, or has no finite number in the domain.
    """
    import numpy as np

    from odp.approximations import Histogram

    inputs = np.asarray(_array(path))
    if inputs.dtype.kind not in "fiu":
        raise ApproximationError(f"--histogram '{path}': holds {inputs.dtype}, not real numbers")
    inputs = inputs.astype(np.float64).ravel()
    inside = inputs[(inputs >= domain.lo) & (inputs <= domain.hi)]
    if inside.size == 0:
        raise ApproximationError(
            f"--histogram '{path}': none of its {inputs.size} numbers is in the domain {domain}"
        )
    if inside.min() == inside.max():
        raise ApproximationError(
            f"--histogram '{path}': all its numbers in the domain are {inside[0]:g}; a histogram"
            " needs at least two different ones"
        )
    return Histogram.of(inside)


def _array(path: Path) -> Any:
    import numpy as np

    try:
        # Files of objects would be unpickled, which runs what is in them.
        content = np.load(path, allow_pickle=False)
        if not hasattr(content, "files"):
            return content
        names = content.files
        if len(names) == 1:
            return content[names[0]]
    except FileNotFoundError:
        raise ApproximationError(f"--histogram '{path}': no such file") from None
    except OSError as error:
        reason = (error.strerror or "not an .npy or .npz file").lower()
        raise ApproximationError(f"--histogram '{path}': {reason}") from None
    except Exception:  # numpy, zipfile and zlib each have their own
        raise ApproximationError(
            f"--histogram '{path}': not an .npy or .npz file of numbers"
        ) from None
    held = f"{len(names)} arrays ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
    raise ApproximationError(f"--histogram '{path}': holds {held}; give a file with one")


def read_shape(text: str) -> list[int | str]:
    """The shape that `--shape` means: positive numbers, and names for what stays dynamic.

    Raises:
        ApproximationError: for anything else.

    >>> read_shape("batch,16")
    ['batch', 16]
    """
    shape: list[int | str] = []
    for part in (part.strip() for part in text.split(",")):
        if part.isidentifier():
            shape.append(part)
        elif part.isdecimal() and int(part) > 0:
            shape.append(int(part))
        else:
            raise ApproximationError(
                f"--shape '{text}': write positive numbers, or names for dynamic axes, such as"
                " 1,16 or batch,16"
            )
    return shape
