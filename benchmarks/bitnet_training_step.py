"""A training step of BitNet b1.58-2B-4T at its real size: surgery, adapter, peak memory.

    python benchmarks/bitnet_training_step.py                    # 2.4 billion parameters
    python benchmarks/bitnet_training_step.py --layers 2         # the same widths, two layers

Random ternary weights in bfloat16, since no package carries the real ones; memory does not depend
on them.  Norms, softmaxes and rotary positions are rewritten, q, k, v and o get a mergeable
adapter in float32, and one step of AdamW is made with checkpointed activations.  The demands: the
loss and all gradients are finite, and the peak of the process is at most 24 GB.  With fewer layers
the peak of all 30 is extrapolated from what `needed` counts, and named so.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import click
from environment import environment
from rich.console import Console

RESULTS = Path(__file__).parent / "results" / "bitnet_training_step.json"
BYTES = 24e9
LAYERS = 30


def peak() -> float:
    """Largest memory of this process since the last call, bytes; since its start elsewhere."""
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM"))
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return int(line.split()[1]) * 1024.0


def needed(layers: int, tokens: int, rank: int) -> dict[str, float]:
    """Bytes that a step needs beside the libraries, by what for.

    Args:
        layers: decoder layers.
        tokens: of the batch.
        rank: of the adapter.
    """
    hidden, inner, keys, vocabulary = 2560, 6912, 640, 128256
    linear = 2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * inner
    adapter = layers * rank * (2 * (hidden + hidden) + 2 * (hidden + keys))
    return {
        "weights, bfloat16": 2.0 * (layers * linear + vocabulary * hidden),
        # Value, gradient, two moments of AdamW.
        "adapter, float32": 16.0 * adapter,
        "inputs of layers": 2.0 * layers * tokens * hidden,
        # Quantising in float32 keeps about six copies of each input of one layer at a time.
        "one layer again": 24.0 * tokens * (6 * hidden + inner) + 12.0 * tokens * inner,
        # bfloat16 and float32, logarithms of probabilities and gradients of each.
        "logits": 16.0 * tokens * vocabulary,
    }


@click.command()
@click.option("--layers", default=LAYERS, show_default=True, type=click.IntRange(1, LAYERS))
@click.option("--tokens", default=128, show_default=True, type=click.IntRange(2, 2048))
@click.option("--rank", default=16, show_default=True, type=click.IntRange(1))
def main(layers: int, tokens: int, rank: int) -> None:
    """Make the model, rewrite it, adapt it, and train one step."""
    import torch
    from peft import LoraConfig, get_peft_model

    import odp
    from odp.healing.bit_linear import see_quantised
    from odp.rewriter.statistics import statistics

    console = Console()
    wanted = sum(needed(layers, tokens, rank).values())
    available = _available()
    if wanted > available:
        raise click.ClickException(
            f"about {wanted / 1e9:.1f} GB are needed and {available / 1e9:.1f} GB are free"
        )
    # Compiling the quantisers would take longer than the step.
    torch.compiler.set_stance("force_eager")
    torch.manual_seed(0)
    libraries = peak()
    model = random_bitnet(layers)
    made = peak()
    ids = torch.randint(model.config.vocab_size, (1, tokens))
    started = time.perf_counter()
    result = odp.rewrite(
        model,
        "rsqrt,exp,rope",
        calibration={"input_ids": ids[:, :16], "use_cache": False},
        measure=False,
        share_parameters=True,
    )
    rewritten, surgery = peak(), time.perf_counter() - started
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    adapted = get_peft_model(
        result.model, see_quantised(LoraConfig(r=rank, target_modules=targets))
    )
    adapted.enable_input_require_grads()
    adapted.gradient_checkpointing_enable({"use_reentrant": False})
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    started = time.perf_counter()
    loss = adapted.train()(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    finite = all(p.grad is not None and bool(p.grad.isfinite().all()) for p in trained)
    optimizer.step()
    step, most = time.perf_counter() - started, peak()
    found = statistics(result.report)
    tree = {
        "environment": environment(),
        "layers": layers,
        "tokens": tokens,
        "rank": rank,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for p in trained),
        "replaced": found.parts(),
        "left": result.report.model.transcendental_after,
        "loss": loss.item(),
        "gradients_finite": finite,
        "seconds": {"surgery": surgery, "step": step},
        "peak_bytes": {
            "libraries": libraries,
            "model": made,
            "surgery": rewritten,
            "step": most,
        },
        "needed_bytes": needed(layers, tokens, rank),
    }
    console.print(f"{tree['parameters'] / 1e9:.3f} billion parameters, {tree['trained']:,} trained")
    console.print(f"replaced {tree['replaced']}; left: {tree['left'] or 'nothing'}")
    console.print(f"loss {loss.item():.3f}, gradients finite: {finite}, {step:.0f} s a step")
    console.print(
        f"peaks: libraries {libraries / 1e9:.2f} GB, making the model {made / 1e9:.2f}, surgery "
        f"{rewritten / 1e9:.2f}, step {most / 1e9:.2f}; counted {(libraries + wanted) / 1e9:.2f}"
    )
    full = max(made, rewritten, most)
    if layers == LAYERS:
        RESULTS.write_text(json.dumps(tree, indent=1))
    else:
        full += sum(needed(LAYERS, tokens, rank).values()) - wanted
        console.print(f"extrapolated to {LAYERS} layers, not run: {full / 1e9:.1f} GB")
    raise SystemExit(0 if finite and not tree["left"] and full <= BYTES else 1)


def random_bitnet(layers: int):
    """A BitNet with the widths of the real one and random offline ternary weights."""
    import torch
    from transformers import BitNetConfig, BitNetForCausalLM, BitNetQuantConfig
    from transformers.integrations.bitnet import AutoBitLinear

    configuration = BitNetConfig(tie_word_embeddings=True, num_hidden_layers=layers)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = BitNetForCausalLM(configuration)
    finally:
        torch.set_default_dtype(previous)
    for path, linear in list(model.named_modules()):
        if isinstance(linear, torch.nn.Linear) and path != "lm_head":
            with torch.device("meta"):
                made = AutoBitLinear(linear.in_features, linear.out_features, bias=False)
            # In place: normal numbers become their signs, or zero if they are small.
            weight = linear.weight.data
            scale = weight.abs().mean()
            weight.div_(scale).round_().clamp_(-1, 1)
            made.weight = torch.nn.Parameter(weight, requires_grad=False)
            made.weight_scale = scale.reshape(1)
            model.set_submodule(path, made)
    model.config.quantization_config = BitNetQuantConfig(
        modules_to_not_convert=["lm_head"],
        linear_class="autobitlinear",
        quantization_mode="offline",
    )
    return model.eval()


def _available() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024.0


if __name__ == "__main__":
    main()
