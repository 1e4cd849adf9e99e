"""`compile_plain`: a rewritten float model for EZKL, which decides scales and tables itself."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.approximations.errors import OdpError
from odp.job import Stage

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from odp.backends.ezkl.cost import CostReport, RunArguments
    from odp.backends.ezkl.plain import Settled
    from odp.backends.ezkl.policy import Native, Policy
    from odp.circuit_rewriting import Wishes
    from odp.rewriter.report import Report

    Arrays = Mapping[str, NDArray[np.float64]]

__all__ = ["SCALES", "PlainModel", "compile_plain"]

SCALES = (7, 10, 12, 14)
"""What is tried, in this order, until the error is kept; the first is EZKL's default."""

# Share of the error that the expressions may use, and how it is reached.
_SHARE, _FIRST, _FINER, _ATTEMPTS = 0.7, 0.2, 0.25, 4


@dataclass(frozen=True)
class PlainModel:
    """A model as a circuit of EZKL's own scales.

    Attributes:
        network: in real numbers.
        settled: EZKL's settings, and the errors of its witness.
        cost: predicted.
        ranges: node, module and log2 of the largest value of every tensor, by name.
        policy: its name, what stays an operation of EZKL, and what the alternatives cost.
        report: of the rewrite.
        site_error: error that was asked of every expression.
        approximation: relative error of the outputs by expressions alone.
        source: path of the model.
        digest: of the model's bytes.
        inputs: the calibration inputs.
        outputs: what the original makes of them.
    """

    network: onnx.ModelProto
    settled: Settled
    cost: CostReport
    ranges: Mapping[str, Mapping[str, Any]]
    policy: Mapping[str, Any]
    report: Report
    site_error: float
    approximation: float
    source: str
    digest: str
    inputs: Sequence[Arrays] = field(repr=False)
    outputs: Sequence[Arrays] = field(repr=False)

    def manifest(self) -> dict[str, Any]:
        """Everything needed to make the circuit again, and to judge it."""
        import odp
        from odp.circuit_rewriting import expressions_of

        arguments, settings = self.settled.arguments, self.settled.settings
        labels = settings.get("model_output_scales", [])
        outputs = zip(self.outputs[0].items(), labels, strict=False)
        return {
            "odp": odp.__version__,
            "profile": "plain",
            "model": {"path": self.source, "sha256": self.digest},
            "scale": arguments.input_scale,
            "error": self.settled.error,
            "rounding_error": self.settled.rounding,
            "approximation_error": self.approximation,
            "site_error": self.site_error,
            "inputs": {
                name: {"shape": list(array.shape), "scale": arguments.input_scale}
                for name, array in self.inputs[0].items()
            },
            "outputs": {
                name: {"shape": list(array.shape), "scale": label}
                for (name, array), label in outputs
            },
            "tensors": self.ranges,
            "policy": dict(self.policy),
            "tables": [table.name for table in self.cost.lookups],
            "expressions": expressions_of(self.report),
            "settings": dataclasses.asdict(arguments),
            "predicted": self.cost.summary(),
        }

    def save(self, folder: str | Path) -> None:
        """Write network.onnx, settings.json, input.json (real numbers) and manifest.json.

        Args:
            folder: made if it is not there.

        Raises:
            OdpError: a file cannot be written.
        """
        from odp.backends.ezkl.artefacts import real_input_json
        from odp.backends.whole_files import write_bytes, write_text

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        write_bytes(target / "network.onnx", self.network.SerializeToString())
        write_text(target / "settings.json", json.dumps(self.settled.settings))
        write_text(target / "input.json", real_input_json(self.inputs[0]))
        write_text(target / "manifest.json", json.dumps(self.manifest(), indent=1))


@dataclass(frozen=True)
class _Rewritten:
    network: onnx.ModelProto
    report: Report
    inputs: list[Arrays]
    outputs: list[Arrays]
    site_error: float
    error: float
    native: Native
    circuits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def compile_plain(
    model: str | Path,
    passes: str = "all",
    *,
    calibration: str | Path | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    error: float = 0.01,
    scale: int | None = None,
    site_error: float | None = None,
    margin: float = 0.25,
    samples: int | None = None,
    seed: int = 0,
    check_ranges: bool = False,
    policy: Policy = "rational",
    progress: Stage = lambda what, done, total: None,
) -> PlainModel:
    """Rewrite an ONNX model and let EZKL choose scales, rescales and tables of what is left.

    What the passes leave native stays as it is: EZKL has tables for it.

    Args:
        model: path of an ONNX model.
        passes: what to replace, as for `odp.rewrite`.
        calibration: path of an .npz file with inputs; None generates random ones.
        shapes: static shapes of inputs that have dynamic ones.
        error: largest relative l2 error of the witness against the original in float32.
        scale: bits after the point; None takes the first of 7, 10, 12 and 14 that keeps the error.
        site_error: error of the expression at each site; None finds one.
        margin: by how much the ranges of expressions grow beyond what calibration saw.
        samples: number of inputs to use.
        seed: of generated inputs.
        check_ranges: let EZKL check the ranges of inputs and outputs inside of the circuit.
        policy: `rational` replaces all that the passes name; `cheapest` leaves square roots and
            their reciprocals to EZKL, which needs no table for them, where that takes fewer rows.
        progress: called when a stage advances.

    Raises:
        OdpError: bad input, an operator that EZKL cannot read, or an error that no scale keeps.
    """
    from odp.backends.ezkl.cost import RunArguments, predict
    from odp.backends.ezkl.policy import Native
    from odp.backends.ezkl.real_ranges import calibrated_ranges
    from odp.circuit_rewriting import Wishes, check_options

    path = Path(model)
    check_options(error, policy)
    data = str(calibration) if calibration is not None else None
    natives = (Native(), Native(roots=True))[: 2 if policy == "cheapest" else 1]
    wishes = Wishes(path, passes, data, shapes, margin, samples, seed, Native(), progress, None)
    arguments = RunArguments(ignore_range_check_inputs_outputs=not check_ranges)
    found, settled = _settled(wishes, error, natives, site_error, arguments, scale)
    if settled.error > error:
        found.report.warnings.append(
            f"at scale {scale} EZKL's witness is off by {settled.error:.2g}, more than the "
            f"{error:g} that are wanted; leave --scale out to have one chosen"
        )
    return PlainModel(
        found.network,
        settled,
        predict(found.network, settled.arguments, settled.arguments.logrows),
        calibrated_ranges(found.network, found.inputs, margin),
        {"name": policy, "native": str(found.native), "circuits": found.circuits},
        found.report,
        found.site_error,
        found.error,
        str(path),
        hashlib.sha256(path.read_bytes()).hexdigest(),
        found.inputs,
        found.outputs,
    )


