"""The search for fewer rows on a model of one layer: circuits, healing, resuming, bad input."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import odp
from odp.approximations.errors import OdpError
from odp.healing.rows_record import RowsSearch
from odp.healing_rows import heal_rows, rows_settings

from .tiny_bitnet import VOCABULARY, WORDS, tokenizer

TOKENS = 4
STEPS = 12


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """One number of digits and two schedules: what is searched is not what is tested here."""
    from odp.backends.ezkl import compiler

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "_DIGITS", ((14, 3),))
        patch.setattr(compiler, "_SECONDS", (3.0, 3.0))
        patch.setattr(compiler, "_SPARE_BITS", (6,))
        patch.setattr(compiler, "_ROUNDS", 2)
        torch.set_num_threads(1)
        yield


def model() -> Any:
    torch.manual_seed(0)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.3,
            bos_token_id=0,
            eos_token_id=1,
        )
    ).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "norm" in name:
                # Fresh norms are all ones, and equal constants are one constant of a circuit.
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    for name, count, seed in (("train", 2000, 1), ("other", 400, 2)):
        words = random.Random(seed).choices(WORDS[3:], k=count)
        (folder / f"{name}.txt").write_text(" ".join(words))
    model().save_pretrained(folder / "model")
    tokenizer().save_pretrained(folder / "model")
    return folder


def searched(folder: Path, output: str, **options: Any) -> RowsSearch:
    train = options.setdefault("train", "norms")
    settings = dataclasses.replace(rows_settings(train, TOKENS), steps=STEPS, batch_size=16)
    wanted: dict[str, Any] = {
        "tokens": TOKENS,
        "errors": [0.3],
        "quality": 0.5,
        "settings": settings,
        "samples": 128,
        "max_tokens": 400,
    }
    return heal_rows(
        model(),
        tokenizer(),
        [folder / "train.txt"],
        folder / output,
        held_out=[folder / "other.txt"],
        **(wanted | options),
    )


@pytest.fixture(scope="module")
def search(folder: Path) -> RowsSearch:
    return searched(folder, "norms", circuits=True)


def test_the_public_name_is_the_search() -> None:
    assert odp.heal_rows is heal_rows


def test_a_rung_is_circuits_before_and_after(search: RowsSearch) -> None:
    (rung,) = search.rungs
    assert rung.unhealed is not None and rung.healed is not None
    before, after = rung.unhealed, rung.healed
    # Weights of norms take as many rows, whatever they are.
    assert after.cost.rows == before.cost.rows > 0
    assert after.cost.rescaled == before.cost.rescaled > 0
    assert any("rsqrt" in name for name in before.cost.expressions)
    assert rung.training["parameters"] == 2 * 16 and rung.training["steps"] == STEPS
    assert before.held_out.windows == 100 and before.held_out.refused < 20
    assert before.cost.errors[0] <= 0.3


def test_healing_brings_the_circuits_nearer_to_the_original(search: RowsSearch) -> None:
    """Random weights leave little to heal; twelve steps of the norms find a part of it."""
    (rung,) = search.rungs
    assert rung.unhealed is not None and rung.healed is not None
    assert rung.healed.held_out.kl < rung.unhealed.held_out.kl


def test_the_written_circuit_is_what_was_scored(search: RowsSearch, folder: Path) -> None:
    """Its integers, simulated from the files alone, are those of the healed weights."""
    from odp.backends.ezkl.artefacts import CircuitFolder

    circuit = CircuitFolder(folder / "norms" / "error-0.3" / "layer-0.circuit")
    assert circuit.manifest["policy"]["weights"] == "healed"
    (output,) = circuit.simulated(circuit.stored_input()).values()
    assert output.integers.shape == (1, TOKENS, 16)


def test_a_search_goes_on_with_the_rungs_that_are_done(
    search: RowsSearch, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import odp.layer_circuits

    def compiled(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("compiled again")

    monkeypatch.setattr(odp.layer_circuits, "compile_layers", compiled)
    again = searched(folder, "norms", resume=True)
    assert again.to_dict() == search.to_dict()
    assert json.loads((folder / "norms" / "result.json").read_text()) == search.to_dict()


def test_another_search_does_not_go_on_there(search: RowsSearch, folder: Path) -> None:
    with pytest.raises(OdpError, match=r"begun with margin 0\.25, and now it is 0\.5"):
        searched(folder, "norms", resume=True, margin=0.5)
    with pytest.raises(OdpError, match="exists already; --resume goes on"):
        searched(folder, "norms")


def test_low_rank_on_attention_and_an_error_that_nothing_keeps(folder: Path) -> None:
    """The second rung is not tried: the first has no circuits."""
    found = searched(folder, "lora", train="lora", errors=[0.3])
    assert found.rungs[0].training["parameters"] == 4 * 2 * 16 * 16
    failed = searched(folder, "none", errors=[1e-9, 0.3])
    (rung,) = failed.rungs
    assert rung.unhealed is None and rung.failure.startswith("layer 0: ")
    assert "No rung keeps" in failed.verdict()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"errors": []}, "at least one error"),
        ({"errors": [2.0]}, "between 0 and 1, not 2"),
        ({"errors": [0.1, 0.1]}, "two rungs have the same error"),
        ({"quality": 0.0}, "positive change of the perplexity, not 0"),
        ({"train": "norms", "samples": 0}, "samples must be at least 1, not 0"),
        ({"tokens": 1}, "tokens must be at least 2"),
        ({"tokens": 100}, "more than the 64 positions"),
    ],
)
def test_bad_input_is_one_line(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OdpError, match=message) as caught:
        searched(folder, "bad", **options)
    assert "\n" not in str(caught.value)
    assert not (folder / "bad").exists()


def test_the_command_prints_the_verdict(
    search: RowsSearch, folder: Path, command: Callable[..., Any]
) -> None:
    arguments = [
        *("heal", "rows", folder / "model", "--text", folder / "train.txt"),
        *("--held-out", folder / "other.txt", "--errors", "0.3", "--quality", "0.5", "-T", "4"),
        *("--steps", str(STEPS), "--batch-size", "16", "--samples", "128", "--max-tokens", "400"),
        *("-o", folder / "norms", "--resume"),
    ]
    done = command(*arguments, program="odp")
    assert done.code == 0, done.err
    assert "Healing buys" in done.out and "compiled *" in done.out
    tree = json.loads(command(*arguments, "--json", program="odp").out)
    assert tree["rungs"] == search.to_dict()["rungs"]


@pytest.mark.parametrize(
    "more, message",
    [
        (("--errors", "a,b"), "cannot read --errors 'a,b'"),
        (("--errors", "3"), "between 0 and 1, not 3"),
        (("--held-out", "missing.txt"), "missing.txt"),
    ],
)
def test_a_bad_option_is_one_line(
    folder: Path, command: Callable[..., Any], more: tuple[str, ...], message: str
) -> None:
    done = command(
        *("heal", "rows", folder / "model", "--text", folder / "train.txt"),
        *("--held-out", folder / "other.txt", "-o", folder / "new", *more),
        program="odp",
    )
    assert message in done.error()
