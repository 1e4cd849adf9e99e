"""`odp.rewrite(target="triton")`: what becomes an operator, and that the model stays itself."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    BitNetConfig,
    BitNetForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import odp
from odp.approximations.errors import OdpError
from odp.backends.torch.discovery import Operations
from odp.rewriter.statistics import statistics

IDS = torch.randint(3, 90, (2, 12), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(12) >= torch.tensor([[5], [0]])).long()
DECODER: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
ENCODER = {key: value for key, value in DECODER.items() if key != "num_key_value_heads"}


def model_of(name: str, attention: str) -> Any:
    torch.manual_seed(0)
    made = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**DECODER)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**DECODER)),
        "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**DECODER, head_dim=8)),
        "bitnet": lambda: BitNetForCausalLM(BitNetConfig(**DECODER)),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(
                vocab_size=100,
                n_positions=64,
                n_embd=32,
                n_layer=2,
                n_head=4,
                initializer_range=0.2,
            )
        ),
        "bert": lambda: BertModel(BertConfig(**ENCODER)),
    }[name]().eval()
    made.set_attn_implementation(attention)
    return made


# Operators by architecture, and the attention that was asked for.
EXPECTED = {
    ("llama", "sdpa"): {"rms_norm": 5, "swiglu": 2, "attention": 2, "rope": 2},
    ("llama", "eager"): {"rms_norm": 5, "swiglu": 2, "softmax": 2, "rope": 2},
    ("qwen2", "sdpa"): {"rms_norm": 5, "swiglu": 2, "attention": 2, "rope": 2},
    # Its soft caps are tanh, which stays with the passes.
    ("gemma2", "eager"): {"rms_norm": 9, "geglu_tanh": 2, "softmax": 2, "rope": 2},
    ("bitnet", "sdpa"): {"rms_norm": 9, "relu_squared_gate": 2, "attention": 2, "rope": 2},
    ("gpt2", "sdpa"): {"layer_norm": 5, "attention": 2},
    ("bert", "sdpa"): {"layer_norm": 5, "attention": 2, "gelu": 2},
}


def operators_in(model: Any, *args: Any, **inputs: Any) -> dict[str, int]:
    """Operators that one run of a model calls."""
    with Operations() as operations, torch.no_grad():
        model(*args, **inputs)
    names = ((k.removeprefix("odp::"), n) for k, n in operations.all.items() if "odp::" in k)
    return dict(names)


# One architecture takes ten seconds; these three have all operators but one among them.
QUICK = {("llama", "sdpa"), ("bitnet", "sdpa"), ("gpt2", "sdpa")}
CASES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id="-".join(name))
    for name in EXPECTED
]


@pytest.fixture(scope="module", params=CASES)
def case(request: Any) -> tuple[tuple[str, str], Any, odp.RewriteResult]:
    original = model_of(*request.param)
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    result = odp.rewrite(original, target="triton", calibration=[inputs])
    return request.param, original, result


def outputs(model: Any, **inputs: Any) -> torch.Tensor:
    found: torch.Tensor = model(**inputs)[0]
    return found


def test_operators_stand_where_they_should(case: Any) -> None:
    name, _, result = case
    assert operators_in(result.model, input_ids=IDS) == EXPECTED[name]
    assert result.report.model.transcendental_after == {}
    declared: dict[str, int] = {}
    for record in result.report.passes:
        for pattern in EXPECTED[name]:
            declared[pattern] = declared.get(pattern, 0) + record.patterns.get(pattern, 0)
    # In a squared ReLU nothing is approximated, and no pass asks for it.
    assert declared == EXPECTED[name] | ({"relu_squared_gate": 0} if "bitnet" in name else {})


def test_outputs_and_gradients_stay(case: Any) -> None:
    _, original, result = case
    rewritten = copy.deepcopy(result.model)
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    a, b = outputs(original, **inputs), outputs(rewritten, **inputs)
    kept = MASK.bool()
    # Sites are within 1e-5, and the longest chain of a two-layer model is six of them.
    largest = float(a.detach()[kept].abs().max())
    assert float((a - b).detach()[kept].abs().max()) <= 6e-5 * max(1.0, largest)
    a[kept].square().mean().backward()
    b[kept].square().mean().backward()
    pairs = zip(original.parameters(), rewritten.parameters(), strict=True)
    for p, q in ((p.grad, q.grad) for p, q in pairs if p.grad is not None):
        # Twice through the sites, each within 1e-5, some of them soft caps with slopes of 30.
        assert float((p - q).norm()) <= 1e-3 * float(p.norm()) + 1e-6
    original.zero_grad()


def test_copies_files_and_other_types(case: Any) -> None:
    _, original, result = case
    with torch.no_grad():
        wanted = outputs(result.model, input_ids=IDS)
        again = pickle.loads(pickle.dumps(result.model))
        assert torch.equal(outputs(again, input_ids=IDS), wanted)
        buffer = io.BytesIO()
        torch.save(result.model.state_dict(), buffer)
        buffer.seek(0)
        original.load_state_dict(torch.load(buffer))
        narrow = outputs(copy.deepcopy(result.model).bfloat16(), input_ids=IDS)
        rounded = outputs(copy.deepcopy(original).bfloat16(), input_ids=IDS)
        exact = outputs(original, input_ids=IDS)
    # No farther from the original in float32 than bfloat16 itself takes it, within a factor.
    assert narrow.dtype == torch.bfloat16
    assert (narrow - exact).norm() <= 1.5 * (rounded - exact).norm()


def test_generation_with_a_cache(case: Any) -> None:
    (name, _), original, result = case
    if name == "bert":
        pytest.skip("an encoder does not generate")
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    wanted = original.generate(IDS, attention_mask=MASK, **options)
    assert torch.equal(result.model.generate(IDS, attention_mask=MASK, **options), wanted)


def test_compiled_without_a_break(case: Any) -> None:
    name, _, result = case
    if name[0] not in ("llama", "bert"):
        pytest.skip("two architectures will do")
    torch._dynamo.reset()
    compiled = torch.compile(result.model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        difference = outputs(compiled, input_ids=IDS) - outputs(result.model, input_ids=IDS)
    assert float(difference.abs().max()) <= 1e-5


def test_adapters_and_hooks_see_the_linear_layers_of_a_gate() -> None:
    from peft import LoraConfig, get_peft_model

    result = odp.rewrite(
        model_of("llama", "sdpa"),
        target="triton",
        example_inputs={"input_ids": IDS},
        measure=False,
    )
    adapted = get_peft_model(result.model, LoraConfig(target_modules=["gate_proj", "down_proj"]))
    adapted(input_ids=IDS, labels=IDS).loss.backward()
    trained = [name for name, p in adapted.named_parameters() if p.grad is not None]
    assert len(trained) == 8
    assert any("gate_proj.lora_B" in name for name in trained)


def test_the_loss_of_a_model_is_an_operator() -> None:
    original = model_of("llama", "sdpa")
    result = odp.rewrite(
        original, target="triton", example_inputs={"input_ids": IDS, "labels": IDS}, measure=False
    )
    with Operations() as operations:
        loss = result.model(input_ids=IDS, labels=IDS).loss
    assert operations.all["odp::cross_entropy"] == 1
    assert operations.transcendental == {}
    assert abs(loss.item() - original(input_ids=IDS, labels=IDS).loss.item()) <= 1e-4


def test_only_what_the_passes_ask_for() -> None:
    original = model_of("llama", "sdpa")
    result = odp.rewrite(original, "rsqrt,silu", target="triton", example_inputs={"input_ids": IDS})
    assert operators_in(result.model, input_ids=IDS) == {"rms_norm": 5, "swiglu": 2}
    assert set(result.report.model.transcendental_after) >= {"aten::cos", "aten::sin"}
    assert [record.name for record in result.report.passes] == ["rsqrt", "silu"]


def test_errors_of_passes_are_measured_apart(case: Any) -> None:
    _, _, result = case
    for record in result.report.passes:
        if record.patterns and record.name != "rope":
            (metrics, *_) = record.isolated.values()
            assert 0.0 < metrics.max_abs < 1e-3
    assert result.report.total


def test_the_report_declares_every_function(case: Any) -> None:
    name, _, result = case
    keys = {record.key: record for record in result.report.approximants}
    for site in result.report.sites:
        record = keys[site.approximant]
        error = record.relative_error if record.relative else record.absolute_error
        assert error is not None and error <= 1e-5 and record.error_kind == "certified"
    found = statistics(result.report)
    norms = EXPECTED[name].get("rms_norm", 0) + EXPECTED[name].get("layer_norm", 0)
    assert (found.norms, found.softmaxes) == (norms, 2)


def test_a_scheme_keeps_its_expression() -> None:
    """An expression that was asked for holds on an interval, which calibration finds."""
    result = odp.rewrite(
        model_of("llama", "sdpa"),
        "silu{scheme=pade,numerator=4,denominator=4},rms_norm",
        target="triton",
        example_inputs={"input_ids": IDS},
    )
    assert operators_in(result.model, input_ids=IDS) == {"rms_norm": 5}
    assert {r.scheme for r in result.report.approximants if r.function == "sigmoid"} == {"pade"}


class Block(nn.Module):
    """Norms, gates and a softmax, in other words than those of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16))
        self.norm = nn.LayerNorm(16)
        self.gate, self.up, self.down = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        root = torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)
        gate = self.gate(x / root * self.weight)
        x = x + self.down(gate * torch.sigmoid(gate) * self.up(x))
        x = x + self.down(nn.functional.gelu(self.gate(self.norm(x))))
        x = x + self.down(nn.functional.gelu(self.gate(x), approximate="tanh") * self.up(x))
        x = x + self.down(torch.relu(self.gate(x)).square() * self.up(x))
        weights = torch.softmax(x @ x.transpose(-1, -2), -1)
        return weights @ x + torch.log1p(x * x)


