"""Running ONNX models: ONNX Runtime, or the reference implementation where a body is watched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from odp.approximations.errors import OdpError

__all__ = ["Feed", "Session", "watch_with_reference"]

Feed = Mapping[str, NDArray[Any]]

_SHARED_BYTES = 1 << 16
"""Initializers from this size on are handed to ONNX Runtime by pointer instead of serialised."""


class Session:
    """An ONNX Runtime session on the CPU for an in-memory model, with extra outputs if asked for.

    Large constants are handed over by pointer instead of serialised; ONNX Runtime keeps one copy of
    its own (660 MB for 652 MB of weights), so close one session before the next.
    """

    def __init__(self, model: ir.Model, watched: Sequence[ir.Value] = ()) -> None:
        """Build the session.

        Args:
            model: the model; unchanged afterwards.
            watched: values of the main graph to return besides the outputs.

        Raises:
            OdpError: ONNX Runtime cannot load the model.
        """
        import onnxruntime

        self.outputs = [output.name or "" for output in model.graph.outputs]
        self.watched = [value.name or "" for value in watched]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self._shared: list[Any] = []
        with _extra_outputs(model, watched), _externalised(model) as large:
            for array in large.values():
                tensor = onnxruntime.OrtValue.ortvalue_from_numpy(array)
                self._shared.append((array, tensor))
            if large:
                options.add_external_initializers(
                    list(large), [tensor for _, tensor in self._shared]
                )
            payload = ir.to_proto(model).SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(
                payload, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise OdpError(f"ONNX Runtime cannot load the model: {one_line(error)}") from None

    def run(self, feed: Feed) -> dict[str, NDArray[Any]]:
        """Outputs, and watched values, by name.

        Raises:
            OdpError: the model fails on this input.
        """
        names = [*self.outputs, *self.watched]
        try:
            return dict(zip(names, self._session.run(names, dict(feed)), strict=True))
        except Exception as error:
            raise OdpError(f"ONNX Runtime cannot run the model: {one_line(error)}") from None


def watch_with_reference(
    model: ir.Model, watched: Sequence[ir.Value], see: Callable[[str, NDArray[Any]], None]
) -> Callable[[Feed], dict[str, NDArray[Any]]]:
    """A slow runner that also sees values inside the bodies of If, Loop and Scan.

    Args:
        model: the model; it gets observer nodes, so pass a clone.
        watched: values anywhere in the model.
        see: called with the name of a watched value and its array whenever it is computed.

    Returns:
        A function from a feed to the outputs by name; it raises `OdpError` where the reference
        implementation cannot run the model.
    """
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    from odp.rewriter.reference_loop import Loop

    class Observe(OpRun):  # type: ignore[misc]
        op_domain = "odp"

        def _run(self, x: NDArray[Any], label: str | None = None) -> tuple[NDArray[Any]]:
            see(label or "", np.asarray(x))
            return (x,)

    for value in watched:
        producer = value.producer()
        readers = [(reader, index) for reader, index in value.uses()]
        label = ir.AttrString("label", value.name or "")
        node = ir.Node("odp", "Observe", [value], [label])
        node.outputs[0].name = f"{value.name}/observed"
        for reader, index in readers:
            reader.replace_input_with(index, node.outputs[0])
        if producer is not None and producer.graph is not None:
            producer.graph.insert_after(producer, node)
        elif readers:
            # An input of a graph or body, and `uses` has no order: before all that could read it.
            owner = value.graph
            assert isinstance(owner, ir.Graph)
            owner.insert_before(owner[0], node)
    model.graph.opset_imports["odp"] = 1
    outputs = [output.name or "" for output in model.graph.outputs]
    evaluator: Any = None

    def run(feed: Feed) -> dict[str, NDArray[Any]]:
        nonlocal evaluator
        try:
            if evaluator is None:
                evaluator = ReferenceEvaluator(ir.to_proto(model), new_ops=[Observe, Loop])
            return dict(zip(outputs, evaluator.run(None, dict(feed)), strict=True))
        except Exception as error:
            raise OdpError(
                "is in the body of an If, Loop or Scan, and onnx.reference, which looks inside, "
                f"cannot run the model ({one_line(error)})"
            ) from None

    return run


def one_line(error: BaseException) -> str:
    """The message of a foreign exception on one line of bearable length."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:297]}..."


@contextlib.contextmanager
def _extra_outputs(model: ir.Model, watched: Sequence[ir.Value]) -> Any:
    count = len(model.graph.outputs)
    known = set(model.graph.outputs)
    model.graph.outputs.extend(value for value in dict.fromkeys(watched) if value not in known)
    try:
        yield
    finally:
        del model.graph.outputs[count:]


@contextlib.contextmanager
def _externalised(model: ir.Model) -> Any:
    """Let large initializers look like external data while the model is serialised."""
    large: dict[str, NDArray[Any]] = {}
    originals: list[tuple[ir.Value, Any]] = []
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < _SHARED_BYTES or value.is_graph_output():
            continue
        if tensor.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT64):
            continue
        name = value.name or ""
        large[name] = np.ascontiguousarray(tensor.numpy())
        originals.append((value, tensor))
        value.const_value = ir.ExternalTensor(
            "in-memory",
            0,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(large[name].shape),
            name=name,
        )
    try:
        yield large
    finally:
        for value, tensor in originals:
            value.const_value = tensor
