"""What keeps a model from becoming a circuit: all of it in one message, before EZKL is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from odp.approximations.errors import OdpError

__all__ = ["CircuitRefused", "Problem", "advice_for", "input_problem"]

_LISTED = 10
_COMPARISONS = frozenset(
    {
        *("And", "Or", "Xor", "Not", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"),
        *("Sign", "IsNaN", "IsInf", "Floor", "Ceil", "Round", "Mod"),
    }
)
_BODIES = frozenset({"If", "Loop", "Scan"})
_CHOICES = frozenset({"ArgMax", "ArgMin", "TopK", "NonZero", "Unique", "NonMaxSuppression"})
_RANDOM = "Random"
# Operators of ONNX whose pass has another name.
_PASSES = {
    "Gelu": "gelu",
    "InstanceNormalization": "instance_norm",
    "LayerNormalization": "layer_norm",
    "LogSoftmax": "log_softmax",
    "RMSNormalization": "rms_norm",
}


@dataclass(frozen=True)
class Problem:
    """One reason why a model is no circuit.

    Attributes:
        where: name and module path of the node, or name of the input.
        operator: of ONNX; empty for an input.
        advice: what is wrong, and what to do.
    """

    where: str
    operator: str
    advice: str

    def __str__(self) -> str:
        if not self.operator:
            return f"{self.where} {self.advice}"
        return f"{self.where} is a {self.operator}: {self.advice}"


class CircuitRefused(OdpError):
    """A model has parts that no circuit has.

    Attributes:
        problems: all of them, in the order of the graph.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.lines))

    @property
    def lines(self) -> tuple[str, ...]:
        """A summary and a line for each problem, up to ten; one line for a single problem."""
        if len(self.problems) == 1:
            return (str(self.problems[0]),)
        lines = [f"{len(self.problems)} parts of the model cannot go into a circuit"]
        lines += [str(problem) for problem in self.problems[:_LISTED]]
        if len(self.problems) > _LISTED:
            lines.append(f"and {len(self.problems) - _LISTED} more")
        return tuple(lines)


def advice_for(node: onnx.NodeProto) -> str:
    """What to do about an operator that no circuit of + - * has.

    Args:
        node: of ONNX.
    """
    from odp.passes import registry

    kind = node.op_type
    if node.domain not in ("", "ai.onnx"):
        return (
            f"an operator of '{node.domain}'; export the model without fusing operators, or turn "
            "off the optimiser that fused them"
        )
    name = _PASSES.get(kind, kind.lower())
    if name in registry():
        return f"no circuit of + - * can compute it; add pass '{name}'"
    if kind == "Round":
        return (
            "a circuit rounds where it rescales, and nowhere else; 8-bit activations of a BitNet "
            "are left out by odp.healing.circuit_layers.without_activation_quantisers"
        )
    if kind in _COMPARISONS:
        return "a circuit has no comparisons; compute it outside, or store its result in the model"
    if kind in _BODIES:
        return "a circuit has no control flow; export the model with its loops unrolled"
    if kind in _CHOICES:
        return "a circuit chooses nothing; end the model before it, and choose outside"
    if kind.startswith(_RANDOM):
        return "a circuit computes the same every time; make the numbers an input"
    return "no circuit of + - * can compute it; export it as other operators, or take it out"


def input_problem(value: onnx.ValueInfoProto, graph: onnx.GraphProto) -> Problem | None:
    """What is wrong with an input of a model: sizes that are open, or integers.

    Args:
        value: the input.
        graph: that it belongs to.

    Returns:
        The problem; None for real numbers of a static shape.
    """
    tensor, where = value.type.tensor_type, f"input '{value.name}'"
    if tensor.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        return Problem(
            where, "", f"is {kind}, a circuit takes real numbers; {_instead(value, graph)}"
        )
    if not tensor.HasField("shape"):
        return Problem(where, "", f"has no shape; add --shape {value.name}=D1,D2,...")
    dimensions = tensor.shape.dim
    if all(d.dim_value > 0 for d in dimensions):
        return None
    named = [d.dim_param or "?" for d in dimensions if d.dim_value <= 0]
    sizes = ",".join(str(d.dim_value) if d.dim_value > 0 else "?" for d in dimensions)
    return Problem(
        where,
        "",
        f"is dynamic in {', '.join(named)}, a circuit has one shape; add --shape "
        f"{value.name}={sizes} with a number for every ?",
    )


def _instead(value: onnx.ValueInfoProto, graph: onnx.GraphProto) -> str:
    """What to give a circuit instead of integers."""
    readers = [node for node in graph.node if value.name in node.input]
    tables = [n for n in readers if n.op_type == "Gather" and n.input[1] == value.name]
    if tables:
        return (
            f"look the embeddings up outside: cut the model after the Gather '{tables[0].name}', "
            "whose output becomes the input"
        )
    if value.type.tensor_type.elem_type == onnx.TensorProto.BOOL:
        return (
            "store a mask that is always the same in the model, or make it an input of 0.0 and 1.0"
        )
    return "store it in the model if it is always the same, or export it as float"
