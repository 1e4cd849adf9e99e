"""Formulas that a user types: read without running anything, evaluated to a few ulps, proven."""

import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import sympy

from odp.approximations import (
    Approximant,
    ApproximationError,
    Interval,
    approximate,
    get_function,
)
from odp.approximations.functions.parsing import from_sympy, parse
from odp.approximations.functions.symmetry import vanishes

from ..hanging import must_end

ULP = 2.0**-52


@pytest.mark.parametrize(
    "text, domain, error",
    [
        ("x*exp(-x**2)", (-3, 3), 1e-5),
        ("t*exp(-t**2)", (-3, 3), 1e-3),
        ("x/sin(x)", (-1, 1), 1e-5),
        ("x/(1 + exp(-1.702*x))", (-6, 6), 1e-4),
        ("exp(-(x - 1)**2)", (-1, 2), 1e-4),
        ("sqrt(x)*exp(-x)", (0, 4), 1e-2),
        ("abs(x)", (-1, 1), 5e-2),
        ("gamma(x)", (1, 3), 1e-4),
        ("x**x", (0.5, 2), 1e-4),
        ("tan(x)", (2, 4), 1e-4),
        ("1/x - 1/sin(x)", (-1, 1), 1e-4),
    ],
)
def test_formulas_are_approximated_with_proof(
    text: str, domain: tuple[float, float], error: float, check: Callable[[Approximant], None]
) -> None:
    approximant = approximate(text, domain, error=error)
    assert approximant.error_kind == "certified"
    assert approximant.error <= error
    check(approximant)


CODE = [
    "__import__('os').system('touch {path}')",
    "open('{path}', 'w')",
    "exec('x')",
    "eval('x')",
    "(lambda: open('{path}', 'w'))()",
    "x.__class__.__mro__",
    "x[0]",
    "[open('{path}', 'w') for x in (1,)]",
    "{{x: 1}}",
    "f'{{open(chr(65))}}'",
    "(y := open('{path}', 'w'))",
    "x if open('{path}', 'w') else x",
    "sin(open('{path}', 'w'))",
    "exp.__globals__",
    "().__class__",
    "sympify('1')",
    "Symbol('x')",
    "x; import os",
    "import os",
    "print(x)",
    "await x",
    "yield x",
    "x @ x",
    "not x",
    "x and x",
    "x < 1",
    "'a' * 9",
    "b'a'",
    "...",
    "None + x",
    "__debug__",
    "exp(*[1])",
    "exp(**{{}})",
    "exp(x=1)",
]


@pytest.mark.parametrize("code", CODE)
def test_what_looks_like_code_is_refused(code: str) -> None:
    with pytest.raises(ApproximationError) as caught:
        get_function(code.format(path="/nowhere"))
    assert "\n" not in str(caught.value)


def test_no_code_runs(tmp_path: object) -> None:
    """Python's own audit says so: reading formulas compiles to no code object that is run."""
    path = f"{tmp_path}/touched"
    texts = [code.format(path=path) for code in CODE] + ["x*exp(-x**2) + 1", "gelu(2*x)"]
    program = (
        "import sys\n"
        "from odp.approximations.errors import ApproximationError\n"
        "from odp.approximations.functions.parsing import parse\n"
        "parse('gelu(x) + sin(x)/2 + max(x, 0) - gamma(3*x)')\n"
        "seen, armed = [], [True]\n"
        "watched = ('exec', 'open', 'import', 'os.', 'subprocess.', 'builtins.')\n"
        "def hook(event, arguments):\n"
        "    if armed[0] and event.startswith(watched): seen.append((event, arguments))\n"
        "sys.addaudithook(hook)\n"
        f"for text in {texts!r}:\n"
        "    try: parse(text)\n"
        "    except ApproximationError: pass\n"
        "armed[0] = False\n"
        "print(seen)\n"
        "armed[0] = True\n"
        "eval('1')\n"
        "armed[0] = False\n"
        "print([event for event, _ in seen])\n"
    )
    lines = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert lines[0] == "[]"
    # The hook does see what is run.
    assert lines[1] == "['exec']"


