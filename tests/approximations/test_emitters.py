"""Emitted source text computes what the expression computes, bit for bit where it promises that."""

import ctypes
import importlib.util
import math
import re
import shutil
import subprocess
import sys
import types
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from odp.approximations import (
    Approximant,
    ApproximationError,
    Expression,
    approximate,
    constant,
    variable,
)
from odp.approximations.emitters.emit_source import LANGUAGES, describe, emit_source, identifier
from odp.approximations.emitters.source_emitters import (
    CAlgebra,
    c_source,
    python_source,
    triton_source,
)

x, y = variable("x"), variable("y")
RANDOM = np.random.default_rng(5)
COMPILER = shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler on this machine")


def horner(degree: int) -> Expression:
    result = constant(float(RANDOM.normal()))
    for coefficient in RANDOM.normal(size=degree).tolist():
        result = result * x + constant(coefficient)
    return result


def many_expressions() -> dict[str, Expression]:
    square, shifted = x * x, x - 0.1
    chain = horner(3)
    for _ in range(4):
        chain = chain * chain
    return {
        "horner": horner(10),
        "long_horner": horner(70),
        "rational": x * (square * 0.1 + 1.7) / (square * square * 3.1 + square * 1e-9 + 2) - 0.5,
        "chain": chain,
        "shared": (shifted * shifted) / (shifted * shifted + 1) - shifted * (0 - shifted),
        "negative": (x * -0.3 - constant(-2.5)) * constant(-1e-20) - (1 - x),
        "nested": 1 / (x / 3 - (2 - (x - 5) / (x / 7))) / (x * (x / 11)),
        "third": (x + Fraction(1, 3)) * Fraction(-2, 7),
        "small": x * constant(2.0**-140) + constant(2.0**-149),
        "two": (x * y - y) / (x + 3 * y),
        "same": x,
        "seven": constant(7),
    }


EXPRESSIONS = many_expressions()


def inputs(dtype: Any) -> NDArray[Any]:
    return np.concatenate([RANDOM.normal(size=500) * 3, [0.0, -0.0, 1e-30, 1e5]]).astype(dtype)


