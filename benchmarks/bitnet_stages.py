"""What the BitNet report measures, stage by stage.

Each stage is a function of a `Study` that returns plain numbers, so that a stage that was finished
is read from its file when the report is made again.
"""

from __future__ import annotations

import copy
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["STAGES", "Study"]

HERE = Path(__file__).parent
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
STEPS, RANK, CIRCUIT_TOKENS, CIRCUIT_ERROR = 300, 16, 4, 0.02


@dataclass
class Study:
    """A BitNet and texts.

    Attributes:
        model: its folder.
        texts: a folder with training.txt, held-out.txt and, if they are installed, the fortunes
            of Debian in fortunes-wisdom.txt.
        folder: for what the stages leave behind.
        context: tokens of a window.
        tokens: of each text that is scored.
        with_real_size: whether the stages at 2.4 billion parameters run.
    """

    model: Path
    texts: Path
    folder: Path
    context: int = 128
    tokens: int = 4096
    with_real_size: bool = True

    @cached_property
    def loaded(self) -> Any:
        """Model and tokenizer; no stage changes them."""
        from odp.evaluation import load_language_model

        return load_language_model(self.model, dtype="float32", attention="eager")

    def text(self, name: str) -> Path:
        """Path of a text."""
        return self.texts / f"{name}.txt"

    def held_out(self) -> list[Path]:
        """Paths of the texts that no training sees."""
        found = [self.text(name) for name in ("held-out", "fortunes-wisdom")]
        return [path for path in found if path.is_file()]

    def ids(self, name: str, windows: int) -> Any:
        """The beginning of a text, tokens (windows, context)."""
        import torch

        content = self.text(name).read_text(encoding="utf-8")
        found = self.loaded.tokenizer(content, verbose=False)["input_ids"]
        wanted = found[: windows * self.context]
        return torch.tensor(wanted).view(windows, self.context)


def surgery(study: Study) -> dict[str, Any]:
    """What is found and replaced."""
    import odp
    from odp.rewriter.statistics import statistics

    config = study.loaded.model.config
    result = odp.rewrite(
        study.loaded.model,
        calibration={"input_ids": study.ids("training", 1), "use_cache": False},
        measure=False,
        share_parameters=True,
    )
    found = statistics(result.report)
    return {
        "norms": found.norms,
        "softmaxes": found.softmaxes,
        "rotary_embeddings": found.rotary_embeddings,
        "left": result.report.model.transcendental_after,
        "layers": config.num_hidden_layers,
        "hidden": config.hidden_size,
        "intermediate": config.intermediate_size,
        "vocabulary": config.vocab_size,
        "parameters": sum(p.numel() for p in study.loaded.model.parameters()),
        "training": _training(study.model),
    }


def _training(model: Path) -> dict[str, Any] | None:
    file = model / "training.json"
    return json.loads(file.read_text()) if file.is_file() else None


def perplexity(study: Study) -> dict[str, Any]:
    """Ours, ours with domains from next to nothing, and the choices of the seed."""
    import odp
    from odp.cli.language_model import PRESETS
    from odp.evaluation import evaluate, read_texts

    loaded, training = study.loaded, study.text("training")

    def rewritten(passes: str = "all", samples: int = 16) -> Any:
        return odp.rewrite(
            loaded.model,
            passes,
            calibration=training,
            tokenizer=loaded.tokenizer,
            context=study.context,
            samples=samples,
            measure=False,
            share_parameters=True,
        ).model

    variants = {
        "ODP": rewritten(),
        "ODP, domains from one window": rewritten(samples=1),
        "the seed's choices": rewritten(PRESETS["report"]),
    }
    found = evaluate(
        loaded.model,
        variants,
        loaded.tokenizer,
        read_texts(study.held_out()),
        context=study.context,
        max_tokens=study.tokens,
        layers=False,
        speed=False,
    )
    return json.loads(found.to_json())


def healing(study: Study) -> dict[str, Any]:
    """The seed's surgery healed with KL, and with the seed's loss: the text alone."""
    import dataclasses

    import odp
    from odp.cli.language_model import PRESETS
    from odp.healing.settings import preset

    tree = {}
    for name, rate in (("default", 1e-3), ("seed", 1e-3)):
        settings = dataclasses.replace(
            preset(name),
            steps=STEPS,
            batch_size=8,
            accumulation=1,
            context=study.context,
            rank=RANK,
            alpha=2.0 * RANK,
            learning_rate=rate,
        )
        place = study.folder / f"healed-{name}"
        healed = odp.heal(
            study.loaded.model,
            study.loaded.tokenizer,
            [study.text("training")],
            place,
            held_out=study.held_out(),
            settings=settings,
            passes=PRESETS["report"],
            calibrate_context=study.context,
            samples=16,
            context=study.context,
            max_tokens=study.tokens,
            resume=place.exists(),
            device="cpu",
        )
        assert healed.controls is not None and healed.control is not None
        tree[name] = {
            "settings": settings.to_dict(),
            "trained": asdict(healed.trained),
            "control": asdict(healed.control),
            "controls": healed.controls.to_dict(),
        }
    return tree


def merging(study: Study) -> dict[str, Any]:
    """A random adapter and the healed one: merged beside unmerged, in three ways and ours."""
    import torch

    import odp
    from odp.healing.bitnet_adapters import random_adapter
    from odp.healing.merge_check import check_merge

    ids = study.ids("held-out", 2)
    tree = {}
    for dtype in ("float32", "float64"):
        model = copy.deepcopy(study.loaded.model).to(getattr(torch, dtype))
        check = check_merge(random_adapter(model, TARGETS, RANK, 0.05), ids)
        tree[f"random, {dtype}"] = asdict(check) | {"is_equal": check.is_equal}
    healed = odp.load_healed(
        study.loaded.model, study.folder / "healed-default", study.loaded.tokenizer
    )
    check = check_merge(healed, ids)
    tree["healed, float32"] = asdict(check) | {"is_equal": check.is_equal}
    return tree