GRAPH_OPERATORS = {
    "rms_norm": 1,
    "swiglu": 1,
    "layer_norm": 1,
    "gelu": 1,
    "geglu_tanh": 1,
    "relu_squared_gate": 1,
    "softmax": 1,
}


def block() -> tuple[Block, torch.Tensor]:
    torch.manual_seed(0)
    return Block().eval(), torch.randn(2, 5, 16)


def test_graphs() -> None:
    module, x = block()
    result = odp.rewrite(module, target="triton", example_inputs=x)
    assert operators_in(result.model, x) == GRAPH_OPERATORS
    assert result.report.model.transcendental_after == {}
    assert float((result.model(x) - module(x)).detach().abs().max()) <= 1e-3
    moved = copy.deepcopy(result.model).to(torch.bfloat16)
    assert moved(x.bfloat16()).dtype == torch.bfloat16
    names = {record.name: record.isolated["output"].max_abs for record in result.report.passes}
    assert min(names.values()) > 0.0


def test_an_exported_program_with_operators_is_saved_and_loaded(tmp_path: Any) -> None:
    module, x = block()
    result = odp.rewrite(module, target="triton", example_inputs=x, measure=False)
    program = torch.export.export(result.model, (x,))
    torch.export.save(program, tmp_path / "block.pt2")
    again = torch.export.load(tmp_path / "block.pt2").module()
    assert torch.equal(again(x), result.model(x))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_the_backend_of_torch_compile(backend: str) -> None:
    module, x = block()
    left: list[Any] = []
    torch._dynamo.reset()
    compiled = torch.compile(
        module,
        backend="odp",
        fullgraph=True,
        options={
            "target": "triton",
            "backend": backend,
            "report": lambda sites, remaining: left.append((len(sites), remaining)),
        },
    )
    y = compiled(x)
    assert float((y - module(x)).detach().abs().max()) <= 1e-3
    # log1p alone was left for an expression.
    assert left == [(1, {})]
    y.sum().backward()
    assert module.weight.grad is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "cuda"}, "target is 'torch' or 'triton', not 'cuda'"),
        ({"error": 4e-8, "target": "triton"}, None),
    ],
)
def test_bad_input(options: dict[str, Any], message: str | None) -> None:
    module, x = block()
    if message is None:
        # Less than float32 itself is off by is left to the ordinary pass, and the report says so.
        result = odp.rewrite(module, "silu", example_inputs=x, **options)
        assert operators_in(result.model, x) == {"relu_squared_gate": 1}
        assert any("kernels compute in float32" in line for line in result.report.warnings)
        return
    with pytest.raises(OdpError, match=message):
        odp.rewrite(module, example_inputs=x, **options)


def test_an_onnx_model_has_no_kernels(onnx_text: Any) -> None:
    model = onnx_text("(float[2] x) => (float[2] y) { y = Exp(x) }")
    with pytest.raises(OdpError, match="target 'triton' is for torch modules"):
        odp.rewrite(model, target="triton")
