"""T5 looks its buckets up: whatever the length of a text, no bucket is another one."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import transformers as hf

import odp

BUCKETS, FARTHEST = 32, 128
DIMENSION = torch.export.Dim("tokens", min=2, max=512)


def tokens(length: int, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 100, (1, length), generator=generator)
    return {"input_ids": ids}


def t5(attention: str = "eager") -> Any:
    torch.manual_seed(0)
    config = hf.T5Config(
        vocab_size=100,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=1,
        num_heads=4,
        relative_attention_num_buckets=BUCKETS,
        relative_attention_max_distance=FARTHEST,
        attn_implementation=attention,
    )
    return hf.T5EncoderModel(config).eval()


def rewritten(structure: str, **options: Any) -> Any:
    data = [tokens(length) for length in (16, 300)]
    return odp.rewrite(
        t5(),
        calibration=data,
        example_inputs=data[0],
        structure=structure,
        measure=False,
        **options,
    )


@pytest.fixture(scope="module")
def modules() -> Any:
    return rewritten("modules")


@pytest.fixture(scope="module")
def dynamic_graph() -> Any:
    return rewritten("graph", dynamic_shapes={"input_ids": {1: DIMENSION}})


def bias(attention: Any, length: int) -> torch.Tensor:
    table: torch.Tensor = attention.compute_bias(length, length)
    return table


def test_every_bucket_is_the_same(modules: Any) -> None:
    # 16, 32 and 64 are where the logarithm is a whole number and its floor hangs by a thread.
    original = t5().encoder.block[0].layer[0].SelfAttention
    found = modules.model.encoder.block[0].layer[0].SelfAttention
    with torch.no_grad():
        assert torch.equal(bias(found, 700), bias(original, 700))


def test_no_logarithm_is_approximated(modules: Any, dynamic_graph: Any) -> None:
    for result in (modules, dynamic_graph):
        assert {site.function for site in result.report.sites} == {"exp", "rsqrt"}
        assert result.report.model.transcendental_after == {}
        (record,) = [record for record in result.report.passes if record.name == "log"]
        assert record.patterns == {"relative_buckets": 1} and record.notes


@pytest.mark.parametrize("length", [15, 17, 200, 400])
def test_texts_of_any_length(modules: Any, dynamic_graph: Any, length: int) -> None:
    # Wrong buckets change outputs by 3e-2, the errors of all sites together by 2e-5.
    inputs = tokens(length, seed=1)
    with torch.no_grad():
        expected = t5()(**inputs).last_hidden_state
        for result in (modules, dynamic_graph):
            found = result.model(**inputs).last_hidden_state
            assert (found - expected).abs().max() < 1e-3 * expected.abs().max()


def test_copied_pickled_and_traced(modules: Any) -> None:
    inputs = tokens(20)
    buffer = io.BytesIO()
    torch.save(modules.model, buffer)
    buffer.seek(0)
    with torch.no_grad():
        expected = modules.model(**inputs).last_hidden_state
        traced = torch.export.export(modules.model, (), inputs, strict=False).module()
        for other in (
            copy.deepcopy(modules.model),
            torch.load(buffer, weights_only=False),
            traced,
        ):
            assert torch.equal(other(**inputs).last_hidden_state, expected)


def test_without_a_pass_for_it_the_logarithm_stays() -> None:
    result = rewritten("modules", passes="softmax")
    assert result.report.model.transcendental_after == {"aten::log": 1, "aten::rsqrt": 3}