def inference(study: Study) -> dict[str, Any]:
    """Original, surgery and healed side by side: predictions, answers, tokens per second."""
    from odp.evaluation import read_texts
    from odp.healing_comparison import compare_healed

    found = compare_healed(
        study.loaded,
        [study.folder / "healed-default"],
        read_texts([study.text("held-out")]),
        context=study.context,
        max_tokens=study.tokens,
        new_tokens=24,
    )
    return json.loads(found.to_json())


def ternary(study: Study) -> dict[str, Any]:
    """Merged weights, ternary again."""
    import torch

    from odp.healing.bitnet_adapters import random_adapter
    from odp.healing.merging import merge_adapters
    from odp.healing.ternary import TernarySettings, ternarise

    training = study.ids("training", 320)
    held_out = study.ids("held-out", 16)
    generator = torch.Generator().manual_seed(0)
    tree = {}
    for strength, rate in ((0.3, 0.01), (0.3, 0.05), (0.05, 0.05)):
        adapted = random_adapter(copy.deepcopy(study.loaded.model), TARGETS, RANK, strength)
        order = torch.randperm(len(training), generator=generator)
        price = ternarise(
            merge_adapters(adapted),
            list(training[order].split(8)),
            held_out,
            TernarySettings(rate=rate),
        )
        tree[f"{strength:.0%}, rate {rate:g}"] = asdict(price)
    return tree


def circuit(study: Study) -> dict[str, Any]:
    """The first decoder layer without the quantisers of its activations, compiled and proven."""
    from odp.backends.ezkl.artefacts import CircuitFolder
    from odp.backends.ezkl.prover import prove
    from odp.circuit_comparison import srs_folder
    from odp.circuits import compile_circuit
    from odp.healing.circuit_layers import quantiser_error, without_activation_quantisers

    model = study.loaded.model
    bare = copy.deepcopy(model)
    without_activation_quantisers(bare)
    difference, divergence = quantiser_error(model, bare, study.ids("held-out", 16))
    file, data = _exported(study, bare)
    compiled = compile_circuit(file, calibration=data, error=CIRCUIT_ERROR)
    place = study.folder / "layer.circuit"
    compiled.save(place)
    predicted = compiled.compiled.cost.resources
    tree: dict[str, Any] = {
        "tokens": CIRCUIT_TOKENS,
        "without_quantisers": {"logits": difference, "kl": divergence},
        "rows": compiled.compiled.cost.rows,
        "logrows": compiled.compiled.arguments.logrows,
        "tables": len(compiled.compiled.cost.lookups),
        "error": compiled.compiled.error,
        "predicted_memory": predicted.peak_memory,
        "predicted_key": predicted.proving_key,
    }
    run = prove(CircuitFolder(place), srs_folder=srs_folder())
    tree["proof"] = {
        "setup_seconds": run.seconds("setup"),
        "prove_seconds": run.seconds("prove"),
        "proving_key": run.sizes["pk.key"],
        "peak_memory": run.peak_memory,
        "witness_equals_our_integers": run.witness_error is None,
        "verified": run.verified,
    }
    # A key of some gigabytes that nobody needs any more.
    (place / "pk.key").unlink()
    return tree


def _exported(study: Study, bare: Any) -> tuple[Path, Path]:
    """The first layer as ONNX, and eight of its inputs, from real text."""
    import torch
    from decoder_layer_models import FixedLayer

    samples, tokens = 8, CIRCUIT_TOKENS
    layer = FixedLayer(
        bare.model.layers[0], bare.model.rotary_emb, tokens, bare.config.hidden_size
    ).eval()
    ids = study.ids("training", 1)[0, : samples * tokens].view(samples, 1, tokens)
    file, data = study.folder / "layer.onnx", study.folder / "layer.npz"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = torch.stack([bare.model.embed_tokens(one) for one in ids]).float()
        np.savez(data, x=inputs.numpy())
        torch.onnx.export(
            layer,
            (inputs[0],),
            str(file),
            opset_version=12,
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
        )
    return file, data


def configuration(study: Study) -> dict[str, Any] | None:
    """Surgery at 2.4 billion parameters, in a process of its own."""
    return _script("bitnet_configuration.py") if study.with_real_size else None


def training_step(study: Study) -> dict[str, Any] | None:
    """One step of training at 2.4 billion parameters, in a process of its own."""
    return _script("bitnet_training_step.py") if study.with_real_size else None


def _script(name: str) -> dict[str, Any]:
    run = subprocess.run([sys.executable, str(HERE / name)], check=False, stdout=sys.stderr)
    # 1 says that a demand was missed, which the page shows.
    if run.returncode not in (0, 1):
        raise SystemExit(f"error: {name} ended with exit code {run.returncode}")
    return json.loads((HERE / "results" / name).with_suffix(".json").read_text())


STAGES: dict[str, Callable[[Study], dict[str, Any] | None]] = {
    "surgery": surgery,
    "perplexity": perplexity,
    "healing": healing,
    "merging": merging,
    "inference": inference,
    "ternary": ternary,
    "circuit": circuit,
    "configuration": configuration,
    "training_step": training_step,
}
"""In the order of the report; `merging` and `inference` take what `healing` leaves."""
