"""Integer programs: one meaning on Python integers, arrays, in C and in Python source."""

from __future__ import annotations

import ctypes
import math
import pickle
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odp.approximations import ApproximationError, Expression, Interval, constant, variable
from odp.approximations.fixed_point import FixedPointProgram, lower_expression
from odp.approximations.fixed_point.digits import extra_digits
from odp.approximations.fixed_point.lowering import round_to_scale, shift_constants
from odp.approximations.fixed_point.normalisation import normalised
from odp.approximations.fixed_point.program import divide_to_nearest, shift_to_nearest

from .random_expressions import expressions

X = variable("x")
DOMAIN = Interval(-2, 3)


EXPRESSIONS = expressions(
    st.one_of(
        st.fractions(min_value=-4, max_value=4, max_denominator=1000),
        st.integers(-6, 6).map(lambda k: Fraction(2) ** k),
        st.integers(-20, 20).map(Fraction),
    ),
    max_leaves=9,
)


def _nearest(value: Fraction, digits: int) -> Fraction:
    return (
        Fraction(math.floor(value * Fraction(2) ** digits + Fraction(1, 2))) / Fraction(2) ** digits
    )


def _simulate(program: FixedPointProgram, n: int, extra: dict[Expression, int]) -> Fraction:
    """What the documentation says, in exact fractions: round every product and every quotient."""
    digits = program.scale + program.guard_bits
    values: dict[Expression, Fraction] = {}
    for node in program.expression.nodes():
        if node.op == "variable":
            values[node] = Fraction(n, 2**program.input_scale)
        elif node.op == "constant":
            values[node] = node.value
        else:
            a, b = (values[operand] for operand in node.operands)
            if node.op in ("add", "sub"):
                values[node] = a + b if node.op == "add" else a - b
            else:
                exact = a * b if node.op == "mul" else a / b
                shift = any(operand in shift_constants(node) for operand in node.operands)
                goal = max(0, digits + extra.get(node, 0))
                values[node] = exact if shift else _nearest(exact, goal)
    return _nearest(values[program.expression], program.scale)


@settings(max_examples=150, deadline=None)
@given(
    EXPRESSIONS,
    st.integers(0, 14),
    st.integers(0, 8),
    st.integers(0, 12),
    st.booleans(),
    st.data(),
)
def test_a_program_is_the_simulation_in_fractions(
    expression: Expression,
    scale: int,
    guard: int,
    input_scale: int,
    uniform: bool,
    data: st.DataObject,
) -> None:
    try:
        program = lower_expression(
            expression,
            DOMAIN,
            scale=scale,
            guard_bits=guard,
            input_scale=input_scale,
            uniform=uniform,
        )
    except ApproximationError:
        return  # a constant divisor rounded to zero: there is nothing to compare
    extra = {} if uniform else extra_digits(program.expression, DOMAIN, relative=False)
    inputs = data.draw(
        st.lists(st.integers(program.lowest, program.highest), min_size=1, max_size=9)
    )
    expected: list[int | None] = []
    for n in inputs:
        try:
            expected.append(int(_simulate(program, n, extra) * 2**scale))
        except ZeroDivisionError:
            expected.append(None)
            with pytest.raises(ApproximationError, match="divisor"):
                program.integers(n)
            continue
        assert program.integers(n) == expected[-1]
        assert program(Fraction(n, 2**input_scale)) == Fraction(expected[-1], 2**scale)
    kept = [(n, e) for n, e in zip(inputs, expected, strict=True) if e is not None]
    array = np.array([n for n, _ in kept], dtype=np.int64)
    assert list(program.integers(array)) == [e for _, e in kept]
    namespace: dict[str, object] = {}
    exec(program.to_python("g"), namespace)
    assert [namespace["g"](n) for n, _ in kept] == [e for _, e in kept]  # type: ignore[operator]


