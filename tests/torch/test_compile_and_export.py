"""A rewritten module is compiled, exported and saved as the original is, and nothing comes back."""

from __future__ import annotations

import copy
import io
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import fx

import odp
from odp.approximations.errors import OdpError
from odp.backends.torch.discovery import Operations
from odp.backends.torch.inputs import Inputs
from odp.rewriter.fx_transcendental import is_transcendental

from .modules import Branches, Classifier, Optional, Shared, Twice, numbers
from .rewriting import STRUCTURES, Analysed, assert_within, choices_of
from .rewritten import PASSES, classifier, rewrite

X = numbers(3, 8)
both = pytest.mark.parametrize("structure", STRUCTURES)
MODULES = [Classifier, Shared, Twice]


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch.compiler.reset()


# torch.compile


@both
@pytest.mark.parametrize("kind", MODULES)
def test_compiles_as_one_graph(kind: type[torch.nn.Module], structure: str) -> None:
    pair = rewrite(kind().eval(), X, structure=structure)
    compiled = torch.compile(pair.model, fullgraph=True, backend="aot_eager")
    assert_within(compiled(X), pair.bounds(X))


@both
def test_compiles_after_the_original_was(structure: str) -> None:
    pair = classifier(structure)
    torch.compile(pair.original, fullgraph=True, backend="aot_eager")(X)
    compiled = torch.compile(copy.deepcopy(pair.model), fullgraph=True, backend="aot_eager")
    assert_within(compiled(X), pair.bounds(X))


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_compiles_after_it_was_moved(dtype: torch.dtype, structure: str) -> None:
    model = copy.deepcopy(classifier(structure).model).to(dtype)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(X.to(dtype)), model(X.to(dtype)))