@pytest.mark.parametrize(
    "text, words",
    [
        ("x*y", r"more than one variable \(x, y\)"),
        ("3", "no variable, its value is 3"),
        ("pi**2 + e", "no variable"),
        ("x - x", "no variable, its value is 0"),
        ("1*x", "its own argument"),
        ("sin(", "never closed at column 4"),
        ("2x", "invalid decimal literal"),
        ("x^2", r"write \*\* for powers"),
        ("", "unknown function"),
        ("exp + 1", r"write exp\(x\)"),
        ("sgmoid(2*x)", "did you mean sigmoid"),
        ("floor(x)", "it jumps"),
        ("x % 2", r"only \+ - \* / \*\*"),
        ("exp(x, 2)", "does not take 2 arguments"),
        ("1/0 + x", "division by zero at column 3"),
        ("x/(1 - 1)", "division by zero"),
        ("log(0)*x", "not finite"),
        ("sqrt(-1)*x", "complex"),
        ("(-8)**(1/3) + x", "complex"),
        ("asin(2)*x", "complex"),
        ("1j*x", "complex number"),
        ("9**9**9", "exponent is beyond"),
        ("x**9**9", "exponent is beyond"),
        ("((x**999)**999)", "exponent is beyond"),
        ("2**999*2.5**-999*3**(1/7)**-9 + 7**900**2*x", "exponent is beyond"),
        ("1e400*x", "beyond what float64 represents"),
        ("1e999999999999*x", "beyond what float64 represents"),
        ("9" * 70 + "*x", "more than 64 characters"),
        ("gamma(10**9)*x", "gamma beyond"),
        ("log(sin(exp(exp(30))))*x", "beyond what float64 represents at column 9"),
        ("max(exp(exp(exp(10))), 1)*x", "beyond what float64 represents"),
        ("(" * 300 + "x", "nested"),
        ("sin(" * 40 + "x" + ")" * 40, "nested more than 30 deep"),
        ("-" * 1900 + "x", "more than 1000 parts"),
        ("x" + "**x" * 60, "nested"),
        ("+".join(["sin(x)"] * 400), "longer than 2000"),
        ("x\n+ y", "invalid syntax"),
        ("\0", "null bytes|cannot be parsed"),
        ("max(" * 9 + "x" + ",1)" * 9, "maxima and minima"),
    ],
)
def test_bad_formulas_are_one_clear_line_at_once(text: str, words: str) -> None:
    parse("sin(x)")
    with must_end(), pytest.raises(ApproximationError, match=words) as caught:
        get_function(text)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize(
    "text, domain, words",
    [
        ("1/(x - 1)", (0, 2), "pole or branch point near x = 1;"),
        ("1/(x - 1)", (0, 1), "pole or branch point near x = 1;"),
        ("1/(x**2 - 2)", (0, 2), "pole or branch point near x = 1.41421"),
        ("tan(x)", (1, 2), "pole or branch point near x = 1.5708"),
        ("gamma(x)", (-0.5, 2), "pole or branch point near x = 0"),
        ("x*log(x)", (0, 1), "pole or branch point at 0"),
        ("log(sin(x))", (1, 4), "near x = 3.14159"),
        ("exp(-1/x**2)", (-1, 1), "near x = 0"),
        ("abs(x)/x", (-1, 1), "near x = 0"),
        ("max(x, x**2)/x", (-1, 1), "near x = 0"),
        ("atan(1/x)", (-1, 1), "near x = 0"),
        ("sqrt(x**2 - 1)", (-2, 2), "near x = -1"),
        ("1/x", (-1, 1), "pole or branch point at 0"),
        ("log(2*x - 3)", (1, 2), r"real only on \[1.5, inf\]"),
        ("sqrt(-1 - x**2)", (-1, 1), "not real anywhere"),
        ("(-1)**x", (0, 1), "not real anywhere"),
        ("log(log(x))", (0.5, 3), "not real near x = 0.5"),
        ("acosh(max(x, 0))", (-1, 3), "not real near x = -1"),
        ("exp(x) + x", (0, 800), "overflows"),
        ("x*exp(-x)", (1, 1), "single point"),
        ("x*exp(-x)", (1, 0), "reversed"),
        ("x*exp(-x)", (0, math.inf), "infinite bound"),
        ("x*exp(-x)", (math.nan, 1), "not a number"),
    ],
)
def test_bad_domains_are_one_clear_line(text: str, domain: tuple[float, float], words: str) -> None:
    with pytest.raises(ApproximationError, match=words) as caught:
        approximate(text, domain)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, domain",
    [
        ("1/(x - 1)", (-5, 0.999)),
        ("tan(x)", (2, 4)),
        ("sqrt(x)*exp(-x)", (0, 4)),
        ("sqrt(1 - x**2)", (-1, 1)),
        ("asin(x)*2 + x", (-1, 1)),
        ("abs(sin(x))", (-10, 10)),
        ("max(x, 0)", (-1, 1)),
        ("x/sin(x)", (-3, 3)),
        ("(1 - cos(x))/x**2", (-9, 9)),
        ("log(x)/(x - 1)", (0.1, 3)),
        ("1/(exp(x) - 1) - 1/x", (-4, 4)),
        ("1/(x**2 + 1e-30)", (-1, 1)),
        ("x*log(x)", (1e-300, 1)),
        ("sin(1000*x)*exp(x)", (-10, 10)),
    ],
)
def test_good_domains_are_accepted(text: str, domain: tuple[float, float]) -> None:
    function = get_function(text)
    with must_end():
        function.check_domain(Interval(*domain))
    assert np.isfinite(function.numpy(np.linspace(*domain, 101))).all()


