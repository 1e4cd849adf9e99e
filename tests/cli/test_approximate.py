"""What `odp approximate` prints and writes when all is well."""

from __future__ import annotations

import io
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from rich.console import Console

from odp.approximations import SCHEMES, TARGETS, approximate, get_function, variable
from odp.approximations.error_analysis import rounding_error
from odp.cli.approximate_answer import Answer, Question, Row
from odp.cli.approximate_input import read_domain
from odp.cli.approximate_plot import draw
from odp.cli.approximate_table import formula_lines, render_answer
from odp.cli.terminal import Terminal

EXP = ("exp", "--domain", "-10:0", "--error", "1e-3")


@pytest.fixture
def odp(command: Callable[..., Any]) -> Callable[..., Any]:
    """Run `odp approximate`; it must succeed and say nothing on standard error."""

    def run(*arguments: str | Path) -> Any:
        done = command("approximate", *arguments, program="odp")
        assert (done.code, done.err) == (0, "")
        return done

    return run


def printed(answer: Answer, width: int, **options: Any) -> list[str]:
    """The lines of a table as a terminal of this width shows them."""
    console = Console(file=io.StringIO(), width=width, color_system=None, **options)
    render_answer(answer, console, with_front=True)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


# The table


def test_the_front_ends_with_the_marked_answer(odp: Callable[..., Any]) -> None:
    lines = odp(*EXP, "--target", "ezkl").out.splitlines()
    rows = [
        line for line in lines if re.search(r"[≤≈] \d\.\de-\d", line) and "absolute" not in line
    ]
    assert len(rows) > 2
    assert [line.lstrip().startswith("→") for line in rows] == [False] * (len(rows) - 1) + [True]
    errors = [float(re.findall(r"[≤≈] (\S+)", row)[0]) for row in rows]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] <= 1e-3 < errors[-2]
    assert lines[0].startswith("exp on [-10, 0]: absolute error 0.001, for ezkl")
    assert any(line.startswith("formula") for line in lines)
    assert any(line.startswith("stays sane on") for line in lines)


def test_without_the_front_only_the_answer_is_printed(odp: Callable[..., Any]) -> None:
    whole, answer = odp(*EXP, "--json"), odp(*EXP, "--json", "--no-front")
    assert json.loads(answer.out)["front"] is None
    assert json.loads(answer.out)["answer"] == json.loads(whole.out)["front"][-1]
    rows = [line for line in odp(*EXP, "--no-front").out.splitlines() if "≤" in line]
    assert len([row for row in rows if not row.startswith(("error", "in float32"))]) == 1


