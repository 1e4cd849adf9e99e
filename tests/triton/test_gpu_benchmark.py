"""benchmarks/gpu_operators.py where there is no GPU: its dry run, and the line that says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("triton")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CONTENDERS = {"eager", "compiled", "ours"}
# Nothing but float32 on a few numbers: a wrong reference, layout or gradient is far off.
LARGEST_ERROR = 2e-5


def run(*options: str, interpret: bool = False) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "120"}
    environment.pop("TRITON_INTERPRET", None)
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, str(BENCHMARKS / "gpu_operators.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def dry_run(folder: Path, *options: str, interpret: bool = False) -> dict[str, Any]:
    output = folder / "found.json"
    done = run(
        "--dry-run", "--dtype", "float32", "--output", str(output), *options, interpret=interpret
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def check(rows: list[dict[str, Any]]) -> None:
    """What every row has, and that the contenders computed the same thing."""
    for row in rows:
        name = f"{row['operator']} {row['direction']}"
        assert row["bytes"] > 0 and row["basis"] == "call"
        assert row["copy_of_as_many_bytes"]["median"] > 0
        measured = row["contenders"]
        for contender in measured.values():
            assert "failure" not in contender, f"{name}: {contender}"
            assert contender["error"]["largest"] < LARGEST_ERROR, name
            assert contender["call"]["low"] <= contender["microseconds"]
            assert contender["gigabytes_per_second"] > 0 and contender["share_of_copy"] > 0
        best = measured[row["best_native"]]["microseconds"]
        ratio = measured["ours"]["microseconds"] / best
        assert row["ratio_to_best_native"] == pytest.approx(ratio)


def test_without_a_gpu_one_line_says_that_nothing_was_measured(tmp_path: Path) -> None:
    done = run("--output", str(tmp_path / "found.json"))
    assert done.returncode == 0
    assert done.stdout == (
        "no CUDA device: nothing measured; instruction counts: "
        "tests/triton/instruction_budgets.json\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("dry_run")
    return dry_run(folder, "--variants"), folder


@pytest.mark.slow
def test_a_dry_run_measures_every_operator_both_ways(whole: tuple[dict[str, Any], Path]) -> None:
    from odp.kernels.registry import OPERATORS

    tree, folder = whole
    assert tree["dry_run"] and tree["demands"] == tree["skipped"] == tree["failures"] == []
    check(tree["rows"])
    rows = {(row["operator"], row["direction"]): row for row in tree["rows"]}
    for name, operator in OPERATORS.items():
        assert set(rows[name, "forward"]["contenders"]) >= CONTENDERS
        assert ((name, "backward") in rows) == (operator.backward is not None)
    for name in ("rope", "attention", "attention_causal"):
        assert {(name, "forward"), (name, "backward")} <= set(rows)
    assert "ours, exact gradients" in rows["silu", "backward"]["contenders"]
    pictures = {path.name for path in folder.iterdir()}
    assert {"found_forward.svg", "found_backward.png"} <= pictures or not _has_matplotlib()


@pytest.mark.slow
def test_a_dry_run_in_the_interpreter_runs_kernels(tmp_path: Path) -> None:
    names = ("silu", "rms_norm", "rope", "cross_entropy", "causal_softmax")
    options = [word for name in names for word in ("--only", name)]
    tree = dry_run(tmp_path, *options, interpret=True)
    assert {row["operator"] for row in tree["rows"]} == set(names)
    assert len(tree["rows"]) == 2 * len(names)
    check(tree["rows"])


@pytest.mark.slow
def test_a_dry_run_compares_a_rewritten_model(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    tree = dry_run(tmp_path, "--only", "silu", "--model")
    assert "failure" not in tree["model"] and len(tree["model"]["rows"]) == 1
    (row,) = tree["model"]["rows"]
    assert abs(row["difference"]["kl"]) < 1e-6 and row["difference"]["same_top1"] > 0.9
    for what in ("forward", "training step"):
        assert row[what]["ratio"] > 0 and row[what]["original"]["tokens_per_second"] > 0


@pytest.mark.slow
def test_each_tensor_is_counted_once(whole: tuple[dict[str, Any], Path]) -> None:
    found = {(row["operator"], row["direction"]): row["bytes"] for row in whole[0]["rows"]}
    tensor, weight = 4 * 96 * 4, 96 * 4
    assert found["swiglu", "forward"] == 3 * tensor
    assert found["swiglu", "backward"] == 5 * tensor
    assert found["softmax", "backward"] == 3 * tensor
    assert found["add_rms_norm", "forward"] == 4 * tensor + weight
    # The gradients of both results and the sum come in; three gradients and the weight go along.
    assert found["add_rms_norm", "backward"] == 5 * tensor + 2 * weight
    q, table = 2 * 2 * 8 * 16 * 4, 8 * 16 * 4
    assert found["rope", "forward"] == found["rope", "backward"] == 4 * q + 2 * table


@pytest.mark.slow
def test_what_there_is_no_time_for_is_named(tmp_path: Path) -> None:
    tree = dry_run(tmp_path, "--only", "silu", "--seconds", "0")
    assert tree["rows"] == [] and tree["skipped"] == ["silu 4x96 float32"]


def test_another_operator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu_operators import main  # type: ignore[import-not-found]

    done = CliRunner().invoke(main, ["--dry-run", "--only", "tanh"])
    assert done.exit_code == 2 and "no operator tanh" in done.output


def test_demands_are_met_or_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu_demands import verdicts  # type: ignore[import-not-found]

    def row(direction: str, ours: float, share: float) -> dict[str, Any]:
        times = {"eager": 1.2, "compiled": 1.0, "ours": ours}
        return {
            "operator": "gelu",
            "size": [2, 3],
            "direction": direction,
            "contenders": {
                n: {"microseconds": t, "share_of_copy": share} for n, t in times.items()
            },
            "ratio_to_best_native": ours,
        }

    rows = [row("forward", 1.0, 0.89), row("backward", 1.1, 0.95)]
    found = {
        (one["direction"], one["number"]): (one["value"], one["met"])
        for one in verdicts(rows, {"gelu": [(2, 3)]}, ["gelu"])
    }
    assert found == {
        ("forward", "ratio"): (1.0, True),
        ("backward", "ratio"): (1.1, False),
        ("forward", "share of copy"): (0.89, False),
        ("forward", "ratio to eager"): (1.0 / 1.2, True),
    }
    rows[0]["contenders"]["ours"] = {"failure": "out of memory"}
    missing = list(verdicts(rows, {"gelu": [(2, 3)]}, ["gelu"]))
    assert {(one["value"], one["met"]) for one in missing if one["direction"] == "forward"} == {
        (None, False)
    }


def _has_matplotlib() -> bool:
    import importlib.util

    return importlib.util.find_spec("matplotlib") is not None
