"""Files of torch.export (.pt2): read, fed from arrays, and written again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from odp.approximations.errors import OdpError
from odp.backends.torch.export import one_line, silenced
from odp.backends.torch.inputs import Inputs
from odp.rewriter.samples import read_arrays, split_arrays

__all__ = ["inputs_of_archive", "load_program", "program_bytes"]


def load_program(path: Path) -> torch.export.ExportedProgram:
    """Read what `torch.export.save` wrote.

    Raises:
        OdpError: there is no such file, or it is no exported program of this version of torch.
    """
    if not path.is_file():
        raise OdpError(f"exported program '{path}' does not exist")
    try:
        with silenced():
            return torch.export.load(path)
    except Exception as error:  # whatever zip, JSON and the schema of torch make of bad bytes
        raise OdpError(
            f"cannot read '{path}' as an exported program ({one_line(error)}); write it with "
            "torch.export.save(torch.export.export(module, inputs), path)"
        ) from None


def inputs_of_archive(
    path: Path, program: torch.export.ExportedProgram, limit: int | None = None
) -> list[Inputs]:
    """Calibration inputs of a program from an .npz file, as for an ONNX model.

    Args:
        path: one array for each tensor among the inputs, by name; of the shape of the example
            input, or with samples in front.
        program: whose example inputs say what types and shapes are wanted.
        limit: use at most this many samples.

    Raises:
        OdpError: the file cannot be read, or an array has a wrong name, shape, dtype or content.
    """
    if program.example_inputs is None:
        raise OdpError("the exported program has no example inputs, which say what it takes")
    leaves, spec = pytree.tree_flatten(program.example_inputs)
    specs = program.graph_signature.input_specs
    names = [spec.arg.name for spec in specs if spec.kind == InputKind.USER_INPUT]
    tensors = {n: x for n, x in zip(names, leaves, strict=True) if isinstance(x, torch.Tensor)}
    wanted = {n: (tuple(x.shape), str(x.dtype).removeprefix("torch.")) for n, x in tensors.items()}
    if unknown := [n for n, (_, dtype) in wanted.items() if dtype == "bfloat16"]:
        raise OdpError(f"input '{unknown[0]}' is bfloat16, which no .npz file can hold")
    feeds = split_arrays(read_arrays(path), wanted, path.name, limit)
    batches = []
    for feed in feeds:
        values = [
            torch.from_numpy(feed[n]) if n in feed else x
            for n, x in zip(names, leaves, strict=True)
        ]
        args, kwargs = pytree.tree_unflatten(values, spec)
        batches.append(Inputs(args, kwargs))
    return batches


def program_bytes(module: torch.nn.Module, program: torch.export.ExportedProgram) -> bytes:
    """The file of a rewritten module, exported for the shapes of the program that it was.

    Raises:
        OdpError: torch cannot export or write it.
    """
    assert program.example_inputs is not None
    args, kwargs = program.example_inputs
    try:
        with silenced():
            exported = torch.export.export(
                module, args, kwargs, dynamic_shapes=_dynamic(program), strict=False
            )
            file = io.BytesIO()
            torch.export.save(exported, file)
    except Exception as error:
        raise OdpError(f"cannot export the rewritten program: {one_line(error)}") from None
    return file.getvalue()


def _dynamic(program: torch.export.ExportedProgram) -> Any:
    """Which sizes of the inputs vary: any that the program does not fix."""
    values = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    specs = [s for s in program.graph_signature.input_specs if s.kind == InputKind.USER_INPUT]
    shapes = []
    for spec in specs:
        value = values[spec.arg.name]
        extents = value.shape if isinstance(value, torch.Tensor) else ()
        varying = [axis for axis, extent in enumerate(extents) if not isinstance(extent, int)]
        shapes.append(dict.fromkeys(varying, torch.export.Dim.AUTO) or None)
    _, tree = pytree.tree_flatten(program.example_inputs)
    args, kwargs = pytree.tree_unflatten(shapes, tree)
    return (*args, *kwargs.values()) if any(shapes) else None