def values(expression: Expression, *points: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(all="ignore"):
        return np.broadcast_to(
            np.asarray(expression(*points[: len(expression.variables)]), points[0].dtype),
            points[0].shape,
        )


def same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Equal, with the signs of zeros; of a NaN only that it is there."""
    if a.dtype != b.dtype or not np.array_equal(np.isnan(a), np.isnan(b)):
        return False
    numbers = ~np.isnan(a)
    return bool(np.array_equal(a[numbers], b[numbers])) and bool(
        np.array_equal(np.signbit(a[numbers]), np.signbit(b[numbers]))
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """All expressions in float and in double, compiled with warnings as errors."""
    folder = tmp_path_factory.mktemp("c")
    sources = [
        c_source(expression, f"{name}_{dtype}", dtype)  # type: ignore[arg-type]
        for name, expression in EXPRESSIONS.items()
        for dtype in ("float", "double")
    ]
    sources += [emit_source(a, "c", name) for name, a in approximants().items()]
    (folder / "f.c").write_text("\n".join(sources))
    strict = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"]
    command = [str(COMPILER), *strict, "-ffp-contract=off", "-fPIC", "-shared", "-o"]
    subprocess.run([*command, str(folder / "f.so"), str(folder / "f.c")], check=True)
    return ctypes.CDLL(str(folder / "f.so"))


def approximants() -> dict[str, Approximant]:
    return {
        "exp_on_10": approximate("exp", (-10, 0), error=1e-4),
        "sigmoid_on_8": approximate("sigmoid", (-8, 8), error=1e-5),
        "cos_double": approximate("cos", (-3, 3), error=1e-9, target="float64"),
    }


def call(function: Any, number: Any, *points: NDArray[Any]) -> NDArray[Any]:
    function.restype, function.argtypes = number, [number] * len(points)
    rows = zip(*(p.tolist() for p in points), strict=True)
    return np.array([function(*row) for row in rows], dtype=points[0].dtype)


@needs_compiler
@pytest.mark.parametrize("name", EXPRESSIONS)
@pytest.mark.parametrize("dtype", ["float", "double"])
def test_c_has_the_bits_of_numpy(library: ctypes.CDLL, name: str, dtype: str) -> None:
    expression = EXPRESSIONS[name]
    single = dtype == "float"
    points = [inputs(np.float32 if single else np.float64) for _ in range(2)]
    used = points[: len(expression.variables)]
    function = library[f"{name}_{dtype}"]
    if not used:
        function.restype = ctypes.c_float if single else ctypes.c_double
        assert function() == float(expression.value)
        return
    computed = call(function, ctypes.c_float if single else ctypes.c_double, *used)
    assert same_bits(computed, values(expression, *points))


@needs_compiler
@pytest.mark.parametrize("name", ["exp_on_10", "sigmoid_on_8", "cos_double"])
def test_c_of_approximants(library: ctypes.CDLL, name: str) -> None:
    approximant = approximants()[name]
    double = approximant.target.name == "float64"
    dtype, number = (np.float64, ctypes.c_double) if double else (np.float32, ctypes.c_float)
    points = np.linspace(approximant.domain.lo, approximant.domain.hi, 999, dtype=dtype)
    assert same_bits(call(library[name], number, points), approximant(points))


@pytest.mark.parametrize("name", EXPRESSIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_python_has_the_bits_of_numpy(name: str, dtype: Any) -> None:
    expression = EXPRESSIONS[name]
    scope: dict[str, Any] = {}
    exec(python_source(expression, "g"), scope)
    points = [inputs(dtype) for _ in range(2)]
    with np.errstate(all="ignore"):
        computed = scope["g"](*points[: len(expression.variables)])
    computed = np.broadcast_to(np.asarray(computed, dtype), points[0].shape)
    assert same_bits(computed, values(expression, *points))


def triton_function(source: str, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The device function, run as Python: ``triton.jit`` replaced by nothing."""
    stub = types.ModuleType("triton")
    stub.jit = lambda function: function  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton", stub)
    file = folder / f"{name}.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


@pytest.mark.parametrize("name", [n for n in EXPRESSIONS if n != "small"])
def test_triton_source_is_python_that_keeps_float32(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expression = EXPRESSIONS[name]
    source = triton_source(expression, "g", ["A line.", 'With "quotes" and a \\ backslash.'])
    function = triton_function(source, "g", tmp_path, monkeypatch)
    points = [inputs(np.float32) for _ in range(2)]
    with np.errstate(all="ignore"):
        computed = function(*points[: len(expression.variables)])
    computed = np.broadcast_to(np.asarray(computed, np.float32), points[0].shape)
    assert same_bits(computed, values(expression, *points))


KERNEL = """

import triton.language as tl


@triton.jit
def kernel(source, target, count, BLOCK: tl.constexpr):
    where = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(source + where, mask=where < count, other=0.0)
    value = g(x)
    tl.store(target + where, value, mask=where < count)
"""

RUN = """
import sys
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
from generated import kernel
x = torch.from_numpy(np.load(sys.argv[1] + "/in.npy"))
out = torch.zeros_like(x)
kernel[(8,)](x, out, 1000, BLOCK=128)
np.save(sys.argv[1] + "/out.npy", out.numpy())
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_triton_kernels_call_it(dtype: Any, tmp_path: Path) -> None:
    expression = approximants()["sigmoid_on_8"].expression
    (tmp_path / "generated.py").write_text(triton_source(expression, "g") + KERNEL)
    points = np.linspace(-8, 8, 1000, dtype=dtype)
    np.save(tmp_path / "in.npy", points)
    # The interpreter is chosen when triton is imported, so it needs a process of its own.
    subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)],
        check=True,
        env={"TRITON_INTERPRET": "1", "PYTHONPATH": ":".join(sys.path), "PATH": ""},
    )
    assert same_bits(np.load(tmp_path / "out.npy"), values(expression, points))


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["float", "double"]))
def test_constants_of_c_round_trip(number: float, dtype: Literal["float", "double"]) -> None:
    if dtype == "float":
        with np.errstate(over="ignore"):
            single = float(np.float32(number))
        assume(math.isfinite(single) and (single == 0) == (number == 0))
        number = single
    algebra = CAlgebra(dtype, "c")
    text = algebra.constant(Fraction(number)).text.removeprefix("-")
    literal = algebra.table[text].split(";")[0] if text in algebra.table else text
    if dtype == "float":
        assert literal.endswith("f")
        literal = literal[:-1]
    assert (float.fromhex(literal) if "x" in literal else float(literal)) == abs(number)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_constants_of_python_round_trip(number: float) -> None:
    scope: dict[str, Any] = {}
    exec((x + constant(number)).to_python(), scope)
    assert scope["f"](0.0) == number


def test_lines_stay_short_and_nesting_shallow() -> None:
    deep = x
    for _ in range(3000):
        deep = (deep * 0.9990001 + 0.00123456789) * x
    source = deep.to_python()
    assert max(len(line) for line in source.splitlines()) <= 100
    scope: dict[str, Any] = {}
    exec(source, scope)
    assert scope["f"](0.5) == deep(0.5)
    assert max(len(line) for line in deep.to_c().splitlines()) <= 100


def test_c_text() -> None:
    source = ((x * x - 0.1) / (x * x + 3)).to_c("g", "float")
    assert source == (
        "/*\n"
        " * Compile with -ffp-contract=off for the same bits everywhere.\n"
        " */\n"
        "float g(float x)\n"
        "{\n"
        "    const float c0 = 0x1.99999ap-4f;  /* 0.1 */\n"
        "    const float t1 = x * x;\n"
        "    return (t1 - c0) / (t1 + 3.0f);\n"
        "}\n"
    )


def test_generated_names_avoid_variables() -> None:
    c0, t1 = variable("c0"), variable("t1")
    expression = (c0 * t1) * (c0 * t1) + 0.123456789
    scope: dict[str, Any] = {}
    exec(expression.to_python(), scope)
    assert scope["f"](2.0, 3.0) == expression(2.0, 3.0)
    text = expression.to_c()
    assert "const float c_0 = " in text
    assert "const float t_1 = c0 * t1;" in text


@pytest.mark.parametrize(
    ("bad", "language"),
    [("lambda", "python"), ("a b", "python"), ("lambda", "triton"), ("float", "c"), ("ä", "c")],
)
def test_bad_names_are_one_line(bad: str, language: str) -> None:
    with pytest.raises(ApproximationError, match="cannot be a name"):
        getattr(x, f"to_{language}")(bad)
    with pytest.raises(ApproximationError, match="call the function otherwise"):
        getattr(x, f"to_{language}")("x")


def test_constants_that_a_type_cannot_hold() -> None:
    for number in (1e300, 1e-300, -1e300):
        with pytest.raises(ApproximationError, match="no float32 number"):
            (x * constant(number)).to_c()
        with pytest.raises(ApproximationError, match="no float32 number"):
            (x * constant(number)).to_triton()
        assert "p" in (x * constant(number)).to_c(dtype="double")
    with pytest.raises(ApproximationError, match="overflows"):
        (x * constant(Fraction(10) ** 400)).to_python()
    with pytest.raises(ApproximationError, match="float or double"):
        x.to_c(dtype="half")  # type: ignore[arg-type]


@pytest.mark.parametrize("language", LANGUAGES)
def test_text_of_an_approximant_says_what_it_is(language: str) -> None:
    approximant = approximate("exp", (-10, 0), error=1e-4)
    text = emit_source(approximant, language)
    for fact in ("exp on [-10, 0]", "absolute error at most", "proven", "5 multiplications"):
        assert fact in text
    if language != "latex":
        assert "exp(" in emit_source(approximant, language, "my_exp")
    with pytest.raises(ApproximationError, match="choose python, c, triton or latex"):
        emit_source(approximant, "fortran")


def test_fixed_point_targets_emit_their_integer_program() -> None:
    approximant = approximate("sigmoid", (-8, 8), error=1e-2, target="fixed{scale=10}")
    assert approximant.fixed_point is not None
    scope: dict[str, Any] = {}
    exec(emit_source(approximant, "python"), scope)
    points = range(-(8 << 10), (8 << 10) + 1, 37)
    program = approximant.fixed_point.program
    assert [scope["sigmoid"](n) for n in points] == [int(program.integers(n)) for n in points]
    for language in ("python", "c"):
        text = emit_source(approximant, language)
        assert "In integers, with every rounding, for multiples of 2^-10 (proven)" in text
    assert "what the integers approximate" in emit_source(approximant, "latex")
    with pytest.raises(ApproximationError, match="computes with integers"):
        emit_source(approximant, "triton")


def test_c_does_not_redefine_its_library() -> None:
    approximant = approximate("exp", (-1, 0), error=1e-2)
    assert "float exp_approximation(float x)" in emit_source(approximant, "c")
    assert "float exp(float x)" in emit_source(approximant, "c", "exp")


@given(st.floats(min_value=1e-30, max_value=1e6))
def test_bounds_are_printed_rounded_up(error: float) -> None:
    approximant = replace(approximate("exp", (-1, 0), error=1e-2), absolute_error=error)
    text = next(line for line in describe(approximant) if "absolute error" in line)
    printed = float(text.split("at most ")[1].rstrip(".").split(",")[0])
    assert error <= printed <= error * 1.01


@given(st.text(max_size=20))
def test_identifiers(name: str) -> None:
    made = identifier(name)
    assert made.isidentifier()
    assert made.isascii()


def test_latex_of_names_and_squares() -> None:
    rate = variable("learning_rate")
    assert (rate * rate).to_latex() == r"\mathrm{learning\_rate}^{2}"
    assert (x * x - 2).to_latex() == "x^{2} - 2"
    assert (x + constant(-0.5)).to_latex() == "x - 0.5"
    assert (x * constant(1e-12)).to_latex() == r"x \cdot 1 \cdot 10^{-12}"
    assert x._repr_latex_() == r"$\displaystyle x$"


def test_latex_has_all_digits_of_a_double() -> None:
    third = float(Fraction(1, 3))
    digits = re.findall(r"\d+\.\d+", (variable("x") * third + 0.5).to_latex())
    assert [float(text) for text in digits] == [third, 0.5]
