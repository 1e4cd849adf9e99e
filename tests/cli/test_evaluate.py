"""`odp calibrate`, `odp evaluate` and `odp sensitivity` on a tiny language model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .language_model_folder import save_model, save_text

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language-model")
    save_model(folder / "model")
    save_text(folder / "calibration.txt", 200, seed=1)
    save_text(folder / "text.txt", 150, seed=2)
    save_text(folder / "short.txt", 5, seed=3)
    (folder / "empty.txt").write_text("")
    (folder / "prompts.txt").write_text("w1 w2 w3\n\nw4 w5\n")
    return folder


@pytest.fixture(scope="module")
def ranges(folder: Path) -> Path:
    from odp.cli.entry import main

    target = folder / "ranges.json"
    text = str(folder / "calibration.txt")
    options = ["--calibrate", text, "--calibrate-context", "32", "--dtype", "float32"]
    with pytest.raises(SystemExit) as done:
        main(["calibrate", str(folder / "model"), *options, "-o", str(target), "-q"])
    assert done.value.code == 0
    return target


def test_ranges_name_the_place_of_every_site(ranges: Path) -> None:
    content = json.loads(ranges.read_text())
    places = {(s["module"], s["function"]) for s in content["sites"].values()}
    norms = {
        f"model.layers.{i}.{n}layernorm" for i in (0, 1) for n in ("input_", "post_attention_")
    }
    assert places == (
        {(norm, "rsqrt") for norm in {*norms, "model.norm"}}
        | {(f"model.layers.{i}.self_attn", "exp") for i in (0, 1)}
        | {(f"model.layers.{i}.mlp.act_fn", "sigmoid") for i in (0, 1)}
    )
    assert content["source"] == "calibration.txt" and content["samples"] == 6
    rsqrt = next(s for s in content["sites"].values() if s["function"] == "rsqrt")
    assert 0 < rsqrt["low"] < rsqrt["high"] and len(rsqrt["quantiles"]) == 65


def test_calibrate_prints_a_table(folder: Path, command: Command, tmp_path: Path) -> None:
    done = command(
        *("calibrate", folder / "model", "--calibrate", folder / "calibration.txt"),
        *("--calibrate-context", "32", "--samples", "2", "-o", tmp_path / "r.json"),
        program="odp",
    )
    assert done.code == 0 and "model.layers.0.self_attn" in done.out.replace("\n", "")
    assert (tmp_path / "r.json").is_file()


def test_a_rewritten_model_predicts_what_the_original_does(
    folder: Path, ranges: Path, command: Command
) -> None:
    done = command(
        *("evaluate", folder / "model", "--text", folder / "text.txt", "--calibrate", ranges),
        *("--context", "32", "--prompts", folder / "prompts.txt", "--new-tokens", "5"),
        *("--dtype", "float32", "--no-speed", "--json"),
        program="odp",
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    (variant,) = found["variants"]
    assert variant["name"] == "rational"
    difference = variant["difference"]
    # Quadratic in the error: 1e-5 squared, times what the softmax makes of some dozens of sites.
    assert 0 < difference["mean_kl"] < 1e-8
    assert abs(difference["perplexity_change"]) < 1e-4
    assert len(variant["layer_errors"]) == 2
    assert len(found["generations"]) == 2
    for generation in found["generations"]:
        assert generation["answers"]["rational"]["first_difference"] is None


def test_the_choices_of_the_report_stand_beside_ours(
    folder: Path, ranges: Path, command: Command
) -> None:
    done = command(
        *("evaluate", folder / "model", "--text", folder / "text.txt", "--calibrate", ranges),
        *("--passes", "rsqrt,exp,rope,sigmoid", "--variant", "report", "--context", "32"),
        *("--dtype", "float32", "--no-speed", "--no-layers", "--json"),
        program="odp",
    )
    assert done.code == 0, done.err
    ours, theirs = (v["difference"]["mean_kl"] for v in json.loads(done.out)["variants"])
    assert theirs > 1e4 * ours


def test_the_table_names_every_variant(folder: Path, ranges: Path, command: Command) -> None:
    done = command(
        *("evaluate", folder / "model", "--text", folder / "text.txt", "--calibrate", ranges),
        *("--variant", "coarse=all{error=1e-2}", "--context", "32", "--no-speed"),
        program="odp",
    )
    assert done.code == 0 and "coarse" in done.out and "rational" not in done.out
    assert "coarse: replaced 5 norms, 2 softmaxes, 2 activations, 1 rotary embedding" in done.err


def test_a_report_is_written_whole(
    folder: Path, ranges: Path, command: Command, tmp_path: Path
) -> None:
    report = tmp_path / "evaluation.json"
    done = command(
        *("evaluate", folder / "model", "--text", folder / "text.txt", "--calibrate", ranges),
        *("--context", "32", "--no-speed", "--no-layers", "--report", report, "--quiet"),
        program="odp",
    )
    assert done.code == 0 and done.out == ""
    assert json.loads(report.read_text())["variants"][0]["difference"]["top1"] == 1.0


def test_sensitivities_decide_where_operations_go(folder: Path, command: Command) -> None:
    options = ("--calibrate", folder / "calibration.txt", "--calibrate-context", "32")
    done = command(
        *("sensitivity", folder / "model", *options, "--samples", "2"),
        *("--dtype", "float32", "--operations", "4000", "--json"),
        program="odp",
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert len(found["sites"]) == 9 and found["tokens"] == 64
    coefficients = [site["coefficient"] for site in found["sites"]]
    assert coefficients == sorted(coefficients, reverse=True)
    kls = [price["predicted_kl"] for price in found["uniform"]]
    assert kls == sorted(kls, reverse=True)
    assert len(found["allocated"]) == 9
    assert found["predicted_kl"] <= found["best_uniform"]["predicted_kl"]
    # The prediction is quadratic and additive: right within an order of magnitude, or useless.
    assert found["predicted_kl"] / 10 < found["measured_kl"] < found["predicted_kl"] * 10


def test_sensitivity_prints_tables(folder: Path, command: Command) -> None:
    done = command(
        *("sensitivity", folder / "model", "--calibrate", folder / "calibration.txt"),
        *("--calibrate-context", "32", "--samples", "1", "--top", "3"),
        program="odp",
    )
    assert done.code == 0
    assert "and 6 sites that matter less" in done.out
    assert "One error for all sites" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "MODEL"), "give a --text to score, or a --task"),
        (("evaluate", "MODEL", "--text", "missing.txt"), "text 'missing.txt' does not exist"),
        (("evaluate", "nowhere", "--text", "TEXT"), "there is no model at 'nowhere'"),
        (("evaluate", "MODEL", "--text", "EMPTY"), "empty"),
        (("evaluate", "MODEL", "--text", "SHORT", "--context", "32"), "5 tokens"),
        (("evaluate", "MODEL", "--text", "TEXT", "--calibrate", "EMPTY"), "is empty"),
        (
            ("evaluate", "MODEL", "--text", "TEXT", "--calibrate", "SHORT"),
            "has 5 tokens, and one window needs 64",
        ),
        (
            ("evaluate", "MODEL", "--text", "TEXT", "--calibrate", "nowhere.json"),
            "cannot read ranges 'nowhere.json'",
        ),
        (
            ("evaluate", "MODEL", "--text", "TEXT", "--calibrate", "TEXT.json"),
            "no file of ranges",
        ),
        (("evaluate", "MODEL", "--text", "TEXT", "--variant", "x"), "write NAME=PASSES"),
        (
            ("evaluate", "MODEL", "--text", "TEXT", "--variant", "a=exp", "--variant", "a=exp"),
            "two variants are named 'a'",
        ),
        (("evaluate", "MODEL", "--text", "TEXT", "--passes", "nothing"), "unknown pass"),
        (("evaluate", "MODEL", "--text", "TEXT", "--dtype", "float7"), "float7"),
        (("calibrate", "MODEL"), "give at least one text"),
        (("calibrate", "MODEL", "--calibrate", "EMPTY"), "is empty"),
        (("sensitivity", "MODEL"), "give at least one text"),
        (
            ("sensitivity", "MODEL", "--calibrate", "TEXT", "--coarse", "2"),
            "coarse must be an error between 0 and 1",
        ),
        (
            (
                *("sensitivity", "MODEL", "--calibrate", "TEXT", "--calibrate-context", "32"),
                *("--samples", "1", "--operations", "10"),
            ),
            "a budget of 10 operations a token is too small",
        ),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.json").write_text("{}")
    known = {
        "MODEL": folder / "model",
        "TEXT": folder / "text.txt",
        "SHORT": folder / "short.txt",
        "EMPTY": folder / "empty.txt",
        "TEXT.json": tmp_path / "text.json",
    }
    done = command(*(known.get(a, a) for a in arguments), program="odp")
    assert message in done.error()
