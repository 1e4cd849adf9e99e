"""From a model to a circuit in real numbers: expressions that use a fair share of the error."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from odp.approximations.errors import OdpError
from odp.job import Job, Stage

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from odp.backends.ezkl.circuit import Circuit
    from odp.backends.ezkl.division import Division
    from odp.backends.ezkl.lint import Problem
    from odp.backends.ezkl.policy import Native
    from odp.rewriter.calibration import Observation
    from odp.rewriter.report import Report, SiteRecord
    from odp.rewriter.selection import Defaults, Selection
    from odp.rewriter.site import Site

    Arrays = Mapping[str, NDArray[np.float64]]

__all__ = [
    "Lowered",
    "Rewritten",
    "Wishes",
    "balanced",
    "check_options",
    "circuit_job",
    "expressions_of",
    "lowered",
    "rewritten",
]

# Share of the squared error that the expressions may use, and what is tried to get there.
_SHARE = (0.05, 0.6)
_ATTEMPTS = 5
_FIRST_SHARE, _FINER, _COARSER = 0.2, 0.25, 3.0
# Without a shift, weights of rows with small scores drown in the error of exp at large ones.
_WIDEST_SCORES = 8.0


@dataclass(frozen=True)
class Wishes:
    """What a rewrite for a circuit is asked to do; see `odp.circuits.compile_circuit`.

    Attributes:
        model: path.
        passes: what to replace.
        calibration: path of an archive of inputs, or None.
        shapes: of inputs that have dynamic ones.
        margin: by how much more than calibration saw any value may be.
        samples: number of inputs to use.
        seed: of generated inputs.
        native: what stays an operation of EZKL.
        progress: called when a stage advances.
        shift: of softmax; `none` leaves scores as they are unless they differ by too much, and None
            does what the pass does.
        dense: modules whose ternary weights become one matrix, as for `read_circuit`.
    """

    model: Path
    passes: str
    calibration: str | None
    shapes: Mapping[str, Sequence[int]] | None
    margin: float
    samples: int | None
    seed: int
    native: Native
    progress: Stage
    shift: Literal["none", "max"] | None = "none"
    dense: Sequence[str] = ()


@dataclass(frozen=True)
class Lowered:
    """A model with expressions, at opset 12.

    Attributes:
        network: the model.
        report: of the rewrite.
        roots: sites that take a root or a reciprocal, by id, whatever became of them.
        problems: what passes would have replaced and could not.
        job: that was done.
        shift: of softmax, that the scores need.
    """

    network: onnx.ModelProto
    report: Report
    roots: Mapping[str, Site]
    problems: Sequence[Problem]
    job: Job
    shift: Literal["none", "max"] | None


@dataclass(frozen=True)
class Rewritten:
    """A model as a circuit in real numbers.

    Attributes:
        circuit: without divisions.
        lowered: the graph that it was read from.
        divisions: what became of divisions by variables.
        inputs: the calibration inputs.
        outputs: what the original makes of them.
        site_error: error that was asked of every expression.
        error: relative error of the outputs by expressions alone.
    """

    circuit: Circuit
    lowered: Lowered
    divisions: Sequence[Division]
    inputs: Sequence[Arrays]
    outputs: Sequence[Arrays]
    site_error: float
    error: float


def balanced(wishes: Wishes, error: float) -> Rewritten:
    """Expressions that use up a fair share of an error, neither most of it nor next to nothing.

    Args:
        wishes: what is to be done.
        error: of the outputs.

    Raises:
        OdpError: bad input, or an error that no expressions keep.
    """
    from odp.backends.ezkl.lint import CircuitRefused

    wanted = _FIRST_SHARE * error
    found: Rewritten | None = None
    best: Rewritten | None = None
    for _ in range(_ATTEMPTS):
        try:
            found = rewritten(wishes, wanted)
        except CircuitRefused:
            # Coarser expressions made a circuit of the model, so it is the error that has none.
            if found is None:
                raise
            break
        wishes = dataclasses.replace(wishes, shift=found.lowered.shift)
        share = (found.error / error) ** 2
        if share <= _SHARE[1] and (best is None or found.site_error > best.site_error):
            best = found
        if not found.lowered.report.sites and all(d.approximant is None for d in found.divisions):
            break
        if share > _SHARE[1]:
            if best is not None:
                break
            wanted *= _FINER
        elif share < _SHARE[0]:
            wanted *= _COARSER
        else:
            break
    assert found is not None
    if best is None:
        raise OdpError(
            f"expressions with errors down to {found.site_error:.1g} at each site change the "
            f"outputs by {found.error:.2g}, more than the {error:g} that are allowed"
        )
    return best


def rewritten(wishes: Wishes, site_error: float) -> Rewritten:
    """The circuit of a model with expressions of some error.

    Args:
        wishes: what is to be done.
        site_error: of the expression at each site.

    Raises:
        OdpError: bad input, or an operation that no circuit has.
    """
    from odp.backends.ezkl.compiler import relative_error
    from odp.backends.ezkl.division import without_division
    from odp.backends.ezkl.reading import read_circuit
    from odp.onnx_rewriting import reference_run

    found = lowered(wishes, site_error)
    native, margin = wishes.native, wishes.margin
    circuit = read_circuit(found.network, found.problems, native.roots, wishes.dense)
    inputs, outputs = reference_run(wishes.model, found.job, wishes.shapes)
    samples = [circuit.evaluate(one) for one in inputs]
    circuit, divisions = without_division(circuit, samples, site_error, margin, native.keeps)
    worst = 0.0
    for one, wanted in zip(inputs, outputs, strict=True):
        values = circuit.evaluate(one)
        made = {name: values[number] for name, number in circuit.outputs.items()}
        worst = max(worst, relative_error(made, wanted))
    return Rewritten(circuit, found, divisions, list(inputs), list(outputs), site_error, worst)


def lowered(wishes: Wishes, site_error: float) -> Lowered:
    """The model with expressions of some error, at opset 12, with static shapes.

    Args:
        wishes: what is to be done.
        site_error: of the expression at each site.

    Raises:
        OdpError: bad input.
    """
    import onnx_ir as ir

    from odp.backends.ezkl.lint import Problem
    from odp.onnx_rewriting import rewrite_model

    roots: dict[str, Site] = {}
    job = circuit_job(wishes, site_error, _selector(wishes.native, roots))
    model, report, _ = rewrite_model(wishes.model, job, shapes=wishes.shapes, opset=12)
    if wishes.shift == "none" and any(_is_wide(site) for site in report.sites):
        return lowered(dataclasses.replace(wishes, shift="max"), site_error)
    problems = [
        Problem(f"node '{one.node}'", one.op, f"{record.name}: {one.reason}")
        for record in report.passes
        for one in record.skipped
    ]
    return Lowered(ir.to_proto(model), report, roots, problems, job, wishes.shift)


def _is_wide(site: SiteRecord) -> bool:
    """Whether scores of an attention differ by so much that the largest has to be subtracted."""
    low, high = site.domain
    wide: bool = high - low > _WIDEST_SCORES and high > 0.0
    return wide and site.pass_name.startswith("softmax")


def _selector(native: Native, roots: dict[str, Site]) -> Callable[..., Selection]:
    from odp.backends.ezkl.expressions import select_for_circuit
    from odp.backends.ezkl.policy import Native

    every = Native(roots=True, divisions=True).functions

    def select(
        sites: Mapping[str, Site], observations: Mapping[str, Observation], defaults: Defaults
    ) -> Selection:
        roots.update({i: site for i, site in sites.items() if site.function in every})
        return select_for_circuit(sites, observations, defaults, native.functions)

    return select


def circuit_job(wishes: Wishes, error: float, selector: Callable[..., Selection]) -> Job:
    """The job of a rewrite for EZKL, in either profile.

    Nothing is clipped, since a clip costs 31 rows an element and ranges are checked outside, and
    masks are factors, since one that is added would be in the domain of exp; what the user typed
    stands.

    Args:
        wishes: what is to be done.
        error: of the expression at each site.
        selector: of expressions.
    """
    from odp.rewriting import job_of

    job = job_of(
        wishes.passes,
        calibration=wishes.calibration,
        error=error,
        margin=wishes.margin,
        guard="none",
        samples=wishes.samples,
        seed=wishes.seed,
        measure=False,
        progress=wishes.progress,
    )
    typed = [
        dataclasses.replace(one, mask=one.mask or "multiply", shift=one.shift or wishes.shift)  # type: ignore[attr-defined, call-arg]
        if one.name == "softmax"
        else one
        for one in job.typed
    ]
    return dataclasses.replace(job, typed=typed, selector=selector)


def check_options(error: float, policy: str) -> None:
    """Refuse options that no circuit has.

    Raises:
        OdpError: the error is not between 0 and 1, or there is no such policy.
    """
    from odp.backends.ezkl.policy import POLICIES

    if not 0.0 < error < 1.0:
        raise OdpError(f"the error of a circuit is a number between 0 and 1, not {error:g}")
    if policy not in POLICIES:
        raise OdpError(f"policy is {' or '.join(POLICIES)}, not '{policy}'")


def expressions_of(report: Report) -> list[dict[str, Any]]:
    """Every site and its expression, for a manifest."""
    records = {record.key: record for record in report.approximants}
    found = []
    for site in report.sites:
        chosen = records[site.approximant]
        found.append(
            {
                "pass": site.pass_name,
                "node": site.node,
                "module": site.module_path,
                "function": site.function,
                "domain": list(site.domain),
                "expression": chosen.description,
                "formula": chosen.latex,
                "absolute_error": chosen.absolute_error,
                "relative_error": chosen.relative_error,
                "error_kind": chosen.error_kind,
            }
        )
    return found
