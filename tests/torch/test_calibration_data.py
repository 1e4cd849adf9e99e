"""Domains come from tensors, batches, texts and ranges, and from all of what is given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import odp
from odp.approximations.errors import OdpError
from odp.backends.torch.inputs import Inputs

from ..evaluation.tiny_models import llama, tokenizer
from .modules import Classifier, Nested, numbers
from .rewriting import STRUCTURES

X = numbers(3, 8)
both = pytest.mark.parametrize("structure", STRUCTURES)


class Sigmoid(torch.nn.Module):
    def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        return torch.sigmoid(x if scale is None else x * scale)


def domain(calibration: Any, structure: str = "graph", **options: Any) -> tuple[float, float]:
    """What the sigmoid has seen."""
    ranges = odp.calibrate(
        Sigmoid(), "sigmoid", calibration=calibration, structure=structure, **options
    )
    (observation,) = ranges.observations.values()
    return observation.low, observation.high


def extremes(*tensors: torch.Tensor) -> tuple[float, float]:
    return min(float(x.min()) for x in tensors), max(float(x.max()) for x in tensors)


class Streamed:
    """Batches that are made one at a time, as a DataLoader of files does."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        for seed in range(20):
            yield numbers(3, 8, seed=seed)


@both
def test_one_batch_in_every_form(structure: str) -> None:
    y = numbers(3, 8, seed=1)
    assert domain(X, structure) == extremes(X)
    assert domain((X,), structure) == extremes(X)
    assert domain({"x": X}, structure) == extremes(X)
    assert domain((X, y), structure) == extremes(X * y)
    assert domain({"x": X, "scale": y}, structure) == extremes(X * y)


@both
def test_several_batches(structure: str) -> None:
    batches = [numbers(3, 8, seed=seed) for seed in range(5)]
    assert domain(batches, structure) == extremes(*batches)
    assert domain([(x,) for x in batches], structure) == extremes(*batches)
    assert domain([{"x": x} for x in batches], structure) == extremes(*batches)
    assert domain(batches, structure, samples=2) == extremes(*batches[:2])


@both
def test_loaders_and_streams(structure: str) -> None:
    data = torch.cat([numbers(3, 8, seed=seed) for seed in range(4)])
    loader = DataLoader(TensorDataset(data), batch_size=3)
    assert domain(loader, structure) == extremes(data)
    streamed = [numbers(3, 8, seed=seed) for seed in range(20)]
    assert domain(Streamed(), structure) == extremes(*streamed)
    assert domain(Streamed(), structure, samples=3) == extremes(*streamed[:3])


def test_a_generator_is_gone_through_once() -> None:
    """What needs it a second time must not see nothing."""
    batches = [numbers(3, 8, seed=seed) for seed in range(5)]
    assert domain(x for x in batches) == extremes(*batches)


def test_inputs_with_structure() -> None:
    x, y = numbers(3, 8), numbers(3, 8, seed=1)
    ranges = odp.calibrate(
        Nested(), "sigmoid,exp", calibration=[Inputs(((x, y), {"a": [x, y]}))], structure="graph"
    )
    assert {site.split("/")[0] for site in ranges.observations} == {"sigmoid", "exp"}


def test_the_domain_of_an_expression_contains_what_was_seen() -> None:
    batches = [numbers(3, 8, seed=seed) * 3 for seed in range(5)]
    report = odp.rewrite(Sigmoid(), "sigmoid", calibration=batches, error=1e-4).report
    low, high = extremes(*batches)
    assert report.sites[0].domain[0] <= low and report.sites[0].domain[1] >= high


def test_the_module_is_as_it_was() -> None:
    module = Classifier().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    generator = torch.get_rng_state()
    odp.rewrite(module, "layer_norm,gelu,softmax", calibration=X, measure=False)
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert torch.equal(torch.get_rng_state(), generator)


# Ranges


