"""Bad input ends in one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import odp
from odp.approximations.errors import OdpError

from ..evaluation.tiny_models import llama, tokenizer
from .modules import Classifier, numbers

X = numbers(3, 8)


class Deciding(torch.nn.Module):
    """Looks at a value, which no graph can."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:  # the line that the message names
            return torch.sigmoid(x)
        return torch.tanh(x)


class Failing(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x) @ x


class Written(torch.nn.Module):
    """Writes to what it is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.mul_(2.0)
        return torch.sigmoid(x)


class History(torch.nn.Module):
    """Keeps a tensor with its history, which cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(8))
        self.cached = self.weight * 2.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x * self.cached)


def message(call: Callable[[], Any]) -> str:
    with pytest.raises(OdpError) as raised:
        call()
    text = str(raised.value)
    assert "\n" not in text and len(text) < 500
    assert raised.value.__context__ is None or raised.value.__suppress_context__
    return text


def rewrite(module: Any, **options: Any) -> Callable[[], Any]:
    options = {"passes": "sigmoid,tanh,layer_norm,gelu,softmax", "measure": False} | options
    return lambda: odp.rewrite(module, **options)


def test_the_line_that_breaks_the_graph() -> None:
    text = message(rewrite(Deciding(), example_inputs=X, structure="graph"))
    source, first = inspect.getsourcelines(Deciding.forward)
    line = first + next(i for i, one in enumerate(source) if "the line" in one)
    assert f"test_bad_input.py:{line}" in text
    assert "if x.sum() > 0" in text


def test_the_same_module_is_rewritten_in_place() -> None:
    """What has no graph still has functions."""
    result = odp.rewrite(
        Deciding(), "sigmoid,tanh", calibration=[X.abs(), -X.abs()], structure="modules"
    )
    assert result.report.model.transcendental_after == {}


@pytest.mark.parametrize("structure", ["graph", "modules"])
def test_a_module_that_does_not_run(structure: str) -> None:
    text = message(rewrite(Failing(), example_inputs=X, structure=structure))
    assert "Failing" in text and "mat1 and mat2" in text


@pytest.mark.parametrize("structure", ["graph", "modules"])
def test_no_inputs_at_all(structure: str) -> None:
    text = message(rewrite(Classifier().eval(), structure=structure))
    assert "example_inputs" in text and "Classifier" in text


@pytest.mark.parametrize("structure", ["graph", "modules"])
def test_inputs_that_do_not_fit_forward(structure: str) -> None:
    module = Classifier().eval()
    text = message(rewrite(module, example_inputs=(X, X), structure=structure))
    assert "takes 2 positional arguments but 3 were given" in text
    text = message(rewrite(module, example_inputs={"y": X}, structure=structure))
    assert "unexpected keyword argument 'y'" in text
    text = message(rewrite(module, example_inputs=numbers(3, 7), structure=structure))
    assert "Classifier does not run on its inputs" in text
    text = message(rewrite(module, example_inputs=3.0, structure=structure))
    assert "example_inputs must be a tensor" in text


@pytest.mark.parametrize("calibration", [3.0, object()])
def test_calibration_of_no_known_form(calibration: Any) -> None:
    text = message(rewrite(Classifier().eval(), example_inputs=X, calibration=calibration))
    assert "calibration must be inputs" in text


def test_no_calibration_batch() -> None:
    text = message(rewrite(Classifier().eval(), example_inputs=X, calibration=[]))
    assert "there is no input to calibrate on" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights(value: float) -> None:
    module = Classifier().eval()
    with torch.no_grad():
        module.norm.weight[2] = value
    text = message(rewrite(module, example_inputs=X))
    assert "'norm.weight' is NaN or infinite in 1 of 8 values" in text


def test_weights_that_were_never_loaded() -> None:
    with torch.device("meta"):
        module = Classifier()
    assert "'linear.weight' is on the meta device" in message(rewrite(module, example_inputs=X))


@pytest.mark.parametrize("structure", ["graph", "modules"])
def test_a_type_without_kernels(structure: str) -> None:
    module = Classifier().eval().to(torch.float8_e4m3fn)
    x = X.to(torch.float8_e4m3fn)
    text = message(rewrite(module, example_inputs=x, structure=structure))
    assert "float8_e4m3fn" in text.lower()


def test_what_cannot_be_copied() -> None:
    text = message(rewrite(History(), example_inputs=X))
    assert text.startswith("cannot copy History")


def test_a_module_that_writes_to_its_input() -> None:
    text = message(rewrite(Written(), example_inputs=X.clone(), structure="graph"))
    assert "writes to its input 'x'" in text and "clone" in text


def test_scripts_and_other_things() -> None:
    module = torch.jit.trace(Classifier().eval(), X)
    assert "rewrite the torch.nn.Module that it came from" in message(
        rewrite(module, example_inputs=X)
    )
    assert "structure is 'graph' or 'modules'" in message(
        rewrite(Classifier().eval(), example_inputs=X, structure="tree")
    )
    program = torch.export.export(Classifier().eval(), (X,))
    assert "needs its module" in message(rewrite(program, structure="modules"))


# Texts


@pytest.fixture(scope="module")
def model() -> Any:
    return llama(layers=1)


def test_texts_that_are_too_short(model: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"passes": "rsqrt", "tokenizer": tokenizer(), "context": 32}
    empty, short = tmp_path / "empty.txt", tmp_path / "short.txt"
    empty.write_text("")
    short.write_text("w1 w2 w3")
    text = message(rewrite(model, calibration=empty, **options))
    assert "empty.txt) is empty" in text
    text = message(rewrite(model, calibration=str(short), **options))
    assert "short.txt) has 3 tokens, and one window needs 32" in text
    text = message(rewrite(model, calibration=tmp_path / "none.txt", **options))
    assert "none.txt" in text and "No such file" in text
    text = message(rewrite(model, calibration=[], **options))
    assert "there is no input" in text


def test_text_that_is_none(model: Any, tmp_path: Path) -> None:
    binary = tmp_path / "model.bin"
    binary.write_bytes(b"\xff\xfe\x00" * 50)
    text = message(rewrite(model, passes="rsqrt", calibration=binary, tokenizer=tokenizer()))
    assert "is not UTF-8" in text


def test_text_without_a_tokenizer(model: Any, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("w1 " * 50)
    text = message(rewrite(model, passes="rsqrt", calibration=tmp_path / "text.txt"))
    assert "needs a tokenizer" in text


def test_a_window_longer_than_the_model(model: Any, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("w1 " * 500)
    text = message(
        rewrite(
            model,
            passes="rsqrt",
            calibration=tmp_path / "text.txt",
            tokenizer=tokenizer(),
            context=128,
        )
    )
    assert "more than the 64 of the model" in text


def test_attention_in_a_kernel(model: Any) -> None:
    other = llama(layers=1)
    other.config._attn_implementation = "flash_attention_2"
    text = message(rewrite(other, passes="softmax"))
    assert "attn_implementation='sdpa' or 'eager'" in text
