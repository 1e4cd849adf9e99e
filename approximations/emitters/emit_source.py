"""Source text of an approximant, with what is known about it in its comment."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Context, Decimal
from typing import Literal

from odp.approximations.approximant import Approximant
from odp.approximations.arithmetic import FixedPointArithmetic, FloatArithmetic
from odp.approximations.emitters.latex_source import latex_source
from odp.approximations.emitters.source_emitters import c_source, python_source, triton_source
from odp.approximations.errors import ApproximationError

__all__ = ["LANGUAGES", "describe", "emit_source", "identifier"]

LANGUAGES = ("python", "c", "triton", "latex")
"""What `emit_source` writes."""

_SINGLE = 24
# A C function of one of these names would have the wrong type for its compiler.
_MATHEMATICS_OF_C = frozenset(
    {"acos", "acosh", "asin", "asinh", "atan", "atanh", "cbrt", "cos", "cosh", "erf", "erfc", "exp"}
    | {"exp2", "expm1", "gamma", "j0", "j1", "lgamma", "log", "log10", "log1p", "log2", "sin"}
    | {"sinh", "sqrt", "tan", "tanh", "tgamma", "y0", "y1"}
)
_COMMENTS = {"c": ("/*\n", " * ", " */\n"), "python": ("", "# ", "")}


def emit_source(approximant: Approximant, language: str, name: str | None = None) -> str:
    """Source text of the function that an approximant is.

    Args:
        approximant: what to write; its constants are written exactly (in LaTeX with the digits
            that identify them), so the text computes what was measured or proven.
        language: ``python``, ``c``, ``triton`` or ``latex``.  C is written in ``float`` or
            ``double`` as the target computes; for a target with fixed-point arithmetic, C and
            Python are functions of integers.
        name: of the function; None makes one from the name of what is approximated, longer in C
            where its library has a function of that name.

    Raises:
        ApproximationError: for another language, a name that it cannot have, or one that cannot
            say what the target computes.

    >>> from odp.approximations import approximate
    >>> print(emit_source(approximate("exp", (-1, 0), error=1e-2), "python"))
    def exp(x):
        \"\"\"exp on [-1, 0]: ...
    """
    if language not in LANGUAGES:
        raise ApproximationError(
            f"no source text in {language!r}: choose {', '.join(LANGUAGES[:-1])} or {LANGUAGES[-1]}"
        )
    expression, arithmetic = approximant.expression, approximant.target.arithmetic
    chosen = identifier(approximant.function.name) if name is None else name
    if language == "c" and name is None and chosen in _MATHEMATICS_OF_C:
        chosen += "_approximation"
    lines = describe(approximant)
    if language == "latex":
        if isinstance(arithmetic, FixedPointArithmetic):
            lines.append("The formula is what the integers approximate.")
        return latex_source(expression, lines)
    if isinstance(arithmetic, FixedPointArithmetic):
        return _integer_source(approximant, language, chosen, lines)
    if language == "python":
        return python_source(expression, chosen, lines)
    if language == "triton":
        return triton_source(expression, chosen, lines)
    return c_source(expression, chosen, _c_type(arithmetic), lines)


def _c_type(arithmetic: FloatArithmetic) -> Literal["float", "double"]:
    return "float" if arithmetic.bits <= _SINGLE else "double"


def _integer_source(approximant: Approximant, language: str, name: str, lines: list[str]) -> str:
    """Source text of the fixed-point program, under a comment."""
    certified = approximant.fixed_point
    if language not in _COMMENTS or certified is None:
        raise ApproximationError(
            f"{language} source is in floating point, but the target {approximant.target.name}"
            " computes with integers: approximate for a floating-point target"
        )
    start, prefix, end = _COMMENTS[language]
    comment = "".join(f"{prefix}{line.replace('*/', '* /')}".rstrip() + "\n" for line in lines)
    program = certified.program
    source = program.to_c(name) if language == "c" else program.to_python(name)
    return start + comment + end + source


def describe(approximant: Approximant) -> list[str]:
    """Lines that say what an approximant is and how far it can be from the function.

    Bounds are rounded up to three digits: a proven bound stays one.
    """
    counts = approximant.counts
    proven = approximant.error_kind == "certified"
    bounds = [f"absolute error at most {_rounded_up(approximant.absolute_error)}"]
    if approximant.relative and approximant.relative_error is not None:
        bounds.append(f"relative error at most {_rounded_up(approximant.relative_error)}")
    how = "proven" if proven else "measured on a dense grid, not proven"
    program = approximant.fixed_point
    where = (
        "In real arithmetic"
        if program is None
        else (
            f"In integers, with every rounding, for multiples of 2^-{program.program.input_scale}"
        )
    )
    plural = {
        "multiplication": counts.multiplications,
        "division": counts.divisions,
        "addition": counts.additions,
    }
    operations = ", ".join(
        f"{count} {name}{'' if count == 1 else 's'}" for name, count in plural.items()
    )
    return [
        f"{approximant.function.name} on {approximant.domain}: {approximant.description}",
        "",
        f"{where} ({how}): {', '.join(bounds)}.",
        f"{operations}; made for the target {approximant.target.name}.",
    ]


def _rounded_up(value: float) -> str:
    decimal = Context(prec=3, rounding=ROUND_CEILING).create_decimal(Decimal(value))
    return f"{float(decimal):.3g}"


def identifier(name: str) -> str:
    """The name of a function made into one that every language can have.

    >>> identifier("pow(-0.25)"), identifier("x*exp(-x**2)")
    ('pow_0_25', 'x_exp_x_2')
    """
    words = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")
    return words if words and not words[0].isdecimal() else f"f_{words}".strip("_")
