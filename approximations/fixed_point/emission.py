"""Integer programs as C and Python source text with the same results, bit for bit."""

from __future__ import annotations

from odp.approximations.errors import ApproximationError
from odp.approximations.fixed_point.program import FixedPointProgram, Step

__all__ = ["c_source", "python_source"]

_C_TYPES = ((32, "int32_t"), (64, "int64_t"), (128, "__int128"))


def _check_name(name: str) -> None:
    if not (name.isidentifier() and name.isascii()):
        raise ApproximationError(f"{name!r} is not a function name: use letters, digits and _")


def _summary(program: FixedPointProgram) -> str:
    return (
        f"x at scale 2^{program.input_scale}, from {program.lowest} to {program.highest};"
        f" result at scale 2^{program.scale}"
    )


def c_source(program: FixedPointProgram, name: str = "f") -> str:
    """A C99 function of one integer, in the narrowest integers that provably do not overflow.

    Divisions and shifts of negative numbers round as everywhere in this package; ``>>`` of a
    negative number must be an arithmetic shift, as it is in every compiler in use.  128 bits need
    the ``__int128`` of GCC and Clang.

    Args:
        program: for the inputs that it was made for; others may overflow.
        name: of the function.

    Raises:
        ApproximationError: if no type is wide enough, or the name is no identifier.
    """
    _check_name(name)
    bits = program.bits
    kind = next((text for most, text in _C_TYPES if bits is not None and bits <= most), None)
    if kind is None:
        needs = "have no proven bound" if bits is None else f"need {bits} bits"
        raise ApproximationError(
            f"C source: intermediates {needs}, and C has 128; use fewer guard bits"
        )
    lines = [
        f"/* {_summary(program)}. Every product and quotient is rounded to nearest, ties up. */",
        "#include <stdint.h>",
        "",
    ]
    if any(step.op == "div" for step in program.steps):
        lines += [
            f"static {kind} {name}_divide({kind} a, {kind} b) {{",
            f"    {kind} n = 2 * a + b, d = 2 * b, q = n / d;",
            "    return q - (n % d != 0 && (n < 0) != (d < 0));",
            "}",
            "",
        ]
    lines.append(f"{kind} {name}({kind} x) {{")
    for number, step in enumerate(program.steps):
        lines.append(f"    const {kind} r{number} = {_c_step(step, kind, name)};")
    lines += [f"    return r{len(program.steps) - 1};", "}"]
    return "\n".join(lines) + "\n"


def _c_literal(value: int, kind: str) -> str:
    if -(2**31) < value < 2**31:
        return str(value)
    if -(2**63) < value < 2**63:
        return f"INT64_C({value})"
    # No literal of C is wider than 64 bits.
    sign, size = "-" if value < 0 else "", abs(value)
    high, low = divmod(size, 2**62)
    return f"{sign}(({kind})INT64_C({high}) * ((int64_t)1 << 62) + INT64_C({low}))"


def _c_step(step: Step, kind: str, name: str) -> str:
    one = f"({kind})1"

    def shifted(register: int, shift: int) -> str:
        # A left shift of a negative number is undefined in C; a product is not.
        return f"r{register} * ({one} << {shift})" if shift else f"r{register}"

    left, right = shifted(step.left, step.left_shift), shifted(step.right, step.right_shift)
    if step.op == "input":
        return "x"
    if step.op == "constant":
        return _c_literal(step.value, kind)
    if step.op in ("add", "sub"):
        return f"{left} {'+' if step.op == 'add' else '-'} {right}"
    if step.op == "div":
        return f"{name}_divide({left}, {right})"
    value = f"r{step.left} * r{step.right}" if step.op == "mul" else left
    if not step.right_shift:
        return value
    return f"({value} + ({one} << {step.right_shift - 1})) >> {step.right_shift}"


def python_source(program: FixedPointProgram, name: str = "f") -> str:
    """A Python function of one integer, of any size.

    Raises:
        ApproximationError: if the name is no identifier.

    >>> from odp.approximations import Interval, variable
    >>> from odp.approximations.fixed_point import lower_expression
    >>> x = variable("x")
    >>> print(python_source(lower_expression(x * x, Interval(-1, 1), scale=8)))
    def f(x):
        # x at scale 2^8, from -256 to 256; result at scale 2^8
        r0 = x
        r1 = (r0 * r0 + 128) >> 8
        return r1
    <BLANKLINE>
    """
    _check_name(name)
    lines = [f"def {name}(x):", f"    # {_summary(program)}"]
    lines += [f"    r{n} = {_python_step(step)}" for n, step in enumerate(program.steps)]
    lines.append(f"    return r{len(program.steps) - 1}")
    return "\n".join(lines) + "\n"


def _python_step(step: Step) -> str:
    def shifted(register: int, shift: int) -> str:
        return f"(r{register} << {shift})" if shift else f"r{register}"

    left, right = shifted(step.left, step.left_shift), shifted(step.right, step.right_shift)
    if step.op == "input":
        return "x"
    if step.op == "constant":
        return str(step.value)
    if step.op in ("add", "sub"):
        return f"{left} {'+' if step.op == 'add' else '-'} {right}"
    if step.op == "div":
        return f"(2 * {left} + {right}) // (2 * {right})"
    value = f"r{step.left} * r{step.right}" if step.op == "mul" else left
    if not step.right_shift:
        return value
    return f"({value} + {1 << (step.right_shift - 1)}) >> {step.right_shift}"
