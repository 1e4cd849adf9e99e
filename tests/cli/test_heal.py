"""`odp heal`: from a model and texts to a healed model and its controls, on a tiny Llama."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from .language_model_folder import save_model, save_text

Command = Callable[..., Any]

SETTINGS = (
    *("--error", "0.1", "--passes", "rsqrt,sigmoid", "--calibrate-context", "32", "--samples", "2"),
    *("--train-context", "32", "--steps", "6", "--batch-size", "2", "--rank", "2"),
    *("--dtype", "float32", "--device", "cpu", "--checkpoint-every", "2"),
)
SCORING = ("--context", "32", "--new-tokens", "4", "--max-tokens", "100")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heal")
    save_model(folder / "model")
    save_model(folder / "another", seed=1)
    save_text(folder / "train.txt", 400, seed=1)
    save_text(folder / "other.txt", 150, seed=2)
    save_text(folder / "third.txt", 150, seed=4)
    save_text(folder / "short.txt", 5, seed=3)
    (folder / "copy.txt").write_text((folder / "train.txt").read_text())
    (folder / "full").mkdir()
    (folder / "full" / "something").write_text("of somebody")
    return folder


def arguments(folder: Path, output: Path, *more: str | Path) -> list[str | Path]:
    texts = ("--text", folder / "train.txt", "--held-out", folder / "other.txt")
    return ["heal", folder / "model", *texts, *SETTINGS, *SCORING, "-o", output, *more]


@pytest.fixture(scope="module")
def healed(folder: Path) -> Path:
    from odp.cli.entry import main

    output = folder / "healed"
    with pytest.raises(SystemExit) as done:
        main([str(a) for a in arguments(folder, output, "--quiet")])
    assert done.value.code == 0
    return output


def test_the_folder_holds_all_of_it(healed: Path) -> None:
    record = json.loads((healed / "heal.json").read_text())
    assert record["passes"] == "rsqrt,sigmoid" and record["settings"]["steps"] == 6
    controls = json.loads((healed / "controls.json").read_text())
    names = [variant["name"] for variant in controls["evaluation"]["variants"]]
    assert names == ["original + LoRA", "surgery", "surgery + LoRA"]
    assert (controls["training"], controls["held_out"]) == (["train.txt"], ["other.txt"])
    for arm in ("surgery", "control"):
        assert len((healed / arm / "log.jsonl").read_text().splitlines()) == 6
        assert len(list((healed / arm / "checkpoints").glob("*.json"))) == 2
        assert (healed / arm / "adapter" / "adapter_model.safetensors").is_file()


def test_a_finished_healing_is_shown_again(folder: Path, healed: Path, command: Command) -> None:
    picture = folder / "losses.png"
    done = command(*arguments(folder, healed, "--resume", "--plot", picture), program="odp")
    assert done.code == 0, done.err
    for word in (
        "original + LoRA",
        "surgery + LoRA",
        "held out",
        "distinct-3",
        "surgery: went on after step 6",
    ):
        assert word in done.out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_damaged_checkpoint_is_reported_and_the_control_can_be_left_out(
    folder: Path, healed: Path, command: Command, tmp_path: Path
) -> None:
    import shutil

    copied = tmp_path / "copied"
    shutil.copytree(healed, copied)
    file = copied / "surgery" / "checkpoints" / "step-00000006.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    done = command(*arguments(folder, copied, "--resume", "--no-control", "--json"), program="odp")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["trained"]["resumed_at"] == 4 and found["trained"]["steps"] == 6
    assert found["control"] is None
    assert "step-00000006.json' is damaged" in found["warnings"][-1]
    # The control that was trained before has no row, either.
    assert [v["name"] for v in found["controls"]["evaluation"]["variants"]] == [
        "surgery",
        "surgery + LoRA",
    ]


def test_the_healed_model_is_loaded_again(folder: Path, healed: Path) -> None:
    import odp
    from odp.evaluation import load_language_model

    loaded = load_language_model(folder / "model", dtype="float32")
    model = odp.load_healed(loaded.model, healed, loaded.tokenizer)
    controls = json.loads((healed / "controls.json").read_text())
    answers = controls["evaluation"]["generations"][0]
    prompt = loaded.tokenizer(answers["prompt"], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        found = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=4,
            do_sample=False,
            pad_token_id=0,
        )
    tokens = answers["answers"]["surgery + LoRA"]["tokens"]
    assert found[0, prompt.shape[1] :].tolist() == tokens
    other = load_language_model(folder / "another", dtype="float32")
    with pytest.raises(odp.OdpError, match="belongs to another LlamaForCausalLM"):
        odp.load_healed(other.model, healed)


def test_the_losses_are_drawn(healed: Path, command: Command, tmp_path: Path) -> None:
    done = command("heal", "plot", healed, "-o", tmp_path / "losses.svg", program="odp")
    assert done.code == 0 and (tmp_path / "losses.svg").is_file()


def test_help_is_that_of_the_healing(command: Command) -> None:
    done = command("heal", "--help", program="odp")
    assert done.code == 0 and "--held-out" in done.out and "odp heal plot" in done.out


# What is found before anything is rewritten; later options win.
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--text", "SHORT", "--train-context", "64"], "does not exist"),
        (["--rank", "0"], "rank must be at least 1, not 0"),
        (["--preset", "best"], "there is no preset 'best'"),
        (["--precision", "int4"], "dtype is float32, bfloat16, float16"),
        (["--kl", "0"], "all losses have weight 0"),
        (["--train-context", "1000"], "the model knows only 64 positions"),
        (["--held-out", "COPY"], "'copy.txt' is held out and trained on"),
        (["--held-out", "SHORT"], "text 'short.txt' has 5 tokens"),
        (["--new-tokens", "60"], "more than the 64 positions"),
        (["--plot", "losses.gif"], "must end in .png, .svg, .pdf"),
        (["--output", "FULL"], "exists already; give the name of a new folder"),
        (["--output", "HEALED"], "exists already; --resume goes on"),
        (["--output", "nowhere/deep"], "cannot make folder 'nowhere/deep'"),
        (["--output", "nowhere", "--resume"], "there is no healing to resume in 'nowhere'"),
        (["--output", "HEALED", "--resume", "--steps", "9"], "begun with steps 6, not 9"),
        (["--output", "HEALED", "--resume", "--text", "OTHER"], "begun with texts"),
        (["--output", "HEALED", "--resume", "--passes", "exp"], "begun with passes rsqrt,sigmoid"),
    ],
)
def test_bad_input_is_one_line(
    more: list[str],
    message: str,
    folder: Path,
    healed: Path,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    known: dict[str, str | Path] = {
        "SHORT": folder / "short.txt",
        "COPY": folder / "copy.txt",
        "OTHER": folder / "third.txt",
        "FULL": folder / "full",
        "HEALED": healed,
    }
    if message == "does not exist":
        more = ["--text", "missing.txt"]
    chosen = [known.get(argument, argument) for argument in more]
    done = command(*arguments(folder, tmp_path / "new", *chosen), program="odp")
    assert message in done.error()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MODEL"], "Missing option '-t' / '--text'"),
        (["nowhere", "--text", "TEXT", "-o", "new"], "there is no model at 'nowhere'"),
        (["MODEL", "--text", "SHORT", "-o", "new"], "has 5 tokens, and one window needs 64"),
        (["ANOTHER", "--text", "TEXT", "-o", "HEALED", "--resume"], "belongs to another Llama"),
        (["plot", "nowhere", "-o", "losses.png"], "there is no log of a healing in 'nowhere'"),
        (["MODEL", "--text", "TEXT", "-o", "new", "--layers", "c_attn"], "named 'c_attn'; there"),
    ],
)
def test_more_bad_input(
    words: list[str],
    message: str,
    folder: Path,
    healed: Path,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    known: dict[str, str | Path] = {
        "MODEL": folder / "model",
        "ANOTHER": folder / "another",
        "TEXT": folder / "train.txt",
        "SHORT": folder / "short.txt",
        "HEALED": healed,
    }
    context = ["--train-context", "64"] if words[0] != "plot" and "--text" in words else []
    done = command("heal", *(known.get(word, word) for word in words), *context, program="odp")
    assert message in done.error()


def test_ctrl_c_says_how_it_goes_on(folder: Path, tmp_path: Path) -> None:
    """A real SIGINT of another process, in the middle of the training."""
    output = tmp_path / "stopped"
    words = [str(word) for word in arguments(folder, output, "--steps", "100000", "--no-control")]
    # What runs in the background of a shell ignores SIGINT, and so would what it starts.
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from odp.cli import main\nmain(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words], stderr=subprocess.PIPE, text=True
    )
    log = output / "surgery" / "log.jsonl"
    limit = time.monotonic() + 300
    while time.monotonic() < limit and process.poll() is None:
        if log.is_file() and log.read_text().count("\n") >= 5:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == (
        "error: interrupted; the same command with --resume goes on from the last checkpoint in "
        f"'{output}'"
    )
    assert not list(output.rglob(".odp-*"))
    assert list((output / "surgery" / "checkpoints").glob("step-*.json"))
