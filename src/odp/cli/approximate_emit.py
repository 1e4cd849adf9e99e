"""`odp approximate --emit`: the answer as source text or as an ONNX model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from odp.approximations import Approximant

__all__ = ["approximant_model", "emit_approximant"]


def emit_approximant(
    approximant: Approximant,
    language: str,
    output: Path | None,
    *,
    name: str | None = None,
    shape: str | None = None,
) -> None:
    """Write an approximant in a language to a file, or alone to standard output.

    Args:
        approximant: what to write.
        language: ``python``, ``c``, ``latex``, ``triton`` or ``onnx``.
        output: a file, written whole or not at all; None for standard output.
        name: of the function in source text; None for that of what is approximated.
        shape: of the ONNX input, as `--shape` has it.

    Raises:
        OdpError: the language has no way to say it, or the file cannot be written.
    """
    if language == "onnx":
        _emit_model(approximant_model(approximant, shape), output)
        return
    text = approximant.emit(language, name)
    text = text if text.endswith("\n") else f"{text}\n"
    if output is None:
        sys.stdout.write(text)
        return
    from odp.backends.whole_files import write_text

    write_text(output, text)


def approximant_model(approximant: Approximant, shape: str | None = None) -> ir.Model:
    """The ONNX model of an approximant, with what is known about it as metadata.

    Its numbers are float32, or float64 where float32 would round the constants.
    """
    from odp.approximations.arithmetic import FLOAT32, round_constants
    from odp.backends.onnx.expression_model import expression_model
    from odp.cli.approximate_answer import target_text
    from odp.cli.approximate_input import read_shape

    expression = approximant.expression
    single = round_constants(expression, FLOAT32) is expression
    kind = "relative" if approximant.relative else "absolute"
    # The model computes in floating point what the program, which the proof is about, approximates.
    whose = "" if approximant.fixed_point is None else " of the integer program"
    return expression_model(
        expression,
        shape=read_shape("n" if shape is None else shape),
        dtype="float32" if single else "float64",
        metadata={
            "odp.function": approximant.function.name,
            "odp.domain": str(approximant.domain),
            "odp.scheme": approximant.scheme,
            "odp.description": approximant.description,
            "odp.target": target_text(approximant.target),
            "odp.error": repr(approximant.error),
            "odp.error_kind": f"{kind}, {approximant.error_kind}{whose}",
        },
    )


def _emit_model(model: ir.Model, output: Path | None) -> None:
    if output is not None:
        from odp.backends.onnx.save import save_model

        save_model(model, output)
        return
    import onnx_ir as ir

    sys.stdout.buffer.write(ir.to_proto(model).SerializeToString())
