"""`odp heal compare`: original, rewritten, healed and merged models of a tiny Llama."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from .language_model_folder import save_model, save_text

Command = Callable[..., Any]

SCORING = ("--context", "32", "--max-tokens", "100", "--new-tokens", "4", "--no-speed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, texts, and a healing of `model` in `healed`."""
    from odp.cli.entry import main

    folder = tmp_path_factory.mktemp("compare")
    save_model(folder / "model")
    save_model(folder / "another", seed=1)
    save_text(folder / "train.txt", 400, seed=1)
    save_text(folder / "text.txt", 150, seed=2)
    save_text(folder / "short.txt", 5, seed=3)
    (folder / "prompts.txt").write_text("w1 w2 w3\n\nw4 w5\n")
    arguments = (
        *("heal", folder / "model", "--text", folder / "train.txt", "-o", folder / "healed"),
        *("--error", "0.5", "--passes", "rsqrt,sigmoid", "--calibrate-context", "32"),
        *("--samples", "2", "--train-context", "32", "--steps", "3", "--batch-size", "2"),
        *("--learning-rate", "0.02", "--warm-up", "0"),
        *("--rank", "2", "--dtype", "float32", "--device", "cpu", "--no-control", "--quiet"),
    )
    with pytest.raises(SystemExit) as done:
        main([str(argument) for argument in arguments])
    assert done.value.code == 0
    return folder


def compared(folder: Path, command: Command, *more: str | Path) -> dict[str, Any]:
    done = command(
        *("heal", "compare", folder / "model", folder / "healed", *more),
        *("--text", folder / "text.txt", *SCORING, "--json"),
        program="odp",
    )
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def logits(model: Any, ids: list[int]) -> Any:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double()


def test_the_numbers_are_those_of_the_models(folder: Path, command: Command) -> None:
    import odp
    from odp.evaluation import load_language_model

    found = compared(folder, command, "--stride", "31")
    assert [variant["name"] for variant in found["variants"]] == ["surgery", "healed"]
    assert {variant["architecture"] for variant in found["variants"]} == {"LlamaForCausalLM"}
    loaded = load_language_model(folder / "model")
    healed = odp.load_healed(loaded.model, folder / "healed", loaded.tokenizer)
    ids = loaded.tokenizer((folder / "text.txt").read_text())["input_ids"][:100]
    # The first window has 32 tokens, each further one 31 more.
    windows = [ids[begin : begin + 32] for begin in range(0, 99, 31)]
    windows[-1] = ids[-len(windows[-1]) :]
    exact = [logits(loaded.model, window)[:-1] for window in windows]
    with healed.disable_adapter():
        surgery = [logits(healed, window)[:-1] for window in windows]
    other = [logits(healed, window)[:-1] for window in windows]
    for variant, rows in zip(found["variants"], (surgery, other), strict=True):
        angles = torch.cosine_similarity(torch.cat(exact), torch.cat(rows), dim=-1)
        # The same float32 logits on both sides, but for the order of sums of a few dozen products.
        assert variant["difference"]["cosine"] == pytest.approx(float(angles.mean()), abs=1e-5)
        assert variant["difference"]["min_cosine"] == pytest.approx(float(angles.min()), abs=1e-5)
    cosines = [variant["difference"]["cosine"] for variant in found["variants"]]
    assert abs(cosines[0] - cosines[1]) > 1e-4 and max(cosines) < 1 - 1e-4


def test_a_merged_model_answers_like_the_healed_one(
    folder: Path, command: Command, tmp_path: Path
) -> None:
    import odp
    from odp.evaluation import load_language_model

    loaded = load_language_model(folder / "model")
    merged = odp.load_healed(loaded.model, folder / "healed").merge_and_unload()
    place = tmp_path / "merged"
    merged.save_pretrained(place)
    loaded.tokenizer.save_pretrained(place)
    found = compared(folder, command, place, "--prompts", folder / "prompts.txt")
    assert [variant["name"] for variant in found["variants"]] == ["surgery", "healed", "merged"]
    assert [generation["prompt"] for generation in found["generations"]] == ["w1 w2 w3", "w4 w5"]
    _, healed, plain = found["variants"]
    # Its weights are those of the healed model, and its functions those of transformers.
    assert plain["parameters"] == found["original"]["parameters"] < healed["parameters"]
    assert plain["difference"]["mean_kl"] > 0 and plain["architecture"] == "LlamaForCausalLM"


