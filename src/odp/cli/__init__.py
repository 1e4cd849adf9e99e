"""The command line: `odp-rewrite`, the main job, and `odp`, everything else."""

from odp.cli.entry import main, rewrite_main

__all__ = ["main", "rewrite_main"]
