"""BitNet b1.58-2B-4T at its real size, with random weights: how long and how much memory.

    python benchmarks/bitnet_configuration.py

2.4 billion parameters in bfloat16, 30 layers, 121 RMSNorms, 30 softmaxes and rotary positions are
found and rewritten in a fresh process.  The demands: all of them, within 24 GB and 3 minutes of
wall time, the making of the random model not counted.
"""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

import click
from environment import environment
from rich.console import Console

RESULTS = Path(__file__).parent / "results" / "bitnet_configuration.json"
SECONDS, BYTES = 180.0, 24e9


@click.command()
@click.option("--tokens", default=16, show_default=True, help="Of the calibration input.")
def main(tokens: int) -> None:
    """Make the model, rewrite it, and count."""
    import torch
    from transformers import BitNetConfig, BitNetForCausalLM

    import odp
    from odp.rewriter.statistics import statistics

    console = Console()
    torch.manual_seed(0)
    configuration = BitNetConfig(tie_word_embeddings=True)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    model = BitNetForCausalLM(configuration).eval()
    torch.set_default_dtype(previous)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    ids = torch.randint(configuration.vocab_size, (1, tokens))
    started = time.perf_counter()
    result = odp.rewrite(
        model,
        "rsqrt,exp,rope",
        calibration={"input_ids": ids, "use_cache": False},
        measure=False,
        share_parameters=True,
    )
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found, report = statistics(result.report), result.report
    with torch.no_grad():
        before = model(input_ids=ids, use_cache=False).logits.float()
        after = result.model(input_ids=ids, use_cache=False).logits.float()
    difference = float((after - before).norm() / before.norm())
    console.print(f"{parameters / 1e9:.3f} billion parameters, {model.dtype}")
    console.print(f"replaced {found.parts()}; eliminated {found.operations()}")
    console.print(f"left: {report.model.transcendental_after or 'nothing'}")
    console.print(f"relative l2 difference of the logits (bfloat16): {difference:.1e}")
    console.print(f"{seconds / SECONDS:.0%} of 3 minutes, {peak / BYTES:.0%} of 24 GB")
    tree = {
        "environment": environment(),
        "parameters": parameters,
        "statistics": report.statistics,
        "left": report.model.transcendental_after,
        "relative_l2": difference,
        "share_of_3_minutes": seconds / SECONDS,
        "share_of_24_gb": peak / BYTES,
    }
    RESULTS.write_text(json.dumps(tree, indent=1))
    complete = (found.norms, found.softmaxes, found.rotary_embeddings) == (121, 30, 1)
    met = complete and not report.model.transcendental_after
    raise SystemExit(0 if met and seconds <= SECONDS and peak <= BYTES else 1)


if __name__ == "__main__":
    main()
