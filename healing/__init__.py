"""Train away what rewriting changed: low-rank adapters, and the controls that say what they did.

    from odp.healing import HealingSettings, TrainingWindows, attach_adapter, train_adapter

    adapted = attach_adapter(rewritten, settings := HealingSettings(steps=300))
    windows = TrainingWindows(["train.txt"], tokenizer, context=256, seed=0)
    train_adapter(adapted, original, windows, settings, folder)

`odp.heal` does all of it, rewriting and controls included.  peft and accelerate (the extra `heal`)
are loaded when something is trained.
"""

from odp.healing.adapters import attach_adapter, load_adapter, save_adapter, sharing_copy
from odp.healing.checkpoint import Checkpoint, Checkpoints
from odp.healing.identity import Identity
from odp.healing.log import plot_logs, read_log
from odp.healing.settings import PRESETS, HealingSettings, preset
from odp.healing.training import Trained, train_adapter
from odp.healing.training_windows import TrainingWindows

__all__ = [
    "PRESETS",
    "Checkpoint",
    "Checkpoints",
    "HealingSettings",
    "Identity",
    "Trained",
    "TrainingWindows",
    "attach_adapter",
    "load_adapter",
    "plot_logs",
    "preset",
    "read_log",
    "save_adapter",
    "sharing_copy",
    "train_adapter",
]
