"""Small models in ONNX's text form: what the cases of every pass are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
from numpy.typing import NDArray

from odp.backends.onnx.freeze import simplify
from odp.rewriter.onnx_graph import OnnxGraph

__all__ = ["Case", "Shape", "build_model", "prepared", "run"]

Array = NDArray[Any]
Shape = tuple[int, ...]

# Scalars that a body may use by name; only those that it mentions become part of the model.
NUMBERS: dict[str, float] = {
    "zero": 0.0,
    "half": 0.5,
    "one": 1.0,
    "two": 2.0,
    "three": 3.0,
    "minus_one": -1.0,
    "minus_half": -0.5,
    "eps": 1e-5,
    "root_two": 1.4142135,
    # Half precision, as some exporters round it.
    "rough_root_two": 1.4140625,
    "inverse_root_two": 0.70710677,
    "root_two_over_pi": 0.7978846,
    "cubic": 0.044715,
    "quick": 1.702,
}


@dataclass(frozen=True)
class Case:
    """One spelling of what one pass takes.

    Attributes:
        rewrite: name of the pass that must take it.
        name: what is special about the spelling.
        body: nodes in the text form; reads the inputs, writes `y`.
        patterns: patterns of `rewrite` that must match, with their number.
        inputs: shape of every input.
        constants: stored arrays by name, besides `NUMBERS`.
        opset: of the default domain.
        low: smallest value of the inputs.
        high: largest value of the inputs.
        passes: what is typed, if more than `rewrite` is needed to leave nothing transcendental.
    """

    rewrite: str
    name: str
    body: str
    patterns: Mapping[str, int]
    inputs: Mapping[str, Shape] = field(default_factory=lambda: {"x": (2, 6, 16)})
    constants: Mapping[str, Array] = field(default_factory=dict)
    opset: int = 17
    low: float = -3.0
    high: float = 3.0
    passes: str = ""

    @property
    def id(self) -> str:
        """Name of the test."""
        return f"{self.rewrite}-{self.name}"

    def model(self) -> onnx.ModelProto:
        """The model, with inferred types."""
        return build_model(
            self.body, inputs=self.inputs, constants=self.constants, opset=self.opset
        )

    def data(self, samples: int = 4, scale: float = 1.0) -> dict[str, Array]:
        """Uniform inputs between `low` and `high`, times `scale`; both ends occur."""
        random = np.random.default_rng(len(self.id))
        arrays = {}
        for name, shape in self.inputs.items():
            array = random.uniform(self.low, self.high, (samples, *shape))
            array.flat[0], array.flat[-1] = self.low, self.high
            arrays[name] = (scale * array).astype(np.float32)
        return arrays


def build_model(
    body: str,
    *,
    inputs: Mapping[str, Shape],
    constants: Mapping[str, Array] | None = None,
    opset: int = 17,
    outputs: tuple[str, ...] = ("y",),
    dtype: str = "float",
    functions: str = "",
) -> onnx.ModelProto:
    """A model from the text of its nodes.

    Args:
        body: nodes, one a line.
        inputs: shape of every input, all of type `dtype`.
        constants: stored arrays; the names in `NUMBERS` may be used without being given.
        opset: of the default domain; the contrib domain is always there.
        outputs: values that are returned.
        dtype: element type in the text form (`float`, `float16`, `double`).
        functions: model-local functions in the text form.
    """
    listed = ", ".join(f"{dtype}[{','.join(map(str, s))}] {n}" for n, s in inputs.items())
    results = ", ".join(f"{dtype} {name}" for name in outputs)
    imports = f'"": {opset}, "com.microsoft": 1' + (', "local": 1' if functions else "")
    model = onnx.parser.parse_model(
        f"<ir_version: 8, opset_import: [{imports}]>"
        f"case ({listed}) => ({results}) {{ {body} }} {functions}"
    )
    for result in model.graph.output:
        # The text form cannot leave a shape open; inference fills it in.
        result.type.tensor_type.ClearField("shape")
    kind = model.graph.input[0].type.tensor_type.elem_type
    element = onnx.helper.tensor_dtype_to_np_dtype(kind)
    used = set(re.findall(r"\w+", body))
    stored = {
        name: np.asarray(value, element) for name, value in NUMBERS.items() if name in used
    } | dict(constants or {})
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()
    )
    for node, number in zip(model.graph.node, range(len(model.graph.node)), strict=True):
        node.name = node.name or f"{node.op_type}_{number}"
    inferred = onnx.shape_inference.infer_shapes(model)
    for result in inferred.graph.output:
        if not result.type.tensor_type.HasField("shape"):
            # Nothing is inferred for contrib operators, all of which keep the shape.
            result.type.tensor_type.shape.CopyFrom(model.graph.input[0].type.tensor_type.shape)
    return inferred


def prepared(model: onnx.ModelProto) -> OnnxGraph:
    """The graph that the passes see: constants folded, types inferred."""
    return OnnxGraph(simplify(ir.from_proto(model)))


def run(model: onnx.ModelProto, feed: Mapping[str, Array]) -> list[Array]:
    """The outputs in ONNX Runtime, without its own rewriting."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(feed)))