@pytest.mark.parametrize("width", [80, 100, 160])
def test_numbers_are_whole_at_every_width(width: int, exp_answer: Answer) -> None:
    lines = printed(exp_answer, width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    header = next(line for line in lines if "mul" in line)
    assert ("add" in header) == ("float32" in header) == (width >= 100)
    assert ("depth" in header) == (width >= 140)
    assert ("safe interval" in header) == (width >= 140)


def test_signs_that_a_terminal_without_unicode_has(exp_answer: Answer) -> None:
    console = Console(file=io.TextIOWrapper(io.BytesIO(), "ascii"), width=100)
    render_answer(exp_answer, console, with_front=True)


def test_what_is_proven_is_rounded_up(exp_answer: Answer) -> None:
    best = exp_answer.best.approximant
    assert best.certified_error is not None
    (shown,) = re.findall(r"→.*≤ (\S+)", "\n".join(printed(exp_answer, 120)))
    assert best.certified_error <= float(shown) <= 1.1 * best.certified_error


def test_the_formula_computes_what_the_expression_does(exp_answer: Answer) -> None:
    approximant = exp_answer.best.approximant
    x = np.linspace(-10, 0, 101, dtype=np.float32)
    names: dict[str, Any] = {"x": x}
    for line in formula_lines(approximant):
        exec(
            re.sub(r"(?<![\w.])(\d[\d.e+-]*)", r"float32(\1)", line), {"float32": np.float32}, names
        )
    np.testing.assert_array_equal(names["y"], approximant(x))


@pytest.fixture(scope="module")
def exp_answer() -> Answer:
    from odp.cli.approximate_answer import find_answer

    return find_answer(question("exp", "-10:0", error=1e-3))


def question(function: str, domain: str, **given: Any) -> Question:
    """A question as the command line asks it."""
    options: dict[str, Any] = dict.fromkeys(
        ("error", "operations", "relative", "parts", "histogram", "scheme")
    )
    options |= {"target": "float32", "settings": {}} | given
    return Question.of(function, read_domain(domain), **options)


# Options


@pytest.mark.parametrize("text", ["-10:0", "-10,0", "[-10, 0]", "-2*5:log(1)", "-1e1:0.0"])
def test_a_domain_may_be_negative_and_computed(text: str, odp: Callable[..., Any]) -> None:
    for given in (["--domain", text], [f"--domain={text}"], ["-d", text]):
        done = odp("exp", *given, "--error", "0.1", "--json", "--no-front")
        assert json.loads(done.out)["domain"] == [-10.0, 0.0]


FORMULA = ("exp", "--domain", "-8:0", "--formula", "(1+x/8)**8")


def test_a_formula_is_measured_beside_the_best_of_its_cost(odp: Callable[..., Any]) -> None:
    answer = json.loads(odp(*FORMULA, "--json").out)
    own = approximate("exp", (-8, 0), formula="(1+x/8)**8")
    best = answer["answer"]
    assert best["scheme"] == "formula" and best["error_kind"] == "certified"
    assert best["parameters"] == {"formula": "(1+x/8)**8"}
    assert best["certified_error"] == own.certified_error
    assert (best["multiplications"], best["divisions"]) == (3, 1)
    assert answer["front"] == [best] and answer["tolerance"] is None
    assert best["limit_ratio"] > 100
    lines = odp(*FORMULA).out.splitlines()
    assert lines[0] == "exp on [-8, 0]: the given formula, for float32"
    assert any("exp by the formula (1+x/8)**8" in line for line in lines)
    assert any("y = t3 * t3" in line for line in lines)


@pytest.mark.parametrize("language", ["python", "c", "latex", "triton", "onnx"])
def test_a_formula_is_emitted(language: str, tmp_path: Path, command: Callable[..., Any]) -> None:
    path = tmp_path / "out"
    done = command("approximate", *FORMULA, "--emit", language, "-o", path, program="odp")
    assert done.code == 0
    assert path.stat().st_size > 0


def test_a_formula_may_have_names_a_target_and_an_error(odp: Callable[..., Any]) -> None:
    formula = "y = 2/(1+x); y = y*(1.5 - 0.5*x*y*y); y"
    common = ("rsqrt", "-d", "0.5:2", "--json", "--formula", formula)
    for options in (("--error", "0.1"), ("--target", "fixed{scale=10}"), ("--atol", "0.1")):
        best = json.loads(odp(*common, *options).out)["answer"]
        assert best["parameters"] == {"formula": formula}
        assert best["error_kind"] == "certified"
    begins = json.loads(odp("exp", "-d", "-1:0", "--json", "--formula", "-x*x+1").out)
    assert begins["answer"]["additions"] == 2


def test_bounds_are_formulas() -> None:
    interval = read_domain("-pi:2**-3*pi")
    assert (interval.lo, interval.hi) == (-math.pi, math.pi / 8)


def test_operations_limit_the_cost(odp: Callable[..., Any]) -> None:
    answer = json.loads(odp("exp", "-d", "-10:0", "-n", "5", "--json").out)
    assert answer["tolerance"] is None and answer["operations"] == 5
    assert [row["cost"] for row in answer["front"]] == sorted(r["cost"] for r in answer["front"])
    assert answer["answer"]["cost"] <= 5
    assert answer["answer"]["certified_error"] <= 4.5e-4


def test_kinds_of_error(odp: Callable[..., Any]) -> None:
    relative = json.loads(odp(*EXP, "--relative", "--json").out)
    assert relative["relative"] is True and relative["answer"]["relative_error"] <= 1e-3
    absolute = json.loads(odp("sqrt", "-d", "0.1:2", "-e", "1e-3", "--absolute", "--json").out)
    assert absolute["relative"] is False and absolute["answer"]["absolute_error"] <= 1e-3


def test_an_error_of_several_parts(odp: Callable[..., Any]) -> None:
    arguments = ("exp", "-d", "-4:1", "--atol", "1e-4", "--rtol", "1e-3", "--ulps", "2")
    answer = json.loads(odp(*arguments, "--json").out)
    parts = {"absolute": 1e-4, "relative": 1e-3, "ulps": 2.0, "weighted": False}
    assert answer["tolerance"] == parts
    value = compiled(answer["answer"]["python"])
    x = np.linspace(-4, 1, 2001)
    exact = np.exp(x)
    allowed = 1e-4 + 1e-3 * exact + 2 * np.spacing(exact.astype(np.float32))
    assert (np.abs(value(x) - exact) <= allowed).all()
    assert "absolute error" in odp(*arguments).out


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_rare_inputs_may_have_a_larger_error(
    ending: str, tmp_path: Path, odp: Callable[..., Any]
) -> None:
    inputs = np.random.default_rng(3).normal(size=(40, 50))
    path = tmp_path / f"inputs.{ending}"
    np.save(path, inputs) if ending == "npy" else np.savez(path, inputs)
    arguments = ("sigmoid", "-d", "-8:8", "-e", "1e-3", "--json")
    weighted = json.loads(odp(*arguments, "--histogram", path).out)
    plain = json.loads(odp(*arguments).out)
    assert weighted["tolerance"]["weighted"] is True
    assert weighted["answer"]["cost"] <= plain["answer"]["cost"]
    value = compiled(weighted["answer"]["python"])
    centre, tails = np.linspace(-0.3, 0.3, 99), np.linspace(-8, 8, 999)
    assert np.abs(value(centre) - get_function("sigmoid").numpy(centre)).max() <= 1e-3
    assert np.abs(value(tails) - get_function("sigmoid").numpy(tails)).max() <= 1e-2


def test_a_scheme_with_its_parameters(odp: Callable[..., Any]) -> None:
    arguments = ("exp", "-d", "-1:0", "--scheme", "minimax", "--set", "degree=4", "--json")
    answer = json.loads(odp(*arguments).out)
    assert answer["tolerance"] is None
    assert (answer["answer"]["scheme"], answer["answer"]["parameters"]["degree"]) == ("minimax", 4)
    front = json.loads(odp(*EXP, "--scheme", "chebyshev", "--json").out)["front"]
    assert {row["scheme"] for row in front} == {"chebyshev"}


def test_targets_decide(odp: Callable[..., Any]) -> None:
    for target in ("float32", "fhe"):
        done = odp("sigmoid", "-d", "-8:8", "-e", "1e-2", "-t", target, "--json", "--no-front")
        answer = json.loads(done.out)["answer"]
        assert answer["target"] == target
        assert (answer["divisions"] == 0) == (target == "fhe")


def test_formulas(odp: Callable[..., Any]) -> None:
    done = odp("x*exp(-x**2)", "-d", "-3:3", "-e", "1e-3", "--json", "--no-front")
    value = compiled(json.loads(done.out)["answer"]["python"])
    x = np.linspace(-3, 3, 999)
    assert np.abs(value(x) - x * np.exp(-(x**2))).max() <= 1e-3


# JSON

ROW_KEYS = {
    *("function", "domain", "scheme", "target", "parameters", "description", "python"),
    *("absolute_error", "relative_error", "error_kind", "float32_error", "certified_error"),
    *("safe_interval", "relative", "multiplications", "constant_multiplications", "divisions"),
    *("additions", "depth", "cost", "limit", "fixed_point", "limit_ratio"),
}


def test_json_has_the_same_keys_always(odp: Callable[..., Any]) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    for arguments in (
        EXP,
        ("sin", "-d", "-1:1", "-n", "4"),
        ("log", "-d", "2:4", "--ulps", "99"),
    ):
        answer = json.loads(odp(*arguments, "--json").out, parse_constant=refuse)
        assert set(answer) == {
            *("function", "domain", "target", "relative", "tolerance", "operations"),
            *("answer", "front"),
        }
        assert answer["front"][-1] == answer["answer"]
        for row in answer["front"]:
            assert set(row) >= ROW_KEYS


def test_json_has_no_infinity(exp_answer: Answer) -> None:
    from dataclasses import replace

    row = exp_answer.best
    overflowing = Row(replace(row.approximant, float32_error=math.inf), row.cost, None)
    answer = Answer(exp_answer.question, (overflowing,)).to_dict(with_front=True)
    json.dumps(answer, allow_nan=False)
    assert answer["answer"]["float32_error"] is None


def test_the_lists(odp: Callable[..., Any]) -> None:
    text = odp("--list").out
    known = json.loads(odp("--list", "--json").out)
    assert {row["name"] for row in known["schemes"]} == set(SCHEMES)
    assert {row["name"] for row in known["targets"]} == set(TARGETS)
    for kind in ("functions", "schemes", "targets"):
        assert all(row["name"] in text for row in known[kind])
    # What the list calls a function or a scheme is one.
    for row in known["functions"]:
        assert get_function(row["name"]).name == row["name"]


# Emitted text


def compiled(source: str) -> Callable[[Any], Any]:
    """The one function that Python source defines."""
    names: dict[str, Any] = {}
    exec(source, names)
    functions = [value for name, value in names.items() if name != "__builtins__"]
    assert len(functions) == 1
    return functions[0]  # type: ignore[no-any-return]


def test_emitted_python_is_all_that_is_printed(odp: Callable[..., Any]) -> None:
    done = odp("sigmoid", "-d", "-8:8", "-e", "1e-4", "--emit", "python", "--name", "gate")
    value = compiled(done.out)
    assert value.__name__ == "gate"
    x = np.linspace(-8, 8, 4001)
    assert np.abs(value(x) - get_function("sigmoid").numpy(x)).max() <= 1e-4


def test_integers_are_emitted_for_fixed_point(tmp_path: Path, odp: Callable[..., Any]) -> None:
    arguments = ("sigmoid", "-d", "-8:8", "-e", "1e-2", "-t", "fixed{scale=7}")
    row = json.loads(odp(*arguments, "--json", "--no-front").out)["answer"]
    assert (row["fixed_point"]["scale"], row["fixed_point"]["inputs"]) == (7, 2049)
    program = compiled(odp(*arguments, "--emit", "python").out)
    n = np.arange(-8 * 128, 8 * 128 + 1)
    values = np.array([program(int(x)) for x in n])
    assert all(isinstance(program(int(x)), int) for x in n[:3])
    errors = np.abs(values / 128 - get_function("sigmoid").numpy(n / 128))
    assert errors.max() <= row["certified_error"] <= 1e-2
    assert "int32_t sigmoid(int32_t x)" in odp(*arguments, "--emit", "c").out
    shown = odp(*arguments, "--plot", tmp_path / "fixed.png").out
    assert "for fixed{scale=7}" in shown and "2,049 inputs" in shown


@pytest.mark.parametrize(
    ("language", "sign"),
    [("c", "float gate(float x)"), ("triton", "@triton.jit\ndef gate(x)"), ("latex", "\\frac")],
)
def test_emitted_text_is_written_whole(
    language: str, sign: str, tmp_path: Path, odp: Callable[..., Any]
) -> None:
    arguments = ["sigmoid", "-d", "-8:8", "-e", "1e-3", "--emit", language]
    arguments += [] if language == "latex" else ["--name", "gate"]
    text = odp(*arguments).out
    assert sign in text
    path = tmp_path / "gate.txt"
    assert odp(*arguments, "-o", path).out.rstrip().endswith(f"wrote {path}")
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("shape", [None, "1,16", "batch,3,5"])
@pytest.mark.parametrize("function", ["sigmoid", "rsqrt"])
def test_the_emitted_model_is_the_expression_and_keeps_its_bound(
    function: str, shape: str | None, tmp_path: Path, odp: Callable[..., Any]
) -> None:
    domain = {"sigmoid": (-8.0, 8.0), "rsqrt": (0.125, 8.0)}[function]
    path = tmp_path / "model.onnx"
    arguments = [function, "-d", f"{domain[0]}:{domain[1]}", "-e", "1e-4"]
    shaped = [] if shape is None else ["--shape", shape]
    done = odp(*arguments, "--emit", "onnx", "-o", path, *shaped, "--json", "--no-front")
    answer = json.loads(done.out)["answer"]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import] == [12]
    assert {node.op_type for node in model.graph.node} <= {"Add", "Sub", "Mul", "Div"}
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["odp.function"] == function
    assert float(metadata["odp.error"]) == answer["certified_error"]
    extents = {"1,16": (1, 16), "batch,3,5": (400, 3, 5)}.get(shape or "", (4096,))
    x = np.linspace(*domain, math.prod(extents)).astype(np.float32).clip(*domain).reshape(extents)
    (y,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})
    assert y.dtype == np.float32 and y.shape == x.shape
    np.testing.assert_array_equal(y, compiled(answer["python"])(x))

    exact = get_function(function).numpy(x)
    scale = exact if answer["relative"] else np.ones_like(exact)
    # The emitted source, applied to a variable, is the expression again.
    expression = compiled(answer["python"])(variable("x"))
    rounding = rounding_error(expression, x.ravel().astype(float)).reshape(extents)
    assert (np.abs(y - exact) <= answer["certified_error"] * scale + rounding).all()


