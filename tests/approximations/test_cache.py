"""The cache on disk: the same answer from another process, and never a wrong one."""

import subprocess
import sys
from pathlib import Path

import pytest

from odp.approximations import (
    Interval,
    Tolerance,
    approximate,
    cache,
    choose,
    get_function,
    get_target,
    pareto,
)
from odp.approximations.search import SearchProblem

PROBLEM = SearchProblem(
    get_function("tanh"), Interval(-2, 2), Tolerance(absolute=1e-4), get_target("float32")
)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ODP_CACHE", str(tmp_path))
    return tmp_path


def test_what_is_stored_is_what_is_loaded(room: Path) -> None:
    answer = approximate("tanh", (-2, 2), error=1e-4)
    cache.store(PROBLEM, "cheapest", [answer])
    again = cache.load(PROBLEM, "cheapest")
    assert again == [answer]
    assert again[0].expression is answer.expression


def test_a_program_on_integers_is_kept_whole(room: Path) -> None:
    target = get_target("fixed{scale=7}")
    answer = approximate("sigmoid", (-4, 4), target=target)
    assert answer.tolerance is not None
    problem = SearchProblem(answer.function, answer.domain, answer.tolerance, target)
    again = cache.load(problem, "cheapest")
    assert again == [answer]
    assert again[0].fixed_point == answer.fixed_point


def test_another_question_has_another_answer(room: Path) -> None:
    cache.store(PROBLEM, "cheapest", [approximate("tanh", (-2, 2), error=1e-4)])
    assert cache.load(PROBLEM, "sharpest") is None
    for other in (
        {"domain": Interval(-2, 2.5)},
        {"tolerance": Tolerance(absolute=1e-5)},
        {"tolerance": Tolerance(relative=1e-4)},
        {"target": get_target("mpc")},
        {"function": get_function("erf")},
        {"schemes": ("minimax",)},
        {"largest_cost": 9.0},
    ):
        from dataclasses import replace

        assert cache.load(replace(PROBLEM, **other), "cheapest") is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"expression": [["exec", [], "x", [0, 1]]]}']
)
def test_a_damaged_file_is_computed_anew(room: Path, text: str) -> None:
    cache.store(PROBLEM, "cheapest", [approximate("tanh", (-2, 2), error=1e-4)])
    (path,) = room.rglob("*.json")
    path.write_text(text)
    assert cache.load(PROBLEM, "cheapest") is None


@pytest.mark.parametrize("target", ["float32", "fixed"])
def test_the_sharpest_at_a_cost_is_kept_as_it_is(room: Path, target: str) -> None:
    first = approximate("tanh", (-2, 2), operations=5, target=target)
    choose._within.cache_clear()
    again = approximate("tanh", (-2, 2), operations=5, target=target)
    assert list(room.rglob("*.json"))
    assert again is not first
    assert again == first
    assert again.tolerance is None


def test_a_front_is_kept(room: Path) -> None:
    first = pareto("tanh", (-2, 2), error=1e-3)
    assert len(list(room.rglob("*.json"))) == 1
    seen: list[object] = []
    assert pareto("tanh", (-2, 2), error=1e-3, progress=seen.append) == first == seen


def test_no_room_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    monkeypatch.setenv("ODP_CACHE", str(blocked))
    answer = approximate("tanh", (-2.125, 2), error=1e-4)
    assert answer.absolute_error <= 1e-4
    monkeypatch.setenv("ODP_CACHE", "off")
    assert cache.directory() is None


def test_another_process_finds_the_answer(room: Path) -> None:
    code = (
        "from odp.approximations import approximate, search;"
        "print(repr(approximate('erf', (-1, 1), error=1e-3).expression))"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert first.stdout == second.stdout
    assert len(list(room.rglob("*.json"))) == 1
    assert not list(room.rglob("*.tmp"))