def _settled(
    wishes: Wishes,
    error: float,
    natives: Sequence[Native],
    site_error: float | None,
    arguments: RunArguments,
    typed: int | None,
) -> tuple[_Rewritten, Settled]:
    """Network and settings of the typed scale, or of the first that keeps the error."""
    from odp.backends.ezkl.plain import settle

    scales = SCALES if typed is None else (typed,)
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="odp-plain-") as folder:
        for done, scale in enumerate(scales):
            wishes.progress("scales", done, len(scales))
            forms = [
                _fine_enough(dataclasses.replace(wishes, native=native), error, site_error, scale)
                for native in natives
            ]
            found = _cheapest(forms, error, arguments, scale)
            if found.error > error and typed is None:
                said.append(f"scale {scale}: expressions alone off by {found.error:.2g}")
                continue
            try:
                settled = settle(
                    found.network, found.inputs, found.outputs, arguments, scale, Path(folder)
                )
            except OdpError as failure:
                known = any(str(failure) in line for line in said)
                said.append(f"scale {scale}: {'the same' if known else failure}")
                continue
            if settled.error <= error or typed is not None:
                wishes.progress("scales", len(scales), len(scales))
                return found, settled
            said.append(f"scale {scale}: off by {settled.error:.2g}")
    raise OdpError(
        f"EZKL keeps a relative error of {error:g} at none of these scales ({'; '.join(said)}); "
        "allow a larger error, or use --profile scheduled"
    )


def _cheapest(
    forms: Sequence[_Rewritten], error: float, arguments: RunArguments, scale: int
) -> _Rewritten:
    """Of the forms that keep an error the one with the fewest rows, and a record of all."""
    from odp.backends.ezkl.cost import predict

    scaled = dataclasses.replace(arguments, input_scale=scale, param_scale=scale)
    rows = [predict(form.network, scaled).rows for form in forms]
    best = min(zip(forms, rows, strict=True), key=lambda pair: (pair[0].error > error, pair[1]))
    circuits = {str(form.native): {"rows": n} for form, n in zip(forms, rows, strict=True)}
    return dataclasses.replace(best[0], circuits=circuits)


def _fine_enough(wishes: Wishes, error: float, site_error: float | None, scale: int) -> _Rewritten:
    """The network with expressions that leave room for rounding, if there are such at a scale."""
    if site_error is not None:
        return _rewritten(wishes, site_error, scale)
    wanted, best = _FIRST * error, None
    for _ in range(_ATTEMPTS):
        found = _rewritten(wishes, wanted, scale)
        if best is not None and found.error >= best.error:
            break
        best = found
        if best.error <= _SHARE * error:
            break
        wanted *= _FINER
    assert best is not None
    return best


def _rewritten(wishes: Wishes, site_error: float, scale: int) -> _Rewritten:
    import onnx_ir as ir

    from odp.backends.ezkl.compiler import relative_error
    from odp.backends.ezkl.plain_expressions import select_for_scale
    from odp.backends.ezkl.plain_network import plain_network
    from odp.backends.onnx.freeze import simplify
    from odp.circuit_rewriting import circuit_job
    from odp.onnx_rewriting import reference_run, rewrite_model
    from odp.rewriter.execution import Session

    native = wishes.native
    job = circuit_job(wishes, site_error, select_for_scale(scale, native.functions))
    lowered, report, _ = rewrite_model(wishes.model, job, shapes=wishes.shapes, opset=12)
    network = plain_network(ir.to_proto(simplify(lowered, keep=lambda node: False)))
    inputs, outputs = reference_run(wishes.model, job, wishes.shapes)
    session = Session(ir.from_proto(network))
    worst = max(
        relative_error(session.run(one), reference)
        for one, reference in zip(inputs, outputs, strict=True)
    )
    return _Rewritten(network, report, list(inputs), list(outputs), site_error, worst, native)
