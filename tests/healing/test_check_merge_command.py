"""`odp heal check-merge` on folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from odp.healing import Identity, save_adapter
from odp.healing.merging import merge_adapters, save_bitnet

from .tiny_bitnet import KINDS, adapted, bitnet, llama, save, tokenizer

Command = Callable[..., Any]


@pytest.mark.parametrize("kind", KINDS)
def test_ours_is_equal_and_peft_is_not(command: Command, tmp_path: Path, kind: str) -> None:
    folder = save(tmp_path / "model", bitnet(kind))
    outcome = command("heal", "check-merge", folder, "--json", "--rank", "4", program="odp")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["is_equal"] and found["layers"] == {kind: 14} and found["adapted"] == 8
    assert found["strength"] == pytest.approx(0.05, rel=1e-4)
    ways = {way["name"]: way["layer"] for way in found["ways"]}
    assert ways["ours"] <= 1e-5 < ways["LoRA of PEFT, dense weight"]


def test_the_table_and_a_text(command: Command, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", bitnet())
    text = tmp_path / "text.txt"
    text.write_text("w1 w2 w3 w4 " * 20)
    outcome = command("heal", "check-merge", folder, "--text", text, program="odp")
    assert outcome.code == 0, outcome.err
    assert "14 online" in outcome.out and "Ours: equal within float rounding" in outcome.out
    assert "80 tokens" in outcome.out


def test_an_adapter_from_a_folder(command: Command, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", bitnet())
    adapted(bitnet(), rank=3).save_pretrained(tmp_path / "adapter")
    outcome = command(
        "heal", "check-merge", folder, "--adapter", tmp_path / "adapter", "--json", program="odp"
    )
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["adapted"] == 8


def test_bad_input_is_one_line(command: Command, tmp_path: Path) -> None:
    plain = save(tmp_path / "llama", llama())
    wanted = "has no BitNet layers (AutoBitLinear or BitLinear)"
    assert wanted in command("heal", "check-merge", plain, program="odp").error()
    folder = save(tmp_path / "model", bitnet())
    adapted(bitnet(layers=3)).save_pretrained(tmp_path / "other")
    arguments = ("heal", "check-merge", folder, "--adapter")
    assert (
        "made for another model" in command(*arguments, tmp_path / "other", program="odp").error()
    )
    missing = command(*arguments, tmp_path / "missing", program="odp").error()
    assert "there is no adapter" in missing
    assert "no model at" in command("heal", "check-merge", tmp_path / "x", program="odp").error()
    wrong = command("heal", "check-merge", folder, "--targets", "c_attn", program="odp").error()
    assert "no BitNet layer is named c_attn" in wrong
    save_bitnet(merge_adapters(adapted(bitnet())), tokenizer(), tmp_path / "merged")
    merged = command("heal", "check-merge", tmp_path / "merged", program="odp").error()
    assert "not ternary; was an adapter merged" in merged


def test_an_adapter_of_a_healing_belongs_to_its_model(command: Command, tmp_path: Path) -> None:
    """Another model of the same layers takes the adapter, and answers nonsense."""
    folder = save(tmp_path / "model", bitnet())
    other = bitnet()
    with torch.no_grad():
        other.model.embed_tokens.weight.add_(0.5)
    arguments = ("heal", "check-merge", folder, "--rank", "3", "--adapter")
    for name, owner in (("own", bitnet()), ("others", other)):
        identity = Identity.of(owner, surgery={"passes": "all"})
        save_adapter(adapted(owner), tmp_path / name, identity)
    assert command(*arguments, tmp_path / "own", program="odp").code == 0
    error = command(*arguments, tmp_path / "others", program="odp").error()
    assert "belongs to another BitNetForCausalLM: the numbers of parameter" in error
    (tmp_path / "others" / "odp.json").write_text("[]")
    assert "odp.json" in command(*arguments, tmp_path / "others", program="odp").error()
