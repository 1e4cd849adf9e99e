"""Static input shapes, shape inference, and folding of the shape arithmetic that follows."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from odp.backends.onnx.errors import OnnxError
from odp.backends.onnx.garbage_collection import paused_collector
from odp.backends.onnx.load import inline_functions
from odp.backends.onnx.skeleton import large_initializers, serialise_skeleton

__all__ = [
    "freeze_shapes",
    "is_position_table",
    "require_static_inputs",
    "run_shape_inference",
    "simplify",
    "undetermined_inputs",
]

_FOLD_INPUT_LIMIT = 8192
_FOLD_OUTPUT_LIMIT = 512 * 512
# Every round folds what the last one made constant; four was the most that any of the 1,884 ONNX
# node tests and the real models needed.
_MAX_ROUNDS = 4


def is_position_table(node: ir.Node) -> bool:
    """Whether a node is a sine or cosine: of constants, it is a table of rotary positions.

    The rope pass folds these itself and says so in the report; every other function of constants is
    a constant like any other.
    """
    return node.domain == "" and node.op_type in ("Sin", "Cos")


def _is_free_input(graph: ir.Graph, value: ir.Value) -> bool:
    return value.name not in graph.initializers


def undetermined_inputs(model: ir.Model) -> dict[str, tuple[int | str | None, ...] | None]:
    """Find the inputs whose shape is not a list of numbers.

    Args:
        model: the model.

    Returns:
        Input name -> dimensions (an int, the name of a symbol, or None where nothing is known),
        or None in place of the tuple where not even the rank is known.
    """
    undetermined: dict[str, tuple[int | str | None, ...] | None] = {}
    for value in model.graph.inputs:
        if not _is_free_input(model.graph, value) or not isinstance(value.type, ir.TensorType):
            continue
        assert value.name is not None
        if value.shape is None:
            undetermined[value.name] = None
        elif not value.shape.is_static():
            undetermined[value.name] = tuple(
                d if isinstance(d, int) else d.value for d in value.shape
            )
    return undetermined


def require_static_inputs(model: ir.Model) -> None:
    """Check that every input has a static shape.

    Raises:
        OnnxError: names the inputs and prints the `--shape` options to add, with `?` for each
            size that the user has to choose.
    """
    undetermined = undetermined_inputs(model)
    if not undetermined:
        return
    found = []
    options = []
    for name, shape in undetermined.items():
        if shape is None:
            found.append(f"{name!r} (rank unknown)")
            options.append(f"--shape {name}=?")
            continue
        dims = ",".join("?" if d is None else str(d) for d in shape)
        found.append(f"{name!r} [{dims}]")
        options.append(
            f"--shape {name}=" + ",".join(str(d) if isinstance(d, int) else "?" for d in shape)
        )
    raise OnnxError(
        f"dynamic input shape: {', '.join(found)}; add {' '.join(options)} "
        "with a number for every ?"
    )


def freeze_shapes(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> ir.Model:
    """Give inputs static shapes, in place.

    A symbol (`batch`, `T`) that gets a number in one input gets it in every other input.  Shapes
    of intermediate values that name a symbol are forgotten; `run_shape_inference` finds them again.

    Args:
        model: the model.
        shapes: input name -> sizes, each at least 1.

    Returns:
        The same model.

    Raises:
        OnnxError: an unknown input name, another rank than the model's, a size that contradicts a
            static dimension, or one symbol with two sizes.
    """
    inputs = {v.name: v for v in model.graph.inputs if _is_free_input(model.graph, v)}
    symbols: dict[str, tuple[int, str]] = {}
    for name, sizes in shapes.items():
        if name not in inputs:
            known = [n for n in inputs if n is not None]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"inputs are {', '.join(known)}"
            raise OnnxError(f"--shape {name}: the model has no input {name!r}; {hint}")
        value = inputs[name]
        _check_sizes(name, value, sizes)
        for dim, size in zip(value.shape or (), sizes, strict=False):
            if isinstance(dim, int) or dim.value is None:
                continue
            other, where = symbols.setdefault(dim.value, (size, name))
            if other != size:
                raise OnnxError(
                    f"--shape {name}: dimension {dim.value!r} is {size} here but {other} in "
                    f"{where!r}; one symbol stands for one size"
                )
        value.shape = ir.Shape(list(sizes))
    if not shapes:
        return model
    for value in inputs.values():
        if value.shape is not None:
            value.shape = ir.Shape(
                [
                    d if isinstance(d, int) else symbols.get(d.value or "", (d.value,))[0]
                    for d in value.shape
                ]
            )
    _forget_symbols(model)
    return model


def _check_sizes(name: str, value: ir.Value, sizes: Sequence[int]) -> None:
    given = ",".join(map(str, sizes))
    if any(size < 1 for size in sizes):
        raise OnnxError(f"--shape {name}={given}: every size must be at least 1")
    if value.shape is None:
        return
    dims = ",".join(str(d) if isinstance(d, int) else (d.value or "?") for d in value.shape)
    if len(sizes) != len(value.shape):
        raise OnnxError(
            f"--shape {name}={given}: the input has {len(value.shape)} dimensions [{dims}], "
            f"not {len(sizes)}"
        )
    for dim, size in zip(value.shape, sizes, strict=True):
        if isinstance(dim, int) and dim != size:
            raise OnnxError(
                f"--shape {name}={given}: the model fixes this input to [{dims}]; "
                f"{size} cannot replace {dim}"
            )


def _forget_symbols(model: ir.Model) -> None:
    """Drop symbolic dimensions of intermediate values and outputs.

    They are names for "unknown" there: exporters reuse one name for different sizes, so they are
    inferred again instead of being replaced.  Of an output not even the rank is kept: ddddocr's
    common.onnx declares rank 2 for what is rank 3 as soon as its input shape is known.
    """
    for value in model.graph.outputs:
        if value.shape is not None and not value.shape.is_static():
            value.shape = None
    for graph in model.graphs():
        values = [o for node in graph for o in node.outputs]
        if graph is not model.graph:
            values += graph.inputs
        for value in values:
            if value.shape is not None and not value.shape.is_static():
                value.shape = ir.Shape([d if isinstance(d, int) else None for d in value.shape])


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence a library logger: its tracebacks are not addressed to our users."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def run_shape_inference(model: ir.Model) -> ir.Model:
    """Infer types and shapes of all values, in place, without touching the weights.

    Large initializers are taken out of the message that onnx's C++ inference gets, so the cost
    depends on the number of nodes only.

    Args:
        model: the model.

    Returns:
        The same model; where inference is impossible, values keep what they had.
    """
    with paused_collector(), _quiet("onnx_ir"):
        proto = serialise_skeleton(model)
        listed = {info.name for info in proto.graph.input}
        for value in large_initializers(model):
            if value.name not in listed:
                proto.graph.input.append(ir.serde.serialize_value(value))
        try:
            inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        except Exception:  # a model that contradicts itself; check_model says where
            return model
        _merge_types(model.graph, inferred.graph)
    return model


def _merge_types(graph: ir.Graph, proto: onnx.GraphProto) -> None:
    """Copy inferred types and shapes; the pass of onnx_ir 1.1 makes sequences to tensors."""
    infos = {info.name: info for info in (*proto.value_info, *proto.output)}
    for node, node_proto in zip(graph, proto.node, strict=True):
        for value in node.outputs:
            info = infos.get(value.name or "")
            if info is not None:
                _set_type(value, info)
        for attribute in node_proto.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                body = node.attributes[attribute.name].as_graph()
                for body_input, input_proto in zip(body.inputs, attribute.g.input, strict=True):
                    _set_type(body_input, input_proto)
                _merge_types(body, attribute.g)


def _set_type(value: ir.Value, info: onnx.ValueInfoProto) -> None:
    if info.type.WhichOneof("value") is None:
        return
    value.type = ir.serde.deserialize_type_proto_for_type(info.type)
    shape = ir.serde.deserialize_type_proto_for_shape(info.type)
    if shape is not None:
        value.shape = shape


def simplify(model: ir.Model, *, keep: Callable[[ir.Node], bool] = is_position_table) -> ir.Model:
    """Fold constants, remove dead code, and bring the graph into one plain form, in place.

    Functions are inlined; Constant nodes become initializers; Identity nodes and the shape
    arithmetic of static shapes disappear.  Initializers that are listed as inputs too (exporters
    before IR version 4 do this) become plain initializers.  Outputs stay the same up to the
    rounding of folded constant subexpressions, which are evaluated by onnx.reference.  Weights
    are not copied: operations on more than 8,192 constants are left alone.

    Args:
        model: the model, any opset from 7.
        keep: nodes that stay although all of their inputs are constant; by default everything
            transcendental, because the passes have to see and report it.

    Returns:
        The same model.

    Raises:
        OnnxError: functions of the model cannot be inlined.
    """
    from onnxscript import optimizer

    inline_functions(model)
    common.RemoveInitializersFromInputsPass()(model)

    def should_fold(node: ir.Node) -> bool | None:
        # onnxscript folds the transpose of a weight of any size; that would copy the model.
        if keep(node) or _has_large_input(node):
            return False
        return None

    with paused_collector(), _quiet("onnxscript"), _quiet("onnx_ir"):
        run_shape_inference(model)
        for number in range(_MAX_ROUNDS):
            result = optimizer.fold_constants(
                model,
                # One inference for each node is half of the time of a round, and in the first
                # one every node has had its turn.
                onnx_shape_inference=number == 0,
                input_size_limit=_FOLD_INPUT_LIMIT,
                output_size_limit=_FOLD_OUTPUT_LIMIT,
                should_fold=should_fold,
            )
            common.RemoveUnusedNodesPass()(model)
            if not result.modified:
                break
        names = [output.name for output in model.graph.outputs]
        common.IdentityEliminationPass()(model)
        _give_outputs_back(model.graph, names)
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        common.LiftSubgraphInitializersToMainGraphPass()(model)
        common.RemoveUnusedNodesPass()(model)
        _give_bodies_own_outputs(model)
        common.NameFixPass()(model)
        run_shape_inference(model)
    return model


def _give_outputs_back(graph: ir.Graph, names: list[str | None]) -> None:
    """Let every output of the model be a value of its own under its own name.

    Where one output is the Identity of another, onnx_ir lets both be the same value, and the name
    of one is lost.
    """
    seen: set[ir.Value] = set()
    for index, (output, name) in enumerate(zip(graph.outputs, names, strict=True)):
        if output not in seen:
            seen.add(output)
            if output.name != name and output.producer() is not None:
                output.name = name
            continue
        copy = ir.Node("", "Identity", [output])
        result = copy.outputs[0]
        result.name, result.type, result.shape = name, output.type, output.shape
        graph.append(copy)
        graph.outputs[index] = result


def _give_bodies_own_outputs(model: ir.Model) -> None:
    """Let every body of If, Loop and Scan compute its outputs, as the standard asks for.

    Without Identity nodes and stored constants of its own, a body may be left with an output that
    belongs to the graph around it, which neither ONNX Runtime nor onnx.reference accepts.
    """
    for graph in model.graphs():
        if graph is model.graph:
            continue
        for index, output in enumerate(graph.outputs):
            producer = output.producer()
            own = output in graph.inputs if producer is None else producer.graph is graph
            if own:
                continue
            copy = ir.Node("", "Identity", [output])
            result = copy.outputs[0]
            result.type, result.shape = output.type, output.shape
            graph.append(copy)
            graph.outputs[index] = result


def _has_large_input(node: ir.Node) -> bool:
    return any(
        value is not None
        and value.const_value is not None
        and value.const_value.size > _FOLD_INPUT_LIMIT
        for value in node.inputs
    )
