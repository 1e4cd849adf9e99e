"""Running a rewritten graph, in eager mode and while torch.export looks on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.fx import traceback as fx_traceback

__all__ = ["call_graph"]


def call_graph(graph: fx.GraphModule, inputs: Sequence[Any]) -> Any:
    """What `graph` returns for `inputs`.

    Under torch.export node by node, because only then do the nodes of the exported program get the
    tags that say from which pass and site they come.
    """
    if torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling():
        with fx_traceback.preserve_node_meta():
            return fx.Interpreter(graph).run(*inputs)
    return graph(*inputs)
