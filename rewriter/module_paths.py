"""Where in a torch module a node of an ONNX graph came from."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

__all__ = ["MODULE", "is_at_end", "module_path_of"]

MODULE = "odp.module"
"""Metadata of nodes that stand for another: the path of the other's module."""

_SCOPES = "pkg.torch.onnx.name_scopes"


def module_path_of(name: str, properties: Mapping[str, str]) -> str:
    """The path of a node's module, as far as it is written down; empty if it is not.

    The dynamo exporter writes a list of nested scopes; TorchScript names its nodes by them.

    Args:
        name: of the node.
        properties: its metadata.

    >>> module_path_of("/encoder/layer.0/Softmax", {})
    'encoder.layer.0'
    """
    if MODULE in properties:
        return properties[MODULE]
    scopes = properties.get(_SCOPES)
    if scopes:
        try:
            listed = ast.literal_eval(scopes)
        except (SyntaxError, ValueError):
            return ""
        return next((str(s) for s in reversed(listed[:-1]) if s), "") if listed else ""
    return ".".join(name.split("/")[1:-1]) if name.startswith("/") else ""


def is_at_end(path: str, ends: Iterable[str]) -> bool:
    """Whether a module's path is, or ends with, one of some names.

    >>> is_at_end("layer.self_attn.q_proj", ["q_proj"]), is_at_end("layer.seq_proj", ["q_proj"])
    (True, False)
    """
    return any(path == end or path.endswith(f".{end}") for end in ends)
