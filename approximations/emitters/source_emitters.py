"""Source text of expressions in Python, C and Triton.

The order of operations of an expression is the order of operations of the text.  Shared and long
subexpressions become temporaries.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import numpy as np

from odp.approximations.emitters.source_text import (
    ATOM,
    PRODUCT,
    InfixAlgebra,
    Text,
    bindings,
    signed,
)
from odp.approximations.errors import ApproximationError
from odp.approximations.expression import Expression

__all__ = [
    "CAlgebra",
    "PythonAlgebra",
    "TritonAlgebra",
    "c_source",
    "one_line",
    "python_source",
    "triton_source",
]

# Longer constants get a name in C.
_SHORT = 7
_C_KEYWORDS = frozenset(
    "auto break case char const continue default do double else enum extern float for goto if"  # noqa: SIM905
    " inline int long main register restrict return short signed sizeof static struct switch"
    " typedef union unsigned void volatile while".split()
)


class PythonAlgebra(InfixAlgebra):
    """Python source text; operations associate to the left as in the expression.

    Args:
        digits: significant digits of the constants; None for as many as tell floats apart.
    """

    def __init__(self, digits: int | None = None) -> None:
        self.digits = digits

    def variable(self, name: str) -> Text:
        """The name."""
        return Text(name, ATOM)

    def constant(self, value: Fraction) -> Text:
        """A float literal, or a quotient of integers where no float is exact."""
        number = _float64(abs(value))
        if self.digits is not None:
            text = f"{number:.{self.digits}g}"
        elif Fraction(number) == abs(value):
            text = repr(number)
        else:
            text = f"({abs(value.numerator)} / {value.denominator})"
        return signed(text, ATOM, negative=value < 0)

    def mul(self, a: Text, b: Text) -> Text:
        """``a * b``."""
        return Text(f"{a.inside(PRODUCT)} * {b.inside(ATOM)}", PRODUCT)

    def div(self, a: Text, b: Text) -> Text:
        """``a / b``."""
        return Text(f"{a.inside(PRODUCT)} / {b.inside(ATOM)}", PRODUCT)


class CAlgebra(PythonAlgebra):
    """C source text.  Constants that are not short get a name and stand in `table`.

    Args:
        dtype: ``float`` or ``double``.
        prefix: of the names of the constants.
    """

    def __init__(self, dtype: Literal["float", "double"], prefix: str) -> None:
        super().__init__()
        self.dtype = dtype
        self.prefix = prefix
        self.table: dict[str, str] = {}
        """Literal by name, in the order of use."""
        self._names: dict[float, str] = {}

    def constant(self, value: Fraction) -> Text:
        """The nearest number of the type: the one that numpy computes with.

        Raises:
            ApproximationError: if it overflows, or vanishes though the constant does not.
        """
        number = _float64(abs(value))
        if self.dtype == "float":
            number = _float32(number)
        suffix = "f" if self.dtype == "float" else ""
        # The C standard lets a compiler round a decimal literal either way; hexadecimal is exact.
        text = repr(number) + suffix
        if len(text) > _SHORT or "e" in text:
            text = self._names.setdefault(number, f"{self.prefix}{len(self.table)}")
            if text not in self.table:
                shown = np.float32(number) if self.dtype == "float" else np.float64(number)
                mantissa, _, exponent = number.hex().partition("p")
                literal = f"{mantissa.rstrip('0').rstrip('.')}p{exponent}{suffix}"
                self.table[text] = f"{literal};  /* {shown!s} */"
        return signed(text, ATOM, negative=value < 0)


class TritonAlgebra(PythonAlgebra):
    """Triton source text: Python with plain float literals.

    Triton gives a literal the type of the tensor that it is combined with, as long as float32 can
    hold it; a float32 or float16 tensor is not promoted.
    """

    def constant(self, value: Fraction) -> Text:
        """The nearest float64, written in full.

        Raises:
            ApproximationError: if float32 cannot hold it: then Triton would promote to float64.
        """
        number = _float64(abs(value))
        _float32(number)
        return signed(repr(number), ATOM, negative=value < 0)


def _float64(value: Fraction) -> float:
    """`value` rounded to float64."""
    try:
        return float(value)
    except OverflowError:
        raise ApproximationError("a constant of the expression overflows float64") from None


def _float32(number: float) -> float:
    """`number` rounded to float32."""
    with np.errstate(over="ignore", under="ignore"):
        single = float(np.float32(number))
    if math.isinf(single) or (single == 0.0) != (number == 0.0):
        raise ApproximationError(f"the constant {number:g} is no float32 number: emit it as double")
    return single


def _prefix(expression: Expression, wanted: str, name: str) -> str:
    """A prefix of generated names that no variable, and not the function, starts with."""
    while any(given.startswith(wanted) for given in (*expression.variables, name)):
        wanted += "_"
    return wanted


def _check_names(expression: Expression, name: str, language: str) -> None:
    """Refuse names that the language cannot have.

    Raises:
        ApproximationError: naming the first one.
    """
    for given in (name, *expression.variables):
        if language == "C":
            bad = not given.isascii() or not given.isidentifier() or given in _C_KEYWORDS
        else:
            bad = not given.isidentifier() or keyword.iskeyword(given)
        if bad:
            raise ApproximationError(f"{given!r} cannot be a name in {language}: choose another")
    if name in expression.variables:
        raise ApproximationError(
            f"{name!r} is the name of a variable of the expression: call the function otherwise"
        )


def _python_function(
    expression: Expression, algebra: PythonAlgebra, name: str, description: Sequence[str]
) -> list[str]:
    bound, result = bindings(expression, algebra, _prefix(expression, "t", name) + "{}")
    lines = [f"def {name}({', '.join(expression.variables)}):"]
    if description:
        # A quote or a backslash in the text must not end the docstring or escape.
        text = [line.replace("\\", "\\\\").replace('"', "'") for line in description]
        lines += [f'    """{text[0]}', *(f"    {line}" for line in text[1:])]
        lines[-1] += '"""' if len(text) == 1 else ""
        lines += ['    """'] if len(text) > 1 else []
    lines += [f"    {label} = {text}" for label, text in bound]
    return [*(line.rstrip() for line in lines), f"    return {result}"]


