"""`odp.rewrite` for torch: from a module to the same module without transcendental functions."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import torch

import odp
from odp.approximations.errors import OdpError
from odp.backends.torch.calibration_data import (
    CalibrationData,
    calibration_data,
    example_of,
    is_pretrained,
)
from odp.backends.torch.discovery import Operations
from odp.backends.torch.export import check_attention, check_parameters
from odp.backends.torch.fingerprint import DataFingerprint, module_fingerprint
from odp.backends.torch.graph_target import GraphTarget
from odp.backends.torch.inputs import Batches, Inputs, run
from odp.backends.torch.modules_target import ModulesTarget
from odp.backends.torch.output_error import errors_by_pass
from odp.backends.torch.program import module_of
from odp.job import Job
from odp.kernel_sites import add_fused_sites, outcomes_of
from odp.rewriter.calibration import Observation, Recorder
from odp.rewriter.fx_transcendental import is_transcendental
from odp.rewriter.manager import Result, rewrite_graph, schedule
from odp.rewriter.ranges import Ranges, places_of
from odp.rewriter.report import ModelRecord, Report
from odp.rewriter.reporting import approximant_records, pass_records, site_records
from odp.rewriter.selection import Selection
from odp.rewriter.site import Request, Site
from odp.rewriter.statistics import statistics

__all__ = [
    "Calibrated",
    "Structure",
    "Surgery",
    "calibrate_module",
    "find_sites_of_module",
    "finish_module",
    "is_program",
    "rewrite_module",
]

Structure = Literal["graph", "modules"]
"""What a module becomes: one rewritten graph behind its forward, or itself with other functions."""

Destination = Literal["torch", "triton"]
"""Where it runs: as operators of torch, or with the operators of `odp.backends.triton`."""

_MEASURED = 8
"""Batches on which the error of each pass is measured, unless `samples` says otherwise."""


class Surgery(Protocol):
    """A module that can be calibrated, varied and rewritten."""

    @property
    def module(self) -> torch.nn.Module:
        """The module."""

    def operations(self) -> tuple[dict[str, int], dict[str, int]]:
        """Operations by type: all of them, and the transcendental ones."""

    def calibrate(
        self, batches: Batches, advance: Callable[[], None]
    ) -> tuple[dict[str, Site], dict[str, Observation]]:
        """Find all sites and watch them on data."""

    def variant(
        self, selection: Selection, enabled: Collection[str] | None
    ) -> AbstractContextManager[Callable[[Inputs], Any]]:
        """The module with some passes, as a function of its inputs."""

    def finish(
        self, selection: Selection, explain: frozenset[str]
    ) -> tuple[torch.nn.Module, Result]:
        """Rewrite for good."""


@dataclass(frozen=True)
class Calibrated:
    """A module of which is known what its sites see.

    Attributes:
        original: the module as it came.
        target: its copy, to be varied and rewritten.
        structure: `graph` or `modules`.
        data: what it was run on.
        sites: by id.
        observations: what each site saw, by its id.
        ranges: the same, to be kept.
    """

    original: torch.nn.Module
    target: Surgery
    structure: str
    data: CalibrationData
    sites: dict[str, Site]
    observations: dict[str, Observation]
    ranges: Ranges


def calibrate_module(
    module: torch.nn.Module | torch.export.ExportedProgram,
    job: Job,
    *,
    example_inputs: Any = None,
    tokenizer: Any = None,
    dynamic_shapes: Any = None,
    structure: Structure | None = None,
    context: int | None = None,
    share_parameters: bool = False,
    destination: Destination = "torch",
) -> Calibrated:
    """Find all sites of a torch module and watch them on data; arguments as for `odp.rewrite`.

    Raises:
        OdpError: bad input; one line that says what, where and what to do.
    """
    job.progress("load", 0, 1)
    if isinstance(module, torch.jit.ScriptModule):
        raise OdpError("a ScriptModule is compiled; rewrite the torch.nn.Module that it came from")
    program = module if isinstance(module, torch.export.ExportedProgram) else None
    original = module_of(program) if program is not None else module
    assert isinstance(original, torch.nn.Module)
    check_parameters(original)
    chosen = _structure(structure, original, program)
    data = calibration_data(
        original,
        job.calibration,
        example_of(example_inputs, program),
        tokenizer,
        context=context,
        samples=job.samples,
        seed=job.seed,
        static=chosen == "graph",
    )
    requests = schedule(job.typed, job.available)
    if any(request.rewrite.name == "softmax" for request in requests):
        check_attention(original)
    own = _copied(original, share_parameters)
    target = _target(own, requests, job, data.example, dynamic_shapes, program, chosen, destination)
    job.progress("load", 1, 1)
    sites, observations, ranges = _watched(target, data, original, job)
    return Calibrated(original, target, chosen, data, sites, observations, ranges)


def _target(
    module: torch.nn.Module,
    requests: Sequence[Request],
    job: Job,
    example: Inputs,
    dynamic_shapes: Any,
    program: torch.export.ExportedProgram | None,
    structure: str,
    destination: str,
) -> Surgery:
    if destination not in ("torch", "triton"):
        raise OdpError(f"target is 'torch' or 'triton', not '{destination}'")
    if structure == "modules":
        if destination == "torch":
            return ModulesTarget(module, requests, example)
        from odp.backends.triton.modules_target import FusedModulesTarget

        return FusedModulesTarget(module, requests, job.typed, job.defaults.error, example)
    if destination == "torch":
        return GraphTarget(module, requests, example, dynamic_shapes, program)
    from odp.backends.triton.fused_graph import GraphFusion

    fusion = GraphFusion(tuple(job.typed), job.defaults.error)
    return GraphTarget(module, requests, example, dynamic_shapes, program, fusion)


def rewrite_module(
    module: torch.nn.Module | torch.export.ExportedProgram, job: Job, **options: Any
) -> tuple[torch.nn.Module, Report, Ranges]:
    """Replace the transcendental functions of a torch module; see `odp.rewrite`.

    Args:
        module: the module or exported program; unchanged.
        job: what is asked for.
        **options: the options of `calibrate_module`.

    Returns:
        The rewritten module, the report, and what calibration saw.

    Raises:
        OdpError: bad input; one line that says what, where and what to do.
    """
    known = calibrate_module(module, job, **options)
    job.progress("approximate", 0, 1)
    selection = job.selector(known.sites, known.observations, job.defaults)
    job.progress("approximate", 1, 1)
    return finish_module(known, selection, job)


def is_program(model: Any) -> bool:
    """Whether something is an exported program."""
    return isinstance(model, torch.export.ExportedProgram)


def find_sites_of_module(
    module: torch.nn.Module | torch.export.ExportedProgram, job: Job, example_inputs: Any = None
) -> tuple[list[Site], dict[str, int]]:
    """Every site of a module as one graph; see `odp.find_sites`.

    Raises:
        OdpError: bad input, or the module cannot be traced.
    """
    program = module if isinstance(module, torch.export.ExportedProgram) else None
    original = module_of(program) if program is not None else module
    assert isinstance(original, torch.nn.Module)
    example = example_of(example_inputs, program)
    data = calibration_data(
        original, None, example, None, context=None, samples=None, seed=job.seed, static=True
    )
    requests = schedule(job.typed, job.available)
    own = _copied(original, share_parameters=True)
    graph = GraphTarget(own, requests, data.example, None, program).program.graph
    recorder = Recorder()
    rewrite_graph(graph, requests, recorder)
    # What the recorder emitted in place of a site is transcendental too, and is not counted.
    left = Counter(
        node.native_type
        for node in graph.nodes()
        if not node.emitted and is_transcendental(node.native)
    )
    return list(recorder.sites.values()), dict(sorted(left.items()))


def _structure(
    wanted: str | None, module: torch.nn.Module, program: torch.export.ExportedProgram | None
) -> str:
    if wanted not in (None, "graph", "modules"):
        raise OdpError(f"structure is 'graph' or 'modules', not '{wanted}'")
    if wanted == "modules" and program is not None:
        raise OdpError("an exported program is a graph; structure='modules' needs its module")
    if wanted == "modules" and isinstance(module, torch.fx.GraphModule):
        raise OdpError("a GraphModule is a graph; structure='modules' needs the original module")
    return wanted or ("modules" if is_pretrained(module) else "graph")


def _copied(module: torch.nn.Module, share_parameters: bool) -> torch.nn.Module:
    """A module of its own, whose parameters are copies, or aliases of the same memory."""
    memo: dict[int, Any] = {}
    if share_parameters:
        for parameter in module.parameters():
            alias = torch.nn.Parameter(parameter.detach(), parameter.requires_grad)
            memo[id(parameter)] = alias
    try:
        return copy.deepcopy(module, memo)
    except (RuntimeError, TypeError, pickle.PickleError) as error:
        raise OdpError(
            f"cannot copy {type(module).__name__} ({' '.join(str(error).split())[:200]}); "
            "remove tensors with a gradient history, hooks or locks from its attributes"
        ) from None


def _watched(
    target: Surgery, data: CalibrationData, original: torch.nn.Module, job: Job
) -> tuple[dict[str, Site], dict[str, Observation], Ranges]:
    """All sites, what they saw, now or on an earlier occasion, and the ranges to keep."""
    watched = _FingerprintedBatches(data.batches)
    advance = job.counted("calibrate", data.batches.count or 0)
    sites, observations = target.calibrate(watched, advance)
    fingerprint = module_fingerprint(original)
    if data.ranges is None:
        digest, samples = watched.fingerprint.hexdigest(), watched.fingerprint.samples
        source = data.batches.source
        places = places_of(sites)
        ranges = Ranges(fingerprint, digest, source, samples, observations, places)
        return sites, observations, ranges
    observations, warnings = data.ranges.matching(sites, fingerprint)
    data.warnings.extend(warnings)
    return sites, observations, data.ranges


class _FingerprintedBatches(Batches):
    """Batches that leave their fingerprint behind as they go by."""

    def __init__(self, batches: Batches) -> None:
        super().__init__(batches.source, batches)
        self.fingerprint = DataFingerprint()

    def __iter__(self) -> Any:
        for inputs in super().__iter__():
            self.fingerprint.add(inputs)
            yield inputs


def finish_module(
    known: Calibrated, selection: Selection, job: Job
) -> tuple[torch.nn.Module, Report, Ranges]:
    """Measure every pass, rewrite with what was selected, and write everything down."""
    target, data, original = known.target, known.data, known.original
    fused: Sequence[Any] = getattr(target, "fused", ())
    active = {site_id.split("/", 1)[0] for site_id in selection.choices}
    active |= {site.typed for site in fused}
    names = [rewrite.name for rewrite in job.typed if rewrite.name in active]
    isolated, cumulative = (
        errors_by_pass(
            original,
            lambda enabled: target.variant(selection, enabled),
            names,
            data.batches,
            job.samples or _MEASURED,
            lambda done, total: job.progress("measure", done, total),
        )
        if job.measure
        else ({}, {})
    )
    job.progress("rewrite", 0, 1)
    before = target.operations()
    module, result = target.finish(selection, frozenset(job.explain))
    result.include(Result(outcomes=outcomes_of(fused)))
    after = target.operations() if known.structure == "graph" else _executed(module, data.example)
    job.progress("rewrite", 1, 1)

    records, keys = approximant_records(selection)
    report = Report(
        version=odp.__version__,
        model=_record(original, data.example, before, after),
        calibration={
            "source": known.ranges.source,
            "samples": known.ranges.samples,
            "margin": job.defaults.margin,
        },
        passes=pass_records(job.typed, job.named, result, known.sites, selection),
        sites=site_records(known.sites, known.observations, selection, keys),
        approximants=records,
        total=cumulative.get(names[-1], {}) if names else {},
        # Where operators took every site, nothing depends on what calibration saw.
        warnings=[
            *(() if fused and not known.sites else data.warnings),
            *selection.warnings,
            *getattr(target, "refused", ()),
        ],
        near_misses=result.near_misses,
    )
    for record in report.passes:
        record.isolated = isolated.get(record.name, {})
        record.cumulative = cumulative.get(record.name, {})
    add_fused_sites(report, fused)
    report.statistics = asdict(statistics(report))
    return module, report, known.ranges


def _executed(module: torch.nn.Module, example: Inputs) -> tuple[dict[str, int], dict[str, int]]:
    """Operators that one run executes: all of them, and the transcendental ones."""
    # Calls meet the types of the example first, and trace what they are made of.
    run(module, example)
    with Operations() as counted:
        run(module, example)
    return dict(sorted(counted.all.items())), dict(sorted(counted.transcendental.items()))


def _record(
    original: torch.nn.Module,
    example: Inputs,
    before: tuple[dict[str, int], dict[str, int]],
    after: tuple[dict[str, int], dict[str, int]],
) -> ModelRecord:
    name = getattr(getattr(original, "config", None), "_name_or_path", "")
    return ModelRecord(
        path=name or type(original).__name__,
        opset_before=None,
        opset_after=None,
        nodes_before=sum(before[0].values()),
        nodes_after=sum(after[0].values()),
        parameters=sum(parameter.numel() for parameter in original.parameters()),
        inputs={key: list(tensor.shape) for key, tensor in example.tensors.items()},
        ops_before=before[0],
        ops_after=after[0],
        transcendental_before=before[1],
        transcendental_after=after[1],
    )
