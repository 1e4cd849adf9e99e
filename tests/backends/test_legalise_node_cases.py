"""All node tests of ONNX: each is legalised and computes the same, or is refused clearly."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from odp.backends.onnx.errors import LegalisationError
from odp.backends.onnx.legalise import legalise

# Outputs are random numbers: only their number and shapes can be compared.
_RANDOM = ("bernoulli",)
# The largest tensor that is a parameter (axes, sizes, scales) and not data, in these tests.
_PARAMETER_SIZE = 20
# Of 1,884 with onnx 1.23.2; a smaller number means that a rule was lost.
_MEASURED_LEGALISED = 1489


@dataclass
class _Sweep:
    legalised: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)


def _array(value: object) -> object:
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _bind_parameters(case: onnx.backend.test.case.test_case.TestCase) -> onnx.ModelProto:
    """Make constants of the axes, sizes and scales that the node tests feed as inputs.

    No exporter computes them at run time, and before opset 13 they were attributes.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(case.model)
    for info, value in list(zip(proto.graph.input, case.data_sets[0][0], strict=False))[1:]:
        array = _array(value)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "if":
            continue
        if array.size <= _PARAMETER_SIZE:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, info.name))
    return proto


def _legalise(case: onnx.backend.test.case.test_case.TestCase) -> ir.Model:
    try:
        return legalise(ir.from_proto(case.model))
    except LegalisationError as error:
        if "run time" not in str(error):
            raise
    return legalise(ir.from_proto(_bind_parameters(case)))


def _difference(got: list[np.ndarray], want: list[np.ndarray], case: object) -> str | None:
    if len(got) != len(want):
        return f"{len(got)} outputs instead of {len(want)}"
    for a, b in zip(got, want, strict=True):
        if a.shape != b.shape:
            return f"shape {a.shape} instead of {b.shape}"
        if b.dtype.kind in "OUS":
            if a.tolist() != b.tolist():
                return "other strings"
            continue
        if a.dtype != b.dtype:
            return f"type {a.dtype} instead of {b.dtype}"
        if any(name in case.name for name in _RANDOM):
            continue
        if b.dtype.kind in "iub":
            if not np.array_equal(a, b):
                return "other integers"
        elif not np.allclose(a, b, rtol=case.rtol, atol=case.atol, equal_nan=True):
            return f"differs by {np.nanmax(np.abs(a - b)):.2e}"
    return None


@pytest.fixture(scope="module")
def node_cases() -> list[onnx.backend.test.case.test_case.TestCase]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for case in collect_testcases(None) if case.model is not None]


def test_every_node_case_is_equal_or_refused(node_cases, run_model, flatten, capsys) -> None:
    sweep = _Sweep()
    for case in node_cases:
        try:
            model = _legalise(case)
        except LegalisationError as error:
            assert error.offenders, case.name
            assert "\n" not in str(error)
            sweep.refused[case.name] = str(error)
            continue
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        assert {entry.domain: entry.version for entry in proto.opset_import}[""] == 12
        for inputs, outputs in case.data_sets:
            names = [info.name for info in case.model.graph.input]
            feeds = {name: _array(value) for name, value in zip(names, inputs, strict=True)}
            got = run_model(proto, feeds)
            difference = _difference(got, list(flatten([_array(v) for v in outputs])), case)
            if difference is not None:
                # Where the original, run by the same engine, is off in the same way, the engine is.
                difference = _difference(got, run_model(case.model, feeds), case)
            if difference is not None:
                sweep.wrong[case.name] = difference
        sweep.legalised.append(case.name)
    with capsys.disabled():
        print(f"\n{len(sweep.legalised)} node cases legalised, {len(sweep.refused)} refused")
    assert sweep.wrong == {}
    assert len(sweep.legalised) >= _MEASURED_LEGALISED
