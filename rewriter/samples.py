"""Inputs to calibrate and measure on: the user's arrays, or generated ones."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.rewriter.execution import Feed, one_line
from odp.rewriter.onnx_graph import numpy_name
from odp.rewriter.pass_options import nearest

__all__ = [
    "Samples",
    "generate_samples",
    "load_samples",
    "read_arrays",
    "split_arrays",
    "split_samples",
]


@dataclass(frozen=True)
class Samples:
    """Inputs for several runs of one model.

    Attributes:
        source: file name, or `generated`.
        feeds: one mapping from input name to array for each run.
    """

    source: str
    feeds: Sequence[Feed]

    def __len__(self) -> int:
        return len(self.feeds)

    def __iter__(self) -> Iterator[Feed]:
        return iter(self.feeds)


def load_samples(path: Path, model: ir.Model, limit: int | None = None) -> Samples:
    """Read calibration inputs from an .npz file.

    The file has one array for each input of the model, by the name of the input.  An array has
    either the shape of the input, or one more axis in front for several samples, or a longer first
    axis that is a multiple of the input's.

    Args:
        path: the file.
        model: the model with static input shapes.
        limit: use at most this many samples.

    Raises:
        OdpError: the file cannot be read, or an array has a wrong name, shape, dtype or content.
    """
    return split_samples(read_arrays(path), model, path.name, limit)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file by name.

    Raises:
        OdpError: the file cannot be read, or holds something else than plain arrays.
    """
    if not path.exists():
        raise OdpError(f"calibration file '{path}' does not exist")
    if path.is_dir():
        raise OdpError(f"calibration file '{path}' is a directory; give an .npz file")
    try:
        return _read_archive(path)
    except Exception as error:  # zipfile, zlib and numpy.load raise a dozen classes for bad bytes
        raise OdpError(
            f"calibration file '{path}' is not an .npz archive of plain arrays "
            f"({_reason(error)}); write it with numpy.savez(path, input_name=array)"
        ) from None


