"""Circuits of one model side by side: as EZKL makes them, and ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odp.circuits import compile_circuit

if TYPE_CHECKING:
    import onnx

    from odp.backends.ezkl.comparison import Competitor

__all__ = ["compare_circuits", "lowered_original", "srs_folder"]


def compare_circuits(
    model: str | Path,
    *,
    goals: Sequence[str] = ("scale 7",),
    folder: str | Path,
    with_proof: bool = False,
    told: Callable[[str], None] = lambda message: None,
    **options: Any,
) -> list[Competitor]:
    """Circuits of one model: as EZKL makes them, and ours, with the same visibilities.

    Args:
        model: path of an ONNX model.
        goals: EZKL's circuits: `scale N`, or `resources` or `accuracy` for what its calibration
            finds.
        folder: where all files go.
        with_proof: whether to make keys and proofs; of EZKL's circuits where memory suffices.
        told: called with what a person must know.
        **options: of `compile_circuit`.

    Returns:
        EZKL's circuits in the order of `goals`, then ours.

    Raises:
        OdpError: as for `compile_circuit`; where EZKL fails on its own circuit, that says why.
    """
    from odp.backends.ezkl.artefacts import CircuitFolder
    from odp.backends.ezkl.comparison import ours, standard
    from odp.backends.ezkl.run_arguments import RunArguments

    target = Path(folder)
    compiled = compile_circuit(model, **options)
    compiled.save(target / "odp")
    plain = lowered_original(model, **options)
    arguments = RunArguments(
        ignore_range_check_inputs_outputs=not options.get("check_ranges", False)
    )
    shared: dict[str, Any] = {"with_proof": with_proof, "srs_folder": srs_folder(), "told": told}
    found = [
        standard(
            f"EZKL, {goal}",
            plain,
            compiled.inputs[0],
            compiled.outputs[0],
            target / goal.replace(" ", "-"),
            arguments,
            goal=goal,
            **shared,
        )
        for goal in goals
    ]
    found.append(ours(CircuitFolder(target / "odp"), compiled.outputs[0], **shared))
    return found


def lowered_original(model: str | Path, **options: Any) -> onnx.ModelProto:
    """A model at opset 12 with static shapes, and nothing replaced.

    Args:
        model: path of an ONNX model.
        **options: of `compile_circuit`, of which the shapes and the calibration count.

    Raises:
        OdpError: bad input.
    """
    import onnx_ir as ir

    from odp.onnx_rewriting import rewrite_model
    from odp.rewriting import job_of

    data = options.get("calibration")
    job = job_of([], calibration=None if data is None else str(data), measure=False, samples=1)
    lowered, _, _ = rewrite_model(model, job, shapes=options.get("shapes"), opset=12)
    return ir.to_proto(lowered)


def srs_folder() -> Path:
    """Where test reference strings are kept: they are large, and good for every circuit."""
    from platformdirs import user_cache_path

    return user_cache_path("odp") / "srs"
