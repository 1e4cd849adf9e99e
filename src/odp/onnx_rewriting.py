"""`odp.rewrite` for ONNX: from a model to a rewritten model, its report and its ranges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import odp
from odp.approximations.errors import OdpError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    from numpy.typing import NDArray

    from odp.job import Job, Stage
    from odp.rewriter.measurement import Outputs
    from odp.rewriter.onnx_graph import OnnxGraph
    from odp.rewriter.ranges import Ranges
    from odp.rewriter.report import Metrics, ModelRecord, Report
    from odp.rewriter.rewrite_pass import Pass
    from odp.rewriter.samples import Samples
    from odp.rewriter.selection import Selection
    from odp.rewriter.site import Request, Site

    Calibration = str | Path | Mapping[str, NDArray[Any]] | Ranges | None
    Model = str | Path | ir.Model | onnx.ModelProto

__all__ = ["find_sites_of_model", "reference_run", "rewrite_model"]


def rewrite_model(
    model: Model,
    job: Job,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    opset: int | None = 12,
) -> tuple[ir.Model, Report, Ranges]:
    """Replace the transcendental operations of an ONNX model; see `odp.rewrite`.

    Args:
        model: path of an ONNX file, an `onnx.ModelProto` or an `onnx_ir.Model` (copied).
        job: what is asked for.
        shapes: static shapes of inputs that have dynamic ones.
        opset: operator set to lower to, which is 12; None keeps the model's.

    Returns:
        The rewritten model, lowered to the opset, the report, and what calibration saw.

    Raises:
        OdpError: bad input; one line that says what, where and what to do.
    """
    from odp.rewriter.manager import rewrite_graph, schedule
    from odp.rewriter.onnx_calibration import calibrate
    from odp.rewriter.onnx_graph import OnnxGraph
    from odp.rewriter.ranges import Ranges, places_of
    from odp.rewriter.report import Report
    from odp.rewriter.reporting import approximant_records, pass_records, site_records
    from odp.rewriter.selection import Approximating
    from odp.rewriter.statistics import statistics

    typed, progress, explain = job.typed, job.progress, job.explain
    requests = schedule(typed, job.available)
    progress("load", 0, 1)
    original, before = _load(model)
    if opset not in (None, 12, before.opset):
        # Said before hours of calibration, not after.
        raise OdpError(
            f"cannot lower opset {before.opset} to {opset}: the target is 12, or 'keep' for the "
            "opset of the model"
        )
    prepared = _prepare(original, shapes or {})
    found = OnnxGraph(prepared).transcendental()
    graph = OnnxGraph(_expand(prepared, typed))
    ranges = _ranges(job.calibration)
    data = job.calibration if ranges is None else None
    feeds = _samples(graph.model, data, job.samples, job.seed)
    progress("load", 1, 1)

    sites, observations, _ = calibrate(graph, requests, feeds, job.counted("calibrate", len(feeds)))
    fingerprint = _fingerprint(graph.model)
    other: list[str] = []
    if ranges is None:
        digest, count = _digest(feeds), len(feeds)
        places = places_of(sites)
        ranges = Ranges(fingerprint, digest, feeds.source, count, observations, places)
    else:
        observations, other = ranges.matching(sites, fingerprint)
    progress("approximate", 0, 1)
    selection = job.selector(sites, observations, job.defaults)
    progress("approximate", 1, 1)

    reference: Outputs = []
    if job.measure:
        # The model as it came, not as simplified and expanded: an error there must show, too.
        reference = _outputs(before.model, feeds)
    isolated, cumulative = _measure(graph, requests, typed, selection, feeds, reference, progress)
    progress("rewrite", 0, 1)
    result = rewrite_graph(graph, requests, Approximating(selection), frozenset(explain))
    lowered = _lower(graph, opset)
    progress("rewrite", 1, 1)

    records, keys = approximant_records(selection)
    report = Report(
        version=odp.__version__,
        model=_model_record(model, before, found, lowered, feeds),
        calibration={
            "source": ranges.source,
            "samples": ranges.samples,
            "margin": job.defaults.margin,
        },
        passes=pass_records(typed, job.named, result, sites, selection),
        sites=site_records(sites, observations, selection, keys),
        approximants=records,
    )
    if job.measure:
        from odp.rewriter.measurement import compare

        report.total = compare(reference, _outputs(lowered.model, feeds))
        cumulative |= dict.fromkeys(list(isolated)[-1:], report.total)
    for record in report.passes:
        record.isolated = isolated.get(record.name, {})
        record.cumulative = cumulative.get(record.name, {})
    report.warnings = [*_warnings(ranges, selection), *other]
    report.near_misses = result.near_misses
    report.statistics = asdict(statistics(report))
    return lowered.model, report, ranges


def _model_record(
    model: Model, before: OnnxGraph, found: dict[str, int], lowered: OnnxGraph, feeds: Samples
) -> ModelRecord:
    from odp.rewriter.report import ModelRecord

    stored = [value.const_value for value in lowered.model.graph.initializers.values()]
    ops_before, ops_after = before.operations(), lowered.operations()
    return ModelRecord(
        path=str(model) if isinstance(model, str | Path) else "",
        opset_before=before.opset,
        opset_after=lowered.opset,
        nodes_before=sum(ops_before.values()),
        nodes_after=sum(ops_after.values()),
        parameters=sum(tensor.size for tensor in stored if tensor is not None),
        inputs={k: list(v.shape) for k, v in feeds.feeds[0].items()} if len(feeds) else {},
        ops_before=ops_before,
        ops_after=ops_after,
        transcendental_before=found,
        transcendental_after=lowered.transcendental(),
    )


def _load(model: Model) -> tuple[ir.Model, OnnxGraph]:
    """The model with functions inlined, and a view of it as it came."""
    import onnx
    import onnx_ir as ir

    from odp.backends.onnx.load import check_domains, inline_functions, load_model
    from odp.backends.onnx.structure import check_structure
    from odp.rewriter.onnx_graph import OnnxGraph

    if isinstance(model, str | Path):
        loaded = load_model(Path(model))
    elif isinstance(model, ir.Model):
        loaded = model.clone()
    elif isinstance(model, onnx.ModelProto):
        loaded = ir.from_proto(model)
    else:
        raise OdpError(
            f"cannot rewrite a {type(model).__name__}: give the path of an ONNX file, an "
            "onnx.ModelProto, an onnx_ir.Model, a torch module or an exported program"
        )
    check_structure(loaded)
    check_domains(loaded)
    inline_functions(loaded)
    return loaded, OnnxGraph(loaded.clone())


def _prepare(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> ir.Model:
    from odp.backends.onnx.freeze import freeze_shapes, require_static_inputs, simplify

    freeze_shapes(model, shapes)
    require_static_inputs(model)
    return simplify(model)


def _expand(model: ir.Model, typed: Sequence[Pass]) -> ir.Model:
    """Write out operators, such as Attention, that the ONNX standard defines by others."""
    from odp.backends.onnx.freeze import simplify
    from odp.rewriter.onnx_expansion import expand_schema_functions, kinds_that_hide

    if expand_schema_functions(model, kinds_that_hide(rewrite.name for rewrite in typed)):
        return simplify(model)
    return model


def _samples(model: ir.Model, calibration: Calibration, limit: int | None, seed: int) -> Samples:
    from odp.rewriter.samples import generate_samples, load_samples, split_samples

    if calibration is None:
        return generate_samples(model, limit or 4, seed)
    if isinstance(calibration, str | Path):
        return load_samples(Path(calibration), model, limit)
    if not isinstance(calibration, Mapping):
        raise OdpError(
            "calibration of an ONNX model is an .npz file, arrays by input name, or ranges (a "
            f".json file), not a {type(calibration).__name__}"
        )
    return split_samples(dict(calibration), model, "calibration", limit)


def _ranges(calibration: Calibration) -> Ranges | None:
    """The ranges that were given instead of inputs."""
    from odp.rewriter.ranges import Ranges, read_ranges

    if isinstance(calibration, Ranges):
        return calibration
    if isinstance(calibration, str | Path) and Path(calibration).suffix == ".json":
        return read_ranges(Path(calibration))
    return None


def _fingerprint(model: ir.Model) -> str:
    """A digest of names, shapes and up to 1,024 values of each stored tensor."""
    import hashlib

    digest = hashlib.sha256()
    for name, value in sorted(model.graph.initializers.items()):
        if value.const_value is not None:
            array = value.const_value.numpy().reshape(-1)
            digest.update(f"{name}{value.const_value.shape}".encode())
            digest.update(array[:: max(1, array.size // 1024)].tobytes())
    return digest.hexdigest()[:32]


def _digest(feeds: Samples) -> str:
    """A digest of the inputs, in order."""
    import hashlib

    digest = hashlib.sha256()
    for feed in feeds:
        for name, array in sorted(feed.items()):
            digest.update(f"{name}{array.shape}{array.dtype}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()[:32]


def reference_run(
    model: Model, job: Job, shapes: Mapping[str, Sequence[int]] | None = None
) -> tuple[list[dict[str, NDArray[Any]]], Outputs]:
    """The calibration inputs of a job by name, and what the model as it came makes of them.

    Raises:
        OdpError: bad input.
    """
    original, before = _load(model)
    prepared = _prepare(original, shapes or {})
    feeds = _samples(prepared, job.calibration, job.samples, job.seed)
    return [dict(feed) for feed in feeds], _outputs(before.model, feeds)


def _outputs(model: ir.Model, feeds: Samples) -> list[dict[str, NDArray[Any]]]:
    from odp.rewriter.execution import Session

    session = Session(model)
    return [session.run(feed) for feed in feeds]


def _measure(
    graph: OnnxGraph,
    requests: Sequence[Request],
    typed: Sequence[Pass],
    selection: Selection,
    feeds: Samples,
    reference: Outputs,
    progress: Stage,
) -> tuple[dict[str, dict[str, Metrics]], dict[str, dict[str, Metrics]]]:
    """Metrics of every pass that has sites: alone, and together with all passes before it.

    All passes together are left out: that is the model that comes out, and measured as such.
    """
    from odp.rewriter.manager import rewrite_graph
    from odp.rewriter.measurement import compare
    from odp.rewriter.selection import Approximating

    if not reference:
        return {}, {}
    active = {site_id.split("/", 1)[0] for site_id in selection.choices}
    names = [rewrite.name for rewrite in typed if rewrite.name in active]
    known: dict[frozenset[str], dict[str, Metrics]] = {}

    def metrics(enabled: frozenset[str]) -> dict[str, Metrics]:
        if enabled not in known:
            clone = graph.clone()
            rewrite_graph(clone, requests, Approximating(selection, enabled))
            known[enabled] = compare(reference, _outputs(clone.model, feeds))
        return known[enabled]

    isolated, cumulative = {}, {}
    for index, name in enumerate(names):
        progress("measure", index, len(names))
        isolated[name] = metrics(frozenset({name}))
        if name != names[-1]:
            cumulative[name] = metrics(frozenset(names[: index + 1]))
    progress("measure", len(names), len(names))
    return isolated, cumulative


def _lower(graph: OnnxGraph, opset: int | None) -> OnnxGraph:
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    from odp.backends.onnx.check import check_model
    from odp.backends.onnx.freeze import run_shape_inference
    from odp.backends.onnx.legalise import legalise
    from odp.rewriter.onnx_graph import OnnxGraph

    if opset is None:
        RemoveUnusedNodesPass()(graph.model)
        run_shape_inference(graph.model)
    else:
        legalise(graph.model, opset)
    check_model(graph.model)
    return OnnxGraph(graph.model)


def _warnings(ranges: Ranges, selection: Selection) -> list[str]:
    warnings = list(selection.warnings)
    if ranges.source == "generated" and selection.choices:
        warnings.insert(
            0,
            "domains were calibrated on RANDOM inputs, which real data may leave: "
            "give real inputs with --calibrate data.npz",
        )
    return warnings


def find_sites_of_model(
    model: Model, shapes: Mapping[str, Sequence[int]] | None = None
) -> tuple[list[Site], dict[str, int]]:
    """Every site that the passes of `all` would rewrite, without running the model.

    Args:
        model: as for `rewrite_model`.
        shapes: static shapes of inputs that have dynamic ones.

    Returns:
        The sites, and the transcendental operations that no pass takes, by type.

    Raises:
        OdpError: bad input.
    """
    from odp.backends.onnx.freeze import freeze_shapes, simplify
    from odp.passes import registry
    from odp.rewriter.calibration import Recorder
    from odp.rewriter.manager import rewrite_graph, schedule
    from odp.rewriter.onnx_graph import OnnxGraph
    from odp.rewriter.onnx_vocabulary import is_transcendental

    loaded, _ = _load(model)
    freeze_shapes(loaded, shapes or {})
    graph = OnnxGraph(simplify(loaded))
    recorder = Recorder()
    passes = [kind() for kind in registry().values() if kind.in_all]
    rewrite_graph(graph, schedule(passes, registry()), recorder)
    # What the recorder emitted in place of a site is transcendental too, and is not counted.
    left = Counter(
        node.native_type
        for node in graph.nodes()
        if not node.emitted and is_transcendental(node.native)
    )
    return list(recorder.sites.values()), dict(sorted(left.items()))
