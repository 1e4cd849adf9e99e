"""The same passes on torch: each spelling is taken by its pass, leaves nothing, stays in bounds.

All spellings are rewritten together, once in each structure: one trace takes as long as one of
them.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import odp
from odp.backends.torch.discovery import Operations
from odp.backends.torch.inputs import Inputs
from odp.passes import registry

from .rewriting import STRUCTURES, Analysed, assert_within, cheap
from .running_error import Bound
from .spellings import Gallery, Spelling, gallery_inputs
from .spellings_composite import ACTIVATIONS, NORMS, SOFTMAXES
from .spellings_elementary import ELEMENTARY

SPELLINGS = [*ELEMENTARY, *ACTIVATIONS, *SOFTMAXES, *NORMS]
ELSEWHERE = {
    # Operators of ONNX alone, which torch writes with pow and sqrt, or unrolls.
    *("local_response_norm", "lp_norm", "lp_pool", "recurrent"),
    # Divisions are rational, and `all` leaves them: a test of its own.
    "reciprocal",
}

# torch.export writes over the tags of nodes in no_grad and autocast blocks of a module, and without
# them the analysis cannot find the sites.
WITHOUT_TAGS = {"sigmoid_no_grad", "tanh_autocast"}

every_spelling = pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling.key)


@dataclass(frozen=True)
class Shown:
    """A gallery before and after."""

    structure: str
    result: odp.RewriteResult
    exact: dict[str, Any]
    native: dict[str, Any]
    native_bounds: dict[str, Any]
    outputs: dict[str, Any]
    bounds: dict[str, Any]
    patterns: dict[str, dict[tuple[str, str], int]]


@pytest.fixture(scope="module", params=STRUCTURES)
def shown(request: pytest.FixtureRequest) -> Shown:
    gallery, inputs = Gallery(SPELLINGS).eval(), gallery_inputs(SPELLINGS)
    passes = cheap()
    result = odp.rewrite(
        gallery, passes, example_inputs=inputs, structure=request.param, measure=False
    )
    given = Inputs((), inputs)
    analysed = Analysed(gallery, result.model, given, passes)
    with torch.no_grad():
        outputs = result.model(**inputs)
        exact = copy.deepcopy(gallery).double()(**{k: x.double() for k, x in inputs.items()})
    patterns: dict[str, Counter[tuple[str, str]]] = {}
    for site in result.report.sites:
        match = site.id.rsplit("/", 1)[0]
        patterns.setdefault(site.module_path.split(".")[0], Counter())[match] += 1
    counted = {
        key: dict(Counter((match.split("/")[0], match.split("/")[-2]) for match in matches))
        for key, matches in patterns.items()
    }
    return Shown(
        request.param,
        result,
        exact,
        analysed.native(given),
        analysed.bounds(given, native=True),
        outputs,
        analysed.bounds(given),
        counted,
    )


def test_every_pass_has_a_torch_spelling() -> None:
    assert set(registry()) - ELSEWHERE == {spelling.rewrite for spelling in SPELLINGS}


def test_names_of_spellings_are_unique() -> None:
    assert [k for k, n in Counter(spelling.key for spelling in SPELLINGS).items() if n > 1] == []


@every_spelling
def test_the_pass_takes_it(spelling: Spelling, shown: Shown) -> None:
    found = shown.patterns[spelling.key]
    if shown.structure == "graph":
        assert found == {(spelling.rewrite, name): n for name, n in spelling.patterns.items()}
    else:
        # A call by itself is all that is seen there: composites written by hand fall apart.
        assert {name for name, _ in found} == (spelling.calls or {spelling.rewrite})


def test_nothing_transcendental_is_left(shown: Shown) -> None:
    report = shown.result.report
    assert report.model.transcendental_before
    assert report.model.transcendental_after == {}
    assert [skipped for record in report.passes for skipped in record.skipped] == []
    with torch.no_grad(), Operations() as executed:
        shown.result.model(**gallery_inputs(SPELLINGS))
    assert executed.transcendental == {}


@every_spelling
def test_native_functions_in_the_place_of_sites_change_nothing(
    spelling: Spelling, shown: Shown
) -> None:
    _skip_without_tags(spelling, shown)
    bound = shown.native_bounds[spelling.key]
    assert isinstance(bound, Bound)
    assert_within(shown.native[spelling.key], bound)
    # Nothing but roundings to the types of the graph is between the analysis and the original.
    assert_within(shown.exact[spelling.key], bound)
    assert shown.native[spelling.key].dtype == shown.outputs[spelling.key].dtype


@every_spelling
def test_error_is_within_what_is_declared(spelling: Spelling, shown: Shown) -> None:
    _skip_without_tags(spelling, shown)
    assert_within(shown.outputs[spelling.key], shown.bounds[spelling.key])


def _skip_without_tags(spelling: Spelling, shown: Shown) -> None:
    if shown.structure == "modules" and spelling.key in WITHOUT_TAGS:
        pytest.skip("its nodes have no tags")
