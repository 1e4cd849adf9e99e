"""A small BitNet, trained here in minutes: ternary weights, 8-bit activations, real text.

Nobody packages the weights of BitNet b1.58-2B-4T, so this makes a model of the same architecture
that is small enough to train on two cores: transformers' BitNetForCausalLM whose linear layers are
its AutoBitLinear, which rounds weights to -s, 0 and s and activations to 8 bits in every forward
and trains through both roundings straight.  The text is the language reference that every Python
carries, or what `--text` names; the tokenizer is made of the same text.

    python examples/small_bitnet.py train small-bitnet/
    python examples/small_bitnet.py texts texts/
    odp evaluate small-bitnet/ --calibrate texts/training.txt --text texts/held-out.txt
    odp heal check-merge small-bitnet/

Run twice on one machine with the same options it writes the same weights.  The folder is what
`AutoModelForCausalLM.from_pretrained` loads.  Needs the extra `demo`.

Source of the recipe: S. Ma et al., "The Era of 1-bit LLMs", 2024, and its training tips: a large
learning rate, and straight-through gradients.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))

from smollm2 import calibration_text, held_out_texts

if TYPE_CHECKING:
    import torch
    from transformers import BitNetForCausalLM, PreTrainedTokenizerFast

BEGIN, END = "<s>", "</s>"


@dataclass(frozen=True)
class Recipe:
    """How the model is made.  The defaults take some minutes on two cores.

    Attributes:
        seed: of the weights and of the order of the text.
        steps: optimiser steps.
        batch: windows in a step.
        context: tokens in a window.
        learning_rate: the highest; it rises for a twentieth of the steps and falls as a cosine.
        vocabulary: tokens, 256 bytes and 2 special ones among them.
        hidden: channels.
        intermediate: channels inside the feed-forward.
        layers: decoder layers.
        heads: attention heads.
        key_value_heads: heads of keys and values.
        threads: of torch.  Sums depend on it in their last bits, and one is as fast as two on
            matrices this small.
    """

    seed: int = 0
    steps: int = 600
    batch: int = 16
    context: int = 128
    learning_rate: float = 4e-3
    vocabulary: int = 1024
    hidden: int = 128
    intermediate: int = 384
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    threads: int = 1


def make_tokenizer(text: str, vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Byte-pair encoding of bytes, so that no text is unknown; the pairs are those of `text`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BEGIN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    pairs.train_from_iterator(text.split("\n\n"), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=pairs, bos_token=BEGIN, eos_token=END, model_max_length=context
    )


def untrained(recipe: Recipe, vocabulary: int) -> BitNetForCausalLM:
    """A BitNet with random weights whose linear layers quantise online."""
    import torch
    from transformers import BitNetConfig, BitNetForCausalLM, BitNetQuantConfig
    from transformers.integrations.bitnet import AutoBitLinear

    torch.manual_seed(recipe.seed)
    model = BitNetForCausalLM(
        BitNetConfig(
            vocab_size=vocabulary,
            hidden_size=recipe.hidden,
            intermediate_size=recipe.intermediate,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.key_value_heads,
            # Windows for training are shorter; rotary positions hold beyond them for a while.
            max_position_embeddings=2 * recipe.context,
            bos_token_id=0,
            eos_token_id=1,
            tie_word_embeddings=True,
            attn_implementation="eager",
        )
    )
    for name, linear in list(model.named_modules()):
        if isinstance(linear, torch.nn.Linear) and name != "lm_head":
            quantised = AutoBitLinear(
                linear.in_features, linear.out_features, bias=False, online_quant=True
            )
            quantised.weight = linear.weight
            model.set_submodule(name, quantised)
    # With it `from_pretrained` makes the same layers again.
    model.config.quantization_config = BitNetQuantConfig(
        modules_to_not_convert=["lm_head"],
        linear_class="autobitlinear",
        quantization_mode="online",
    )
    return model


def train(
    recipe: Recipe,
    text: str,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> tuple[BitNetForCausalLM, PreTrainedTokenizerFast, list[float]]:
    """Make a tokenizer and a model from a text.

    Args:
        recipe: sizes and settings.
        text: at least one window long.
        progress: called after every step with its number from 1 and its loss.

    Returns:
        The model in evaluation mode, its tokenizer, and the loss of every step in nats a token.

    Raises:
        ClickException: the text is shorter than a window, or the loss is not finite.
    """
    import torch

    torch.set_num_threads(recipe.threads)
    tokenizer = make_tokenizer(text, recipe.vocabulary, 2 * recipe.context)
    tokens = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    if len(tokens) <= recipe.context:
        raise click.ClickException(
            f"the text has {len(tokens)} tokens; one window needs {recipe.context + 1}"
        )
    model = untrained(recipe, len(tokenizer)).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe.steps))
    losses: list[float] = []
    # The quantisers of transformers are compiled when they are first called, which takes longer
    # than they save here.
    with torch.compiler.set_stance("force_eager"):
        for step, batch in enumerate(_batches(tokens, recipe), 1):
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise click.ClickException(f"the loss of step {step} is {losses[-1]}")
            progress(step, losses[-1])
    return model.eval(), tokenizer, losses


def _rate(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _batches(tokens: torch.Tensor, recipe: Recipe) -> Iterator[torch.Tensor]:
    import torch

    generator = torch.Generator().manual_seed(recipe.seed)
    inside = torch.arange(recipe.context)
    for _ in range(recipe.steps):
        starts = torch.randint(len(tokens) - recipe.context, (recipe.batch, 1), generator=generator)
        yield tokens[starts + inside]


def save(folder: Path, model: Any, tokenizer: Any, record: dict[str, Any]) -> None:
    """Write the model; the folder appears under its name when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".odp-"))
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / "training.json").write_text(json.dumps(record, indent=1))
        # As a user would have made them, not as temporary files are.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        for file in temporary.iterdir():
            file.chmod(0o666 & ~umask)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def digest(model: torch.nn.Module) -> str:
    """SHA-256 of all parameters, by which two runs are compared."""
    found = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        found.update(name.encode())
        found.update(parameter.detach().float().numpy().tobytes())
    return found.hexdigest()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train a small BitNet from text that is on this machine."""


@main.command("train")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--text",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Text to train on (UTF-8), repeatable. Default: Python's language reference.",
)
@click.option("--steps", default=Recipe.steps, show_default=True, type=click.IntRange(1))
@click.option("--layers", default=Recipe.layers, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=Recipe.seed, show_default=True)
def train_command(folder: Path, files: Sequence[Path], steps: int, layers: int, seed: int) -> None:
    """Train the model and write it to FOLDER."""
    if folder.exists():
        raise click.ClickException(f"'{folder}' exists; name a new folder")
    recipe = Recipe(seed=seed, steps=steps, layers=layers)
    text = "\n\n".join(file.read_text(encoding="utf-8") for file in files) or calibration_text()
    console, started = Console(stderr=True), time.perf_counter()

    def show(step: int, loss: float) -> None:
        if step % 50 == 0 or step == steps:
            seconds = time.perf_counter() - started
            console.print(f"step {step} of {steps}: loss {loss:.3f}, {seconds:.0f} s")

    model, tokenizer, losses = train(recipe, text, show)
    last = losses[-50:]
    record = {
        "recipe": asdict(recipe),
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "weights_sha256": digest(model),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "loss_of_the_last_steps": sum(last) / len(last),
        "seconds": time.perf_counter() - started,
    }
    save(folder, model, tokenizer, record)
    click.echo(json.dumps({key: record[key] for key in record if key != "recipe"}, indent=1))


@main.command("texts")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def texts_command(folder: Path) -> None:
    """Write the training text, and those that it never shows, to FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "training.txt").write_text(calibration_text(), encoding="utf-8")
    for name, text in held_out_texts().items():
        file = "held-out" if name.startswith("Python") else name.replace(": ", "-")
        (folder / f"{file}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