@given(st.integers(-(2**40), 2**40), st.integers(0, 50), st.integers(-(2**20), 2**20))
def test_rounding_is_to_nearest_with_ties_up(n: int, bits: int, divisor: int) -> None:
    assert shift_to_nearest(n, bits) == math.floor(Fraction(n, 2**bits) + Fraction(1, 2))
    if divisor:
        assert divide_to_nearest(n, divisor) == math.floor(Fraction(n, divisor) + Fraction(1, 2))


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 60), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_wide_integers_are_exact_on_arrays(scale: int, guard: int, seed: int) -> None:
    # Products of up to 200 bits: in two parts, by long division or as Python integers.
    expression = (X * X + 3) * X / (X * 0.7 + 5) - X * Fraction(1, 3)
    program = lower_expression(
        expression, DOMAIN, scale=scale, guard_bits=guard, input_scale=30, uniform=True
    )
    n = np.random.default_rng(seed).integers(program.lowest, program.highest, 40)
    result = program.integers(n)
    assert [int(value) for value in result] == [program.integers(int(value)) for value in n]


def test_powers_of_two_are_shifts_and_cost_nothing() -> None:
    program = lower_expression((X * 0.125) * 0.25 / 4, DOMAIN, scale=10, uniform=True)
    assert [step.op for step in program.steps] == ["input", "round"]
    assert program.steps[-1].right_shift == 7
    assert lower_expression(X * 2.0**-30, DOMAIN, scale=10, uniform=True).expression == X * 2.0**-30


def test_the_order_of_operations_is_that_of_the_expression() -> None:
    x, y = X, X * X + 1
    left = lower_expression((x * y) * y, DOMAIN, scale=6, uniform=True)
    right = lower_expression(x * (y * y), DOMAIN, scale=6, uniform=True)
    n = np.arange(left.lowest, left.highest + 1)
    assert (left.integers(n) != right.integers(n)).any()


def test_constants_are_integers_at_their_scale() -> None:
    program = lower_expression(
        X * 0.3 + Fraction(1, 3), DOMAIN, scale=5, guard_bits=2, uniform=True
    )
    for node in program.expression.nodes():
        if node.op == "constant":
            assert (node.value * 2**7).denominator == 1
    assert round_to_scale(X * 0.3, 3)(Fraction(1)) == Fraction(1, 4)


def test_adapted_programs_give_small_coefficients_their_digits() -> None:
    # x^4 / 10^4 has no digit left at 2^-10, and an error of 1 on [-10, 0].
    raw = X * X * X * X * 1e-4
    uniform, adapted = (
        lower_expression(raw, Interval(-10, 0), scale=10, uniform=flag) for flag in (True, False)
    )
    assert abs(uniform.integers(-10240) / 2**10 - 1) > 0.02
    assert abs(adapted.integers(-10240) / 2**10 - 1) < 2**-9


def test_a_program_is_a_value() -> None:
    program = lower_expression(X * X + 0.5, DOMAIN, scale=8, guard_bits=4)
    again = lower_expression(X * X + 0.5, DOMAIN, scale=8, guard_bits=4)
    assert program == again
    assert hash(program) == hash(again)
    assert pickle.loads(pickle.dumps(program)) == program
    assert program.bits == pickle.loads(pickle.dumps(program)).bits
    assert str(program).splitlines()[0] == "r0 = input    # 2^-8"
    assert len(str(program).splitlines()) == len(program.steps)


def test_real_inputs_are_rounded_first() -> None:
    program = lower_expression(X * X, DOMAIN, scale=8)
    assert program(0.501) == program(0.5)
    assert isinstance(program(0.5), float)
    np.testing.assert_array_equal(program(np.array([[0.5, 1.0]])), [[0.25, 1.0]])
    with pytest.raises(ApproximationError, match="finite"):
        program(float("nan"))
    with pytest.raises(ApproximationError, match="integers"):
        program.integers(np.array([0.5]))


def test_constant_expressions_and_empty_arrays() -> None:
    program = lower_expression(constant(Fraction(1, 3)), DOMAIN, scale=8, guard_bits=4)
    assert program.integers(np.arange(3)).tolist() == [85, 85, 85]
    assert program.integers(np.zeros(0, dtype=np.int64)).size == 0
    assert program.bits is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": -1}, "scale"),
        ({"scale": 7, "guard_bits": 2.5}, "guard_bits"),
        ({"scale": 7, "input_scale": 500}, "input_scale"),
    ],
)
def test_bad_scales_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ApproximationError, match=message):
        lower_expression(X, DOMAIN, **arguments)


