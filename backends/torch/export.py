"""From a module to an exported program in which every transcendental operator can be seen."""

from __future__ import annotations

import contextlib
import io
import linecache
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import torch
from torch.utils import _pytree as pytree

from odp.approximations.errors import OdpError
from odp.backends.torch.decompositions import decomposition_table

__all__ = ["check_attention", "check_parameters", "export_module", "one_line", "taken_apart"]


def export_module(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    dynamic_shapes: Any = None,
) -> torch.export.ExportedProgram:
    """Trace a module into a functional graph of ATen operators.

    Args:
        module: any module that torch.export can trace (strict=False); unchanged.
        args: example inputs by position.
        kwargs: example inputs by name.
        dynamic_shapes: as for `torch.export.export`; None makes every shape static.

    Returns:
        The program, taken apart as `taken_apart` does.

    Raises:
        OdpError: the module cannot be exported; says which line of which file breaks the graph.
    """
    # One tensor in two places, as in attention(x, x, x), would become one input of the graph.
    args, kwargs = pytree.tree_map_only(
        torch.Tensor, lambda x: x.detach().clone(), (args, dict(kwargs))
    )
    try:
        with silenced():
            program = torch.export.export(
                module, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False
            )
    except Exception as error:  # torch.export raises whatever the code of the module raises
        raise OdpError(_reason(module, error)) from None
    return taken_apart(program)


def taken_apart(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Make a program functional, enter its no_grad and autocast bodies, and open attention.

    Operators that hide a transcendental function from the passes are decomposed (see
    `decompositions`); everything else stays as it is.
    """
    with silenced():
        functional: torch.export.ExportedProgram = program.run_decompositions(decomposition_table())
    return functional


def check_parameters(module: torch.nn.Module) -> None:
    """Refuse weights from which nothing can be calibrated.

    Raises:
        OdpError: a parameter or buffer is on the meta device, or holds NaN or infinity.
    """
    buffers = dict(module.named_buffers())
    for name, tensor in (*module.named_parameters(), *buffers.items()):
        if tensor.is_meta:
            raise OdpError(
                f"parameter '{name}' is on the meta device and has no values; load weights first"
            )
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        try:
            low, high = torch.aminmax(tensor.detach())
        except NotImplementedError:
            # torch has no comparison for the type, such as float8: running the module, which comes
            # next, says which kernel is missing.
            continue
        # NaN spoils both extremes.  A buffer may be a mask of -inf.
        if low.isnan() or (name not in buffers and not (low.isfinite() and high.isfinite())):
            count = int((~tensor.isfinite()).sum())
            raise OdpError(
                f"parameter '{name}' is NaN or infinite in {count} of {tensor.numel()} values; the "
                "weights are broken, load them again"
            )


def check_attention(module: torch.nn.Module) -> None:
    """Refuse models of transformers whose attention is a kernel with a softmax inside.

    Raises:
        OdpError: there is such a kernel.
    """
    for part in module.modules():
        chosen = getattr(getattr(part, "config", None), "_attn_implementation", None)
        if chosen not in (None, "eager", "sdpa"):
            raise OdpError(
                f"attention runs in the kernel '{chosen}', whose softmax cannot be replaced; load "
                "the model with attn_implementation='sdpa' or 'eager'"
            )


def one_line(error: BaseException) -> str:
    """The first sentence or two of a foreign message, on one line of bearable length."""
    paragraphs = [part for part in str(error).split("\n\n") if part.strip()]
    text = " ".join((paragraphs or [type(error).__name__])[0].split())
    return text if len(text) <= 240 else f"{text[:237]}..."


def _reason(module: torch.nn.Module, error: Exception) -> str:
    where = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        if _is_of_the_model(frame):
            file = frame.f_code.co_filename
            where = f" at {file}:{number} ({linecache.getline(file, number).strip()})"
    message = f"torch.export cannot trace {type(module).__name__}{where}: {one_line(error)}"
    if "data-dependent" in str(error):
        return f"{message}; the shape or branch depends on values: use torch.where or torch.cond"
    return f"{message}; change that line, or pass a submodule without it"


def _is_of_the_model(frame: FrameType) -> bool:
    """Whether a frame runs code of the user's model: not torch, not ODP, not generated."""
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return package not in ("torch", "odp", "contextlib") and frame.f_code.co_filename[0] != "<"


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keep what torch.export tells its developers away from our users."""
    logger = logging.getLogger("torch")
    level = logger.level
    children = [
        logging.getLogger(name)
        for name in list(logging.root.manager.loggerDict)
        if name.startswith("torch.")
    ]
    levels = [child.level for child in children]
    sink = io.StringIO()
    try:
        for one in (logger, *children):
            one.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stdout(sink):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(sink):
                yield
    finally:
        logger.setLevel(level)
        for child, previous in zip(children, levels, strict=True):
            child.setLevel(previous)