def test_the_tables(folder: Path, command: Command, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = command(
        *("heal", "compare", folder / "model", folder / "healed", "--text", folder / "text.txt"),
        *("--context", "16", "--max-tokens", "40", "--new-tokens", "4", "--prompt", "w1 w2"),
        *("--report", report),
        program="odp",
    )
    assert done.code == 0 and done.err == ""
    for word in ("surgery", "healed", "cosine", "ratio", "w1 w2", "top-1"):
        assert word in done.out
    speed = json.loads(report.read_text())["variants"][1]["speed"]
    assert speed["prefill_ratio"] > 0 and speed["decode_ratio"] > 0


def test_the_beginnings_of_lines_are_continued_without_a_prompt(
    folder: Path, command: Command
) -> None:
    found = compared(folder, command)
    text = (folder / "text.txt").read_text()
    assert len(found["generations"]) == 3
    assert all(generation["prompt"] in text for generation in found["generations"])


def test_bad_input_is_one_line(
    folder: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = ("--text", folder / "text.txt", *SCORING)

    def error(*words: str | Path) -> str:
        shown: str = command("heal", "compare", *words, program="odp").error()
        return shown

    model, healed = folder / "model", folder / "healed"
    assert "Missing argument 'HEALED...'" in error(model, *text)
    assert "Missing option '-t'" in error(model, healed)
    assert "'nowhere' does not exist; it should be a healing" in error(model, "nowhere", *text)
    Path("empty").mkdir()
    assert "'empty' is neither a healing (heal.json) nor a model" in error(model, "empty", *text)
    adapter = healed / "surgery" / "adapter"
    assert "is an adapter; name the folder of the healing" in error(model, adapter, *text)
    assert "belongs to another LlamaForCausalLM" in error(folder / "another", healed, *text)
    assert "has 5 tokens, but one window needs" in error(
        model, healed, "--text", folder / "short.txt", *SCORING
    )
    assert "does not exist" in error(model, healed, *text, "--prompts", "missing.txt")


@pytest.mark.parametrize("what", ["a healing", "a model"])
def test_another_tokenizer_is_refused(
    folder: Path, command: Command, tmp_path: Path, what: str
) -> None:
    swapped = tmp_path / "swapped"
    shutil.copytree(folder / "model", swapped)
    file = swapped / "tokenizer.json"
    tree = json.loads(file.read_text())
    words = tree["model"]["vocab"]
    words["w3"], words["w4"] = words["w4"], words["w3"]
    file.write_text(json.dumps(tree))
    model, other = (swapped, folder / "healed") if what == "a healing" else (folder / "model",) * 2
    other = swapped if what == "a model" else other
    done = command(
        "heal", "compare", model, other, "--text", folder / "text.txt", *SCORING, program="odp"
    )
    expected = {"a healing": "trained with another tokenizer", "a model": "the vocabularies differ"}
    assert expected[what] in done.error()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("record", "it does not describe a healing"),
        ("no ranges", "ranges.json"),
        ("no adapter", "is not finished: it has no adapter yet"),
        ("half an adapter", "cannot load the adapter"),
        ("identity", "cannot read"),
    ],
)
def test_a_damaged_healing_is_one_line(
    folder: Path, command: Command, tmp_path: Path, damage: str, message: str
) -> None:
    healed = tmp_path / "healed"
    shutil.copytree(folder / "healed", healed)
    record = healed / "heal.json"
    tree = json.loads(record.read_text())
    adapter = healed / "surgery" / "adapter"
    if damage == "record":
        del tree["margin"]
    elif damage == "identity":
        tree["model"]["colour"] = "blue"
    elif damage == "no ranges":
        (healed / "ranges.json").unlink()
    elif damage == "no adapter":
        shutil.rmtree(adapter)
    else:
        file = adapter / "adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:-5])
    record.write_text(json.dumps(tree))
    done = command(
        *("heal", "compare", folder / "model", healed, "--text", folder / "text.txt", *SCORING),
        program="odp",
    )
    assert message in done.error()
