"""Run models and compare them, for the tests of the ONNX backend."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import parser

Outputs = list[np.ndarray]


def _flatten(values: object) -> Iterator[np.ndarray]:
    if isinstance(values, list | tuple):
        for value in values:
            yield from _flatten(value)
    elif values is not None:
        yield np.asarray(values)


# No kernel, or one that this machine cannot set up (StringNormalizer without its locale).
_NO_KERNEL = (
    "NOT_IMPLEMENTED",
    "is not a registered function/op",
    "Exception during initialization",
)


def _run(model: ir.Model | onnx.ModelProto, feeds: dict[str, np.ndarray]) -> Outputs:
    """Run in ONNX Runtime, or in the reference where ONNX Runtime lacks an implementation."""
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    names = {value.name for value in proto.graph.input}
    feeds = {name: value for name, value in feeds.items() if name in names}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        versions = {opset.version for opset in proto.opset_import if opset.domain == ""}
        # Only an operator without a kernel excuses a model of opset 12 that does not load.
        if versions == {12} and not any(excuse in str(error) for excuse in _NO_KERNEL):
            raise
        session = None
    if session is not None:
        # Kernels have limits of their own (ConvInteger knows no zero point for each channel).
        with contextlib.suppress(Exception):
            return list(_flatten(session.run(None, feeds)))
    return list(_flatten(onnx.reference.ReferenceEvaluator(proto).run(None, feeds)))


def _random_feeds(proto: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    feeds = {}
    initializers = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name in initializers:
            continue
        tensor_type = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor_type.elem_type)
        shape = [d.dim_value for d in tensor_type.shape.dim]
        if dtype.kind in "iu":
            feeds[value.name] = generator.integers(0, 4, shape).astype(dtype)
        elif dtype.kind == "b":
            feeds[value.name] = generator.integers(0, 2, shape).astype(bool)
        else:
            feeds[value.name] = generator.standard_normal(shape).astype(dtype)
    return feeds


@pytest.fixture
def run_model() -> Callable[..., Outputs]:
    return _run


@pytest.fixture
def flatten() -> Callable[[object], Iterator[np.ndarray]]:
    return _flatten


@pytest.fixture
def random_feeds() -> Callable[..., dict[str, np.ndarray]]:
    return _random_feeds


@pytest.fixture
def parse_model() -> Callable[..., onnx.ModelProto]:
    """Build a model from the body of a graph in ONNX's text syntax."""

    def parse(text: str, opset: int, domains: Sequence[str] = ()) -> onnx.ModelProto:
        ir_version = 10 if opset >= 18 else 8 if opset >= 13 else 7
        imports = ", ".join([f'"" : {opset}', *(f'"{d}" : 1' for d in domains)])
        return parser.parse_model(f"<ir_version: {ir_version}, opset_import: [{imports}]>\n{text}")

    return parse