@both
def test_trains_compiled(structure: str) -> None:
    model = copy.deepcopy(classifier(structure).model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    gradients = []
    for run in (model, compiled):
        model.zero_grad()
        run(X).square().sum().backward()
        gradients.append(model.linear.weight.grad.clone())
    torch.testing.assert_close(*gradients)


@pytest.mark.skipif(shutil.which("c++") is None, reason="inductor needs a compiler of C++")
@both
def test_inductor_generates_no_transcendental_function(structure: str) -> None:
    from torch._inductor.utils import run_and_get_code

    pair = classifier(structure)
    compiled = torch.compile(copy.deepcopy(pair.model), fullgraph=True)
    result, sources = run_and_get_code(compiled, X)
    assert_within(result, pair.bounds(X))
    kernels = "".join(sources)
    assert "at::vec" in kernels or "cpp_fused" in kernels
    called = [name for name in ("exp", "erf", "tanh", "sqrt", "log") if f".{name}(" in kernels]
    assert called == []


# Any shapes


def test_modules_take_other_shapes() -> None:
    pair = classifier("modules")
    for shape in [(1, 8), (5, 8), (2, 3, 8)]:
        x = numbers(*shape)
        # The first call of a rank traces.
        found = pair.model(x)
        with torch.no_grad(), Operations() as executed:
            assert torch.equal(pair.model(x), found)
        assert not executed.transcendental
        analysed = Analysed(pair.original, pair.model, Inputs((x,)), PASSES)
        assert_within(found, analysed.bounds(Inputs((x,))))


def test_dynamic_shapes_of_a_graph() -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    pair = rewrite(
        Classifier().eval(), X, options={"dynamic_shapes": {"x": {0: batch}}}, structure="graph"
    )
    for size in (1, 3, 17, 64):
        x = numbers(size, 8)
        assert_within(pair.model(x), pair.bounds(x))


def test_sizes_outside_of_dynamic_shapes_are_one_line() -> None:
    batch = torch.export.Dim("batch", min=2, max=8)
    model = rewrite(
        Classifier().eval(), X, options={"dynamic_shapes": {"x": {0: batch}}}, structure="graph"
    ).model
    with pytest.raises(OdpError, match="'x' has size 9 along axis 0; dynamic_shapes allows 2 to 8"):
        model(numbers(9, 8))


# torch.export


def left(program: torch.export.ExportedProgram) -> dict[str, int]:
    """Transcendental operators of a program and of all graphs inside of it."""
    found: Counter[str] = Counter()
    for module in program.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            found.update(str(node.target) for node in module.graph.nodes if is_transcendental(node))
    return dict(found)


@both
@pytest.mark.parametrize("kind", [Classifier, Shared, Optional])
def test_exported_program(kind: type[torch.nn.Module], structure: str) -> None:
    pair = rewrite(kind().eval(), X, structure=structure)
    program = torch.export.export(pair.model, (X,), strict=False)
    assert left(program) == {}
    assert_within(program.module()(X), pair.bounds(X))


@both
def test_saved_and_loaded_program(structure: str) -> None:
    pair = classifier(structure)
    file = io.BytesIO()
    torch.export.save(torch.export.export(pair.model, (X,), strict=False), file)
    file.seek(0)
    program = torch.export.load(file)
    assert left(program) == {}
    assert_within(program.module()(X), pair.bounds(X))


def test_a_program_is_rewritten_too() -> None:
    original = Classifier().eval()
    program = torch.export.export(original, (X,), strict=False)
    result = odp.rewrite(program, PASSES, calibration=[X], measure=False)
    with torch.no_grad(), Operations() as executed:
        found = result.model(X)
    assert not executed.transcendental
    assert_within(found, classifier("graph").bounds(X))
    assert list(result.model.state_dict()) == list(original.state_dict())


@pytest.mark.parametrize("form", ["program", "graph module"])
def test_what_came_as_a_graph_is_a_module_like_others(form: str, tmp_path: Path) -> None:
    """torch looks past the forward of a GraphModule and runs the graph that it was."""
    original = Classifier().eval()
    program = torch.export.export(original, (X,), strict=False)
    given = program if form == "program" else torch.fx.symbolic_trace(original)
    model = odp.rewrite(given, PASSES, calibration=[X], measure=False).model
    bounds = classifier("graph").bounds(X)
    again = torch.export.export(model, (X,), strict=False)
    assert left(again) == {}
    assert_within(again.module()(X), bounds)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_within(compiled(X), bounds)
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    assert_within(loaded(X), bounds)
    with pytest.raises(OdpError, match="types baked in"):
        copy.deepcopy(model).double()


def test_functions_inside_of_branches() -> None:
    options = {"calibration": [X.abs(), -X.abs()]}
    pair = rewrite(Branches(), X, structure="graph", options=options)
    assert pair.report.model.transcendental_after == {}
    declared = max(c.approximant.absolute_error for c in choices_of(pair.model).values())
    for x in (X.abs(), -X.abs()):
        # Each branch returns a function once, or times a weight of 0.5.
        torch.testing.assert_close(pair.model(x), pair.original(x), atol=declared, rtol=1e-6)


def test_a_branch_that_calibration_never_took_stays_and_is_reported() -> None:
    report = rewrite(Branches(), X.abs(), structure="graph").report
    assert report.model.transcendental_after == {"aten::exp": 1}
    (skipped,) = [record for one in report.passes for record in one.skipped]
    assert "was never reached by the calibration data" in skipped.reason


# ONNX


@both
@pytest.mark.parametrize("kind", [Classifier, Shared])
def test_onnx(kind: type[torch.nn.Module], structure: str, tmp_path: Path) -> None:
    pair = rewrite(kind().eval(), X, structure=structure)
    file = tmp_path / "model.onnx"
    torch.onnx.export(pair.model, (X,), file, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: X.numpy()})[0]
    # The errors of rounding that the bound counts are those of torch's order of operations.
    assert_within(torch.from_numpy(np.asarray(found)), pair.bounds(X), scale=2.0)
    import onnx

    kinds = {node.op_type for node in onnx.load(file).graph.node}
    assert not kinds & {"Exp", "Erf", "Sqrt", "Tanh", "Sigmoid", "Softmax", "Gelu", "Log"}
    assert not kinds & {"LayerNormalization", "Reciprocal"}


@both
def test_export_of_what_was_rewritten_twice(structure: str) -> None:
    """There is nothing left for a second rewrite, and it says so by changing nothing."""
    pair = classifier(structure)
    again = odp.rewrite(
        pair.model, PASSES, example_inputs=Inputs((X,), {}), structure="graph", measure=False
    )
    assert again.report.sites == []
    torch.testing.assert_close(again.model(X), pair.model(X), atol=1e-6, rtol=0)