def test_bad_expressions_and_domains_are_refused() -> None:
    with pytest.raises(ApproximationError, match="variable x"):
        lower_expression(variable("y"), DOMAIN, scale=8)
    with pytest.raises(ApproximationError, match="finite bounds"):
        lower_expression(X, Interval(0, math.inf), scale=8)
    with pytest.raises(ApproximationError, match="fewer than two"):
        lower_expression(X, Interval(0.01, 0.02), scale=3)
    with pytest.raises(ApproximationError, match="rounds to zero"):
        lower_expression(X / Fraction(1, 1000), DOMAIN, scale=2, uniform=True)
    with pytest.raises(ApproximationError, match="not finite"):
        lower_expression(1 / X, Interval(0, 1), scale=8)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_c_source_gives_the_same_integers(tmp_path: Path) -> None:
    horner = ((X * 0.04 + 0.2) * X + Fraction(1, 3)) * X + 0.75
    quotient = (X * horner - 0.4) / (X * X + 1.3) + 40000 * X
    programs = [
        lower_expression(horner, DOMAIN, scale=4, guard_bits=2),
        lower_expression(horner, DOMAIN, scale=12, guard_bits=6),
        lower_expression(quotient, DOMAIN, scale=6, guard_bits=6, uniform=True),
        lower_expression(quotient, DOMAIN, scale=9, guard_bits=3),
        lower_expression(-X * 3 / (2 - X * X - 9), DOMAIN, scale=10, guard_bits=5),
    ]
    widths = [program.bits for program in programs]
    assert all(bits is not None and bits <= 64 for bits in widths)
    assert min(bits for bits in widths if bits) <= 32 < max(bits for bits in widths if bits)
    sources = [program.to_c(f"f{i}") for i, program in enumerate(programs)]
    (tmp_path / "programs.c").write_text("\n".join(sources))
    flags = ["-O2", "-Wall", "-Werror", "-std=c99", "-fPIC", "-shared", "-ftrapv"]
    subprocess.run(["cc", *flags, "programs.c", "-o", "programs.so"], cwd=tmp_path, check=True)
    library = ctypes.CDLL(str(tmp_path / "programs.so"))
    for i, program in enumerate(programs):
        function = library[f"f{i}"]
        kind = ctypes.c_int32 if "int32_t f" in sources[i] else ctypes.c_int64
        function.argtypes, function.restype = [kind], kind
        step = max(1, program.inputs // 400)
        n = np.unique(np.append(np.arange(program.lowest, program.highest, step), program.highest))
        assert [function(int(value)) for value in n] == program.integers(n).tolist()


def test_c_source_of_128_bits_and_what_is_too_wide() -> None:
    wide = lower_expression(X * X * X, DOMAIN, scale=30, guard_bits=12, uniform=True)
    assert "__int128 f(__int128 x)" in wide.to_c()
    wider = lower_expression(X * X * X, DOMAIN, scale=60, guard_bits=40, uniform=True)
    with pytest.raises(ApproximationError, match="128"):
        wider.to_c()
    with pytest.raises(ApproximationError, match="function name"):
        wide.to_c("two words")


@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS, st.fractions(min_value=-2, max_value=3, max_denominator=64))
def test_the_normalised_form_is_the_same_function(expression: Expression, x: Fraction) -> None:
    assert normalised(expression, DOMAIN).substitute(x=x) == expression.substitute(x=x)


def test_the_normalised_form_needs_fewer_bits() -> None:
    # x^6 reaches 2^18, and the coefficients 2^-18: one scale does not suit both.
    sixth = ((X * X) * (X * X)) * (X * X) * Fraction(3, 10**6) + 0.5
    domain = Interval(-8, 8)
    raw, small = (
        lower_expression(form, domain, scale=12, guard_bits=8, uniform=True)
        for form in (sixth, normalised(sixth, domain))
    )
    exact = sixth(Fraction(8))
    assert abs(raw(Fraction(8)) - exact) > 2**-6
    assert abs(small(Fraction(8)) - exact) < 2**-12
    assert raw.bits is not None
    assert small.bits is not None
    assert small.bits < raw.bits
