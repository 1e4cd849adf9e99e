"""An evaluation with everything in it, infinities included."""

from __future__ import annotations

import math

from odp.evaluation.record import (
    Answer,
    Difference,
    Evaluation,
    Generation,
    ModelRecord,
    Perplexity,
    SpeedRecord,
    TaskScore,
    WindowRecord,
)


def sample() -> Evaluation:
    """A good variant and a broken one."""
    broken = Perplexity(120, math.inf, 7)
    undefined = Difference(math.inf, math.inf, math.inf, 0.25, 0.125, 0.0625, math.inf, math.inf)
    return Evaluation(
        version="1.2.3",
        windows=WindowRecord(64, 32, 1, 1000),
        original=ModelRecord(
            name="original",
            architecture="LlamaForCausalLM",
            parameters=134_515_008,
            dtype="bfloat16",
            device="cuda:0",
            texts={"a text": Perplexity(100, 12.5, 0), "b text": Perplexity(20, 14.5, 0)},
            total=Perplexity(120, 12.75, 0),
            speed=SpeedRecord(1234.5, 56.75, 1.0, 1.0),
        ),
        variants=[
            ModelRecord(
                name="rational",
                architecture="LlamaForCausalLM",
                parameters=134_515_008,
                dtype="bfloat16",
                device="cuda:0",
                texts={"a text": Perplexity(100, 12.50125, 0), "b text": Perplexity(20, 14.5, 0)},
                total=Perplexity(120, 12.751, 0),
                differences={
                    "a text": Difference(1e-4, 2.5e-5, 1.5e-3, 0.99, 0.996, 0.998, 0.957, 0.5),
                    "b text": Difference(0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0),
                },
                difference=Difference(8e-5, 2e-5, 1.5e-3, 0.9916, 0.9966, 0.999, 1 - 2.5e-7, 0.5),
                layer_errors=[1e-6, 2.5e-5],
                speed=SpeedRecord(617.25, 28.375, 0.5, 0.5),
            ),
            ModelRecord(
                name="broken",
                architecture="LlamaForCausalLM",
                parameters=134_515_008,
                dtype="bfloat16",
                device="cuda:0",
                texts={"a text": broken, "b text": broken},
                total=broken,
                differences={"a text": undefined, "b text": undefined},
                difference=undefined,
                layer_errors=[1e-3, math.inf],
                speed=SpeedRecord(617.25, 28.375, 0.5, 0.5),
            ),
        ],
        generations=[
            Generation(
                prompt="What is [bold]gravity[/bold]?",
                chat=True,
                answers={
                    "original": Answer([5, 6], "A force."),
                    "rational": Answer([5, 6], "A force."),
                    "broken": Answer([5, 9], "A [farce].", 1),
                },
            )
        ],
        tasks=[
            TaskScore(
                task="arc_easy",
                metric="acc",
                higher_is_better=True,
                samples=2376,
                shots=0,
                values={"original": 0.625, "rational": 0.5, "broken": 0.75},
                stderr={"original": 0.01, "rational": 0.01, "broken": None},
                differences={"rational": -0.125, "broken": 0.125},
            )
        ],
        warnings=["one thing", "and another"],
    )
