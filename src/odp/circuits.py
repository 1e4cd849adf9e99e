"""`compile_circuit`: from a model to the network, settings and input that EZKL proves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.job import Job, Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from odp.backends.ezkl.circuit import Circuit
    from odp.backends.ezkl.compiler import Compiled
    from odp.backends.ezkl.division import Division
    from odp.rewriter.report import Report

    Arrays = Mapping[str, NDArray[np.float64]]

__all__ = ["CompiledModel", "compile_circuit"]

# Share of the squared error that the expressions may use, and what is tried to get there.
_SHARE = (0.05, 0.6)
_ATTEMPTS = 5
# Without a shift, weights of rows with small scores drown in the error of exp at large ones.
_WIDEST_SCORES = 8.0
_FIRST_SHARE, _FINER, _COARSER = 0.2, 0.25, 3.0


@dataclass(frozen=True)
class CompiledModel:
    """A model as a circuit.

    Attributes:
        compiled: integers, settings and predicted cost.
        report: of the rewrite.
        divisions: what became of divisions by variables.
        site_error: error that was asked of every expression.
        approximation: relative error of the outputs by expressions alone.
        source: path of the model.
        digest: of the model's bytes.
        inputs: the calibration inputs.
        outputs: what the original makes of them.
    """

    compiled: Compiled
    report: Report
    divisions: Sequence[Division]
    site_error: float
    approximation: float
    source: str
    digest: str
    inputs: Sequence[Arrays] = field(repr=False)
    outputs: Sequence[Arrays] = field(repr=False)

    def manifest(self) -> dict[str, Any]:
        """Everything needed to make the circuit again, and to judge it."""
        import odp

        compiled = self.compiled
        circuit, schedule = compiled.program.circuit, compiled.program.schedule
        rescales = [
            {
                "node": node.name,
                "module": node.module,
                "operation": node.kind,
                "elements": node.elements,
                "bits": schedule.rescaled(number),
                "scale": schedule.scales[number],
            }
            for number, node in enumerate(circuit.nodes)
            if node.value is None and schedule.rescaled(number)
        ]
        return {
            "odp": odp.__version__,
            "model": {"path": self.source, "sha256": self.digest},
            "error": compiled.error,
            "approximation_error": self.approximation,
            "site_error": self.site_error,
            "inputs": {
                name: {"shape": list(circuit.nodes[i].shape), "scale": schedule.scales[i]}
                for name, i in circuit.inputs.items()
            },
            "outputs": {
                name: {"shape": list(circuit.nodes[i].shape), "scale": schedule.scales[i]}
                for name, i in circuit.outputs.items()
            },
            "tensors": {
                f"t{number}": {
                    "node": node.name,
                    "module": node.module,
                    "scale": schedule.scales[number],
                    "largest": compiled.limits[number],
                }
                for number, node in enumerate(circuit.nodes)
                if node.value is None and node.kind != "input"
            },
            "rescales": rescales,
            "expressions": [
                {"pass": site.pass_name, "node": site.node, "function": site.function}
                | {"domain": list(site.domain), "expression": site.approximant}
                for site in self.report.sites
            ],
            "divisions": [
                {"node": one.node.name, "domain": [one.low, one.high], "by": str(one.approximant)}
                for one in self.divisions
            ],
            "settings": dataclasses.asdict(compiled.arguments),
            "predicted": {
                "rows": compiled.cost.rows,
                "logrows": compiled.arguments.logrows,
                "proving_key": compiled.cost.resources.proving_key,
                "peak_memory": compiled.cost.resources.peak_memory,
            },
        }

    def save(self, folder: str | Path) -> None:
        """Write network.onnx, settings.json, input.json and manifest.json.

        Args:
            folder: made if it is not there.

        Raises:
            OdpError: a file cannot be written, or EZKL refuses the network.
        """
        from odp.backends.ezkl.artefacts import input_json
        from odp.backends.ezkl.proving import run_ezkl
        from odp.backends.whole_files import write_bytes, write_text

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        program, arguments = self.compiled.program, self.compiled.arguments
        write_bytes(target / "network.onnx", program.to_onnx().SerializeToString())
        settings = target / "settings.json"
        run_ezkl(
            "gen_settings",
            target / "network.onnx",
            settings,
            py_run_args=arguments,
            writes=settings,
        )
        write_text(target / "input.json", input_json(program.quantise(self.inputs[0])))
        write_text(target / "manifest.json", json.dumps(self.manifest(), indent=1))


def compile_circuit(
    model: str | Path,
    passes: str = "all",
    *,
    calibration: str | Path | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    error: float = 0.01,
    site_error: float | None = None,
    margin: float = 0.25,
    samples: int | None = None,
    seed: int = 0,
    check_ranges: bool = False,
    progress: Stage = lambda what, done, total: None,
) -> CompiledModel:
    """Rewrite an ONNX model and schedule it as a circuit of integers for EZKL.

    Args:
        model: path of an ONNX model with float inputs.
        passes: what to replace, as for `odp.rewrite`.
        calibration: path of an .npz file with inputs; None generates random ones.
        shapes: static shapes of inputs that have dynamic ones.
        error: largest relative l2 error of the outputs against the original in float32, the
            expressions and all roundings together, on the calibration inputs.
        site_error: error of the expression at each site; None finds one that leaves rounding the
            larger part of `error`.
        margin: by how much more than calibration saw any value may be.
        samples: number of inputs to use.
        seed: of generated inputs.
        check_ranges: let EZKL check the ranges of inputs and outputs inside of the circuit, which
            is needed where they are not public.
        progress: called when a stage advances.

    Returns:
        The circuit; `save` writes the files that `odp ezkl prove` takes.

    Raises:
        OdpError: bad input, an operation that no circuit has, or an error that cannot be kept.
    """
    from odp.backends.ezkl.compiler import compile_circuit as schedule
    from odp.backends.ezkl.cost import RunArguments

    path = Path(model)
    if not 0.0 < error < 1.0:
        raise OdpError(f"the error of a circuit is a number between 0 and 1, not {error:g}")
    data = str(calibration) if calibration is not None else None

    shift = ["none"]

    def rewritten(wanted: float) -> _Rewritten:
        job = _job(passes, data, wanted, margin, samples, seed, progress, shift[0])
        try:
            return _rewritten(path, job, shapes)
        except _WideScores:
            shift[0] = "max"
            return rewritten(wanted)

    found = (
        rewritten(site_error)
        if site_error is not None
        else _balanced(rewritten, error, _FIRST_SHARE * error)
    )
    arguments = RunArguments(ignore_range_check_inputs_outputs=not check_ranges)
    compiled = schedule(
        found.circuit,
        found.inputs,
        found.outputs,
        error=error,
        margin=margin,
        arguments=arguments,
        progress=lambda done, total: progress("schedule", done, total),
    )
    return CompiledModel(
        compiled,
        found.report,
        found.divisions,
        found.site_error,
        found.error,
        str(path),
        hashlib.sha256(path.read_bytes()).hexdigest(),
        found.inputs,
        found.outputs,
    )


class _WideScores(Exception):
    """Scores of an attention differ by so much that the largest has to be subtracted."""


@dataclass(frozen=True)
class _Rewritten:
    circuit: Circuit
    divisions: list[Division]
    report: Report
    inputs: list[Arrays]
    outputs: list[Arrays]
    site_error: float
    error: float


def _balanced(rewritten: Any, error: float, first: float) -> _Rewritten:
    """Expressions that use up a fair share of the error, neither most of it nor next to nothing."""
    wanted, best = first, None
    for _ in range(_ATTEMPTS):
        found: _Rewritten = rewritten(wanted)
        share = (found.error / error) ** 2
        if share <= _SHARE[1] and (best is None or found.site_error > best.site_error):
            best = found
        if share > _SHARE[1]:
            if best is not None:
                break
            wanted *= _FINER
        elif share < _SHARE[0]:
            wanted *= _COARSER
        else:
            break
    if best is None:
        raise OdpError(
            f"expressions with errors down to {wanted / _FINER:.1g} at each site change the "
            f"outputs by {found.error:.2g}, more than the {error:g} that are allowed"
        )
    return best


def _job(
    passes: str,
    calibration: str | None,
    error: float,
    margin: float,
    samples: int | None,
    seed: int,
    progress: Stage,
    shift: str,
) -> Job:
    from odp.backends.ezkl.expressions import select_for_circuit
    from odp.rewriting import job_of

    job = job_of(
        passes,
        calibration=calibration,
        error=error,
        margin=margin,
        guard="none",
        samples=samples,
        seed=seed,
        measure=False,
        progress=progress,
    )
    typed = [
        # Masks and comparisons have no place in integers; what the user typed stands.
        dataclasses.replace(one, mask=one.mask or "multiply", shift=one.shift or shift)  # type: ignore[attr-defined, call-arg]
        if one.name == "softmax"
        else one
        for one in job.typed
    ]
    return dataclasses.replace(job, typed=typed, selector=select_for_circuit)


def _rewritten(path: Path, job: Job, shapes: Mapping[str, Sequence[int]] | None) -> _Rewritten:
    """The circuit of a model with the expressions of a job, and what its inputs become."""
    import onnx_ir as ir

    from odp.backends.ezkl.compiler import relative_error
    from odp.backends.ezkl.division import without_division
    from odp.backends.ezkl.lint import Problem
    from odp.backends.ezkl.reading import read_circuit
    from odp.onnx_rewriting import reference_run, rewrite_model

    lowered, report, _ = rewrite_model(path, job, shapes=shapes, opset=12)
    skipped = [
        Problem(f"node '{one.node}'", one.op, f"{record.name}: {one.reason}")
        for record in report.passes
        for one in record.skipped
    ]
    for site in report.sites:
        wide = site.domain[1] - site.domain[0] > _WIDEST_SCORES and site.domain[1] > 0.0
        if site.pass_name.startswith("softmax") and wide:
            raise _WideScores
    circuit = read_circuit(ir.to_proto(lowered), skipped)
    inputs, outputs = reference_run(path, job, shapes)
    error = job.defaults.error
    samples = [circuit.evaluate(one) for one in inputs]
    circuit, divisions = without_division(circuit, samples, error, job.defaults.margin)
    worst = 0.0
    for one, wanted in zip(inputs, outputs, strict=True):
        values = circuit.evaluate(one)
        found = {name: values[number] for name, number in circuit.outputs.items()}
        worst = max(worst, relative_error(found, wanted))
    return _Rewritten(circuit, divisions, report, list(inputs), list(outputs), error, worst)
