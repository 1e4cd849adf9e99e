"""Every float32 node test of ONNX with a transcendental operation is rewritten, or listed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from odp.approximations.errors import OdpError
from odp.backends.onnx.freeze import simplify
from odp.backends.onnx.load import inline_functions
from odp.passes import registry
from odp.rewriter.execution import Session
from odp.rewriter.manager import rewrite_graph, schedule
from odp.rewriter.onnx_calibration import calibrate
from odp.rewriter.onnx_expansion import expand_schema_functions
from odp.rewriter.onnx_graph import OnnxGraph
from odp.rewriter.selection import Approximating, Defaults, select

from .node_cases import OUT_OF_SCOPE, NodeCase, node_cases
from .page import PAGE, conformance_page
from .running_error import Marks, Tensor, outputs_with_bounds

pytestmark = pytest.mark.filterwarnings("ignore")


@dataclass(frozen=True)
class Verdict:
    """What became of one case.

    Attributes:
        failure: why it is not rewritten within its bound; None if it is.
        bound: the bound of its worst output element, as a share of the largest one; infinite where
            the analysis did not get that far.
    """

    failure: str | None
    bound: float = math.inf


def verdict(case: NodeCase) -> Verdict:
    """Rewrite one case, with expressions chosen on its own data, and compare."""
    model = ir.from_proto(case.model)
    inline_functions(model)
    simplify(model)
    if expand_schema_functions(model):
        simplify(model)
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
        return Verdict(f"the expansion is not exact: {problem}")
    rewrite_graph(graph, requests, Approximating(selection))
    if left := graph.transcendental():
        reasons = [skipped.reason for skipped in selection.skipped.values()]
        return Verdict(f"left: {left}, {reasons}")
    rewritten = list(Session(graph.model).run(case.feed).values())
    problem = deviation(case.expected, rewritten, bounds, rounding)
    return Verdict(problem, share_of_largest(case.expected, bounds))


def share_of_largest(expected: list[NDArray[Any]], bounds: list[Tensor]) -> float:
    """The largest bound of any output, relative to the largest element of that output."""
    shares = [0.0]
    for wanted, bound in zip(expected, bounds, strict=True):
        finite = np.isfinite(wanted) if wanted.dtype.kind == "f" else np.zeros(wanted.shape, bool)
        # An output of zeros is measured against one.
        largest = float(np.abs(wanted[finite]).max(initial=0.0)) or 1.0
        shares.append(float(bound.error[finite].max(initial=0.0)) / largest)
    return max(shares)


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
def verdicts() -> dict[str, Verdict]:
    """What became of each case."""
    found = {}
    for case in node_cases():
        try:
            found[case.name] = verdict(case)
        except (OdpError, AssertionError) as error:
            found[case.name] = Verdict(f"{type(error).__name__}: {error}")
    return found


def test_every_case_is_rewritten_within_its_bound_or_listed(verdicts: dict[str, Verdict]) -> None:
    failures = {name: v.failure for name, v in verdicts.items() if v.failure is not None}
    assert {name: why for name, why in failures.items() if name not in OUT_OF_SCOPE} == {}
    assert set(OUT_OF_SCOPE) == set(failures), "cases are listed that work"


def test_nine_of_ten_are_rewritten(verdicts: dict[str, Verdict]) -> None:
    rewritten = [name for name, found in verdicts.items() if found.failure is None]
    assert len(rewritten) >= 0.9 * len(verdicts)


def test_the_bounds_say_something(verdicts: dict[str, Verdict]) -> None:
    bounds = [found.bound for name, found in verdicts.items() if name not in OUT_OF_SCOPE]
    assert np.quantile(bounds, 0.95) < 1e-3


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == conformance_page(), (
        "run `python -m tests.conformance.page` in the root of the repository"
    )
