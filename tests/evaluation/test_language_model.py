"""Loading from the disk, and every way in which a folder is not a language model."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from odp.approximations.errors import OdpError
from odp.evaluation import check_weights, load_language_model

from .tiny_models import llama, tokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "llama"
    llama().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def spoiled(saved: Path, tmp_path: Path) -> Callable[..., str]:
    """Copy the saved model, do something to it, and return the error of loading it."""

    def load(spoil: Callable[[Path], Any], **options: Any) -> str:
        folder = tmp_path / "model"
        shutil.copytree(saved, folder)
        spoil(folder)
        with pytest.raises(OdpError) as caught:
            load_language_model(folder, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value).replace(str(folder), "FOLDER")

    return load


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_model_comes_back_as_it_was_saved(saved: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    loaded = load_language_model(saved, progress=lambda *step: steps.append(step))
    assert loaded.folder == saved and steps == [("load", 0, 1), ("load", 1, 1)]
    assert not loaded.model.training
    expected = dict(llama().named_parameters())
    found = dict(loaded.model.named_parameters())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert loaded.tokenizer("w5")["input_ids"] == [8]


def test_type_attention_and_device_are_as_wanted(saved: Path) -> None:
    loaded = load_language_model(saved, dtype="bfloat16", attention="eager", device="cpu")
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.model.config._attn_implementation == "eager"


def test_weights_of_the_old_kind(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    (folder / "model.safetensors").unlink()
    torch.save(llama().state_dict(), folder / "pytorch_model.bin")
    loaded = load_language_model(folder)
    assert torch.equal(loaded.model.lm_head.weight, llama().lm_head.weight)


def test_no_folder_and_no_model(tmp_path: Path) -> None:
    def error(path: Path) -> str:
        with pytest.raises(OdpError) as caught:
            load_language_model(path)
        return str(caught.value)

    assert error(tmp_path / "gone").startswith(f"there is no model at '{tmp_path / 'gone'}'")
    assert error(tmp_path) == f"folder '{tmp_path}' holds no model: neither config.json nor a " + (
        "GGUF file"
    )
    file = tmp_path / "model.onnx"
    file.touch()
    assert "is a file; name the folder of a model" in error(file)
    (tmp_path / "a.gguf").touch()
    (tmp_path / "b.gguf").touch()
    assert "has several GGUF files; name one of a.gguf, b.gguf" in error(tmp_path)


def test_what_is_missing_is_named(spoiled: Callable[..., str]) -> None:
    message = spoiled(lambda folder: (folder / "tokenizer.json").unlink())
    assert message == "folder 'FOLDER' has no tokenizer, such as tokenizer.json"


def test_no_weights(spoiled: Callable[..., str]) -> None:
    message = spoiled(lambda folder: (folder / "model.safetensors").unlink())
    assert message == "folder 'FOLDER' has no weights, such as model.safetensors"


def test_a_model_that_does_not_predict_the_next_token(spoiled: Callable[..., str]) -> None:
    def save_encoder(folder: Path) -> None:
        config = BertConfig(
            vocab_size=100,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
        model: Any = BertModel(config)
        model.save_pretrained(folder)

    assert spoiled(save_encoder) == (
        "'FOLDER' is a BertModel, which is not a causal language model"
    )


def test_an_architecture_that_nobody_knows(spoiled: Callable[..., str]) -> None:
    message = spoiled(lambda f: edit_config(f, model_type="nothing", architectures=None))
    assert message.startswith("cannot load the ")
    assert "nothing" in message


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_configuration_that_is_none(spoiled: Callable[..., str], content: str) -> None:
    message = spoiled(lambda folder: (folder / "config.json").write_text(content))
    assert "config.json" in message


def test_weights_that_are_no_weights(spoiled: Callable[..., str]) -> None:
    message = spoiled(lambda folder: (folder / "model.safetensors").write_bytes(b"nothing at all"))
    assert message.startswith("cannot load the model in 'FOLDER': ")


def test_a_tokenizer_that_is_none(spoiled: Callable[..., str]) -> None:
    message = spoiled(lambda folder: (folder / "tokenizer.json").write_text("nothing"))
    assert message.startswith("cannot load the tokenizer in 'FOLDER': ")


def test_weights_that_are_missing_are_never_random(spoiled: Callable[..., str]) -> None:
    message = spoiled(lambda folder: edit_config(folder, num_hidden_layers=4))
    assert message.startswith("the weights in 'FOLDER' do not fit the model: model.layers.3.")
    assert message.endswith("is missing or of another shape, and 8 more")


def test_weights_of_another_shape(spoiled: Callable[..., str]) -> None:
    message = spoiled(lambda folder: edit_config(folder, intermediate_size=64))
    assert "FOLDER" in message


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named(spoiled: Callable[..., str], value: float) -> None:
    def save(folder: Path) -> None:
        model = llama()
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight[2, :3] = value
        model.save_pretrained(folder)

    assert spoiled(save) == (
        "parameter 'model.layers.1.mlp.up_proj.weight' of 'FOLDER' is not finite: "
        "3 of 1536 numbers are nan or infinite"
    )


def test_buffers_are_checked_as_well() -> None:
    model = llama()
    model.register_buffer("scale", torch.tensor([math.nan]))
    with pytest.raises(OdpError, match="buffer 'scale' of 'it' is not finite"):
        check_weights(model, "it")


def test_options_that_are_none(spoiled: Callable[..., str]) -> None:
    message = spoiled(lambda folder: None, dtype="int8")
    assert message == "'int8' is no type of weights; use auto, float32, bfloat16 or float16"


def test_transformers_may_be_missing(
    spoiled: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert spoiled(lambda folder: None) == (
        'language models need transformers: pip install "odp-rewrite[evaluate]"'
    )


@pytest.mark.parametrize("device", ["nowhere", "cuda:999"])
def test_devices_that_are_not_there(spoiled: Callable[..., str], device: str) -> None:
    message = spoiled(lambda folder: None, device=device)
    assert message.startswith(f"cannot use device '{device}': ")
