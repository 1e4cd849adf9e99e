"""`compile_circuit`: from a model to the network, settings and input that EZKL proves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.job import Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from odp.backends.ezkl.choices import Choice
    from odp.backends.ezkl.compiler import Compiled
    from odp.backends.ezkl.division import Division
    from odp.backends.ezkl.policy import Native, Policy
    from odp.circuit_rewriting import Rewritten
    from odp.rewriter.report import Report

    Arrays = Mapping[str, NDArray[np.float64]]

__all__ = ["CompiledModel", "compile_circuit"]


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
        policy: its name, what stays an operation of EZKL, and what the alternatives cost.
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
    policy: Mapping[str, Any] = field(default_factory=dict)

    def manifest(self) -> dict[str, Any]:
        """Everything needed to make the circuit again, and to judge it."""
        import odp
        from odp.backends.ezkl.intervals import implied_ranges
        from odp.circuit_rewriting import expressions_of

        compiled = self.compiled
        circuit, schedule = compiled.program.circuit, compiled.program.schedule
        implied = implied_ranges(circuit, compiled.limits)
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
                    "follows_from_others": implied[number],
                }
                for number, node in enumerate(circuit.nodes)
                if node.value is None and node.kind != "input"
            },
            "rescales": rescales,
            "expressions": expressions_of(self.report),
            "divisions": [
                {"node": one.node.name, "module": one.node.module, "domain": [one.low, one.high]}
                | {"by": "EZKL" if one.approximant is None else one.approximant.description}
                for one in self.divisions
            ],
            "policy": dict(self.policy),
            "choices": [dataclasses.asdict(one) for one in self.choices()],
            "settings": dataclasses.asdict(compiled.arguments),
            "predicted": compiled.cost.summary(),
        }

    def choices(self) -> list[Choice]:
        """What was free, what was chosen and why: the circuit as a whole, then every site."""
        from odp.backends.ezkl.choices import Choice
        from odp.backends.ezkl.expressions import FEW

        compiled = self.compiled
        schedule, nodes = compiled.program.schedule, compiled.program.circuit.nodes
        rescaled = [
            node.elements
            for number, node in enumerate(nodes)
            if node.value is None and schedule.rescaled(number)
        ]
        variables = [node for node in nodes if node.value is None]
        found = [
            *compiled.choices,
            Choice(
                "rescales",
                f"{len(rescaled)} tensors, {sum(rescaled):,} elements",
                f"{len(variables)} tensors, {sum(node.elements for node in variables):,} elements",
                "fewest rows by the integer program that keep every integer within its bits",
            ),
            Choice(
                "error of expressions",
                f"{self.site_error:g} at each site",
                f"{self.approximation / compiled.error:.0%} of the error is theirs",
                "rounding keeps the larger part of the squared error",
            ),
        ]
        expressions = {record.key: record.description for record in self.report.approximants}
        for site in self.report.sites:
            low, high = site.domain
            found.append(
                Choice(
                    f"{site.function} at {site.node}",
                    expressions[site.approximant],
                    f"on [{low:.4g}, {high:.4g}]",
                    "lowest degree within the error, for degrees cost bits"
                    if (site.elements or 0) > FEW
                    else "fewest operations: one value a row",
                )
            )
        for one in self.divisions:
            if one.approximant is not None:
                found.append(
                    Choice(
                        f"division at {one.node.name}",
                        one.approximant.description,
                        f"on [{one.low:.4g}, {one.high:.4g}]",
                        "fewest operations without a division",
                    )
                )
        return found

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
    policy: Policy = "rational",
    dense: Sequence[str] = (),
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
        policy: `rational` replaces everything that is not + - *; `cheapest` leaves square roots and
            reciprocals to EZKL, which needs no table for them, where that is predicted cheaper.
        dense: how the paths of modules end whose weights stay one matrix where they are ternary.
        progress: called when a stage advances.

    Returns:
        The circuit; `save` writes the files that `odp ezkl prove` takes.

    Raises:
        OdpError: bad input, an operation that no circuit has, or an error that cannot be kept.
    """
    from odp.backends.ezkl.compiler import compile_circuit as schedule
    from odp.backends.ezkl.cost import RunArguments
    from odp.backends.ezkl.policy import Native
    from odp.circuit_policies import cheapest
    from odp.circuit_rewriting import Wishes, balanced, check_options, rewritten

    path = Path(model)
    check_options(error, policy)
    data = str(calibration) if calibration is not None else None
    arguments = RunArguments(ignore_range_check_inputs_outputs=not check_ranges)

    def made(native: Native) -> tuple[Rewritten, Compiled]:
        wishes = Wishes(
            path, passes, data, shapes, margin, samples, seed, native, progress, dense=dense
        )
        found = balanced(wishes, error) if site_error is None else rewritten(wishes, site_error)
        compiled = schedule(
            found.circuit,
            found.inputs,
            found.outputs,
            error=error,
            margin=margin,
            arguments=arguments,
            progress=lambda done, total: progress("schedule", done, total),
        )
        return found, compiled

    native, record = Native(), {"native": str(Native())}
    if policy == "cheapest":
        (found, compiled), native, record = cheapest(made)
    else:
        found, compiled = made(native)
    return CompiledModel(
        compiled,
        found.lowered.report,
        found.divisions,
        found.site_error,
        found.error,
        str(path),
        hashlib.sha256(path.read_bytes()).hexdigest(),
        found.inputs,
        found.outputs,
        {"name": policy, **record},
    )
