"""A training in each of several processes: `torchrun tests/healing/several_processes.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.healing.rewritten_models import SETTINGS, heal

if __name__ == "__main__":
    import dataclasses

    torch.set_num_threads(1)
    settings = dataclasses.replace(SETTINGS, dropout=0.0, batch_size=2, steps=4)
    _, trained = heal(Path(sys.argv[1]), settings, checkpoint_every=2)
    assert trained.windows == 16, trained