@pytest.mark.parametrize(
    "text, name",
    [
        ("exp(x)", "exp"),
        ("e**t", "exp"),
        ("1/sqrt(x)", "rsqrt"),
        ("x**-0.5", "rsqrt"),
        ("sqrt(y)", "sqrt"),
        ("x**0.75", "pow(0.75)"),
        ("pow(x, 0.1)", "pow(0.1)"),
        ("1/x", "reciprocal"),
        ("exp(x)/(1 + exp(x))", "sigmoid"),
        ("(1 + tanh(x/2))/2", "sigmoid"),
        ("2*sigmoid(2*x) - 1", "tanh"),
        ("(1 + erf(x/sqrt(2)))/2", "normal_cdf"),
        ("x*(1 + erf(x/sqrt(2)))/2", "gelu"),
        ("x*sigmoid(x)", "silu"),
        ("log(1 + exp(x))", "softplus"),
        ("x*tanh(log(1 + exp(x)))", "mish"),
        ("-softplus(-x)", "log_sigmoid"),
        ("2**x", "exp2"),
        ("log(x)/log(2)", "log2"),
        ("1 - erf(x)", "erfc"),
        ("sin(x)/x", "sinc"),
        ("0.5*x*(1 + tanh(sqrt(2/pi)*(x + 0.044715*x**3)))", "gelu_tanh"),
    ],
)
def test_formulas_of_registered_functions_are_those(text: str, name: str) -> None:
    assert get_function(text) is get_function(name)


@pytest.mark.parametrize("text", ["log(x**2)/2", "2*exp(x)", "x**2", "exp(-x)", "tan(x)"])
def test_others_are_their_own_and_named_so_that_no_scheme_mistakes_them(text: str) -> None:
    function = get_function(text)
    assert not function.name.isidentifier()
    assert not function.name.startswith("pow(")
    assert get_function(function.name) == function


def test_a_formula_is_what_it_says_whatever_its_variable() -> None:
    function = get_function("t*exp(-t**2)")
    assert function == get_function("x * exp(-(x**2))")
    assert function != get_function("x*exp(-x**4)")
    assert hash(function) == hash(get_function("y*exp(-y**2)"))
    assert pickle.loads(pickle.dumps(function)) == function
    assert pickle.loads(pickle.dumps(function)).numpy([1.0]) == function.numpy([1.0])
    assert function.content_key == get_function("x*exp(-x**2)").content_key
    assert "e^{" in function.latex


def test_numbers_are_what_was_typed() -> None:
    assert parse("0.1*x").coeff(sympy.Symbol("x", real=True)) == sympy.Rational(1, 10)
    assert parse("x/3 + 1e-3").subs(sympy.Symbol("x", real=True), 3) == sympy.Rational(1001, 1000)
    assert parse("3.141592653589793238462643*x").coeff(sympy.Symbol("x", real=True)) == (
        sympy.Rational(3141592653589793238462643, 10**24)
    )