def _read_archive(path: Path) -> dict[str, NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise OdpError("no zip archive" if path.stat().st_size else "the file is empty")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _reason(error: Exception) -> str:
    text = one_line(error)
    # What numpy says of pickles is advice to a programmer, which the user cannot follow.
    return "it holds Python objects" if "allow_pickle" in text else text


def split_samples(
    arrays: dict[str, NDArray[Any]], model: ir.Model, source: str, limit: int | None = None
) -> Samples:
    """Check arrays against the inputs of a model and split them into one feed for each run.

    Raises:
        OdpError: an array has a wrong name, shape, dtype or content.
    """
    return Samples(source, split_arrays(arrays, _inputs(model), source, limit))


def split_arrays(
    arrays: dict[str, NDArray[Any]],
    inputs: Mapping[str, tuple[tuple[int, ...], str]],
    source: str,
    limit: int | None = None,
) -> list[Feed]:
    """Check arrays against inputs (shape and dtype by name) and split them into runs.

    Raises:
        OdpError: an array has a wrong name, shape, dtype or content.
    """
    unknown = [name for name in arrays if name not in inputs]
    if unknown:
        raise OdpError(
            f"calibration array '{unknown[0]}' in {source} is no input of the model"
            f"{nearest(unknown[0], inputs)}; its inputs are {', '.join(inputs)}"
        )
    missing = [name for name in inputs if name not in arrays]
    if missing:
        raise OdpError(f"{source} has no array for input '{missing[0]}' of the model")
    split = {
        name: _split(name, arrays[name], shape, dtype, source)
        for name, (shape, dtype) in inputs.items()
    }
    counts = {name: len(parts) for name, parts in split.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise OdpError(f"calibration arrays in {source} differ in number of samples ({listed})")
    count = min(counts.values(), default=0)
    if count == 0:
        raise OdpError(f"{source} holds no samples")
    count = count if limit is None else min(count, limit)
    return [{name: split[name][i] for name in split} for i in range(count)]


def generate_samples(model: ir.Model, count: int = 4, seed: int = 0) -> Samples:
    """Random inputs of the declared shapes: a poor substitute for data, and reported as such.

    Floating-point inputs are standard normal.  Integer inputs that index a table stay inside it;
    masks are ones, positions count up, other integers are 0 or 1.
    """
    generator = np.random.default_rng(seed)
    inputs = _inputs(model)
    feeds = []
    for _ in range(count):
        feed = {}
        for value in model.graph.inputs:
            name = value.name or ""
            if name in inputs:
                shape, dtype = inputs[name]
                feed[name] = _random(value, name, shape, dtype, generator)
        feeds.append(feed)
    return Samples("generated", feeds)


def _inputs(model: ir.Model) -> dict[str, tuple[tuple[int, ...], str]]:
    """Inputs that must be fed, with shape and dtype; initializers with a default are left out."""
    found = {}
    for value in model.graph.inputs:
        name = value.name or ""
        if name in model.graph.initializers or value.dtype is None or value.shape is None:
            continue
        found[name] = (static_shape(value), numpy_name(value.dtype))
    return found


def static_shape(value: ir.Value) -> tuple[int, ...]:
    """The extents of an input, all of which are known once shapes are frozen."""
    assert value.shape is not None
    return tuple(extent for extent in value.shape if isinstance(extent, int))


def _split(
    name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: str, source: str
) -> list[NDArray[Any]]:
    where = f"calibration array '{name}' in {source}"
    wanted = np.dtype(dtype)
    if array.dtype != wanted:
        same_kind = np.can_cast(array.dtype, wanted, "same_kind")
        if not same_kind and not (array.dtype.kind in "iu" and wanted.kind in "iu"):
            raise OdpError(f"{where} has dtype {array.dtype}, the model wants {dtype}")
        array = _converted(array, wanted, where)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise OdpError(f"{where} contains NaN or infinity")
    if array.shape == shape:
        return [array]
    if array.shape[1:] == shape:
        # Not list(array), which turns samples of rank 0 into scalars.
        return [array[index, ...] for index in range(len(array))]
    stacked = array.ndim == len(shape) > 0 and array.shape[1:] == shape[1:] and shape[0] > 0
    if stacked and array.shape[0] % shape[0] == 0:
        return [array[i : i + shape[0]] for i in range(0, array.shape[0], shape[0])]
    raise OdpError(
        f"{where} has shape {list(array.shape)}, the model wants {list(shape)}, "
        f"or that with a number of samples in front"
    )


def _converted(array: NDArray[Any], wanted: np.dtype[Any], where: str) -> NDArray[Any]:
    """`array` in the dtype of the input, if that can hold its values."""
    with np.errstate(over="ignore"):
        converted = array.astype(wanted)
    finite = np.isfinite(array) if array.dtype.kind == "f" else np.ones(array.shape, bool)
    exact = wanted.kind == "f" or bool((converted == array).all())
    if not exact or not np.isfinite(converted[finite]).all():
        raise OdpError(f"{where} has dtype {array.dtype} and values that {wanted} cannot hold")
    return converted


def _random(
    value: ir.Value,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    generator: np.random.Generator,
) -> NDArray[Any]:
    kind = np.dtype(dtype).kind
    if kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    if kind == "b":
        return np.ones(shape, dtype)
    if kind not in "iu":
        raise OdpError(f"input '{name}' has type {dtype}; give its values with --calibrate")
    if "mask" in name.lower():
        return np.ones(shape, dtype)
    if "position" in name.lower():
        return np.broadcast_to(np.arange(shape[-1] if shape else 1), shape).astype(dtype)
    rows = _table_rows(value)
    return generator.integers(0, rows, shape).astype(dtype)


def _table_rows(value: ir.Value) -> int:
    """Rows of the table that an integer input indexes, or 2 if it indexes none."""
    pending, seen = [value], set()
    while pending:
        current = pending.pop()
        for node, index in current.uses():
            if node.op_type == "Gather" and index == 1 and node.inputs[0] is not None:
                table = node.inputs[0].const_value
                if table is not None:
                    return int(str(table.shape[0]))
            elif node.op_type in ("Cast", "Reshape", "Unsqueeze", "Squeeze") and node not in seen:
                seen.add(node)
                pending.extend(node.outputs)
    return 2
