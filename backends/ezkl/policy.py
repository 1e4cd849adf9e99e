"""What may stay an operation of EZKL: square roots and reciprocals need no table there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from odp.backends.ezkl.circuit import Circuit, Node
from odp.backends.ezkl.compiler import Compiled
from odp.backends.ezkl.cost import predict

__all__ = ["POLICIES", "Native", "Policy", "rows_in_two_columns", "rows_of"]

Policy = Literal["rational", "cheapest"]
POLICIES: tuple[Policy, ...] = ("rational", "cheapest")

_ROOTS = frozenset({"sqrt", "rsqrt"})
_QUOTIENTS = frozenset({"reciprocal"})


@dataclass(frozen=True)
class Native:
    """Operations that EZKL computes instead of our expressions.

    Attributes:
        roots: square roots, and reciprocals of these, as in norms.
        divisions: by other variables, as in a softmax.
    """

    roots: bool = False
    divisions: bool = False

    @property
    def functions(self) -> frozenset[str]:
        """Functions of sites that get no expression."""
        roots, quotients = _ROOTS if self.roots else (), _QUOTIENTS if self.divisions else ()
        return frozenset({*roots, *quotients})

    def keeps(self, circuit: Circuit, node: Node) -> bool:
        """Whether a division stays one.

        Args:
            circuit: that has it.
            node: a `div`.
        """
        of_root = circuit.nodes[node.inputs[1]].kind == "sqrt"
        return self.roots if of_root else self.divisions

    def __str__(self) -> str:
        kept = [name for name in ("roots", "divisions") if getattr(self, name)]
        return " and ".join(kept) or "nothing"


def rows_in_two_columns(compiled: Compiled) -> float:
    """Predicted rows at EZKL's two inner columns: circuits of other widths compare by these."""
    return sum(_rows_by_node(compiled).values())


def rows_of(compiled: Compiled, prefixes: Iterable[str]) -> dict[str, float]:
    """Predicted rows in two columns of the nodes that came from one place in the model, for each.

    Args:
        compiled: a circuit.
        prefixes: of the names of the nodes.
    """
    rows, nodes = _rows_by_node(compiled), compiled.program.circuit.nodes
    return {
        prefix: sum(r for i, r in rows.items() if i >= 0 and nodes[i].name.startswith(prefix))
        for prefix in prefixes
    }


def _rows_by_node(compiled: Compiled) -> dict[int, float]:
    """Rows in two columns by the number of the circuit's node; -1 for inputs and the like."""
    arguments = replace(compiled.arguments, num_inner_cols=2)
    found: dict[int, float] = {}
    for node in predict(compiled.program.to_onnx(), arguments).nodes:
        named = re.match(r"t(\d+)(_|$)", node.name)
        number = int(named[1]) if named else -1
        found[number] = found.get(number, 0.0) + node.rows
    return found