@both
def test_ranges_give_the_same_expressions(structure: str, tmp_path: Path) -> None:
    module, file = Classifier().eval(), tmp_path / "ranges.json"
    passes = "layer_norm,gelu,softmax"
    ranges = odp.calibrate(module, passes, calibration=X, structure=structure)
    file.write_text(ranges.to_json())
    options: dict[str, Any] = {"structure": structure, "measure": False, "error": 1e-4}
    direct = odp.rewrite(module, passes, calibration=X, **options)
    for known in (ranges, file, str(file), direct.ranges):
        again = odp.rewrite(module, passes, calibration=known, example_inputs=X, **options)
        assert torch.equal(again.model(X), direct.model(X))
        assert again.report.calibration == direct.report.calibration
        assert again.report.warnings == []


def test_ranges_of_other_weights_are_used_with_a_warning() -> None:
    module, other = Classifier().eval(), Classifier().eval()
    with torch.no_grad():
        other.head.weight.mul_(2.0)
    ranges = odp.calibrate(module, "softmax", calibration=X)
    result = odp.rewrite(other, "softmax", calibration=ranges, example_inputs=X, measure=False)
    assert any("weights" in warning for warning in result.report.warnings), result.report.warnings


def test_ranges_that_are_none(tmp_path: Path) -> None:
    for text in ("{}", "[1]", "not json", json.dumps({"format": "something"})):
        (tmp_path / "ranges.json").write_text(text)
        with pytest.raises(OdpError, match=r"ranges\.json") as raised:
            odp.rewrite(
                Classifier(), "softmax", calibration=tmp_path / "ranges.json", example_inputs=X
            )
        assert "\n" not in str(raised.value)


def test_ranges_name_model_and_data() -> None:
    module = Classifier().eval()
    one = odp.calibrate(module, "softmax", calibration=X)
    same = odp.calibrate(Classifier().eval(), "softmax", calibration=X.clone())
    other = odp.calibrate(module, "softmax", calibration=X + 1.0)
    assert one.to_json() == same.to_json()
    assert one.model == other.model and one.data != other.data


# Texts


@pytest.fixture(scope="module")
def model() -> Any:
    return llama(layers=1)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text("\n".join(" ".join(f"w{i * j % 97}" for j in range(20)) for i in range(50)))
    return file


def test_texts_in_every_form(model: Any, text: Path) -> None:
    options: dict[str, Any] = {"tokenizer": tokenizer(), "context": 32}
    one = odp.calibrate(model, "rsqrt", calibration=text, **options)
    for same in (str(text), [text]):
        other = odp.calibrate(model, "rsqrt", calibration=same, **options)
        assert other.to_json() == one.to_json()
    assert one.source == "text.txt" and one.samples == 16
    # Prompts stay apart, and long ones are cut in windows.
    prompts = ["w1 w2 w3", "w4 w5", " ".join(["w6"] * 40)]
    found = odp.calibrate(model, "rsqrt", calibration=prompts, **options)
    assert found.samples == 4 and found.source == "3 texts"
    few = odp.calibrate(model, "rsqrt", calibration=text, samples=2, **options)
    assert few.samples == 2
    for site, seen in few.observations.items():
        assert one.observations[site].low <= seen.low <= seen.high <= one.observations[site].high


def test_a_text_is_read_piece_by_piece(model: Any, tmp_path: Path) -> None:
    import tracemalloc

    file = tmp_path / "long.txt"
    with file.open("w") as stream:
        for _ in range(200_000):
            stream.write("w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 w14 w15\n")
    assert file.stat().st_size > 9_000_000
    tracemalloc.start()
    odp.calibrate(model, "rsqrt", calibration=file, tokenizer=tokenizer(), context=32, samples=4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < file.stat().st_size


def test_random_tokens_come_with_a_warning(model: Any) -> None:
    report = odp.rewrite(model, "rsqrt", measure=False).report
    assert any("RANDOM tokens" in warning for warning in report.warnings)


def test_progress_is_told(model: Any, text: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    odp.rewrite(
        model,
        "rsqrt",
        calibration=text,
        tokenizer=tokenizer(),
        context=32,
        progress=lambda *told: seen.append(told),
    )
    stages = dict.fromkeys(what for what, _, _ in seen)
    assert list(stages)[:2] == ["load", "calibrate"]
    assert ("calibrate", 16, 16) in seen
