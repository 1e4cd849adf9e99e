"""Every float32 node test of ONNX with a transcendental operation is rewritten, or listed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.backends.onnx.freeze import simplify
from odp.backends.onnx.load import inline_functions
from odp.passes import registry
from odp.rewriter.calibration import calibrate
from odp.rewriter.execution import Session
from odp.rewriter.manager import rewrite_graph, schedule
from odp.rewriter.onnx_expansion import expand_schema_functions
from odp.rewriter.onnx_graph import OnnxGraph
from odp.rewriter.onnx_vocabulary import is_transcendental
from odp.rewriter.selection import Approximating, Defaults, select

from .node_cases import OUT_OF_SCOPE, NodeCase, node_cases
from .page import PAGE, conformance_page
from .running_error import Marks, Tensor, outputs_with_bounds

pytestmark = pytest.mark.filterwarnings("ignore")


def failure(case: NodeCase) -> str | None:
    """Rewrite one case with expressions chosen on its own data; None if all is well, or why not."""
    model = ir.from_proto(case.model)
    inline_functions(model)
    simplify(model, keep=is_transcendental)
    if expand_schema_functions(model):
        simplify(model, keep=is_transcendental)
    graph = OnnxGraph(model)
    typed = [kind() for kind in registry().values() if kind.in_all]
    requests = schedule(typed, registry())
    sites, observations, native_runs = calibrate(graph, requests, [case.feed])
    selection = select(sites, observations, Defaults())

    marked, marks = graph.clone(), Marks()
    rewrite_graph(marked, requests, marks)
    rounding = outputs_with_bounds(marked.model, marks, {}, case.feed)
    bounds = outputs_with_bounds(marked.model, marks, selection.choices, case.feed)

    native = [native_runs[0][value.name or ""] for value in model.graph.outputs]
    problem = deviation(case.expected, native, rounding, rounding)
    if problem:
        return f"the expansion is not exact: {problem}"
    rewrite_graph(graph, requests, Approximating(selection))
    if left := graph.transcendental():
        return f"left: {left}, {[skipped.reason for skipped in selection.skipped.values()]}"
    rewritten = list(Session(graph.model).run(case.feed).values())
    return deviation(case.expected, rewritten, bounds, rounding)


def deviation(
    expected: list[NDArray[Any]],
    found: list[NDArray[Any]],
    bounds: list[Tensor],
    rounding: list[Tensor],
) -> str | None:
    """How `found` differs by more than its bound and the rounding of the reference allow."""
    for index, (wanted, got) in enumerate(zip(expected, found, strict=True)):
        if wanted.shape != got.shape or wanted.dtype != got.dtype:
            return f"output {index} is {got.dtype}{got.shape}, not {wanted.dtype}{wanted.shape}"
        if wanted.dtype.kind != "f":
            if not np.array_equal(wanted, got):
                return f"output {index} differs"
            continue
        allowed = bounds[index].error + rounding[index].error
        difference = np.abs(wanted.astype(np.float64) - got.astype(np.float64))
        same = (wanted == got) | (np.isnan(wanted) & np.isnan(got))
        wrong = ~same & ~((difference <= allowed) & np.isfinite(allowed))
        if wrong.any():
            worst = np.argmax(np.where(wrong, difference, -1))
            return (
                f"output {index} is off by {difference.flat[worst]:.3g} where at most "
                f"{allowed.flat[worst]:.3g} is allowed"
            )
    return None


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    """Why each case that failed did."""
    found = {}
    for case in node_cases():
        try:
            problem = failure(case)
        except (OdpError, AssertionError) as error:
            problem = f"{type(error).__name__}: {error}"
        if problem is not None:
            found[case.name] = problem
    return found


def test_every_case_in_scope_is_rewritten_within_its_bound(failures: dict[str, str]) -> None:
    assert {name: why for name, why in failures.items() if name not in OUT_OF_SCOPE} == {}


def test_nothing_is_listed_that_works(failures: dict[str, str]) -> None:
    assert set(OUT_OF_SCOPE) <= set(failures)


def test_nine_of_ten_are_rewritten() -> None:
    names = {case.name for case in node_cases()}
    assert set(OUT_OF_SCOPE) <= names
    assert len(names) - len(OUT_OF_SCOPE) >= 0.9 * len(names)


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == conformance_page(), (
        "run `python -m tests.conformance.page` in the root of the repository"
    )
