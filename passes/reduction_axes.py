"""The axes of a reduction: numbers where they are stored, a value where they are computed."""

from __future__ import annotations

from collections.abc import Sequence

from odp.rewriter.graph import Node, Value
from odp.rewriter.rewrite_pass import Refusal

__all__ = ["reduction_axes"]


def reduction_axes(reduction: Node) -> Sequence[int] | Value:
    """What `Builder.reduce` needs to reduce over the same axes as `reduction`.

    Raises:
        Refusal: the axes are not known, or may turn out to be none at run time.
    """
    axes: tuple[int, ...] | None = reduction.attributes["axes"]
    if axes is not None:
        return axes
    computed = reduction.inputs[1] if len(reduction.inputs) > 1 else None
    if computed is None or reduction.attributes["identity_when_empty"]:
        raise Refusal("the rank of the input or the axes are not known at rewriting time")
    return computed
