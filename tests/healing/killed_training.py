"""A training to be killed: `python -m tests.healing.killed_training FOLDER` (test_kill.py)."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from tests.healing.rewritten_models import heal

if __name__ == "__main__":
    torch.set_num_threads(1)
    # Slow enough to be killed in the middle of whatever it does.
    heal(Path(sys.argv[1]), checkpoint_every=1, progress=lambda done, total: time.sleep(0.2))