def test_a_model_may_be_piped(tmp_path: Path) -> None:
    script = "from odp.cli import main\nmain()"
    arguments = ["approximate", "exp", "-d", "-1:0", "-e", "1e-2", "--emit", "onnx"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], check=True, capture_output=True, timeout=60
    )
    assert done.stderr == b""
    onnx.checker.check_model(onnx.load_from_string(done.stdout), full_check=True)


# Pictures


@pytest.mark.parametrize(
    ("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("PDF", b"%PDF")]
)
def test_a_picture_is_written(
    ending: str, start: bytes, tmp_path: Path, odp: Callable[..., Any]
) -> None:
    path = tmp_path / f"error.{ending}"
    assert f"wrote {path}" in odp(*EXP, "--plot", path).out
    assert path.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_says_what_it_shows(tmp_path: Path) -> None:
    approximant = approximate("rsqrt", (2**-10, 2**6), error=1e-2)
    draw(approximant, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "rsqrt on [0.000976562, 64]" in text and approximant.description in text
    draw(approximant, tmp_path / "b.svg")
    assert (tmp_path / "b.svg").read_text() == text


def test_pictures_of_what_is_hard_to_draw(tmp_path: Path) -> None:
    for number, (function, domain) in enumerate(
        [("log", (1e-3, 1e-2)), ("tan", (-1.5, 1.5)), ("reciprocal", (-9, -1)), ("asin", (-1, 1))]
    ):
        draw(approximate(function, domain, error=0.3), tmp_path / f"{number}.png")
    draw(approximate("exp", (-1e-3, 0), error=1e-1), tmp_path / "constant.png")


# Progress, and readers that go away


def test_progress_waits_a_second() -> None:
    def shown(seconds: float, *, terminal: bool = True) -> str:
        view = Terminal()
        view.errors = Console(file=io.StringIO(), force_terminal=terminal, width=80)
        with view.waiting("Searching for exp") as say:
            say("minimax degree 3")
            time.sleep(seconds)
        assert isinstance(view.errors.file, io.StringIO)
        return view.errors.file.getvalue()

    assert shown(0.05) == ""
    assert "Searching for exp: minimax degree 3" in shown(1.2)
    assert shown(1.2, terminal=False) == ""


def test_help_is_quick_to_import() -> None:
    code = (
        "import sys\nfrom odp.cli import main\n"
        "try:\n    main(['approximate', '--help'])\nexcept SystemExit as stop:\n"
        "    assert stop.code == 0\n"
        "heavy = {'numpy', 'scipy', 'sympy', 'mpmath', 'matplotlib', 'onnx', 'torch', 'flint'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "odp approximate exp --domain -10:0" in done.stdout