def test_sympy_expressions_are_taken() -> None:
    t = sympy.Symbol("t", positive=True)
    assert get_function(t * sympy.exp(-(t**2))) == get_function("x*exp(-x**2)")
    assert get_function(sympy.exp(t)) is get_function("exp")
    assert get_function(sympy.Float(0.1) * t**2) == get_function("0.1*x**2")
    assert approximate(t * sympy.exp(-(t**2)), (-1, 1), error=1e-3).error <= 1e-3  # type: ignore[arg-type]
    s = sympy.Symbol("s")
    for expression, words in [
        (s * t, "more than one variable"),
        (sympy.Integer(3), "no variable"),
        (sympy.I * s, "complex"),
        (sympy.Function("f")(s), "unknown function 'f'"),
        (sympy.zeta(s), "unknown function 'zeta'"),
        (sympy.Piecewise((s, s > 0), (0, True)), "Piecewise cannot be approximated"),
        (sympy.floor(s), "it jumps"),
        (s < 3, "no expression"),
        (object(), "no expression"),
        (7, "no expression"),
    ]:
        with pytest.raises(ApproximationError, match=words) as caught:
            get_function(expression)
        assert "\n" not in str(caught.value)
    assert from_sympy(s**2).free_symbols == parse("x**2").free_symbols


@pytest.mark.parametrize(
    "text",
    [
        "exp(gamma(gamma(((x)**(pi))**((0.25)**(x)))))",
        "sin(max(4*x, 0)**3)**gamma(softplus(x)**5 - x)",
        "0.25*tan((tan(2) - erf(2.75))**abs(gamma(x)))",
        "2**(2**(2**(2**x)))",
        "exp(exp(exp(exp(x**2))))",
        "(1 + x)**999*(1 - x)**999",
        "sqrt(1 + sqrt(1 + sqrt(1 + sqrt(1 + sqrt(1 + x)))))/(3 - sin(sin(sin(x))))",
    ],
)
def test_formulas_that_grow_beyond_all_bounds_do_not_hang(text: str) -> None:
    get_function("sin(x)*exp(x)")
    with must_end():
        function = get_function(text)
        function.numpy(np.linspace(-30, 30, 101))
        try:
            function.check_domain(Interval(0.25, 2.5))
        except ApproximationError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    "text, parity, centre, slope",
    [
        ("x*exp(-x**2)", "odd", None, None),
        ("(exp(x) - exp(-x))/3", "odd", None, None),
        ("sin(tanh(x))", "odd", None, None),
        ("log(1 - x) - log(1 + x)", "odd", None, None),
        ("exp(x)/(1 + exp(x)) - 0.5", "odd", None, None),
        ("x**100", "even", None, None),
        ("log(cosh(x))", "even", None, None),
        ("x*(exp(x) - 1)/(exp(x) + 1)", "even", None, None),
        ("abs(x)", "even", None, None),
        ("3*sigmoid(2*x)", None, Fraction(3, 2), None),
        ("x**3 + 1", None, Fraction(1), None),
        ("x/(1 + exp(-1.702*x))", None, None, Fraction(1, 2)),
        ("softplus(2*x)/2", None, None, Fraction(1, 2)),
        ("max(x, 0)", None, None, Fraction(1, 2)),
        ("(x + 1)**2", None, None, Fraction(2)),
        ("x + cos(x)", None, None, Fraction(1)),
        ("exp(2*x)", None, None, None),
        ("x**1.5", None, None, None),
        ("sigmoid(x)**2", None, None, None),
        # Almost odd, to 12 digits: not odd.
        ("tanh(x) + 1e-12*x**2", None, None, None),
    ],
)
def test_symmetries_are_found(
    text: str, parity: str | None, centre: Fraction | None, slope: Fraction | None
) -> None:
    function = get_function(text)
    assert (function.parity, function.centre_value, function.slope) == (parity, centre, slope)


def test_nothing_vanishes_that_does_not() -> None:
    x = sympy.Symbol("x", real=True)
    assert vanishes(sympy.tanh(x) - 2 / (1 + sympy.exp(-2 * x)) + 1)
    assert vanishes(sympy.log(1 + sympy.exp(x)) - sympy.log(1 + sympy.exp(-x)) - x)
    # True for positive x only.
    assert not vanishes(sympy.log(x**2) - 2 * sympy.log(x))
    assert not vanishes(sympy.sqrt(x**2) - x)
    assert not vanishes(sympy.exp(x) - 1)
