"""Where a network can be cut into parts that prove within some memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from odp.approximations.errors import OdpError
from odp.backends.ezkl.columns import cheapest, column_options, seconds
from odp.backends.ezkl.cost import CostReport, RunArguments
from odp.backends.ezkl.network import Tensor
from odp.backends.ezkl.run_arguments import Visibility

__all__ = ["Cutter", "Piece", "cheapest_pieces"]

_Names = tuple[str, ...]

# All parts have the same number of rows: commitments of one tensor are equal only then, and one
# reference string serves them all. Fewer than 2^15 have no room for the table of a range check.
_LOGROWS = range(15, 21)


@dataclass(frozen=True)
class Piece:
    """Successive nodes of a network as a network of their own.

    Attributes:
        start: number of the first node.
        stop: number of the node after the last one.
        model: the network.
        inputs: names of what goes in.
        outputs: names of what comes out.
        cost: predicted, with the settings.
    """

    start: int
    stop: int
    model: onnx.ModelProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    cost: CostReport


class Cutter:
    """A scheduled network, and what a piece of it is.

    Attributes:
        network: the whole.
        tensors: its values for one input.
        made: for each tensor the number of the node that makes it.
    """

    def __init__(
        self, network: onnx.ModelProto, tensors: Mapping[str, Tensor], committed: bool
    ) -> None:
        self.network, self.tensors, self.committed = network, tensors, committed
        nodes = network.graph.node
        self.made = {name: i for i, node in enumerate(nodes) for name in node.output}
        self.given = [value.name for value in network.graph.input]
        self.results = [value.name for value in network.graph.output]
        self._last: dict[str, int] = {}
        for index, node in enumerate(nodes):
            for name in node.input:
                self._last[name] = index
        heavy = [i for i, node in enumerate(nodes) if node.op_type == "MatMul"]
        self._cuts = self._best_cuts(heavy)
        self._options: dict[tuple[int, int], list[CostReport]] = {}

    def crossing(self, cut: int) -> list[str]:
        """Tensors that are made before a cut and read after it."""
        return [
            name
            for name in (*self.given, *self.made)
            if self.made.get(name, -1) < cut and self._last.get(name, -1) >= cut
        ]

    def pieces(self, logrows: int, arguments: RunArguments, memory: float) -> list[Piece] | None:
        """The largest pieces that fit, from the first node on; None if a node fits by no means."""
        found, start, end = [], 0, len(self.network.graph.node)
        while start < end:
            best: Piece | None = None
            for cut in (*(cut for cut in self._cuts if cut > start), end):
                piece = self._piece(start, cut, logrows, arguments, memory)
                if piece is None or piece.cost.resources.peak_memory > memory:
                    break
                best = piece
            if best is None:
                return None
            found.append(best)
            start = best.stop
        return found

    def _best_cuts(self, heavy: Sequence[int]) -> list[int]:
        """One cut between any two matrix products: where the fewest integers cross.

        Only matrix products change the memory by much. Where a rescale is pending there is no cut:
        EZKL would divide in the wrong part.
        """
        found, low = [], 0
        for bound in (*heavy, len(self.network.graph.node) - 1):
            sizes = []
            for cut in range(bound, low, -1):
                tensors = [self.tensors[name] for name in self.crossing(cut)]
                if all(tensor.label == 0 for tensor in tensors):
                    sizes.append((sum(tensor.integers.size for tensor in tensors), -cut))
            if sizes:
                found.append(-min(sizes)[1])
            low = bound
        return found

    def _piece(
        self, start: int, stop: int, logrows: int, arguments: RunArguments, memory: float
    ) -> Piece | None:
        """A piece; None if its public values do not fit into so many rows."""
        model, inputs, outputs = self._model(start, stop)
        if (start, stop) not in self._options:
            shown = replace(
                arguments,
                input_visibility=self._input_visibility(inputs, arguments.input_visibility),
                output_visibility=self._output_visibility(outputs, arguments.output_visibility),
            )
            self._options[start, stop] = column_options(model, shown, _LOGROWS)
        options = [one for one in self._options[start, stop] if one.logrows == logrows]
        if not options:
            return None
        return Piece(start, stop, model, inputs, outputs, cheapest(options, memory))

    def _input_visibility(self, names: Sequence[str], own: Visibility) -> Visibility:
        """A verifier can commit to an input of the whole herself, where it enters with others."""
        return "polycommit" if self.committed and not set(names) <= set(self.given) else own

    def _output_visibility(self, names: Sequence[str], own: Visibility) -> Visibility:
        """Outputs of the whole stay as they are, and what leaves with them."""
        return "polycommit" if self.committed and not set(names) & set(self.results) else own

    def _model(self, start: int, stop: int) -> tuple[onnx.ModelProto, _Names, _Names]:
        nodes = list(self.network.graph.node)[start:stop]
        used = {name for node in nodes for name in node.input}
        inputs = [
            name
            for name in (*self.given, *self.made)
            if name in used and self.made.get(name, -1) < start
        ]
        leaving = {*self.crossing(stop), *self.results}
        outputs = [name for node in nodes for name in node.output if name in leaving]
        graph = onnx.helper.make_graph(
            nodes,
            f"part_{start}",
            [self._value(name) for name in inputs],
            [self._value(name) for name in outputs],
            [tensor for tensor in self.network.graph.initializer if tensor.name in used],
        )
        model = onnx.helper.make_model(
            graph, opset_imports=self.network.opset_import, ir_version=self.network.ir_version
        )
        return model, tuple(inputs), tuple(outputs)

    def _value(self, name: str) -> onnx.ValueInfoProto:
        shape = list(self.tensors[name].integers.shape)
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def cheapest_pieces(
    cutter: Cutter,
    arguments: RunArguments,
    memory: float,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Piece]:
    """The pieces that are predicted to take the least time together.

    Args:
        cutter: of the network.
        arguments: the settings of the whole.
        memory: bytes that the proof of each may need.
        progress: called with the number of row counts that were tried, and of all.

    Raises:
        OdpError: part of the network does not fit by itself.
    """
    best: list[Piece] | None = None
    for done, logrows in enumerate(_LOGROWS):
        progress("split", done, len(_LOGROWS))
        found = cutter.pieces(logrows, arguments, memory)
        if found and (best is None or _seconds(found) < _seconds(best)):
            best = found
    progress("split", len(_LOGROWS), len(_LOGROWS))
    if best is None:
        raise OdpError(
            f"there is a matrix product that does not fit into {memory / 1e9:.1f} GB by itself; "
            "give more with --memory"
        )
    return best


def _seconds(pieces: Sequence[Piece]) -> float:
    return sum(seconds(piece.cost) for piece in pieces)
