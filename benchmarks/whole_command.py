"""Time of every stage of `odp.rewrite`, calibration and measurement included.

python benchmarks/whole_command.py model.onnx inputs.npz --passes all
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

import odp


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.argument("calibration", type=click.Path(path_type=Path, exists=True))
@click.option("--passes", default="all")
@click.option("--samples", default=4)
def main(model: Path, calibration: Path, passes: str, samples: int) -> None:
    """Rewrite one model and print JSON: seconds by stage."""
    stages: dict[str, float] = {}
    last = time.perf_counter()

    def progress(what: str, done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        # A stage begins with done = 0; what passed before belongs to the stage that ended.
        stage = what if done else "between stages"
        stages[stage] = stages.get(stage, 0.0) + now - last
        last = now

    result = odp.rewrite(model, passes, calibration=calibration, samples=samples, progress=progress)
    progress("total error", 1, 1)
    error = {name: metrics.relative_l2 for name, metrics in result.report.total.items()}
    print(json.dumps({"stages": stages, "samples": samples, "relative_l2": error}))


if __name__ == "__main__":
    main()
