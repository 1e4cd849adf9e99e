"""Unrolled LSTM, GRU and RNN against ONNX Runtime's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from odp.passes import registry
from odp.rewriter.calibration import Recorder
from odp.rewriter.manager import Result, rewrite_graph, schedule
from odp.rewriter.onnx_graph import OnnxGraph

TIME, BATCH, INPUT, HIDDEN = 5, 3, 4, 6
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
OPTIONAL = ("b", "lengths", "h", "c", "p")

Arrays = dict[str, NDArray[Any]]


def layer(
    kind: str,
    *,
    optional: Sequence[str] = (),
    stored: Sequence[str] = ("w", "r", "b", "p"),
    outputs: Sequence[str] = ("y", "y_h", "y_c"),
    opset: int = 14,
    time: int | str = TIME,
    lengths: Sequence[int] | None = None,
    scale: float = 1.0,
    **attributes: Any,
) -> tuple[onnx.ModelProto, Arrays]:
    """A model with one layer, and values for all its inputs that are not stored."""
    random = np.random.default_rng(len(kind) + len(optional))
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = GATES[kind] * HIDDEN
    batch_first = bool(attributes.get("layout", 0))
    sequence = (BATCH, TIME, INPUT) if batch_first else (TIME, BATCH, INPUT)
    state = (BATCH, directions, HIDDEN) if batch_first else (directions, BATCH, HIDDEN)
    shapes = {
        "x": sequence,
        "w": (directions, rows, INPUT),
        "r": (directions, rows, HIDDEN),
        "b": (directions, 2 * rows),
        "h": state,
        "c": state,
        "p": (directions, 3 * HIDDEN),
    }
    order = ["x", "w", "r", "b", "lengths", "h", *(("c", "p") if kind == "LSTM" else ())]
    given = {"x", "w", "r", *optional}
    arrays: Arrays = {
        name: (scale * random.normal(size=shapes[name])).astype(np.float32)
        for name in order
        if name in given and name in shapes
    }
    if "lengths" in given:
        values = lengths if lengths is not None else [TIME] * BATCH
        arrays["lengths"] = np.array(values, np.int32)
    names = [name if name in given else "" for name in order]
    while names and not names[-1]:
        names.pop()
    wanted = list(outputs[: 3 if kind == "LSTM" else 2])
    node = onnx.helper.make_node(kind, names, wanted, "layer", hidden_size=HIDDEN, **attributes)
    free = [name for name in arrays if name not in stored]
    declared: dict[str, Any] = {name: list(arrays[name].shape) for name in free}
    declared["x"][1 if batch_first else 0] = time
    graph = onnx.helper.make_graph(
        [node],
        "layer",
        [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(arrays[name].dtype), declared[name]
            )
            for name in free
        ],
        [onnx.helper.make_tensor_value_info(name, 1, None) for name in wanted if name],
        [onnx.numpy_helper.from_array(arrays[name], name) for name in arrays if name in stored],
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return onnx.shape_inference.infer_shapes(model), {name: arrays[name] for name in free}


def run(model: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return list(session.run(None, dict(feed)))


def unroll(model: onnx.ModelProto, *passes: str) -> tuple[OnnxGraph, Result, Recorder]:
    graph = OnnxGraph(ir.from_proto(model))
    recorder = Recorder()
    typed = [registry()[name]() for name in passes or ("recurrent",)]
    result = rewrite_graph(graph, schedule(typed, registry()), recorder)
    return graph, result, recorder


def assert_same(model: onnx.ModelProto, feed: Arrays) -> OnnxGraph:
    """The unrolled layer gives what the operator gives, to rounding."""
    graph, result, _ = unroll(model)
    assert not result.skipped["recurrent"]
    assert not {"LSTM", "GRU", "RNN"} & set(graph.operations())
    rewritten = ir.to_proto(graph.model)
    onnx.checker.check_model(rewritten, full_check=True)
    before, after = run(model, feed), run(rewritten, feed)
    for one, two in zip(before, after, strict=True):
        assert one.shape == two.shape
        # States are below 10 and every step adds a few roundings of 6e-8 relative.
        np.testing.assert_allclose(two, one, rtol=0, atol=2e-6)
    return graph


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("optional", [(), ("b",), ("b", "h", "c"), ("b", "lengths", "h", "c", "p")])
def test_optional_inputs(kind: str, direction: str, optional: tuple[str, ...]) -> None:
    kept = tuple(name for name in optional if kind == "LSTM" or name not in ("c", "p"))
    assert_same(*layer(kind, optional=kept, direction=direction))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("stored", [("w", "r", "lengths"), ("w", "r")], ids=["stored", "input"])
def test_sequences_of_different_length(kind: str, direction: str, stored: Sequence[str]) -> None:
    model, feed = layer(
        kind,
        optional=("b", "lengths", "h"),
        direction=direction,
        stored=stored,
        lengths=[TIME, 2, 3],
    )
    assert_same(model, feed)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_weights_that_are_computed(kind: str) -> None:
    kept = ("b", "h", "c", "p") if kind == "LSTM" else ("b", "h")
    for extra in ({}, {"linear_before_reset": 1} if kind == "GRU" else {}):
        model, feed = layer(kind, optional=kept, stored=(), direction="bidirectional", **extra)
        assert_same(model, feed)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("opset", [7, 9, 11, 13, 14, 18, 22])
def test_operator_sets(kind: str, opset: int) -> None:
    assert_same(*layer(kind, optional=("b", "lengths", "h"), opset=opset))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_clipping(kind: str) -> None:
    assert_same(*layer(kind, optional=("b",), clip=0.5, scale=2.0))


@pytest.mark.parametrize("bias", [(), ("b",), ("b", "h")])
def test_linear_before_reset(bias: tuple[str, ...]) -> None:
    assert_same(*layer("GRU", optional=bias, linear_before_reset=1, direction="bidirectional"))


def test_coupled_input_and_forget_gates() -> None:
    assert_same(*layer("LSTM", optional=("b", "h", "c"), input_forget=1))


@pytest.mark.parametrize("outputs", [("y",), ("", "y_h"), ("y", "", "y_c"), ("", "", "y_c")])
def test_outputs_are_optional(outputs: tuple[str, ...]) -> None:
    assert_same(*layer("LSTM", optional=("b",), outputs=outputs, direction="bidirectional"))


@pytest.mark.parametrize(
    "activation",
    [
        "Relu",
        "Softsign",
        "Softplus",
        ("HardSigmoid", 0.3, 0.4),
        ("LeakyRelu", 0.2),
        ("ScaledTanh", 0.7, 1.3),
        ("Affine", 0.5, 0.1),
        ("Elu", 0.8),
    ],
    ids=str,
)
def test_activations(activation: str | tuple[Any, ...]) -> None:
    name, *parameters = (activation,) if isinstance(activation, str) else activation
    attributes = {"activations": ["Sigmoid", name]}
    for key, value in zip(("activation_alpha", "activation_beta"), parameters, strict=False):
        attributes[key] = [value]
    assert_same(*layer("GRU", optional=("b",), scale=0.3, **attributes))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_batch_first_is_the_time_first_layer_transposed(kind: str, direction: str) -> None:
    # ONNX Runtime has no kernel for layout 1, so the reference is its layout 0.
    model, feed = layer(
        kind, optional=("b", "h", "c") if kind == "LSTM" else ("b", "h"), direction=direction
    )
    batch_first, _ = layer(
        kind,
        optional=("b", "h", "c") if kind == "LSTM" else ("b", "h"),
        direction=direction,
        layout=1,
    )
    for mine, theirs in zip(batch_first.graph.initializer, model.graph.initializer, strict=True):
        mine.CopyFrom(theirs)
    graph, _, _ = unroll(batch_first)
    turned = {name: np.ascontiguousarray(np.swapaxes(a, 0, 1)) for name, a in feed.items()}
    y, *states = run(ir.to_proto(graph.model), turned)
    expected_y, *expected_states = run(model, feed)
    np.testing.assert_allclose(np.transpose(y, (1, 2, 0, 3)), expected_y, rtol=0, atol=2e-6)
    for one, two in zip(states, expected_states, strict=True):
        np.testing.assert_allclose(np.swapaxes(one, 0, 1), two, rtol=0, atol=2e-6)


def test_all_time_steps_share_a_site() -> None:
    model, _ = layer("LSTM", optional=("b", "h", "c"), direction="bidirectional")
    _, result, recorder = unroll(model)
    assert set(result.outcomes["recurrent"].sites) == set(recorder.sites)
    labels = {site_id.rsplit("/", 1)[1] for site_id in recorder.sites}
    assert labels == {
        f"{function}.{direction}_{place}"
        for direction in ("forward", "reverse")
        for function, place in (("sigmoid", "gate"), ("tanh", "candidate"), ("tanh", "state"))
    }
    assert {len(values) for values in recorder.values.values()} == {TIME}


def test_the_size_is_linear_in_the_sequence() -> None:
    model, _ = layer("LSTM", optional=("b", "h", "c"))
    graph, _, _ = unroll(model)
    counts = graph.operations()
    # The recorder watches the input of every site through an Identity.
    assert counts.pop("Identity") == 3 * TIME
    # 11 operations a step, and MatMul, Add, Split, Concat, Unsqueeze once.
    assert sum(counts.values()) == 11 * TIME + 5


def test_sigmoid_alone_leaves_the_tanh() -> None:
    model, feed = layer("LSTM", optional=("b",))
    graph, _, recorder = unroll(model, "sigmoid")
    assert {site.function for site in recorder.sites.values()} == {"sigmoid"}
    assert graph.operations()["Tanh"] == 2 * TIME
    np.testing.assert_allclose(
        run(ir.to_proto(graph.model), feed)[0], run(model, feed)[0], rtol=0, atol=2e-6
    )


def test_a_dynamic_length_is_refused_with_the_option_to_give() -> None:
    model, _ = layer("GRU", optional=("b",), time="T")
    graph, result, _ = unroll(model)
    (skipped,) = result.skipped["recurrent"]
    assert "dynamic" in skipped.reason and "--shape" in skipped.reason
    assert graph.transcendental() == {"GRU": 1}


def test_an_unknown_activation_is_refused() -> None:
    model, _ = layer("RNN", activations=["Gaussian"])
    _, result, _ = unroll(model)
    assert "Gaussian" in result.skipped["recurrent"][0].reason