def python_source(expression: Expression, name: str = "f", description: Sequence[str] = ()) -> str:
    """Source text of a Python function with the expression's own order of operations.

    Args:
        expression: what to write.
        name: of the function.
        description: lines of its docstring.

    Raises:
        ApproximationError: if the function or a variable has a name that Python cannot have.
    """
    _check_names(expression, name, "Python")
    return "\n".join(_python_function(expression, PythonAlgebra(), name, description)) + "\n"


def triton_source(expression: Expression, name: str = "f", description: Sequence[str] = ()) -> str:
    """Source text of a Triton device function on tensors, to be called from kernels.

    Triton fuses ``a * b + c`` and divides float32 by an approximate reciprocal (2 ulp) unless it is
    told otherwise, so its last bits differ from those of numpy.

    Raises:
        ApproximationError: for a bad name, or a constant that float32 cannot hold.
    """
    _check_names(expression, name, "Python")
    lines = _python_function(expression, TritonAlgebra(), name, description)
    return "\n".join(["import triton", "", "", "@triton.jit", *lines]) + "\n"


def c_source(
    expression: Expression,
    name: str = "f",
    dtype: Literal["float", "double"] = "float",
    description: Sequence[str] = (),
) -> str:
    """Source text of a C99 function that computes, bit for bit, what numpy does in that type.

    Compile it with ``-ffp-contract=off`` (a fused multiply-add rounds once where this rounds twice)
    and without ``-ffast-math``.

    Args:
        expression: what to write.
        name: of the function.
        dtype: ``float`` or ``double``: the type of arguments, constants, temporaries and result.
        description: lines of the comment above it.

    Raises:
        ApproximationError: for another type, a bad name, or a constant that a float cannot hold.
    """
    if dtype not in ("float", "double"):
        raise ApproximationError(f"C source is written in float or double, not in {dtype!r}")
    _check_names(expression, name, "C")
    algebra = CAlgebra(dtype, _prefix(expression, "c", name))
    bound, result = bindings(expression, algebra, _prefix(expression, "t", name) + "{}")
    parameters = ", ".join(f"{dtype} {variable}" for variable in expression.variables)
    comment = [*description, "Compile with -ffp-contract=off for the same bits everywhere."]
    lines = ["/*", *(f" * {line.replace('*/', '* /')}".rstrip() for line in comment), " */"]
    lines += [f"{dtype} {name}({parameters or 'void'})", "{"]
    lines += [f"    const {dtype} {label} = {text}" for label, text in algebra.table.items()]
    lines += [f"    const {dtype} {label} = {text};" for label, text in bound]
    return "\n".join([*lines, f"    return {result};", "}"]) + "\n"


def one_line(expression: Expression, limit: int = 160) -> str:
    """Readable one-line form for `repr`, with constants of 6 digits.

    Expressions longer than `limit` characters show their size instead.
    """
    counts = expression.counts
    # Every operation prints at least 4 characters: no need to write out what will not fit.
    if 4 * (counts.multiplications + counts.divisions + counts.additions) <= limit:
        algebra = PythonAlgebra(digits=6)
        bound, result = bindings(expression, algebra, "t{}", longest=math.inf)
        text = "; ".join([f"{label} = {value}" for label, value in bound] + [result])
        if len(text) <= limit:
            return text
    return (
        f"{', '.join(expression.variables)}: {counts.multiplications} mul, {counts.divisions} div,"
        f" {counts.additions} add, depth {counts.depth}"
    )
